/*
 * Typed access to json-c objects of our own protocol and registry files.
 */
#include "base/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beyond this an IEEE double, JavaScript's and many programs' only number, is not exact. */
#define EXACT_MAX (UINT64_C(1) << 53)

static struct json_object *member(struct json_object *obj, const char *key, enum json_type type)
{
	struct json_object *value;

	if (!json_object_is_type(obj, json_type_object) || !json_object_object_get_ex(obj, key, &value) ||
		!json_object_is_type(value, type))
		return NULL;
	return value;
}

const char *pv_json_string(struct json_object *obj, const char *key, const char *otherwise)
{
	struct json_object *value = member(obj, key, json_type_string);
	const char *s;

	if (!value)
		return otherwise;
	s = json_object_get_string(value);
	/* An embedded NUL would make the checked and the used text differ. */
	return strlen(s) == (size_t)json_object_get_string_len(value) ? s : otherwise;
}

int64_t pv_json_int(struct json_object *obj, const char *key, int64_t otherwise)
{
	struct json_object *value = member(obj, key, json_type_int);

	return value ? json_object_get_int64(value) : otherwise;
}

uint64_t pv_json_u64(struct json_object *obj, const char *key, uint64_t otherwise)
{
	struct json_object *value = member(obj, key, json_type_int);
	const char *s;
	char *end;
	uint64_t n;

	if (value) {
		/* json-c clamps the signed reading to INT64_MAX and the unsigned one to 0. */
		if (json_object_get_int64(value) < 0)
			return otherwise;
		return json_object_get_uint64(value);
	}
	s = pv_json_string(obj, key, NULL);
	if (!s || !*s || strspn(s, "0123456789") != strlen(s))
		return otherwise;
	errno = 0;
	n = strtoull(s, &end, 10);
	return errno ? otherwise : n;
}

bool pv_json_bool(struct json_object *obj, const char *key, bool otherwise)
{
	struct json_object *value = member(obj, key, json_type_boolean);

	return value ? json_object_get_boolean(value) : otherwise;
}

struct json_object *pv_json_object(struct json_object *obj, const char *key)
{
	return member(obj, key, json_type_object);
}

struct json_object *pv_json_array(struct json_object *obj, const char *key)
{
	return member(obj, key, json_type_array);
}

void pv_json_add_string(struct json_object *obj, const char *key, const char *value)
{
	if (value)
		json_object_object_add(obj, key, json_object_new_string(value));
}

void pv_json_add_int(struct json_object *obj, const char *key, int64_t value)
{
	json_object_object_add(obj, key, json_object_new_int64(value));
}

void pv_json_add_u64(struct json_object *obj, const char *key, uint64_t value)
{
	char text[24];

	if (value <= EXACT_MAX) {
		json_object_object_add(obj, key, json_object_new_int64((int64_t)value));
		return;
	}
	snprintf(text, sizeof(text), "%" PRIu64, value);
	json_object_object_add(obj, key, json_object_new_string(text));
}

void pv_json_add_bool(struct json_object *obj, const char *key, bool value)
{
	json_object_object_add(obj, key, json_object_new_boolean(value));
}
