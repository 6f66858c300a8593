/*
 * LUKS2: the operations of struct pv_format_ops on the parts in luks2_*.c.
 *
 * Changes to key slots hold the header's lock and follow one order, so that at any moment of a crash the
 * volume opens with the old key or with the new one: first both header copies are put in order, then the new
 * slot's area is written and synced, then the header that names it (luks2_write), and only then an old slot's
 * area is overwritten and the header written without it. A change that is cut off leaves one slot too many,
 * never one too few.
 */
#include "format/luks2_int.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "cipher/cipher.h"
#include "format/format_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DIGEST_ITERATIONS 100000U /* the key is random, so this need not be slow; about 50 ms */
#define DIGEST_ITERATIONS_CHEAP 1000U

static int luks2_probe(int fd, struct pv_error *err)
{
	luks2_auto struct luks2 *header = NULL;
	uint8_t head[8];
	ssize_t n;

	n = format_read(fd, head, sizeof(head), 0);
	if (n == (ssize_t)sizeof(head) && !memcmp(head, "LUKS\xba\xbe\0\2", 8))
		return 1; /* damaged or not: luks2_info() and luks2_unlock() tell */
	if (n < 0 && n != -EIO)
		return pv_fail(err, (int)n, NULL, "cannot read the container: %s", pv_strerror((int)n));
	return !luks2_read(fd, &header, NULL);
}

/* Reads the header for use: refuses what pvol does not understand. */
static int read_usable(int fd, struct luks2 **ret_header, struct pv_error *err)
{
	luks2_auto struct luks2 *header = NULL;
	int r;

	r = luks2_read(fd, &header, err);
	if (r)
		return r;
	if (header->meta.refused[0]) {
		pv_fail(err, -ENOTSUP, NULL, "%s", header->meta.refused);
		if (strstr(header->meta.refused, "re-encryption"))
			pv_remedy(err,
				"finish it where it was begun, with: cryptsetup reencrypt --resume-only");
		return -ENOTSUP;
	}
	*ret_header = pv_steal_ptr(&header);
	return 0;
}

/* Locks and reads for a change: both copies are in order afterwards. */
static int begin_change(int fd, struct luks2 **ret_header, struct pv_error *err)
{
	luks2_auto struct luks2 *header = NULL;
	int r;

	r = format_lock(fd, err);
	if (r)
		return r;
	r = read_usable(fd, &header, err);
	if (!r)
		r = luks2_repair(fd, header, err);
	if (r) {
		format_unlock(fd);
		return r;
	}
	*ret_header = pv_steal_ptr(&header);
	return 0;
}

/* ---- info */

static const char *copy_text(enum luks2_copy copy)
{
	return copy == LUKS2_COPY_OK ? "ok" : copy == LUKS2_COPY_OLD ? "old" : "damaged";
}

static struct json_object *slot_info(int number, const struct luks2_slot *slot)
{
	static const char *const priorities[] = {"ignore", "normal", "prefer"};
	static const char *const kdfs[] = {"pbkdf2", "argon2i", "argon2id"};
	struct json_object *obj = json_object_new_object();

	pv_json_add_int(obj, "slot", number);
	pv_json_add_string(obj, "kind", slot->kind);
	pv_json_add_string(obj, "pbkdf", kdfs[slot->kdf.type]);
	if (slot->kdf.type == LUKS2_PBKDF2) {
		pv_json_add_string(obj, "hash", slot->kdf.hash);
		pv_json_add_int(obj, "iterations", slot->kdf.iterations);
	} else {
		pv_json_add_int(obj, "time", slot->kdf.iterations);
		pv_json_add_int(obj, "memory_kib", slot->kdf.memory);
		pv_json_add_int(obj, "parallel", slot->kdf.lanes);
	}
	pv_json_add_string(obj, "priority", priorities[slot->priority]);
	return obj;
}

/* The requirements as they stand, as far as they are printable text. */
static struct json_object *requirements_info(const struct luks2 *header)
{
	struct json_object *list = pv_json_array(
		pv_json_object(pv_json_object(header->json, "config"), "requirements"), "mandatory");
	struct json_object *shown = json_object_new_array();
	char text[64];

