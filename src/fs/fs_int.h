/*
 * Private to fs/: one FUSE connection, the objsets it serves (grafts), and the nodes that the kernel knows.
 *
 *   pv_mounts --< connection (one FUSE mount) --< graft (one objset: head, child, snapshot) --< entry (one
 * nodeid)
 *
 * Lock order: pv_mounts.config > graft.lock > connection.grafts_lock > shard.lock. None of them but `config`
 * (which no request takes) is held across a zpl call, and none across a notification to the kernel: the
 * kernel may hold a directory's lock for a request that waits for us.
 */
#ifndef PV_FS_FS_INT_H
#define PV_FS_FS_INT_H

#include "base/error.h"
#include "fs/mount.h"
#include "fs/session_int.h"
#include "zpl/zpl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* A nodeid is graft index << 48 | object number; the root of the connection is FUSE's 1. */
#define PV_OBJECT_BITS 48
#define PV_OBJECT_MASK ((UINT64_C(1) << PV_OBJECT_BITS) - 1)
#define PV_GRAFTS_MAX (1U << 16)
/* The directories that no objset has: as the kernel's OpenZFS numbers them. */
#define PV_CTL_ROOT UINT64_C(0xFFFFFFFFFFFF)      /* .zfs */
#define PV_CTL_SNAPSHOTS UINT64_C(0xFFFFFFFFFFFD) /* .zfs/snapshot */
#define PV_CTL_FIRST UINT64_C(0xFFFFFFFFFF00)

#define PV_SHARDS 64
/* A node with its dnode, bonus buffer and handle costs a few KiB that only the kernel's forgetting frees. */
#define PV_NODES_MAX UINT64_C(100000)

/* We are the only writer, so the kernel may believe what it knows until we tell it otherwise. */
#define PV_TIMEOUT_LONG (30 * 86400.0)
/* After a write, allocated blocks are right only once a transaction group has been written. */
#define PV_SETTLE_SECONDS 20

struct pv_connection;

enum pv_graft_state { PV_GRAFT_CLOSED, PV_GRAFT_CHANGING, PV_GRAFT_OPEN };

/* One objset served in a connection. Never freed before the connection, so that its index stays its own. */
struct pv_graft {
	struct pv_connection *connection;
	unsigned index;
	char *name; /* dataset or DATASET@SNAP */
	struct pv_graft
		*above; /* what it hangs in: a child's parent, a snapshot's file system; NULL for index 0 */
	bool snapshot;
	uint64_t objset;  /* of a snapshot */
	char *mountpoint; /* absolute; NULL for a snapshot */

	/* A child: the directory of `above` that it covers, and that directory's place. */
	_Atomic uint64_t covered; /* object; 0 = detached */
	uint64_t covered_parent;  /* nodeid */
	char *covered_name;

	pthread_mutex_t lock; /* state, fs, users */
	pthread_cond_t changed;
	enum pv_graft_state state;
	unsigned users; /* requests that need `fs` beyond a node they hold */
	struct zpl_fs *fs;
	_Atomic uint64_t root; /* object of its root directory */
	bool read_only;

	_Atomic uint64_t nodes;    /* entries */
	_Atomic uint64_t covers;   /* children attached to directories of this one */
	_Atomic int64_t last_used; /* monotonic seconds */
	_Atomic uint32_t epoch;    /* raised by a rollback: mixed into the generation of regular files */
	_Atomic bool rolling;      /* between a rollback and the end of its invalidations */

	/* .zfs/snapshot: what it contained at the last look, and since when. */
	uint64_t listing;
	struct timespec listing_time;
};

struct pv_entry {
	struct pv_entry *next;
	uint64_t nodeid;
	uint64_t nlookup;
	struct zpl_node *node; /* one reference */
	struct pv_graft *graft;
	uint32_t type;              /* S_IFMT bits */
	_Atomic bool no_caps;       /* known to carry no security.capability */
	_Atomic int64_t last_write; /* monotonic seconds, 0 = never */
};

struct pv_shard {
	pthread_mutex_t lock;
	struct pv_entry **buckets;
	size_t nbuckets, count;
};

struct pv_connection {
	struct pv_mounts *mounts;
	struct pv_connection *next; /* newest first: children before the parents they sit on */
	struct pv_session *session;
	char *mountpoint;
	bool read_only;
	uid_t owner; /* (uid_t)-1 = everybody */
	pthread_rwlock_t grafts_lock;
	struct pv_graft **grafts; /* PV_GRAFTS_MAX */
	unsigned ngrafts;
	struct pv_shard shards[PV_SHARDS];
	_Atomic uint64_t nodes;
	_Atomic bool ended;    /* the session is over */
	_Atomic bool stopping; /* its end is our doing */
};

/* A node in use by a request. Cleaned up by pv_node_put(). */
struct pv_noderef {
	struct zpl_node *node;
	struct pv_graft *graft;
	struct pv_entry *entry; /* valid while the kernel knows the nodeid, so during any request about it */
};

