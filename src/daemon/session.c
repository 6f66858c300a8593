/*
 * One client: hello, then its requests one after the other on a thread of its own.
 */
#include "daemon/keeper_int.h"
#include "volume/hello.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define HELLO_TIMEOUT_MS 10000
#define KEY_MAX ((size_t)1 << 16)
#define KEY_TIMEOUT_MS 10000
#define SEND_SECONDS                                                                                         \
	30 /* for a client that does not read: then its connection is useless, and its request ends */
#define CLIENTS_MAX 128U /* each may have descriptors under way, and engines need some too */

static const struct {
	const char *name;
	request_handler handler;
} methods[] = {
	{"keeper.status", keeper_status},
	{"keeper.stop", keeper_stop},
	{"volume.create", volume_create},
	{"volume.open", volume_open},
	{"volume.close", volume_close},
	{"volume.restart", volume_restart},
	{"volume.list", volume_list},
	{"volume.status", volume_status},
	{"volume.info", volume_info},
	{"volume.erase", volume_erase},
	{"volume.forget", volume_forget},
	{"volume.zdb", volume_zdb},
	{"dataset.create", dataset_request},
	{"dataset.list", dataset_list},
	{"snapshot.create", dataset_request},
	{"snapshot.list", dataset_list},
	{"snapshot.rollback", dataset_request},
	{"snapshot.destroy", dataset_request},
	{"pool.scrub", pool_scrub},
	{"key.list", key_list},
	{"key.test", key_test},
	{"key.add", key_add},
	{"key.change", key_change},
	{"key.remove", key_remove},
	{"header.backup", header_backup},
	{"header.restore", header_restore},
};

/*
 * Progress is dropped while the client does not read (stopped by Ctrl-Z, say): the socket counts as writable
 * only while most of its buffer is free, so that there is always room for the answer.
 */
static bool client_reads(const struct request *rq)
{
	struct pollfd fd = {.fd = pv_channel_fd(rq->channel), .events = POLLOUT};

	return poll(&fd, 1, 0) > 0 && (fd.revents & POLLOUT);
}

void request_pass_progress(struct json_object *progress, void *private)
{
	const struct request *rq = private;

	if (client_reads(rq))
		pv_channel_progress(rq->channel, rq->id, progress);
}

void request_progress(struct request *rq, const char *phase, uint64_t done, uint64_t total)
{
	pv_autojson struct json_object *progress = json_object_new_object();

	pv_json_add_string(progress, "phase", phase);
	pv_json_add_u64(progress, "done", done);
	pv_json_add_u64(progress, "total", total);
	request_pass_progress(progress, rq);
}

