/*
 * The pool and its mounts.
 */
#include "engine/engine_int.h"
#include "base/log.h"
#include "pool/pool.h"

#include <errno.h>
#include <string.h>

/* The pool's name; NULL and an error when none is imported. State must be held. */
static const char *need_pool(struct pv_error *err)
{
	if (!engine.pool)
		pv_fail(err, -ENXIO, engine.name, "the volume is not open");
	return engine.pool;
}

static int create(struct engine_call *call, struct pv_error *err)
{
	const char *paths[ENGINE_DEVICES_MAX];
	pv_autofree struct pv_property *pool_props = NULL, *fs_props = NULL;
	struct pv_pool_create params = {
		.name = pv_json_string(call->params, "name", engine.name),
		.devices = paths,
		.ndevices = engine.ndevices,
		.mirror = pv_json_bool(call->params, "mirror", false),
		.ashift = (unsigned)pv_json_int(call->params, "ashift", 0),
		.uid = (uid_t)pv_json_int(call->params, "uid", geteuid()),
		.gid = (gid_t)pv_json_int(call->params, "gid", getegid()),
	};
	char *name;
	int r;

	for (unsigned i = 0; i < engine.ndevices; i++)
		paths[i] = engine.devices[i].path;
	r = engine_properties(
		pv_json_object(call->params, "pool_props"), &pool_props, &params.npool_props, err);
	if (r >= 0)
		r = engine_properties(
			pv_json_object(call->params, "fs_props"), &fs_props, &params.nfs_props, err);
	if (r < 0)
		return r;
	params.pool_props = pool_props;
	params.fs_props = fs_props;
	name = strdup(params.name);
	if (!name)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	r = pv_pool_create(&params, err);
	if (r < 0)
		free(name);
	else
		engine.pool = name;
	return r;
}

