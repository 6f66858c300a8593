/*
 * File systems of a pool: walking, making, destroying, their properties. Nothing here keeps a dataset held
 * beyond a call, and no callback is called with one held: libzpool must not wait for a transaction group
 * under such a hold.
 */
#include "pool/pool_int.h"

#include "pool/zpl_format.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <sys/dmu_objset.h>
#include <sys/dsl_dataset.h>
#include <sys/dsl_destroy.h>
#include <sys/dsl_pool.h>
#include <sys/fs/zfs.h>
#include <sys/acl.h>
#include <sys/zfs_acl.h>
#include <sys/zfs_znode.h>
#include <zfs_prop.h>

/* Temporary datasets (of a receive) and internal ones. */
static bool hidden(const char *name)
{
	return strchr(name, '$') || strchr(name, '%');
}

/* ---- reading properties ---- */

static int get_number(objset_t *os, const char *prop, uint64_t *ret_value)
{
	return dsl_prop_get_ds(dmu_objset_ds(os), prop, 8, 1, ret_value, NULL);
}

/*
 * A mount point as it is to be used: of an inherited one the path is continued by the rest of the dataset's
 * name, and the pool's alternate root comes first.
 */
static int get_mountpoint(objset_t *os, const char *name, char *value, size_t size)
{
	char *set = kmem_alloc(ZAP_MAXVALUELEN, KM_SLEEP);
	char *root = kmem_alloc(MAXPATHLEN, KM_SLEEP);
	char source[ZFS_MAX_DATASET_NAME_LEN] = "";
	const char *rest = "";
	int error;

	root[0] = '\0';
	error = dsl_prop_get_ds(dmu_objset_ds(os), "mountpoint", 1, ZAP_MAXVALUELEN, set, source);
	if (error == 0 && set[0] != '/') {
		strlcpy(value, set, size); /* none or legacy */
	} else if (error == 0) {
		size_t length = strlen(source);

		if (source[0] == '\0')
			rest = name;
		else if (strncmp(name, source, length) == 0 && name[length] == '/')
			rest = name + length + 1;
		spa_altroot(dmu_objset_spa(os), root, MAXPATHLEN);
		if (strcmp(root, "/") == 0)
			root[0] = '\0';
		if (strcmp(set, "/") == 0)
			set[0] = '\0';
		if ((size_t)snprintf(value, size, "%s%s%s%s", root, set, *rest ? "/" : "", rest) >= size)
			error = ENAMETOOLONG;
		else if (value[0] == '\0')
			strlcpy(value, "/", size);
	}
	kmem_free(set, ZAP_MAXVALUELEN);
	kmem_free(root, MAXPATHLEN);
	return error;
}

/* A number of dmu_objset_stats(), each of which is a list of its own with "value". */
static bool get_stat(nvlist_t *stats, const char *prop, uint64_t *ret_value)
{
	nvlist_t *entry;

	return nvlist_lookup_nvlist(stats, prop, &entry) == 0 &&
	       nvlist_lookup_uint64(entry, ZPROP_VALUE, ret_value) == 0;
}

static bool get_stat_text(nvlist_t *stats, const char *prop, const char **ret_value)
{
	nvlist_t *entry;

	return nvlist_lookup_nvlist(stats, prop, &entry) == 0 &&
	       nvlist_lookup_string(entry, ZPROP_VALUE, ret_value) == 0;
}

static int format_number(zfs_prop_t prop, uint64_t number, char *value, size_t size)
{
	const char *word;

	if (zfs_prop_get_type(prop) == PROP_TYPE_INDEX && zfs_prop_index_to_string(prop, number, &word) == 0)
		return (size_t)snprintf(value, size, "%s", word) < size ? 0 : ENAMETOOLONG;
	if ((prop == ZFS_PROP_FILESYSTEM_LIMIT || prop == ZFS_PROP_SNAPSHOT_LIMIT) && number == UINT64_MAX)
		return (size_t)snprintf(value, size, "none") < size ? 0 : ENAMETOOLONG;
	return (size_t)snprintf(value, size, "%llu", (unsigned long long)number) < size ? 0 : ENAMETOOLONG;
}

static int get_user(objset_t *os, const char *prop, char *value, size_t size)
{
	char *text = kmem_alloc(ZAP_MAXVALUELEN, KM_SLEEP);
	int error = dsl_prop_get_ds(dmu_objset_ds(os), prop, 1, ZAP_MAXVALUELEN, text, NULL);

	if (error == 0 && strlcpy(value, text, size) >= size)
		error = ENAMETOOLONG;
	kmem_free(text, ZAP_MAXVALUELEN);
	return error;
}

