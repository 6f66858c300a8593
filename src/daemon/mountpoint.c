/*
 * Mount points.
 */
#include "daemon/mountpoint_int.h"
#include "base/cleanup.h"
#include "volume/mountinfo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* Whether the path is on or in an open volume, told by the mount table alone. */
static int check_not_ours(const char *at, struct pv_error *err)
{
	struct pv_mount_table table;
	const struct pv_mount_entry *mount;
	int r;

	r = pv_mount_table_read(&table, err);
	if (r < 0)
		return r;
	mount = pv_mount_table_pvol(&table, at);
	if (mount) {
		r = pv_fail(err, -EBUSY, at,
			strcmp(mount->point, at) ? "this directory lies inside an open volume"
						 : "another volume is mounted here");
		pv_remedy(err, "choose another directory with --at");
	}
	pv_mount_table_free(&table);
	return r < 0 ? r : 0;
}

static int check_empty(int fd, const char *at, struct pv_error *err)
{
	DIR *dir = fdopendir(fd);
	const struct dirent *entry;
	int r = 0;

	if (!dir) {
		close(fd);
		return pv_fail(err, -ENOMEM, at, "cannot read the directory");
	}
	while (r == 0 && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			r = -ENOTEMPTY;
	}
	closedir(dir);
	if (r < 0) {
		pv_fail(err, r, at, "the directory to mount on is not empty");
		pv_remedy(err, "empty it, or choose another one with --at");
	}
	return r;
}

static int check_parent(const char *at, struct pv_error *err)
{
	pv_autofree char *parent = strdup(at);
	char *slash = parent ? strrchr(parent, '/') : NULL;
	struct stat st;

	if (!slash)
		return pv_fail(err, -ENOMEM, at, "out of memory");
	slash[slash == parent ? 1 : 0] = '\0';
	if (stat(parent, &st) < 0)
		return pv_fail(err, -errno, at, "the directory to mount on cannot be made: %s: %s", parent,
			pv_strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return pv_fail(err, -ENOTDIR, at,
			"the directory to mount on cannot be made: %s is not a directory", parent);
	if (access(parent, W_OK | X_OK) < 0)
		return pv_fail(err, -errno, at,
			"the directory to mount on cannot be made: no permission to write %s", parent);
	return 0;
}

int mountpoint_check(const char *at, bool *ret_exists, struct pv_error *err)
{
	struct stat st;
	int fd, r;

	if (*at != '/')
		return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, at,
			"the directory to mount on must be an absolute path");
	r = check_not_ours(at, err);
	if (r < 0)
		return r;
	fd = open(at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		switch (errno) {
		case ENOENT:
			r = check_parent(at, err);
			if (r >= 0)
				*ret_exists = false;
			return r;
		case ENOTDIR:
		case ELOOP: return pv_fail(err, -ENOTDIR, at, "the place to mount on is not a directory");
		default:
			return pv_fail(err, -errno, at, "the directory to mount on cannot be read: %s",
				pv_strerror(errno));
		}
	}
	if (fstat(fd, &st) < 0 || (st.st_uid != geteuid() && geteuid() != 0)) {
		close(fd);
		pv_fail(err, -EACCES, at, "the directory to mount on is not yours");
		return pv_remedy(err, "choose a directory of your own with --at");
	}
	r = check_empty(fd, at, err);
	if (r >= 0)
		*ret_exists = true;
	return r;
}
