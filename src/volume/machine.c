/*
 * Questions to the kernel about swap and memory.
 */
#include "volume/machine.h"
#include "base/cleanup.h"
#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Blocks of swap on zram stay in memory; dm-crypt devices carry a uuid that begins with CRYPT-. */
static bool device_is_safe(const char *path)
{
	char name[128], uuid[16] = "";
	pv_autofclose FILE *f = NULL;
	struct stat st;

	if (!strncmp(path, "/dev/zram", 9))
		return true;
	if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode))
		return false;
	snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/dm/uuid", major(st.st_rdev), minor(st.st_rdev));
	f = fopen(name, "re");
	return f && fgets(uuid, sizeof(uuid), f) && !strncmp(uuid, "CRYPT-", 6);
}

int pv_machine_parse_swaps(const char *text, bool (*is_safe)(const char *path), char *ret_areas, size_t size)
{
	pv_autofree char *copy = strdup(text);
	char *save = NULL, *line;
	bool found = false;

	if (!copy || !size)
		return -ENOMEM;
	ret_areas[0] = '\0';
	line = strtok_r(copy, "\n", &save); /* the heading */
	while (line && (line = strtok_r(NULL, "\n", &save))) {
		size_t used = strlen(ret_areas);

		line[strcspn(line, " \t")] = '\0';
		if (*line != '/' || is_safe(line))
			continue;
		snprintf(ret_areas + used, size - used, "%s%s", used ? " " : "", line);
		found = true;
	}
	return found;
}

int pv_machine_plain_swap(char *ret_areas, size_t size)
{
	pv_autoclose int fd = open("/proc/swaps", O_RDONLY | O_CLOEXEC);
	char text[4096];
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	return pv_machine_parse_swaps(text, device_is_safe, ret_areas, size);
}

int pv_machine_check_locked_memory(struct pv_error *err)
{
	struct pv_secret *probe[8] = {NULL};
	int r = 0;

	/* keys, key schedules and passphrases of one volume, in keeper, worker and engine */
	for (unsigned i = 0; r >= 0 && i < 8; i++)
		r = pv_secret_new(4096, &probe[i], err);
	for (unsigned i = 0; i < 8; i++)
		pv_secret_free(probe[i]);
	return r < 0 ? r : 0;
}

static bool user_allow_other(void)
{
	pv_autofclose FILE *f = fopen("/etc/fuse.conf", "re");
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		const char *word = line + strspn(line, " \t");

		if (!strncmp(word, "user_allow_other", 16) &&
			strspn(word + 16, " \t\r\n") == strlen(word + 16))
			return true;
	}
	return false;
}

/* fusermount3 in the path, as libfuse looks for it; -EPERM when it has lost its set-user-id bit. */
static int find_fusermount(void)
{
	pv_autofree char *path = strdup(getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
	char *save = NULL;

	for (char *dir = path ? strtok_r(path, ":", &save) : NULL; dir; dir = strtok_r(NULL, ":", &save)) {
		pv_autofree char *program = NULL;
		struct stat st;

		if (asprintf(&program, "%s/fusermount3", dir) < 0)
			return -ENOMEM;
		if (stat(program, &st) == 0 && S_ISREG(st.st_mode) && access(program, X_OK) == 0)
			return (st.st_mode & S_ISUID) && st.st_uid == 0 ? 0 : -EPERM;
	}
	return -ENOENT;
}

int pv_machine_check_fuse(bool *ret_allow_other, struct pv_error *err)
{
	pv_autoclose int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	int r;

	if (fd < 0 && (errno == EACCES || errno == EPERM)) {
		pv_fail(err, -errno, "/dev/fuse", "you may not open this device, so nothing can be mounted");
		return pv_remedy(err, "as root: chmod 666 /dev/fuse ('pvol doctor' tells more)");
	}
	if (fd < 0) {
		pv_fail(err, -errno, "/dev/fuse", "the kernel offers no FUSE, so nothing can be mounted: %s",
			pv_strerror(errno));
		return pv_remedy(err, "as root: modprobe fuse ('pvol doctor' tells more)");
	}
	r = geteuid() == 0 ? 0 : find_fusermount();
	if (r == -ENOENT) {
		pv_fail(err, r, "fusermount3", "this program is missing, so nothing can be mounted");
		return pv_remedy(err, "as root: apt-get install fuse3");
	}
	if (r < 0) {
		pv_fail(err, r, "fusermount3",
			"this program is not set-user-id root, so nothing can be mounted");
		return pv_remedy(err, "as root: chmod u+s the program, or reinstall the package fuse3");
	}
	/* fusermount3 would mount without it, and then not be able to unmount */
	if (geteuid() != 0 && access("/etc/mtab", R_OK) < 0) {
		pv_fail(err, -errno, "/etc/mtab",
			"this file is missing, so fusermount3 could not unmount again");
		return pv_remedy(err, "as root: ln -s ../proc/self/mounts /etc/mtab");
	}
	if (ret_allow_other)
		*ret_allow_other = geteuid() == 0 || user_allow_other();
	return 0;
}

static uint64_t cgroup_limit(void)
{
	pv_autofclose FILE *self = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX];
	uint64_t limit = UINT64_MAX;

	while (self && fgets(line, sizeof(line), self)) {
		char path[PATH_MAX + 64];
		pv_autofclose FILE *f = NULL;
		unsigned long long value;

		if (strncmp(line, "0::", 3))
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", line + 3);
		f = fopen(path, "re");
		if (f && fscanf(f, "%llu", &value) == 1)
			limit = value;
	}
	return limit;
}

uint64_t pv_machine_memory(void)
{
	uint64_t physical = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t limit = cgroup_limit();

	return limit < physical ? limit : physical;
}
