/*
 * OpenZFS embedded: one pool per process (a failed assertion inside libzpool aborts the process, and its ARC,
 * dirty-data limits and namespace lock are global to it). This header needs no OpenZFS header.
 *
 * All calls are thread-safe after pv_pool_start() unless noted; none may be made from a block completion.
 * Dataset names are "POOL" or "POOL/child"; snapshots "DATASET@SNAP".
 */
#ifndef PV_POOL_POOL_H
#define PV_POOL_POOL_H

#include "base/error.h"
#include "block/bdev.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct pv_pool_options {
	const char *state_dir; /* private directory; gets the empty, private pool cache file; no pool names in
				  it */
	uint64_t arc_max; /* bytes; 0 = the smaller of 1 GiB and an eighth of memory or of the cgroup's limit
			   */
	uint64_t dirty_max; /* bytes of dirty data; 0 = chosen from arc_max (at most 256 MiB) */
	bool read_only;     /* import nothing read-write (also set when the self-test fails) */
};

/*
 * Starts libzpool in this process: version of the library against the tested list, sizes of the replaced data
 * symbols, tunables, checksum implementations (SHA-NI, AVX2), kernel_init, then one small simulated pool in
 * memory on our vdev operations (about 50 ms). Call once, before any thread needs the pool. -ENOTSUP names
 * what does not match and the remedy. When only the self-test fails, 0: the reason is in the log and pools
 * open read-only.
 */
int pv_pool_start(const struct pv_pool_options *options, struct pv_error *err);
/* Exports what is still imported and ends libzpool. */
void pv_pool_stop(void);
/* Version string of the library in use, e.g. "2.3.2-2~bpo12+2". */
const char *pv_pool_libzpool_version(void);

/*
 * Registers a device under the path that the pool's labels carry (e.g. "/dev/mapper/pvol-T"): a vdev of that
 * path is served by `bdev` inside this process; any other path cannot be opened. `bdev` stays the caller's
 * and must live until pv_pool_unregister_device() (after export). Up to 64.
 */
int pv_pool_register_device(const char *path, struct pv_bdev *bdev, struct pv_error *err);
void pv_pool_unregister_device(const char *path);

struct pv_property {
	const char *name;
	const char *value;
};

struct pv_pool_create {
	const char *name;
	const char *const *devices; /* registered paths */
	unsigned ndevices;
	bool mirror;     /* one mirror of all devices; else each is a top-level vdev */
	unsigned ashift; /* 0 = 12 */
	const struct pv_property
		*pool_props; /* as `zpool create -o`; validated; compatibility=openzfs-2.1-linux default */
	unsigned npool_props;
	const struct pv_property
		*fs_props; /* as -O; added to design section 6's defaults, which they override */
	unsigned nfs_props;
	uid_t uid; /* owner of the root directory */
	gid_t gid;
};

/*
 * Makes the pool with vdev labels of type "disk" exactly as the kernel would, incl. the root file system's
 * ZPL structures, and leaves it imported. Nothing is left behind on failure. -EINVAL names a bad property or
 * name.
 */
int pv_pool_create(const struct pv_pool_create *params, struct pv_error *err);

struct pv_pool_import {
	const char *name;     /* NULL = the only pool found on the registered devices */
	const char *new_name; /* NULL = keep */
	const char *altroot;  /* NULL = none */
	bool read_only;
	bool force; /* although last used by another host */
};

/*
 * Reads the labels of the registered devices, assembles the configuration, imports. *ret_name (may be NULL)
 * gets the name; caller frees. -ENOENT no pool there, -EUCLEAN damaged (what and where), -EBUSY in use
 * elsewhere.
 */
int pv_pool_import(const struct pv_pool_import *params, char **ret_name, struct pv_error *err);

/* All file systems must be unmounted (zpl). `force` = as zpool export -f. */
int pv_pool_export(const char *name, bool force, struct pv_error *err);

