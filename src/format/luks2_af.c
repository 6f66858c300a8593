/*
 * The anti-forensic splitter ("luks1" in LUKS2 headers): a key is blown up to 4000 stripes such that all of
 * them are needed to get it back, so that destroying any few of their sectors destroys the key.
 *
 *   d = 0
 *   for each stripe but the last: stripe = random, d = diffuse(d xor stripe)
 *   last stripe = d xor key
 *
 * diffuse() cuts its input into pieces of the hash's size and replaces piece j by H(BE32(j) || piece), the
 * last one truncated to its length. Merging is the same walk.
 */
#include "format/luks2_int.h"

#include "format/format_int.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

static void xor_into(uint8_t *d, const uint8_t *s, size_t size)
{
	for (size_t i = 0; i < size; i++)
		d[i] ^= s[i];
}

static int diffuse(EVP_MD_CTX *ctx, const EVP_MD *md, uint8_t *block, size_t size)
{
	const size_t piece = (size_t)EVP_MD_get_size(md);
	uint8_t sum[EVP_MAX_MD_SIZE];
	int ok = 1;

	for (size_t at = 0, j = 0; ok && at < size; at += piece, j++) {
		const uint8_t number[4] = {
			(uint8_t)(j >> 24), (uint8_t)(j >> 16), (uint8_t)(j >> 8), (uint8_t)j};
		size_t n = size - at < piece ? size - at : piece;

		ok = EVP_DigestInit_ex(ctx, md, NULL) && EVP_DigestUpdate(ctx, number, sizeof(number)) &&
		     EVP_DigestUpdate(ctx, block + at, n) && EVP_DigestFinal_ex(ctx, sum, NULL);
		if (ok)
			memcpy(block + at, sum, n);
	}
	pv_wipe(sum, sizeof(sum));
	return ok ? 0 : -EIO;
}

/* Runs over all stripes but the last; leaves d in `block`. */
static int walk(const char *hash, const uint8_t *split, size_t key_size, uint8_t *block)
{
	EVP_MD *md = EVP_MD_fetch(NULL, hash, NULL);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int r = md && ctx ? 0 : -ENOTSUP;

	memset(block, 0, key_size);
	for (size_t i = 0; !r && i < LUKS2_STRIPES - 1; i++) {
		xor_into(block, split + i * key_size, key_size);
		r = diffuse(ctx, md, block, key_size);
	}
	EVP_MD_CTX_free(ctx);
	EVP_MD_free(md);
	return r;
}

int luks2_af_split(const char *hash, const uint8_t *key, size_t key_size, uint8_t *split)
{
	uint8_t *last = split + (LUKS2_STRIPES - 1) * key_size;
	int r;

	r = format_random(split, (LUKS2_STRIPES - 1) * key_size);
	if (!r)
		r = walk(hash, split, key_size, last);
	if (!r)
		xor_into(last, key, key_size);
	return r;
}

int luks2_af_merge(const char *hash, const uint8_t *split, size_t key_size, uint8_t *key)
{
	int r = walk(hash, split, key_size, key);

	if (!r)
		xor_into(key, split + (LUKS2_STRIPES - 1) * key_size, key_size);
	return r;
}
