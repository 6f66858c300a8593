/*
 * pvold: the main loop of the keeper. It accepts clients, notices when nothing is left to do, and ends in
 * order on SIGTERM and SIGINT, or when its runtime directory has been removed.
 *
 * `pvold` runs in the foreground; `pvold --background` detaches itself and logs into keeper.log.
 */
#include "daemon/keeper_int.h"
#include "base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define IDLE_SECONDS 2  /* without volumes and clients */
#define STOP_SECONDS 50 /* for closing in order; systemd and people wait a minute */
#define LOOK_MS 500     /* how often the runtime directory is looked at */
#define TICK_SECONDS 60
#define LOCK_SECONDS 10 /* for a predecessor that is just ending */

struct keeper keeper = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
	.wake_fd = -1,
};

/* Only one keeper serves a runtime directory; the lock is held until the process has ended. */
static int take_lock(struct pv_error *err)
{
	struct timespec pause = {.tv_nsec = 50000000};
	int fd = openat(
		keeper.home->runtime_fd, "keeper.lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return pv_fail(
			err, -errno, keeper.home->runtime, "cannot write here: %s", pv_strerror(errno));
	for (unsigned i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if (i >= LOCK_SECONDS * 20) {
			close(fd);
			return pv_fail(
				err, -EBUSY, keeper.home->runtime, "another keeper is running already");
		}
		nanosleep(&pause, NULL);
	}
	return 0; /* the descriptor stays open for the life of the process */
}

static int use_log(void)
{
	int fd = openat(keeper.home->runtime_fd, "keeper.log",
		O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
	return 0;
}

/* Called before any thread exists. */
static int detach(struct pv_error *err)
{
	pid_t pid;
	int r = use_log();

	if (r < 0)
		return pv_fail(err, r, keeper.home->runtime, "cannot write keeper.log: %s", pv_strerror(r));
	pid = fork();
	if (pid < 0)
		return pv_fail(err, -errno, NULL, "cannot fork: %s", pv_strerror(errno));
	if (pid > 0)
		_exit(0);
	setsid();
	return 0;
}

static int block_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void *tick_thread(void *private)
{
	const struct timespec pause = {.tv_sec = TICK_SECONDS};

	for (;;) {
		nanosleep(&pause, NULL);
		supervise_tick();
	}
	return NULL;
}

static bool idle(void)
{
	bool result;

	pthread_mutex_lock(&keeper.lock);
	result = !keeper.clients && !keeper.volumes;
	pthread_mutex_unlock(&keeper.lock);
	return result;
}

static bool told_to_stop(void)
{
	PV_LOCK_SCOPE(&keeper.lock);

	return keeper.stop;
}

static void accept_client(int listen_fd)
{
	struct pv_error err = {0};
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0) {
		struct timespec pause = {.tv_nsec = 100000000};

		/* out of descriptors: give running requests time to end instead of spinning */
		if (errno == EMFILE || errno == ENFILE)
			nanosleep(&pause, NULL);
		return;
	}
	if (session_start(fd, &err) < 0)
		pv_log(PV_LOG_ERROR, "cannot serve a client: %s", err.message);
}

/* Returns when the keeper shall end. */
static void loop(int listen_fd, int signal_fd)
{
	int64_t idle_since = 0;

	for (;;) {
		struct pollfd fds[3] = {
			{.fd = listen_fd, .events = POLLIN},
			{.fd = signal_fd, .events = POLLIN},
			{.fd = keeper.wake_fd, .events = POLLIN},
		};
		struct signalfd_siginfo info;
		uint64_t count;

		poll(fds, 3, LOOK_MS);
		if (fds[0].revents & POLLIN)
			accept_client(listen_fd);
		if ((fds[1].revents & POLLIN) && read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
			pv_log(PV_LOG_INFO, "signal %u: closing everything", info.ssi_signo);
			return;
		}
		if (fds[2].revents & POLLIN)
			(void)!read(keeper.wake_fd, &count, sizeof(count));
		if (told_to_stop())
			return;
		if (!pv_home_runtime_present(keeper.home)) {
			pv_log(PV_LOG_WARNING, "the runtime directory is gone: closing everything");
			return;
		}
		if (!idle())
			idle_since = 0;
		else if (!idle_since)
			idle_since = time(NULL);
		else if (time(NULL) - idle_since > IDLE_SECONDS)
			return;
	}
}

static int run(int signal_fd, struct pv_error *err)
{
	pthread_t thread;
	int listen_fd, r;

	r = take_lock(err);
	if (r < 0)
		return r;
	keeper.started = time(NULL);
	keeper.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	engine_adopt_all();
	supervise_clean_up();
	r = pv_socket_listen(keeper.home->runtime_fd, "control", 0600, &listen_fd, err);
	if (r < 0)
		return r;
	if (pthread_create(&thread, NULL, tick_thread, NULL) == 0)
		pthread_detach(thread);
	loop(listen_fd, signal_fd);

	unlinkat(keeper.home->runtime_fd, "control", 0);
	close(listen_fd);
	pthread_mutex_lock(&keeper.lock);
	keeper.stop = true;
	pthread_mutex_unlock(&keeper.lock);
	volume_close_everything(STOP_SECONDS);
	pv_log(PV_LOG_INFO, "ended");
	return 0;
}

int main(int argc, char **argv)
{
	bool background = argc == 2 && !strcmp(argv[1], "--background");
	struct pv_error err = {0};
	int signal_fd, r;

	r = pv_process_harden(&err);
	if (r >= 0 && argc > 1 && !background) {
		fprintf(stderr, "usage: pvold [--background]\n");
		return PV_EXIT_USAGE;
	}
	if (r >= 0)
		r = pv_home_open(true, &keeper.home, &err);
	if (r >= 0 && background)
		r = detach(&err);
	if (r >= 0) {
		(void)!chdir("/");
		pv_log_init("pvold", -1, PV_LOG_INFO);
		signal_fd = block_signals();
		r = run(signal_fd, &err);
	}
	if (r < 0) {
		fprintf(stderr, "pvold: %s%s%s\n", err.object, err.object[0] ? ": " : "", err.message);
		return 1;
	}
	return 0;
}
