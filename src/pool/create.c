/*
 * Making a pool. In user space spa_create() leaves the root dataset an empty objset; the kernel would fill it
 * in the same breath. Here it is filled in a transaction of its own right afterwards, so that a pool is
 * complete when pv_pool_create() returns; a failure in between destroys it.
 */
#include "pool/pool_int.h"

#include "pool/zpl_format.h"

#include "base/log.h"

#include <sys/dmu_objset.h>
#include <sys/dmu_tx.h>
#include <sys/dsl_pool.h>
#include <sys/txg.h>
#include <sys/vdev_impl.h>

/* What a guest pool is made for: strong checksums, few metadata surprises, readable by every OpenZFS
 * since 2.1. */
static const struct pv_property fs_defaults[] = {
	{"checksum", "sha256"},
	{"compression", "lz4"},
	{"xattr", "sa"},
	{"acltype", "posix"},
	{"atime", "on"},
	{"relatime", "on"},
	{"dnodesize", "auto"},
};

static nvlist_t *leaf(const char *path, unsigned ashift)
{
	nvlist_t *vdev = fnvlist_alloc();

	fnvlist_add_string(vdev, ZPOOL_CONFIG_TYPE, VDEV_TYPE_DISK);
	fnvlist_add_string(vdev, ZPOOL_CONFIG_PATH, path);
	/* Not a partitioned disk of its own: the path is the vdev. */
	fnvlist_add_uint64(vdev, ZPOOL_CONFIG_WHOLE_DISK, 0);
	fnvlist_add_uint64(vdev, ZPOOL_CONFIG_IS_LOG, 0);
	fnvlist_add_uint64(vdev, ZPOOL_CONFIG_ASHIFT, ashift);
	return vdev;
}

static nvlist_t *build_tree(const struct pv_pool_create *p, unsigned ashift)
{
	nvlist_t *root = fnvlist_alloc();
	nvlist_t *leaves[POOL_DEVICES_MAX];

	for (unsigned i = 0; i < p->ndevices; i++)
		leaves[i] = leaf(p->devices[i], ashift);
	fnvlist_add_string(root, ZPOOL_CONFIG_TYPE, VDEV_TYPE_ROOT);
	if (p->mirror && p->ndevices > 1) {
		nvlist_t *mirror = fnvlist_alloc();

		fnvlist_add_string(mirror, ZPOOL_CONFIG_TYPE, VDEV_TYPE_MIRROR);
		fnvlist_add_uint64(mirror, ZPOOL_CONFIG_IS_LOG, 0);
		fnvlist_add_uint64(mirror, ZPOOL_CONFIG_ASHIFT, ashift);
		fnvlist_add_nvlist_array(
			mirror, ZPOOL_CONFIG_CHILDREN, (const nvlist_t **)leaves, p->ndevices);
		fnvlist_add_nvlist_array(root, ZPOOL_CONFIG_CHILDREN, (const nvlist_t **)&mirror, 1);
		fnvlist_free(mirror);
	} else {
		fnvlist_add_nvlist_array(root, ZPOOL_CONFIG_CHILDREN, (const nvlist_t **)leaves, p->ndevices);
	}
	for (unsigned i = 0; i < p->ndevices; i++)
		fnvlist_free(leaves[i]);
	return root;
}

static int check_devices(const struct pv_pool_create *p, unsigned ashift, struct pv_error *err)
{
	if (p->ndevices == 0 || p->ndevices > POOL_DEVICES_MAX)
		return pv_fail(err, -EINVAL, p->name, "a pool needs 1 to %d devices", POOL_DEVICES_MAX);
	if (ashift < ASHIFT_MIN || ashift > ASHIFT_MAX)
		return pv_fail(
			err, -EINVAL, p->name, "ashift must be between %d and %d", ASHIFT_MIN, ASHIFT_MAX);
	for (unsigned i = 0; i < p->ndevices; i++) {
		if (!pool_device_exists(p->devices[i]))
			return pv_fail(err, -ENOENT, p->devices[i], "no such device has been registered");
		for (unsigned j = 0; j < i; j++) {
			if (strcmp(p->devices[i], p->devices[j]) == 0)
				return pv_fail(err, -EINVAL, p->devices[i], "the device is given twice");
		}
	}
	return 0;
}

