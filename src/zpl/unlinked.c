/*
 * Objects without a name. Whoever removes the last name of an object enters it in the unlinked set, in the
 * same transaction; so after a crash at any point it is either named, or in the set, or free. When its last
 * reference goes, the reaper frees it: data of large files first, piece by piece, then in one transaction the
 * object and its entry in the set. Mounting hands over what the set still holds.
 *
 * The reaper is one thread per file system, so that neither the release of a large file nor the removal of a
 * large tree waits for it; it frees up to REAP_BATCH small objects in a transaction. When it falls behind by
 * REAP_QUEUE nodes, who releases a node frees it himself.
 *
 * An object's extended attributes in directory form go with it: the hidden directory becomes an unlinked node
 * of its own, its entries are unlinked one by one before it is freed.
 */
#include "zpl/zpl_int.h"

#include <errno.h>
#include <stdlib.h>

#define REAP_QUEUE 4096u
#define REAP_BATCH 16u
/* Up to so many blocks an object is freed in the final transaction alone. */
#define REAP_SMALL_BLOCKS 1024u

int zpl_unlinked_add(struct zpl_node *node, dmu_tx_t *tx)
{
	node->unlinked = true;
	return zpl_error(zap_add_int(node->fs->os, node->fs->unlinked_set, node->object, tx));
}

static bool is_small(const struct zpl_node *node)
{
	return node->dn->dn_maxblkid < REAP_SMALL_BLOCKS;
}

static uint64_t xattr_dir_of(struct zpl_node *node)
{
	uint64_t object = 0;

	if (node->xattr_loaded)
		return node->xattr_object;
	if (sa_lookup(node->hdl, node->fs->table[ZPL_XATTR], &object, 8) != 0)
		return 0;
	return object;
}

/* Unlinks what is left in a hidden directory. */
static int purge(struct zpl_node *dir)
{
	zap_attribute_t *entry = zap_attribute_long_alloc();
	int ret = 0;

	for (;;) {
		zap_cursor_t cursor;
		int error;

		zap_cursor_init(&cursor, dir->fs->os, dir->object);
		error = zap_cursor_retrieve(&cursor, entry);
		zap_cursor_fini(&cursor);
		if (error) {
			ret = error == ENOENT ? 0 : zpl_error(error);
			break;
		}
		ret = zpl_remove(dir, entry->za_name, false);
		if (ret)
			break;
	}
	zap_attribute_free(entry);
	return ret;
}

/* What has to happen before the final transaction. */
static int prepare(struct zpl_node *node)
{
	if (node->is_xattr && zpl_is_dir(node))
		return purge(node);
	if (!is_small(node) && !zpl_is_dir(node))
		return zpl_error(dmu_free_long_range(node->fs->os, node->object, 0, DMU_OBJECT_END));
	return 0;
}

/* In the transaction: the hidden directory of a node that is being freed. */
static void unlink_xattr_dir(struct zpl_node *xdir, dmu_tx_t *tx)
{
	pthread_mutex_lock(&xdir->lock);
	if (!xdir->unlinked) {
		xdir->links = 0;
		if (sa_update(xdir->hdl, xdir->fs->table[ZPL_LINKS], &xdir->links, 8, tx) == 0)
			(void)zpl_unlinked_add(xdir, tx);
	}
	pthread_mutex_unlock(&xdir->lock);
}

/* Frees prepared nodes in one transaction. What fails stays in the set for the next mount. */
static void free_nodes(struct zpl_fs *fs, struct zpl_node **nodes, unsigned count)
{
	struct zpl_node *xdirs[REAP_BATCH] = {NULL};
	dmu_tx_t *tx = dmu_tx_create(fs->os);
	bool adds = false;

	for (unsigned i = 0; i < count; i++) {
		uint64_t xattr_dir = xattr_dir_of(nodes[i]);

		dmu_tx_hold_free_by_dnode(tx, nodes[i]->dn, 0, DMU_OBJECT_END);
		if (xattr_dir && zpl_node_get(fs, xattr_dir, ZPL_GET_UNLINKED, &xdirs[i]) == 0) {
			/* Follow no pointer to anything but the node's own hidden directory. */
			if (!xdirs[i]->is_xattr || !zpl_is_dir(xdirs[i]) || xdirs[i] == nodes[i] ||
				xdirs[i]->parent != nodes[i]->object) {
				zpl_release(xdirs[i]);
				xdirs[i] = NULL;
			} else {
				dmu_tx_hold_sa(tx, xdirs[i]->hdl, B_FALSE);
				adds = true;
			}
		}
	}
	dmu_tx_hold_zap(tx, fs->unlinked_set, adds, NULL);
	dmu_tx_mark_netfree(tx);
	if (dmu_tx_assign(tx, DMU_TX_WAIT) == 0) {
		for (unsigned i = 0; i < count; i++) {
			if (xdirs[i])
				unlink_xattr_dir(xdirs[i], tx);
			if (zap_remove_int(fs->os, fs->unlinked_set, nodes[i]->object, tx) == 0)
				(void)dmu_object_free(fs->os, nodes[i]->object, tx);
		}
		dmu_tx_commit(tx);
	} else {
		dmu_tx_abort(tx);
	}
	for (unsigned i = 0; i < count; i++) {
		zpl_node_finish(nodes[i]);
		zpl_release(xdirs[i]);
	}
}

