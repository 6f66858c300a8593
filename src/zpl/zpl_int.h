/*
 * Private to zpl/: the structures behind zpl.h.
 *
 * Locks, in the order in which they may be taken:
 *
 *   fs teardown (readers are the operations; writers suspend, resume and unmount)
 *   fs rename_lock (renames of directories between directories)
 *   node xattr_lock
 *   name locks (one or two stripes, by ascending stripe)
 *   node range lock
 *   --- dmu_tx_assign() ---
 *   node entries lock (directories)
 *   node lock (attributes)
 *   shard lock (the table of nodes)
 *
 * Those below the line are short and taken by threads that hold an assigned transaction; hence none of them
 * may be held across dmu_tx_assign(). Those above are never wanted by a thread with a transaction, so waiting
 * for a transaction group while holding them delays only operations on the same names or ranges.
 *
 * Internal functions return 0 or a negative errno, like the public ones; functions of the DMU return positive
 * ones, which zpl_error() translates.
 */
#ifndef PV_ZPL_ZPL_INT_H
#define PV_ZPL_ZPL_INT_H

#include "pool/zpl_format.h"
#include "zpl/zpl.h"

/* OpenZFS uses the tag of our struct zpl_attr for the enum of attribute numbers. */
#include <sys/zfs_acl.h>
#define zpl_attr zfs_zpl_attr
#include <sys/zfs_sa.h>
#undef zpl_attr

#include <sys/dmu_objset.h>
#include <sys/dmu_tx.h>
#include <sys/dnode.h>
#include <sys/dbuf.h>
#include <sys/dsl_dataset.h>
#include <sys/dsl_dir.h>
#include <sys/dsl_pool.h>
#include <sys/dsl_prop.h>
#include <sys/sa.h>
#include <sys/spa.h>
#include <sys/txg.h>
#include <sys/u8_textprep.h>
#include <sys/zap.h>
#include <sys/zfs_rlock.h>
#include <sys/zfs_znode.h>
#include <sys/zil.h>

#include <pthread.h>

#define ZPL_SHARDS 256u
#define ZPL_BUCKETS 64u /* per shard */
#define ZPL_NAME_STRIPES 512u
#define ZPL_NAME_MAX 255u
#define ZPL_LINK_MAX 0x7fffffffULL
#define ZPL_QUOTAS 6

enum zpl_state {
	ZPL_LOADING, /* in the table, not usable yet */
	ZPL_READY,
	ZPL_DYING, /* last reference gone; on its way out of the table */
};

struct zpl_node {
	struct zpl_fs *fs;
	uint64_t object, generation;
	struct zpl_node *hash_next; /* shard lock */
	bool hashed;                /* shard lock */
	enum zpl_state state;       /* shard lock */
	int64_t refs;               /* atomic; 1 -> 0 and 0 -> 1 only under the shard lock */
	struct zpl_node *reap_next;

	/* Set at load and changed only by suspend and resume. NULL handle: the node is stale. */
	sa_handle_t *hdl;
	dnode_t *dn; /* pinned by the handle */
	bool old_format;
	bool is_xattr;

	pthread_mutex_t lock; /* what follows, up to the next comment on locks */
	uint64_t mode, size, links, uid, gid, parent, pflags, projid, rdev;
	uint64_t atime[2], mtime[2], ctime[2], crtime[2];
	uint32_t blksz; /* also under the whole-file range lock */
	bool atime_dirty;
	bool unlinked; /* links are 0 and the object is in the unlinked set */

	uint64_t last_txg; /* atomic: highest transaction group in which this node or a name of it changed */

	pthread_rwlock_t
		entries; /* directories: readers add and remove entries, the writer removes the directory */
	zfs_rangelock_t range; /* data */

	pthread_rwlock_t xattr_lock;
	nvlist_t *xattr_sa;    /* under xattr_lock; valid if xattr_loaded */
	uint64_t xattr_object; /* the hidden directory; valid if xattr_loaded */
	bool xattr_loaded;
};

struct zpl_shard {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a node became ready or left */
	struct zpl_node *bucket[ZPL_BUCKETS];
};

struct zpl_fs {
	char *name;
	int64_t refs; /* atomic: the mount and every node */

	objset_t *os;
	dsl_dataset_t *ds;
	dsl_pool_t *dp;
	bool set_up;         /* master node read, callbacks registered */
	zilog_t *zilog;      /* while replaying */
	uint64_t replay_end; /* where the file ends whose block is being replayed, or 0 */
	uint64_t moved_txg;  /* atomic: highest transaction group in which a directory was renamed */
	sa_attr_type_t *table;
	bool snapshot;
	bool owned_read_only; /* ownership without the right to write */
	bool forced_read_only;
	uint64_t objset_id;
	uint64_t version, norm, utf8only, casesensitivity;
	uint64_t root, unlinked_set;
	uint64_t quota[ZPL_QUOTAS]; /* user, group, project; then their object quotas; 0 = none set */

