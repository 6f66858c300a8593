/*
 * Volume headers behind one table of operations. LUKS2 now; LUKS1, GELI, lofi and plain add a file each.
 *
 * All of this parses hostile input or derives keys, so it runs only inside pvol-worker (and in unit tests and
 * fuzzers), never in the keeper or the engine. Everything works on an open descriptor of the container;
 * callers hold the OFD lock on it; header writes also take flock(2) briefly, as cryptsetup does.
 */
#ifndef PV_FORMAT_FORMAT_H
#define PV_FORMAT_FORMAT_H

#include "base/error.h"
#include "base/secret.h"
#include "block/crypt.h"

#include <json-c/json.h>
#include <stdint.h>

enum pv_pbkdf { PV_PBKDF_ARGON2ID, PV_PBKDF_PBKDF2 };

struct pv_pbkdf_params {
	enum pv_pbkdf type;
	unsigned iter_time_ms; /* target unlock time; 0 = 2000 */
	uint64_t memory_kib;   /* Argon2 cap; 0 = the smaller of 1 GiB and a quarter of RAM */
	unsigned parallel;     /* Argon2 lanes; 0 = online CPUs, at most 4 */
	/* 0 = measure; tests force cheap costs: PBKDF2 >= 1000, Argon2 t >= 4 (then memory_kib 0 = 64 MiB).
	 * When all keys of a new volume are forced, the check of the volume key is cheap too. */
	unsigned forced_iterations;
};

/* One way to unlock: bytes of a passphrase, key file or normalised recovery key. */
struct pv_unlock_key {
	const char *kind; /* "passphrase", "keyfile", "recovery" */
	const struct pv_secret *secret;
	struct pv_pbkdf_params
		pbkdf; /* for new slots; not for recovery keys, whose 256 random bits need no stretching */
};

struct pv_format_create {
	uint64_t container_size;          /* bytes */
	char cipher[64];                  /* "" = aes-xts-plain64 */
	uint32_t key_size;                /* volume key bytes, 0 = 64 */
	uint32_t sector_size;             /* 0 = 4096 */
	char label[48];                   /* shown to anybody who reads the container; "" by default */
	const struct pv_unlock_key *keys; /* slot i is made of keys[i] */
	unsigned nkeys;
};

struct pv_format_ops {
	const char *name; /* "luks2" */
	/* 1 it is one (also a damaged one whose signature is in place), 0 it is not, -errno cannot read.
	 * Reads only. */
	int (*probe)(int fd, struct pv_error *err);
	/* Writes a new header. The descriptor is of the container's final size. Outputs as in unlock. */
	int (*create)(int fd, const struct pv_format_create *params, struct pv_segment *ret_segment,
		struct pv_secret **ret_volume_key, struct pv_error *err);
	/* Description without any key:
	 * {"format","uuid","label","cipher","key_size","sector_size","data_offset",
	 * "seqid","copies":{"primary":"ok|damaged|old","secondary":...},"slots":[{"slot","kind","pbkdf","time",
	 * "memory_kib","parallel","hash","iterations","priority"}],"requirements":[...],"refused":"why" or
	 * absent}. All strings are printable ASCII, whatever the header holds. -EUCLEAN when no copy of the
	 * header is usable. */
	int (*info)(int fd, struct json_object **ret_info, struct pv_error *err);
	/* Tries `key` on every slot (or on `slot` >= 0 only), those of its kind first, then by priority.
	 * -EKEYREJECTED when none opens. With `repair` a damaged or old copy of the header is rewritten once
	 * the key has opened a slot; -EUCLEAN if another program's signature is on the container. Refuses
	 * unknown requirements and reencryption (-ENOTSUP, naming them), and absurd costs (-EUCLEAN). */
	int (*unlock)(int fd, const struct pv_unlock_key *key, int slot, bool repair, int *ret_slot,
		struct pv_segment *ret_segment, struct pv_secret **ret_volume_key, struct pv_error *err);
	/* `existing` opens a slot; a new slot for `added` is made. */
	int (*key_add)(int fd, const struct pv_unlock_key *existing, const struct pv_unlock_key *added,
		int *ret_slot, struct pv_error *err);
	/* Wipes the slot's key material and entry. Removing the last slot is -EBUSY unless `force`. */
	int (*key_remove)(int fd, int slot, bool force, struct pv_error *err);
	/* Replaces the slot that `existing` opens, which keeps its number: the new slot is complete on disk
	 * before the old one is wiped. Needs a free slot for the while (-ENOSPC). */
	int (*key_change)(int fd, const struct pv_unlock_key *existing, const struct pv_unlock_key *changed,
		int *ret_slot, struct pv_error *err);
	/* Whole header area (binary headers, JSON, key slots) to (an empty one) and from an open file, the
	 * same file as cryptsetup's luksHeaderBackup; restore checks that the backup is sound and of the same
	 * data offset and (unless `force`) UUID. A container without any trace of a header needs `force`. */
	int (*backup)(int fd, int backup_fd, struct pv_error *err);
	int (*restore)(int fd, int backup_fd, bool force, struct pv_error *err);
	/* Crypto-shredding of the header area: overwrite with random bytes, fsync, discard, re-read. */
	int (*erase)(int fd, struct pv_error *err);
};

/*
 * The format of the container, by probing; else "not a volume that pvol knows": -EMEDIUMTYPE when it is
 * plainly something else (the message says what), -EUCLEAN when it is nothing known, as with a destroyed
 * header.
 */
int pv_format_probe(int fd, const struct pv_format_ops **ret_ops, struct pv_error *err);
const struct pv_format_ops *pv_format_by_name(const char *name);

extern const struct pv_format_ops pv_luks2_ops;

#endif
