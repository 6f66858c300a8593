/* The crypt device: its ciphertext against OpenSSL sector by sector, limits, memory, errors from below. */
#include "fixture.h"
#include "base/json.h"

#include <openssl/evp.h>

static const struct pv_segment plain_segment = {
	.offset = MIB, .cipher = "aes-xts-plain64", .key_size = 64, .sector_size = 4096};

static struct pv_secret *test_key(void)
{
	struct pv_secret *key;
	uint8_t bytes[64];

	pattern(bytes, sizeof(bytes), 77);
	assert_int_equal(pv_secret_copy(bytes, sizeof(bytes), &key, NULL), 0);
	return key;
}

static struct pv_bdev *crypt_on(struct pv_bdev *below, const struct pv_segment *segment)
{
	pv_autosecret struct pv_secret *key = test_key();
	struct pv_bdev *bdev;

	assert_int_equal(pv_crypt_open(below, segment, key, &bdev, NULL), 0);
	return bdev;
}

/* One sector, one call, one context: nothing shared with the code under test. */
static void openssl_sector(
	const struct pv_secret *key, uint64_t sector512, const uint8_t *in, uint8_t *out, uint32_t size)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	uint8_t iv[16] = {0};
	int n;

	for (int i = 0; i < 8; i++)
		iv[i] = (uint8_t)(sector512 >> (8 * i));
	assert_int_equal(EVP_EncryptInit_ex(c, EVP_aes_256_xts(), NULL, key->data, iv), 1);
	assert_int_equal(EVP_EncryptUpdate(c, out, &n, in, (int)size), 1);
	EVP_CIPHER_CTX_free(c);
}

static void ciphertext_is_dm_crypts(void **state)
{
	static const struct {
		uint32_t sector;
		uint64_t offset, tweak;
	} cases[] = {{512, 0, 0}, {512, 4096, 7}, {1024, 512, 0}, {4096, 16 * MIB, 0},
		{4096, MIB, UINT64_C(0x100000000) - 4}};
	pv_autosecret struct pv_secret *key = test_key();
	pv_autofree uint8_t *in = malloc(3 * MIB), *raw = malloc(3 * MIB), *expected = malloc(3 * MIB);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pv_segment s = plain_segment;
		struct pv_bdev *below = mem_device(32 * MIB), *bdev;
		/* Two and a half pieces, not at the device's start. */
		uint64_t at = 12 * KIB, length = 5 * MIB / 2;

		s.sector_size = cases[i].sector;
		s.offset = cases[i].offset;
		s.iv_tweak = cases[i].tweak;
		bdev = crypt_on(below, &s);
		assert_int_equal(bdev->size, 32 * MIB - s.offset - (32 * MIB - s.offset) % s.sector_size);
		assert_int_equal(bdev->sector_size, s.sector_size);
		pattern(in, length, (unsigned)i);
		assert_int_equal(pv_bdev_write(bdev, in, length, at), 0);
		for (uint64_t n = 0; n < length; n += s.sector_size)
			openssl_sector(key, (at + n) / 512 + s.iv_tweak, in + n, expected + n, s.sector_size);
		assert_int_equal(pv_bdev_read(below, raw, length, s.offset + at), 0);
		assert_memory_equal(raw, expected, length);
		memset(raw, 0, length);
		assert_int_equal(pv_bdev_read(bdev, raw, length, at), 0);
		assert_memory_equal(raw, in, length);
		pv_bdev_close(bdev);
	}
}

