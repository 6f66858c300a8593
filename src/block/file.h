/*
 * A file or block device by descriptor. Uses io_uring where a probe with a real read succeeds (also falls
 * back at run time when the kernel starts to refuse), else a thread pool of its own; no registered buffers.
 * PV_FILE_AUTO gives buffered writes and flushes to the pool also beside a ring, because that is faster;
 * PV_FILE_URING does not.
 *
 * ENOSPC and EDQUOT on a write are never reported upwards (ZFS would suspend the pool): the request is held
 * and retried every 200 ms until space returns; pv_bdev.full is set meanwhile and pv_file_backing_free() lets
 * the file system refuse new data before that point.
 */
#ifndef PV_BLOCK_FILE_H
#define PV_BLOCK_FILE_H

#include "block/bdev.h"

enum pv_file_backend { PV_FILE_AUTO, PV_FILE_URING, PV_FILE_THREADS };

struct pv_file_options {
	enum pv_file_backend backend;
	bool read_only;
	/* O_DIRECT is set on the descriptor: memory is aligned by bounce buffers; sector_size becomes at
	 * least what the file system below can do. */
	bool direct;
	bool hold_on_full;    /* hold and retry ENOSPC/EDQUOT as above (false: report them) */
	unsigned threads;     /* of the pool backend; 0 = 8 */
	uint32_t sector_size; /* 0 = 512 */
	const char *label;    /* copied; for messages */
};

/* Takes ownership of `fd`, also on failure. The size is the file's, rounded down to the sector size. */
int pv_file_open(
	int fd, const struct pv_file_options *options, struct pv_bdev **ret_bdev, struct pv_error *err);

/*
 * Bytes that a non-root user can still allocate on the file system that holds the container, plus what the
 * container has already allocated of the ranges it may still fill is NOT counted (worst case). UINT64_MAX for
 * block devices, for fully allocated files, or when it cannot be told. Finds the file layer in any stack.
 */
uint64_t pv_file_backing_free(struct pv_bdev *bdev);

#endif
