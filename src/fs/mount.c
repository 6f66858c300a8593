/*
 * What is mounted: from the list of datasets to connections and grafts, and back.
 */
#include "fs/fs_int.h"

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "pool/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- connections ---- */

static void connection_free(struct pv_connection *connection)
{
	if (!connection)
		return;
	pv_nodes_fini(connection);
	for (unsigned i = 0; i < connection->ngrafts; i++)
		pv_graft_free(connection->grafts[i]);
	free(connection->grafts);
	pv_session_free(connection->session);
	pthread_rwlock_destroy(&connection->grafts_lock);
	free(connection->mountpoint);
	free(connection);
}

void pv_connection_release(struct pv_connection *connection)
{
	connection->ended = true;
	pv_nodes_clear(connection);
	for (unsigned i = connection->ngrafts; i-- > 0;) {
		struct pv_graft *graft = connection->grafts[i];

		if (!graft->snapshot && i > 0)
			pv_graft_detach(graft);
		if (pv_graft_close(graft, false) < 0)
			pv_graft_close(graft, true);
	}
}

static void session_ended(void *private)
{
	struct pv_connection *connection = private;

	if (connection->stopping)
		return;
	connection->ended = true;
	pv_janitor_ended(connection->mounts->janitor, connection);
}

static int add_root(struct pv_connection *connection, struct pv_error *err)
{
	struct pv_graft *graft = connection->grafts[0];
	struct zpl_node *root;
	int r;

	r = zpl_root(graft->fs, &root);
	if (r == 0)
		r = pv_node_add(graft, root, S_IFDIR, NULL);
	if (r < 0)
		return pv_fail(err, r, graft->name, "its root directory cannot be read: %s", pv_strerror(r));
	return 0;
}

/* Mounts and serves; the objset is open. */
static int connect_kernel(struct pv_connection *connection, struct pv_error *err)
{
	const struct pv_session_options options = {
		.ops = &pv_fuse_ops,
		.private = connection,
		.mountpoint = connection->mountpoint,
		.allow_other = connection->mounts->options.allow_other,
		.read_only = connection->read_only,
		.ended = session_ended,
	};
	int r;

	r = add_root(connection, err);
	if (r < 0)
		return r;
	connection->stopping = false;
	connection->ended = false;
	r = pv_session_mount(&options, &connection->session, err);
	if (r < 0)
		return r;
	r = pv_session_serve(connection->session, err);
	if (r < 0)
		connection->session = pv_session_free(connection->session);
	return r;
}

/* As root larger reads are worth asking for: 128 KiB is the default. */
static void raise_readahead(const struct pv_connection *connection)
{
	unsigned major, minor;
	char path[80];
	int fd;

	if (geteuid() != 0)
		return;
	pv_session_device(connection->session, &major, &minor);
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "1024", 4) < 0)
		pv_log(PV_LOG_DEBUG, "read-ahead stays at its default");
	close(fd);
}

static int connection_new(
	struct pv_mounts *mounts, const char *dataset, const char *path, bool read_only, struct pv_error *err)
{
	struct pv_connection *connection = calloc(1, sizeof(*connection));
	struct pv_graft *graft = NULL;
	int r;

	if (!connection)
		return pv_fail(err, -ENOMEM, dataset, "out of memory");
	connection->mounts = mounts;
	connection->read_only = read_only;
	connection->owner = mounts->options.allow_other ? mounts->options.owner : (uid_t)-1;
	pthread_rwlock_init(&connection->grafts_lock, NULL);
	connection->mountpoint = strdup(path);
	connection->grafts = calloc(PV_GRAFTS_MAX, sizeof(struct pv_graft *));
	r = connection->mountpoint && connection->grafts ? pv_nodes_init(connection) : -ENOMEM;
	if (r == 0)
		r = pv_graft_new(connection, dataset, NULL, false, &graft);
	if (r == 0) {
		graft->mountpoint = strdup(path);
		if (!graft->mountpoint)
			r = -ENOMEM;
	}
	if (r < 0) {
		connection_free(connection);
		return pv_fail(err, r, dataset, "out of memory");
	}
	r = pv_graft_open(graft, read_only, err);
	if (r == 0) {
		r = connect_kernel(connection, err);
		if (r < 0)
			pv_connection_release(connection);
	}
	if (r < 0) {
		connection_free(connection);
		return r;
	}
	raise_readahead(connection);
	pthread_rwlock_wrlock(&mounts->list);
	connection->next = mounts->connections;
	mounts->connections = connection;
	pthread_rwlock_unlock(&mounts->list);
	return 0;
}

