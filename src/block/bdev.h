/*
 * Block devices behind one vtable. A device is a stack: crypt on trace on sim on file, say. Requests are
 * asynchronous; completions arrive on any thread.
 *
 * Durability contract: a completed WRITE is visible to later reads; it is durable only once a FLUSH that was
 * submitted after its completion has completed without error. After a failed FLUSH or write-back a device is
 * failed for good: every later write and flush is -EIO (Linux marks the pages clean after a failed fsync, so
 * that a retried flush would lie); reads go on.
 */
#ifndef PV_BLOCK_BDEV_H
#define PV_BLOCK_BDEV_H

#include "base/error.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct pv_bdev;

enum pv_bio_op {
	PV_BIO_READ,
	PV_BIO_WRITE,
	PV_BIO_FLUSH,        /* offset, length and iov unused */
	PV_BIO_DISCARD,      /* contents undefined afterwards; -EOPNOTSUPP allowed */
	PV_BIO_WRITE_ZEROES, /* reads as zeros afterwards (through crypt: ciphertext of zeros); may be slow */
};

/*
 * One request. Allocated and owned by the submitter, who may free it in `done`; untouched by the device after
 * `done` was called. offset and length are bytes and multiples of the device's sector size; the iov's bytes
 * sum up to length; iov and the data stay valid and unchanged until `done`. A write's data is never modified.
 */
struct pv_bio {
	enum pv_bio_op op;
	uint64_t offset;
	uint64_t length;
	const struct iovec *iov;
	int iovcnt;
	/*
	 * Called exactly once, on any thread, possibly before pv_bdev_submit returns. error: 0 or negative
	 * errno; out of range is -EINVAL, a read beyond a truncated file's end -EIO. Must not block for long.
	 */
	void (*done)(struct pv_bio *bio, int error);
	void *private; /* the submitter's */
};

struct pv_bdev_ops {
	const char *name; /* "file", "crypt", "sim", "trace", "mem" */
	/* Must not block for long (libzpool's I/O threads call it); completes through pv_bio_done(). */
	void (*submit)(struct pv_bdev *bdev, struct pv_bio *bio);
	/* Re-reads the size from below after growth; calls pv_bdev_set_size(). 0 or -errno. */
	int (*refresh)(struct pv_bdev *bdev, struct pv_error *err);
	/* Adds figures to `into` for status output: errors, held requests, backend in use. */
	void (*describe)(struct pv_bdev *bdev, struct json_object *into);
	/* All requests have completed. Releases its own things and the structure, not `below`. */
	void (*close)(struct pv_bdev *bdev);
};

/* Embedded first in each implementation's own structure; set up by pv_bdev_init(). */
struct pv_bdev {
	const struct pv_bdev_ops *ops;
	struct pv_bdev *below;  /* owned; NULL at the bottom of the stack */
	struct pv_bdev *above;  /* borrowed; NULL at the top */
	char *label;            /* for messages: the container's path or the device's logical name */
	_Atomic uint64_t size;  /* bytes, a multiple of sector_size */
	uint32_t sector_size;   /* smallest unit of a request: 512 or 4096 */
	uint32_t physical_size; /* unit that avoids read-modify-write below, >= sector_size */
	bool read_only;
	bool can_discard;
	bool rotational;
	_Atomic bool failed;       /* a flush failed: see above */
	_Atomic bool full;         /* out of space below: writes are being held; set on the whole stack */
	_Atomic bool closing;      /* pv_bdev_close() is waiting: held writes must fail now */
	_Atomic uint64_t inflight; /* requests between pv_bdev_submit() and the end of pv_bio_done() */
	/* Called on growth, on any thread; set by the user of the device. */
	void (*resized)(struct pv_bdev *bdev, uint64_t size, void *private);
	void *resized_private;
	/* Called once, on any thread, when the first flush has failed, before that flush's done; set by the
	 * user. */
	void (*lost)(struct pv_bdev *bdev, int error);
};

/* Validates (range, alignment, read-only, failed) and passes on. */
void pv_bdev_submit(struct pv_bdev *bdev, struct pv_bio *bio);

/* Synchronous forms, for headers and tests; any thread but a completion's. 0 or -errno. */
int pv_bdev_read(struct pv_bdev *bdev, void *data, size_t length, uint64_t offset);
int pv_bdev_write(struct pv_bdev *bdev, const void *data, size_t length, uint64_t offset);
int pv_bdev_flush(struct pv_bdev *bdev);
int pv_bdev_discard(struct pv_bdev *bdev, uint64_t length, uint64_t offset);

/* Re-reads the sizes of the whole stack after growth. */
int pv_bdev_refresh(struct pv_bdev *bdev, struct pv_error *err);
/* Adds {"type":..., "size":..., ...} of this layer and of those below. */
void pv_bdev_describe(struct pv_bdev *bdev, struct json_object *into);
/*
 * Waits for requests in flight, then closes the whole stack; accepts NULL; returns NULL. Writes that are held
 * for want of space are given up with -ENOSPC.
 */
struct pv_bdev *pv_bdev_close(struct pv_bdev *bdev);

/*
 * For implementations.
 *
 * pv_bdev_init fills a zeroed structure: label is copied; with `below` it becomes the device above it and
 * inherits its label (when `label` is NULL), physical size, read_only, can_discard and rotational. -ENOMEM.
 */
int pv_bdev_init(struct pv_bdev *bdev, const struct pv_bdev_ops *ops, const char *label,
	struct pv_bdev *below, uint64_t size, uint32_t sector_size);
/* Releases what pv_bdev_init made, and lets go of the device below without closing it. */
void pv_bdev_fini(struct pv_bdev *bdev);
/* Completes a request of this device: the only way to call bio->done. A failed flush fails the device. */
void pv_bio_done(struct pv_bdev *bdev, struct pv_bio *bio, int error);
/* Stores the new size and calls `resized`. */
void pv_bdev_set_size(struct pv_bdev *bdev, uint64_t size);
/* Sets `full` here and on all devices above. */
void pv_bdev_set_full(struct pv_bdev *bdev, bool full);

#endif
