/*
 * Changes to the JSON tree of a header. The tree that was read is edited in place, so that members, tokens
 * and options that pvol does not know survive every rewrite.
 */
#include "format/luks2_int.h"

#include "base/json.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

static void add_decimal(struct json_object *obj, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	pv_json_add_string(obj, key, text);
}

static void add_base64(struct json_object *obj, const char *key, const uint8_t *data, size_t size)
{
	unsigned char text[4 * ((LUKS2_MAX_SALT + 2) / 3) + 1];

	EVP_EncodeBlock(text, data, (int)size);
	pv_json_add_string(obj, key, (const char *)text);
}

static struct json_object *add_object(struct json_object *obj, const char *key)
{
	struct json_object *child = json_object_new_object();

	json_object_object_add(obj, key, child);
	return child;
}

static void array_add_number(struct json_object *array, int number)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", number);
	json_object_array_add(array, json_object_new_string(text));
}

/* Adds `child` below `parent`.`section` as the given number, or as the lowest free one (-1). */
static int add_numbered(struct json_object *json, const char *section, int number, struct json_object *child)
{
	struct json_object *parent = pv_json_object(json, section);
	char key[16];

	for (int i = number < 0 ? 0 : number; parent && i < LUKS2_MAX; i++) {
		snprintf(key, sizeof(key), "%d", i);
		if (json_object_object_get_ex(parent, key, NULL)) {
			if (number >= 0)
				break;
			continue;
		}
		json_object_object_add(parent, key, child);
		return 0;
	}
	json_object_put(child);
	return -ENOSPC;
}

/* Index of the number in an array of decimal strings, or -1. */
static int array_find(struct json_object *array, int number)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", number);
	for (size_t i = 0; array && i < json_object_array_length(array); i++)
		if (!strcmp(json_object_get_string(json_object_array_get_idx(array, i)), text))
			return (int)i;
	return -1;
}

struct json_object *luks2_edit_new(const struct pv_segment *segment, uint32_t keyslots_size)
{
	struct json_object *json = json_object_new_object(), *obj;

	add_object(json, "keyslots");
	add_object(json, "tokens");
	obj = add_object(add_object(json, "segments"), "0");
	pv_json_add_string(obj, "type", "crypt");
	add_decimal(obj, "offset", segment->offset);
	if (segment->size)
		add_decimal(obj, "size", segment->size);
	else
		pv_json_add_string(obj, "size", "dynamic");
	add_decimal(obj, "iv_tweak", segment->iv_tweak);
	pv_json_add_string(obj, "encryption", segment->cipher);
	pv_json_add_int(obj, "sector_size", segment->sector_size);
	add_object(json, "digests");
	obj = add_object(json, "config");
	add_decimal(obj, "json_size", LUKS2_HDR_MIN - LUKS2_BIN_SIZE);
	add_decimal(obj, "keyslots_size", keyslots_size);
	return json;
}

int luks2_find_free(const struct luks2 *header, uint32_t key_size, int *ret_slot, uint64_t *ret_offset,
	struct pv_error *err)
{
	const struct luks2_meta *meta = &header->meta;
	const uint64_t size = luks2_area_size(key_size);
	uint64_t at = 2 * header->hdr_size;
	int number = 0;

	while (number < LUKS2_MAX && meta->slots[number].used)
		number++;
	if (number == LUKS2_MAX) {
		pv_fail(err, -ENOSPC, NULL, "all %d key slots are in use", LUKS2_MAX);
		pv_remedy(err, "remove a key that is no longer needed first");
		return -ENOSPC;
	}
	for (int i = 0; i < LUKS2_MAX; i++) {
		const struct luks2_slot *slot = &meta->slots[i];

		if (slot->used && at < slot->area_offset + slot->area_size && slot->area_offset < at + size) {
			at = slot->area_offset + slot->area_size;
			i = -1; /* from the start: slots are not in order of their areas */
		}
	}
	if (at + size > meta->keyslots_end) {
		pv_fail(err, -ENOSPC, NULL, "the key slots area of the header is full");
		pv_remedy(err, "remove a key that is no longer needed first");
		return -ENOSPC;
	}
	*ret_slot = number;
	*ret_offset = at;
	return 0;
}

static void add_kdf(struct json_object *slot, const struct luks2_kdf *kdf)
{
	struct json_object *obj = add_object(slot, "kdf");

	if (kdf->type == LUKS2_PBKDF2) {
		pv_json_add_string(obj, "type", "pbkdf2");
		pv_json_add_string(obj, "hash", kdf->hash);
		pv_json_add_int(obj, "iterations", kdf->iterations);
	} else {
		pv_json_add_string(obj, "type", kdf->type == LUKS2_ARGON2ID ? "argon2id" : "argon2i");
		pv_json_add_int(obj, "time", kdf->iterations);
		pv_json_add_int(obj, "memory", kdf->memory);
		pv_json_add_int(obj, "cpus", kdf->lanes);
	}
	add_base64(obj, "salt", kdf->salt, kdf->salt_size);
}

