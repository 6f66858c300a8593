/*
 * Datasets and snapshots. The first part of every name is the pool's; the keeper has checked it.
 */
#include "engine/engine_int.h"
#include "pool/pool.h"

#include <errno.h>
#include <string.h>

#define SNAPSHOTS_PER_PAGE 1000

static int need_open(struct pv_error *err)
{
	return engine.pool ? 0 : pv_fail(err, -ENXIO, engine.name, "the volume is not open");
}

/* A name inside the pool, from the parameter `key`; NULL and an error otherwise. */
static const char *own_name(struct engine_call *call, const char *key, struct pv_error *err)
{
	const char *name = pv_json_string(call->params, key, "");
	size_t length = strlen(engine.pool);

	if (!strncmp(name, engine.pool, length) &&
		(!name[length] || name[length] == '/' || name[length] == '@'))
		return name;
	pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, name, "this is not in the volume %s", engine.pool);
	return NULL;
}

/* "DATASET@SNAP" into its parts; caller frees *ret_dataset, *ret_snap points into it. */
static int split_snapshot(const char *name, char **ret_dataset, char **ret_snap, struct pv_error *err)
{
	char *copy = strdup(name);
	char *at = copy ? strchr(copy, '@') : NULL;

	if (!at || !at[1] || strchr(at + 1, '@') || strchr(at + 1, '/')) {
		free(copy);
		return pv_fail_as(
			err, -EINVAL, PV_EXIT_USAGE, name, "the name of a snapshot is VOLUME[/DATASET]@NAME");
	}
	*at = '\0';
	*ret_dataset = copy;
	*ret_snap = at + 1;
	return 0;
}

/* Mount point of a dataset in the list of mounts; NULL when it is not mounted. Borrowed from `mounts`. */
static const char *mounted_at(struct json_object *mounts, const char *dataset)
{
	size_t count = mounts ? json_object_array_length(mounts) : 0;

	for (size_t i = 0; i < count; i++) {
		struct json_object *mount = json_object_array_get_idx(mounts, i);

		if (!strcmp(pv_json_string(mount, "dataset", ""), dataset))
			return pv_json_string(mount, "mountpoint", NULL);
	}
	return NULL;
}

static int dataset_create(struct engine_call *call, struct pv_error *err)
{
	const char *name = own_name(call, "name", err);
	pv_autofree struct pv_property *props = NULL;
	pv_autojson struct json_object *mounts = NULL;
	unsigned nprops;
	int r;

	if (!name)
		return -EINVAL;
	if (!strchr(name, '/') || strchr(name, '@'))
		return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, name, "the name of a dataset is VOLUME/NAME");
	r = engine_properties(pv_json_object(call->params, "props"), &props, &nprops, err);
	if (r < 0)
		return r;
	r = pv_dataset_create(name, props, nprops, (uid_t)pv_json_int(call->params, "uid", geteuid()),
		(gid_t)pv_json_int(call->params, "gid", getegid()), err);
	if (r < 0)
		return r;
	call->result = json_object_new_object();
	if (!engine.mounts)
		return 0;
	r = pv_mounts_add(engine.mounts, name, err);
	if (r < 0) {
		/* what cannot be mounted was not wanted */
		pv_dataset_destroy(name, NULL);
		return r;
	}
	mounts = pv_mounts_list(engine.mounts);
	pv_json_add_string(call->result, "mountpoint", mounted_at(mounts, name));
	return 0;
}

