/*
 * The error structure: filling it, and the exit class that follows from an errno.
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What pv_fail() last returned in this thread, for a pv_remedy() that has no error to look into. */
static _Thread_local int last_code;

static enum pv_exit exit_of(int code)
{
	switch (code) {
	case -EKEYREJECTED: return PV_EXIT_WRONG_KEY;
	case -EBUSY: return PV_EXIT_BUSY;
	case -EUCLEAN: return PV_EXIT_DAMAGED;
	default: return PV_EXIT_FAILED;
	}
}

__attribute__((format(printf, 5, 0))) static int fill(
	struct pv_error *err, int code, enum pv_exit exit, const char *object, const char *fmt, va_list ap)
{
	/* The arguments may point into *err itself, when one error is wrapped into another. */
	struct pv_error e = {.exit = exit};

	if (code > 0)
		code = -code;
	if (code == 0)
		code = -EIO;
	last_code = code;
	if (!err)
		return code;
	e.code = code;
	snprintf(e.object, sizeof(e.object), "%s", object ? object : "");
	vsnprintf(e.message, sizeof(e.message), fmt, ap);
	*err = e;
	return code;
}

int pv_fail(struct pv_error *err, int code, const char *object, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = fill(err, code, exit_of(code > 0 ? -code : code), object, fmt, ap);
	va_end(ap);
	return code;
}

int pv_fail_as(struct pv_error *err, int code, enum pv_exit exit, const char *object, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = fill(err, code, exit, object, fmt, ap);
	va_end(ap);
	return code;
}

int pv_remedy(struct pv_error *err, const char *fmt, ...)
{
	char text[sizeof(err->remedy)];
	va_list ap;

	if (!err)
		return last_code ? last_code : -EIO;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(err->remedy, text, sizeof(text));
	return err->code ? err->code : -EIO;
}

const char *pv_strerror(int code)
{
	static _Thread_local char text[128];

	return strerror_r(code < 0 ? -code : code, text, sizeof(text));
}
