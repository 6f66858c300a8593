/*
 * Speed of the block layer: sequential requests of one size at one depth, through the plain file device and
 * through crypt on it. Prints MB/s and CPU seconds per GiB, of the whole process, kernel side included.
 *
 *   blockbench FILE SIZE_MIB REQUEST_KIB DEPTH [io_uring|threads]
 */
#include "base/cleanup.h"
#include "block/crypt.h"
#include "block/file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

struct slot {
	struct slot *next; /* idle */
	struct pv_bio bio;
	struct iovec iov;
	struct run *run;
};

struct run {
	struct pv_bdev *bdev;
	enum pv_bio_op op;
	uint64_t request, next;
	pthread_mutex_t lock; /* of the rest */
	pthread_cond_t finished;
	struct slot *idle;
	int error;
};

static void done(struct pv_bio *bio, int error)
{
	struct slot *slot = bio->private;
	struct run *run = slot->run;

	PV_LOCK_SCOPE(&run->lock);
	if (error)
		run->error = error;
	slot->next = run->idle;
	run->idle = slot;
	pthread_cond_signal(&run->finished);
}

static struct slot *take_idle(struct run *run)
{
	struct slot *slot;

	PV_LOCK_SCOPE(&run->lock);
	while (!run->idle)
		pthread_cond_wait(&run->finished, &run->lock);
	slot = run->idle;
	run->idle = slot->next;
	return slot;
}

static void submit_next(struct run *run)
{
	struct slot *slot = take_idle(run);

	slot->bio = (struct pv_bio){.op = run->op,
		.offset = run->next,
		.length = run->request,
		.iov = &slot->iov,
		.iovcnt = 1,
		.done = done,
		.private = slot};
	run->next += run->request;
	pv_bdev_submit(run->bdev, &slot->bio);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* One thread submits; a request is submitted whenever one has finished. */
static void measure(struct pv_bdev *bdev, enum pv_bio_op op, uint64_t size, uint64_t request, unsigned depth,
	const char *what)
{
	struct run run = {.bdev = bdev,
		.op = op,
		.request = request,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.finished = PTHREAD_COND_INITIALIZER};
	struct slot *slots = calloc(depth, sizeof(*slots));
	double wall, cpu;

	for (unsigned i = 0; i < depth; i++) {
		slots[i].run = &run;
		slots[i].iov.iov_len = request;
		if (posix_memalign(&slots[i].iov.iov_base, 4096, request))
			abort();
		memset(slots[i].iov.iov_base, (int)i + 1, request);
		slots[i].next = run.idle;
		run.idle = &slots[i];
	}
	wall = seconds();
	cpu = cpu_seconds();
	for (uint64_t i = 0; i < size / request; i++)
		submit_next(&run);
	for (unsigned i = 0; i < depth; i++)
		take_idle(&run);
	wall = seconds() - wall;
	cpu = cpu_seconds() - cpu;
	printf("%-12s %-5s %8.0f MB/s %7.3f CPU s/GiB%s\n", what, op == PV_BIO_READ ? "read" : "write",
		(double)size / wall / 1e6, cpu / ((double)size / (1 << 30)), run.error ? "  FAILED" : "");
	for (unsigned i = 0; i < depth; i++)
		free(slots[i].iov.iov_base);
	free(slots);
}

int main(int argc, char **argv)
{
	struct pv_segment segment = {.cipher = "aes-xts-plain64", .key_size = 64, .sector_size = 4096};
	uint64_t size, request;
	unsigned depth;

	if (argc < 5) {
		fprintf(stderr, "usage: blockbench FILE SIZE_MIB REQUEST_KIB DEPTH [io_uring|threads]\n");
		return 2;
	}
	size = strtoull(argv[2], NULL, 10) << 20;
	request = strtoull(argv[3], NULL, 10) << 10;
	depth = (unsigned)strtoul(argv[4], NULL, 10);
	for (int crypt = 0; crypt < 2; crypt++) {
		struct pv_file_options options = {.label = argv[1], .sector_size = 4096};
		struct pv_bdev *bdev, *top;
		struct pv_error err;
		pv_autosecret struct pv_secret *key = NULL;
		int fd = open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);

		if (argc > 5)
			options.backend = strcmp(argv[5], "threads") == 0 ? PV_FILE_THREADS : PV_FILE_URING;
		if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
			return perror(argv[1]), 1;
		if (pv_file_open(fd, &options, &bdev, &err) < 0 || pv_secret_random(64, &key, &err) < 0)
			return fprintf(stderr, "blockbench: %s\n", err.message), 1;
		top = bdev;
		if (crypt && pv_crypt_open(bdev, &segment, key, &top, &err) < 0)
			return fprintf(stderr, "blockbench: %s\n", err.message), 1;
		measure(top, PV_BIO_WRITE, size, request, depth, crypt ? "crypt" : "plain");
		measure(top, PV_BIO_READ, size, request, depth, crypt ? "crypt" : "plain");
		pv_bdev_close(top);
	}
	return 0;
}
