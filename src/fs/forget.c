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
	uint64_t parent;
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
 * Directories that must keep their names: those on the way to something that is mounted below. Invalidating
 * such a name would unmount it.
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

/* Down a path from the root of the connection. */
static void keep_path(struct pv_connection *connection, char *path, struct kept *kept)
{
	struct pv_noderef dir = {};
	char *save = NULL;

	if (pv_node_get(connection, FUSE_ROOT_ID, &dir) < 0)
		return;
	for (char *name = strtok_r(path, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
		struct zpl_node *node;
		struct pv_graft *child;
		uint64_t nodeid;

		if (zpl_lookup(dir.node, name, &node) < 0)
			break;
		nodeid = pv_nodeid(dir.graft, zpl_object(node));
		keep(kept, nodeid);
		child = pv_graft_covering(dir.graft, zpl_object(node));
		if (child) {
			zpl_release(node);
			node = NULL;
			nodeid = pv_nodeid(child, child->root);
			keep(kept, nodeid);
		}
		pv_node_put(&dir);
		if (!node && pv_node_get(connection, nodeid, &dir) < 0)
			return;
		if (node)
			dir.node = node;
	}
	pv_node_put(&dir);
}

static void find_kept(struct pv_connection *connection, struct kept *kept)
{
	char **paths = NULL;
	size_t count = pv_mounts_below(connection->mountpoint, &paths);

	for (size_t i = 0; i < count; i++) {
		keep_path(connection, paths[i], kept);
		free(paths[i]);
	}
	free(paths);
}

struct collecting {
	struct pv_names *names;
	struct pv_graft *graft;
	uint64_t parent;
	bool known_only;
	const struct kept *kept;
};

static int collect(void *private, const char *name, uint64_t object, unsigned type, uint64_t next)
{
	struct collecting *c = private;
	struct pv_names *names = c->names;
	uint64_t nodeid = pv_nodeid(c->graft, object);

	if (c->known_only && !pv_node_known(c->graft->connection, nodeid))
		return 0;
	if (type == DT_DIR && is_kept(c->kept, nodeid))
		return 0;
	if (names->count == names->room) {
		size_t room = names->room ? names->room * 2 : 256;
		struct name *more = reallocarray(names->names, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		names->names = more;
		names->room = room;
	}
	names->names[names->count] = (struct name){c->parent, strdup(name)};
	if (!names->names[names->count].text)
		return -ENOMEM;
	names->count++;
	return 0;
}

static void list_directory(struct pv_connection *connection, uint64_t nodeid, bool known_only,
	const struct kept *kept, struct pv_names *names)
{
	pv_autonode struct pv_noderef dir = {};
	bool eof;

	if (pv_node_get(connection, nodeid, &dir) == 0) {
		struct collecting c = {names, dir.graft, nodeid, known_only, kept};

		zpl_readdir(dir.node, 0, collect, &c, &eof); /* a directory that is gone has no names */
	}
}

int pv_names_collect(struct pv_connection *connection, const struct pv_graft *graft, struct pv_names **names)
{
	pv_autofree uint64_t *ids = NULL;
	struct kept kept = {};
	size_t count;
	int r;

	if (!*names)
		*names = calloc(1, sizeof(**names));
	if (!*names)
		return -ENOMEM;
	r = pv_nodes_list(connection, graft, S_IFDIR, 0, PV_SHARDS, &ids, &count);
	find_kept(connection, &kept);
	for (size_t i = 0; r == 0 && i < count; i++)
		list_directory(connection, ids[i], false, &kept, *names);
	free(kept.ids);
	return r;
}

void pv_names_forget(struct pv_connection *connection, struct pv_names *names)
{
	for (size_t i = 0; names && i < names->count; i++)
		pv_forget_name(connection, names->names[i].parent, names->names[i].text);
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

uint64_t pv_forget_some(struct pv_connection *connection, uint64_t want, unsigned *inout_shard)
{
	uint64_t before = connection->nodes, done = 0;
	struct kept kept = {};

	find_kept(connection, &kept);
	for (unsigned i = 0; i < PV_SHARDS && done < want && !connection->ended; i++) {
		pv_autofree uint64_t *ids = NULL;
		size_t count = 0;

		if (pv_nodes_list(connection, NULL, S_IFDIR, (*inout_shard)++ % PV_SHARDS, 1, &ids, &count) <
			0)
			break;
		for (size_t d = 0; d < count && done < want; d++) {
			struct pv_names names = {};

			list_directory(connection, ids[d], true, &kept, &names);
			for (size_t n = 0; n < names.count; n++) {
				if (done + n < want)
					pv_forget_name(connection, ids[d], names.names[n].text);
				free(names.names[n].text);
			}
			free(names.names);
			done += names.count;
		}
	}
	free(kept.ids);
	return before > connection->nodes ? before - connection->nodes : 0;
}

bool pv_forget_graft(struct pv_graft *graft, unsigned seconds)
{
	struct pv_connection *connection = graft->connection;
	struct timespec until;
	bool none;

	if (graft->nodes) {
		if (graft->snapshot)
			pv_forget_name(connection,
				(uint64_t)graft->above->index << PV_OBJECT_BITS | PV_CTL_SNAPSHOTS,
				strchr(graft->name, '@') + 1);
		else if (graft->covered_name)
			pv_forget_name(connection, graft->covered_parent, graft->covered_name);
	}
	/* Forgets arrive as requests of their own. */
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&graft->lock);
	while (graft->nodes && seconds) {
		if (pthread_cond_timedwait(&graft->changed, &graft->lock, &until) == ETIMEDOUT)
			break;
	}
	none = graft->nodes == 0;
	pthread_mutex_unlock(&graft->lock);
	return none;
}