	for (size_t i = 0; list && i < json_object_array_length(list); i++) {
		struct json_object *item = json_object_array_get_idx(list, i);

		if (json_object_is_type(item, json_type_string))
			json_object_array_add(shown,
				json_object_new_string(
					format_printable(json_object_get_string(item), text, sizeof(text))));
	}
	return shown;
}

static int luks2_info(int fd, struct json_object **ret_info, struct pv_error *err)
{
	luks2_auto struct luks2 *header = NULL;
	struct json_object *info, *copies, *slots;
	const struct luks2_meta *meta;
	int r;

	r = luks2_read(fd, &header, err);
	if (r)
		return r;
	meta = &header->meta;
	info = json_object_new_object();
	pv_json_add_string(info, "format", "luks2");
	pv_json_add_string(info, "uuid", header->uuid);
	pv_json_add_string(info, "label", header->label);
	pv_json_add_string(info, "cipher", meta->segment.cipher);
	pv_json_add_int(info, "key_size", meta->segment.key_size);
	pv_json_add_int(info, "sector_size", meta->segment.sector_size);
	pv_json_add_u64(info, "data_offset", meta->segment.offset);
	pv_json_add_u64(info, "seqid", header->seqid);
	copies = json_object_new_object();
	pv_json_add_string(copies, "primary", copy_text(header->copy[0]));
	pv_json_add_string(copies, "secondary", copy_text(header->copy[1]));
	json_object_object_add(info, "copies", copies);
	slots = json_object_new_array();
	for (int i = 0; i < LUKS2_MAX; i++)
		if (meta->slots[i].used)
			json_object_array_add(slots, slot_info(i, &meta->slots[i]));
	json_object_object_add(info, "slots", slots);
	json_object_object_add(info, "requirements", requirements_info(header));
	if (meta->refused[0])
		pv_json_add_string(info, "refused", meta->refused);
	*ret_info = info;
	return 0;
}

/* ---- unlock */

/* In which order slots are tried: those of the key's own kind first, then by priority. -1: not at all. */
static int rank(const struct luks2_slot *slot, const char *kind, bool asked_for)
{
	if (!slot->used || !slot->bound)
		return -1;
	if (slot->priority == LUKS2_PRIORITY_IGNORE && !asked_for)
		return -1;
	return (strcmp(slot->kind, kind) ? 0 : 4) + (int)slot->priority;
}

/* Tries the key on the slots (on `only` if >= 0). Returns the slot's number or -errno. */
static int open_some_slot(int fd, const struct luks2 *header, const struct pv_unlock_key *key, int only,
	const struct luks2_limits *limits, struct pv_secret **ret_key, struct pv_error *err)
{
	const struct luks2_meta *meta = &header->meta;
	struct pv_error trouble = {0};
	int tried = 0;

	if (only >= LUKS2_MAX || (only >= 0 && !meta->slots[only].used))
		return pv_fail(err, -ENOENT, NULL, "key slot %d is empty", only);
	for (int want = 6; want >= 0; want--) {
		for (int i = 0; i < LUKS2_MAX; i++) {
			struct pv_error why = {0};
			int r;

			if ((only >= 0 && i != only) || rank(&meta->slots[i], key->kind, only >= 0) != want)
				continue;
			tried++;
			r = luks2_slot_open(fd, &meta->slots[i], &meta->digests[meta->segment_digest], limits,
				key->secret, ret_key, &why);
			if (!r)
				return i;
			/* What hinders one slot need not hinder the next; told only if none opens. */
			if (r != -EKEYREJECTED && !trouble.code)
				trouble = why;
		}
	}
	if (trouble.code) {
		if (err)
			*err = trouble;
		return trouble.code;
	}
	if (!tried)
		return pv_fail(err, -EKEYREJECTED, NULL, "no key slot in the header opens the data");
	return pv_fail(err, -EKEYREJECTED, NULL, "the %s opens none of the key slots",
		!strcmp(key->kind, "keyfile")    ? "key file"
		: !strcmp(key->kind, "recovery") ? "recovery key"
						 : "passphrase");
}

