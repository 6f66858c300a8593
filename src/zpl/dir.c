/*
 * Directories: a ZAP from name to type << 60 | object. "." and ".." are not stored; a directory's SIZE counts
 * its entries and those two.
 *
 * Names are locked by stripes of a hash of directory and name: shared to look up, exclusively to change. A
 * lookup holds its stripe until it has the node, so that the object cannot be freed and its number used again
 * in between. Where different names may mean the same entry (normalisation, ignored case) the directory alone
 * is hashed.
 */
#include "zpl/zpl_int.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

/* ---- name locks ---- */

static unsigned stripe_of(const struct zpl_node *dir, const char *name)
{
	uint64_t hash = 0xcbf29ce484222325ULL ^ dir->object; /* FNV-1a */

	if (dir->fs->norm)
		name = "";
	for (hash *= 0x100000001b3ULL; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 0x100000001b3ULL;
	return (unsigned)(hash ^ hash >> 32) % ZPL_NAME_STRIPES;
}

void zpl_names_lock(struct zpl_name_lock *ret_lock, struct zpl_node *dir, const char *name, bool exclusive)
{
	ret_lock->first = &dir->fs->names[stripe_of(dir, name)];
	ret_lock->second = NULL;
	if (exclusive)
		pthread_rwlock_wrlock(ret_lock->first);
	else
		pthread_rwlock_rdlock(ret_lock->first);
}

void zpl_names_lock2(struct zpl_name_lock *ret_lock, struct zpl_node *dir1, const char *name1,
	struct zpl_node *dir2, const char *name2)
{
	pthread_rwlock_t *names = dir1->fs->names;
	unsigned a = stripe_of(dir1, name1), b = stripe_of(dir2, name2);

	ret_lock->first = &names[MIN(a, b)];
	ret_lock->second = a == b ? NULL : &names[MAX(a, b)];
	pthread_rwlock_wrlock(ret_lock->first);
	if (ret_lock->second)
		pthread_rwlock_wrlock(ret_lock->second);
}

void zpl_names_unlock(struct zpl_name_lock *lock)
{
	if (lock->second)
		pthread_rwlock_unlock(lock->second);
	pthread_rwlock_unlock(lock->first);
}

/* ---- entries ---- */

int zpl_name_check(const struct zpl_fs *fs, const char *name, bool adding)
{
	size_t length = strlen(name);
	int error;

	if (length == 0)
		return -ENOENT;
	if (strchr(name, '/') || (adding && (!strcmp(name, ".") || !strcmp(name, ".."))))
		return -EINVAL;
	/* Longer ones are legal on disk with feature longname; they can be read. */
	if (length > (adding ? ZPL_NAME_MAX : ZAP_MAXNAMELEN_NEW - 1))
		return -ENAMETOOLONG;
	if (adding && fs->utf8only && u8_validate(name, length, NULL, U8_VALIDATE_ENTIRE, &error) < 0)
		return -EILSEQ;
	return 0;
}

static matchtype_t match_type(const struct zpl_fs *fs)
{
	return fs->casesensitivity == ZPL_CASE_MIXED ? MT_NORMALIZE | MT_MATCH_CASE : MT_NORMALIZE;
}

int zpl_entry_lookup(struct zpl_node *dir, const char *name, uint64_t *ret_value)
{
	uint64_t value = 0;
	int error;

	if (dir->fs->norm)
		error = zap_lookup_norm_by_dnode(
			dir->dn, name, 8, 1, &value, match_type(dir->fs), NULL, 0, NULL);
	else
		error = zap_lookup_by_dnode(dir->dn, name, 8, 1, &value);
	if (error == EOVERFLOW) /* entries may have more integers after the first */
		error = 0;
	if (error == ENOTSUP || error == EINVAL) /* no such name can be there */
		error = strlen(name) > ZPL_NAME_MAX || dir->fs->norm ? ENOENT : EIO;
	if (error)
		return zpl_error(error);
	if (ZFS_DIRENT_OBJ(value) == 0)
		return -EUCLEAN;
	*ret_value = value;
	return 0;
}

int zpl_lookup_node(struct zpl_node *dir, const char *name, unsigned flags, struct zpl_node **ret_node)
{
	uint64_t value;
	int ret = zpl_entry_lookup(dir, name, &value);

	if (ret)
		return ret;
	ret = zpl_node_get(dir->fs, ZFS_DIRENT_OBJ(value), flags, ret_node);
	/* A name that leads nowhere is damage, and must not look like a free name. */
	return ret == -ENOENT ? -EUCLEAN : ret;
}

static int update_dir(struct zpl_node *dir, const uint64_t now[2], dmu_tx_t *tx)
{
	const sa_attr_type_t *table = dir->fs->table;
	sa_bulk_attr_t bulk[6];
	int n = 0;

	zpl_content_changed(dir, now);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_SIZE], NULL, &dir->size, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_LINKS], NULL, &dir->links, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MTIME], NULL, dir->mtime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, dir->ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &dir->pflags, 8);
	if (dir->atime_dirty) {
		dir->atime_dirty = false;
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_ATIME], NULL, dir->atime, 16);
	}
	return zpl_error(sa_bulk_update(dir->hdl, bulk, n, tx));
}

