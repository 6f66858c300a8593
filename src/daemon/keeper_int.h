/*
 * pvold, the keeper of one user: the volumes that are open, their engines, and the requests about them.
 *
 * Threads: main (accepts clients, signals, idle exit), one per client (its requests one after the other), one
 * per engine link (answers, events, death). A volume's state decides who may touch it: a thread that has
 * claimed it (any state but OPEN) owns all its fields; while it is OPEN they do not change, and readers hold
 * a reference to its link. `keeper.lock` guards the table, the states and the links; it is never held while
 * waiting for anything else.
 */
#ifndef PV_DAEMON_KEEPER_INT_H
#define PV_DAEMON_KEEPER_INT_H

#include "base/channel.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/secret.h"
#include "block/crypt.h"
#include "daemon/link_int.h"
#include "volume/container.h"
#include "volume/home.h"
#include "volume/registry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum volume_state {
	VOLUME_CLOSED,
	VOLUME_OPEN,
	/* claimed by the thread that does it */
	VOLUME_CREATING,
	VOLUME_OPENING,
	VOLUME_CLOSING,
	VOLUME_RESTARTING,
	VOLUME_HEADER, /* a header or key operation, or a decrypted view */
};

struct volume_device {
	struct pv_container container;
	struct pv_segment segment;
	struct pv_secret *key;
	char *path; /* in the pool's labels */
};

#define DEATHS_MAX 3 /* within DEATHS_WINDOW the volume stays closed */
#define DEATHS_WINDOW (10 * 60)
#define IMPORT_DEATHS_MAX 2

struct volume {
	struct volume *next;
	unsigned refs; /* the table's while it is in there, claims', links' */
	bool listed;   /* in the table */
	char name[PV_VOLUME_NAME_MAX + 1];
	enum volume_state state;

	pthread_mutex_t record_lock; /* the record's contents and its file */
	struct pv_record *record;

	struct volume_device devices[PV_CONTAINERS_MAX];
	unsigned ndevices;
	char *at; /* where it is mounted now */
	bool read_only;
	char libzpool[64];
	struct link *link;
	bool mounting; /* this engine was asked to mount */
	pid_t pid;
	bool child;     /* ours to reap; false for an adopted engine */
	int end_status; /* of waitpid(2), -1 unknown (adopted) */
	int64_t engine_started;
	off_t log_start; /* where this engine's part of the log begins */
	int64_t deaths[DEATHS_MAX];
	unsigned import_deaths;
	atomic_bool suspended, full; /* as the engine's events say */
};

struct keeper {
	struct pv_home *home;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a state has changed, or a client has gone */
	struct volume *volumes;
	unsigned clients;
	unsigned provisional; /* last number of a provisional name */
	int wake_fd;          /* eventfd: the main loop shall look around */
	int64_t started;
	bool stop; /* ordered to stop: everything is being closed */
};

extern struct keeper keeper;

/* ---- volumes.c: the table ---- */

/* A reference to a volume of the table, or NULL. */
struct volume *volume_find(const char *name);
struct volume *volume_hold(struct volume *v);
void volume_put(struct volume *v);
/*
 * Claims `name` for an operation: it must be in state `from` (CLOSED: not in the table; its record is loaded
 * unless `to` is CREATING). -EBUSY says what is going on, -ENOENT that there is no such volume. Gives a
 * reference.
 */
int volume_claim(const char *name, enum volume_state from, enum volume_state to, struct volume **ret_volume,
	struct pv_error *err);
/* As above for a volume that has no name yet; it gets a provisional one. */
int volume_claim_new(struct volume **ret_volume, struct pv_error *err);
/* Gives the claimed volume its name, which must be neither in the table nor in use by another claim. */
int volume_rename(struct volume *v, const char *name, struct pv_error *err);
/*
 * Ends a claim and drops the reference. CLOSED takes it off the table. OPEN with a link that has died
 * meanwhile starts its recovery.
 */
void volume_done(struct volume *v, enum volume_state state);
const char *volume_state_text(enum volume_state state);
/* The link of an open volume with a reference; -ENXIO when it is not open. */
int volume_link(const char *name, struct link **ret_link, struct pv_error *err);
/* Wipes keys and closes containers. */
void volume_devices_clear(struct volume *v);
/* Saves the record; a failure is logged and returned. */
int volume_save(struct volume *v, struct pv_error *err);
void volume_incident(struct volume *v, const char *what, const char *detail);
unsigned volume_count(bool open_only);
void keeper_wake(void);

/* ---- requests ---- */

struct request {
	struct pv_channel *channel; /* the client's */
	int64_t id;
	const char *method;
	struct json_object *params; /* never NULL */
	struct pv_message message;
	struct json_object *result;
	struct json_object *holders;
	bool answered; /* the handler has sent its answer itself */
	bool stop;     /* the keeper ends after the answer */
};

