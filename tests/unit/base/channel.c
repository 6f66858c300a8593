/* The control channel: framing, descriptors, hostile peers, calls, sockets at long paths. */
#include "fixture.h"
#include "base/channel.h"
#include "base/cleanup.h"
#include "base/json.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

struct pair {
	struct pv_channel *a, *b;
	int raw; /* a's descriptor, for bytes that no honest sender makes */
};

static int setup(void **state)
{
	struct pair *p = calloc(1, sizeof(*p));
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(pv_channel_new(fds[0], &p->a, NULL), 0);
	assert_int_equal(pv_channel_new(fds[1], &p->b, NULL), 0);
	p->raw = fds[0];
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	pv_channel_free(p->a);
	pv_channel_free(p->b);
	free(p);
	return 0;
}

static unsigned open_descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Sends bytes with descriptors attached, past all checks of the sending side. */
static void send_raw(int fd, const char *text, size_t length, const int *fds, size_t nfds)
{
	char control[CMSG_SPACE(sizeof(int) * 253)] __attribute__((aligned(8))) = {0};
	struct iovec iov = {(char *)(uintptr_t)text, length};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	assert_int_equal(sendmsg(fd, &msg, MSG_NOSIGNAL), (ssize_t)length);
}

static void send_text(struct pair *p, const char *text)
{
	send_raw(p->raw, text, strlen(text), NULL, 0);
}

static void expect_refused(struct pair *p, const char *text)
{
	struct pv_message m;
	struct pv_error err;

	send_text(p, text);
	assert_int_equal(pv_channel_receive(p->b, 1000, &m, &err), -EPROTO);
	assert_int_equal(err.code, -EPROTO);
	/* Nothing after it can be trusted. */
	send_text(p, "{\"id\":1}\n");
	assert_int_equal(pv_channel_receive(p->b, 1000, &m, &err), -EPROTO);
}

static void many_lines_in_one_packet(void **state)
{
	struct pair *p = *state;
	struct pv_message m;

	send_text(p, "{\"id\":1}\n{\"id\":2}\r\n{\"id\"");
	for (int i = 1; i <= 2; i++) {
		assert_int_equal(pv_channel_receive(p->b, 1000, &m, NULL), 1);
		assert_int_equal(pv_json_int(m.json, "id", 0), i);
		pv_message_clear(&m);
		assert_int_equal(pv_channel_pending(p->b), i == 1);
	}
	assert_int_equal(pv_channel_receive(p->b, 0, &m, NULL), 0);
	assert_int_equal(pv_channel_receive(p->b, 20, &m, NULL), 0);
	send_text(p, ":3}\n");
	assert_int_equal(pv_channel_receive(p->b, -1, &m, NULL), 1);
	assert_int_equal(pv_json_int(m.json, "id", 0), 3);
	pv_message_clear(&m);
}

static void end_is_told(void **state)
{
	struct pair *p = *state;
	struct pv_message m;

	send_text(p, "{\"id\":1}\n");
	p->a = pv_channel_free(p->a);
	assert_int_equal(pv_channel_receive(p->b, -1, &m, NULL), 1);
	pv_message_clear(&m);
	assert_int_equal(pv_channel_receive(p->b, -1, &m, NULL), -ENOTCONN);
}

static void end_within_a_line_is_an_error(void **state)
{
	struct pair *p = *state;
	struct pv_message m;

	send_text(p, "{\"id\":1}");
	p->a = pv_channel_free(p->a);
	assert_int_equal(pv_channel_receive(p->b, -1, &m, NULL), -EPROTO);
}

static void not_json(void **state)
{
	expect_refused(*state, "hello\n");
}
static void not_an_object(void **state)
{
	expect_refused(*state, "[1]\n");
}
static void empty_line(void **state)
{
	expect_refused(*state, "\n");
}
static void two_objects_in_a_line(void **state)
{
	expect_refused(*state, "{}{}\n");
}
static void nul_byte(void **state)
{
	struct pair *p = *state;
	struct pv_message m;

	send_raw(p->raw, "{\"id\":1}\0{\"id\":2}\n", 18, NULL, 0);
	assert_int_equal(pv_channel_receive(p->b, 1000, &m, NULL), -EPROTO);
}

