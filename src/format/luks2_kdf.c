/*
 * Key derivation: PBKDF2 by OpenSSL, Argon2 by libargon2 (the OpenSSL of Debian 12 has none), and the bounds
 * on what a header from a stranger may make us compute.
 *
 * Argon2's memory, up to a gigabyte and more, cannot be secret memory: an ordinary user may lock a few
 * megabytes (RLIMIT_MEMLOCK). It is locked when the limit allows; it is never in core files, is not inherited
 * by children, the process is not dumpable and short-lived, and libargon2 wipes it before it is given back.
 * With unencrypted swap under memory pressure parts of it may still reach the disk: pvol warns of such swap.
 */
#include "format/luks2_int.h"

#include "base/cleanup.h"
#include "cipher/arena.h"

#include <argon2.h>
#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <string.h>
#include <sys/mman.h>

#define ARENA_SPARE 1024 /* beside a copy of the secret: the arena's own heads and rounding */

/* About two minutes each on a slow machine; cryptsetup's own ceilings are a memory of 4 GiB and 4 threads. */
const struct luks2_limits luks2_limits = {
	.pbkdf2_iterations = 100 * 1000 * 1000,
	.argon2_memory = 4U << 20,
	.argon2_work = 64ULL << 20,
	.argon2_lanes = 64,
};

uint32_t luks2_hash_size(const char *name)
{
	static const struct {
		const char *name;
		uint32_t size;
	} hashes[] = {{"sha1", 20}, {"sha256", 32}, {"sha384", 48}, {"sha512", 64}};

	for (size_t i = 0; i < sizeof(hashes) / sizeof(hashes[0]); i++)
		if (!strcmp(hashes[i].name, name))
			return hashes[i].size;
	return 0;
}

int luks2_kdf_check(const struct luks2_kdf *kdf, const struct luks2_limits *limits, struct pv_error *err)
{
	if (kdf->type == LUKS2_PBKDF2) {
		if (kdf->iterations > limits->pbkdf2_iterations)
			return pv_fail(err, -EUCLEAN, NULL,
				"the header demands %u PBKDF2 rounds, more than %u: no sane volume does",
				kdf->iterations, limits->pbkdf2_iterations);
		return 0;
	}
	if (kdf->memory > limits->argon2_memory)
		return pv_fail(err, -EUCLEAN, NULL,
			"the header demands %u MiB of memory for Argon2, more than %u MiB", kdf->memory >> 10,
			limits->argon2_memory >> 10);
	if ((uint64_t)kdf->memory * kdf->iterations > limits->argon2_work ||
		kdf->lanes > limits->argon2_lanes)
		return pv_fail(err, -EUCLEAN, NULL,
			"the header demands absurd work for Argon2 (%u MiB, %u passes, %u lanes)",
			kdf->memory >> 10, kdf->iterations, kdf->lanes);
	return 0;
}

int luks2_pbkdf2(const char *hash, const void *secret, size_t secret_size, const uint8_t *salt,
	size_t salt_size, uint32_t iterations, uint8_t *out, size_t out_size, struct pv_error *err)
{
	uint64_t rounds = iterations;
	int pkcs5 = 1; /* without NIST's lower bounds, which headers made elsewhere need not meet */
	/* OpenSSL copies the secret, so that comes by itself and last: the copy shall lie in locked memory.
	 */
	OSSL_PARAM password[] = {
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_PASSWORD, (void *)(uintptr_t)secret, secret_size),
		OSSL_PARAM_END,
	};
	OSSL_PARAM params[] = {
		OSSL_PARAM_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)(uintptr_t)hash, 0),
		OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt, salt_size),
		OSSL_PARAM_uint64(OSSL_KDF_PARAM_ITER, &rounds),
		OSSL_PARAM_int(OSSL_KDF_PARAM_PKCS5, &pkcs5),
		OSSL_PARAM_END,
	};
	struct pv_arena *arena = NULL;
	EVP_KDF_CTX *ctx;
	EVP_KDF *kdf;
	int ok, r;

	r = pv_arena_new(secret_size + ARENA_SPARE, &arena, err);
	if (r)
		return r;
	kdf = EVP_KDF_fetch(NULL, "PBKDF2", NULL);
	ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	ok = ctx && EVP_KDF_CTX_set_params(ctx, params) == 1;
	if (ok) {
		pv_arena_enter(arena);
		ok = EVP_KDF_CTX_set_params(ctx, password) == 1;
		pv_arena_leave();
	}
	ok = ok && EVP_KDF_derive(ctx, out, out_size, NULL) == 1;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	pv_arena_free(arena);
	return ok ? 0 : pv_fail(err, -EIO, NULL, "PBKDF2 with %s failed in OpenSSL", hash);
}

static int argon2_allocate(uint8_t **memory, size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return ARGON2_MEMORY_ALLOCATION_ERROR;
	madvise(p, size, MADV_DONTDUMP);
	madvise(p, size, MADV_DONTFORK);
	madvise(p, size, MADV_HUGEPAGE);
	(void)!mlock(p, size); /* as far as the limit allows: see the first comment */
	*memory = p;
	return ARGON2_OK;
}

/* libargon2 wipes by default, by a switch that its shared library does not export: so look, and wipe it here
 * if need be. The step is a prime, so that all parts of the 1 KiB blocks are looked at. */
static void argon2_release(uint8_t *memory, size_t size)
{
	uint8_t left = 0;

	for (size_t i = 0; i < size; i += 1021)
		left |= memory[i];
	if (left)
		pv_wipe(memory, size);
	munmap(memory, size);
}

static int argon2_derive(const struct luks2_kdf *kdf, const struct pv_secret *secret, struct pv_secret *out,
	struct pv_error *err)
{
	argon2_context context = {
		.out = out->data,
		.outlen = (uint32_t)out->size,
		.pwd = secret->data,
		.pwdlen = (uint32_t)secret->size,
		.salt = (uint8_t *)(uintptr_t)kdf->salt,
		.saltlen = kdf->salt_size,
		.t_cost = kdf->iterations,
		.m_cost = kdf->memory,
		.lanes = kdf->lanes,
		.threads = kdf->lanes,
		.version = ARGON2_VERSION_13,
		.allocate_cbk = argon2_allocate,
		.free_cbk = argon2_release,
		/* Not the flag that clears the passphrase: the next slot may need it. */
		.flags = ARGON2_DEFAULT_FLAGS,
	};
	int r;

	r = argon2_ctx(&context, kdf->type == LUKS2_ARGON2ID ? Argon2_id : Argon2_i);
	if (r == ARGON2_MEMORY_ALLOCATION_ERROR) {
		pv_fail(err, -ENOMEM, NULL, "no memory for the key derivation, which needs %u MiB",
			kdf->memory >> 10);
		pv_remedy(err, "free some memory, or unlock on a larger machine");
		return -ENOMEM;
	}
	if (r != ARGON2_OK)
		return pv_fail(err, -EINVAL, NULL, "Argon2 failed: %s", argon2_error_message(r));
	return 0;
}

int luks2_kdf_derive(const struct luks2_kdf *kdf, const struct pv_secret *secret, struct pv_secret *out,
	struct pv_error *err)
{
	if (kdf->type == LUKS2_PBKDF2)
		return luks2_pbkdf2(kdf->hash, secret->data, secret->size, kdf->salt, kdf->salt_size,
			kdf->iterations, out->data, out->size, err);
	return argon2_derive(kdf, secret, out, err);
}
