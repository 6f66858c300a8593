/* Traces: a recorded run rebuilt at every cut, held against a model of what had been promised there. */
#include "fixture.h"

#define SECTORS 32
#define WRITES 60

/* Everything written so far to each sector, and which of it was flushed: versions are numbers in the data. */
struct model {
	unsigned long records;
	struct {
		uint32_t version[SECTORS]; /* newest */
		uint32_t durable[SECTORS]; /* newest flushed */
	} at[2 * WRITES + 10];             /* after so many records */
};

static struct model model;
static int trace_fd;

static void put_version(uint8_t *sector, uint32_t version)
{
	for (size_t i = 0; i < 512; i += 4)
		memcpy(sector + i, &version, 4);
}

static void advance(void)
{
	model.at[model.records + 1] = model.at[model.records];
	model.records++;
}

/* Writes of one to four sectors, a flush now and then, marks that tell the flushed version. */
static int record(void **state)
{
	struct pv_bdev *bdev;
	uint8_t data[4 * 512];
	unsigned seed = 42;

	trace_fd = temporary_file(0);
	memset(&model, 0, sizeof(model));
	assert_int_equal(pv_trace_open(mem_device(SECTORS * 512), dup(trace_fd), &bdev, NULL), 0);
	for (uint32_t version = 1; version <= WRITES; version++) {
		uint64_t at = (uint64_t)rand_r(&seed) % (SECTORS - 4);
		uint64_t n = 1 + (uint64_t)rand_r(&seed) % 4;

		for (uint64_t i = 0; i < n; i++)
			put_version(data + 512 * i, version);
		assert_int_equal(pv_bdev_write(bdev, data, n * 512, at * 512), 0);
		advance();
		for (uint64_t i = 0; i < n; i++)
			model.at[model.records].version[at + i] = version;
		if (version % 7 == 0) {
			assert_int_equal(pv_bdev_flush(bdev), 0);
			advance();
			memcpy(model.at[model.records].durable, model.at[model.records].version,
				sizeof(model.at[0].durable));
		}
		if (version % 20 == 0) {
			char text[32];

			snprintf(text, sizeof(text), "version %u", version);
			assert_int_equal(pv_trace_mark(bdev, text), 0);
			advance();
		}
	}
	pv_bdev_close(bdev);
	return 0;
}

static int forget(void **state)
{
	close(trace_fd);
	return 0;
}

static void summary_counts(void **state)
{
	struct pv_trace_summary s;

	assert_int_equal(pv_trace_summary(trace_fd, &s, NULL), 0);
	assert_int_equal(s.records, model.records);
	assert_int_equal(s.writes, WRITES);
	assert_int_equal(s.flushes, WRITES / 7);
	assert_int_equal(s.marks, WRITES / 20);
	assert_int_equal(s.device_size, SECTORS * 512);
}

static void count_mark(const char *text, void *private)
{
	unsigned version;

	assert_int_equal(sscanf(text, "version %u", &version), 1);
	*(unsigned *)private = version;
}

static void check_image(int image, unsigned long cut, bool exact)
{
	uint8_t data[SECTORS * 512], expected[512];
	uint32_t version;

	assert_int_equal(pread(image, data, sizeof(data), 0), (ssize_t)sizeof(data));
	for (size_t i = 0; i < SECTORS; i++) {
		memcpy(&version, data + 512 * i, 4);
		/* Never older than what was flushed, never newer than what was written, never torn in a
		 * sector. */
		assert_true(version >= (exact ? model.at[cut].version[i] : model.at[cut].durable[i]));
		assert_true(version <= model.at[cut].version[i]);
		put_version(expected, version);
		assert_memory_equal(data + 512 * i, expected, 512);
	}
}

static int replayed_image(unsigned long cut, uint64_t seed, unsigned *ret_marked)
{
	int image = temporary_file(0);

	*ret_marked = 0;
	assert_int_equal(pv_trace_replay(trace_fd, image, cut, seed, count_mark, ret_marked, NULL), 0);
	return image;
}

