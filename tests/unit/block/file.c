/* The file device with each backend: contents, limits, concurrency, growth, a full file system. */
#include "fixture.h"
#include "base/json.h"

#include <sched.h>
#include <seccomp.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

static const enum pv_file_backend backends[] = {PV_FILE_THREADS, PV_FILE_URING, PV_FILE_AUTO};
static bool has_uring;

static struct pv_bdev *open_fd(int fd, enum pv_file_backend backend)
{
	const struct pv_file_options options = {.backend = backend, .label = "test", .hold_on_full = true};
	struct pv_bdev *bdev;

	assert_int_equal(pv_file_open(fd, &options, &bdev, NULL), 0);
	return bdev;
}

#define for_each_backend(b)                                                                                  \
	for (size_t b##_i = 0; b##_i < 3; b##_i++)                                                           \
		if (backends[b##_i] == PV_FILE_URING && !has_uring)                                          \
			print_message("io_uring is refused here\n");                                         \
		else

static void reads_what_was_written(void **state)
{
	pv_autofree uint8_t *in = malloc(3 * MIB), *out = malloc(3 * MIB);

	for_each_backend(b)
	{
		int fd = temporary_file(16 * MIB + 100);
		struct pv_bdev *bdev = open_fd(fd, backends[b_i]);
		static const size_t sizes[] = {512, 4096, 12800, 3 * MIB};

		assert_int_equal(bdev->size, 16 * MIB);
		for (size_t i = 0; i < 4; i++) {
			pattern(in, sizes[i], (unsigned)i);
			assert_int_equal(pv_bdev_write(bdev, in, sizes[i], 512 * (i + 1)), 0);
			assert_int_equal(pv_bdev_flush(bdev), 0);
			assert_int_equal(pv_bdev_read(bdev, out, sizes[i], 512 * (i + 1)), 0);
			assert_memory_equal(in, out, sizes[i]);
			assert_int_equal(pread(fd, out, sizes[i], (off_t)(512 * (i + 1))), (ssize_t)sizes[i]);
			assert_memory_equal(in, out, sizes[i]);
		}
		pv_bdev_close(bdev);
		assert_int_equal(fcntl(fd, F_GETFD), -1);
	}
}

static void wrong_requests_are_refused(void **state)
{
	struct pv_bdev *bdev = open_fd(temporary_file(MIB), PV_FILE_AUTO);
	uint8_t data[1024] = {0};

	assert_int_equal(pv_bdev_read(bdev, data, 512, MIB), -EINVAL);
	assert_int_equal(pv_bdev_read(bdev, data, 1024, MIB - 512), -EINVAL);
	assert_int_equal(pv_bdev_read(bdev, data, 512, UINT64_MAX - 511), -EINVAL);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 100), -EINVAL);
	assert_int_equal(pv_bdev_write(bdev, data, 100, 512), -EINVAL);
	assert_int_equal(pv_bdev_write(bdev, data, 0, 512), -EINVAL);
	pv_bdev_close(bdev);
	assert_null(pv_bdev_close(NULL));
}

static void read_only_refuses_writes(void **state)
{
	const struct pv_file_options options = {.read_only = true};
	struct pv_bdev *bdev;
	uint8_t data[512];

	assert_int_equal(pv_file_open(temporary_file(MIB), &options, &bdev, NULL), 0);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 0), -EROFS);
	assert_int_equal(pv_bdev_read(bdev, data, 512, 0), 0);
	assert_int_equal(pv_bdev_flush(bdev), 0);
	assert_false(bdev->can_discard);
	pv_bdev_close(bdev);
}

static void not_a_file(void **state)
{
	const struct pv_file_options options = {0};
	struct pv_bdev *bdev = NULL;
	struct pv_error err;
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	assert_int_equal(pv_file_open(ends[0], &options, &bdev, &err), -EINVAL);
	assert_int_equal(fcntl(ends[0], F_GETFD), -1);
	assert_null(bdev);
	close(ends[1]);
}

