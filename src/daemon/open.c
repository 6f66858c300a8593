/*
 * volume.open: by name, or by the path of a container that is not registered yet; and volume.restart.
 */
#include "daemon/keeper_int.h"
#include "daemon/mountpoint_int.h"
#include "volume/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

struct opening {
	struct request *rq;
	struct volume *v;
	bool is_new; /* not registered yet: its name comes from the pool */
	bool at_existed;
	struct json_object *warnings, *mounts;
};

__attribute__((format(printf, 2, 3))) static void warn(struct opening *o, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_object_array_add(o->warnings, json_object_new_string(text));
}

/* ---- which volume is meant ---- */

struct search {
	const char *path;
	char name[PV_VOLUME_NAME_MAX + 1];
};

static int match_path(const char *name, void *private)
{
	struct search *search = private;
	struct pv_record *record = NULL;
	int found = 0;

	if (pv_registry_load(keeper.home->volumes_fd, name, &record, NULL) < 0)
		return 0;
	for (unsigned i = 0; i < record->ncontainers; i++)
		found |= !strcmp(record->containers[i], search->path);
	if (found)
		snprintf(search->name, sizeof(search->name), "%s", name);
	pv_record_free(record);
	return found;
}

/* Claims the volume; *ret_open instead of a claim when it is open already. */
static int claim(struct opening *o, const char *what, bool *ret_open, struct pv_error *err)
{
	struct search search = {.path = what};
	struct volume *v;
	int r;

	if (*what != '/')
		snprintf(search.name, sizeof(search.name), "%s", what);
	else
		pv_registry_walk(keeper.home->volumes_fd, match_path, &search, NULL);
	if (*what != '/' && strlen(what) > PV_VOLUME_NAME_MAX)
		return pv_volume_name_check(what, err);
	if (!search.name[0]) {
		r = volume_claim_new(&o->v, err);
		if (r < 0)
			return r;
		o->is_new = true;
		o->v->record->containers[0] = strdup(what);
		o->v->record->ncontainers = 1;
		return 0;
	}
	v = volume_find(search.name);
	if (v && v->state == VOLUME_OPEN) {
		o->v = v;
		*ret_open = true;
		return 0;
	}
	volume_put(v);
	return volume_claim(search.name, VOLUME_CLOSED, VOLUME_OPENING, &o->v, err);
}

static int answer_open_already(struct opening *o, struct pv_error *err)
{
	const char *at = pv_json_string(o->rq->params, "at", NULL);
	struct volume *v = o->v;

	if (at && strcmp(at, v->at)) {
		pv_fail(err, -EBUSY, v->name, "the volume is open already, at %s", v->at);
		return pv_remedy(err, "pvol close %s", v->name);
	}
	if (pv_json_bool(o->rq->params, "read_only", false) && !v->read_only) {
		pv_fail(err, -EBUSY, v->name, "the volume is open already, for writing");
		return pv_remedy(err, "pvol close %s", v->name);
	}
	o->rq->result = json_object_new_object();
	pv_json_add_string(o->rq->result, "name", v->name);
	pv_json_add_string(o->rq->result, "at", v->at);
	pv_json_add_bool(o->rq->result, "already", true);
	json_object_object_add(o->rq->result, "warnings", json_object_get(o->warnings));
	return 0;
}

/* ---- the steps ---- */

static int choose_at(struct opening *o, struct pv_error *err)
{
	const char *at = pv_json_string(o->rq->params, "at", NULL);
	struct volume *v = o->v;

	if (!at)
		at = v->record->at;
	if (!at && o->is_new)
		return 0; /* $HOME/NAME, as soon as the name is known */
	if (at)
		v->at = strdup(at);
	else if (asprintf(&v->at, "%s/%s", keeper.home->user_home, v->name) < 0)
		v->at = NULL;
	if (!v->at)
		return pv_fail(err, -ENOMEM, v->name, "out of memory");
	for (size_t n = strlen(v->at); n > 1 && v->at[n - 1] == '/'; n--)
		v->at[n - 1] = '\0';
	return mountpoint_check(v->at, &o->at_existed, err);
}

static int open_containers(struct opening *o, struct pv_error *err)
{
	struct volume *v = o->v;
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < v->record->ncontainers; i++) {
		struct volume_device *device = &v->devices[i];

		r = pv_container_open(v->record->containers[i], v->read_only ? PV_CONTAINER_READ_ONLY : 0,
			&device->container, err);
		if (r >= 0)
			r = pv_container_check_size(
				&device->container, v->record->containers[i], v->record->sizes[i], 0, err);
		/* an empty or foreign file is told by the worker, which knows what headers look like */
	}
	return r;
}

static void warn_of_copies(struct opening *o, struct json_object *info)
{
	struct json_object *copies = pv_json_object(info, "copies");
	static const char *const which[] = {"primary", "secondary"};

	for (unsigned i = 0; copies && i < 2; i++) {
		const char *state = pv_json_string(copies, which[i], "ok");

		if (strcmp(state, "ok"))
			warn(o, "the %s copy of the header is %s%s", which[i], state,
				o->v->read_only ? "" : "; it was repaired from the other one");
	}
}

