/*
 * Header operations: the keeper never parses a header itself, it asks a short-lived worker.
 */
#include "daemon/keeper_int.h"
#include "worker/worker.h"

#include <errno.h>
#include <string.h>

#define VOLUME_KEY_MAX 4096

int header_unlock(struct volume_device *device, const char *kind, int slot, bool repair,
	const struct pv_secret *secret, struct request *progress, int *ret_slot, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	pv_autojson struct json_object *result = NULL;
	pv_autosecret struct pv_secret *key = NULL;
	pv_autoclose int pipe_fd = -1, key_fd = -1;
	size_t nfds = 1;
	int fds[2], r;

	r = pv_secret_pipe(secret, &pipe_fd, err);
	if (r < 0)
		return r;
	fds[0] = device->container.fd;
	fds[1] = pipe_fd;
	pv_json_add_string(params, "kind", kind);
	pv_json_add_int(params, "slot", slot);
	pv_json_add_bool(params, "repair", repair);
	r = pv_worker_run("format.unlock", params, fds, 2, progress ? request_pass_progress : NULL, progress,
		&result, &key_fd, &nfds, err);
	if (r < 0)
		return r;
	if (nfds != 1)
		return pv_fail(err, -EPROTO, NULL, "the worker gave no volume key");
	r = pv_segment_from_json(pv_json_object(result, "segment"), &device->segment, err);
	if (r >= 0)
		r = pv_secret_read(key_fd, VOLUME_KEY_MAX, &key, err);
	if (r < 0)
		return r;
	pv_secret_free(device->key);
	device->key = pv_steal_ptr(&key);
	if (ret_slot)
		*ret_slot = (int)pv_json_int(result, "slot", -1);
	return 0;
}

int header_info(int fd, struct json_object **ret_info, struct pv_error *err)
{
	return pv_worker_run("format.info", NULL, &fd, 1, NULL, NULL, ret_info, NULL, NULL, err);
}

struct json_object *header_slots(struct json_object *info)
{
	struct json_object *slots = json_object_new_array();
	struct json_object *all = info ? pv_json_array(info, "slots") : NULL;

	for (size_t i = 0; all && i < json_object_array_length(all); i++) {
		struct json_object *from = json_object_array_get_idx(all, i);
		struct json_object *to = json_object_new_object();

		pv_json_add_int(to, "slot", pv_json_int(from, "slot", -1));
		pv_json_add_string(to, "kind", pv_json_string(from, "kind", "passphrase"));
		json_object_array_add(slots, to);
	}
	return slots;
}
