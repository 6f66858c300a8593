/*
 * Requests, answers and progress over a channel, and errors on the wire.
 */
#include "base/channel_int.h"
#include "base/cleanup.h"
#include "base/json.h"

#include <errno.h>
#include <string.h>

struct json_object *pv_error_to_json(const struct pv_error *error)
{
	struct json_object *json = json_object_new_object();

	pv_json_add_int(json, "code", error->code);
	pv_json_add_int(json, "exit", error->exit);
	pv_json_add_string(json, "object", error->object);
	pv_json_add_string(json, "message", error->message);
	if (error->remedy[0])
		pv_json_add_string(json, "remedy", error->remedy);
	return json;
}

void pv_error_from_json(struct json_object *json, struct pv_error *ret_error)
{
	int64_t code = pv_json_int(json, "code", -EIO);
	int64_t class = pv_json_int(json, "exit", PV_EXIT_FAILED);

	/* An answer of no known class or code is still a failure. */
	if (code >= 0 || code < -4095)
		code = -EIO;
	if (class <= PV_EXIT_OK || class > PV_EXIT_DAMAGED)
		class = PV_EXIT_FAILED;
	*ret_error = (struct pv_error){.code = (int)code, .exit = (enum pv_exit) class};
	snprintf(ret_error->object, sizeof(ret_error->object), "%s", pv_json_string(json, "object", ""));
	snprintf(ret_error->message, sizeof(ret_error->message), "%s",
		pv_json_string(json, "message", "failed"));
	snprintf(ret_error->remedy, sizeof(ret_error->remedy), "%s", pv_json_string(json, "remedy", ""));
}

/* Hands result and descriptors of an answer to the caller of pv_channel_call(). */
static int give_result(struct pv_message *message, struct json_object *result,
	struct json_object **ret_result, int *ret_fds, size_t *inout_nfds, struct pv_error *err)
{
	size_t room = ret_fds && inout_nfds ? *inout_nfds : 0;

	if (ret_fds && message->nfds > room)
		return pv_fail(err, -EPROTO, NULL,
			"protocol error: an answer with %zu descriptors, %zu expected", message->nfds, room);
	for (size_t i = 0; ret_fds && i < message->nfds; i++)
		ret_fds[i] = pv_steal_fd(&message->fds[i]);
	if (inout_nfds)
		*inout_nfds = ret_fds ? message->nfds : 0;
	if (ret_result)
		*ret_result = json_object_get(result);
	return 0;
}

/* One line while waiting for the answer `id`: 1 the answer (r is set), 0 go on. */
static int take_answer(struct pv_message *message, int64_t id, pv_progress_fn progress, void *private,
	struct json_object **ret_result, int *ret_fds, size_t *inout_nfds, int *ret_r, struct pv_error *err)
{
	struct json_object *value;
	struct pv_error remote;

	if (pv_json_int(message->json, "id", -1) != id)
		return 0;
	value = pv_json_object(message->json, "progress");
	if (value) {
		if (progress)
			progress(value, private);
		return 0;
	}
	value = pv_json_object(message->json, "error");
	if (value) {
		pv_error_from_json(value, &remote);
		if (err)
			*err = remote;
		*ret_r = remote.code;
		return 1;
	}
	if (!json_object_object_get_ex(message->json, "result", &value)) {
		*ret_r = pv_fail(
			err, -EPROTO, NULL, "protocol error: an answer with neither result nor error");
		return 1;
	}
	*ret_r = give_result(message, value, ret_result, ret_fds, inout_nfds, err);
	return 1;
}

int pv_channel_call(struct pv_channel *channel, const char *method, struct json_object *params,
	const int *fds, size_t nfds, pv_progress_fn progress, void *private, struct json_object **ret_result,
	int *ret_fds, size_t *inout_nfds, struct pv_error *err)
{
	pv_autojson struct json_object *request = json_object_new_object();
	int64_t id = pv_channel_next_id(channel);
	int r;

	pv_json_add_int(request, "id", id);
	pv_json_add_string(request, "method", method);
	if (params)
		json_object_object_add(request, "params", json_object_get(params));
	r = pv_channel_send(channel, request, fds, nfds, err);
	if (r < 0)
		return r;
	for (;;) {
		struct pv_message message;
		int done, result = 0;

		r = pv_channel_receive(channel, -1, &message, err);
		if (r <= 0)
			return r < 0 ? r : -EIO;
		done = take_answer(
			&message, id, progress, private, ret_result, ret_fds, inout_nfds, &result, err);
		pv_message_clear(&message);
		if (done)
			return result;
	}
}

/* {"id":N, KEY:value}; the value is borrowed and may be NULL (an empty object then). */
static int send_value(struct pv_channel *channel, int64_t id, const char *key, struct json_object *value,
	const int *fds, size_t nfds)
{
	pv_autojson struct json_object *line = json_object_new_object();

	pv_json_add_int(line, "id", id);
	json_object_object_add(line, key, value ? json_object_get(value) : json_object_new_object());
	return pv_channel_send(channel, line, fds, nfds, NULL);
}

int pv_channel_reply(
	struct pv_channel *channel, int64_t id, struct json_object *result, const int *fds, size_t nfds)
{
	return send_value(channel, id, "result", result, fds, nfds);
}

int pv_channel_reply_error(struct pv_channel *channel, int64_t id, const struct pv_error *error)
{
	pv_autojson struct json_object *json = pv_error_to_json(error);

	return send_value(channel, id, "error", json, NULL, 0);
}

int pv_channel_progress(struct pv_channel *channel, int64_t id, struct json_object *progress)
{
	return send_value(channel, id, "progress", progress, NULL, 0);
}
