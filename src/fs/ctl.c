/*
 * .zfs and .zfs/snapshot of each file system: directories without an objset. They have no entries in the node
 * table; their nodeids say all. Snapshots come and go without the kernel's knowledge, so what it learns here
 * holds for a moment only, and the directory's times change with its contents, at which the kernel drops a
 * cached listing.
 */
#include "fs/fs_int.h"

#include "pool/pool.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#define SNAPSHOT_TIMEOUT 1.0

struct pv_graft *pv_ctl_graft(struct pv_connection *connection, uint64_t nodeid)
{
	uint64_t object = nodeid & PV_OBJECT_MASK;
	struct pv_graft *graft;

	if (object != PV_CTL_ROOT && object != PV_CTL_SNAPSHOTS)
		return NULL;
	graft = pv_graft_at(connection, (unsigned)(nodeid >> PV_OBJECT_BITS));
	return graft && !graft->snapshot ? graft : NULL;
}

struct summary {
	uint64_t count, hash;
};

static int summarize(const struct pv_snapshot_info *info, void *private)
{
	struct summary *summary = private;

	summary->count++;
	summary->hash = summary->hash * 31 + info->objset;
	for (const char *c = info->name; *c; c++)
		summary->hash = summary->hash * 31 + (unsigned char)*c;
	return 0;
}

int pv_ctl_stat(struct pv_graft *graft, uint64_t nodeid, struct stat *ret_stat)
{
	struct stat st = {
		.st_ino = nodeid,
		.st_mode = S_IFDIR | 0555,
		.st_nlink = 3,
		.st_blksize = 4096,
		.st_size = 3,
	};

	if ((nodeid & PV_OBJECT_MASK) == PV_CTL_SNAPSHOTS) {
		struct summary summary = {.hash = 1};
		int r = pv_snapshot_walk(graft->name, summarize, &summary, NULL);

		if (r < 0)
			return r;
		st.st_nlink = 2 + summary.count;
		st.st_size = (off_t)(2 + summary.count);
		pthread_mutex_lock(&graft->lock);
		if (graft->listing != summary.hash) {
			graft->listing = summary.hash;
			clock_gettime(CLOCK_REALTIME, &graft->listing_time);
		}
		pthread_mutex_unlock(&graft->lock);
	}
	st.st_mtim = st.st_ctim = st.st_atim = graft->listing_time;
	*ret_stat = st;
	return 0;
}

static void reply(fuse_req_t req, struct pv_graft *graft, uint64_t object, double timeout)
{
	struct fuse_entry_param entry = {
		.ino = (uint64_t)graft->index << PV_OBJECT_BITS | object,
		.generation = 1,
		.entry_timeout = timeout,
	};
	int r = pv_ctl_stat(graft, entry.ino, &entry.attr);

	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_entry(req, &entry);
}

void pv_ctl_reply_root(fuse_req_t req, struct pv_graft *graft)
{
	reply(req, graft, PV_CTL_ROOT, PV_TIMEOUT_LONG);
}

static void lookup_snapshot(fuse_req_t req, struct pv_graft *of, const char *name)
{
	struct fuse_entry_param entry = {};
	struct pv_graft *graft;
	struct zpl_node *root;
	struct zpl_fs *fs;
	int r;

	r = pv_graft_snapshot(of, name, &graft);
	if (r == 0)
		r = pv_graft_use(graft, &fs);
	if (r == 0) {
		r = zpl_root(fs, &root);
		if (r == 0)
			r = pv_make_entry(graft, root, NULL, &entry);
		pv_graft_unuse(graft);
	}
	if (r == -ENOENT || r == -EINVAL)
		fuse_reply_err(req, ENOENT); /* not to be remembered */
	else if (r < 0) {
		fuse_reply_err(req, -r);
	} else {
		entry.entry_timeout = SNAPSHOT_TIMEOUT;
		if (fuse_reply_entry(req, &entry) < 0)
			pv_node_forget(graft->connection, entry.ino, 1);
	}
}

void pv_ctl_lookup(fuse_req_t req, struct pv_connection *connection, uint64_t parent, const char *name)
{
	struct pv_graft *graft = pv_ctl_graft(connection, parent);

	if (!graft)
		fuse_reply_err(req, ESTALE);
	else if ((parent & PV_OBJECT_MASK) == PV_CTL_SNAPSHOTS)
		lookup_snapshot(req, graft, name);
	else if (!strcmp(name, "snapshot"))
		reply(req, graft, PV_CTL_SNAPSHOTS, 0);
	else
		fuse_reply_err(req, ENOENT);
}

struct walk {
	uint64_t after; /* createtxg: unique among a file system's snapshots */
	zpl_emit_fn emit;
	void *private;
};

static int walk(const struct pv_snapshot_info *info, void *private)
{
	const struct walk *w = private;

	if (info->createtxg <= w->after)
		return 0;
	return w->emit(w->private, info->name, PV_CTL_SNAPSHOTS - 1 - (info->objset & 0xFFFFFFFF), DT_DIR,
		       info->createtxg)
		       ? 1
		       : 0;
}

int pv_ctl_readdir(struct pv_graft *graft, uint64_t nodeid, uint64_t cookie, zpl_emit_fn emit, void *private)
{
	struct walk w = {cookie, emit, private};
	int r;

	if ((nodeid & PV_OBJECT_MASK) != PV_CTL_SNAPSHOTS) {
		if (cookie == 0)
			emit(private, "snapshot", PV_CTL_SNAPSHOTS, DT_DIR, INT64_MAX);
		return 0;
	}
	r = pv_snapshot_walk(graft->name, walk, &w, NULL);
	return r < 0 ? r : 0;
}
