/*
 * The engine's own socket, through which a new keeper finds it when the old one is gone.
 */
#include "engine/engine_int.h"
#include "base/log.h"
#include "pool/pool.h"
#include "volume/hello.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define HELLO_TIMEOUT_MS 5000

static void socket_name(char *ret_name, size_t size)
{
	snprintf(ret_name, size, "engine.%s", engine.name);
}

int engine_listen(struct pv_error *err)
{
	char name[160];
	struct stat st;
	int r;

	socket_name(name, sizeof(name));
	r = pv_socket_listen(engine.runtime_fd, name, 0600, &engine.listen_fd, err);
	if (r < 0)
		return r;
	if (fstatat(engine.runtime_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		engine.socket.dev = st.st_dev;
		engine.socket.ino = st.st_ino;
	}
	return 0;
}

void engine_unlisten(void)
{
	char name[160];
	struct stat st;

	if (engine.listen_fd < 0)
		return;
	socket_name(name, sizeof(name));
	if (fstatat(engine.runtime_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		st.st_dev == engine.socket.dev && st.st_ino == engine.socket.ino)
		unlinkat(engine.runtime_fd, name, 0);
	close(engine.listen_fd);
	engine.listen_fd = -1;
}

int engine_accept(struct pv_error *err)
{
	struct engine_peer *peer;
	struct pv_channel *channel = NULL;
	uid_t uid;
	gid_t gid;
	pid_t pid;
	int fd, r;

	fd = accept4(engine.listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = pv_channel_new(fd, &channel, err);
	if (r < 0)
		return r;
	r = pv_channel_peer(channel, &uid, &gid, &pid);
	if (r >= 0 && uid != geteuid() && uid != 0)
		r = -EPERM;
	if (r >= 0)
		r = pv_hello(channel, pv_pool_libzpool_version(), HELLO_TIMEOUT_MS, NULL, err);
	peer = r < 0 ? NULL : calloc(1, sizeof(*peer));
	if (!peer) {
		pv_channel_free(channel);
		return r < 0 ? r : -ENOMEM;
	}
	peer->channel = channel;
	peer->refs = 1;
	pthread_mutex_lock(&engine.peer_lock);
	engine.peer = peer;
	pthread_mutex_unlock(&engine.peer_lock);
	pv_log(PV_LOG_INFO, "serving keeper %d", (int)pid);
	return 0;
}
