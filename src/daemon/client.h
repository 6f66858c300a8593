/*
 * The way to the keeper for other programs (pvol above all): connecting to its control socket, and starting
 * it when it is not running. Requests are then made with pv_channel_call(); the methods are in
 * docs/protocol.md.
 */
#ifndef PV_DAEMON_CLIENT_H
#define PV_DAEMON_CLIENT_H

#include "base/channel.h"

/*
 * Connects and exchanges hellos. With `start_if_missing` a keeper is started in the background if none runs
 * (two callers at once share one); the home and runtime directories are made. Without it, -ENOENT (exit class
 * failed, no message of interest) when no keeper runs. Caller frees *ret_channel with pv_channel_free().
 */
int pv_keeper_connect(bool start_if_missing, struct pv_channel **ret_channel, struct pv_error *err);

#endif
