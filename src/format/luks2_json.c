/*
 * The strict reader of a LUKS2 header's JSON: hostile input.
 *
 *   {"keyslots": {"0": {"type":"luks2","key_size":64,"priority":1?,
 *                       "af":{"type":"luks1","stripes":4000,"hash":"sha256"},
 *                       "area":{"type":"raw","offset":"32768","size":"258048",
 *                               "encryption":"aes-xts-plain64","key_size":64},
 *                       "kdf":{"type":"argon2id","time":4,"memory":1048576,"cpus":2,"salt":BASE64}
 *                          or {"type":"pbkdf2","hash":"sha256","iterations":N,"salt":BASE64}}},
 *    "tokens":   {"0": {"type":"systemd-recovery","keyslots":["1"], ...}},
 *    "segments": {"0": {"type":"crypt","offset":"16777216","size":"dynamic","iv_tweak":"0",
 *                       "encryption":"aes-xts-plain64","sector_size":4096}},
 *    "digests":  {"0": {"type":"pbkdf2","keyslots":["0"],"segments":["0"],"hash":"sha256",
 *                       "iterations":100000,"salt":BASE64,"digest":BASE64}},
 *    "config":   {"json_size":"12288","keyslots_size":"16744448","flags":[...]?,
 *                 "requirements":{"mandatory":[...]}?}}
 *
 * 64-bit integers are decimal strings, binary is base64 with padding, object keys are slot numbers below 32.
 *
 * Two verdicts: -EUCLEAN for contents that no correct program writes, and meta->refused for contents that are
 * sound but that this program does not understand, such as an unfinished re-encryption. Where something is
 * refused the rest may have another shape than above, so a later contradiction is not reported. Unknown
 * members are ignored here and preserved by luks2_edit.c, as the LUKS2 specification wants for optional
 * fields.
 */
#include "format/luks2_int.h"

#include "base/json.h"
#include "format/format_int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BAD(err, ...) pv_fail(err, -EUCLEAN, NULL, __VA_ARGS__)

#define MAX_DEPTH 32

__attribute__((format(printf, 2, 3))) static void refuse(struct luks2_meta *meta, const char *fmt, ...)
{
	va_list ap;

	if (meta->refused[0])
		return; /* the first reason is told */
	va_start(ap, fmt);
	vsnprintf(meta->refused, sizeof(meta->refused), fmt, ap);
	va_end(ap);
}

/* ---- typed members; `what` names the object in errors */

static int get(struct json_object *obj, const char *key, enum json_type type, const char *what,
	struct json_object **ret_value, struct pv_error *err)
{
	struct json_object *value;

	if (!json_object_object_get_ex(obj, key, &value) || !json_object_is_type(value, type))
		return BAD(err, "the header's %s has no valid \"%s\"", what, key);
	*ret_value = value;
	return 0;
}

/* Borrowed, without embedded NUL, shorter than `max`. */
static int string_value(struct json_object *value, size_t max, const char **ret_text)
{
	const char *text = NULL;
	size_t size;

	if (!json_object_is_type(value, json_type_string))
		return -EUCLEAN;
	text = json_object_get_string(value);
	size = (size_t)json_object_get_string_len(value);
	if (size >= max || strlen(text) != size)
		return -EUCLEAN;
	*ret_text = text;
	return 0;
}

static int get_string(struct json_object *obj, const char *key, const char *what, size_t max,
	const char **ret_text, struct pv_error *err)
{
	struct json_object *value;
	int r;

	r = get(obj, key, json_type_string, what, &value, err);
	if (r)
		return r;
	if (string_value(value, max, ret_text))
		return BAD(err, "the header's %s has no valid \"%s\"", what, key);
	return 0;
}

static int copy_string(struct json_object *obj, const char *key, const char *what, char *ret_text,
	size_t size, struct pv_error *err)
{
	const char *text = NULL;
	int r;

	r = get_string(obj, key, what, size, &text, err);
	if (!r)
		format_printable(text, ret_text, size);
	return r;
}