/* ---- nodes.c ---- */

int pv_nodes_init(struct pv_connection *connection);
/* Drops every entry; no request may run any more. */
void pv_nodes_clear(struct pv_connection *connection);
void pv_nodes_fini(struct pv_connection *connection);
/* -ESTALE when the kernel does not know it (any more). */
int pv_node_get(struct pv_connection *connection, uint64_t nodeid, struct pv_noderef *ret_ref);
void pv_node_put(struct pv_noderef *ref);
#define pv_autonode __attribute__((cleanup(pv_node_put)))
/* Counts one lookup of the node, whose reference is consumed (also on failure). */
int pv_node_add(struct pv_graft *graft, struct zpl_node *node, uint32_t type, struct pv_entry **ret_entry);
void pv_node_forget(struct pv_connection *connection, uint64_t nodeid, uint64_t count);
bool pv_node_known(struct pv_connection *connection, uint64_t nodeid);
/* The nodeids of the graft (NULL = all) of a type (0 = all), malloc'd. Shards [first, first + n). */
int pv_nodes_list(struct pv_connection *connection, const struct pv_graft *graft, uint32_t type,
	unsigned first, unsigned n, uint64_t **ret_ids, size_t *ret_count);
uint64_t pv_nodeid(const struct pv_graft *graft, uint64_t object);
int64_t pv_now(void); /* monotonic seconds */

/* ---- graft.c ---- */

int pv_graft_new(struct pv_connection *connection, const char *name, struct pv_graft *above, bool snapshot,
	struct pv_graft **ret_graft);
void pv_graft_free(struct pv_graft *graft);
/* By index; NULL if there is none. */
struct pv_graft *pv_graft_at(struct pv_connection *connection, unsigned index);
/* Uses the objset, opening a snapshot's if it is closed. -ENOENT when a child or head is not open. */
int pv_graft_use(struct pv_graft *graft, struct zpl_fs **ret_fs);
void pv_graft_unuse(struct pv_graft *graft);
int pv_graft_open(struct pv_graft *graft, bool read_only, struct pv_error *err);
/* Ends the objset: -EBUSY while the kernel knows nodes of it, unless `force`. */
int pv_graft_close(struct pv_graft *graft, bool force);
/* The child that covers the directory, or NULL. */
struct pv_graft *pv_graft_covering(struct pv_graft *graft, uint64_t object);
/* The graft of a snapshot of `of`'s file system, not opened yet. -ENOENT when there is no such snapshot. */
int pv_graft_snapshot(struct pv_graft *of, const char *snap, struct pv_graft **ret_graft);
/* The graft of this dataset (attached) or snapshot (open), or NULL. */
struct pv_graft *pv_graft_find(struct pv_connection *connection, const char *name);

/* ---- ops.c and its parts ---- */

extern const struct fuse_lowlevel_ops pv_fuse_ops;

bool pv_refused(fuse_req_t req); /* answers -EACCES itself */
void pv_fill_stat(const struct pv_graft *graft, const struct zpl_attr *attr, struct stat *ret_stat);
double pv_attr_timeout(const struct pv_graft *graft, const struct pv_entry *entry, uint64_t nodeid);
/* Looks a node's attributes up and counts a lookup; consumes the node. */
int pv_make_entry(struct pv_graft *graft, struct zpl_node *node, const struct zpl_attr *attr,
	struct fuse_entry_param *ret_entry);
void pv_reply_node(
	fuse_req_t req, struct pv_graft *graft, struct zpl_node *node, const struct zpl_attr *attr);
bool pv_is_ctl(uint64_t nodeid);
bool pv_is_root(const struct pv_noderef *ref);
int pv_check_name(const char *name);
/* For data that is changed by someone who may not keep set-id bits: drops them and file capabilities. */
int pv_drop_privileges(const struct pv_noderef *ref, bool set_ids);

/* ops_dir.c */
void pv_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void pv_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);

/* ops_data.c */
void pv_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void pv_op_write(
	fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off, struct fuse_file_info *fi);
void pv_op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);
void pv_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);
void pv_op_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t length, struct fuse_file_info *fi);
void pv_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void pv_op_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void pv_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void pv_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void pv_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ---- acl.c ---- */

#define PV_ACL_MAX (4 + 8 * 1024)

/* What a new object gets: its mode, and ACLs of so many bytes (0 = none). */
struct pv_inherited {
	uint32_t mode;
	size_t access_length, default_length;
	uint8_t access[PV_ACL_MAX], defaults[PV_ACL_MAX];
};
/* From the directory's default ACL, or if there is none, from the umask. */
int pv_acl_inherit(struct zpl_node *dir, uint32_t mode, uint32_t umask, struct pv_inherited *ret_inherited);
/* The ACLs to the object, which was made with `mode`. */
int pv_acl_apply(struct zpl_node *node, const struct pv_inherited *inherited);

