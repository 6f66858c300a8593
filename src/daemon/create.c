/*
 * volume.create: container, header, pool, mount, and last the registry. Everything is checked before anything
 * is made; on a failure, or when the client goes away, what was made (and only that) is removed again.
 */
#include "daemon/keeper_int.h"
#include "daemon/mountpoint_int.h"
#include "volume/machine.h"
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define KEYS_MAX 8
#define DEFAULT_SIZE ((uint64_t)10 << 30)
#define FILL_CHUNK ((size_t)1 << 20)

struct creation {
	struct request *rq;
	struct volume *v;
	uint64_t size;
	bool full;
	struct json_object *keys; /* borrowed from the parameters */
	struct pv_secret *secrets[KEYS_MAX];
	unsigned nkeys;
	bool made[PV_CONTAINERS_MAX]; /* the container file is ours to remove */
	bool have[PV_CONTAINERS_MAX]; /* the container is open */
	bool at_existed;
	bool registered;
};

static int interrupted(struct creation *c, struct pv_error *err)
{
	bool stop;

	pthread_mutex_lock(&keeper.lock);
	stop = keeper.stop;
	pthread_mutex_unlock(&keeper.lock);
	/* what is half made when the keeper ends would stay for ever */
	if (stop)
		return pv_fail(err, -ESHUTDOWN, c->v->name, "the keeper was told to stop: nothing was made");
	return request_abandoned(c->rq) ? pv_fail(err, -EINTR, c->v->name, "interrupted") : 0;
}

static int take_keys(struct creation *c, struct pv_error *err)
{
	struct request *rq = c->rq;
	int r = 0;

	c->keys = pv_json_array(rq->params, "keys");
	c->nkeys = c->keys ? (unsigned)json_object_array_length(c->keys) : 0;
	if (!c->nkeys || c->nkeys > KEYS_MAX || rq->message.nfds != c->nkeys) {
		c->nkeys = 0;
		return pv_fail_as(
			err, -EINVAL, PV_EXIT_USAGE, c->v->name, "1 to %d keys are needed", KEYS_MAX);
	}
	for (unsigned i = 0; r >= 0 && i < c->nkeys; i++)
		r = request_key(rq, i, &c->secrets[i], err);
	return r;
}

static int default_container(struct creation *c, char **ret_path, struct pv_error *err)
{
	pv_autofree char *dir = NULL;

	if (asprintf(&dir, "%s/containers", keeper.home->home) < 0)
		return pv_fail(err, -ENOMEM, c->v->name, "out of memory");
	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return pv_fail(err, -errno, dir, "cannot make this directory: %s", pv_strerror(errno));
	if (asprintf(ret_path, "%s/%s.pvol", dir, c->v->name) < 0)
		return pv_fail(err, -ENOMEM, c->v->name, "out of memory");
	return 0;
}

static int take_paths(struct creation *c, struct pv_error *err)
{
	const char *container = pv_json_string(c->rq->params, "container", NULL);
	const char *mirror = pv_json_string(c->rq->params, "mirror", NULL);
	const char *at = pv_json_string(c->rq->params, "at", NULL);
	struct pv_record *record = c->v->record;
	int r;

	if ((container && *container != '/') || (mirror && *mirror != '/'))
		return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE,
			container && *container != '/' ? container : mirror,
			"the container's path must be absolute");
	if (container)
		record->containers[0] = strdup(container);
	else if ((r = default_container(c, &record->containers[0], err)) < 0)
		return r;
	record->ncontainers = 1;
	if (mirror) {
		record->containers[1] = strdup(mirror);
		record->ncontainers = 2;
	}
	if (at)
		c->v->at = strdup(at);
	else if (asprintf(&c->v->at, "%s/%s", keeper.home->user_home, c->v->name) < 0)
		c->v->at = NULL;
	if (!record->containers[0] || (mirror && !record->containers[1]) || !c->v->at)
		return pv_fail(err, -ENOMEM, c->v->name, "out of memory");
	/* trailing slashes would make two names of one mount point */
	for (size_t n = strlen(c->v->at); n > 1 && c->v->at[n - 1] == '/'; n--)
		c->v->at[n - 1] = '\0';
	return 0;
}

