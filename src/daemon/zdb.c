/*
 * volume.zdb: the decrypted container of a closed volume as one read-only file, for as long as the client
 * stays. The file is served by `pvol-engine --view`, without any pool; the lock keeps everybody else away
 * from the container.
 */
#include "daemon/keeper_int.h"
#include "base/process.h"
#include "volume/hello.h"
#include "volume/machine.h"
#include "volume/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

struct view {
	char dir_name[PV_VOLUME_NAME_MAX + 16];
	char *dir;
	char file[PV_VOLUME_NAME_MAX + 16];
	bool made_dir;
	pid_t pid;
	struct pv_channel *channel;
};

static int start_server(struct view *view, struct pv_error *err)
{
	char program[] = "pvol-engine", option[] = "--view";
	char *argv[] = {program, option, view->dir, view->file, NULL};
	pv_autofree char *path = NULL;
	int pair[2], r;

	r = pv_process_sibling("pvol-engine", &path, err);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return pv_fail(err, -errno, NULL, "cannot make a socket: %s", pv_strerror(errno));
	r = pv_process_spawn(path, argv, &pair[1], 1, &view->pid, err);
	close(pair[1]);
	if (r < 0) {
		view->pid = 0;
		close(pair[0]);
		return r;
	}
	r = pv_channel_new(pair[0], &view->channel, err);
	return r < 0 ? r : pv_hello(view->channel, NULL, 20000, NULL, err);
}

static int attach(struct view *view, struct volume *v, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct json_object *devices = json_object_new_array(), *device = json_object_new_object();
	pv_autoclose int key = -1;
	int r;

	r = pv_secret_pipe(v->devices[0].key, &key, err);
	if (r < 0) {
		json_object_put(devices);
		json_object_put(device);
		return r;
	}
	pv_json_add_string(device, "label", v->record->containers[0]);
	json_object_object_add(device, "segment", pv_segment_to_json(&v->devices[0].segment));
	json_object_array_add(devices, device);
	json_object_object_add(params, "devices", devices);
	return pv_channel_call(view->channel, "engine.attach", params,
		(int[]){v->devices[0].container.fd, key}, 2, NULL, NULL, NULL, NULL, NULL, err);
}

static int make_dir(struct view *view, const char *name, struct pv_error *err)
{
	snprintf(view->dir_name, sizeof(view->dir_name), "view.%s", name);
	snprintf(view->file, sizeof(view->file), "pvol-%s", name);
	if (asprintf(&view->dir, "%s/%s", keeper.home->runtime, view->dir_name) < 0) {
		view->dir = NULL;
		return pv_fail(err, -ENOMEM, name, "out of memory");
	}
	if (mkdirat(keeper.home->runtime_fd, view->dir_name, 0700) < 0 && errno != EEXIST)
		return pv_fail(err, -errno, view->dir, "cannot make this directory: %s", pv_strerror(errno));
	view->made_dir = true;
	return 0;
}

/* The server ends when its connection does; one that does not is ended, and its mount removed. */
static void stop_server(struct view *view)
{
	struct timespec pause = {.tv_nsec = 20000000};
	bool ended = view->pid <= 0;

	if (view->channel)
		shutdown(pv_channel_fd(view->channel), SHUT_RDWR);
	pv_channel_free(view->channel);
	for (unsigned i = 0; !ended && i < 500; i++) {
		ended = waitpid(view->pid, NULL, WNOHANG) == view->pid;
		if (!ended)
			nanosleep(&pause, NULL);
	}
	if (!ended) {
		kill(view->pid, SIGKILL);
		waitpid(view->pid, NULL, 0);
	}
	if (view->dir)
		pv_mounts_detach_below(view->dir, NULL);
	if (view->made_dir)
		unlinkat(keeper.home->runtime_fd, view->dir_name, AT_REMOVEDIR);
	free(view->dir);
}

/* Until the client says good-bye or dies; or the server does. */
static void serve(struct request *rq, struct view *view)
{
	struct pollfd fds[2] = {
		{.fd = pv_channel_fd(rq->channel), .events = POLLIN | POLLRDHUP},
		{.fd = pv_channel_fd(view->channel), .events = POLLIN | POLLRDHUP},
	};

	while (poll(fds, 2, 1000) <= 0) {
		if (keeper.stop)
			break;
	}
}

static int unlock(struct request *rq, struct volume *v, struct pv_error *err)
{
	pv_autosecret struct pv_secret *secret = NULL;
	int r;

	r = pv_container_open(
		v->record->containers[0], PV_CONTAINER_READ_ONLY, &v->devices[0].container, err);
	if (r >= 0)
		r = pv_container_check_size(
			&v->devices[0].container, v->record->containers[0], v->record->sizes[0], 0, err);
	if (r >= 0)
		r = request_key(rq, 0, &secret, err);
	if (r >= 0)
		r = header_unlock(&v->devices[0], pv_json_string(rq->params, "kind", "passphrase"),
			(int)pv_json_int(rq->params, "slot", -1), false, secret, rq, NULL, err);
	if (r < 0 && err->code && !err->object[0])
		snprintf(err->object, sizeof(err->object), "%s", v->name);
	return r;
}

int volume_zdb(struct request *rq, struct pv_error *err)
{
	struct view view = {0};
	struct volume *v;
	const char *name;
	int r;

	r = request_string(rq, "name", &name, err);
	if (r >= 0)
		r = volume_claim(name, VOLUME_CLOSED, VOLUME_HEADER, &v, err);
	if (r < 0)
		return r;
	r = pv_machine_check_fuse(NULL, err);
	if (r >= 0)
		r = unlock(rq, v, err);
	if (r >= 0)
		r = make_dir(&view, v->name, err);
	if (r >= 0)
		r = start_server(&view, err);
	if (r >= 0)
		r = attach(&view, v, err);
	if (r >= 0) {
		rq->result = json_object_new_object();
		pv_json_add_string(rq->result, "pool", v->name);
		pv_json_add_string(rq->result, "dir", view.dir);
		pv_json_add_string(rq->result, "file", view.file);
		if (request_answer(rq) >= 0)
			serve(rq, &view);
	}
	stop_server(&view);
	volume_done(v, VOLUME_CLOSED);
	return r;
}
