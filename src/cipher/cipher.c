/*
 * AES-XTS through OpenSSL's EVP.
 *
 * A context costs a key schedule and is used by one thread at a time: each cipher keeps a few for each
 * direction, made once, in secret memory; a batch takes one, gives it only a new tweak for each sector, and
 * puts it back. More threads than contexts wait: they could not compute faster than the processors allow
 * anyway.
 */
#include "cipher/cipher.h"
#include "base/cleanup.h"
#include "cipher/arena.h"

#include <endian.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <string.h>

#define MAX_CONTEXTS 16
/* Secret memory for one context; OpenSSL 3.0 takes 1.1 KiB. */
#define CONTEXT_SIZE 4096

struct contexts {
	pthread_mutex_t lock;
	pthread_cond_t returned;
	EVP_CIPHER_CTX *all[MAX_CONTEXTS];
	EVP_CIPHER_CTX *idle[MAX_CONTEXTS];
	unsigned count, nidle;
};

struct pv_cipher {
	uint32_t sector_size;
	EVP_CIPHER *algorithm;
	struct pv_arena *arena;
	struct contexts
		*side[2]; /* decrypt, encrypt; behind pointers because the cipher itself is constant */
};

static EVP_CIPHER_CTX *borrow(struct contexts *c)
{
	PV_LOCK_SCOPE(&c->lock);
	while (c->nidle == 0)
		pthread_cond_wait(&c->returned, &c->lock);
	return c->idle[--c->nidle];
}

static void give_back(struct contexts *c, EVP_CIPHER_CTX *context)
{
	pthread_mutex_lock(&c->lock);
	c->idle[c->nidle++] = context;
	pthread_mutex_unlock(&c->lock);
	pthread_cond_signal(&c->returned);
}

static struct contexts *free_contexts(struct contexts *c)
{
	if (!c)
		return NULL;
	for (unsigned i = 0; i < c->count; i++)
		EVP_CIPHER_CTX_free(c->all[i]);
	pthread_cond_destroy(&c->returned);
	pthread_mutex_destroy(&c->lock);
	free(c);
	return NULL;
}

static int make_contexts(struct pv_cipher *cipher, int side, unsigned count, const uint8_t *key)
{
	static const uint8_t no_tweak[16];
	struct contexts *c = calloc(1, sizeof(*c));
	int ok = 1;

	if (!c)
		return 0;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->returned, NULL);
	cipher->side[side] = c;
	for (unsigned i = 0; i < count && ok; i++) {
		EVP_CIPHER_CTX *context;

		pv_arena_enter(cipher->arena);
		context = EVP_CIPHER_CTX_new();
		ok = context &&
		     EVP_CipherInit_ex2(context, cipher->algorithm, key, no_tweak, side, NULL) == 1 &&
		     EVP_CIPHER_CTX_set_padding(context, 0) == 1;
		pv_arena_leave();
		if (context) {
			c->all[c->count++] = context;
			c->idle[c->nidle++] = context;
		}
	}
	return ok;
}

/*
 * Lets OpenSSL make what it makes at the first use (providers, tables, this thread's error queue), with a key
 * of no value, so that none of it lands in the arena.
 */
static bool warm_up(const EVP_CIPHER *algorithm)
{
	static const uint8_t tweak[16];
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t key[64];
	bool ok = context != NULL;

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)i;
	for (int side = 0; side < 2; side++)
		ok = ok && EVP_CipherInit_ex2(context, algorithm, key, tweak, side, NULL) == 1;
	EVP_CIPHER_CTX_free(context);
	ERR_clear_error();
	return ok;
}

static unsigned wanted_contexts(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 2 ? 2 : n > MAX_CONTEXTS ? MAX_CONTEXTS : (unsigned)n;
}

