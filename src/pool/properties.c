/*
 * Properties from text, as zpool create -o/-O and zfs set take them: libzpool has the tables of names and
 * values, but the parsing lives in a library that talks to a kernel. Values are checked here completely,
 * because below this point libzpool asserts rather than refuses.
 *
 * Pool properties only matter at creation; dataset properties come in three kinds: plain ones (DSL
 * properties), those with a call of their own (quotas, reservations), and those that exist only while a file
 * system is made.
 */
#include "pool/pool_int.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <sys/dmu_objset.h>
#include <sys/dsl_dataset.h>
#include <sys/dsl_dir.h>
#include <sys/zfeature.h>
#include <sys/fs/zfs.h>
#include <sys/zap.h>
#include <sys/zio_checksum.h>
#include <sys/zio_compress.h>
#include <zfeature_common.h>
#include <zfs_namecheck.h>
#include <zfs_prop.h>

/*
 * The feature set "openzfs-2.1-linux": what every OpenZFS since 2.1 can write. Kept here rather than read
 * from the file of that name, so that a pool does not depend on which packages are installed.
 */
#define COMPATIBILITY "openzfs-2.1-linux"
static const char *const features_2_1[] = {"allocation_classes", "async_destroy", "bookmark_v2",
	"bookmark_written", "bookmarks", "device_rebuild", "device_removal", "draid", "edonr",
	"embedded_data", "empty_bpobj", "enabled_txg", "encryption", "extensible_dataset",
	"filesystem_limits", "hole_birth", "large_blocks", "large_dnode", "livelist", "log_spacemap",
	"lz4_compress", "multi_vdev_crash_dump", "obsolete_counts", "project_quota", "redacted_datasets",
	"redaction_bookmarks", "resilver_defer", "sha512", "skein", "spacemap_histogram", "spacemap_v2",
	"userobj_accounting", "zpool_checkpoint", "zstd_compress"};

/* "10G", "1.5T", "512", "128K", "64KiB". False if it is none or does not fit. */
static bool parse_size(const char *text, uint64_t *ret_value)
{
	static const char units[] = "BKMGTPE";
	const char *unit = "";
	char *end;
	int shift = 0;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	*ret_value = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end == '.') {
		/* A fraction is exact only in so far as a double is: as the zfs command has it. */
		double value = strtod(text, &end);

		unit = *end ? strchr(units, toupper((unsigned char)*end)) : "";
		if (!unit || !*unit)
			return false;
		shift = (int)(unit - units) * 10;
		value *= (double)(1ULL << shift);
		if (!(value >= 0 && value < 18446744073709551615.0))
			return false;
		*ret_value = (uint64_t)value;
	} else if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || !*unit)
			return false;
		shift = (int)(unit - units) * 10;
		if (shift && *ret_value >> (64 - shift))
			return false;
		*ret_value <<= shift;
	}
	if (!*end)
		return true;
	end++;
	if (shift && *end == 'i')
		end++;
	if (shift && toupper((unsigned char)*end) == 'B')
		end++;
	return *end == '\0';
}

static bool power_of_two(uint64_t value)
{
	return value && (value & (value - 1)) == 0;
}

/* ---- pools ---- */

static void set_feature(nvlist_t *props, const char *feature, bool enabled)
{
	char name[128];

	snprintf(name, sizeof(name), "feature@%s", feature);
	if (enabled)
		fnvlist_add_uint64(props, name, 0);
	else
		(void)nvlist_remove_all(props, name);
}

static void set_all_features(nvlist_t *props, bool enabled)
{
	for (int f = 0; f < SPA_FEATURES; f++) {
		if (spa_feature_table[f].fi_zfs_mod_supported)
			set_feature(props, spa_feature_table[f].fi_uname, enabled);
	}
}

