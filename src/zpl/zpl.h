/*
 * The POSIX layer: file-system semantics on OpenZFS's DMU, SA and ZAP, byte-compatible with the kernel's ZPL.
 * This header needs no OpenZFS header; it is what the FUSE server (fs/) is written against.
 *
 * Permission checks are the caller's (the kernel's default_permissions); what POSIX ties to an operation
 * itself is done here: set-group-id directories, link counts, times, sticky names being valid, read-only
 * refusal (-EROFS). All functions return 0 or a negative errno and may be called from any number of threads.
 * While one waits for a transaction group it holds only locks on the names or byte ranges it works on.
 *
 * Every change is one DMU transaction; logging (the intent log) will be added at the points marked by
 * zpl_log_*() calls in log.c without changing this interface.
 */
#ifndef PV_ZPL_ZPL_H
#define PV_ZPL_ZPL_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

struct zpl_fs;   /* a mounted objset: a file system's head, or a snapshot (read-only) */
struct zpl_node; /* a file, directory, ... in memory; reference-counted; at most one per object and zpl_fs */

/* ---- file systems ---- */

/*
 * Owns the objset "POOL/fs" or "POOL/fs@snap", reads its master node, drains the unlinked set (read-write
 * only), opens and replays its intent log (a foreign kernel's log records of the supported types; -ENOTSUP
 * names others). -EBUSY owned already, -EACCES native key not loaded, -EUCLEAN structures damaged.
 */
int zpl_fs_mount(const char *name, bool read_only, struct zpl_fs **ret_fs, struct pv_error *err);
/*
 * Ends it: no node may be in use by others any more (`force`: nodes still referenced become stale, every
 * later operation on them is -EIO). Waits until everything is on disk.
 */
int zpl_fs_unmount(struct zpl_fs *fs, bool force);
const char *zpl_fs_name(const struct zpl_fs *fs);
bool zpl_fs_read_only(const struct zpl_fs *fs);
bool zpl_fs_is_snapshot(const struct zpl_fs *fs);
uint64_t zpl_fs_objset(const struct zpl_fs *fs); /* objset id */
/* atime policy and the like as FUSE needs them: live values of properties. */
bool zpl_fs_snapdir_visible(const struct zpl_fs *fs);
/* The tag under which the dataset is owned, for pv_snapshot_rollback(). */
void *zpl_fs_owner(struct zpl_fs *fs);
/*
 * Blocks new operations, waits for running ones, writes everything out and drops what is cached, keeping
 * ownership; then the dataset may be rolled back; resume re-reads every cached node: those whose object is
 * gone or of another generation become stale (-ESTALE). If resume fails the file system is dead: every
 * operation is -EIO.
 */
int zpl_fs_suspend(struct zpl_fs *fs);
int zpl_fs_resume(struct zpl_fs *fs);
struct statvfs;
int zpl_fs_statvfs(struct zpl_fs *fs, struct statvfs *ret_stat);
/* Waits until everything that completed before is on disk. */
int zpl_fs_sync(struct zpl_fs *fs);
/*
 * Set by the engine: when true, operations that allocate answer -ENOSPC (the container's backing store is
 * nearly full, see block/file.h); reads and deletions go on. Process-wide.
 */
void zpl_set_no_space(bool no_space);
/* Set by the engine too: bytes of new data for which there is room below; statvfs shows the smaller of that
 * and what the pool has. Process-wide; UINT64_MAX (the start) = no limit. */
void zpl_set_room(uint64_t bytes);

/* ---- nodes ---- */

/* The root directory; object number 1 is never a node, so 1 can stand for it outside. */
int zpl_root(struct zpl_fs *fs, struct zpl_node **ret_node);
/* By object number; -ENOENT if free, -ESTALE if `generation` is not 0 and differs. */
int zpl_get(struct zpl_fs *fs, uint64_t object, uint64_t generation, struct zpl_node **ret_node);
void zpl_hold(struct zpl_node *node);
/* Drops one reference; the last one of an unlinked node frees its storage. NULL is accepted. May start a
 * transaction: not to be called inside one. */
void zpl_release(struct zpl_node *node);
uint64_t zpl_object(const struct zpl_node *node);
uint64_t zpl_generation(const struct zpl_node *node);
struct zpl_fs *zpl_node_fs(const struct zpl_node *node);

struct zpl_attr {
	uint64_t object, generation;
	uint32_t mode; /* with type bits */
	uint64_t nlink;
	uid_t uid;
	gid_t gid;
	uint64_t size;
	uint64_t blocks; /* 512-byte units allocated */
	uint32_t blksize;
	dev_t rdev; /* glibc's makedev form */
	struct timespec atime, mtime, ctime, btime;
	uint64_t flags; /* ZFS pflags, incl. IMMUTABLE, APPENDONLY */
	uint32_t projid;
};
int zpl_getattr(struct zpl_node *node, struct zpl_attr *ret_attr);

