/*
 * Requests to the keeper. The loop is pvol's own (not pv_channel_call) because it redraws progress while it
 * waits, because an interrupted create must wait until the keeper has undone its work, and because an error
 * may carry more than text: the processes that hold a volume busy.
 */
#include "cli/cli_int.h"

#include "daemon/client.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

/* How often progress is redrawn and an interrupt looked for. */
#define TICK_MS 200
/* How long an interrupted call may take to be undone: removing files, ending an engine. */
#define UNDO_TICKS (60 * 1000 / TICK_MS)

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
	interrupted = signal;
}

static int send_request(struct cli *cli, const struct cli_call *call, int64_t id, struct pv_error *err)
{
	pv_autojson struct json_object *request = json_object_new_object();

	pv_json_add_int(request, "id", id);
	pv_json_add_string(request, "method", call->method);
	if (call->params)
		json_object_object_add(request, "params", json_object_get(call->params));
	if (call->nfds)
		pv_json_add_int(request, "fds", (int64_t)call->nfds);
	return pv_channel_send(cli->keeper, request, call->fds, call->nfds, err);
}

/* Takes one line in: 1 it was the answer (result or error are set), 0 wait on. */
static int take_line(struct cli_call *call, struct json_object *line, int64_t id, struct cli_meter *meter)
{
	struct json_object *value;

	if (pv_json_int(line, "id", -1) != id)
		return 0;
	value = pv_json_object(line, "progress");
	if (value) {
		cli_meter_update(meter, value);
		return 0;
	}
	value = pv_json_object(line, "error");
	if (value) {
		pv_error_from_json(value, &call->error);
		call->failure = json_object_get(value);
		return 1;
	}
	if (json_object_object_get_ex(line, "result", &value))
		call->result = json_object_get(value);
	else
		pv_fail(&call->error, -EPROTO, NULL, "the keeper sent an answer without a result");
	return 1;
}

/* Waits for the answer. After an interrupt it says good-bye and waits until the keeper has cleaned up. */
static void wait_for_answer(struct cli *cli, struct cli_call *call, int64_t id)
{
	struct cli_meter meter;
	unsigned undo = 0;

	cli_meter_start(&meter, cli);
	for (;;) {
		struct pv_message message = {0};
		int r = pv_channel_receive(cli->keeper, TICK_MS, &message, &call->error);

		if (r > 0) {
			int done = take_line(call, message.json, id, &meter);

			pv_message_clear(&message);
			if (done)
				break;
			continue;
		}
		if (r < 0) {
			if (undo) {
				pv_fail(&call->error, -EINTR, NULL, "interrupted");
			} else if (r == -ENOTCONN) {
				pv_fail(&call->error, r, NULL, "the keeper ended before it answered");
				pv_remedy(&call->error,
					"try again: a new one is started; see keeper.log in the "
					"runtime directory and 'pvol status'");
			}
			break;
		}
		cli_meter_tick(&meter);
		if (call->interruptible && interrupted && !undo) {
			cli_meter_end(&meter);
			fputs("\npvol: interrupted, removing what was made so far\n", stderr);
			shutdown(pv_channel_fd(cli->keeper), SHUT_WR);
			undo = 1;
		} else if (undo && ++undo > UNDO_TICKS) {
			pv_fail(&call->error, -ETIMEDOUT, NULL,
				"the keeper did not finish cleaning up in time");
			break;
		}
	}
	cli_meter_end(&meter);
}

int cli_call(struct cli *cli, struct cli_call *call)
{
	static int64_t last_id;
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	struct sigaction action = {.sa_handler = on_interrupt};
	struct sigaction old[3];
	int64_t id = ++last_id;

	call->result = NULL;
	call->failure = NULL;
	call->error = (struct pv_error){0};
	interrupted = 0;
	for (unsigned i = 0; call->interruptible && i < 3; i++)
		sigaction(signals[i], &action, &old[i]);

	if (cli->keeper || pv_keeper_connect(true, &cli->keeper, &call->error) == 0)
		if (send_request(cli, call, id, &call->error) == 0)
			wait_for_answer(cli, call, id);

	for (unsigned i = 0; call->interruptible && i < 3; i++)
		sigaction(signals[i], &old[i], NULL);
	if (call->error.code == 0)
		return 0;
	/* After anything but an answer the stream is of no more use. */
	if (!call->failure)
		cli->keeper = pv_channel_free(cli->keeper);
	if (!call->quiet)
		return cli_fail(&call->error);
	return call->error.exit == PV_EXIT_OK ? PV_EXIT_FAILED : (int)call->error.exit;
}

int cli_request(
	struct cli *cli, const char *method, struct json_object *params, struct json_object **ret_result)
{
	struct cli_call call = {.method = method, .params = params};
	int rc = cli_call(cli, &call);

	json_object_put(params);
	json_object_put(call.failure);
	if (rc == 0 && ret_result)
		*ret_result = call.result;
	else
		json_object_put(call.result);
	return rc;
}

struct json_object *cli_params_name(const char *name)
{
	struct json_object *params = json_object_new_object();

	pv_json_add_string(params, "name", name);
	return params;
}

int cli_find_volume(struct cli *cli, const char *name, struct json_object **ret_volume)
{
	pv_autojson struct json_object *result = NULL;
	int rc = cli_request(cli, "volume.list", NULL, &result);

	if (rc)
		return rc;

	struct json_object *volumes = pv_json_array(result, "volumes");

	*ret_volume = NULL;
	for (size_t i = 0; volumes && i < json_object_array_length(volumes); i++) {
		struct json_object *volume = json_object_array_get_idx(volumes, i);

		if (!strcmp(pv_json_string(volume, "name", ""), name) ||
			!strcmp(pv_json_string(volume, "container", ""), name)) {
			*ret_volume = json_object_get(volume);
			break;
		}
	}
	return 0;
}

int cli_absolute(const char *path, char **ret_path)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	pv_autofree char *folder =
		slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
	pv_autofree char *real = folder ? realpath(folder, NULL) : NULL;
	struct pv_error err = {0};

	if (!*base || !strcmp(base, ".") || !strcmp(base, "..")) {
		char *whole = realpath(path, NULL);

		if (whole) {
			*ret_path = whole;
			return 0;
		}
		pv_fail(&err, -errno, path, "%s", pv_strerror(errno));
		return cli_fail(&err);
	}
	if (!real) {
		pv_fail(&err, -errno, folder, "%s", pv_strerror(errno));
		return cli_fail(&err);
	}
	if (asprintf(ret_path, "%s/%s", real[1] ? real : "", base) < 0)
		abort();
	return 0;
}

int cli_volume_operand(const char *text, char **ret_name)
{
	if (strchr(text, '/'))
		return cli_absolute(text, ret_name);
	*ret_name = strdup(text);
	if (!*ret_name)
		abort();
	return 0;
}
