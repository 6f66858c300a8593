/* Hardening, the sandbox, spawning and finding programs. */
#include "fixture.h"
#include "base/cleanup.h"
#include "base/process.h"
#include "base/secret.h"

#include <argon2.h>
#include <openssl/evp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

static char *own_path; /* a program to spawn: this one */

static void harden_child(void)
{
	struct rlimit limit;
	struct stat st;

	become_ordinary();
	close(0);
	close(2);
	if (pv_process_harden(NULL) < 0)
		_exit(1);
	child_check(fstat(0, &st) == 0 && S_ISCHR(st.st_mode));
	child_check(fstat(2, &st) == 0 && S_ISCHR(st.st_mode));
	child_check((fcntl(0, F_GETFD) & FD_CLOEXEC) == 0);
	child_check(prctl(PR_GET_DUMPABLE) == 0);
	child_check(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_max == 0);
	child_check(umask(0) == 077);
	child_check(signal(SIGPIPE, SIG_DFL) == SIG_IGN);
}

static void hardens(void **state)
{
	assert_child_ok(harden_child);
}

/* What a worker needs goes on: secrets, Argon2 with threads, digests, file I/O, pipes. */
static void sandboxed_work(void)
{
	struct pv_secret *s, *t;
	uint8_t out[32], salt[16] = {1}, digest[32];
	unsigned mask, length;
	char name[] = "/tmp/pv-unit-XXXXXX", back[4];
	int fd = mkstemp(name), pipe_fd;

	unlink(name);
	become_ordinary();
	child_check(pv_process_sandbox(&mask, NULL) == 0);
	child_check(mask & PV_SANDBOX_NO_NEW_PRIVS);
	child_check(pv_secret_copy("correct horse", 13, &s, NULL) == 0);
	child_check(argon2id_hash_raw(
			    1, 1 << 12, 4, s->data, s->size, salt, sizeof(salt), out, sizeof(out)) == 0);
	child_check(EVP_Digest(out, sizeof(out), digest, &length, EVP_sha256(), NULL) == 1);
	child_check(pwrite(fd, "test", 4, 4096) == 4);
	child_check(fdatasync(fd) == 0 && ftruncate(fd, 8192) == 0);
	child_check(pread(fd, back, 4, 4096) == 4 && memcmp(back, "test", 4) == 0);
	child_check(lseek(fd, 0, SEEK_END) == 8192);
	child_check(pv_secret_pipe(s, &pipe_fd, NULL) == 0);
	child_check(pv_secret_read(pipe_fd, 100, &t, NULL) == 0 && pv_secret_equal(s, t));
	pv_secret_free(s);
	pv_secret_free(t);
}

static void sandbox_lets_a_worker_work(void **state)
{
	assert_child_ok(sandboxed_work);
}

static void forbidden(void)
{
	unsigned mask;
	struct stat st;

	child_check(pv_process_sandbox(&mask, NULL) == 0);
	if (!(mask & PV_SANDBOX_SECCOMP))
		_exit(77);
	child_check(open("/etc/passwd", O_RDONLY) < 0 && errno == EACCES);
	child_check(open("/dev/null", O_WRONLY) < 0 && errno == EACCES);
	child_check(mkdir("/tmp/pv-unit-forbidden", 0700) < 0 && errno == EPERM);
	child_check(stat("/etc/passwd", &st) < 0);
	child_check(unlink("/tmp/pv-unit-forbidden") < 0 && errno == EPERM);
	child_check(socket(AF_UNIX, SOCK_STREAM, 0) < 0 && errno == EPERM);
	child_check(socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EPERM);
	child_check(fork() < 0);
	child_check(ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 && errno == EPERM);
	child_check(kill(getppid(), 0) < 0 && errno == EPERM);
	child_check(
		mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	child_check(prctl(PR_SET_DUMPABLE, 1) < 0 && errno == EPERM);
}

static void sandbox_refuses_the_rest(void **state)
{
	int status = in_child(forbidden);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("the kernel has no seccomp filters\n");
		skip();
	}
	assert_int_equal(status, 0);
}