int luks2_unlock_limited(int fd, const struct pv_unlock_key *key, int slot, bool repair,
	const struct luks2_limits *limits, int *ret_slot, struct pv_segment *ret_segment,
	struct pv_secret **ret_volume_key, struct pv_error *err)
{
	luks2_auto struct luks2 *header = NULL, *again = NULL;
	pv_autosecret struct pv_secret *volume_key = NULL;
	int r, opened;

	r = read_usable(fd, &header, err);
	if (r)
		return r;
	opened = open_some_slot(fd, header, key, slot, limits, &volume_key, err);
	if (opened < 0)
		return opened;
	if (repair && (header->copy[0] != LUKS2_COPY_OK || header->copy[1] != LUKS2_COPY_OK)) {
		r = begin_change(fd, &again, err); /* repairs what it then finds */
		if (r)
			return r;
		format_unlock(fd);
	}
	*ret_slot = opened;
	*ret_segment = header->meta.segment;
	*ret_volume_key = pv_steal_ptr(&volume_key);
	return 0;
}

static int luks2_unlock(int fd, const struct pv_unlock_key *key, int slot, bool repair, int *ret_slot,
	struct pv_segment *ret_segment, struct pv_secret **ret_volume_key, struct pv_error *err)
{
	return luks2_unlock_limited(
		fd, key, slot, repair, &luks2_limits, ret_slot, ret_segment, ret_volume_key, err);
}

/* ---- create */

static int check_create(
	int fd, const struct pv_format_create *params, struct pv_segment *segment, struct pv_error *err)
{
	uint64_t size;
	int r;

	segment->offset = LUKS2_DATA_OFFSET;
	segment->key_size = params->key_size ? params->key_size : 64;
	segment->sector_size = params->sector_size ? params->sector_size : 4096;
	snprintf(segment->cipher, sizeof(segment->cipher), "%s",
		params->cipher[0] ? params->cipher : "aes-xts-plain64");
	if (segment->key_size > LUKS2_MAX_KEY)
		return pv_fail(err, -EINVAL, NULL, "a key has at most %d bits", LUKS2_MAX_KEY * 8);
	if (!params->nkeys || params->nkeys > LUKS2_MAX)
		return pv_fail(err, -EINVAL, NULL, "a volume has 1 to %d keys", LUKS2_MAX);
	for (unsigned i = 0; i < params->nkeys; i++)
		if (strcmp(params->keys[i].kind, "passphrase") && strcmp(params->keys[i].kind, "keyfile") &&
			strcmp(params->keys[i].kind, "recovery"))
			return pv_fail(err, -EINVAL, NULL, "a key of an unknown kind");
	if (strnlen(params->label, sizeof(params->label)) == sizeof(params->label))
		return pv_fail(err, -EINVAL, NULL, "the label is too long");
	for (const char *c = params->label; *c; c++)
		if (*c < 0x20 || *c >= 0x7f)
			return pv_fail(err, -EINVAL, NULL, "the label must be of printable ASCII characters");
	r = format_size(fd, &size, err);
	if (r)
		return r;
	if (params->container_size > size)
		return pv_fail(err, -EINVAL, NULL, "the container is smaller than it should be");
	if (size < LUKS2_DATA_OFFSET + (1U << 20))
		return pv_fail(
			err, -EINVAL, NULL, "the container is too small: the header alone takes 16 MiB");
	return 0;
}

/* Overwrites whatever was in the header area: older headers in all places that a header can be, and key
 * slots. */
static int clear_area(int fd, struct pv_error *err)
{
	pv_autofree void *zeros = format_buffer(2 * LUKS2_HDR_MIN);
	int r = zeros ? 0 : -ENOMEM;

	if (!r)
		r = format_write(fd, zeros, 2 * LUKS2_HDR_MIN, 0);
	if (!r)
		r = format_sync(fd);
	if (!r)
		r = format_write_random(fd, 2 * LUKS2_HDR_MIN, LUKS2_DATA_OFFSET - 2 * LUKS2_HDR_MIN);
	return r ? pv_fail(err, r, NULL, "cannot write the header area: %s", pv_strerror(r)) : 0;
}