/*
 * Ends the session; what it served stays open. The kernel's dirty data comes back to us while it unmounts.
 * Where that does not end the session (forced while in use; a copy of the mount in another namespace) it is
 * asked to write back first, unless the pool could not take it.
 */
static int disconnect(struct pv_connection *connection, bool force, struct pv_error *err)
{
	int r = 0;

	if (connection->ended)
		return 0;
	connection->stopping = true;
	r = pv_session_unmount(connection->session, err);
	if (r < 0 && !force) {
		connection->stopping = false;
		return r;
	}
	if (r < 0 || !pv_session_wait(connection->session, 10)) {
		if (!pv_pool_suspended(connection->mounts->options.pool))
			pv_forget_data(connection, NULL);
		pv_session_detach(connection->session, NULL);
		pv_session_abort(connection->session);
	}
	pv_janitor_drain(connection->mounts->janitor, connection);
	connection->ended = true;
	connection->session = pv_session_free(connection->session);
	return 0;
}

/* Out of the list, and gone. Its session is over and its objsets are closed. */
static void connection_drop(struct pv_connection *connection)
{
	struct pv_mounts *mounts = connection->mounts;

	pv_janitor_drain(mounts->janitor, connection);
	pthread_rwlock_wrlock(&mounts->list);
	for (struct pv_connection **at = &mounts->connections; *at; at = &(*at)->next) {
		if (*at == connection) {
			*at = connection->next;
			break;
		}
	}
	pthread_rwlock_unlock(&mounts->list);
	connection_free(connection);
}

/* ---- datasets ---- */

struct target {
	char *dataset, *path;
	bool read_only;
};

struct plan {
	const struct pv_mounts *mounts;
	char *root_point; /* of the pool's root file system, as its property says; NULL = none */
	struct target *targets;
	size_t count;
};

static void plan_clear(struct plan *plan)
{
	for (size_t i = 0; i < plan->count; i++) {
		free(plan->targets[i].dataset);
		free(plan->targets[i].path);
	}
	free(plan->targets);
	free(plan->root_point);
}

/* Where the dataset goes, or NULL for nowhere. */
static char *place(const struct plan *plan, const struct pv_dataset_info *info)
{
	const char *at = plan->mounts->options.at;
	bool is_root = !strcmp(info->name, plan->mounts->options.pool);
	pv_autofree char *joined = NULL;
	const char *below;

	if (is_root && at)
		return pv_path_clean(at);
	if (info->mountpoint[0] != '/')
		return NULL; /* none, legacy */
	if (!at)
		return pv_path_clean(info->mountpoint);
	below = plan->root_point ? pv_path_below(info->mountpoint, plan->root_point) : NULL;
	if (asprintf(&joined, "%s/%s", at, below ? below : info->mountpoint) < 0)
		return NULL;
	return pv_path_clean(joined);
}

static int consider(const struct pv_dataset_info *info, void *private)
{
	struct plan *plan = private;
	struct target *more;
	char *path;

	if (!strcmp(info->name, plan->mounts->options.pool) && info->mountpoint[0] == '/')
		plan->root_point = strdup(info->mountpoint);
	if (info->is_volume || info->key_locked || info->canmount != 1)
		return 0;
	path = place(plan, info);
	if (!path)
		return 0;
	more = reallocarray(plan->targets, plan->count + 1, sizeof(*more));
	if (!more) {
		free(path);
		return -ENOMEM;
	}
	plan->targets = more;
	more[plan->count++] =
		(struct target){strdup(info->name), path, plan->mounts->options.read_only || info->read_only};
	return more[plan->count - 1].dataset ? 0 : -ENOMEM;
}