/* What the slot's kind looks like to others: a token. A passphrase has none. */
static int add_token(struct json_object *json, const char *kind, int slot)
{
	const char *type = !strcmp(kind, "recovery")  ? LUKS2_TOKEN_RECOVERY
			   : !strcmp(kind, "keyfile") ? LUKS2_TOKEN_KEYFILE
						      : NULL;
	struct json_object *token, *list;

	if (!type)
		return 0;
	token = json_object_new_object();
	pv_json_add_string(token, "type", type);
	list = json_object_new_array();
	array_add_number(list, slot);
	json_object_object_add(token, "keyslots", list);
	return add_numbered(json, "tokens", -1, token);
}

int luks2_edit_add_slot(struct json_object *json, int number, const struct luks2_slot *slot, int digest)
{
	struct json_object *obj = json_object_new_object(), *child;
	char key[16];
	int r;

	pv_json_add_string(obj, "type", "luks2");
	pv_json_add_int(obj, "key_size", slot->key_size);
	child = add_object(obj, "af");
	pv_json_add_string(child, "type", "luks1");
	pv_json_add_int(child, "stripes", LUKS2_STRIPES);
	pv_json_add_string(child, "hash", slot->af_hash);
	child = add_object(obj, "area");
	pv_json_add_string(child, "type", "raw");
	add_decimal(child, "offset", slot->area_offset);
	add_decimal(child, "size", slot->area_size);
	pv_json_add_string(child, "encryption", slot->area_cipher);
	pv_json_add_int(child, "key_size", slot->area_key_size);
	add_kdf(obj, &slot->kdf);
	r = add_numbered(json, "keyslots", number, obj);
	if (r)
		return r;
	snprintf(key, sizeof(key), "%d", digest);
	child = pv_json_array(pv_json_object(pv_json_object(json, "digests"), key), "keyslots");
	if (!child)
		return -EUCLEAN;
	array_add_number(child, number);
	return add_token(json, slot->kind, number);
}

int luks2_edit_add_digest(struct json_object *json, int number, const struct luks2_digest *digest)
{
	struct json_object *obj = json_object_new_object(), *list;

	pv_json_add_string(obj, "type", "pbkdf2");
	for (int pass = 0; pass < 2; pass++) {
		uint32_t mask = pass ? digest->segments : digest->slots;

		list = json_object_new_array();
		for (int i = 0; i < LUKS2_MAX; i++)
			if (mask & 1U << i)
				array_add_number(list, i);
		json_object_object_add(obj, pass ? "segments" : "keyslots", list);
	}
	pv_json_add_string(obj, "hash", digest->hash);
	pv_json_add_int(obj, "iterations", digest->iterations);
	add_base64(obj, "salt", digest->salt, digest->salt_size);
	add_base64(obj, "digest", digest->value, digest->value_size);
	return add_numbered(json, "digests", number, obj);
}

static bool own_token(struct json_object *token)
{
	const char *type = pv_json_string(token, "type", "");

	return !strcmp(type, LUKS2_TOKEN_RECOVERY) || !strcmp(type, LUKS2_TOKEN_KEYFILE);
}

void luks2_edit_remove_slot(struct json_object *json, int number)
{
	static const char *const sections[] = {"digests", "tokens"};
	char key[16], empty[LUKS2_MAX][16];
	int nempty = 0;

	snprintf(key, sizeof(key), "%d", number);
	json_object_object_del(pv_json_object(json, "keyslots"), key);
	for (int s = 0; s < 2; s++) {
		struct json_object *section = pv_json_object(json, sections[s]);

		json_object_object_foreach (section, name, obj) {
			struct json_object *list = pv_json_array(obj, "keyslots");
			int at = array_find(list, number);

			if (at < 0)
				continue;
			json_object_array_del_idx(list, (size_t)at, 1);
			if (s == 1 && !json_object_array_length(list) && own_token(obj))
				snprintf(empty[nempty++], sizeof(empty[0]), "%s", name);
		}
	}
	while (nempty--) /* not while iterating */
		json_object_object_del(pv_json_object(json, "tokens"), empty[nempty]);
}

int luks2_edit_renumber_slot(struct json_object *json, int from, int to)
{
	static const char *const sections[] = {"digests", "tokens"};
	struct json_object *slots = pv_json_object(json, "keyslots"), *slot;
	char key[16];

	snprintf(key, sizeof(key), "%d", from);
	if (!json_object_object_get_ex(slots, key, &slot))
		return -ENOENT;
	json_object_get(slot);
	json_object_object_del(slots, key);
	if (add_numbered(json, "keyslots", to, slot))
		return -EEXIST;
	snprintf(key, sizeof(key), "%d", to);
	for (int s = 0; s < 2; s++) {
		struct json_object *section = pv_json_object(json, sections[s]);

		json_object_object_foreach (section, name, obj) {
			struct json_object *list = pv_json_array(obj, "keyslots");
			int at = array_find(list, from);

			(void)name;
			if (at >= 0)
				json_object_array_put_idx(list, (size_t)at, json_object_new_string(key));
		}
	}
	return 0;
}
