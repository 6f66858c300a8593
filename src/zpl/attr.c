/*
 * Attributes. Those that stat(2) shows are kept in the node, so that asking for them touches the DMU only for
 * the number of blocks; every change writes the changed ones in one bulk update of the SA bonus.
 *
 * Access times follow atime and relatime of the dataset and are lazy: noted in memory, written with the
 * node's next change or when it leaves memory.
 */
#include "base/cleanup.h"
#include "zpl/zpl_int.h"

#include <errno.h>
#include <sys/sysmacros.h>
#include <time.h>

void zpl_now(uint64_t ret_time[2])
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	ret_time[0] = (uint64_t)now.tv_sec;
	ret_time[1] = (uint64_t)now.tv_nsec;
}

uint32_t zpl_posix_id(uint64_t id)
{
	enum { NOBODY = 65534 };

	return id >> 32 ? NOBODY : (uint32_t)id;
}

/* Linux stores its own form of device numbers, major << 20 | minor; FreeBSD and illumos major << 32 | minor.
 */
uint64_t zpl_rdev_from_posix(dev_t dev)
{
	return (uint64_t)major(dev) << 20 | (minor(dev) & 0xfffff);
}

dev_t zpl_rdev_to_posix(uint64_t rdev)
{
	return rdev >> 32 ? makedev((unsigned)(rdev >> 32), (unsigned)rdev)
			  : makedev((unsigned)(rdev >> 20), (unsigned)(rdev & 0xfffff));
}

static struct timespec to_timespec(const uint64_t time[2])
{
	return (struct timespec){.tv_sec = (time_t)time[0], .tv_nsec = (long)(time[1] % 1000000000u)};
}

static void from_timespec(uint64_t ret_time[2], const struct timespec *time)
{
	ret_time[0] = (uint64_t)time->tv_sec;
	ret_time[1] = (uint64_t)time->tv_nsec;
}

void zpl_fill_attr(struct zpl_node *node, struct zpl_attr *ret_attr)
{
	u_longlong_t blocks = 0;
	uint32_t blksz = 0;

	sa_object_size(node->hdl, &blksz, &blocks);
	*ret_attr = (struct zpl_attr){
		.object = node->object,
		.generation = node->generation,
		.mode = (uint32_t)node->mode,
		.nlink = node->links,
		.uid = zpl_posix_id(node->uid),
		.gid = zpl_posix_id(node->gid),
		.size = node->size,
		.blocks = blocks,
		.blksize = blksz,
		.rdev = zpl_rdev_to_posix(node->rdev),
		.atime = to_timespec(node->atime),
		.mtime = to_timespec(node->mtime),
		.ctime = to_timespec(node->ctime),
		.btime = to_timespec(node->crtime),
		.flags = node->pflags,
		.projid = (uint32_t)node->projid,
	};
}

int zpl_getattr(struct zpl_node *node, struct zpl_attr *ret_attr)
{
	int ret = zpl_enter_node(node, false);

	if (ret)
		return ret;
	pthread_mutex_lock(&node->lock);
	zpl_fill_attr(node, ret_attr);
	pthread_mutex_unlock(&node->lock);
	zpl_exit(node->fs);
	return 0;
}

static bool time_before(const uint64_t a[2], const uint64_t b[2])
{
	return (int64_t)a[0] < (int64_t)b[0] || (a[0] == b[0] && a[1] < b[1]);
}

void zpl_accessed(struct zpl_node *node)
{
	enum { DAY = 24 * 3600 };
	struct zpl_fs *fs = node->fs;
	uint64_t now[2];

	if (!fs->atime || zpl_fs_read_only(fs))
		return;
	zpl_now(now);
	pthread_mutex_lock(&node->lock);
	if (!fs->relatime || !time_before(node->mtime, node->atime) ||
		!time_before(node->ctime, node->atime) || now[0] - node->atime[0] >= DAY) {
		memcpy(node->atime, now, sizeof(node->atime));
		node->atime_dirty = true;
	}
	pthread_mutex_unlock(&node->lock);
}

