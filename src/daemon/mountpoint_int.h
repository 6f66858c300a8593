/*
 * Checking a mount point before anything is made for it.
 */
#ifndef PV_DAEMON_MOUNTPOINT_INT_H
#define PV_DAEMON_MOUNTPOINT_INT_H

#include "base/error.h"

/*
 * An absolute path; an empty directory of ours, or absent with a parent that is there. Nothing below a mount
 * of pvol is looked at (-EBUSY). *ret_exists tells whether the directory is there.
 */
int mountpoint_check(const char *at, bool *ret_exists, struct pv_error *err);

#endif
