/*
 * Opening, making, locking and checking containers.
 */
#include "volume/container.h"
#include "base/cleanup.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

static uint64_t mib(uint64_t bytes)
{
	return bytes >> 20;
}

/*
 * A process that has the file open: 0 if none can be seen. Descriptors are compared by the name that /proc
 * shows for them: a stat could hang on, or touch, a mount of ours.
 */
static pid_t find_user_of(const char *file)
{
	DIR *proc = opendir("/proc");
	const struct dirent *entry;
	pid_t found = 0;

	while (proc && !found && (entry = readdir(proc))) {
		char path[64];
		const struct dirent *fd;
		DIR *fds;

		if (!isdigit((unsigned char)entry->d_name[0]) || atoi(entry->d_name) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/fd", entry->d_name);
		fds = opendir(path);
		while (fds && (fd = readdir(fds))) {
			char link[PATH_MAX];
			ssize_t n = readlinkat(dirfd(fds), fd->d_name, link, sizeof(link) - 1);

			if (n <= 0)
				continue;
			link[n] = '\0';
			if (!strcmp(link, file)) {
				found = atoi(entry->d_name);
				break;
			}
		}
		if (fds)
			closedir(fds);
	}
	if (proc)
		closedir(proc);
	return found;
}

static void process_name(pid_t pid, char *ret_name, size_t size)
{
	char path[64];
	pv_autofclose FILE *f = NULL;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	ret_name[0] = '\0';
	if (f && fgets(ret_name, (int)size, f))
		ret_name[strcspn(ret_name, "\n")] = '\0';
}

/* Fills *err for a lock that another process holds. */
static int busy(const char *path, pid_t pid, struct pv_error *err)
{
	char name[32];

	if (pid > 0) {
		process_name(pid, name, sizeof(name));
		pv_fail(err, -EBUSY, path, "the container is in use by process %d (%s)", (int)pid,
			*name ? name : "unknown");
	} else {
		pv_fail(err, -EBUSY, path, "the container is in use by another process");
	}
	pv_remedy(err, "close it there first; two users at once would destroy the volume");
	return -EBUSY;
}

static int lock(int fd, const char *path, bool exclusive, struct pv_error *err)
{
	struct flock fl = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
	struct flock holder = fl;
	pv_autofree char *real = NULL;
	pid_t pid = 0;
	int code;

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	code = -errno;
	if (code != -EAGAIN && code != -EACCES)
		return pv_fail(err, code, path, "cannot lock the container: %s", pv_strerror(code));
	if (fcntl(fd, F_OFD_GETLK, &holder) == 0 && holder.l_type != F_UNLCK && holder.l_pid > 0)
		pid = holder.l_pid;
	else if ((real = realpath(path, NULL)))
		pid = find_user_of(real);
	return busy(path, pid, err);
}

static int open_error(int code, const char *path, bool read_only, struct pv_error *err)
{
	struct stat st;

	switch (code) {
	case -ENOENT:
		return pv_fail_as(err, code, PV_EXIT_NO_VOLUME, path, "the container is not there: %s",
			pv_strerror(code));
	case -ENOTDIR: return pv_fail(err, code, path, "a part of this path is not a directory");
	case -ELOOP:
		pv_fail(err, code, path, "the container is a symbolic link");
		pv_remedy(err, "give the path of the file itself");
		return code;
	case -EISDIR: return pv_fail(err, code, path, "this is a directory, not a container");
	case -EROFS: pv_fail(err, code, path, "the container lies on a read-only file system"); break;
	case -EBUSY: return busy(path, 0, err);
	case -EACCES:
	case -EPERM:
		if (lstat(path, &st) == 0 && st.st_uid != geteuid())
			return pv_fail(err, code, path,
				"no permission to %s the container: it belongs to user %u, not to you",
				read_only ? "read" : "write", (unsigned)st.st_uid);
		pv_fail(err, code, path, "no permission to %s the container", read_only ? "read" : "write");
		break;
	default: return pv_fail(err, code, path, "cannot open the container: %s", pv_strerror(code));
	}
	if (!read_only)
		pv_remedy(err, "to look at it without writing: pvol open --read-only");
	return code;
}

static int block_size(int fd, uint64_t *ret_size)
{
	uint64_t size;

	if (ioctl(fd, BLKGETSIZE64, &size) < 0)
		return -errno;
	*ret_size = size;
	return 0;
}

int pv_container_open(
	const char *path, unsigned flags, struct pv_container *ret_container, struct pv_error *err)
{
	bool read_only = flags & PV_CONTAINER_READ_ONLY;
	int mode = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	pv_autocontainer struct pv_container c = {.fd = -1, .read_only = read_only};
	struct stat st;
	int r;

	/* Names such as /dev/disk/by-id/X are links to devices; a link to a file could be redirected by
	 * others. */
	if (stat(path, &st) < 0) {
		int code = -errno;

		if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
			code = -ELOOP;
		return open_error(code, path, read_only, err);
	}
	if (S_ISDIR(st.st_mode))
		return open_error(-EISDIR, path, read_only, err);
	c.is_block = S_ISBLK(st.st_mode);
	if (!c.is_block && !S_ISREG(st.st_mode))
		return pv_fail(err, -EINVAL, path, "this is neither a file nor a block device");
	if (!c.is_block)
		mode |= O_NOFOLLOW;
	else if (!(flags & PV_CONTAINER_NO_LOCK))
		mode |= O_EXCL;
	c.fd = open(path, mode);
	if (c.fd < 0)
		return open_error(-errno, path, read_only, err);
	if (fstat(c.fd, &st) < 0)
		return pv_fail(err, -errno, path, "cannot open the container: %s", pv_strerror(errno));
	if (c.is_block ? !S_ISBLK(st.st_mode) : !S_ISREG(st.st_mode))
		return pv_fail(err, -EINVAL, path, "this file has been replaced while it was opened");
	c.dev = c.is_block ? st.st_rdev : st.st_dev;
	c.ino = c.is_block ? 0 : st.st_ino;
	c.size = (uint64_t)st.st_size;
	if (c.is_block) {
		r = block_size(c.fd, &c.size);
		if (r < 0)
			return pv_fail(
				err, r, path, "cannot tell the size of this device: %s", pv_strerror(r));
	}
	if (!(flags & PV_CONTAINER_NO_LOCK)) {
		r = lock(c.fd, path, !read_only, err);
		if (r < 0)
			return r;
	}
	*ret_container = c;
	c.fd = -1;
	return 0;
}

static int too_small(const char *path, uint64_t size, struct pv_error *err)
{
	return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, path,
		"%" PRIu64 " MiB are too small for a volume: %" PRIu64 " MiB is the least", mib(size),
		mib(PV_CONTAINER_MIN));
}

