/*
 * Import and export. The labels decide what there is (labels.c); who used it last is checked here, as the
 * zpool command would do it; the rest is libzpool's.
 */
#include "pool/pool_int.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <sys/dsl_pool.h>
#include <sys/txg.h>
#include <sys/vdev_impl.h>

/* A pool that was not exported and carries another host's id may be in use there. */
static int check_last_host(nvlist_t *config, const char *name, bool force, struct pv_error *err)
{
	uint64_t state = POOL_STATE_ACTIVE, hostid = 0;
	const char *hostname = "unknown";

	(void)nvlist_lookup_uint64(config, ZPOOL_CONFIG_POOL_STATE, &state);
	(void)nvlist_lookup_uint64(config, ZPOOL_CONFIG_HOSTID, &hostid);
	(void)nvlist_lookup_string(config, ZPOOL_CONFIG_HOSTNAME, &hostname);
	if (force || state == POOL_STATE_EXPORTED || hostid == zone_get_hostid(NULL))
		return 0;
	(void)pv_fail(err, -EBUSY, name,
		"the pool was last used by another host (%s, id %08llx) and not closed there", hostname,
		(unsigned long long)hostid);
	return pv_remedy(
		err, "close it there, or use --force if that host is certainly not using it any more");
}

static int any_read_only(struct pool_device *device, void *private)
{
	return device->bdev->read_only;
}

/* Missing top-level devices of the configuration that was tried, and leaves that are not registered. */
static unsigned count_missing(nvlist_t *vdev, int depth)
{
	nvlist_t **children;
	const char *type = "", *path;
	unsigned missing = 0;
	uint_t count;

	if (nvlist_lookup_nvlist_array(vdev, ZPOOL_CONFIG_CHILDREN, &children, &count) == 0 && depth < 8) {
		for (uint_t c = 0; c < count; c++)
			missing += count_missing(children[c], depth + 1);
		return missing;
	}
	(void)nvlist_lookup_string(vdev, ZPOOL_CONFIG_TYPE, &type);
	if (strcmp(type, VDEV_TYPE_MISSING) == 0)
		return 1;
	return nvlist_lookup_string(vdev, ZPOOL_CONFIG_PATH, &path) == 0 && !pool_device_exists(path);
}

/* Names of pool features that this library lacks, as spa_import() left them in the configuration. */
static void unsupported_features(nvlist_t *config, char *text, size_t size)
{
	nvlist_t *info, *features;
	nvpair_t *pair = NULL;

	*text = '\0';
	if (nvlist_lookup_nvlist(config, ZPOOL_CONFIG_LOAD_INFO, &info) != 0 ||
		nvlist_lookup_nvlist(info, ZPOOL_CONFIG_UNSUP_FEAT, &features) != 0)
		return;
	while ((pair = nvlist_next_nvpair(features, pair)) != NULL &&
		strlen(text) + strlen(nvpair_name(pair)) + 3 < size)
		snprintf(text + strlen(text), size - strlen(text), "%s%s", *text ? ", " : "",
			nvpair_name(pair));
}

static bool can_read_only(nvlist_t *config)
{
	nvlist_t *info;

	return nvlist_lookup_nvlist(config, ZPOOL_CONFIG_LOAD_INFO, &info) == 0 &&
	       nvlist_exists(info, ZPOOL_CONFIG_CAN_RDONLY);
}

