/*
 * The view of a device as a file: its bytes at any offset, refusal of writes, both ways of ending.
 */
#include "block/sim.h"
#include "fs/session_int.h"
#include "fs/view.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE (4U << 20)

struct served {
	struct pv_bdev *bdev;
	char dir[64], path[96];
	unsigned char *bytes;
	int stop[2];
	sem_t ready;
	pthread_t thread;
	bool joined;
	int result;
	struct pv_error err;
};

static void is_ready(void *private)
{
	sem_post(&((struct served *)private)->ready);
}

static void *serve(void *private)
{
	struct served *s = private;

	s->result = pv_view_serve(s->bdev, s->dir, "device", s->stop[0], is_ready, s, &s->err);
	sem_post(&s->ready); /* also when it failed */
	return NULL;
}

static int setup(void **state)
{
	struct served *s = calloc(1, sizeof(*s));

	strcpy(s->dir, "/tmp/pvol-view.XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->path, sizeof(s->path), "%s/device", s->dir);
	assert_int_equal(pv_mem_open(SIZE, &s->bdev, NULL), 0);
	s->bytes = malloc(SIZE);
	for (unsigned i = 0; i < SIZE; i++)
		s->bytes[i] = (unsigned char)(i * 2654435761U >> 13);
	assert_int_equal(pv_bdev_write(s->bdev, s->bytes, SIZE, 0), 0);
	assert_int_equal(pipe2(s->stop, O_CLOEXEC), 0);
	sem_init(&s->ready, 0, 0);
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
	sem_wait(&s->ready);
	assert_int_equal(s->result, 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct served *s = *state;

	if (s->stop[1] >= 0)
		close(s->stop[1]);
	if (!s->joined)
		pthread_join(s->thread, NULL);
	assert_int_equal(s->result, 0);
	assert_int_equal(rmdir(s->dir), 0); /* not a mount point any more */
	close(s->stop[0]);
	pv_bdev_close(s->bdev);
	free(s->bytes);
	free(s);
	return 0;
}

static void shows_all_bytes(void **state)
{
	struct served *s = *state;
	unsigned char *data = malloc(SIZE);
	int fd = open(s->path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	assert_int_equal(st.st_mode, S_IFREG | 0400);
	for (size_t done = 0; done < SIZE;) {
		ssize_t n = read(fd, data + done, SIZE - done);

		assert_true(n > 0);
		done += (size_t)n;
	}
	assert_memory_equal(data, s->bytes, SIZE);
	assert_int_equal(read(fd, data, 10), 0);
	close(fd);
	free(data);
}

static void reads_odd_ranges(void **state)
{
	static const size_t ranges[][2] = {
		{0, 1}, {511, 2}, {513, 1}, {4095, 8193}, {SIZE - 1, 1}, {SIZE - 3, 3}};
	struct served *s = *state;
	unsigned char data[10000];
	int fd = open(s->path, O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		assert_int_equal(pread(fd, data, ranges[i][1], (off_t)ranges[i][0]), ranges[i][1]);
		assert_memory_equal(data, s->bytes + ranges[i][0], ranges[i][1]);
	}
	assert_int_equal(pread(fd, data, 100, SIZE - 10), 10);
	assert_int_equal(pread(fd, data, 100, SIZE + 10), 0);
	close(fd);
}

static void refuses_changes(void **state)
{
	struct served *s = *state;
	char other[128];

	assert_int_equal(open(s->path, O_RDWR | O_CLOEXEC), -1);
	assert_int_equal(errno, EROFS);
	snprintf(other, sizeof(other), "%s/other", s->dir);
	assert_int_equal(open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), -1);
	assert_int_equal(errno, EROFS);
	assert_int_equal(unlink(s->path), -1);
	assert_int_equal(errno, EROFS);
}

static void ends_when_told_although_open(void **state)
{
	struct served *s = *state;
	int fd = open(s->path, O_RDONLY | O_CLOEXEC);
	char c;

	assert_true(fd >= 0);
	close(s->stop[1]);
	s->stop[1] = -1;
	pthread_join(s->thread, NULL);
	s->joined = true;
	assert_int_equal(pread(fd, &c, 1, 0), -1);
	assert_true(errno == ENOTCONN || errno == ECONNABORTED);
	close(fd);
}

static void ends_when_unmounted(void **state)
{
	struct served *s = *state;
	char command[128];
	int id;
	unsigned major, minor;

	assert_int_equal(pv_mount_find(s->dir, &id, &major, &minor), 0);
	assert_true(pv_mount_exists(id));
	snprintf(command, sizeof(command), "fusermount3 -u %s", s->dir);
	assert_int_equal(system(command), 0);
	pthread_join(s->thread, NULL);
	s->joined = true;
	assert_int_equal(s->result, 0);
	assert_false(pv_mount_exists(id));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(shows_all_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(reads_odd_ranges, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_when_told_although_open, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_when_unmounted, setup, teardown),
	};

	return cmocka_run_group_tests_name("view", tests, NULL, NULL);
}