int engine_dataset_create(struct engine_call *call, struct pv_error *err)
{
	int r;

	pthread_rwlock_wrlock(&engine.state);
	r = need_open(err);
	if (r >= 0)
		r = dataset_create(call, err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

struct listing {
	struct json_object *list, *mounts;
};

static int list_dataset(const struct pv_dataset_info *info, void *private)
{
	struct listing *listing = private;
	struct json_object *json = json_object_new_object();
	const char *at = mounted_at(listing->mounts, info->name);

	pv_json_add_string(json, "name", info->name);
	pv_json_add_string(json, "mountpoint", at ? at : info->mountpoint);
	pv_json_add_bool(json, "mounted", at != NULL);
	pv_json_add_bool(json, "volume", info->is_volume);
	pv_json_add_bool(json, "locked", info->key_locked);
	pv_json_add_u64(json, "used", info->used);
	pv_json_add_u64(json, "available", info->available);
	pv_json_add_u64(json, "referenced", info->referenced);
	json_object_array_add(listing->list, json);
	return 0;
}

int engine_dataset_list(struct engine_call *call, struct pv_error *err)
{
	struct listing listing = {0};
	int r;

	pthread_rwlock_rdlock(&engine.state);
	r = need_open(err);
	if (r >= 0) {
		listing.list = json_object_new_array();
		listing.mounts = engine.mounts ? pv_mounts_list(engine.mounts) : NULL;
		r = pv_dataset_walk(engine.pool, list_dataset, &listing, err);
		call->result = json_object_new_object();
		json_object_object_add(call->result, "datasets", listing.list);
		json_object_put(listing.mounts);
	}
	pthread_rwlock_unlock(&engine.state);
	return r;
}

int engine_snapshot_create(struct engine_call *call, struct pv_error *err)
{
	pv_autofree char *dataset = NULL;
	const char *name;
	char *snap;
	int r;

	pthread_rwlock_rdlock(&engine.state);
	r = need_open(err);
	if (r >= 0) {
		name = own_name(call, "name", err);
		r = name ? split_snapshot(name, &dataset, &snap, err) : -EINVAL;
	}
	/* what applications have written but the kernel or we still cache belongs into it */
	if (r >= 0 && engine.mounts)
		r = pv_mounts_sync(engine.mounts);
	if (r >= 0)
		r = pv_snapshot_create(dataset, snap, pv_json_bool(call->params, "recursive", false), err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

/* Names are collected before snapshots are walked, so that no two walks nest. */
static int collect_name(const struct pv_dataset_info *info, void *private)
{
	return json_object_array_add(private, json_object_new_string(info->name));
}

static int count_snapshot(const struct pv_snapshot_info *info, void *private)
{
	++*(uint64_t *)private;
	return 0;
}

/* {"count":true}: how many there are, without their names. */
static int snapshot_count(struct engine_call *call, struct json_object *names, struct pv_error *err)
{
	uint64_t count = 0;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < json_object_array_length(names); i++)
		r = pv_snapshot_walk(json_object_get_string(json_object_array_get_idx(names, i)),
			count_snapshot, &count, err);
	pv_json_add_u64(call->result, "count", count);
	return r;
}

struct page {
	const char *dataset;
	uint64_t skip, left;
	struct json_object *list;
	bool more;
};

static int list_snapshot(const struct pv_snapshot_info *info, void *private)
{
	struct page *page = private;
	struct json_object *json;
	pv_autofree char *name = NULL;

	if (page->skip) {
		page->skip--;
		return 0;
	}
	if (!page->left) {
		page->more = true;
		return 1;
	}
	page->left--;
	if (asprintf(&name, "%s@%s", page->dataset, info->name) < 0)
		return -ENOMEM;
	json = json_object_new_object();
	pv_json_add_string(json, "name", name);
	pv_json_add_u64(json, "used", info->used);
	pv_json_add_u64(json, "referenced", info->referenced);
	pv_json_add_u64(json, "creation", info->creation);
	json_object_array_add(page->list, json);
	return 0;
}

static int snapshot_list(struct engine_call *call, struct pv_error *err)
{
	pv_autojson struct json_object *names = json_object_new_array();
	uint64_t offset = pv_json_u64(call->params, "offset", 0);
	struct page page = {.skip = offset, .left = SNAPSHOTS_PER_PAGE, .list = json_object_new_array()};
	int r;

	call->result = json_object_new_object();
	json_object_object_add(call->result, "snapshots", page.list);
	r = pv_dataset_walk(engine.pool, collect_name, names, err);
	if (r >= 0 && pv_json_bool(call->params, "count", false))
		return snapshot_count(call, names, err);
	for (size_t i = 0; r >= 0 && !page.more && i < json_object_array_length(names); i++) {
		page.dataset = json_object_get_string(json_object_array_get_idx(names, i));
		r = pv_snapshot_walk(page.dataset, list_snapshot, &page, err);
	}
	if (r < 0)
		return r;
	if (page.more)
		pv_json_add_u64(call->result, "next", offset + SNAPSHOTS_PER_PAGE);
	return 0;
}

int engine_snapshot_list(struct engine_call *call, struct pv_error *err)
{
	int r;

	pthread_rwlock_rdlock(&engine.state);
	r = need_open(err);
	if (r >= 0)
		r = snapshot_list(call, err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

int engine_snapshot_rollback(struct engine_call *call, struct pv_error *err)
{
	bool later = pv_json_bool(call->params, "destroy_later", false);
	pv_autofree char *dataset = NULL;
	const char *name;
	char *snap;
	int r;

	pthread_rwlock_wrlock(&engine.state);
	r = need_open(err);
	if (r >= 0) {
		name = own_name(call, "name", err);
		r = name ? split_snapshot(name, &dataset, &snap, err) : -EINVAL;
	}
	if (r >= 0)
		r = engine.mounts ? pv_mounts_rollback(engine.mounts, dataset, snap, later, err)
				  : pv_snapshot_rollback(dataset, snap, later, NULL, err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

int engine_snapshot_destroy(struct engine_call *call, struct pv_error *err)
{
	const char *name;
	int r;

	pthread_rwlock_rdlock(&engine.state);
	r = need_open(err);
	if (r >= 0) {
		name = own_name(call, "name", err);
		if (!name)
			r = -EINVAL;
		else if (!strchr(name, '@'))
			r = pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, name,
				"the name of a snapshot is VOLUME[/DATASET]@NAME");
		else
			r = pv_dataset_destroy(name, err);
	}
	pthread_rwlock_unlock(&engine.state);
	return r;
}
