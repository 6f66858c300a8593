/*
 * Mount points: on the host, through the kernel; inside a file system that we serve, through its objset,
 * because a look at a path below our own mount would have to be answered by ourselves.
 */
#include "fs/fs_int.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *pv_path_clean(const char *path)
{
	char *clean = malloc(strlen(path) + 2), *to = clean;
	const char *from = path;

	if (!clean || *path != '/') {
		free(clean);
		return NULL;
	}
	while (*from) {
		size_t length;

		from += strspn(from, "/");
		length = strcspn(from, "/");
		if (length == 2 && !strncmp(from, "..", 2)) {
			free(clean);
			return NULL;
		}
		if (length && !(length == 1 && *from == '.')) {
			*to++ = '/';
			memcpy(to, from, length);
			to += length;
		}
		from += length;
	}
	if (to == clean)
		*to++ = '/';
	*to = '\0';
	return clean;
}

const char *pv_path_below(const char *path, const char *point)
{
	size_t length = strlen(point);

	if (!strcmp(point, "/"))
		return path + strspn(path, "/");
	if (strncmp(path, point, length))
		return NULL;
	if (path[length] == '\0')
		return path + length;
	return path[length] == '/' ? path + length + 1 : NULL;
}

/* Every missing directory of the path. */
static int make_directories(const char *path, struct pv_error *err)
{
	pv_autofree char *part = strdup(path);

	if (!part)
		return pv_fail(err, -ENOMEM, path, "out of memory");
	for (char *slash = part; slash;) {
		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST) {
			int error = errno;
			struct stat st;

			if (stat(part, &st) == 0) /* EROFS and EACCES come first for what exists */
				error = 0;
			if (error)
				return pv_fail(err, -error, path, "cannot create the mount point: %s",
					pv_strerror(error));
		}
		if (slash)
			*slash = '/';
	}
	return 0;
}

static int fail_dead(const char *path, struct pv_error *err)
{
	pv_fail(err, -ENOTCONN, path, "a file system whose server has died is mounted there");
	return pv_remedy(err, "fusermount3 -uz '%s'", path);
}

static int check_empty(const char *path, struct pv_error *err)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	int r = 0;

	if (!dir && errno == ENOTCONN)
		return fail_dead(path, err);
	if (!dir)
		return pv_fail(err, -errno, path, "cannot read the mount point: %s", pv_strerror(errno));
	while (r == 0 && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			r = pv_fail(err, -ENOTEMPTY, path, "the mount point is not empty");
	}
	closedir(dir);
	if (r < 0)
		pv_remedy(err, "choose an empty directory, or one that does not exist yet");
	return r;
}

int pv_prepare_host_dir(const char *path, char **ret_path, struct pv_error *err)
{
	pv_autofree char *real = NULL;
	struct stat st;
	int r;

	if (stat(path, &st) < 0) {
		if (errno == ENOTCONN)
			return fail_dead(path, err);
		if (errno == ENOTDIR)
			return pv_fail(
				err, -ENOTDIR, path, "a part of the mount point's path is not a directory");
		if (errno != ENOENT)
			return pv_fail(
				err, -errno, path, "cannot look at the mount point: %s", pv_strerror(errno));
		r = make_directories(path, err);
		if (r < 0)
			return r;
	}
	real = realpath(path, NULL);
	if (!real || stat(real, &st) < 0)
		return pv_fail(err, -errno, path, "cannot look at the mount point: %s", pv_strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return pv_fail(err, -ENOTDIR, path, "the mount point is not a directory");
	if (geteuid() != 0 && st.st_uid != geteuid()) {
		pv_fail(err, -EACCES, path, "the mount point does not belong to you");
		return pv_remedy(err, "choose a directory of your own");
	}
	r = check_empty(real, err);
	if (r < 0)
		return r;
	*ret_path = pv_steal_ptr(&real);
	return 0;
}

/* One step down; a new directory belongs to whom its parent belongs. */
static int step(struct zpl_node *dir, const char *name, struct zpl_node **ret_node)
{
	struct zpl_attr attr;
	struct zpl_cred cred;
	int r;

	r = zpl_lookup(dir, name, ret_node);
	if (r != -ENOENT)
		return r;
	r = zpl_getattr(dir, &attr);
	if (r < 0)
		return r;
	cred = (struct zpl_cred){attr.uid, attr.gid};
	return zpl_mkdir(dir, name, 0755, &cred, ret_node, NULL);
}

int pv_prepare_graft_dir(struct pv_graft *graft, const char *path, uint64_t *ret_object, uint64_t *ret_parent,
	char **ret_name, struct pv_error *err)
{
	pv_autofree char *copy = strdup(path);
	struct zpl_node *node = NULL;
	char *save = NULL, *last = NULL;
	uint64_t parent = 0;
	struct zpl_fs *fs;
	int r;

	if (!copy)
		return pv_fail(err, -ENOMEM, graft->name, "out of memory");
	r = pv_graft_use(graft, &fs);
	if (r < 0)
		return pv_fail(err, r, graft->name, "the file system above is not mounted");
	r = zpl_root(fs, &node);
	for (char *name = strtok_r(copy, "/", &save); r == 0 && name; name = strtok_r(NULL, "/", &save)) {
		struct zpl_node *next = NULL;
		struct zpl_attr attr;

		parent = pv_nodeid(graft, zpl_object(node));
		last = name;
		r = step(node, name, &next);
		if (r == 0 && zpl_getattr(next, &attr) == 0 && !S_ISDIR(attr.mode))
			r = -ENOTDIR;
		if (r == 0) {
			pv_forget_name(graft->connection, parent, name); /* it may be known not to exist */
			zpl_release(node);
			node = next;
		} else {
			zpl_release(next);
		}
	}
	if (r == 0 && !last)
		r = -EBUSY;
	if (r == 0) {
		*ret_name = strdup(last);
		*ret_object = zpl_object(node);
		*ret_parent = parent;
		if (!*ret_name)
			r = -ENOMEM;
	}
	zpl_release(node);
	pv_graft_unuse(graft);
	if (r < 0)
		return pv_fail(err, r, path, "the mount point inside %s cannot be used: %s", graft->name,
			pv_strerror(r));
	return 0;
}
