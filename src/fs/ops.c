/*
 * FUSE operations on names and attributes. The kernel checks permissions (default_permissions) and caches all
 * it learns for as long as it likes; what it may not believe for ever has its own timeout below.
 *
 * open and opendir are answered with ENOSYS once, after which the kernel opens without asking: a nodeid stays
 * valid for as long as anything is open on it, also when it is unlinked, and O_TRUNC arrives as a setattr.
 * The price: a write to a file of a read-only objset in a writable mount is refused only when the kernel
 * writes it back.
 */
#include "fs/fs_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#define LOW_BITS(x) ((uint32_t)(x))

bool pv_is_ctl(uint64_t nodeid)
{
	return (nodeid & PV_OBJECT_MASK) >= PV_CTL_FIRST;
}

bool pv_is_root(const struct pv_noderef *ref)
{
	return zpl_object(ref->node) == ref->graft->root;
}

int pv_check_name(const char *name)
{
	return strlen(name) > 255 ? -ENAMETOOLONG : 0;
}

static struct pv_connection *connection_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* Requests of the kernel itself carry uid 0 or (uid_t)-1. */
bool pv_refused(fuse_req_t req)
{
	const struct pv_connection *connection = connection_of(req);
	uid_t uid;

	if (connection->owner == (uid_t)-1)
		return false;
	uid = fuse_req_ctx(req)->uid;
	if (uid == connection->owner || uid == 0 || uid == (uid_t)-1)
		return false;
	fuse_reply_err(req, EACCES);
	return true;
}

void pv_fill_stat(const struct pv_graft *graft, const struct zpl_attr *attr, struct stat *ret_stat)
{
	uint32_t blksize = attr->blksize;

	if (blksize < 4096)
		blksize = 4096;
	if (blksize > PV_MAX_IO)
		blksize = PV_MAX_IO;
	*ret_stat = (struct stat){
		.st_ino = (uint64_t)graft->index << PV_OBJECT_BITS | attr->object,
		.st_mode = attr->mode,
		.st_nlink = attr->nlink,
		.st_uid = attr->uid,
		.st_gid = attr->gid,
		.st_rdev = attr->rdev,
		.st_size = (off_t)attr->size,
		.st_blksize = blksize,
		.st_blocks = (blkcnt_t)attr->blocks,
		.st_atim = attr->atime,
		.st_mtim = attr->mtime,
		.st_ctim = attr->ctime,
	};
}

double pv_attr_timeout(const struct pv_graft *graft, const struct pv_entry *entry, uint64_t nodeid)
{
	int64_t written;

	/* With an owner every path walk must ask at the root, or others could use what the kernel has cached.
	 */
	if (nodeid == FUSE_ROOT_ID && graft->connection->owner != (uid_t)-1)
		return 0;
	written = entry ? atomic_load_explicit(&entry->last_write, memory_order_relaxed) : 0;
	if (written && pv_now() - written < PV_SETTLE_SECONDS)
		return 1;
	return PV_TIMEOUT_LONG;
}

/* The kernel keeps 32 bits of it. After a rollback regular files must be new inodes to it, as it believes its
 * own idea of their size. */
static uint64_t generation(const struct pv_graft *graft, const struct zpl_attr *attr)
{
	uint32_t g = LOW_BITS(attr->generation);

	if (S_ISREG(attr->mode))
		g += atomic_load(&graft->epoch) * 0x9E3779B1U;
	return g;
}

int pv_make_entry(struct pv_graft *graft, struct zpl_node *node, const struct zpl_attr *attr,
	struct fuse_entry_param *ret_entry)
{
	struct fuse_entry_param param = {};
	struct pv_entry *entry;
	struct zpl_attr own;
	int r;

