/*
 * Making the kernel forget. There is no request for "forget this node": only names can be invalidated, at
 * which the kernel drops the name, all below it, and every inode that nothing else uses. So names are found
 * by listing the directories that the kernel knows.
 *
 * Invalidating waits for locks that the kernel holds for requests in flight, and for data to be written back
 * through us. It is therefore done on threads that serve no request, and with no lock of ours held.
 */
#include "base/cleanup.h"
#include "fs/fs_int.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct name {
	uint64_t parent, child;
	bool directory;
	char *text;
};

struct pv_names {
	struct name *names;
	size_t count, room;
};

static struct fuse_session *fuse_of(struct pv_connection *connection)
{
	return pv_session_fuse(connection->session);
}

void pv_forget_name(struct pv_connection *connection, uint64_t parent, const char *name)
{
	if (!connection->ended)
		fuse_lowlevel_notify_inval_entry(fuse_of(connection), parent, name, strlen(name));
}

/*
 * Directories that must keep their names: those on the way to something that is mounted below, which would be
 * unmounted, and to the working directories of processes, whose getcwd(3) would fail.
 */
struct kept {
	uint64_t *ids;
	size_t count;
};

static void keep(struct kept *kept, uint64_t nodeid)
{
	uint64_t *ids = reallocarray(kept->ids, kept->count + 1, sizeof(*ids));

	if (!ids)
		return;
	kept->ids = ids;
	ids[kept->count++] = nodeid;
}

static bool is_kept(const struct kept *kept, uint64_t nodeid)
{
	for (size_t i = 0; i < kept->count; i++) {
		if (kept->ids[i] == nodeid)
			return true;
	}
	return false;
}

/* One step of the way down: *inout_dir becomes the directory below it. False where the path leaves what is
 * known. */
static bool step(
	struct pv_connection *connection, struct pv_noderef *inout_dir, const char *name, struct kept *kept)
{
	struct pv_graft *below;
	struct zpl_node *node;
	uint64_t nodeid;

	if (zpl_lookup(inout_dir->node, name, &node) < 0)
		return false;
	nodeid = pv_nodeid(inout_dir->graft, zpl_object(node));
	keep(kept, nodeid);
	below = pv_graft_covering(inout_dir->graft, zpl_object(node));
	zpl_release(node);
	if (below) {
		nodeid = pv_nodeid(below, below->root);
		keep(kept, nodeid);
	}
	pv_node_put(inout_dir);
	return pv_node_get(connection, nodeid, inout_dir) == 0;
}

/* The same through .zfs/snapshot/NAME. */
static bool step_snapshot(
	struct pv_connection *connection, struct pv_noderef *inout_dir, char **save, struct kept *kept)
{
	const char *snapshot = strtok_r(NULL, "/", save), *name = snapshot ? strtok_r(NULL, "/", save) : NULL;
	pv_autofree char *full = NULL;
	struct pv_graft *graft;
	uint64_t nodeid;

	if (!name || asprintf(&full, "%s@%s", inout_dir->graft->name, name) < 0)
		return false;
	graft = pv_graft_find(connection, full);
	if (!graft)
		return false;
	nodeid = pv_nodeid(graft, graft->root);
	keep(kept, nodeid);
	pv_node_put(inout_dir);
	return pv_node_get(connection, nodeid, inout_dir) == 0;
}

static void keep_path(struct pv_connection *connection, char *path, struct kept *kept)
{
	pv_autonode struct pv_noderef dir = {};
	char *save = NULL;
	bool on;

	on = pv_node_get(connection, FUSE_ROOT_ID, &dir) == 0;
	for (char *name = strtok_r(path, "/", &save); on && name; name = strtok_r(NULL, "/", &save)) {
		if (!strcmp(name, ".zfs"))
			on = step_snapshot(connection, &dir, &save, kept);
		else
			on = step(connection, &dir, name, kept);
	}
}

static void keep_paths(struct pv_connection *connection, char **paths, size_t count, struct kept *kept)
{
	for (size_t i = 0; i < count; i++) {
		keep_path(connection, paths[i], kept);
		free(paths[i]);
	}
	free(paths);
}

static void find_kept(struct pv_connection *connection, struct kept *kept)
{
	char **paths = NULL;
	size_t count = pv_mounts_below(connection->mountpoint, &paths);

	keep_paths(connection, paths, count, kept);
	paths = NULL;
	count = pv_cwds_below(connection->mountpoint, &paths);
	keep_paths(connection, paths, count, kept);
}

struct collecting {
	struct pv_names *names;
	struct pv_graft *graft;
	uint64_t parent;
	bool known_only;
};

