/*
 * What is printed: sizes, and text from volumes that must not reach the terminal as it is.
 */
#include "cli/cli_int.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void assert_safe(const char *text, const char *expected)
{
	char *buffer = NULL;
	size_t length = 0;
	FILE *f = open_memstream(&buffer, &length);

	assert_non_null(f);
	cli_print_safe(f, text);
	fclose(f);
	assert_string_equal(buffer, expected);
	free(buffer);
}

static void test_control_bytes(void **state)
{
	assert_safe("plain text", "plain text");
	assert_safe("a\033[2Jb", "a\\x1b[2Jb");
	assert_safe("line\nline\r\t", "line\\x0aline\\x0d\\x09");
	assert_safe("bad \xff\xfe utf-8 \xc3", "bad \\xff\\xfe utf-8 \\xc3");
	assert_safe("Gr\xc3\xbc\xc3\x9f"
		    "e",
		"Gr\xc3\xbc\xc3\x9f"
		"e");
	/* U+009B is a control sequence introducer too. */
	assert_safe("\xc2\x9b"
		    "31m",
		"\\xc2\\x9b31m");
}

static void test_sizes(void **state)
{
	char text[32];

	assert_string_equal(cli_size(0, text, sizeof(text)), "0 B");
	assert_string_equal(cli_size(1023, text, sizeof(text)), "1023 B");
	assert_string_equal(cli_size(1024, text, sizeof(text)), "1 KiB");
	assert_string_equal(cli_size(1536, text, sizeof(text)), "1.5 KiB");
	assert_string_equal(cli_size(10ULL << 30, text, sizeof(text)), "10 GiB");
	assert_string_equal(cli_size((1ULL << 20) - 1, text, sizeof(text)), "1.0 MiB");
	assert_string_equal(cli_size(UINT64_MAX, text, sizeof(text)), "16 EiB");
}

static void test_times(void **state)
{
	char text[32];

	assert_string_equal(cli_time(0, text, sizeof(text)), "-");
	assert_string_equal(cli_time(-5, text, sizeof(text)), "-");
	assert_int_equal(strlen(cli_time(1700000000, text, sizeof(text))), 19);
}

static void test_pbkdf_options(void **state)
{
	struct cli cli = {.command = cli_command_find("create")};
	struct cli_pbkdf pbkdf = {0};
	pv_autojson struct json_object *json = NULL;

	assert_int_equal(cli_pbkdf_option(&cli, &pbkdf, CLI_OPT_PBKDF, "scrypt"), CLI_USAGE);
	assert_int_equal(cli_pbkdf_option(&cli, &pbkdf, CLI_OPT_ITER_TIME, "0"), CLI_USAGE);
	assert_int_equal(cli_pbkdf_option(&cli, &pbkdf, 'o', "a=b"), 0);
	assert_int_equal(cli_pbkdf_option(&cli, &pbkdf, CLI_OPT_PBKDF, "pbkdf2"), 1);
	assert_int_equal(cli_pbkdf_option(&cli, &pbkdf, CLI_OPT_PBKDF_FORCE, "1000"), 1);
	json = cli_pbkdf_json(&pbkdf);
	assert_string_equal(pv_json_string(json, "type", ""), "pbkdf2");
	assert_int_equal(pv_json_u64(json, "forced_iterations", 0), 1000);
	assert_false(json_object_object_get_ex(json, "memory_kib", NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_control_bytes),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_pbkdf_options),
	};

	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
