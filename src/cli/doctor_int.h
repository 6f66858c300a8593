/*
 * Findings of pvol doctor. Each check adds one line or several.
 */
#ifndef PV_CLI_DOCTOR_INT_H
#define PV_CLI_DOCTOR_INT_H

#include <json-c/json.h>

enum doctor_state { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

/*
 * Adds a finding to the list: `check` is its stable name for programs. `remedy` is NULL when there is nothing
 * to do.
 */
void doctor_add(struct json_object *list, enum doctor_state state, const char *check, const char *remedy,
	const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* FUSE, OpenZFS's programs and library. */
void doctor_check_fuse(struct json_object *list);
void doctor_check_openzfs(struct json_object *list);
/* Memory, swap, core files; kernel features; the processor. */
void doctor_check_memory(struct json_object *list);
void doctor_check_kernel(struct json_object *list);
void doctor_check_processor(struct json_object *list);

#endif
