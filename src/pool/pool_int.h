/*
 * Private to pool/: the device registry behind the vdev operations, the interposed functions and the helpers
 * that several files share. Included after <sys/zfs_context.h>.
 */
#ifndef PV_POOL_POOL_INT_H
#define PV_POOL_POOL_INT_H

#include "pool/pool.h"

#include <sys/zfs_context.h>
#include <sys/spa.h>
#include <sys/dsl_prop.h>
#include <sys/nvpair.h>

#define POOL_DEVICES_MAX 64

/* Value of the property casesensitivity that is supported. */
#define POOL_CASE_SENSITIVE 0

/* ---- devices.c: which path is served by which block device ---- */

struct pool_device {
	char path[MAXPATHLEN];
	struct pv_bdev *bdev;
	unsigned opened; /* vdevs that use it at present */
};

/* The device of a path with its use count raised, or NULL. */
struct pool_device *pool_device_open(const char *path);
void pool_device_close(struct pool_device *device);
/* Calls fn with every registered device; its non-zero result ends the walk. No registration from within. */
int pool_device_walk(int (*fn)(struct pool_device *device, void *private), void *private);
bool pool_device_exists(const char *path);

/* ---- vdev_ops.c ---- */

/* I/O requests that our vdev operations have started, for the self-test. */
uint64_t pool_vdev_requests(void);

/* ---- interpose.c: functions of libzpool that the executable replaces ---- */

/* Proves for every replaced symbol that libzpool's own relocations lead to ours, and compares data sizes. */
int pool_interpose_check(struct pv_error *err);
/* Calls of the memory functions so far; used by the self-test. */
uint64_t pool_memory_calls(void);
/* Bytes of memory that this process may use: of the machine or of the tightest cgroup. */
uint64_t pool_memory_total(void);

/* ---- library.c: which libzpool this is ---- */
int pool_library_check(struct pv_error *err);

/* ---- selftest.c ---- */
int pool_selftest(struct pv_error *err);

/* ---- start.c ---- */
bool pool_started(void);
/* True when pools may only be imported read-only. */
bool pool_only_reads(void);

/* ---- names.c: validation and messages ---- */

/* "POOL", "POOL/child" or a snapshot component, as zfs_namecheck sees them; -EINVAL with the reason. */
int pool_check_pool_name(const char *name, struct pv_error *err);
int pool_check_dataset_name(const char *name, struct pv_error *err);
int pool_check_snapshot_part(const char *snap, struct pv_error *err);
/* Turns a positive errno of libzpool into a negative one with message and remedy. `doing` completes "cannot
 * ...". */
int pool_fail(struct pv_error *err, int zerror, const char *object, const char *doing);
/* spa_open() with a message; *ret_spa is closed with spa_close(spa, tag). */
int pool_open(const char *name, const void *tag, spa_t **ret_spa, struct pv_error *err);
/* As pool_open() for a change: refuses a suspended or read-only pool. */
int pool_open_writable(const char *name, const void *tag, spa_t **ret_spa, struct pv_error *err);

/* ---- labels.c ---- */

/*
 * Configuration of the pool called `name` (NULL: the only one) from the labels of the registered devices, as
 * spa_import() wants it; freed with nvlist_free().
 */
int pool_labels_assemble(const char *name, nvlist_t **ret_config, struct pv_error *err);

/* ---- properties.c ---- */

/* What a set of -o values means for spa_create(). */
struct pool_create_props {
	nvlist_t *props; /* for spa_create(), features included; freed by the caller */
	unsigned ashift; /* 0 = not given */
};
int pool_props_parse(const struct pv_property *props, unsigned nprops, struct pool_create_props *ret,
	struct pv_error *err);

/* Dataset properties that exist only at creation. UINT64_MAX = not given: inherit. */
struct pool_zpl_props {
	uint64_t version, normalization, utf8only, casesensitivity;
};

/*
 * Parsed dataset properties: `plain` for dsl_props_set() (numbers as uint64, strings), and those which need a
 * call of their own.
 */
struct pool_fs_props {
	nvlist_t *plain;
	nvlist_t *special; /* quota, reservation, refquota, refreservation: name -> uint64 */
	struct pool_zpl_props zpl;
};
/* Adds one property; later values of the same name win. `creating` permits those that exist only at creation.
 */
int pool_fs_props_add(
	struct pool_fs_props *fs, const char *name, const char *value, bool creating, struct pv_error *err);
void pool_fs_props_init(struct pool_fs_props *fs);
void pool_fs_props_fini(struct pool_fs_props *fs);
/* Refuses values whose pool feature is not enabled (checksum=sha512, recordsize above 128K ...). */
int pool_fs_props_check_features(const struct pool_fs_props *fs, spa_t *spa, struct pv_error *err);
/* Sets all on an existing dataset. */
int pool_fs_props_apply(const struct pool_fs_props *fs, const char *dataset, struct pv_error *err);

#endif