static int fill_new(int fd, const char *path, uint64_t size, bool full, struct pv_error *err)
{
	int code = 0;

	if (full)
		code = -posix_fallocate(fd, 0, (off_t)size);
	else if (ftruncate(fd, (off_t)size) < 0)
		code = -errno;
	if (code == -ENOSPC || code == -EDQUOT) {
		pv_fail(err, code, path, "no room for a container of %" PRIu64 " MiB: %s", mib(size),
			pv_strerror(code));
		return pv_remedy(err, "free some space, or choose a smaller --size");
	}
	if (code == -EFBIG)
		return pv_fail(
			err, code, path, "the file system does not take files of %" PRIu64 " MiB", mib(size));
	if (code < 0)
		return pv_fail(err, code, path, "cannot make the container: %s", pv_strerror(code));
	return 0;
}

static int sync_parent(const char *path)
{
	pv_autofree char *copy = strdup(path);
	pv_autoclose int fd = -1;
	char *slash = copy ? strrchr(copy, '/') : NULL;

	if (!slash)
		return -EINVAL;
	slash[slash == copy ? 1 : 0] = '\0';
	fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int pv_container_create(const char *path, uint64_t size, bool full, struct pv_container *ret_container,
	bool *ret_made, struct pv_error *err)
{
	pv_autocontainer struct pv_container c = PV_CONTAINER_NONE;
	struct stat st;
	int r;

	if (stat(path, &st) == 0 && S_ISBLK(st.st_mode)) {
		r = pv_container_open(path, 0, &c, err);
		if (r < 0)
			return r;
		if (c.size < PV_CONTAINER_MIN || (size && size > c.size))
			return size > c.size ? pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, path,
						       "the device has only %" PRIu64 " MiB", mib(c.size))
					     : too_small(path, c.size, err);
		*ret_made = false;
		*ret_container = c;
		c.fd = -1;
		return 0;
	}
	if (size < PV_CONTAINER_MIN)
		return too_small(path, size, err);
	c.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (c.fd < 0) {
		r = -errno;
		if (r != -EEXIST)
			return pv_fail(err, r, path, "cannot make the container: %s", pv_strerror(r));
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
			return open_error(-EISDIR, path, false, err);
		pv_fail(err, r, path, "this file exists already");
		return pv_remedy(err, "choose another --container; pvol never overwrites a file");
	}
	if (fstat(c.fd, &st) < 0) {
		r = pv_fail(err, -errno, path, "cannot make the container: %s", pv_strerror(errno));
		unlink(path);
		return r;
	}
	c.dev = st.st_dev;
	c.ino = st.st_ino;
	c.size = size;
	r = lock(c.fd, path, true, err);
	if (r >= 0)
		r = fill_new(c.fd, path, size, full, err);
	if (r >= 0) {
		r = sync_parent(path);
		if (r < 0)
			pv_fail(err, r, path, "cannot write the container's directory: %s", pv_strerror(r));
	}
	if (r < 0) {
		pv_container_remove(path, &c);
		return r;
	}
	*ret_made = true;
	*ret_container = c;
	c.fd = -1;
	return 0;
}

