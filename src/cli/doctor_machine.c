/*
 * The checks of pvol doctor that look at the machine: FUSE, OpenZFS, memory, kernel, processor.
 */
#include "cli/cli_int.h"
#include "cli/doctor_int.h"

#include "volume/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <spawn.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

extern char **environ;

/* The first `size` bytes of a small text file; "" if it cannot be read. */
static const char *read_text(const char *path, char *ret, size_t size)
{
	pv_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;

	while (fd >= 0 && length < size - 1) {
		ssize_t n = read(fd, ret + length, size - 1 - length);

		if (n <= 0)
			break;
		length += (size_t)n;
	}
	ret[length] = '\0';
	return ret;
}

/* What a program prints on its first line; "" if it cannot be run or fails. */
static const char *output_of(char *const argv[], char *ret, size_t size)
{
	posix_spawn_file_actions_t actions;
	int fds[2];
	pid_t pid;
	size_t length = 0;
	int status = 0;

	ret[0] = '\0';
	if (pipe2(fds, O_CLOEXEC) < 0)
		return ret;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) != 0)
		pid = -1;
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	while (pid > 0 && length < size - 1) {
		ssize_t n = read(fds[0], ret + length, size - 1 - length);

		if (n <= 0)
			break;
		length += (size_t)n;
	}
	close(fds[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	ret[pid > 0 && status == 0 ? length : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return ret;
}

/* ---- FUSE ---- */

static void check_fuse_device(struct json_object *list)
{
	struct stat st;
	int fd;

	if (stat("/dev/fuse", &st) < 0) {
		doctor_add(list, DOCTOR_FAIL, "fuse",
			"as root: modprobe fuse; for a container, pass it the device /dev/fuse",
			"/dev/fuse is absent: nothing can be mounted");
		return;
	}
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		doctor_add(list, DOCTOR_FAIL, "fuse",
			"as root: chmod 0666 /dev/fuse. On a machine with udev, Debian's rule "
			"(KERNEL==\"fuse\", "
			"MODE=\"0666\") does it at every start; without udev it must be repeated after a "
			"restart",
			"/dev/fuse is closed to you (mode %04o): %s. fusermount3 opens it as you, although "
			"it is setuid",
			(unsigned)(st.st_mode & 07777), pv_strerror(errno));
		return;
	}
	close(fd);
	if ((st.st_mode & 0666) != 0666)
		doctor_add(list, DOCTOR_WARN, "fuse",
			"as root: chmod 0666 /dev/fuse, as Debian's udev rule does",
			"/dev/fuse has mode %04o: other users cannot mount", (unsigned)(st.st_mode & 07777));
	else
		doctor_add(list, DOCTOR_OK, "fuse", NULL, "/dev/fuse is there and open to users");
}

/* The program in the PATH that libfuse will run. */
static bool find_program(const char *name, char *ret_path, size_t size)
{
	const char *path = getenv("PATH");
	pv_autofree char *copy = strdup(path && *path ? path : "/usr/local/bin:/usr/bin:/bin");
	char *rest = NULL;

	for (char *dir = copy ? strtok_r(copy, ":", &rest) : NULL; dir; dir = strtok_r(NULL, ":", &rest)) {
		snprintf(ret_path, size, "%s/%s", dir, name);
		if (access(ret_path, X_OK) == 0)
			return true;
	}
	return false;
}

static void check_fusermount(struct json_object *list)
{
	bool root = geteuid() == 0;
	char path[4096];
	struct stat st;

	if (!find_program("fusermount3", path, sizeof(path))) {
		doctor_add(list, root ? DOCTOR_WARN : DOCTOR_FAIL, "fusermount3",
			"install the Debian package fuse3",
			"fusermount3 is absent: ordinary users cannot mount");
		return;
	}
	if (stat(path, &st) < 0 || !(st.st_mode & S_ISUID) || st.st_uid != 0) {
		doctor_add(list, root ? DOCTOR_WARN : DOCTOR_FAIL, "fusermount3",
			"as root: chmod u+s it, or reinstall the Debian package fuse3",
			"%s is not setuid root: ordinary users cannot mount", path);
		return;
	}
	if (access("/etc/mtab", R_OK) < 0) {
		doctor_add(list, root ? DOCTOR_WARN : DOCTOR_FAIL, "fusermount3",
			"as root: ln -s ../proc/self/mounts /etc/mtab",
			"/etc/mtab is absent: fusermount3 mounts for ordinary users, but cannot unmount");
		return;
	}
	doctor_add(list, DOCTOR_OK, "fusermount3", NULL, "%s is setuid root", path);
}

/* True if the configuration has the option on a line of its own. */
static bool user_allow_other(void)
{
	pv_autofclose FILE *f = fopen("/etc/fuse.conf", "re");
	char line[256];
	bool found = false;

	while (f && fgets(line, sizeof(line), f)) {
		char *start = line + strspn(line, " \t");

		start[strcspn(start, " \t\r\n")] = '\0';
		found |= !strcmp(start, "user_allow_other");
	}
	return found;
}

void doctor_check_fuse(struct json_object *list)
{
	check_fuse_device(list);
	check_fusermount(list);
	if (geteuid() == 0)
		doctor_add(
			list, DOCTOR_OK, "mounts", NULL, "as root, each file system is a mount of its own");
	else if (user_allow_other())
		doctor_add(list, DOCTOR_OK, "mounts", NULL,
			"user_allow_other is set in /etc/fuse.conf: each file system can be a mount of its "
			"own");
	else
		doctor_add(list, DOCTOR_OK, "mounts", NULL,
			"user_allow_other is not set in /etc/fuse.conf: child file systems are served inside "
			"their "
			"parent's mount");
}

/* ---- OpenZFS ---- */

void doctor_check_openzfs(struct json_object *list)
{
	char *query[] = {(char[]){"dpkg-query"}, (char[]){"-W"}, (char[]){"-f=${Version}"},
		(char[]){"libzpool6linux"}, NULL};
	char version[128];

	output_of(query, version, sizeof(version));
	if (!version[0])
		doctor_add(list, DOCTOR_WARN, "libzpool", "install the Debian package libzpool6linux 2.3",
			"the package libzpool6linux is not known to dpkg");
	else if (strncmp(version, "2.3.", 4) != 0)
		doctor_add(list, DOCTOR_WARN, "libzpool", "install version 2.3 of libzpool6linux",
			"libzpool %s: pvol is made for 2.3, and opens nothing for writing with a version it "
			"does not know",
			version);
	else
		doctor_add(list, DOCTOR_OK, "libzpool", NULL, "OpenZFS %s", version);

	if (access("/usr/sbin/zdb", X_OK) == 0 || access("/sbin/zdb", X_OK) == 0)
		doctor_add(list, DOCTOR_OK, "zdb", NULL, "zdb is there for 'pvol zdb'");
	else
		doctor_add(list, DOCTOR_WARN, "zdb", "install the Debian package zfsutils-linux",
			"zdb is absent: 'pvol zdb' will not work");
}

/* ---- memory ---- */

static void check_locked_memory(struct json_object *list)
{
	struct pv_error err = {0};
	struct rlimit limit = {0};
	char text[32];
	int fd;

	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_cur == RLIM_INFINITY)
		snprintf(text, sizeof(text), "unlimited");
	else
		cli_size(limit.rlim_cur, text, sizeof(text));
	if (pv_machine_check_locked_memory(&err) < 0)
		doctor_add(list, DOCTOR_FAIL, "memlock", err.remedy[0] ? err.remedy : NULL,
			"%s (the limit is %s)", err.message, text);
	else
		doctor_add(list, DOCTOR_OK, "memlock", NULL,
			"keys find room in locked memory (the limit is %s)", text);

	fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
	if (fd >= 0) {
		close(fd);
		doctor_add(list, DOCTOR_OK, "memfd_secret", NULL,
			"keys are kept in memory that even the kernel unmaps");
	} else {
		doctor_add(list, DOCTOR_OK, "memfd_secret", NULL,
			"not available (%s): keys are kept in locked memory, which root can read",
			pv_strerror(errno));
	}
}

