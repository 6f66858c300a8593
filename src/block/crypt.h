/*
 * The encrypted view of a device below: `offset` bytes are skipped, every sector is en- and decrypted.
 *
 * Writes are encrypted into own aligned bounce buffers in the submitting thread (the caller's data is never
 * changed); reads are decrypted in place in the completion path on worker threads of this device. Bounce
 * memory is bounded, with a reserve so that flush and log writes always proceed. Stateless: a torn 4096-byte
 * sector below decrypts to garbage in that sector only, which the file system's checksums find.
 */
#ifndef PV_BLOCK_CRYPT_H
#define PV_BLOCK_CRYPT_H

#include "base/secret.h"
#include "block/bdev.h"

/* A LUKS2 crypt segment (or its like in other formats). */
struct pv_segment {
	uint64_t offset;      /* bytes into the container */
	uint64_t size;        /* bytes, 0 = to the end ("dynamic") */
	char cipher[64];      /* "aes-xts-plain64" */
	uint32_t key_size;    /* bytes of volume key */
	uint32_t sector_size; /* encryption sector */
	uint64_t iv_tweak;    /* added to the 512-byte sector number */
};

/*
 * Takes ownership of `below` on success only. The key is copied into a key schedule in secret memory; `key`
 * stays the caller's. -EINVAL when the segment does not fit below, -ENOTSUP for an unknown cipher.
 */
int pv_crypt_open(struct pv_bdev *below, const struct pv_segment *segment, const struct pv_secret *key,
	struct pv_bdev **ret_bdev, struct pv_error *err);

/* Segment to and from JSON, for the control protocol:
 * {"offset","size","cipher","key_size","sector_size","iv_tweak"}. */
struct json_object *pv_segment_to_json(const struct pv_segment *segment);
int pv_segment_from_json(struct json_object *json, struct pv_segment *ret_segment, struct pv_error *err);

#endif
