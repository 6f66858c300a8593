/*
 * Private to format/ (and its tests and fuzzers): the parts of the LUKS2 implementation.
 *
 *   luks2_disk.c   the binary header, its two copies, read and write rule
 *   luks2_json.c   strict reader of the JSON into struct luks2_meta
 *   luks2_edit.c   changes to the JSON tree
 *   luks2_slot.c   key slots: deriving, opening, filling, wiping
 *   luks2_kdf.c    PBKDF2 and Argon2, bounds on what a header may demand
 *   luks2_cost.c   measuring what to demand from a new slot
 *   luks2_af.c     the anti-forensic splitter
 *   luks2_image.c  backup, restore and erasure of the whole header area
 *   luks2.c        the operations of pv_format_ops
 */
#ifndef PV_FORMAT_LUKS2_INT_H
#define PV_FORMAT_LUKS2_INT_H

#include "base/secret.h"
#include "format/format.h"

#include <json-c/json.h>

#define LUKS2_BIN_SIZE 4096U
#define LUKS2_HDR_MIN 0x4000U
#define LUKS2_HDR_MAX 0x400000U
#define LUKS2_KEYSLOTS_MAX (128U << 20)
#define LUKS2_MAX 32 /* of slots, tokens, segments, digests each */
#define LUKS2_STRIPES 4000
#define LUKS2_MAX_KEY 64 /* bytes; a split key must fit into pv_secret memory */
#define LUKS2_MAX_SALT 64
#define LUKS2_DATA_OFFSET (16U << 20) /* of new headers */

#define LUKS2_TOKEN_RECOVERY                                                                                 \
	"systemd-recovery" /* systemd-cryptenroll's, so that systemd-cryptsetup knows it too */
#define LUKS2_TOKEN_KEYFILE "pvol-keyfile"

enum luks2_kdf_type { LUKS2_PBKDF2, LUKS2_ARGON2I, LUKS2_ARGON2ID };

struct luks2_kdf {
	enum luks2_kdf_type type;
	char hash[16];       /* PBKDF2 */
	uint32_t iterations; /* PBKDF2 rounds, or Argon2 passes */
	uint32_t memory;     /* Argon2, KiB */
	uint32_t lanes;      /* Argon2 */
	uint8_t salt[LUKS2_MAX_SALT];
	uint32_t salt_size;
};

enum luks2_priority { LUKS2_PRIORITY_IGNORE, LUKS2_PRIORITY_NORMAL, LUKS2_PRIORITY_PREFER };

struct luks2_slot {
	bool used;
	enum luks2_priority priority;
	uint32_t key_size; /* of the volume key, bytes */
	uint64_t area_offset;
	uint64_t area_size;
	char area_cipher[64];
	uint32_t area_key_size;
	char af_hash[16];
	struct luks2_kdf kdf;
	const char *kind; /* "passphrase", "keyfile", "recovery"; static */
	bool bound;       /* its key opens the data segment */
};

struct luks2_digest {
	bool used;
	uint32_t slots;    /* bit i: slot i */
	uint32_t segments; /* bit i: segment i */
	char hash[16];
	uint32_t iterations;
	uint8_t salt[LUKS2_MAX_SALT];
	uint32_t salt_size;
	uint8_t value[64];
	uint32_t value_size;
};

/* What the JSON says, checked. When `refused` is set only that and the slots read so far mean anything. */
struct luks2_meta {
	uint64_t keyslots_size;
	uint64_t keyslots_end; /* bytes into the container */
	struct luks2_slot slots[LUKS2_MAX];
	struct luks2_digest digests[LUKS2_MAX];
	int segment_number;
	int segment_digest;
	struct pv_segment segment; /* key_size from the slots bound to it */
	char refused[256];         /* why this program must not touch the volume, or empty */
};

enum luks2_copy { LUKS2_COPY_OK, LUKS2_COPY_DAMAGED, LUKS2_COPY_OLD };

struct luks2 {
	uint8_t bin[LUKS2_BIN_SIZE]; /* the binary header in force */
	uint64_t hdr_size;
	uint64_t seqid;
	char uuid[41];
	char label[49];
	enum luks2_copy copy[2]; /* primary, secondary */
	char foreign[64];        /* what overwrote the primary copy, or empty; then nothing may be written */
	struct json_object *json;
	struct luks2_meta meta;
};

/* Bounds on what a hostile header can make us compute. */
struct luks2_limits {
	uint32_t pbkdf2_iterations;
	uint32_t argon2_memory; /* KiB */
	uint64_t argon2_work;   /* KiB times passes */
	uint32_t argon2_lanes;
};
extern const struct luks2_limits luks2_limits;

/* ---- luks2_disk.c */

/* Reads both copies and parses the one in force. -EUCLEAN when there is none or its contents are wrong.
 * Writes nothing. */
int luks2_read(int fd, struct luks2 **ret_header, struct pv_error *err);
struct luks2 *luks2_free(struct luks2 *header);
/* Rewrites the copy that is damaged or old, if one is. -EUCLEAN when another signature is on the container.
 */
int luks2_repair(int fd, struct luks2 *header, struct pv_error *err);
/* Writes the (edited) header with the next sequence number, primary then secondary. Both copies must be in
 * order. */