int engine_pool_create(struct engine_call *call, struct pv_error *err)
{
	int r;

	pthread_rwlock_wrlock(&engine.state);
	if (engine.pool || !engine.ndevices)
		r = pv_fail(err, -EBUSY, engine.name, "a pool needs devices, and there can be only one");
	else
		r = create(call, err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

static int import(struct engine_call *call, struct pv_error *err)
{
	const struct pv_pool_import params = {
		.name = pv_json_string(call->params, "name", NULL),
		.new_name = pv_json_string(call->params, "new_name", NULL),
		.altroot = pv_json_string(call->params, "altroot", NULL),
		.read_only = pv_json_bool(call->params, "read_only", false),
		.force = pv_json_bool(call->params, "force", false),
	};
	pv_autojson struct json_object *status = NULL;
	int r;

	r = pv_pool_import(&params, &engine.pool, err);
	if (r < 0)
		return r;
	call->result = json_object_new_object();
	pv_json_add_string(call->result, "name", engine.pool);
	if (pv_pool_status(engine.pool, &status, NULL) >= 0) {
		pv_json_add_u64(call->result, "guid", pv_json_u64(status, "guid", 0));
		pv_json_add_u64(call->result, "last_txg", pv_json_u64(status, "last_txg", 0));
	}
	return 0;
}

int engine_pool_import(struct engine_call *call, struct pv_error *err)
{
	int r;

	pthread_rwlock_wrlock(&engine.state);
	if (engine.pool || !engine.ndevices)
		r = pv_fail(err, -EBUSY, engine.name, "a pool needs devices, and there can be only one");
	else
		r = import(call, err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

static int export_pool(bool force, struct pv_error *err)
{
	int r;

	if (engine.mounts)
		return pv_fail(err, -EBUSY, engine.name, "it is still mounted");
	if (!engine.pool)
		return 0;
	r = pv_pool_export(engine.pool, force, err);
	if (r < 0)
		return r;
	free(engine.pool);
	engine.pool = NULL;
	return 0;
}

int engine_pool_export(struct engine_call *call, struct pv_error *err)
{
	int r;

	pthread_rwlock_wrlock(&engine.state);
	r = export_pool(pv_json_bool(call->params, "force", false), err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

int engine_pool_status(struct engine_call *call, struct pv_error *err)
{
	int r = -ENXIO;

	pthread_rwlock_rdlock(&engine.state);
	if (need_pool(err))
		r = pv_pool_status(engine.pool, &call->result, err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

int engine_pool_scrub(struct engine_call *call, struct pv_error *err)
{
	int r = -ENXIO;

	pthread_rwlock_rdlock(&engine.state);
	if (need_pool(err))
		r = pv_pool_scrub(engine.pool, pv_json_bool(call->params, "stop", false), err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

int engine_pool_sync(struct engine_call *call, struct pv_error *err)
{
	int r = -ENXIO;

	pthread_rwlock_rdlock(&engine.state);
	if (need_pool(err)) {
		r = engine.mounts ? pv_mounts_sync(engine.mounts) : 0;
		if (r < 0)
			pv_fail(err, r, engine.name, "cannot write everything to disk: %s", pv_strerror(r));
		else
			r = pv_pool_sync(engine.pool, err);
	}
	pthread_rwlock_unlock(&engine.state);
	return r;
}

int engine_pool_clear(struct engine_call *call, struct pv_error *err)
{
	int r = -ENXIO;

	pthread_rwlock_rdlock(&engine.state);
	if (need_pool(err))
		r = pv_pool_clear(engine.pool, err);
	pthread_rwlock_unlock(&engine.state);
	return r;
}

static void ended(const char *mountpoint, void *private)
{
	engine_event("unmounted", "mountpoint", mountpoint);
}

int engine_mounts_start(struct engine_call *call, struct pv_error *err)
{
	struct pv_mounts_options options = {
		.at = pv_json_string(call->params, "at", NULL),
		.read_only = pv_json_bool(call->params, "read_only", false),
		.owner = engine.owner,
		.allow_other = pv_json_bool(call->params, "allow_other", false),
		.separate = pv_json_bool(call->params, "separate", false),
		.ended = ended,
	};
	int r = -ENXIO;

	if (options.owner == 0)
		options.owner = (uid_t)-1; /* a volume of root's is an ordinary file system: modes decide */
	pthread_rwlock_wrlock(&engine.state);
	if (engine.mounts) {
		r = pv_fail(err, -EBUSY, engine.name, "it is mounted already");
	} else if (need_pool(err)) {
		options.pool = engine.pool;
		r = pv_mounts_start(&options, &engine.mounts, err);
	}
	if (r >= 0) {
		call->result = json_object_new_object();
		json_object_object_add(call->result, "mounts", pv_mounts_list(engine.mounts));
	}
	pthread_rwlock_unlock(&engine.state);
	return r < 0 ? r : 0;
}

int engine_mounts_stop(struct engine_call *call, struct pv_error *err)
{
	int r = 0;

	pthread_rwlock_wrlock(&engine.state);
	if (engine.mounts) {
		r = pv_mounts_stop(engine.mounts, pv_json_bool(call->params, "force", false), err);
		if (r >= 0)
			engine.mounts = NULL;
		else if (r == -EBUSY)
			call->holders = pv_mounts_holders(engine.mounts);
	}
	pthread_rwlock_unlock(&engine.state);
	return r < 0 ? r : 0;
}

int engine_mounts_list(struct engine_call *call, struct pv_error *err)
{
	pthread_rwlock_rdlock(&engine.state);
	call->result = json_object_new_object();
	json_object_object_add(call->result, "mounts",
		engine.mounts ? pv_mounts_list(engine.mounts) : json_object_new_array());
	pthread_rwlock_unlock(&engine.state);
	return 0;
}

int engine_mounts_holders(struct engine_call *call, struct pv_error *err)
{
	pthread_rwlock_rdlock(&engine.state);
	call->result = json_object_new_object();
	json_object_object_add(call->result, "holders",
		engine.mounts ? pv_mounts_holders(engine.mounts) : json_object_new_array());
	pthread_rwlock_unlock(&engine.state);
	return 0;
}

int engine_close_all(struct pv_error *err)
{
	int r = 0;

	pthread_rwlock_wrlock(&engine.state);
	if (engine.mounts) {
		r = pv_mounts_stop(engine.mounts, true, err);
		if (r >= 0)
			engine.mounts = NULL;
	}
	if (r >= 0)
		r = export_pool(false, err);
	pthread_rwlock_unlock(&engine.state);
	return r < 0 ? r : 0;
}
