/*
 * Properties as they come in JSON.
 */
#include "engine/engine_int.h"
#include "pool/pool.h"

#include <errno.h>

int engine_properties(
	struct json_object *json, struct pv_property **ret_props, unsigned *ret_count, struct pv_error *err)
{
	struct pv_property *props;
	unsigned count = 0;

	if (!json || !json_object_object_length(json)) {
		*ret_props = NULL;
		*ret_count = 0;
		return 0;
	}
	props = calloc((size_t)json_object_object_length(json), sizeof(*props));
	if (!props)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	json_object_object_foreach (json, key, value) {
		if (!json_object_is_type(value, json_type_string)) {
			free(props);
			return pv_fail_as(
				err, -EINVAL, PV_EXIT_USAGE, key, "the value of a property must be a string");
		}
		props[count++] = (struct pv_property){.name = key, .value = json_object_get_string(value)};
	}
	*ret_props = props;
	*ret_count = count;
	return 0;
}
