/*
 * The keeper's connection to an engine: any number of calls at a time, answers told apart by their ids on one
 * reader thread, which also sees events and the engine's end.
 */
#ifndef PV_DAEMON_LINK_INT_H
#define PV_DAEMON_LINK_INT_H

#include "base/channel.h"

struct link;

struct link_ops {
	void (*event)(struct link *link, struct json_object *event, void *private);
	/* Once, after the last event; the reader thread ends when it returns, and may be used for long work.
	 */
	void (*closed)(struct link *link, void *private);
	void (*release)(void *private); /* the link is freed */
};

/* Takes over `channel`, on which the hellos were exchanged. One reference is the caller's. */
int link_new(struct pv_channel *channel, const struct link_ops *ops, void *private, struct link **ret_link,
	struct pv_error *err);
struct link *link_hold(struct link *link);
void link_put(struct link *link);
bool link_is_dead(struct link *link);
/* Closes the connection, so that every call fails and closed() is called. */
void link_shutdown(struct link *link);

struct link_call {
	const char *method;
	struct json_object *params; /* borrowed, may be NULL */
	const int *fds;             /* borrowed */
	size_t nfds;
	int timeout_ms; /* 0 = none */
	/* out: */
	struct json_object *result;  /* owned by the caller */
	struct json_object *failure; /* the error object, for what struct pv_error does not hold */
	int ret_fds[PV_CHANNEL_MAX_FDS];
	size_t ret_nfds;
};

/* 0, the engine's error, -ENOTCONN when it died, -ETIMEDOUT. Release with link_call_clear() in any case. */
int link_call(struct link *link, struct link_call *call, struct pv_error *err);
void link_call_clear(struct link_call *call);
/* A call whose result is not needed. */
int link_simple(struct link *link, const char *method, struct json_object *params, int timeout_ms,
	struct pv_error *err);

#endif
