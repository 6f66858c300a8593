/*
 * Unix sockets by directory descriptor. sockaddr_un holds 108 bytes, and a runtime directory may be deeper
 * than that: the address used is /proc/self/fd/DIRFD/NAME, which a process may always walk for itself,
 * dumpable or not.
 */
#include "base/channel.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static int address_of(int dirfd, const char *name, struct sockaddr_un *ret_address, struct pv_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int n;

	if (!*name || strchr(name, '/'))
		return pv_fail(err, -EINVAL, name, "not a socket's name");
	if (dirfd == AT_FDCWD)
		n = snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
	else
		n = snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dirfd, name);
	if (n < 0 || (size_t)n >= sizeof(address.sun_path))
		return pv_fail(err, -ENAMETOOLONG, name, "the socket's name is too long");
	*ret_address = address;
	return 0;
}

static int new_socket(const char *name, int *ret_fd, struct pv_error *err)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		int r = -errno;

		return pv_fail(err, r, name, "cannot make a socket: %s", pv_strerror(r));
	}
	*ret_fd = fd;
	return 0;
}

int pv_socket_connect(int dirfd, const char *name, int *ret_fd, struct pv_error *err)
{
	pv_autoclose int fd = -1;
	struct sockaddr_un address;
	int r;

	r = address_of(dirfd, name, &address, err);
	if (r == 0)
		r = new_socket(name, &fd, err);
	if (r < 0)
		return r;
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		r = -errno;
		if (r != -EINTR)
			return pv_fail(err, r, name, "cannot connect: %s", pv_strerror(r));
	}
	*ret_fd = pv_steal_fd(&fd);
	return 0;
}

/* A socket that nobody listens on is what a killed process left behind. */
static bool is_stale(int dirfd, const char *name)
{
	pv_autoclose int fd = -1;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	return pv_socket_connect(dirfd, name, &fd, NULL) == -ECONNREFUSED;
}

int pv_socket_listen(int dirfd, const char *name, mode_t mode, int *ret_fd, struct pv_error *err)
{
	pv_autoclose int fd = -1;
	struct sockaddr_un address;
	int r;

	r = address_of(dirfd, name, &address, err);
	if (r == 0)
		r = new_socket(name, &fd, err);
	if (r < 0)
		return r;
	/* The socket file gets the descriptor's mode less the umask: never, not for a moment, more than
	 * `mode`. */
	if (fchmod(fd, mode) < 0)
		goto failed;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno != EADDRINUSE)
			goto failed;
		if (!is_stale(dirfd, name)) {
			errno = EADDRINUSE;
			goto failed;
		}
		if (unlinkat(dirfd, name, 0) < 0 ||
			bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
			goto failed;
	}
	if (listen(fd, 64) < 0 || fchmodat(dirfd, name, mode, 0) < 0) {
		r = -errno;
		unlinkat(dirfd, name, 0);
		return pv_fail(err, r, name, "cannot listen: %s", pv_strerror(r));
	}
	*ret_fd = pv_steal_fd(&fd);
	return 0;
failed:
	r = -errno;
	return pv_fail(err, r, name, "cannot listen: %s", pv_strerror(r));
}
