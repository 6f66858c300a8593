/*
 * A device in memory. Requests are done in the submitting thread.
 */
#include "block/sim.h"
#include "base/cleanup.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

struct mem {
	struct pv_bdev bdev;
	uint8_t *data;
};

static void mem_submit(struct pv_bdev *bdev, struct pv_bio *bio)
{
	uint8_t *at = ((struct mem *)bdev)->data + bio->offset;

	switch (bio->op) {
	case PV_BIO_READ:
		for (int i = 0; i < bio->iovcnt; at += bio->iov[i++].iov_len)
			memcpy(bio->iov[i].iov_base, at, bio->iov[i].iov_len);
		break;
	case PV_BIO_WRITE:
		for (int i = 0; i < bio->iovcnt; at += bio->iov[i++].iov_len)
			memcpy(at, bio->iov[i].iov_base, bio->iov[i].iov_len);
		break;
	case PV_BIO_DISCARD:
	case PV_BIO_WRITE_ZEROES: memset(at, 0, bio->length); break;
	case PV_BIO_FLUSH: break;
	}
	pv_bio_done(bdev, bio, 0);
}

static int mem_refresh(struct pv_bdev *bdev, struct pv_error *err)
{
	return 0;
}

static void mem_describe(struct pv_bdev *bdev, struct json_object *into)
{
}

static void mem_close(struct pv_bdev *bdev)
{
	struct mem *mem = (struct mem *)bdev;

	munmap(mem->data, bdev->size);
	pv_bdev_fini(bdev);
	free(mem);
}

static const struct pv_bdev_ops mem_ops = {.name = "mem",
	.submit = mem_submit,
	.refresh = mem_refresh,
	.describe = mem_describe,
	.close = mem_close};

int pv_mem_open(uint64_t size, struct pv_bdev **ret_bdev, struct pv_error *err)
{
	struct mem *mem = calloc(1, sizeof(*mem));

	size = size / 512 * 512;
	if (!mem || pv_bdev_init(&mem->bdev, &mem_ops, NULL, NULL, size, 512) < 0) {
		free(mem);
		return pv_fail(err, -ENOMEM, "mem", "out of memory");
	}
	mem->bdev.can_discard = true;
	mem->data = size ? mmap(NULL, size, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
			 : MAP_FAILED;
	if (mem->data == MAP_FAILED) {
		pv_bdev_fini(&mem->bdev);
		free(mem);
		return pv_fail(err, size ? -ENOMEM : -EINVAL, "mem",
			"cannot make a memory device of %llu bytes", (unsigned long long)size);
	}
	*ret_bdev = &mem->bdev;
	return 0;
}