/* Adds a slot of complete parameters: its area on disk, its entry in memory. Leaves number and area in
 * `slot`. */
static int add_slot(int fd, struct luks2 *header, const struct pv_secret *secret,
	const struct pv_secret *volume_key, struct luks2_slot *slot, int *ret_number, struct pv_error *err)
{
	int r;

	r = luks2_find_free(header, slot->key_size, ret_number, &slot->area_offset, err);
	if (r)
		return r;
	if (luks2_edit_add_slot(header->json, *ret_number, slot, header->meta.segment_digest))
		return pv_fail(err, -ENOSPC, NULL, "the header has no room for another key slot");
	r = luks2_reparse(header, err);
	return r ? r : luks2_slot_store(fd, slot, secret, volume_key, err);
}

static int luks2_create(int fd, const struct pv_format_create *params, struct pv_segment *ret_segment,
	struct pv_secret **ret_volume_key, struct pv_error *err)
{
	pv_autosecret struct pv_secret *volume_key = NULL;
	luks2_auto struct luks2 *header = NULL;
	struct luks2_slot slots[LUKS2_MAX];
	struct pv_segment segment = {0};
	struct luks2_digest digest;
	struct pv_cipher *cipher;
	struct json_object *json;
	bool cheap = true;
	int r, number;

	r = check_create(fd, params, &segment, err);
	if (!r)
		r = pv_secret_random(segment.key_size, &volume_key, err);
	if (!r)
		r = pv_cipher_new(segment.cipher, volume_key, segment.sector_size, &cipher, err);
	if (r)
		return r;
	pv_cipher_free(cipher); /* it was a check only */
	for (unsigned i = 0; !r && i < params->nkeys; i++) {
		r = luks2_slot_params(&params->keys[i], segment.key_size, &slots[i], err);
		cheap &= params->keys[i].pbkdf.forced_iterations != 0;
	}
	if (!r)
		r = luks2_digest_make(
			volume_key, cheap ? DIGEST_ITERATIONS_CHEAP : DIGEST_ITERATIONS, &digest, err);
	if (r)
		return r;
	json = luks2_edit_new(&segment, LUKS2_DATA_OFFSET - 2 * LUKS2_HDR_MIN);
	luks2_edit_add_digest(json, 0, &digest);
	r = luks2_new_header(params->label, json, &header, err);
	if (!r)
		r = luks2_reparse(header, err);
	if (!r)
		r = clear_area(fd, err);
	for (unsigned i = 0; !r && i < params->nkeys; i++)
		r = add_slot(fd, header, params->keys[i].secret, volume_key, &slots[i], &number, err);
	if (!r)
		r = luks2_write(fd, header, err);
	if (r)
		return r;
	*ret_segment = header->meta.segment;
	*ret_volume_key = pv_steal_ptr(&volume_key);
	return 0;
}

/* ---- keys */

/* Unlocks with `existing` and prepares a slot for `added`, all before the lock is taken. */
static int prepare_key(int fd, const struct pv_unlock_key *existing, const struct pv_unlock_key *added,
	int *ret_opened, struct luks2_slot *ret_slot, struct luks2 **ret_header,
	struct pv_secret **ret_volume_key, struct pv_error *err)
{
	luks2_auto struct luks2 *header = NULL;
	int r;

	r = read_usable(fd, &header, err);
	if (r)
		return r;
	*ret_opened = open_some_slot(fd, header, existing, -1, &luks2_limits, ret_volume_key, err);
	if (*ret_opened < 0)
		return *ret_opened;
	r = luks2_slot_params(added, header->meta.segment.key_size, ret_slot, err);
	if (!r)
		*ret_header = pv_steal_ptr(&header);
	return r;
}

/* Takes the lock; fails if the header has changed since `before` was read. */
static int begin_after(int fd, const struct luks2 *before, struct luks2 **ret_header, struct pv_error *err)
{
	int r;

	r = begin_change(fd, ret_header, err);
	if (r)
		return r;
	if ((*ret_header)->seqid != before->seqid || strcmp((*ret_header)->uuid, before->uuid)) {
		format_unlock(fd);
		return pv_fail(
			err, -EBUSY, NULL, "another program changed the header meanwhile; nothing was done");
	}
	return 0;
}

