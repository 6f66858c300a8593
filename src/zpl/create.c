/*
 * New objects and new links. One transaction makes object, attributes and directory entry; a failure of the
 * last step frees the object again in the same transaction.
 */
#include "zpl/zpl_int.h"

#include <errno.h>
#include <string.h>

#define TARGET_MAX 4095u

void zpl_new_znode(struct zpl_node *dir, const struct zpl_new *new, struct zpl_znode *ret_znode)
{
	struct zpl_fs *fs = dir->fs;
	struct zpl_znode *z = ret_znode;
	bool directory = S_ISDIR(new->mode);
	uint64_t mode = new->mode, now[2];

	*z = (struct zpl_znode){
		.size = directory ? 2 : 0,
		.links = directory ? 2 : 1,
		.gen = new->generation,
		.uid = new->cred->uid,
		.gid = new->cred->gid,
		.parent = dir->object,
		.rdev = new->rdev,
		.has_projid = (directory || S_ISREG(mode)) && dmu_objset_projectquota_enabled(fs->os),
	};
	if (dir->mode & S_ISGID && !new->claim) {
		z->gid = dir->gid;
		if (directory)
			mode |= S_ISGID;
		/* A group the maker is not known to be in must not get a program that runs in its name. */
		else if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && new->cred->uid != 0 &&
			 new->cred->gid != z->gid)
			mode &= ~(uint64_t)S_ISGID;
	}
	z->mode = mode;
	if (new->crtime)
		memcpy(now, new->crtime, sizeof(now));
	else
		zpl_now(now);
	memcpy(z->atime, now, sizeof(now));
	memcpy(z->mtime, now, sizeof(now));
	memcpy(z->ctime, now, sizeof(now));
	memcpy(z->crtime, now, sizeof(now));
	if (new->target) {
		z->symlink = new->target;
		z->symlink_length = (uint32_t)strlen(new->target);
		z->size = z->symlink_length;
	}
	zpl_acl_trivial(mode, &z->acl);
	z->flags = zpl_new_pflags(z) | z->acl.pflags | (new->xattr ? ZFS_XATTR : 0);
	if (dir->pflags & ZFS_PROJINHERIT && z->has_projid) {
		z->projid = dir->projid;
		if (directory)
			z->flags |= ZFS_PROJINHERIT;
	}
}

/* In the transaction. */
static int make(struct zpl_node *dir, const char *name, const struct zpl_new *new, struct zpl_znode *z,
	dmu_tx_t *tx, struct zpl_node **ret_node)
{
	struct zpl_fs *fs = dir->fs;
	struct zpl_node *node;
	uint64_t object;
	int ret;

	if (dir->unlinked)
		return -ENOENT;
	if (z->gen == 0)
		z->gen = dmu_tx_get_txg(tx);
	ret = zpl_error(zpl_object_alloc(
		fs->os, S_ISDIR(z->mode), (int)fs->norm, new->claim, new->dnodesize, tx, &object));
	if (ret)
		return ret;
	ret = zpl_node_new(fs, object, z, tx, &node);
	if (ret)
		return ret;
	ret = zpl_entry_add(dir, name, node, true, z->ctime, tx);
	if (ret) {
		zpl_node_discard(node, tx);
		return ret;
	}
	zpl_log_create(dir, node, name, tx);
	*ret_node = node;
	return 0;
}

/* Name locked and free. */
static int make_in_tx(
	struct zpl_node *dir, const char *name, const struct zpl_new *new, struct zpl_node **ret_node)
{
	struct zpl_fs *fs = dir->fs;
	struct zpl_znode z;
	dmu_tx_t *tx;
	int ret;

	zpl_new_znode(dir, new, &z);
	ret = zpl_check_quota(fs, z.uid, z.gid, z.projid, true);
	if (ret)
		return ret;
	tx = dmu_tx_create(fs->os);
	dmu_tx_hold_sa_create(tx, zpl_znode_hold_size(&z));
	dmu_tx_hold_zap_by_dnode(tx, dir->dn, TRUE, name);
	dmu_tx_hold_sa(tx, dir->hdl, B_FALSE);
	if (S_ISDIR(z.mode))
		dmu_tx_hold_zap(tx, DMU_NEW_OBJECT, FALSE, NULL);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	pthread_rwlock_rdlock(&dir->entries);
	ret = make(dir, name, new, &z, tx, ret_node);
	pthread_rwlock_unlock(&dir->entries);
	dmu_tx_commit(tx);
	return ret;
}