static char *nested(unsigned depth)
{
	char *text = calloc(1, 2 * depth + 32), *s = text;

	s += sprintf(s, "{\"a\":");
	for (unsigned i = 1; i < depth; i++)
		*s++ = '[';
	*s++ = '1';
	for (unsigned i = 1; i < depth; i++)
		*s++ = ']';
	strcpy(s, "}\n");
	return text;
}

static void depth_32_passes(void **state)
{
	struct pair *p = *state;
	pv_autofree char *text = nested(32);
	struct pv_message m;

	send_text(p, text);
	assert_int_equal(pv_channel_receive(p->b, 1000, &m, NULL), 1);
	pv_message_clear(&m);
	/* Brackets in a string are no nesting. */
	send_text(p, "{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[[[[[[\"}\n");
	assert_int_equal(pv_channel_receive(p->b, 1000, &m, NULL), 1);
	pv_message_clear(&m);
}

static void depth_33_is_refused(void **state)
{
	pv_autofree char *text = nested(33);

	expect_refused(*state, text);
}

static void *send_megabytes(void *arg)
{
	struct pair *p = arg;
	pv_autofree char *text = malloc(PV_CHANNEL_MAX_LINE + 1);
	size_t n = 0;

	/* May be cut short by the other side's refusal. */
	memset(text, ' ', PV_CHANNEL_MAX_LINE + 1);
	while (n < PV_CHANNEL_MAX_LINE + 1) {
		ssize_t put = send(p->raw, text + n, PV_CHANNEL_MAX_LINE + 1 - n, MSG_NOSIGNAL);

		if (put < 0)
			break;
		n += (size_t)put;
	}
	return NULL;
}

static void too_long_a_line(void **state)
{
	struct pair *p = *state;
	struct pv_message m;
	struct pv_error err;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, send_megabytes, p), 0);
	assert_int_equal(pv_channel_receive(p->b, 10000, &m, &err), -EPROTO);
	assert_non_null(strstr(err.message, "longer"));
	p->b = pv_channel_free(p->b);
	pthread_join(thread, NULL);
}

/* Blanks up to exactly 1 MiB with the newline: the longest line there can be, and both sides take it. */
static void *send_longest(void *arg)
{
	struct pair *p = arg;
	pv_autojson struct json_object *json = json_object_new_object();
	pv_autofree char *text = malloc(PV_CHANNEL_MAX_LINE);

	memset(text, 'x', PV_CHANNEL_MAX_LINE);
	json_object_object_add(json, "a", json_object_new_string_len(text, PV_CHANNEL_MAX_LINE - 9));
	return (void *)(intptr_t)pv_channel_send(p->a, json, NULL, 0, NULL);
}

static void longest_line(void **state)
{
	struct pair *p = *state;
	pv_autojson struct json_object *json = json_object_new_object();
	struct pv_message m;
	pthread_t thread;
	void *r;

	assert_int_equal(pthread_create(&thread, NULL, send_longest, p), 0);
	assert_int_equal(pv_channel_receive(p->b, 10000, &m, NULL), 1);
	assert_int_equal(strlen(pv_json_string(m.json, "a", "")), PV_CHANNEL_MAX_LINE - 9);
	pthread_join(thread, &r);
	assert_null(r);
	pv_message_clear(&m);
	pv_autofree char *text = malloc(PV_CHANNEL_MAX_LINE);
	memset(text, 'x', PV_CHANNEL_MAX_LINE);
	json_object_object_add(json, "a", json_object_new_string_len(text, PV_CHANNEL_MAX_LINE - 8));
	assert_int_equal(pv_channel_send(p->a, json, NULL, 0, NULL), -EMSGSIZE);
}

static void random_bytes_never_crash(void **state)
{
	unsigned seed = 1;

	for (int round = 0; round < 300; round++) {
		struct pair *p;
		struct pv_message m;
		char bytes[200];
		int r;

		setup((void **)&p);
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (round & 1) ? "{}[]\":,0\\u\n"[rand_r(&seed) % 11] : (char)rand_r(&seed);
		bytes[sizeof(bytes) - 1] = '\n';
		send_raw(p->raw, bytes, sizeof(bytes), NULL, 0);
		while ((r = pv_channel_receive(p->b, 0, &m, NULL)) == 1)
			pv_message_clear(&m);
		assert_true(r == -EPROTO || r == 0);
		teardown((void **)&p);
	}
}

