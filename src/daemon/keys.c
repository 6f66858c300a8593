/*
 * Key slots, header backups, erasing. All of it happens in workers, on the keeper's descriptor, which has the
 * lock; it works on open volumes too where that is harmless.
 */
#include "daemon/keeper_int.h"
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* The containers of a volume, by its name or the path of a container, open or not. */
struct target {
	struct volume *v; /* a claim (closed volume) or a reference (open one), NULL for a bare path */
	bool claimed;
	struct pv_container own[PV_CONTAINERS_MAX]; /* opened for this request */
	int fds[PV_CONTAINERS_MAX];
	const char *labels[PV_CONTAINERS_MAX];
	unsigned count;
};

enum target_flags {
	TARGET_WRITE = 1,
	TARGET_CLOSED = 2, /* refuse open volumes */
};

static int add_own(struct target *t, const char *path, unsigned flags, struct pv_error *err)
{
	int r = pv_container_open(
		path, flags & TARGET_WRITE ? 0 : PV_CONTAINER_READ_ONLY, &t->own[t->count], err);

	if (r < 0)
		return r;
	t->fds[t->count] = t->own[t->count].fd;
	t->labels[t->count++] = path;
	return 0;
}

static int find_by_path(const char *name, void *private)
{
	const char **search = private; /* path, then the name that was found */
	struct pv_record *record = NULL;
	bool found = false;

	if (pv_registry_load(keeper.home->volumes_fd, name, &record, NULL) < 0)
		return 0;
	for (unsigned i = 0; i < record->ncontainers; i++)
		found |= !strcmp(record->containers[i], search[0]);
	pv_record_free(record);
	if (found)
		search[1] = strdup(name);
	return found;
}

static void target_close(struct target *t)
{
	for (unsigned i = 0; i < PV_CONTAINERS_MAX; i++)
		pv_container_close(&t->own[i]);
	if (t->v && t->claimed)
		volume_done(t->v, VOLUME_CLOSED);
	else
		volume_put(t->v);
	t->v = NULL;
}

/* An open volume: its own descriptors are used; while a header operation runs it cannot be closed under us.
 */
static int use_open(struct target *t, struct volume *v, unsigned flags, struct pv_error *err)
{
	int r = 0;

	if (flags & TARGET_CLOSED) {
		pv_fail(err, -EBUSY, v->name, "the volume is open");
		pv_remedy(err, "pvol close %s", v->name);
		return -EBUSY;
	}
	if ((flags & TARGET_WRITE) && v->read_only)
		return pv_fail(err, -EROFS, v->name, "the volume is open for reading only");
	pthread_mutex_lock(&keeper.lock);
	if (v->state != VOLUME_OPEN)
		r = pv_fail(err, -EBUSY, v->name, "the volume is just being closed or restarted");
	for (unsigned i = 0; r >= 0 && i < v->ndevices; i++) {
		/* duplicates, because the volume may be closed meanwhile */
		t->own[i].fd = fcntl(v->devices[i].container.fd, F_DUPFD_CLOEXEC, 3);
		if (t->own[i].fd < 0)
			r = pv_fail(err, -errno, v->name, "cannot duplicate a descriptor: %s",
				pv_strerror(errno));
		t->fds[i] = t->own[i].fd;
		t->labels[i] = v->record->containers[i];
		t->count++;
	}
	pthread_mutex_unlock(&keeper.lock);
	return r;
}

static int target_open(struct target *t, struct request *rq, unsigned flags, struct pv_error *err)
{
	const char *what = NULL;
	pv_autofree char *found = NULL;
	struct volume *v;
	int r;

	*t = (struct target){0};
	for (unsigned i = 0; i < PV_CONTAINERS_MAX; i++)
		t->own[i] = PV_CONTAINER_NONE;
	r = request_string(rq, "name", &what, err);
	if (r < 0)
		return r;
	if (*what == '/') {
		const char *search[2] = {what, NULL};

		pv_registry_walk(keeper.home->volumes_fd, find_by_path, search, NULL);
		if (!search[1])
			return add_own(t, what, flags, err);
		found = (char *)search[1];
		what = found;
	}
	v = volume_find(what);
	if (v && v->state == VOLUME_OPEN) {
		t->v = v;
		r = use_open(t, v, flags, err);
	} else {
		volume_put(v);
		r = volume_claim(what, VOLUME_CLOSED, VOLUME_HEADER, &t->v, err);
		if (r < 0)
			return r;
		t->claimed = true;
		for (unsigned i = 0; r >= 0 && i < t->v->record->ncontainers; i++)
			r = add_own(t, t->v->record->containers[i], flags, err);
	}
	if (r < 0)
		target_close(t);
	return r < 0 ? r : 0;
}

