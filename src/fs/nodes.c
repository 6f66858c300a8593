/*
 * The nodes that the kernel knows: nodeid -> zpl node, with the kernel's count of lookups. Sharded, so that
 * requests of different nodes do not meet; a shard's lock is held for a list walk only.
 *
 * An entry lives until the kernel has forgotten as often as it looked up. The same nodeid may come back with
 * another node while old counts are open (the object was freed by a rollback and used again): then the entry
 * changes its node and keeps counting.
 */
#include "fs/fs_int.h"

#include <errno.h>
#include <stdlib.h>

uint64_t pv_nodeid(const struct pv_graft *graft, uint64_t object)
{
	if (graft->index == 0 && object == graft->root)
		return FUSE_ROOT_ID;
	return (uint64_t)graft->index << PV_OBJECT_BITS | object;
}

int64_t pv_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec;
}

static uint64_t mix(uint64_t id)
{
	return (id ^ id >> PV_OBJECT_BITS) * UINT64_C(0x9E3779B97F4A7C15);
}

static struct pv_shard *shard_of(struct pv_connection *connection, uint64_t nodeid)
{
	return &connection->shards[mix(nodeid) >> 58];
}

static struct pv_entry **slot(struct pv_shard *shard, uint64_t nodeid)
{
	struct pv_entry **at = &shard->buckets[(mix(nodeid) >> 20) & (shard->nbuckets - 1)];

	while (*at && (*at)->nodeid != nodeid)
		at = &(*at)->next;
	return at;
}

int pv_nodes_init(struct pv_connection *connection)
{
	_Static_assert(PV_SHARDS == 1 << (64 - 58), "shard_of() takes the upper bits");
	for (int i = 0; i < PV_SHARDS; i++) {
		struct pv_shard *shard = &connection->shards[i];

		pthread_mutex_init(&shard->lock, NULL);
		shard->nbuckets = 16;
		shard->buckets = calloc(shard->nbuckets, sizeof(struct pv_entry *));
		if (!shard->buckets)
			return -ENOMEM;
	}
	return 0;
}

static void resize(struct pv_shard *shard, size_t nbuckets)
{
	struct pv_entry **old = shard->buckets, **buckets = calloc(nbuckets, sizeof(*buckets));
	size_t nold = shard->nbuckets;

	if (!buckets)
		return; /* longer chains, no harm */
	shard->buckets = buckets;
	shard->nbuckets = nbuckets;
	for (size_t i = 0; i < nold; i++) {
		while (old[i]) {
			struct pv_entry *entry = old[i];

			old[i] = entry->next;
			entry->next = NULL;
			*slot(shard, entry->nodeid) = entry;
		}
	}
	free(old);
}

static void entry_free(struct pv_entry *entry)
{
	struct zpl_node *node = entry->node;
	struct pv_graft *graft = entry->graft;

	free(entry);
	zpl_release(node); /* frees the storage of an unlinked file: not under a lock */
	atomic_fetch_sub(&graft->connection->nodes, 1);
	if (atomic_fetch_sub(&graft->nodes, 1) == 1) {
		pthread_mutex_lock(&graft->lock);
		pthread_cond_broadcast(&graft->changed);
		pthread_mutex_unlock(&graft->lock);
	}
}

void pv_nodes_clear(struct pv_connection *connection)
{
	for (int i = 0; i < PV_SHARDS; i++) {
		struct pv_shard *shard = &connection->shards[i];

		for (size_t b = 0; b < shard->nbuckets; b++) {
			while (shard->buckets[b]) {
				struct pv_entry *entry = shard->buckets[b];

				shard->buckets[b] = entry->next;
				entry_free(entry);
			}
		}
		shard->count = 0;
	}
}

void pv_nodes_fini(struct pv_connection *connection)
{
	for (int i = 0; i < PV_SHARDS; i++) {
		if (!connection->shards[i].buckets)
			continue;
		free(connection->shards[i].buckets);
		pthread_mutex_destroy(&connection->shards[i].lock);
	}
}

int pv_node_get(struct pv_connection *connection, uint64_t nodeid, struct pv_noderef *ret_ref)
{
	struct pv_shard *shard = shard_of(connection, nodeid);
	struct pv_entry *entry;

	pthread_mutex_lock(&shard->lock);
	entry = *slot(shard, nodeid);
	if (entry) {
		zpl_hold(entry->node);
		*ret_ref = (struct pv_noderef){entry->node, entry->graft, entry};
	}
	pthread_mutex_unlock(&shard->lock);
	if (!entry)
		return -ESTALE;
	if (ret_ref->graft->index)
		atomic_store_explicit(&ret_ref->graft->last_used, pv_now(), memory_order_relaxed);
	return 0;
}

