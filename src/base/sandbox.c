/*
 * The workers' sandbox: a worker parses hostile headers and holds a passphrase, and needs for it nothing but
 * the descriptors it was given.
 *
 * no_new_privs: set-uid programs give nothing.
 *
 * Landlock: no path can be opened, made, removed or executed; no TCP port bound or connected; no abstract
 * socket or signal reaches outside.
 *
 * seccomp: the system calls of the table below are left. Of the others, execve and execveat kill the process
 * (nothing honest gets there); clone3 answers ENOSYS, and glibc then uses clone, whose flags are visible;
 * clone without CLONE_THREAD, fork and vfork answer EPERM; open and its like answer EACCES, and libraries do
 * without the file; everything else answers EPERM.
 *
 * Memory can be mapped, but not executable.
 */
#include "base/process.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* Of kernels newer than the headers: see Documentation/userspace-api/landlock.rst for the ABI versions. */
struct ruleset {
	uint64_t fs;     /* ABI 1 */
	uint64_t net;    /* ABI 4 */
	uint64_t scoped; /* ABI 6 */
};

static bool apply_landlock(void)
{
	pv_autoclose int fd = -1;
	struct ruleset rules = {0};
	size_t size = sizeof(rules.fs);
	long abi;

	abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 1)
		return false;
	/* Thirteen rights at first; REFER, TRUNCATE and (in ABI 5) IOCTL_DEV came one by one. */
	rules.fs = (UINT64_C(1) << (abi >= 5 ? 16 : abi >= 3 ? 15 : abi >= 2 ? 14 : 13)) - 1;
	if (abi >= 4) {
		rules.net = 3; /* bind and connect, TCP */
		size = 2 * sizeof(uint64_t);
	}
	if (abi >= 6) {
		rules.scoped = 3; /* abstract sockets, signals */
		size = sizeof(rules);
	}
	fd = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
	return fd >= 0 && syscall(SYS_landlock_restrict_self, fd, 0) == 0;
}

static const int allowed[] = {
	/* memory */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mlock),
	SCMP_SYS(mlock2), SCMP_SYS(munlock), SCMP_SYS(memfd_secret), SCMP_SYS(membarrier), SCMP_SYS(mincore),
	/* threads, signals to oneself, leaving */
	SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(get_robust_list), SCMP_SYS(rseq),
	SCMP_SYS(set_tid_address), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(gettid),
	SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
	SCMP_SYS(getegid), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigaltstack), SCMP_SYS(restart_syscall), SCMP_SYS(exit), SCMP_SYS(exit_group),
	SCMP_SYS(arch_prctl), SCMP_SYS(getcpu), SCMP_SYS(getrlimit), SCMP_SYS(getrusage),
	/* time, random numbers, the machine */
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(getrandom), SCMP_SYS(sysinfo), SCMP_SYS(uname),
	/* open descriptors */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64),
	SCMP_SYS(pwrite64), SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2),
	SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(sync_file_range), SCMP_SYS(fadvise64),
	SCMP_SYS(fallocate), SCMP_SYS(ftruncate), SCMP_SYS(fstat), SCMP_SYS(fstatfs), SCMP_SYS(lseek),
	SCMP_SYS(flock), SCMP_SYS(fcntl), SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(close),
	SCMP_SYS(close_range), SCMP_SYS(pipe), SCMP_SYS(pipe2), SCMP_SYS(sendmsg), SCMP_SYS(recvmsg),
	SCMP_SYS(sendto), SCMP_SYS(recvfrom), SCMP_SYS(shutdown), SCMP_SYS(getsockopt), SCMP_SYS(getpeername),
	SCMP_SYS(getsockname), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6),
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),
	SCMP_SYS(eventfd2)};

/* Reading a container's geometry and discarding; asking whether a descriptor is a terminal. */
static const unsigned long ioctls[] = {BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKROGET, BLKROTATIONAL,
	BLKFLSBUF, BLKDISCARD, BLKSECDISCARD, BLKZEROOUT, FIONREAD, TCGETS};

static const int opens[] = {SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(creat),
	SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(stat), SCMP_SYS(lstat),
	SCMP_SYS(readlink), SCMP_SYS(readlinkat)};

static int add_rules(scmp_filter_ctx filter)
{
	const uint32_t allow = SCMP_ACT_ALLOW;
	int r = 0;

	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
		r |= seccomp_rule_add(filter, allow, allowed[i], 0);
	for (size_t i = 0; i < sizeof(ioctls) / sizeof(ioctls[0]); i++)
		r |= seccomp_rule_add(filter, allow, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, ioctls[i]));
	for (size_t i = 0; i < sizeof(opens) / sizeof(opens[0]); i++)
		r |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), opens[i], 0);

	r |= seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(execve), 0);
	r |= seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(execveat), 0);
	r |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	r |= seccomp_rule_add(
		filter, allow, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));

	r |= seccomp_rule_add(filter, allow, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	r |= seccomp_rule_add(
		filter, allow, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	r |= seccomp_rule_add(filter, allow, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	r |= seccomp_rule_add(filter, allow, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_VMA));
	r |= seccomp_rule_add(filter, allow, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_GET_DUMPABLE));
	/* fstat(3) of newer C libraries; a path cannot be told from "" here, and shows metadata only. */
	r |= seccomp_rule_add(filter, allow, SCMP_SYS(newfstatat), 1,
		SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
	r |= seccomp_rule_add(
		filter, allow, SCMP_SYS(statx), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
	/* Limits may be read, of oneself. */
	r |= seccomp_rule_add(
		filter, allow, SCMP_SYS(prlimit64), 2, SCMP_A0(SCMP_CMP_EQ, 0), SCMP_A2(SCMP_CMP_EQ, 0));
	/* abort(3) */
	r |= seccomp_rule_add(
		filter, allow, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	return r;
}

static bool apply_seccomp(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	bool done = false;

	if (!filter)
		return false;
	seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (add_rules(filter) == 0)
		done = seccomp_load(filter) == 0;
	seccomp_release(filter);
	return done;
}

static void *leave_at_once(void *unused)
{
	pthread_exit(unused);
}

/* pthread_exit(3), which libargon2's threads use, loads libgcc_s at its first call; later it could not be
 * opened. */
static void load_unwinder(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, leave_at_once, NULL) == 0)
		pthread_join(thread, NULL);
}

int pv_process_sandbox(unsigned *ret_mask, struct pv_error *err)
{
	unsigned mask = 0;

	load_unwinder();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
		mask |= PV_SANDBOX_NO_NEW_PRIVS;
	if (apply_landlock())
		mask |= PV_SANDBOX_LANDLOCK;
	if (apply_seccomp())
		mask |= PV_SANDBOX_SECCOMP;
	if (ret_mask)
		*ret_mask = mask;
	return 0;
}