static void descriptors_pass_in_order(void **state)
{
	struct pair *p = *state;
	pv_autojson struct json_object *json = json_object_new_object();
	unsigned before = open_descriptors();
	struct pv_message m;
	int pipes[2], r[2];
	char c;

	assert_int_equal(pipe(pipes), 0);
	pv_json_add_int(json, "id", 1);
	assert_int_equal(pv_channel_send(p->a, json, pipes, 2, NULL), 0);
	json_object_object_del(json, "fds");
	assert_int_equal(pv_channel_send(p->a, json, NULL, 0, NULL), 0);
	assert_int_equal(pv_channel_send(p->a, json, &pipes[1], 1, NULL), 0);
	close(pipes[0]);
	close(pipes[1]);

	assert_int_equal(pv_channel_receive(p->b, 1000, &m, NULL), 1);
	assert_int_equal(m.nfds, 2);
	r[0] = pv_steal_fd(&m.fds[0]);
	r[1] = m.fds[1];
	assert_true(fcntl(r[0], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(write(r[1], "x", 1), 1);
	assert_int_equal(read(r[0], &c, 1), 1);
	pv_message_clear(&m);
	assert_int_equal(fcntl(r[1], F_GETFD), -1);
	assert_true(fcntl(r[0], F_GETFD) >= 0);
	close(r[0]);

	assert_int_equal(pv_channel_receive(p->b, 1000, &m, NULL), 1);
	assert_int_equal(m.nfds, 0);
	pv_message_clear(&m);
	assert_int_equal(pv_channel_receive(p->b, 1000, &m, NULL), 1);
	assert_int_equal(m.nfds, 1);
	pv_message_clear(&m);
	assert_int_equal(open_descriptors(), before);
}

static void unannounced_descriptors_are_refused_and_closed(void **state)
{
	struct pair *p = *state;
	unsigned before = open_descriptors();
	struct pv_message m;
	int fds[3] = {0, 1, 2};

	send_raw(p->raw, "{\"id\":1,\"fds\":2}\n", 17, fds, 3);
	assert_int_equal(pv_channel_receive(p->b, 1000, &m, NULL), -EPROTO);
	p->b = pv_channel_free(p->b);
	assert_int_equal(open_descriptors(), before - 1);
}

static void missing_descriptors_are_refused(void **state)
{
	expect_refused(*state, "{\"id\":1,\"fds\":1}\n");
}

static void a_flood_of_descriptors_is_refused(void **state)
{
	struct pair *p = *state;
	unsigned before = open_descriptors();
	struct pv_message m;
	int fds[253], r;

	for (size_t i = 0; i < 253; i++)
		fds[i] = 2;
	send_raw(p->raw, " ", 1, fds, 253);
	r = pv_channel_receive(p->b, 1000, &m, NULL);
	assert_int_equal(r, -EPROTO);
	p->b = pv_channel_free(p->b);
	assert_int_equal(open_descriptors(), before - 1);
}

static void bytes_that_are_not_utf8_survive(void **state)
{
	struct pair *p = *state;
	pv_autojson struct json_object *json = json_object_new_object();
	struct pv_message m;

	pv_json_add_string(json, "path", "a\xff\xfe/\n\x01");
	assert_int_equal(pv_channel_send(p->a, json, NULL, 0, NULL), 0);
	assert_int_equal(pv_channel_receive(p->b, 1000, &m, NULL), 1);
	assert_string_equal(pv_json_string(m.json, "path", ""), "a\xff\xfe/\n\x01");
	pv_message_clear(&m);
}

/* Answers three calls: progress and a descriptor, an error, nonsense. */
static void *serve(void *arg)
{
	struct pair *p = arg;

	for (int i = 0; i < 3; i++) {
		pv_autojson struct json_object *json = json_object_new_object();
		struct pv_message m;
		struct pv_error err = {0};
		int64_t id;

		if (pv_channel_receive(p->b, 10000, &m, NULL) != 1)
			return NULL;
		id = pv_json_int(m.json, "id", -1);
		pv_json_add_string(
			json, "echo", pv_json_string(pv_json_object(m.json, "params"), "text", "none"));
		if (i == 0) {
			pv_channel_progress(p->b, id, json);
			pv_channel_progress(p->b, id, NULL);
			pv_channel_reply(p->b, id, json, m.fds, m.nfds);
		} else if (i == 1) {
			pv_fail_as(&err, -EBUSY, PV_EXIT_BUSY, "tank", "in use by %d", 7);
			pv_remedy(&err, "close it");
			pv_channel_reply_error(p->b, id, &err);
		} else {
			pv_json_add_int(json, "id", id);
			pv_channel_send(p->b, json, NULL, 0, NULL);
		}
		pv_message_clear(&m);
	}
	return NULL;
}

static void count_progress(struct json_object *progress, void *private)
{
	(*(int *)private)++;
}

static void calls(void **state)
{
	struct pair *p = *state;
	pv_autojson struct json_object *params = json_object_new_object(), *result = NULL, *none = NULL;
	int back[2] = {-1, -1}, seen = 0;
	size_t nback = 2;
	struct pv_error err = {0};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, serve, p), 0);
	pv_json_add_string(params, "text", "hi");
	assert_int_equal(pv_channel_call(p->a, "echo", params, (int[]){2}, 1, count_progress, &seen, &result,
				 back, &nback, &err),
		0);
	assert_int_equal(seen, 2);
	assert_int_equal(nback, 1);
	assert_true(back[0] > 2);
	close(back[0]);
	assert_string_equal(pv_json_string(result, "echo", ""), "hi");

	assert_int_equal(
		pv_channel_call(p->a, "busy", NULL, NULL, 0, NULL, NULL, &none, NULL, NULL, &err), -EBUSY);
	assert_null(none);
	assert_int_equal(err.exit, PV_EXIT_BUSY);
	assert_string_equal(err.object, "tank");
	assert_string_equal(err.message, "in use by 7");
	assert_string_equal(err.remedy, "close it");

	assert_int_equal(
		pv_channel_call(p->a, "bad", NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, &err), -EPROTO);
	pthread_join(thread, NULL);
}

