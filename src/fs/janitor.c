/*
 * One thread beside the workers: it makes the kernel forget nodes when there are too many (or the ARC asks),
 * closes snapshots that nobody uses, lets the kernel read again what it should not have written to, and ends
 * what a connection served once its mount is gone.
 */
#include "fs/fs_int.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_SECONDS 15
#define SNAPSHOT_IDLE_SECONDS 300

struct job {
	struct job *next;
	struct pv_connection *connection;
	uint64_t nodeid; /* to repair; 0 = the connection has ended */
};

struct pv_janitor {
	struct pv_mounts *mounts;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct job *first, **last;
	struct pv_connection *busy; /* whose job runs */
	_Atomic uint64_t prune;
	uint64_t want; /* left of the round that runs */
	unsigned shard;
	bool stop;
};

static void post(struct pv_janitor *janitor, struct pv_connection *connection, uint64_t nodeid)
{
	struct job *job;

	pthread_mutex_lock(&janitor->lock);
	for (job = janitor->first; job; job = job->next) {
		if (job->connection == connection && job->nodeid == nodeid)
			break;
	}
	if (!job) {
		job = calloc(1, sizeof(*job));
		if (job) {
			job->connection = connection;
			job->nodeid = nodeid;
			*janitor->last = job;
			janitor->last = &job->next;
		}
	}
	pthread_cond_broadcast(&janitor->changed);
	pthread_mutex_unlock(&janitor->lock);
}

void pv_janitor_repair(struct pv_janitor *janitor, struct pv_connection *connection, uint64_t nodeid)
{
	post(janitor, connection, nodeid);
}

void pv_janitor_ended(struct pv_janitor *janitor, struct pv_connection *connection)
{
	post(janitor, connection, 0);
}

void pv_janitor_prune(struct pv_janitor *janitor, uint64_t nodes)
{
	atomic_fetch_add(&janitor->prune, nodes);
	pthread_mutex_lock(&janitor->lock);
	pthread_cond_broadcast(&janitor->changed);
	pthread_mutex_unlock(&janitor->lock);
}

void pv_janitor_drain(struct pv_janitor *janitor, struct pv_connection *connection)
{
	pthread_mutex_lock(&janitor->lock);
	for (;;) {
		bool named = janitor->busy == connection;

		for (const struct job *job = janitor->first; job; job = job->next)
			named |= job->connection == connection;
		if (!named)
			break;
		pthread_cond_wait(&janitor->changed, &janitor->lock);
	}
	pthread_mutex_unlock(&janitor->lock);
}

struct by_object {
	uint64_t object;
	char name[256];
};

static int match(void *private, const char *name, uint64_t object, unsigned type, uint64_t next)
{
	struct by_object *search = private;

	if (object != search->object)
		return 0;
	snprintf(search->name, sizeof(search->name), "%s", name);
	return 1;
}

/* Twice: the first time the kernel tries to write its pages back once more, and fails as before. */
static void repair(struct pv_connection *connection, uint64_t nodeid)
{
	struct fuse_session *fuse = pv_session_fuse(connection->session);
	pv_autonode struct pv_noderef ref = {};
	struct by_object search = {};
	struct zpl_node *dir;
	uint64_t parent;
	bool eof;

	fuse_lowlevel_notify_inval_inode(fuse, nodeid, 0, 0);
	fuse_lowlevel_notify_inval_inode(fuse, nodeid, 0, 0);
	/* Its size, too, is the kernel's own idea, for as long as it knows the inode. */
	if (pv_node_get(connection, nodeid, &ref) < 0 || zpl_parent(ref.node, &parent) < 0 ||
		zpl_get(zpl_node_fs(ref.node), parent, 0, &dir) < 0)
		return;
	search.object = zpl_object(ref.node);
	zpl_readdir(dir, 0, match, &search, &eof);
	zpl_release(dir);
	if (search.name[0])
		pv_forget_name(connection, pv_nodeid(ref.graft, parent), search.name);
}

static void finish(struct pv_mounts *mounts, struct pv_connection *connection)
{
	/* Whoever is unmounting it holds `config` and waits for this job to be done. */
	while (pthread_mutex_trylock(&mounts->config) != 0) {
		if (connection->stopping)
			return;
		usleep(10000);
	}
	if (!connection->stopping)
		pv_connection_release(connection);
	pthread_mutex_unlock(&mounts->config);
	if (connection->stopping)
		return;
	pv_log(PV_LOG_INFO, "a mount was ended from outside");
	if (mounts->options.ended)
		mounts->options.ended(connection->mountpoint, mounts->options.private);
}

