/*
 * Extended attributes, in the two forms in which they are stored.
 *
 *   SA form         one packed (XDR) nvlist of byte arrays in the system attribute DXATTR of the file itself;
 *                   at most 32768 bytes a value and 65535 in all
 *   directory form  attribute XATTR names a hidden directory with one regular file per attribute
 *
 * Reading looks at the SA form first. Writing prefers it when the dataset's property xattr=sa, and falls back
 * to the directory form for what does not fit; what is set in one form is removed from the other. Names carry
 * their namespace ("user.x"); other systems store the user's without it, so a bare "x" is read as "user.x".
 *
 * The nvlist is kept in the node once read. Everything here happens under the node's xattr_lock: for reading
 * when the cache is filled, else for writing.
 */
#include "zpl/zpl_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define SA_VALUE_MAX 32768u
#define SA_PACKED_MAX 65535u
#define VALUE_MAX 65536u

static const char user_prefix[] = "user.";

/* ---- loading ---- */

void zpl_xattr_forget(struct zpl_node *node)
{
	nvlist_free(node->xattr_sa);
	node->xattr_sa = NULL;
	node->xattr_object = 0;
	node->xattr_loaded = false;
}

static int read_sa(struct zpl_node *node, nvlist_t **ret_list)
{
	sa_attr_type_t attr = node->fs->table[ZPL_DXATTR];
	nvlist_t *list = NULL;
	char *packed;
	int size, error;

	if (node->old_format)
		return 0;
	error = sa_size(node->hdl, attr, &size);
	if (error == ENOENT || (error == 0 && size == 0))
		return 0;
	if (error)
		return zpl_error(error);
	packed = malloc((size_t)size);
	if (!packed)
		return -ENOMEM;
	error = sa_lookup(node->hdl, attr, packed, (uint32_t)size);
	if (error == 0 && nvlist_unpack(packed, (size_t)size, &list, 0) != 0)
		error = EUCLEAN;
	free(packed);
	if (error)
		return zpl_error(error);
	*ret_list = list;
	return 0;
}

/* Lock held for writing. */
int zpl_xattr_load(struct zpl_node *node)
{
	uint64_t object = 0;
	nvlist_t *list = NULL;
	int ret;

	if (node->xattr_loaded)
		return 0;
	ret = read_sa(node, &list);
	if (ret)
		return ret;
	ret = zpl_error(sa_lookup(node->hdl, node->fs->table[ZPL_XATTR], &object, 8));
	if (ret == -ENOENT) {
		object = 0;
		ret = 0;
	}
	if (ret) {
		nvlist_free(list);
		return ret;
	}
	node->xattr_sa = list;
	node->xattr_object = object;
	node->xattr_loaded = true;
	return 0;
}

static int lock_for_reading(struct zpl_node *node)
{
	int ret;

	pthread_rwlock_rdlock(&node->xattr_lock);
	if (node->xattr_loaded)
		return 0;
	pthread_rwlock_unlock(&node->xattr_lock);
	/* Nobody forgets while operations run, so a loaded node stays loaded between the two locks. */
	pthread_rwlock_wrlock(&node->xattr_lock);
	ret = zpl_xattr_load(node);
	pthread_rwlock_unlock(&node->xattr_lock);
	if (ret == 0)
		pthread_rwlock_rdlock(&node->xattr_lock);
	return ret;
}

/* The hidden directory; -ENOENT if there is none. */
static int hidden_dir(struct zpl_node *node, struct zpl_node **ret_dir)
{
	struct zpl_node *dir;
	int ret;

	if (node->xattr_object == 0)
		return -ENOENT;
	ret = zpl_node_get(node->fs, node->xattr_object, 0, &dir);
	if (ret)
		return ret == -ENOENT ? -EUCLEAN : ret;
	if (!dir->is_xattr || !zpl_is_dir(dir)) {
		zpl_release(dir);
		return -EUCLEAN;
	}
	*ret_dir = dir;
	return 0;
}