static void check_swap(struct json_object *list)
{
	char areas[512];
	int r = pv_machine_plain_swap(areas, sizeof(areas));

	if (r < 0)
		doctor_add(list, DOCTOR_WARN, "swap", NULL, "cannot find out about swap: %s", pv_strerror(r));
	else if (r > 0)
		doctor_add(list, DOCTOR_WARN, "swap",
			"encrypt it (crypttab(5), option swap), use zram, or swapoff",
			"swap is active and not encrypted (%s): file contents and names in memory may reach "
			"the disk; "
			"keys do not",
			areas);
	else
		doctor_add(list, DOCTOR_OK, "swap", NULL, "no unencrypted swap");
}

void doctor_check_memory(struct json_object *list)
{
	char pattern[256];

	check_locked_memory(list);
	check_swap(list);
	read_text("/proc/sys/kernel/core_pattern", pattern, sizeof(pattern));
	pattern[strcspn(pattern, "\n")] = '\0';
	doctor_add(list, DOCTOR_OK, "core", NULL,
		"core files of pvol's processes are off whatever core_pattern says (%s)", pattern);
}

/* ---- kernel and processor ---- */

static bool io_uring_allowed(int *ret_errno)
{
	struct io_uring_params params = {0};
	int fd = (int)syscall(SYS_io_uring_setup, 4, &params);

	if (fd < 0) {
		*ret_errno = errno;
		return false;
	}
	close(fd);
	return true;
}

