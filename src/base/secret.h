/*
 * Secrets: passphrases, PINs, volume keys. They live only in memory that is locked, excluded from core
 * files and not inherited by children: memfd_secret(2) where the kernel has it, else mlock(2). With
 * neither, allocation fails (no fall-back to ordinary memory). A forked child must not touch its parent's
 * secrets. System calls that copy may use the memory, direct I/O may not.
 */
#ifndef PV_BASE_SECRET_H
#define PV_BASE_SECRET_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pv_secret {
	uint8_t *data; /* page-aligned */
	size_t size;   /* bytes of secret; may be lowered by the owner, never raised above capacity */
	size_t capacity;
};

/*
 * Allocates `size` zero bytes (1 .. 1 MiB). -ENOMEM with a remedy that names the memory-lock limit
 * (RLIMIT_MEMLOCK) when locking is refused. The caller owns *ret_secret.
 */
int pv_secret_new(size_t size, struct pv_secret **ret_secret, struct pv_error *err);

/* A new secret with a copy of `data`. The source is not wiped. */
int pv_secret_copy(const void *data, size_t size, struct pv_secret **ret_secret, struct pv_error *err);

/* `size` bytes from the kernel's random generator (getrandom). */
int pv_secret_random(size_t size, struct pv_secret **ret_secret, struct pv_error *err);

/* Wipes, unlocks and releases; accepts NULL; returns NULL. */
struct pv_secret *pv_secret_free(struct pv_secret *secret);

/*
 * Reads a secret from a pipe, file or socket up to its end straight into locked memory; more than `max`
 * bytes is -EMSGSIZE, none at all is -ENODATA. The descriptor stays open and the caller's.
 */
int pv_secret_read(int fd, size_t max, struct pv_secret **ret_secret, struct pv_error *err);

/* Writes the whole secret to a pipe or socket. */
int pv_secret_write(int fd, const struct pv_secret *secret, struct pv_error *err);

/*
 * Makes a pipe that holds the secret (at most 64 KiB, so the write never blocks) with its write end closed,
 * to be passed to another process; the reader uses pv_secret_read(). Close-on-exec. Caller owns *ret_fd.
 */
int pv_secret_pipe(const struct pv_secret *secret, int *ret_fd, struct pv_error *err);

/* Constant-time comparison of contents; sizes are not secret. */
bool pv_secret_equal(const struct pv_secret *a, const struct pv_secret *b);

/* memset that no compiler removes, for short-lived copies on the stack. */
void pv_wipe(void *data, size_t size);

static inline void pv_cleanup_secret(struct pv_secret **s)
{
	pv_secret_free(*s);
}
#define pv_autosecret __attribute__((cleanup(pv_cleanup_secret)))

#endif