void zpl_content_changed(struct zpl_node *node, const uint64_t now[2])
{
	memcpy(node->mtime, now, sizeof(node->mtime));
	memcpy(node->ctime, now, sizeof(node->ctime));
	node->pflags |= ZFS_ARCHIVE | ZFS_AV_MODIFIED;
}

void zpl_status_changed(struct zpl_node *node, const uint64_t now[2])
{
	memcpy(node->ctime, now, sizeof(node->ctime));
	node->pflags |= ZFS_ARCHIVE;
}

/* ---- setattr ---- */

static int check(struct zpl_node *node, const struct zpl_attr *attr, unsigned mask)
{
	const unsigned times = ZPL_SET_ATIME | ZPL_SET_ATIME_NOW;
	bool trivial = (node->pflags & ZFS_ACL_TRIVIAL) != 0;

	if (node->pflags & ZFS_IMMUTABLE && mask & ~times)
		return -EPERM;
	if (node->pflags & ZFS_APPENDONLY && mask & ZPL_SET_SIZE)
		return -EPERM;
	if (mask & ZPL_SET_MODE) {
		/* The ACL is part of the 88-byte structure of an old znode and would have to move. */
		if (node->old_format)
			return -EOPNOTSUPP;
		if (!trivial && node->fs->aclmode == ZFS_ACL_RESTRICTED)
			return -EPERM;
	}
	if (mask & ZPL_SET_SIZE) {
		if (S_ISDIR(node->mode))
			return -EISDIR;
		if (!S_ISREG(node->mode))
			return -EINVAL;
	}
	if (mask & (ZPL_SET_UID | ZPL_SET_GID))
		return zpl_check_quota(node->fs, mask & ZPL_SET_UID ? attr->uid : node->uid,
			mask & ZPL_SET_GID ? attr->gid : node->gid, node->projid, false);
	return 0;
}

/* Under node->lock, in the transaction. */
static int update(struct zpl_node *node, const struct zpl_attr *attr, unsigned mask, dmu_tx_t *tx)
{
	const sa_attr_type_t *table = node->fs->table;
	sa_bulk_attr_t bulk[12];
	struct zpl_acl acl;
	uint64_t now[2];
	int n = 0;

	zpl_now(now);
	if (mask & ZPL_SET_UID) {
		node->uid = attr->uid;
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_UID], NULL, &node->uid, 8);
	}
	if (mask & ZPL_SET_GID) {
		node->gid = attr->gid;
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_GID], NULL, &node->gid, 8);
	}
	if (mask & ZPL_SET_MODE) {
		node->mode = (node->mode & S_IFMT) | (attr->mode & 07777);
		zpl_acl_trivial(node->mode, &acl);
		node->pflags = (node->pflags & ~(uint64_t)ZPL_ACL_PFLAGS) | acl.pflags;
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MODE], NULL, &node->mode, 8);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_DACL_COUNT], NULL, &acl.count, 8);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_DACL_ACES], NULL, acl.ace, acl.bytes);
	}
	if (mask & (ZPL_SET_ATIME | ZPL_SET_ATIME_NOW)) {
		if (mask & ZPL_SET_ATIME_NOW)
			memcpy(node->atime, now, sizeof(now));
		else
			from_timespec(node->atime, &attr->atime);
	}
	if (mask & (ZPL_SET_ATIME | ZPL_SET_ATIME_NOW) || node->atime_dirty) {
		node->atime_dirty = false;
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_ATIME], NULL, node->atime, 16);
	}
	if (mask & (ZPL_SET_MTIME | ZPL_SET_MTIME_NOW | ZPL_SET_SIZE)) {
		if (mask & ZPL_SET_MTIME)
			from_timespec(node->mtime, &attr->mtime);
		else
			memcpy(node->mtime, now, sizeof(now));
		node->pflags |= ZFS_AV_MODIFIED;
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MTIME], NULL, node->mtime, 16);
	}
	zpl_status_changed(node, now);
	if (mask & ZPL_SET_CTIME)
		from_timespec(node->ctime, &attr->ctime);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, node->ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
	return zpl_error(sa_bulk_update(node->hdl, bulk, n, tx));
}

/*
 * The times of a file that has no name any more die with it. The kernel sets its ctime after every unlink, so
 * a transaction for that would double the cost of removing files.
 */
