/*
 * Grafts: the objsets that one connection serves. Index 0 is the file system mounted there; children hang at
 * directories of others; snapshots hang in .zfs/snapshot and are opened on first use and closed when idle. An
 * index is given once and never again to another objset, because inode numbers carry it.
 */
#include "fs/fs_int.h"

#include "base/cleanup.h"
#include "pool/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int pv_graft_new(struct pv_connection *connection, const char *name, struct pv_graft *above, bool snapshot,
	struct pv_graft **ret_graft)
{
	struct pv_graft *graft = calloc(1, sizeof(*graft));
	pthread_condattr_t monotonic;

	if (!graft)
		return -ENOMEM;
	graft->connection = connection;
	graft->above = above;
	graft->snapshot = snapshot;
	graft->name = strdup(name);
	if (!graft->name) {
		free(graft);
		return -ENOMEM;
	}
	pthread_mutex_init(&graft->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&graft->changed, &monotonic);

	pthread_rwlock_wrlock(&connection->grafts_lock);
	graft->index = connection->ngrafts;
	if (graft->index < PV_GRAFTS_MAX)
		connection->grafts[connection->ngrafts++] = graft;
	pthread_rwlock_unlock(&connection->grafts_lock);
	if (graft->index >= PV_GRAFTS_MAX) {
		pv_graft_free(graft);
		return -ENFILE;
	}
	*ret_graft = graft;
	return 0;
}

void pv_graft_free(struct pv_graft *graft)
{
	if (!graft)
		return;
	pthread_mutex_destroy(&graft->lock);
	pthread_cond_destroy(&graft->changed);
	free(graft->name);
	free(graft->mountpoint);
	free(graft->covered_name);
	free(graft);
}

struct pv_graft *pv_graft_at(struct pv_connection *connection, unsigned index)
{
	struct pv_graft *graft = NULL;

	pthread_rwlock_rdlock(&connection->grafts_lock);
	if (index < connection->ngrafts)
		graft = connection->grafts[index];
	pthread_rwlock_unlock(&connection->grafts_lock);
	return graft;
}

struct pv_graft *pv_graft_find(struct pv_connection *connection, const char *name)
{
	struct pv_graft *graft = NULL;

	pthread_rwlock_rdlock(&connection->grafts_lock);
	for (unsigned i = 0; i < connection->ngrafts && !graft; i++) {
		struct pv_graft *candidate = connection->grafts[i];
		bool in_use = candidate->snapshot ? candidate->state != PV_GRAFT_CLOSED
						  : i == 0 || candidate->covered;

		if (in_use && !strcmp(candidate->name, name))
			graft = candidate;
	}
	pthread_rwlock_unlock(&connection->grafts_lock);
	return graft;
}

struct pv_graft *pv_graft_covering(struct pv_graft *graft, uint64_t object)
{
	struct pv_connection *connection = graft->connection;
	struct pv_graft *found = NULL;

	if (atomic_load(&graft->covers) == 0)
		return NULL;
	pthread_rwlock_rdlock(&connection->grafts_lock);
	for (unsigned i = 1; i < connection->ngrafts && !found; i++) {
		struct pv_graft *child = connection->grafts[i];

		if (child->above == graft && !child->snapshot && child->covered == object)
			found = child;
	}
	pthread_rwlock_unlock(&connection->grafts_lock);
	return found;
}

/* The state is CHANGING and ours; the lock is not held. */
static int open_objset(struct pv_graft *graft, bool read_only, struct pv_error *err)
{
	struct zpl_node *root = NULL;
	struct zpl_fs *fs = NULL;
	int r;

	r = zpl_fs_mount(graft->name, read_only, &fs, err);
	if (r < 0)
		return r;
	r = zpl_root(fs, &root);
	if (r < 0) {
		zpl_fs_unmount(fs, true);
		return pv_fail(err, r, graft->name, "its root directory cannot be read: %s", pv_strerror(r));
	}
	graft->root = zpl_object(root);
	clock_gettime(CLOCK_REALTIME, &graft->listing_time);
	zpl_release(root);
	graft->read_only = read_only || zpl_fs_read_only(fs);
	graft->fs = fs;
	return 0;
}