static void exec_in_sandbox(void)
{
	unsigned mask;

	child_check(pv_process_sandbox(&mask, NULL) == 0);
	if (!(mask & PV_SANDBOX_SECCOMP))
		_exit(77);
	execl("/bin/true", "true", NULL);
}

static void sandbox_kills_at_exec(void **state)
{
	int status = in_child(exec_in_sandbox);

	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("the kernel has no seccomp filters\n");
		skip();
	}
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

/* Run as `process spawned`: says what it was given. */
static int spawned(void)
{
	sigset_t mask;
	unsigned open = 0;
	struct stat st;
	char c;

	for (int fd = 0; fd < 1024; fd++)
		open += fcntl(fd, F_GETFD) >= 0;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	if (open != 5 || sigismember(&mask, SIGTERM) || signal(SIGPIPE, SIG_DFL) != SIG_DFL)
		return 10;
	if (fstat(0, &st) < 0 || !S_ISCHR(st.st_mode))
		return 11;
	/* 3 is the read end, 4 the write end. */
	if (write(4, "x", 1) != 1 || read(3, &c, 1) != 1 || c != 'x')
		return 12;
	return 42;
}

static void spawns_with_exactly_these_descriptors(void **state)
{
	char *argv[] = {(char[]){"child"}, (char[]){"spawned"}, NULL};
	sigset_t mask, old;
	int ends[2], fds[2], status;
	pid_t pid;

	/* 3 and 4 on our side are the other way round. */
	assert_int_equal(pipe(ends), 0);
	fds[0] = ends[0];
	fds[1] = ends[1];
	if (ends[0] == 3 && ends[1] == 4) {
		int high = dup(3);

		dup2(4, 3);
		dup2(high, 4);
		close(high);
		fds[0] = 4;
		fds[1] = 3;
	}
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, &old);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pv_process_spawn(own_path, argv, fds, 2, &pid, NULL), 0);
	sigprocmask(SIG_SETMASK, &old, NULL);
	signal(SIGPIPE, SIG_DFL);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 42);
}

static void spawn_tells_what_cannot_run(void **state)
{
	char *argv[] = {(char[]){"none"}, NULL};
	struct pv_error err;
	pid_t pid = -5;

	assert_int_equal(pv_process_spawn("/nonexistent/program", argv, NULL, 0, &pid, &err), -ENOENT);
	assert_string_equal(err.object, "/nonexistent/program");
	assert_int_equal(pv_process_spawn("/tmp", argv, NULL, 0, &pid, &err), -EACCES);
	assert_int_equal(pid, -5);
}

static void sibling_child(void)
{
	char *path = NULL;
	struct pv_error err;
	const char *own = strrchr(own_path, '/') + 1;

	become_ordinary();
	child_check(pv_process_harden(NULL) == 0);
	child_check(pv_process_sibling(own, &path, &err) == 0);
	child_check(strcmp(path, own_path) == 0);
	free(path);
	path = NULL;
	child_check(pv_process_sibling("pvol-nonexistent", &path, &err) == -ENOENT);
	child_check(path == NULL && strcmp(err.object, "pvol-nonexistent") == 0 && err.remedy[0]);
}

static void finds_siblings(void **state)
{
	assert_child_ok(sibling_child);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hardens),
		cmocka_unit_test(sandbox_lets_a_worker_work),
		cmocka_unit_test(sandbox_refuses_the_rest),
		cmocka_unit_test(sandbox_kills_at_exec),
		cmocka_unit_test(spawns_with_exactly_these_descriptors),
		cmocka_unit_test(spawn_tells_what_cannot_run),
		cmocka_unit_test(finds_siblings),
	};

	if (argc > 1 && strcmp(argv[1], "spawned") == 0)
		return spawned();
	own_path = realpath("/proc/self/exe", NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