static void many_requests_at_once(void **state)
{
	enum { N = 1000 };
	pv_autofree uint8_t *data = malloc(N * 4096), *out = malloc(N * 4096);
	pv_autofree struct pv_bio *bios = calloc(N, sizeof(*bios));
	pv_autofree struct iovec *iovs = calloc(3 * N, sizeof(*iovs));

	pattern(data, N * 4096, 5);
	for_each_backend(b)
	{
		struct pv_bdev *bdev = open_fd(temporary_file(N * 4096), backends[b_i]);

		for (int pass = 0; pass < 2; pass++) {
			struct tally t = TALLY;
			uint8_t *at = pass ? out : data;

			memset(out, 0, N * 4096);
			for (size_t i = 0; i < N; i++, at += 4096) {
				/* Uneven pieces of memory, one of them empty. */
				iovs[3 * i] = (struct iovec){at, 100};
				iovs[3 * i + 1] = (struct iovec){NULL, 0};
				iovs[3 * i + 2] = (struct iovec){at + 100, 3996};
				bios[i] = (struct pv_bio){.op = pass ? PV_BIO_READ : PV_BIO_WRITE,
					.offset = i * 4096,
					.length = 4096,
					.iov = &iovs[3 * i],
					.iovcnt = 3,
					.done = tally_done,
					.private = &t};
				pv_bdev_submit(bdev, &bios[i]);
			}
			tally_wait(&t, N);
			assert_int_equal(t.failed, 0);
		}
		assert_memory_equal(out, data, N * 4096);
		pv_bdev_close(bdev);
	}
}

static void close_waits_for_requests(void **state)
{
	pv_autofree uint8_t *data = calloc(1, 64 * KIB);

	for_each_backend(b)
	{
		struct pv_bdev *bdev = open_fd(temporary_file(64 * MIB), backends[b_i]);
		struct iovec iov = {data, 64 * KIB};
		struct tally t = TALLY;
		struct pv_bio bios[100];

		for (size_t i = 0; i < 100; i++) {
			bios[i] = (struct pv_bio){.op = PV_BIO_WRITE,
				.offset = i * 64 * KIB,
				.length = 64 * KIB,
				.iov = &iov,
				.iovcnt = 1,
				.done = tally_done,
				.private = &t};
			pv_bdev_submit(bdev, &bios[i]);
		}
		pv_bdev_close(bdev);
		assert_int_equal(t.done, 100);
		assert_int_equal(t.failed, 0);
	}
}

static void a_truncated_file_gives_eio(void **state)
{
	uint8_t data[8192];

	for_each_backend(b)
	{
		int fd = temporary_file(MIB);
		struct pv_bdev *bdev = open_fd(fd, backends[b_i]);

		assert_int_equal(ftruncate(fd, 4096), 0);
		assert_int_equal(pv_bdev_read(bdev, data, 4096, 0), 0);
		assert_int_equal(pv_bdev_read(bdev, data, 4096, 8192), -EIO);
		assert_int_equal(pv_bdev_read(bdev, data, 8192, 0), -EIO);
		pv_bdev_close(bdev);
	}
}

static void note_size(struct pv_bdev *bdev, uint64_t size, void *private)
{
	*(uint64_t *)private = size;
}

static void growth_is_told(void **state)
{
	int fd = temporary_file(MIB);
	struct pv_bdev *bdev = open_fd(fd, PV_FILE_AUTO);
	uint64_t told = 0;
	uint8_t data[512] = {1};

	bdev->resized = note_size;
	bdev->resized_private = &told;
	assert_int_equal(pv_bdev_refresh(bdev, NULL), 0);
	assert_int_equal(told, 0);
	assert_int_equal(ftruncate(fd, 2 * (off_t)MIB + 7), 0);
	assert_int_equal(pv_bdev_refresh(bdev, NULL), 0);
	assert_int_equal(told, 2 * MIB);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 2 * MIB - 512), 0);
	pv_bdev_close(bdev);
}

