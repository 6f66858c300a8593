/*
 * Scope cleanup: `pv_autofree char *s = NULL;` frees s when it leaves its scope.
 */
#ifndef PV_BASE_CLEANUP_H
#define PV_BASE_CLEANUP_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void pv_cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void pv_cleanup_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void pv_cleanup_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void pv_cleanup_unlock(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

#define pv_autofree __attribute__((cleanup(pv_cleanup_free)))
#define pv_autoclose __attribute__((cleanup(pv_cleanup_close)))
#define pv_autofclose __attribute__((cleanup(pv_cleanup_fclose)))
/* Locks `mutex` until the end of the enclosing scope. */
#define PV_LOCK_SCOPE_(mutex, line)                                                                          \
	__attribute__((cleanup(pv_cleanup_unlock))) pthread_mutex_t *pv_lock_##line =                        \
		(pthread_mutex_lock(mutex), (mutex))
#define PV_LOCK_SCOPE__(mutex, line) PV_LOCK_SCOPE_(mutex, line)
#define PV_LOCK_SCOPE(mutex) PV_LOCK_SCOPE__(mutex, __LINE__)

/* Gives the value away from a cleanup variable: `*ret_fd = pv_steal_fd(&fd)`. */
static inline int pv_steal_fd(int *fd)
{
	int v = *fd;

	*fd = -1;
	return v;
}

static inline void *pv_steal_ptr_(void *pp)
{
	void **p = pp;
	void *v = *p;

	*p = NULL;
	return v;
}
#define pv_steal_ptr(pp) ((__typeof__(*(pp)))pv_steal_ptr_(pp))

#endif
