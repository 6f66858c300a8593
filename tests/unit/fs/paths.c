/*
 * Mount points as strings, and what is done before something is mounted on them.
 */
#include "fs/fs_int.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void cleans(void **state)
{
	static const char *const pairs[][2] = {
		{"/a//b/", "/a/b"},
		{"/", "/"},
		{"///", "/"},
		{"/./a/.", "/a"},
		{"/..a/b..", "/..a/b.."},
	};
	static const char *const bad[] = {"", "a/b", "/a/../b", "/..", "./a"};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		char *clean = pv_path_clean(pairs[i][0]);

		assert_string_equal(clean, pairs[i][1]);
		free(clean);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_null(pv_path_clean(bad[i]));
}

static void tells_what_lies_below(void **state)
{
	assert_string_equal(pv_path_below("/a/b/c", "/a"), "b/c");
	assert_string_equal(pv_path_below("/a", "/a"), "");
	assert_string_equal(pv_path_below("/a/b", "/"), "a/b");
	assert_null(pv_path_below("/ab", "/a"));
	assert_null(pv_path_below("/", "/a"));
}

struct fixture {
	char dir[64];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/pvol-paths.XXXXXX");
	*state = f;
	return mkdtemp(f->dir) ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	free(f);
	return system(command);
}

static int prepare(const struct fixture *f, const char *below, struct pv_error *err)
{
	char path[160], *real = NULL;
	int r;

	memset(err, 0, sizeof(*err));
	snprintf(path, sizeof(path), "%s/%s", f->dir, below);
	r = pv_prepare_host_dir(path, &real, err);
	if (r == 0)
		assert_int_equal(access(real, F_OK), 0);
	free(real);
	return r;
}

static void makes_and_checks_directories(void **state)
{
	const struct fixture *f = *state;
	struct pv_error err;
	char path[128];
	int fd;

	assert_int_equal(prepare(f, "new", &err), 0);
	assert_int_equal(prepare(f, "new", &err), 0);
	assert_int_equal(prepare(f, "some/way/down", &err), 0);
	assert_int_equal(prepare(f, "some", &err), -ENOTEMPTY);
	assert_non_null(strstr(err.message, "not empty"));
	assert_non_null(strstr(err.object, "/some"));
	snprintf(path, sizeof(path), "%s/file", f->dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(prepare(f, "file", &err), -ENOTDIR);
	assert_int_equal(prepare(f, "file/below", &err), -ENOTDIR);
}

static void wants_a_directory_of_ones_own(void **state)
{
	struct pv_error err = {};
	char *real = NULL;

	if (geteuid() == 0) {
		/* As root every directory will do; the check is made as nobody. */
		assert_int_equal(seteuid(65534), 0);
		assert_int_equal(pv_prepare_host_dir("/usr", &real, &err), -EACCES);
		assert_int_equal(seteuid(0), 0);
	} else {
		assert_int_equal(pv_prepare_host_dir("/usr", &real, &err), -EACCES);
	}
	assert_non_null(strstr(err.message, "belong to you"));
	assert_null(real);
}

static void state_of_fuse_is_consistent(void **state)
{
	struct pv_fuse_state fuse = {};
	struct pv_error err = {};
	int r = pv_fuse_check(&fuse, &err);

	assert_true(!fuse.device_open || fuse.device);
	assert_true(!fuse.setuid || fuse.fusermount);
	if (r < 0)
		assert_true(err.message[0] && err.remedy[0]);
	else
		assert_true(fuse.device_open);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cleans),
		cmocka_unit_test(tells_what_lies_below),
		cmocka_unit_test_setup_teardown(makes_and_checks_directories, setup, teardown),
		cmocka_unit_test(wants_a_directory_of_ones_own),
		cmocka_unit_test(state_of_fuse_is_consistent),
	};

	return cmocka_run_group_tests_name("paths", tests, NULL, NULL);
}