int zpl_entry_add(struct zpl_node *dir, const char *name, struct zpl_node *node, bool fresh,
	const uint64_t now[2], dmu_tx_t *tx)
{
	const sa_attr_type_t *table = dir->fs->table;
	uint64_t value = node->object;
	int ret;

	if (dir->fs->version >= ZPL_VERSION_DIRENT_TYPE)
		value |= (uint64_t)IFTODT(node->mode) << 60;
	ret = zpl_error(zap_add_by_dnode(dir->dn, name, 8, 1, &value, tx));
	if (ret)
		return ret;
	if (!fresh) {
		sa_bulk_attr_t bulk[4];
		int n = 0;

		pthread_mutex_lock(&node->lock);
		node->parent = dir->object;
		zpl_status_changed(node, now);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_LINKS], NULL, &node->links, 8);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_PARENT], NULL, &node->parent, 8);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, node->ctime, 16);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
		ret = zpl_error(sa_bulk_update(node->hdl, bulk, n, tx));
		pthread_mutex_unlock(&node->lock);
	}
	pthread_mutex_lock(&dir->lock);
	dir->size++;
	dir->links += zpl_is_dir(node) ? 1 : 0;
	if (ret == 0)
		ret = update_dir(dir, now, tx);
	pthread_mutex_unlock(&dir->lock);
	return ret;
}

int zpl_entry_remove(struct zpl_node *dir, const char *name, bool is_dir, const uint64_t now[2], dmu_tx_t *tx)
{
	int error, ret;

	if (dir->fs->norm)
		error = zap_remove_norm(dir->fs->os, dir->object, name, match_type(dir->fs), tx);
	else
		error = zap_remove_by_dnode(dir->dn, name, tx);
	if (error)
		return zpl_error(error);
	pthread_mutex_lock(&dir->lock);
	/* Counts read from disk may be wrong; they must not wrap. */
	if (dir->size > 2)
		dir->size--;
	if (is_dir && dir->links > 2)
		dir->links--;
	ret = update_dir(dir, now, tx);
	pthread_mutex_unlock(&dir->lock);
	return ret;
}

int zpl_lookup(struct zpl_node *dir, const char *name, struct zpl_node **ret_node)
{
	struct zpl_name_lock lock;
	int ret = zpl_enter_node(dir, false);

	if (ret)
		return ret;
	if (!zpl_is_dir(dir))
		ret = -ENOTDIR;
	else
		ret = zpl_name_check(dir->fs, name, false);
	if (ret == 0 && !strcmp(name, "..")) {
		ret = zpl_node_get(dir->fs, __atomic_load_n(&dir->parent, __ATOMIC_RELAXED), 0, ret_node);
	} else if (ret == 0) {
		zpl_names_lock(&lock, dir, name, false);
		ret = zpl_lookup_node(dir, name, 0, ret_node);
		zpl_names_unlock(&lock);
	}
	zpl_exit(dir->fs);
	return ret;
}

int zpl_parent(struct zpl_node *node, uint64_t *ret_object)
{
	int ret = zpl_enter_node(node, false);

	if (ret)
		return ret;
	*ret_object = __atomic_load_n(&node->parent, __ATOMIC_RELAXED);
	zpl_exit(node->fs);
	return 0;
}

/* ---- listing ---- */

/*
 * A cookie is the serialized ZAP cursor plus an offset that keeps small numbers free for "." and ".." above
 * us. The cursor is a hash of at most 60 bits (with the collision number), so it survives changes of the
 * directory, and its end is all ones.
 */
enum { COOKIE_BASE = 4 };

static uint64_t cookie_of(zap_cursor_t *cursor)
{
	uint64_t serialized = zap_cursor_serialize(cursor);

	return serialized >= INT64_MAX - COOKIE_BASE ? INT64_MAX : serialized + COOKIE_BASE;
}

/* A damaged or hostile directory must not pass on what is no name. */
static bool listable(const char *name)
{
	return name[0] && strcmp(name, ".") && strcmp(name, "..") && !strchr(name, '/');
}

static int list(struct zpl_node *dir, zap_cursor_t *cursor, zap_attribute_t *entry, zpl_emit_fn emit,
	void *private, bool *ret_eof)
{
	bool typed = dir->fs->version >= ZPL_VERSION_DIRENT_TYPE;
	int error;

	for (;;) {
		uint64_t object;

		error = zap_cursor_retrieve(cursor, entry);
		if (error == ENOENT) {
			*ret_eof = true;
			return 0;
		}
		if (error)
			return zpl_error(error);
		if (entry->za_integer_length != 8 || entry->za_num_integers == 0)
			return -EUCLEAN;
		object = ZFS_DIRENT_OBJ(entry->za_first_integer);
		zap_cursor_advance(cursor);
		if (!listable(entry->za_name))
			continue;
		dmu_prefetch_dnode(dir->fs->os, object, ZIO_PRIORITY_SYNC_READ);
		if (emit(private, entry->za_name, object,
			    typed ? (unsigned)ZFS_DIRENT_TYPE(entry->za_first_integer) : DT_UNKNOWN,
			    cookie_of(cursor)) != 0) {
			*ret_eof = false;
			return 0;
		}
	}
}

int zpl_readdir(struct zpl_node *dir, uint64_t cookie, zpl_emit_fn emit, void *private, bool *ret_eof)
{
	zap_attribute_t *entry;
	zap_cursor_t cursor;
	int ret = zpl_enter_node(dir, false);

	if (ret)
		return ret;
	if (!zpl_is_dir(dir)) {
		ret = -ENOTDIR;
	} else if (cookie >= INT64_MAX || dir->unlinked) {
		*ret_eof = true;
	} else {
		entry = zap_attribute_long_alloc();
		if (cookie < COOKIE_BASE)
			zap_cursor_init(&cursor, dir->fs->os, dir->object);
		else
			zap_cursor_init_serialized(&cursor, dir->fs->os, dir->object, cookie - COOKIE_BASE);
		ret = list(dir, &cursor, entry, emit, private, ret_eof);
		zap_cursor_fini(&cursor);
		zap_attribute_free(entry);
		zpl_accessed(dir);
	}
	zpl_exit(dir->fs);
	return ret;
}