	if (!attr) {
		r = zpl_getattr(node, &own);
		if (r < 0) {
			zpl_release(node);
			return r;
		}
		attr = &own;
	}
	if (S_ISDIR(attr->mode)) {
		struct pv_graft *child = pv_graft_covering(graft, attr->object);

		if (child) {
			struct zpl_node *root;
			struct zpl_fs *fs;

			zpl_release(node);
			r = pv_graft_use(child, &fs);
			if (r < 0)
				return r;
			r = zpl_root(fs, &root);
			if (r == 0)
				r = pv_make_entry(child, root, NULL, ret_entry);
			pv_graft_unuse(child);
			return r;
		}
	}
	param.ino = pv_nodeid(graft, attr->object);
	param.generation = generation(graft, attr);
	pv_fill_stat(graft, attr, &param.attr);
	r = pv_node_add(graft, node, attr->mode, &entry);
	if (r < 0)
		return r;
	param.attr_timeout = pv_attr_timeout(graft, entry, param.ino);
	param.entry_timeout = PV_TIMEOUT_LONG;
	*ret_entry = param;
	return 0;
}

void pv_reply_node(fuse_req_t req, struct pv_graft *graft, struct zpl_node *node, const struct zpl_attr *attr)
{
	struct pv_connection *connection = graft->connection;
	struct fuse_entry_param entry;
	int r;

	r = pv_make_entry(graft, node, attr, &entry);
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (fuse_reply_entry(req, &entry) < 0)
		pv_node_forget(
			connection, entry.ino, 1); /* nobody waits any more: the kernel did not count it */
}

