/*
 * A device in memory with switches for faults, and the start of a test program's pool process. Each program
 * runs libzpool once, with its tests in order.
 */
#ifndef TEST_POOL_DEVICE_H
#define TEST_POOL_DEVICE_H

#include "base/cleanup.h"
#include "base/log.h"
#include "block/bdev.h"
#include "pool/pool.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define DEVICE_ROOM (256ULL << 20)

struct device {
	struct pv_bdev bdev;
	char *data;
	_Atomic bool fail_reads, fail_writes;
	_Atomic unsigned writes, flushes, discards;
};

static inline void device_submit(struct pv_bdev *bdev, struct pv_bio *bio)
{
	struct device *device = (struct device *)bdev;
	char *at = device->data + bio->offset;
	bool write = bio->op == PV_BIO_WRITE;

	device->writes += write;
	device->flushes += bio->op == PV_BIO_FLUSH;
	device->discards += bio->op == PV_BIO_DISCARD;
	if ((write && device->fail_writes) || (bio->op == PV_BIO_READ && device->fail_reads)) {
		pv_bio_done(bdev, bio, -EIO);
		return;
	}
	if (bio->op == PV_BIO_DISCARD)
		memset(at, 0, bio->length);
	for (int i = 0; bio->op != PV_BIO_DISCARD && i < bio->iovcnt; i++) {
		if (write)
			memcpy(at, bio->iov[i].iov_base, bio->iov[i].iov_len);
		else
			memcpy(bio->iov[i].iov_base, at, bio->iov[i].iov_len);
		at += bio->iov[i].iov_len;
	}
	pv_bio_done(bdev, bio, 0);
}

static inline int device_refresh(struct pv_bdev *bdev, struct pv_error *err)
{
	return 0;
}

static inline void device_describe(struct pv_bdev *bdev, struct json_object *into)
{
}

static inline void device_closed(struct pv_bdev *bdev)
{
}

static const struct pv_bdev_ops device_ops = {
	.name = "test",
	.submit = device_submit,
	.refresh = device_refresh,
	.describe = device_describe,
	.close = device_closed,
};

/* Zero-filled; room to grow up to DEVICE_ROOM. */
static inline void device_init(struct device *device, uint64_t size)
{
	memset(device, 0, sizeof(*device));
	device->data = mmap(NULL, DEVICE_ROOM, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(device->data, MAP_FAILED);
	assert_int_equal(pv_bdev_init(&device->bdev, &device_ops, "test", NULL, size, 512), 0);
	device->bdev.can_discard = true;
}

static inline void device_fini(struct device *device)
{
	pv_bdev_fini(&device->bdev);
	munmap(device->data, DEVICE_ROOM);
}

static inline void device_wipe(struct device *device)
{
	assert_int_equal(madvise(device->data, DEVICE_ROOM, MADV_DONTNEED), 0);
}

static inline void device_register(struct device *device, const char *path)
{
	struct pv_error err = {0};

	assert_int_equal(pv_pool_register_device(path, &device->bdev, &err), 0);
}

/* Asserts success and shows the message otherwise. */
#define ok(call)                                                                                             \
	do {                                                                                                 \
		struct pv_error err = {0};                                                                   \
		int ok_result = (call);                                                                      \
                                                                                                             \
		if (ok_result != 0)                                                                          \
			fail_msg("%s: %d %s: %s", #call, ok_result, err.object, err.message);                \
	} while (0)

/* Asserts an error code and a word of the message. */
#define refused(call, code_, word)                                                                           \
	do {                                                                                                 \
		struct pv_error err = {0};                                                                   \
		int refused_result = (call);                                                                 \
                                                                                                             \
		if (refused_result != (code_) || !strstr(err.message, word))                                 \
			fail_msg("%s: %d, not %d; %s: %s", #call, refused_result, code_, err.object,         \
				err.message);                                                                \
	} while (0)

static inline int start_pool(void **state)
{
	static char dir[] = "/tmp/pvol-test-pool.XXXXXX";
	struct pv_pool_options options = {.state_dir = dir, .arc_max = 64 << 20};
	struct pv_error err = {0};

	pv_log_init("test", -1, PV_LOG_WARNING);
	if (!mkdtemp(dir) || pv_pool_start(&options, &err) < 0) {
		fprintf(stderr, "pv_pool_start: %s: %s\n", err.object, err.message);
		return -1;
	}
	*state = dir;
	return 0;
}

static inline int stop_pool(void **state)
{
	pv_pool_stop();
	/* Fails when the library has written a pool cache file into it. */
	return rmdir(*state);
}

/* Value of a status field as text; caller frees. */
static inline char *status_field(const char *pool, const char *field)
{
	struct json_object *status = NULL, *value;
	char *text;

	ok(pv_pool_status(pool, &status, &err));
	assert_true(json_object_object_get_ex(status, field, &value));
	text = strdup(json_object_get_string(value));
	json_object_put(status);
	return text;
}

static inline void assert_status(const char *pool, const char *field, const char *expected)
{
	pv_autofree char *value = status_field(pool, field);

	assert_string_equal(value, expected);
}

#endif