static int get_native(objset_t *os, const char *dataset, zfs_prop_t prop, char *value, size_t size)
{
	const char *name = zfs_prop_to_name(prop), *text;
	nvlist_t *stats = fnvlist_alloc();
	uint64_t number;
	int error = ENOENT;

	switch (prop) {
	case ZFS_PROP_MOUNTPOINT: error = get_mountpoint(os, dataset, value, size); goto out;
	case ZFS_PROP_NAME: error = strlcpy(value, dataset, size) < size ? 0 : ENAMETOOLONG; goto out;
	case ZFS_PROP_TYPE:
		text = dmu_objset_is_snapshot(os)            ? "snapshot"
		       : dmu_objset_type(os) == DMU_OST_ZVOL ? "volume"
							     : "filesystem";
		error = strlcpy(value, text, size) < size ? 0 : ENAMETOOLONG;
		goto out;
	case ZFS_PROP_VERSION:
	case ZFS_PROP_NORMALIZE:
	case ZFS_PROP_UTF8ONLY:
	case ZFS_PROP_CASE:
		error = dmu_objset_type(os) == DMU_OST_ZFS ? zfs_get_zplprop(os, prop, &number) : ENOENT;
		if (error == 0)
			error = format_number(prop, number, value, size);
		goto out;
	default: break;
	}
	dmu_objset_stats(os, stats);
	if (get_stat(stats, name, &number))
		error = format_number(prop, number, value, size);
	else if (get_stat_text(stats, name, &text))
		error = strlcpy(value, text, size) < size ? 0 : ENAMETOOLONG;
	else if (zfs_prop_readonly(prop))
		error = ENOENT;
	else if (zfs_prop_get_type(prop) == PROP_TYPE_STRING)
		error = get_user(os, name, value, size);
	else if ((error = get_number(os, name, &number)) == 0)
		error = format_number(prop, number, value, size);
out:
	nvlist_free(stats);
	return error;
}

/* A file system, volume or snapshot. */
static int check_any_name(const char *name, struct pv_error *err)
{
	char dataset[ZFS_MAX_DATASET_NAME_LEN];
	const char *snap = strchr(name, '@');
	int error;

	if (strlcpy(dataset, name, sizeof(dataset)) >= sizeof(dataset))
		return pv_fail(err, -ENAMETOOLONG, name, "the name is too long");
	dataset[strcspn(dataset, "@")] = '\0';
	error = pool_check_dataset_name(dataset, err);
	if (error == 0 && snap)
		error = pool_check_snapshot_part(snap + 1, err);
	return error;
}

int pv_dataset_get(const char *name, const char *prop, char *ret_value, size_t size, struct pv_error *err)
{
	zfs_prop_t number = zfs_name_to_prop(prop);
	pv_autofree char *value = malloc(size);
	objset_t *os;
	int error;

	if (!value)
		return pv_fail(err, -ENOMEM, name, "out of memory");
	if (number == ZPROP_USERPROP && !zfs_prop_user(prop))
		return pv_fail(err, -EINVAL, prop, "there is no such property");
	error = check_any_name(name, err);
	if (error < 0)
		return error;
	error = dmu_objset_hold(name, FTAG, &os);
	if (error)
		return pool_fail(err, error, name, "open the dataset");
	error = number == ZPROP_USERPROP ? get_user(os, prop, value, size)
					 : get_native(os, name, number, value, size);
	dmu_objset_rele(os, FTAG);
	if (error == ENOENT)
		return pv_fail(err, -ENOENT, name, "property %s has no value here", prop);
	if (error)
		return pool_fail(err, error, name, "read a property");
	memcpy(ret_value, value, strlen(value) + 1);
	return 0;
}

int pv_dataset_set(const char *name, const char *prop, const char *value, struct pv_error *err)
{
	struct pool_fs_props fs;
	spa_t *spa;
	int error = pool_check_dataset_name(name, err);

	if (error < 0)
		return error;
	pool_fs_props_init(&fs);
	/* Without a value: as the parent has it. The check of the name is that of a set. */
	if (value) {
		error = pool_fs_props_add(&fs, prop, value, false, err);
	} else if (zfs_name_to_prop(prop) == ZPROP_USERPROP ? !zfs_prop_user(prop)
							    : !zfs_prop_inheritable(zfs_name_to_prop(prop))) {
		error = pv_fail(err, -EINVAL, prop, "this property cannot be inherited");
	}
	if (error == 0)
		error = pool_open_writable(name, FTAG, &spa, err);
	if (error == 0) {
		if (!value) {
			error = dsl_prop_inherit(name, prop, ZPROP_SRC_INHERITED);
			if (error)
				error = pool_fail(err, error, name, "inherit a property");
		} else {
			error = pool_fs_props_check_features(&fs, spa, err);
			if (error == 0)
				error = pool_fs_props_apply(&fs, name, err);
		}
		spa_close(spa, FTAG);
	}
	pool_fs_props_fini(&fs);
	return error;
}

