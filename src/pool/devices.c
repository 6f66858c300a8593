/*
 * The registry of block devices by vdev path. The vdev operations look paths up here and nowhere else: a path
 * that is not registered does not exist, whatever the file system holds under that name.
 */
#include "pool/pool_int.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <stdatomic.h>

#include <sys/spa_impl.h>
#include <sys/vdev_impl.h>

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
/* Slots keep their address while in use, because open vdevs point to them. */
static struct pool_device *registry[POOL_DEVICES_MAX];

static struct pool_device *find(const char *path)
{
	for (unsigned i = 0; i < POOL_DEVICES_MAX; i++) {
		if (registry[i] && registry[i]->bdev && strcmp(registry[i]->path, path) == 0)
			return registry[i];
	}
	return NULL;
}

static int expand(const char *path, bool automatic, struct pv_error *err);

static void grow_task(void *arg)
{
	char *path = arg;
	struct pv_error err = {0};

	if (expand(path, true, &err) < 0)
		pv_log(PV_LOG_WARNING, "pool: a device has grown, its pool has not: %s", err.message);
	free(path);
}

/* Growth may be reported by a completion, where no pool call is permitted: a task looks at autoexpand. */
static void device_resized(struct pv_bdev *bdev, uint64_t size, void *private)
{
	struct pool_device *device = private;
	char *path = NULL;

	pthread_mutex_lock(&registry_lock);
	if (device->opened > 0)
		path = strdup(device->path);
	pthread_mutex_unlock(&registry_lock);
	if (path && taskq_dispatch(system_taskq, grow_task, path, TQ_SLEEP) == TASKQID_INVALID)
		free(path);
}

int pv_pool_register_device(const char *path, struct pv_bdev *bdev, struct pv_error *err)
{
	PV_LOCK_SCOPE(&registry_lock);

	if (path[0] != '/' || strlen(path) >= MAXPATHLEN)
		return pv_fail(err, -EINVAL, path,
			"a device's path must be absolute and shorter than %d bytes", MAXPATHLEN);
	if (find(path))
		return pv_fail(err, -EEXIST, path, "a device of this path is in use already");
	for (unsigned i = 0; i < POOL_DEVICES_MAX; i++) {
		struct pool_device *device;

		if (registry[i])
			continue;
		device = calloc(1, sizeof(*device));
		if (!device)
			return pv_fail(err, -ENOMEM, path, "out of memory");
		strlcpy(device->path, path, sizeof(device->path));
		device->bdev = bdev;
		bdev->resized_private = device;
		bdev->resized = device_resized;
		registry[i] = device;
		return 0;
	}
	return pv_fail(err, -EMFILE, path, "too many devices in one pool process (%d)", POOL_DEVICES_MAX);
}

void pv_pool_unregister_device(const char *path)
{
	struct pool_device *device;

	PV_LOCK_SCOPE(&registry_lock);
	device = find(path);
	if (!device)
		return;
	device->bdev->resized = NULL;
	if (device->opened > 0) {
		/* The caller broke the rule; its I/O fails from now on, and the slot goes with the last
		 * close. */
		pv_log(PV_LOG_ERROR, "pool: a device was taken away from an imported pool");
		device->bdev = NULL;
		return;
	}
	for (unsigned i = 0; i < POOL_DEVICES_MAX; i++) {
		if (registry[i] == device)
			registry[i] = NULL;
	}
	free(device);
}

struct pool_device *pool_device_open(const char *path)
{
	struct pool_device *device;

	PV_LOCK_SCOPE(&registry_lock);
	device = find(path);
	if (device)
		device->opened++;
	return device;
}

void pool_device_close(struct pool_device *device)
{
	PV_LOCK_SCOPE(&registry_lock);
	if (--device->opened > 0 || device->bdev)
		return;
	for (unsigned i = 0; i < POOL_DEVICES_MAX; i++) {
		if (registry[i] == device)
			registry[i] = NULL;
	}
	free(device);
}

bool pool_device_exists(const char *path)
{
	PV_LOCK_SCOPE(&registry_lock);
	return find(path) != NULL;
}

int pool_device_walk(int (*fn)(struct pool_device *device, void *private), void *private)
{
	PV_LOCK_SCOPE(&registry_lock);
	for (unsigned i = 0; i < POOL_DEVICES_MAX; i++) {
		if (registry[i] && registry[i]->bdev) {
			int error = fn(registry[i], private);

			if (error)
				return error;
		}
	}
	return 0;
}

/* Finds the leaf of `path` below `vd`; 0 if there is none. */
static uint64_t leaf_guid(vdev_t *vd, const char *path)
{
	if (vd->vdev_ops->vdev_op_leaf)
		return vd->vdev_path && strcmp(vd->vdev_path, path) == 0 ? vd->vdev_guid : 0;
	for (uint64_t c = 0; c < vd->vdev_children; c++) {
		uint64_t guid = leaf_guid(vd->vdev_child[c], path);

		if (guid)
			return guid;
	}
	return 0;
}

/* `automatic`: only as the pool's property autoexpand has it. */
static int expand(const char *path, bool automatic, struct pv_error *err)
{
	vdev_state_t state = VDEV_STATE_UNKNOWN;
	uint64_t guid = 0;
	spa_t *spa = NULL;
	int error;

	mutex_enter(&spa_namespace_lock);
	while ((spa = spa_next(spa)) != NULL) {
		if (spa_state(spa) == POOL_STATE_UNINITIALIZED || !spa->spa_root_vdev)
			continue;
		spa_config_enter(spa, SCL_CONFIG, FTAG, RW_READER);
		guid = leaf_guid(spa->spa_root_vdev, path);
		spa_config_exit(spa, SCL_CONFIG, FTAG);
		if (guid) {
			spa_open_ref(spa, FTAG);
			break;
		}
	}
	mutex_exit(&spa_namespace_lock);
	if (!guid)
		return pv_fail(err, -ENOENT, path, "no imported pool uses this device");
	if (automatic && (!spa->spa_autoexpand || !spa_writeable(spa))) {
		spa_close(spa, FTAG);
		return 0;
	}
	if (!spa_writeable(spa)) {
		spa_close(spa, FTAG);
		return pv_fail(err, -EROFS, path, "the pool is open read-only and cannot grow");
	}
	error = vdev_online(spa, guid, ZFS_ONLINE_EXPAND, &state);
	if (error == 0) {
		/* The new space becomes part of the pool here; vdev_online() leaves this to a thread. */
		mutex_enter(&spa_namespace_lock);
		spa_config_update(spa, SPA_CONFIG_UPDATE_POOL);
		mutex_exit(&spa_namespace_lock);
		txg_wait_synced(spa_get_dsl(spa), 0);
	}
	spa_close(spa, FTAG);
	if (error)
		return pool_fail(err, error, path, "expand the pool over the device's new size");
	if (state < VDEV_STATE_DEGRADED)
		return pv_fail(err, -EIO, path, "the device could not be opened again after it had grown");
	return 0;
}

int pv_pool_device_grown(const char *path, struct pv_error *err)
{
	return expand(path, false, err);
}