static void discards_and_zeroes(void **state)
{
	pv_autofree uint8_t *data = malloc(MIB), *zeros = calloc(1, MIB);
	int fd = temporary_file(MIB);
	struct pv_bdev *bdev = open_fd(fd, PV_FILE_AUTO);
	struct tally t = TALLY;
	struct pv_bio bio = {.op = PV_BIO_WRITE_ZEROES,
		.offset = 4096,
		.length = 65536 + 512,
		.done = tally_done,
		.private = &t};
	struct stat before, after;

	memset(data, 7, MIB);
	assert_int_equal(pv_bdev_write(bdev, data, MIB, 0), 0);
	pv_bdev_submit(bdev, &bio);
	tally_wait(&t, 1);
	assert_int_equal(t.failed, 0);
	assert_int_equal(pv_bdev_read(bdev, data, 65536 + 1024 + 4096, 0), 0);
	assert_int_equal(data[4095], 7);
	assert_memory_equal(data + 4096, zeros, 65536 + 512);
	assert_int_equal(data[4096 + 65536 + 512], 7);
	if (bdev->can_discard) {
		pv_bdev_flush(bdev);
		fstat(fd, &before);
		assert_int_equal(pv_bdev_discard(bdev, 512 * KIB, 256 * KIB), 0);
		fstat(fd, &after);
		assert_true(after.st_blocks < before.st_blocks);
		assert_int_equal(after.st_size, before.st_size);
	} else {
		assert_int_equal(pv_bdev_discard(bdev, 512 * KIB, 256 * KIB), -EOPNOTSUPP);
	}
	pv_bdev_close(bdev);
}

/* Odd memory with O_DIRECT. */
static void direct_io(void **state)
{
	char name[] = "/var/tmp/pv-unit-XXXXXX";
	int fd = mkstemp(name);
	pv_autofree uint8_t *in = malloc(64 * KIB + 3), *out = malloc(64 * KIB + 3);
	struct pv_file_options options = {.direct = true, .sector_size = 4096};

	assert_int_equal(ftruncate(fd, (off_t)MIB), 0);
	close(fd);
	fd = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
	unlink(name);
	if (fd < 0) {
		print_message("no direct I/O in /var/tmp\n");
		skip();
	}
	pattern(in, 64 * KIB + 3, 9);
	for_each_backend(b)
	{
		struct pv_bdev *bdev;

		options.backend = backends[b_i];
		assert_int_equal(pv_file_open(dup(fd), &options, &bdev, NULL), 0);
		assert_int_equal(pv_bdev_write(bdev, in + 3, 64 * KIB, 4096), 0);
		memset(out, 0, 64 * KIB);
		assert_int_equal(pv_bdev_read(bdev, out + 1, 64 * KIB, 4096), 0);
		assert_memory_equal(out + 1, in + 3, 64 * KIB);
		pv_bdev_close(bdev);
	}
	close(fd);
}

static const char *backend_of(struct pv_bdev *bdev, struct json_object **j)
{
	*j = json_object_new_object();
	pv_bdev_describe(bdev, *j);
	return pv_json_string(*j, "backend", "");
}

/* The kernel refuses io_uring from the start, or begins to when it is in use. */
static void refuse_uring(int call)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	child_check(seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call, 0) == 0);
	child_check(seccomp_load(filter) == 0);
	seccomp_release(filter);
}

static void check_io(struct pv_bdev *bdev)
{
	uint8_t in[8192], out[8192];

	pattern(in, sizeof(in), 3);
	child_check(pv_bdev_write(bdev, in, sizeof(in), 4096) == 0);
	child_check(pv_bdev_flush(bdev) == 0);
	child_check(pv_bdev_read(bdev, out, sizeof(out), 4096) == 0);
	child_check(memcmp(in, out, sizeof(in)) == 0);
}

