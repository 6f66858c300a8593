/*
 * AES-XTS against the vectors of IEEE 1619-2007 annex B, and against XTS written out from its definition over
 * single AES blocks: tweak, doubling in GF(2^128), xor.
 */
#include "../base/fixture.h"
#include "base/cleanup.h"
#include "base/secret.h"
#include "cipher/cipher.h"

#include <openssl/evp.h>
#include <pthread.h>

static size_t from_hex(const char *hex, uint8_t *out)
{
	size_t n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++) {
		unsigned byte;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		out[i] = (uint8_t)byte;
	}
	return n;
}

static struct pv_secret *secret_of(const char *hex)
{
	struct pv_secret *s;
	uint8_t bytes[64];
	size_t n = from_hex(hex, bytes);

	assert_int_equal(pv_secret_copy(bytes, n, &s, NULL), 0);
	return s;
}

static void block_encrypt(const uint8_t *key, size_t key_size, const uint8_t *in, uint8_t *out)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n;

	assert_int_equal(EVP_EncryptInit_ex(
				 c, key_size == 16 ? EVP_aes_128_ecb() : EVP_aes_256_ecb(), NULL, key, NULL),
		1);
	EVP_CIPHER_CTX_set_padding(c, 0);
	assert_int_equal(EVP_EncryptUpdate(c, out, &n, in, 16), 1);
	EVP_CIPHER_CTX_free(c);
}

/* One data unit, as the standard says it. */
static void reference(
	const struct pv_secret *key, uint64_t unit, const uint8_t *in, uint8_t *out, size_t length)
{
	size_t half = key->size / 2;
	uint8_t t[16] = {0}, x[16];

	for (int i = 0; i < 8; i++)
		t[i] = (uint8_t)(unit >> (8 * i));
	block_encrypt(key->data + half, half, t, t);
	for (size_t at = 0; at < length; at += 16) {
		unsigned carry = 0;

		for (int i = 0; i < 16; i++)
			x[i] = in[at + (size_t)i] ^ t[i];
		block_encrypt(key->data, half, x, x);
		for (int i = 0; i < 16; i++)
			out[at + (size_t)i] = x[i] ^ t[i];
		for (int i = 0; i < 16; i++) {
			unsigned next = t[i] >> 7;

			t[i] = (uint8_t)(t[i] << 1 | carry);
			carry = next;
		}
		if (carry)
			t[0] ^= 0x87;
	}
}

static const char key128[] = "2718281828459045235360287471352631415926535897932384626433832795";
static const char key256[] = "2718281828459045235360287471352662497757247093699959574966967627"
			     "3141592653589793238462643383279502884197169399375105820974944592";

static void standard_vector(const char *key_hex, uint64_t unit, const char *expected_start)
{
	pv_autosecret struct pv_secret *key = secret_of(key_hex);
	struct pv_cipher *cipher = NULL;
	uint8_t in[512], out[512], whole[512], expected[64];
	size_t n = from_hex(expected_start, expected);

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)i;
	assert_int_equal(pv_cipher_new("aes-xts-plain64", key, 512, &cipher, NULL), 0);
	assert_int_equal(pv_cipher_encrypt(cipher, unit, in, out, sizeof(in)), 0);
	assert_memory_equal(out, expected, n);
	reference(key, unit, in, whole, sizeof(in));
	assert_memory_equal(out, whole, sizeof(out));
	assert_int_equal(pv_cipher_decrypt(cipher, unit, out, out, sizeof(out)), 0);
	assert_memory_equal(out, in, sizeof(in));
	pv_cipher_free(cipher);
}

static void vector_4_aes_128(void **state)
{
	standard_vector(key128, 0, "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c");
}

static void vector_10_aes_256(void **state)
{
	standard_vector(key256, 0xff, "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b");
}

/* plain64 counts 512-byte sectors whatever the encryption sector; a batch is many units. */
static void batches_of_each_sector_size(void **state)
{
	static const uint64_t first[] = {
		0, 8, 32768, UINT64_C(0xffffffff), UINT64_C(0x100000000) - 8, UINT64_MAX / 512 - 64};
	pv_autosecret struct pv_secret *key = secret_of(key256);
	static uint8_t in[32768], out[32768], expected[32768];

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 7 + i / 256);
	for (uint32_t size = 512; size <= 4096; size *= 2) {
		struct pv_cipher *cipher;

		assert_int_equal(pv_cipher_new("aes-xts-plain64", key, size, &cipher, NULL), 0);
		assert_int_equal(pv_cipher_sector_size(cipher), size);
		for (size_t f = 0; f < sizeof(first) / sizeof(first[0]); f++) {
			for (size_t at = 0; at < sizeof(in); at += size)
				reference(key, first[f] + at / 512, in + at, expected + at, size);
			assert_int_equal(pv_cipher_encrypt(cipher, first[f], in, out, sizeof(in)), 0);
			assert_memory_equal(out, expected, sizeof(out));
			assert_int_equal(pv_cipher_decrypt(cipher, first[f], expected, out, sizeof(in)), 0);
			assert_memory_equal(out, in, sizeof(out));
		}
		pv_cipher_free(cipher);
	}
}

