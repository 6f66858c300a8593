/*
 * Serving one read-only file through FUSE: the decrypted view of a container for zdb and the like.
 */
#ifndef PV_FS_VIEW_H
#define PV_FS_VIEW_H

#include "base/error.h"
#include "block/bdev.h"

/*
 * Mounts at `dir` (an existing empty directory) a file system with the one regular file `name` of the
 * device's size and bytes, read-only, owner only, direct_io. Serves until the mount is unmounted from outside
 * or `stop_fd` becomes readable (or is closed at the other side); `ready` (may be NULL) is called once it is
 * mounted. Blocks.
 */
int pv_view_serve(struct pv_bdev *bdev, const char *dir, const char *name, int stop_fd,
	void (*ready)(void *private), void *private, struct pv_error *err);

#endif