/* Frees a list of dying nodes, linked by reap_next. */
static void free_list(struct zpl_fs *fs, struct zpl_node *list)
{
	struct zpl_node *batch[REAP_BATCH], *node;
	unsigned count = 0;

	while ((node = list) != NULL) {
		list = node->reap_next;
		/* A suspend may have come between: no longer there, or by a rollback named again. */
		if (!node->hdl || !node->unlinked || zpl_fs_read_only(fs) || prepare(node) != 0) {
			zpl_node_finish(node);
			continue;
		}
		batch[count++] = node;
		if (count == REAP_BATCH || !is_small(node)) {
			free_nodes(fs, batch, count);
			count = 0;
		}
	}
	if (count)
		free_nodes(fs, batch, count);
}

void zpl_reap(struct zpl_node *node)
{
	struct zpl_fs *fs = node->fs;

	node->reap_next = NULL;
	pthread_mutex_lock(&fs->reap_lock);
	if (fs->reaper_running && !fs->reap_stop && fs->reap_count < REAP_QUEUE) {
		*fs->reap_last = node;
		fs->reap_last = &node->reap_next;
		/* Waking for every node would make batches of one. */
		if (fs->reap_count++ == 0)
			pthread_cond_signal(&fs->reap_wake);
		pthread_mutex_unlock(&fs->reap_lock);
		return;
	}
	pthread_mutex_unlock(&fs->reap_lock);
	free_list(fs, node);
}

/* One object that was in the set at mount: looking at it as a node and letting that go frees it. */
static void drain_one(struct zpl_fs *fs, uint64_t object)
{
	struct zpl_node *node;

	if (zpl_enter(fs) != 0)
		return;
	if (zpl_node_get(fs, object, ZPL_GET_UNLINKED, &node) == 0) {
		/* Whatever its link count says, it is in the set, and so has no name. */
		node->unlinked = true;
		zpl_release(node);
	}
	zpl_exit(fs);
}

static void *reaper_main(void *arg)
{
	struct zpl_fs *fs = arg;
	size_t drained = 0;

	pthread_mutex_lock(&fs->reap_lock);
	for (;;) {
		struct zpl_node *list;

		/* Others are likely to follow: a wait makes larger batches, and fewer wake-ups of this
		 * thread. */
		if (fs->reap_first && fs->reap_count < REAP_BATCH && !fs->reap_stop) {
			const struct timespec gather = {.tv_nsec = 10000000};

			pthread_mutex_unlock(&fs->reap_lock);
			nanosleep(&gather, NULL);
			pthread_mutex_lock(&fs->reap_lock);
		}
		list = fs->reap_first;
		if (list) {
			fs->reap_first = NULL;
			fs->reap_last = &fs->reap_first;
			fs->reap_count = 0;
			pthread_mutex_unlock(&fs->reap_lock);
			zpl_enter_any(fs);
			free_list(fs, list);
			zpl_exit(fs);
			pthread_mutex_lock(&fs->reap_lock);
		} else if (fs->reap_stop) {
			break;
		} else if (drained < fs->ndrain) {
			pthread_mutex_unlock(&fs->reap_lock);
			drain_one(fs, fs->drain[drained++]);
			pthread_mutex_lock(&fs->reap_lock);
		} else {
			pthread_cond_wait(&fs->reap_wake, &fs->reap_lock);
		}
	}
	pthread_mutex_unlock(&fs->reap_lock);
	return NULL;
}

/* The set as it is now; later entries are those of live nodes. */
static int read_set(struct zpl_fs *fs)
{
	zap_attribute_t *entry = zap_attribute_alloc();
	zap_cursor_t cursor;
	size_t capacity = 0;
	int ret = 0, error;

	free(fs->drain);
	fs->drain = NULL;
	fs->ndrain = 0;
	zap_cursor_init(&cursor, fs->os, fs->unlinked_set);
	while ((error = zap_cursor_retrieve(&cursor, entry)) == 0) {
		if (fs->ndrain == capacity) {
			uint64_t *more = reallocarray(fs->drain, capacity + 1024, sizeof(*more));

			if (!more) {
				ret = -ENOMEM;
				break;
			}
			fs->drain = more;
			capacity += 1024;
		}
		if (entry->za_integer_length == 8 && entry->za_num_integers == 1)
			fs->drain[fs->ndrain++] = entry->za_first_integer;
		zap_cursor_advance(&cursor);
	}
	zap_cursor_fini(&cursor);
	zap_attribute_free(entry);
	/* A set that cannot be read to its end costs space, not the mount. */
	return ret;
}

int zpl_reaper_start(struct zpl_fs *fs)
{
	int ret = read_set(fs);

	if (ret)
		return ret;
	fs->reap_stop = false;
	ret = pthread_create(&fs->reaper, NULL, reaper_main, fs);
	if (ret)
		return -ret;
	pthread_mutex_lock(&fs->reap_lock);
	fs->reaper_running = true;
	pthread_mutex_unlock(&fs->reap_lock);
	return 0;
}

void zpl_reaper_stop(struct zpl_fs *fs)
{
	bool running;

	pthread_mutex_lock(&fs->reap_lock);
	running = fs->reaper_running;
	fs->reap_stop = true;
	pthread_cond_signal(&fs->reap_wake);
	pthread_mutex_unlock(&fs->reap_lock);
	if (running)
		pthread_join(fs->reaper, NULL);
	fs->reaper_running = false;
}