static void op_init(void *private, struct fuse_conn_info *conn)
{
	const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_WRITEBACK_CACHE |
				FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
				FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_IOCTL_DIR |
				FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK;

	/*
	 * Not ATOMIC_O_TRUNC (there is no open to carry it), not AUTO_INVAL_DATA (changes are ours alone),
	 * not SPLICE_*: data is copied once between the request and the ARC, which a pipe between would not
	 * save.
	 */
	conn->want = wanted & conn->capable;
	conn->max_read = PV_MAX_IO; /* must equal the mount option */
	conn->max_write = PV_MAX_IO;
	conn->max_background = 64;
	conn->congestion_threshold = 48;
	conn->time_gran = 1;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct pv_connection *connection = connection_of(req);
	pv_autonode struct pv_noderef dir = {};
	struct zpl_node *child;
	int r;

	if (pv_refused(req))
		return;
	if (pv_is_ctl(parent)) {
		pv_ctl_lookup(req, connection, parent, name);
		return;
	}
	r = pv_node_get(connection, parent, &dir);
	if (r == 0 && !strcmp(name, ".zfs") && pv_is_root(&dir) && !dir.graft->snapshot) {
		pv_ctl_reply_root(req, dir.graft);
		return;
	}
	if (r == 0)
		r = pv_check_name(name);
	if (r == 0)
		r = zpl_lookup(dir.node, name, &child);
	if (r == -ENOENT) {
		const struct fuse_entry_param nothing = {.entry_timeout = PV_TIMEOUT_LONG};

		fuse_reply_entry(req, &nothing);
	} else if (r < 0) {
		fuse_reply_err(req, -r);
	} else {
		pv_reply_node(req, dir.graft, child, NULL);
	}
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	pv_node_forget(connection_of(req), ino, nlookup);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		pv_node_forget(connection_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void reply_attr(
	fuse_req_t req, const struct pv_noderef *ref, uint64_t nodeid, const struct zpl_attr *attr)
{
	struct stat st;

	pv_fill_stat(ref->graft, attr, &st);
	fuse_reply_attr(req, &st, pv_attr_timeout(ref->graft, ref->entry, nodeid));
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct pv_connection *connection = connection_of(req);
	pv_autonode struct pv_noderef ref = {};
	struct zpl_attr attr;
	int r;

	if (pv_refused(req))
		return;
	if (pv_is_ctl(ino)) {
		struct pv_graft *graft = pv_ctl_graft(connection, ino);
		struct stat st;

		r = graft ? pv_ctl_stat(graft, ino, &st) : -ESTALE;
		if (r < 0)
			fuse_reply_err(req, -r);
		else
			fuse_reply_attr(req, &st, 0);
		return;
	}
	r = pv_node_get(connection, ino, &ref);
	if (r == 0)
		r = zpl_getattr(ref.node, &attr);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		reply_attr(req, &ref, ino, &attr);
}

#define CAPABILITY "security.capability"

int pv_drop_privileges(const struct pv_noderef *ref, bool set_ids)
{
	size_t length;
	int r;

	if (!atomic_load_explicit(&ref->entry->no_caps, memory_order_relaxed)) {
		if (zpl_getxattr(ref->node, CAPABILITY, NULL, 0, &length) == 0) {
			r = zpl_removexattr(ref->node, CAPABILITY);
			if (r < 0 && r != -ENODATA)
				return r;
		}
		ref->entry->no_caps = true;
	}
	if (set_ids) {
		struct zpl_attr attr;
		uint32_t mode;

		r = zpl_getattr(ref->node, &attr);
		if (r < 0)
			return r;
		mode = attr.mode & ~(uint32_t)S_ISUID;
		if (mode & S_IXGRP)
			mode &= ~(uint32_t)S_ISGID;
		if (mode != attr.mode && S_ISREG(attr.mode)) {
			attr.mode = mode;
			return zpl_setattr(ref->node, &attr, ZPL_SET_MODE, NULL);
		}
	}
	return 0;
}

static unsigned set_mask(int to_set)
{
	static const struct {
		int from;
		unsigned to;
	} map[] = {
		{FUSE_SET_ATTR_MODE, ZPL_SET_MODE},
		{FUSE_SET_ATTR_UID, ZPL_SET_UID},
		{FUSE_SET_ATTR_GID, ZPL_SET_GID},
		{FUSE_SET_ATTR_SIZE, ZPL_SET_SIZE},
		{FUSE_SET_ATTR_CTIME, ZPL_SET_CTIME},
	};
	unsigned mask = 0;

	for (size_t i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
		if (to_set & map[i].from)
			mask |= map[i].to;
	}
	/* "Now" is the kernel's, who sends both bits; our own clock would do, but must not be set twice. */
	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		mask |= ZPL_SET_ATIME_NOW;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		mask |= ZPL_SET_ATIME;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		mask |= ZPL_SET_MTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		mask |= ZPL_SET_MTIME;
	return mask;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	pv_autonode struct pv_noderef ref = {};
	struct zpl_attr attr = {
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.size = (uint64_t)st->st_size,
		.atime = st->st_atim,
		.mtime = st->st_mtim,
		.ctime = st->st_ctim,
	};
	struct zpl_attr result;
	unsigned mask = set_mask(to_set);
	int r;

	if (pv_refused(req))
		return;
	if (pv_is_ctl(ino)) {
		fuse_reply_err(req, EROFS);
		return;
	}
	r = pv_node_get(connection_of(req), ino, &ref);
	if (r == 0 && (mask & (ZPL_SET_UID | ZPL_SET_GID | ZPL_SET_SIZE)) && ref.entry->type == S_IFREG) {
		/* chown drops them whoever does it; a truncation when the kernel says so. */
		r = pv_drop_privileges(
			&ref, !(mask & ZPL_SET_MODE) &&
				      ((mask & (ZPL_SET_UID | ZPL_SET_GID)) || pv_session_kill_ids()));
	}
	if (r == 0)
		r = zpl_setattr(ref.node, &attr, mask, &result);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	if (mask & ZPL_SET_SIZE)
		ref.entry->last_write = pv_now();
	reply_attr(req, &ref, ino, &result);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	pv_autonode struct pv_noderef ref = {};
	char target[4096];
	int r;

	if (pv_refused(req))
		return;
	r = pv_node_get(connection_of(req), ino, &ref);
	if (r == 0)
		r = zpl_readlink(ref.node, target, sizeof(target));
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_readlink(req, target);
}

/* The directory of a change, with the checks that all changes of names share. */
static int change_dir(fuse_req_t req, fuse_ino_t parent, const char *name, struct pv_noderef *ret_dir)
{
	int r;

	if (pv_is_ctl(parent))
		return -EROFS;
	r = pv_check_name(name);
	if (r == 0)
		r = pv_node_get(connection_of(req), parent, ret_dir);
	if (r == 0 && !strcmp(name, ".zfs") && pv_is_root(ret_dir) && !ret_dir->graft->snapshot)
		r = -EEXIST;
	return r;
}

static struct zpl_cred cred_of(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct zpl_cred){ctx->uid, ctx->gid};
}

/* A new object with what it inherits; the type bits of `mode` tell what. */
static int make(fuse_req_t req, const struct pv_noderef *dir, const char *name, uint32_t mode, dev_t rdev,
	struct zpl_node **ret_node)
{
	struct zpl_cred cred = cred_of(req);
	struct pv_inherited inherited;
	struct zpl_node *node;
	int r;

	r = pv_acl_inherit(dir->node, mode, fuse_req_ctx(req)->umask, &inherited);
	if (r == 0 && S_ISDIR(mode))
		r = zpl_mkdir(dir->node, name, inherited.mode, &cred, &node, NULL);
	else if (r == 0)
		r = zpl_create(dir->node, name, inherited.mode, rdev, &cred, &node, NULL);
	if (r < 0)
		return r;
	r = pv_acl_apply(node, &inherited);
	if (r < 0) {
		if (S_ISDIR(mode))
			zpl_rmdir(dir->node, name);
		else
			zpl_unlink(dir->node, name);
		zpl_release(node);
		return r;
	}
	*ret_node = node;
	return 0;
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	pv_autonode struct pv_noderef dir = {};
	struct zpl_node *node;
	int r;

	if (pv_refused(req))
		return;
	r = change_dir(req, parent, name, &dir);
	if (r == 0)
		r = make(req, &dir, name, mode, rdev, &node);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		pv_reply_node(req, dir.graft, node, NULL);
}

static void op_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	pv_autonode struct pv_noderef dir = {};
	struct fuse_entry_param entry;
	struct zpl_node *node;
	int r;

	if (pv_refused(req))
		return;
	r = change_dir(req, parent, name, &dir);
	if (r == 0) {
		r = make(req, &dir, name, mode, 0, &node);
		/* The kernel looked first, but another may have been quicker: then it is an open, unless
		 * O_EXCL. */
		if (r == -EEXIST && !(fi->flags & O_EXCL))
			r = zpl_lookup(dir.node, name, &node);
	}
	if (r == 0)
		r = pv_make_entry(dir.graft, node, NULL, &entry);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	fi->keep_cache = 1;
	if (fuse_reply_create(req, &entry, fi) < 0)
		pv_node_forget(connection_of(req), entry.ino, 1);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	pv_autonode struct pv_noderef dir = {};
	struct zpl_node *node;
	int r;

	if (pv_refused(req))
		return;
	r = change_dir(req, parent, name, &dir);
	if (r == 0)
		r = make(req, &dir, name, S_IFDIR | (mode & 07777), 0, &node);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		pv_reply_node(req, dir.graft, node, NULL);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	pv_autonode struct pv_noderef dir = {};
	struct zpl_cred cred = cred_of(req);
	struct zpl_node *node;
	struct zpl_attr attr;
	int r;

	if (pv_refused(req))
		return;
	r = change_dir(req, parent, name, &dir);
	if (r == 0 && strlen(target) > 4095)
		r = -ENAMETOOLONG;
	if (r == 0)
		r = zpl_symlink(dir.node, name, target, &cred, &node, &attr);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		pv_reply_node(req, dir.graft, node, &attr);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	pv_autonode struct pv_noderef dir = {}, ref = {};
	int r;

	if (pv_refused(req))
		return;
	r = pv_is_ctl(ino) ? -EXDEV : change_dir(req, parent, name, &dir);
	if (r == 0)
		r = pv_node_get(connection_of(req), ino, &ref);
	if (r == 0 && dir.graft != ref.graft)
		r = -EXDEV;
	if (r == 0)
		r = zpl_link(ref.node, dir.node, name);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	zpl_hold(ref.node);
	pv_reply_node(req, ref.graft, ref.node, NULL);
}

