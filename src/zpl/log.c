/*
 * What every change tells about itself, inside its transaction, and fsync.
 *
 * Two things hang on these calls. fsync needs to know when a node is safe: that is when the transaction group
 * of its last change, or of the last change of a name that leads to it, has reached the disk. Its own names
 * are noted in the node; a directory above it exists at least as long as they do, but may have been renamed
 * since: the last rename of any directory is noted in the file system, since nodes do not know all that is
 * above them. And the replay of an intent log must be noted in the same transaction as the change it makes.
 * Records of our own are not written: fsync waits for the transaction group instead, and all that wait for
 * the same group share the wait. The arguments are what records would be made of.
 */
#include "zpl/zpl_int.h"

/* *highest = the greater of it and the transaction's group. */
static void raise_txg(uint64_t *highest, dmu_tx_t *tx)
{
	uint64_t txg = dmu_tx_get_txg(tx);
	uint64_t last = __atomic_load_n(highest, __ATOMIC_RELAXED);

	while (last < txg &&
		!__atomic_compare_exchange_n(highest, &last, txg, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static void touched(struct zpl_node *node, dmu_tx_t *tx)
{
	raise_txg(&node->last_txg, tx);
	if (node->fs->replaying)
		(void)zil_replaying(node->fs->zilog, tx);
}

void zpl_log_create(struct zpl_node *dir, struct zpl_node *node, const char *name, dmu_tx_t *tx)
{
	touched(dir, tx);
	touched(node, tx);
}

void zpl_log_link(struct zpl_node *dir, struct zpl_node *node, const char *name, dmu_tx_t *tx)
{
	touched(dir, tx);
	touched(node, tx);
}

void zpl_log_remove(struct zpl_node *dir, struct zpl_node *node, const char *name, dmu_tx_t *tx)
{
	touched(dir, tx);
	touched(node, tx);
}

void zpl_log_rename(struct zpl_node *sdir, const char *sname, struct zpl_node *tdir, const char *tname,
	struct zpl_node *node, struct zpl_node *target, unsigned flags, dmu_tx_t *tx)
{
	touched(sdir, tx);
	touched(tdir, tx);
	touched(node, tx);
	if (target)
		touched(target, tx);
	if (zpl_is_dir(node) || (target && (flags & RENAME_EXCHANGE) && zpl_is_dir(target)))
		raise_txg(&node->fs->moved_txg, tx);
}

void zpl_log_write(struct zpl_node *node, uint64_t offset, uint64_t length, dmu_tx_t *tx)
{
	touched(node, tx);
}

void zpl_log_truncate(struct zpl_node *node, uint64_t offset, uint64_t length, dmu_tx_t *tx)
{
	touched(node, tx);
}

void zpl_log_setattr(struct zpl_node *node, unsigned mask, dmu_tx_t *tx)
{
	touched(node, tx);
}

void zpl_log_setxattr(struct zpl_node *node, const char *name, const void *value, size_t size, dmu_tx_t *tx)
{
	touched(node, tx);
}

int zpl_fsync(struct zpl_node *node, bool data_only)
{
	struct zpl_fs *fs = node->fs;
	int ret = zpl_enter_node(node, false);
	uint64_t txg;

	if (ret)
		return ret;
	txg = MAX(__atomic_load_n(&node->last_txg, __ATOMIC_RELAXED),
		__atomic_load_n(&fs->moved_txg, __ATOMIC_RELAXED));
	/* The teardown lock is kept: the objset must not be exchanged before its changes are out. */
	if (txg > spa_last_synced_txg(dmu_objset_spa(fs->os)))
		txg_wait_synced(fs->dp, txg);
	zpl_exit(fs);
	return 0;
}
