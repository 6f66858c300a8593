/*
 * Process hygiene, and starting and finding the project's other programs.
 */
#include "base/process.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

extern char **environ;

/*
 * The program's path, read once: after an upgrade the link says "... (deleted)", and some kernels refuse it
 * to a process that is not dumpable.
 */
static char self_path[PATH_MAX];
static pthread_once_t self_once = PTHREAD_ONCE_INIT;

static void find_self(void)
{
	ssize_t n = readlink("/proc/self/exe", self_path, sizeof(self_path) - 1);

	self_path[n > 0 ? n : 0] = '\0';
}

int pv_process_harden(struct pv_error *err)
{
	const struct rlimit none = {0, 0};
	int fd, r;

	pthread_once(&self_once, find_self);

	/* First of all: without these the next descriptor opened would become somebody's standard output. */
	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd < 0) {
			r = -errno;
			return pv_fail(err, r, "/dev/null", "cannot open: %s", pv_strerror(r));
		}
		if (fd <= STDERR_FILENO)
			fcntl(fd, F_SETFD, 0);
	} while (fd <= STDERR_FILENO);
	close(fd);

	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0) {
		r = -errno;
		return pv_fail(err, r, NULL, "cannot forbid core files: %s", pv_strerror(r));
	}
	signal(SIGPIPE, SIG_IGN);
	umask(077);
	return 0;
}

/* The child's descriptors and signals. `high` are the descriptors above every target number. */
static int spawn(const char *path, char *const argv[], const int *high, size_t nfds, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t all, none;
	int r = 0;

	sigfillset(&all);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	r |= posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	r |= posix_spawnattr_setsigdefault(&attributes, &all);
	r |= posix_spawnattr_setsigmask(&attributes, &none);
	r |= posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	for (size_t i = 0; i < nfds; i++)
		r |= posix_spawn_file_actions_adddup2(&actions, high[i], 3 + (int)i);
	r |= posix_spawn_file_actions_addclosefrom_np(&actions, 3 + (int)nfds);
	r = r ? ENOMEM : posix_spawn(ret_pid, path, &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

int pv_process_spawn(const char *path, char *const argv[], const int *fds, size_t nfds, pid_t *ret_pid,
	struct pv_error *err)
{
	int high[64];
	size_t made;
	pid_t pid;
	int r = 0;

	if (nfds > sizeof(high) / sizeof(high[0]))
		return pv_fail(err, -EINVAL, path, "cannot pass %zu descriptors", nfds);
	/* Copies above the targets, so that no dup2 overwrites a source that is still needed. */
	for (made = 0; made < nfds && r == 0; made++) {
		high[made] = fcntl(fds[made], F_DUPFD_CLOEXEC, 3 + (int)nfds);
		if (high[made] < 0) {
			r = -errno;
			break;
		}
	}
	if (r == 0)
		r = spawn(path, argv, high, nfds, &pid);
	while (made > 0)
		close(high[--made]);
	if (r < 0)
		return pv_fail(err, r, path, "cannot start the program: %s", pv_strerror(r));
	*ret_pid = pid;
	return 0;
}

/*
 * Where siblings are, relative to the folder of the running program: the same folder (all installed in
 * libexec), the build tree seen from src/cli/, from its top and from tests/unit/X/, and PREFIX/libexec seen
 * from PREFIX/bin when the tree was moved after installation.
 */
static const char *const relative[] = {"", "../worker/", "../daemon/", "../engine/", "../cli/", "src/worker/",
	"src/daemon/", "src/engine/", "src/cli/", "../../../src/worker/", "../../../src/daemon/",
	"../../../src/engine/", "../../../src/cli/", "../libexec/pvol/", "../../bin/"};

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static int give(const char *path, char **ret_path, struct pv_error *err)
{
	char *copy = realpath(path, NULL);

	if (!copy)
		return pv_fail(err, -errno, path, "cannot resolve the path: %s", pv_strerror(errno));
	*ret_path = copy;
	return 0;
}

int pv_process_sibling(const char *name, char **ret_path, struct pv_error *err)
{
	char path[PATH_MAX + 128];
	const char *slash;

	pthread_once(&self_once, find_self);
	slash = strrchr(self_path, '/');
	for (size_t i = 0; slash && i < sizeof(relative) / sizeof(relative[0]); i++) {
		snprintf(path, sizeof(path), "%.*s%s%s", (int)(slash - self_path + 1), self_path, relative[i],
			name);
		if (is_program(path))
			return give(path, ret_path, err);
	}
	snprintf(path, sizeof(path), "%s/%s", PV_LIBEXECDIR, name);
	if (is_program(path))
		return give(path, ret_path, err);
	pv_fail(err, -ENOENT, name, "cannot find the program, neither near %s nor in %s",
		*self_path ? self_path : "the running one", PV_LIBEXECDIR);
	pv_remedy(err, "install pvol completely: make install");
	return -ENOENT;
}