/* -EBUSY if the name is the mount point of a child. */
static int check_covered(const struct pv_noderef *dir, const char *name)
{
	struct zpl_node *node;
	bool covered;

	if (atomic_load(&dir->graft->covers) == 0)
		return 0;
	if (zpl_lookup(dir->node, name, &node) < 0)
		return 0; /* the operation itself will tell */
	covered = pv_graft_covering(dir->graft, zpl_object(node)) != NULL;
	zpl_release(node);
	return covered ? -EBUSY : 0;
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	pv_autonode struct pv_noderef dir = {};
	int r;

	if (pv_refused(req))
		return;
	r = change_dir(req, parent, name, &dir);
	if (r == -EEXIST)
		r = -EROFS; /* .zfs */
	if (r == 0)
		r = zpl_unlink(dir.node, name);
	fuse_reply_err(req, -r);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	pv_autonode struct pv_noderef dir = {};
	int r;

	if (pv_refused(req))
		return;
	r = change_dir(req, parent, name, &dir);
	if (r == -EEXIST)
		r = -EROFS;
	if (r == 0)
		r = check_covered(&dir, name);
	if (r == 0)
		r = zpl_rmdir(dir.node, name);
	fuse_reply_err(req, -r);
}

static void op_rename(fuse_req_t req, fuse_ino_t sparent, const char *sname, fuse_ino_t tparent,
	const char *tname, unsigned flags)
{
	pv_autonode struct pv_noderef sdir = {}, tdir = {};
	int r;

	if (pv_refused(req))
		return;
	r = change_dir(req, sparent, sname, &sdir);
	if (r == 0)
		r = change_dir(req, tparent, tname, &tdir);
	if (r == -EEXIST)
		r = -EROFS;
	if (r == 0 && sdir.graft != tdir.graft)
		r = -EXDEV;
	if (r == 0)
		r = check_covered(&sdir, sname);
	if (r == 0)
		r = check_covered(&tdir, tname);
	if (r == 0)
		r = zpl_rename(sdir.node, sname, tdir.node, tname, flags);
	fuse_reply_err(req, -r);
}

