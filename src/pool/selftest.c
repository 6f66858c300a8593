/*
 * The self-test: one small pool on a simulated device in memory, made, written, exported, imported, read
 * back. It shows in this very process, before any real device is touched, that libzpool runs on our vdev
 * operations and memory functions and that its structures are the ones this program was compiled with.
 */
#include "pool/pool_int.h"

#include "base/cleanup.h"

#include <stdatomic.h>
#include <sys/dmu.h>
#include <sys/dmu_objset.h>
#include <sys/mman.h>
#include <sys/txg.h>

#define DEVICE_SIZE (SPA_MINDEVSIZE)
#define DEVICE_PATH "/pvol/selftest"
#define POOL_NAME "pvol-selftest"
#define DATA_SIZE 8192

struct memory {
	struct pv_bdev bdev;
	char *data;
};

static void memory_submit(struct pv_bdev *bdev, struct pv_bio *bio)
{
	struct memory *memory = (struct memory *)bdev;
	char *at = memory->data + bio->offset;

	if (bio->op == PV_BIO_READ || bio->op == PV_BIO_WRITE) {
		for (int i = 0; i < bio->iovcnt; i++) {
			if (bio->op == PV_BIO_READ)
				memcpy(bio->iov[i].iov_base, at, bio->iov[i].iov_len);
			else
				memcpy(at, bio->iov[i].iov_base, bio->iov[i].iov_len);
			at += bio->iov[i].iov_len;
		}
	}
	pv_bio_done(bdev, bio, 0);
}

static int memory_refresh(struct pv_bdev *bdev, struct pv_error *err)
{
	return 0;
}

static void memory_describe(struct pv_bdev *bdev, struct json_object *into)
{
}

static void memory_close(struct pv_bdev *bdev)
{
}

static const struct pv_bdev_ops memory_ops = {
	.name = "mem",
	.submit = memory_submit,
	.refresh = memory_refresh,
	.describe = memory_describe,
	.close = memory_close,
};

static int with_objset(bool write, uint64_t *object, char *data)
{
	objset_t *os;
	int error = dmu_objset_own(POOL_NAME, DMU_OST_ZFS, !write, B_FALSE, FTAG, &os);

	if (error)
		return error;
	if (write) {
		dmu_tx_t *tx = dmu_tx_create(os);

		dmu_tx_hold_write(tx, DMU_NEW_OBJECT, 0, DATA_SIZE);
		error = dmu_tx_assign(tx, DMU_TX_WAIT);
		if (error) {
			dmu_tx_abort(tx);
		} else {
			*object = dmu_object_alloc(os, DMU_OT_PLAIN_FILE_CONTENTS, 0, DMU_OT_NONE, 0, tx);
			dmu_write(os, *object, 0, DATA_SIZE, data, tx);
			dmu_tx_commit(tx);
			txg_wait_synced(dmu_objset_pool(os), 0);
		}
	} else {
		error = dmu_read(os, *object, 0, DATA_SIZE, data, DMU_READ_PREFETCH);
	}
	dmu_objset_disown(os, B_FALSE, FTAG);
	return error;
}

static int run(struct pv_error *err)
{
	const char *device = DEVICE_PATH;
	struct pv_pool_create create = {.name = POOL_NAME, .devices = &device, .ndevices = 1};
	struct pv_pool_import import = {.name = POOL_NAME};
	pv_autofree char *wrote = malloc(DATA_SIZE), *found = malloc(DATA_SIZE);
	uint64_t object = 0;
	int error;

	if (!wrote || !found)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	for (int i = 0; i < DATA_SIZE; i++)
		wrote[i] = (char)(i * 31 + i / 255);
	error = pv_pool_create(&create, err);
	if (error < 0)
		return error;
	error = with_objset(true, &object, wrote);
	if (error)
		return pv_fail(err, -EIO, POOL_NAME, "writing failed with %d", error);
	error = pv_pool_export(POOL_NAME, false, err);
	if (error == 0)
		error = pv_pool_import(&import, NULL, err);
	if (error < 0)
		return error;
	error = with_objset(false, &object, found);
	if (error || memcmp(wrote, found, DATA_SIZE) != 0)
		return pv_fail(err, -EIO, POOL_NAME, "what was written did not come back (%d)", error);
	return 0;
}

int pool_selftest(struct pv_error *err)
{
	struct memory memory = {0};
	struct pv_error inner = {0};
	int error;

	memory.data = mmap(NULL, DEVICE_SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory.data == MAP_FAILED)
		return pv_fail(err, -ENOMEM, NULL, "out of memory for the self-test");
	error = pv_bdev_init(&memory.bdev, &memory_ops, "selftest", NULL, DEVICE_SIZE, 4096);
	if (error < 0) {
		munmap(memory.data, DEVICE_SIZE);
		return pv_fail(err, error, NULL, "out of memory for the self-test");
	}
	error = pv_pool_register_device(DEVICE_PATH, &memory.bdev, &inner);
	if (error == 0) {
		error = run(&inner);
		(void)pv_pool_export(POOL_NAME, true, NULL);
		pv_pool_unregister_device(DEVICE_PATH);
	}
	pv_bdev_fini(&memory.bdev);
	munmap(memory.data, DEVICE_SIZE);
	if (error == 0 && pool_vdev_requests() == 0)
		error = pv_fail(
			&inner, -ENOTSUP, NULL, "libzpool did not call this program's vdev operations");
	if (error == 0 && pool_memory_calls() == 0)
		error = pv_fail(
			&inner, -ENOTSUP, NULL, "libzpool did not call this program's memory functions");
	if (error < 0)
		return pv_fail(err, error, "libzpool", "the self-test failed: %s", inner.message);
	return 0;
}