int zpl_make(struct zpl_node *dir, const char *name, const struct zpl_new *new, struct zpl_node **ret_node,
	struct zpl_attr *ret_attr)
{
	struct zpl_name_lock lock;
	struct zpl_node *node;
	uint64_t value;
	int ret;

	if (!zpl_is_dir(dir))
		return -ENOTDIR;
	if (zpl_no_space())
		return -ENOSPC;
	if (dir->pflags & ZFS_IMMUTABLE)
		return -EPERM;
	ret = zpl_name_check(dir->fs, name, true);
	if (ret)
		return ret;
	if (S_ISDIR(new->mode) && dir->links >= ZPL_LINK_MAX)
		return -EMLINK;

	zpl_names_lock(&lock, dir, name, true);
	ret = zpl_entry_lookup(dir, name, &value);
	if (ret == 0)
		ret = -EEXIST;
	else if (ret == -ENOENT)
		ret = make_in_tx(dir, name, new, &node);
	zpl_names_unlock(&lock);
	if (ret)
		return ret;
	if (ret_attr) {
		pthread_mutex_lock(&node->lock);
		zpl_fill_attr(node, ret_attr);
		pthread_mutex_unlock(&node->lock);
	}
	*ret_node = node;
	return 0;
}

static int enter_and_make(struct zpl_node *dir, const char *name, const struct zpl_new *new,
	struct zpl_node **ret_node, struct zpl_attr *ret_attr)
{
	int ret = zpl_enter_node(dir, true);

	if (ret)
		return ret;
	ret = zpl_make(dir, name, new, ret_node, ret_attr);
	zpl_exit(dir->fs);
	return ret;
}

int zpl_create(struct zpl_node *dir, const char *name, uint32_t mode, dev_t rdev, const struct zpl_cred *cred,
	struct zpl_node **ret_node, struct zpl_attr *ret_attr)
{
	struct zpl_new new = {.mode = mode, .cred = cred};

	if ((mode & S_IFMT) == 0)
		new.mode |= S_IFREG;
	if (S_ISDIR(new.mode) || S_ISLNK(new.mode))
		return -EINVAL;
	if (S_ISCHR(mode) || S_ISBLK(mode))
		new.rdev = zpl_rdev_from_posix(rdev);
	return enter_and_make(dir, name, &new, ret_node, ret_attr);
}

int zpl_mkdir(struct zpl_node *dir, const char *name, uint32_t mode, const struct zpl_cred *cred,
	struct zpl_node **ret_node, struct zpl_attr *ret_attr)
{
	struct zpl_new new = {.mode = S_IFDIR | (mode & 07777), .cred = cred};

	return enter_and_make(dir, name, &new, ret_node, ret_attr);
}

int zpl_symlink(struct zpl_node *dir, const char *name, const char *target, const struct zpl_cred *cred,
	struct zpl_node **ret_node, struct zpl_attr *ret_attr)
{
	struct zpl_new new = {.mode = S_IFLNK | 0777, .cred = cred, .target = target};
	size_t length = strlen(target);

	if (length == 0)
		return -ENOENT;
	if (length > TARGET_MAX)
		return -ENAMETOOLONG;
	return enter_and_make(dir, name, &new, ret_node, ret_attr);
}

/* ---- readlink ---- */

/* Before version 5 the target stood behind the 264 bytes of the znode, or if too long in the object's first
 * block. */
static int read_old_target(struct zpl_node *node, char *buffer)
{
	enum { OLD_ZNODE_SIZE = 264 };
	dmu_buf_t *db = sa_get_db(node->hdl);

	if (node->size + OLD_ZNODE_SIZE <= db->db_size) {
		memcpy(buffer, (const char *)db->db_data + OLD_ZNODE_SIZE, node->size);
		return 0;
	}
	return zpl_error(dmu_read_by_dnode(node->dn, 0, node->size, buffer, DMU_READ_NO_PREFETCH));
}