/* A named feature set of the system: one name a line, '#' begins a comment. */
static int read_feature_set(const char *set, nvlist_t *props, struct pv_error *err)
{
	static const char *const dirs[] = {"/etc/zfs/compatibility.d", "/usr/share/zfs/compatibility.d"};
	pv_autofclose FILE *file = NULL;
	char path[512], line[512];

	if (strchr(set, '/') || set[0] == '.' || strchr(set, ','))
		return pv_fail(err, -EINVAL, "compatibility", "\"%s\" is not the name of a feature set", set);
	for (size_t i = 0; !file && i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dirs[i], set);
		file = fopen(path, "re");
	}
	if (!file)
		return pv_fail(err, -ENOENT, "compatibility", "there is no feature set \"%s\"", set);
	while (fgets(line, sizeof(line), file)) {
		char *save = NULL;

		line[strcspn(line, "#\n")] = '\0';
		for (char *name = strtok_r(line, " \t,", &save); name; name = strtok_r(NULL, " \t,", &save)) {
			if (zfeature_lookup_name(name, NULL) != 0)
				return pv_fail(err, -ENOTSUP, "compatibility",
					"feature set \"%s\" has feature \"%s\", which this OpenZFS lacks",
					set, name);
			set_feature(props, name, true);
		}
	}
	return 0;
}

static int set_compatibility(nvlist_t *props, const char *set, struct pv_error *err)
{
	set_all_features(props, false);
	if (strcmp(set, COMPATIBILITY) == 0) {
		for (size_t i = 0; i < sizeof(features_2_1) / sizeof(features_2_1[0]); i++)
			set_feature(props, features_2_1[i], true);
	} else if (strcmp(set, "off") == 0) {
		set_all_features(props, true);
	} else if (strcmp(set, "legacy") == 0) {
		return pv_fail(err, -EINVAL, "compatibility", "pools without features are not made any more");
	} else {
		int error = read_feature_set(set, props, err);

		if (error < 0)
			return error;
	}
	fnvlist_add_string(props, zpool_prop_to_name(ZPOOL_PROP_COMPATIBILITY), set);
	return 0;
}

static int parse_feature(nvlist_t *props, const struct pv_property *p, struct pv_error *err)
{
	const char *feature = strchr(p->name, '@') + 1;

	if (zfeature_lookup_name(feature, NULL) != 0)
		return pv_fail(err, -EINVAL, p->name, "this OpenZFS has no such feature");
	if (strcmp(p->value, "enabled") != 0 && strcmp(p->value, "disabled") != 0)
		return pv_fail(err, -EINVAL, p->name, "its value must be \"enabled\" or \"disabled\"");
	set_feature(props, feature, strcmp(p->value, "enabled") == 0);
	return 0;
}

static int parse_user(nvlist_t *props, const char *name, const char *value, struct pv_error *err)
{
	if (strlen(name) >= ZAP_MAXNAMELEN)
		return pv_fail(err, -ENAMETOOLONG, name, "the property's name is too long");
	if (strlen(value) >= ZAP_MAXVALUELEN)
		return pv_fail(err, -E2BIG, name, "the property's value is too long");
	fnvlist_add_string(props, name, value);
	return 0;
}

static int parse_comment(nvlist_t *props, const char *name, const char *value, struct pv_error *err)
{
	for (const char *c = value; *c; c++) {
		if (!isprint((unsigned char)*c))
			return pv_fail(err, -EINVAL, name, "it can only have printable ASCII characters");
	}
	if (strlen(value) > ZPROP_MAX_COMMENT)
		return pv_fail(err, -E2BIG, name, "it is longer than %d characters", ZPROP_MAX_COMMENT);
	fnvlist_add_string(props, name, value);
	return 0;
}

