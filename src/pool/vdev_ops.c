/*
 * The leaf vdev operations of this process. libzpool's table of vdev types refers to `vdev_disk_ops` and
 * `vdev_file_ops` by symbol, so the definitions below, in the executable, take their place (start.c proves
 * it). Every leaf is a registered pv_bdev (devices.c); both types behave alike, and pools are made with type
 * "disk", because a kernel refuses type "file" on a block device.
 *
 * A zio's data is passed on in place: abd_iterate_func() turns its pages into an iovec. The whole path is
 * asynchronous; the completion calls zio_interrupt(), which hands over to ZFS's own threads.
 */
#include "pool/pool_int.h"

#include "base/log.h"

#include <limits.h>
#include <stdatomic.h>
#include <sys/abd.h>
#include <sys/vdev_impl.h>
#include <sys/zio.h>

struct request {
	struct pv_bio bio;
	zio_t *zio;
	void *borrowed; /* linear copy of data in too many pieces, or NULL */
	int used, room;
	struct iovec iov[];
};

static _Atomic uint64_t requests_started;

uint64_t pool_vdev_requests(void)
{
	return atomic_load_explicit(&requests_started, memory_order_relaxed);
}

static int log2_of(uint32_t value)
{
	return value ? 31 - __builtin_clz(value) : SPA_MINBLOCKSHIFT;
}

#ifdef PV_ZFS_2_3_9
#define OPEN_CRED , cred_t *cred
#else
#define OPEN_CRED
#endif

static int device_open(vdev_t *vd, uint64_t *size, uint64_t *max_size, uint64_t *logical_ashift,
	uint64_t *physical_ashift OPEN_CRED)
{
	struct pool_device *device = vd->vdev_tsd;
	struct pv_bdev *bdev;

	if (!vd->vdev_path || vd->vdev_path[0] != '/') {
		vd->vdev_stat.vs_aux = VDEV_AUX_BAD_LABEL;
		return EINVAL;
	}
	if (!device) {
		device = pool_device_open(vd->vdev_path);
		if (!device) {
			vd->vdev_stat.vs_aux = VDEV_AUX_OPEN_FAILED;
			return ENOENT;
		}
		vd->vdev_tsd = device;
	}
	bdev = device->bdev;
	if (!bdev || (bdev->read_only && (spa_mode(vd->vdev_spa) & SPA_MODE_WRITE))) {
		vd->vdev_stat.vs_aux = VDEV_AUX_OPEN_FAILED;
		return bdev ? EROFS : ENXIO;
	}
	vd->vdev_nonrot = !bdev->rotational;
	vd->vdev_has_trim = bdev->can_discard;
	vd->vdev_has_securetrim = B_FALSE;
	*size = *max_size = atomic_load(&bdev->size);
	*logical_ashift = MAX(log2_of(bdev->sector_size), SPA_MINBLOCKSHIFT);
	*physical_ashift = MAX(log2_of(bdev->physical_size), SPA_MINBLOCKSHIFT);
	return 0;
}

static void device_close(vdev_t *vd)
{
	if (vd->vdev_reopening || !vd->vdev_tsd)
		return;
	pool_device_close(vd->vdev_tsd);
	vd->vdev_tsd = NULL;
	vd->vdev_delayed_close = B_FALSE;
}

/* ZFS knows what to do with these; anything else is just an I/O error to it. */
static int zio_error(int error)
{
	switch (-error) {
	case 0: return 0;
	case ENXIO: return ENXIO;
	case EOPNOTSUPP: return ENOTSUP;
	default: return EIO;
	}
}

static void request_done(struct pv_bio *bio, int error)
{
	struct request *request = bio->private;
	zio_t *zio = request->zio;

	if (request->borrowed) {
		if (zio->io_type == ZIO_TYPE_READ)
			abd_return_buf_copy(zio->io_abd, request->borrowed, zio->io_size);
		else
			abd_return_buf(zio->io_abd, request->borrowed, zio->io_size);
	}
	free(request);
	zio->io_error = zio_error(error);
	zio_interrupt(zio);
}

