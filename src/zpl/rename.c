/*
 * Renaming: within a directory, between directories, over an existing object, and the exchange of two.
 *
 * Moving a directory to another parent could make it its own ancestor. Such moves hold the file system's
 * rename lock, so that nobody else changes the ancestry that is_ancestor() walks.
 */
#include "zpl/zpl_int.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>

struct rename {
	struct zpl_node *sdir, *tdir;
	const char *sname, *tname;
	struct zpl_node *node, *target; /* target: NULL = the name is free */
	unsigned flags;
	bool ancestry; /* holds the rename lock */
};

/* Internal answer: a directory changes its parent, which needs the rename lock. */
#define NEEDS_ANCESTRY 1

/* -EINVAL if `node` is `dir` or above it. */
static int check_ancestry(struct zpl_node *node, struct zpl_node *dir)
{
	struct zpl_fs *fs = dir->fs;
	uint64_t object = dir->object;
	/* Deeper than any path; bounds the walk if damaged parents form a ring. */
	enum { MAX_DEPTH = 65536 };

	for (unsigned depth = 0; depth < MAX_DEPTH; depth++) {
		struct zpl_node *step;
		int ret;

		if (object == node->object)
			return -EINVAL;
		if (object == fs->root)
			return 0;
		ret = zpl_node_get(fs, object, ZPL_GET_UNLINKED, &step);
		if (ret)
			return ret == -ENOENT ? -EUCLEAN : ret;
		object = __atomic_load_n(&step->parent, __ATOMIC_RELAXED);
		zpl_release(step);
	}
	return -EUCLEAN;
}

static int check_move(struct zpl_node *node, struct zpl_node *from, struct zpl_node *to)
{
	const uint64_t fixed = ZFS_IMMUTABLE | ZFS_APPENDONLY;

	if (node->pflags & (fixed | ZFS_NOUNLINK) || from->pflags & fixed || to->pflags & ZFS_IMMUTABLE)
		return -EPERM;
	if (to->pflags & ZFS_PROJINHERIT && node->projid != to->projid)
		return -EXDEV;
	if (zpl_is_dir(node) && from != to) {
		if (to->links >= ZPL_LINK_MAX)
			return -EMLINK;
		return check_ancestry(node, to);
	}
	return 0;
}

static int check_target(const struct rename *r)
{
	uint64_t count;
	int ret;

	if (!r->target)
		return r->flags & RENAME_EXCHANGE ? -ENOENT : 0;
	if (r->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (r->flags & RENAME_EXCHANGE)
		return check_move(r->target, r->tdir, r->sdir);
	if (zpl_is_dir(r->node) && !zpl_is_dir(r->target))
		return -ENOTDIR;
	if (!zpl_is_dir(r->node) && zpl_is_dir(r->target))
		return -EISDIR;
	if (r->target == r->sdir || r->target == r->tdir) /* not empty, then */
		return -ENOTEMPTY;
	if (r->target->pflags & (ZFS_IMMUTABLE | ZFS_APPENDONLY | ZFS_NOUNLINK))
		return -EPERM;
	if (zpl_is_dir(r->target)) {
		ret = zpl_error(zap_count(r->target->fs->os, r->target->object, &count));
		return ret ? ret : count ? -ENOTEMPTY : 0;
	}
	return 0;
}

/* In the transaction: the target loses the name. */
static int drop_target(const struct rename *r, const uint64_t now[2], dmu_tx_t *tx)
{
	struct zpl_node *target = r->target;
	const sa_attr_type_t *table = target->fs->table;
	bool directory = zpl_is_dir(target);
	sa_bulk_attr_t bulk[3];
	uint64_t count = 0;
	int n = 0, ret;

	/* Again: entries may have come since check_target(). */
	if (directory) {
		ret = zpl_error(zap_count(target->fs->os, target->object, &count));
		if (ret || count)
			return ret ? ret : -ENOTEMPTY;
	}
	ret = zpl_entry_remove(r->tdir, r->tname, directory, now, tx);
	if (ret)
		return ret;
	pthread_mutex_lock(&target->lock);
	target->links = directory || target->links <= 1 ? 0 : target->links - 1;
	zpl_status_changed(target, now);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_LINKS], NULL, &target->links, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, target->ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &target->pflags, 8);
	ret = zpl_error(sa_bulk_update(target->hdl, bulk, n, tx));
	if (ret == 0 && target->links == 0)
		ret = zpl_unlinked_add(target, tx);
	pthread_mutex_unlock(&target->lock);
	return ret;
}

static void mark_modified(struct zpl_node *node)
{
	pthread_mutex_lock(&node->lock);
	node->pflags |= ZFS_AV_MODIFIED;
	pthread_mutex_unlock(&node->lock);
}

static int move(const struct rename *r, dmu_tx_t *tx)
{
	uint64_t now[2];
	int ret;

	if (r->tdir->unlinked)
		return -ENOENT;
	zpl_now(now);
	mark_modified(r->node);
	if (r->flags & RENAME_EXCHANGE) {
		mark_modified(r->target);
		ret = zpl_entry_remove(r->tdir, r->tname, zpl_is_dir(r->target), now, tx);
		if (ret == 0)
			ret = zpl_entry_remove(r->sdir, r->sname, zpl_is_dir(r->node), now, tx);
		if (ret == 0)
			ret = zpl_entry_add(r->tdir, r->tname, r->node, false, now, tx);
		if (ret == 0)
			ret = zpl_entry_add(r->sdir, r->sname, r->target, false, now, tx);
	} else {
		ret = r->target ? drop_target(r, now, tx) : 0;
		if (ret == 0)
			ret = zpl_entry_remove(r->sdir, r->sname, zpl_is_dir(r->node), now, tx);
		if (ret == 0)
			ret = zpl_entry_add(r->tdir, r->tname, r->node, false, now, tx);
	}
	zpl_log_rename(r->sdir, r->sname, r->tdir, r->tname, r->node, r->target, r->flags, tx);
	return ret;
}

