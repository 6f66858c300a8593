/*
 * The option parser against the real table of commands, and sizes.
 */
#include "cli/cli_int.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int rc;
		uint64_t bytes;
	} cases[] = {
		{"0", 0, 0},
		{"4096", 0, 4096},
		{"1K", 0, 1024},
		{"512m", 0, 512ULL << 20},
		{"10G", 0, 10ULL << 30},
		{"10GiB", 0, 10ULL << 30},
		{"10GB", 0, 10ULL << 30},
		{"1.5T", 0, 1536ULL << 30},
		{"7E", 0, 7ULL << 60},
		{"100B", 0, 100},
		{"", -EINVAL, 0},
		{"G", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"3X", -EINVAL, 0},
		{"1.5", -EINVAL, 0},
		{"1.G", -EINVAL, 0},
		{"10Gx", -EINVAL, 0},
		{"1 G", -EINVAL, 0},
		{"8E", -ERANGE, 0},
		{"99999999999999999999", -ERANGE, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 0;

		assert_int_equal(cli_parse_size(cases[i].text, &bytes), cases[i].rc);
		if (cases[i].rc == 0)
			assert_int_equal(bytes, cases[i].bytes);
	}
}

static void test_unsigned(void **state)
{
	uint64_t value = 77;

	assert_int_equal(cli_parse_unsigned("31", 31, &value), 0);
	assert_int_equal(value, 31);
	assert_int_equal(cli_parse_unsigned("32", 31, &value), -ERANGE);
	assert_int_equal(cli_parse_unsigned("", 31, &value), -EINVAL);
	assert_int_equal(cli_parse_unsigned("+1", 31, &value), -EINVAL);
	assert_int_equal(cli_parse_unsigned("0x1", 31, &value), -EINVAL);
	assert_int_equal(cli_parse_unsigned("18446744073709551616", UINT64_MAX, &value), -ERANGE);
	assert_int_equal(value, 31);
}

#define WORDS(...) ((char *[]){(char[]){"command"}, __VA_ARGS__, NULL})
#define W(text) ((char[]){text})

static int next_of(struct cli_args *args, const char **value)
{
	return cli_next(args, value);
}

static void test_forms_of_options(void **state)
{
	struct cli cli = {.command = cli_command_find("create")};
	char **words = WORDS(W("-kpassphrase"), W("-k"), W("keyfile:f"), W("--key=x=y"), W("--full"), W("T"),
		W("--size"), W("-1"), W("--"), W("--full"));
	struct cli_args args;
	const char *value;
	int size_id;

	cli_args_init(&args, &cli, 11, words);
	assert_int_equal(next_of(&args, &value), 'k');
	assert_string_equal(value, "passphrase");
	assert_int_equal(next_of(&args, &value), 'k');
	assert_string_equal(value, "keyfile:f");
	assert_int_equal(next_of(&args, &value), 'k');
	assert_string_equal(value, "x=y");
	assert_true(next_of(&args, &value) >= CLI_LONG);
	assert_null(value);
	assert_int_equal(next_of(&args, &value), CLI_OPERAND);
	assert_string_equal(value, "T");
	size_id = next_of(&args, &value);
	assert_true(size_id >= CLI_LONG);
	assert_string_equal(value, "-1");
	assert_int_equal(next_of(&args, &value), CLI_OPERAND);
	assert_string_equal(value, "--full");
	assert_int_equal(next_of(&args, &value), CLI_END);
}

static void test_group_of_flags(void **state)
{
	struct cli cli = {.command = cli_command_find("snapshot")};
	char **words = WORDS(W("-rd"), W("-"), W("--progress=json"));
	struct cli_args args;
	const char *value;

	cli_args_init(&args, &cli, 4, words);
	assert_int_equal(next_of(&args, &value), 'r');
	assert_int_equal(next_of(&args, &value), 'd');
	assert_int_equal(next_of(&args, &value), CLI_OPERAND);
	assert_string_equal(value, "-");
	assert_int_equal(next_of(&args, &value), CLI_END);
	assert_int_equal(cli.progress, CLI_PROGRESS_JSON);
}

static void test_refusals(void **state)
{
	char *const refused[] = {W("--nonsense"), W("-Z"), W("--full=1"), W("--size"), W("--json"),
		W("--progress=loud"), W("--zvol=a/b"), W("--siz")};

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		struct cli cli = {.command = cli_command_find("create")};
		char **words = WORDS(refused[i]);
		struct cli_args args;
		const char *value;

		cli_args_init(&args, &cli, 2, words);
		assert_int_equal(next_of(&args, &value), CLI_USAGE);
	}
}

static void test_properties(void **state)
{
	struct cli cli = {.command = cli_command_find("create")};
	pv_autojson struct json_object *props = json_object_new_object();

	assert_int_equal(cli_parse_property(&cli, "compression=zstd", props), 0);
	assert_int_equal(cli_parse_property(&cli, "org.x:note=a=b", props), 0);
	assert_int_equal(cli_parse_property(&cli, "quota=", props), 0);
	assert_string_equal(pv_json_string(props, "compression", ""), "zstd");
	assert_string_equal(pv_json_string(props, "org.x:note", ""), "a=b");
	assert_int_equal(cli_parse_property(&cli, "compression=lz4", props), CLI_USAGE);
	assert_int_equal(cli_parse_property(&cli, "compression", props), CLI_USAGE);
	assert_int_equal(cli_parse_property(&cli, "=on", props), CLI_USAGE);
	assert_string_equal(pv_json_string(props, "compression", ""), "zstd");
}

static void test_key_sources(void **state)
{
	struct cli cli = {.command = cli_command_find("open")};
	struct cli_key_source source = {0};

	assert_int_equal(cli_key_parse(&cli, "keyfile:/a:b", &source), 0);
	assert_string_equal(source.kind, "keyfile");
	assert_string_equal(source.path, "/a:b");
	assert_int_equal(cli_key_parse(&cli, "recovery", &source), 0);
	assert_string_equal(source.kind, "recovery");
	assert_null(source.path);
	assert_int_equal(cli_key_parse(&cli, "keyfile:", &source), PV_EXIT_USAGE);
	assert_int_equal(cli_key_parse(&cli, "keyfile", &source), PV_EXIT_USAGE);
	assert_int_equal(cli_key_parse(&cli, "passphrase:secret", &source), PV_EXIT_USAGE);
	assert_int_equal(cli_key_parse(&cli, "tpm2", &source), PV_EXIT_USAGE);
	assert_int_equal(cli_key_parse(&cli, "pkcs11:slot", &source), PV_EXIT_USAGE);
	assert_string_equal(source.kind, "recovery");
}

/* Two options of one id, or of one name, would shadow each other silently. */
static void test_table_is_consistent(void **state)
{
	for (const struct cli_command *c = cli_commands; c->name; c++) {
		assert_ptr_equal(cli_command_find(c->name), c);
		assert_true(strlen(c->name) <= 10);
		assert_true(*c->summary && *c->text);
		for (const struct cli_option *a = c->options; a->name; a++) {
			for (const struct cli_option *b = a + 1; b->name; b++) {
				assert_int_not_equal(a->id, b->id);
				assert_string_not_equal(a->name, b->name);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_unsigned),
		cmocka_unit_test(test_forms_of_options),
		cmocka_unit_test(test_group_of_flags),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_properties),
		cmocka_unit_test(test_key_sources),
		cmocka_unit_test(test_table_is_consistent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