static int check(const char *name, const struct pv_secret *key, uint32_t sector_size, struct pv_error *err)
{
	uint8_t different = 0;

	if (strcmp(name, "aes-xts-plain64") != 0)
		return pv_fail(err, -ENOTSUP, NULL, "unknown cipher \"%s\"", name);
	if (sector_size != 512 && sector_size != 1024 && sector_size != 2048 && sector_size != 4096)
		return pv_fail(err, -EINVAL, NULL, "%u is no encryption sector size", sector_size);
	if (key->size != 32 && key->size != 64)
		return pv_fail(err, -EINVAL, NULL, "a key of %zu bytes for %s, which takes 32 or 64",
			key->size, name);
	for (size_t i = 0; i < key->size / 2; i++)
		different |= key->data[i] ^ key->data[key->size / 2 + i];
	if (!different)
		return pv_fail(err, -EINVAL, NULL, "the two halves of the key are equal");
	return 0;
}

int pv_cipher_new(const char *name, const struct pv_secret *key, uint32_t sector_size,
	struct pv_cipher **ret_cipher, struct pv_error *err)
{
	unsigned count = wanted_contexts();
	struct pv_cipher *cipher;
	int r;

	r = check(name, key, sector_size, err);
	if (r < 0)
		return r;
	cipher = calloc(1, sizeof(*cipher));
	if (!cipher)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	cipher->sector_size = sector_size;
	r = pv_arena_new(2 * count * CONTEXT_SIZE, &cipher->arena, err);
	if (r < 0)
		goto failed;
	cipher->algorithm = EVP_CIPHER_fetch(NULL, key->size == 64 ? "AES-256-XTS" : "AES-128-XTS", NULL);
	if (!cipher->algorithm || !warm_up(cipher->algorithm)) {
		r = pv_fail(err, -ENOTSUP, NULL, "the OpenSSL library here has no AES-XTS");
		goto failed;
	}
	if (!make_contexts(cipher, 0, count, key->data) || !make_contexts(cipher, 1, count, key->data) ||
		pv_arena_used(cipher->arena) == 0) {
		ERR_clear_error();
		r = pv_fail(err, -ENOMEM, NULL, "the OpenSSL library cannot make a key schedule");
		goto failed;
	}
	*ret_cipher = cipher;
	return 0;
failed:
	pv_cipher_free(cipher);
	return r;
}

struct pv_cipher *pv_cipher_free(struct pv_cipher *cipher)
{
	if (!cipher)
		return NULL;
	free_contexts(cipher->side[0]);
	free_contexts(cipher->side[1]);
	EVP_CIPHER_free(cipher->algorithm);
	pv_arena_free(cipher->arena);
	free(cipher);
	return NULL;
}

uint32_t pv_cipher_sector_size(const struct pv_cipher *cipher)
{
	return cipher->sector_size;
}

static int run(const struct pv_cipher *cipher, int side, uint64_t iv_sector, const uint8_t *in, uint8_t *out,
	size_t length)
{
	uint32_t size = cipher->sector_size;
	EVP_CIPHER_CTX *context = borrow(cipher->side[side]);
	uint64_t tweak[2] = {0, 0};
	int r = 0, n;

	for (size_t at = 0; at < length && r == 0; at += size, iv_sector += size / 512) {
		tweak[0] = htole64(iv_sector);
		if (EVP_CipherInit_ex2(context, NULL, NULL, (const uint8_t *)tweak, -1, NULL) != 1 ||
			EVP_CipherUpdate(context, out + at, &n, in + at, (int)size) != 1 || n != (int)size)
			r = -EIO;
	}
	give_back(cipher->side[side], context);
	return r;
}

int pv_cipher_encrypt(
	const struct pv_cipher *cipher, uint64_t iv_sector, const void *in, void *out, size_t length)
{
	return run(cipher, 1, iv_sector, in, out, length);
}

int pv_cipher_decrypt(
	const struct pv_cipher *cipher, uint64_t iv_sector, const void *in, void *out, size_t length)
{
	return run(cipher, 0, iv_sector, in, out, length);
}
