/*
 * The table of nodes: at most one node, and so one SA handle, per object.
 *
 * A node is in the table from before its SA handle exists until after the handle is gone. Who finds it
 * loading or dying waits for the shard's condition; loading reads at most a few blocks and never waits for a
 * transaction, so waiting is allowed even inside one. A dying node that is unlinked may take long (its
 * storage is being freed), but it has no name any more: looking for it answers -ENOENT at once. Its object
 * number cannot come back while the handle pins the dnode.
 */
#include "zpl/zpl_int.h"

#include <errno.h>
#include <stdlib.h>

static struct zpl_shard *shard_of(struct zpl_fs *fs, uint64_t object)
{
	return &fs->shards[object % ZPL_SHARDS];
}

static struct zpl_node **bucket_of(struct zpl_fs *fs, uint64_t object)
{
	return &shard_of(fs, object)->bucket[object / ZPL_SHARDS % ZPL_BUCKETS];
}

static struct zpl_node *find(struct zpl_fs *fs, uint64_t object)
{
	struct zpl_node *node = *bucket_of(fs, object);

	while (node && node->object != object)
		node = node->hash_next;
	return node;
}

static void hash_insert(struct zpl_node *node)
{
	struct zpl_node **bucket = bucket_of(node->fs, node->object);

	node->hash_next = *bucket;
	*bucket = node;
	node->hashed = true;
}

static void hash_remove(struct zpl_node *node)
{
	struct zpl_node **p;

	if (!node->hashed)
		return;
	for (p = bucket_of(node->fs, node->object); *p != node; p = &(*p)->hash_next)
		;
	*p = node->hash_next;
	node->hashed = false;
}

/* Widens the lock of a write that will have to change the file's block size, and places an append. */
static void range_adjust(zfs_locked_range_t *new, void *arg)
{
	struct zpl_node *node = arg;
	uint64_t size = __atomic_load_n(&node->size, __ATOMIC_RELAXED);
	uint64_t blksz = __atomic_load_n(&node->blksz, __ATOMIC_RELAXED);
	uint64_t end;

	if (new->lr_type == RL_APPEND) {
		new->lr_offset = size;
		new->lr_type = RL_WRITER;
	}
	end = MAX(size, new->lr_offset + new->lr_length);
	if (end > blksz && (!ISP2(blksz) || blksz < zpl_max_blksz(node->fs))) {
		new->lr_offset = 0;
		new->lr_length = UINT64_MAX;
	}
}

static struct zpl_node *alloc_node(struct zpl_fs *fs, uint64_t object)
{
	struct zpl_node *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	node->fs = fs;
	node->object = object;
	node->refs = 1;
	node->state = ZPL_LOADING;
	pthread_mutex_init(&node->lock, NULL);
	pthread_rwlock_init(&node->entries, NULL);
	pthread_rwlock_init(&node->xattr_lock, NULL);
	zfs_rangelock_init(&node->range, range_adjust, node);
	__atomic_add_fetch(&fs->refs, 1, __ATOMIC_RELAXED);
	return node;
}

static void free_node(struct zpl_node *node)
{
	struct zpl_fs *fs = node->fs;

	zpl_xattr_forget(node);
	zfs_rangelock_fini(&node->range);
	pthread_rwlock_destroy(&node->xattr_lock);
	pthread_rwlock_destroy(&node->entries);
	pthread_mutex_destroy(&node->lock);
	free(node);
	zpl_fs_put(fs);
}

static void set_ready(struct zpl_node *node)
{
	struct zpl_shard *shard = shard_of(node->fs, node->object);

	pthread_mutex_lock(&shard->lock);
	node->state = ZPL_READY;
	pthread_cond_broadcast(&shard->changed);
	pthread_mutex_unlock(&shard->lock);
}

void zpl_node_detach(struct zpl_node *node)
{
	if (node->hdl)
		sa_handle_destroy(node->hdl);
	node->hdl = NULL;
	node->dn = NULL;
}