static void no_uring_child(void)
{
	const struct pv_file_options only = {.backend = PV_FILE_URING}, any = {0};
	struct pv_bdev *bdev;
	struct json_object *j;

	refuse_uring(SCMP_SYS(io_uring_setup));
	child_check(pv_file_open(temporary_file(MIB), &only, &bdev, NULL) == -ENOSYS);
	child_check(pv_file_open(temporary_file(MIB), &any, &bdev, NULL) == 0);
	child_check(strcmp(backend_of(bdev, &j), "threads") == 0);
	check_io(bdev);
	json_object_put(j);
	pv_bdev_close(bdev);
}

static void lost_uring_child(void)
{
	const struct pv_file_options only = {.backend = PV_FILE_URING};
	struct pv_bdev *bdev;
	struct json_object *j;

	child_check(pv_file_open(temporary_file(MIB), &only, &bdev, NULL) == 0);
	check_io(bdev);
	child_check(strcmp(backend_of(bdev, &j), "io_uring") == 0);
	json_object_put(j);
	refuse_uring(SCMP_SYS(io_uring_enter));
	check_io(bdev);
	check_io(bdev);
	child_check(strcmp(backend_of(bdev, &j), "threads") == 0);
	json_object_put(j);
	pv_bdev_close(bdev);
}

static void falls_back_at_open(void **state)
{
	assert_child_ok(no_uring_child);
}

static void falls_back_at_run_time(void **state)
{
	if (!has_uring) {
		print_message("io_uring is refused here\n");
		skip();
	}
	assert_child_ok(lost_uring_child);
}

