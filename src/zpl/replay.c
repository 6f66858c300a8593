/*
 * The intent log that another implementation left behind after a crash: changes it had promised to keep, as
 * records in their order, on top of the last transaction group. They are replayed before the file system is
 * used, each change in one transaction that also notes (through zil_replaying(), see log.c) how far the
 * replay has come; so a crash during the replay does no harm.
 *
 * libzpool walks the chain and calls the functions below. It throws the log away in the end, whatever they
 * answer. Hence the log is looked through first: with a record in it that we cannot replay, the file system
 * is not mounted at all, rather than parts of it lost. That concerns NFSv4 ACLs, Windows and BSD flags, and
 * logs of a machine of the other byte order, for which the pool must go back to where it came from.
 *
 * Records are data from disk: lengths and terminators are checked, objects may not be what they should be.
 */
#include "zpl/zpl_int.h"

#include "base/log.h"

#include <sys/brt.h>
#include <sys/zil_impl.h>

#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>

/* Bits of a TX_SETATTR record's mask as Linux writes them; other systems' logs are not portable. */
enum {
	LOG_MODE = 1,
	LOG_UID = 2,
	LOG_GID = 4,
	LOG_SIZE = 8,
	LOG_ATIME = 0x10,
	LOG_MTIME = 0x20,
	LOG_CTIME = 0x40,
};
#define LOG_KNOWN (LOG_MODE | LOG_UID | LOG_GID | LOG_SIZE | LOG_ATIME | LOG_MTIME | LOG_CTIME)

/* ---- reading records ---- */

/* Bytes behind the fixed part, or NULL when the record is too short for that. */
static const char *tail(const void *record, size_t fixed, size_t *ret_length)
{
	const lr_t *lr = record;

	if (lr->lrc_reclen < fixed)
		return NULL;
	*ret_length = lr->lrc_reclen - fixed;
	return (const char *)record + fixed;
}

/* Takes a NUL-terminated string off the front. */
static const char *take_string(const char **data, size_t *length)
{
	const char *start = *data;
	const char *end = start ? memchr(start, '\0', *length) : NULL;

	if (!end)
		return NULL;
	*length -= (size_t)(end + 1 - start);
	*data = end + 1;
	return start;
}

static int get(struct zpl_fs *fs, uint64_t object, struct zpl_node **ret_node)
{
	return zpl_node_get(fs, LR_FOID_GET_OBJ(object), 0, ret_node);
}

static int get_dir(struct zpl_fs *fs, uint64_t object, struct zpl_node **ret_dir)
{
	int ret = get(fs, object, ret_dir);

	if (ret == 0 && !zpl_is_dir(*ret_dir)) {
		zpl_release(*ret_dir);
		*ret_dir = NULL;
		ret = -ENOTDIR;
	}
	return ret;
}

/* ---- names ---- */

static int make_claimed(struct zpl_node *dir, const char *name, struct zpl_new *new, uint64_t foid)
{
	unsigned slots = (unsigned)LR_FOID_GET_SLOTS(foid);
	struct zpl_node *node;
	int ret;

	new->claim = LR_FOID_GET_OBJ(foid);
	new->dnodesize = (int)(slots << DNODE_SHIFT);
	new->xattr = dir->is_xattr;
	ret = zpl_error(dnode_try_claim(dir->fs->os, new->claim, (int)slots));
	if (ret)
		return ret;
	if (name) {
		ret = zpl_make(dir, name, new, &node, NULL);
	} else {
		new->xattr = true;
		pthread_rwlock_wrlock(&dir->xattr_lock);
		ret = zpl_xattr_load(dir);
		if (ret == 0)
			ret = dir->xattr_object ? -EEXIST : zpl_xattr_make_dir(dir, new, &node);
		pthread_rwlock_unlock(&dir->xattr_lock);
	}
	if (ret == 0)
		zpl_release(node);
	return ret;
}