/* By path, so that what lies above comes first; '/' sorts before all other bytes. */
static int by_path(const void *a, const void *b)
{
	const unsigned char *x = (const void *)((const struct target *)a)->path;
	const unsigned char *y = (const void *)((const struct target *)b)->path;

	while (*x && *x == *y) {
		x++;
		y++;
	}
	if (*x == *y)
		return 0;
	if (*x == '/' || *y == '/')
		return *x == '\0' || (*y != '\0' && *x == '/') ? -1 : 1;
	return *x < *y ? -1 : 1;
}

static int make_plan(const struct pv_mounts *mounts, struct plan *ret_plan, struct pv_error *err)
{
	struct plan plan = {.mounts = mounts};
	int r;

	r = pv_dataset_walk(mounts->options.pool, consider, &plan, err);
	if (r < 0) {
		plan_clear(&plan);
		return r;
	}
	if (plan.count)
		qsort(plan.targets, plan.count, sizeof(*plan.targets), by_path);
	*ret_plan = plan;
	return 0;
}

/* The innermost file system of ours that the path lies in. */
static struct pv_graft *find_above(struct pv_mounts *mounts, const char *path)
{
	struct pv_graft *best = NULL;

	for (struct pv_connection *c = mounts->connections; c; c = c->next) {
		for (unsigned i = 0; !c->ended && i < c->ngrafts; i++) {
			struct pv_graft *graft = c->grafts[i];

			if (graft->snapshot || (i > 0 && !graft->covered) ||
				!pv_path_below(path, graft->mountpoint))
				continue;
			if (!best || strlen(graft->mountpoint) > strlen(best->mountpoint))
				best = graft;
		}
	}
	return best;
}

static int mount_graft(struct pv_graft *above, const struct target *target, struct pv_error *err)
{
	struct pv_graft *graft;
	int r;

	r = pv_graft_new(above->connection, target->dataset, above, false, &graft);
	if (r < 0)
		return pv_fail(err, r, target->dataset, "cannot mount: %s", pv_strerror(r));
	graft->mountpoint = strdup(target->path);
	if (!graft->mountpoint)
		return pv_fail(err, -ENOMEM, target->dataset, "out of memory");
	r = pv_graft_open(graft, target->read_only, err);
	if (r < 0)
		return r;
	r = pv_graft_attach(graft, err);
	if (r < 0)
		pv_graft_close(graft, true);
	return r;
}

static int mount_target(struct pv_mounts *mounts, const struct target *target, struct pv_error *err)
{
	struct pv_graft *above = find_above(mounts, target->path);
	pv_autofree char *path = NULL, *name = NULL;
	uint64_t object, parent;
	int r;

	if (above && !strcmp(above->mountpoint, target->path))
		return pv_fail(err, -EBUSY, target->path, "%s is mounted there", above->name);
	if (!above) {
		r = pv_prepare_host_dir(target->path, &path, err);
		return r < 0 ? r : connection_new(mounts, target->dataset, path, target->read_only, err);
	}
	if (!mounts->options.separate)
		return mount_graft(above, target, err);
	r = pv_prepare_graft_dir(
		above, pv_path_below(target->path, above->mountpoint), &object, &parent, &name, err);
	return r < 0 ? r : connection_new(mounts, target->dataset, target->path, target->read_only, err);
}

