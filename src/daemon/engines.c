/*
 * Engines from the keeper's side: starting one, giving it devices and keys, ending it, and taking over those
 * that a former keeper has left behind.
 */
#include "daemon/keeper_int.h"
#include "base/process.h"
#include "volume/hello.h"
#include "volume/machine.h"
#include "volume/mountinfo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define HELLO_TIMEOUT_MS 20000 /* a machine that swaps is slow, not dead */
#define EXIT_TIMEOUT_MS 20000
#define START_TIMEOUT_MS 120000
#define ADOPT_TIMEOUT_MS 20000
#define ABORT_TIMEOUT_MS 20000

static void release_volume(void *private)
{
	volume_put(private);
}

static const struct link_ops ops = {
	.event = supervise_event, .closed = supervise_closed, .release = release_volume};

/* Takes over the channel in any case. */
static int set_link(struct volume *v, struct pv_channel *channel, struct pv_error *err)
{
	struct link *link;
	int r;

	r = link_new(channel, &ops, volume_hold(v), &link, err);
	if (r < 0) {
		pv_channel_free(channel);
		volume_put(v);
		return r;
	}
	pthread_mutex_lock(&keeper.lock);
	v->link = link;
	pthread_mutex_unlock(&keeper.lock);
	v->suspended = v->full = false;
	return 0;
}

static void clear_link(struct volume *v)
{
	struct link *link;

	pthread_mutex_lock(&keeper.lock);
	link = v->link;
	v->link = NULL;
	pthread_mutex_unlock(&keeper.lock);
	if (link)
		link_shutdown(link);
	link_put(link);
}

