/* Errors, the log's lines, JSON readers. */
#include "fixture.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"

static void error_classes(void **state)
{
	struct pv_error err;

	assert_int_equal(pv_fail(&err, -EKEYREJECTED, "v", "no slot matches"), -EKEYREJECTED);
	assert_int_equal(err.exit, PV_EXIT_WRONG_KEY);
	assert_int_equal(pv_fail(&err, -EBUSY, NULL, "x"), -EBUSY);
	assert_int_equal(err.exit, PV_EXIT_BUSY);
	assert_string_equal(err.object, "");
	pv_fail(&err, -EUCLEAN, "v", "x");
	assert_int_equal(err.exit, PV_EXIT_DAMAGED);
	pv_fail(&err, -ENOENT, "v", "x");
	assert_int_equal(err.exit, PV_EXIT_FAILED);
	pv_fail_as(&err, -ENOENT, PV_EXIT_NO_VOLUME, "v", "x");
	assert_int_equal(err.exit, PV_EXIT_NO_VOLUME);
	assert_int_equal(pv_fail(NULL, -ENOSPC, "v", "x"), -ENOSPC);
}

static int refuse(struct pv_error *err)
{
	pv_fail(err, -EROFS, "v", "x");
	return pv_remedy(err, "write elsewhere");
}

/* A caller that does not want the text still gets the code. */
static void remedy_keeps_the_code(void **state)
{
	struct pv_error err;

	assert_int_equal(refuse(NULL), -EROFS);
	pv_fail(NULL, -EPERM, "v", "x");
	assert_int_equal(refuse(&err), -EROFS);
	assert_string_equal(err.remedy, "write elsewhere");
}

static void error_wraps_itself(void **state)
{
	struct pv_error err;

	pv_fail(&err, -EIO, "disk", "first");
	assert_int_equal(pv_remedy(&err, "remedy"), -EIO);
	pv_fail(&err, err.code, err.object, "second: %s", err.message);
	assert_string_equal(err.object, "disk");
	assert_string_equal(err.message, "second: first");
	assert_string_equal(err.remedy, "");
}

static void long_messages_are_cut(void **state)
{
	struct pv_error err;
	char big[4096];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	pv_fail(&err, -EIO, big, "%s", big);
	pv_remedy(&err, "%s", big);
	assert_int_equal(strlen(err.object), sizeof(err.object) - 1);
	assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
	assert_int_equal(strlen(err.remedy), sizeof(err.remedy) - 1);
}

static void log_writes_one_clean_line(void **state)
{
	char line[4096], big[4000];
	int ends[2];
	ssize_t n;

	assert_int_equal(pipe(ends), 0);
	pv_log_init("unit", ends[1], PV_LOG_INFO);
	pv_log(PV_LOG_DEBUG, "not shown");
	pv_log(PV_LOG_WARNING, "label %s", "a\nforged line\x1b[2J");
	n = read(ends[0], line, sizeof(line) - 1);
	assert_true(n > 0);
	line[n] = '\0';
	assert_ptr_equal(strchr(line, '\n'), line + n - 1);
	assert_non_null(strstr(line, "Z unit["));
	assert_non_null(strstr(line, "warning: label a?forged line?[2J\n"));
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	pv_log(PV_LOG_ERROR, "%s", big);
	n = read(ends[0], line, sizeof(line) - 1);
	assert_true(n > 1000 && line[n - 1] == '\n');
	pv_log_init("unit", -1, PV_LOG_INFO);
	close(ends[0]);
	close(ends[1]);
}

static void json_reads_by_type(void **state)
{
	pv_autojson struct json_object *j = json_tokener_parse(
		"{\"s\":\"t\",\"i\":-5,\"b\":true,\"u\":\"18446744073709551615\",\"n\":\"-1\","
		"\"o\":{},\"a\":[],\"big\":\"18446744073709551616\",\"nul\":\"a\\u0000b\","
		"\"top\":18446744073709551615}");

	assert_string_equal(pv_json_string(j, "s", "d"), "t");
	assert_string_equal(pv_json_string(j, "i", "d"), "d");
	assert_string_equal(pv_json_string(j, "nul", "d"), "d");
	assert_null(pv_json_string(NULL, "s", NULL));
	assert_int_equal(pv_json_int(j, "i", 0), -5);
	assert_int_equal(pv_json_int(j, "s", 3), 3);
	assert_int_equal(pv_json_int(j, "absent", 3), 3);
	assert_true(pv_json_u64(j, "u", 0) == UINT64_MAX);
	assert_true(pv_json_u64(j, "top", 0) == UINT64_MAX);
	assert_int_equal(pv_json_u64(j, "i", 9), 9);
	assert_int_equal(pv_json_u64(j, "n", 9), 9);
	assert_int_equal(pv_json_u64(j, "big", 9), 9);
	assert_true(pv_json_bool(j, "b", false));
	assert_true(pv_json_bool(j, "s", true));
	assert_non_null(pv_json_object(j, "o"));
	assert_null(pv_json_object(j, "a"));
	assert_non_null(pv_json_array(j, "a"));
}

static void json_numbers_round_trip(void **state)
{
	static const uint64_t values[] = {0, 1, UINT64_C(1) << 53, (UINT64_C(1) << 53) + 1, UINT64_MAX};

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		pv_autojson struct json_object *j = json_object_new_object(), *k = NULL;
		struct json_object *v;

		pv_json_add_u64(j, "v", values[i]);
		assert_true(json_object_object_get_ex(j, "v", &v));
		assert_int_equal(json_object_is_type(v, json_type_string), values[i] > UINT64_C(1) << 53);
		k = json_tokener_parse(json_object_to_json_string(j));
		assert_true(pv_json_u64(k, "v", 77) == values[i]);
	}
}

static int count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void scopes_release(void **state)
{
	{
		PV_LOCK_SCOPE(&lock);
		assert_int_equal(pthread_mutex_trylock(&lock), EBUSY);
		count++;
	}
	assert_int_equal(pthread_mutex_trylock(&lock), 0);
	pthread_mutex_unlock(&lock);
	{
		pv_autoclose int fd = dup(2);
		count = fd;
	}
	assert_int_equal(fcntl(count, F_GETFD), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_classes),
		cmocka_unit_test(remedy_keeps_the_code),
		cmocka_unit_test(error_wraps_itself),
		cmocka_unit_test(long_messages_are_cut),
		cmocka_unit_test(log_writes_one_clean_line),
		cmocka_unit_test(json_reads_by_type),
		cmocka_unit_test(json_numbers_round_trip),
		cmocka_unit_test(scopes_release),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
