/*
 * Private to format/: descriptor I/O that all header formats share, and the guess at foreign contents.
 *
 * Buffers are page-aligned ordinary memory, because the descriptor is shared with the engine, which may have
 * it in O_DIRECT mode; so only ciphertext and public bytes pass through here, never a key.
 */
#ifndef PV_FORMAT_FORMAT_INT_H
#define PV_FORMAT_FORMAT_INT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* `size` zero bytes, page-aligned; release with free(). NULL when out of memory. */
void *format_buffer(size_t size);

/* Bytes in a regular file or block device; -EISDIR or -EINVAL for anything else, with the reason. */
int format_size(int fd, uint64_t *ret_size, struct pv_error *err);

/* Reads until `size` bytes or the end: the number of bytes, or -errno. */
ssize_t format_read(int fd, void *data, size_t size, uint64_t offset);

/* Writes all of it: 0 or -errno. */
int format_write(int fd, const void *data, size_t size, uint64_t offset);

/* fsync(2): 0 or -errno. */
int format_sync(int fd);

/* Overwrites a range with random bytes; the caller syncs. */
int format_write_random(int fd, uint64_t offset, uint64_t size);

/* Fills from the kernel's random generator: 0 or -errno. For salts and padding; keys use pv_secret_random().
 */
int format_random(void *data, size_t size);

/* Excludes cryptsetup(8) while a header in a regular file is changed; waits up to ten seconds, then -EBUSY.
 */
int format_lock(int fd, struct pv_error *err);
void format_unlock(int fd);

/*
 * What the container's bytes look like to somebody who expected a volume: "an ext4 file system", "all zeros",
 * ... or NULL when nothing is recognised. `*ret_foreign` (may be NULL) is true when it is a structure that
 * another program would miss (so not for zeros). Never fails: unreadable bytes are simply not recognised.
 */
const char *format_sniff(int fd, bool *ret_foreign);

/* Copies at most size-1 characters, everything outside printable ASCII as '?': text from hostile headers. */
const char *format_printable(const char *text, char *ret_text, size_t size);

#endif