static int parse_pool_prop(struct pool_create_props *ret, const struct pv_property *p, struct pv_error *err)
{
	zpool_prop_t prop = zpool_name_to_prop(p->name);
	uint64_t value;

	switch (prop) {
	case ZPOOL_PROP_ASHIFT:
		if (!parse_size(p->value, &value) || value < ASHIFT_MIN || value > ASHIFT_MAX)
			return pv_fail(err, -EINVAL, p->name, "it must be between %d and %d", ASHIFT_MIN,
				ASHIFT_MAX);
		ret->ashift = (unsigned)value;
		return 0;
	case ZPOOL_PROP_COMPATIBILITY: return 0; /* first of all, see pool_props_parse() */
	case ZPOOL_PROP_COMMENT: return parse_comment(ret->props, p->name, p->value, err);
	case ZPOOL_PROP_ALTROOT:
		if (p->value[0] != '/')
			return pv_fail(err, -EINVAL, p->name, "it must be an absolute path");
		fnvlist_add_string(ret->props, p->name, p->value);
		return 0;
	case ZPOOL_PROP_CACHEFILE:
		if (strcmp(p->value, "none") != 0)
			return pv_fail(err, -EINVAL, p->name,
				"only \"none\" is possible: volumes keep no pool cache");
		return 0;
	case ZPOOL_PROP_AUTOEXPAND:
	case ZPOOL_PROP_AUTOREPLACE:
	case ZPOOL_PROP_AUTOTRIM:
	case ZPOOL_PROP_DELEGATION:
	case ZPOOL_PROP_FAILUREMODE:
	case ZPOOL_PROP_LISTSNAPS:
	case ZPOOL_PROP_MULTIHOST:
		if (zpool_prop_string_to_index(prop, p->value, &value) != 0)
			return pv_fail(err, -EINVAL, p->name, "\"%s\" is not one of: %s", p->value,
				zprop_values(prop, ZFS_TYPE_POOL));
		fnvlist_add_uint64(ret->props, zpool_prop_to_name(prop), value);
		return 0;
	case ZPOOL_PROP_INVAL:
		if (zpool_prop_feature(p->name))
			return parse_feature(ret->props, p, err);
		if (zfs_prop_user(p->name))
			return parse_user(ret->props, p->name, p->value, err);
		return pv_fail(err, -EINVAL, p->name, "there is no such pool property");
	default: return pv_fail(err, -EINVAL, p->name, "this pool property cannot be set at creation");
	}
}

int pool_props_parse(
	const struct pv_property *props, unsigned nprops, struct pool_create_props *ret, struct pv_error *err)
{
	const char *set = COMPATIBILITY;
	int error;

	*ret = (struct pool_create_props){.props = fnvlist_alloc()};
	for (unsigned i = 0; i < nprops; i++) {
		if (zpool_name_to_prop(props[i].name) == ZPOOL_PROP_COMPATIBILITY)
			set = props[i].value;
	}
	error = set_compatibility(ret->props, set, err);
	for (unsigned i = 0; error == 0 && i < nprops; i++)
		error = parse_pool_prop(ret, &props[i], err);
	fnvlist_add_string(ret->props, zpool_prop_to_name(ZPOOL_PROP_CACHEFILE), "none");
	return error;
}

/* ---- datasets ---- */