static int validate(struct creation *c, struct pv_error *err)
{
	struct pv_record *existing = NULL;
	int r;

	if (pv_registry_load(keeper.home->volumes_fd, c->v->name, &existing, NULL) != -ENOENT) {
		r = pv_fail_as(err, -EEXIST, PV_EXIT_FAILED, c->v->name,
			"a volume of this name exists already%s%s", existing ? ": its container is " : "",
			existing ? existing->containers[0] : "");
		pv_record_free(existing);
		return r;
	}
	c->size = pv_json_u64(c->rq->params, "size", 0);
	c->full = pv_json_bool(c->rq->params, "full", false);
	r = take_paths(c, err);
	if (r >= 0)
		r = pv_machine_check_fuse(NULL, err);
	if (r >= 0)
		r = pv_machine_check_locked_memory(err);
	if (r >= 0)
		r = mountpoint_check(c->v->at, &c->at_existed, err);
	if (r >= 0)
		r = take_keys(c, err);
	return r;
}

/*
 * Fills the container with the key stream of a random key, which nobody can tell from ciphertext, so that
 * later on used and unused blocks look alike.
 */
static int fill(struct creation *c, int fd, uint64_t size, const char *path, struct pv_error *err)
{
	pv_autofree unsigned char *zeros = calloc(1, FILL_CHUNK), *data = malloc(FILL_CHUNK);
	unsigned char key[32], iv[16] = {0};
	EVP_CIPHER_CTX *stream = EVP_CIPHER_CTX_new();
	int r = 0, n;

	if (!zeros || !data || !stream || getrandom(key, sizeof(key), 0) != sizeof(key) ||
		!EVP_EncryptInit_ex(stream, EVP_aes_256_ctr(), NULL, key, iv))
		r = pv_fail(err, -ENOMEM, path, "cannot fill the container: out of memory");
	pv_wipe(key, sizeof(key));
	for (uint64_t done = 0; r >= 0 && done < size;) {
		size_t want = size - done < FILL_CHUNK ? (size_t)(size - done) : FILL_CHUNK;
		ssize_t written;

		if (!EVP_EncryptUpdate(stream, data, &n, zeros, (int)want)) {
			r = pv_fail(err, -EIO, path, "cannot fill the container");
			break;
		}
		written = pwrite(fd, data, want, (off_t)done);
		if (written < (ssize_t)want) {
			r = written < 0 ? -errno : -ENOSPC;
			pv_fail(err, r, path, "cannot fill the container: %s", pv_strerror(r));
			break;
		}
		done += want;
		if (!(done & ((64 << 20) - 1))) {
			request_progress(c->rq, "filling the container", done, size);
			r = interrupted(c, err);
		}
	}
	EVP_CIPHER_CTX_free(stream);
	return r;
}

/* A device exists already and may hold what nobody wants to lose; what looks empty or random may be used. */
static int check_unused(int fd, const char *path, struct pv_error *err)
{
	struct pv_error why = {0};
	int r = pv_worker_run("format.probe", NULL, &fd, 1, NULL, NULL, NULL, NULL, NULL, &why);

	if (r < 0 && r != -EMEDIUMTYPE)
		return r == -EUCLEAN ? 0 : pv_fail(err, r, path, "%s", why.message);
	if (r < 0)
		pv_fail(err, -EEXIST, path, "the device is in use: %s", why.message);
	else
		pv_fail(err, -EEXIST, path, "the device holds an encrypted volume already");
	pv_remedy(err, "if nothing of it is needed any more: wipefs --all %s", path);
	return -EEXIST;
}