/* Vectors whose pieces end within sectors; the caller's data stay as they were. */
static void scattered_memory(void **state)
{
	enum { LENGTH = 64 * 1024, PIECES = 40 };
	struct pv_bdev *bdev = crypt_on(mem_device(8 * MIB), &plain_segment);
	pv_autofree uint8_t *data = malloc(LENGTH), *copy = malloc(LENGTH), *out = malloc(LENGTH);
	unsigned seed = 3;

	for (int round = 0; round < 50; round++) {
		struct iovec w[PIECES], r[PIECES];
		size_t at = 0;

		pattern(data, LENGTH, (unsigned)round);
		memcpy(copy, data, LENGTH);
		memset(out, 0, LENGTH);
		for (int i = 0; i < PIECES; i++) {
			size_t n = i == PIECES - 1 ? LENGTH - at : (size_t)rand_r(&seed) % 3000;

			if (round % 3 == 0 && i < PIECES - 1)
				n &= ~(size_t)511;
			w[i] = (struct iovec){data + at, n};
			r[i] = (struct iovec){out + at, n};
			at += n;
			if (at > LENGTH - 3000 && i < PIECES - 1) {
				w[i].iov_len = r[i].iov_len = n + LENGTH - at;
				at = LENGTH;
			}
		}
		for (int pass = 0; pass < 2; pass++) {
			struct tally t = TALLY;
			struct pv_bio bio = {.op = pass ? PV_BIO_READ : PV_BIO_WRITE,
				.offset = 4096 * (uint64_t)round,
				.length = LENGTH,
				.iov = pass ? r : w,
				.iovcnt = PIECES,
				.done = tally_done,
				.private = &t};

			pv_bdev_submit(bdev, &bio);
			tally_wait(&t, 1);
			assert_int_equal(t.failed, 0);
		}
		assert_memory_equal(data, copy, LENGTH);
		assert_memory_equal(out, data, LENGTH);
	}
	pv_bdev_close(bdev);
}

static void zeroes_are_encrypted(void **state)
{
	struct pv_bdev *below = mem_device(4 * MIB), *bdev = crypt_on(below, &plain_segment);
	struct tally t = TALLY;
	struct pv_bio bio = {.op = PV_BIO_WRITE_ZEROES,
		.offset = 4096,
		.length = 2 * MIB,
		.done = tally_done,
		.private = &t};
	pv_autofree uint8_t *data = malloc(2 * MIB), *zeros = calloc(1, 2 * MIB);

	pv_bdev_submit(bdev, &bio);
	tally_wait(&t, 1);
	assert_int_equal(t.failed, 0);
	assert_int_equal(pv_bdev_read(bdev, data, 2 * MIB, 4096), 0);
	assert_memory_equal(data, zeros, 2 * MIB);
	assert_int_equal(pv_bdev_read(below, data, 4096, MIB + 4096), 0);
	assert_memory_not_equal(data, zeros, 4096);
	pv_bdev_close(bdev);
}

static void segments_must_fit(void **state)
{
	pv_autosecret struct pv_secret *key = test_key(), *half = NULL;
	struct pv_bdev *below = mem_device(4 * MIB), *bdev = NULL;
	struct pv_segment s;
	struct pv_error err;

#define refused(code, change)                                                                                \
	do {                                                                                                 \
		s = plain_segment;                                                                           \
		change;                                                                                      \
		assert_int_equal(pv_crypt_open(below, &s, key, &bdev, &err), code);                          \
		assert_true(err.message[0]);                                                                 \
		assert_null(bdev);                                                                           \
	} while (0)
	refused(-EINVAL, s.offset = 4 * MIB);
	refused(-EINVAL, s.offset = UINT64_MAX - 511);
	refused(-EINVAL, s.size = 4 * MIB);
	refused(-EINVAL, s.size = UINT64_MAX - 4095);
	refused(-EINVAL, s.size = 4096 + 512);
	refused(-EINVAL, s.offset = 100);
	refused(-EINVAL, s.sector_size = 0);
	refused(-EINVAL, s.sector_size = 768);
	refused(-EINVAL, s.sector_size = 8192);
	refused(-EINVAL, s.key_size = 32);
	refused(-ENOTSUP, strcpy(s.cipher, "cipher_null-ecb"));
	assert_int_equal(pv_secret_copy(key->data, 32, &half, NULL), 0);
	assert_int_equal(pv_crypt_open(below, &plain_segment, half, &bdev, &err), -EINVAL);
	/* Still ours after all these. */
	s = plain_segment;
	s.size = 3 * MIB;
	bdev = crypt_on(below, &s);
	assert_int_equal(bdev->size, 3 * MIB);
	pv_bdev_close(bdev);
}

