/*
 * Key slots as people read them; used by key list, status and info.
 */
#ifndef PV_CLI_SLOTS_INT_H
#define PV_CLI_SLOTS_INT_H

#include <json-c/json.h>

/* One line a slot: number, kind, key derivation and its cost. */
void cli_print_slots(struct json_object *slots, const char *indent);

#endif
