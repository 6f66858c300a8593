/*
 * The extent of files: truncation, holes, preallocation, and where data lies.
 *
 * A file is shortened in one transaction, unless what it loses is too much for one: then the ranges are given
 * back before the attributes say so, and a crash in between leaves zeros where there was data that somebody
 * had asked to remove.
 */
#include "zpl/zpl_int.h"

#include <errno.h>
#include <linux/falloc.h>
#include <unistd.h>

/* ---- size ---- */

/* What one transaction may free without holding the others up. */
#define FREE_AT_ONCE ((uint64_t)64 << 20)

/* In its own transaction: SIZE, and with `drop` the data behind it. Whole-file lock held. */
static int store_size(struct zpl_node *node, uint64_t size, bool shrink, bool drop)
{
	const sa_attr_type_t *table = node->fs->table;
	uint64_t blksz = node->blksz, grown = 0;
	sa_bulk_attr_t bulk[2];
	dmu_tx_t *tx;
	int n = 0, ret;

	if (!shrink && size > blksz && (!ISP2(blksz) || blksz < zpl_max_blksz(node->fs)))
		grown = zpl_next_blksz(node, size);
	tx = dmu_tx_create(node->fs->os);
	dmu_tx_hold_sa(tx, node->hdl, B_FALSE);
	if (grown)
		dmu_tx_hold_write_by_dnode(tx, node->dn, 0, (int)grown);
	if (drop)
		dmu_tx_hold_free_by_dnode(tx, node->dn, size, DMU_OBJECT_END);
	if (shrink)
		dmu_tx_mark_netfree(tx);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	if (grown)
		zpl_grow_blksz(node, grown, tx);
	if (drop && (ret = zpl_error(dmu_free_range(node->fs->os, node->object, size, DMU_OBJECT_END, tx))) !=
			    0) {
		dmu_tx_commit(tx);
		return ret;
	}
	pthread_mutex_lock(&node->lock);
	__atomic_store_n(&node->size, size, __ATOMIC_RELAXED);
	if (size == 0)
		node->pflags &= ~ZFS_SPARSE;
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_SIZE], NULL, &node->size, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
	ret = zpl_error(sa_bulk_update(node->hdl, bulk, n, tx));
	pthread_mutex_unlock(&node->lock);
	zpl_log_truncate(node, size, 0, tx);
	dmu_tx_commit(tx);
	return ret;
}

static int set_size_locked(struct zpl_node *node, uint64_t size)
{
	int ret;

	if (size == node->size)
		return 0;
	if (size > node->size)
		return zpl_no_space() ? -ENOSPC : store_size(node, size, false, false);
	if (node->size - size <= FREE_AT_ONCE)
		return store_size(node, size, true, true);
	ret = zpl_error(dmu_free_long_range(node->fs->os, node->object, size, DMU_OBJECT_END));
	return ret ? ret : store_size(node, size, true, false);
}

int zpl_set_size(struct zpl_node *node, uint64_t size)
{
	zfs_locked_range_t *range;
	int ret;

	if (size > INT64_MAX)
		return -EFBIG;
	range = zfs_rangelock_enter(&node->range, 0, UINT64_MAX, RL_WRITER);
	ret = set_size_locked(node, size);
	zfs_rangelock_exit(range);
	return ret;
}

/* ---- holes ---- */

/* Reads as zeros from now on; the size stays. */
int zpl_free_range(struct zpl_node *node, uint64_t offset, uint64_t length)
{
	zfs_locked_range_t *range = zfs_rangelock_enter(&node->range, offset, length, RL_WRITER);
	uint64_t size = node->size;
	int ret = 0;

	if (offset < size)
		ret = zpl_error(
			dmu_free_long_range(node->fs->os, node->object, offset, MIN(length, size - offset)));
	zfs_rangelock_exit(range);
	return ret;
}

static int store_times(struct zpl_node *node, uint64_t offset, uint64_t length)
{
	const sa_attr_type_t *table = node->fs->table;
	sa_bulk_attr_t bulk[3];
	uint64_t now[2];
	dmu_tx_t *tx = dmu_tx_create(node->fs->os);
	int n = 0, ret;

	dmu_tx_hold_sa(tx, node->hdl, B_FALSE);
	dmu_tx_mark_netfree(tx);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	zpl_now(now);
	pthread_mutex_lock(&node->lock);
	zpl_content_changed(node, now);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MTIME], NULL, node->mtime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, node->ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
	ret = zpl_error(sa_bulk_update(node->hdl, bulk, n, tx));
	pthread_mutex_unlock(&node->lock);
	zpl_log_truncate(node, offset, length, tx);
	dmu_tx_commit(tx);
	return ret;
}