static int replay_create(struct zpl_fs *fs, const lr_create_t *lr)
{
	const _lr_create_t *c = &lr->lr_create;
	uint64_t type = c->lr_common.lrc_txtype & ~TX_CI;
	struct zpl_cred cred = {.uid = (uid_t)c->lr_uid, .gid = (gid_t)c->lr_gid};
	struct zpl_new new = {.mode = (uint32_t)c->lr_mode,
		.cred = &cred,
		.generation = c->lr_gen,
		.crtime = c->lr_crtime,
		.rdev = c->lr_rdev};
	struct zpl_node *dir;
	size_t length = 0;
	const char *data = tail(lr, sizeof(*lr), &length), *name = take_string(&data, &length);
	int ret;

	if (!name || c->lr_gen == 0 || S_ISLNK(new.mode) != (type == TX_SYMLINK) ||
		S_ISDIR(new.mode) != (type == TX_MKDIR || type == TX_MKXATTR))
		return -EINVAL;
	if (type == TX_SYMLINK) {
		new.target = take_string(&data, &length);
		if (!new.target || !*new.target)
			return -EINVAL;
	}
	ret = type == TX_MKXATTR ? get(fs, c->lr_doid, &dir) : get_dir(fs, c->lr_doid, &dir);
	if (ret)
		return ret;
	ret = make_claimed(dir, type == TX_MKXATTR ? NULL : name, &new, c->lr_foid);
	zpl_release(dir);
	return ret;
}

static int replay_remove(struct zpl_fs *fs, const lr_remove_t *lr)
{
	size_t length = 0;
	const char *data = tail(lr, sizeof(*lr), &length), *name = take_string(&data, &length);
	struct zpl_node *dir;
	int ret;

	if (!name)
		return -EINVAL;
	ret = get_dir(fs, lr->lr_doid, &dir);
	if (ret)
		return ret;
	ret = zpl_remove(dir, name, (lr->lr_common.lrc_txtype & ~TX_CI) == TX_RMDIR);
	zpl_release(dir);
	return ret;
}

static int replay_link(struct zpl_fs *fs, const lr_link_t *lr)
{
	size_t length = 0;
	const char *data = tail(lr, sizeof(*lr), &length), *name = take_string(&data, &length);
	struct zpl_node *dir, *node;
	int ret;

	if (!name)
		return -EINVAL;
	ret = get_dir(fs, lr->lr_doid, &dir);
	if (ret)
		return ret;
	ret = get(fs, lr->lr_link_obj, &node);
	if (ret == 0) {
		ret = zpl_link(node, dir, name);
		zpl_release(node);
	}
	zpl_release(dir);
	return ret;
}

static int rename_names(struct zpl_fs *fs, const _lr_rename_t *r, const char *sname, const char *tname,
	unsigned flags, const lr_rename_whiteout_t *whiteout)
{
	struct zpl_node *sdir, *tdir = NULL;
	int ret = get_dir(fs, r->lr_sdoid, &sdir);

	if (ret)
		return ret;
	ret = get_dir(fs, r->lr_tdoid, &tdir);
	if (ret == 0)
		ret = zpl_rename(sdir, sname, tdir, tname, flags);
	if (ret == 0 && whiteout) {
		struct zpl_cred cred = {.uid = (uid_t)whiteout->lr_wuid, .gid = (gid_t)whiteout->lr_wgid};
		struct zpl_new new = {.mode = (uint32_t)whiteout->lr_wmode,
			.cred = &cred,
			.generation = whiteout->lr_wgen,
			.crtime = whiteout->lr_wcrtime,
			.rdev = whiteout->lr_wrdev};

		ret = S_ISCHR(new.mode) ? make_claimed(sdir, sname, &new, whiteout->lr_wfoid) : -EINVAL;
	}
	zpl_release(tdir);
	zpl_release(sdir);
	return ret;
}

static int replay_rename(struct zpl_fs *fs, const lr_rename_t *lr)
{
	uint64_t type = lr->lr_rename.lr_common.lrc_txtype & ~TX_CI;
	bool whiteout = type == TX_RENAME_WHITEOUT;
	size_t length = 0;
	const char *data = tail(lr, whiteout ? sizeof(lr_rename_whiteout_t) : sizeof(*lr), &length);
	const char *sname = take_string(&data, &length), *tname = sname ? take_string(&data, &length) : NULL;

	if (!tname)
		return -EINVAL;
	return rename_names(fs, &lr->lr_rename, sname, tname,
		type == TX_RENAME_EXCHANGE ? RENAME_EXCHANGE : 0,
		whiteout ? (const lr_rename_whiteout_t *)lr : NULL);
}

/* ---- data ---- */