/*
 * What destroys keys without asking for one must not hit another volume that lies at the registered path now.
 * A header that cannot be read is the container's own: it may be what shall be erased.
 */
static int check_same(const struct target *t, struct pv_error *err)
{
	pv_autojson struct json_object *info = NULL;
	const char *name = t->v ? t->v->name : NULL;

	if (!t->v || !t->v->record->uuid[0] || header_info(t->fds[0], &info, NULL) < 0 ||
		!strcmp(pv_json_string(info, "uuid", ""), t->v->record->uuid))
		return 0;
	pv_fail(err, -EINVAL, name, "its container %s holds another volume now (UUID %s, not %s)",
		t->labels[0], pv_json_string(info, "uuid", ""), t->v->record->uuid);
	pv_remedy(err,
		"put the container back; or, if it is this one that is meant, 'pvol forget %s' and then "
		"the container's path",
		name);
	return -EINVAL;
}

/* Runs a worker on each container; the result is the first one's. `secrets` become key pipes. */
static int run_all(struct target *t, struct request *rq, const char *method, struct json_object *params,
	struct pv_secret *const *secrets, unsigned nsecrets, struct pv_error *err)
{
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < t->count; i++) {
		struct json_object *result = NULL;
		int fds[3] = {t->fds[i], -1, -1}, out[1] = {-1};
		unsigned given = 0;
		size_t nout = 1;

		for (; r >= 0 && given < nsecrets; given += r >= 0)
			r = pv_secret_pipe(secrets[given], &fds[1 + given], err);
		if (r >= 0)
			r = pv_worker_run(method, params, fds, 1 + given, request_pass_progress, rq, &result,
				out, &nout, err);
		for (unsigned k = 0; k < given; k++)
			close(fds[1 + k]);
		if (out[0] >= 0)
			close(out[0]); /* a volume key that is not needed here */
		if (r >= 0 && i == 0)
			rq->result = json_object_get(result);
		json_object_put(result);
		if (r < 0 && err->code && !err->object[0])
			snprintf(err->object, sizeof(err->object), "%s", t->v ? t->v->name : t->labels[i]);
	}
	return r;
}

/* The registry shows the kinds of slots without asking the container. */
static void refresh_slots(struct target *t)
{
	pv_autojson struct json_object *info = NULL;

	if (!t->v || header_info(t->fds[0], &info, NULL) < 0)
		return;
	pthread_mutex_lock(&t->v->record_lock);
	json_object_put(t->v->record->slots);
	t->v->record->slots = header_slots(info);
	pthread_mutex_unlock(&t->v->record_lock);
	volume_save(t->v, NULL);
}

int key_list(struct request *rq, struct pv_error *err)
{
	pv_autojson struct json_object *info = NULL;
	struct json_object *slots;
	struct target t;
	int r = target_open(&t, rq, 0, err);

	if (r < 0)
		return r;
	r = header_info(t.fds[0], &info, err);
	if (r >= 0) {
		slots = pv_json_array(info, "slots");
		rq->result = json_object_new_object();
		json_object_object_add(
			rq->result, "slots", slots ? json_object_get(slots) : json_object_new_array());
	}
	target_close(&t);
	return r;
}

int key_test(struct request *rq, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	pv_autosecret struct pv_secret *key = NULL;
	struct target t;
	int r = target_open(&t, rq, 0, err);

	if (r < 0)
		return r;
	pv_json_add_string(params, "kind", pv_json_string(rq->params, "kind", "passphrase"));
	pv_json_add_int(params, "slot", pv_json_int(rq->params, "slot", -1));
	pv_json_add_bool(params, "repair", false);
	r = request_key(rq, 0, &key, err);
	if (r >= 0)
		r = run_all(&t, rq, "format.unlock", params, &key, 1, err);
	if (r >= 0)
		json_object_object_del(rq->result, "segment");
	target_close(&t);
	return r;
}

static int add_or_change(
	struct request *rq, const char *method, const char *existing_kind, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct pv_secret *keys[2] = {NULL, NULL};
	struct json_object *pbkdf = pv_json_object(rq->params, "pbkdf");
	struct target t;
	int r = target_open(&t, rq, TARGET_WRITE, err);

	if (r < 0)
		return r;
	pv_json_add_string(params, "existing_kind", existing_kind);
	pv_json_add_string(params, "kind", pv_json_string(rq->params, "kind", "passphrase"));
	if (pbkdf)
		json_object_object_add(params, "pbkdf", json_object_get(pbkdf));
	r = request_key(rq, 0, &keys[0], err);
	if (r >= 0)
		r = request_key(rq, 1, &keys[1], err);
	if (r >= 0)
		r = run_all(&t, rq, method, params, keys, 2, err);
	if (r >= 0)
		refresh_slots(&t);
	pv_secret_free(keys[0]);
	pv_secret_free(keys[1]);
	target_close(&t);
	return r;
}

