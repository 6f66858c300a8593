/*
 * The control protocol's transport: one JSON object per line over a Unix stream socket, at most 1 MiB a line,
 * with descriptors passed by SCM_RIGHTS. Used between pvol and keeper, keeper and engine, keeper and worker.
 *
 *   both sides first   {"hello":{"protocol":1,"version":"0.1.0","libzpool":"2.3.2-..."}}
 *   request            {"id":N,"method":"volume.open","params":{...},"fds":N}
 *   answer             {"id":N,"result":{...},"fds":N}  or {"id":N,"error":{code,exit,object,message,remedy}}
 *   progress           {"id":N,"progress":{...}}        any number before the answer
 *
 * "fds" (absent = 0) says how many of the descriptors received so far, in order, belong to this line.
 * Integers above 2^53 travel as decimal strings.
 */
#ifndef PV_BASE_CHANNEL_H
#define PV_BASE_CHANNEL_H

#include "base/error.h"

#include <json-c/json.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PV_PROTOCOL_VERSION 1
#define PV_CHANNEL_MAX_LINE (1U << 20)
#define PV_CHANNEL_MAX_FDS 16

struct pv_channel;

struct pv_message {
	struct json_object *json; /* owned */
	int fds[PV_CHANNEL_MAX_FDS];
	size_t nfds; /* owned descriptors; -1 entries were stolen by the receiver */
};

/* Takes ownership of the connected stream socket `fd`. */
int pv_channel_new(int fd, struct pv_channel **ret_channel, struct pv_error *err);
struct pv_channel *pv_channel_free(struct pv_channel *channel);
int pv_channel_fd(const struct pv_channel *channel);

/* Peer credentials as of connect(2) (SO_PEERCRED). */
int pv_channel_peer(const struct pv_channel *channel, uid_t *ret_uid, gid_t *ret_gid, pid_t *ret_pid);

/*
 * Sends one message; blocks until it is out; thread-safe (whole lines). `json` is borrowed; so are the
 * descriptors, which are duplicated to the peer; "fds" is added to `json` when there are any. MSG_NOSIGNAL.
 * Against a peer that does not read, set SO_SNDTIMEO on the socket: -ETIMEDOUT then. After an error of the
 * socket a line may be cut off, and every later send is -EPIPE.
 */
int pv_channel_send(struct pv_channel *channel, struct json_object *json, const int *fds, size_t nfds,
	struct pv_error *err);

/*
 * Receives one message, blocking at most timeout_ms (-1 = for ever): 1 got one, 0 timeout or would block,
 * -ENOTCONN at an orderly end, other -errno. Hostile input is -EPROTO: too long a line, invalid JSON, not an
 * object, nesting deeper than 32, more or fewer descriptors than announced. After that the channel can only
 * be freed, which closes the descriptors left over. Bytes of strings that are not UTF-8 pass unchanged.
 */
int pv_channel_receive(
	struct pv_channel *channel, int timeout_ms, struct pv_message *ret_message, struct pv_error *err);

/* True when a whole line is already buffered, so that receive returns without poll(2). */
bool pv_channel_pending(const struct pv_channel *channel);

/* Releases the json and closes the descriptors that are still in it; leaves it zeroed. */
void pv_message_clear(struct pv_message *message);

/* Called with the "progress" object of the running call. */
typedef void (*pv_progress_fn)(struct json_object *progress, void *private);

/*
 * One request and its answer: sends, passes progress to `progress` (may be NULL), returns the result object
 * in *ret_result (may be NULL; caller puts it) with descriptors in ret_fds (may be NULL): *inout_nfds is its
 * room and becomes their number; more than fit is -EPROTO. An error answer fills *err and returns its code.
 * Not to be mixed with other receivers on the same channel.
 */
int pv_channel_call(struct pv_channel *channel, const char *method, struct json_object *params,
	const int *fds, size_t nfds, pv_progress_fn progress, void *private, struct json_object **ret_result,
	int *ret_fds, size_t *inout_nfds, struct pv_error *err);

/* Answers. `id` is the request's; `result` and `progress` are borrowed, NULL = an empty object. */
int pv_channel_reply(
	struct pv_channel *channel, int64_t id, struct json_object *result, const int *fds, size_t nfds);
int pv_channel_reply_error(struct pv_channel *channel, int64_t id, const struct pv_error *error);
int pv_channel_progress(struct pv_channel *channel, int64_t id, struct json_object *progress);

/* struct pv_error to and from the wire's "error" object. */
struct json_object *pv_error_to_json(const struct pv_error *error);
void pv_error_from_json(struct json_object *json, struct pv_error *ret_error);

/*
 * Listening and connecting by directory descriptor and name (at most 80 bytes, no slash), so that long paths
 * work (sun_path is 108 bytes). A socket that nobody listens on any more is replaced; -EADDRINUSE when
 * somebody does.
 */
int pv_socket_listen(int dirfd, const char *name, mode_t mode, int *ret_fd, struct pv_error *err);
int pv_socket_connect(int dirfd, const char *name, int *ret_fd, struct pv_error *err);

#endif