static void refuses_what_it_does_not_know(void **state)
{
	pv_autosecret struct pv_secret *key = secret_of(key256), *half = NULL, *same = NULL;
	struct pv_cipher *cipher = NULL;
	struct pv_error err;

	assert_int_equal(pv_cipher_new("serpent-xts-plain64", key, 512, &cipher, &err), -ENOTSUP);
	assert_non_null(strstr(err.message, "serpent-xts-plain64"));
	assert_int_equal(pv_cipher_new("aes-xts-plain", key, 512, &cipher, &err), -ENOTSUP);
	assert_int_equal(pv_cipher_new("aes-xts-plain64", key, 8192, &cipher, &err), -EINVAL);
	assert_int_equal(pv_cipher_new("aes-xts-plain64", key, 0, &cipher, &err), -EINVAL);
	assert_int_equal(pv_secret_copy(key->data, 48, &half, NULL), 0);
	assert_int_equal(pv_cipher_new("aes-xts-plain64", half, 512, &cipher, &err), -EINVAL);
	assert_int_equal(pv_secret_copy(key->data, 64, &same, NULL), 0);
	memcpy(same->data + 32, same->data, 32);
	assert_int_equal(pv_cipher_new("aes-xts-plain64", same, 512, &cipher, &err), -EINVAL);
	assert_null(cipher);
	assert_null(pv_cipher_free(NULL));
}

struct job {
	struct pv_cipher *cipher;
	unsigned number;
	bool ok;
};

static void *work(void *arg)
{
	struct job *job = arg;
	uint8_t in[8192], out[8192];

	memset(in, (int)job->number, sizeof(in));
	job->ok = true;
	for (uint64_t i = 0; i < 300; i++) {
		if (pv_cipher_encrypt(job->cipher, i * job->number, in, out, sizeof(in)) < 0 ||
			memcmp(in, out, 16) == 0 ||
			pv_cipher_decrypt(job->cipher, i * job->number, out, out, sizeof(in)) < 0 ||
			memcmp(in, out, sizeof(in)) != 0)
			job->ok = false;
	}
	return NULL;
}

static void many_threads_share_one(void **state)
{
	pv_autosecret struct pv_secret *key = secret_of(key256);
	struct pv_cipher *cipher;
	pthread_t threads[20];
	struct job jobs[20];

	assert_int_equal(pv_cipher_new("aes-xts-plain64", key, 4096, &cipher, NULL), 0);
	for (unsigned i = 0; i < 20; i++) {
		jobs[i] = (struct job){.cipher = cipher, .number = i + 1};
		assert_int_equal(pthread_create(&threads[i], NULL, work, &jobs[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		pthread_join(threads[i], NULL);
		assert_true(jobs[i].ok);
	}
	pv_cipher_free(cipher);
}

/*
 * Neither the key nor the second part of the schedule (for AES-256 the schedule starts with the key) is
 * anywhere in this process's ordinary writable memory.
 */
static void no_key_in_ordinary_memory(void **state)
{
	pv_autosecret struct pv_secret *key = NULL;
	pv_autofclose FILE *maps = fopen("/proc/self/maps", "re");
	pv_autoclose int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	struct pv_cipher *cipher;
	static char chunk[1 << 16];
	size_t scanned = 0;
	char line[512];

	if (mem < 0) {
		print_message("/proc/self/mem cannot be read here\n");
		skip();
	}
	assert_int_equal(pv_secret_random(64, &key, NULL), 0);
	assert_int_equal(pv_cipher_new("aes-xts-plain64", key, 512, &cipher, NULL), 0);
	work(&(struct job){.cipher = cipher, .number = 1});
	while (fgets(line, sizeof(line), maps)) {
		unsigned long from, to;
		char mode[5];

		if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) != 3 || mode[1] != 'w' ||
			to - from > (64UL << 20))
			continue;
		for (unsigned long at = from; at < to; at += sizeof(chunk) - 64) {
			size_t want = to - at < sizeof(chunk) ? to - at : sizeof(chunk);
			ssize_t n = pread(mem, chunk, want, (off_t)at);

			/* Secret memory itself is refused even to its owner this way. */
			if (n <= 0)
				break;
			scanned += (size_t)n;
			if (from <= (uintptr_t)key->data && (uintptr_t)key->data < to)
				break;
			assert_null(memmem(chunk, (size_t)n, key->data, 16));
			assert_null(memmem(chunk, (size_t)n, key->data + 32, 16));
		}
	}
	assert_true(scanned > 100000);
	pv_cipher_free(cipher);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vector_4_aes_128),
		cmocka_unit_test(vector_10_aes_256),
		cmocka_unit_test(batches_of_each_sector_size),
		cmocka_unit_test(refuses_what_it_does_not_know),
		cmocka_unit_test(many_threads_share_one),
		cmocka_unit_test(no_key_in_ordinary_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