static void *send_hundred(void *arg)
{
	struct pair *p = arg;

	for (int i = 0; i < 100; i++) {
		pv_autojson struct json_object *json = json_object_new_object();
		char text[3000];

		memset(text, 'a' + i % 26, sizeof(text) - 1);
		text[sizeof(text) - 1] = '\0';
		pv_json_add_string(json, "t", text);
		pv_channel_send(p->a, json, NULL, 0, NULL);
	}
	return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
	struct pair *p = *state;
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, send_hundred, p), 0);
	for (int i = 0; i < 400; i++) {
		struct pv_message m;

		assert_int_equal(pv_channel_receive(p->b, 10000, &m, NULL), 1);
		assert_int_equal(strlen(pv_json_string(m.json, "t", "")), 2999);
		pv_message_clear(&m);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

/* A peer that never reads: the sender gets its socket's time-out, and nothing is sent behind half a line. */
static void a_peer_that_does_not_read(void **state)
{
	struct pair *p = *state;
	const struct timeval limit = {.tv_usec = 50000};
	pv_autojson struct json_object *big = json_object_new_object(), *small = json_object_new_object();
	pv_autofree char *text = malloc(PV_CHANNEL_MAX_LINE / 2);

	memset(text, 'x', PV_CHANNEL_MAX_LINE / 2);
	json_object_object_add(big, "a", json_object_new_string_len(text, PV_CHANNEL_MAX_LINE / 2));
	assert_int_equal(setsockopt(p->raw, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)), 0);
	assert_int_equal(pv_channel_send(p->a, big, NULL, 0, NULL), -ETIMEDOUT);
	assert_int_equal(pv_channel_send(p->a, small, NULL, 0, NULL), -EPIPE);
}

static void hostile_error_objects(void **state)
{
	pv_autojson struct json_object *json = json_tokener_parse("{\"code\":5,\"exit\":99,\"message\":{}}");
	struct pv_error err;

	pv_error_from_json(json, &err);
	assert_int_equal(err.code, -EIO);
	assert_int_equal(err.exit, PV_EXIT_FAILED);
	assert_true(err.message[0]);
}