static void grows_with_the_container(void **state)
{
	int fd = temporary_file(4 * MIB);
	const struct pv_file_options options = {0};
	struct pv_segment fixed = plain_segment;
	struct pv_bdev *below, *bdev;

	fixed.size = 2 * MIB;
	for (int dynamic = 0; dynamic < 2; dynamic++) {
		assert_int_equal(ftruncate(fd, 4 * (off_t)MIB), 0);
		assert_int_equal(pv_file_open(dup(fd), &options, &below, NULL), 0);
		bdev = crypt_on(below, dynamic ? &plain_segment : &fixed);
		assert_int_equal(bdev->size, dynamic ? 3 * MIB : 2 * MIB);
		assert_int_equal(ftruncate(fd, 8 * (off_t)MIB), 0);
		assert_int_equal(pv_bdev_refresh(bdev, NULL), 0);
		assert_int_equal(bdev->size, dynamic ? 7 * MIB : 2 * MIB);
		pv_bdev_close(bdev);
	}
	close(fd);
}

/* 200 MiB of writes at once, three times the bounce memory, on a device that holds them all back. */
static void more_writes_than_bounce_memory(void **state)
{
	enum { N = 100 };
	struct pv_sim_options sim_options = {.seed = 1, .delay_us = 2000, .space = 4096, .hold = true};
	struct pv_bdev *below, *bdev;
	pv_autofree uint8_t *data = malloc(2 * MIB), *out = malloc(2 * MIB);
	struct iovec iov = {data, 2 * MIB}, small = {data, 4096};
	pv_autofree struct pv_bio *bios = calloc(2 * N + 1, sizeof(*bios));
	pv_autojson struct json_object *j = json_object_new_object();
	struct tally t = TALLY;

	assert_int_equal(pv_sim_open(mem_device(300 * MIB), &sim_options, &below, NULL), 0);
	bdev = crypt_on(below, &plain_segment);
	pattern(data, 2 * MIB, 4);
	for (size_t i = 0; i < 2 * N; i++) {
		bios[i] = (struct pv_bio){.op = PV_BIO_WRITE,
			.offset = i < N ? i * 2 * MIB : 2 * N * MIB + i * 4096,
			.length = i < N ? 2 * MIB : 4096,
			.iov = i < N ? &iov : &small,
			.iovcnt = 1,
			.done = tally_done,
			.private = &t};
		pv_bdev_submit(bdev, &bios[i]);
	}
	pv_bdev_describe(bdev, j);
	sim_options.space = 0;
	pv_sim_set(bdev, &sim_options);
	tally_wait(&t, 2 * N);
	assert_int_equal(t.failed, 0);
	assert_true(pv_json_u64(j, "bounce_waits", 0) > 0);
	assert_true(pv_json_u64(j, "bounce_bytes", 0) <= 64 * MIB);
	for (size_t i = 0; i < N; i += 33) {
		assert_int_equal(pv_bdev_read(bdev, out, 2 * MIB, i * 2 * MIB), 0);
		assert_memory_equal(out, data, 2 * MIB);
	}
	pv_bdev_close(bdev);
}

