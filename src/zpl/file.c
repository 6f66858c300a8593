/*
 * Reading and writing data.
 *
 * A file starts with blocks of 512 bytes. While it fits one block, that block grows with it, up to the
 * dataset's recordsize; once there are two, the size is fixed. A write that makes the block grow holds the
 * whole file (range_adjust() in node.c), any other only its range, so that writers of different places go on
 * in parallel.
 *
 * Each turn of a write is one transaction of at most WRITE_CHUNK bytes (or one block); a turn ends at a
 * multiple of it, so that large writes fill whole blocks, which are neither read nor cleared first.
 */
#include "zpl/zpl_int.h"

#include <errno.h>
#include <string.h>

#define WRITE_CHUNK (4u << 20)

uint64_t zpl_max_blksz(const struct zpl_fs *fs)
{
	uint64_t size = __atomic_load_n(&fs->recordsize, __ATOMIC_RELAXED);

	return size >= SPA_MINBLOCKSIZE && size <= SPA_MAXBLOCKSIZE ? size : SPA_OLD_MAXBLOCKSIZE;
}

uint64_t zpl_next_blksz(const struct zpl_node *node, uint64_t end)
{
	uint64_t max = zpl_max_blksz(node->fs);

	/* The recordsize was lowered since: up to the next power of two, where growth ends. */
	if (node->blksz > max)
		max = 1ULL << highbit64(node->blksz);
	return MIN(end, max);
}

void zpl_grow_blksz(struct zpl_node *node, uint64_t size, dmu_tx_t *tx)
{
	u_longlong_t blocks;
	uint32_t blksz;

	if (size <= node->blksz || node->size > node->blksz)
		return;
	/* ENOTSUP: there is a second block (a hole now); the size stays what it is. */
	if (dmu_object_set_blocksize(node->fs->os, node->object, size, 0, tx) != 0)
		return;
	dmu_object_size_from_db(sa_get_db(node->hdl), &blksz, &blocks);
	__atomic_store_n(&node->blksz, blksz, __ATOMIC_RELAXED);
}

/* ---- read ---- */

int zpl_file_read(struct zpl_node *node, uint64_t offset, size_t length, void *buffer, size_t *ret_length)
{
	zfs_locked_range_t *range;
	uint64_t size;
	int ret = 0;

	if (offset >= INT64_MAX)
		return -EINVAL;
	if (length == 0) {
		*ret_length = 0;
		return 0;
	}
	range = zfs_rangelock_enter(&node->range, offset, length, RL_READER);
	size = __atomic_load_n(&node->size, __ATOMIC_RELAXED);
	if (offset >= size)
		length = 0;
	else if (length > size - offset)
		length = size - offset;
	if (length)
		ret = zpl_error(dmu_read_by_dnode(node->dn, offset, length, buffer, DMU_READ_PREFETCH));
	zfs_rangelock_exit(range);
	if (ret == 0)
		*ret_length = length;
	return ret;
}

int zpl_read(struct zpl_node *node, uint64_t offset, size_t length, void *buffer, size_t *ret_length)
{
	int ret = zpl_enter_node(node, false);

	if (ret)
		return ret;
	if (!S_ISREG(node->mode))
		ret = zpl_is_dir(node) ? -EISDIR : -EINVAL;
	else
		ret = zpl_file_read(node, offset, length, buffer, ret_length);
	if (ret == 0)
		zpl_accessed(node);
	zpl_exit(node->fs);
	return ret;
}

/* ---- write ---- */

/* A position in an iovec. */
struct source {
	const struct iovec *iov;
	int count;
	size_t skip; /* of the first */
};

static void take(struct source *from, char *to, size_t length)
{
	while (length) {
		size_t n = MIN(length, from->iov->iov_len - from->skip);

		memcpy(to, (const char *)from->iov->iov_base + from->skip, n);
		to += n;
		length -= n;
		from->skip += n;
		if (from->skip == from->iov->iov_len) {
			from->iov++;
			from->count--;
			from->skip = 0;
		}
	}
}

/* Copies straight into the DMU's buffers, one copy whatever the shape of the iovec. */
static int fill_buffers(
	struct zpl_node *node, uint64_t offset, uint64_t length, struct source *from, dmu_tx_t *tx)
{
	dmu_buf_t **dbs;
	int count, error;

	error = dmu_buf_hold_array_by_dnode(
		node->dn, offset, length, B_FALSE, FTAG, &count, &dbs, DMU_READ_PREFETCH);
	if (error)
		return zpl_error(error);
	for (int i = 0; i < count; i++) {
		dmu_buf_t *db = dbs[i];
		uint64_t skip = offset - db->db_offset;
		uint64_t n = MIN(db->db_size - skip, length);
		bool whole = n == db->db_size;

		if (whole)
			dmu_buf_will_fill(db, tx, B_FALSE);
		else
			dmu_buf_will_dirty(db, tx);
		take(from, (char *)db->db_data + skip, n);
		if (whole)
			(void)dmu_buf_fill_done(db, tx, B_FALSE);
		offset += n;
		length -= n;
	}
	dmu_buf_rele_array(dbs, count, FTAG);
	return 0;
}