static int get_u32(struct json_object *obj, const char *key, const char *what, uint32_t min, uint32_t max,
	uint32_t *ret_value, struct pv_error *err)
{
	struct json_object *value;
	int64_t number;
	int r;

	r = get(obj, key, json_type_int, what, &value, err);
	if (r)
		return r;
	number = json_object_get_int64(value); /* saturates, so an overflow is out of range too */
	if (number < min || number > max)
		return BAD(err, "the header's %s has \"%s\" outside %u to %u", what, key, min, max);
	*ret_value = (uint32_t)number;
	return 0;
}

/* Decimal digits only, no sign, blank or superfluous zero, below 2^63. */
static int parse_decimal(const char *text, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (!*text || (text[0] == '0' && text[1]) || strlen(text) > 19)
		return -EUCLEAN;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EUCLEAN;
		value = value * 10 + (uint64_t)(*text - '0');
	}
	if (value > INT64_MAX)
		return -EUCLEAN;
	*ret_value = value;
	return 0;
}

static int get_u64(
	struct json_object *obj, const char *key, const char *what, uint64_t *ret_value, struct pv_error *err)
{
	const char *text = NULL;
	int r;

	r = get_string(obj, key, what, 32, &text, err);
	if (r)
		return r;
	if (parse_decimal(text, ret_value))
		return BAD(err, "the header's %s has \"%s\" that is not a decimal number", what, key);
	return 0;
}

static int base64_digit(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int)(p - digits) : -1;
}

static int parse_base64(const char *text, uint8_t *ret_data, size_t max, uint32_t *ret_size)
{
	size_t length = strlen(text), size, pad = 0;

	if (!length || length % 4)
		return -EUCLEAN;
	pad = (size_t)(text[length - 1] == '=') +
	      (size_t)(text[length - 1] == '=' && text[length - 2] == '=');
	size = length / 4 * 3 - pad;
	if (size > max)
		return -EUCLEAN;
	for (size_t i = 0, at = 0; i < length; i += 4) {
		uint32_t group = 0;

		for (size_t j = 0; j < 4; j++) {
			int digit = i + j >= length - pad ? 0 : base64_digit(text[i + j]);

			if (digit < 0)
				return -EUCLEAN;
			group = group << 6 | (uint32_t)digit;
		}
		for (int shift = 16; shift >= 0 && at < size; shift -= 8)
			ret_data[at++] = (uint8_t)(group >> shift);
	}
	*ret_size = (uint32_t)size;
	return 0;
}

static int get_base64(struct json_object *obj, const char *key, const char *what, uint8_t *ret_data,
	uint32_t min, uint32_t max, uint32_t *ret_size, struct pv_error *err)
{
	const char *text = NULL;
	int r;

	r = get_string(obj, key, what, 256, &text, err);
	if (r)
		return r;
	if (parse_base64(text, ret_data, max, ret_size) || *ret_size < min)
		return BAD(err, "the header's %s has \"%s\" that is not base64 of %u to %u bytes", what, key,
			min, max);
	return 0;
}

static int get_hash(struct json_object *obj, const char *what, char ret_name[static 16],
	struct luks2_meta *meta, struct pv_error *err)
{
	int r;

	r = copy_string(obj, "hash", what, ret_name, 16, err);
	if (!r && !luks2_hash_size(ret_name))
		refuse(meta, "%s uses the hash %s, which pvol does not support", what, ret_name);
	return r;
}

/* The number that an object key or an element of a reference list is. */
static int parse_number(const char *text, int *ret_number)
{
	uint64_t value;

	if (parse_decimal(text, &value) || value >= LUKS2_MAX)
		return -EUCLEAN;
	*ret_number = (int)value;
	return 0;
}

/* ["0","3"] as a bit mask. */
static int get_mask(
	struct json_object *obj, const char *key, const char *what, uint32_t *ret_mask, struct pv_error *err)
{
	struct json_object *array;
	uint32_t mask = 0;
	int r, number;

	r = get(obj, key, json_type_array, what, &array, err);
	if (r)
		return r;
	for (size_t i = 0; i < json_object_array_length(array); i++) {
		const char *text;

		if (string_value(json_object_array_get_idx(array, i), 8, &text) ||
			parse_number(text, &number))
			return BAD(err, "the header's %s has \"%s\" with an element that is not a number",
				what, key);
		if (mask & 1U << number)
			return BAD(err, "the header's %s has \"%s\" with the same number twice", what, key);
		mask |= 1U << number;
	}
	*ret_mask = mask;
	return 0;
}

