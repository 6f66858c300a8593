/*
 * Removal of names. The object itself goes when its last link and its last reference are gone, see
 * unlinked.c.
 */
#include "zpl/zpl_int.h"

#include <errno.h>

/* In the transaction, under the entries locks: takes the name away, and the object with it if it was the
 * last. */
static int drop(struct zpl_node *dir, const char *name, struct zpl_node *node, dmu_tx_t *tx)
{
	const sa_attr_type_t *table = node->fs->table;
	bool directory = zpl_is_dir(node);
	sa_bulk_attr_t bulk[3];
	uint64_t now[2], count;
	int n = 0, ret;

	if (directory) {
		ret = zpl_error(zap_count(node->fs->os, node->object, &count));
		if (ret)
			return ret;
		if (count)
			return -ENOTEMPTY;
	}
	zpl_now(now);
	ret = zpl_entry_remove(dir, name, directory, now, tx);
	if (ret)
		return ret;
	pthread_mutex_lock(&node->lock);
	/* A count that is wrong on disk ends at zero all the same. */
	node->links = directory || node->links <= 1 ? 0 : node->links - 1;
	zpl_status_changed(node, now);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_LINKS], NULL, &node->links, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, node->ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
	ret = zpl_error(sa_bulk_update(node->hdl, bulk, n, tx));
	if (node->links == 0 && ret == 0)
		ret = zpl_unlinked_add(node, tx);
	pthread_mutex_unlock(&node->lock);
	zpl_log_remove(dir, node, name, tx);
	return ret;
}

static int remove_in_tx(struct zpl_node *dir, const char *name, struct zpl_node *node)
{
	struct zpl_fs *fs = dir->fs;
	dmu_tx_t *tx = dmu_tx_create(fs->os);
	int ret;

	dmu_tx_hold_zap_by_dnode(tx, dir->dn, FALSE, name);
	dmu_tx_hold_sa(tx, dir->hdl, B_FALSE);
	dmu_tx_hold_sa(tx, node->hdl, B_FALSE);
	dmu_tx_hold_zap(tx, fs->unlinked_set, FALSE, NULL);
	dmu_tx_mark_netfree(tx);
	ret = zpl_error(dmu_tx_assign(tx, DMU_TX_WAIT));
	if (ret) {
		dmu_tx_abort(tx);
		return ret;
	}
	pthread_rwlock_rdlock(&dir->entries);
	if (zpl_is_dir(node))
		pthread_rwlock_wrlock(&node->entries);
	ret = drop(dir, name, node, tx);
	if (zpl_is_dir(node))
		pthread_rwlock_unlock(&node->entries);
	pthread_rwlock_unlock(&dir->entries);
	dmu_tx_commit(tx);
	return ret;
}

static int removable(const struct zpl_node *dir, const struct zpl_node *node, bool want_dir)
{
	if (want_dir && !zpl_is_dir(node))
		return -ENOTDIR;
	if (!want_dir && zpl_is_dir(node))
		return -EISDIR;
	if (node == dir) /* only a damaged directory contains itself */
		return -EUCLEAN;
	if (node->pflags & (ZFS_IMMUTABLE | ZFS_APPENDONLY | ZFS_NOUNLINK) ||
		dir->pflags & (ZFS_IMMUTABLE | ZFS_APPENDONLY))
		return -EPERM;
	return 0;
}

int zpl_remove(struct zpl_node *dir, const char *name, bool want_dir)
{
	struct zpl_name_lock lock;
	struct zpl_node *node = NULL;
	int ret;

	if (!zpl_is_dir(dir))
		return -ENOTDIR;
	ret = zpl_name_check(dir->fs, name, false);
	if (ret)
		return ret;
	zpl_names_lock(&lock, dir, name, true);
	ret = zpl_lookup_node(dir, name, 0, &node);
	if (ret == 0)
		ret = removable(dir, node, want_dir);
	if (ret == 0)
		ret = remove_in_tx(dir, name, node);
	zpl_names_unlock(&lock);
	zpl_release(node);
	return ret;
}

static int enter_and_remove(struct zpl_node *dir, const char *name, bool want_dir)
{
	int ret = zpl_enter_node(dir, true);

	if (ret)
		return ret;
	ret = zpl_remove(dir, name, want_dir);
	zpl_exit(dir->fs);
	return ret;
}

int zpl_unlink(struct zpl_node *dir, const char *name)
{
	return enter_and_remove(dir, name, false);
}

int zpl_rmdir(struct zpl_node *dir, const char *name)
{
	return enter_and_remove(dir, name, true);
}