void zpl_node_unhash(struct zpl_node *node)
{
	struct zpl_shard *shard = shard_of(node->fs, node->object);

	pthread_mutex_lock(&shard->lock);
	hash_remove(node);
	pthread_cond_broadcast(&shard->changed);
	pthread_mutex_unlock(&shard->lock);
}

void zpl_node_finish(struct zpl_node *node)
{
	zpl_node_detach(node);
	zpl_node_unhash(node);
	free_node(node);
}

void zpl_node_each(struct zpl_fs *fs, void (*fn)(struct zpl_node *node, void *private), void *private)
{
	for (unsigned s = 0; s < ZPL_SHARDS; s++) {
		for (unsigned b = 0; b < ZPL_BUCKETS; b++) {
			struct zpl_node *node = fs->shards[s].bucket[b], *next;

			for (; node; node = next) {
				next = node->hash_next;
				fn(node, private);
			}
		}
	}
}

/* ---- from disk ---- */

/* Takes the object's bonus buffer and turns it into the node's SA handle. */
static int open_handle(struct zpl_node *node)
{
	dmu_object_info_t info;
	dmu_buf_t *db;
	int error;

	error = sa_buf_hold(node->fs->os, node->object, NULL, &db);
	if (error) /* EINVAL and EEXIST: not the first slot of an object */
		return error == EINVAL || error == EEXIST ? -ENOENT : zpl_error(error);
	dmu_object_info_from_db(db, &info);
	if (info.doi_bonus_type != DMU_OT_SA &&
		(info.doi_bonus_type != DMU_OT_ZNODE || info.doi_bonus_size < 264)) {
		sa_buf_rele(db, NULL);
		return -ENOENT;
	}
	error = sa_handle_get_from_db(node->fs->os, db, node, SA_HDL_SHARED, &node->hdl);
	if (error) {
		sa_buf_rele(db, NULL);
		return zpl_error(error);
	}
	node->dn = DB_DNODE((dmu_buf_impl_t *)db);
	/* It may have left memory with changes that are not on disk yet; fsync has to wait for those too. */
	node->last_txg = MAX(node->last_txg, node->dn->dn_dirty_txg);
	node->old_format = info.doi_bonus_type == DMU_OT_ZNODE;
	node->blksz = info.doi_data_block_size;
	/* Directory operations walk the object as a ZAP; whether it is one must not depend on the mode alone.
	 */
	node->mode = info.doi_type == DMU_OT_DIRECTORY_CONTENTS ? S_IFDIR : 0;
	return 0;
}

static int read_attributes(struct zpl_node *node)
{
	const sa_attr_type_t *table = node->fs->table;
	bool directory = node->mode == S_IFDIR;
	sa_bulk_attr_t bulk[12];
	int n = 0;

	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MODE], NULL, &node->mode, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_SIZE], NULL, &node->size, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_GEN], NULL, &node->generation, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_UID], NULL, &node->uid, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_GID], NULL, &node->gid, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_PARENT], NULL, &node->parent, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &node->pflags, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_ATIME], NULL, node->atime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MTIME], NULL, node->mtime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, node->ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CRTIME], NULL, node->crtime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_LINKS], NULL, &node->links, 8);
	/* Also what a dnode looks like whose creation has not come to its attributes yet. */
	if (sa_bulk_lookup(node->hdl, bulk, n) != 0 || node->generation == 0)
		return -ENOENT;
	if (S_ISDIR(node->mode) != directory || node->size > INT64_MAX)
		return -EUCLEAN;
	node->projid = ZFS_DEFAULT_PROJID;
	if (node->pflags & ZFS_PROJID && sa_lookup(node->hdl, table[ZPL_PROJID], &node->projid, 8) != 0)
		return -EUCLEAN;
	node->rdev = 0;
	if ((S_ISCHR(node->mode) || S_ISBLK(node->mode)) &&
		sa_lookup(node->hdl, table[ZPL_RDEV], &node->rdev, 8) != 0)
		return -EUCLEAN;
	node->is_xattr = (node->pflags & ZFS_XATTR) != 0;
	node->unlinked = node->links == 0;
	node->atime_dirty = false;
	return 0;
}