static int change(struct pv_graft *graft, bool read_only, struct pv_error *err)
{
	int r;

	graft->state = PV_GRAFT_CHANGING;
	pthread_mutex_unlock(&graft->lock);
	r = open_objset(graft, read_only, err);
	pthread_mutex_lock(&graft->lock);
	graft->state = r < 0 ? PV_GRAFT_CLOSED : PV_GRAFT_OPEN;
	pthread_cond_broadcast(&graft->changed);
	return r;
}

int pv_graft_open(struct pv_graft *graft, bool read_only, struct pv_error *err)
{
	PV_LOCK_SCOPE(&graft->lock);
	while (graft->state == PV_GRAFT_CHANGING)
		pthread_cond_wait(&graft->changed, &graft->lock);
	return graft->state == PV_GRAFT_OPEN ? 0 : change(graft, read_only, err);
}

int pv_graft_use(struct pv_graft *graft, struct zpl_fs **ret_fs)
{
	int r = 0;

	PV_LOCK_SCOPE(&graft->lock);
	while (graft->state == PV_GRAFT_CHANGING)
		pthread_cond_wait(&graft->changed, &graft->lock);
	if (graft->state == PV_GRAFT_CLOSED)
		r = graft->snapshot ? change(graft, true, NULL) : -ENOENT;
	if (r < 0)
		return r;
	graft->users++;
	graft->last_used = pv_now();
	*ret_fs = graft->fs;
	return 0;
}

void pv_graft_unuse(struct pv_graft *graft)
{
	PV_LOCK_SCOPE(&graft->lock);
	graft->users--;
	pthread_cond_broadcast(&graft->changed);
}

int pv_graft_close(struct pv_graft *graft, bool force)
{
	struct zpl_fs *fs;
	int r;

	pthread_mutex_lock(&graft->lock);
	while (graft->state == PV_GRAFT_CHANGING)
		pthread_cond_wait(&graft->changed, &graft->lock);
	if (graft->state == PV_GRAFT_CLOSED) {
		pthread_mutex_unlock(&graft->lock);
		return 0;
	}
	if (!force && (graft->users || graft->nodes)) {
		pthread_mutex_unlock(&graft->lock);
		return -EBUSY;
	}
	graft->state = PV_GRAFT_CHANGING;
	fs = graft->fs;
	pthread_mutex_unlock(&graft->lock);
	r = zpl_fs_unmount(fs, force);
	pthread_mutex_lock(&graft->lock);
	if (r == 0 || force) {
		graft->fs = NULL;
		graft->state = PV_GRAFT_CLOSED;
	} else {
		graft->state = PV_GRAFT_OPEN;
	}
	pthread_cond_broadcast(&graft->changed);
	pthread_mutex_unlock(&graft->lock);
	return r;
}

int pv_graft_snapshot(struct pv_graft *of, const char *snap, struct pv_graft **ret_graft)
{
	struct pv_connection *connection = of->connection;
	pv_autofree char *name = NULL;
	struct pv_graft *graft = NULL;
	uint64_t objset, creation;
	int r;

	r = pv_snapshot_lookup(of->name, snap, &objset, &creation);
	if (r < 0)
		return r;
	if (asprintf(&name, "%s@%s", of->name, snap) < 0)
		return -ENOMEM;
	PV_LOCK_SCOPE(&of->lock); /* an objset has one owner, so one graft */
	pthread_rwlock_rdlock(&connection->grafts_lock);
	for (unsigned i = 1; i < connection->ngrafts && !graft; i++) {
		struct pv_graft *candidate = connection->grafts[i];

		if (candidate->snapshot && candidate->above == of && candidate->objset == objset &&
			!strcmp(candidate->name, name))
			graft = candidate;
	}
	pthread_rwlock_unlock(&connection->grafts_lock);
	if (!graft) {
		r = pv_graft_new(connection, name, of, true, &graft);
		if (r < 0)
			return r;
		graft->objset = objset;
		graft->read_only = true;
	}
	*ret_graft = graft;
	return 0;
}
