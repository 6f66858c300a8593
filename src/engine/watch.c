/*
 * The watcher: looks twice a second whether the file system that holds the container has room for all dirty
 * data, and whether the pool is suspended. New data is refused in time, because a write that finds no room
 * below can only be held, and a pool that cannot write is of no use to anyone.
 */
#include "engine/engine_int.h"
#include "base/log.h"
#include "pool/pool.h"
#include "zpl/zpl.h"

#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#define RESERVE ((uint64_t)64 << 20)
#define HYSTERESIS ((uint64_t)32 << 20)

static struct {
	bool full, suspended;
} seen;

static void look_at_room(void)
{
	uint64_t room = engine_backing_free();
	uint64_t least = engine.dirty_max + RESERVE;

	zpl_set_room(room == UINT64_MAX ? room : room > least ? room - least : 0);
	if (!seen.full && room < least) {
		seen.full = true;
		zpl_set_no_space(true);
		pv_log(PV_LOG_WARNING,
			"the file system that holds the container is nearly full: new data is refused");
		engine_event("full", NULL, NULL);
	} else if (seen.full && room >= least + HYSTERESIS) {
		seen.full = false;
		zpl_set_no_space(false);
		pv_log(PV_LOG_INFO, "there is room again below the container");
		engine_event("room", NULL, NULL);
	}
}

static void look_at_pool(void)
{
	bool suspended = pv_pool_suspended(engine.pool);

	if (suspended == seen.suspended)
		return;
	seen.suspended = suspended;
	pv_log(suspended ? PV_LOG_ERROR : PV_LOG_INFO,
		suspended ? "the pool is suspended: its device fails" : "the pool has resumed");
	engine_event(suspended ? "suspended" : "resumed", NULL, NULL);
}

/* Without keeper and runtime directory nobody could ever reach this engine again. */
static void look_at_runtime(void)
{
	struct engine_peer *peer = engine_peer_hold();
	struct stat st;

	if (!peer && engine.runtime && lstat(engine.runtime, &st) < 0 && errno == ENOENT) {
		pv_log(PV_LOG_WARNING, "the runtime directory is gone: closing");
		kill(getpid(), SIGTERM);
	}
	engine_peer_release(peer);
}

static void *watch(void *private)
{
	const struct timespec pause = {.tv_nsec = 500000000};

	for (;;) {
		nanosleep(&pause, NULL);
		/* a call that holds the state for long must not be waited for, and changes what is looked at
		 */
		if (pthread_rwlock_tryrdlock(&engine.state) != 0)
			continue;
		if (engine.pool && !engine.stopping) {
			look_at_room();
			look_at_pool();
		}
		look_at_runtime();
		pthread_rwlock_unlock(&engine.state);
	}
	return NULL;
}

int engine_watch_start(struct pv_error *err)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, watch, NULL);

	if (r)
		return pv_fail(err, -r, NULL, "cannot start a thread: %s", pv_strerror(r));
	pthread_detach(thread);
	return 0;
}