static void every_cut(void **state)
{
	unsigned marked, differing = 0, last = 0;

	for (unsigned long cut = 0; cut <= model.records; cut++) {
		pv_autoclose int plain = replayed_image(cut, 0, &marked);
		uint8_t a[SECTORS * 512], b[SECTORS * 512];

		check_image(plain, cut, true);
		assert_true(marked >= last && marked <= last + 20);
		last = marked;
		assert_int_equal(pread(plain, a, sizeof(a), 0), (ssize_t)sizeof(a));
		for (uint64_t seed = 1; seed <= 10; seed++) {
			pv_autoclose int image = replayed_image(cut, seed, &marked);

			check_image(image, cut, false);
			assert_int_equal(pread(image, b, sizeof(b), 0), (ssize_t)sizeof(b));
			differing += memcmp(a, b, sizeof(a)) != 0;
		}
	}
	assert_int_equal(last, 60);
	/* It does lose what it may lose. */
	assert_true(differing > 300);
}

static void same_seed_same_image(void **state)
{
	unsigned marked;

	for (uint64_t seed = 1; seed < 20; seed++) {
		pv_autoclose int a = replayed_image(model.records - 2, seed, &marked);
		pv_autoclose int b = replayed_image(model.records - 2, seed, &marked);
		uint8_t x[SECTORS * 512], y[SECTORS * 512];

		assert_int_equal(pread(a, x, sizeof(x), 0), (ssize_t)sizeof(x));
		assert_int_equal(pread(b, y, sizeof(y), 0), (ssize_t)sizeof(y));
		assert_memory_equal(x, y, sizeof(x));
	}
}

/* The recorder was killed while it wrote: all but the last record count, and recording can go on. */
static void a_torn_tail_is_ignored(void **state)
{
	const struct pv_sim_options options = {.seed = 1};
	struct pv_trace_summary s;
	struct pv_bdev *bdev, *below;
	uint8_t data[512] = {0};
	off_t size = lseek(trace_fd, 0, SEEK_END);

	assert_int_equal(pwrite(trace_fd, "\1\0\0\0garbage", 11, size), 11);
	assert_int_equal(pv_trace_summary(trace_fd, &s, NULL), 0);
	assert_int_equal(s.records, model.records);
	assert_int_equal(pv_sim_open(mem_device(SECTORS * 512), &options, &below, NULL), 0);
	assert_int_equal(pv_trace_open(below, dup(trace_fd), &bdev, NULL), 0);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 0), 0);
	/* A write that failed below is none. */
	pv_sim_power_cut(bdev);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 0), -EIO);
	pv_bdev_close(bdev);
	assert_int_equal(pv_trace_summary(trace_fd, &s, NULL), 0);
	assert_int_equal(s.records, model.records + 1);
	assert_int_equal(ftruncate(trace_fd, size), 0);
}

static void not_a_trace(void **state)
{
	pv_autoclose int fd = temporary_file(4096), empty = temporary_file(0);
	struct pv_bdev *below = mem_device(4096), *bdev = NULL;
	struct pv_trace_summary s;
	struct pv_error err;

	assert_int_equal(pv_trace_summary(fd, &s, &err), -EUCLEAN);
	assert_int_equal(pv_trace_summary(empty, &s, &err), -ENODATA);
	assert_int_equal(pv_trace_open(below, dup(fd), &bdev, &err), -EUCLEAN);
	assert_null(bdev);
	pv_bdev_close(below);
}

/* A write that completes while a flush runs is not covered by it, whatever the order of the records. */
static void flush_covers_what_came_before_it(void **state)
{
	pv_autoclose int fd = temporary_file(0);
	struct {
		uint32_t op, zero;
		uint64_t offset, length, sequence;
	} w = {1, 0, 0, 512, 0}, f = {2, 0, 0, 0, 1};
	uint8_t data[512], back[512];
	uint64_t size = 4096;
	unsigned lost = 0;

	memset(data, 1, sizeof(data));
	assert_int_equal(write(fd, "PVTRACE1", 8), 8);
	assert_int_equal(write(fd, &size, 8), 8);
	assert_int_equal(write(fd, &w, 32), 32);
	assert_int_equal(write(fd, data, 512), 512);
	assert_int_equal(write(fd, &f, 32), 32);
	for (uint64_t seed = 1; seed <= 50; seed++) {
		pv_autoclose int image = temporary_file(0);

		assert_int_equal(pv_trace_replay(fd, image, 2, seed, NULL, NULL, NULL), 0);
		assert_int_equal(pread(image, back, 512, 0), 512);
		lost += back[0] == 0;
	}
	assert_true(lost > 10 && lost < 50);
}

