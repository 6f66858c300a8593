/*
 * Devices for tests, and requests in flight.
 */
#ifndef TEST_BLOCK_FIXTURE_H
#define TEST_BLOCK_FIXTURE_H

#include "../base/fixture.h"
#include "base/cleanup.h"
#include "block/bdev.h"
#include "block/crypt.h"
#include "block/file.h"
#include "block/sim.h"
#include "block/trace.h"

#include <pthread.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

/* An unlinked temporary file. */
static inline int temporary_file(uint64_t size)
{
	char name[] = "/tmp/pv-unit-XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC);

	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static inline struct pv_bdev *mem_device(uint64_t size)
{
	struct pv_bdev *bdev;

	assert_int_equal(pv_mem_open(size, &bdev, NULL), 0);
	return bdev;
}

/* Bytes that differ from place to place and from seed to seed. */
static inline void pattern(uint8_t *data, size_t length, unsigned seed)
{
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (size_t i = 0; i < length; i++) {
		if (i % 8 == 0)
			x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		data[i] = (uint8_t)(x >> (8 * (i % 8)));
	}
}

/* Counts completions of asynchronous requests. */
struct tally {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned done, failed;
	int error;
};
#define TALLY                                                                                                \
	{                                                                                                    \
		.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER                       \
	}

static inline void tally_done(struct pv_bio *bio, int error)
{
	struct tally *t = bio->private;

	PV_LOCK_SCOPE(&t->lock);
	t->done++;
	if (error) {
		t->failed++;
		t->error = error;
	}
	pthread_cond_signal(&t->changed);
}

static inline void tally_wait(struct tally *t, unsigned n)
{
	PV_LOCK_SCOPE(&t->lock);
	while (t->done < n)
		pthread_cond_wait(&t->changed, &t->lock);
}

static inline unsigned tally_count(struct tally *t)
{
	PV_LOCK_SCOPE(&t->lock);
	return t->done;
}

#endif
