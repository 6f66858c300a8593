/*
 * What there is: keeper.status, volume.list, volume.status, volume.info, volume.forget.
 */
#include "daemon/keeper_int.h"
#include "volume/machine.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* A stuck engine must not make a listing stick. */
#define ENGINE_TIMEOUT_MS 10000

int keeper_status(struct request *rq, struct pv_error *err)
{
	pthread_mutex_lock(&keeper.lock);
	rq->result = json_object_new_object();
	for (const struct volume *v = keeper.volumes; v; v = v->next) {
		if (v->libzpool[0])
			pv_json_add_string(rq->result, "libzpool", v->libzpool);
	}
	pthread_mutex_unlock(&keeper.lock);
	pv_json_add_int(rq->result, "pid", getpid());
	pv_json_add_string(rq->result, "version", PV_VERSION);
	pv_json_add_string(rq->result, "home", keeper.home->home);
	pv_json_add_string(rq->result, "runtime", keeper.home->runtime);
	pv_json_add_int(rq->result, "started", keeper.started);
	pv_json_add_int(rq->result, "volumes", volume_count(false));
	pv_json_add_int(rq->result, "open", volume_count(true));
	return 0;
}

/* The engine's answer, or NULL (the reason goes into `warnings` if that is not NULL). */
static struct json_object *ask(
	struct link *link, const char *method, struct json_object *params, struct json_object *warnings)
{
	struct link_call call = {.method = method, .params = params, .timeout_ms = ENGINE_TIMEOUT_MS};
	struct pv_error err = {0};
	struct json_object *result = NULL;

	if (link_call(link, &call, &err) >= 0)
		result = json_object_get(call.result);
	else if (warnings)
		json_object_array_add(warnings, json_object_new_string(err.message));
	link_call_clear(&call);
	return result;
}

static bool container_missing(const struct pv_record *record)
{
	struct stat st;

	for (unsigned i = 0; i < record->ncontainers; i++) {
		if (stat(record->containers[i], &st) < 0 && (errno == ENOENT || errno == ENOTDIR))
			return true;
	}
	return false;
}

static const char *closed_state(const struct pv_record *record)
{
	if (container_missing(record))
		return "missing";
	return record->failed ? "failed" : "closed";
}

/* Figures of an open volume. */
static void add_usage(struct json_object *json, struct link *link)
{
	pv_autojson struct json_object *status = ask(link, "pool.status", NULL, NULL);
	pv_autojson struct json_object *datasets = ask(link, "dataset.list", NULL, NULL);
	struct json_object *all = datasets ? pv_json_array(datasets, "datasets") : NULL;
	struct json_object *root = all ? json_object_array_get_idx(all, 0) : NULL;

	if (status)
		pv_json_add_string(json, "health", pv_json_string(status, "health", NULL));
	if (root) {
		pv_json_add_u64(json, "used", pv_json_u64(root, "used", 0));
		pv_json_add_u64(json, "available", pv_json_u64(root, "available", 0));
	}
}

static int list_one(const char *name, void *private)
{
	struct json_object *volumes = private, *json = json_object_new_object();
	pv_autorecord struct pv_record *record = NULL;
	struct pv_error err = {0};
	struct volume *v = volume_find(name);
	struct link *link = NULL;

	pv_json_add_string(json, "name", name);
	json_object_array_add(volumes, json);
	if (pv_registry_load(keeper.home->volumes_fd, name, &record, &err) < 0) {
		pv_json_add_string(json, "state", "failed");
		pv_json_add_string(json, "reason", err.message);
		volume_put(v);
		return 0;
	}
	pv_json_add_string(json, "state", v ? volume_state_text(v->state) : closed_state(record));
	pv_json_add_string(json, "container", record->containers[0]);
	pv_json_add_u64(json, "size", record->sizes[0]);
	pv_json_add_string(json, "at", record->opened_at ? record->opened_at : record->at);
	pv_json_add_string(json, "reason", record->failed);
	if (v && volume_link(name, &link, NULL) >= 0) {
		add_usage(json, link);
		link_put(link);
	}
	volume_put(v);
	return 0;
}

int volume_list(struct request *rq, struct pv_error *err)
{
	struct json_object *volumes = json_object_new_array();

	rq->result = json_object_new_object();
	json_object_object_add(rq->result, "volumes", volumes);
	return pv_registry_walk(keeper.home->volumes_fd, list_one, volumes, err);
}

/* ---- one volume ---- */