/* A child that cannot be mounted does not keep the others from being: it is listed with the reason. */
static void note_failure(struct pv_mounts *mounts, const struct target *target, const struct pv_error *error)
{
	struct json_object *item = json_object_new_object();

	pv_json_add_string(item, "dataset", target->dataset);
	pv_json_add_string(item, "mountpoint", target->path);
	pv_json_add_string(item, "reason", error->message);
	json_object_array_add(mounts->failed, item);
	pv_log(PV_LOG_WARNING, "a file system could not be mounted: %s", pv_strerror(error->code));
}

static void prune(uint64_t nodes, void *private)
{
	struct pv_mounts *mounts = private;

	pv_janitor_prune(mounts->janitor, nodes);
}

static void mounts_free(struct pv_mounts *mounts)
{
	zpl_set_prune(NULL, NULL);
	mounts->janitor = pv_janitor_stop(mounts->janitor);
	json_object_put(mounts->failed);
	pthread_mutex_destroy(&mounts->config);
	pthread_rwlock_destroy(&mounts->list);
	free((char *)mounts->options.pool);
	free((char *)mounts->options.at);
	free(mounts);
}

/* Resolves links in `at` before anything is mounted: mount points are compared as strings. */
static char *canonical(const char *path)
{
	char *clean = pv_path_clean(path), *real;
	struct stat st;

	if (clean && stat(clean, &st) == 0 && (real = realpath(clean, NULL))) {
		free(clean);
		return real;
	}
	return clean;
}

static int mount_all(struct pv_mounts *mounts, struct pv_error *err)
{
	struct pv_error first = {};
	size_t mounted = 0;
	struct plan plan;
	int r;

	r = make_plan(mounts, &plan, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < plan.count && r == 0; i++) {
		struct pv_error error = {};

		if (mount_target(mounts, &plan.targets[i], &error) == 0) {
			mounted++;
			continue;
		}
		if (!first.code)
			first = error;
		if (!strcmp(plan.targets[i].dataset, mounts->options.pool))
			r = error.code;
		else
			note_failure(mounts, &plan.targets[i], &error);
	}
	if (r == 0 && !mounted && plan.count)
		r = first.code;
	if (r < 0 && err)
		*err = first.code == r ? first : (struct pv_error){.code = r};
	plan_clear(&plan);
	return r;
}

int pv_mounts_start(
	const struct pv_mounts_options *options, struct pv_mounts **ret_mounts, struct pv_error *err)
{
	struct pv_mounts *mounts = calloc(1, sizeof(*mounts));
	int r;

	if (!mounts)
		return pv_fail(err, -ENOMEM, options->pool, "out of memory");
	if (options->separate && !options->allow_other) {
		free(mounts);
		return pv_fail(err, -EINVAL, options->pool, "separate mounts need allow_other");
	}
	mounts->options = *options;
	mounts->options.pool = strdup(options->pool);
	mounts->options.at = options->at ? canonical(options->at) : NULL;
	pthread_mutex_init(&mounts->config, NULL);
	pthread_rwlock_init(&mounts->list, NULL);
	mounts->failed = json_object_new_array();
	if (options->at && !mounts->options.at) {
		mounts_free(mounts);
		return pv_fail(
			err, -EINVAL, options->at, "the mount point must be an absolute path without \"..\"");
	}
	r = mounts->options.pool ? pv_janitor_start(mounts, &mounts->janitor) : -ENOMEM;
	if (r < 0) {
		mounts_free(mounts);
		return pv_fail(err, r, options->pool, "cannot mount: %s", pv_strerror(r));
	}
	zpl_set_prune(prune, mounts);
	pthread_mutex_lock(&mounts->config);
	r = mount_all(mounts, err);
	pthread_mutex_unlock(&mounts->config);
	if (r < 0) {
		pv_mounts_stop(mounts, true, NULL);
		return r;
	}
	*ret_mounts = mounts;
	return 0;
}

