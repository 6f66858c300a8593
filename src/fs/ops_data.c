/*
 * FUSE operations on data and extended attributes.
 */
#include "base/cleanup.h"
#include "fs/fs_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CAPABILITY "security.capability"

void pv_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	pv_autonode struct pv_noderef ref = {};
	char *buffer = pv_session_buffer();
	size_t length;
	int r;

	if (pv_refused(req))
		return;
	if (size > PV_MAX_IO)
		size = PV_MAX_IO;
	r = buffer ? pv_node_get(fuse_req_userdata(req), ino, &ref) : -ENOMEM;
	if (r == 0)
		r = zpl_read(ref.node, (uint64_t)off, size, buffer, &length);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, buffer, length);
}

void pv_op_write(
	fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct pv_connection *connection = fuse_req_userdata(req);
	pv_autonode struct pv_noderef ref = {};
	struct iovec iov = {(void *)data, size};
	size_t written = 0;
	int r;

	/* Written back data is the kernel's, on behalf of someone who was allowed to write it. */
	if (!fi->writepage && pv_refused(req))
		return;
	r = pv_node_get(connection, ino, &ref);
	if (r == 0 && fi->writepage && atomic_load(&ref.graft->rolling))
		r = -EIO; /* written before the rollback: it must not get into what the rollback restored */
	/*
	 * What is written back was dealt with by the kernel when it was written; a file capability that is
	 * there now was set later.
	 */
	if (r == 0 && !fi->writepage)
		r = pv_drop_privileges(&ref, pv_session_kill_ids());
	if (r == 0) {
		atomic_store_explicit(&ref.entry->last_write, pv_now(), memory_order_relaxed);
		r = zpl_write(ref.node, (uint64_t)off, &iov, 1, false, &written);
	}
	if (r == -EROFS && fi->writepage)
		pv_janitor_repair(connection->mounts->janitor, connection, ino);
	if (r < 0 && written == 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_write(req, written);
}

static void sync_node(fuse_req_t req, fuse_ino_t ino, bool data_only)
{
	pv_autonode struct pv_noderef ref = {};
	int r = 0;

	if (pv_refused(req))
		return;
	if (!pv_is_ctl(ino))
		r = pv_node_get(fuse_req_userdata(req), ino, &ref);
	if (r == 0 && ref.node && !ref.graft->snapshot)
		r = zpl_fsync(ref.node, data_only);
	fuse_reply_err(req, -r);
}

void pv_op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	sync_node(req, ino, data_only);
}

void pv_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	sync_node(req, ino, data_only);
}

void pv_op_fallocate(
	fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t length, struct fuse_file_info *fi)
{
	pv_autonode struct pv_noderef ref = {};
	int r;

	if (pv_refused(req))
		return;
	r = pv_node_get(fuse_req_userdata(req), ino, &ref);
	if (r == 0)
		r = pv_drop_privileges(&ref, fuse_req_ctx(req)->uid != 0);
	if (r == 0)
		r = zpl_fallocate(ref.node, mode, (uint64_t)off, (uint64_t)length);
	if (r == 0)
		ref.entry->last_write = pv_now();
	fuse_reply_err(req, -r);
}

/*
 * The kernel passes SEEK_DATA and SEEK_HOLE on without writing back what it holds of a file that is open for
 * writing: its data would be reported as a hole, and a copy made by cp would lose it. So it is asked to write
 * back first. That waits for WRITE requests, which other workers serve: this one must not count among those.
 */
void pv_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
	struct pv_connection *connection = fuse_req_userdata(req);
	pv_autonode struct pv_noderef ref = {};
	uint64_t found = 0;
	int r;

	if (pv_refused(req))
		return;
	r = pv_node_get(connection, ino, &ref);
	if (r == 0 && !ref.graft->read_only) {
		pv_session_blocking(connection->session, 1);
		fuse_lowlevel_notify_inval_inode(pv_session_fuse(connection->session), ino, 0, 0);
		pv_session_blocking(connection->session, -1);
	}
	if (r == 0)
		r = zpl_seek(ref.node, (uint64_t)off, whence, &found);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_lseek(req, (off_t)found);
}

void pv_op_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	pv_autonode struct pv_noderef ref = {};
	int r;

	if (pv_refused(req))
		return;
	r = pv_is_ctl(ino) ? -EROFS : pv_node_get(fuse_req_userdata(req), ino, &ref);
	if (r == 0 && !strcmp(name, CAPABILITY))
		ref.entry->no_caps = false;
	if (r == 0)
		r = zpl_setxattr(ref.node, name, value, size, flags);
	fuse_reply_err(req, -r);
}

void pv_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	pv_autonode struct pv_noderef ref = {};
	pv_autofree char *buffer = NULL;
	size_t length;
	int r;

	if (pv_refused(req))
		return;
	r = pv_is_ctl(ino) ? -ENODATA : pv_node_get(fuse_req_userdata(req), ino, &ref);
	if (r == 0 && size) {
		buffer = malloc(size);
		if (!buffer)
			r = -ENOMEM;
	}
	if (r == 0)
		r = zpl_getxattr(ref.node, name, buffer, size, &length);
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (size)
		fuse_reply_buf(req, buffer, length);
	else
		fuse_reply_xattr(req, length);
}

void pv_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	pv_autonode struct pv_noderef ref = {};
	pv_autofree char *buffer = NULL;
	size_t length = 0;
	int r = 0;

	if (pv_refused(req))
		return;
	if (!pv_is_ctl(ino))
		r = pv_node_get(fuse_req_userdata(req), ino, &ref);
	if (r == 0 && size) {
		buffer = malloc(size);
		if (!buffer)
			r = -ENOMEM;
	}
	if (r == 0 && ref.node)
		r = zpl_listxattr(ref.node, buffer, size, &length);
	if (r < 0)
		fuse_reply_err(req, -r);
	else if (size)
		fuse_reply_buf(req, buffer, length);
	else
		fuse_reply_xattr(req, length);
}

void pv_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	pv_autonode struct pv_noderef ref = {};
	int r;

	if (pv_refused(req))
		return;
	r = pv_is_ctl(ino) ? -EROFS : pv_node_get(fuse_req_userdata(req), ino, &ref);
	if (r == 0)
		r = zpl_removexattr(ref.node, name);
	fuse_reply_err(req, -r);
}