/* ---- ctl.c: .zfs and .zfs/snapshot ---- */

void pv_ctl_lookup(fuse_req_t req, struct pv_connection *connection, uint64_t parent, const char *name);
/* .zfs in a root directory. */
void pv_ctl_reply_root(fuse_req_t req, struct pv_graft *graft);
int pv_ctl_stat(struct pv_graft *graft, uint64_t nodeid, struct stat *ret_stat);
int pv_ctl_readdir(struct pv_graft *graft, uint64_t nodeid, uint64_t cookie, zpl_emit_fn emit, void *private);
/* The file system whose .zfs the nodeid belongs to, or NULL. */
struct pv_graft *pv_ctl_graft(struct pv_connection *connection, uint64_t nodeid);

/* ---- janitor.c: one thread that talks to the kernel about what it should forget ---- */

struct pv_janitor;
int pv_janitor_start(struct pv_mounts *mounts, struct pv_janitor **ret_janitor);
struct pv_janitor *pv_janitor_stop(struct pv_janitor *janitor);
void pv_janitor_prune(struct pv_janitor *janitor, uint64_t nodes);
/* The kernel holds data of a node that was refused: it shall read it anew. */
void pv_janitor_repair(struct pv_janitor *janitor, struct pv_connection *connection, uint64_t nodeid);
/* The connection's session ended: the janitor ends what it served and tells the owner unless we did it. */
void pv_janitor_ended(struct pv_janitor *janitor, struct pv_connection *connection);
/* No job names the connection any more when this returns. */
void pv_janitor_drain(struct pv_janitor *janitor, struct pv_connection *connection);

/* ---- forget.c: making the kernel forget; never on a thread that serves requests ---- */

struct pv_names; /* (directory nodeid, name) pairs */
/* Every name in the directories that the kernel knows, of one graft (NULL = all), adding to *names (NULL at
 * first). */
int pv_names_collect(struct pv_connection *connection, const struct pv_graft *graft, struct pv_names **names);
/* Invalidates them all. */
void pv_names_forget(struct pv_connection *connection, struct pv_names *names);
struct pv_names *pv_names_free(struct pv_names *names);
/* Writes back and drops the kernel's cached data (and attributes) of every node of the graft (NULL = all). */
void pv_forget_data(struct pv_connection *connection, const struct pv_graft *graft);
/* Makes the kernel drop about `want` unused nodes. */
uint64_t pv_forget_some(struct pv_connection *connection, uint64_t want, unsigned *inout_shard);
/* Drops the graft's name; waits up to `seconds` for the graft's nodes to be forgotten. True when none is
 * left. */
bool pv_forget_graft(struct pv_graft *graft, unsigned seconds);
void pv_forget_name(struct pv_connection *connection, uint64_t parent, const char *name);

/* ---- holders.c ---- */

/* Working directories of processes below the mount point, relative to it. Caller frees each and the array. */
size_t pv_cwds_below(const char *mountpoint, char ***ret_paths);

/* ---- mount.c ---- */

struct pv_mounts {
	struct pv_mounts_options options; /* strings are ours */
	pthread_mutex_t config;           /* the list, and every change of what is mounted */
	pthread_rwlock_t list; /* the list for readers that must not wait for a change; inside config */
	struct pv_connection *connections;
	struct json_object *failed;
	struct pv_janitor *janitor;
};

/* ---- tree.c: mount points ---- */

/* "/a//b/" -> "/a/b"; NULL when it is not absolute or has ".." in it. Caller frees. */
char *pv_path_clean(const char *path);
/* What of `path` lies below `point` ("" = equal), or NULL. */
const char *pv_path_below(const char *path, const char *point);
/* A directory outside our mounts: created if absent, checked, *ret_path its canonical path; caller frees. */
int pv_prepare_host_dir(const char *path, char **ret_path, struct pv_error *err);
/*
 * The directory at `path` relative to the root of the graft's file system, created where absent, without
 * going through the kernel. *ret_name is its last component; caller frees.
 */
int pv_prepare_graft_dir(struct pv_graft *graft, const char *path, uint64_t *ret_object, uint64_t *ret_parent,
	char **ret_name, struct pv_error *err);

/* ---- rollback.c ---- */

/* Puts a child (again) over its mount-point directory. Under mounts->config. */
int pv_graft_attach(struct pv_graft *graft, struct pv_error *err);
void pv_graft_detach(struct pv_graft *graft);
/* Closes the snapshots of the graft's file system that nobody uses. */
void pv_graft_close_snapshots(struct pv_graft *graft);
/* The attached graft of a dataset, in any connection. Under mounts->config. */
struct pv_graft *pv_mounts_find(struct pv_mounts *mounts, const char *dataset);
/* Releases all that the connection served; its session is over. */
void pv_connection_release(struct pv_connection *connection);

#endif
