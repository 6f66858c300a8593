/*
 * The table of volumes that are open or being worked on, and the rules who may claim one.
 */
#include "daemon/keeper_int.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

const char *volume_state_text(enum volume_state state)
{
	switch (state) {
	case VOLUME_CLOSED: return "closed";
	case VOLUME_OPEN: return "open";
	case VOLUME_CREATING: return "creating";
	case VOLUME_OPENING: return "opening";
	case VOLUME_CLOSING: return "closing";
	case VOLUME_RESTARTING: return "restarting";
	case VOLUME_HEADER: return "busy";
	}
	return "unknown";
}

static struct volume *find_locked(const char *name)
{
	for (struct volume *v = keeper.volumes; v; v = v->next) {
		if (!strcmp(v->name, name))
			return v;
	}
	return NULL;
}

static struct volume *volume_free(struct volume *v)
{
	volume_devices_clear(v);
	pv_record_free(v->record);
	pthread_mutex_destroy(&v->record_lock);
	free(v->at);
	free(v);
	return NULL;
}

/* Drops a reference; true when the caller must free it. */
static bool put_locked(struct volume *v)
{
	return --v->refs == 0;
}

struct volume *volume_find(const char *name)
{
	PV_LOCK_SCOPE(&keeper.lock);
	struct volume *v = find_locked(name);

	if (v)
		v->refs++;
	return v;
}

struct volume *volume_hold(struct volume *v)
{
	PV_LOCK_SCOPE(&keeper.lock);

	v->refs++;
	return v;
}

void volume_put(struct volume *v)
{
	bool last;

	if (!v)
		return;
	pthread_mutex_lock(&keeper.lock);
	last = put_locked(v);
	pthread_mutex_unlock(&keeper.lock);
	if (last)
		volume_free(v);
}

static int refuse(const struct volume *v, enum volume_state wanted, struct pv_error *err)
{
	switch (v->state) {
	case VOLUME_OPEN:
		if (wanted == VOLUME_CREATING)
			return pv_fail_as(err, -EEXIST, PV_EXIT_FAILED, v->name,
				"a volume of this name exists already");
		pv_fail(err, -EBUSY, v->name,
			wanted == VOLUME_OPENING ? "the volume is open already" : "the volume is open");
		if (wanted != VOLUME_OPENING)
			pv_remedy(err, "pvol close %s", v->name);
		return -EBUSY;
	case VOLUME_CREATING:
		return pv_fail(err, -EBUSY, v->name, "the volume is being created by another command");
	case VOLUME_OPENING:
		return pv_fail(err, -EBUSY, v->name, "the volume is being opened by another command");
	case VOLUME_CLOSING:
		return pv_fail(err, -EBUSY, v->name, "the volume is being closed by another command");
	case VOLUME_RESTARTING:
		return pv_fail(err, -EBUSY, v->name, "the volume's engine is being restarted");
	case VOLUME_HEADER:
		return pv_fail(err, -EBUSY, v->name, "another command works on the volume's header");
	case VOLUME_CLOSED: break;
	}
	return pv_fail(err, -EBUSY, v->name, "the volume is busy");
}

static int make(const char *name, enum volume_state state, struct volume **ret_volume, struct pv_error *err)
{
	struct volume *v = calloc(1, sizeof(*v));

	if (!v)
		return pv_fail(err, -ENOMEM, name, "out of memory");
	snprintf(v->name, sizeof(v->name), "%s", name);
	v->state = state;
	v->refs = 2; /* the table's and the claim's */
	v->listed = true;
	pthread_mutex_init(&v->record_lock, NULL);
	for (unsigned i = 0; i < PV_CONTAINERS_MAX; i++)
		v->devices[i].container = PV_CONTAINER_NONE;
	v->next = keeper.volumes;
	keeper.volumes = v;
	*ret_volume = v;
	return 0;
}

/* Claims what is in the table, or enters it. */
static int claim_locked(const char *name, enum volume_state from, enum volume_state to,
	struct volume **ret_volume, struct pv_error *err)
{
	struct volume *v = find_locked(name);

	if (keeper.stop && to != VOLUME_CLOSING)
		return pv_fail(err, -ESHUTDOWN, name, "the keeper is about to end");
	if (!v && from != VOLUME_CLOSED)
		return pv_fail(err, -ENXIO, name, "the volume is not open");
	if (!v)
		return make(name, to, ret_volume, err);
	if (v->state != from)
		return refuse(v, to, err);
	v->state = to;
	v->refs++;
	*ret_volume = v;
	return 0;
}

int volume_claim(const char *name, enum volume_state from, enum volume_state to, struct volume **ret_volume,
	struct pv_error *err)
{
	struct volume *v = NULL;
	int r;