static int unlock(struct opening *o, struct pv_error *err)
{
	pv_autosecret struct pv_secret *secret = NULL;
	struct request *rq = o->rq;
	struct volume *v = o->v;
	int r;

	r = request_key(rq, 0, &secret, err);
	for (unsigned i = 0; r >= 0 && i < v->record->ncontainers; i++) {
		pv_autojson struct json_object *before = NULL;
		struct volume_device *device = &v->devices[i];
		const char *path = v->record->containers[i];

		r = header_info(device->container.fd, &before, err);
		if (r >= 0)
			r = header_unlock(device, pv_json_string(rq->params, "kind", "passphrase"),
				(int)pv_json_int(rq->params, "slot", -1), !v->read_only, secret, rq, NULL,
				err);
		if (r >= 0)
			r = pv_container_check_size(&device->container, path, 0,
				device->segment.offset +
					(device->segment.size ? device->segment.size : (uint64_t)64 << 20),
				err);
		if (r < 0) {
			if (err->code && !err->object[0])
				snprintf(err->object, sizeof(err->object), "%s", o->is_new ? path : v->name);
			return r;
		}
		warn_of_copies(o, before);
		if (i == 0) {
			const char *uuid = pv_json_string(before, "uuid", "");

			if (v->record->uuid[0] && strcmp(v->record->uuid, uuid))
				warn(o, "the container's header has another UUID than when it was "
					"registered");
			snprintf(v->record->uuid, sizeof(v->record->uuid), "%s", uuid);
			json_object_put(v->record->slots);
			v->record->slots = header_slots(before);
		}
		if (o->is_new)
			r = asprintf(&device->path, "/dev/mapper/luks-%s",
				pv_json_string(before, "uuid", "unknown"));
		else
			r = asprintf(&device->path, i ? "/dev/mapper/pvol-%s-%u" : "/dev/mapper/pvol-%s",
				v->name, i);
		if (r < 0) {
			device->path = NULL;
			return pv_fail(err, -ENOMEM, v->name, "out of memory");
		}
		v->ndevices++;
	}
	return r < 0 ? r : 0;
}

/* A container that was not registered gets the name of its pool. */
static int take_name(struct opening *o, struct json_object *import, struct pv_error *err)
{
	const char *name = pv_json_string(import, "name", "");
	pv_autorecord struct pv_record *other = NULL;
	struct volume *v = o->v;
	struct stat st;
	int r;

	r = pv_volume_name_check(name, err);
	if (r < 0) {
		pv_remedy(err, "rename the pool inside with the kernel's zpool import OLD NEW");
		return r;
	}
	r = pv_registry_load(keeper.home->volumes_fd, name, &other, NULL);
	if (r >= 0) {
		/* the same volume, its container moved? */
		if (strcmp(other->uuid, v->record->uuid) || lstat(other->containers[0], &st) == 0) {
			pv_fail_as(err, -EEXIST, PV_EXIT_FAILED, v->record->containers[0],
				"the volume inside is named %s, and there is another one of this name (%s)",
				name, other->containers[0]);
			return pv_remedy(err, "pvol forget %s makes the name free; it removes no data", name);
		}
		v->record->last_txg = other->last_txg;
		v->record->pool_guid = other->pool_guid;
		v->record->created = other->created;
		json_object_put(v->record->incidents);
		v->record->incidents = json_object_get(other->incidents);
		if (!v->at && other->at)
			v->at = strdup(other->at);
	}
	r = volume_rename(v, name, err);
	if (r < 0)
		return r;
	snprintf(v->record->name, sizeof(v->record->name), "%s", v->name);
	if (!v->at && asprintf(&v->at, "%s/%s", keeper.home->user_home, v->name) < 0)
		return pv_fail(err, -ENOMEM, v->name, "out of memory");
	if (!v->record->created)
		v->record->created = time(NULL);
	r = mountpoint_check(v->at, &o->at_existed, err);
	return r < 0 ? r : engine_configure(v, err);
}

/* An older copy of the whole container, put back behind our back, is noticed here. */
static void check_rollback(struct opening *o, struct json_object *import)
{
	uint64_t guid = pv_json_u64(import, "guid", 0), txg = pv_json_u64(import, "last_txg", 0);
	struct pv_record *record = o->v->record;

	if (record->pool_guid && guid && record->pool_guid != guid) {
		warn(o, "the container holds another pool than when it was last open here");
		pv_record_incident(record, "the container held another pool than before", NULL);
	} else if (record->last_txg && txg && txg < record->last_txg) {
		warn(o,
			"the volume is older than when it was last open here (transaction group %" PRIu64
			", was %" PRIu64 "): somebody has put an old copy back",
			txg, record->last_txg);
		pv_record_incident(record, "the volume was older than when it was last open", NULL);
	}
	record->pool_guid = guid;
	record->last_txg = txg;
}

