/*
 * Containers: the files and block devices that hold volumes. Each is opened once, by the keeper, and locked
 * with an open-file-description lock; the descriptor is passed on to workers and engine, so that the lock
 * outlives a dead process and ends when the last of them is gone. flock(2) is never held while a volume is
 * open: cryptsetup would hang on it.
 */
#ifndef PV_VOLUME_CONTAINER_H
#define PV_VOLUME_CONTAINER_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

/* Header area of 16 MiB, and the smallest device OpenZFS accepts. */
#define PV_CONTAINER_MIN ((uint64_t)(64 + 16) << 20)

enum pv_container_flags {
	PV_CONTAINER_READ_ONLY = 1, /* open for reading only (a read lock) */
	PV_CONTAINER_NO_LOCK = 2,   /* just to look at the header */
};

struct pv_container {
	int fd;        /* close-on-exec; carries the lock */
	uint64_t size; /* bytes */
	bool is_block;
	bool read_only;
	dev_t dev; /* identity of the file, to find out that two paths are one */
	ino_t ino;
};

/*
 * Opens an existing container. -ENOENT, -EISDIR, -ELOOP (a symbolic link, unless to a block device), -EACCES,
 * -EROFS, -EBUSY (locked by another process, named where it can be found out; or a block device in use),
 * -EINVAL (neither file nor block device). Released with pv_container_close().
 */
int pv_container_open(
	const char *path, unsigned flags, struct pv_container *ret_container, struct pv_error *err);

/*
 * Makes a new file of `size` bytes, which must not exist, and locks it. `full` allocates all of it now, else
 * it is sparse. -EEXIST, -EINVAL (too small), -ENOSPC ...; on failure nothing is left. A block device must
 * exist and is opened as above; `size` 0 is then its own size, and *ret_made is false.
 */
int pv_container_create(const char *path, uint64_t size, bool full, struct pv_container *ret_container,
	bool *ret_made, struct pv_error *err);

/* Checks the size against what is registered and needed; -EUCLEAN names both. `registered` and `needed` may
 * be 0. */
int pv_container_check_size(const struct pv_container *container, const char *path, uint64_t registered,
	uint64_t needed, struct pv_error *err);

/* Closes the descriptor (the lock lives on in other processes that have it). A zeroed or closed one is
 * accepted. */
void pv_container_close(struct pv_container *container);

/* Removes a container file that this process made, if the path is still that very file. */
void pv_container_remove(const char *path, const struct pv_container *container);

/*
 * What an overwrite of this container cannot reach, as a sentence for people ("the file system is
 * copy-on-write (btrfs): ..."), or NULL when nothing special is known. Static storage.
 */
const char *pv_container_unreachable(int fd);

static inline void pv_cleanup_container(struct pv_container *c)
{
	pv_container_close(c);
}
#define pv_autocontainer __attribute__((cleanup(pv_cleanup_container)))
#define PV_CONTAINER_NONE ((struct pv_container){.fd = -1})

#endif
