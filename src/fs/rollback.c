/*
 * Changing what is served while it is served: attaching and detaching children, rolling a file system back.
 *
 * Rolling back: the kernel writes back what it holds and drops it, the objset is suspended, rolled back and
 * resumed, and the kernel forgets every name it may know, of before and of after (a name that it knows not to
 * exist may exist now). What it writes back late is refused meanwhile: it was written before. Regular files
 * get another generation, since the kernel trusts its own idea of a file's size for as long as it knows the
 * inode; files that are open become bad (EIO) when someone looks them up again.
 */
#include "fs/fs_int.h"

#include "base/cleanup.h"
#include "pool/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int pv_graft_attach(struct pv_graft *graft, struct pv_error *err)
{
	const char *below = pv_path_below(graft->mountpoint, graft->above->mountpoint);
	uint64_t object, parent;
	char *name = NULL;
	int r;

	if (!below)
		return pv_fail(err, -EINVAL, graft->mountpoint, "not below %s", graft->above->mountpoint);
	r = pv_prepare_graft_dir(graft->above, below, &object, &parent, &name, err);
	if (r < 0)
		return r;
	free(graft->covered_name);
	graft->covered_name = name;
	graft->covered_parent = parent;
	if (!graft->covered)
		atomic_fetch_add(&graft->above->covers, 1);
	graft->covered = object;
	pv_forget_name(graft->connection, parent, name);
	return 0;
}

void pv_graft_detach(struct pv_graft *graft)
{
	if (graft->covered) {
		graft->covered = 0;
		atomic_fetch_sub(&graft->above->covers, 1);
	}
}

void pv_graft_close_snapshots(struct pv_graft *graft)
{
	for (unsigned i = 1;; i++) {
		struct pv_graft *snapshot = pv_graft_at(graft->connection, i);

		if (!snapshot)
			return;
		if (snapshot->snapshot && snapshot->above == graft && snapshot->state == PV_GRAFT_OPEN &&
			pv_forget_graft(snapshot, 2))
			pv_graft_close(snapshot, false);
	}
}

struct pv_graft *pv_mounts_find(struct pv_mounts *mounts, const char *dataset)
{
	struct pv_graft *graft = NULL;

	for (struct pv_connection *c = mounts->connections; c && !graft; c = c->next) {
		if (!c->ended)
			graft = pv_graft_find(c, dataset);
	}
	return graft;
}

/* The children's mount-point directories may be gone, or be other objects now. */
static void attach_again(struct pv_graft *graft)
{
	for (unsigned i = 1;; i++) {
		struct pv_graft *child = pv_graft_at(graft->connection, i);

		if (!child)
			return;
		if (child->above == graft && !child->snapshot && child->covered &&
			pv_graft_attach(child, NULL) < 0)
			pv_graft_detach(child);
	}
}

static int roll_back(
	struct pv_graft *graft, struct zpl_fs *fs, const char *snap, bool destroy_later, struct pv_error *err)
{
	struct pv_connection *connection = graft->connection;
	struct pv_names *names = NULL;
	int r, resumed;

	pv_names_collect(connection, graft, &names); /* incomplete on -ENOMEM: names then expire late */
	pv_forget_data(connection, graft);
	r = zpl_fs_suspend(fs);
	if (r < 0) {
		pv_names_free(names);
		return pv_fail(err, r, graft->name, "cannot suspend the file system: %s", pv_strerror(r));
	}
	graft->rolling = true;
	r = pv_snapshot_rollback(graft->name, snap, destroy_later, zpl_fs_owner(fs), err);
	if (r == 0)
		atomic_fetch_add(&graft->epoch, 1);
	resumed = zpl_fs_resume(fs);
	if (resumed < 0) {
		r = pv_fail(
			err, resumed, graft->name, "the file system cannot go on: %s", pv_strerror(resumed));
		pv_remedy(err, "close and open the volume");
	}
	if (r == 0 || resumed < 0) {
		pv_names_collect(connection, graft, &names);
		pv_forget_data(connection, graft);
		pv_names_forget(connection, names);
		pv_forget_data(connection, graft);
		graft->rolling = false;
		attach_again(graft);
	}
	graft->rolling = false;
	pv_names_free(names);
	return r;
}

int pv_mounts_rollback(struct pv_mounts *mounts, const char *dataset, const char *snap, bool destroy_later,
	struct pv_error *err)
{
	struct pv_graft *graft;
	struct zpl_fs *fs;
	int r;

	PV_LOCK_SCOPE(&mounts->config);
	graft = pv_mounts_find(mounts, dataset);
	if (!graft)
		return pv_snapshot_rollback(dataset, snap, destroy_later, NULL, err);
	if (graft->read_only)
		return pv_fail(err, -EROFS, dataset, "the file system is mounted read-only");
	pv_graft_close_snapshots(graft);
	r = pv_graft_use(graft, &fs);
	if (r < 0)
		return pv_fail(err, r, dataset, "the file system is not mounted");
	r = roll_back(graft, fs, snap, destroy_later, err);
	pv_graft_unuse(graft);
	return r;
}
