/*
 * Key slots. The volume key is split (luks2_af.c) and stored encrypted under a key that is derived from the
 * passphrase:
 *
 *   area = encrypt(cipher and derived key, split(volume key)), in 512-byte sectors numbered from 0
 *
 * Whether the key that comes out is the volume's tells the digest, PBKDF2 over the key itself.
 */
#include "format/luks2_int.h"

#include "base/cleanup.h"
#include "cipher/cipher.h"
#include "format/format_int.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#define SECTOR 512U

/* Bytes of the area that are in use: the split key rounded up to whole sectors. */
static size_t material_size(const struct luks2_slot *slot)
{
	return ((size_t)slot->key_size * LUKS2_STRIPES + SECTOR - 1) & ~(size_t)(SECTOR - 1);
}

/* The cipher of the area, keyed from the secret: the expensive step. */
static int area_cipher(const struct luks2_slot *slot, const struct pv_secret *secret,
	struct pv_cipher **ret_cipher, struct pv_error *err)
{
	pv_autosecret struct pv_secret *derived = NULL;
	int r;

	r = pv_secret_new(slot->area_key_size, &derived, err);
	if (!r)
		r = luks2_kdf_derive(&slot->kdf, secret, derived, err);
	if (!r)
		r = pv_cipher_new(slot->area_cipher, derived, SECTOR, ret_cipher, err);
	return r;
}

static int check_digest(const struct luks2_digest *digest, const struct pv_secret *key, struct pv_error *err)
{
	uint8_t value[sizeof(digest->value)];
	int r;

	r = luks2_pbkdf2(digest->hash, key->data, key->size, digest->salt, digest->salt_size,
		digest->iterations, value, digest->value_size, err);
	if (!r && CRYPTO_memcmp(value, digest->value, digest->value_size))
		r = -EKEYREJECTED;
	return r;
}

int luks2_slot_open(int fd, const struct luks2_slot *slot, const struct luks2_digest *digest,
	const struct luks2_limits *limits, const struct pv_secret *secret, struct pv_secret **ret_key,
	struct pv_error *err)
{
	const struct luks2_kdf digest_cost = {.type = LUKS2_PBKDF2, .iterations = digest->iterations};
	const size_t size = material_size(slot), padded = (size + 4095) & ~(size_t)4095;
	pv_autosecret struct pv_secret *split = NULL, *key = NULL;
	pv_autofree uint8_t *area = format_buffer(padded);
	struct pv_cipher *cipher = NULL;
	ssize_t n;
	int r;

	if (!area)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	r = luks2_kdf_check(&slot->kdf, limits, err);
	if (!r)
		r = luks2_kdf_check(&digest_cost, limits, err);
	if (r)
		return r;
	/* Before the derivation: its memory should not be asked for in vain, and secret memory is scarce. */
	n = format_read(fd, area, padded, slot->area_offset);
	if (n < 0)
		return pv_fail(err, (int)n, NULL, "cannot read a key slot: %s", pv_strerror((int)n));
	if ((size_t)n < size)
		return pv_fail(err, -EUCLEAN, NULL,
			"the container is truncated: it ends inside the header's key slots");
	r = pv_secret_new(size, &split, err);
	if (!r)
		r = pv_secret_new(slot->key_size, &key, err);
	if (!r)
		r = area_cipher(slot, secret, &cipher, err);
	if (r)
		return r;
	r = pv_cipher_decrypt(cipher, 0, area, split->data, size);
	pv_cipher_free(cipher);
	if (!r)
		r = luks2_af_merge(slot->af_hash, split->data, slot->key_size, key->data);
	if (r)
		return pv_fail(err, r, NULL, "cannot decrypt a key slot: %s", pv_strerror(r));
	r = check_digest(digest, key, err);
	if (!r)
		*ret_key = pv_steal_ptr(&key);
	return r;
}

int luks2_slot_store(int fd, const struct luks2_slot *slot, const struct pv_secret *secret,
	const struct pv_secret *key, struct pv_error *err)
{
	pv_autofree uint8_t *area = format_buffer(slot->area_size);
	pv_autosecret struct pv_secret *split = NULL;
	struct pv_cipher *cipher = NULL;
	int r;

	if (!area)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	r = format_random(area, slot->area_size); /* also what lies behind the material */
	if (r)
		return pv_fail(err, r, NULL, "no random numbers: %s", pv_strerror(r));
	r = pv_secret_new(material_size(slot), &split, err);
	if (!r)
		r = area_cipher(slot, secret, &cipher, err);
	if (r)
		return r;
	r = luks2_af_split(slot->af_hash, key->data, slot->key_size, split->data);
	if (!r)
		r = pv_cipher_encrypt(cipher, 0, split->data, area, split->size);
	pv_cipher_free(cipher);
	if (r)
		return pv_fail(err, r, NULL, "cannot encrypt a key slot: %s", pv_strerror(r));
	r = format_write(fd, area, slot->area_size, slot->area_offset);
	if (!r)
		r = format_sync(fd);
	return r ? pv_fail(err, r, NULL, "cannot write a key slot: %s", pv_strerror(r)) : 0;
}

int luks2_slot_wipe(int fd, const struct luks2_slot *slot, struct pv_error *err)
{
	int r;

	r = format_write_random(fd, slot->area_offset, slot->area_size);
	if (!r)
		r = format_sync(fd);
	return r ? pv_fail(err, r, NULL, "cannot overwrite a key slot: %s", pv_strerror(r)) : 0;
}

int luks2_slot_params(
	const struct pv_unlock_key *key, uint32_t key_size, struct luks2_slot *ret_slot, struct pv_error *err)
{
	struct luks2_slot slot = {
		.used = true,
		.priority = LUKS2_PRIORITY_NORMAL,
		.key_size = key_size,
		.area_size = luks2_area_size(key_size),
		.area_key_size = 64,
		.area_cipher = "aes-xts-plain64",
		.af_hash = "sha256",
		.kind = key->kind,
		.bound = true,
	};
	int r;

	if (!key->secret || !key->secret->size)
		return pv_fail(err, -EINVAL, NULL, "an empty %s cannot be a key", key->kind);
	if (!strcmp(key->kind, "recovery")) {
		/* 256 random bits need no stretching; these are systemd-cryptenroll's parameters for such
		 * slots. */
		slot.kdf = (struct luks2_kdf){.type = LUKS2_PBKDF2, .hash = "sha512", .iterations = 1000};
		r = 0;
	} else {
		r = luks2_cost_choose(&key->pbkdf, &slot.kdf, err);
	}
	if (r)
		return r;
	slot.kdf.salt_size = 32;
	r = format_random(slot.kdf.salt, slot.kdf.salt_size);
	if (r)
		return pv_fail(err, r, NULL, "no random numbers: %s", pv_strerror(r));
	*ret_slot = slot;
	return 0;
}

int luks2_digest_make(const struct pv_secret *key, uint32_t iterations, struct luks2_digest *ret_digest,
	struct pv_error *err)
{
	struct luks2_digest digest = {
		.used = true,
		.segments = 1,
		.hash = "sha256",
		.iterations = iterations,
		.salt_size = 32,
		.value_size = 32,
	};
	int r;

	r = format_random(digest.salt, digest.salt_size);
	if (r)
		return pv_fail(err, r, NULL, "no random numbers: %s", pv_strerror(r));
	r = luks2_pbkdf2(digest.hash, key->data, key->size, digest.salt, digest.salt_size, iterations,
		digest.value, digest.value_size, err);
	if (!r)
		*ret_digest = digest;
	return r;
}
