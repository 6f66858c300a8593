/*
 * The first line of each side on a control channel: protocol and program version, checked before anything
 * else.
 */
#ifndef PV_VOLUME_HELLO_H
#define PV_VOLUME_HELLO_H

#include "base/channel.h"

/*
 * Sends our hello and waits for the peer's. `libzpool` is the library's version where it is known, else NULL.
 * -EPROTO for a peer of another protocol version, -ETIMEDOUT, -ENOTCONN. *ret_version (may be NULL) gets the
 * peer's program version; caller frees.
 */
int pv_hello(struct pv_channel *channel, const char *libzpool, int timeout_ms, char **ret_version,
	struct pv_error *err);

#endif
