/*
 * Supervision: what happens when an engine dies, and what a new keeper finds when its forerunner and the
 * engines were killed together.
 *
 * A dead engine's mounts answer ENOTCONN for ever, so they are unmounted first, lazily, without looking at
 * them. Then a new engine gets the same descriptors (with the lock) and keys; what had been fsynced is in the
 * pool. An engine that dies again and again, or cannot import, is not restarted: the volume stays closed with
 * the reason.
 */
#include "daemon/keeper_int.h"
#include "volume/mountinfo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

void supervise_event(struct link *link, struct json_object *event, void *private)
{
	struct volume *v = private;
	const char *what = pv_json_string(event, "event", "");

	if (!strcmp(what, "suspended") || !strcmp(what, "resumed")) {
		v->suspended = !strcmp(what, "suspended");
		pv_log(PV_LOG_WARNING, "%s: the pool is %s", v->name,
			v->suspended ? "suspended" : "at work again");
	} else if (!strcmp(what, "full") || !strcmp(what, "room")) {
		v->full = !strcmp(what, "full");
	} else if (!strcmp(what, "unmounted")) {
		const char *point = pv_json_string(event, "mountpoint", "");

		/* the user unmounted the whole volume by hand: that is a wish to close it */
		if (v->at && !strcmp(point, v->at))
			supervise_unmounted(v);
	}
}

static void *close_thread(void *private)
{
	struct volume *v = private;
	struct pv_error err = {0};
	int r = volume_close_claimed(v, false, NULL, &err);

	if (r < 0)
		pv_log(PV_LOG_ERROR, "%s: cannot close it after it was unmounted: %s", v->name, err.message);
	volume_done(v, r < 0 ? VOLUME_OPEN : VOLUME_CLOSED);
	return NULL;
}

static void run_detached(void *(*fn)(void *), void *private)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	/* without a thread the work must still be done, be it here */
	if (pthread_create(&thread, &attributes, fn, private) != 0)
		fn(private);
	pthread_attr_destroy(&attributes);
}

void supervise_unmounted(struct volume *v)
{
	struct volume *claimed;

	if (volume_claim(v->name, VOLUME_OPEN, VOLUME_CLOSING, &claimed, NULL) < 0)
		return;
	pv_log(PV_LOG_INFO, "%s: it was unmounted by hand and is closed", v->name);
	run_detached(close_thread, claimed);
}

/* The last part of what this engine has logged; the caller frees it, NULL when there is nothing. */
static char *log_tail(const struct volume *v)
{
	char name[PV_VOLUME_NAME_MAX + 16];
	pv_autoclose int fd = -1;
	char *text;
	off_t size;
	ssize_t n;

	snprintf(name, sizeof(name), "engine.%s.log", v->name);
	fd = openat(keeper.home->runtime_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	if (size <= v->log_start)
		return NULL;
	if (size - v->log_start > PV_INCIDENT_DETAIL)
		lseek(fd, size - PV_INCIDENT_DETAIL, SEEK_SET);
	else
		lseek(fd, v->log_start, SEEK_SET);
	text = calloc(1, PV_INCIDENT_DETAIL + 1);
	n = text ? read(fd, text, PV_INCIDENT_DETAIL) : -1;
	for (ssize_t i = 0; i < n; i++) {
		/* it goes into a JSON file and onto terminals */
		if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] > 0x7e)
			text[i] = text[i] == '\n' ? '\n' : '?';
	}
	return text;
}

static void describe_end(const struct volume *v, char *ret_text, size_t size)
{
	if (v->end_status == -1)
		snprintf(ret_text, size, "the engine died");
	else if (WIFSIGNALED(v->end_status))
		snprintf(ret_text, size, "the engine died of signal %d (%s)", WTERMSIG(v->end_status),
			sigdescr_np(WTERMSIG(v->end_status)) ? sigdescr_np(WTERMSIG(v->end_status))
							     : "unknown");
	else
		snprintf(ret_text, size, "the engine ended by itself with status %d",
			WEXITSTATUS(v->end_status));
}

/* Enters a death; true when there were too many. */
static bool too_many_deaths(struct volume *v)
{
	int64_t now = time(NULL);

	memmove(v->deaths, v->deaths + 1, sizeof(v->deaths) - sizeof(v->deaths[0]));
	v->deaths[DEATHS_MAX - 1] = now;
	return v->deaths[0] && now - v->deaths[0] < DEATHS_WINDOW;
}

/* Buries the engine, and its mounts. */
static void bury(struct volume *v)
{
	pv_autofree char *tail = NULL;
	char what[128];

	engine_end(v, false);
	tail = log_tail(v);
	describe_end(v, what, sizeof(what));
	volume_incident(v, what, tail);
	if (v->at)
		pv_mounts_detach_below(v->at, NULL);
}

static void set_failed(struct volume *v, const char *reason)
{
	pthread_mutex_lock(&v->record_lock);
	free(v->record->failed);
	v->record->failed = reason ? strdup(reason) : NULL;
	free(v->record->opened_at);
	v->record->opened_at = NULL;
	v->record->interrupted = true;
	pthread_mutex_unlock(&v->record_lock);
}

/* 0, -ENOTCONN when the new engine has died, or why it cannot serve the volume. */
static int start_again(struct volume *v, bool *ret_importing, struct pv_error *err)
{
	int r;

	*ret_importing = false;
	r = engine_start(v, err);
	if (r < 0)
		return r;
	*ret_importing = true;
	r = engine_import(v, v->name, true, NULL, err);
	if (r < 0)
		return r;
	*ret_importing = false;
	return engine_mount(v, NULL, err);
}