void doctor_check_kernel(struct json_object *list)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;
	int error = 0;
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	if (io_uring_allowed(&error))
		doctor_add(list, DOCTOR_OK, "io_uring", NULL, "allowed");
	else
		doctor_add(list, DOCTOR_WARN, "io_uring",
			"sysctl kernel.io_uring_disabled=0, where that is acceptable",
			"refused (%s): containers are read and written by threads, a little slower",
			pv_strerror(error));
	if (abi > 0)
		doctor_add(list, DOCTOR_OK, "landlock", NULL, "version %ld confines the workers", abi);
	else
		doctor_add(list, DOCTOR_WARN, "landlock",
			"a kernel with Landlock enabled (lsm=landlock,...) adds a layer",
			"absent: workers are confined by seccomp alone");
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0)
		doctor_add(list, DOCTOR_OK, "seccomp", NULL, "confines the workers");
	else
		doctor_add(list, DOCTOR_WARN, "seccomp", "use a kernel with CONFIG_SECCOMP_FILTER",
			"absent: the processes that read headers are not confined by it");
}

/* True if a word is in the first "flags" or "Features" line. */
static bool has_word(const char *line, const char *word)
{
	size_t length = strlen(word);

	for (const char *p = line; (p = strstr(p, word)) != NULL; p += length)
		if (p > line && (p[-1] == ' ' || p[-1] == '\t') &&
			(p[length] == ' ' || p[length] == '\n' || !p[length]))
			return true;
	return false;
}

void doctor_check_processor(struct json_object *list)
{
	static char cpuinfo[16384];
	char *line;

	read_text("/proc/cpuinfo", cpuinfo, sizeof(cpuinfo));
	line = strstr(cpuinfo, "\nflags");
	if (!line)
		line = strstr(cpuinfo, "\nFeatures");
	if (!line) {
		doctor_add(list, DOCTOR_WARN, "processor", NULL, "cannot find out what the processor can do");
		return;
	}
	line++;
	line[strcspn(line, "\n")] = '\0';
	if (has_word(line, "aes"))
		doctor_add(list, DOCTOR_OK, "aes", NULL, "in hardware");
	else
		doctor_add(list, DOCTOR_WARN, "aes", NULL, "not in hardware: encryption will be slow");
	if (has_word(line, "sha_ni") || has_word(line, "sha2"))
		doctor_add(list, DOCTOR_OK, "sha256", NULL, "in hardware");
	else
		doctor_add(list, DOCTOR_WARN, "sha256",
			"-O checksum=fletcher4 at creation is faster; against tampering it is weaker",
			"not in hardware: checksums will cost time");
}