static bool only_times_of_unlinked(struct zpl_node *node, const struct zpl_attr *attr, unsigned mask)
{
	const unsigned times = ZPL_SET_ATIME | ZPL_SET_MTIME | ZPL_SET_CTIME;
	PV_LOCK_SCOPE(&node->lock);

	if (!node->unlinked || mask & ~times)
		return false;
	if (mask & ZPL_SET_ATIME)
		from_timespec(node->atime, &attr->atime);
	if (mask & ZPL_SET_MTIME)
		from_timespec(node->mtime, &attr->mtime);
	if (mask & ZPL_SET_CTIME)
		from_timespec(node->ctime, &attr->ctime);
	return true;
}

static int apply(struct zpl_node *node, const struct zpl_attr *attr, unsigned mask)
{
	dmu_tx_t *tx;
	int ret;

	if (only_times_of_unlinked(node, attr, mask))
		return 0;

	if (mask & ZPL_SET_SIZE) {
		ret = zpl_set_size(node, attr->size);
		if (ret)
			return ret;
	}
	tx = dmu_tx_create(node->fs->os);
	/* A new mode may have a longer ACL. */
	dmu_tx_hold_sa(tx, node->hdl, mask & ZPL_SET_MODE ? B_TRUE : B_FALSE);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	pthread_mutex_lock(&node->lock);
	ret = update(node, attr, mask, tx);
	pthread_mutex_unlock(&node->lock);
	zpl_log_setattr(node, mask, tx);
	dmu_tx_commit(tx);
	return ret;
}

int zpl_set_mode(struct zpl_node *node, uint32_t mode)
{
	struct zpl_attr attr = {.mode = mode};

	return ((node->mode ^ mode) & 07777) == 0 ? 0 : apply(node, &attr, ZPL_SET_MODE);
}

/*
 * The hidden attribute directory and its files belong to whom the file belongs, and count in his quota. A
 * failure leaves them with the old owner, which shows in accounting only.
 */
static void chown_xattrs(struct zpl_node *node, const struct zpl_attr *attr, unsigned mask)
{
	zap_attribute_t *entry;
	zap_cursor_t cursor;
	struct zpl_node *dir = NULL, *file;

	pthread_rwlock_wrlock(&node->xattr_lock);
	if (zpl_xattr_load(node) == 0 && node->xattr_object)
		(void)zpl_node_get(node->fs, node->xattr_object, 0, &dir);
	if (dir && dir->is_xattr && zpl_is_dir(dir) && apply(dir, attr, mask) == 0) {
		entry = zap_attribute_long_alloc();
		zap_cursor_init(&cursor, node->fs->os, dir->object);
		while (zap_cursor_retrieve(&cursor, entry) == 0) {
			if (zpl_node_get(node->fs, ZFS_DIRENT_OBJ(entry->za_first_integer), 0, &file) == 0) {
				if (file->is_xattr)
					(void)apply(file, attr, mask);
				zpl_release(file);
			}
			zap_cursor_advance(&cursor);
		}
		zap_cursor_fini(&cursor);
		zap_attribute_free(entry);
	}
	pthread_rwlock_unlock(&node->xattr_lock);
	zpl_release(dir);
}

int zpl_setattr(struct zpl_node *node, const struct zpl_attr *attr, unsigned mask, struct zpl_attr *ret_attr)
{
	int ret = zpl_enter_node(node, true);

	if (ret)
		return ret;
	pthread_mutex_lock(&node->lock);
	ret = check(node, attr, mask);
	pthread_mutex_unlock(&node->lock);
	if (ret == 0 && mask)
		ret = apply(node, attr, mask);
	if (ret == 0 && mask & (ZPL_SET_UID | ZPL_SET_GID))
		chown_xattrs(node, attr, mask & (ZPL_SET_UID | ZPL_SET_GID));
	if (ret == 0 && mask & ZPL_SET_MODE)
		ret = zpl_posix_acl_chmod(node, attr->mode);
	if (ret == 0 && ret_attr) {
		pthread_mutex_lock(&node->lock);
		zpl_fill_attr(node, ret_attr);
		pthread_mutex_unlock(&node->lock);
	}
	zpl_exit(node->fs);
	return ret;
}