typedef int (*request_handler)(struct request *rq, struct pv_error *err);

/* session.c: takes over the connected socket. */
int session_start(int fd, struct pv_error *err);
void request_progress(struct request *rq, const char *phase, uint64_t done, uint64_t total);
/* Passes a worker's or engine's progress object on; `private` is the request. */
void request_pass_progress(struct json_object *progress, void *private);
/* Whether the client has gone away (or said good-bye with shutdown). */
bool request_abandoned(const struct request *rq);
/* The parameter's string; -EINVAL when it is absent. */
int request_string(struct request *rq, const char *key, const char **ret_value, struct pv_error *err);
/* Reads the key that came as descriptor `index`. */
int request_key(struct request *rq, size_t index, struct pv_secret **ret_key, struct pv_error *err);
/* Answers with rq->result now. 0 or -errno when the client is gone. */
int request_answer(struct request *rq);

int volume_create(struct request *rq, struct pv_error *err);
int volume_open(struct request *rq, struct pv_error *err);
int volume_close(struct request *rq, struct pv_error *err);
int volume_restart(struct request *rq, struct pv_error *err);
int volume_list(struct request *rq, struct pv_error *err);
int volume_status(struct request *rq, struct pv_error *err);
int volume_info(struct request *rq, struct pv_error *err);
int volume_erase(struct request *rq, struct pv_error *err);
int volume_forget(struct request *rq, struct pv_error *err);
int volume_zdb(struct request *rq, struct pv_error *err);
int keeper_status(struct request *rq, struct pv_error *err);
int keeper_stop(struct request *rq, struct pv_error *err);
int dataset_request(struct request *rq, struct pv_error *err); /* dataset.*, snapshot.* */
int dataset_list(struct request *rq, struct pv_error *err);
int pool_scrub(struct request *rq, struct pv_error *err);
int key_list(struct request *rq, struct pv_error *err);
int key_test(struct request *rq, struct pv_error *err);
int key_add(struct request *rq, struct pv_error *err);
int key_change(struct request *rq, struct pv_error *err);
int key_remove(struct request *rq, struct pv_error *err);
int header_backup(struct request *rq, struct pv_error *err);
int header_restore(struct request *rq, struct pv_error *err);

/* close.c: closes a claimed (CLOSING) volume; on success its devices are released. `holders` may be NULL. */
int volume_close_claimed(
	struct volume *v, bool force, struct json_object **ret_holders, struct pv_error *err);
/* Closes everything, by force, within `seconds`; what does not obey is killed. */
void volume_close_everything(unsigned seconds);

/* ---- worker.c: what only workers may do with a header ---- */
/* Unlocks a device's header: fills segment and key of `device`. */
int header_unlock(struct volume_device *device, const char *kind, int slot, bool repair,
	const struct pv_secret *secret, struct request *progress, int *ret_slot, struct pv_error *err);
int header_info(int fd, struct json_object **ret_info, struct pv_error *err);
/* [{"slot","kind"}] of an info object; new reference. */
struct json_object *header_slots(struct json_object *info);

/* ---- engines.c ---- */
/* Starts the engine of a claimed volume, configures it, attaches the volume's devices. */
int engine_start(struct volume *v, struct pv_error *err);
/* Imports and mounts; *ret_import (may be NULL) gets the import's answer. `name` NULL: whatever pool is
 * there. */
int engine_import(struct volume *v, const char *name, bool force, struct json_object **ret_import,
	struct pv_error *err);
int engine_mount(struct volume *v, struct json_object **ret_mounts, struct pv_error *err);
/* Tells it its (new) name and record. */
int engine_configure(struct volume *v, struct pv_error *err);
/* Ends the engine's process: asks when `ask`, then kills; reaps it; removes its socket. */
void engine_end(struct volume *v, bool ask);
/* After a failure: unmounts, exports and ends it so far as it obeys, else kills it and removes its mounts. */
void engine_abort(struct volume *v);
/* Connects to the engines that run already. Returns after all are taken over. */
void engine_adopt_all(void);

/* ---- supervise.c ---- */
/* Called on the link's thread when the engine's end of it is closed. */
void supervise_closed(struct link *link, void *private);
void supervise_event(struct link *link, struct json_object *event, void *private);
/* Recovers a volume in state RESTARTING whose engine is dead; consumes the claim. */
void supervise_recover(struct volume *v);
/* Starts supervise_recover() on a thread of its own. */
void supervise_recover_async(struct volume *v);
/* The volume's root mount was unmounted from outside: closes it. */
void supervise_unmounted(struct volume *v);
/* Once a minute: writes the last transaction group of open volumes into the registry. */
void supervise_tick(void);
/* At the keeper's start, after adoption: volumes that are still marked open were killed with their engine. */
void supervise_clean_up(void);

#endif
