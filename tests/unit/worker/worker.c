/* The real pvol-worker through its client: keys and answers over the wire, its sandbox, its death. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/process.h"
#include "base/secret.h"
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int make_container(uint64_t size)
{
	int fd = open(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static int key_pipe(const char *text)
{
	pv_autosecret struct pv_secret *secret = NULL;
	int fd;

	assert_int_equal(pv_secret_copy(text, strlen(text), &secret, NULL), 0);
	assert_int_equal(pv_secret_pipe(secret, &fd, NULL), 0);
	return fd;
}

static unsigned progress_lines;

static void count_progress(struct json_object *progress, void *private)
{
	assert_string_equal(pv_json_string(progress, "phase", ""), "deriving the key");
	progress_lines++;
}

/* Runs a method with the parameters as text; the passphrase pipes are closed afterwards. */
static int run(const char *method, const char *params, int container, const char *first, const char *second,
	struct json_object **ret_result, struct pv_secret **ret_key, struct pv_error *err)
{
	pv_autojson struct json_object *in = json_tokener_parse(params);
	int fds[3] = {container}, key_fd[2];
	size_t nfds = 1, nkeys = 2;
	int r;

	assert_non_null(in);
	if (first)
		fds[nfds++] = key_pipe(first);
	if (second)
		fds[nfds++] = key_pipe(second);
	r = pv_worker_run(method, in, fds, nfds, count_progress, NULL, ret_result, key_fd, &nkeys, err);
	for (size_t i = 1; i < nfds; i++)
		close(fds[i]);
	if (r)
		return r;
	assert_int_equal(nkeys, ret_key ? 1 : 0);
	if (nkeys) {
		assert_int_equal(pv_secret_read(key_fd[0], 64, ret_key, NULL), 0);
		close(key_fd[0]);
	}
	return 0;
}

#define CHEAP "\"pbkdf\":{\"type\":\"pbkdf2\",\"forced_iterations\":1000}"
#define CREATE "{\"format\":\"luks2\",\"label\":\"L\",\"keys\":[{\"kind\":\"passphrase\"," CHEAP "}]}"

static void volume_goes_through_its_life(void **state)
{
	pv_autosecret struct pv_secret *key = NULL, *again = NULL;
	struct json_object *result = NULL, *segment;
	struct pv_error err = {0};
	int fd = make_container(20 << 20);

	if (run("format.create", CREATE, fd, "first", NULL, &result, &key, &err))
		fail_msg("%s", err.message);
	segment = pv_json_object(result, "segment");
	assert_int_equal(pv_json_u64(segment, "offset", 0), 16 << 20);
	assert_int_equal(pv_json_u64(segment, "sector_size", 0), 4096);
	json_object_put(result);

	progress_lines = 0;
	assert_int_equal(
		run("format.unlock", "{\"kind\":\"passphrase\"}", fd, "first", NULL, &result, &again, &err),
		0);
	assert_int_equal(progress_lines, 1);
	assert_int_equal(pv_json_int(result, "slot", -1), 0);
	assert_true(pv_secret_equal(key, again));
	json_object_put(result);

	assert_int_equal(run("format.key_add", "{\"kind\":\"keyfile\"," CHEAP "}", fd, "first", "second",
				 &result, NULL, &err),
		0);
	assert_int_equal(pv_json_int(result, "slot", -1), 1);
	json_object_put(result);
	assert_int_equal(
		run("format.key_change", "{" CHEAP "}", fd, "first", "third", &result, NULL, &err), 0);
	assert_int_equal(pv_json_int(result, "slot", -1), 0);
	json_object_put(result);
	assert_int_equal(run("format.key_remove", "{\"slot\":1}", fd, NULL, NULL, NULL, NULL, &err), 0);
	assert_int_equal(run("format.info", "{}", fd, NULL, NULL, &result, NULL, &err), 0);
	assert_int_equal(json_object_array_length(pv_json_array(result, "slots")), 1);
	json_object_put(result);
	assert_int_equal(run("format.unlock", "{}", fd, "first", NULL, NULL, NULL, &err), -EKEYREJECTED);
	assert_int_equal(run("format.erase", "{}", fd, NULL, NULL, NULL, NULL, &err), 0);
	assert_int_equal(run("format.probe", "{}", fd, NULL, NULL, NULL, NULL, &err), -EUCLEAN);
	assert_int_equal(run("format.erase", "{}", fd, NULL, NULL, NULL, NULL, &err), -EUCLEAN);
	assert_int_equal(run("format.erase", "{\"format\":\"luks2\"}", fd, NULL, NULL, NULL, NULL, &err), 0);
	close(fd);
}

static void wrong_key_is_told_as_such(void **state)
{
	pv_autosecret struct pv_secret *key = NULL;
	struct pv_error err = {0};
	int fd = make_container(20 << 20);

	assert_int_equal(run("format.create", CREATE, fd, "right", NULL, NULL, &key, &err), 0);
	assert_int_equal(
		run("format.unlock", "{\"kind\":\"passphrase\"}", fd, "wrong", NULL, NULL, NULL, &err),
		-EKEYREJECTED);
	assert_int_equal(err.exit, PV_EXIT_WRONG_KEY);
	assert_string_equal(err.message, "the passphrase opens none of the key slots");
	close(fd);
}