static int luks2_key_add(int fd, const struct pv_unlock_key *existing, const struct pv_unlock_key *added,
	int *ret_slot, struct pv_error *err)
{
	luks2_auto struct luks2 *before = NULL, *header = NULL;
	pv_autosecret struct pv_secret *volume_key = NULL;
	struct luks2_slot slot;
	int r, opened, number;

	r = prepare_key(fd, existing, added, &opened, &slot, &before, &volume_key, err);
	if (!r)
		r = begin_after(fd, before, &header, err);
	if (r)
		return r;
	r = add_slot(fd, header, added->secret, volume_key, &slot, &number, err);
	if (!r)
		r = luks2_write(fd, header, err);
	format_unlock(fd);
	if (!r)
		*ret_slot = number;
	return r;
}

static int luks2_key_remove(int fd, int number, bool force, struct pv_error *err)
{
	luks2_auto struct luks2 *header = NULL;
	const struct luks2_meta *meta;
	int r, others = 0;

	r = begin_change(fd, &header, err);
	if (r)
		return r;
	meta = &header->meta;
	for (int i = 0; i < LUKS2_MAX; i++)
		others += meta->slots[i].bound && i != number;
	if (number < 0 || number >= LUKS2_MAX || !meta->slots[number].used)
		r = pv_fail(err, -ENOENT, NULL, "key slot %d is empty", number);
	else if (!others && meta->slots[number].bound && !force) {
		r = pv_fail(err, -EBUSY, NULL,
			"key slot %d is the last one: without it the data are lost for ever", number);
		pv_remedy(err, "add another key first, or erase the volume with: pvol erase");
	}
	/* The material first: if this is cut off, an entry is left that opens nothing and can be removed
	 * again. */
	if (!r)
		r = luks2_slot_wipe(fd, &meta->slots[number], err);
	if (!r) {
		luks2_edit_remove_slot(header->json, number);
		r = luks2_reparse(header, err);
	}
	if (!r)
		r = luks2_write(fd, header, err);
	format_unlock(fd);
	return r;
}

static int change_slot(int fd, struct luks2 *header, int old, const struct pv_unlock_key *changed,
	const struct pv_secret *volume_key, struct luks2_slot *slot, struct pv_error *err)
{
	const struct luks2_slot replaced = header->meta.slots[old];
	int r, number;

	r = add_slot(fd, header, changed->secret, volume_key, slot, &number, err);
	if (!r)
		r = luks2_write(fd, header, err);
	if (!r)
		r = luks2_slot_wipe(fd, &replaced, err);
	if (r)
		return r;
	luks2_edit_remove_slot(header->json, old);
	r = luks2_edit_renumber_slot(header->json, number, old);
	if (r)
		return pv_fail(err, r, NULL, "cannot renumber key slot %d", number);
	r = luks2_reparse(header, err);
	return r ? r : luks2_write(fd, header, err);
}

/* The changed key keeps the number of the slot it replaces. */
static int luks2_key_change(int fd, const struct pv_unlock_key *existing, const struct pv_unlock_key *changed,
	int *ret_slot, struct pv_error *err)
{
	luks2_auto struct luks2 *before = NULL, *header = NULL;
	pv_autosecret struct pv_secret *volume_key = NULL;
	struct luks2_slot slot;
	int r, opened;

	r = prepare_key(fd, existing, changed, &opened, &slot, &before, &volume_key, err);
	if (!r)
		r = begin_after(fd, before, &header, err);
	if (r)
		return r;
	r = change_slot(fd, header, opened, changed, volume_key, &slot, err);
	format_unlock(fd);
	if (!r)
		*ret_slot = opened;
	return r;
}

const struct pv_format_ops pv_luks2_ops = {
	.name = "luks2",
	.probe = luks2_probe,
	.create = luks2_create,
	.info = luks2_info,
	.unlock = luks2_unlock,
	.key_add = luks2_key_add,
	.key_remove = luks2_key_remove,
	.key_change = luks2_key_change,
	.backup = luks2_backup,
	.restore = luks2_restore,
	.erase = luks2_erase,
};