/* ---- the top-level objects */

static int parse_requirements(struct json_object *config, struct luks2_meta *meta, struct pv_error *err)
{
	struct json_object *requirements, *list;

	if (!json_object_object_get_ex(config, "requirements", &requirements))
		return 0;
	if (!json_object_is_type(requirements, json_type_object))
		return BAD(err, "the header's config has no valid \"requirements\"");
	json_object_object_foreach (requirements, class, value) {
		char shown[40];

		list = value;
		if (strcmp(class, "mandatory") || !json_object_is_type(list, json_type_array)) {
			refuse(meta, "the header has requirements of an unknown class, '%s'",
				format_printable(class, shown, sizeof(shown)));
			continue;
		}
		for (size_t i = 0; i < json_object_array_length(list); i++) {
			const char *text;

			if (string_value(json_object_array_get_idx(list, i), 256, &text))
				return BAD(err, "the header's requirements are not strings");
			format_printable(text, shown, sizeof(shown));
			if (strstr(shown, "reencrypt"))
				refuse(meta,
					"the volume is in the middle of a re-encryption (requirement '%s')",
					shown);
			else
				refuse(meta, "the volume has the requirement '%s', which pvol does not know",
					shown);
		}
	}
	return 0;
}

static int parse_flags(struct json_object *config, struct luks2_meta *meta, struct pv_error *err)
{
	/* They tune the kernel's dm-crypt; none of them changes what is on disk. */
	static const char *const known[] = {"allow-discards", "same-cpu-crypt", "submit-from-crypt-cpus",
		"no-journal", "no-read-workqueue", "no-write-workqueue"};
	struct json_object *flags;

	if (!json_object_object_get_ex(config, "flags", &flags))
		return 0;
	if (!json_object_is_type(flags, json_type_array))
		return BAD(err, "the header's config has no valid \"flags\"");
	for (size_t i = 0; i < json_object_array_length(flags); i++) {
		const char *text;
		bool found = false;
		char shown[40];

		if (string_value(json_object_array_get_idx(flags, i), 256, &text))
			return BAD(err, "the header's flags are not strings");
		for (size_t k = 0; k < sizeof(known) / sizeof(known[0]); k++)
			found |= !strcmp(known[k], text);
		if (!found)
			refuse(meta, "the volume has the flag '%s', which pvol does not know",
				format_printable(text, shown, sizeof(shown)));
	}
	return 0;
}

static int parse_config(
	struct json_object *json, uint64_t hdr_size, struct luks2_meta *meta, struct pv_error *err)
{
	struct json_object *config;
	uint64_t json_size;
	int r;

	r = get(json, "config", json_type_object, "JSON", &config, err);
	if (!r)
		r = parse_requirements(config, meta, err); /* first: it may change the meaning of all else */
	if (!r)
		r = parse_flags(config, meta, err);
	if (!r)
		r = get_u64(config, "json_size", "config", &json_size, err);
	if (!r)
		r = get_u64(config, "keyslots_size", "config", &meta->keyslots_size, err);
	if (r)
		return r;
	if (json_size != hdr_size - LUKS2_BIN_SIZE)
		return BAD(err, "the header's config states another size than the header has");
	if (meta->keyslots_size % 4096 || meta->keyslots_size > LUKS2_KEYSLOTS_MAX)
		return BAD(err, "the header's config has a key slots area of an impossible size");
	meta->keyslots_end = 2 * hdr_size + meta->keyslots_size;
	return 0;
}

static int parse_segment(
	struct json_object *obj, int number, const char *what, struct luks2_meta *meta, struct pv_error *err)
{
	struct pv_segment *segment = &meta->segment;
	const char *size;
	int r;

