/*
 * Reading and writing a container's header area by descriptor. See format_int.h.
 */
#include "format/format_int.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RANDOM_CHUNK (1U << 20)

void *format_buffer(size_t size)
{
	void *buffer = NULL;

	if (posix_memalign(&buffer, 4096, size ? size : 1))
		return NULL;
	return memset(buffer, 0, size);
}

int format_size(int fd, uint64_t *ret_size, struct pv_error *err)
{
	struct stat st;
	off_t end;

	if (fstat(fd, &st) < 0)
		return pv_fail(err, -errno, NULL, "cannot look at the container: %s", pv_strerror(errno));
	if (S_ISDIR(st.st_mode))
		return pv_fail(err, -EISDIR, NULL, "this is a directory, not a container");
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return pv_fail(err, -EINVAL, NULL, "this is neither a regular file nor a block device");
	end = S_ISREG(st.st_mode) ? st.st_size : lseek(fd, 0, SEEK_END);
	if (end < 0)
		return pv_fail(err, -errno, NULL, "cannot find the container's size: %s", pv_strerror(errno));
	*ret_size = (uint64_t)end;
	return 0;
}

ssize_t format_read(int fd, void *data, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(fd, (char *)data + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int format_write(int fd, const void *data, size_t size, uint64_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = pwrite(fd, (const char *)data + done, size - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENOSPC;
		done += (size_t)n;
	}
	return 0;
}

int format_sync(int fd)
{
	int r;

	do
		r = fsync(fd);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

int format_random(void *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = getrandom((char *)data + done, size - done, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int format_write_random(int fd, uint64_t offset, uint64_t size)
{
	pv_autofree void *buffer = format_buffer(RANDOM_CHUNK);
	int r;

	if (!buffer)
		return -ENOMEM;
	while (size) {
		size_t n = size < RANDOM_CHUNK ? (size_t)size : RANDOM_CHUNK;

		r = format_random(buffer, n);
		if (!r)
			r = format_write(fd, buffer, n, offset);
		if (r)
			return r;
		offset += n;
		size -= n;
	}
	return 0;
}

int format_lock(int fd, struct pv_error *err)
{
	const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};
	struct stat st;

	/* For block devices cryptsetup locks a file of its own below /run, which a confined worker cannot
	 * reach. */
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	for (int i = 0; i < 200; i++) {
		if (!flock(fd, LOCK_EX | LOCK_NB))
			return 0;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return pv_fail(err, -errno, NULL, "cannot lock the header: %s", pv_strerror(errno));
		nanosleep(&pause, NULL);
	}
	return pv_fail(err, -EBUSY, NULL, "another program holds the header's lock");
}

void format_unlock(int fd)
{
	flock(fd, LOCK_UN);
}

const char *format_printable(const char *text, char *ret_text, size_t size)
{
	size_t i;

	for (i = 0; i + 1 < size && text[i]; i++)
		ret_text[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
	ret_text[i] = '\0';
	return ret_text;
}
