/* The simulated disk: seeds, power cuts, faults, space. */
#include "fixture.h"

#define SIZE (256 * KIB)

static struct pv_bdev *sim_on(struct pv_bdev *below, struct pv_sim_options options)
{
	struct pv_bdev *bdev;

	assert_int_equal(pv_sim_open(below, &options, &bdev, NULL), 0);
	return bdev;
}

static void fill(struct pv_bdev *bdev, uint64_t at, size_t length, uint8_t byte)
{
	pv_autofree uint8_t *data = malloc(length);

	memset(data, byte, length);
	assert_int_equal(pv_bdev_write(bdev, data, length, at), 0);
}

/* The medium after a fixed sequence of requests and a power cut. */
static void run_and_cut(uint64_t seed, uint8_t *ret_image, unsigned *ret_errors)
{
	struct pv_bdev *below = mem_device(SIZE), *bdev = sim_on(below, (struct pv_sim_options){.seed = seed,
										.write_error_rate = 0.2,
										.bit_rot_rate = 0.1});
	uint8_t data[8192], back[512];

	*ret_errors = 0;
	for (unsigned i = 0; i < 60; i++) {
		memset(data, (int)i + 1, sizeof(data));
		*ret_errors = *ret_errors * 31 + (pv_bdev_write(bdev, data, 8192, (i * 7 % 30) * 8192) != 0);
		if (i == 25)
			assert_int_equal(pv_bdev_flush(bdev), 0);
		pv_bdev_read(bdev, back, 512, (i % 100) * 512);
	}
	pv_sim_power_cut(bdev);
	assert_int_equal(pv_bdev_read(below, ret_image, SIZE, 0), 0);
	pv_bdev_close(bdev);
}

static void a_seed_decides_everything(void **state)
{
	pv_autofree uint8_t *a = malloc(SIZE), *b = malloc(SIZE);
	unsigned ea, eb, different = 0;

	for (uint64_t seed = 1; seed <= 5; seed++) {
		run_and_cut(seed, a, &ea);
		run_and_cut(seed, b, &eb);
		assert_memory_equal(a, b, SIZE);
		assert_int_equal(ea, eb);
		run_and_cut(seed + 100, b, &eb);
		different += memcmp(a, b, SIZE) != 0;
	}
	assert_int_equal(different, 5);
}

/*
 * What was flushed is kept; of each later write every 512-byte unit is old or new; and over many seeds all of
 * it happens: kept whole, lost whole, torn, and later kept while earlier is lost.
 */
static void power_cuts(void **state)
{
	unsigned kept = 0, lost = 0, torn = 0, reordered = 0;
	uint8_t image[8 * 4096];

	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct pv_bdev *below = mem_device(SIZE),
			       *bdev = sim_on(below, (struct pv_sim_options){.seed = seed});
		bool whole[8];

		fill(bdev, 0, sizeof(image), 1);
		fill(bdev, SIZE - 4096, 4096, 9);
		assert_int_equal(pv_bdev_flush(bdev), 0);
		for (uint64_t i = 0; i < 8; i++)
			fill(bdev, i * 4096, 4096, 2);
		/* The cache hides nothing from readers. */
		assert_int_equal(pv_bdev_read(bdev, image, sizeof(image), 0), 0);
		for (size_t i = 0; i < sizeof(image); i++)
			assert_int_equal(image[i], 2);
		pv_sim_power_cut(bdev);
		assert_int_equal(pv_bdev_read(bdev, image, 512, 0), -EIO);
		assert_int_equal(pv_bdev_write(bdev, image, 512, 0), -EIO);
		assert_int_equal(pv_bdev_flush(bdev), -EIO);
		pv_sim_power_on(bdev);
		assert_int_equal(pv_bdev_read(bdev, image, 4096, SIZE - 4096), 0);
		assert_int_equal(image[0], 9);
		assert_int_equal(image[4095], 9);
		assert_int_equal(pv_bdev_read(bdev, image, sizeof(image), 0), 0);
		for (size_t i = 0; i < 8; i++) {
			unsigned units = 0;

			for (size_t u = 0; u < 8; u++) {
				const uint8_t *unit = image + i * 4096 + u * 512;

				assert_true(*unit == 1 || *unit == 2);
				for (size_t n = 0; n < 512; n++)
					assert_int_equal(unit[n], *unit);
				units += *unit == 2;
			}
			whole[i] = units == 8;
			kept += units == 8;
			lost += units == 0;
			torn += units > 0 && units < 8;
			reordered += i > 0 && whole[i] && !whole[i - 1];
		}
		fill(bdev, 0, 4096, 3);
		assert_int_equal(pv_bdev_flush(bdev), 0);
		pv_bdev_close(bdev);
	}
	assert_true(kept > 300 && lost > 300 && torn > 300 && reordered > 100);
}

