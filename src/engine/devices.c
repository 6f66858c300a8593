/*
 * Configuration, the devices of the pool, and handing everything to the next keeper.
 */
#include "engine/engine_int.h"
#include "base/log.h"
#include "block/file.h"
#include "block/sim.h"
#include "block/trace.h"
#include "pool/pool.h"
#include "volume/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

static int replace(char **where, const char *value)
{
	char *copy = value ? strdup(value) : NULL;

	if (value && !copy)
		return -ENOMEM;
	free(*where);
	*where = copy;
	return 0;
}

static int make_state_dir(struct pv_error *err)
{
	pv_autofree char *path = NULL;

	if (asprintf(&path, "%s/cache.%s", engine.runtime, engine.name) < 0)
		return pv_fail(err, -ENOMEM, engine.name, "out of memory");
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return pv_fail(err, -errno, path, "cannot make this directory: %s", pv_strerror(errno));
	replace(&engine.state_dir, path);
	return 0;
}

/* The ARC's bound, and from it that of dirty data, which the watcher of the backing store must know. */
static uint64_t choose_memory(uint64_t arc_max)
{
	uint64_t quarter;

	if (!arc_max)
		arc_max = pv_machine_memory() / 8;
	if (arc_max > 1024 * MIB)
		arc_max = 1024 * MIB;
	quarter = arc_max / 4;
	engine.dirty_max = quarter > 256 * MIB ? 256 * MIB : quarter < 32 * MIB ? 32 * MIB : quarter;
	return arc_max;
}

/*
 * Called once before anything else, and again when the pool's name has become known: then only name, record
 * and socket change.
 */
