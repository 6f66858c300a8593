/*
 * The client side of pvol-worker: one process for one request.
 */
#include "worker/worker.h"

#include "base/cleanup.h"
#include "base/process.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

static int start(struct pv_channel **ret_channel, pid_t *ret_pid, struct pv_error *err)
{
	static char name[] = "pvol-worker";
	char *const argv[] = {name, NULL};
	pv_autofree char *path = NULL;
	int pair[2], r;

	r = pv_process_sibling(name, &path, err);
	if (r)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		r = -errno;
		return pv_fail(err, r, NULL, "cannot make a socket pair: %s", pv_strerror(r));
	}
	r = pv_process_spawn(path, argv, &pair[1], 1, ret_pid, err);
	close(pair[1]);
	if (r) {
		close(pair[0]);
		return r;
	}
	r = pv_channel_new(pair[0], ret_channel, err); /* owns the socket from now on, also when it fails */
	if (r) {
		kill(*ret_pid, SIGKILL);
		waitpid(*ret_pid, NULL, 0);
	}
	return r;
}

/* Waits for the worker's end: the signal that killed it, 0 otherwise. */
static int reap(pid_t pid)
{
	int status = 0;
	pid_t waited;

	do
		waited = waitpid(pid, &status, 0);
	while (waited < 0 && errno == EINTR);
	return waited == pid && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

int pv_worker_run(const char *method, struct json_object *params, const int *fds, size_t nfds,
	pv_progress_fn progress, void *private, struct json_object **ret_result, int *ret_fds,
	size_t *inout_nfds, struct pv_error *err)
{
	struct pv_channel *channel = NULL;
	struct pv_error why = {0};
	int r, signal;
	pid_t pid;

	r = start(&channel, &pid, err);
	if (r)
		return r;
	r = pv_channel_call(
		channel, method, params, fds, nfds, progress, private, ret_result, ret_fds, inout_nfds, &why);
	/* Its end of the channel closes with this: a worker that still waits for anything ends. */
	pv_channel_free(channel);
	signal = reap(pid);
	if (!r)
		return 0;
	if (signal == SIGKILL) {
		pv_fail(err, -EIO, NULL, "the worker died: signal %d", signal);
		pv_remedy(
			err, "most often the machine is out of memory: the key derivation needs up to 1 GiB");
		return -EIO;
	}
	if (signal)
		return pv_fail(err, -EIO, NULL, "the worker died: signal %d", signal);
	if (r == -ENOTCONN || r == -ECONNRESET || r == -EPIPE)
		return pv_fail(err, -EIO, NULL, "the worker ended without an answer");
	if (err)
		*err = why;
	return r;
}