static int hidden_file(struct zpl_node *dir, const char *name, struct zpl_node **ret_file)
{
	struct zpl_node *file;
	int ret = zpl_lookup_node(dir, name, 0, &file);

	if (ret)
		return ret;
	if (!S_ISREG(file->mode) || !file->is_xattr || file->size > VALUE_MAX * 16) {
		zpl_release(file);
		return -EUCLEAN;
	}
	*ret_file = file;
	return 0;
}

/* ---- get ---- */

static int answer(const void *value, size_t length, void *buffer, size_t size, size_t *ret_length)
{
	if (size && length > size)
		return -ERANGE;
	if (size && length)
		memcpy(buffer, value, length);
	*ret_length = length;
	return 0;
}

static int get_sa(struct zpl_node *node, const char *name, void *buffer, size_t size, size_t *ret_length)
{
	uchar_t *value;
	uint_t length;

	if (!node->xattr_sa || nvlist_lookup_byte_array(node->xattr_sa, name, &value, &length) != 0)
		return -ENOENT;
	return answer(value, length, buffer, size, ret_length);
}

static int get_dir(struct zpl_node *node, const char *name, void *buffer, size_t size, size_t *ret_length)
{
	struct zpl_node *dir, *file;
	int ret = hidden_dir(node, &dir);

	if (ret)
		return ret;
	ret = hidden_file(dir, name, &file);
	zpl_release(dir);
	if (ret)
		return ret;
	if (size == 0)
		*ret_length = file->size;
	else if (file->size > size)
		ret = -ERANGE;
	else
		ret = zpl_file_read(file, 0, size, buffer, ret_length);
	zpl_release(file);
	return ret;
}

static int get_one(struct zpl_node *node, const char *name, void *buffer, size_t size, size_t *ret_length)
{
	int ret = get_sa(node, name, buffer, size, ret_length);

	return ret == -ENOENT ? get_dir(node, name, buffer, size, ret_length) : ret;
}

/* "x" for "user.x", else NULL. */
static const char *bare_name(const char *name)
{
	const size_t length = sizeof(user_prefix) - 1;

	return !strncmp(name, user_prefix, length) && name[length] ? name + length : NULL;
}

static int name_check(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || strchr(name, '/'))
		return -EINVAL;
	return length > XATTR_NAME_MAX ? -ERANGE : 0;
}

int zpl_getxattr(struct zpl_node *node, const char *name, void *buffer, size_t size, size_t *ret_length)
{
	int ret = zpl_enter_node(node, false);

	if (ret)
		return ret;
	ret = name_check(name);
	if (ret == 0)
		ret = lock_for_reading(node);
	if (ret == 0) {
		if (!node->xattr_sa && node->xattr_object == 0) /* the usual case, asked at every write */
			ret = -ENOENT;
		else
			ret = get_one(node, name, buffer, size, ret_length);
		if (ret == -ENOENT && bare_name(name))
			ret = get_one(node, bare_name(name), buffer, size, ret_length);
		pthread_rwlock_unlock(&node->xattr_lock);
	}
	zpl_exit(node->fs);
	return ret == -ENOENT ? -ENODATA : ret;
}

/* ---- list ---- */

struct listing {
	char *buffer;
	size_t size, used;
};

static bool has_namespace(const char *name)
{
	static const char *const known[] = {user_prefix, "system.", "security.", "trusted."};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strncmp(name, known[i], strlen(known[i])))
			return true;
	return false;
}

static int list_name(struct listing *listing, const char *name)
{
	const char *prefix = has_namespace(name) ? "" : user_prefix;
	size_t head = strlen(prefix), length = head + strlen(name) + 1;

	if (length > XATTR_NAME_MAX + 1) /* could not be asked for */
		return 0;
	if (listing->size) {
		if (length > listing->size - listing->used)
			return -ERANGE;
		memcpy(listing->buffer + listing->used, prefix, head);
		memcpy(listing->buffer + listing->used + head, name, length - head);
	}
	listing->used += length;
	return 0;
}

