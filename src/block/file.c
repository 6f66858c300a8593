/*
 * A container by descriptor: geometry, the common part of both backends, and holding writes while the backing
 * store is full.
 *
 * A request goes to the ring or to the pool; either ends in pv_file_finish(), which completes it, or puts a
 * write that met ENOSPC or EDQUOT into the held list. One thread retries that list every 200 ms, the oldest
 * first.
 */
#include "block/file.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "block/file_int.h"
#include "block/thread_int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>

#define BOUNCE_ALIGNMENT 4096
#define RETRY_MS 200

struct pv_file {
	struct pv_bdev bdev;
	int fd;
	bool direct, hold_on_full, is_block;
	bool ring_writes;            /* also writes and flushes go to the ring */
	struct pv_file_uring *uring; /* NULL: threads only */
	_Atomic bool uring_failed;
	struct pv_file_pool pool;

	pthread_mutex_t hold_lock;
	pthread_cond_t hold_changed;
	struct pv_file_request *held, **held_last;
	uint64_t held_count, held_total;
	pthread_t retrier;
	bool retrier_runs, stop;

	_Atomic uint64_t errors;
};

static const struct pv_bdev_ops file_ops;

int pv_file_fd(const struct pv_file *file)
{
	return file->fd;
}

static void free_request(struct pv_file_request *request)
{
	free(request->bounce);
	free(request->own);
	free(request);
}

static void copy_vector(const struct iovec *iov, int iovcnt, uint8_t *linear, bool from_linear)
{
	for (int i = 0; i < iovcnt; i++) {
		if (from_linear)
			memcpy(iov[i].iov_base, linear, iov[i].iov_len);
		else
			memcpy(linear, iov[i].iov_base, iov[i].iov_len);
		linear += iov[i].iov_len;
	}
}

/* Direct I/O needs aligned memory: when the caller's is not, the request works on a copy. */
static int prepare_bounce(struct pv_file *file, struct pv_file_request *request)
{
	const struct pv_bio *bio = request->bio;
	bool aligned = true;

	if (!file->direct || (bio->op != PV_BIO_READ && bio->op != PV_BIO_WRITE))
		return 0;
	for (int i = 0; i < bio->iovcnt; i++)
		aligned = aligned && (uintptr_t)bio->iov[i].iov_base % BOUNCE_ALIGNMENT == 0 &&
			  bio->iov[i].iov_len % file->bdev.sector_size == 0;
	if (aligned)
		return 0;
	request->own = malloc(sizeof(*request->own));
	if (!request->own || posix_memalign(&request->bounce, BOUNCE_ALIGNMENT, bio->length))
		return -ENOMEM;
	*request->own = (struct iovec){request->bounce, bio->length};
	request->iov = request->own;
	request->iovcnt = 1;
	if (bio->op == PV_BIO_WRITE)
		copy_vector(bio->iov, bio->iovcnt, request->bounce, false);
	return 0;
}

bool pv_file_advance(struct pv_file_request *request, size_t n, int *ret_error)
{
	int i = 0;

	if (n == 0) {
		/* The file has become shorter than the device. */
		*ret_error = -EIO;
		return false;
	}
	request->done += n;
	if (request->done >= request->bio->length)
		return false;
	if (!request->own) {
		request->own = malloc((size_t)request->iovcnt * sizeof(*request->own));
		if (!request->own) {
			*ret_error = -ENOMEM;
			return false;
		}
		memcpy(request->own, request->iov, (size_t)request->iovcnt * sizeof(*request->own));
	} else if (request->iov != request->own) {
		memmove(request->own, request->iov, (size_t)request->iovcnt * sizeof(*request->own));
	}
	while (n >= request->own[i].iov_len)
		n -= request->own[i++].iov_len;
	request->own[i].iov_base = (uint8_t *)request->own[i].iov_base + n;
	request->own[i].iov_len -= n;
	request->iov = request->own + i;
	request->iovcnt -= i;
	return true;
}

static int transfer(struct pv_file *file, struct pv_file_request *request)
{
	const struct pv_bio *bio = request->bio;
	int error = 0;

	for (;;) {
		int count = request->iovcnt > IOV_MAX ? IOV_MAX : request->iovcnt;
		off_t at = (off_t)(bio->offset + request->done);
		ssize_t n = bio->op == PV_BIO_READ ? preadv(file->fd, request->iov, count, at)
						   : pwritev(file->fd, request->iov, count, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!pv_file_advance(request, (size_t)n, &error))
			return error;
	}
}