	/* Live property values, stored from syncing context: single words, read without a lock. */
	uint64_t recordsize, atime, relatime, xattr, readonly, snapdir, acltype, aclmode;

	pthread_rwlock_t teardown;
	pthread_mutex_t suspend_lock;
	pthread_cond_t resumed;
	bool suspended; /* suspend_lock and teardown */
	bool dead;      /* teardown: unmounted by force or resume failed */
	bool replaying;

	pthread_mutex_t rename_lock;
	pthread_rwlock_t names[ZPL_NAME_STRIPES];
	struct zpl_shard shards[ZPL_SHARDS];

	/* The reaper frees the storage of unlinked nodes, see unlinked.c. */
	pthread_t reaper;
	bool reaper_running;
	pthread_mutex_t reap_lock;
	pthread_cond_t reap_wake;
	struct zpl_node *reap_first, **reap_last;
	unsigned reap_count;
	bool reap_stop;
	uint64_t *drain; /* objects found in the unlinked set at mount */
	size_t ndrain;
};

/* ---- super.c ---- */

/* Begins an operation: 0, or -EIO when the file system is dead. Nests within a thread. */
int zpl_enter(struct zpl_fs *fs);
/* As zpl_enter(), but succeeds on dead file systems too. */
void zpl_enter_any(struct zpl_fs *fs);
void zpl_exit(struct zpl_fs *fs);
/* As zpl_enter(), and -ESTALE if the node is stale, -EROFS if `write` and the file system is read-only. */
int zpl_enter_node(struct zpl_node *node, bool write);
void zpl_fs_put(struct zpl_fs *fs);
bool zpl_no_space(void);
/* From a positive DMU errno to ours. */
int zpl_error(int error);
/* -EDQUOT if the owners have used up a quota of space (or of objects). */
int zpl_check_quota(struct zpl_fs *fs, uint64_t uid, uint64_t gid, uint64_t projid, bool objects);

/* ---- node.c ---- */

enum { ZPL_GET_UNLINKED = 1 }; /* also nodes without a name */
int zpl_node_get(struct zpl_fs *fs, uint64_t object, unsigned flags, struct zpl_node **ret_node);
/*
 * The node of an object that `tx` has just allocated: writes its attributes and puts it in the table. On
 * failure the object is freed again.
 */
int zpl_node_new(struct zpl_fs *fs, uint64_t object, const struct zpl_znode *znode, dmu_tx_t *tx,
	struct zpl_node **ret_node);
/* Undoes zpl_node_new() in the same transaction: frees object and node. */
void zpl_node_discard(struct zpl_node *node, dmu_tx_t *tx);
/* Last step of a dying node: out of the table, memory freed. */
void zpl_node_finish(struct zpl_node *node);
/* For suspend and resume: lets go of the DMU, and takes hold again. */
void zpl_node_detach(struct zpl_node *node);
int zpl_node_attach(struct zpl_node *node);
/* Removes a stale node from the table, so that its number can be used by another. */
void zpl_node_unhash(struct zpl_node *node);
/* Calls fn for every node in the table; only with teardown held for writing. */
void zpl_node_each(struct zpl_fs *fs, void (*fn)(struct zpl_node *node, void *private), void *private);

static inline bool zpl_is_dir(const struct zpl_node *node)
{
	return S_ISDIR(node->mode);
}

/* ---- attr.c ---- */

void zpl_now(uint64_t ret_time[2]);
/* The owner ids of a znode as POSIX ids: those of foreign domains are nobody's. */
uint32_t zpl_posix_id(uint64_t id);
/* Under node->lock. */
void zpl_fill_attr(struct zpl_node *node, struct zpl_attr *ret_attr);
/* Notes an access under the atime rules; written with the node's next change or when it is let go. */
void zpl_accessed(struct zpl_node *node);
/* Under node->lock: sets times in memory as a change of contents (attributes) does. */
void zpl_content_changed(struct zpl_node *node, const uint64_t now[2]);
void zpl_status_changed(struct zpl_node *node, const uint64_t now[2]);
/* Mode and trivial ACL alone, leaving a POSIX ACL as it is. */
int zpl_set_mode(struct zpl_node *node, uint32_t mode);
uint64_t zpl_rdev_from_posix(dev_t dev);
dev_t zpl_rdev_to_posix(uint64_t rdev);

/* ---- dir.c ---- */

struct zpl_name_lock {
	pthread_rwlock_t *first, *second;
};
void zpl_names_lock(struct zpl_name_lock *ret_lock, struct zpl_node *dir, const char *name, bool exclusive);
void zpl_names_lock2(struct zpl_name_lock *ret_lock, struct zpl_node *dir1, const char *name1,
	struct zpl_node *dir2, const char *name2);