int pv_container_check_size(const struct pv_container *c, const char *path, uint64_t registered,
	uint64_t needed, struct pv_error *err)
{
	uint64_t least = registered > needed ? registered : needed;

	if (c->size >= least)
		return 0;
	pv_fail(err, -EUCLEAN, path,
		"the container is truncated: it has %" PRIu64 " bytes and should have %" PRIu64, c->size,
		least);
	pv_remedy(err, "restore it from a copy; 'pvol info' shows what its header says");
	return -EUCLEAN;
}

void pv_container_close(struct pv_container *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

void pv_container_remove(const char *path, const struct pv_container *c)
{
	struct stat st;

	if (!c->is_block && lstat(path, &st) == 0 && st.st_dev == c->dev && st.st_ino == c->ino)
		unlink(path);
}

const char *pv_container_unreachable(int fd)
{
	struct stat st;
	struct statfs fs;

	if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode))
		return "a drive with flash memory may keep old copies of overwritten blocks";
	if (fstatfs(fd, &fs) < 0)
		return NULL;
	switch ((unsigned)fs.f_type) {
	case BTRFS_SUPER_MAGIC:
		return "the file system (btrfs) is copy-on-write: old blocks and snapshots may remain";
	case 0x2fc12fc1: return "the file system (ZFS) is copy-on-write: old blocks and snapshots may remain";
	case 0xca451a4e:
		return "the file system (bcachefs) is copy-on-write: old blocks and snapshots may remain";
	case F2FS_SUPER_MAGIC: return "the file system (F2FS) is log-structured: old blocks may remain";
	case 0x58465342: return "on XFS a reflinked copy of the container keeps the old blocks";
	case OVERLAYFS_SUPER_MAGIC:
		return "the file lies on an overlay: the lower layer may hold an old copy";
	case NFS_SUPER_MAGIC:
	case 0xff534d42:
	case 0xfe534d42:
	case FUSE_SUPER_MAGIC:
		return "the file lies on a network or FUSE file system: what its server keeps is unknown";
	default:
		return "a drive with flash memory, or a journal with data, may keep old copies of "
		       "overwritten blocks";
	}
}
