/*
 * A FUSE session: mounting, the workers, unmounting.
 *
 * Workers: one starts when none is left to receive (up to threads_max), one ends when more than IDLE_MAX
 * would wait. They receive with cancellation enabled, and only there, so that pv_session_abort() can end them
 * although nothing else wakes a read of /dev/fuse while the file system is in use.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "fs/session_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IDLE_MAX 6
#define SPIN_NS 40000
#define THREADS_MAX 48
#define BUFFER_SIZE (PV_MAX_IO + 65536)

struct worker {
	struct worker *next;
	struct pv_session *session;
	pthread_t thread;
	int fd;    /* cloned; the session's own when cloning is refused */
	int spin;  /* cloned, O_NONBLOCK; -1 when cloning is refused */
	int from;  /* the one of the two that the request came from: its answer must go there */
	char *in;  /* BUFFER_SIZE */
	char *out; /* PV_MAX_IO, made on first use */
	bool kill_ids;
	bool init; /* the request is FUSE_INIT */
	uint32_t offered;
};

struct pv_session {
	struct fuse_session *fuse;
	char *mountpoint;
	void *private;
	void (*ended)(void *private);
	int mount_id;
	unsigned major, minor;
	bool mounted;
	bool serving; /* pv_session_serve() was called */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct worker *workers;  /* running */
	struct worker *finished; /* to be joined */
	unsigned count, idle, limit;
	bool over; /* no worker will start any more */
	atomic_bool spinning;
};

static _Thread_local struct worker *self;