/* The file of a record, if it still is a file; gone is fine, since removals are not in order with these
 * records. */
static int get_file(struct zpl_fs *fs, uint64_t object, struct zpl_node **ret_node)
{
	int ret = get(fs, object, ret_node);

	if (ret == 0 && !S_ISREG((*ret_node)->mode)) {
		zpl_release(*ret_node);
		ret = -EINVAL;
	}
	return ret;
}

static int replay_write(struct zpl_fs *fs, lr_write_t *lr)
{
	uint64_t offset = lr->lr_offset, length = lr->lr_length, end = offset + length;
	bool indirect = lr->lr_common.lrc_reclen == sizeof(*lr);
	struct iovec iov = {.iov_base = lr->lr_data};
	struct zpl_node *node;
	size_t written;
	int ret;

	if (lr->lr_common.lrc_reclen < sizeof(*lr) || end < offset || end > INT64_MAX)
		return -EINVAL;
	if (indirect) { /* libzpool has read the whole block in behind the record */
		uint64_t blksz = BP_GET_LSIZE(&lr->lr_blkptr);

		if (length > blksz)
			return -EINVAL;
		if (length < blksz) {
			offset -= offset % blksz;
			length = blksz;
		}
	} else if (length > lr->lr_common.lrc_reclen - sizeof(*lr)) {
		return -EINVAL;
	}
	ret = get_file(fs, lr->lr_foid, &node);
	if (ret)
		return ret;
	iov.iov_len = length;
	fs->replay_end = end;
	ret = zpl_file_write(node, offset, &iov, 1, false, &written);
	fs->replay_end = 0;
	zpl_release(node);
	return ret;
}

/* A write whose data had reached the disk with its transaction group, but not the size. */
static int replay_write2(struct zpl_fs *fs, const lr_write_t *lr)
{
	uint64_t end = lr->lr_offset + lr->lr_length;
	struct zpl_node *node;
	int ret;

	if (end < lr->lr_offset)
		return -EINVAL;
	ret = get_file(fs, lr->lr_foid, &node);
	if (ret)
		return ret;
	if (end > node->size)
		ret = zpl_set_size(node, end);
	zpl_release(node);
	return ret;
}

static int replay_truncate(struct zpl_fs *fs, const lr_truncate_t *lr)
{
	struct zpl_attr attr = {.size = lr->lr_offset};
	struct zpl_node *node;
	int ret = get_file(fs, lr->lr_foid, &node);

	if (ret)
		return ret;
	if (lr->lr_length == 0)
		ret = zpl_setattr(node, &attr, ZPL_SET_SIZE, NULL);
	else
		ret = zpl_fallocate(node, FALLOC_FL_ZERO_RANGE, lr->lr_offset, lr->lr_length);
	zpl_release(node);
	return ret;
}

static int clone_blocks(struct zpl_node *node, const lr_clone_range_t *lr)
{
	const sa_attr_type_t *table = node->fs->table;
	sa_bulk_attr_t bulk[4];
	uint64_t now[2];
	dmu_tx_t *tx = dmu_tx_create(node->fs->os);
	int n = 0, ret;

	dmu_tx_hold_sa(tx, node->hdl, B_FALSE);
#ifdef PV_ZFS_2_3_9
	dmu_tx_hold_clone_by_dnode(tx, node->dn, lr->lr_offset, lr->lr_length, (uint_t)lr->lr_blksz);
#else
	dmu_tx_hold_clone_by_dnode(tx, node->dn, lr->lr_offset, (int)lr->lr_length);
#endif
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	zpl_grow_blksz(node, lr->lr_blksz, tx);
	ret = zpl_error(dmu_brt_clone(
		node->fs->os, node->object, lr->lr_offset, lr->lr_length, tx, lr->lr_bps, lr->lr_nbps));
	if (ret == 0) {
		zpl_now(now);
		zpl_content_changed(node, now);
		node->size = MAX(node->size, lr->lr_offset + lr->lr_length);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MTIME], NULL, node->mtime, 16);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, node->ctime, 16);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_SIZE], NULL, &node->size, 8);
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
		ret = zpl_error(sa_bulk_update(node->hdl, bulk, n, tx));
	}
	zpl_log_write(node, lr->lr_offset, lr->lr_length, tx);
	dmu_tx_commit(tx);
	return ret;
}