/* The holds are those that zpl_create_objset() names. */
static int fill_root(const char *name, struct zpl_create_args *args, struct pv_error *err)
{
	objset_t *os;
	dmu_tx_t *tx;
	int error;

	error = dmu_objset_own(name, DMU_OST_ZFS, B_FALSE, B_FALSE, FTAG, &os);
	if (error)
		return pool_fail(err, error, name, "open the pool's root file system");
	tx = dmu_tx_create(os);
	for (int i = 0; i < 8; i++)
		dmu_tx_hold_zap(tx, DMU_NEW_OBJECT, TRUE, NULL);
	dmu_tx_hold_bonus(tx, DMU_NEW_OBJECT);
	error = dmu_tx_assign(tx, DMU_TX_WAIT);
	if (error) {
		dmu_tx_abort(tx);
		error = pool_fail(err, error, name, "write the pool's root file system");
	} else {
		zpl_create_objset(os, args, NULL, tx);
		dmu_tx_commit(tx);
		txg_wait_synced(dmu_objset_pool(os), 0);
	}
	dmu_objset_disown(os, B_FALSE, FTAG);
	return error;
}

static void or_default(uint64_t *value, uint64_t otherwise)
{
	if (*value == UINT64_MAX)
		*value = otherwise;
}

static int make_root(const struct pv_pool_create *p, struct pool_fs_props *fs, struct pv_error *err)
{
	struct zpl_create_args args;
	spa_t *spa;
	int error;

	or_default(&fs->zpl.version, ZPL_VERSION);
	or_default(&fs->zpl.normalization, 0);
	or_default(&fs->zpl.utf8only, fs->zpl.normalization != 0);
	or_default(&fs->zpl.casesensitivity, POOL_CASE_SENSITIVE);
	args = (struct zpl_create_args){.version = fs->zpl.version,
		.normalization = fs->zpl.normalization,
		.utf8only = fs->zpl.utf8only || fs->zpl.normalization != 0,
		.casesensitivity = fs->zpl.casesensitivity,
		.uid = p->uid,
		.gid = p->gid,
		.mode = 0755};
	error = pool_open(p->name, FTAG, &spa, err);
	if (error < 0)
		return error;
	error = pool_fs_props_check_features(fs, spa, err);
	spa_close(spa, FTAG);
	if (error == 0)
		error = pool_fs_props_apply(fs, p->name, err);
	if (error == 0)
		error = fill_root(p->name, &args, err);
	return error;
}

static int parse_fs_props(const struct pv_pool_create *p, struct pool_fs_props *fs, struct pv_error *err)
{
	int error = 0;

	for (size_t i = 0; error == 0 && i < sizeof(fs_defaults) / sizeof(fs_defaults[0]); i++)
		error = pool_fs_props_add(fs, fs_defaults[i].name, fs_defaults[i].value, true, err);
	for (unsigned i = 0; error == 0 && i < p->nfs_props; i++)
		error = pool_fs_props_add(fs, p->fs_props[i].name, p->fs_props[i].value, true, err);
	return error;
}

static int create_parsed(const struct pv_pool_create *p, struct pool_create_props *props,
	struct pool_fs_props *fs, struct pv_error *err)
{
	unsigned ashift = p->ashift ? p->ashift : props->ashift ? props->ashift : 12;
	nvlist_t *tree;
	int error = check_devices(p, ashift, err);

	if (error < 0)
		return error;
	/* Kept as a property too: devices that are added later get the same. */
	fnvlist_add_uint64(props->props, zpool_prop_to_name(ZPOOL_PROP_ASHIFT), ashift);
	tree = build_tree(p, ashift);
	error = spa_create(p->name, tree, props->props, NULL, NULL);
	fnvlist_free(tree);
	if (error == EEXIST)
		return pv_fail(err, -EEXIST, p->name, "a pool of this name is imported already");
	if (error)
		return pool_fail(err, error, p->name, "create the pool");
	error = make_root(p, fs, err);
	if (error < 0) {
		int undone = spa_destroy(p->name);

		if (undone)
			pv_log(PV_LOG_ERROR, "pool: a half-made pool could not be destroyed (%d)", undone);
	}
	return error;
}

int pv_pool_create(const struct pv_pool_create *params, struct pv_error *err)
{
	struct pool_create_props props = {0};
	struct pool_fs_props fs;
	int error;

	if (!pool_started() || pool_only_reads())
		return pv_fail(err, -EROFS, params->name,
			"no pool can be made: OpenZFS was started for reading only, see the log");
	error = pool_check_pool_name(params->name, err);
	if (error < 0)
		return error;
	pool_fs_props_init(&fs);
	error = parse_fs_props(params, &fs, err);
	if (error == 0)
		error = pool_props_parse(params->pool_props, params->npool_props, &props, err);
	if (error == 0)
		error = create_parsed(params, &props, &fs, err);
	nvlist_free(props.props);
	pool_fs_props_fini(&fs);
	return error;
}
