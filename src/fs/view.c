/*
 * One read-only file in a mount of its own.
 */
#include "fs/view.h"

#include "base/cleanup.h"
#include "fs/session_int.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FILE_ID 2

struct view {
	struct pv_bdev *bdev;
	const char *name;
	uid_t uid;
	gid_t gid;
	struct timespec when;
	int ended[2]; /* a pipe: its write end is closed when the mount has ended */
};

static void fill(const struct view *view, fuse_ino_t ino, struct stat *ret_stat)
{
	*ret_stat = (struct stat){
		.st_ino = ino,
		.st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0500 : S_IFREG | 0400,
		.st_nlink = ino == FUSE_ROOT_ID ? 2 : 1,
		.st_uid = view->uid,
		.st_gid = view->gid,
		.st_size = ino == FUSE_ROOT_ID ? 0 : (off_t)view->bdev->size,
		.st_blocks = ino == FUSE_ROOT_ID ? 0 : (blkcnt_t)(view->bdev->size / 512),
		.st_blksize = 131072,
		.st_atim = view->when,
		.st_mtim = view->when,
		.st_ctim = view->when,
	};
}

static void op_init(void *private, struct fuse_conn_info *conn)
{
	conn->want &= FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS;
	conn->max_read = PV_MAX_IO; /* must equal the mount option */
	conn->max_write = PV_MAX_IO;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	const struct view *view = fuse_req_userdata(req);
	struct fuse_entry_param entry = {
		.ino = FILE_ID, .generation = 1, .attr_timeout = 1, .entry_timeout = 3600};

	if (parent != FUSE_ROOT_ID || strcmp(name, view->name)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fill(view, FILE_ID, &entry.attr);
	fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	fill(fuse_req_userdata(req), ino, &st);
	fuse_reply_attr(req, &st, 1);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	fi->direct_io = 1; /* what was decrypted shall not stay in the page cache */
	fuse_reply_open(req, fi);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	const struct view *view = fuse_req_userdata(req);
	const char *names[] = {".", "..", view->name};
	char buffer[1024];
	size_t used = 0;

	if (size > sizeof(buffer))
		size = sizeof(buffer);
	for (; off < 3; off++) {
		struct stat st;
		size_t n;

		fill(view, off < 2 ? FUSE_ROOT_ID : FILE_ID, &st);
		n = fuse_add_direntry(req, buffer + used, size - used, names[off], &st, off + 1);
		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buffer, used);
}

/* Reads of any offset and length, on a device that takes whole sectors. */
static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	const struct view *view = fuse_req_userdata(req);
	uint64_t end = view->bdev->size, sector = view->bdev->sector_size, first, last;
	char *data;
	int r;

	if ((uint64_t)off >= end) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	if (size > end - (uint64_t)off)
		size = end - (uint64_t)off;
	first = (uint64_t)off / sector * sector;
	last = ((uint64_t)off + size + sector - 1) / sector * sector;
	if (posix_memalign((void **)&data, 4096, last - first)) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	r = pv_bdev_read(view->bdev, data, last - first, first);
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, data + ((uint64_t)off - first), size);
	free(data);
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.open = op_open,
	.read = op_read,
	.readdir = op_readdir,
};

static void session_ended(void *private)
{
	struct view *view = private;

	close(view->ended[1]);
	view->ended[1] = -1;
}

static void serve_until(const struct view *view, struct pv_session *session, int stop_fd)
{
	struct pollfd fds[2] = {{.fd = view->ended[0], .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};

	while (poll(fds, 2, -1) < 0 && errno == EINTR)
		;
	if (fds[0].revents)
		return;
	/* Asked to stop: whoever still reads gets a moment, then errors. */
	for (int i = 0; i < 20; i++) {
		if (pv_session_unmount(session, NULL) == 0) {
			if (pv_session_wait(session, 1))
				return;
			break; /* another mount namespace has a copy of the mount: the kernel will not end it
				*/
		}
		usleep(50000);
	}
	pv_session_detach(session, NULL);
	pv_session_abort(session);
}

int pv_view_serve(struct pv_bdev *bdev, const char *dir, const char *name, int stop_fd,
	void (*ready)(void *private), void *private, struct pv_error *err)
{
	struct view view = {.bdev = bdev, .name = name, .uid = geteuid(), .gid = getegid()};
	pv_autofree char *path = realpath(dir, NULL);
	const struct pv_session_options options = {
		.ops = &ops,
		.private = &view,
		.mountpoint = path,
		.read_only = true,
		.threads_max = 16,
		.ended = session_ended,
	};
	struct pv_session *session;
	int r;

	if (!path)
		return pv_fail(err, -errno, dir, "cannot be used as a mount point: %s", pv_strerror(errno));
	if (pipe2(view.ended, O_CLOEXEC) < 0)
		return pv_fail(err, -errno, dir, "cannot make a pipe: %s", pv_strerror(errno));
	clock_gettime(CLOCK_REALTIME, &view.when);
	r = pv_session_mount(&options, &session, err);
	if (r == 0) {
		r = pv_session_serve(session, err);
		if (r == 0) {
			if (ready)
				ready(private);
			serve_until(&view, session, stop_fd);
			pv_session_wait(session, -1);
		}
		pv_session_free(session);
	}
	close(view.ended[0]);
	if (view.ended[1] >= 0)
		close(view.ended[1]);
	return r;
}
