/*
 * Framing: lines out of a byte stream, and which descriptors belong to which line.
 *
 * The kernel delivers descriptors with the first byte of the message they were sent with, never later, and
 * ends a receive after a message that had some. So when a line is complete, its descriptors have arrived;
 * descriptors that arrived before the line's end and that neither it nor an earlier line announced are
 * nobody's: an error.
 */
#include "base/channel_int.h"
#include "base/cleanup.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define MAX_DEPTH 32
/* Of lines that were received but not yet taken; more is an attack. */
#define MAX_QUEUED_FDS 128
#define CHUNK 65536

struct pv_channel {
	int fd;
	pthread_mutex_t send_lock;
	_Atomic int64_t next_id;
	bool broken; /* hostile input was seen; the stream's state is unknown */
	bool cut;    /* the same of sending: a line may have gone out in part */

	char *buffer;
	size_t start, end, capacity; /* unread bytes are [start, end) */
	size_t scanned;              /* no newline in [start, scanned) */
	uint64_t position;           /* stream offset of buffer[end] */

	struct {
		int fd;
		uint64_t position; /* stream offset after the last byte of the receive it came with */
	} queue[MAX_QUEUED_FDS];
	size_t queued;
};

int pv_channel_new(int fd, struct pv_channel **ret_channel, struct pv_error *err)
{
	struct pv_channel *channel = calloc(1, sizeof(*channel));

	if (!channel) {
		close(fd);
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	}
	channel->fd = fd;
	channel->next_id = 1;
	pthread_mutex_init(&channel->send_lock, NULL);
	*ret_channel = channel;
	return 0;
}

struct pv_channel *pv_channel_free(struct pv_channel *channel)
{
	if (!channel)
		return NULL;
	for (size_t i = 0; i < channel->queued; i++)
		close(channel->queue[i].fd);
	close(channel->fd);
	pthread_mutex_destroy(&channel->send_lock);
	free(channel->buffer);
	free(channel);
	return NULL;
}

int pv_channel_fd(const struct pv_channel *channel)
{
	return channel->fd;
}

int64_t pv_channel_next_id(struct pv_channel *channel)
{
	return channel->next_id++;
}

int pv_channel_peer(const struct pv_channel *channel, uid_t *ret_uid, gid_t *ret_gid, pid_t *ret_pid)
{
	struct ucred cred;
	socklen_t length = sizeof(cred);

	if (getsockopt(channel->fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) < 0)
		return -errno;
	if (ret_uid)
		*ret_uid = cred.uid;
	if (ret_gid)
		*ret_gid = cred.gid;
	if (ret_pid)
		*ret_pid = cred.pid;
	return 0;
}

