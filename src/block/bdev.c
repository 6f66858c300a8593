/*
 * What all block devices share: checks at the top, accounting of requests in flight, synchronous forms,
 * closing.
 */
#include "block/bdev.h"
#include "base/cleanup.h"
#include "base/json.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

int pv_bdev_init(struct pv_bdev *bdev, const struct pv_bdev_ops *ops, const char *label,
	struct pv_bdev *below, uint64_t size, uint32_t sector_size)
{
	if (!label)
		label = below ? below->label : ops->name;
	bdev->label = strdup(label);
	if (!bdev->label)
		return -ENOMEM;
	bdev->ops = ops;
	bdev->size = size;
	bdev->sector_size = sector_size;
	bdev->physical_size = sector_size;
	if (below) {
		bdev->below = below;
		below->above = bdev;
		if (below->physical_size > sector_size)
			bdev->physical_size = below->physical_size;
		bdev->read_only = below->read_only;
		bdev->can_discard = below->can_discard;
		bdev->rotational = below->rotational;
	}
	return 0;
}

void pv_bdev_fini(struct pv_bdev *bdev)
{
	if (bdev->below)
		bdev->below->above = NULL;
	free(bdev->label);
	bdev->label = NULL;
}

void pv_bio_done(struct pv_bdev *bdev, struct pv_bio *bio, int error)
{
	if (error && bio->op == PV_BIO_FLUSH && !atomic_exchange(&bdev->failed, true) && bdev->lost)
		bdev->lost(bdev, error);
	bio->done(bio, error);
	/* Last: the device may be gone as soon as nothing is in flight. */
	bdev->inflight--;
}

static bool iov_sums_up(const struct pv_bio *bio)
{
	uint64_t sum = 0;

	for (int i = 0; i < bio->iovcnt; i++)
		sum += bio->iov[i].iov_len;
	return sum == bio->length;
}

/* 0 go on, else the result. */
static int check(const struct pv_bdev *bdev, const struct pv_bio *bio)
{
	bool modifies = bio->op != PV_BIO_READ && bio->op != PV_BIO_FLUSH;

	if (bdev->failed && bio->op != PV_BIO_READ)
		return -EIO;
	if (bio->op == PV_BIO_FLUSH)
		return 0;
	if (modifies && bdev->read_only)
		return -EROFS;
	if (bio->op == PV_BIO_DISCARD && !bdev->can_discard)
		return -EOPNOTSUPP;
	if (bio->length == 0 || bio->offset > bdev->size || bio->length > bdev->size - bio->offset)
		return -EINVAL;
	if (bio->offset % bdev->sector_size || bio->length % bdev->sector_size)
		return -EINVAL;
	if ((bio->op == PV_BIO_READ || bio->op == PV_BIO_WRITE) && !iov_sums_up(bio))
		return -EINVAL;
	return 0;
}

void pv_bdev_submit(struct pv_bdev *bdev, struct pv_bio *bio)
{
	int r = check(bdev, bio);

	bdev->inflight++;
	if (r < 0 || (bio->op == PV_BIO_FLUSH && bdev->read_only))
		pv_bio_done(bdev, bio, r);
	else
		bdev->ops->submit(bdev, bio);
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int error;
};

static void wake(struct pv_bio *bio, int error)
{
	struct waiter *w = bio->private;

	/* Signalled under the lock: the waiter's stack frame is gone once it sees `done` unlocked. */
	PV_LOCK_SCOPE(&w->lock);
	w->done = true;
	w->error = error;
	pthread_cond_signal(&w->cond);
}

static int run(struct pv_bdev *bdev, enum pv_bio_op op, void *data, uint64_t length, uint64_t offset)
{
	struct waiter w = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
	struct iovec iov = {.iov_base = data, .iov_len = data ? length : 0};
	struct pv_bio bio = {.op = op,
		.offset = offset,
		.length = length,
		.iov = &iov,
		.iovcnt = data ? 1 : 0,
		.done = wake,
		.private = &w};

	pv_bdev_submit(bdev, &bio);
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	return w.error;
}

int pv_bdev_read(struct pv_bdev *bdev, void *data, size_t length, uint64_t offset)
{
	return run(bdev, PV_BIO_READ, data, length, offset);
}

int pv_bdev_write(struct pv_bdev *bdev, const void *data, size_t length, uint64_t offset)
{
	return run(bdev, PV_BIO_WRITE, (void *)(uintptr_t)data, length, offset);
}

int pv_bdev_flush(struct pv_bdev *bdev)
{
	return run(bdev, PV_BIO_FLUSH, NULL, 0, 0);
}

int pv_bdev_discard(struct pv_bdev *bdev, uint64_t length, uint64_t offset)
{
	return run(bdev, PV_BIO_DISCARD, NULL, length, offset);
}

int pv_bdev_refresh(struct pv_bdev *bdev, struct pv_error *err)
{
	if (bdev->below) {
		int r = pv_bdev_refresh(bdev->below, err);

		if (r < 0)
			return r;
	}
	return bdev->ops->refresh(bdev, err);
}

void pv_bdev_set_size(struct pv_bdev *bdev, uint64_t size)
{
	bool grown = size > bdev->size;

	bdev->size = size;
	if (grown && bdev->resized)
		bdev->resized(bdev, size, bdev->resized_private);
}

void pv_bdev_set_full(struct pv_bdev *bdev, bool full)
{
	for (; bdev; bdev = bdev->above)
		bdev->full = full;
}

void pv_bdev_describe(struct pv_bdev *bdev, struct json_object *into)
{
	pv_json_add_string(into, "type", bdev->ops->name);
	pv_json_add_string(into, "label", bdev->label);
	pv_json_add_u64(into, "size", bdev->size);
	pv_json_add_u64(into, "sector_size", bdev->sector_size);
	pv_json_add_u64(into, "physical_size", bdev->physical_size);
	pv_json_add_bool(into, "read_only", bdev->read_only);
	pv_json_add_bool(into, "can_discard", bdev->can_discard);
	pv_json_add_bool(into, "failed", bdev->failed);
	pv_json_add_bool(into, "full", bdev->full);
	bdev->ops->describe(bdev, into);
	if (bdev->below) {
		struct json_object *below = json_object_new_object();

		pv_bdev_describe(bdev->below, below);
		json_object_object_add(into, "below", below);
	}
}

struct pv_bdev *pv_bdev_close(struct pv_bdev *bdev)
{
	const struct timespec moment = {.tv_nsec = 200000};

	if (!bdev)
		return NULL;
	for (struct pv_bdev *b = bdev; b; b = b->below)
		b->closing = true;
	/* Closing is rare: no request should pay for waking this. */
	while (bdev) {
		struct pv_bdev *below = bdev->below;

		while (bdev->inflight)
			nanosleep(&moment, NULL);
		bdev->ops->close(bdev);
		bdev = below;
	}
	return NULL;
}