int zpl_node_attach(struct zpl_node *node)
{
	uint64_t generation = node->generation;
	int ret = open_handle(node);

	if (ret)
		return ret;
	ret = read_attributes(node);
	if (ret == 0 && generation && node->generation != generation)
		ret = -ESTALE;
	if (ret)
		zpl_node_detach(node);
	return ret;
}

int zpl_node_get(struct zpl_fs *fs, uint64_t object, unsigned flags, struct zpl_node **ret_node)
{
	struct zpl_shard *shard = shard_of(fs, object);
	struct zpl_node *node, *fresh = NULL;
	int ret = 0;

	pthread_mutex_lock(&shard->lock);
	for (;;) {
		node = find(fs, object);
		if (!node && fresh)
			break;
		if (!node) {
			pthread_mutex_unlock(&shard->lock);
			fresh = alloc_node(fs, object);
			if (!fresh)
				return -ENOMEM;
			pthread_mutex_lock(&shard->lock);
			continue;
		}
		if (node->state == ZPL_READY) {
			if (node->unlinked && !(flags & ZPL_GET_UNLINKED))
				ret = -ENOENT;
			else
				__atomic_add_fetch(&node->refs, 1, __ATOMIC_RELAXED);
			break;
		}
		if (node->state == ZPL_DYING && node->unlinked) {
			ret = -ENOENT;
			break;
		}
		pthread_cond_wait(&shard->changed, &shard->lock);
	}
	if (node || ret) {
		pthread_mutex_unlock(&shard->lock);
		if (fresh)
			free_node(fresh);
		if (ret == 0)
			*ret_node = node;
		return ret;
	}
	node = fresh;
	hash_insert(node);
	pthread_mutex_unlock(&shard->lock);

	ret = zpl_node_attach(node);
	if (ret == 0 && node->unlinked && !(flags & ZPL_GET_UNLINKED))
		ret = -ENOENT;
	if (ret) {
		zpl_node_finish(node);
		return ret;
	}
	set_ready(node);
	*ret_node = node;
	return 0;
}

/* ---- new ---- */

static void take_attributes(struct zpl_node *node, const struct zpl_znode *z)
{
	node->mode = z->mode;
	node->size = z->size;
	node->generation = z->gen;
	node->uid = z->uid;
	node->gid = z->gid;
	node->parent = z->parent;
	node->pflags = z->flags;
	node->links = z->links;
	node->projid = z->has_projid ? z->projid : ZFS_DEFAULT_PROJID;
	node->rdev = z->rdev;
	memcpy(node->atime, z->atime, sizeof(node->atime));
	memcpy(node->mtime, z->mtime, sizeof(node->mtime));
	memcpy(node->ctime, z->ctime, sizeof(node->ctime));
	memcpy(node->crtime, z->crtime, sizeof(node->crtime));
	node->is_xattr = (z->flags & ZFS_XATTR) != 0;
	/* A new object has no extended attributes: no need to look. */
	node->xattr_loaded = true;
}

int zpl_node_new(struct zpl_fs *fs, uint64_t object, const struct zpl_znode *znode, dmu_tx_t *tx,
	struct zpl_node **ret_node)
{
	struct zpl_shard *shard = shard_of(fs, object);
	struct zpl_node *node = alloc_node(fs, object), *other;
	int ret;

	if (!node) {
		(void)dmu_object_free(fs->os, object, tx);
		return -ENOMEM;
	}
	pthread_mutex_lock(&shard->lock);
	while ((other = find(fs, object)) != NULL && other->state != ZPL_READY)
		pthread_cond_wait(&shard->changed, &shard->lock);
	if (other) { /* the number of a live object was given out: the dnode table is damaged */
		pthread_mutex_unlock(&shard->lock);
		free_node(node);
		return -EUCLEAN;
	}
	hash_insert(node);
	pthread_mutex_unlock(&shard->lock);

