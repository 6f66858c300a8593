/*
 * Finding the keeper, or starting it.
 *
 * Two programs that find none at once start two; the second finds the lock taken and ends, and both callers
 * meet the first. A keeper that is just ending for want of work refuses or closes the connection: then the
 * search begins again.
 */
#include "daemon/client.h"
#include "base/cleanup.h"
#include "base/process.h"
#include "volume/hello.h"
#include "volume/home.h"

#include <errno.h>
#include <sys/wait.h>
#include <time.h>

#define START_SECONDS 60 /* a keeper that takes engines over is slow to answer, not absent */
#define HELLO_TIMEOUT_MS 60000

static int connect_once(const struct pv_home *home, struct pv_channel **ret_channel, struct pv_error *err)
{
	struct pv_channel *channel = NULL;
	uid_t uid;
	gid_t gid;
	pid_t pid;
	int fd = -1, r;

	r = pv_socket_connect(home->runtime_fd, "control", &fd, err);
	if (r < 0)
		return r;
	r = pv_channel_new(fd, &channel, err);
	if (r >= 0)
		r = pv_channel_peer(channel, &uid, &gid, &pid);
	if (r >= 0 && uid != geteuid() && uid != 0)
		r = pv_fail(err, -EPERM, home->runtime, "the keeper's socket is served by user %u",
			(unsigned)uid);
	if (r >= 0)
		r = pv_hello(channel, NULL, HELLO_TIMEOUT_MS, NULL, err);
	if (r < 0) {
		pv_channel_free(channel);
		return r;
	}
	*ret_channel = channel;
	return 0;
}

/* The started program forks and ends at once; what it says before goes to our standard error. */
static int start(struct pv_error *err)
{
	char program[] = "pvold", option[] = "--background";
	char *argv[] = {program, option, NULL};
	pv_autofree char *path = NULL;
	int status, r;
	pid_t pid;

	r = pv_process_sibling("pvold", &path, err);
	if (r >= 0)
		r = pv_process_spawn(path, argv, NULL, 0, &pid, err);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return 0;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0
		       ? 0
		       : pv_fail(err, -EIO, path, "the keeper does not start");
}

int pv_keeper_connect(bool start_if_missing, struct pv_channel **ret_channel, struct pv_error *err)
{
	const struct timespec pause = {.tv_nsec = 10000000};
	pv_autohome struct pv_home *home = NULL;
	struct timespec now, end, next = {0};
	int r;

	r = pv_home_open(start_if_missing, &home, err);
	if (r < 0)
		return r;
	if (home->runtime_fd < 0)
		return pv_fail(err, -ENOENT, NULL, "no keeper is running");
	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now;
	end.tv_sec += START_SECONDS;
	for (;;) {
		struct pv_error last = {0};

		r = connect_once(home, ret_channel, &last);
		if (r >= 0)
			return 0;
		if (r == -EPROTO || r == -EPERM || !start_if_missing) {
			if (err)
				*err = last;
			return r == -ECONNREFUSED ? -ENOENT : r;
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec >= end.tv_sec) {
			pv_fail(err, r, NULL, "the keeper does not answer: %s", last.message);
			pv_remedy(err, "see keeper.log in %s", home->runtime);
			return r;
		}
		if (now.tv_sec >= next.tv_sec) {
			/* the directory may have been removed since */
			home = pv_home_free(home);
			r = pv_home_open(true, &home, err);
			if (r >= 0)
				r = start(err);
			if (r < 0)
				return r;
			next.tv_sec = now.tv_sec + 3;
		}
		nanosleep(&pause, NULL);
	}
}
