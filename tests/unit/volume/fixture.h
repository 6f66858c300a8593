/* What every test of this folder includes, and a private directory for it. */
#ifndef PV_TEST_VOLUME_FIXTURE_H
#define PV_TEST_VOLUME_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char test_dir[64];

static inline int test_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static inline int setup_dir(void **state)
{
	strcpy(test_dir, "/tmp/pvol-unit.XXXXXX");
	return mkdtemp(test_dir) ? 0 : -1;
}

static inline int teardown_dir(void **state)
{
	return nftw(test_dir, test_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* DIR/NAME in a buffer that the next call overwrites. */
static inline const char *in_dir(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", test_dir, name);
	return path;
}

#endif