int luks2_write(int fd, struct luks2 *header, struct pv_error *err);
/* Parses header->json into header->meta again, after an edit. */
int luks2_reparse(struct luks2 *header, struct pv_error *err);
/* A header in memory for a new volume; takes ownership of `json`. */
int luks2_new_header(
	const char *label, struct json_object *json, struct luks2 **ret_header, struct pv_error *err);
/* 1 if a magic of either copy is in place, valid or not; fills the UUID text there (ret_uuid may be NULL). */
int luks2_look(int fd, char ret_uuid[static 41]);

static inline void luks2_cleanup(struct luks2 **header)
{
	luks2_free(*header);
}
#define luks2_auto __attribute__((cleanup(luks2_cleanup)))

/* ---- luks2_json.c */

/* `hdr_size` bounds the areas. 0 also when meta->refused is set; -EUCLEAN tells what is wrong. */
int luks2_parse(
	struct json_object *json, uint64_t hdr_size, struct luks2_meta *ret_meta, struct pv_error *err);
/* The text of a JSON area to a tree: NUL-terminated inside `size`, zero after that, at most 32 levels deep.
 */
int luks2_parse_text(const char *area, size_t size, struct json_object **ret_json, struct pv_error *err);

/* ---- luks2_edit.c (each edits the tree only; luks2_reparse() and luks2_write() follow) */

/* Largest AF area of a key of this size. */
static inline uint64_t luks2_area_size(uint32_t key_size)
{
	return ((uint64_t)key_size * LUKS2_STRIPES + 4095) & ~4095ULL;
}

struct json_object *luks2_edit_new(const struct pv_segment *segment, uint32_t keyslots_size);
/* Lowest free slot number and a free range in the key slots area for it: 0 or -ENOSPC. */
int luks2_find_free(const struct luks2 *header, uint32_t key_size, int *ret_slot, uint64_t *ret_offset,
	struct pv_error *err);
int luks2_edit_add_slot(struct json_object *json, int number, const struct luks2_slot *slot, int digest);
int luks2_edit_add_digest(struct json_object *json, int number, const struct luks2_digest *digest);
/* Removes the slot, and it from digests and tokens; tokens of pvol's own kinds that it leaves empty go too.
 */
void luks2_edit_remove_slot(struct json_object *json, int number);
/* Gives slot `from` the free number `to` everywhere. */
int luks2_edit_renumber_slot(struct json_object *json, int from, int to);

/* ---- luks2_slot.c */

/* Derives, decrypts, merges and checks: the volume key, or -EKEYREJECTED. */
int luks2_slot_open(int fd, const struct luks2_slot *slot, const struct luks2_digest *digest,
	const struct luks2_limits *limits, const struct pv_secret *secret, struct pv_secret **ret_key,
	struct pv_error *err);
/* Fills the area of a slot whose parameters are complete; synced when it returns. */
int luks2_slot_store(int fd, const struct luks2_slot *slot, const struct pv_secret *secret,
	const struct pv_secret *key, struct pv_error *err);
/* Overwrites the area with random bytes; synced when it returns. */
int luks2_slot_wipe(int fd, const struct luks2_slot *slot, struct pv_error *err);
/* Parameters of a new slot for `key`, without area offset. Measures the cost, which takes about a second. */
int luks2_slot_params(const struct pv_unlock_key *key, uint32_t key_size, struct luks2_slot *ret_slot,
	struct pv_error *err);
int luks2_digest_make(const struct pv_secret *key, uint32_t iterations, struct luks2_digest *ret_digest,
	struct pv_error *err);

/* ---- luks2_kdf.c */

/* Digest bytes of a permitted hash (sha1, sha256, sha384, sha512), 0 for any other name. */
uint32_t luks2_hash_size(const char *name);
int luks2_kdf_check(const struct luks2_kdf *kdf, const struct luks2_limits *limits, struct pv_error *err);
/* Fills `out` (its whole size). The caller has checked the cost. */
int luks2_kdf_derive(const struct luks2_kdf *kdf, const struct pv_secret *secret, struct pv_secret *out,
	struct pv_error *err);
int luks2_pbkdf2(const char *hash, const void *secret, size_t secret_size, const uint8_t *salt,
	size_t salt_size, uint32_t iterations, uint8_t *out, size_t out_size, struct pv_error *err);

/* ---- luks2_cost.c */

/* Fills type, hash, iterations, memory and lanes, not the salt. */
int luks2_cost_choose(const struct pv_pbkdf_params *params, struct luks2_kdf *ret_kdf, struct pv_error *err);

/* ---- luks2_af.c: 0 or -errno; `split` holds LUKS2_STRIPES times key_size bytes. */
int luks2_af_split(const char *hash, const uint8_t *key, size_t key_size, uint8_t *split);
int luks2_af_merge(const char *hash, const uint8_t *split, size_t key_size, uint8_t *key);

/* ---- luks2_image.c */
int luks2_backup(int fd, int backup_fd, struct pv_error *err);
int luks2_restore(int fd, int backup_fd, bool force, struct pv_error *err);
int luks2_erase(int fd, struct pv_error *err);

/* ---- luks2.c: pv_format_ops.unlock with other bounds, for the fuzzer. */
int luks2_unlock_limited(int fd, const struct pv_unlock_key *key, int slot, bool repair,
	const struct luks2_limits *limits, int *ret_slot, struct pv_segment *ret_segment,
	struct pv_secret **ret_volume_key, struct pv_error *err);

#endif
