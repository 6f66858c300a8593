/*
 * What a pool is doing, and the actions on a whole pool: sync, scrub, clear.
 */
#include "pool/pool_int.h"

#include "base/cleanup.h"
#include "base/json.h"

#include <stdatomic.h>
#include <sys/dsl_pool.h>
#include <sys/dsl_scan.h>
#include <sys/fs/zfs.h>
#include <sys/spa_impl.h>
#include <sys/txg.h>
#include <sys/vdev_impl.h>
#include <sys/zio.h>

static const char *state_name(uint64_t state, uint64_t aux)
{
	switch (state) {
	case VDEV_STATE_CLOSED:
	case VDEV_STATE_OFFLINE: return "OFFLINE";
	case VDEV_STATE_REMOVED: return "REMOVED";
	case VDEV_STATE_CANT_OPEN:
		return aux == VDEV_AUX_CORRUPT_DATA || aux == VDEV_AUX_BAD_LOG ? "FAULTED" : "UNAVAIL";
	case VDEV_STATE_FAULTED: return "FAULTED";
	case VDEV_STATE_DEGRADED: return "DEGRADED";
	case VDEV_STATE_HEALTHY: return "ONLINE";
	default: return "UNKNOWN";
	}
}

static bool get_stats(nvlist_t *vdev, vdev_stat_t *ret)
{
	uint64_t *words;
	uint_t count;

	memset(ret, 0, sizeof(*ret));
	if (nvlist_lookup_uint64_array(vdev, ZPOOL_CONFIG_VDEV_STATS, &words, &count) != 0)
		return false;
	memcpy(ret, words, MIN(sizeof(*ret), count * sizeof(uint64_t)));
	return true;
}

static struct json_object *vdev_json(nvlist_t *vdev)
{
	struct json_object *json = json_object_new_object();
	const char *type = "", *path = NULL;
	nvlist_t **children;
	vdev_stat_t stats;
	uint_t count;

	(void)nvlist_lookup_string(vdev, ZPOOL_CONFIG_TYPE, &type);
	(void)nvlist_lookup_string(vdev, ZPOOL_CONFIG_PATH, &path);
	(void)get_stats(vdev, &stats);
	pv_json_add_string(json, "type", type);
	pv_json_add_string(json, "path", path);
	pv_json_add_string(json, "state", state_name(stats.vs_state, stats.vs_aux));
	pv_json_add_u64(json, "read", stats.vs_read_errors);
	pv_json_add_u64(json, "write", stats.vs_write_errors);
	pv_json_add_u64(json, "checksum", stats.vs_checksum_errors);
	if (nvlist_lookup_nvlist_array(vdev, ZPOOL_CONFIG_CHILDREN, &children, &count) == 0 && count > 0) {
		struct json_object *array = json_object_new_array();

		for (uint_t c = 0; c < count; c++)
			json_object_array_add(array, vdev_json(children[c]));
		json_object_object_add(json, "children", array);
	}
	return json;
}

static void add_scan(struct json_object *json, nvlist_t *tree)
{
	static const char *const functions[] = {"none", "scrub", "resilver", "errorscrub"};
	static const char *const states[] = {"none", "scanning", "finished", "canceled", "errorscrubbing"};
	struct json_object *scan;
	pool_scan_stat_t stats = {0};
	uint64_t *words;
	uint_t count;

	if (nvlist_lookup_uint64_array(tree, ZPOOL_CONFIG_SCAN_STATS, &words, &count) != 0)
		return;
	memcpy(&stats, words, MIN(sizeof(stats), count * sizeof(uint64_t)));
	if (stats.pss_func == POOL_SCAN_NONE || stats.pss_func >= sizeof(functions) / sizeof(functions[0]) ||
		stats.pss_state >= sizeof(states) / sizeof(states[0]))
		return;
	scan = json_object_new_object();
	pv_json_add_string(scan, "function", functions[stats.pss_func]);
	pv_json_add_string(scan, "state",
		stats.pss_state == DSS_SCANNING && stats.pss_pass_scrub_pause ? "paused"
									      : states[stats.pss_state]);
	pv_json_add_u64(scan, "start", stats.pss_start_time);
	pv_json_add_u64(scan, "end", stats.pss_end_time);
	pv_json_add_u64(scan, "examined", stats.pss_examined);
	pv_json_add_u64(scan, "issued", stats.pss_issued);
	pv_json_add_u64(scan, "to_examine", stats.pss_to_examine);
	pv_json_add_u64(scan, "errors", stats.pss_errors);
	json_object_object_add(json, "scan", scan);
}

static uint64_t top_ashift(nvlist_t *tree)
{
	nvlist_t **children;
	uint64_t ashift = 0;
	uint_t count;

	if (nvlist_lookup_nvlist_array(tree, ZPOOL_CONFIG_CHILDREN, &children, &count) == 0 && count > 0)
		(void)nvlist_lookup_uint64(children[0], ZPOOL_CONFIG_ASHIFT, &ashift);
	return ashift;
}

static struct json_object *config_json(nvlist_t *config, bool suspended)
{
	static const char *const states[] = {"active", "exported", "destroyed", "spare", "l2cache",
		"uninitialized", "unavailable", "potentially_active"};
	struct json_object *json = json_object_new_object(), *vdevs = json_object_new_array();
	uint64_t state = 0, guid = 0, txg = 0, errors = 0, version = 0;
	const char *name = "";
	nvlist_t *tree = fnvlist_lookup_nvlist(config, ZPOOL_CONFIG_VDEV_TREE);
	nvlist_t **children;
	vdev_stat_t stats;
	uint_t count;