void supervise_recover(struct volume *v)
{
	struct pv_error err = {0};
	char reason[sizeof(err.message)] = "";
	bool importing;
	int r;

	for (;;) {
		bury(v);
		if (keeper.stop) {
			snprintf(reason, sizeof(reason), "the keeper was told to stop");
			break;
		}
		if (too_many_deaths(v)) {
			snprintf(reason, sizeof(reason), "the engine died %d times within %d minutes",
				DEATHS_MAX, DEATHS_WINDOW / 60);
			break;
		}
		r = start_again(v, &importing, &err);
		if (r >= 0) {
			v->import_deaths = 0; /* those that count are of one incident */
			pv_log(PV_LOG_INFO, "%s: served again by engine %d", v->name, (int)v->pid);
			volume_done(v, VOLUME_OPEN);
			return;
		}
		if (r != -ENOTCONN) {
			snprintf(reason, sizeof(reason), "%s", err.message);
			engine_abort(v);
			break;
		}
		if (importing && ++v->import_deaths >= IMPORT_DEATHS_MAX) {
			bury(v);
			snprintf(reason, sizeof(reason), "the engine died %d times while importing the pool",
				IMPORT_DEATHS_MAX);
			break;
		}
	}
	set_failed(v, keeper.stop ? NULL : reason);
	volume_incident(v, "the volume stays closed", reason);
	volume_done(v, VOLUME_CLOSED);
}

static void *recover_thread(void *private)
{
	supervise_recover(private);
	return NULL;
}

void supervise_recover_async(struct volume *v)
{
	run_detached(recover_thread, v);
}

void supervise_closed(struct link *link, void *private)
{
	struct volume *v = private;
	bool mine;

	pthread_mutex_lock(&keeper.lock);
	mine = v->link == link && v->state == VOLUME_OPEN;
	if (mine) {
		v->state = VOLUME_RESTARTING;
		v->refs++;
	}
	pthread_mutex_unlock(&keeper.lock);
	if (mine)
		supervise_recover(v);
}

/* ---- after both were killed ---- */

static int clean_up_one(const char *name, void *private)
{
	struct pv_record *record = NULL;
	struct volume *v;
	char boot_id[40];

	if (pv_registry_load(keeper.home->volumes_fd, name, &record, NULL) < 0)
		return 0;
	if (!record->opened_at) {
		pv_record_free(record);
		return 0;
	}
	pv_record_free(record);
	/* those that were taken over are open and cannot be claimed */
	if (volume_claim(name, VOLUME_CLOSED, VOLUME_CLOSING, &v, NULL) < 0)
		return 0;
	pv_boot_id(boot_id);
	pv_mounts_detach_below(v->record->opened_at, NULL);
	free(v->record->opened_at);
	v->record->opened_at = NULL;
	v->record->interrupted = true;
	if (!strcmp(boot_id, v->record->boot_id))
		volume_incident(v, "keeper and engine were killed; the volume was closed by that", NULL);
	else
		volume_incident(v, "the machine went down while the volume was open", NULL);
	volume_done(v, VOLUME_CLOSED);
	return 0;
}

/* Views are served by a process that ends with its keeper; killed with it, they leave a dead mount. */
static void clean_up_views(void)
{
	int fd = openat(keeper.home->runtime_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		pv_autofree char *path = NULL;

		if (strncmp(entry->d_name, "view.", 5) ||
			asprintf(&path, "%s/%s", keeper.home->runtime, entry->d_name) < 0)
			continue;
		pv_mounts_detach_below(path, NULL);
		unlinkat(keeper.home->runtime_fd, entry->d_name, AT_REMOVEDIR);
	}
	if (dir)
		closedir(dir);
}

void supervise_clean_up(void)
{
	pv_registry_walk(keeper.home->volumes_fd, clean_up_one, NULL, NULL);
	clean_up_views();
}

/* ---- the registry's last_txg, kept fresh for rollback detection after a crash ---- */

static void refresh_txg(struct volume *v, struct link *link)
{
	struct link_call call = {.method = "pool.status", .timeout_ms = 10000};

	if (link_call(link, &call, NULL) >= 0) {
		uint64_t txg = pv_json_u64(call.result, "last_txg", 0);
		bool newer;

		pthread_mutex_lock(&v->record_lock);
		newer = txg > v->record->last_txg;
		if (newer)
			v->record->last_txg = txg;
		pthread_mutex_unlock(&v->record_lock);
		if (newer)
			volume_save(v, NULL);
	}
	link_call_clear(&call);
}

void supervise_tick(void)
{
	struct volume *held[64];
	struct link *links[64];
	unsigned count = 0;

	pthread_mutex_lock(&keeper.lock);
	for (struct volume *v = keeper.volumes; v && count < 64; v = v->next) {
		if (v->state != VOLUME_OPEN || !v->link || v->read_only)
			continue;
		v->refs++;
		held[count] = v;
		links[count++] = link_hold(v->link);
	}
	pthread_mutex_unlock(&keeper.lock);
	for (unsigned i = 0; i < count; i++) {
		refresh_txg(held[i], links[i]);
		link_put(links[i]);
		volume_put(held[i]);
	}
}
