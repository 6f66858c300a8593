/*
 * The thread-pool backend: blocking calls on threads of the device's own. It also takes what io_uring cannot
 * do.
 */
#include "base/cleanup.h"
#include "block/file_int.h"
#include "block/thread_int.h"

#include <errno.h>

int pv_file_pool_init(struct pv_file_pool *pool, struct pv_file *file, unsigned limit)
{
	pool->threads = calloc(limit, sizeof(*pool->threads));
	if (!pool->threads)
		return -ENOMEM;
	pool->file = file;
	pool->limit = limit;
	pool->last = &pool->first;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->more, NULL);
	return 0;
}

static void *work(void *arg)
{
	struct pv_file_pool *pool = arg;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		struct pv_file_request *request = pool->first;

		if (!request) {
			if (pool->stop)
				break;
			pool->idle++;
			pthread_cond_wait(&pool->more, &pool->lock);
			pool->idle--;
			continue;
		}
		pool->first = request->next;
		if (!pool->first)
			pool->last = &pool->first;
		pthread_mutex_unlock(&pool->lock);
		pv_file_finish(pool->file, request, pv_file_execute(pool->file, request));
		pthread_mutex_lock(&pool->lock);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

void pv_file_pool_submit(struct pv_file_pool *pool, struct pv_file_request *request)
{
	bool orphan = false;

	pthread_mutex_lock(&pool->lock);
	request->next = NULL;
	*pool->last = request;
	pool->last = &request->next;
	if (pool->idle)
		pthread_cond_signal(&pool->more);
	else if (pool->started < pool->limit &&
		 pv_thread_start(&pool->threads[pool->started], "pv-file", work, pool) == 0)
		pool->started++;
	else if (pool->started == 0) {
		/* Not one thread to be had: then here, alone in the queue. */
		pool->first = NULL;
		pool->last = &pool->first;
		orphan = true;
	}
	pthread_mutex_unlock(&pool->lock);
	if (orphan)
		pv_file_finish(pool->file, request, pv_file_execute(pool->file, request));
}

void pv_file_pool_fini(struct pv_file_pool *pool)
{
	if (!pool->threads)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->more);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->started; i++)
		pthread_join(pool->threads[i], NULL);
	pthread_cond_destroy(&pool->more);
	pthread_mutex_destroy(&pool->lock);
	free(pool->threads);
}
