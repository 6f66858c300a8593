/*
 * Private to block: the file device and its two backends.
 */
#ifndef PV_BLOCK_FILE_INT_H
#define PV_BLOCK_FILE_INT_H

#include "block/bdev.h"

#include <pthread.h>

struct pv_file;

/* One request on its way; survives short transfers and holding. */
struct pv_file_request {
	struct pv_file_request *next;
	struct pv_bio *bio;
	uint64_t done;     /* bytes transferred */
	struct iovec *own; /* the rest of the vector after a short transfer, or the bounce buffer's */
	const struct iovec *iov;
	int iovcnt;
	void *bounce; /* aligned copy, for direct I/O */
};

/* A queue of requests and the threads that work it off with blocking calls; threads start on demand. */
struct pv_file_pool {
	struct pv_file *file;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct pv_file_request *first, **last;
	pthread_t *threads;
	unsigned limit, started, idle;
	bool stop;
};

int pv_file_pool_init(struct pv_file_pool *pool, struct pv_file *file, unsigned limit);
void pv_file_pool_submit(struct pv_file_pool *pool, struct pv_file_request *request);
void pv_file_pool_fini(struct pv_file_pool *pool);

/*
 * The io_uring backend. Open returns NULL when the kernel refuses it. Submit: false when the ring has failed
 * (the request is then the caller's again). Only reads, writes and flushes.
 */
struct pv_file_uring;
struct pv_file_uring *pv_file_uring_open(struct pv_file *file);
bool pv_file_uring_submit(struct pv_file_uring *uring, struct pv_file_request *request);
void pv_file_uring_close(struct pv_file_uring *uring);

/* Descriptor of the file; for the backends. */
int pv_file_fd(const struct pv_file *file);
/* Runs a request to its end with blocking calls: 0 or -errno. */
int pv_file_execute(struct pv_file *file, struct pv_file_request *request);
/* Counts `n` transferred bytes: true when the request has more to do (iov is adjusted), or *ret_error is set.
 */
bool pv_file_advance(struct pv_file_request *request, size_t n, int *ret_error);
/* The request's result: completes or holds it. */
void pv_file_finish(struct pv_file *file, struct pv_file_request *request, int error);
/* The ring cannot do this one: goes to the pool. */
void pv_file_redirect(struct pv_file *file, struct pv_file_request *request);

#endif