	r = get_u64(obj, "offset", what, &segment->offset, err);
	if (!r)
		r = get_string(obj, "size", what, 32, &size, err);
	if (!r)
		r = get_u64(obj, "iv_tweak", what, &segment->iv_tweak, err);
	if (!r)
		r = copy_string(obj, "encryption", what, segment->cipher, sizeof(segment->cipher), err);
	if (!r)
		r = get_u32(obj, "sector_size", what, 512, 4096, &segment->sector_size, err);
	if (r)
		return r;
	if (segment->sector_size & (segment->sector_size - 1))
		return BAD(err, "the header's %s has a sector size that is not a power of two", what);
	segment->size = 0;
	if (strcmp(size, "dynamic") && (parse_decimal(size, &segment->size) || !segment->size))
		return BAD(err, "the header's %s has no valid \"size\"", what);
	if (segment->size % segment->sector_size || segment->offset % 512)
		return BAD(err, "the header's %s is not aligned to sectors", what);
	if (segment->offset == 0)
		refuse(meta, "the header is a detached one, its data are in another container");
	else if (segment->offset < meta->keyslots_end)
		return BAD(err, "the header's %s overlaps the key slots", what);
	if (segment->size > INT64_MAX - segment->offset)
		return BAD(err, "the header's %s ends beyond any container", what);
	meta->segment_number = number;
	return 0;
}

static int parse_segments(struct json_object *json, struct luks2_meta *meta, struct pv_error *err)
{
	struct json_object *segments, *unused;
	const char *type;
	int r, number;

	r = get(json, "segments", json_type_object, "JSON", &segments, err);
	if (r)
		return r;
	if (json_object_object_length(segments) < 1)
		return BAD(err, "the header has no data segment");
	if (json_object_object_length(segments) > LUKS2_MAX)
		return BAD(err, "the header has more than %d segments", LUKS2_MAX);
	json_object_object_foreach (segments, key, obj) {
		struct json_object *flags;
		char what[32], shown[40];

		if (parse_number(key, &number) || !json_object_is_type(obj, json_type_object))
			return BAD(err, "the header's segments are not numbered objects");
		snprintf(what, sizeof(what), "segment %d", number);
		r = get_string(obj, "type", what, 64, &type, err);
		if (r)
			return r;
		if (strcmp(type, "crypt"))
			refuse(meta, "%s is of the type '%s', which pvol does not know", what,
				format_printable(type, shown, sizeof(shown)));
		if (json_object_object_get_ex(obj, "integrity", &unused))
			refuse(meta, "%s has sector integrity (dm-integrity), which pvol does not support",
				what);
		if (json_object_object_get_ex(obj, "flags", &flags)) {
			const char *flag = "?";

			if (!json_object_is_type(flags, json_type_array))
				return BAD(err, "the header's %s has no valid \"flags\"", what);
			if (json_object_array_length(flags)) {
				string_value(json_object_array_get_idx(flags, 0), 256, &flag);
				refuse(meta, "%s has the flag '%s', a sign of an unfinished re-encryption",
					what, format_printable(flag, shown, sizeof(shown)));
			}
		}
		if (json_object_object_length(segments) > 1)
			refuse(meta, "the volume has %d segments, pvol knows volumes of one",
				json_object_object_length(segments));
		if (meta->refused[0])
			return -EUCLEAN; /* luks2_parse() stops quietly */
		r = parse_segment(obj, number, what, meta, err);
		if (r)
			return r;
	}
	return 0;
}

static int parse_kdf(struct json_object *slot, const char *what, struct luks2_kdf *kdf,
	struct luks2_meta *meta, struct pv_error *err)
{
	struct json_object *obj;
	const char *type;
	char shown[40];
	int r;

	r = get(slot, "kdf", json_type_object, what, &obj, err);
	if (!r)
		r = get_string(obj, "type", what, 64, &type, err);
	if (!r)
		r = get_base64(obj, "salt", what, kdf->salt, 8, sizeof(kdf->salt), &kdf->salt_size, err);
	if (r)
		return r;
	if (!strcmp(type, "pbkdf2")) {
		kdf->type = LUKS2_PBKDF2;
		r = get_hash(obj, what, kdf->hash, meta, err);
		return r ? r : get_u32(obj, "iterations", what, 1000, INT32_MAX, &kdf->iterations, err);
	}
	if (strcmp(type, "argon2i") && strcmp(type, "argon2id")) {
		refuse(meta, "%s uses the key derivation '%s', which pvol does not know", what,
			format_printable(type, shown, sizeof(shown)));
		return 0;
	}
	kdf->type = type[6] == 'i' && type[7] == 'd' ? LUKS2_ARGON2ID : LUKS2_ARGON2I;
	r = get_u32(obj, "time", what, 1, INT32_MAX, &kdf->iterations, err);
	if (!r)
		r = get_u32(obj, "memory", what, 8, INT32_MAX, &kdf->memory, err);
	if (!r)
		r = get_u32(obj, "cpus", what, 1, INT32_MAX, &kdf->lanes, err);
	if (!r && kdf->lanes > kdf->memory / 8)
		return BAD(err, "the header's %s has less Argon2 memory than its lanes need", what);
	return r;
}

