/*
 * Whether FUSE can be used here, and if not, why and what to do about it.
 */
#include "fs/mount.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool find_fusermount(struct stat *ret_stat)
{
	const char *path = getenv("PATH");
	pv_autofree char *copy = strdup(path ? path : "/usr/bin:/bin");
	char *save = NULL;

	/* Where libfuse looks first. */
	if (stat("/usr/bin/fusermount3", ret_stat) == 0)
		return true;
	for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir; dir = strtok_r(NULL, ":", &save)) {
		pv_autofree char *name = NULL;

		if (asprintf(&name, "%s/fusermount3", dir) > 0 && stat(name, ret_stat) == 0)
			return true;
	}
	return false;
}

/* The option stands alone on a line; '#' begins a comment. */
static bool allow_other_set(void)
{
	pv_autofclose FILE *file = fopen("/etc/fuse.conf", "re");
	char line[256], word[32], rest[8];

	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "#\n")] = '\0';
		if (sscanf(line, "%31s %7s", word, rest) == 1 && !strcmp(word, "user_allow_other"))
			return true;
	}
	return false;
}

int pv_fuse_check(struct pv_fuse_state *ret_state, struct pv_error *err)
{
	struct pv_fuse_state state = {};
	struct stat st;
	int fd, error = 0;

	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	error = fd < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	state.device = stat("/dev/fuse", &st) == 0;
	state.device_open = fd >= 0;
	state.fusermount = find_fusermount(&st);
	state.setuid = state.fusermount && st.st_uid == 0 && (st.st_mode & S_ISUID);
	state.user_allow_other = allow_other_set();
	if (ret_state)
		*ret_state = state;

	if (!state.device) {
		pv_fail(err, -ENOENT, "/dev/fuse",
			"there is no FUSE device: the kernel has no FUSE, or the container "
			"does not offer it");
		return pv_remedy(err, "modprobe fuse, or start the container with --device /dev/fuse");
	}
	if (!state.device_open) {
		pv_fail(err, -error, "/dev/fuse", "the FUSE device cannot be opened: %s", pv_strerror(error));
		if (error == EACCES)
			return pv_remedy(err, "as root: chmod 0666 /dev/fuse");
		return pv_remedy(err, "modprobe fuse");
	}
	if (!state.fusermount && geteuid() != 0) {
		pv_fail(err, -ENOENT, "fusermount3",
			"the program that mounts for ordinary users is not installed");
		return pv_remedy(err, "as root: apt-get install fuse3");
	}
	if (!state.setuid && geteuid() != 0) {
		pv_fail(err, -EPERM, "fusermount3", "it is not setuid root, so it cannot mount");
		return pv_remedy(err, "as root: chmod u+s \"$(command -v fusermount3)\"");
	}
	return 0;
}
