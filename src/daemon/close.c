/*
 * volume.close: unmount, export, end of the engine, and with its last descriptor the lock. And closing
 * everything, at the keeper's end.
 */
#include "daemon/keeper_int.h"
#include "volume/mountinfo.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define STUCK_MS 20000 /* as for an engine that starts: a machine that swaps is slow, not dead */

/* "12 (vim), 34 (bash)" for the message; the list itself goes to the client too. */
static void name_holders(struct json_object *holders, char *ret_text, size_t size)
{
	size_t count = json_object_array_length(holders), used = 0;

	ret_text[0] = '\0';
	for (size_t i = 0; i < count && i < 8 && used < size; i++) {
		struct json_object *holder = json_object_array_get_idx(holders, i);

		used += (size_t)snprintf(ret_text + used, size - used, "%s%d (%s)", i ? ", " : "",
			(int)pv_json_int(holder, "pid", 0), pv_json_string(holder, "command", "?"));
	}
}

static int unmount(struct volume *v, bool force, struct json_object **ret_holders, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct link_call call = {.method = "mounts.stop", .params = params};
	struct json_object *holders;
	char who[512];
	int r;

	pv_json_add_bool(params, "force", force);
	r = link_call(v->link, &call, err);
	holders = call.failure ? pv_json_array(call.failure, "holders") : NULL;
	if (r == -EBUSY) {
		if (holders && json_object_array_length(holders)) {
			name_holders(holders, who, sizeof(who));
			pv_fail(err, r, v->name, "the volume is in use by process %s", who);
		} else {
			pv_fail(err, r, v->name, "files of the volume are in use");
		}
		pv_remedy(
			err, "end these programs, or: pvol close --force %s (they will get errors)", v->name);
		if (ret_holders && holders)
			*ret_holders = json_object_get(holders);
	}
	link_call_clear(&call);
	return r;
}

static void note_txg(struct volume *v)
{
	struct link_call call = {.method = "pool.status", .timeout_ms = 10000};

	if (link_call(v->link, &call, NULL) >= 0) {
		uint64_t txg = pv_json_u64(call.result, "last_txg", 0);

		if (txg > v->record->last_txg)
			v->record->last_txg = txg;
	}
	link_call_clear(&call);
}

static int mark_closed(struct volume *v, bool in_order, struct pv_error *err)
{
	pthread_mutex_lock(&v->record_lock);
	free(v->record->opened_at);
	v->record->opened_at = NULL;
	v->record->interrupted = !in_order;
	pthread_mutex_unlock(&v->record_lock);
	return volume_save(v, err);
}

/* The engine is dead or must die: what was fsynced is safe, the rest is lost. */
static void kill_engine(struct volume *v, const char *why)
{
	engine_end(v, false);
	pv_mounts_detach_below(v->at, NULL);
	volume_incident(v, "the volume was closed by ending its engine", why);
	mark_closed(v, false, NULL);
}

/* Stopped or stuck: unmounting may take its time, this answer does not. */
static bool engine_is_stuck(struct volume *v)
{
	return link_simple(v->link, "mounts.list", NULL, STUCK_MS, NULL) == -ETIMEDOUT;
}

int volume_close_claimed(struct volume *v, bool force, struct json_object **ret_holders, struct pv_error *err)
{
	int r;

	if (v->suspended && !force) {
		pv_fail(err, -EIO, v->name,
			"the pool is suspended because its container cannot be read or written");
		return pv_remedy(err, "'pvol close --force %s' gives up what was not written yet", v->name);
	}
	if (v->suspended) {
		kill_engine(v, "the pool was suspended");
		return 0;
	}
	if (force && engine_is_stuck(v)) {
		kill_engine(v, "it did not answer");
		return 0;
	}
	r = unmount(v, force, ret_holders, err);
	if (r >= 0) {
		note_txg(v);
		r = link_simple(v->link, "pool.export", NULL, 0, err);
	}
	if (r == -ENOTCONN) {
		kill_engine(v, "it died while the volume was being closed");
		pv_fail(err, r, v->name, "the engine died while the volume was being closed");
		pv_remedy(
			err, "the volume is closed; open it and look at what was written last without fsync");
		return -ESHUTDOWN;
	}
	if (r < 0 && force) {
		kill_engine(v, err->message);
		return 0;
	}
	if (r < 0)
		return r;
	engine_end(v, true);
	mark_closed(v, true, NULL);
	return 0;
}