static int parse_area(struct json_object *obj, const char *what, uint64_t start, struct luks2_slot *slot,
	struct luks2_meta *meta, struct pv_error *err)
{
	struct json_object *area;
	const char *type;
	int r;

	r = get(obj, "area", json_type_object, what, &area, err);
	if (!r)
		r = get_string(area, "type", what, 64, &type, err);
	if (!r && strcmp(type, "raw")) {
		refuse(meta, "%s has an area of an unknown type", what);
		return -EUCLEAN;
	}
	if (!r)
		r = get_u64(area, "offset", what, &slot->area_offset, err);
	if (!r)
		r = get_u64(area, "size", what, &slot->area_size, err);
	if (!r)
		r = copy_string(area, "encryption", what, slot->area_cipher, sizeof(slot->area_cipher), err);
	if (!r)
		r = get_u32(area, "key_size", what, 1, LUKS2_MAX_KEY, &slot->area_key_size, err);
	if (r)
		return r;
	if (slot->area_offset % 4096 || slot->area_size % 4096)
		return BAD(err, "the header's %s has an area that is not aligned", what);
	if (slot->area_offset < start || slot->area_offset > meta->keyslots_end ||
		slot->area_size > meta->keyslots_end - slot->area_offset)
		return BAD(err, "the header's %s has an area outside the key slots area", what);
	if (slot->area_size < (uint64_t)slot->key_size * LUKS2_STRIPES)
		return BAD(err, "the header's %s has an area too small for its key", what);
	return 0;
}

static int parse_slot(struct json_object *obj, const char *what, uint64_t start, struct luks2_slot *slot,
	struct luks2_meta *meta, struct pv_error *err)
{
	struct json_object *af, *unused;
	uint32_t stripes, priority = LUKS2_PRIORITY_NORMAL;
	const char *type;
	char shown[40];
	int r;

	r = get_string(obj, "type", what, 64, &type, err);
	if (r)
		return r;
	if (!strcmp(type, "reencrypt")) {
		refuse(meta, "the volume is in the middle of a re-encryption (%s is of the type 'reencrypt')",
			what);
		return -EUCLEAN;
	}
	if (strcmp(type, "luks2")) {
		refuse(meta, "%s is of the type '%s', which pvol does not know", what,
			format_printable(type, shown, sizeof(shown)));
		return -EUCLEAN;
	}
	r = get_u32(obj, "key_size", what, 1, LUKS2_MAX_KEY, &slot->key_size, err);
	if (!r && json_object_object_get_ex(obj, "priority", &unused))
		r = get_u32(
			obj, "priority", what, LUKS2_PRIORITY_IGNORE, LUKS2_PRIORITY_PREFER, &priority, err);
	if (!r)
		r = get(obj, "af", json_type_object, what, &af, err);
	if (!r)
		r = get_string(af, "type", what, 64, &type, err);
	if (!r)
		r = get_u32(af, "stripes", what, LUKS2_STRIPES, LUKS2_STRIPES, &stripes, err);
	if (!r)
		r = get_hash(af, what, slot->af_hash, meta, err);
	if (!r && strcmp(type, "luks1"))
		refuse(meta, "%s has a splitter of an unknown type", what);
	if (!r)
		r = parse_area(obj, what, start, slot, meta, err);
	if (!r)
		r = parse_kdf(obj, what, &slot->kdf, meta, err);
	slot->priority = (enum luks2_priority)priority;
	slot->kind = "passphrase";
	slot->used = !r;
	return r;
}