static int write_zeroes(struct pv_file *file, struct pv_file_request *request)
{
	static const _Alignas(4096) uint8_t zeros[65536];
	const struct pv_bio *bio = request->bio;

	if (request->done == 0 && fallocate(file->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
					  (off_t)bio->offset, (off_t)bio->length) == 0)
		return 0;
	while (request->done < bio->length) {
		uint64_t left = bio->length - request->done;
		ssize_t n = pwrite(file->fd, zeros, left < sizeof(zeros) ? left : sizeof(zeros),
			(off_t)(bio->offset + request->done));

		if (n < 0 && errno != EINTR)
			return -errno;
		request->done += n > 0 ? (uint64_t)n : 0;
	}
	return 0;
}

int pv_file_execute(struct pv_file *file, struct pv_file_request *request)
{
	const struct pv_bio *bio = request->bio;

	switch (bio->op) {
	case PV_BIO_READ:
	case PV_BIO_WRITE: return transfer(file, request);
	case PV_BIO_FLUSH: return fdatasync(file->fd) < 0 ? -errno : 0;
	case PV_BIO_DISCARD:
		return fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)bio->offset,
			       (off_t)bio->length) < 0
			       ? -errno
			       : 0;
	case PV_BIO_WRITE_ZEROES: return write_zeroes(file, request);
	}
	return -EINVAL;
}

static void complete(struct pv_file *file, struct pv_file_request *request, int error)
{
	struct pv_bio *bio = request->bio;

	if (error)
		file->errors++;
	else if (request->bounce && bio->op == PV_BIO_READ)
		copy_vector(bio->iov, bio->iovcnt, request->bounce, true);
	free_request(request);
	pv_bio_done(&file->bdev, bio, error);
}

static bool is_full(int error)
{
	return error == -ENOSPC || error == -EDQUOT;
}

/* Sleeps until the next retry is due or something changed. Called and returns with hold_lock held. */
static void pause_retrying(struct pv_file *file)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	/* Closing does not signal; its wait is bounded by this one. */
	until.tv_nsec += RETRY_MS * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_cond_timedwait(&file->hold_changed, &file->hold_lock, &until);
}

static void *retry(void *arg)
{
	struct pv_file *file = arg;

	pthread_mutex_lock(&file->hold_lock);
	while (!file->stop) {
		struct pv_file_request *request = file->held;
		int error;

		if (!request) {
			pthread_cond_wait(&file->hold_changed, &file->hold_lock);
			continue;
		}
		pthread_mutex_unlock(&file->hold_lock);
		error = pv_file_execute(file, request);
		pthread_mutex_lock(&file->hold_lock);
		if (is_full(error) && !file->bdev.closing) {
			pause_retrying(file);
			continue;
		}
		file->held = request->next;
		if (!file->held) {
			file->held_last = &file->held;
			pv_bdev_set_full(&file->bdev, false);
		}
		file->held_count--;
		pthread_mutex_unlock(&file->hold_lock);
		complete(file, request, error);
		pthread_mutex_lock(&file->hold_lock);
	}
	pthread_mutex_unlock(&file->hold_lock);
	return NULL;
}

/* False when it cannot be held. */
static bool hold(struct pv_file *file, struct pv_file_request *request)
{
	PV_LOCK_SCOPE(&file->hold_lock);
	if (!file->retrier_runs) {
		if (pv_thread_start(&file->retrier, "pv-retry", retry, file) < 0)
			return false;
		file->retrier_runs = true;
	}
	request->next = NULL;
	*file->held_last = request;
	file->held_last = &request->next;
	file->held_count++;
	file->held_total++;
	if (file->held_count == 1)
		pthread_cond_signal(&file->hold_changed);
	pv_bdev_set_full(&file->bdev, true);
	return true;
}

void pv_file_finish(struct pv_file *file, struct pv_file_request *request, int error)
{
	bool holdable = request->bio->op == PV_BIO_WRITE || request->bio->op == PV_BIO_WRITE_ZEROES;

	if (is_full(error) && holdable && file->hold_on_full && !file->bdev.closing && hold(file, request))
		return;
	complete(file, request, error);
}

void pv_file_redirect(struct pv_file *file, struct pv_file_request *request)
{
	pv_file_pool_submit(&file->pool, request);
}

