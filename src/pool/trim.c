/*
 * Giving a pool's free space back to the devices below: all of it, once. (What is freed later is given back
 * by the pool property autotrim.) It shows to whoever sees the container which parts of it are unused.
 */
#include "pool/pool_int.h"

#include <sys/dsl_pool.h>
#include <sys/fs/zfs.h>
#include <sys/spa_impl.h>
#include <sys/vdev_impl.h>
#include <sys/vdev_trim.h>

static void collect_leaves(vdev_t *vd, nvlist_t *guids)
{
	char name[32];

	for (uint64_t c = 0; c < vd->vdev_children; c++)
		collect_leaves(vd->vdev_child[c], guids);
	if (vd->vdev_ops->vdev_op_leaf && vdev_is_concrete(vd) && vdev_writeable(vd) && vd->vdev_has_trim) {
		snprintf(name, sizeof(name), "%llu", (unsigned long long)vd->vdev_guid);
		fnvlist_add_uint64(guids, name, vd->vdev_guid);
	}
}

int pv_pool_trim(const char *name, bool wait, struct pv_error *err)
{
	nvlist_t *guids, *errors;
	boolean_t waited;
	nvpair_t *first;
	spa_t *spa;
	int error = pool_open_writable(name, FTAG, &spa, err);

	if (error < 0)
		return error;
	guids = fnvlist_alloc();
	errors = fnvlist_alloc();
	spa_config_enter(spa, SCL_CONFIG | SCL_STATE, FTAG, RW_READER);
	collect_leaves(spa->spa_root_vdev, guids);
	spa_config_exit(spa, SCL_CONFIG | SCL_STATE, FTAG);
	if (nvlist_empty(guids)) {
		error = pv_fail(err, -EOPNOTSUPP, name, "none of its devices can take space back");
	} else if (spa_vdev_trim(spa, guids, POOL_TRIM_START, 0, B_FALSE, B_FALSE, errors) > 0) {
		first = nvlist_next_nvpair(errors, NULL);
		error = first ? (int)fnvpair_value_int64(first) : EIO;
		error = error == EBUSY
				? pv_fail(err, -EBUSY, name, "its free space is being given back already")
				: pool_fail(err, error, name, "give free space back");
	}
	nvlist_free(errors);
	nvlist_free(guids);
	spa_close(spa, FTAG);
	if (error == 0 && wait) {
		error = spa_wait(name, ZPOOL_WAIT_TRIM, &waited);
		if (error)
			error = pool_fail(err, error, name, "wait for the end");
	}
	return error;
}