int key_add(struct request *rq, struct pv_error *err)
{
	return add_or_change(
		rq, "format.key_add", pv_json_string(rq->params, "existing_kind", "passphrase"), err);
}

int key_change(struct request *rq, struct pv_error *err)
{
	return add_or_change(rq, "format.key_change", pv_json_string(rq->params, "kind", "passphrase"), err);
}

int key_remove(struct request *rq, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct target t;
	int r = target_open(&t, rq, TARGET_WRITE, err);

	if (r < 0)
		return r;
	pv_json_add_int(params, "slot", pv_json_int(rq->params, "slot", -1));
	pv_json_add_bool(params, "force", pv_json_bool(rq->params, "force", false));
	r = check_same(&t, err);
	if (r >= 0)
		r = run_all(&t, rq, "format.key_remove", params, NULL, 0, err);
	if (r >= 0)
		refresh_slots(&t);
	target_close(&t);
	return r;
}

/*
 * Without a readable header only the registry still knows which volume the container is: a backup that bears
 * its UUID belongs to it. With one, or with something else in its place (-EMEDIUMTYPE), the container may
 * have been exchanged, and what is there now must not be overwritten.
 */
static bool registry_vouches(const struct target *t, int backup_fd)
{
	pv_autojson struct json_object *present = NULL, *info = NULL;
	int r;

	if (!t->v || !t->v->record->uuid[0])
		return false;
	r = header_info(t->fds[0], &present, NULL);
	if (r >= 0 || r == -EMEDIUMTYPE || header_info(backup_fd, &info, NULL) < 0)
		return false;
	return !strcmp(pv_json_string(info, "uuid", ""), t->v->record->uuid);
}

/* The header of the first container and the file that the client gave. */
static int with_file(struct request *rq, const char *method, unsigned flags, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct target t;
	int fds[2], r;

	if (rq->message.nfds != 1)
		return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, NULL, "%s needs a file", rq->method);
	r = target_open(&t, rq, flags, err);
	if (r < 0)
		return r;
	pv_json_add_bool(params, "force",
		pv_json_bool(rq->params, "force", false) ||
			((flags & TARGET_WRITE) && registry_vouches(&t, rq->message.fds[0])));
	fds[0] = t.fds[0];
	fds[1] = rq->message.fds[0];
	r = pv_worker_run(method, params, fds, 2, request_pass_progress, rq, &rq->result, NULL, NULL, err);
	if (r >= 0 && (flags & TARGET_WRITE))
		refresh_slots(&t);
	if (r < 0 && err->code && !err->object[0])
		snprintf(err->object, sizeof(err->object), "%s", t.v ? t.v->name : t.labels[0]);
	target_close(&t);
	return r;
}

int header_backup(struct request *rq, struct pv_error *err)
{
	return with_file(rq, "format.backup", 0, err);
}

int header_restore(struct request *rq, struct pv_error *err)
{
	return with_file(rq, "format.restore", TARGET_WRITE | TARGET_CLOSED, err);
}

/* What lies outside of the container is out of reach for any overwrite. */
static struct json_object *unreachable(const struct target *t)
{
	struct json_object *list = json_object_new_array();

	for (unsigned i = 0; i < t->count; i++) {
		const char *text = pv_container_unreachable(t->fds[i]);

		if (text)
			json_object_array_add(list, json_object_new_string(text));
	}
	json_object_array_add(
		list, json_object_new_string("copies of the container or of its header that were made "
					     "elsewhere (header backups, backups of the disk, "
					     "snapshots of the file system) still open with their keys"));
	return list;
}

int volume_erase(struct request *rq, struct pv_error *err)
{
	const char *path = pv_json_string(rq->params, "path", NULL);
	struct json_object *list;
	struct target t;
	int r;

	if (path && !pv_json_string(rq->params, "name", NULL))
		pv_json_add_string(rq->params, "name", path);
	r = target_open(&t, rq, TARGET_WRITE | TARGET_CLOSED, err);
	if (r < 0)
		return r;
	list = unreachable(&t);
	r = check_same(&t, err);
	if (r >= 0)
		r = run_all(&t, rq, "format.erase", NULL, NULL, 0, err);
	if (r >= 0) {
		if (t.v)
			pv_registry_remove(keeper.home->volumes_fd, t.v->name, NULL);
		json_object_put(rq->result);
		rq->result = json_object_new_object();
		json_object_object_add(rq->result, "unreachable", json_object_get(list));
		pv_json_add_string(rq->result, "container", t.labels[0]);
	}
	json_object_put(list);
	target_close(&t);
	return r;
}