	ret = open_handle(node);
	if (ret == 0)
		ret = zpl_error(zpl_znode_write(node->hdl, fs->table, znode, tx));
	if (ret) {
		zpl_node_finish(node);
		(void)dmu_object_free(fs->os, object, tx);
		return ret;
	}
	take_attributes(node, znode);
	set_ready(node);
	*ret_node = node;
	return 0;
}

void zpl_node_discard(struct zpl_node *node, dmu_tx_t *tx)
{
	struct zpl_shard *shard = shard_of(node->fs, node->object);

	pthread_mutex_lock(&shard->lock);
	node->state = ZPL_DYING;
	node->unlinked = true;
	pthread_mutex_unlock(&shard->lock);
	(void)dmu_object_free(node->fs->os, node->object, tx);
	zpl_node_finish(node);
}

/* ---- references ---- */

void zpl_hold(struct zpl_node *node)
{
	__atomic_add_fetch(&node->refs, 1, __ATOMIC_RELAXED);
}

/* Access times that no other change has carried to disk. Failure loses just them. */
static void write_atime(struct zpl_node *node)
{
	struct zpl_fs *fs = node->fs;
	dmu_tx_t *tx;

	if (zpl_fs_read_only(fs) || zpl_no_space())
		return;
	tx = dmu_tx_create(fs->os);
	dmu_tx_hold_sa(tx, node->hdl, B_FALSE);
	if (dmu_tx_assign(tx, DMU_TX_WAIT) != 0) {
		dmu_tx_abort(tx);
		return;
	}
	(void)sa_update(node->hdl, fs->table[ZPL_ATIME], node->atime, sizeof(node->atime), tx);
	dmu_tx_commit(tx);
}

void zpl_release(struct zpl_node *node)
{
	struct zpl_shard *shard;
	struct zpl_fs *fs;
	int64_t refs;

	if (!node)
		return;
	refs = __atomic_load_n(&node->refs, __ATOMIC_RELAXED);
	while (refs > 1)
		if (__atomic_compare_exchange_n(
			    &node->refs, &refs, refs - 1, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
			return;

	fs = node->fs;
	__atomic_add_fetch(&fs->refs, 1, __ATOMIC_RELAXED);
	zpl_enter_any(fs);
	shard = shard_of(fs, node->object);
	pthread_mutex_lock(&shard->lock);
	if (__atomic_sub_fetch(&node->refs, 1, __ATOMIC_ACQ_REL) > 0) {
		pthread_mutex_unlock(&shard->lock);
	} else {
		node->state = ZPL_DYING;
		pthread_mutex_unlock(&shard->lock);
		if (node->hdl && node->unlinked && !zpl_fs_read_only(fs)) {
			zpl_reap(node);
		} else {
			if (node->hdl && node->atime_dirty && !node->unlinked)
				write_atime(node);
			zpl_node_finish(node);
		}
	}
	zpl_exit(fs);
	zpl_fs_put(fs);
}

uint64_t zpl_object(const struct zpl_node *node)
{
	return node->object;
}

uint64_t zpl_generation(const struct zpl_node *node)
{
	return node->generation;
}

struct zpl_fs *zpl_node_fs(const struct zpl_node *node)
{
	return node->fs;
}

int zpl_get(struct zpl_fs *fs, uint64_t object, uint64_t generation, struct zpl_node **ret_node)
{
	struct zpl_node *node;
	int ret = zpl_enter(fs);

	if (ret)
		return ret;
	ret = zpl_node_get(fs, object, 0, &node);
	/* The hidden attribute space is reached through its files only. */
	if (ret == 0 && (node->is_xattr || (generation && node->generation != generation))) {
		ret = node->is_xattr ? -ENOENT : -ESTALE;
		zpl_release(node);
	}
	if (ret == 0)
		*ret_node = node;
	zpl_exit(fs);
	return ret;
}

int zpl_root(struct zpl_fs *fs, struct zpl_node **ret_node)
{
	return zpl_get(fs, fs->root, 0, ret_node);
}