/* Large writes that are held below leave the reserve: small writes, reads and flushes go on. */
static void held_writes_leave_the_reserve(void **state)
{
	enum { N = 80 };
	struct pv_sim_options options = {.seed = 1, .space = 1 * MIB, .hold = true};
	pv_autofree uint8_t *data = malloc(MIB), *out = malloc(4096);
	struct iovec iov = {data, MIB};
	struct pv_bio bios[N];
	struct tally t = TALLY;
	struct pv_bdev *below, *bdev;

	assert_int_equal(pv_sim_open(mem_device(200 * MIB), &options, &below, NULL), 0);
	bdev = crypt_on(below, &plain_segment);
	pattern(data, MIB, 4);
	assert_int_equal(pv_bdev_write(bdev, data, 4096, 0), 0);
	for (size_t i = 0; i < N; i++) {
		bios[i] = (struct pv_bio){.op = PV_BIO_WRITE,
			.offset = (i + 1) * MIB,
			.length = MIB,
			.iov = &iov,
			.iovcnt = 1,
			.done = tally_done,
			.private = &t};
		pv_bdev_submit(bdev, &bios[i]);
	}
	assert_int_equal(pv_bdev_write(bdev, data + 4096, 4096, 0), 0);
	assert_int_equal(pv_bdev_flush(bdev), 0);
	assert_int_equal(pv_bdev_read(bdev, out, 4096, 0), 0);
	assert_memory_equal(out, data + 4096, 4096);
	assert_int_equal(tally_count(&t), 0);
	assert_true(bdev->full);
	options.space = 0;
	pv_sim_set(bdev, &options);
	tally_wait(&t, N);
	assert_int_equal(t.failed, 0);
	assert_false(bdev->full);
	pv_bdev_close(bdev);
}

static void errors_from_below_arrive(void **state)
{
	struct pv_sim_options options = {.seed = 1};
	struct pv_bdev *below, *bdev;
	pv_autofree uint8_t *data = calloc(1, 4 * MIB);

	assert_int_equal(pv_sim_open(mem_device(16 * MIB), &options, &below, NULL), 0);
	bdev = crypt_on(below, &plain_segment);
	options.read_error_rate = 1;
	pv_sim_set(bdev, &options);
	assert_int_equal(pv_bdev_read(bdev, data, 4096, 0), -EIO);
	assert_int_equal(pv_bdev_read(bdev, data, 4 * MIB, 0), -EIO);
	options.read_error_rate = 0;
	options.write_error_rate = 1;
	pv_sim_set(bdev, &options);
	assert_int_equal(pv_bdev_write(bdev, data, 4 * MIB, 0), -EIO);
	/* A failed write is the file system's business; a failed flush ends it. */
	options.write_error_rate = 0;
	pv_sim_set(bdev, &options);
	assert_int_equal(pv_bdev_write(bdev, data, 4 * MIB, 0), 0);
	options.flush_error_rate = 1;
	pv_sim_set(bdev, &options);
	assert_int_equal(pv_bdev_flush(bdev), -EIO);
	options.flush_error_rate = 0;
	pv_sim_set(bdev, &options);
	assert_int_equal(pv_bdev_flush(bdev), -EIO);
	assert_int_equal(pv_bdev_write(bdev, data, 4096, 0), -EIO);
	assert_int_equal(pv_bdev_discard(bdev, 4096, 0), -EIO);
	assert_int_equal(pv_bdev_read(bdev, data, 4096, 0), 0);
	assert_true(bdev->failed && below->failed);
	pv_bdev_close(bdev);
}

static void segment_json(void **state)
{
	struct pv_segment a = plain_segment, b;
	pv_autojson struct json_object *j = NULL,
				       *bad = json_tokener_parse("{\"offset\":0,\"cipher\":\"x\"}");

	a.iv_tweak = UINT64_MAX;
	a.size = UINT64_C(1) << 60;
	j = pv_segment_to_json(&a);
	assert_int_equal(pv_segment_from_json(j, &b, NULL), 0);
	assert_true(a.offset == b.offset && a.size == b.size && a.iv_tweak == b.iv_tweak);
	assert_true(a.key_size == b.key_size && a.sector_size == b.sector_size);
	assert_string_equal(a.cipher, b.cipher);
	assert_int_equal(pv_segment_from_json(bad, &b, NULL), -EINVAL);
	assert_int_equal(pv_segment_from_json(NULL, &b, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ciphertext_is_dm_crypts),
		cmocka_unit_test(scattered_memory),
		cmocka_unit_test(zeroes_are_encrypted),
		cmocka_unit_test(segments_must_fit),
		cmocka_unit_test(grows_with_the_container),
		cmocka_unit_test(more_writes_than_bounce_memory),
		cmocka_unit_test(held_writes_leave_the_reserve),
		cmocka_unit_test(errors_from_below_arrive),
		cmocka_unit_test(segment_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