int engine_configure(struct engine_call *call, struct pv_error *err)
{
	const char *name = pv_json_string(call->params, "name", "");
	const char *runtime = pv_json_string(call->params, "runtime", NULL);
	struct json_object *record = pv_json_object(call->params, "record");
	struct pv_pool_options options = {0};
	int r;

	pthread_rwlock_wrlock(&engine.state);
	r = *name && (runtime || engine.runtime)
		    ? 0
		    : pv_fail(err, -EINVAL, NULL, "engine.configure lacks a name");
	if (r >= 0 && runtime && !engine.runtime) {
		engine.runtime_fd = open(runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (engine.runtime_fd < 0)
			r = pv_fail(err, -errno, runtime, "cannot open the runtime directory: %s",
				pv_strerror(errno));
		else
			r = replace(&engine.runtime, runtime);
	}
	if (r < 0)
		goto out;
	if (engine.listen_fd >= 0 && strcmp(name, engine.name))
		engine_unlisten();
	snprintf(engine.name, sizeof(engine.name), "%s", name);
	if (record) {
		json_object_put(engine.record);
		engine.record = json_object_get(record);
	}
	if (!engine.started) {
		engine.owner = (uid_t)pv_json_int(call->params, "owner", geteuid());
		replace(&engine.sim, pv_json_string(call->params, "sim", NULL));
		replace(&engine.trace, pv_json_string(call->params, "trace", NULL));
		options.arc_max = choose_memory(pv_json_u64(call->params, "arc_max", 0));
		options.dirty_max = engine.dirty_max;
		options.read_only = pv_json_bool(call->params, "read_only", false);
		r = make_state_dir(err);
		options.state_dir = engine.state_dir;
		if (r >= 0)
			r = pv_pool_start(&options, err);
		if (r < 0)
			goto out;
		engine.started = true;
	}
	if (engine.listen_fd < 0)
		r = engine_listen(err);
	if (r >= 0) {
		call->result = json_object_new_object();
		pv_json_add_int(call->result, "pid", getpid());
		pv_json_add_string(call->result, "libzpool", pv_pool_libzpool_version());
	}
out:
	pthread_rwlock_unlock(&engine.state);
	return r;
}

/*
 * A flush failed: what was acknowledged since the last good one may be gone, and the pool can only wait for
 * ever, and every caller with it. So this process ends as in a power cut, which OpenZFS survives; the keeper
 * opens the container afresh. What Linux still holds of it is dropped first: pages that failed to be written
 * count as clean and would be read back as if they were on disk.
 */
static void device_lost(struct pv_bdev *bdev, int error)
{
	pv_log(PV_LOG_ERROR, "the container failed to flush (%s): this engine ends, as in a power cut",
		pv_strerror(error));
	for (unsigned i = 0; i < engine.ndevices; i++)
		posix_fadvise(engine.devices[i].container_fd, 0, 0, POSIX_FADV_DONTNEED);
	_exit(ENGINE_EXIT_LOST);
}

/* file, then what tests put in between, then crypt. */
static int open_stack(struct engine_device *device, struct pv_error *err)
{
	const struct pv_file_options options = {
		.read_only = device->read_only, .hold_on_full = true, .label = device->label};
	struct pv_bdev *bdev = NULL, *upper = NULL;
	struct pv_sim_options sim;
	int fd, r;

	fd = fcntl(device->container_fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return pv_fail(
			err, -errno, device->label, "cannot duplicate a descriptor: %s", pv_strerror(errno));
	r = pv_file_open(fd, &options, &bdev, err);
	if (r < 0)
		return r;
	if (engine.sim) {
		r = pv_sim_parse(engine.sim, &sim, err);
		if (r >= 0)
			r = pv_sim_open(bdev, &sim, &upper, err);
		if (r < 0)
			goto fail;
		bdev = upper;
	}
	if (engine.trace && !device->read_only) {
		fd = open(engine.trace, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		r = fd < 0 ? pv_fail(err, -errno, engine.trace, "cannot open the trace: %s",
				     pv_strerror(errno))
			   : pv_trace_open(bdev, fd, &upper, err);
		if (r < 0)
			goto fail;
		bdev = upper;
	}
	r = pv_crypt_open(bdev, &device->segment, device->key, &upper, err);
	if (r < 0)
		goto fail;
	device->bdev = upper;
	upper->lost = device_lost;
	return 0;
fail:
	pv_bdev_close(bdev);
	return r;
}

static void device_clear(struct engine_device *device)
{
	if (device->bdev)
		pv_pool_unregister_device(device->path);
	pv_bdev_close(device->bdev);
	pv_secret_free(device->key);
	if (device->container_fd >= 0)
		close(device->container_fd);
	free(device->path);
	free(device->label);
	*device = (struct engine_device){.container_fd = -1};
}

void engine_detach_all(void)
{
	while (engine.ndevices)
		device_clear(&engine.devices[--engine.ndevices]);
}

static int attach_one(struct json_object *json, int *container_fd, int key_fd, struct pv_error *err)
{
	struct engine_device *device = &engine.devices[engine.ndevices];
	const char *path = pv_json_string(json, "path", NULL);
	int r;

	*device = (struct engine_device){.container_fd = -1};
	if (!path)
		return pv_fail(err, -EINVAL, NULL, "engine.attach: a device without a path");
	engine.ndevices++;
	device->path = strdup(path);
	device->label = strdup(pv_json_string(json, "label", path));
	device->read_only = pv_json_bool(json, "read_only", false);
	if (!device->path || !device->label)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	r = pv_segment_from_json(pv_json_object(json, "segment"), &device->segment, err);
	if (r < 0)
		return r;
	r = pv_secret_read(key_fd, 4096, &device->key, err);
	if (r < 0)
		return r;
	device->container_fd = pv_steal_fd(container_fd);
	r = open_stack(device, err);
	if (r < 0)
		return r;
	r = pv_pool_register_device(device->path, device->bdev, err);
	if (r < 0)
		device->bdev = pv_bdev_close(device->bdev);
	return r;
}

int engine_attach(struct engine_call *call, struct pv_error *err)
{
	struct json_object *devices = pv_json_array(call->params, "devices");
	size_t count = devices ? json_object_array_length(devices) : 0;
	int r = 0;

	if (!count || count > ENGINE_DEVICES_MAX || call->message.nfds != 2 * count)
		return pv_fail(
			err, -EINVAL, NULL, "engine.attach: a container and a key per device are needed");
	pthread_rwlock_wrlock(&engine.state);
	if (engine.ndevices || !engine.started)
		r = pv_fail(err, -EBUSY, engine.name, "devices are attached once, after engine.configure");
	for (size_t i = 0; r >= 0 && i < count; i++) {
		struct json_object *json = json_object_array_get_idx(devices, i);

		r = json_object_is_type(json, json_type_object)
			    ? attach_one(json, &call->message.fds[2 * i], call->message.fds[2 * i + 1], err)
			    : pv_fail(err, -EINVAL, NULL, "engine.attach: a device is an object");
		if (r < 0)
			engine_detach_all();
	}
	pthread_rwlock_unlock(&engine.state);
	return r;
}

uint64_t engine_backing_free(void)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < engine.ndevices; i++) {
		uint64_t room =
			engine.devices[i].bdev ? pv_file_backing_free(engine.devices[i].bdev) : UINT64_MAX;

		if (room < least)
			least = room;
	}
	return least;
}

int engine_describe(struct engine_call *call, struct pv_error *err)
{
	struct json_object *devices = json_object_new_array();
	uint64_t room;

	pthread_rwlock_rdlock(&engine.state);
	for (unsigned i = 0; i < engine.ndevices; i++) {
		struct json_object *device = json_object_new_object();

		pv_json_add_string(device, "path", engine.devices[i].path);
		pv_json_add_string(device, "container", engine.devices[i].label);
		pv_bdev_describe(engine.devices[i].bdev, device);
		json_object_array_add(devices, device);
	}
	room = engine_backing_free();
	pthread_rwlock_unlock(&engine.state);
	call->result = json_object_new_object();
	json_object_object_add(call->result, "devices", devices);
	if (room != UINT64_MAX)
		pv_json_add_u64(call->result, "backing_free", room);
	return 0;
}

static int give_device(struct engine_call *call, const struct engine_device *device,
	struct json_object *devices, struct pv_error *err)
{
	struct json_object *json = json_object_new_object();
	int r;

	pv_json_add_string(json, "path", device->path);
	pv_json_add_string(json, "label", device->label);
	pv_json_add_bool(json, "read_only", device->read_only);
	json_object_object_add(json, "segment", pv_segment_to_json(&device->segment));
	json_object_array_add(devices, json);
	call->fds[call->nfds] = fcntl(device->container_fd, F_DUPFD_CLOEXEC, 3);
	if (call->fds[call->nfds] < 0)
		return pv_fail(
			err, -errno, device->label, "cannot duplicate a descriptor: %s", pv_strerror(errno));
	call->nfds++;
	r = pv_secret_pipe(device->key, &call->fds[call->nfds], err);
	if (r < 0)
		return r;
	call->nfds++;
	return 0;
}

int engine_adopt(struct engine_call *call, struct pv_error *err)
{
	struct json_object *devices = json_object_new_array();
	int r = 0;

	pthread_rwlock_rdlock(&engine.state);
	call->result = json_object_new_object();
	pv_json_add_string(call->result, "name", engine.name);
	pv_json_add_int(call->result, "pid", getpid());
	pv_json_add_string(call->result, "libzpool", pv_pool_libzpool_version());
	pv_json_add_string(call->result, "state",
		engine.mounts     ? "mounted"
		: engine.pool     ? "imported"
		: engine.ndevices ? "attached"
				  : "empty");
	pv_json_add_string(call->result, "pool", engine.pool);
	if (engine.record)
		json_object_object_add(call->result, "record", json_object_get(engine.record));
	if (engine.mounts)
		json_object_object_add(call->result, "mounts", pv_mounts_list(engine.mounts));
	json_object_object_add(call->result, "devices", devices);
	for (unsigned i = 0; r >= 0 && i < engine.ndevices; i++)
		r = give_device(call, &engine.devices[i], devices, err);
	pthread_rwlock_unlock(&engine.state);
	return r < 0 ? r : 0;
}

int engine_exit(struct engine_call *call, struct pv_error *err)
{
	int r = 0;

	pthread_rwlock_wrlock(&engine.state);
	if (engine.mounts || engine.pool)
		r = pv_fail(err, -EBUSY, engine.name, "the pool must be exported first");
	else
		engine.stopping = true;
	pthread_rwlock_unlock(&engine.state);
	return r;
}