void pv_node_put(struct pv_noderef *ref)
{
	zpl_release(ref->node);
	ref->node = NULL;
}

int pv_node_add(struct pv_graft *graft, struct zpl_node *node, uint32_t type, struct pv_entry **ret_entry)
{
	struct pv_connection *connection = graft->connection;
	uint64_t nodeid = pv_nodeid(graft, zpl_object(node));
	struct pv_shard *shard = shard_of(connection, nodeid);
	struct zpl_node *surplus = node;
	struct pv_entry *entry, **at;
	uint64_t total = 0;

	pthread_mutex_lock(&shard->lock);
	at = slot(shard, nodeid);
	entry = *at;
	if (!entry) {
		entry = calloc(1, sizeof(*entry));
		if (!entry) {
			pthread_mutex_unlock(&shard->lock);
			zpl_release(node);
			return -ENOMEM;
		}
		entry->nodeid = nodeid;
		entry->node = node;
		entry->graft = graft;
		entry->type = type & S_IFMT;
		surplus = NULL;
		*at = entry;
		atomic_fetch_add(&graft->nodes, 1);
		total = atomic_fetch_add(&connection->nodes, 1);
		if (++shard->count > shard->nbuckets)
			resize(shard, shard->nbuckets * 2);
	} else if (entry->node != node) {
		surplus = entry->node;
		entry->node = node;
		entry->type = type & S_IFMT;
		entry->no_caps = false;
	}
	entry->nlookup++;
	pthread_mutex_unlock(&shard->lock);
	zpl_release(surplus);
	if (total > PV_NODES_MAX && total % 4096 == 0)
		pv_janitor_prune(connection->mounts->janitor, total - PV_NODES_MAX * 3 / 4);
	if (ret_entry)
		*ret_entry = entry;
	return 0;
}

void pv_node_forget(struct pv_connection *connection, uint64_t nodeid, uint64_t count)
{
	struct pv_shard *shard = shard_of(connection, nodeid);
	struct pv_entry *entry, **at;

	if (nodeid == FUSE_ROOT_ID || pv_is_ctl(nodeid))
		return;
	pthread_mutex_lock(&shard->lock);
	at = slot(shard, nodeid);
	entry = *at;
	if (entry && entry->nlookup > count) {
		entry->nlookup -= count;
		entry = NULL;
	} else if (entry) {
		*at = entry->next;
		shard->count--;
		if (shard->nbuckets > 16 && shard->count < shard->nbuckets / 8)
			resize(shard, shard->nbuckets / 2);
	}
	pthread_mutex_unlock(&shard->lock);
	if (entry)
		entry_free(entry);
}

bool pv_node_known(struct pv_connection *connection, uint64_t nodeid)
{
	struct pv_shard *shard = shard_of(connection, nodeid);
	bool known;

	pthread_mutex_lock(&shard->lock);
	known = *slot(shard, nodeid) != NULL;
	pthread_mutex_unlock(&shard->lock);
	return known;
}

int pv_nodes_list(struct pv_connection *connection, const struct pv_graft *graft, uint32_t type,
	unsigned first, unsigned n, uint64_t **ret_ids, size_t *ret_count)
{
	uint64_t *ids = NULL;
	size_t count = 0, room = 0;

	for (unsigned i = first; i < first + n; i++) {
		struct pv_shard *shard = &connection->shards[i % PV_SHARDS];

		pthread_mutex_lock(&shard->lock);
		if (count + shard->count > room) {
			uint64_t *more;

			room = count + shard->count + 64;
			more = realloc(ids, room * sizeof(*ids));
			if (!more) {
				pthread_mutex_unlock(&shard->lock);
				free(ids);
				return -ENOMEM;
			}
			ids = more;
		}
		for (size_t b = 0; b < shard->nbuckets; b++) {
			for (struct pv_entry *entry = shard->buckets[b]; entry; entry = entry->next) {
				if ((!graft || entry->graft == graft) && (!type || entry->type == type))
					ids[count++] = entry->nodeid;
			}
		}
		pthread_mutex_unlock(&shard->lock);
	}
	*ret_ids = ids;
	*ret_count = count;
	return 0;
}