static int bring_up(struct opening *o, struct pv_error *err)
{
	pv_autojson struct json_object *import = NULL;
	struct volume *v = o->v;
	int r;

	request_progress(o->rq, "opening the pool", 0, 0);
	r = engine_start(v, err);
	if (r >= 0)
		r = engine_import(v, o->is_new ? NULL : v->name, v->record->interrupted, &import, err);
	if (r < 0)
		return r;
	if (o->is_new) {
		r = take_name(o, import, err);
		if (r < 0)
			return r;
	}
	check_rollback(o, import);
	return engine_mount(v, &o->mounts, err);
}

static int enter(struct opening *o, struct pv_error *err)
{
	struct volume *v = o->v;
	struct pv_record *record = v->record;

	for (unsigned i = 0; i < v->ndevices; i++)
		record->sizes[i] = v->devices[i].container.size;
	if (!record->at)
		record->at = strdup(v->at);
	free(record->opened_at);
	free(record->failed);
	record->opened_at = strdup(v->at);
	record->failed = NULL;
	record->opened_read_only = v->read_only;
	record->interrupted = false;
	pv_boot_id(record->boot_id);
	return volume_save(v, err);
}

static void warn_of_machine(struct opening *o)
{
	char areas[256];
	bool allow_other = false;

	if (pv_machine_plain_swap(areas, sizeof(areas)) > 0)
		warn(o,
			"swap without encryption is active (%s): what programs read from the volume may end "
			"up there in "
			"clear",
			areas);
	if (pv_machine_check_fuse(&allow_other, NULL) >= 0 && !allow_other)
		warn(o, "user_allow_other is not set in /etc/fuse.conf: only you can see the files, and "
			"child file "
			"systems share one mount");
}

static void take_down(struct opening *o)
{
	engine_abort(o->v);
	if (!o->at_existed && o->v->at)
		rmdir(o->v->at);
}

static int open_claimed(struct opening *o, struct pv_error *err)
{
	bool started = false;
	int r;

	o->at_existed = true;
	o->v->read_only = pv_json_bool(o->rq->params, "read_only", false);
	r = pv_machine_check_fuse(NULL, err);
	if (r >= 0)
		r = choose_at(o, err);
	if (r >= 0)
		r = open_containers(o, err);
	if (r >= 0)
		r = unlock(o, err);
	if (r >= 0) {
		started = true;
		r = bring_up(o, err);
	}
	if (r >= 0)
		r = enter(o, err);
	if (r < 0) {
		if (started)
			take_down(o);
		return r;
	}
	warn_of_machine(o);
	o->rq->result = json_object_new_object();
	pv_json_add_string(o->rq->result, "name", o->v->name);
	pv_json_add_string(o->rq->result, "at", o->v->at);
	json_object_object_add(o->rq->result, "mounts", json_object_get(o->mounts));
	json_object_object_add(o->rq->result, "warnings", json_object_get(o->warnings));
	return 0;
}

int volume_open(struct request *rq, struct pv_error *err)
{
	struct opening o = {.rq = rq, .warnings = json_object_new_array()};
	const char *what;
	bool is_open = false;
	int r;

	r = request_string(rq, "volume", &what, err);
	if (r >= 0)
		r = claim(&o, what, &is_open, err);
	if (r >= 0 && is_open) {
		r = answer_open_already(&o, err);
		volume_put(o.v);
	} else if (r >= 0) {
		r = open_claimed(&o, err);
		volume_done(o.v, r < 0 ? VOLUME_CLOSED : VOLUME_OPEN);
	}
	json_object_put(o.warnings);
	json_object_put(o.mounts);
	return r;
}

/* A fresh engine with the same devices and keys, after an orderly export. */
int volume_restart(struct request *rq, struct pv_error *err)
{
	struct volume *v;
	const char *name;
	int r;

	r = request_string(rq, "name", &name, err);
	if (r >= 0)
		r = volume_claim(name, VOLUME_OPEN, VOLUME_RESTARTING, &v, err);
	if (r < 0)
		return r;
	r = link_simple(v->link, "mounts.stop", NULL, 0, err);
	if (r < 0) {
		volume_done(v, VOLUME_OPEN);
		return r;
	}
	r = link_simple(v->link, "pool.export", NULL, 0, err);
	engine_end(v, r >= 0);
	r = engine_start(v, err);
	if (r >= 0)
		r = engine_import(v, v->name, true, NULL, err);
	if (r >= 0)
		r = engine_mount(v, NULL, err);
	if (r < 0) {
		engine_abort(v);
		free(v->record->opened_at);
		v->record->opened_at = NULL;
		v->record->interrupted = true;
		volume_incident(v, "the volume is closed: it could not be restarted", err->message);
	}
	volume_done(v, r < 0 ? VOLUME_CLOSED : VOLUME_OPEN);
	return r;
}
