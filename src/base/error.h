/*
 * One error rule for the whole tree: a function returns 0 (or a non-negative value) or a negative errno,
 * and, where a person will read the reason, fills a struct pv_error. Libraries never print.
 */
#ifndef PV_BASE_ERROR_H
#define PV_BASE_ERROR_H

#include <stdbool.h>

/* The exit codes of the pvol command, part of its documented interface. */
enum pv_exit {
	PV_EXIT_OK = 0,
	PV_EXIT_FAILED = 1,
	PV_EXIT_USAGE = 2,
	PV_EXIT_WRONG_KEY = 3,
	PV_EXIT_NO_VOLUME = 4,
	PV_EXIT_BUSY = 5,
	PV_EXIT_DAMAGED = 6,
};

/*
 * What went wrong, for a person: shown as "pvol: OBJECT: MESSAGE" and, if there is one, a second line with
 * the remedy. Never holds a secret. Plain data: copy freely, nothing to release. All-zero means no error.
 */
struct pv_error {
	int code;          /* negative errno, 0 when unset */
	enum pv_exit exit; /* the class a script can act on */
	char object[256];  /* the volume, path or device it is about; may be empty */
	char message[768]; /* what happened and why, no trailing full stop */
	char remedy[512];  /* what to do about it, or empty */
};

/*
 * Fills *err (which may be NULL) and returns `code`, a negative errno; so callers write
 * `return pv_fail(err, -ENOSPC, path, "cannot write the header")`. The message does not include
 * strerror(code): add it with %s and pv_strerror() where it tells more.
 * The exit class is derived from the code: EKEYREJECTED wrong key, EBUSY busy, EUCLEAN damaged,
 * ENOENT with object unset or not: plain failure; use pv_fail_as() for any other.
 */
int pv_fail(struct pv_error *err, int code, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* As pv_fail(), with an explicit exit class. */
int pv_fail_as(struct pv_error *err, int code, enum pv_exit exit, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));

/*
 * Adds the remedy line to the error that this thread's last pv_fail() filled, and returns its code: also when
 * err is NULL, so that `return pv_remedy(err, ...)` right after it never loses the code.
 */
int pv_remedy(struct pv_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* strerror() of a negative or positive errno; thread-safe, static storage per thread. */
const char *pv_strerror(int code);

#endif