enum zpl_set {
	ZPL_SET_MODE = 1 << 0,
	ZPL_SET_UID = 1 << 1,
	ZPL_SET_GID = 1 << 2,
	ZPL_SET_SIZE = 1 << 3,
	ZPL_SET_ATIME = 1 << 4, /* to attr->atime */
	ZPL_SET_MTIME = 1 << 5,
	ZPL_SET_CTIME = 1 << 6, /* without it, ctime becomes now */
	ZPL_SET_ATIME_NOW = 1 << 7,
	ZPL_SET_MTIME_NOW = 1 << 8,
};
/*
 * Applies `attr`'s fields named by `mask`; ret_attr (may be NULL) gets the result. A new mode replaces an
 * NFSv4 ACL by the trivial one (-EPERM if property aclmode=restricted forbids that), and carries over into a
 * stored POSIX ACL.
 */
int zpl_setattr(struct zpl_node *node, const struct zpl_attr *attr, unsigned mask, struct zpl_attr *ret_attr);

/* Who asks: owner of new objects, and (groups) whether set-group-id may stay. */
struct zpl_cred {
	uid_t uid;
	gid_t gid;
};

/* ---- names. `name` is 1..255 bytes without '/' and NUL; "." and ".." are the caller's, but lookup knows
 * "..". ---- */

int zpl_lookup(struct zpl_node *dir, const char *name, struct zpl_node **ret_node);
/* Regular files, fifos, sockets, devices. `mode` has type bits (none = regular) and the umask already
 * applied. -EEXIST if there. ret_attr may be NULL. */
int zpl_create(struct zpl_node *dir, const char *name, uint32_t mode, dev_t rdev, const struct zpl_cred *cred,
	struct zpl_node **ret_node, struct zpl_attr *ret_attr);
int zpl_mkdir(struct zpl_node *dir, const char *name, uint32_t mode, const struct zpl_cred *cred,
	struct zpl_node **ret_node, struct zpl_attr *ret_attr);
int zpl_symlink(struct zpl_node *dir, const char *name, const char *target, const struct zpl_cred *cred,
	struct zpl_node **ret_node, struct zpl_attr *ret_attr);
/* NUL-terminated into `buffer` (size >= 1); -ENAMETOOLONG if it does not fit; targets are at most 4095 bytes.
 */
int zpl_readlink(struct zpl_node *node, char *buffer, size_t size);
int zpl_link(struct zpl_node *node, struct zpl_node *dir, const char *name);
int zpl_unlink(struct zpl_node *dir, const char *name);
int zpl_rmdir(struct zpl_node *dir, const char *name);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE (linux/fs.h); others -EINVAL. */
int zpl_rename(
	struct zpl_node *sdir, const char *sname, struct zpl_node *tdir, const char *tname, unsigned flags);

/* ---- directories ---- */

/*
 * Entries from `cookie` (0 = start) without "." and "..". `emit` gets the cookie of the NEXT entry, which may
 * be passed in later (cookies are 4..INT64_MAX, stay valid across changes); emit returns non-zero to stop
 * before that entry is consumed, and may call other zpl functions. *ret_eof tells whether the end was
 * reached.
 */
typedef int (*zpl_emit_fn)(
	void *private, const char *name, uint64_t object, unsigned type /* DT_* */, uint64_t next_cookie);
int zpl_readdir(struct zpl_node *dir, uint64_t cookie, zpl_emit_fn emit, void *private, bool *ret_eof);
/* The parent directory's object number (the root's is its own). */
int zpl_parent(struct zpl_node *node, uint64_t *ret_object);

/* ---- data ---- */

/* Up to `length` bytes at offset; *ret_length is short only at the end of file. -EIO on a checksum error. */
int zpl_read(struct zpl_node *node, uint64_t offset, size_t length, void *buffer, size_t *ret_length);
/* All or an error (-ENOSPC, -EDQUOT, -EFBIG ...; *ret_written tells what got in). append: at the current end.
 */
int zpl_write(struct zpl_node *node, uint64_t offset, const struct iovec *iov, int iovcnt, bool append,
	size_t *ret_written);
/* Waits until data and attributes of the node, and the names that lead to it, are on disk. */
int zpl_fsync(struct zpl_node *node, bool data_only);
/* fallocate(2) modes: 0 and KEEP_SIZE (extends / checks space), PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE
 * [|KEEP_SIZE]. */
int zpl_fallocate(struct zpl_node *node, int mode, uint64_t offset, uint64_t length);
/* SEEK_DATA or SEEK_HOLE; -ENXIO past the end. */
int zpl_seek(struct zpl_node *node, uint64_t offset, int whence, uint64_t *ret_offset);

/* ---- extended attributes; names with their namespace ("user.x"); both storage forms ---- */

/* size 0: *ret_length only. -ENODATA, -ERANGE. */
int zpl_getxattr(struct zpl_node *node, const char *name, void *buffer, size_t size, size_t *ret_length);
/* flags: XATTR_CREATE, XATTR_REPLACE. -E2BIG, -ENOSPC. */
int zpl_setxattr(struct zpl_node *node, const char *name, const void *value, size_t size, int flags);
int zpl_removexattr(struct zpl_node *node, const char *name);
/* NUL-terminated names, one after the other. */
int zpl_listxattr(struct zpl_node *node, char *buffer, size_t size, size_t *ret_length);

/* Called by the ARC when nodes pin too much metadata: fs/ answers by making the kernel forget. May be NULL.
 */
void zpl_set_prune(void (*prune)(uint64_t nodes, void *private), void *private);

#endif