/* Seconds since boot of a process's start are not worth the trouble: the keeper knows when it started it. */
static uint64_t resident(pid_t pid)
{
	char path[64];
	pv_autofclose FILE *f = NULL;
	unsigned long long size, pages;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	f = fopen(path, "re");
	return f && fscanf(f, "%llu %llu", &size, &pages) == 2 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static void move_member(struct json_object *from, const char *key, struct json_object *to, const char *as)
{
	struct json_object *value;

	if (from && json_object_object_get_ex(from, key, &value))
		json_object_object_add(to, as, json_object_get(value));
}

static void add_device(struct json_object *json, struct link *link, struct json_object *warnings)
{
	pv_autojson struct json_object *answer = ask(link, "device.describe", NULL, warnings);
	struct json_object *devices = answer ? pv_json_array(answer, "devices") : NULL;
	struct json_object *first = devices ? json_object_array_get_idx(devices, 0) : NULL;

	if (first)
		json_object_object_add(json, "device", json_object_get(first));
	if (devices && json_object_array_length(devices) > 1)
		json_object_object_add(json, "devices", json_object_get(devices));
	move_member(answer, "backing_free", json, "backing_free");
}

static uint64_t count_snapshots(struct link *link)
{
	pv_autojson struct json_object *params = json_object_new_object();
	pv_autojson struct json_object *answer = NULL;

	pv_json_add_bool(params, "count", true);
	answer = ask(link, "snapshot.list", params, NULL);
	return answer ? pv_json_u64(answer, "count", 0) : 0;
}

static void add_engine(struct json_object *json, struct volume *v, struct link *link)
{
	struct json_object *engine = json_object_new_object(), *warnings = pv_json_array(json, "warnings");
	pv_autojson struct json_object *mounts = NULL, *datasets = NULL;
	struct json_object *pool;

	pv_json_add_int(engine, "pid", v->pid);
	pv_json_add_int(engine, "uptime", v->engine_started ? time(NULL) - v->engine_started : 0);
	pv_json_add_u64(engine, "rss", resident(v->pid));
	pv_json_add_string(engine, "libzpool", v->libzpool);
	json_object_object_add(json, "engine", engine);
	if (v->suspended)
		json_object_array_add(
			warnings, json_object_new_string(
					  "the pool is suspended: its container cannot be read or written"));
	if (v->full)
		json_object_array_add(warnings,
			json_object_new_string(
				"the file system that holds the container is nearly full: new data is "
				"refused until there is room"));
	pool = ask(link, "pool.status", NULL, warnings);
	if (pool)
		json_object_object_add(json, "pool", pool);
	mounts = ask(link, "mounts.list", NULL, warnings);
	datasets = ask(link, "dataset.list", NULL, warnings);
	move_member(mounts, "mounts", json, "mounts");
	move_member(datasets, "datasets", json, "datasets");
	pv_json_add_u64(json, "snapshots", count_snapshots(link));
	add_device(json, link, warnings);
}

static void add_warnings(struct json_object *warnings, const struct pv_record *record)
{
	char areas[256], text[400];

	if (pv_machine_plain_swap(areas, sizeof(areas)) > 0) {
		snprintf(text, sizeof(text), "swap without encryption is active: %s", areas);
		json_object_array_add(warnings, json_object_new_string(text));
	}
	if (record->interrupted)
		json_object_array_add(
			warnings, json_object_new_string("the volume was not closed in order; what was "
							 "fsynced is there"));
	if (container_missing(record))
		json_object_array_add(warnings, json_object_new_string("its container is not there"));
}

int volume_status(struct request *rq, struct pv_error *err)
{
	pv_autorecord struct pv_record *record = NULL;
	struct json_object *json, *warnings = NULL;
	struct link *link = NULL;
	struct volume *v;
	const char *name;
	int r;

	r = request_string(rq, "name", &name, err);
	if (r >= 0)
		r = pv_registry_load(keeper.home->volumes_fd, name, &record, err);
	if (r < 0)
		return r;
	v = volume_find(name);
	json = rq->result = json_object_new_object();
	warnings = json_object_new_array();
	pv_json_add_string(json, "name", name);
	pv_json_add_string(json, "state", v ? volume_state_text(v->state) : closed_state(record));
	pv_json_add_string(json, "reason", record->failed);
	pv_json_add_string(json, "container", record->containers[0]);
	pv_json_add_string(json, "mirror", record->ncontainers > 1 ? record->containers[1] : NULL);
	pv_json_add_u64(json, "size", record->sizes[0]);
	pv_json_add_string(json, "uuid", record->uuid);
	pv_json_add_string(json, "at", record->opened_at ? record->opened_at : record->at);
	json_object_object_add(
		json, "slots", record->slots ? json_object_get(record->slots) : json_object_new_array());
	json_object_object_add(json, "incidents", json_object_get(record->incidents));
	json_object_object_add(json, "warnings", warnings);
	add_warnings(warnings, record);
	if (v && volume_link(name, &link, NULL) >= 0) {
		pv_json_add_bool(json, "read_only", v->read_only);
		add_engine(json, v, link);
		link_put(link);
	}
	volume_put(v);
	return 0;
}

int volume_info(struct request *rq, struct pv_error *err)
{
	pv_autocontainer struct pv_container container = PV_CONTAINER_NONE;
	const char *path;
	int r;

	r = request_string(rq, "path", &path, err);
	if (r >= 0)
		r = pv_container_open(path, PV_CONTAINER_READ_ONLY | PV_CONTAINER_NO_LOCK, &container, err);
	if (r < 0)
		return r;
	r = header_info(container.fd, &rq->result, err);
	if (r < 0 && err->code && !err->object[0])
		snprintf(err->object, sizeof(err->object), "%s", path);
	return r;
}

int volume_forget(struct request *rq, struct pv_error *err)
{
	struct volume *v = NULL;
	const char *name;
	int r;

	r = request_string(rq, "name", &name, err);
	if (r >= 0)
		r = volume_claim(name, VOLUME_CLOSED, VOLUME_HEADER, &v, err);
	if (r == -EUCLEAN) /* a damaged registry file is forgotten too */
		return pv_registry_remove(keeper.home->volumes_fd, name, err);
	if (r < 0)
		return r;
	r = pv_registry_remove(keeper.home->volumes_fd, name, err);
	volume_done(v, VOLUME_CLOSED);
	return r;
}