/* ---- walking ---- */

struct names {
	char **name;
	size_t count, room;
};

static int names_add(struct names *names, const char *name)
{
	if (names->count == names->room) {
		size_t room = names->room ? 2 * names->room : 16;
		char **grown = realloc(names->name, room * sizeof(*grown));

		if (!grown)
			return ENOMEM;
		names->name = grown;
		names->room = room;
	}
	names->name[names->count] = strdup(name);
	return names->name[names->count] ? (names->count++, 0) : ENOMEM;
}

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->name[i]);
	free(names->name);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the direct children, full and sorted. */
static int list_children(objset_t *os, const char *parent, struct names *names)
{
	char child[ZFS_MAX_DATASET_NAME_LEN];
	size_t length = strlen(parent);
	uint64_t cursor = 0;
	int error = 0;

	strlcpy(child, parent, sizeof(child));
	child[length++] = '/';
	while (error == 0 && length < sizeof(child) &&
		dmu_dir_list_next(os, (int)(sizeof(child) - length), child + length, NULL, &cursor) == 0) {
		if (!hidden(child))
			error = names_add(names, child);
	}
	if (names->count)
		qsort(names->name, names->count, sizeof(*names->name), compare_names);
	return error;
}

static void fill_info(objset_t *os, const char *name, struct pv_dataset_info *info)
{
	nvlist_t *stats = fnvlist_alloc();
	uint64_t number = 0;

	info->name = name;
	info->is_volume = dmu_objset_type(os) == DMU_OST_ZVOL;
	dmu_objset_stats(os, stats);
	info->key_locked = get_stat(stats, "keystatus", &number) && number == ZFS_KEYSTATUS_UNAVAILABLE;
	(void)get_stat(stats, "used", &info->used);
	(void)get_stat(stats, "available", &info->available);
	(void)get_stat(stats, "referenced", &info->referenced);
	(void)get_stat(stats, "creation", &info->creation);
	nvlist_free(stats);
	number = ZFS_CANMOUNT_ON;
	if (!info->is_volume)
		(void)get_number(os, "canmount", &number);
	info->canmount = info->is_volume ? 0 : (int)number;
	if (get_number(os, "readonly", &number) == 0)
		info->read_only = number != 0;
	if (info->is_volume || get_mountpoint(os, name, info->mountpoint, sizeof(info->mountpoint)) != 0)
		strlcpy(info->mountpoint, "none", sizeof(info->mountpoint));
}

struct walk {
	int (*fn)(const struct pv_dataset_info *info, void *private);
	void *private;
	int stopped; /* result of the callback */
};

static int walk_one(const char *name, struct walk *walk)
{
	struct pv_dataset_info *info = calloc(1, sizeof(*info));
	struct names names = {0};
	objset_t *os;
	int error = info ? dmu_objset_hold(name, FTAG, &os) : ENOMEM;

	if (error == 0) {
		fill_info(os, name, info);
		if (!info->is_volume)
			error = list_children(os, name, &names);
		dmu_objset_rele(os, FTAG);
	}
	if (error == 0)
		walk->stopped = walk->fn(info, walk->private);
	free(info);
	for (size_t i = 0; error == 0 && walk->stopped == 0 && i < names.count; i++) {
		error = walk_one(names.name[i], walk);
		if (error == ENOENT) /* destroyed meanwhile */
			error = 0;
	}
	names_free(&names);
	return error;
}

int pv_dataset_walk(const char *root, int (*fn)(const struct pv_dataset_info *info, void *private),
	void *private, struct pv_error *err)
{
	struct walk walk = {.fn = fn, .private = private};
	spa_t *spa;
	int error = pool_check_dataset_name(root, err);

	if (error == 0)
		error = pool_open(root, FTAG, &spa, err);
	if (error < 0)
		return error;
	error = walk_one(root, &walk);
	spa_close(spa, FTAG);
	return error ? pool_fail(err, error, root, "list the file systems") : walk.stopped;
}

/* ---- making and destroying ---- */

/* What a new file system takes over from its parent, unless it is given. */
static int inherit_zpl(const char *name, struct pool_zpl_props *zpl)
{
	char parent[ZFS_MAX_DATASET_NAME_LEN];
	objset_t *os;
	int error;

	strlcpy(parent, name, sizeof(parent));
	*strrchr(parent, '/') = '\0';
	error = dmu_objset_hold(parent, FTAG, &os);
	if (error)
		return error;
	if (dmu_objset_type(os) != DMU_OST_ZFS)
		error = ZFS_ERR_WRONG_PARENT;
	if (error == 0 && zpl->normalization == UINT64_MAX)
		error = zfs_get_zplprop(os, ZFS_PROP_NORMALIZE, &zpl->normalization);
	if (error == 0 && zpl->utf8only == UINT64_MAX)
		error = zfs_get_zplprop(os, ZFS_PROP_UTF8ONLY, &zpl->utf8only);
	if (error == 0 && zpl->casesensitivity == UINT64_MAX)
		error = zfs_get_zplprop(os, ZFS_PROP_CASE, &zpl->casesensitivity);
	dmu_objset_rele(os, FTAG);
	return error;
}