static char *buffer_new(size_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void worker_free(struct worker *worker)
{
	if (worker->in)
		munmap(worker->in, BUFFER_SIZE);
	if (worker->out)
		munmap(worker->out, PV_MAX_IO);
	if (worker->fd >= 0 && worker->fd != fuse_session_fd(worker->session->fuse))
		close(worker->fd);
	if (worker->spin >= 0)
		close(worker->spin);
	free(worker);
}

/*
 * Answers leave by the worker's own descriptor, notifications (from other threads) by the session's. The
 * answer to FUSE_INIT is completed with a flag that libfuse does not know: that we drop set-id bits and file
 * capabilities on changes ourselves. Without it the kernel asks for security.capability before each write(2).
 */
static ssize_t send_answer(int fd, struct iovec *iov, int count, void *private)
{
	struct fuse_init_out init;
	struct iovec copy[2];
	ssize_t n;

	if (self)
		fd = self->from;
	if (self && self->init && count == 2 && iov[1].iov_len <= sizeof(init) && iov[1].iov_len >= 24 &&
		((struct fuse_out_header *)iov[0].iov_base)->error == 0) {
		memcpy(&init, iov[1].iov_base, iov[1].iov_len);
		init.flags |= self->offered & FUSE_HANDLE_KILLPRIV_V2;
		copy[0] = iov[0];
		copy[1] = (struct iovec){&init, iov[1].iov_len};
		iov = copy;
	}
	n = writev(fd, iov, count);
	/* ENOENT: nobody waits for it any more. Of any other error libfuse would print a line, to nobody's
	 * use. */
	if (n < 0)
		errno = ENOENT;
	return n;
}

static ssize_t receive(int fd, void *data, size_t size, void *private)
{
	return read(fd, data, size);
}

/* What libfuse drops on the way to the operation. */
static void peek(struct worker *worker, size_t size)
{
	const struct fuse_in_header *header = (const void *)worker->in;
	const void *body = worker->in + sizeof(*header);
	size_t rest = size - sizeof(*header);

	worker->kill_ids = false;
	worker->init = false;
	switch (header->opcode) {
	case FUSE_WRITE:
		if (rest >= sizeof(struct fuse_write_in))
			worker->kill_ids =
				((const struct fuse_write_in *)body)->write_flags & FUSE_WRITE_KILL_SUIDGID;
		break;
	case FUSE_SETATTR:
		if (rest >= sizeof(struct fuse_setattr_in))
			worker->kill_ids = ((const struct fuse_setattr_in *)body)->valid & FATTR_KILL_SUIDGID;
		break;
	case FUSE_INIT:
		worker->init = true;
		worker->offered = rest >= 16 ? ((const struct fuse_init_in *)body)->flags : 0;
		break;
	}
}

static int worker_start(struct pv_session *session);

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/*
 * A caller that has just been answered mostly asks again at once, and sleeping and being woken cost more than
 * most requests do. So one worker at a time looks for the next request for a little while before it sleeps.
 */
static ssize_t receive_soon(struct worker *worker)
{
	struct pv_session *session = worker->session;
	ssize_t n = -1;
	int64_t end;

	if (worker->spin < 0 || atomic_exchange(&session->spinning, true)) {
		errno = EAGAIN;
		return -1;
	}
	end = now_ns() + SPIN_NS;
	do {
		n = read(worker->spin, worker->in, BUFFER_SIZE);
		if (n >= 0 || errno != EAGAIN)
			break;
		sched_yield();
	} while (now_ns() < end);
	atomic_store(&session->spinning, false);
	return n;
}

/* Receives and serves until the mount ends or too many are idle. True when the mount has ended. */
static bool work(struct worker *worker)
{
	struct pv_session *session = worker->session;
	bool served = false;

	for (;;) {
		struct fuse_buf buf = {.mem = worker->in, .fd = -1};
		ssize_t n;
		int error;

		n = served ? receive_soon(worker) : -1;
		error = errno;
		worker->from = worker->spin;
		if (n < 0 && (!served || error == EAGAIN)) {
			worker->from = worker->fd;
			pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
			n = read(worker->fd, worker->in, BUFFER_SIZE);
			error = errno;
			pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		}
		served = false;
		if (n < 0 && (error == EINTR || error == EAGAIN || error == ENOENT))
			continue; /* ENOENT: the request was interrupted before it could be read */
		if (n < (ssize_t)sizeof(struct fuse_in_header))
			return true;

		pthread_mutex_lock(&session->lock);
		session->idle--;
		if (session->idle == 0 && session->count < session->limit && !session->over)
			worker_start(session);
		pthread_mutex_unlock(&session->lock);

		peek(worker, (size_t)n);
		buf.size = (size_t)n;
		fuse_session_process_buf(session->fuse, &buf);
		served = true;

		pthread_mutex_lock(&session->lock);
		if (session->over) {
			pthread_mutex_unlock(&session->lock);
			return true;
		}
		if (session->idle >= IDLE_MAX) {
			pthread_mutex_unlock(&session->lock);
			return false;
		}
		session->idle++;
		pthread_mutex_unlock(&session->lock);
	}
}

/* Moves the worker to those to be joined; the last one of an ended mount tells so. */
static void worker_done(void *private)
{
	struct worker *worker = private;
	struct pv_session *session = worker->session;
	bool last;

	pthread_mutex_lock(&session->lock);
	for (struct worker **at = &session->workers; *at; at = &(*at)->next) {
		if (*at == worker) {
			*at = worker->next;
			break;
		}
	}
	last = session->count == 1 && session->over;
	pthread_mutex_unlock(&session->lock);

	if (last && session->ended)
		session->ended(session->private);

	pthread_mutex_lock(&session->lock);
	worker->next = session->finished;
	session->finished = worker;
	session->count--;
	pthread_cond_broadcast(&session->changed);
	pthread_mutex_unlock(&session->lock);
}

/* A cancelled worker was receiving: the mount is being ended. */
static void worker_cancelled(void *private)
{
	worker_done(private);
}

static void *worker_main(void *private)
{
	struct worker *worker = private;
	struct pv_session *session = worker->session;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	self = worker;
	pthread_cleanup_push(worker_cancelled, worker);
	if (work(worker)) {
		pthread_mutex_lock(&session->lock);
		session->over = true;
		pthread_mutex_unlock(&session->lock);
	}
	pthread_cleanup_pop(1);
	return NULL;
}

/* Joins those that ended. Under the lock, which is dropped meanwhile. */
static void reap(struct pv_session *session)
{
	struct worker *list = session->finished;

	session->finished = NULL;
	pthread_mutex_unlock(&session->lock);
	while (list) {
		struct worker *worker = list;

		list = worker->next;
		pthread_join(worker->thread, NULL);
		worker_free(worker);
	}
	pthread_mutex_lock(&session->lock);
}

static int clone_device(uint32_t master, int flags)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | flags);

	if (fd >= 0 && ioctl(fd, FUSE_DEV_IOC_CLONE, &master) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Under the lock. */
static int worker_start(struct pv_session *session)
{
	uint32_t master = (uint32_t)fuse_session_fd(session->fuse);
	struct worker *worker = calloc(1, sizeof(*worker));
	int r;

	if (!worker)
		return -ENOMEM;
	worker->session = session;
	worker->in = buffer_new(BUFFER_SIZE);
	worker->fd = clone_device(master, 0);
	worker->spin = worker->fd < 0 ? -1 : clone_device(master, O_NONBLOCK);
	if (worker->fd < 0)
		worker->fd = (int)master;
	if (!worker->in) {
		worker_free(worker);
		return -ENOMEM;
	}
	r = pthread_create(&worker->thread, NULL, worker_main, worker);
	if (r) {
		worker_free(worker);
		return -r;
	}
	worker->next = session->workers;
	session->workers = worker;
	session->count++;
	session->idle++;
	if (session->finished)
		reap(session);
	return 0;
}

int pv_session_serve(struct pv_session *session, struct pv_error *err)
{
	int r;

	pthread_mutex_lock(&session->lock);
	r = worker_start(session);
	session->serving = r == 0;
	pthread_mutex_unlock(&session->lock);
	if (r < 0)
		return pv_fail(err, r, session->mountpoint, "cannot serve the mount: %s", pv_strerror(r));
	return 0;
}

bool pv_session_kill_ids(void)
{
	return self && self->kill_ids;
}

void *pv_session_buffer(void)
{
	if (self && !self->out)
		self->out = buffer_new(PV_MAX_IO);
	return self ? self->out : NULL;
}

void pv_session_blocking(struct pv_session *session, int change)
{
	pthread_mutex_lock(&session->lock);
	session->limit += (unsigned)change;
	if (change > 0 && session->idle == 0 && !session->over)
		worker_start(session);
	pthread_mutex_unlock(&session->lock);
}

struct fuse_session *pv_session_fuse(struct pv_session *session)
{
	return session->fuse;
}

int pv_session_mount_id(const struct pv_session *session)
{
	return session->mount_id;
}

void pv_session_device(const struct pv_session *session, unsigned *ret_major, unsigned *ret_minor)
{
	*ret_major = session->major;
	*ret_minor = session->minor;
}

/* ---- mounting and unmounting ---- */

static void log_message(enum fuse_log_level level, const char *format, va_list arguments)
{
	/* libfuse's words may name the mount point, and never tell more than the errors that are reported. */
}

int pv_session_mount(
	const struct pv_session_options *options, struct pv_session **ret_session, struct pv_error *err)
{
	static const struct fuse_custom_io io = {.writev = send_answer, .read = receive};
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct pv_session *session = calloc(1, sizeof(*session));
	pthread_condattr_t monotonic;
	char text[160];

	if (!session)
		return pv_fail(err, -ENOMEM, options->mountpoint, "out of memory");
	fuse_set_log_func(log_message);
	pthread_mutex_init(&session->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&session->changed, &monotonic);
	session->private = options->private;
	session->ended = options->ended;
	session->limit = options->threads_max ? options->threads_max : THREADS_MAX;
	session->mountpoint = strdup(options->mountpoint);
	snprintf(text, sizeof(text), "-ofsname=pvol,subtype=zfs,default_permissions,max_read=%u%s%s",
		PV_MAX_IO, options->allow_other ? ",allow_other" : "", options->read_only ? ",ro" : "");
	if (!session->mountpoint || fuse_opt_add_arg(&args, "pvol") || fuse_opt_add_arg(&args, text)) {
		fuse_opt_free_args(&args);
		pv_session_free(session);
		return pv_fail(err, -ENOMEM, options->mountpoint, "out of memory");
	}
	session->fuse = fuse_session_new(&args, options->ops, sizeof(*options->ops), options->private);
	fuse_opt_free_args(&args);
	if (!session->fuse) {
		pv_session_free(session);
		return pv_fail(err, -EINVAL, options->mountpoint, "libfuse refuses the mount options");
	}
	if (fuse_session_mount(session->fuse, session->mountpoint) < 0) {
		pv_session_free(session);
		pv_fail(err, -EPERM, options->mountpoint, "the FUSE mount was refused");
		return pv_remedy(err,
			"pvol doctor tells whether /dev/fuse and fusermount3 are usable; the mount point "
			"must belong to you");
	}
	session->mounted = true;
	fuse_session_custom_io(session->fuse, &io, fuse_session_fd(session->fuse));
	if (pv_mount_find(session->mountpoint, &session->mount_id, &session->major, &session->minor) < 0) {
		pv_session_free(session);
		return pv_fail(err, -EIO, options->mountpoint, "the mount is not in /proc/self/mountinfo");
	}
	*ret_session = session;
	return 0;
}

/* fusermount3 does for a user what umount2 does for root. */
static int run_fusermount(const char *how, const char *mountpoint)
{
	extern char **environ;
	char *argv[] = {(char[]){"fusermount3"}, strdup(how), (char[]){"--"}, strdup(mountpoint), NULL};
	posix_spawn_file_actions_t actions;
	int status = 0, r;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	r = argv[1] && argv[3] ? posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) : ENOMEM;
	posix_spawn_file_actions_destroy(&actions);
	if (r == 0) {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	free(argv[1]);
	free(argv[3]);
	return r ? -r : status;
}

static int unmount(struct pv_session *session, bool lazy, struct pv_error *err)
{
	int r;

	if (!session->mounted || !pv_mount_exists(session->mount_id)) {
		session->mounted = false;
		return 0;
	}
	if (geteuid() == 0)
		r = umount2(session->mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? -errno : 0;
	else
		r = run_fusermount(lazy ? "-uz" : "-u", session->mountpoint);
	if (!pv_mount_exists(session->mount_id)) {
		session->mounted = false;
		return 0;
	}
	if (r < 0 && r != -EBUSY)
		return pv_fail(err, r, session->mountpoint, "cannot unmount: %s", pv_strerror(r));
	return pv_fail(err, -EBUSY, session->mountpoint, "the file system is in use");
}

int pv_session_unmount(struct pv_session *session, struct pv_error *err)
{
	return unmount(session, false, err);
}

int pv_session_detach(struct pv_session *session, struct pv_error *err)
{
	return unmount(session, true, err);
}

bool pv_session_wait(struct pv_session *session, int seconds)
{
	struct timespec until;
	bool done;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&session->lock);
	while (session->count > 0) {
		if (seconds < 0)
			pthread_cond_wait(&session->changed, &session->lock);
		else if (pthread_cond_timedwait(&session->changed, &session->lock, &until) == ETIMEDOUT)
			break;
	}
	done = session->count == 0;
	if (session->finished)
		reap(session);
	pthread_mutex_unlock(&session->lock);
	return done;
}

void pv_session_abort(struct pv_session *session)
{
	pthread_mutex_lock(&session->lock);
	session->over = true;
	for (struct worker *worker = session->workers; worker; worker = worker->next)
		pthread_cancel(worker->thread);
	pthread_mutex_unlock(&session->lock);
	/* Those that serve a request see `over` when it is answered. */
	pv_session_wait(session, -1);
}

struct pv_session *pv_session_free(struct pv_session *session)
{
	if (!session)
		return NULL;
	pthread_mutex_lock(&session->lock);
	if (session->finished)
		reap(session);
	pthread_mutex_unlock(&session->lock);
	if (session->fuse) {
		if (session->mounted) {
			/* A mount that nobody serves must not stay. */
			unmount(session, true, NULL);
		}
		/* Closes the descriptor, which severs the connection if the mount is still held somewhere.
		 * Our unmounting is done: libfuse's own would be a lazy one of whatever lies at that path
		 * now. */
		fuse_session_destroy(session->fuse);
	}
	pthread_cond_destroy(&session->changed);
	pthread_mutex_destroy(&session->lock);
	free(session->mountpoint);
	free(session);
	return NULL;
}
