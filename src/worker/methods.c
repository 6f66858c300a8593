/*
 * The worker's methods: parameters from the wire to pv_format_ops and back.
 */
#include "worker/worker_int.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "base/process.h"
#include "format/format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define SECRET_MAX (1U << 20)

/* Kinds are compared with known names only, so that a borrowed string of the request is enough. */
static const char *kind_of(struct json_object *obj)
{
	return pv_json_string(obj, "kind", "passphrase");
}

static int read_pbkdf(struct json_object *obj, struct pv_pbkdf_params *ret_params, struct pv_error *err)
{
	struct json_object *json = pv_json_object(obj, "pbkdf");
	const char *type = pv_json_string(json, "type", "argon2id");

	if (!strcmp(type, "argon2id"))
		ret_params->type = PV_PBKDF_ARGON2ID;
	else if (!strcmp(type, "pbkdf2"))
		ret_params->type = PV_PBKDF_PBKDF2;
	else
		return pv_fail(err, -EINVAL, NULL, "key derivations are argon2id and pbkdf2, nothing else");
	ret_params->iter_time_ms = (unsigned)pv_json_int(json, "iter_time_ms", 0);
	ret_params->memory_kib = pv_json_u64(json, "memory_kib", 0);
	ret_params->parallel = (unsigned)pv_json_int(json, "parallel", 0);
	ret_params->forced_iterations = (unsigned)pv_json_int(json, "forced_iterations", 0);
	return 0;
}

/* A key from its description and the descriptor that holds its bytes. `*ret_secret` owns them. */
static int read_key(struct json_object *obj, int fd, struct pv_secret **ret_secret,
	struct pv_unlock_key *ret_key, struct pv_error *err)
{
	int r;

	ret_key->kind = kind_of(obj);
	r = read_pbkdf(obj, &ret_key->pbkdf, err);
	if (!r)
		r = pv_secret_read(fd, SECRET_MAX, ret_secret, err);
	if (r == -ENODATA)
		return pv_fail(err, -EINVAL, NULL, "an empty key was given");
	if (!r)
		ret_key->secret = *ret_secret;
	return r;
}

static void tell_deriving(struct worker_request *request)
{
	pv_autojson struct json_object *progress = json_object_new_object();

	pv_json_add_string(progress, "phase", "deriving the key");
	pv_channel_progress(request->channel, pv_json_int(request->message.json, "id", 0), progress);
}

static struct json_object *slot_result(int slot)
{
	struct json_object *result = json_object_new_object();

	pv_json_add_int(result, "slot", slot);
	return result;
}

/* The answer's segment, and the volume key as a pipe beside it. */
static int key_result(struct worker_request *request, int slot, const struct pv_segment *segment,
	const struct pv_secret *volume_key, struct json_object **ret_result, struct pv_error *err)
{
	int r;

	r = pv_secret_pipe(volume_key, &request->result_fd, err);
	if (r)
		return r;
	*ret_result = slot >= 0 ? slot_result(slot) : json_object_new_object();
	json_object_object_add(*ret_result, "segment", pv_segment_to_json(segment));
	return 0;
}

int worker_probe(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	const struct pv_format_ops *ops;
	int r;

	r = pv_format_probe(request->message.fds[0], &ops, err);
	if (r)
		return r;
	*ret_result = json_object_new_object();
	pv_json_add_string(*ret_result, "format", ops->name);
	return 0;
}

int worker_info(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	const struct pv_format_ops *ops;
	int r;

	r = pv_format_probe(request->message.fds[0], &ops, err);
	return r ? r : ops->info(request->message.fds[0], ret_result, err);
}

static int create_with(struct worker_request *request, const struct pv_format_ops *ops,
	const struct pv_unlock_key *keys, unsigned nkeys, struct json_object **ret_result,
	struct pv_error *err)
{
	pv_autosecret struct pv_secret *volume_key = NULL;
	struct json_object *in = request->params;
	struct pv_format_create params = {
		.container_size = pv_json_u64(in, "container_size", 0),
		.key_size = (uint32_t)pv_json_u64(in, "key_size", 0),
		.sector_size = (uint32_t)pv_json_u64(in, "sector_size", 0),
		.keys = keys,
		.nkeys = nkeys,
	};
	const char *cipher = pv_json_string(in, "cipher", ""), *label = pv_json_string(in, "label", "");
	struct pv_segment segment;
	int r;

	if (strlen(cipher) >= sizeof(params.cipher) || strlen(label) >= sizeof(params.label))
		return pv_fail(err, -EINVAL, NULL, "the name of the cipher or the label is too long");
	snprintf(params.cipher, sizeof(params.cipher), "%s", cipher);
	snprintf(params.label, sizeof(params.label), "%s", label);
	tell_deriving(request);
	r = ops->create(request->message.fds[0], &params, &segment, &volume_key, err);
	return r ? r : key_result(request, -1, &segment, volume_key, ret_result, err);
}

