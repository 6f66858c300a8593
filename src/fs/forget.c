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

	if (c->known_only && !pv_node_known(c->graft->connection, pv_nodeid(c->graft, object)))
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

	for (unsigned i = 0; i < PV_SHARDS && done < want && !connection->ended; i++) {
		pv_autofree uint64_t *ids = NULL;
		size_t count = 0;

		if (pv_nodes_list(connection, NULL, S_IFDIR, (*inout_shard)++ % PV_SHARDS, 1, &ids, &count) <
			0)
			break;
		for (size_t d = 0; d < count && done < want; d++) {
			struct pv_names names = {};

			list_directory(connection, ids[d], true, &names);
			for (size_t n = 0; n < names.count; n++) {
				if (done + n < want)
					pv_forget_name(connection, ids[d], names.names[n].text);
				free(names.names[n].text);
			}
			free(names.names);
			done += names.count;
		}
	}
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