/* Also for flush: the kernel writes a file's data back before it would ask. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, ENOSYS);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct pv_connection *connection = connection_of(req);
	struct pv_graft *graft = NULL;
	struct statvfs st = {};
	struct zpl_fs *fs;
	int r = -ESTALE;

	if (pv_refused(req))
		return;
	graft = pv_graft_at(connection, (unsigned)(ino >> PV_OBJECT_BITS));
	if (graft) {
		r = pv_graft_use(graft, &fs);
		if (r == 0) {
			r = zpl_fs_statvfs(fs, &st);
			pv_graft_unuse(graft);
		}
	}
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops pv_fuse_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.create = op_create,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.link = op_link,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.open = op_open,
	.opendir = op_open,
	.flush = op_open,
	.statfs = op_statfs,
	.readdir = pv_op_readdir,
	.readdirplus = pv_op_readdirplus,
	.read = pv_op_read,
	.write = pv_op_write,
	.fsync = pv_op_fsync,
	.fsyncdir = pv_op_fsyncdir,
	.fallocate = pv_op_fallocate,
	.lseek = pv_op_lseek,
	.setxattr = pv_op_setxattr,
	.getxattr = pv_op_getxattr,
	.listxattr = pv_op_listxattr,
	.removexattr = pv_op_removexattr,
};