static int read_target(struct zpl_node *node, char *buffer, size_t size)
{
	int length, error;

	if (!S_ISLNK(node->mode))
		return -EINVAL;
	if (node->size == 0 || node->size > TARGET_MAX)
		return -EUCLEAN;
	if (node->size >= size)
		return -ENAMETOOLONG;
	if (node->old_format) {
		error = -read_old_target(node, buffer);
	} else {
		error = sa_size(node->hdl, node->fs->table[ZPL_SYMLINK], &length);
		if (error == 0 && (uint64_t)length != node->size)
			return -EUCLEAN;
		if (error == 0)
			error = sa_lookup(node->hdl, node->fs->table[ZPL_SYMLINK], buffer, (uint32_t)length);
	}
	if (error)
		return error == ENOENT ? -EUCLEAN : zpl_error(error);
	buffer[node->size] = '\0';
	return 0;
}

int zpl_readlink(struct zpl_node *node, char *buffer, size_t size)
{
	int ret = zpl_enter_node(node, false);

	if (ret)
		return ret;
	ret = read_target(node, buffer, size);
	if (ret == 0)
		zpl_accessed(node);
	zpl_exit(node->fs);
	return ret;
}

/* ---- hard links ---- */

/* In the transaction, dir->entries held. */
static int add_link(struct zpl_node *node, struct zpl_node *dir, const char *name, dmu_tx_t *tx)
{
	uint64_t now[2];
	int ret = 0;

	if (dir->unlinked)
		return -ENOENT;
	pthread_mutex_lock(&node->lock);
	if (node->links == 0)
		ret = -ENOENT;
	else if (node->links >= ZPL_LINK_MAX)
		ret = -EMLINK;
	else
		node->links++;
	pthread_mutex_unlock(&node->lock);
	if (ret)
		return ret;
	zpl_now(now);
	ret = zpl_entry_add(dir, name, node, false, now, tx);
	if (ret) {
		pthread_mutex_lock(&node->lock);
		node->links--;
		pthread_mutex_unlock(&node->lock);
		return ret;
	}
	zpl_log_link(dir, node, name, tx);
	return 0;
}

static int link_in_tx(struct zpl_node *node, struct zpl_node *dir, const char *name)
{
	dmu_tx_t *tx = dmu_tx_create(dir->fs->os);
	int ret;

	dmu_tx_hold_sa(tx, node->hdl, B_FALSE);
	dmu_tx_hold_zap_by_dnode(tx, dir->dn, TRUE, name);
	dmu_tx_hold_sa(tx, dir->hdl, B_FALSE);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	pthread_rwlock_rdlock(&dir->entries);
	ret = add_link(node, dir, name, tx);
	pthread_rwlock_unlock(&dir->entries);
	dmu_tx_commit(tx);
	return ret;
}

static int make_link(struct zpl_node *node, struct zpl_node *dir, const char *name)
{
	struct zpl_name_lock lock;
	uint64_t value;
	int ret;

	if (node->fs != dir->fs)
		return -EXDEV;
	if (!node->hdl)
		return -ESTALE;
	if (!zpl_is_dir(dir))
		return -ENOTDIR;
	if (zpl_is_dir(node) || node->pflags & (ZFS_IMMUTABLE | ZFS_APPENDONLY) ||
		dir->pflags & ZFS_IMMUTABLE || node->is_xattr != dir->is_xattr)
		return -EPERM;
	if (dir->pflags & ZFS_PROJINHERIT && node->projid != dir->projid)
		return -EXDEV;
	if (zpl_no_space())
		return -ENOSPC;
	ret = zpl_name_check(dir->fs, name, true);
	if (ret)
		return ret;
	zpl_names_lock(&lock, dir, name, true);
	ret = zpl_entry_lookup(dir, name, &value);
	if (ret == 0)
		ret = -EEXIST;
	else if (ret == -ENOENT)
		ret = link_in_tx(node, dir, name);
	zpl_names_unlock(&lock);
	return ret;
}

int zpl_link(struct zpl_node *node, struct zpl_node *dir, const char *name)
{
	int ret = zpl_enter_node(dir, true);

	if (ret)
		return ret;
	ret = make_link(node, dir, name);
	zpl_exit(dir->fs);
	return ret;
}