static int replay_clone(struct zpl_fs *fs, const lr_clone_range_t *lr)
{
	struct zpl_node *node;
	int ret;

	if (lr->lr_common.lrc_reclen < sizeof(*lr) ||
		lr->lr_nbps > (lr->lr_common.lrc_reclen - sizeof(*lr)) / sizeof(blkptr_t) ||
		lr->lr_blksz < SPA_MINBLOCKSIZE || lr->lr_blksz > SPA_MAXBLOCKSIZE ||
		lr->lr_length > lr->lr_nbps * lr->lr_blksz || lr->lr_length > INT32_MAX ||
		lr->lr_offset > INT64_MAX - lr->lr_length)
		return -EINVAL;
	ret = get_file(fs, lr->lr_foid, &node);
	if (ret)
		return ret;
	ret = clone_blocks(node, lr);
	zpl_release(node);
	return ret;
}

/* ---- attributes ---- */

static int replay_setattr(struct zpl_fs *fs, const lr_setattr_t *lr)
{
	static const struct {
		unsigned log, set;
	} bits[] = {{LOG_MODE, ZPL_SET_MODE}, {LOG_UID, ZPL_SET_UID}, {LOG_GID, ZPL_SET_GID},
		{LOG_SIZE, ZPL_SET_SIZE}, {LOG_ATIME, ZPL_SET_ATIME}, {LOG_MTIME, ZPL_SET_MTIME}};
	struct zpl_attr attr = {
		.mode = (uint32_t)lr->lr_mode,
		.uid = (uid_t)lr->lr_uid,
		.gid = (gid_t)lr->lr_gid,
		.size = lr->lr_size,
		.atime = {(time_t)lr->lr_atime[0], (long)lr->lr_atime[1]},
		.mtime = {(time_t)lr->lr_mtime[0], (long)lr->lr_mtime[1]},
	};
	struct zpl_node *node;
	unsigned mask = 0;
	int ret = get(fs, lr->lr_foid, &node);

	if (ret)
		return ret;
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		if (lr->lr_mask & bits[i].log)
			mask |= bits[i].set;
	ret = zpl_setattr(node, &attr, mask, NULL);
	zpl_release(node);
	return ret;
}

static int replay_setsaxattr(struct zpl_fs *fs, const lr_setsaxattr_t *lr)
{
	size_t length = 0;
	const char *data = tail(lr, sizeof(*lr), &length), *name = take_string(&data, &length);
	struct zpl_node *node;
	int ret;

	if (!name || !*name || lr->lr_size > length)
		return -EINVAL;
	ret = get(fs, lr->lr_foid, &node);
	if (ret)
		return ret;
	pthread_rwlock_wrlock(&node->xattr_lock);
	ret = zpl_xattr_load(node);
	if (ret == 0)
		ret = zpl_xattr_set_sa(node, name, lr->lr_size ? data : NULL, lr->lr_size);
	pthread_rwlock_unlock(&node->xattr_lock);
	zpl_release(node);
	return ret;
}

/* ---- the log ---- */

static int replay_record(void *private, void *record, boolean_t byteswap)
{
	struct zpl_fs *fs = private;
	int ret;

	if (byteswap)
		return ENOTSUP;
	switch (((lr_t *)record)->lrc_txtype & ~TX_CI) {
	case TX_CREATE:
	case TX_MKDIR:
	case TX_MKXATTR:
	case TX_SYMLINK: ret = replay_create(fs, record); break;
	case TX_REMOVE:
	case TX_RMDIR: ret = replay_remove(fs, record); break;
	case TX_LINK: ret = replay_link(fs, record); break;
	case TX_RENAME:
	case TX_RENAME_EXCHANGE:
	case TX_RENAME_WHITEOUT: ret = replay_rename(fs, record); break;
	case TX_WRITE: ret = replay_write(fs, record); break;
	case TX_WRITE2: ret = replay_write2(fs, record); break;
	case TX_TRUNCATE: ret = replay_truncate(fs, record); break;
	case TX_CLONE_RANGE: ret = replay_clone(fs, record); break;
	case TX_SETATTR: ret = replay_setattr(fs, record); break;
	case TX_SETSAXATTR: ret = replay_setsaxattr(fs, record); break;
	default: ret = -ENOTSUP;
	}
	if (TX_OOO(((lr_t *)record)->lrc_txtype & ~TX_CI) && ret == -ENOENT)
		ret = 0;
	if (ret) /* no names here; the type is enough to know what is lost */
		pv_log(PV_LOG_WARNING, "intent log: a record of type %llu could not be replayed: %s",
			(unsigned long long)(((lr_t *)record)->lrc_txtype & ~TX_CI), pv_strerror(ret));
	return -ret;
}