/* As an ordinary, undumpable process, 200 bytes below /tmp. */
static void sockets_child(void)
{
	char path[64], deep[201];
	pv_autoclose int top = -1, dir = -1, listener = -1, second = -1, fd = -1, conn = -1;
	struct pv_channel *channel;
	struct pv_error err;
	struct stat st;
	uid_t uid;
	pid_t pid;

	become_ordinary();
	child_check(prctl(PR_SET_DUMPABLE, 0) == 0);
	strcpy(path, "/tmp/pv-unit-XXXXXX");
	child_check(mkdtemp(path) != NULL);
	top = open(path, O_RDONLY | O_DIRECTORY);
	memset(deep, 'd', 200);
	deep[200] = '\0';
	child_check(mkdirat(top, deep, 0700) == 0);
	dir = openat(top, deep, O_PATH | O_DIRECTORY | O_CLOEXEC);
	umask(0);
	child_check(pv_socket_connect(dir, "control", &fd, &err) == -ENOENT);
	child_check(pv_socket_listen(dir, "control", 0600, &listener, &err) == 0);
	child_check(fstatat(dir, "control", &st, 0) == 0 && (st.st_mode & 07777) == 0600);
	child_check(pv_socket_listen(dir, "control", 0600, &second, &err) == -EADDRINUSE);
	child_check(pv_socket_connect(dir, "control", &fd, &err) == 0);
	child_check((conn = accept(listener, NULL, NULL)) >= 0);
	child_check(pv_channel_new(pv_steal_fd(&conn), &channel, &err) == 0);
	child_check(pv_channel_peer(channel, &uid, NULL, &pid) == 0 && uid == getuid() && pid == getpid());
	pv_channel_free(channel);
	/* What a killed listener leaves is replaced; and umask does not narrow the mode. */
	close(pv_steal_fd(&listener));
	child_check(pv_socket_connect(dir, "control", &conn, &err) == -ECONNREFUSED);
	umask(077);
	child_check(pv_socket_listen(dir, "control", 0666, &listener, &err) == 0);
	child_check(fstatat(dir, "control", &st, 0) == 0 && (st.st_mode & 07777) == 0666);
	child_check(pv_socket_listen(dir, "a/b", 0600, &second, &err) == -EINVAL);
	child_check(pv_socket_listen(dir, deep, 0600, &second, &err) == -ENAMETOOLONG);
	/* A file of that name is not ours to remove. */
	child_check((second = openat(dir, "file", O_CREAT | O_WRONLY, 0600)) >= 0);
	close(pv_steal_fd(&second));
	child_check(pv_socket_listen(dir, "file", 0600, &second, &err) == -EADDRINUSE);
	unlinkat(dir, "file", 0);
	unlinkat(dir, "control", 0);
	unlinkat(top, deep, AT_REMOVEDIR);
	rmdir(path);
}

static void sockets_at_long_paths(void **state)
{
	assert_child_ok(sockets_child);
}

#define with_pair(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_pair(many_lines_in_one_packet),
		with_pair(end_is_told),
		with_pair(end_within_a_line_is_an_error),
		with_pair(not_json),
		with_pair(not_an_object),
		with_pair(empty_line),
		with_pair(two_objects_in_a_line),
		with_pair(nul_byte),
		with_pair(depth_32_passes),
		with_pair(depth_33_is_refused),
		with_pair(too_long_a_line),
		with_pair(longest_line),
		cmocka_unit_test(random_bytes_never_crash),
		with_pair(descriptors_pass_in_order),
		with_pair(unannounced_descriptors_are_refused_and_closed),
		with_pair(missing_descriptors_are_refused),
		with_pair(a_flood_of_descriptors_is_refused),
		with_pair(bytes_that_are_not_utf8_survive),
		with_pair(calls),
		with_pair(lines_of_threads_do_not_mix),
		with_pair(a_peer_that_does_not_read),
		cmocka_unit_test(hostile_error_objects),
		cmocka_unit_test(sockets_at_long_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
