/*
 * pvol-engine: the process of one open volume. It holds the decrypting devices, libzpool with the one pool,
 * and the mounts; it serves its keeper on a channel and outlives it.
 *
 * Threads: main (accepts keepers, receives requests, signals), one per running request, a watcher of the
 * backing store, and those of libzpool and the mounts.
 */
#ifndef PV_ENGINE_ENGINE_INT_H
#define PV_ENGINE_ENGINE_INT_H

#include "base/channel.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/secret.h"
#include "block/bdev.h"
#include "block/crypt.h"
#include "fs/mount.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define ENGINE_DEVICES_MAX (PV_CHANNEL_MAX_FDS / 2)

/* Exit status of an engine whose container failed for good. */
#define ENGINE_EXIT_LOST 9

struct engine_device {
	char *path;  /* in the pool's labels: /dev/mapper/pvol-NAME */
	char *label; /* for messages: the container's path */
	struct pv_segment segment;
	bool read_only;
	int container_fd; /* ours to give to the next keeper; carries the lock */
	struct pv_secret *key;
	struct pv_bdev *bdev; /* crypt on (trace on sim on) file, NULL until opened */
};

/* A connected keeper. Running requests hold a reference, so that an answer never goes to a later keeper. */
struct engine_peer {
	struct pv_channel *channel;
	atomic_uint refs;
};

struct engine {
	/* Write-held by calls that change what is open, read-held by those that use it. */
	pthread_rwlock_t state;
	char name[128];
	char *runtime;
	int runtime_fd;
	char *state_dir;   /* libzpool's private directory */
	char *sim, *trace; /* test devices between file and crypt */
	uid_t owner;
	uint64_t dirty_max;
	struct json_object *record;
	struct engine_device devices[ENGINE_DEVICES_MAX];
	unsigned ndevices;
	bool started; /* libzpool */
	char *pool;   /* imported pool's name, else NULL */
	struct pv_mounts *mounts;

	pthread_mutex_t peer_lock;
	struct engine_peer *peer; /* NULL while there is no keeper */
	int listen_fd;
	struct { /* identity of our socket, so that only our own is ever unlinked */
		dev_t dev;
		ino_t ino;
	} socket;

	int wake_fd; /* eventfd: something to look at in the main loop */
	atomic_bool stopping;
	atomic_uint running; /* requests */
};

extern struct engine engine;

/* One request. Descriptors in `message` that a handler keeps are stolen (set to -1). */
struct engine_call {
	struct engine_peer *peer;
	int64_t id;
	const char *method;
	struct json_object *params; /* never NULL */
	struct pv_message message;
	/* filled by the handler */
	struct json_object *result;
	struct json_object *holders; /* goes into the error object */
	int fds[PV_CHANNEL_MAX_FDS]; /* sent with the result, then closed */
	size_t nfds;
};

typedef int (*engine_handler)(struct engine_call *call, struct pv_error *err);

struct engine_method {
	const char *name;
	engine_handler handler;
};

/* requests.c */
void engine_dispatch(struct engine_peer *peer, struct pv_message *message);
void engine_event(const char *event, const char *key, const char *value);
struct engine_peer *engine_peer_hold(void);
void engine_peer_release(struct engine_peer *peer);

/* devices.c: state write-held */
int engine_configure(struct engine_call *call, struct pv_error *err);
int engine_attach(struct engine_call *call, struct pv_error *err);
int engine_describe(struct engine_call *call, struct pv_error *err);
int engine_adopt(struct engine_call *call, struct pv_error *err);
int engine_exit(struct engine_call *call, struct pv_error *err);
void engine_detach_all(void);
uint64_t engine_backing_free(void);

/* pools.c */
int engine_pool_create(struct engine_call *call, struct pv_error *err);
int engine_pool_import(struct engine_call *call, struct pv_error *err);
int engine_pool_export(struct engine_call *call, struct pv_error *err);
int engine_pool_status(struct engine_call *call, struct pv_error *err);
int engine_pool_scrub(struct engine_call *call, struct pv_error *err);
int engine_pool_sync(struct engine_call *call, struct pv_error *err);
int engine_pool_clear(struct engine_call *call, struct pv_error *err);
int engine_mounts_start(struct engine_call *call, struct pv_error *err);
int engine_mounts_stop(struct engine_call *call, struct pv_error *err);
int engine_mounts_list(struct engine_call *call, struct pv_error *err);
int engine_mounts_holders(struct engine_call *call, struct pv_error *err);
/* Unmounts (by force) and exports: the engine's own way out when no keeper is there to ask for it. */
int engine_close_all(struct pv_error *err);

/* datasets.c */
int engine_dataset_create(struct engine_call *call, struct pv_error *err);
int engine_dataset_list(struct engine_call *call, struct pv_error *err);
int engine_snapshot_create(struct engine_call *call, struct pv_error *err);
int engine_snapshot_list(struct engine_call *call, struct pv_error *err);
int engine_snapshot_rollback(struct engine_call *call, struct pv_error *err);
int engine_snapshot_destroy(struct engine_call *call, struct pv_error *err);

/* props.c */
struct pv_property;
/* {"name":"value"} to an array (caller frees it; strings are borrowed from `json`). */
int engine_properties(
	struct json_object *json, struct pv_property **ret_props, unsigned *ret_count, struct pv_error *err);

/* socket.c */
int engine_listen(struct pv_error *err);
void engine_unlisten(void);
int engine_accept(struct pv_error *err);

/* watch.c */
int engine_watch_start(struct pv_error *err);

/* view.c: `pvol-engine --view DIR FILE` */
int engine_view_main(const char *dir, const char *file);

#endif
