/*
 * Sector ciphers: length-preserving encryption of whole sectors, one batch call per request.
 *
 * Names are dm-crypt's: "aes-xts-plain64" now; "aes-cbc-essiv:sha256" and others may be added in this folder.
 * XTS per IEEE 1619; the plain64 tweak is the little-endian number of the *512-byte* sector at which the
 * encryption sector starts, also for larger encryption sectors (LUKS2 on-disk format, dm-crypt without
 * iv_large_sectors).
 */
#ifndef PV_CIPHER_CIPHER_H
#define PV_CIPHER_CIPHER_H

#include "base/error.h"
#include "base/secret.h"

#include <stddef.h>
#include <stdint.h>

/* Immutable after creation: any number of threads may use it at once. */
struct pv_cipher;

/*
 * `name` e.g. "aes-xts-plain64"; key 32 or 64 bytes for XTS (two keys of half the size; equal halves are
 * refused); sector_size 512, 1024, 2048 or 4096. The key schedules are made here, in secret memory (8 KiB for
 * each processor); the key is not referenced afterwards. -ENOTSUP names an unknown cipher, -EINVAL a wrong
 * key or sector size.
 */
int pv_cipher_new(const char *name, const struct pv_secret *key, uint32_t sector_size,
	struct pv_cipher **ret_cipher, struct pv_error *err);
struct pv_cipher *pv_cipher_free(struct pv_cipher *cipher);
uint32_t pv_cipher_sector_size(const struct pv_cipher *cipher);

/*
 * Encrypts (decrypts) `length` bytes, a multiple of the sector size, from `in` to `out` (may be the same
 * buffer). `iv_sector` is the number of the first 512-byte sector; it advances by sector_size/512 a sector.
 * Returns 0 or -EIO when the library fails.
 */
int pv_cipher_encrypt(
	const struct pv_cipher *cipher, uint64_t iv_sector, const void *in, void *out, size_t length);
int pv_cipher_decrypt(
	const struct pv_cipher *cipher, uint64_t iv_sector, const void *in, void *out, size_t length);

#endif
