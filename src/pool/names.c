/*
 * Names are checked before libzpool sees them (it would abort on some), and its error numbers become
 * sentences.
 */
#include "pool/pool_int.h"

#include <sys/dsl_pool.h>
#include <sys/fs/zfs.h>
#include <zfs_namecheck.h>

static int fail_name(struct pv_error *err, const char *name, namecheck_err_t why, char what)
{
	switch (why) {
	case NAME_ERR_LEADING_SLASH: return pv_fail(err, -EINVAL, name, "a name cannot begin with a slash");
	case NAME_ERR_EMPTY_COMPONENT: return pv_fail(err, -EINVAL, name, "a part of the name is empty");
	case NAME_ERR_TRAILING_SLASH: return pv_fail(err, -EINVAL, name, "a name cannot end with a slash");
	case NAME_ERR_INVALCHAR:
		return pv_fail(err, -EINVAL, name, "character '%c' is not allowed in a name", what);
	case NAME_ERR_MULTIPLE_DELIMITERS:
		return pv_fail(err, -EINVAL, name, "more than one '@' or '#' in the name");
	case NAME_ERR_NOLETTER: return pv_fail(err, -EINVAL, name, "a pool's name must begin with a letter");
	case NAME_ERR_RESERVED:
	case NAME_ERR_DISKLIKE: return pv_fail(err, -EINVAL, name, "this name is reserved");
	case NAME_ERR_TOOLONG: return pv_fail(err, -ENAMETOOLONG, name, "the name is too long");
	case NAME_ERR_SELF_REF:
	case NAME_ERR_PARENT_REF: return pv_fail(err, -EINVAL, name, "'.' and '..' cannot be part of a name");
	default: return pv_fail(err, -EINVAL, name, "this is not a valid name");
	}
}

int pool_check_pool_name(const char *name, struct pv_error *err)
{
	/* What libzfs reserves on top: words of its own command language. */
	static const char *const reserved[] = {"mirror", "raidz", "draid", "spare", "log"};
	namecheck_err_t why;
	char what = 0;

	if (!name || pool_namecheck(name, &why, &what) != 0)
		return name ? fail_name(err, name, why, what)
			    : pv_fail(err, -EINVAL, NULL, "a pool's name is missing");
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
		if (strncmp(name, reserved[i], strlen(reserved[i])) == 0)
			return pv_fail(
				err, -EINVAL, name, "a pool's name cannot begin with \"%s\"", reserved[i]);
	}
	return 0;
}

int pool_check_dataset_name(const char *name, struct pv_error *err)
{
	namecheck_err_t why;
	char what = 0;

	if (dataset_namecheck(name, &why, &what) != 0)
		return fail_name(err, name, why, what);
	if (strpbrk(name, "@#"))
		return pv_fail(err, -EINVAL, name, "a file system's name is wanted, not a snapshot's");
	if (strchr(name, '%') || dataset_nestcheck(name) != 0)
		return pv_fail(err, -EINVAL, name, "the name has a '%%' or is nested too deeply");
	return 0;
}

int pool_check_snapshot_part(const char *snap, struct pv_error *err)
{
	namecheck_err_t why;
	char what = 0;

	if (zfs_component_namecheck(snap, &why, &what) != 0)
		return fail_name(err, snap, why, what);
	if (strchr(snap, '%'))
		return pv_fail(err, -EINVAL, snap, "character '%%' is not allowed in a name");
	return 0;
}

int pool_fail(struct pv_error *err, int zerror, const char *object, const char *doing)
{
	int code = zerror > 0 ? -zerror : zerror;
	const char *why = NULL, *remedy = NULL;
	enum pv_exit exit = PV_EXIT_FAILED;

	switch (-code) {
	case EBUSY:
		exit = PV_EXIT_BUSY;
		why = "it is in use";
		remedy = "unmount its file systems and close what is open in them";
		break;
	case ENOSPC:
		why = "the pool has no space left";
		remedy = "delete files or snapshots, or grow the volume";
		break;
	case EDQUOT:
		why = "a quota is reached";
		remedy = "raise the quota, or delete files or snapshots below it";
		break;
	case ENOENT: why = "it does not exist"; break;
	case EEXIST: why = "it exists already"; break;
	case EROFS: why = "the pool is open read-only"; break;
	case ENXIO: why = "a device is missing or cannot be opened"; break;
	case EAGAIN:
		why = "the pool is suspended after an I/O failure";
		remedy = "repair the device below, then resume the pool";
		break;
	case EOVERFLOW:
		why = "a device is too small";
		remedy = "a pool's device has at least 64 MiB";
		break;
	case EDOM: why = "the sector size (ashift) does not fit the device"; break;
	case ECKSUM:
	case EIO:
		code = -ECKSUM == code ? -EUCLEAN : code;
		exit = code == -EUCLEAN ? PV_EXIT_DAMAGED : exit;
		why = code == -EUCLEAN ? "a checksum does not match: the data is damaged"
				       : "input or output failed";
		break;
	case ENOTSUP: why = "the pool or its version does not support it"; break;
	case ENAMETOOLONG: why = "the name is too long"; break;
	case EACCES: why = "its key is not loaded"; break;
	case EDEADLK:
	case ETXTBSY: why = "something else is working on it"; break;
	case ZFS_ERR_EXPORT_IN_PROGRESS:
		code = -EBUSY;
		why = "it is being exported";
		break;
	case ZFS_ERR_WRONG_PARENT:
		code = -EINVAL;
		why = "its parent is not a file system";
		break;
	default:
		if (-code > 1023)
			code = -EIO;
		break;
	}
	(void)pv_fail_as(err, code, exit, object, "cannot %s: %s", doing, why ? why : pv_strerror(code));
	if (remedy)
		(void)pv_remedy(err, "%s", remedy);
	return code;
}

int pool_open(const char *name, const void *tag, spa_t **ret_spa, struct pv_error *err)
{
	char pool[ZFS_MAX_DATASET_NAME_LEN];
	int error;

	if (!pool_started())
		return pv_fail(err, -EINVAL, name, "libzpool has not been started");
	strlcpy(pool, name, sizeof(pool));
	pool[strcspn(pool, "/@#")] = '\0';
	/* spa_open() would also load a pool of the cache file; ours is empty. */
	error = spa_open(pool, ret_spa, tag);
	if (error == ENOENT)
		return pv_fail(err, -ENOENT, pool, "no pool of this name is imported");
	return error ? pool_fail(err, error, pool, "open the pool") : 0;
}

int pool_open_writable(const char *name, const void *tag, spa_t **ret_spa, struct pv_error *err)
{
	spa_t *spa;
	int error = pool_open(name, tag, &spa, err);

	if (error < 0)
		return error;
	if (!spa_writeable(spa))
		error = EROFS;
	else if (spa_suspended(spa))
		error = EAGAIN;
	if (error) {
		error = pool_fail(err, error, name, "change it");
		spa_close(spa, tag);
		return error;
	}
	*ret_spa = spa;
	return 0;
}