/* The log is opened here, so that the engine's last words are caught whatever kills it. */
static int open_log(struct volume *v, struct pv_error *err)
{
	char name[PV_VOLUME_NAME_MAX + 16];
	int fd;

	snprintf(name, sizeof(name), "engine.%s.log", v->name);
	fd = openat(
		keeper.home->runtime_fd, name, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return pv_fail(err, -errno, v->name, "cannot write the engine's log: %s", pv_strerror(errno));
	v->log_start = lseek(fd, 0, SEEK_END);
	return fd;
}

static int spawn(struct volume *v, struct pv_channel **ret_channel, struct pv_error *err)
{
	pv_autofree char *path = NULL;
	pv_autoclose int log = -1, ours = -1, theirs = -1;
	char program[] = "pvol-engine";
	char *argv[] = {program, v->name, NULL};
	int pair[2], r;

	r = pv_process_sibling("pvol-engine", &path, err);
	if (r < 0)
		return r;
	log = open_log(v, err);
	if (log < 0)
		return log;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return pv_fail(err, -errno, v->name, "cannot make a socket: %s", pv_strerror(errno));
	ours = pair[0];
	theirs = pair[1];
	r = pv_process_spawn(path, argv, (int[]){theirs, log}, 2, &v->pid, err);
	if (r < 0)
		return r;
	v->child = true;
	v->engine_started = time(NULL);
	return pv_channel_new(pv_steal_fd(&ours), ret_channel, err);
}

int engine_configure(struct volume *v, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct json_object *record = json_object_new_object();
	struct link_call call = {
		.method = "engine.configure", .params = params, .timeout_ms = START_TIMEOUT_MS};
	const char *arc = getenv("PVOL_ARC_MAX");
	int r;

	pv_json_add_string(params, "name", v->name);
	pv_json_add_string(params, "runtime", keeper.home->runtime);
	pv_json_add_int(params, "owner", geteuid());
	if (arc)
		pv_json_add_u64(params, "arc_max", strtoull(arc, NULL, 10));
	pv_json_add_string(params, "sim", getenv("PVOL_TEST_SIM"));
	pv_json_add_string(params, "trace", getenv("PVOL_TEST_TRACE"));
	pv_json_add_string(record, "at", v->at);
	pv_json_add_bool(record, "read_only", v->read_only);
	pv_json_add_int(record, "started", v->engine_started);
	json_object_object_add(params, "record", record);
	r = link_call(v->link, &call, err);
	if (r >= 0)
		snprintf(v->libzpool, sizeof(v->libzpool), "%s", pv_json_string(call.result, "libzpool", ""));
	link_call_clear(&call);
	return r;
}

static int attach(struct volume *v, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct json_object *devices = json_object_new_array();
	int fds[2 * PV_CONTAINERS_MAX], r = 0;
	struct link_call call = {
		.method = "engine.attach", .params = params, .fds = fds, .timeout_ms = START_TIMEOUT_MS};
	unsigned given = 0;

	json_object_object_add(params, "devices", devices);
	for (; r >= 0 && given < v->ndevices; given++) {
		struct volume_device *device = &v->devices[given];
		struct json_object *json = json_object_new_object();

		pv_json_add_string(json, "path", device->path);
		pv_json_add_string(json, "label", v->record->containers[given]);
		pv_json_add_bool(json, "read_only", v->read_only);
		json_object_object_add(json, "segment", pv_segment_to_json(&device->segment));
		json_object_array_add(devices, json);
		fds[2 * given] = device->container.fd;
		fds[2 * given + 1] = -1;
		r = pv_secret_pipe(device->key, &fds[2 * given + 1], err);
	}
	call.nfds = (size_t)2 * given;
	if (r >= 0)
		r = link_call(v->link, &call, err);
	link_call_clear(&call);
	for (unsigned i = 0; i < given; i++) {
		if (fds[2 * i + 1] >= 0)
			close(fds[2 * i + 1]);
	}
	return r;
}

int engine_start(struct volume *v, struct pv_error *err)
{
	struct pv_channel *channel = NULL;
	int r;

	v->pid = 0;
	v->mounting = false;
	r = spawn(v, &channel, err);
	if (r >= 0) {
		r = pv_hello(channel, NULL, HELLO_TIMEOUT_MS, NULL, err);
		if (r < 0) {
			pv_fail(err, r, v->name,
				"the volume's engine does not start (see engine.%s.log in %s)", v->name,
				keeper.home->runtime);
			pv_channel_free(channel);
		}
	}
	if (r >= 0)
		r = set_link(v, channel, err);
	if (r >= 0)
		r = engine_configure(v, err);
	if (r >= 0)
		r = attach(v, err);
	return r;
}

int engine_import(
	struct volume *v, const char *name, bool force, struct json_object **ret_import, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct link_call call = {.method = "pool.import", .params = params};
	int r;

	pv_json_add_string(params, "name", name);
	pv_json_add_bool(params, "read_only", v->read_only);
	pv_json_add_bool(params, "force", force);
	r = link_call(v->link, &call, err);
	if (r >= 0 && ret_import)
		*ret_import = json_object_get(call.result);
	link_call_clear(&call);
	return r;
}

int engine_mount(struct volume *v, struct json_object **ret_mounts, struct pv_error *err)
{
	pv_autojson struct json_object *params = json_object_new_object();
	struct link_call call = {.method = "mounts.start", .params = params};
	bool allow_other = false;
	int r;

	r = pv_machine_check_fuse(&allow_other, err);
	if (r < 0)
		return r;
	pv_json_add_string(params, "at", v->at);
	pv_json_add_bool(params, "read_only", v->read_only);
	pv_json_add_bool(params, "allow_other", allow_other);
	pv_json_add_bool(params, "separate", allow_other);
	v->mounting = true;
	r = link_call(v->link, &call, err);
	if (r >= 0 && ret_mounts)
		*ret_mounts = json_object_get(pv_json_array(call.result, "mounts"));
	link_call_clear(&call);
	return r;
}

/* Waits for the end of the process; true when it has ended (or is no process of ours any more). */
static bool wait_end(struct volume *v, int timeout_ms)
{
	struct timespec pause = {.tv_nsec = 10000000};
	int status;

	for (int waited = 0;; waited += 10) {
		if (v->child) {
			pid_t pid = waitpid(v->pid, &status, WNOHANG);

			if (pid == v->pid || (pid < 0 && errno == ECHILD)) {
				v->end_status = pid == v->pid ? status : 0;
				return true;
			}
		} else if (kill(v->pid, 0) < 0 && errno == ESRCH) {
			v->end_status = -1;
			return true;
		}
		if (waited >= timeout_ms)
			return false;
		nanosleep(&pause, NULL);
	}
}

/* What a killed engine leaves in the runtime directory. */
static void remove_traces(const char *volume)
{
	char name[PV_VOLUME_NAME_MAX + 40];

	snprintf(name, sizeof(name), "engine.%s", volume);
	unlinkat(keeper.home->runtime_fd, name, 0);
	snprintf(name, sizeof(name), "cache.%s/zpool.cache", volume);
	unlinkat(keeper.home->runtime_fd, name, 0);
	snprintf(name, sizeof(name), "cache.%s", volume);
	unlinkat(keeper.home->runtime_fd, name, AT_REMOVEDIR);
}

void engine_end(struct volume *v, bool ask)
{
	if (v->link && ask)
		ask = link_simple(v->link, "engine.exit", NULL, EXIT_TIMEOUT_MS, NULL) >= 0;
	clear_link(v);
	if (v->pid > 0 && !(ask && wait_end(v, EXIT_TIMEOUT_MS))) {
		kill(v->pid, SIGKILL);
		/* a killed process may still wait for its disk */
		while (!wait_end(v, 60000))
			pv_log(PV_LOG_ERROR, "%s: engine %d does not die", v->name, (int)v->pid);
	}
	v->pid = 0;
	remove_traces(v->name);
}

void engine_abort(struct volume *v)
{
	pv_autojson struct json_object *force = json_object_new_object();
	bool died = true;

	if (v->pid <= 0)
		return;
	pv_json_add_bool(force, "force", true);
	if (v->link && link_simple(v->link, "mounts.stop", force, ABORT_TIMEOUT_MS, NULL) >= 0) {
		died = false;
		link_simple(v->link, "pool.export", NULL, ABORT_TIMEOUT_MS, NULL);
	}
	engine_end(v, !died);
	/* otherwise nothing of its is mounted, and what is there may be another volume's */
	if (died && v->mounting)
		pv_mounts_detach_below(v->at, NULL);
}

/* ---- adoption ---- */

static int take_devices(struct volume *v, struct link_call *call, struct pv_error *err)
{
	struct json_object *devices = pv_json_array(call->result, "devices");
	size_t count = devices ? json_object_array_length(devices) : 0;

	if (!count || count > PV_CONTAINERS_MAX || call->ret_nfds != 2 * count)
		return pv_fail(err, -EPROTO, v->name, "the engine gives no devices");
	for (size_t i = 0; i < count; i++) {
		struct json_object *json = json_object_array_get_idx(devices, i);
		struct volume_device *device = &v->devices[i];
		struct stat st;
		int r;

		device->container.fd = pv_steal_fd(&call->ret_fds[2 * i]);
		if (fstat(device->container.fd, &st) == 0) {
			device->container.size = (uint64_t)st.st_size;
			device->container.is_block = S_ISBLK(st.st_mode);
			device->container.dev = device->container.is_block ? st.st_rdev : st.st_dev;
			device->container.ino = st.st_ino;
		}
		device->path = strdup(pv_json_string(json, "path", ""));
		r = pv_segment_from_json(pv_json_object(json, "segment"), &device->segment, err);
		if (r >= 0)
			r = pv_secret_read(call->ret_fds[2 * i + 1], 4096, &device->key, err);
		if (r < 0)
			return r;
		v->ndevices++;
	}
	return 0;
}

static int adopt(struct volume *v, struct pv_channel *channel, struct pv_error *err)
{
	struct link_call call = {.method = "engine.adopt", .timeout_ms = ADOPT_TIMEOUT_MS};
	struct json_object *record;
	int r;

	r = set_link(v, channel, err);
	if (r < 0)
		return r;
	r = link_call(v->link, &call, err);
	if (r >= 0 && strcmp(pv_json_string(call.result, "state", ""), "mounted") != 0)
		r = pv_fail(
			err, -EINPROGRESS, v->name, "it was being opened or closed when its keeper ended");
	if (r >= 0)
		r = take_devices(v, &call, err);
	if (r >= 0) {
		record = pv_json_object(call.result, "record");
		v->at = strdup(record ? pv_json_string(record, "at", "") : "");
		v->read_only = record && pv_json_bool(record, "read_only", false);
		v->engine_started = record ? pv_json_int(record, "started", 0) : 0;
		snprintf(v->libzpool, sizeof(v->libzpool), "%s", pv_json_string(call.result, "libzpool", ""));
	}
	link_call_clear(&call);
	return r;
}

static void adopt_one(const char *name)
{
	struct pv_channel *channel = NULL;
	struct pv_error err = {0};
	char socket_name[PV_VOLUME_NAME_MAX + 16];
	struct volume *v = NULL;
	uid_t uid;
	gid_t gid;
	pid_t pid = 0;
	int fd = -1, r;

	snprintf(socket_name, sizeof(socket_name), "engine.%s", name);
	r = pv_socket_connect(keeper.home->runtime_fd, socket_name, &fd, &err);
	if (r < 0) {
		/* nobody listens: the engine is dead */
		remove_traces(name);
		return;
	}
	r = pv_channel_new(fd, &channel, &err);
	if (r >= 0)
		r = pv_channel_peer(channel, &uid, &gid, &pid);
	if (r >= 0 && uid != geteuid() && uid != 0)
		r = pv_fail(&err, -EPERM, name, "its socket is served by user %u", (unsigned)uid);
	if (r >= 0)
		r = pv_hello(channel, NULL, HELLO_TIMEOUT_MS, NULL, &err);
	if (r < 0) {
		pv_log(PV_LOG_ERROR, "%s: its engine %d does not answer: %s", name, (int)pid, err.message);
		pv_channel_free(channel);
		return;
	}
	r = volume_claim(name, VOLUME_CLOSED, VOLUME_OPENING, &v, &err);
	if (r < 0) {
		/* without a registry file (a name still provisional, say) it can only be closed */
		r = volume_claim(name, VOLUME_CLOSED, VOLUME_CREATING, &v, &err);
		if (r < 0)
			r = volume_claim_new(&v, &err);
		if (r < 0) {
			pv_channel_free(channel);
			return;
		}
		v->pid = pid;
		if (set_link(v, channel, &err) >= 0)
			engine_abort(v);
		remove_traces(name);
		volume_done(v, VOLUME_CLOSED);
		return;
	}
	v->pid = pid;
	r = adopt(v, channel, &err);
	if (r < 0) {
		pv_log(PV_LOG_WARNING, "%s: cannot take its engine over: %s", name, err.message);
		engine_abort(v);
		volume_done(v, VOLUME_CLOSED);
		return;
	}
	pv_log(PV_LOG_INFO, "%s: took over engine %d", name, (int)pid);
	volume_done(v, VOLUME_OPEN);
}

static int is_engine_socket(const struct dirent *entry)
{
	struct stat st;

	return !strncmp(entry->d_name, "engine.", 7) &&
	       fstatat(keeper.home->runtime_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISSOCK(st.st_mode);
}

void engine_adopt_all(void)
{
	struct dirent **entries = NULL;
	int count = scandirat(keeper.home->runtime_fd, ".", &entries, is_engine_socket, alphasort);

	for (int i = 0; i < count; i++) {
		adopt_one(entries[i]->d_name + 7);
		free(entries[i]);
	}
	free(entries);
}