int worker_create(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	const char *format = pv_json_string(request->params, "format", "luks2");
	const struct pv_format_ops *ops = pv_format_by_name(format);
	struct json_object *list = pv_json_array(request->params, "keys");
	struct pv_secret *secrets[PV_CHANNEL_MAX_FDS] = {0};
	struct pv_unlock_key keys[PV_CHANNEL_MAX_FDS] = {0};
	size_t nkeys = request->message.nfds - 1;
	int r = 0;

	if (!ops)
		return pv_fail(err, -EINVAL, NULL, "pvol knows no such volume format");
	if (!list || json_object_array_length(list) != nkeys)
		return pv_fail(err, -EPROTO, NULL, "protocol error: as many keys as key pipes are needed");
	for (size_t i = 0; !r && i < nkeys; i++)
		r = read_key(json_object_array_get_idx(list, i), request->message.fds[1 + i], &secrets[i],
			&keys[i], err);
	if (!r)
		r = create_with(request, ops, keys, (unsigned)nkeys, ret_result, err);
	for (size_t i = 0; i < nkeys; i++)
		pv_secret_free(secrets[i]);
	return r;
}

int worker_unlock(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	pv_autosecret struct pv_secret *secret = NULL, *volume_key = NULL;
	const struct pv_format_ops *ops;
	struct pv_unlock_key key = {0};
	struct pv_segment segment;
	int r, slot;

	r = read_key(request->params, request->message.fds[1], &secret, &key, err);
	if (!r)
		r = pv_format_probe(request->message.fds[0], &ops, err);
	if (r)
		return r;
	tell_deriving(request);
	r = ops->unlock(request->message.fds[0], &key, (int)pv_json_int(request->params, "slot", -1),
		pv_json_bool(request->params, "repair", false), &slot, &segment, &volume_key, err);
	return r ? r : key_result(request, slot, &segment, volume_key, ret_result, err);
}

/* key_add and key_change: {"existing_kind","kind","pbkdf"}, existing pipe, new pipe. */
static int two_keys(
	struct worker_request *request, bool change, struct json_object **ret_result, struct pv_error *err)
{
	pv_autosecret struct pv_secret *old_secret = NULL, *new_secret = NULL;
	struct pv_unlock_key existing = {0}, added = {0};
	const struct pv_format_ops *ops;
	int r, slot;

	r = read_key(NULL, request->message.fds[1], &old_secret, &existing, err);
	existing.kind = pv_json_string(request->params, "existing_kind", "passphrase");
	if (!r)
		r = read_key(request->params, request->message.fds[2], &new_secret, &added, err);
	if (!r)
		r = pv_format_probe(request->message.fds[0], &ops, err);
	if (r)
		return r;
	tell_deriving(request);
	r = (change ? ops->key_change : ops->key_add)(request->message.fds[0], &existing, &added, &slot, err);
	if (!r)
		*ret_result = slot_result(slot);
	return r;
}

int worker_key_add(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	return two_keys(request, false, ret_result, err);
}

int worker_key_change(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	return two_keys(request, true, ret_result, err);
}

int worker_key_remove(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	const struct pv_format_ops *ops;
	int r;

	r = pv_format_probe(request->message.fds[0], &ops, err);
	return r ? r
		 : ops->key_remove(request->message.fds[0], (int)pv_json_int(request->params, "slot", -1),
			   pv_json_bool(request->params, "force", false), err);
}

int worker_backup(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	const struct pv_format_ops *ops;
	int r;

	r = pv_format_probe(request->message.fds[0], &ops, err);
	return r ? r : ops->backup(request->message.fds[0], request->message.fds[1], err);
}

/* The format is the backup's: the container's header may be beyond recognition. */
int worker_restore(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	const struct pv_format_ops *ops;
	int r;

	r = pv_format_probe(request->message.fds[1], &ops, err);
	if (r)
		return pv_fail(err, r, NULL, "the backup file is not usable: %s", err->message);
	return ops->restore(request->message.fds[0], request->message.fds[1],
		pv_json_bool(request->params, "force", false), err);
}

/* With "format" given also what is no longer recognisable is erased. */
int worker_erase(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	const char *format = pv_json_string(request->params, "format", NULL);
	const struct pv_format_ops *ops = format ? pv_format_by_name(format) : NULL;
	int r = 0;

	if (format && !ops)
		return pv_fail(err, -EINVAL, NULL, "pvol knows no such volume format");
	if (!ops)
		r = pv_format_probe(request->message.fds[0], &ops, err);
	return r ? r : ops->erase(request->message.fds[0], err);
}

/* For tests and `pvol doctor`: which confinement holds, and whether a path can be opened in spite of it. */
int worker_sandbox(struct worker_request *request, struct json_object **ret_result, struct pv_error *err)
{
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*ret_result = json_object_new_object();
	pv_json_add_int(*ret_result, "mask", request->sandbox);
	pv_json_add_bool(*ret_result, "no_new_privs", request->sandbox & PV_SANDBOX_NO_NEW_PRIVS);
	pv_json_add_bool(*ret_result, "landlock", request->sandbox & PV_SANDBOX_LANDLOCK);
	pv_json_add_bool(*ret_result, "seccomp", request->sandbox & PV_SANDBOX_SECCOMP);
	pv_json_add_bool(*ret_result, "paths_open", fd >= 0);
	if (fd >= 0)
		close(fd);
	return 0;
}