/*
 * Buffered writes and syncs block in most file systems: the ring would hand each to a kernel thread, which
 * costs more (measured: half as much again for each GiB at 128 KiB) than to one of ours. Buffered reads it
 * does at once or by events.
 */
static bool goes_to_ring(const struct pv_file *file, const struct pv_bio *bio)
{
	if (!file->uring || file->uring_failed)
		return false;
	if (bio->op == PV_BIO_READ)
		return true;
	return file->ring_writes && (bio->op == PV_BIO_WRITE || bio->op == PV_BIO_FLUSH);
}

static void file_submit(struct pv_bdev *bdev, struct pv_bio *bio)
{
	struct pv_file *file = (struct pv_file *)bdev;
	struct pv_file_request *request = calloc(1, sizeof(*request));
	int r;

	if (!request) {
		pv_bio_done(bdev, bio, -ENOMEM);
		return;
	}
	request->bio = bio;
	request->iov = bio->iov;
	request->iovcnt = bio->iovcnt;
	r = prepare_bounce(file, request);
	if (r < 0) {
		free_request(request);
		pv_bio_done(bdev, bio, r);
		return;
	}
	if (goes_to_ring(file, bio)) {
		if (pv_file_uring_submit(file->uring, request))
			return;
		file->uring_failed = true;
	}
	pv_file_pool_submit(&file->pool, request);
}

static int size_of(const struct pv_file *file, uint64_t *ret_size)
{
	struct stat st;
	uint64_t size;

	if (file->is_block) {
		if (ioctl(file->fd, BLKGETSIZE64, &size) < 0)
			return -errno;
	} else {
		if (fstat(file->fd, &st) < 0)
			return -errno;
		size = (uint64_t)st.st_size;
	}
	*ret_size = size / file->bdev.sector_size * file->bdev.sector_size;
	return 0;
}

static int file_refresh(struct pv_bdev *bdev, struct pv_error *err)
{
	uint64_t size;
	int r = size_of((struct pv_file *)bdev, &size);

	if (r < 0)
		return pv_fail(err, r, bdev->label, "cannot tell the size: %s", pv_strerror(r));
	pv_bdev_set_size(bdev, size);
	return 0;
}

static void file_describe(struct pv_bdev *bdev, struct json_object *into)
{
	struct pv_file *file = (struct pv_file *)bdev;

	PV_LOCK_SCOPE(&file->hold_lock);
	pv_json_add_string(into, "backend", file->uring && !file->uring_failed ? "io_uring" : "threads");
	pv_json_add_bool(into, "direct", file->direct);
	pv_json_add_u64(into, "errors", file->errors);
	pv_json_add_u64(into, "held", file->held_count);
	pv_json_add_u64(into, "held_total", file->held_total);
}

static void file_close(struct pv_bdev *bdev)
{
	struct pv_file *file = (struct pv_file *)bdev;

	pv_file_uring_close(file->uring);
	pv_file_pool_fini(&file->pool);
	if (file->retrier_runs) {
		pthread_mutex_lock(&file->hold_lock);
		file->stop = true;
		pthread_cond_signal(&file->hold_changed);
		pthread_mutex_unlock(&file->hold_lock);
		pthread_join(file->retrier, NULL);
	}
	pthread_cond_destroy(&file->hold_changed);
	pthread_mutex_destroy(&file->hold_lock);
	close(file->fd);
	pv_bdev_fini(bdev);
	free(file);
}

static const struct pv_bdev_ops file_ops = {.name = "file",
	.submit = file_submit,
	.refresh = file_refresh,
	.describe = file_describe,
	.close = file_close};

/* A number out of sysfs about the disk that is, or holds, the file; partitions have none of their own. */
static uint64_t queue_value(dev_t dev, const char *name, uint64_t otherwise)
{
	static const char *const places[] = {"", "/.."};
	unsigned long long value;

	for (size_t i = 0; i < 2; i++) {
		pv_autofclose FILE *f = NULL;
		char path[128];

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u%s/queue/%s", major(dev), minor(dev),
			places[i], name);
		f = fopen(path, "re");
		if (f && fscanf(f, "%llu", &value) == 1)
			return value;
	}
	return otherwise;
}

/* Unit of direct I/O's offsets; 0 = it cannot be told. */
static uint32_t direct_alignment(int fd)
{
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && (stx.stx_mask & STATX_DIOALIGN))
		return stx.stx_dio_offset_align;
#endif
	return 0;
}

