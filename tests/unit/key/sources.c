/* Key files, passphrase files and recovery keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "key/key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[128];

static void write_file(const void *data, size_t size, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), (ssize_t)size);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static int set_up(void **state)
{
	const char *base = getenv("TMPDIR");
	int fd;

	snprintf(path, sizeof(path), "%.90s/pvol-key-XXXXXX", base ? base : "/tmp");
	fd = mkstemp(path);
	close(fd);
	return fd < 0;
}

static int tear_down(void **state)
{
	return unlink(path);
}

static void secret_is(struct pv_secret *secret, const char *text)
{
	assert_int_equal(secret->size, strlen(text));
	assert_memory_equal(secret->data, text, secret->size);
	pv_secret_free(secret);
}

static void one_newline_is_dropped_from_a_passphrase(void **state)
{
	static const char *const cases[][2] = {
		{"word\n", "word"}, {"word", "word"}, {"word\n\n", "word\n"}, {"two words \n", "two words "}};
	struct pv_secret *secret;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		write_file(cases[i][0], strlen(cases[i][0]), 0600);
		assert_int_equal(pv_key_passphrase_file(path, &secret, NULL, NULL), 0);
		secret_is(secret, cases[i][1]);
		assert_int_equal(pv_key_keyfile(path, &secret, NULL, NULL), 0);
		secret_is(secret, cases[i][0]); /* every byte of a key file counts */
	}
}

static void exposure_is_reported(void **state)
{
	struct pv_secret *secret;
	bool exposed = true;

	write_file("x", 1, 0600);
	assert_int_equal(pv_key_passphrase_file(path, &secret, &exposed, NULL), 0);
	assert_false(exposed);
	pv_secret_free(secret);
	write_file("x", 1, 0640);
	assert_int_equal(pv_key_keyfile(path, &secret, &exposed, NULL), 0);
	assert_true(exposed);
	pv_secret_free(secret);
}

static void unusable_files_are_refused(void **state)
{
	struct pv_secret *secret = NULL;
	struct pv_error err = {0};
	static uint8_t large[PV_KEY_FILE_MAX + 1];

	write_file("", 0, 0600);
	assert_int_equal(pv_key_passphrase_file(path, &secret, NULL, &err), -ENODATA);
	assert_string_equal(err.object, path);
	write_file("\n", 1, 0600);
	assert_int_equal(pv_key_passphrase_file(path, &secret, NULL, &err), -ENODATA);
	write_file(large, sizeof(large), 0600);
	assert_int_equal(pv_key_keyfile(path, &secret, NULL, &err), -EMSGSIZE);
	assert_int_equal(pv_key_keyfile("/nonexistent/key", &secret, NULL, &err), -ENOENT);
	assert_int_equal(pv_key_keyfile("/", &secret, NULL, &err), -EISDIR);
	assert_null(secret);
	write_file(large, sizeof(large) - 1, 0600);
	assert_int_equal(pv_key_keyfile(path, &secret, NULL, &err), 0);
	assert_int_equal(secret->size, sizeof(large) - 1);
	pv_secret_free(secret);
}

static void recovery_keys_have_the_known_form(void **state)
{
	struct pv_secret *key, *other;

	assert_int_equal(pv_key_recovery_new(&key, NULL), 0);
	assert_int_equal(pv_key_recovery_new(&other, NULL), 0);
	assert_int_equal(key->size, PV_KEY_RECOVERY_SIZE);
	for (size_t i = 0; i < key->size; i++)
		if (i % 9 == 8)
			assert_int_equal(key->data[i], '-');
		else
			assert_non_null(memchr("cbdefghijklnrtuv", key->data[i], 16));
	assert_false(pv_secret_equal(key, other));
	pv_secret_free(key);
	pv_secret_free(other);
}

static int normalise(const char *typed, struct pv_secret **ret_secret, struct pv_error *err)
{
	struct pv_secret *secret;
	int r;

	assert_int_equal(pv_secret_copy(typed, strlen(typed), &secret, NULL), 0);
	r = pv_key_recovery_normalise(secret, ret_secret, err);
	pv_secret_free(secret);
	return r;
}

static void recovery_keys_are_normalised(void **state)
{
	static const char canonical[] =
		"cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cccccccc-vvvvvvvv-bbbbbbbb-uuuuuuuu";
	struct pv_secret *secret = NULL;
	struct pv_error err = {0};

	assert_int_equal(normalise(canonical, &secret, NULL), 0);
	secret_is(secret, canonical);
	assert_int_equal(normalise("CBDEFGHIJKLNRTUVcbdefghijklnrtuvccccccccvvvvvvvvbbbbbbbbuuuuuuuu\n",
				 &secret, NULL),
		0);
	secret_is(secret, canonical);
	assert_int_equal(
		normalise(" cb-de fghi jklnrtuv-cbdefghi-jklnrtuv-cccccccc vvvvvvvv bbbbbbbb uuuuuuuu-",
			&secret, NULL),
		0);
	secret_is(secret, canonical);
	secret = NULL;
	assert_int_equal(normalise("cbdefghi-jklnrtuv", &secret, &err), -EINVAL);
	assert_non_null(strstr(err.message, "48 of its 64"));
	assert_int_equal(normalise("abdefghi-jklnrtuv-cbdefghi-jklnrtuv-cccccccc-vvvvvvvv-bbbbbbbb-uuuuuuuu",
				 &secret, &err),
		-EINVAL);
	assert_int_equal(normalise("cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-cccccccc-vvvvvvvv-bbbbbbbb-uuuuuuuuu",
				 &secret, &err),
		-EINVAL);
	assert_null(secret);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_newline_is_dropped_from_a_passphrase),
		cmocka_unit_test(exposure_is_reported),
		cmocka_unit_test(unusable_files_are_refused),
		cmocka_unit_test(recovery_keys_have_the_known_form),
		cmocka_unit_test(recovery_keys_are_normalised),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