/*
 * {"name","guid","state","health","size","allocated","free","last_txg","errors":n,"suspended":bool,
 *  "vdevs":[tree of {"type","path","state","read","write","checksum","children"}],
 *  "scan":{"function","state","start","end","examined","issued","to_examine","errors"}|absent,"ashift","version",
 *  "read_only":bool,"altroot"|absent}. health is ONLINE, DEGRADED, FAULTED, UNAVAIL or SUSPENDED.
 */
int pv_pool_status(const char *name, struct json_object **ret_status, struct pv_error *err);
/* Waits until all that was written is on disk (a transaction group). */
int pv_pool_sync(const char *name, struct pv_error *err);
/* Starts (or stops) a scrub; pv_pool_status shows it. */
int pv_pool_scrub(const char *name, bool stop, struct pv_error *err);
/* True while the pool is suspended on I/O failure. */
bool pv_pool_suspended(const char *name);
/* Clears errors and resumes a suspended pool. */
int pv_pool_clear(const char *name, struct pv_error *err);
/*
 * Gives all free space back to the devices below (discard); with `wait` returns when that is done, else at
 * once. -EOPNOTSUPP when no device can, -EBUSY when it is going on already.
 */
int pv_pool_trim(const char *name, bool wait, struct pv_error *err);
/* Reopens the vdev of a device that has grown (autoexpand). */
int pv_pool_device_grown(const char *path, struct pv_error *err);

/* ---- datasets ---- */

/*
 * File systems below and including `root`, in name order (parents first). The callback's non-zero result ends
 * the walk and is returned. Fields valid during the call only.
 */
struct pv_dataset_info {
	const char *name;
	bool is_volume;
	bool key_locked;       /* natively encrypted and its key is not loaded */
	int canmount;          /* 0 off, 1 on, 2 noauto */
	char mountpoint[1024]; /* a path (joined for inheritance, below the altroot), "legacy" or "none" */
	bool read_only;
	uint64_t used, available, referenced;
	uint64_t creation; /* seconds since the epoch */
};
int pv_dataset_walk(const char *root, int (*fn)(const struct pv_dataset_info *info, void *private),
	void *private, struct pv_error *err);

/* New file system with properties (as zfs create -o) and ZPL structures; root directory owned by uid:gid. */
int pv_dataset_create(const char *name, const struct pv_property *props, unsigned nprops, uid_t uid,
	gid_t gid, struct pv_error *err);
/* Of a file system without children or snapshots, unmounted; or of a snapshot. */
int pv_dataset_destroy(const char *name, struct pv_error *err);
/* Sizes and counts in decimal, words as zfs get has them, mountpoint as above; -ENOENT: no value. Snapshots
 * too. */
int pv_dataset_get(const char *name, const char *prop, char *ret_value, size_t size, struct pv_error *err);
/* Local value, in zfs set's notation (10G, lz4, none); NULL = inherit from the parent again. */
int pv_dataset_set(const char *name, const char *prop, const char *value, struct pv_error *err);

/* Snapshot of the dataset, with `recursive` of all below it in one transaction group. */
int pv_snapshot_create(const char *dataset, const char *snap, bool recursive, struct pv_error *err);
struct pv_snapshot_info {
	const char *name; /* after the @ */
	uint64_t objset;  /* its id: stable, unique in the pool */
	uint64_t used, referenced, creation, createtxg;
};
/* In order of creation. */
int pv_snapshot_walk(const char *dataset, int (*fn)(const struct pv_snapshot_info *info, void *private),
	void *private, struct pv_error *err);
/* Objset id of "DATASET@SNAP" quickly (for .zfs/snapshot lookups): 0 or -ENOENT. */
int pv_snapshot_lookup(const char *dataset, const char *snap, uint64_t *ret_objset, uint64_t *ret_creation);
/*
 * Rolls the dataset's head back to `snap`; later snapshots must not exist unless `destroy_later` (-EEXIST
 * names the newest). `owner` is the tag with which the mounted file system owns the dataset (NULL =
 * unmounted); the caller has suspended it (zpl_fs_suspend).
 */
int pv_snapshot_rollback(
	const char *dataset, const char *snap, bool destroy_later, void *owner, struct pv_error *err);

#endif
