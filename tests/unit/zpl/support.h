/*
 * Pools on plain files, served by libzpool's own file vdevs: the POSIX layer alone, without our block layer.
 */
#ifndef TESTS_ZPL_SUPPORT_H
#define TESTS_ZPL_SUPPORT_H

#include "zpl/zpl.h"

#include <stdbool.h>
#include <stdint.h>

/* A private directory for this run, removed at exit of the process that made it. */
const char *test_dir(void);
/* Runs `step` in a child process, so that each has a libzpool of its own; true if it returned (0) or
 * _exit()ed 0. */
bool test_step(void (*step)(void));

void test_start(void);
void test_stop(void);
/* Creates test_dir()/IMAGE of `size` bytes with pool NAME, all features, root file system filled. */
void test_create_pool(const char *name, uint64_t size);
/* A child file system; `casesensitivity`, `normalization` as in the master node. */
void test_create_fs(const char *name, uint64_t casesensitivity, uint64_t normalization);
/* Imports the pool found in `dir`. */
void test_import_pool(const char *dir, const char *name, bool read_only);
void test_export_pool(const char *name);
void test_snapshot(const char *name); /* "pool@snap" */
int test_rollback(const char *fs, const char *snapshot, void *owner);
void test_set_property(const char *fs, const char *name, uint64_t value);
uint64_t test_zap_count(struct zpl_fs *fs, const char *master_entry);

/* Has zdb traverse the exported pool in test_dir(): checksums, leaks, reference counts. */
void test_zdb(const char *name);
/* What the accounting object (-1 owner, -2 group) says of `id`, e.g. "obj-0". */
uint64_t test_accounted(struct zpl_fs *fs, int64_t object, const char *id);

struct zpl_fs *test_mount(const char *name, bool read_only);

#define CHECK(condition)                                                                                     \
	do {                                                                                                 \
		if (!(condition))                                                                            \
			test_fail(__FILE__, __LINE__, #condition, 0);                                        \
	} while (0)
/* The expression is 0, or the given (negative errno) value. */
#define CHECK_INT(expression, expected)                                                                      \
	do {                                                                                                 \
		long long value_ = (long long)(expression);                                                  \
		if (value_ != (long long)(expected))                                                         \
			test_fail(__FILE__, __LINE__, #expression " is " #expected, value_);                 \
	} while (0)
#define OK(expression) CHECK_INT(expression, 0)
void test_fail(const char *file, int line, const char *what, long long value) __attribute__((noreturn));

#endif