	(void)nvlist_lookup_uint64(config, ZPOOL_CONFIG_POOL_STATE, &state);
	(void)nvlist_lookup_uint64(config, ZPOOL_CONFIG_POOL_GUID, &guid);
	(void)nvlist_lookup_uint64(config, ZPOOL_CONFIG_POOL_TXG, &txg);
	(void)nvlist_lookup_uint64(config, ZPOOL_CONFIG_ERRCOUNT, &errors);
	(void)nvlist_lookup_uint64(config, ZPOOL_CONFIG_VERSION, &version);
	(void)nvlist_lookup_string(config, ZPOOL_CONFIG_POOL_NAME, &name);
	(void)get_stats(tree, &stats);
	pv_json_add_string(json, "name", name);
	pv_json_add_u64(json, "guid", guid);
	pv_json_add_string(
		json, "state", state < sizeof(states) / sizeof(states[0]) ? states[state] : "unknown");
	pv_json_add_string(
		json, "health", suspended ? "SUSPENDED" : state_name(stats.vs_state, stats.vs_aux));
	pv_json_add_u64(json, "size", stats.vs_space);
	pv_json_add_u64(json, "allocated", stats.vs_alloc);
	pv_json_add_u64(json, "free", stats.vs_space - MIN(stats.vs_space, stats.vs_alloc));
	pv_json_add_u64(json, "last_txg", txg);
	pv_json_add_u64(json, "errors", errors);
	pv_json_add_bool(json, "suspended", suspended);
	pv_json_add_u64(json, "ashift", top_ashift(tree));
	pv_json_add_u64(json, "version", version);
	if (nvlist_lookup_nvlist_array(tree, ZPOOL_CONFIG_CHILDREN, &children, &count) == 0) {
		for (uint_t c = 0; c < count; c++)
			json_object_array_add(vdevs, vdev_json(children[c]));
	}
	json_object_object_add(json, "vdevs", vdevs);
	add_scan(json, tree);
	return json;
}

int pv_pool_status(const char *name, struct json_object **ret_status, struct pv_error *err)
{
	struct json_object *json;
	char altroot[MAXPATHLEN];
	nvlist_t *config = NULL;
	uint64_t last;
	bool suspended, read_only;
	spa_t *spa;
	int error = pool_open(name, FTAG, &spa, err);

	if (error < 0)
		return error;
	suspended = spa_suspended(spa);
	read_only = !spa_writeable(spa);
	last = spa_last_synced_txg(spa);
	error = spa_get_stats(spa_name(spa), &config, altroot, sizeof(altroot));
	spa_close(spa, FTAG);
	if (!config)
		return pool_fail(err, error ? error : EIO, name, "read the pool's state");
	json = config_json(config, suspended);
	nvlist_free(config);
	json_object_object_del(json, "last_txg"); /* the configuration's is that of its last change */
	pv_json_add_u64(json, "last_txg", last);
	pv_json_add_bool(json, "read_only", read_only);
	if (altroot[0])
		pv_json_add_string(json, "altroot", altroot);
	*ret_status = json;
	return 0;
}

int pv_pool_sync(const char *name, struct pv_error *err)
{
	spa_t *spa;
	int error = pool_open(name, FTAG, &spa, err);

	if (error < 0)
		return error;
	if (spa_suspended(spa))
		error = pool_fail(err, EAGAIN, name, "write everything to disk");
	else if (spa_writeable(spa))
		txg_wait_synced(spa_get_dsl(spa), 0);
	spa_close(spa, FTAG);
	return error;
}

int pv_pool_scrub(const char *name, bool stop, struct pv_error *err)
{
	spa_t *spa;
	int error = pool_open_writable(name, FTAG, &spa, err);

	if (error < 0)
		return error;
	error = stop ? spa_scan_stop(spa) : spa_scan(spa, POOL_SCAN_SCRUB);
	spa_close(spa, FTAG);
	if (error == ENOENT && stop)
		return pv_fail(err, -ENOENT, name, "no scrub is running");
	if (error == EBUSY || error == EALREADY)
		return pv_fail(err, -EBUSY, name, "a scrub or resilver is running already");
	return error ? pool_fail(err, error, name, stop ? "stop the scrub" : "start a scrub") : 0;
}

/*
 * For watchdogs: must answer while something else holds the namespace lock and waits for the suspended pool.
 * The answer is then that of the last time.
 */
bool pv_pool_suspended(const char *name)
{
	static _Atomic bool last;
	bool suspended = false;
	spa_t *spa = NULL;

	if (!pool_started())
		return false;
	for (int i = 0; !mutex_tryenter(&spa_namespace_lock); i++) {
		if (i == 20)
			return atomic_load(&last);
		usleep(10000);
	}
	while (!suspended && (spa = spa_next(spa)) != NULL)
		suspended = strcmp(spa_name(spa), name) == 0 && spa_suspended(spa);
	mutex_exit(&spa_namespace_lock);
	atomic_store(&last, suspended);
	return suspended;
}

int pv_pool_clear(const char *name, struct pv_error *err)
{
	spa_t *spa;
	int error = pool_open(name, FTAG, &spa, err);

	if (error < 0)
		return error;
	spa_vdev_state_enter(spa, SCL_NONE);
	vdev_clear(spa, NULL);
	/* While it is suspended nothing may wait for a transaction group, which that call does for a vdev. */
	(void)spa_vdev_state_exit(spa, spa_suspended(spa) ? NULL : spa->spa_root_vdev, 0);
	error = zio_resume(spa);
	spa_close(spa, FTAG);
	return error ? pool_fail(err, EIO, name, "resume the pool") : 0;
}
