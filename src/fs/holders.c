/*
 * Who keeps the mounts busy. A look at a path below them might never return when their pool is stuck, so only
 * what the kernel tells by itself is read: mount ids of open files, texts of links, device numbers of
 * mappings.
 */
#include "fs/fs_int.h"

#include "base/cleanup.h"
#include "base/json.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct point {
	int mount_id;
	unsigned major, minor;
	char path[PATH_MAX];
};

struct points {
	struct point *points;
	size_t count;
};

static bool holds_path(int pid_fd, const char *link, const struct points *points)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(pid_fd, link, target, sizeof(target) - 1);

	if (n <= 0)
		return false;
	target[n] = '\0';
	for (size_t i = 0; i < points->count; i++) {
		if (pv_path_below(target, points->points[i].path))
			return true;
	}
	return false;
}

static FILE *open_at(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;

	if (fd >= 0 && !file)
		close(fd);
	return file;
}

/* "...\nmnt_id:\t29\n..." in /proc/PID/fdinfo/N */
static bool holds_file(int pid_fd, const struct points *points)
{
	int fd = openat(pid_fd, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		pv_autofclose FILE *file = entry->d_name[0] == '.' ? NULL : open_at(fd, entry->d_name);
		char line[128];
		int id;

		while (file && fgets(line, sizeof(line), file)) {
			if (sscanf(line, "mnt_id: %d", &id) != 1)
				continue;
			for (size_t i = 0; i < points->count; i++)
				found |= points->points[i].mount_id == id;
			break;
		}
	}
	if (dir)
		closedir(dir);
	else if (fd >= 0)
		close(fd);
	return found;
}

/* "start-end perms offset MAJOR:MINOR inode path" in /proc/PID/maps */
static bool holds_map(int pid_fd, const struct points *points)
{
	pv_autofclose FILE *file = open_at(pid_fd, "maps");
	pv_autofree char *line = NULL;
	size_t size = 0;

	while (file && getline(&line, &size, file) > 0) {
		unsigned major, minor;

		if (sscanf(line, "%*s %*s %*s %x:%x", &major, &minor) != 2)
			continue;
		for (size_t i = 0; i < points->count; i++) {
			if (points->points[i].major == major && points->points[i].minor == minor)
				return true;
		}
	}
	return false;
}

static void check(struct json_object *list, const char *pid, const struct points *points)
{
	char path[64], command[64] = "";
	pv_autoclose int pid_fd = -1;
	const char *what = NULL;
	struct json_object *item;

	snprintf(path, sizeof(path), "/proc/%.20s", pid);
	pid_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (pid_fd < 0)
		return;
	if (holds_path(pid_fd, "cwd", points))
		what = "cwd";
	else if (holds_path(pid_fd, "root", points))
		what = "root";
	else if (holds_file(pid_fd, points))
		what = "file";
	else if (holds_path(pid_fd, "exe", points) || holds_map(pid_fd, points))
		what = "map";
	if (!what)
		return;
	{
		pv_autofclose FILE *file = open_at(pid_fd, "comm");

		if (file && fgets(command, sizeof(command), file))
			command[strcspn(command, "\n")] = '\0';
	}
	item = json_object_new_object();
	pv_json_add_int(item, "pid", atoi(pid));
	pv_json_add_string(item, "command", command);
	pv_json_add_string(item, "what", what);
	json_object_array_add(list, item);
}

struct json_object *pv_mounts_holders(struct pv_mounts *mounts)
{
	struct json_object *list = json_object_new_array();
	struct points points = {};
	const struct dirent *entry;
	size_t room = 0;
	DIR *proc;

	pthread_rwlock_rdlock(&mounts->list);
	for (struct pv_connection *c = mounts->connections; c; c = c->next)
		room++;
	points.points = calloc(room + 1, sizeof(*points.points));
	for (struct pv_connection *c = mounts->connections; points.points && c; c = c->next) {
		struct point *point = &points.points[points.count];

		if (c->ended)
			continue;
		point->mount_id = pv_session_mount_id(c->session);
		pv_session_device(c->session, &point->major, &point->minor);
		snprintf(point->path, sizeof(point->path), "%s", c->mountpoint);
		points.count++;
	}
	pthread_rwlock_unlock(&mounts->list);

	proc = points.count ? opendir("/proc") : NULL;
	while (proc && (entry = readdir(proc))) {
		if (isdigit((unsigned char)entry->d_name[0]) && atoi(entry->d_name) != getpid())
			check(list, entry->d_name, &points);
	}
	if (proc)
		closedir(proc);
	free(points.points);
	return list;
}

size_t pv_cwds_below(const char *mountpoint, char ***ret_paths)
{
	DIR *proc = opendir("/proc");
	const struct dirent *entry;
	char **paths = NULL;
	size_t count = 0;

	while (proc && (entry = readdir(proc))) {
		char link[64], target[PATH_MAX];
		const char *below;
		char **more;
		ssize_t n;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(link, sizeof(link), "/proc/%.20s/cwd", entry->d_name);
		n = readlink(link, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		below = pv_path_below(target, mountpoint);
		if (!below || !*below)
			continue;
		more = reallocarray(paths, count + 1, sizeof(*more));
		if (!more)
			break;
		paths = more;
		more[count] = strdup(below);
		if (more[count])
			count++;
	}
	if (proc)
		closedir(proc);
	*ret_paths = paths;
	return count;
}