/* Argon2's threads work inside the sandbox, and so does measuring the cost. */
static void argon2_works_when_confined(void **state)
{
	pv_autosecret struct pv_secret *key = NULL, *again = NULL;
	struct pv_error err = {0};
	int fd = make_container(20 << 20);

	if (run("format.create",
		    "{\"keys\":[{\"kind\":\"passphrase\",\"pbkdf\":{\"type\":\"argon2id\",\"iter_time_ms\":"
		    "100,"
		    "\"memory_kib\":65536,\"parallel\":2}}]}",
		    fd, "word", NULL, NULL, &key, &err))
		fail_msg("%s", err.message);
	assert_int_equal(run("format.unlock", "{}", fd, "word", NULL, NULL, &again, &err), 0);
	assert_true(pv_secret_equal(key, again));
	close(fd);
}

static void worker_is_confined(void **state)
{
	struct json_object *result;
	struct pv_error err = {0};
	int fd = make_container(0);

	assert_int_equal(run("worker.sandbox", "{}", fd, NULL, NULL, &result, NULL, &err), 0);
	printf("# sandbox: %s\n", json_object_to_json_string(result));
	assert_true(pv_json_bool(result, "no_new_privs", false));
	/* Landlock is not in every kernel, seccomp is in all that pvol supports. */
	assert_true(pv_json_bool(result, "seccomp", false));
	assert_false(pv_json_bool(result, "paths_open", true));
	json_object_put(result);
	close(fd);
}

static void bad_requests_are_answered(void **state)
{
	struct pv_error err = {0};
	int fd = make_container(20 << 20), pipe_fds[2];

	assert_int_equal(run("format.format_c", "{}", fd, NULL, NULL, NULL, NULL, &err), -ENOSYS);
	assert_int_equal(run("format.unlock", "{}", fd, NULL, NULL, NULL, NULL, &err), -EPROTO);
	assert_int_equal(run("format.create", "{\"keys\":[]}", fd, "p", NULL, NULL, NULL, &err), -EPROTO);
	assert_int_equal(run("format.unlock", "{}", fd, "p", NULL, NULL, NULL, &err), -EUCLEAN);
	assert_non_null(strstr(err.message, "not a volume that pvol knows"));
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(run("format.probe", "{}", pipe_fds[0], NULL, NULL, NULL, NULL, &err), -EINVAL);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(fd);
}

/* The only child is the worker: kill it while it derives. */
static void kill_children(struct json_object *progress, void *private)
{
	pv_autofclose FILE *f = fopen("/proc/thread-self/children", "r");
	pid_t pid;

	assert_non_null(f);
	while (fscanf(f, "%d", &pid) == 1)
		kill(pid, SIGKILL);
}

static void killed_worker_is_reported(void **state)
{
	pv_autojson struct json_object *params =
		json_tokener_parse("{\"keys\":[{\"pbkdf\":{\"type\":\"argon2id\",\"iter_time_ms\":60000}}]}");
	struct pv_error err = {0};
	int fds[2] = {make_container(20 << 20), key_pipe("x")};

	assert_int_equal(
		pv_worker_run("format.create", params, fds, 2, kill_children, NULL, NULL, NULL, NULL, &err),
		-EIO);
	assert_string_equal(err.message, "the worker died: signal 9");
	assert_true(err.remedy[0]);
	close(fds[0]);
	close(fds[1]);
}

/* Starts a worker as the client does, but keeps hold of it. */
static pid_t start_worker(int *ret_channel)
{
	static char name[] = "pvol-worker";
	char *const argv[] = {name, NULL};
	pv_autofree char *path = NULL;
	int pair[2];
	pid_t pid;

	assert_int_equal(pv_process_sibling(name, &path, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pv_process_spawn(path, argv, &pair[1], 1, &pid, NULL), 0);
	close(pair[1]);
	*ret_channel = pair[0];
	return pid;
}

static void closed_channel_ends_the_worker(void **state)
{
	int channel, status;
	pid_t pid = start_worker(&channel);

	close(channel);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
}

/* The sandbox comes after the request for the death signal. */
static void wait_until_confined(pid_t pid)
{
	char path[64], line[128];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	for (;;) { /* ended by alarm() in main */
		pv_autofclose FILE *f = fopen(path, "r");

		assert_non_null(f);
		while (fgets(line, sizeof(line), f))
			if (!strcmp(line, "NoNewPrivs:\t1\n"))
				return;
		usleep(1000);
	}
}

/* A parent that is killed takes its worker along, although the channel is still open in another process. */
static void worker_dies_with_its_parent(void **state)
{
	int channel[2], report[2], status;
	pid_t parent, worker;

	assert_int_equal(pipe(report), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, channel), 0);
	parent = fork();
	if (parent == 0) {
		static char name[] = "pvol-worker";
		char *const argv[] = {name, NULL};
		char *path;

		if (pv_process_sibling(name, &path, NULL) ||
			pv_process_spawn(path, argv, &channel[1], 1, &worker, NULL))
			_exit(1);
		(void)!write(report[1], &worker, sizeof(worker));
		pause();
	}
	/* We become the orphan's parent, to see how it ends. */
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	assert_int_equal(read(report[0], &worker, sizeof(worker)), sizeof(worker));
	wait_until_confined(worker);
	kill(parent, SIGKILL);
	assert_int_equal(waitpid(parent, &status, 0), parent);
	assert_int_equal(waitpid(worker, &status, 0), worker);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(channel[0]);
	close(channel[1]);
	close(report[0]);
	close(report[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(volume_goes_through_its_life),
		cmocka_unit_test(wrong_key_is_told_as_such),
		cmocka_unit_test(argon2_works_when_confined),
		cmocka_unit_test(worker_is_confined),
		cmocka_unit_test(bad_requests_are_answered),
		cmocka_unit_test(killed_worker_is_reported),
		cmocka_unit_test(closed_channel_ends_the_worker),
		cmocka_unit_test(worker_dies_with_its_parent),
	};

	alarm(100); /* instead of hanging */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