/* A device whose flushes wait for release(). */
struct gate {
	struct pv_bdev bdev;
	struct pv_bio *flush;
};

static void gate_submit(struct pv_bdev *bdev, struct pv_bio *bio)
{
	if (bio->op == PV_BIO_FLUSH)
		((struct gate *)bdev)->flush = bio;
	else
		pv_bio_done(bdev, bio, 0);
}

static void gate_close(struct pv_bdev *bdev)
{
	pv_bdev_fini(bdev);
}

static void gate_describe(struct pv_bdev *bdev, struct json_object *into)
{
}

static int gate_refresh(struct pv_bdev *bdev, struct pv_error *err)
{
	return 0;
}

static const struct pv_bdev_ops gate_ops = {.name = "gate",
	.submit = gate_submit,
	.refresh = gate_refresh,
	.describe = gate_describe,
	.close = gate_close};

/* The recorder's side of the same: the first write is durable, the one that overtakes the flush is not. */
static void recorded_flush_covers_what_came_before_it(void **state)
{
	struct gate gate = {.flush = NULL};
	pv_autoclose int fd = temporary_file(0);
	struct pv_bdev *bdev;
	struct tally t = TALLY;
	struct pv_bio flush = {.op = PV_BIO_FLUSH, .done = tally_done, .private = &t};
	uint8_t data[512], back[1024];
	unsigned lost = 0;

	memset(data, 1, sizeof(data));
	assert_int_equal(pv_bdev_init(&gate.bdev, &gate_ops, "gate", NULL, 4096, 512), 0);
	assert_int_equal(pv_trace_open(&gate.bdev, dup(fd), &bdev, NULL), 0);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 0), 0);
	pv_bdev_submit(bdev, &flush);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 512), 0);
	pv_bio_done(&gate.bdev, gate.flush, 0);
	tally_wait(&t, 1);
	pv_bdev_close(bdev);
	for (uint64_t seed = 1; seed <= 50; seed++) {
		pv_autoclose int image = temporary_file(0);

		assert_int_equal(pv_trace_replay(fd, image, 3, seed, NULL, NULL, NULL), 0);
		assert_int_equal(pread(image, back, 1024, 0), 1024);
		assert_int_equal(back[0], 1);
		lost += back[512] == 0;
	}
	assert_true(lost > 10 && lost < 50);
}

static void zeroes_and_discards(void **state)
{
	pv_autoclose int fd = temporary_file(0), image = temporary_file(0);
	struct tally t = TALLY;
	struct pv_bio bio = {.op = PV_BIO_WRITE_ZEROES,
		.offset = 0,
		.length = 100 * 512,
		.done = tally_done,
		.private = &t};
	struct pv_bdev *bdev;
	uint8_t data[1024];

	assert_int_equal(pv_trace_open(mem_device(MIB), dup(fd), &bdev, NULL), 0);
	memset(data, 3, sizeof(data));
	assert_int_equal(pv_bdev_write(bdev, data, 1024, 512), 0);
	assert_int_equal(pv_bdev_write(bdev, data, 1024, 200 * 512), 0);
	pv_bdev_submit(bdev, &bio);
	tally_wait(&t, 1);
	assert_int_equal(pv_bdev_discard(bdev, 512, 200 * 512), 0);
	pv_bdev_close(bdev);
	assert_int_equal(pv_trace_replay(fd, image, UINT64_MAX, 0, NULL, NULL, NULL), 0);
	assert_int_equal(pread(image, data, 1024, 512), 1024);
	assert_int_equal(data[0], 0);
	assert_int_equal(pread(image, data, 1024, 200 * 512), 1024);
	assert_int_equal(data[0], 0);
	assert_int_equal(data[512], 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(summary_counts),
		cmocka_unit_test(every_cut),
		cmocka_unit_test(same_seed_same_image),
		cmocka_unit_test(a_torn_tail_is_ignored),
		cmocka_unit_test(not_a_trace),
		cmocka_unit_test(flush_covers_what_came_before_it),
		cmocka_unit_test(recorded_flush_covers_what_came_before_it),
		cmocka_unit_test(zeroes_and_discards),
	};

	return cmocka_run_group_tests(tests, record, forget);
}