static int check_overlaps(const struct luks2_meta *meta, struct pv_error *err)
{
	for (int i = 0; i < LUKS2_MAX; i++)
		for (int j = 0; j < i; j++) {
			const struct luks2_slot *a = &meta->slots[i], *b = &meta->slots[j];

			if (a->used && b->used && a->area_offset < b->area_offset + b->area_size &&
				b->area_offset < a->area_offset + a->area_size)
				return BAD(err, "the header's key slots %d and %d overlap", j, i);
		}
	return 0;
}

/* Calls nothing but checks the frame of a top-level object of numbered objects. */
static int get_numbered(
	struct json_object *json, const char *name, struct json_object **ret_obj, struct pv_error *err)
{
	int r, number;

	r = get(json, name, json_type_object, "JSON", ret_obj, err);
	if (r)
		return r;
	json_object_object_foreach (*ret_obj, key, obj) {
		if (parse_number(key, &number) || !json_object_is_type(obj, json_type_object))
			return BAD(
				err, "the header's %s are not objects numbered 0 to %d", name, LUKS2_MAX - 1);
	}
	return 0;
}

static int parse_slots(
	struct json_object *json, uint64_t hdr_size, struct luks2_meta *meta, struct pv_error *err)
{
	struct json_object *slots;
	char what[32];
	int r, number = 0;

	r = get_numbered(json, "keyslots", &slots, err);
	if (r)
		return r;
	json_object_object_foreach (slots, key, obj) {
		parse_number(key, &number);
		snprintf(what, sizeof(what), "key slot %d", number);
		r = parse_slot(obj, what, 2 * hdr_size, &meta->slots[number], meta, err);
		if (r)
			return r;
	}
	return check_overlaps(meta, err);
}

static uint32_t used_slots(const struct luks2_meta *meta)
{
	uint32_t mask = 0;

	for (int i = 0; i < LUKS2_MAX; i++)
		mask |= (uint32_t)meta->slots[i].used << i;
	return mask;
}

static int parse_tokens(struct json_object *json, struct luks2_meta *meta, struct pv_error *err)
{
	struct json_object *tokens;
	uint32_t mask;
	int r;

	r = get_numbered(json, "tokens", &tokens, err);
	if (r)
		return r;
	json_object_object_foreach (tokens, key, obj) {
		const char *type, *kind = NULL;
		char what[32];

		snprintf(what, sizeof(what), "token %s", key);
		r = get_string(obj, "type", what, 128, &type, err);
		if (!r)
			r = get_mask(obj, "keyslots", what, &mask, err);
		if (r)
			return r;
		if (mask & ~used_slots(meta))
			return BAD(err, "the header's %s belongs to a key slot that does not exist", what);
		if (!strcmp(type, LUKS2_TOKEN_RECOVERY))
			kind = "recovery";
		else if (!strcmp(type, LUKS2_TOKEN_KEYFILE))
			kind = "keyfile";
		for (int i = 0; kind && i < LUKS2_MAX; i++)
			if (mask & 1U << i)
				meta->slots[i].kind = kind;
	}
	return 0;
}

static int parse_digest(struct json_object *obj, const char *what, struct luks2_digest *digest,
	struct luks2_meta *meta, struct pv_error *err)
{
	const char *type;
	int r;

	r = get_string(obj, "type", what, 64, &type, err);
	if (!r)
		r = get_mask(obj, "keyslots", what, &digest->slots, err);
	if (!r)
		r = get_mask(obj, "segments", what, &digest->segments, err);
	if (r)
		return r;
	if (digest->slots & ~used_slots(meta))
		return BAD(err, "the header's %s belongs to a key slot that does not exist", what);
	if (digest->segments & ~(1U << meta->segment_number))
		return BAD(err, "the header's %s belongs to a segment that does not exist", what);
	if (strcmp(type, "pbkdf2")) {
		refuse(meta, "%s is of a type that pvol does not know", what);
		return -EUCLEAN;
	}
	r = get_hash(obj, what, digest->hash, meta, err);
	if (!r)
		r = get_u32(obj, "iterations", what, 1, INT32_MAX, &digest->iterations, err);
	if (!r)
		r = get_base64(
			obj, "salt", what, digest->salt, 8, sizeof(digest->salt), &digest->salt_size, err);
	/* A short digest would let many keys pass; 16 bytes are beyond any guessing. */
	if (!r)
		r = get_base64(obj, "digest", what, digest->value, 16, sizeof(digest->value),
			&digest->value_size, err);
	digest->used = !r;
	return r;
}

