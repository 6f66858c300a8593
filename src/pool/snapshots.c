/*
 * Snapshots: taking them (of a whole tree in one transaction group), listing, looking up, rolling back.
 */
#include "pool/pool_int.h"

#include "base/cleanup.h"

#include <sys/dmu_objset.h>
#include <sys/dsl_dataset.h>
#include <sys/dsl_destroy.h>
#include <sys/dsl_pool.h>
#include <sys/fs/zfs.h>

static int full_name(char *full, const char *dataset, const char *snap, struct pv_error *err)
{
	int error = pool_check_dataset_name(dataset, err);

	if (error == 0)
		error = pool_check_snapshot_part(snap, err);
	if (error == 0 &&
		snprintf(full, ZFS_MAX_DATASET_NAME_LEN, "%s@%s", dataset, snap) >= ZFS_MAX_DATASET_NAME_LEN)
		error = pv_fail(err, -ENAMETOOLONG, dataset, "the snapshot's name is too long");
	return error;
}

struct collect {
	nvlist_t *snaps;
	const char *snap;
};

static int collect_one(const struct pv_dataset_info *info, void *private)
{
	struct collect *collect = private;
	char full[ZFS_MAX_DATASET_NAME_LEN];

	if (snprintf(full, sizeof(full), "%s@%s", info->name, collect->snap) >= (int)sizeof(full))
		return -ENAMETOOLONG;
	fnvlist_add_boolean(collect->snaps, full);
	return 0;
}

int pv_snapshot_create(const char *dataset, const char *snap, bool recursive, struct pv_error *err)
{
	char full[ZFS_MAX_DATASET_NAME_LEN];
	struct collect collect = {.snap = snap};
	nvlist_t *errors;
	nvpair_t *first;
	spa_t *spa;
	int error = full_name(full, dataset, snap, err);

	if (error == 0)
		error = pool_open_writable(dataset, FTAG, &spa, err);
	if (error < 0)
		return error;
	collect.snaps = fnvlist_alloc();
	errors = fnvlist_alloc();
	if (recursive)
		error = pv_dataset_walk(dataset, collect_one, &collect, err);
	else
		fnvlist_add_boolean(collect.snaps, full);
	if (error == -ENAMETOOLONG) {
		error = pv_fail(err, error, dataset, "the name of a snapshot below it would be too long");
	} else if (error == 0) {
		error = dsl_dataset_snapshot(collect.snaps, NULL, errors);
		first = nvlist_next_nvpair(errors, NULL);
		if (error)
			error = pool_fail(err, error, first ? nvpair_name(first) : full, "take the snapshot");
	}
	nvlist_free(errors);
	nvlist_free(collect.snaps);
	spa_close(spa, FTAG);
	return error;
}

/* ---- listing ---- */

struct entry {
	char name[ZFS_MAX_DATASET_NAME_LEN];
	struct pv_snapshot_info info;
};

struct snap_list {
	struct entry *entry;
	size_t count, room;
};

static struct entry *list_add(struct snap_list *list)
{
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 32;
		struct entry *grown = realloc(list->entry, room * sizeof(*grown));

		if (!grown)
			return NULL;
		list->entry = grown;
		list->room = room;
	}
	return &list->entry[list->count++];
}

static int compare_txg(const void *a, const void *b)
{
	const struct pv_snapshot_info *x = &((const struct entry *)a)->info,
				      *y = &((const struct entry *)b)->info;

	return x->createtxg < y->createtxg ? -1 : x->createtxg > y->createtxg;
}

/* All snapshots of a dataset that somebody may see, in order of creation. */
static int list_snapshots(const char *dataset, struct snap_list *list)
{
	char name[ZFS_MAX_DATASET_NAME_LEN];
	uint64_t id, cursor = 0;
	dsl_dataset_t *snap;
	objset_t *os;
	int error = dmu_objset_hold(dataset, FTAG, &os);

	if (error)
		return error;
	while (error == 0 && dmu_snapshot_list_next(os, sizeof(name), name, &id, &cursor, NULL) == 0) {
		struct entry *entry;

		if (strchr(name, '%') || strchr(name, '$'))
			continue;
		error = dsl_dataset_hold_obj(dmu_objset_pool(os), id, FTAG, &snap);
		if (error)
			break;
		entry = list_add(list);
		if (entry) {
			strlcpy(entry->name, name, sizeof(entry->name));
			entry->info = (struct pv_snapshot_info){.objset = id,
				.used = dsl_get_used(snap),
				.referenced = dsl_get_referenced(snap),
				.creation = dsl_get_creation(snap),
				.createtxg = dsl_get_creationtxg(snap)};
		} else {
			error = ENOMEM;
		}
		dsl_dataset_rele(snap, FTAG);
	}
	dmu_objset_rele(os, FTAG);
	if (list->count)
		qsort(list->entry, list->count, sizeof(*list->entry), compare_txg);
	return error;
}

