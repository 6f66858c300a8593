/*
 * The io_uring backend: requests are put into the ring by the submitting threads, in batches when several
 * come at once, and one reaper thread completes them. A completion that says the kernel will not do this one
 * sends the request to the thread pool; an error of the ring itself sends everything there from then on.
 */
#include "base/cleanup.h"
#include "base/log.h"
#include "block/file_int.h"
#include "block/thread_int.h"

#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <sched.h>
#include <string.h>

#define ENTRIES 256

struct pv_file_uring {
	struct pv_file *file;
	struct io_uring ring;
	pthread_t reaper;

	pthread_mutex_t lock; /* of the rest */
	struct pv_file_request *first, **last;
	bool submitting; /* a thread is filling and entering the submission ring, which is its alone */
	bool dead;
	unsigned inflight; /* in the ring; at most ENTRIES, so that no completion overflows */
};

/* The request that tells the reaper to leave. */
static struct pv_file_request leave;

static void prepare(struct pv_file_uring *u, struct io_uring_sqe *sqe, struct pv_file_request *request)
{
	const struct pv_bio *bio = request->bio;
	unsigned count = request->iovcnt > IOV_MAX ? IOV_MAX : (unsigned)request->iovcnt;
	int fd = pv_file_fd(u->file);

	if (bio->op == PV_BIO_FLUSH)
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
	else if (bio->op == PV_BIO_READ)
		io_uring_prep_readv(sqe, fd, request->iov, count, bio->offset + request->done);
	else
		io_uring_prep_writev(sqe, fd, request->iov, count, bio->offset + request->done);
	io_uring_sqe_set_data(sqe, request);
}

/* Enters the ring with what is prepared; the requests that it did not take are the last `n` of the batch. */
static unsigned enter(struct pv_file_uring *u)
{
	while (io_uring_sq_ready(&u->ring)) {
		int r = io_uring_submit(&u->ring);

		if (r >= 0 || r == -EINTR)
			continue;
		if (r == -EAGAIN || r == -EBUSY) {
			sched_yield();
			continue;
		}
		pv_log(PV_LOG_WARNING, "io_uring failed, going on with threads: %s", pv_strerror(r));
		return io_uring_sq_ready(&u->ring);
	}
	return 0;
}

/* Takes what is pending and fits. Called and returns with the lock held. */
static unsigned fill(struct pv_file_uring *u, struct pv_file_request **batch)
{
	unsigned n = 0;

	while (u->first && u->inflight < ENTRIES) {
		struct pv_file_request *request = u->first;

		u->first = request->next;
		if (!u->first)
			u->last = &u->first;
		u->inflight++;
		batch[n++] = request;
	}
	return n;
}

/*
 * What a failed ring did not take stays in its submission queue: makes it harmless, should it be taken later,
 * and sends the requests elsewhere.
 */
static void withdraw(
	struct pv_file_uring *u, struct pv_file_request **batch, struct io_uring_sqe **sqes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		io_uring_prep_nop(sqes[i]);
		io_uring_sqe_set_data(sqes[i], NULL);
		pv_file_redirect(u->file, batch[i]);
	}
}

/* Submits all that is pending; one thread at a time, the others' requests go along. Called with the lock
 * held. */
static void pump(struct pv_file_uring *u)
{
	struct pv_file_request *batch[ENTRIES];
	struct io_uring_sqe *sqes[ENTRIES];
	unsigned n, refused;

	if (u->submitting || u->dead)
		return;
	u->submitting = true;
	while (!u->dead && (n = fill(u, batch)) > 0) {
		pthread_mutex_unlock(&u->lock);
		for (unsigned i = 0; i < n; i++) {
			sqes[i] = io_uring_get_sqe(&u->ring);
			prepare(u, sqes[i], batch[i]);
		}
		refused = enter(u);
		withdraw(u, batch + n - refused, sqes + n - refused, refused);
		pthread_mutex_lock(&u->lock);
		u->inflight -= refused;
		u->dead = refused > 0;
	}
	while (u->dead && u->first) {
		struct pv_file_request *request = u->first;

		u->first = request->next;
		if (!u->first)
			u->last = &u->first;
		pv_file_redirect(u->file, request);
	}
	u->submitting = false;
}

bool pv_file_uring_submit(struct pv_file_uring *u, struct pv_file_request *request)
{
	PV_LOCK_SCOPE(&u->lock);
	if (u->dead)
		return false;
	request->next = NULL;
	*u->last = request;
	u->last = &request->next;
	pump(u);
	return true;
}