static int parse_digests(struct json_object *json, struct luks2_meta *meta, struct pv_error *err)
{
	struct json_object *digests;
	char what[32];
	uint32_t seen = 0;
	int r, number = 0;

	r = get_numbered(json, "digests", &digests, err);
	if (r)
		return r;
	meta->segment_digest = -1;
	json_object_object_foreach (digests, key, obj) {
		parse_number(key, &number);
		snprintf(what, sizeof(what), "digest %d", number);
		r = parse_digest(obj, what, &meta->digests[number], meta, err);
		if (r)
			return r;
		if (meta->digests[number].slots & seen)
			return BAD(err, "the header's %s shares a key slot with another digest", what);
		seen |= meta->digests[number].slots;
		if (!meta->digests[number].segments)
			continue;
		if (meta->segment_digest >= 0)
			return BAD(err, "the header's data segment has two digests");
		meta->segment_digest = number;
	}
	if (meta->segment_digest < 0)
		return BAD(err, "the header's data segment has no digest, so no key can be checked");
	return 0;
}

/* Which slots open the data, and that they agree on the size of its key. */
static int bind_slots(struct luks2_meta *meta, struct pv_error *err)
{
	const uint32_t bound = meta->digests[meta->segment_digest].slots;

	for (int i = 0; i < LUKS2_MAX; i++) {
		struct luks2_slot *slot = &meta->slots[i];

		slot->bound = bound & 1U << i;
		if (!slot->bound)
			continue;
		if (meta->segment.key_size && meta->segment.key_size != slot->key_size)
			return BAD(err, "the header's key slots disagree on the size of the volume's key");
		meta->segment.key_size = slot->key_size;
	}
	return 0;
}

static int parse_all(
	struct json_object *json, uint64_t hdr_size, struct luks2_meta *meta, struct pv_error *err)
{
	int r;

	r = parse_config(json, hdr_size, meta, err);
	if (!r)
		r = parse_segments(json, meta, err);
	if (!r)
		r = parse_slots(json, hdr_size, meta, err);
	if (!r)
		r = parse_tokens(json, meta, err);
	if (!r)
		r = parse_digests(json, meta, err);
	return r ? r : bind_slots(meta, err);
}

int luks2_parse(
	struct json_object *json, uint64_t hdr_size, struct luks2_meta *ret_meta, struct pv_error *err)
{
	struct luks2_meta meta = {0};
	struct pv_error why = {0};
	int r;

	r = parse_all(json, hdr_size, &meta, &why);
	if (r && !meta.refused[0]) {
		if (err)
			*err = why;
		return r;
	}
	*ret_meta = meta;
	return 0;
}

int luks2_parse_text(const char *area, size_t size, struct json_object **ret_json, struct pv_error *err)
{
	size_t length = strnlen(area, size);
	struct json_tokener *tokener;
	struct json_object *json;

	if (length == size || area[0] != '{')
		return BAD(err, "the header's JSON is not a terminated object");
	for (size_t i = length; i < size; i++)
		if (area[i])
			return BAD(err, "the header has data behind its JSON");
	tokener = json_tokener_new_ex(MAX_DEPTH);
	if (!tokener)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	json = json_tokener_parse_ex(tokener, area, (int)length);
	if (!json || json_tokener_get_error(tokener) != json_tokener_success ||
		json_tokener_get_parse_end(tokener) != length ||
		!json_object_is_type(json, json_type_object)) {
		pv_fail(err, -EUCLEAN, NULL, "the header's JSON is wrong: %s",
			json_tokener_error_desc(json_tokener_get_error(tokener)));
		json_object_put(json);
		json_tokener_free(tokener);
		return -EUCLEAN;
	}
	json_tokener_free(tokener);
	*ret_json = json;
	return 0;
}