static int collect(void *private, const char *name, uint64_t object, unsigned type, uint64_t next)
{
	struct collecting *c = private;
	struct pv_names *names = c->names;
	uint64_t nodeid = pv_nodeid(c->graft, object);

	if (c->known_only && !pv_node_known(c->graft->connection, nodeid))
		return 0;
	if (names->count == names->room) {
		size_t room = names->room ? names->room * 2 : 256;
		struct name *more = reallocarray(names->names, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		names->names = more;
		names->room = room;
	}
	names->names[names->count] = (struct name){c->parent, nodeid, type == DT_DIR, strdup(name)};
	if (!names->names[names->count].text)
		return -ENOMEM;
	names->count++;
	return 0;
}

static void list_directory(
	struct pv_connection *connection, uint64_t nodeid, bool known_only, struct pv_names *names)
{
	pv_autonode struct pv_noderef dir = {};
	bool eof;

	if (pv_node_get(connection, nodeid, &dir) == 0) {
		struct collecting c = {names, dir.graft, nodeid, known_only};

		zpl_readdir(dir.node, 0, collect, &c, &eof); /* a directory that is gone has no names */
	}
}

int pv_names_collect(struct pv_connection *connection, const struct pv_graft *graft, struct pv_names **names)
{
	pv_autofree uint64_t *ids = NULL;
	size_t count;
	int r;

	if (!*names)
		*names = calloc(1, sizeof(**names));
	if (!*names)
		return -ENOMEM;
	r = pv_nodes_list(connection, graft, S_IFDIR, 0, PV_SHARDS, &ids, &count);
	for (size_t i = 0; r == 0 && i < count; i++)
		list_directory(connection, ids[i], false, *names);
	return r;
}

static void forget_unless_kept(
	struct pv_connection *connection, const struct name *name, const struct kept *kept)
{
	if (!name->directory || !is_kept(kept, name->child))
		pv_forget_name(connection, name->parent, name->text);
}

void pv_names_forget(struct pv_connection *connection, struct pv_names *names)
{
	struct kept kept = {};

	find_kept(connection, &kept);
	for (size_t i = 0; names && i < names->count; i++)
		forget_unless_kept(connection, &names->names[i], &kept);
	free(kept.ids);
}

struct pv_names *pv_names_free(struct pv_names *names)
{
	if (!names)
		return NULL;
	for (size_t i = 0; i < names->count; i++)
		free(names->names[i].text);
	free(names->names);
	free(names);
	return NULL;
}

void pv_forget_data(struct pv_connection *connection, const struct pv_graft *graft)
{
	pv_autofree uint64_t *ids = NULL;
	size_t count;

	if (pv_nodes_list(connection, graft, 0, 0, PV_SHARDS, &ids, &count) < 0)
		return;
	for (size_t i = 0; i < count && !connection->ended; i++)
		fuse_lowlevel_notify_inval_inode(fuse_of(connection), ids[i], 0, 0);
}

/* One round over the directories known. Returns how many names were dropped. */
static uint64_t forget_round(
	struct pv_connection *connection, uint64_t want, bool directories, unsigned *inout_shard)
{
	uint64_t done = 0;

	for (unsigned i = 0; i < PV_SHARDS && done < want && !connection->ended; i++) {
		pv_autofree uint64_t *ids = NULL;
		struct kept kept = {};
		size_t count = 0;

		if (pv_nodes_list(connection, NULL, S_IFDIR, (*inout_shard)++ % PV_SHARDS, 1, &ids, &count) <
			0)
			break;
		if (directories && count)
			find_kept(connection, &kept);
		for (size_t d = 0; d < count && done < want; d++) {
			struct pv_names names = {};

			list_directory(connection, ids[d], true, &names);
			for (size_t n = 0; n < names.count; n++) {
				if (done < want && names.names[n].directory == directories) {
					forget_unless_kept(connection, &names.names[n], &kept);
					done++;
				}
				free(names.names[n].text);
			}
			free(names.names);
		}
		free(kept.ids);
	}
	return done;
}

/*
 * A directory whose name is dropped while a process changes into it is lost to that process's getcwd(3),
 * however late one looks who is where. So directories are dropped only when other names are not enough, and
 * looked after anew for every shard.
 */
uint64_t pv_forget_some(struct pv_connection *connection, uint64_t want, unsigned *inout_shard)
{
	uint64_t before = connection->nodes, done = forget_round(connection, want, false, inout_shard);

	if (done < want)
		forget_round(connection, want - done, true, inout_shard);
	return before > connection->nodes ? before - connection->nodes : 0;
}

static bool wait_forgotten(struct pv_graft *graft, unsigned ms)
{
	struct timespec until;
	bool none;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&graft->lock);
	while (graft->nodes) {
		if (pthread_cond_timedwait(&graft->changed, &graft->lock, &until) == ETIMEDOUT)
			break;
	}
	none = graft->nodes == 0;
	pthread_mutex_unlock(&graft->lock);
	return none;
}

bool pv_forget_graft(struct pv_graft *graft, unsigned seconds)
{
	struct pv_connection *connection = graft->connection;
	struct pv_names *names = NULL;
	struct kept kept = {};
	bool in_use;

	if (!graft->nodes)
		return true;
	find_kept(connection, &kept);
	in_use = is_kept(&kept, pv_nodeid(graft, graft->root));
	free(kept.ids);
	if (in_use)
		return false;
	if (graft->snapshot)
		pv_forget_name(connection, (uint64_t)graft->above->index << PV_OBJECT_BITS | PV_CTL_SNAPSHOTS,
			strchr(graft->name, '@') + 1);
	else if (graft->covered_name)
		pv_forget_name(connection, graft->covered_parent, graft->covered_name);
	/* Forgets arrive as requests of their own. */
	if (wait_forgotten(graft, 200))
		return true;
	/* What was in use at an earlier try has lost its way up, so it is not reached from above any more. */
	pv_names_collect(connection, graft, &names);
	pv_names_forget(connection, names);
	pv_names_free(names);
	return wait_forgotten(graft, seconds * 1000);
}