static int unmount_all(struct pv_mounts *mounts, bool force, struct pv_error *err)
{
	struct pv_connection *busy = NULL;
	int r = 0;

	for (struct pv_connection *c = mounts->connections; c && r == 0; c = c->next) {
		r = disconnect(c, force, err);
		if (r < 0)
			busy = c;
	}
	if (r == 0)
		return 0;
	/* All stays mounted: bring back those below the busy one. */
	for (struct pv_connection *c = mounts->connections; c != busy; c = c->next) {
		pv_nodes_clear(c);
		if (c->grafts[0]->state == PV_GRAFT_OPEN && connect_kernel(c, NULL) < 0)
			pv_connection_release(c);
	}
	return r;
}

/*
 * A suspended pool takes nothing, so unmounting would wait for ever for what the kernel has to write back.
 * The mounts can be taken out of the tree; what is behind them ends with this process only.
 */
static int stop_suspended(struct pv_mounts *mounts, bool force, struct pv_error *err)
{
	pthread_rwlock_rdlock(&mounts->list);
	for (struct pv_connection *c = mounts->connections; force && c; c = c->next) {
		c->stopping = true;
		if (!c->ended)
			pv_session_detach(c->session, NULL);
	}
	pthread_rwlock_unlock(&mounts->list);
	return pv_fail(err, -EBUSY, mounts->options.pool,
		"the pool is suspended: what is not written yet cannot be");
}

int pv_mounts_stop(struct pv_mounts *mounts, bool force, struct pv_error *err)
{
	int r;

	if (!mounts)
		return 0;
	if (pv_pool_suspended(mounts->options.pool))
		return stop_suspended(mounts, force, err);
	if (!force) {
		struct json_object *holders = pv_mounts_holders(mounts);
		size_t count = json_object_array_length(holders);

		json_object_put(holders);
		if (count)
			return pv_fail(err, -EBUSY, mounts->options.pool,
				"%zu process%s use%s the file system", count, count == 1 ? "" : "es",
				count == 1 ? "s" : "");
	}
	pthread_mutex_lock(&mounts->config);
	r = unmount_all(mounts, force, err);
	while (r == 0 && mounts->connections) {
		pv_connection_release(mounts->connections);
		connection_drop(mounts->connections);
	}
	pthread_mutex_unlock(&mounts->config);
	if (r == 0)
		mounts_free(mounts);
	return r;
}

int pv_mounts_add(struct pv_mounts *mounts, const char *dataset, struct pv_error *err)
{
	struct plan plan;
	int r;

	PV_LOCK_SCOPE(&mounts->config);
	if (pv_mounts_find(mounts, dataset))
		return pv_fail(err, -EEXIST, dataset, "the file system is already mounted");
	r = make_plan(mounts, &plan, err);
	if (r < 0)
		return r;
	r = -ENOENT;
	for (size_t i = 0; i < plan.count; i++) {
		if (!strcmp(plan.targets[i].dataset, dataset))
			r = mount_target(mounts, &plan.targets[i], err);
	}
	if (r == -ENOENT)
		pv_fail(err, r, dataset, "not a file system that can be mounted (canmount, mountpoint, key)");
	plan_clear(&plan);
	return r;
}

/* True when another file system of ours is mounted in this one's tree. */
static bool has_children(struct pv_mounts *mounts, const struct pv_graft *graft)
{
	if (graft->covers)
		return true;
	for (struct pv_connection *c = mounts->connections; c; c = c->next) {
		if (c->ended || c == graft->connection)
			continue;
		if (find_above(mounts, c->mountpoint) != graft &&
			pv_path_below(c->mountpoint, graft->mountpoint))
			return true;
	}
	return false;
}

static int remove_graft(struct pv_graft *graft, bool force, struct pv_error *err)
{
	pv_graft_close_snapshots(graft);
	if (!graft->snapshot)
		pv_graft_detach(graft);
	if (!pv_forget_graft(graft, 2)) {
		if (!force) {
			if (!graft->snapshot)
				pv_graft_attach(graft, NULL);
			return pv_fail(err, -EBUSY, graft->name, "the file system is in use");
		}
		pv_forget_data(graft->connection, graft);
	}
	if (pv_graft_close(graft, force) == -EBUSY)
		return pv_fail(err, -EBUSY, graft->name, "the file system is in use");
	return 0;
}

