/*
 * pvol-engine NAME: descriptor 3 is the channel to the keeper that started it, descriptor 4 its log file.
 * pvol-engine --view DIR FILE: see view.c.
 *
 * The main loop: requests of the keeper; while there is none, the socket on which the next one comes;
 * signals. SIGTERM and SIGINT are ignored while a keeper is there, which does the closing in order; without
 * one they close.
 */
#include "engine/engine_int.h"
#include "base/log.h"
#include "base/process.h"
#include "pool/pool.h"
#include "volume/hello.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

/*
 * libzpool allocates and frees large buffers all the time: pages are kept for a while instead of being
 * returned and faulted in again, and a thread of jemalloc's own returns them when the volume is idle.
 */
extern const char *malloc_conf;
const char *malloc_conf =
	"background_thread:true,dirty_decay_ms:5000,muzzy_decay_ms:0,narenas:8,tcache_max:65536";

struct engine engine = {
	.state = PTHREAD_RWLOCK_INITIALIZER,
	.peer_lock = PTHREAD_MUTEX_INITIALIZER,
	.runtime_fd = -1,
	.listen_fd = -1,
	.wake_fd = -1,
};

static void drop_peer(void)
{
	struct engine_peer *peer;

	pthread_mutex_lock(&engine.peer_lock);
	peer = engine.peer;
	engine.peer = NULL;
	pthread_mutex_unlock(&engine.peer_lock);
	engine_peer_release(peer);
}

/* Everything that has arrived from the keeper. */
static void serve_peer(struct engine_peer *peer)
{
	struct pv_message message;
	int r;

	do {
		r = pv_channel_receive(peer->channel, 0, &message, NULL);
		if (r > 0)
			engine_dispatch(peer, &message);
	} while (r > 0 || (r == 0 && pv_channel_pending(peer->channel)));
	if (r < 0) {
		pv_log(PV_LOG_INFO, "the keeper is gone");
		drop_peer();
	}
}

static bool pool_in_use(void)
{
	bool used;

	pthread_rwlock_rdlock(&engine.state);
	used = engine.pool || engine.mounts;
	pthread_rwlock_unlock(&engine.state);
	return used;
}

static void close_in_order(void)
{
	struct pv_error err = {0};

	if (engine_close_all(&err) < 0) {
		pv_log(PV_LOG_ERROR, "cannot close the volume in order: %s", err.message);
		return;
	}
	engine.stopping = true;
}

static void take_signal(int fd)
{
	struct signalfd_siginfo info;
	bool alone;

	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return;
	pthread_mutex_lock(&engine.peer_lock);
	alone = !engine.peer;
	pthread_mutex_unlock(&engine.peer_lock);
	if (alone)
		close_in_order();
}

static void loop(int signal_fd)
{
	while (!engine.stopping || engine.running) {
		struct engine_peer *peer = engine_peer_hold();
		struct pollfd fds[3] = {
			{.fd = signal_fd, .events = POLLIN},
			{.fd = engine.wake_fd, .events = POLLIN},
			{.fd = peer ? pv_channel_fd(peer->channel) : engine.listen_fd, .events = POLLIN},
		};
		/* a request may have come in one piece with the hello */
		bool pending = peer && pv_channel_pending(peer->channel);
		uint64_t count;

		if (poll(fds, 3, pending ? 0 : -1) < 0 && errno != EINTR)
			pv_log(PV_LOG_ERROR, "poll: %s", pv_strerror(errno));
		if (fds[0].revents)
			take_signal(signal_fd);
		if (fds[1].revents)
			(void)!read(engine.wake_fd, &count, sizeof(count));
		if ((fds[2].revents || pending) && peer)
			serve_peer(peer);
		else if (fds[2].revents)
			engine_accept(NULL);
		engine_peer_release(peer);
		/* an engine that nobody can reach and that has nothing open is of no use */
		pthread_mutex_lock(&engine.peer_lock);
		peer = engine.peer;
		pthread_mutex_unlock(&engine.peer_lock);
		if (!peer && !engine.running && !pool_in_use())
			engine.stopping = true;
	}
}

static void use_log(const char *name)
{
	char who[160];

	if (fcntl(4, F_GETFD) >= 0) {
		dup2(4, STDOUT_FILENO);
		dup2(4, STDERR_FILENO);
		close(4);
	}
	snprintf(who, sizeof(who), "pvol-engine %s", name);
	pv_log_init(strdup(who), -1, PV_LOG_INFO);
}

static int start(const char *name, int *ret_signal_fd, struct pv_error *err)
{
	struct engine_peer *peer = calloc(1, sizeof(*peer));
	sigset_t signals;
	int r;

	/* before any thread exists, so that all inherit the mask */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	*ret_signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	engine.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!peer || *ret_signal_fd < 0 || engine.wake_fd < 0) {
		free(peer);
		return pv_fail(err, -ENOMEM, name, "cannot start: %s", pv_strerror(errno));
	}
	fcntl(3, F_SETFD, FD_CLOEXEC);
	r = pv_channel_new(3, &peer->channel, err);
	if (r >= 0)
		r = pv_hello(peer->channel, pv_pool_libzpool_version(), 10000, NULL, err);
	if (r < 0) {
		pv_channel_free(peer->channel);
		free(peer);
		return r;
	}
	peer->refs = 1;
	engine.peer = peer;
	return engine_watch_start(err);
}

static void finish(void)
{
	engine_unlisten();
	pthread_rwlock_wrlock(&engine.state);
	engine_detach_all();
	if (engine.started)
		pv_pool_stop();
	if (engine.state_dir) {
		pv_autofree char *cache = NULL;

		/* libzpool's cache file, if it made one; the directory is ours alone */
		if (asprintf(&cache, "%s/zpool.cache", engine.state_dir) > 0)
			unlink(cache);
		rmdir(engine.state_dir);
	}
	drop_peer();
}

int main(int argc, char **argv)
{
	struct pv_error err = {0};
	int signal_fd = -1;

	if (pv_process_harden(&err) < 0) {
		fprintf(stderr, "pvol-engine: %s\n", err.message);
		return 1;
	}
	if (argc == 4 && !strcmp(argv[1], "--view")) {
		use_log("view");
		return engine_view_main(argv[2], argv[3]);
	}
	if (argc != 2 || fcntl(3, F_GETFD) < 0) {
		fprintf(stderr, "pvol-engine is started by pvold and not by hand\n");
		return PV_EXIT_USAGE;
	}
	use_log(argv[1]);
	if (start(argv[1], &signal_fd, &err) < 0) {
		pv_log(PV_LOG_ERROR, "cannot start: %s", err.message);
		return 1;
	}
	loop(signal_fd);
	finish();
	return 0;
}
