/*
 * For the tests of format/: temporary containers, secrets from text, cheap key slots, images from
 * tests/images.
 */
#ifndef TEST_FORMAT_FIXTURE_H
#define TEST_FORMAT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/json.h"
#include "base/secret.h"
#include "format/format.h"
#include "format/luks2_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTAINER_SIZE (20U << 20)

/* A new empty directory in `dir` of at least 64 bytes. */
static inline void make_folder(char dir[static 64])
{
	const char *base = getenv("TMPDIR");

	snprintf(dir, 64, "%.40s/pvol-test-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(dir));
}

__attribute__((format(printf, 1, 2))) static inline int shell(const char *fmt, ...)
{
	char command[2048];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* A sparse file in memory: the many fsyncs of these tests cost nothing. interop.c uses files. */
static inline int make_container(uint64_t size)
{
	int fd = memfd_create("container", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static inline struct pv_secret *make_secret(const char *text)
{
	struct pv_secret *secret;

	assert_int_equal(pv_secret_copy(text, strlen(text), &secret, NULL), 0);
	return secret;
}

/* A key with the cheapest permitted slot; release key.secret with drop_key(). */
static inline struct pv_unlock_key make_key(const char *kind, const char *text)
{
	return (struct pv_unlock_key){
		.kind = kind,
		.secret = make_secret(text),
		.pbkdf = {.type = PV_PBKDF_PBKDF2, .forced_iterations = 1000},
	};
}

static inline void drop_key(struct pv_unlock_key *key)
{
	pv_secret_free((struct pv_secret *)(uintptr_t)key->secret);
	key->secret = NULL;
}

/* A volume with one cheap passphrase slot. */
static inline struct pv_secret *make_volume(int fd, const char *passphrase)
{
	struct pv_unlock_key key = make_key("passphrase", passphrase);
	struct pv_format_create params = {.container_size = CONTAINER_SIZE, .keys = &key, .nkeys = 1};
	struct pv_secret *volume_key;
	struct pv_segment segment;
	struct pv_error err = {0};

	if (pv_luks2_ops.create(fd, &params, &segment, &volume_key, &err))
		fail_msg("create: %s", err.message);
	drop_key(&key);
	return volume_key;
}

/* The slot that the passphrase opens, or -errno. With `expected` given the volume key must be that. */
static inline int unlock_as(int fd, const char *kind, const char *text, bool repair,
	const struct pv_secret *expected, struct pv_error *err)
{
	struct pv_unlock_key key = make_key(kind, text);
	struct pv_secret *volume_key = NULL;
	struct pv_segment segment;
	int r, slot = -1;

	r = pv_luks2_ops.unlock(fd, &key, -1, repair, &slot, &segment, &volume_key, err);
	drop_key(&key);
	if (!r && expected)
		assert_true(pv_secret_equal(volume_key, expected));
	pv_secret_free(volume_key);
	return r ? r : slot;
}

static inline int unlock(int fd, const char *passphrase, const struct pv_secret *expected)
{
	return unlock_as(fd, "passphrase", passphrase, false, expected, NULL);
}

/* Unpacks an image of tests/images into memory. */
static inline int open_image(const char *name)
{
	int fd = make_container(0);

	if (shell("xz -dc '%s/%s' >/proc/%d/fd/%d", PV_TEST_IMAGES, name, getpid(), fd))
		fail_msg("cannot unpack %s", name);
	return fd;
}

#endif