	r = pv_volume_name_check(name, err);
	if (r < 0)
		return r;
	/* Work on a header is short, and the view for zdb ends a moment after its client: not worth an error.
	 */
	for (unsigned i = 0;; i++) {
		const struct volume *other;
		bool passing;

		pthread_mutex_lock(&keeper.lock);
		r = claim_locked(name, from, to, &v, err);
		other = r == -EBUSY ? find_locked(name) : NULL;
		passing = other && other->state == VOLUME_HEADER;
		pthread_mutex_unlock(&keeper.lock);
		if (!passing || i == 40)
			break;
		usleep(50 * 1000);
	}
	if (r == -ENXIO) {
		struct pv_record *record = NULL;

		/* "not open" or "no such volume"? */
		if (pv_registry_load(keeper.home->volumes_fd, name, &record, err) >= 0) {
			pv_record_free(record);
			return pv_fail(err, r, name, "the volume is not open");
		}
		return err && err->code ? err->code : r;
	}
	if (r < 0)
		return r;
	if (from == VOLUME_CLOSED) {
		r = to == VOLUME_CREATING ? 0
					  : pv_registry_load(keeper.home->volumes_fd, name, &v->record, err);
		if (r >= 0 && !v->record && !(v->record = pv_record_new(name)))
			r = pv_fail(err, -ENOMEM, name, "out of memory");
		if (r < 0) {
			volume_done(v, VOLUME_CLOSED);
			return r;
		}
	}
	*ret_volume = v;
	return 0;
}

int volume_claim_new(struct volume **ret_volume, struct pv_error *err)
{
	struct volume *v = NULL;
	char name[32];
	int r;

	pthread_mutex_lock(&keeper.lock);
	/* the blank keeps it apart from every real name */
	snprintf(name, sizeof(name), "new %u", ++keeper.provisional);
	r = keeper.stop ? pv_fail(err, -ESHUTDOWN, NULL, "the keeper is about to end")
			: make(name, VOLUME_OPENING, &v, err);
	pthread_mutex_unlock(&keeper.lock);
	if (r < 0)
		return r;
	v->record = pv_record_new(name);
	if (!v->record) {
		volume_done(v, VOLUME_CLOSED);
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	}
	*ret_volume = v;
	return 0;
}

int volume_rename(struct volume *v, const char *name, struct pv_error *err)
{
	PV_LOCK_SCOPE(&keeper.lock);
	const struct volume *other = find_locked(name);

	if (other && other != v)
		return refuse(other, VOLUME_OPENING, err);
	snprintf(v->name, sizeof(v->name), "%s", name);
	return 0;
}

static void unlist(struct volume *v)
{
	for (struct volume **p = &keeper.volumes; *p; p = &(*p)->next) {
		if (*p == v) {
			*p = v->next;
			v->listed = false;
			v->refs--;
			return;
		}
	}
}

void volume_done(struct volume *v, enum volume_state state)
{
	bool last, died = false;

	if (state == VOLUME_CLOSED)
		volume_devices_clear(v);
	pthread_mutex_lock(&keeper.lock);
	if (state == VOLUME_OPEN && (!v->link || link_is_dead(v->link))) {
		state = VOLUME_RESTARTING;
		died = true;
		v->refs++;
	}
	v->state = state;
	if (state == VOLUME_CLOSED)
		unlist(v);
	last = put_locked(v);
	pthread_cond_broadcast(&keeper.changed);
	pthread_mutex_unlock(&keeper.lock);
	if (died)
		supervise_recover_async(v);
	if (last)
		volume_free(v);
	keeper_wake();
}

int volume_link(const char *name, struct link **ret_link, struct pv_error *err)
{
	struct volume *v;
	int r = 0;

	pthread_mutex_lock(&keeper.lock);
	v = find_locked(name);
	if (v && v->state == VOLUME_OPEN && v->link)
		*ret_link = link_hold(v->link);
	else if (v)
		r = refuse(v, VOLUME_HEADER, err);
	else
		r = -ENXIO;
	pthread_mutex_unlock(&keeper.lock);
	if (r == -ENXIO) {
		struct pv_record *record = NULL;

		r = pv_registry_load(keeper.home->volumes_fd, name, &record, err);
		if (r < 0)
			return r;
		pv_record_free(record);
		pv_fail(err, -ENXIO, name, "the volume is not open");
		pv_remedy(err, "pvol open %s", name);
		return -ENXIO;
	}
	return r;
}

void volume_devices_clear(struct volume *v)
{
	for (unsigned i = 0; i < PV_CONTAINERS_MAX; i++) {
		struct volume_device *device = &v->devices[i];

		pv_container_close(&device->container);
		device->key = pv_secret_free(device->key);
		free(device->path);
		device->path = NULL;
	}
	v->ndevices = 0;
}

int volume_save(struct volume *v, struct pv_error *err)
{
	struct pv_error local = {0};
	int r;

	pthread_mutex_lock(&v->record_lock);
	r = pv_registry_save(keeper.home->volumes_fd, v->record, &local);
	pthread_mutex_unlock(&v->record_lock);
	if (r < 0)
		pv_log(PV_LOG_ERROR, "%s: %s", v->name, local.message);
	if (r < 0 && err)
		*err = local;
	return r;
}

void volume_incident(struct volume *v, const char *what, const char *detail)
{
	pv_log(PV_LOG_WARNING, "%s: %s%s%s", v->name, what, detail ? ": " : "", detail ? detail : "");
	pthread_mutex_lock(&v->record_lock);
	pv_record_incident(v->record, what, detail);
	pthread_mutex_unlock(&v->record_lock);
	volume_save(v, NULL);
}

unsigned volume_count(bool open_only)
{
	PV_LOCK_SCOPE(&keeper.lock);
	unsigned count = 0;

	for (const struct volume *v = keeper.volumes; v; v = v->next)
		count += !open_only || v->state == VOLUME_OPEN || v->state == VOLUME_RESTARTING;
	return count;
}

void keeper_wake(void)
{
	uint64_t one = 1;

	(void)!write(keeper.wake_fd, &one, sizeof(one));
}
