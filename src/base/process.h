/*
 * Process hygiene: what every program of pvol does first, and the sandbox of the short-lived workers.
 */
#ifndef PV_BASE_PROCESS_H
#define PV_BASE_PROCESS_H

#include "base/error.h"

#include <stddef.h>
#include <sys/types.h>

/*
 * First call of every main(): RLIMIT_CORE 0, not dumpable (prctl), SIGPIPE ignored, umask 077, descriptors
 * 0-2 open (on /dev/null if they were closed). Must be called again after exec, so every program calls it.
 */
int pv_process_harden(struct pv_error *err);

/*
 * Confines the calling process for good (workers only: keeper and engine must be able to run the setuid
 * fusermount3): no_new_privs, Landlock (no file-system access by path at all) where the kernel has it, and a
 * seccomp filter that leaves memory, threads, time, random numbers and I/O on open descriptors. Never fails
 * on a kernel without the one or the other; *ret_mask (may be NULL) gets which were applied.
 */
enum pv_sandbox_mask { PV_SANDBOX_NO_NEW_PRIVS = 1, PV_SANDBOX_LANDLOCK = 2, PV_SANDBOX_SECCOMP = 4 };
int pv_process_sandbox(unsigned *ret_mask, struct pv_error *err);

/*
 * Starts `path` with argv (argv[0] given, NULL-terminated) and the `nfds` descriptors as 3, 4, 5 ... in the
 * child; every other descriptor but 0-2 is closed there; stdin is /dev/null. Environment is passed on.
 * Signals are reset. -errno when the program cannot be executed (known synchronously through a close-on-exec
 * pipe or posix_spawn).
 */
int pv_process_spawn(const char *path, char *const argv[], const int *fds, size_t nfds, pid_t *ret_pid,
	struct pv_error *err);

/*
 * Path of a sibling program ("pvold", "pvol-engine", "pvol-worker"): beside the running executable, in the
 * build tree's folders, or in the installed libexec directory. Caller frees *ret_path. -ENOENT names it.
 */
int pv_process_sibling(const char *name, char **ret_path, struct pv_error *err);

#endif