static bool write_text(const char *path, const char *text)
{
	pv_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* A mount namespace of one's own, for an ordinary user in a user namespace where he is root. */
static bool own_mounts(void)
{
	char users[64], groups[64];

	if (geteuid() == 0)
		return unshare(CLONE_NEWNS) == 0;
	snprintf(users, sizeof(users), "0 %u 1\n", geteuid());
	snprintf(groups, sizeof(groups), "0 %u 1\n", getegid());
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_text("/proc/self/setgroups", "deny") &&
	       write_text("/proc/self/uid_map", users) && write_text("/proc/self/gid_map", groups);
}

/* A private tmpfs of 2 MiB; 77 where even a user namespace gives none. */
static int full_directory(void)
{
	char name[] = "/tmp/pv-unit-XXXXXX";
	int fd;

	if (!own_mounts())
		_exit(77);
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	child_check(mkdtemp(name) != NULL);
	if (mount("tmpfs", name, "tmpfs", 0, "size=2m") < 0) {
		rmdir(name);
		_exit(77);
	}
	fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	umount2(name, MNT_DETACH);
	rmdir(name);
	return fd;
}

static void full_child(void)
{
	const enum pv_file_backend order[] = {PV_FILE_THREADS, PV_FILE_AUTO, PV_FILE_URING};
	int dir = full_directory();

	for (size_t b = 0; b < (has_uring ? 3 : 2); b++) {
		struct pv_file_options options = {.backend = order[b], .hold_on_full = true, .label = "full"};
		int fd = openat(dir, "container", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		int filler = openat(dir, "filler", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		pv_autofree uint8_t *data = malloc(MIB), *out = malloc(MIB);
		const struct timespec moment = {.tv_nsec = 450000000};
		struct tally t = TALLY;
		struct iovec iov = {data, 512 * KIB};
		struct pv_bio bios[2];
		struct pv_bdev *bdev;

		pattern(data, MIB, 1);
		child_check(ftruncate(fd, 8 * (off_t)MIB) == 0);
		child_check(fallocate(filler, 0, 0, 3 * (off_t)MIB / 2) == 0);
		child_check(pv_file_open(dup(fd), &options, &bdev, NULL) == 0);
		child_check(pv_file_backing_free(bdev) <= 512 * KIB);
		child_check(pv_bdev_write(bdev, data, 64 * KIB, 0) == 0);
		/* The first of these meets the end in its middle. */
		for (size_t i = 0; i < 2; i++) {
			bios[i] = (struct pv_bio){.op = PV_BIO_WRITE,
				.offset = (i + 1) * MIB,
				.length = 512 * KIB,
				.iov = &iov,
				.iovcnt = 1,
				.done = tally_done,
				.private = &t};
			pv_bdev_submit(bdev, &bios[i]);
		}
		nanosleep(&moment, NULL);
		child_check(tally_count(&t) == 0);
		child_check(bdev->full);
		/* Reads, and writes in place, go on. */
		child_check(pv_bdev_read(bdev, out, 64 * KIB, 0) == 0 && memcmp(out, data, 64 * KIB) == 0);
		child_check(pv_bdev_write(bdev, data, 64 * KIB, 0) == 0);
		child_check(ftruncate(filler, 0) == 0);
		tally_wait(&t, 2);
		child_check(t.failed == 0 && !bdev->full);
		for (size_t i = 1; i <= 2; i++) {
			child_check(pv_bdev_read(bdev, out, 512 * KIB, i * MIB) == 0);
			child_check(memcmp(out, data, 512 * KIB) == 0);
		}
		pv_bdev_close(bdev);

		/* Closing gives up what is held; without the option the error is reported. */
		child_check(fallocate(filler, 0, 0, MIB / 2) == 0);
		child_check(pv_file_open(dup(fd), &options, &bdev, NULL) == 0);
		t.done = 0;
		iov.iov_len = MIB;
		bios[0] = (struct pv_bio){.op = PV_BIO_WRITE,
			.offset = 4 * MIB,
			.length = MIB,
			.iov = &iov,
			.iovcnt = 1,
			.done = tally_done,
			.private = &t};
		pv_bdev_submit(bdev, &bios[0]);
		nanosleep(&moment, NULL);
		child_check(tally_count(&t) == 0);
		pv_bdev_close(bdev);
		child_check(t.done == 1 && t.error == -ENOSPC);
		options.hold_on_full = false;
		child_check(pv_file_open(dup(fd), &options, &bdev, NULL) == 0);
		child_check(pv_bdev_write(bdev, data, MIB, 6 * MIB) == -ENOSPC);
		pv_bdev_close(bdev);
		close(fd);
		close(filler);
		unlinkat(dir, "container", 0);
		unlinkat(dir, "filler", 0);
	}
	close(dir);
}

static void a_full_file_system_holds_writes(void **state)
{
	int status = in_child(full_child);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("no private tmpfs can be mounted here\n");
		skip();
	}
	assert_int_equal(status, 0);
}

static void full_files_have_no_backing_limit(void **state)
{
	struct pv_bdev *bdev, *sparse = open_fd(temporary_file(64 * MIB), PV_FILE_THREADS);
	int fd = temporary_file(0);

	assert_true(pv_file_backing_free(sparse) < UINT64_MAX);
	if (fallocate(fd, 0, 0, MIB) == 0) {
		bdev = open_fd(fd, PV_FILE_THREADS);
		assert_true(pv_file_backing_free(bdev) == UINT64_MAX);
		pv_bdev_close(bdev);
	}
	pv_bdev_close(sparse);
	bdev = mem_device(MIB);
	assert_true(pv_file_backing_free(bdev) == UINT64_MAX);
	pv_bdev_close(bdev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_was_written),
		cmocka_unit_test(wrong_requests_are_refused),
		cmocka_unit_test(read_only_refuses_writes),
		cmocka_unit_test(not_a_file),
		cmocka_unit_test(many_requests_at_once),
		cmocka_unit_test(close_waits_for_requests),
		cmocka_unit_test(a_truncated_file_gives_eio),
		cmocka_unit_test(growth_is_told),
		cmocka_unit_test(discards_and_zeroes),
		cmocka_unit_test(direct_io),
		cmocka_unit_test(falls_back_at_open),
		cmocka_unit_test(falls_back_at_run_time),
		cmocka_unit_test(a_full_file_system_holds_writes),
		cmocka_unit_test(full_files_have_no_backing_limit),
	};
	const struct pv_file_options only = {.backend = PV_FILE_URING};
	struct pv_bdev *bdev;

	has_uring = pv_file_open(temporary_file(MIB), &only, &bdev, NULL) == 0;
	if (has_uring)
		pv_bdev_close(bdev);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
