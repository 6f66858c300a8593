/*
 * Recording. Records are written when requests complete, in the completing thread, before the submitter hears
 * of it: so a mark that a submitter writes afterwards stands behind them.
 */
#include "block/trace.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "block/trace_int.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

struct trace {
	struct pv_bdev bdev;
	int fd;
	pthread_mutex_t lock; /* of the file's end and of `next` */
	uint64_t next;        /* sequence number of the next record */
	bool broken;          /* the trace could not be written */
};

struct traced {
	struct trace *trace;
	struct pv_bio *bio;
	struct pv_bio below;
	uint64_t covered; /* of a flush: `next` when it was submitted */
};

/* writev(2) to the end; modifies iov. */
static int write_all(int fd, struct iovec *iov, int count)
{
	while (count) {
		ssize_t n = writev(fd, iov, count > IOV_MAX ? IOV_MAX : count);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		while (count && (size_t)n >= iov->iov_len) {
			n -= (ssize_t)iov->iov_len;
			iov++;
			count--;
		}
		if (count) {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

/* Appends a record; `data` may be NULL. The lock is held. */
static int append(
	struct trace *t, uint32_t op, uint64_t offset, uint64_t length, const struct iovec *data, int count)
{
	struct pv_trace_record record = {.op = htole32(op),
		.offset = htole64(offset),
		.length = htole64(length),
		.sequence = htole64(t->next)};
	pv_autofree struct iovec *iov = NULL;
	int r;

	if (t->broken)
		return -EIO;
	iov = calloc((size_t)count + 1, sizeof(*iov));
	if (!iov)
		return -ENOMEM;
	iov[0] = (struct iovec){&record, sizeof(record)};
	if (count)
		memcpy(iov + 1, data, (size_t)count * sizeof(*iov));
	r = write_all(t->fd, iov, count + 1);
	if (r < 0) {
		/* A hole in the record would make every later cut a lie. */
		t->broken = true;
		return -EIO;
	}
	t->next++;
	return 0;
}

static int append_zeroes(struct trace *t, uint64_t offset, uint64_t length)
{
	static const uint8_t zeros[65536];
	int r = 0;

	for (uint64_t n; length && r == 0; offset += n, length -= n) {
		struct iovec iov = {
			(void *)(uintptr_t)zeros, n = length < sizeof(zeros) ? length : sizeof(zeros)};

		r = append(t, PV_TRACE_WRITE, offset, n, &iov, 1);
	}
	return r;
}

static int record(struct trace *t, const struct traced *traced)
{
	const struct pv_bio *bio = traced->bio;

	PV_LOCK_SCOPE(&t->lock);
	switch (bio->op) {
	case PV_BIO_READ: return 0;
	case PV_BIO_WRITE: return append(t, PV_TRACE_WRITE, bio->offset, bio->length, bio->iov, bio->iovcnt);
	case PV_BIO_WRITE_ZEROES: return append_zeroes(t, bio->offset, bio->length);
	case PV_BIO_FLUSH: return append(t, PV_TRACE_FLUSH, traced->covered, 0, NULL, 0);
	case PV_BIO_DISCARD: return append(t, PV_TRACE_DISCARD, bio->offset, bio->length, NULL, 0);
	}
	return -EINVAL;
}

static void completed(struct pv_bio *below, int error)
{
	struct traced *traced = below->private;
	struct trace *t = traced->trace;
	struct pv_bio *bio = traced->bio;

	if (error == 0)
		error = record(t, traced);
	free(traced);
	pv_bio_done(&t->bdev, bio, error);
}

static void trace_submit(struct pv_bdev *bdev, struct pv_bio *bio)
{
	struct trace *t = (struct trace *)bdev;
	struct traced *traced = calloc(1, sizeof(*traced));

	if (!traced) {
		pv_bio_done(bdev, bio, -ENOMEM);
		return;
	}
	traced->trace = t;
	traced->bio = bio;
	traced->below = *bio;
	traced->below.done = completed;
	traced->below.private = traced;
	if (bio->op == PV_BIO_FLUSH) {
		pthread_mutex_lock(&t->lock);
		traced->covered = t->next;
		pthread_mutex_unlock(&t->lock);
	}
	pv_bdev_submit(bdev->below, &traced->below);
}

static int trace_refresh(struct pv_bdev *bdev, struct pv_error *err)
{
	pv_bdev_set_size(bdev, bdev->below->size);
	return 0;
}

static void trace_describe(struct pv_bdev *bdev, struct json_object *into)
{
	struct trace *t = (struct trace *)bdev;

	PV_LOCK_SCOPE(&t->lock);
	pv_json_add_u64(into, "records", t->next);
	pv_json_add_bool(into, "broken", t->broken);
}

static void trace_close(struct pv_bdev *bdev)
{
	struct trace *t = (struct trace *)bdev;

	close(t->fd);
	pthread_mutex_destroy(&t->lock);
	pv_bdev_fini(bdev);
	free(t);
}

static const struct pv_bdev_ops trace_ops = {.name = "trace",
	.submit = trace_submit,
	.refresh = trace_refresh,
	.describe = trace_describe,
	.close = trace_close};

/* Makes the file ready for appending. */
static int begin(struct trace *t, int fd, struct pv_error *err)
{
	struct pv_trace_header header = {.magic = PV_TRACE_MAGIC, .device_size = htole64(t->bdev.size)};
	struct pv_trace_reader reader;
	struct iovec iov = {&header, sizeof(header)};
	struct pv_trace_entry entry;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		goto failed;
	if (st.st_size == 0) {
		r = write_all(fd, &iov, 1);
		return r < 0 ? pv_fail(err, r, "trace", "cannot write: %s", pv_strerror(r)) : 0;
	}
	r = pv_trace_reader_init(&reader, fd, err);
	while (r >= 0 && (r = pv_trace_next(&reader, &entry)) > 0)
		t->next++;
	if (r < 0)
		return r;
	if (ftruncate(fd, (off_t)reader.position) < 0 || lseek(fd, 0, SEEK_END) < 0)
		goto failed;
	return 0;
failed:
	r = -errno;
	return pv_fail(err, r, "trace", "cannot prepare the trace file: %s", pv_strerror(r));
}

int pv_trace_open(struct pv_bdev *below, int trace_fd, struct pv_bdev **ret_bdev, struct pv_error *err)
{
	struct trace *t = calloc(1, sizeof(*t));
	int r;

	if (!t || pv_bdev_init(&t->bdev, &trace_ops, NULL, below, below->size, below->sector_size) < 0) {
		free(t);
		close(trace_fd);
		return pv_fail(err, -ENOMEM, below->label, "out of memory");
	}
	t->fd = trace_fd;
	pthread_mutex_init(&t->lock, NULL);
	r = begin(t, trace_fd, err);
	if (r < 0) {
		trace_close(&t->bdev);
		return r;
	}
	*ret_bdev = &t->bdev;
	return 0;
}

int pv_trace_mark(struct pv_bdev *bdev, const char *text)
{
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
	struct trace *t;

	while (bdev && bdev->ops != &trace_ops)
		bdev = bdev->below;
	if (!bdev)
		return -ENODEV;
	t = (struct trace *)bdev;
	PV_LOCK_SCOPE(&t->lock);
	return append(t, PV_TRACE_MARK, 0, iov.iov_len, &iov, 1);
}
