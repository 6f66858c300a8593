/*
 * The file systems of one pool, served through FUSE: which datasets are mounted where, in one FUSE connection
 * or several; .zfs/snapshot; inode numbers.
 *
 * An ordinary user's fusermount3 may not mount inside a user's own FUSE mount, so without user_allow_other in
 * /etc/fuse.conf child datasets are *grafted*: served inside the parent's connection at their mount-point
 * directory, with their own statfs, -EXDEV across, own inode range. With root or user_allow_other each
 * dataset is a mount of its own (allow_other,default_permissions; for an ordinary owner every uid but his and
 * root's is refused). st_ino and nodeid are graft index << 48 | object number (nodeid of the connection's
 * root is FUSE's 1).
 */
#ifndef PV_FS_MOUNT_H
#define PV_FS_MOUNT_H

#include "base/error.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <sys/types.h>

struct pv_mounts; /* all mounts of the process's pool */

struct pv_mounts_options {
	const char *pool;
	const char *at; /* where the pool's root file system goes; NULL = its mountpoint property */
	bool read_only;
	uid_t owner;      /* with allow_other: the only uid served besides root; (uid_t)-1 = everybody */
	bool allow_other; /* decided by the caller: root, or user_allow_other is set */
	bool separate;    /* one FUSE mount per dataset (needs allow_other); false = graft */
	/*
	 * Called when a mount has ended by itself (the user ran fusermount3 -u) and its file systems are
	 * closed; on a thread of the mounts, so it must not call pv_mounts_stop() itself.
	 */
	void (*ended)(const char *mountpoint, void *private);
	void *private;
};

/*
 * Mounts everything that is mountable (canmount=on, key available), parents first. With `at`, the mount
 * points of children are relative to it as with an altroot. The mount point must be an empty directory
 * (created if absent) that the caller owns: -ENOTEMPTY, -EACCES, -ENOTDIR name it. On failure nothing stays
 * mounted.
 */
int pv_mounts_start(
	const struct pv_mounts_options *options, struct pv_mounts **ret_mounts, struct pv_error *err);

/*
 * Unmounts everything, children first. -EBUSY when in use (holders below), then all stays mounted; `force`
 * detaches lazily and goes on (open files get -EIO). On success *mounts is released. While the pool is
 * suspended it is always -EBUSY; `force` then detaches the mounts, and the rest is left to the process's end.
 */
int pv_mounts_stop(struct pv_mounts *mounts, bool force, struct pv_error *err);

/*
 * [{"dataset","mountpoint","reason"}]: what pv_mounts_start() could not mount besides the pool's root file
 * system (a child that fails does not keep the others from being mounted). Caller puts it.
 */
struct json_object *pv_mounts_failed(struct pv_mounts *mounts);

/*
 * Mounts (grafts) a dataset created or set to canmount=on later; unmounts one. A snapshot's name
 * ("DATASET@SNAP") given to remove closes it if someone has looked into it by .zfs/snapshot: needed before it
 * can be destroyed.
 */
int pv_mounts_add(struct pv_mounts *mounts, const char *dataset, struct pv_error *err);
int pv_mounts_remove(struct pv_mounts *mounts, const char *dataset, bool force, struct pv_error *err);

/* Rolls a mounted (or unmounted) dataset back: suspend, pv_snapshot_rollback(), resume, kernel caches
 * dropped. */
int pv_mounts_rollback(struct pv_mounts *mounts, const char *dataset, const char *snap, bool destroy_later,
	struct pv_error *err);

/* [{"dataset","mountpoint","kind":"fuse"|"graft","read_only"}] */
struct json_object *pv_mounts_list(struct pv_mounts *mounts);

/*
 * Processes that hold the mounts busy, found by mount id in /proc/PID/fdinfo, maps, cwd and root links,
 * without touching a path below the mounts: [{"pid","command","what":"cwd|file|map|root"}]. Only the caller's
 * processes are visible to an ordinary user.
 */
struct json_object *pv_mounts_holders(struct pv_mounts *mounts);

/* Waits until everything of every mounted file system is on disk. */
int pv_mounts_sync(struct pv_mounts *mounts);

/*
 * Checks that need no pool: is /dev/fuse there and usable, fusermount3 there and setuid, user_allow_other
 * set. 0 or -errno with the remedy (used before a volume is created, and by doctor).
 */
struct pv_fuse_state {
	bool device, device_open, fusermount, setuid, user_allow_other;
};
int pv_fuse_check(struct pv_fuse_state *ret_state, struct pv_error *err);

#endif
