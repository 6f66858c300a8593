/*
 * The engine's requests: the table of methods, one thread per running request, answers and events.
 */
#include "engine/engine_int.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

static const struct engine_method methods[] = {
	{"engine.configure", engine_configure},
	{"engine.attach", engine_attach},
	{"engine.adopt", engine_adopt},
	{"engine.exit", engine_exit},
	{"device.describe", engine_describe},
	{"pool.create", engine_pool_create},
	{"pool.import", engine_pool_import},
	{"pool.export", engine_pool_export},
	{"pool.status", engine_pool_status},
	{"pool.scrub", engine_pool_scrub},
	{"pool.sync", engine_pool_sync},
	{"pool.clear", engine_pool_clear},
	{"mounts.start", engine_mounts_start},
	{"mounts.stop", engine_mounts_stop},
	{"mounts.list", engine_mounts_list},
	{"mounts.holders", engine_mounts_holders},
	{"dataset.create", engine_dataset_create},
	{"dataset.list", engine_dataset_list},
	{"snapshot.create", engine_snapshot_create},
	{"snapshot.list", engine_snapshot_list},
	{"snapshot.rollback", engine_snapshot_rollback},
	{"snapshot.destroy", engine_snapshot_destroy},
};

struct engine_peer *engine_peer_hold(void)
{
	PV_LOCK_SCOPE(&engine.peer_lock);

	if (engine.peer)
		atomic_fetch_add(&engine.peer->refs, 1);
	return engine.peer;
}

void engine_peer_release(struct engine_peer *peer)
{
	if (!peer || atomic_fetch_sub(&peer->refs, 1) != 1)
		return;
	pv_channel_free(peer->channel);
	free(peer);
}

void engine_event(const char *event, const char *key, const char *value)
{
	struct engine_peer *peer = engine_peer_hold();
	pv_autojson struct json_object *line = NULL;

	if (!peer)
		return;
	line = json_object_new_object();
	pv_json_add_string(line, "event", event);
	if (key)
		pv_json_add_string(line, key, value);
	pv_channel_send(peer->channel, line, NULL, 0, NULL);
	engine_peer_release(peer);
}

static void answer(struct engine_call *call, int r, struct pv_error *err)
{
	pv_autojson struct json_object *line = NULL;
	struct json_object *error;

	if (r >= 0) {
		pv_channel_reply(call->peer->channel, call->id, call->result, call->fds, call->nfds);
		return;
	}
	if (!err->code)
		pv_fail(err, r, NULL, "%s: %s", call->method, pv_strerror(r));
	line = json_object_new_object();
	error = pv_error_to_json(err);
	if (call->holders)
		json_object_object_add(error, "holders", json_object_get(call->holders));
	pv_json_add_int(line, "id", call->id);
	json_object_object_add(line, "error", error);
	pv_channel_send(call->peer->channel, line, NULL, 0, NULL);
}

static void call_free(struct engine_call *call)
{
	for (size_t i = 0; i < call->nfds; i++) {
		if (call->fds[i] >= 0)
			close(call->fds[i]);
	}
	json_object_put(call->result);
	json_object_put(call->holders);
	json_object_put(call->params);
	pv_message_clear(&call->message);
	engine_peer_release(call->peer);
	free(call);
}

static void *run(void *private)
{
	struct engine_call *call = private;
	struct pv_error err = {0};
	int r = -ENOSYS;

	for (unsigned i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (!strcmp(methods[i].name, call->method))
			r = methods[i].handler(call, &err);
	}
	if (r == -ENOSYS && !err.code)
		pv_fail(&err, r, NULL, "the engine knows no method '%s'", call->method);
	answer(call, r, &err);
	call_free(call);
	atomic_fetch_sub(&engine.running, 1);
	if (engine.stopping) {
		uint64_t one = 1;

		(void)!write(engine.wake_fd, &one, sizeof(one));
	}
	return NULL;
}

/* Takes the message over. */
void engine_dispatch(struct engine_peer *peer, struct pv_message *message)
{
	struct engine_call *call;
	struct json_object *params = pv_json_object(message->json, "params");
	const char *method = pv_json_string(message->json, "method", NULL);
	pthread_attr_t attributes;
	pthread_t thread;
	int r;

	if (!method) {
		pv_message_clear(message);
		return;
	}
	call = calloc(1, sizeof(*call));
	if (!call) {
		pv_message_clear(message);
		return;
	}
	atomic_fetch_add(&peer->refs, 1);
	call->peer = peer;
	call->message = *message;
	*message = (struct pv_message){0};
	call->id = pv_json_int(call->message.json, "id", 0);
	call->method = method;
	call->params = params ? json_object_get(params) : json_object_new_object();
	atomic_fetch_add(&engine.running, 1);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attributes, run, call);
	pthread_attr_destroy(&attributes);
	if (r) {
		struct pv_error err = {0};

		r = pv_fail(&err, -r, NULL, "the engine cannot start a thread: %s", pv_strerror(r));
		answer(call, r, &err);
		call_free(call);
		atomic_fetch_sub(&engine.running, 1);
	}
}
