/*
 * The operating-system part of the ABD types, which Debian's libzfslinux-dev leaves out.
 *
 * Only pointers to an abd_t ever cross into our code and its data are reached through abd_iterate_func()
 * and abd_borrow_buf(), so these layouts need only complete the type; nothing here may be dereferenced.
 */
#ifndef COMPAT_SYS_ABD_OS_H
#define COMPAT_SYS_ABD_OS_H

struct abd_scatter {
	uint_t abd_offset;
	uint_t abd_iovcnt;
	struct iovec abd_iov[1];
};

struct abd_linear {
	void *abd_buf;
};

#endif