int pv_mounts_remove(struct pv_mounts *mounts, const char *dataset, bool force, struct pv_error *err)
{
	struct pv_connection *connection;
	struct pv_graft *graft;
	int r;

	PV_LOCK_SCOPE(&mounts->config);
	graft = pv_mounts_find(mounts, dataset);
	if (!graft && strchr(dataset, '@'))
		return 0;
	if (!graft)
		return pv_fail(err, -ENOENT, dataset, "the file system is not mounted");
	if (!graft->snapshot && has_children(mounts, graft))
		return pv_fail(err, -EBUSY, dataset, "other file systems are mounted below it");
	if (graft->index)
		return remove_graft(graft, force, err);
	connection = graft->connection;
	r = disconnect(connection, force, err);
	if (r < 0)
		return r;
	pv_connection_release(connection);
	connection_drop(connection);
	return 0;
}

/* ---- questions ---- */

/* Oldest first, so that parents come before what lies in them. */
static void list_connections(struct json_object *list, const struct pv_connection *c)
{
	if (!c)
		return;
	list_connections(list, c->next);
	for (unsigned i = 0; !c->ended && i < c->ngrafts; i++) {
		const struct pv_graft *graft = c->grafts[i];
		struct json_object *item;

		if (graft->snapshot || (i > 0 && !graft->covered))
			continue;
		item = json_object_new_object();
		pv_json_add_string(item, "dataset", graft->name);
		pv_json_add_string(item, "mountpoint", graft->mountpoint);
		pv_json_add_string(item, "kind", i ? "graft" : "fuse");
		pv_json_add_bool(item, "read_only", graft->read_only);
		json_object_array_add(list, item);
	}
}

struct json_object *pv_mounts_list(struct pv_mounts *mounts)
{
	struct json_object *list = json_object_new_array();

	PV_LOCK_SCOPE(&mounts->config);
	list_connections(list, mounts->connections);
	return list;
}

struct json_object *pv_mounts_failed(struct pv_mounts *mounts)
{
	PV_LOCK_SCOPE(&mounts->config);
	return json_object_get(mounts->failed);
}

/*
 * syncfs(2) in a process of its own: it needs a descriptor on the mount, which would keep it busy, and waits
 * for us. Given up after half a minute.
 */
static void flush_kernel(const struct pv_connection *connection)
{
	extern char **environ;
	char *argv[] = {(char[]){"sync"}, (char[]){"-f"}, (char[]){"--"}, connection->mountpoint, NULL};
	posix_spawn_file_actions_t actions;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	for (int fd = 0; fd < 3; fd++)
		posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
	if (posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) == 0) {
		for (int tries = 0; waitpid(pid, NULL, WNOHANG) == 0; tries++) {
			if (tries == 3000)
				kill(pid, SIGKILL);
			usleep(tries < 100 ? 1000 : 10000);
			if (tries > 3100)
				break;
		}
	}
	posix_spawn_file_actions_destroy(&actions);
}

int pv_mounts_sync(struct pv_mounts *mounts)
{
	int ret = 0;

	PV_LOCK_SCOPE(&mounts->config);
	for (struct pv_connection *c = mounts->connections; c; c = c->next) {
		if (c->ended)
			continue;
		if (!c->read_only)
			flush_kernel(c);
		for (unsigned i = 0; i < c->ngrafts; i++) {
			struct pv_graft *graft = c->grafts[i];
			struct zpl_fs *fs;
			int r;

			if (graft->snapshot || graft->read_only || pv_graft_use(graft, &fs) < 0)
				continue;
			r = zpl_fs_sync(fs);
			pv_graft_unuse(graft);
			if (r < 0)
				ret = r;
		}
	}
	return ret;
}