static int create_parsed(
	const char *name, struct pool_fs_props *fs, uid_t uid, gid_t gid, struct pv_error *err)
{
	struct zpl_create_args args = {.version = ZPL_VERSION, .uid = uid, .gid = gid, .mode = 0755};
	int error = inherit_zpl(name, &fs->zpl);

	if (error == ENOENT)
		return pv_fail(err, -ENOENT, name, "its parent does not exist");
	if (error)
		return pool_fail(err, error, name, "create the file system");
	args.normalization = fs->zpl.normalization;
	args.utf8only = fs->zpl.utf8only || fs->zpl.normalization != 0;
	args.casesensitivity = fs->zpl.casesensitivity;
	error = dmu_objset_create(name, DMU_OST_ZFS, args.casesensitivity ? DS_FLAG_CI_DATASET : 0, NULL,
		zpl_create_objset, &args);
	if (error)
		return pool_fail(err, error, name, "create the file system");
	error = pool_fs_props_apply(fs, name, err);
	if (error < 0) {
		int undone = dsl_destroy_head(name);

		if (undone)
			pv_log(PV_LOG_ERROR, "pool: a half-made file system could not be destroyed (%d)",
				undone);
	}
	return error;
}

int pv_dataset_create(const char *name, const struct pv_property *props, unsigned nprops, uid_t uid,
	gid_t gid, struct pv_error *err)
{
	struct pool_fs_props fs;
	spa_t *spa;
	int error = pool_check_dataset_name(name, err);

	if (error < 0)
		return error;
	if (!strchr(name, '/'))
		return pv_fail(err, -EINVAL, name, "a file system's name is POOL/NAME");
	error = pool_open_writable(name, FTAG, &spa, err);
	if (error < 0)
		return error;
	pool_fs_props_init(&fs);
	for (unsigned i = 0; error == 0 && i < nprops; i++)
		error = pool_fs_props_add(&fs, props[i].name, props[i].value, true, err);
	if (error == 0)
		error = pool_fs_props_check_features(&fs, spa, err);
	if (error == 0)
		error = create_parsed(name, &fs, uid, gid, err);
	pool_fs_props_fini(&fs);
	spa_close(spa, FTAG);
	return error;
}

/* Why a head cannot be destroyed: libzpool says EBUSY or EEXIST to several things. */
static int fail_destroy(const char *name, int zerror, struct pv_error *err)
{
	char snap[ZFS_MAX_DATASET_NAME_LEN];
	uint64_t cursor = 0;
	bool snapshots = false;
	objset_t *os;

	if (zerror == EEXIST)
		return pv_fail_as(
			err, -EEXIST, PV_EXIT_BUSY, name, "there are file systems below it or clones of it");
	if (zerror == EBUSY && !strchr(name, '@') && dmu_objset_hold(name, FTAG, &os) == 0) {
		snapshots = dmu_snapshot_list_next(os, sizeof(snap), snap, NULL, &cursor, NULL) == 0;
		dmu_objset_rele(os, FTAG);
	}
	if (snapshots)
		return pv_fail_as(err, -EBUSY, PV_EXIT_BUSY, name, "it has snapshots");
	return pool_fail(err, zerror, name, "destroy it");
}

int pv_dataset_destroy(const char *name, struct pv_error *err)
{
	char dataset[ZFS_MAX_DATASET_NAME_LEN];
	const char *snap = strchr(name, '@');
	spa_t *spa;
	int error;

	error = check_any_name(name, err);
	if (error < 0)
		return error;
	strlcpy(dataset, name, sizeof(dataset));
	dataset[strcspn(dataset, "@")] = '\0';
	if (!strchr(name, '/') && !snap)
		return pv_fail(err, -EINVAL, name, "a pool's root file system cannot be destroyed");
	error = pool_open_writable(name, FTAG, &spa, err);
	if (error < 0)
		return error;
	if (!snap)
		error = dsl_destroy_head(name);
	else if (pv_snapshot_lookup(dataset, snap + 1, NULL, NULL) < 0)
		error = ENOENT; /* to libzpool this is success */
	else
		error = dsl_destroy_snapshot(name, B_FALSE);
	spa_close(spa, FTAG);
	return error ? fail_destroy(name, error, err) : 0;
}