void pool_fs_props_init(struct pool_fs_props *fs)
{
	fs->plain = fnvlist_alloc();
	fs->special = fnvlist_alloc();
	fs->zpl = (struct pool_zpl_props){UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
}

void pool_fs_props_fini(struct pool_fs_props *fs)
{
	nvlist_free(fs->plain);
	nvlist_free(fs->special);
	fs->plain = fs->special = NULL;
}

static int parse_mountpoint(struct pool_fs_props *fs, const char *value, struct pv_error *err)
{
	namecheck_err_t why;

	if (strcmp(value, "none") != 0 && strcmp(value, "legacy") != 0 &&
		(strlen(value) >= MAXPATHLEN || mountpoint_namecheck(value, &why) != 0))
		return pv_fail(err, -EINVAL, "mountpoint",
			"\"%s\" is neither an absolute path nor legacy or none", value);
	fnvlist_add_string(fs->plain, "mountpoint", value);
	return 0;
}

static int parse_number(struct pool_fs_props *fs, zfs_prop_t prop, const char *text, struct pv_error *err)
{
	const char *name = zfs_prop_to_name(prop);
	bool none = strcmp(text, "none") == 0;
	uint64_t value = 0;

	if (!none && !parse_size(text, &value))
		return pv_fail(err, -EINVAL, name, "\"%s\" is not a size (examples: 512M, 10G, 1.5T)", text);
	switch (prop) {
	case ZFS_PROP_QUOTA:
	case ZFS_PROP_REFQUOTA:
	case ZFS_PROP_RESERVATION:
	case ZFS_PROP_REFRESERVATION: fnvlist_add_uint64(fs->special, name, value); return 0;
	case ZFS_PROP_FILESYSTEM_LIMIT:
	case ZFS_PROP_SNAPSHOT_LIMIT:
		fnvlist_add_uint64(fs->plain, name, none ? UINT64_MAX : value);
		return 0;
	case ZFS_PROP_RECORDSIZE:
		if (none || value < SPA_MINBLOCKSIZE || value > SPA_MAXBLOCKSIZE || !power_of_two(value))
			return pv_fail(err, -EINVAL, name, "it must be a power of two between 512 and 16M");
		break;
	case ZFS_PROP_SPECIAL_SMALL_BLOCKS:
		if (value && (value < SPA_MINBLOCKSIZE || value > SPA_MAXBLOCKSIZE || !power_of_two(value)))
			return pv_fail(
				err, -EINVAL, name, "it must be 0 or a power of two between 512 and 16M");
		break;
	default: return pv_fail(err, -EINVAL, name, "this property cannot be set");
	}
	fnvlist_add_uint64(fs->plain, name, value);
	return 0;
}

static int parse_index(
	struct pool_fs_props *fs, zfs_prop_t prop, const char *text, bool creating, struct pv_error *err)
{
	const char *name = zfs_prop_to_name(prop);
	uint64_t value, *zpl = NULL;

	if (zfs_prop_string_to_index(prop, text, &value) != 0)
		return pv_fail(err, -EINVAL, name, "\"%s\" is not one of: %s", text,
			zprop_values(prop, ZFS_TYPE_FILESYSTEM));
	switch (prop) {
	case ZFS_PROP_VERSION: zpl = &fs->zpl.version; break;
	case ZFS_PROP_NORMALIZE: zpl = &fs->zpl.normalization; break;
	case ZFS_PROP_UTF8ONLY: zpl = &fs->zpl.utf8only; break;
	case ZFS_PROP_CASE: zpl = &fs->zpl.casesensitivity; break;
	default: break;
	}
	if (zpl && !creating)
		return pv_fail(err, -EINVAL, name, "it can only be chosen when the file system is made");
	if (prop == ZFS_PROP_VERSION && value != ZPL_VERSION)
		return pv_fail(err, -ENOTSUP, name, "file systems are made with version %llu only",
			(unsigned long long)ZPL_VERSION);
	if (prop == ZFS_PROP_CASE && value != POOL_CASE_SENSITIVE)
		return pv_fail(err, -ENOTSUP, name, "only \"sensitive\" is supported here");
	if (zpl)
		*zpl = value;
	else
		fnvlist_add_uint64(fs->plain, name, value);
	return 0;
}

int pool_fs_props_add(
	struct pool_fs_props *fs, const char *name, const char *value, bool creating, struct pv_error *err)
{
	zfs_prop_t prop = zfs_name_to_prop(name);

	if (prop == ZPROP_USERPROP) {
		if (zfs_prop_user(name))
			return parse_user(fs->plain, name, value, err);
		if (zfs_prop_userquota(name))
			return pv_fail(
				err, -ENOTSUP, name, "quotas of users and groups are set with zfs set");
		return pv_fail(err, -EINVAL, name, "there is no such property");
	}
	if (zfs_prop_readonly(prop) && !zfs_prop_setonce(prop))
		return pv_fail(err, -EINVAL, name, "this property is read-only");
	if (!zfs_prop_valid_for_type(prop, ZFS_TYPE_FILESYSTEM, B_FALSE))
		return pv_fail(err, -EINVAL, name, "this property does not apply to file systems");
	switch (prop) {
	case ZFS_PROP_ENCRYPTION:
	case ZFS_PROP_KEYFORMAT:
	case ZFS_PROP_KEYLOCATION:
	case ZFS_PROP_PBKDF2_ITERS:
	case ZFS_PROP_PBKDF2_SALT:
		return pv_fail(err, -ENOTSUP, name,
			"encryption of single datasets is set up with zfs create -o encryption=...");
	case ZFS_PROP_MOUNTPOINT: return parse_mountpoint(fs, value, err);
	default: break;
	}
	switch (zfs_prop_get_type(prop)) {
	case PROP_TYPE_INDEX: return parse_index(fs, prop, value, creating, err);
	case PROP_TYPE_NUMBER: return parse_number(fs, prop, value, err);
	default: return parse_user(fs->plain, zfs_prop_to_name(prop), value, err);
	}
}

static int check_feature(spa_t *spa, spa_feature_t feature, const char *prop, struct pv_error *err)
{
	if (feature == SPA_FEATURE_NONE || spa_feature_is_enabled(spa, feature))
		return 0;
	return pv_fail(err, -ENOTSUP, prop, "this value needs the pool feature \"%s\", which is not enabled",
		spa_feature_table[feature].fi_uname);
}

int pool_fs_props_check_features(const struct pool_fs_props *fs, spa_t *spa, struct pv_error *err)
{
	uint64_t value;
	int error = 0;

	if (nvlist_lookup_uint64(fs->plain, "checksum", &value) == 0)
		error = check_feature(
			spa, zio_checksum_to_feature((enum zio_checksum)value), "checksum", err);
	if (error == 0 && nvlist_lookup_uint64(fs->plain, "dedup", &value) == 0)
		error = check_feature(spa,
			zio_checksum_to_feature((enum zio_checksum)(value & ZIO_CHECKSUM_MASK)), "dedup",
			err);
	if (error == 0 && nvlist_lookup_uint64(fs->plain, "compression", &value) == 0)
		error = check_feature(spa,
			zio_compress_to_feature((enum zio_compress)ZIO_COMPRESS_ALGO(value)), "compression",
			err);
	if (error == 0 && nvlist_lookup_uint64(fs->plain, "recordsize", &value) == 0 &&
		value > SPA_OLD_MAXBLOCKSIZE)
		error = check_feature(spa, SPA_FEATURE_LARGE_BLOCKS, "recordsize", err);
	if (error == 0 && nvlist_lookup_uint64(fs->plain, "dnodesize", &value) == 0 &&
		value != ZFS_DNSIZE_LEGACY)
		error = check_feature(spa, SPA_FEATURE_LARGE_DNODE, "dnodesize", err);
	if (error == 0 && nvlist_lookup_uint64(fs->plain, "longname", &value) == 0 && value)
		error = check_feature(spa, SPA_FEATURE_LONGNAME, "longname", err);
	return error;
}

static int apply_special(const char *dataset, const char *name, uint64_t value)
{
	switch (zfs_name_to_prop(name)) {
	case ZFS_PROP_QUOTA: return dsl_dir_set_quota(dataset, ZPROP_SRC_LOCAL, value);
	case ZFS_PROP_RESERVATION: return dsl_dir_set_reservation(dataset, ZPROP_SRC_LOCAL, value);
	case ZFS_PROP_REFQUOTA: return dsl_dataset_set_refquota(dataset, ZPROP_SRC_LOCAL, value);
	case ZFS_PROP_REFRESERVATION: return dsl_dataset_set_refreservation(dataset, ZPROP_SRC_LOCAL, value);
	default: return EINVAL;
	}
}

/* Some plain values need a note in the pool first: a feature counted, or limits switched on. */
static int prepare_plain(const struct pool_fs_props *fs, const char *dataset)
{
	uint64_t value;
	int error = 0;

	if (nvlist_lookup_uint64(fs->plain, "compression", &value) == 0 &&
		zio_compress_to_feature((enum zio_compress)ZIO_COMPRESS_ALGO(value)) != SPA_FEATURE_NONE)
		error = dsl_dataset_set_compression(dataset, ZPROP_SRC_LOCAL, value);
	if (error == 0 &&
		(nvlist_exists(fs->plain, "filesystem_limit") || nvlist_exists(fs->plain, "snapshot_limit")))
		error = dsl_dir_activate_fs_ss_limit(dataset);
	return error;
}

int pool_fs_props_apply(const struct pool_fs_props *fs, const char *dataset, struct pv_error *err)
{
	nvpair_t *pair = NULL;
	int error;

	while ((pair = nvlist_next_nvpair(fs->special, pair)) != NULL) {
		error = apply_special(dataset, nvpair_name(pair), fnvpair_value_uint64(pair));
		if (error == ENOSPC && strstr(nvpair_name(pair), "quota"))
			return pv_fail(err, -ENOSPC, dataset, "%s would be smaller than what is used already",
				nvpair_name(pair));
		if (error)
			return pool_fail(err, error, dataset, nvpair_name(pair));
	}
	if (nvlist_empty(fs->plain))
		return 0;
	error = prepare_plain(fs, dataset);
	if (error == 0)
		error = dsl_props_set(dataset, ZPROP_SRC_LOCAL, fs->plain);
	return error ? pool_fail(err, error, dataset, "set its properties") : 0;
}
