/*
 * For tests that confine or break a process: they do it in a child, whose exit code is the result.
 */
#ifndef TEST_FIXTURE_H
#define TEST_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* In a child: cmocka's assertions would go on in the parent's test list. */
#define child_check(condition)                                                                               \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			dprintf(2, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);         \
			_exit(1);                                                                            \
		}                                                                                            \
	} while (0)

/* Runs fn in a forked child and returns its wait status. */
static inline int in_child(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* Root may lock and open anything: tests of a user's limits drop to one that owns nothing. */
static inline void become_ordinary(void)
{
	if (geteuid() == 0)
		child_check(setgid(65534) == 0 && setuid(65534) == 0);
}

#define assert_child_ok(fn) assert_int_equal(in_child(fn), 0)

#endif