static int fail_import(nvlist_t *config, const char *name, int zerror, struct pv_error *err)
{
	unsigned missing = count_missing(fnvlist_lookup_nvlist(config, ZPOOL_CONFIG_VDEV_TREE), 0);
	char features[512];

	switch (zerror) {
	case EEXIST: return pv_fail(err, -EEXIST, name, "a pool of this name is imported already");
	case ENOTSUP:
		unsupported_features(config, features, sizeof(features));
		(void)pv_fail(err, -ENOTSUP, name, "the pool uses features that this OpenZFS lacks: %s",
			*features ? features : "unknown ones");
		return can_read_only(config) ? pv_remedy(err, "open it read-only") : -ENOTSUP;
	case EREMOTEIO:
	case EBADF: return pv_fail(err, -EBUSY, name, "the pool is in use by another host");
	case EROFS:
		return pv_fail(
			err, -EROFS, name, "a device is read-only: the pool can only be opened read-only");
	case ENXIO:
	case EDOM:
	case EINVAL:
		if (missing) {
			(void)pv_fail_as(err, -ENXIO, PV_EXIT_DAMAGED, name,
				"%u of the pool's devices %s missing", missing, missing == 1 ? "is" : "are");
			return pv_remedy(err, "open all containers of the pool together");
		}
		break;
	case ENOENT:
	case EIO:
	case ECKSUM:
	case EFRAGS:
	case EOVERFLOW: break;
	default: return pool_fail(err, zerror, name, "import the pool");
	}
	(void)pv_fail_as(err, -EUCLEAN, PV_EXIT_DAMAGED, name,
		"the pool is damaged and cannot be imported (error %d)%s", zerror,
		missing ? "; devices are missing too" : "");
	return pv_remedy(err, "try a read-only import, then restore from a backup what cannot be read");
}

int pv_pool_import(const struct pv_pool_import *params, char **ret_name, struct pv_error *err)
{
	nvlist_t *config, *props;
	pv_autofree char *name = NULL;
	bool read_only;
	int error;

	if (!pool_started())
		return pv_fail(err, -EINVAL, params->name, "libzpool has not been started");
	if (params->altroot && params->altroot[0] != '/')
		return pv_fail(err, -EINVAL, params->altroot, "an alternate root must be an absolute path");
	error = pool_labels_assemble(params->name, &config, err);
	if (error < 0)
		return error;
	name = strdup(
		params->new_name ? params->new_name : fnvlist_lookup_string(config, ZPOOL_CONFIG_POOL_NAME));
	error = name ? pool_check_pool_name(name, err) : pv_fail(err, -ENOMEM, NULL, "out of memory");
	if (error == 0)
		error = check_last_host(config, name, params->force, err);
	if (error < 0) {
		nvlist_free(config);
		return error;
	}
	read_only = params->read_only || pool_only_reads() || pool_device_walk(any_read_only, NULL) != 0;
	props = fnvlist_alloc();
	fnvlist_add_string(props, zpool_prop_to_name(ZPOOL_PROP_CACHEFILE), "none");
	if (params->altroot)
		fnvlist_add_string(props, zpool_prop_to_name(ZPOOL_PROP_ALTROOT), params->altroot);
	if (read_only)
		fnvlist_add_uint64(props, zpool_prop_to_name(ZPOOL_PROP_READONLY), 1);
	error = spa_import(name, config, props, params->force ? ZFS_IMPORT_ANY_HOST : ZFS_IMPORT_NORMAL);
	fnvlist_free(props);
	if (error)
		error = fail_import(config, name, error, err);
	nvlist_free(config);
	if (error == 0 && ret_name)
		*ret_name = pv_steal_ptr(&name);
	return error;
}

int pv_pool_export(const char *name, bool force, struct pv_error *err)
{
	spa_t *spa;
	int error = pool_open(name, FTAG, &spa, err);

	if (error < 0)
		return error;
	if (spa_suspended(spa)) {
		/* Its last transaction group can never be written: waiting would last for ever. */
		spa_close(spa, FTAG);
		return pool_fail(err, EAGAIN, name, "export the pool");
	}
	/* spa_export() itself waits for file systems on their way out only when the pool is writable. */
	spa_evicting_os_wait(spa);
	spa_close(spa, FTAG);
	error = spa_export(name, NULL, force, B_FALSE);
	return error ? pool_fail(err, error, name, "export the pool") : 0;
}
