/* Secret memory: contents, limits, wiping, pipes, and what a refusal tells. */
#include "fixture.h"
#include "base/cleanup.h"
#include "base/secret.h"

#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>

static void holds_and_compares(void **state)
{
	pv_autosecret struct pv_secret *a = NULL, *b = NULL, *c = NULL;

	assert_int_equal(pv_secret_new(100, &a, NULL), 0);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(a->data[i], 0);
	assert_true(a->capacity >= 100);
	assert_int_equal((uintptr_t)a->data % 4096, 0);
	assert_int_equal(pv_secret_copy(a->data, 100, &b, NULL), 0);
	assert_true(pv_secret_equal(a, b));
	b->data[99] ^= 1;
	assert_false(pv_secret_equal(a, b));
	assert_int_equal(pv_secret_copy(a->data, 99, &c, NULL), 0);
	assert_false(pv_secret_equal(a, c));
	assert_null(pv_secret_free(NULL));
}

static void refuses_bad_sizes(void **state)
{
	struct pv_secret *s = NULL;

	assert_int_equal(pv_secret_new(0, &s, NULL), -EINVAL);
	assert_int_equal(pv_secret_new((1 << 20) + 1, &s, NULL), -EINVAL);
	assert_null(s);
}

static void random_differs(void **state)
{
	pv_autosecret struct pv_secret *a = NULL, *b = NULL;

	assert_int_equal(pv_secret_random(64, &a, NULL), 0);
	assert_int_equal(pv_secret_random(64, &b, NULL), 0);
	assert_false(pv_secret_equal(a, b));
}

/* The mapping has guard pages and the kernel excludes it from core files ("dd") and fork ("dc"). */
static void is_excluded_from_dumps(void **state)
{
	pv_autosecret struct pv_secret *a = NULL;
	pv_autofclose FILE *maps = fopen("/proc/self/smaps", "re");
	char line[512], flags[512] = "";
	bool ours = false;

	assert_non_null(maps);
	assert_int_equal(pv_secret_new(4096, &a, NULL), 0);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			ours = from <= (uintptr_t)a->data && (uintptr_t)a->data < to;
		else if (ours && strncmp(line, "VmFlags:", 8) == 0)
			memcpy(flags, line, sizeof(flags));
	}
	assert_non_null(strstr(flags, " lo "));
	assert_non_null(strstr(flags, " dd "));
}

static void overrun_child(void)
{
	struct pv_secret *a;

	signal(SIGSEGV, SIG_DFL);
	child_check(pv_secret_new(4096, &a, NULL) == 0);
	((volatile uint8_t *)a->data)[a->capacity] = 1;
}

static void overrun_is_fatal(void **state)
{
	int status = in_child(overrun_child);

	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

/* Only observable where the pages have another name: the fall-back's private pages have none. */
static struct pv_secret *wiped;
static void read_after_free_child(void)
{
	uint8_t *at;

	signal(SIGSEGV, SIG_DFL);
	child_check(pv_secret_copy("passphrase", 10, &wiped, NULL) == 0);
	at = wiped->data;
	pv_secret_free(wiped);
	child_check(*(volatile uint8_t *)at != 'p');
}

static void freed_secret_is_gone(void **state)
{
	int status = in_child(read_after_free_child);

	assert_true(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
}

static void wipe_clears(void **state)
{
	uint8_t buffer[32];

	memset(buffer, 0xaa, sizeof(buffer));
	pv_wipe(buffer, sizeof(buffer));
	for (size_t i = 0; i < sizeof(buffer); i++)
		assert_int_equal(buffer[i], 0);
	pv_wipe(NULL, 0);
}

static void no_locked_memory(void)
{
	const struct rlimit none = {0, 0};
	struct pv_secret *s = (void *)1;
	struct pv_error err = {0};

	child_check(setrlimit(RLIMIT_MEMLOCK, &none) == 0);
	become_ordinary();
	child_check(pv_secret_new(64, &s, &err) == -ENOMEM);
	child_check(s == (void *)1);
	child_check(err.code == -ENOMEM && err.message[0]);
	child_check(strstr(err.remedy, "RLIMIT_MEMLOCK") && strstr(err.remedy, "0 KiB"));
}

static void refusal_names_the_limit(void **state)
{
	assert_child_ok(no_locked_memory);
}

/* An older kernel, by a filter that hides memfd_secret(2). */
static void without_memfd_secret(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	struct pv_secret *s, *child_view;
	pid_t pid;
	int status;

	child_check(seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(memfd_secret), 0) == 0);
	child_check(seccomp_load(filter) == 0);
	seccomp_release(filter);
	child_check(pv_secret_copy("key", 3, &s, NULL) == 0);
	child_check(memcmp(s->data, "key", 3) == 0);
	child_view = s;
	pid = fork();
	if (pid == 0)
		_exit(child_view->data[0] == 0 ? 0 : 1);
	child_check(waitpid(pid, &status, 0) == pid && status == 0);
	pv_secret_free(s);
}

static void falls_back_to_mlock(void **state)
{
	assert_child_ok(without_memfd_secret);
}

static void pipe_round_trip(void **state)
{
	static const size_t sizes[] = {1, 64, 4095, 4096, 4097, 65536};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		pv_autosecret struct pv_secret *a = NULL, *b = NULL;
		pv_autoclose int fd = -1;

		assert_int_equal(pv_secret_random(sizes[i], &a, NULL), 0);
		assert_int_equal(pv_secret_pipe(a, &fd, NULL), 0);
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		assert_int_equal(pv_secret_read(fd, sizes[i], &b, NULL), 0);
		assert_true(pv_secret_equal(a, b));
	}
}

static void read_limits(void **state)
{
	pv_autosecret struct pv_secret *a = NULL, *b = NULL;
	pv_autoclose int fd = -1, empty = -1;
	int ends[2];

	assert_int_equal(pv_secret_random(4097, &a, NULL), 0);
	assert_int_equal(pv_secret_pipe(a, &fd, NULL), 0);
	assert_int_equal(pv_secret_read(fd, 4096, &b, NULL), -EMSGSIZE);
	assert_null(b);
	assert_int_equal(pipe(ends), 0);
	close(ends[1]);
	empty = ends[0];
	assert_int_equal(pv_secret_read(empty, 4096, &b, NULL), -ENODATA);
	assert_null(b);
	assert_int_equal(pv_secret_read(-1, 4096, &b, NULL), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(holds_and_compares),
		cmocka_unit_test(refuses_bad_sizes),
		cmocka_unit_test(random_differs),
		cmocka_unit_test(is_excluded_from_dumps),
		cmocka_unit_test(overrun_is_fatal),
		cmocka_unit_test(freed_secret_is_gone),
		cmocka_unit_test(wipe_clears),
		cmocka_unit_test(refusal_names_the_limit),
		cmocka_unit_test(falls_back_to_mlock),
		cmocka_unit_test(pipe_round_trip),
		cmocka_unit_test(read_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