static int list_sa(struct zpl_node *node, struct listing *listing)
{
	nvpair_t *pair = NULL;

	if (!node->xattr_sa)
		return 0;
	while ((pair = nvlist_next_nvpair(node->xattr_sa, pair)) != NULL) {
		int ret = list_name(listing, nvpair_name(pair));

		if (ret)
			return ret;
	}
	return 0;
}

static int list_dir(struct zpl_node *node, struct listing *listing)
{
	zap_attribute_t *entry;
	zap_cursor_t cursor;
	struct zpl_node *dir;
	int ret = hidden_dir(node, &dir), error = 0;

	if (ret)
		return ret == -ENOENT ? 0 : ret;
	entry = zap_attribute_long_alloc();
	zap_cursor_init(&cursor, node->fs->os, dir->object);
	while (ret == 0 && (error = zap_cursor_retrieve(&cursor, entry)) == 0) {
		/* A crash between the two steps of changing form leaves it in both; it is one attribute. */
		if (!node->xattr_sa || !nvlist_exists(node->xattr_sa, entry->za_name))
			ret = list_name(listing, entry->za_name);
		zap_cursor_advance(&cursor);
	}
	zap_cursor_fini(&cursor);
	zap_attribute_free(entry);
	zpl_release(dir);
	return ret || error == ENOENT ? ret : zpl_error(error);
}

int zpl_listxattr(struct zpl_node *node, char *buffer, size_t size, size_t *ret_length)
{
	struct listing listing = {.buffer = buffer, .size = size};
	int ret = zpl_enter_node(node, false);

	if (ret)
		return ret;
	ret = lock_for_reading(node);
	if (ret == 0) {
		ret = list_sa(node, &listing);
		if (ret == 0)
			ret = list_dir(node, &listing);
		pthread_rwlock_unlock(&node->xattr_lock);
	}
	if (ret == 0)
		*ret_length = listing.used;
	zpl_exit(node->fs);
	return ret;
}

/* ---- set: SA form ---- */

/* Writes `list` and the time; on success the node takes the list. */
static int store_sa(struct zpl_node *node, nvlist_t *list, const char *name, const void *value, size_t size)
{
	const sa_attr_type_t *table = node->fs->table;
	size_t packed_size = 0;
	sa_bulk_attr_t bulk[3];
	char *packed = NULL;
	uint64_t now[2];
	dmu_tx_t *tx;
	int n = 0, ret;

	ret = -nvlist_size(list, &packed_size, NV_ENCODE_XDR);
	if (ret)
		return ret;
	if (packed_size > SA_PACKED_MAX)
		return -EOVERFLOW;
	ret = -nvlist_pack(list, &packed, &packed_size, NV_ENCODE_XDR, KM_SLEEP);
	if (ret)
		return ret;
	tx = dmu_tx_create(node->fs->os);
	dmu_tx_hold_sa_create(tx, (int)packed_size);
	dmu_tx_hold_sa(tx, node->hdl, B_TRUE);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		free(packed);
		return ret;
	}
	zpl_now(now);
	pthread_mutex_lock(&node->lock);
	zpl_status_changed(node, now);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_DXATTR], NULL, packed, (uint16_t)packed_size);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, node->ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
	ret = zpl_error(sa_bulk_update(node->hdl, bulk, n, tx));
	pthread_mutex_unlock(&node->lock);
	zpl_log_setxattr(node, name, value, size, tx);
	dmu_tx_commit(tx);
	free(packed);
	if (ret == 0) {
		nvlist_free(node->xattr_sa);
		node->xattr_sa = list;
	}
	return ret;
}

int zpl_xattr_set_sa(struct zpl_node *node, const char *name, const void *value, size_t size)
{
	nvlist_t *list = NULL;
	int ret;

	if (size > SA_VALUE_MAX || node->old_format || node->fs->version < ZPL_VERSION_SA)
		return -EOVERFLOW;
	ret = node->xattr_sa ? -nvlist_dup(node->xattr_sa, &list, KM_SLEEP)
			     : -nvlist_alloc(&list, NV_UNIQUE_NAME, KM_SLEEP);
	if (ret)
		return ret;
	if (value)
		ret = -nvlist_add_byte_array(list, name, (uchar_t *)value, (uint_t)size);
	else
		ret = -nvlist_remove_all(list, name);
	if (ret == 0)
		ret = store_sa(node, list, name, value, size);
	if (ret)
		nvlist_free(list);
	return ret;
}

