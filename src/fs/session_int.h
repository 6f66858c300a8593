/*
 * Private to fs/: a FUSE session on a mount point, served by worker threads that come and go with the load.
 * Used by the mounts and by the single-file view.
 *
 * libfuse decodes requests and encodes answers; receiving is ours: each worker has a descriptor of its own,
 * cloned from the session's, and an answer must go out through the descriptor that its request came in by.
 */
#ifndef PV_FS_SESSION_INT_H
#define PV_FS_SESSION_INT_H

#define FUSE_USE_VERSION 314

#include "base/error.h"

#include <fuse3/fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>

#define PV_MAX_IO (1U << 20)

struct pv_session;

struct pv_session_options {
	const struct fuse_lowlevel_ops *ops;
	void *private;          /* fuse_req_userdata() */
	const char *mountpoint; /* canonical */
	bool allow_other;
	bool read_only;
	unsigned threads_max; /* 0 = 48 */
	/* On the last worker when the mount has ended, whoever ended it. */
	void (*ended)(void *private);
};

/* Mounts; requests are served once pv_session_serve() was called. */
int pv_session_mount(
	const struct pv_session_options *options, struct pv_session **ret_session, struct pv_error *err);
int pv_session_serve(struct pv_session *session, struct pv_error *err);

/*
 * Unmounts in the orderly way; the kernel writes back what it holds, so the session goes on serving until
 * then. -EBUSY when in use. Not on a worker.
 */
int pv_session_unmount(struct pv_session *session, struct pv_error *err);
/* Detaches the mount from the tree at once; what is open goes on. */
int pv_session_detach(struct pv_session *session, struct pv_error *err);
/* Waits for the end of service; `seconds` < 0 = for ever. False when it still serves. */
bool pv_session_wait(struct pv_session *session, int seconds);
/* Ends service now: whoever still uses the mount gets errors. */
void pv_session_abort(struct pv_session *session);
/* Service must have ended (or never begun). Accepts NULL, returns NULL. */
struct pv_session *pv_session_free(struct pv_session *session);

struct fuse_session *pv_session_fuse(struct pv_session *session);
int pv_session_mount_id(const struct pv_session *session);
/* "MAJOR:MINOR" of the mount's device, as in mountinfo and maps ("0:61", "00:3d"). */
void pv_session_device(const struct pv_session *session, unsigned *ret_major, unsigned *ret_minor);

/*
 * For the request being served on this thread: true when the kernel asks that set-user-id and set-group-id
 * bits be dropped with the change (FUSE_WRITE_KILL_SUIDGID, FATTR_KILL_SUIDGID; libfuse does not pass them
 * on).
 */
bool pv_session_kill_ids(void);
/* A buffer of PV_MAX_IO bytes of this worker's. */
void *pv_session_buffer(void);
/* Around a wait of a worker for other workers: lets more of them start. */
void pv_session_blocking(struct pv_session *session, int change);

/* True while the mount is in the table of this process's namespace. */
bool pv_mount_exists(int mount_id);
/* The topmost FUSE mount of ours at exactly this point. */
int pv_mount_find(const char *mountpoint, int *ret_id, unsigned *ret_major, unsigned *ret_minor);
/* Paths, relative to the mount point, at which something is mounted below it. Caller frees each and the
 * array. */
size_t pv_mounts_below(const char *mountpoint, char ***ret_paths);

#endif