/* Connections are freed only after pv_janitor_stop() or a drain, so the walk needs no hold of them. */
static void each_connection(
	struct pv_janitor *janitor, void (*fn)(struct pv_janitor *, struct pv_connection *))
{
	pthread_rwlock_rdlock(&janitor->mounts->list);
	for (struct pv_connection *c = janitor->mounts->connections; c; c = c->next) {
		if (!c->ended)
			fn(janitor, c);
	}
	pthread_rwlock_unlock(&janitor->mounts->list);
}

static void limit_nodes(struct pv_janitor *janitor, struct pv_connection *connection)
{
	uint64_t want = janitor->want, done;

	if (connection->nodes > PV_NODES_MAX && want < connection->nodes - PV_NODES_MAX * 3 / 4)
		want = connection->nodes - PV_NODES_MAX * 3 / 4;
	if (!want)
		return;
	done = pv_forget_some(connection, want, &janitor->shard);
	/* What is in use stays; the ARC asks again. */
	janitor->want -= done < janitor->want ? done : janitor->want;
}

static void close_idle(struct pv_janitor *janitor, struct pv_connection *connection)
{
	int64_t now = pv_now();

	for (unsigned i = 1;; i++) {
		struct pv_graft *graft = pv_graft_at(connection, i);

		if (!graft)
			break;
		if (graft->snapshot && graft->state == PV_GRAFT_OPEN &&
			now - graft->last_used > SNAPSHOT_IDLE_SECONDS && pv_forget_graft(graft, 1))
			pv_graft_close(graft, false);
	}
}

static void *run(void *private)
{
	struct pv_janitor *janitor = private;
	struct timespec until;

	pthread_mutex_lock(&janitor->lock);
	while (!janitor->stop) {
		struct job *job = janitor->first;
		bool tick = false;

		if (job) {
			janitor->first = job->next;
			if (!janitor->first)
				janitor->last = &janitor->first;
			janitor->busy = job->connection;
			pthread_mutex_unlock(&janitor->lock);
			if (job->nodeid && !job->connection->ended)
				repair(job->connection, job->nodeid);
			else if (!job->nodeid)
				finish(janitor->mounts, job->connection);
			free(job);
			pthread_mutex_lock(&janitor->lock);
			janitor->busy = NULL;
			pthread_cond_broadcast(&janitor->changed);
			continue;
		}
		if (!atomic_load(&janitor->prune)) {
			clock_gettime(CLOCK_MONOTONIC, &until);
			until.tv_sec += TICK_SECONDS;
			tick = pthread_cond_timedwait(&janitor->changed, &janitor->lock, &until) == ETIMEDOUT;
		}
		if (janitor->stop || (!tick && !atomic_load(&janitor->prune)))
			continue;
		pthread_mutex_unlock(&janitor->lock);
		janitor->want = atomic_exchange(&janitor->prune, 0);
		each_connection(janitor, limit_nodes);
		if (tick)
			each_connection(janitor, close_idle);
		pthread_mutex_lock(&janitor->lock);
	}
	pthread_mutex_unlock(&janitor->lock);
	return NULL;
}

int pv_janitor_start(struct pv_mounts *mounts, struct pv_janitor **ret_janitor)
{
	struct pv_janitor *janitor = calloc(1, sizeof(*janitor));
	pthread_condattr_t monotonic;
	int r;

	if (!janitor)
		return -ENOMEM;
	janitor->mounts = mounts;
	janitor->last = &janitor->first;
	pthread_mutex_init(&janitor->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&janitor->changed, &monotonic);
	r = pthread_create(&janitor->thread, NULL, run, janitor);
	if (r) {
		free(janitor);
		return -r;
	}
	*ret_janitor = janitor;
	return 0;
}

struct pv_janitor *pv_janitor_stop(struct pv_janitor *janitor)
{
	if (!janitor)
		return NULL;
	pthread_mutex_lock(&janitor->lock);
	janitor->stop = true;
	pthread_cond_broadcast(&janitor->changed);
	pthread_mutex_unlock(&janitor->lock);
	pthread_join(janitor->thread, NULL);
	while (janitor->first) {
		struct job *job = janitor->first;

		janitor->first = job->next;
		free(job);
	}
	pthread_cond_destroy(&janitor->changed);
	pthread_mutex_destroy(&janitor->lock);
	free(janitor);
	return NULL;
}