static int make_containers(struct creation *c, struct pv_error *err)
{
	struct pv_record *record = c->v->record;
	int r = 0;

	for (unsigned i = 0; i < record->ncontainers; i++) {
		struct pv_container *container = &c->v->devices[i].container;
		const char *path = record->containers[i];
		struct stat st;
		uint64_t size = c->size;

		/* a device has its size already */
		if (!size && !(stat(path, &st) == 0 && S_ISBLK(st.st_mode)))
			size = DEFAULT_SIZE;
		request_progress(c->rq, "making the container", 0, 0);
		r = pv_container_create(path, size, c->full, container, &c->made[i], err);
		if (r < 0)
			return r;
		if (!c->made[i]) {
			r = check_unused(container->fd, path, err);
			if (r < 0)
				return r;
		}
		c->have[i] = true;
		record->sizes[i] = container->size;
		if (c->full) {
			r = fill(c, container->fd, container->size, path, err);
			if (r < 0)
				return r;
		}
		r = interrupted(c, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int format_one(struct creation *c, struct volume_device *device, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	pv_autojson struct json_object *result = NULL;
	static const char *const passed[] = {"cipher", "key_size", "sector_size"};
	int fds[1 + KEYS_MAX], key_fd = -1, r = 0;
	size_t nfds = 1;
	unsigned given = 0;

	pv_json_add_string(params, "format", "luks2");
	for (unsigned i = 0; i < 3; i++) {
		struct json_object *value;

		if (json_object_object_get_ex(c->rq->params, passed[i], &value))
			json_object_object_add(params, passed[i], json_object_get(value));
	}
	json_object_object_add(params, "keys", json_object_get(c->keys));
	fds[0] = device->container.fd;
	for (; r >= 0 && given < c->nkeys; given += r >= 0)
		r = pv_secret_pipe(c->secrets[given], &fds[1 + given], err);
	if (r >= 0)
		r = pv_worker_run("format.create", params, fds, 1 + given, request_pass_progress, c->rq,
			&result, &key_fd, &nfds, err);
	for (unsigned i = 0; i < given; i++)
		close(fds[1 + i]);
	if (r >= 0)
		r = nfds == 1 ? pv_segment_from_json(pv_json_object(result, "segment"), &device->segment, err)
			      : pv_fail(err, -EPROTO, NULL, "the worker gave no volume key");
	if (r >= 0)
		r = pv_secret_read(key_fd, 4096, &device->key, err);
	if (key_fd >= 0)
		close(key_fd);
	return r;
}

static int make_headers(struct creation *c, struct pv_error *err)
{
	struct volume *v = c->v;
	int r = 0;

	for (unsigned i = 0; r >= 0 && i < v->record->ncontainers; i++) {
		pv_autojson struct json_object *info = NULL;
		struct volume_device *device = &v->devices[i];

		r = format_one(c, device, err);
		if (r >= 0)
			r = interrupted(c, err);
		if (r >= 0)
			r = header_info(device->container.fd, &info, err);
		if (r < 0)
			break;
		if (i == 0) {
			snprintf(v->record->uuid, sizeof(v->record->uuid), "%s",
				pv_json_string(info, "uuid", ""));
			v->record->slots = header_slots(info);
		}
		if (asprintf(&device->path, i ? "/dev/mapper/pvol-%s-%u" : "/dev/mapper/pvol-%s", v->name,
			    i) < 0) {
			device->path = NULL;
			return pv_fail(err, -ENOMEM, v->name, "out of memory");
		}
		v->ndevices++;
	}
	return r;
}

/* The file system's mount point is recorded in the pool too, so that the kernel would mount it there. */
static struct json_object *fs_properties(struct creation *c)
{
	struct json_object *given = pv_json_object(c->rq->params, "fs_props");
	struct json_object *props = json_object_new_object();

	pv_json_add_string(props, "mountpoint", c->v->at);
	if (given) {
		json_object_object_foreach (given, key, value)
			json_object_object_add(props, key, json_object_get(value));
	}
	return props;
}

static struct json_object *pool_properties(struct creation *c)
{
	struct json_object *given = pv_json_object(c->rq->params, "pool_props");
	struct json_object *props = json_object_new_object();

	if (given) {
		json_object_object_foreach (given, key, value)
			json_object_object_add(props, key, json_object_get(value));
	}
	if (pv_json_bool(c->rq->params, "autotrim", false))
		pv_json_add_string(props, "autotrim", "on");
	return props;
}

static int make_pool(struct creation *c, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct link_call status = {.method = "pool.status"};
	int r;

	request_progress(c->rq, "making the pool", 0, 0);
	r = engine_start(c->v, err);
	if (r < 0)
		return r;
	pv_json_add_string(params, "name", c->v->name);
	pv_json_add_bool(params, "mirror", c->v->ndevices > 1);
	pv_json_add_int(params, "uid", geteuid());
	pv_json_add_int(params, "gid", getegid());
	json_object_object_add(params, "pool_props", pool_properties(c));
	json_object_object_add(params, "fs_props", fs_properties(c));
	r = link_simple(c->v->link, "pool.create", params, 0, err);
	if (r >= 0)
		r = interrupted(c, err);
	if (r >= 0)
		r = engine_mount(c->v, NULL, err);
	if (r >= 0)
		r = link_call(c->v->link, &status, err);
	if (r >= 0) {
		c->v->record->pool_guid = pv_json_u64(status.result, "guid", 0);
		c->v->record->last_txg = pv_json_u64(status.result, "last_txg", 0);
	}
	link_call_clear(&status);
	return r;
}

static int enter(struct creation *c, struct pv_error *err)
{
	struct pv_record *record = c->v->record;
	int r;

	record->created = time(NULL);
	record->at = strdup(c->v->at);
	record->opened_at = strdup(c->v->at);
	pv_boot_id(record->boot_id);
	r = interrupted(c, err);
	if (r >= 0)
		r = volume_save(c->v, err);
	c->registered = r >= 0;
	return r;
}

static void undo(struct creation *c)
{
	struct volume *v = c->v;

	if (c->registered)
		pv_registry_remove(keeper.home->volumes_fd, v->name, NULL);
	engine_abort(v);
	for (unsigned i = 0; i < PV_CONTAINERS_MAX; i++) {
		struct pv_container *container = &v->devices[i].container;

		if (!c->have[i])
			continue;
		if (c->made[i])
			pv_container_remove(v->record->containers[i], container);
		else if (v->devices[i].key)
			/* a device keeps existing: at least it shall not look like a volume */
			pv_worker_run(
				"format.erase", NULL, &container->fd, 1, NULL, NULL, NULL, NULL, NULL, NULL);
	}
	if (!c->at_existed && v->at)
		rmdir(v->at);
}

static int create(struct creation *c, struct pv_error *err)
{
	bool checked = false;
	int r;

	c->at_existed = true;
	r = validate(c, err);
	if (r >= 0) {
		checked = true;
		r = interrupted(c, err);
	}
	if (r >= 0)
		r = make_containers(c, err);
	if (r >= 0)
		r = make_headers(c, err);
	if (r >= 0)
		r = make_pool(c, err);
	if (r >= 0)
		r = enter(c, err);
	if (r >= 0) {
		c->rq->result = json_object_new_object();
		pv_json_add_string(c->rq->result, "name", c->v->name);
		pv_json_add_string(c->rq->result, "container", c->v->record->containers[0]);
		pv_json_add_string(c->rq->result, "at", c->v->at);
		pv_json_add_string(c->rq->result, "uuid", c->v->record->uuid);
		/* a client that cannot be told does not know of a volume */
		r = request_answer(c->rq);
	}
	if (r < 0 && checked)
		undo(c);
	return r;
}

int volume_create(struct request *rq, struct pv_error *err)
{
	struct creation c = {.rq = rq};
	const char *name;
	int r;

	r = request_string(rq, "name", &name, err);
	if (r >= 0)
		r = volume_claim(name, VOLUME_CLOSED, VOLUME_CREATING, &c.v, err);
	if (r < 0)
		return r;
	r = create(&c, err);
	for (unsigned i = 0; i < KEYS_MAX; i++)
		pv_secret_free(c.secrets[i]);
	if (r < 0 && !err->code)
		pv_fail(err, r, name, "cannot create the volume: %s", pv_strerror(r));
	volume_done(c.v, r < 0 ? VOLUME_CLOSED : VOLUME_OPEN);
	return r;
}