/* ---- set: directory form ---- */

/* In the transaction. */
static int make_hidden_dir_in(struct zpl_node *node, const struct zpl_new *new, struct zpl_znode *z,
	dmu_tx_t *tx, struct zpl_node **ret_dir)
{
	struct zpl_fs *fs = node->fs;
	uint64_t object;
	int ret;

	if (z->gen == 0)
		z->gen = dmu_tx_get_txg(tx);
	ret = zpl_error(
		zpl_object_alloc(fs->os, true, (int)fs->norm, new->claim, new->dnodesize, tx, &object));
	if (ret)
		return ret;
	ret = zpl_node_new(fs, object, z, tx, ret_dir);
	if (ret)
		return ret;
	ret = zpl_error(sa_update(node->hdl, fs->table[ZPL_XATTR], &object, 8, tx));
	if (ret) {
		zpl_node_discard(*ret_dir, tx);
		return ret;
	}
	node->xattr_object = object;
	zpl_log_setxattr(node, "", NULL, 0, tx);
	return 0;
}

int zpl_xattr_make_dir(struct zpl_node *node, const struct zpl_new *new, struct zpl_node **ret_dir)
{
	struct zpl_znode z;
	dmu_tx_t *tx;
	int ret;

	zpl_new_znode(node, new, &z);
	tx = dmu_tx_create(node->fs->os);
	dmu_tx_hold_sa_create(tx, zpl_znode_hold_size(&z));
	dmu_tx_hold_sa(tx, node->hdl, B_TRUE);
	dmu_tx_hold_zap(tx, DMU_NEW_OBJECT, FALSE, NULL);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	ret = make_hidden_dir_in(node, new, &z, tx, ret_dir);
	dmu_tx_commit(tx);
	return ret;
}

static int touch_ctime(struct zpl_node *node)
{
	const sa_attr_type_t *table = node->fs->table;
	dmu_tx_t *tx = dmu_tx_create(node->fs->os);
	sa_bulk_attr_t bulk[2];
	uint64_t now[2];
	int n = 0, ret;

	dmu_tx_hold_sa(tx, node->hdl, B_FALSE);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	zpl_now(now);
	pthread_mutex_lock(&node->lock);
	zpl_status_changed(node, now);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, node->ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
	ret = zpl_error(sa_bulk_update(node->hdl, bulk, n, tx));
	pthread_mutex_unlock(&node->lock);
	zpl_log_setxattr(node, "", NULL, 0, tx);
	dmu_tx_commit(tx);
	return ret;
}

static int write_value(struct zpl_node *file, const void *value, size_t size)
{
	struct iovec iov = {.iov_base = (void *)value, .iov_len = size};
	size_t written;
	int ret = file->size > size ? zpl_set_size(file, size) : 0;

	return ret || size == 0 ? ret : zpl_file_write(file, 0, &iov, 1, false, &written);
}

static int set_dir(struct zpl_node *node, const char *name, const void *value, size_t size)
{
	const struct zpl_cred owner = {.uid = (uid_t)node->uid, .gid = (gid_t)node->gid};
	const struct zpl_new new = {.mode = S_IFREG | 0644, .cred = &owner, .xattr = true};
	const struct zpl_new new_dir = {.mode = S_IFDIR | 01777, .cred = &owner, .xattr = true};
	struct zpl_node *dir, *file = NULL;
	int ret = hidden_dir(node, &dir);

	if (ret == -ENOENT)
		ret = zpl_xattr_make_dir(node, &new_dir, &dir);
	if (ret)
		return ret;
	ret = hidden_file(dir, name, &file);
	if (ret == -ENOENT)
		ret = zpl_make(dir, name, &new, &file, NULL);
	if (ret == 0)
		ret = write_value(file, value, size);
	zpl_release(file);
	zpl_release(dir);
	return ret ? ret : touch_ctime(node);
}