static int move_in_tx(const struct rename *r)
{
	struct zpl_fs *fs = r->sdir->fs;
	bool exchange = r->flags & RENAME_EXCHANGE;
	bool replaced_dir = r->target && !exchange && zpl_is_dir(r->target);
	dmu_tx_t *tx = dmu_tx_create(fs->os);
	int ret;

	dmu_tx_hold_sa(tx, r->node->hdl, B_FALSE);
	dmu_tx_hold_sa(tx, r->sdir->hdl, B_FALSE);
	dmu_tx_hold_zap_by_dnode(tx, r->sdir->dn, exchange ? TRUE : FALSE, r->sname);
	dmu_tx_hold_zap_by_dnode(tx, r->tdir->dn, TRUE, r->tname);
	if (r->sdir != r->tdir)
		dmu_tx_hold_sa(tx, r->tdir->hdl, B_FALSE);
	if (r->target)
		dmu_tx_hold_sa(tx, r->target->hdl, B_FALSE);
	dmu_tx_hold_zap(tx, fs->unlinked_set, FALSE, NULL);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	pthread_rwlock_rdlock(&r->sdir->entries);
	if (r->sdir != r->tdir)
		pthread_rwlock_rdlock(&r->tdir->entries);
	if (replaced_dir)
		pthread_rwlock_wrlock(&r->target->entries);
	ret = move(r, tx);
	if (replaced_dir)
		pthread_rwlock_unlock(&r->target->entries);
	if (r->sdir != r->tdir)
		pthread_rwlock_unlock(&r->tdir->entries);
	pthread_rwlock_unlock(&r->sdir->entries);
	dmu_tx_commit(tx);
	return ret;
}

/* Whether tname is there letter by letter, where another spelling of it may have been found. */
static bool exact_entry(struct zpl_node *dir, const char *name)
{
	uint64_t value;
	int error = zap_lookup_norm_by_dnode(
		dir->dn, name, 8, 1, &value, MT_NORMALIZE | MT_MATCH_CASE, NULL, 0, NULL);

	return error == 0 || error == EOVERFLOW;
}

/* Names locked. */
static int rename_locked(struct rename *r)
{
	int ret = zpl_lookup_node(r->sdir, r->sname, 0, &r->node);

	if (ret)
		return ret;
	ret = zpl_lookup_node(r->tdir, r->tname, 0, &r->target);
	if (ret == -ENOENT)
		ret = 0;
	if (ret)
		return ret;
	if (r->node == r->target && !(r->flags & RENAME_NOREPLACE)) {
		/* Two names of one object, or the same name: nothing to do, unless it is another spelling. */
		if (!r->sdir->fs->norm || r->sdir != r->tdir || exact_entry(r->tdir, r->tname))
			return 0;
		zpl_release(r->target);
		r->target = NULL;
	}
	if (r->sdir != r->tdir && !r->ancestry &&
		(zpl_is_dir(r->node) || (r->flags & RENAME_EXCHANGE && r->target && zpl_is_dir(r->target))))
		return NEEDS_ANCESTRY;
	ret = check_move(r->node, r->sdir, r->tdir);
	if (ret == 0)
		ret = check_target(r);
	return ret ? ret : move_in_tx(r);
}

static int rename_checked(struct rename *r)
{
	struct zpl_fs *fs = r->sdir->fs;
	struct zpl_name_lock lock;
	int ret;

	if (fs != r->tdir->fs)
		return -EXDEV;
	if (!r->tdir->hdl)
		return -ESTALE;
	if (r->flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
		r->flags == (RENAME_NOREPLACE | RENAME_EXCHANGE) || r->sdir->is_xattr != r->tdir->is_xattr)
		return -EINVAL;
	if (!zpl_is_dir(r->sdir) || !zpl_is_dir(r->tdir))
		return -ENOTDIR;
	ret = zpl_name_check(fs, r->sname, false);
	if (ret == 0)
		ret = zpl_name_check(fs, r->tname, true);
	if (ret)
		return ret;
	for (;;) {
		if (r->ancestry)
			pthread_mutex_lock(&fs->rename_lock);
		zpl_names_lock2(&lock, r->sdir, r->sname, r->tdir, r->tname);
		ret = rename_locked(r);
		zpl_names_unlock(&lock);
		if (r->ancestry)
			pthread_mutex_unlock(&fs->rename_lock);
		zpl_release(r->node);
		zpl_release(r->target);
		r->node = r->target = NULL;
		if (ret != NEEDS_ANCESTRY)
			break;
		/* The lock comes before those of the names, and files, the usual case, do without it. */
		r->ancestry = true;
	}
	return ret;
}

int zpl_rename(
	struct zpl_node *sdir, const char *sname, struct zpl_node *tdir, const char *tname, unsigned flags)
{
	struct rename r = {.sdir = sdir, .tdir = tdir, .sname = sname, .tname = tname, .flags = flags};
	int ret = zpl_enter_node(sdir, true);

	if (ret)
		return ret;
	ret = rename_checked(&r);
	zpl_exit(sdir->fs);
	return ret;
}
