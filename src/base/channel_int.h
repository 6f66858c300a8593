/*
 * Private to base: what channel.c and rpc.c share.
 */
#ifndef PV_BASE_CHANNEL_INT_H
#define PV_BASE_CHANNEL_INT_H

#include "base/channel.h"

/* Request numbers of this side of the channel. */
int64_t pv_channel_next_id(struct pv_channel *channel);

#endif