static int remove_dir(struct zpl_node *node, const char *name)
{
	struct zpl_node *dir;
	int ret = hidden_dir(node, &dir);

	if (ret)
		return ret;
	ret = zpl_remove(dir, name, false);
	zpl_release(dir);
	return ret ? ret : touch_ctime(node);
}

/* ---- set ---- */

static bool in_sa(const struct zpl_node *node, const char *name)
{
	return node->xattr_sa && nvlist_exists(node->xattr_sa, name);
}

static int in_dir(struct zpl_node *node, const char *name, bool *ret_there)
{
	struct zpl_node *dir;
	uint64_t value;
	int ret = hidden_dir(node, &dir);

	*ret_there = false;
	if (ret)
		return ret == -ENOENT ? 0 : ret;
	ret = zpl_entry_lookup(dir, name, &value);
	zpl_release(dir);
	*ret_there = ret == 0;
	return ret == -ENOENT ? 0 : ret;
}

/* Lock held for writing; value NULL = remove. `name` as it is stored. */
static int set_locked(
	struct zpl_node *node, const char *name, const void *value, size_t size, bool sa, bool dir)
{
	int ret = -EOVERFLOW;

	if (!value) {
		ret = sa ? zpl_xattr_set_sa(node, name, NULL, 0) : 0;
		return ret == 0 && dir ? remove_dir(node, name) : ret;
	}
	/* An attribute that is in the SA stays there even if the property has changed: one form less to clean
	 * up. */
	if (node->fs->xattr == ZFS_XATTR_SA || sa)
		ret = zpl_xattr_set_sa(node, name, value, size);
	if (ret == 0)
		return dir ? remove_dir(node, name) : 0;
	if (ret != -EOVERFLOW)
		return ret;
	ret = set_dir(node, name, value, size);
	return ret == 0 && sa ? zpl_xattr_set_sa(node, name, NULL, 0) : ret;
}

static int set(struct zpl_node *node, const char *name, const void *value, size_t size, int flags)
{
	const char *stored = name, *bare = bare_name(name);
	bool sa, dir;
	int ret = zpl_xattr_load(node);

	if (ret)
		return ret;
	sa = in_sa(node, name);
	ret = in_dir(node, name, &dir);
	if (ret == 0 && !sa && !dir && bare) { /* perhaps another system's spelling */
		sa = in_sa(node, bare);
		ret = in_dir(node, bare, &dir);
		if (sa || dir)
			stored = bare;
	}
	if (ret)
		return ret;
	if ((flags & XATTR_CREATE) && (sa || dir))
		return -EEXIST;
	if ((flags & XATTR_REPLACE || !value) && !sa && !dir)
		return -ENODATA;
	return set_locked(node, stored, value, size, sa, dir);
}

/*
 * ---- POSIX ACLs ----
 *
 * They are kept like any attribute, in the form in which Linux passes them: u32 version 2, then entries of
 * u16 tag, u16 permissions, u32 id, little-endian. An access ACL and the mode say the same about owner,
 * others and, as the group's bits, the mask (without a mask: the owning group).
 */
static const char acl_access[] = "system.posix_acl_access";
static const char acl_default[] = "system.posix_acl_default";
enum {
	ACL_HEADER = 4,
	ACL_ENTRY = 8,
	ACL_MAX = ACL_HEADER + ACL_ENTRY * 1024,
	TAG_USER_OBJ = 1,
	TAG_USER = 2,
	TAG_GROUP_OBJ = 4,
	TAG_GROUP = 8,
	TAG_MASK = 0x10,
	TAG_OTHER = 0x20,
};

struct acl_view {
	uint8_t *owner, *group, *mask, *other; /* permission bytes */
	bool named;
};

