/*
 * The link to an engine.
 */
#include "daemon/link_int.h"
#include "base/cleanup.h"
#include "base/json.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

struct waiter {
	struct waiter *next;
	int64_t id;
	bool done;
	struct pv_message message; /* the answer */
};

struct link {
	atomic_uint refs;
	struct pv_channel *channel;
	struct link_ops ops;
	void *private;
	pthread_mutex_t lock;
	pthread_cond_t answered;
	struct waiter *waiters;
	int64_t last_id;
	bool dead;
};

struct link *link_hold(struct link *link)
{
	atomic_fetch_add(&link->refs, 1);
	return link;
}

void link_put(struct link *link)
{
	if (!link || atomic_fetch_sub(&link->refs, 1) != 1)
		return;
	pv_channel_free(link->channel);
	pthread_cond_destroy(&link->answered);
	pthread_mutex_destroy(&link->lock);
	if (link->ops.release)
		link->ops.release(link->private);
	free(link);
}

bool link_is_dead(struct link *link)
{
	PV_LOCK_SCOPE(&link->lock);

	return link->dead;
}

void link_shutdown(struct link *link)
{
	shutdown(pv_channel_fd(link->channel), SHUT_RDWR);
}

/* Hands an answer to the thread that waits for it; drops what nobody waits for. */
static void deliver(struct link *link, struct pv_message *message)
{
	int64_t id = pv_json_int(message->json, "id", 0);
	struct json_object *progress = pv_json_object(message->json, "progress");

	pthread_mutex_lock(&link->lock);
	for (struct waiter *w = link->waiters; !progress && w; w = w->next) {
		if (w->id != id || w->done)
			continue;
		w->message = *message;
		w->done = true;
		*message = (struct pv_message){0};
		pthread_cond_broadcast(&link->answered);
		break;
	}
	pthread_mutex_unlock(&link->lock);
	if (message->json)
		pv_message_clear(message);
}

static void *read_link(void *private)
{
	struct link *link = private;
	struct pv_message message;

	while (pv_channel_receive(link->channel, -1, &message, NULL) > 0) {
		if (pv_json_string(message.json, "event", NULL)) {
			link->ops.event(link, message.json, link->private);
			pv_message_clear(&message);
		} else {
			deliver(link, &message);
		}
	}
	pthread_mutex_lock(&link->lock);
	link->dead = true;
	pthread_cond_broadcast(&link->answered);
	pthread_mutex_unlock(&link->lock);
	link->ops.closed(link, link->private);
	link_put(link);
	return NULL;
}

int link_new(struct pv_channel *channel, const struct link_ops *ops, void *private, struct link **ret_link,
	struct pv_error *err)
{
	struct link *link = calloc(1, sizeof(*link));
	pthread_condattr_t attributes;
	pthread_t thread;
	int r;

	if (!link)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	link->refs = 2; /* the caller's and the reader's */
	link->channel = channel;
	link->ops = *ops;
	link->private = private;
	pthread_mutex_init(&link->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&link->answered, &attributes);
	pthread_condattr_destroy(&attributes);
	r = pthread_create(&thread, NULL, read_link, link);
	if (r) {
		pthread_cond_destroy(&link->answered);
		pthread_mutex_destroy(&link->lock);
		free(link);
		return pv_fail(err, -r, NULL, "cannot start a thread: %s", pv_strerror(r));
	}
	pthread_detach(thread);
	*ret_link = link;
	return 0;
}

/* Waits for the answer: 0, -ENOTCONN, -ETIMEDOUT. The lock is held. */
static int wait_answer(struct link *link, const struct waiter *waiter, int timeout_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	while (!waiter->done && !link->dead) {
		int r = timeout_ms ? pthread_cond_timedwait(&link->answered, &link->lock, &until)
				   : pthread_cond_wait(&link->answered, &link->lock);

		if (r == ETIMEDOUT)
			break;
	}
	if (waiter->done)
		return 0;
	return link->dead ? -ENOTCONN : -ETIMEDOUT;
}

static void leave(struct link *link, const struct waiter *waiter)
{
	for (struct waiter **p = &link->waiters; *p; p = &(*p)->next) {
		if (*p == waiter) {
			*p = waiter->next;
			return;
		}
	}
}

static int take(struct pv_message *message, struct link_call *call, struct pv_error *err)
{
	struct json_object *error = pv_json_object(message->json, "error");
	struct json_object *result = pv_json_object(message->json, "result");
	struct pv_error remote;

	if (error) {
		pv_error_from_json(error, &remote);
		call->failure = json_object_get(error);
		if (err)
			*err = remote;
		return remote.code;
	}
	call->result = result ? json_object_get(result) : json_object_new_object();
	for (size_t i = 0; i < message->nfds; i++)
		call->ret_fds[call->ret_nfds++] = pv_steal_fd(&message->fds[i]);
	return 0;
}

int link_call(struct link *link, struct link_call *call, struct pv_error *err)
{
	pv_autojson struct json_object *request = json_object_new_object();
	struct waiter waiter = {0};
	int r;

	pthread_mutex_lock(&link->lock);
	waiter.id = ++link->last_id;
	waiter.next = link->waiters;
	link->waiters = &waiter;
	pthread_mutex_unlock(&link->lock);

	pv_json_add_int(request, "id", waiter.id);
	pv_json_add_string(request, "method", call->method);
	if (call->params)
		json_object_object_add(request, "params", json_object_get(call->params));
	r = pv_channel_send(link->channel, request, call->fds, call->nfds, NULL);

	pthread_mutex_lock(&link->lock);
	if (r >= 0)
		r = wait_answer(link, &waiter, call->timeout_ms);
	leave(link, &waiter);
	pthread_mutex_unlock(&link->lock);

	if (r == -ETIMEDOUT)
		return pv_fail(err, r, NULL, "the volume's engine does not answer");
	if (r < 0)
		return pv_fail(err, -ENOTCONN, NULL, "the volume's engine has died");
	r = take(&waiter.message, call, err);
	pv_message_clear(&waiter.message);
	return r;
}

void link_call_clear(struct link_call *call)
{
	json_object_put(call->result);
	json_object_put(call->failure);
	call->result = call->failure = NULL;
	for (size_t i = 0; i < call->ret_nfds; i++) {
		if (call->ret_fds[i] >= 0)
			close(call->ret_fds[i]);
	}
	call->ret_nfds = 0;
}

int link_simple(struct link *link, const char *method, struct json_object *params, int timeout_ms,
	struct pv_error *err)
{
	struct link_call call = {.method = method, .params = params, .timeout_ms = timeout_ms};
	int r = link_call(link, &call, err);

	link_call_clear(&call);
	return r;
}