bool request_abandoned(const struct request *rq)
{
	struct pollfd fd = {.fd = pv_channel_fd(rq->channel), .events = POLLRDHUP};

	return poll(&fd, 1, 0) > 0 && (fd.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

int request_string(struct request *rq, const char *key, const char **ret_value, struct pv_error *err)
{
	const char *value = pv_json_string(rq->params, key, NULL);

	if (!value || !*value)
		return pv_fail_as(
			err, -EINVAL, PV_EXIT_USAGE, NULL, "%s lacks the parameter '%s'", rq->method, key);
	*ret_value = value;
	return 0;
}

/*
 * A key comes as a pipe whose other end is closed (docs/protocol.md), or as a file. A client that keeps the
 * end open must not hold up the volume.
 */
static int wait_key(int fd, struct pv_error *err)
{
	struct pollfd end = {.fd = fd, .events = POLLRDHUP};
	struct stat st;

	if (fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, NULL, "a key must come as a pipe or a file");
	if (!S_ISREG(st.st_mode) && poll(&end, 1, KEY_TIMEOUT_MS) <= 0)
		return pv_fail(err, -ETIMEDOUT, NULL, "the pipe with the key is not closed by its writer");
	return 0;
}

int request_key(struct request *rq, size_t index, struct pv_secret **ret_key, struct pv_error *err)
{
	int r;

	if (index >= rq->message.nfds || rq->message.fds[index] < 0)
		return pv_fail_as(err, -EKEYREJECTED, PV_EXIT_WRONG_KEY, NULL, "a key is needed");
	r = wait_key(rq->message.fds[index], err);
	if (r >= 0)
		r = pv_secret_read(rq->message.fds[index], KEY_MAX, ret_key, err);
	if (r == -ENODATA)
		return pv_fail_as(err, -EKEYREJECTED, PV_EXIT_WRONG_KEY, NULL, "the key is empty");
	return r;
}

int request_answer(struct request *rq)
{
	rq->answered = true;
	return pv_channel_reply(rq->channel, rq->id, rq->result, NULL, 0);
}

static int answer_error(struct request *rq, int r, struct pv_error *err)
{
	pv_autojson struct json_object *line = json_object_new_object();
	struct json_object *error;

	if (!err->code)
		pv_fail(err, r, NULL, "%s: %s", rq->method, pv_strerror(r));
	error = pv_error_to_json(err);
	if (rq->holders)
		json_object_object_add(error, "holders", json_object_get(rq->holders));
	pv_json_add_int(line, "id", rq->id);
	json_object_object_add(line, "error", error);
	return pv_channel_send(rq->channel, line, NULL, 0, NULL);
}

/* -errno when the client does not take its answer. */
static int serve_one(struct pv_channel *channel, struct pv_message *message)
{
	struct json_object *params = pv_json_object(message->json, "params");
	struct request rq = {.channel = channel, .message = *message};
	struct pv_error err = {0};
	int r = -ENOSYS, sent = 0;

	*message = (struct pv_message){0};
	rq.id = pv_json_int(rq.message.json, "id", 0);
	rq.method = pv_json_string(rq.message.json, "method", "");
	rq.params = params ? json_object_get(params) : json_object_new_object();
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (!strcmp(methods[i].name, rq.method))
			r = methods[i].handler(&rq, &err);
	}
	if (r == -ENOSYS && !err.code)
		pv_fail(&err, r, NULL, "the keeper knows no method '%s'", rq.method);
	if (r < 0)
		sent = answer_error(&rq, r, &err);
	else if (!rq.answered)
		sent = request_answer(&rq);
	json_object_put(rq.result);
	json_object_put(rq.holders);
	json_object_put(rq.params);
	pv_message_clear(&rq.message);
	if (rq.stop) {
		pthread_mutex_lock(&keeper.lock);
		keeper.stop = true;
		pthread_mutex_unlock(&keeper.lock);
		keeper_wake();
	}
	return sent;
}

static bool allowed(struct pv_channel *channel)
{
	uid_t uid;
	gid_t gid;
	pid_t pid;

	return pv_channel_peer(channel, &uid, &gid, &pid) >= 0 && (uid == geteuid() || uid == 0);
}

static void *serve(void *private)
{
	struct pv_channel *channel = private;
	struct pv_message message;
	int r = 0;

	if (allowed(channel) && pv_hello(channel, NULL, HELLO_TIMEOUT_MS, NULL, NULL) >= 0) {
		while (r >= 0 && pv_channel_receive(channel, -1, &message, NULL) > 0)
			r = serve_one(channel, &message);
	}
	pv_channel_free(channel);
	pthread_mutex_lock(&keeper.lock);
	keeper.clients--;
	pthread_cond_broadcast(&keeper.changed);
	pthread_mutex_unlock(&keeper.lock);
	keeper_wake();
	return NULL;
}

int session_start(int fd, struct pv_error *err)
{
	const struct timeval patience = {.tv_sec = SEND_SECONDS};
	struct pv_channel *channel;
	pthread_attr_t attributes;
	pthread_t thread;
	bool full;
	int r;

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	r = pv_channel_new(fd, &channel, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&keeper.lock);
	full = keeper.clients >= CLIENTS_MAX;
	keeper.clients += !full;
	pthread_mutex_unlock(&keeper.lock);
	if (full) {
		pv_channel_free(channel);
		return pv_fail(err, -EMFILE, NULL, "%u clients are connected already", CLIENTS_MAX);
	}
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attributes, serve, channel);
	pthread_attr_destroy(&attributes);
	if (!r)
		return 0;
	pthread_mutex_lock(&keeper.lock);
	keeper.clients--;
	pthread_mutex_unlock(&keeper.lock);
	pv_channel_free(channel);
	return pv_fail(err, -r, NULL, "cannot start a thread: %s", pv_strerror(r));
}