void zpl_names_unlock(struct zpl_name_lock *lock);
/* -EINVAL, -ENAMETOOLONG, -EILSEQ. */
int zpl_name_check(const struct zpl_fs *fs, const char *name, bool adding);
/* The entry's raw value; -ENOENT. Name lock held. */
int zpl_entry_lookup(struct zpl_node *dir, const char *name, uint64_t *ret_value);
int zpl_lookup_node(struct zpl_node *dir, const char *name, unsigned flags, struct zpl_node **ret_node);
/*
 * Within a transaction and with dir->entries held: adds an entry for `node` and updates directory and node.
 * `fresh`: the node was made in this transaction and already counts the link.
 */
int zpl_entry_add(struct zpl_node *dir, const char *name, struct zpl_node *node, bool fresh,
	const uint64_t now[2], dmu_tx_t *tx);
/* Removes the entry; updates the directory, not the node. */
int zpl_entry_remove(
	struct zpl_node *dir, const char *name, bool is_dir, const uint64_t now[2], dmu_tx_t *tx);

/* ---- create.c ---- */

struct zpl_new {
	uint32_t mode;
	uint64_t rdev;
	const char *target; /* symlinks */
	const struct zpl_cred *cred;
	bool xattr; /* object of the hidden attribute space */
	/* Log replay: the object to claim, its dnode slots, generation and creation time. */
	uint64_t claim;
	int dnodesize;
	uint64_t generation;
	const uint64_t *crtime;
};
int zpl_make(struct zpl_node *dir, const char *name, const struct zpl_new *new, struct zpl_node **ret_node,
	struct zpl_attr *ret_attr);
/* Fills what a new object in `dir` gets. */
void zpl_new_znode(struct zpl_node *dir, const struct zpl_new *new, struct zpl_znode *ret_znode);

/* ---- file.c, space.c ---- */

int zpl_file_write(struct zpl_node *node, uint64_t offset, const struct iovec *iov, int iovcnt, bool append,
	size_t *ret_written);
int zpl_file_read(struct zpl_node *node, uint64_t offset, size_t length, void *buffer, size_t *ret_length);
uint64_t zpl_max_blksz(const struct zpl_fs *fs);
/* Within a transaction: raises the block size of a file that still is one block. */
void zpl_grow_blksz(struct zpl_node *node, uint64_t size, dmu_tx_t *tx);
uint64_t zpl_next_blksz(const struct zpl_node *node, uint64_t end);
int zpl_set_size(struct zpl_node *node, uint64_t size);
int zpl_free_range(struct zpl_node *node, uint64_t offset, uint64_t length);

/* ---- remove.c ---- */

int zpl_remove(struct zpl_node *dir, const char *name, bool want_dir);

/* ---- unlinked.c ---- */

/* Within a transaction, under node->lock: LINKS is 0 now, into the set with it. */
int zpl_unlinked_add(struct zpl_node *node, dmu_tx_t *tx);
/* Takes over a dying node whose storage is to be freed. */
void zpl_reap(struct zpl_node *node);
int zpl_reaper_start(struct zpl_fs *fs);
/* Waits for what is queued, leaves what was found at mount. */
void zpl_reaper_stop(struct zpl_fs *fs);

/* ---- xattr.c ---- */

int zpl_xattr_load(struct zpl_node *node);
void zpl_xattr_forget(struct zpl_node *node);
/* -EOVERFLOW when the value does not fit the SA form. */
int zpl_xattr_set_sa(struct zpl_node *node, const char *name, const void *value, size_t size);
/* Makes a stored POSIX access ACL agree with a new mode. */
int zpl_posix_acl_chmod(struct zpl_node *node, uint32_t mode);
int zpl_xattr_make_dir(struct zpl_node *node, const struct zpl_new *new, struct zpl_node **ret_dir);

/* ---- log.c: called in every transaction that changes something ---- */

void zpl_log_create(struct zpl_node *dir, struct zpl_node *node, const char *name, dmu_tx_t *tx);
void zpl_log_link(struct zpl_node *dir, struct zpl_node *node, const char *name, dmu_tx_t *tx);
void zpl_log_remove(struct zpl_node *dir, struct zpl_node *node, const char *name, dmu_tx_t *tx);
void zpl_log_rename(struct zpl_node *sdir, const char *sname, struct zpl_node *tdir, const char *tname,
	struct zpl_node *node, struct zpl_node *target, unsigned flags, dmu_tx_t *tx);
void zpl_log_write(struct zpl_node *node, uint64_t offset, uint64_t length, dmu_tx_t *tx);
void zpl_log_truncate(struct zpl_node *node, uint64_t offset, uint64_t length, dmu_tx_t *tx);
void zpl_log_setattr(struct zpl_node *node, unsigned mask, dmu_tx_t *tx);
void zpl_log_setxattr(struct zpl_node *node, const char *name, const void *value, size_t size, dmu_tx_t *tx);

/* ---- replay.c ---- */

/* Replays what another implementation left in the intent log. No operation may run. */
int zpl_replay(struct zpl_fs *fs, struct pv_error *err);

#endif
