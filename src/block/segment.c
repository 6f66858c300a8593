/*
 * Segments on the control protocol.
 */
#include "base/json.h"
#include "block/crypt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct json_object *pv_segment_to_json(const struct pv_segment *segment)
{
	struct json_object *json = json_object_new_object();

	pv_json_add_u64(json, "offset", segment->offset);
	pv_json_add_u64(json, "size", segment->size);
	pv_json_add_string(json, "cipher", segment->cipher);
	pv_json_add_int(json, "key_size", segment->key_size);
	pv_json_add_int(json, "sector_size", segment->sector_size);
	pv_json_add_u64(json, "iv_tweak", segment->iv_tweak);
	return json;
}

int pv_segment_from_json(struct json_object *json, struct pv_segment *ret_segment, struct pv_error *err)
{
	const char *cipher = pv_json_string(json, "cipher", NULL);
	struct pv_segment s = {
		.offset = pv_json_u64(json, "offset", UINT64_MAX),
		.size = pv_json_u64(json, "size", 0),
		.iv_tweak = pv_json_u64(json, "iv_tweak", 0),
	};
	uint64_t key_size = pv_json_u64(json, "key_size", 0);
	uint64_t sector_size = pv_json_u64(json, "sector_size", 0);

	if (!cipher || strlen(cipher) >= sizeof(s.cipher) || s.offset == UINT64_MAX || key_size == 0 ||
		key_size > 4096 || sector_size < 512 || sector_size > 4096)
		return pv_fail(err, -EINVAL, NULL, "the description of the encrypted segment is invalid");
	snprintf(s.cipher, sizeof(s.cipher), "%s", cipher);
	s.key_size = (uint32_t)key_size;
	s.sector_size = (uint32_t)sector_size;
	*ret_segment = s;
	return 0;
}