static int extend(struct zpl_node *node, uint64_t end)
{
	zfs_locked_range_t *range = zfs_rangelock_enter(&node->range, 0, UINT64_MAX, RL_WRITER);
	int ret = end > node->size ? set_size_locked(node, end) : 0;

	zfs_rangelock_exit(range);
	return ret;
}

/* Space cannot be reserved for a file that is rewritten elsewhere; but obvious lack of it can be told. */
static int check_space(struct zpl_fs *fs, uint64_t length)
{
	uint64_t used, available, objects, free_objects;

	if (zpl_no_space())
		return -ENOSPC;
	dmu_objset_space(fs->os, &used, &available, &objects, &free_objects);
	return length > available - available / 10 ? -ENOSPC : 0;
}

static int allocate(struct zpl_node *node, int mode, uint64_t offset, uint64_t length)
{
	uint64_t end = offset + length;
	int ret;

	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
		ret = check_space(node->fs, length);
		if (ret || mode == FALLOC_FL_KEEP_SIZE || end <= node->size)
			return ret;
		ret = extend(node, end);
		break;
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE: ret = zpl_free_range(node, offset, length); break;
	case FALLOC_FL_ZERO_RANGE:
		ret = zpl_free_range(node, offset, length);
		if (ret == 0)
			ret = extend(node, end);
		break;
	default: return -EOPNOTSUPP;
	}
	return ret ? ret : store_times(node, offset, length);
}

int zpl_fallocate(struct zpl_node *node, int mode, uint64_t offset, uint64_t length)
{
	int ret = zpl_enter_node(node, true);

	if (ret)
		return ret;
	if (!S_ISREG(node->mode))
		ret = zpl_is_dir(node) ? -EISDIR : -ENODEV;
	else if (length == 0)
		ret = -EINVAL;
	else if (length > INT64_MAX || offset > INT64_MAX - length)
		ret = -EFBIG;
	else if (node->pflags & (ZFS_IMMUTABLE | ZFS_APPENDONLY))
		ret = -EPERM;
	else
		ret = allocate(node, mode, offset, length);
	zpl_exit(node->fs);
	return ret;
}

/* ---- seek ---- */

static int seek(struct zpl_node *node, uint64_t offset, bool hole, uint64_t *ret_offset)
{
	zfs_locked_range_t *range = zfs_rangelock_enter(&node->range, 0, UINT64_MAX, RL_READER);
	uint64_t size = node->size, found = offset;
	int error;

	if (offset >= size) {
		zfs_rangelock_exit(range);
		return -ENXIO;
	}
	/*
	 * What is not on disk yet has no block pointers to look at, and the DMU would wait for a transaction
	 * group. That all of it is data is a valid answer too.
	 */
	if (__atomic_load_n(&node->last_txg, __ATOMIC_RELAXED) >
		spa_last_synced_txg(dmu_objset_spa(node->fs->os)))
		error = EBUSY;
	else
		error = dmu_offset_next(node->fs->os, node->object, hole ? B_TRUE : B_FALSE, &found);
	zfs_rangelock_exit(range);
	if (error == EBUSY) {
		*ret_offset = hole ? size : offset;
		return 0;
	}
	if (error == ESRCH) { /* none of that kind any more; the end of the file is a hole */
		if (!hole)
			return -ENXIO;
		found = size;
	} else if (error) {
		return zpl_error(error);
	}
	if (!hole && found >= size)
		return -ENXIO;
	*ret_offset = MIN(MAX(found, offset), size);
	return 0;
}

int zpl_seek(struct zpl_node *node, uint64_t offset, int whence, uint64_t *ret_offset)
{
	int ret = zpl_enter_node(node, false);

	if (ret)
		return ret;
	if (!S_ISREG(node->mode) || (whence != SEEK_DATA && whence != SEEK_HOLE))
		ret = -EINVAL;
	else
		ret = seek(node, offset, whence == SEEK_HOLE, ret_offset);
	zpl_exit(node->fs);
	return ret;
}