static void unflushed_writes_are_not_below(void **state)
{
	struct pv_bdev *below = mem_device(SIZE), *bdev = sim_on(below, (struct pv_sim_options){.seed = 1});
	uint8_t data[512];

	fill(bdev, 0, 4096, 5);
	assert_int_equal(pv_bdev_read(below, data, 512, 0), 0);
	assert_int_equal(data[0], 0);
	assert_int_equal(pv_bdev_flush(bdev), 0);
	assert_int_equal(pv_bdev_read(below, data, 512, 0), 0);
	assert_int_equal(data[0], 5);
	assert_int_equal(pv_bdev_discard(bdev, 4096, 0), 0);
	assert_int_equal(pv_bdev_read(bdev, data, 512, 0), 0);
	assert_int_equal(data[0], 0);
	pv_bdev_close(bdev);
}

static void a_failed_flush_is_for_good(void **state)
{
	struct pv_sim_options options = {.seed = 1, .flush_error_rate = 1};
	struct pv_bdev *bdev = sim_on(mem_device(SIZE), options);
	uint8_t data[512] = {0};

	fill(bdev, 0, 512, 5);
	assert_int_equal(pv_bdev_flush(bdev), -EIO);
	options.flush_error_rate = 0;
	pv_sim_set(bdev, &options);
	assert_int_equal(pv_bdev_flush(bdev), -EIO);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 0), -EIO);
	assert_int_equal(pv_bdev_read(bdev, data, 512, 0), 0);
	assert_int_equal(data[0], 5);
	pv_bdev_close(bdev);
}

static void rates_are_met(void **state)
{
	struct pv_bdev *bdev =
		sim_on(mem_device(SIZE), (struct pv_sim_options){.seed = 7, .read_error_rate = 0.25});
	unsigned failed = 0;
	uint8_t data[512];

	for (int i = 0; i < 2000; i++)
		failed += pv_bdev_read(bdev, data, 512, 0) != 0;
	assert_true(failed > 400 && failed < 600);
	pv_bdev_close(bdev);
}

static void rot_is_one_bit_and_stays(void **state)
{
	struct pv_sim_options options = {.seed = 3, .bit_rot_rate = 1};
	struct pv_bdev *bdev = sim_on(mem_device(SIZE), options);
	uint8_t data[8192], again[8192];
	unsigned bits = 0;

	assert_int_equal(pv_bdev_read(bdev, data, sizeof(data), 0), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		bits += (unsigned)__builtin_popcount(data[i]);
	assert_int_equal(bits, 1);
	options.bit_rot_rate = 0;
	pv_sim_set(bdev, &options);
	assert_int_equal(pv_bdev_read(bdev, again, sizeof(again), 0), 0);
	assert_memory_equal(data, again, sizeof(data));
	pv_bdev_close(bdev);
}

static void space_runs_out(void **state)
{
	struct pv_sim_options options = {.seed = 1, .space = 8 * 4096};
	struct pv_bdev *bdev = sim_on(mem_device(SIZE), options);
	uint8_t data[4096] = {1};

	for (uint64_t i = 0; i < 8; i++)
		fill(bdev, i * 4096, 4096, 1);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 8 * 4096), -ENOSPC);
	/* In place, and where space was given back. */
	fill(bdev, 0, 8 * 4096, 2);
	assert_int_equal(pv_bdev_discard(bdev, 4096, 0), 0);
	fill(bdev, 9 * 4096, 512, 1);
	assert_int_equal(pv_bdev_write(bdev, data, 512, 0), -ENOSPC);
	pv_bdev_close(bdev);
}