static bool is_refusal(int res)
{
	return res == -EAGAIN || res == -EINVAL || res == -EOPNOTSUPP || res == -ENOSYS || res == -EPERM ||
	       res == -EACCES || res == -ECANCELED || res == -ENOMEM;
}

/* One completion; returns a request that must go into the ring again. */
static struct pv_file_request *complete(struct pv_file_uring *u, struct pv_file_request *request, int res)
{
	int error = 0;

	if (is_refusal(res)) {
		pv_file_redirect(u->file, request);
		return NULL;
	}
	if (res == -EINTR)
		return request;
	if (res < 0)
		error = res;
	else if (request->bio->op != PV_BIO_FLUSH && pv_file_advance(request, (size_t)res, &error))
		return request;
	pv_file_finish(u->file, request, error);
	return NULL;
}

static void *reap(void *arg)
{
	struct pv_file_uring *u = arg;
	struct io_uring_cqe *cqes[64];

	for (;;) {
		struct pv_file_request *requests[64], *again = NULL;
		int results[64];
		unsigned n, requests_done = 0;
		bool stop = false;

		n = io_uring_peek_batch_cqe(&u->ring, cqes, 64);
		if (n == 0) {
			struct io_uring_cqe *cqe;

			io_uring_wait_cqe(&u->ring, &cqe);
			continue;
		}
		for (unsigned i = 0; i < n; i++) {
			requests[i] = io_uring_cqe_get_data(cqes[i]);
			results[i] = cqes[i]->res;
		}
		io_uring_cq_advance(&u->ring, n);
		for (unsigned i = 0; i < n; i++) {
			struct pv_file_request *more;

			if (!requests[i] || requests[i] == &leave) {
				stop |= requests[i] == &leave;
				continue;
			}
			requests_done++;
			more = complete(u, requests[i], results[i]);
			if (more) {
				more->next = again;
				again = more;
			}
		}
		if (stop)
			return NULL;
		pthread_mutex_lock(&u->lock);
		u->inflight -= requests_done;
		while (again) {
			struct pv_file_request *request = again;

			again = request->next;
			request->next = NULL;
			*u->last = request;
			u->last = &request->next;
		}
		if (u->first)
			pump(u);
		pthread_mutex_unlock(&u->lock);
	}
}

/* Some sandboxes allow the set-up and refuse the work: only a read that was done counts. */
static bool probe(struct pv_file_uring *u)
{
	_Alignas(4096) char buffer[4096];
	struct iovec iov = {buffer, sizeof(buffer)};
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	struct io_uring_cqe *cqe;
	int res;

	io_uring_prep_readv(sqe, pv_file_fd(u->file), &iov, 1, 0);
	if (io_uring_submit(&u->ring) != 1 || io_uring_wait_cqe(&u->ring, &cqe) < 0)
		return false;
	res = cqe->res;
	io_uring_cqe_seen(&u->ring, cqe);
	return res >= 0;
}

struct pv_file_uring *pv_file_uring_open(struct pv_file *file)
{
	struct pv_file_uring *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->file = file;
	u->last = &u->first;
	if (io_uring_queue_init(ENTRIES, &u->ring, 0) < 0) {
		free(u);
		return NULL;
	}
	pthread_mutex_init(&u->lock, NULL);
	if (!probe(u) || pv_thread_start(&u->reaper, "pv-reaper", reap, u) < 0) {
		io_uring_queue_exit(&u->ring);
		pthread_mutex_destroy(&u->lock);
		free(u);
		return NULL;
	}
	return u;
}

void pv_file_uring_close(struct pv_file_uring *u)
{
	struct io_uring_sqe *sqe;

	if (!u)
		return;
	/* Waits for a thread that has completed its batch and is still on its way out of pump(). */
	pthread_mutex_lock(&u->lock);
	while (u->submitting) {
		pthread_mutex_unlock(&u->lock);
		sched_yield();
		pthread_mutex_lock(&u->lock);
	}
	pthread_mutex_unlock(&u->lock);
	sqe = io_uring_get_sqe(&u->ring);
	if (sqe) {
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, &leave);
	}
	if (!sqe || io_uring_submit(&u->ring) < 0) {
		/* A failed ring cannot wake its reaper, which sleeps for ever and touches nothing but this.
		 */
		pthread_detach(u->reaper);
		return;
	}
	pthread_join(u->reaper, NULL);
	io_uring_queue_exit(&u->ring);
	pthread_mutex_destroy(&u->lock);
	free(u);
}