static int acl_view(uint8_t *acl, size_t length, struct acl_view *ret_view)
{
	*ret_view = (struct acl_view){0};
	if (length < ACL_HEADER || (length - ACL_HEADER) % ACL_ENTRY || acl[0] != 2 || acl[1] || acl[2] ||
		acl[3])
		return -EINVAL;
	for (uint8_t *entry = acl + ACL_HEADER; entry < acl + length; entry += ACL_ENTRY) {
		if (entry[2] > 7 || entry[3])
			return -EINVAL;
		switch (entry[0] | entry[1] << 8) {
		case TAG_USER_OBJ: ret_view->owner = entry + 2; break;
		case TAG_GROUP_OBJ: ret_view->group = entry + 2; break;
		case TAG_MASK: ret_view->mask = entry + 2; break;
		case TAG_OTHER: ret_view->other = entry + 2; break;
		case TAG_USER:
		case TAG_GROUP: ret_view->named = true; break;
		default: return -EINVAL;
		}
	}
	return ret_view->owner && ret_view->group && ret_view->other ? 0 : -EINVAL;
}

/* Lock held for writing. Stores an access ACL and the mode it means; one that says no more than a mode is not
 * kept. */
static int set_access_acl(struct zpl_node *node, const void *value, size_t size, int flags)
{
	struct acl_view view;
	uint8_t acl[ACL_MAX];
	uint32_t mode;
	int ret;

	if (size > sizeof(acl))
		return -E2BIG;
	memcpy(acl, value, size);
	ret = acl_view(acl, size, &view);
	if (ret)
		return ret;
	mode = (uint32_t)(node->mode & ~0777ULL) | *view.owner << 6 |
	       *(view.mask ? view.mask : view.group) << 3 | *view.other;
	if (view.named || view.mask) {
		ret = set(node, acl_access, value, size, flags);
	} else {
		ret = set(node, acl_access, NULL, 0, 0);
		ret = ret == -ENODATA ? 0 : ret;
	}
	return ret ? ret : zpl_set_mode(node, mode);
}

int zpl_posix_acl_chmod(struct zpl_node *node, uint32_t mode)
{
	struct acl_view view;
	uint8_t acl[ACL_MAX];
	size_t length = 0;
	int ret;

	pthread_rwlock_wrlock(&node->xattr_lock);
	ret = zpl_xattr_load(node);
	if (ret == 0)
		ret = get_one(node, acl_access, acl, sizeof(acl), &length);
	if (ret == 0 && acl_view(acl, length, &view) == 0) {
		*view.owner = mode >> 6 & 7;
		*(view.mask ? view.mask : view.group) = mode >> 3 & 7;
		*view.other = mode & 7;
		ret = set(node, acl_access, acl, length, 0);
	}
	pthread_rwlock_unlock(&node->xattr_lock);
	return ret == -ENOENT ? 0 : ret;
}

/* ---- entry ---- */

static int enter_and_set(struct zpl_node *node, const char *name, const void *value, size_t size, int flags)
{
	int ret = zpl_enter_node(node, true);

	if (ret)
		return ret;
	ret = name_check(name);
	if (ret == 0 && size > VALUE_MAX)
		ret = -E2BIG;
	if (ret == 0 && node->is_xattr)
		ret = -EOPNOTSUPP;
	if (ret == 0 && value && !strcmp(name, acl_default) && !zpl_is_dir(node))
		ret = -EACCES;
	if (ret == 0 && node->fs->xattr == ZFS_XATTR_OFF)
		ret = -EOPNOTSUPP;
	if (ret == 0 && node->pflags & (ZFS_IMMUTABLE | ZFS_APPENDONLY))
		ret = -EPERM;
	if (ret == 0 && value && zpl_no_space())
		ret = -ENOSPC;
	if (ret == 0) {
		pthread_rwlock_wrlock(&node->xattr_lock);
		if (value && !strcmp(name, acl_access))
			ret = set_access_acl(node, value, size, flags);
		else
			ret = set(node, name, value, size, flags);
		pthread_rwlock_unlock(&node->xattr_lock);
	}
	zpl_exit(node->fs);
	return ret;
}

int zpl_setxattr(struct zpl_node *node, const char *name, const void *value, size_t size, int flags)
{
	return enter_and_set(node, name, value ? value : "", size, flags);
}

int zpl_removexattr(struct zpl_node *node, const char *name)
{
	return enter_and_set(node, name, NULL, 0, 0);
}