static zil_replay_func_t *const replay_table[TX_MAX_TYPE] = {
	[TX_CREATE] = replay_record,
	[TX_MKDIR] = replay_record,
	[TX_MKXATTR] = replay_record,
	[TX_SYMLINK] = replay_record,
	[TX_REMOVE] = replay_record,
	[TX_RMDIR] = replay_record,
	[TX_LINK] = replay_record,
	[TX_RENAME] = replay_record,
	[TX_WRITE] = replay_record,
	[TX_TRUNCATE] = replay_record,
	[TX_SETATTR] = replay_record,
	[TX_ACL_V0] = replay_record,
	[TX_ACL] = replay_record,
	[TX_CREATE_ACL] = replay_record,
	[TX_CREATE_ATTR] = replay_record,
	[TX_CREATE_ACL_ATTR] = replay_record,
	[TX_MKDIR_ACL] = replay_record,
	[TX_MKDIR_ATTR] = replay_record,
	[TX_MKDIR_ACL_ATTR] = replay_record,
	[TX_WRITE2] = replay_record,
	[TX_SETSAXATTR] = replay_record,
	[TX_RENAME_EXCHANGE] = replay_record,
	[TX_RENAME_WHITEOUT] = replay_record,
	[TX_CLONE_RANGE] = replay_record,
};

struct review {
	uint64_t done; /* records up to this sequence number have been replayed */
	uint64_t unsupported;
};

static int review_block(zilog_t *zilog, const blkptr_t *bp, void *arg, uint64_t claim_txg)
{
	return 0;
}

static int review_record(zilog_t *zilog, const lr_t *lr, void *arg, uint64_t claim_txg)
{
	struct review *review = arg;
	uint64_t type = lr->lrc_txtype & ~TX_CI;

	if (lr->lrc_seq <= review->done || lr->lrc_txg < claim_txg)
		return 0;
	switch (type) {
	case TX_CREATE:
	case TX_MKDIR:
	case TX_MKXATTR:
	case TX_SYMLINK:
	case TX_REMOVE:
	case TX_RMDIR:
	case TX_LINK:
	case TX_RENAME:
	case TX_RENAME_EXCHANGE:
	case TX_RENAME_WHITEOUT:
	case TX_WRITE:
	case TX_WRITE2:
	case TX_TRUNCATE:
	case TX_CLONE_RANGE:
	case TX_SETSAXATTR: return 0;
	case TX_SETATTR:
		if ((((const lr_setattr_t *)lr)->lr_mask & ~(uint64_t)LOG_KNOWN) == 0)
			return 0;
	}
	review->unsupported = type;
	return ENOTSUP;
}

int zpl_replay(struct zpl_fs *fs, struct pv_error *err)
{
	zilog_t *zilog = dmu_objset_zil(fs->os);
	const zil_header_t *header = zilog->zl_header;
	struct review review = {.done = header->zh_replay_seq};

	if (header->zh_flags & ZIL_REPLAY_NEEDED) {
		int error =
			zil_parse(zilog, review_block, review_record, &review, header->zh_claim_txg, B_TRUE);

		if (error == ENOTSUP) {
			pv_fail(err, -ENOTSUP, fs->name,
				"the intent log holds a change that cannot be replayed here (type %llu)",
				(unsigned long long)review.unsupported);
			pv_remedy(err, "mount it once on the system that used it last");
			return -ENOTSUP;
		}
		if (error && error != ECKSUM) /* a chain ends with a block that does not check */
			return pv_fail(err, zpl_error(error), fs->name, "cannot read the intent log: %s",
				pv_strerror(error));
	}
	fs->zilog = zil_open(fs->os, NULL, NULL);
	fs->replaying = true;
	(void)zil_replay(fs->os, fs, replay_table);
	fs->replaying = false;
	zil_close(fs->zilog);
	fs->zilog = NULL;
	return 0;
}