static int close_one(
	const char *name, bool force, struct request *rq, struct json_object *closed, struct pv_error *err)
{
	struct volume *v;
	int r;

	r = volume_claim(name, VOLUME_OPEN, VOLUME_CLOSING, &v, err);
	if (r < 0)
		return r;
	json_object_put(rq->holders);
	rq->holders = NULL;
	r = volume_close_claimed(v, force, &rq->holders, err);
	/* after -ESHUTDOWN there is nothing left that could be open */
	volume_done(v, r < 0 && r != -ESHUTDOWN ? VOLUME_OPEN : VOLUME_CLOSED);
	if (r >= 0)
		json_object_array_add(closed, json_object_new_string(name));
	return r;
}

static struct json_object *open_names(void)
{
	struct json_object *names = json_object_new_array();

	pthread_mutex_lock(&keeper.lock);
	for (const struct volume *v = keeper.volumes; v; v = v->next) {
		if (v->state == VOLUME_OPEN)
			json_object_array_add(names, json_object_new_string(v->name));
	}
	pthread_mutex_unlock(&keeper.lock);
	return names;
}

static int close_all(struct request *rq, bool force, struct json_object *closed, struct pv_error *err)
{
	pv_autojson struct json_object *names = open_names();
	int first = 0;

	for (size_t i = 0; i < json_object_array_length(names); i++) {
		struct pv_error own = {0};
		int r = close_one(
			json_object_get_string(json_object_array_get_idx(names, i)), force, rq, closed, &own);

		if (r < 0 && first == 0) {
			first = r;
			*err = own;
		}
	}
	return first;
}

int volume_close(struct request *rq, struct pv_error *err)
{
	bool force = pv_json_bool(rq->params, "force", false);
	struct json_object *closed = json_object_new_array();
	const char *name;
	int r;

	rq->result = json_object_new_object();
	json_object_object_add(rq->result, "closed", closed);
	if (pv_json_bool(rq->params, "all", false))
		return close_all(rq, force, closed, err);
	r = request_string(rq, "name", &name, err);
	return r < 0 ? r : close_one(name, force, rq, closed, err);
}

int keeper_stop(struct request *rq, struct pv_error *err)
{
	struct json_object *closed = json_object_new_array();
	int r;

	rq->result = json_object_new_object();
	json_object_object_add(rq->result, "closed", closed);
	r = close_all(rq, pv_json_bool(rq->params, "force", false), closed, err);
	if (r < 0)
		return r;
	rq->stop = true;
	return 0;
}

/* ---- the keeper's end ---- */

static void *close_thread(void *private)
{
	struct volume *v = private;
	struct pv_error err = {0};
	int r = volume_close_claimed(v, true, NULL, &err);

	if (r < 0 && r != -ESHUTDOWN)
		kill_engine(v, err.message);
	volume_done(v, VOLUME_CLOSED);
	return NULL;
}

static bool start_closing(void)
{
	pv_autojson struct json_object *names = open_names();

	for (size_t i = 0; i < json_object_array_length(names); i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(names, i));
		pthread_attr_t attributes;
		struct volume *v;
		pthread_t thread;

		if (volume_claim(name, VOLUME_OPEN, VOLUME_CLOSING, &v, NULL) < 0)
			continue;
		pthread_attr_init(&attributes);
		pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
		if (pthread_create(&thread, &attributes, close_thread, v) != 0)
			close_thread(v);
		pthread_attr_destroy(&attributes);
	}
	return volume_count(false) > 0;
}

void volume_close_everything(unsigned seconds)
{
	struct timespec pause = {.tv_nsec = 50000000};

	for (unsigned waited = 0; waited < seconds * 20; waited++) {
		/* again and again: what was being opened a moment ago may be open now */
		if (!start_closing())
			return;
		nanosleep(&pause, NULL);
	}
	pthread_mutex_lock(&keeper.lock);
	for (const struct volume *v = keeper.volumes; v; v = v->next) {
		pv_log(PV_LOG_ERROR, "%s: it does not close in time: its engine is ended", v->name);
		if (v->pid > 0)
			kill(v->pid, SIGKILL);
	}
	pthread_mutex_unlock(&keeper.lock);
	for (unsigned waited = 0; waited < 100 && start_closing(); waited++)
		nanosleep(&pause, NULL);
}