/* Blocks also on a non-blocking socket; on another, it is SO_SNDTIMEO that has run out. */
static int wait_writable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0 && !(flags & O_NONBLOCK))
		return -ETIMEDOUT;
	if (poll(&p, 1, -1) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

static int send_all(int fd, struct iovec *iov, int iovcnt, const int *fds, size_t nfds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * PV_CHANNEL_MAX_FDS)];
		struct cmsghdr align;
	} control = {.bytes = {0}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)iovcnt};

	if (nfds) {
		struct cmsghdr *c;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	while (msg.msg_iovlen) {
		ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);

		if (n < 0) {
			int r = errno == EINTR ? 0 : errno == EAGAIN ? wait_writable(fd) : -errno;

			if (r < 0)
				return r;
			continue;
		}
		/* The descriptors went with the first byte. */
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
		while (msg.msg_iovlen && (size_t)n >= msg.msg_iov->iov_len) {
			n -= (ssize_t)msg.msg_iov->iov_len;
			msg.msg_iov++;
			msg.msg_iovlen--;
		}
		if (msg.msg_iovlen) {
			msg.msg_iov->iov_base = (char *)msg.msg_iov->iov_base + n;
			msg.msg_iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

int pv_channel_send(struct pv_channel *channel, struct json_object *json, const int *fds, size_t nfds,
	struct pv_error *err)
{
	const char *text;
	size_t length;
	int r;

	if (nfds > PV_CHANNEL_MAX_FDS)
		return pv_fail(err, -EINVAL, NULL, "cannot pass %zu descriptors in one message", nfds);
	if (nfds && pv_json_int(json, "fds", 0) != (int64_t)nfds)
		pv_json_add_int(json, "fds", (int64_t)nfds);
	text = json_object_to_json_string_length(
		json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
	if (!text)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	if (length + 1 > PV_CHANNEL_MAX_LINE)
		return pv_fail(err, -EMSGSIZE, NULL,
			"the message has %zu bytes, more than the protocol allows", length);

	PV_LOCK_SCOPE(&channel->send_lock);
	struct iovec iov[2] = {{(char *)(uintptr_t)text, length}, {(char[]){"\n"}, 1}};

	r = channel->cut ? -EPIPE : send_all(channel->fd, iov, 2, fds, nfds);
	channel->cut = r < 0;
	if (r < 0)
		return pv_fail(err, r, NULL, "cannot send a message: %s", pv_strerror(r));
	return 0;
}

static int protocol_error(struct pv_channel *channel, struct pv_error *err, const char *what)
{
	channel->broken = true;
	return pv_fail(err, -EPROTO, NULL, "protocol error: %s", what);
}

/* Makes room for at least one more byte, or says that the line is too long. */
static int make_room(struct pv_channel *channel)
{
	size_t capacity = channel->capacity;
	char *bigger;

	if (channel->start) {
		memmove(channel->buffer, channel->buffer + channel->start, channel->end - channel->start);
		channel->end -= channel->start;
		channel->scanned -= channel->start;
		channel->start = 0;
	}
	if (channel->end < capacity)
		return 0;
	if (channel->end >= PV_CHANNEL_MAX_LINE)
		return -EPROTO;
	capacity = capacity ? 4 * capacity : CHUNK;
	if (capacity > PV_CHANNEL_MAX_LINE)
		capacity = PV_CHANNEL_MAX_LINE;
	bigger = realloc(channel->buffer, capacity);
	if (!bigger)
		return -ENOMEM;
	channel->buffer = bigger;
	channel->capacity = capacity;
	return 0;
}

static int queue_fds(struct pv_channel *channel, struct msghdr *msg)
{
	int r = msg->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (channel->queued == MAX_QUEUED_FDS) {
				close(fd);
				r = -EPROTO;
				continue;
			}
			channel->queue[channel->queued].fd = fd;
			channel->queue[channel->queued++].position = channel->position;
		}
	}
	return r;
}

/* Receives what is there: 1 some, 0 nothing yet, -ENOTCONN end, -EPROTO, other -errno. */
static int fill(struct pv_channel *channel)
{
	/* The kernel's limit of one message is 253 descriptors: none is lost by truncation. */
	union {
		char bytes[CMSG_SPACE(sizeof(int) * 253)];
		struct cmsghdr align;
	} control;
	struct iovec iov;
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t n;
	int r;

	r = make_room(channel);
	if (r < 0)
		return r;
	iov.iov_base = channel->buffer + channel->end;
	iov.iov_len = channel->capacity - channel->end;
	do
		n = recvmsg(channel->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : errno == ECONNRESET ? -ENOTCONN : -errno;
	if (n == 0)
		return -ENOTCONN;
	channel->end += (size_t)n;
	channel->position += (uint64_t)n;
	r = queue_fds(channel, &msg);
	return r < 0 ? r : 1;
}

/* The length of the first whole line without its newline, or -1. */
static ssize_t first_line(const struct pv_channel *channel)
{
	const char *newline;

	if (channel->scanned >= channel->end)
		return -1;
	newline = memchr(channel->buffer + channel->scanned, '\n', channel->end - channel->scanned);
	return newline ? newline - (channel->buffer + channel->start) : -1;
}

bool pv_channel_pending(const struct pv_channel *channel)
{
	return first_line(channel) >= 0;
}

/* Brackets outside strings, open at once at most. */
static unsigned nesting(const char *text, size_t length)
{
	unsigned depth = 0, deepest = 0;
	bool in_string = false;

	for (size_t i = 0; i < length; i++) {
		if (in_string) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"')
				in_string = false;
		} else if (text[i] == '"') {
			in_string = true;
		} else if (text[i] == '{' || text[i] == '[') {
			if (++depth > deepest)
				deepest = depth;
		} else if ((text[i] == '}' || text[i] == ']') && depth) {
			depth--;
		}
	}
	return deepest;
}

/* NULL unless the text is exactly one JSON object. */
static struct json_object *parse(const char *text, size_t length, const char **ret_why)
{
	pv_autojson struct json_object *json = NULL;
	struct json_tokener *tokener;
	size_t used;
	bool whole;

	if (nesting(text, length) > MAX_DEPTH) {
		*ret_why = "a line nested too deeply";
		return NULL;
	}
	*ret_why = "a line that is not a JSON object";
	tokener = json_tokener_new_ex(MAX_DEPTH + 2);
	if (!tokener)
		return NULL;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	json = json_tokener_parse_ex(tokener, text, (int)length);
	whole = json_tokener_get_error(tokener) == json_tokener_success;
	used = json_tokener_get_parse_end(tokener);
	json_tokener_free(tokener);
	while (used < length && (text[used] == ' ' || text[used] == '\t' || text[used] == '\r'))
		used++;
	if (!whole || used != length || !json_object_is_type(json, json_type_object))
		return NULL;
	return pv_steal_ptr(&json);
}

/* Parses and removes the first `length` bytes and the newline after them. */
static int take_line(
	struct pv_channel *channel, size_t length, struct pv_message *ret_message, struct pv_error *err)
{
	/* Stream offset just after the newline. */
	uint64_t line_end = channel->position - (channel->end - channel->start) + length + 1;
	struct pv_message message = {0};
	const char *why;
	int64_t nfds;

	message.json = parse(channel->buffer + channel->start, length, &why);
	if (!message.json)
		return protocol_error(channel, err, why);
	nfds = pv_json_int(message.json, "fds", 0);
	if (nfds < 0 || nfds > PV_CHANNEL_MAX_FDS || (uint64_t)nfds > channel->queued) {
		json_object_put(message.json);
		return protocol_error(channel, err, "a line announces descriptors that did not come");
	}
	if ((size_t)nfds < channel->queued && channel->queue[nfds].position <= line_end) {
		json_object_put(message.json);
		return protocol_error(channel, err, "descriptors that no line announced");
	}
	for (message.nfds = 0; message.nfds < (size_t)nfds; message.nfds++)
		message.fds[message.nfds] = channel->queue[message.nfds].fd;
	channel->queued -= (size_t)nfds;
	memmove(channel->queue, channel->queue + nfds, channel->queued * sizeof(channel->queue[0]));

	channel->start += length + 1;
	channel->scanned = channel->start;
	if (channel->start == channel->end) {
		channel->start = channel->end = channel->scanned = 0;
		/* One big message must not cost a megabyte for ever. */
		if (channel->capacity > CHUNK) {
			free(channel->buffer);
			channel->buffer = NULL;
			channel->capacity = 0;
		}
	}
	*ret_message = message;
	return 1;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* 1 readable (or ended), 0 the deadline has passed; deadline -1 = never. */
static int wait_readable(int fd, int64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - now_ms();
		int r = poll(&p, 1, deadline < 0 ? -1 : left > 0 ? (int)left : 0);

		if (r > 0)
			return 1;
		if (r == 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

int pv_channel_receive(
	struct pv_channel *channel, int timeout_ms, struct pv_message *ret_message, struct pv_error *err)
{
	int64_t deadline = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;

	if (channel->broken)
		return protocol_error(channel, err, "an earlier line was invalid");
	for (;;) {
		ssize_t length = first_line(channel);
		int r;

		if (length >= 0)
			return take_line(channel, (size_t)length, ret_message, err);
		channel->scanned = channel->end;
		r = fill(channel);
		if (r == 0) {
			r = wait_readable(channel->fd, deadline);
			if (r == 0)
				return 0;
		}
		if (r == -EPROTO)
			return protocol_error(channel, err,
				channel->end - channel->start >= PV_CHANNEL_MAX_LINE
					? "a line longer than 1 MiB"
					: "too many descriptors");
		if (r == -ENOTCONN && channel->end > channel->start)
			return protocol_error(channel, err, "the connection ended within a line");
		if (r == -ENOTCONN)
			return pv_fail(err, r, NULL, "the other side has closed the connection");
		if (r < 0)
			return pv_fail(err, r, NULL, "cannot receive a message: %s", pv_strerror(r));
	}
}

void pv_message_clear(struct pv_message *message)
{
	for (size_t i = 0; i < message->nfds; i++)
		if (message->fds[i] >= 0)
			close(message->fds[i]);
	json_object_put(message->json);
	*message = (struct pv_message){0};
}