static void held_writes_go_on_with_space(void **state)
{
	struct pv_sim_options options = {.seed = 1, .space = 4096, .hold = true};
	struct pv_bdev *bdev = sim_on(mem_device(SIZE), options);
	uint8_t data[8192] = {1};
	struct iovec iov = {data, sizeof(data)};
	struct tally t = TALLY;
	struct pv_bio bio = {.op = PV_BIO_WRITE,
		.length = 8192,
		.iov = &iov,
		.iovcnt = 1,
		.done = tally_done,
		.private = &t};

	pv_bdev_submit(bdev, &bio);
	fill(bdev, 0, 4096, 1);
	assert_int_equal(tally_count(&t), 0);
	assert_true(bdev->full);
	options.space = 8192;
	pv_sim_set(bdev, &options);
	tally_wait(&t, 1);
	assert_int_equal(t.failed, 0);
	assert_false(bdev->full);
	bio.offset = 16 * KIB;
	pv_bdev_submit(bdev, &bio);
	pv_bdev_close(bdev);
	assert_int_equal(t.done, 2);
	assert_int_equal(t.error, -ENOSPC);
}

static void delayed_requests_overtake(void **state)
{
	enum { N = 50 };
	struct pv_bdev *bdev = sim_on(mem_device(SIZE), (struct pv_sim_options){.seed = 1, .delay_us = 3000});
	uint8_t data[N * 512];
	struct iovec iovs[N];
	struct pv_bio bios[N];
	struct tally t = TALLY;

	for (size_t i = 0; i < N; i++) {
		memset(data + i * 512, (int)i, 512);
		iovs[i] = (struct iovec){data + i * 512, 512};
		bios[i] = (struct pv_bio){.op = PV_BIO_WRITE,
			.offset = 512 * i,
			.length = 512,
			.iov = &iovs[i],
			.iovcnt = 1,
			.done = tally_done,
			.private = &t};
		pv_bdev_submit(bdev, &bios[i]);
	}
	tally_wait(&t, N);
	assert_int_equal(t.failed, 0);
	memset(data, 0xee, sizeof(data));
	assert_int_equal(pv_bdev_read(bdev, data, sizeof(data), 0), 0);
	for (size_t i = 0; i < N; i++)
		assert_int_equal(data[512 * i + 511], i);
	pv_bdev_close(bdev);
}

static void options_as_text(void **state)
{
	struct pv_sim_options o;
	struct pv_error err;
	static const char *const bad[] = {"colour=1", "seed", "seed=x", "seed=-1", "read_error=2",
		"bit_rot=0.1x", "read_error=nan", "atomic_unit=100", "hold=2"};

	assert_int_equal(
		pv_sim_parse("seed=18446744073709551615,flush_error=0.5,space=1048576,hold=1,delay_us=20", &o,
			&err),
		0);
	assert_true(o.seed == UINT64_MAX && o.flush_error_rate == 0.5 && o.space == MIB && o.hold);
	assert_int_equal(o.delay_us, 20);
	assert_int_equal(pv_sim_parse("", &o, &err), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char word[32];

		assert_int_equal(pv_sim_parse(bad[i], &o, &err), -EINVAL);
		snprintf(word, sizeof(word), "\"%.*s\"", (int)strcspn(bad[i], "="), bad[i]);
		assert_non_null(strstr(err.message, word));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_seed_decides_everything),
		cmocka_unit_test(power_cuts),
		cmocka_unit_test(unflushed_writes_are_not_below),
		cmocka_unit_test(a_failed_flush_is_for_good),
		cmocka_unit_test(rates_are_met),
		cmocka_unit_test(rot_is_one_bit_and_stays),
		cmocka_unit_test(space_runs_out),
		cmocka_unit_test(held_writes_go_on_with_space),
		cmocka_unit_test(delayed_requests_overtake),
		cmocka_unit_test(options_as_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
