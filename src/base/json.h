/*
 * Small helpers over json-c: typed reading with defaults and checks, for our own protocol and registry files.
 * (The LUKS2 header's JSON, hostile input, has its own strict reader in format/.)
 */
#ifndef PV_BASE_JSON_H
#define PV_BASE_JSON_H

#include "base/error.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

/* The member's value, or the default when it is absent or of another type. Strings are borrowed. */
const char *pv_json_string(struct json_object *obj, const char *key, const char *otherwise);
int64_t pv_json_int(struct json_object *obj, const char *key, int64_t otherwise);
/* Accepts a number or a decimal string (values above 2^53 travel as strings). */
uint64_t pv_json_u64(struct json_object *obj, const char *key, uint64_t otherwise);
bool pv_json_bool(struct json_object *obj, const char *key, bool otherwise);
/* The member if it is an object (array), else NULL; borrowed. */
struct json_object *pv_json_object(struct json_object *obj, const char *key);
struct json_object *pv_json_array(struct json_object *obj, const char *key);

/* Adders; all take effect on obj, which owns the new value. A NULL string adds nothing. */
void pv_json_add_string(struct json_object *obj, const char *key, const char *value);
void pv_json_add_int(struct json_object *obj, const char *key, int64_t value);
void pv_json_add_u64(struct json_object *obj, const char *key, uint64_t value); /* string above 2^53 */
void pv_json_add_bool(struct json_object *obj, const char *key, bool value);

static inline void pv_cleanup_json(struct json_object **j)
{
	json_object_put(*j);
}
#define pv_autojson __attribute__((cleanup(pv_cleanup_json)))

#endif