int pv_snapshot_walk(const char *dataset, int (*fn)(const struct pv_snapshot_info *info, void *private),
	void *private, struct pv_error *err)
{
	struct snap_list list = {0};
	int error = pool_check_dataset_name(dataset, err);

	if (error < 0)
		return error;
	error = list_snapshots(dataset, &list);
	if (error)
		error = pool_fail(err, error, dataset, "list its snapshots");
	for (size_t i = 0; error == 0 && i < list.count; i++) {
		list.entry[i].info.name = list.entry[i].name;
		error = fn(&list.entry[i].info, private);
	}
	free(list.entry);
	return error;
}

int pv_snapshot_lookup(const char *dataset, const char *snap, uint64_t *ret_objset, uint64_t *ret_creation)
{
	char full[ZFS_MAX_DATASET_NAME_LEN];
	dsl_dataset_t *ds;
	dsl_pool_t *dp;

	if (strchr(snap, '%') || full_name(full, dataset, snap, NULL) < 0 ||
		dsl_pool_hold(full, FTAG, &dp) != 0)
		return -ENOENT;
	if (dsl_dataset_hold(dp, full, FTAG, &ds) != 0) {
		dsl_pool_rele(dp, FTAG);
		return -ENOENT;
	}
	if (ret_objset)
		*ret_objset = ds->ds_object;
	if (ret_creation)
		*ret_creation = dsl_get_creation(ds);
	dsl_dataset_rele(ds, FTAG);
	dsl_pool_rele(dp, FTAG);
	return 0;
}

/* ---- rollback ---- */

static int destroy_later_ones(
	const char *dataset, const struct snap_list *list, size_t from, struct pv_error *err)
{
	nvlist_t *snaps = fnvlist_alloc(), *errors = fnvlist_alloc();
	char full[ZFS_MAX_DATASET_NAME_LEN];
	nvpair_t *first;
	int error;

	for (size_t i = from; i < list->count; i++) {
		snprintf(full, sizeof(full), "%s@%s", dataset, list->entry[i].name);
		fnvlist_add_boolean(snaps, full);
	}
	error = dsl_destroy_snapshots_nvl(snaps, B_FALSE, errors);
	first = nvlist_next_nvpair(errors, NULL);
	if (error == EEXIST)
		error = pv_fail_as(err, -EEXIST, PV_EXIT_BUSY, first ? nvpair_name(first) : dataset,
			"a later snapshot cannot be destroyed: there are clones of it");
	else if (error == EBUSY)
		error = pv_fail(err, -EBUSY, first ? nvpair_name(first) : dataset,
			"a later snapshot cannot be destroyed: it is held or mounted");
	else if (error)
		error = pool_fail(err, error, dataset, "destroy the later snapshots");
	nvlist_free(snaps);
	nvlist_free(errors);
	return error;
}

static int rollback_listed(const char *dataset, const char *snap, bool destroy_later, void *owner,
	struct snap_list *list, struct pv_error *err)
{
	char full[ZFS_MAX_DATASET_NAME_LEN];
	nvlist_t *result;
	size_t at = 0;
	int error;

	while (at < list->count && strcmp(list->entry[at].name, snap) != 0)
		at++;
	if (at == list->count)
		return pv_fail(err, -ENOENT, dataset, "it has no snapshot \"%s\"", snap);
	if (at + 1 < list->count) {
		if (!destroy_later) {
			(void)pv_fail(err, -EEXIST, dataset,
				"there are later snapshots, the newest is \"%s\"",
				list->entry[list->count - 1].name);
			return pv_remedy(
				err, "repeat the rollback with the order to destroy later snapshots");
		}
		error = destroy_later_ones(dataset, list, at + 1, err);
		if (error < 0)
			return error;
	}
	error = full_name(full, dataset, snap, err);
	if (error < 0)
		return error;
	result = fnvlist_alloc();
	error = dsl_dataset_rollback(dataset, full, owner, result);
	nvlist_free(result);
	if (error == ESRCH)
		return pv_fail(err, -ENOENT, dataset, "it has no snapshot \"%s\"", snap);
	return error ? pool_fail(err, error, dataset, "roll it back") : 0;
}

int pv_snapshot_rollback(
	const char *dataset, const char *snap, bool destroy_later, void *owner, struct pv_error *err)
{
	char full[ZFS_MAX_DATASET_NAME_LEN];
	struct snap_list list = {0};
	spa_t *spa;
	int error = full_name(full, dataset, snap, err);

	if (error == 0)
		error = pool_open_writable(dataset, FTAG, &spa, err);
	if (error < 0)
		return error;
	error = list_snapshots(dataset, &list);
	if (error)
		error = pool_fail(err, error, dataset, "list its snapshots");
	else
		error = rollback_listed(dataset, snap, destroy_later, owner, &list, err);
	free(list.entry);
	spa_close(spa, FTAG);
	return error;
}