static int update_attributes(struct zpl_node *node, uint64_t end, dmu_tx_t *tx)
{
	const sa_attr_type_t *table = node->fs->table;
	sa_bulk_attr_t bulk[5];
	uint64_t now[2];
	int n = 0, ret;

	zpl_now(now);
	pthread_mutex_lock(&node->lock);
	zpl_content_changed(node, now);
	if (node->fs->replay_end)
		end = MIN(end, node->fs->replay_end);
	if (end > node->size)
		__atomic_store_n(&node->size, end, __ATOMIC_RELAXED);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MTIME], NULL, node->mtime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, node->ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_SIZE], NULL, &node->size, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
	if (node->atime_dirty) {
		node->atime_dirty = false;
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_ATIME], NULL, node->atime, 16);
	}
	ret = zpl_error(sa_bulk_update(node->hdl, bulk, n, tx));
	pthread_mutex_unlock(&node->lock);
	return ret;
}

/* One transaction. `range` may be wider than needed; it is reduced as soon as the block size is settled. */
static int write_chunk(struct zpl_node *node, uint64_t offset, uint64_t length, uint64_t whole_end,
	struct source *from, zfs_locked_range_t *range)
{
	dmu_tx_t *tx;
	int ret = zpl_check_quota(node->fs, node->uid, node->gid, node->projid, false);

	if (ret)
		return ret;
	tx = dmu_tx_create(node->fs->os);
	dmu_tx_hold_sa(tx, node->hdl, B_FALSE);
	dmu_tx_hold_write_by_dnode(tx, node->dn, offset, (int)length);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	if (range->lr_length == UINT64_MAX) {
		zpl_grow_blksz(node, zpl_next_blksz(node, whole_end), tx);
		zfs_rangelock_reduce(range, offset, whole_end - offset);
	}
	ret = fill_buffers(node, offset, length, from, tx);
	if (ret == 0)
		ret = update_attributes(node, offset + length, tx);
	zpl_log_write(node, offset, length, tx);
	dmu_tx_commit(tx);
	return ret;
}

int zpl_file_write(struct zpl_node *node, uint64_t offset, const struct iovec *iov, int iovcnt, bool append,
	size_t *ret_written)
{
	struct source from = {.iov = iov, .count = iovcnt};
	zfs_locked_range_t *range;
	uint64_t length = 0, end, chunk = MAX(WRITE_CHUNK, zpl_max_blksz(node->fs));
	size_t written = 0;
	int ret = 0;

	for (int i = 0; i < iovcnt; i++)
		length += iov[i].iov_len;
	if (length == 0) {
		*ret_written = 0;
		return 0;
	}
	if (zpl_no_space())
		return -ENOSPC;
	if (node->pflags & ZFS_IMMUTABLE)
		return -EPERM;
	if (!append && node->pflags & ZFS_APPENDONLY && offset < node->size)
		return -EPERM;
	if (length > INT64_MAX || (!append && offset > INT64_MAX - length))
		return -EFBIG;

	range = zfs_rangelock_enter(
		&node->range, append ? 0 : offset, length, append ? RL_APPEND : RL_WRITER);
	if (append) /* a widened lock starts at 0; the size cannot change under it */
		offset = range->lr_length == UINT64_MAX ? node->size : range->lr_offset;
	end = offset + length;
	if (end > INT64_MAX)
		ret = -EFBIG;
	while (ret == 0 && offset < end) {
		uint64_t n = MIN(end - offset, chunk - offset % chunk);

		while (from.count && from.iov->iov_len == 0) {
			from.iov++;
			from.count--;
		}
		ret = write_chunk(node, offset, n, end, &from, range);
		if (ret == 0) {
			offset += n;
			written += n;
		}
	}
	zfs_rangelock_exit(range);
	if (ret == 0 || written)
		*ret_written = written;
	return ret;
}

int zpl_write(struct zpl_node *node, uint64_t offset, const struct iovec *iov, int iovcnt, bool append,
	size_t *ret_written)
{
	int ret;

	*ret_written = 0;
	ret = zpl_enter_node(node, true);
	if (ret)
		return ret;
	if (!S_ISREG(node->mode))
		ret = zpl_is_dir(node) ? -EISDIR : -EINVAL;
	else
		ret = zpl_file_write(node, offset, iov, iovcnt, append, ret_written);
	zpl_exit(node->fs);
	return ret;
}