static void block_geometry(struct pv_file *file, const struct stat *st)
{
	unsigned physical = 0;
	int logical = 0;

	if (ioctl(file->fd, BLKSSZGET, &logical) == 0 && file->direct &&
		(uint32_t)logical > file->bdev.sector_size)
		file->bdev.sector_size = (uint32_t)logical;
	if (ioctl(file->fd, BLKPBSZGET, &physical) == 0 && physical > file->bdev.physical_size)
		file->bdev.physical_size = physical;
	file->bdev.rotational = queue_value(st->st_rdev, "rotational", 0);
	file->bdev.can_discard = queue_value(st->st_rdev, "discard_max_bytes", 0) > 0;
}

static void file_geometry(struct pv_file *file, const struct stat *st)
{
	file->bdev.rotational = queue_value(st->st_dev, "rotational", 0);
	if (st->st_blksize > (blksize_t)file->bdev.physical_size && st->st_blksize <= 65536)
		file->bdev.physical_size = (uint32_t)st->st_blksize;
	/* A hole behind the end changes nothing, and tells whether holes can be made. */
	file->bdev.can_discard =
		!file->bdev.read_only && fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
						 (st->st_size + 65535) / 65536 * 65536 + 65536, 65536) == 0;
}

static int geometry(struct pv_file *file, struct pv_error *err)
{
	const char *label = file->bdev.label;
	uint32_t direct_unit;
	uint64_t size;
	struct stat st;
	int r;

	if (fstat(file->fd, &st) < 0) {
		r = -errno;
		return pv_fail(err, r, label, "cannot examine the container: %s", pv_strerror(r));
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return pv_fail(err, -EINVAL, label, "neither a file nor a block device");
	file->is_block = S_ISBLK(st.st_mode);
	if (file->is_block)
		block_geometry(file, &st);
	else
		file_geometry(file, &st);
	direct_unit = file->direct ? direct_alignment(file->fd) : 0;
	if (direct_unit > file->bdev.sector_size)
		file->bdev.sector_size = direct_unit;
	if (file->bdev.physical_size < file->bdev.sector_size)
		file->bdev.physical_size = file->bdev.sector_size;
	r = size_of(file, &size);
	if (r < 0)
		return pv_fail(err, r, label, "cannot tell the size: %s", pv_strerror(r));
	file->bdev.size = size;
	return 0;
}

int pv_file_open(
	int fd, const struct pv_file_options *options, struct pv_bdev **ret_bdev, struct pv_error *err)
{
	uint32_t sector_size = options->sector_size ? options->sector_size : 512;
	struct pv_file *file = calloc(1, sizeof(*file));
	pthread_condattr_t monotonic;
	int r;

	if (!file) {
		close(fd);
		return pv_fail(err, -ENOMEM, options->label, "out of memory");
	}
	file->fd = fd;
	file->direct = options->direct;
	file->hold_on_full = options->hold_on_full;
	file->ring_writes = options->direct || options->backend == PV_FILE_URING;
	file->held_last = &file->held;
	pthread_mutex_init(&file->hold_lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&file->hold_changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	r = pv_bdev_init(&file->bdev, &file_ops, options->label, NULL, 0, sector_size);
	if (r == 0)
		r = pv_file_pool_init(&file->pool, file, options->threads ? options->threads : 8);
	if (r < 0) {
		pv_fail(err, r, options->label, "out of memory");
		goto failed;
	}
	file->bdev.read_only = options->read_only;
	r = geometry(file, err);
	if (r < 0)
		goto failed;
	if (options->backend != PV_FILE_THREADS)
		file->uring = pv_file_uring_open(file);
	if (options->backend == PV_FILE_URING && !file->uring) {
		r = pv_fail(err, -ENOSYS, options->label, "the kernel refuses io_uring");
		goto failed;
	}
	*ret_bdev = &file->bdev;
	return 0;
failed:
	file_close(&file->bdev);
	return r;
}

uint64_t pv_file_backing_free(struct pv_bdev *bdev)
{
	const struct pv_file *file;
	struct statvfs fs;
	struct stat st;

	while (bdev && bdev->ops != &file_ops)
		bdev = bdev->below;
	file = (const struct pv_file *)bdev;
	if (!file || file->is_block || fstat(file->fd, &st) < 0 || fstatvfs(file->fd, &fs) < 0)
		return UINT64_MAX;
	if ((uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size)
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}
