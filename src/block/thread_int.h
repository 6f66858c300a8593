/*
 * Private to block: threads of devices, which take no signals (those are the program's main thread's).
 */
#ifndef PV_BLOCK_THREAD_INT_H
#define PV_BLOCK_THREAD_INT_H

#include <pthread.h>
#include <signal.h>

static inline int pv_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *arg)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r == 0)
		pthread_setname_np(*thread, name);
	return -r;
}

#endif