static int count_piece(void *data, size_t length, void *private)
{
	(*(int *)private)++;
	return 0;
}

static int add_piece(void *data, size_t length, void *private)
{
	struct request *request = private;
	struct iovec *last = request->used ? &request->iov[request->used - 1] : NULL;

	if (last && (char *)last->iov_base + last->iov_len == (char *)data)
		last->iov_len += length;
	else
		request->iov[request->used++] = (struct iovec){.iov_base = data, .iov_len = length};
	return 0;
}

static struct request *request_new(zio_t *zio, enum pv_bio_op op)
{
	bool data = op == PV_BIO_READ || op == PV_BIO_WRITE;
	struct request *request;
	int pieces = 0;

	if (data)
		abd_iterate_func(zio->io_abd, 0, zio->io_size, count_piece, &pieces);
	request = malloc(sizeof(*request) + sizeof(struct iovec) * (size_t)pieces);
	if (!request)
		return NULL;
	*request = (struct request){.zio = zio, .room = pieces};
	if (data)
		abd_iterate_func(zio->io_abd, 0, zio->io_size, add_piece, request);
	if (request->used > IOV_MAX) {
		/* Rare (an aggregate of very small blocks), and the devices below want one system call. */
		request->borrowed = op == PV_BIO_WRITE ? abd_borrow_buf_copy(zio->io_abd, zio->io_size)
						       : abd_borrow_buf(zio->io_abd, zio->io_size);
		request->iov[0] = (struct iovec){.iov_base = request->borrowed, .iov_len = zio->io_size};
		request->used = 1;
	}
	request->bio = (struct pv_bio){.op = op,
		.offset = op == PV_BIO_FLUSH ? 0 : zio->io_offset,
		.length = op == PV_BIO_FLUSH ? 0 : zio->io_size,
		.iov = data ? request->iov : NULL,
		.iovcnt = request->used,
		.done = request_done,
		.private = request};
	return request;
}

static void device_io_start(zio_t *zio)
{
	vdev_t *vd = zio->io_vd;
	struct pool_device *device = vd->vdev_tsd;
	struct pv_bdev *bdev = device ? device->bdev : NULL;
	struct request *request;
	enum pv_bio_op op;

	switch (zio->io_type) {
	case ZIO_TYPE_READ: op = PV_BIO_READ; break;
	case ZIO_TYPE_WRITE: op = PV_BIO_WRITE; break;
	case ZIO_TYPE_FLUSH: op = PV_BIO_FLUSH; break;
	case ZIO_TYPE_TRIM: op = PV_BIO_DISCARD; break;
	default:
		zio->io_error = ENOTSUP;
		zio_interrupt(zio);
		return;
	}
	if (!bdev || (op == PV_BIO_FLUSH && !vdev_readable(vd))) {
		zio->io_error = ENXIO;
		zio_interrupt(zio);
		return;
	}
	atomic_fetch_add_explicit(&requests_started, 1, memory_order_relaxed);
	request = request_new(zio, op);
	if (!request) {
		zio->io_error = ENOMEM;
		zio_interrupt(zio);
		return;
	}
	pv_bdev_submit(bdev, &request->bio);
}

static void device_io_done(zio_t *zio)
{
}

static void device_hold(vdev_t *vd)
{
}

#define DEVICE_OPS(type)                                                                                     \
	{                                                                                                    \
		.vdev_op_open = device_open, .vdev_op_close = device_close,                                  \
		.vdev_op_asize = vdev_default_asize, .vdev_op_min_asize = vdev_default_min_asize,            \
		.vdev_op_io_start = device_io_start, .vdev_op_io_done = device_io_done,                      \
		.vdev_op_hold = device_hold, .vdev_op_rele = device_hold,                                    \
		.vdev_op_xlate = vdev_default_xlate, .vdev_op_type = type, .vdev_op_leaf = B_TRUE            \
	}

vdev_ops_t vdev_file_ops = DEVICE_OPS(VDEV_TYPE_FILE);
vdev_ops_t vdev_disk_ops = DEVICE_OPS(VDEV_TYPE_DISK);
