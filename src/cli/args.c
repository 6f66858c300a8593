/*
 * Options and operands. Written here rather than taken from getopt_long so that the table that is parsed is
 * the table that is shown as help, and so that every usage error has pvol's own form.
 */
#include "cli/cli_int.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

const struct cli_option cli_options_none[] = {{.name = NULL}};

void cli_args_init(struct cli_args *args, struct cli *cli, int argc, char **argv)
{
	*args = (struct cli_args){.cli = cli, .argc = argc, .argv = argv, .next = 1};
}

static const struct cli_option *find_long(const struct cli_command *command, const char *name, size_t length)
{
	for (const struct cli_option *o = command->options; o->name; o++)
		if (strlen(o->name) == length && !memcmp(o->name, name, length))
			return o;
	return NULL;
}

static const struct cli_option *find_short(const struct cli_command *command, char letter)
{
	for (const struct cli_option *o = command->options; o->name; o++)
		if (o->id == letter)
			return o;
	return NULL;
}

/* What every command understands: 1 done, 0 not one of these, CLI_USAGE. */
static int common_option(struct cli_args *args, const char *word)
{
	struct cli *cli = args->cli;

	if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
		cli_print_help(stdout, cli->command);
		exit(cli_flush());
	}
	if (!strcmp(word, "--json")) {
		if (!cli->command->json) {
			cli_usage(cli, "--json is not for this command");
			return CLI_USAGE;
		}
		cli->json = true;
		return 1;
	}
	if (!strncmp(word, "--progress=", 11)) {
		if (!strcmp(word + 11, "json")) {
			cli->progress = CLI_PROGRESS_JSON;
		} else if (!strcmp(word + 11, "none")) {
			cli->progress = CLI_PROGRESS_NONE;
		} else if (!strcmp(word + 11, "auto")) {
			cli->progress = CLI_PROGRESS_AUTO;
		} else {
			cli_usage(cli, "--progress is auto, json or none");
			return CLI_USAGE;
		}
		return 1;
	}
	return 0;
}

static int refuse_later(struct cli *cli, const struct cli_option *option)
{
	struct pv_error err = {0};

	pv_fail_as(&err, -ENOTSUP, PV_EXIT_USAGE, cli->command->name,
		"--%s: %s is not supported by this version", option->name, option->unsupported);
	cli_fail(&err);
	return CLI_USAGE;
}

static int long_option(struct cli_args *args, const char *word, const char **ret_value)
{
	const char *name = word + 2;
	const char *equals = strchr(name, '=');
	size_t length = equals ? (size_t)(equals - name) : strlen(name);
	const struct cli_option *option = find_long(args->cli->command, name, length);

	if (!option) {
		cli_usage(args->cli, "unknown option --%.*s", (int)length, name);
		return CLI_USAGE;
	}
	if (option->unsupported)
		return refuse_later(args->cli, option);
	if (!option->arg) {
		if (equals) {
			cli_usage(args->cli, "--%s takes no argument", option->name);
			return CLI_USAGE;
		}
		return option->id;
	}
	if (equals) {
		*ret_value = equals + 1;
		return option->id;
	}
	if (args->next >= args->argc) {
		cli_usage(args->cli, "--%s needs an argument: %s", option->name, option->arg);
		return CLI_USAGE;
	}
	*ret_value = args->argv[args->next++];
	return option->id;
}

static int short_option(struct cli_args *args, const char **ret_value)
{
	char letter = *args->group++;
	const struct cli_option *option = find_short(args->cli->command, letter);

	if (!option) {
		cli_usage(args->cli, "unknown option -%c", isprint((unsigned char)letter) ? letter : '?');
		return CLI_USAGE;
	}
	if (option->unsupported)
		return refuse_later(args->cli, option);
	if (!option->arg)
		return option->id;
	if (*args->group) {
		*ret_value = args->group;
	} else if (args->next < args->argc) {
		*ret_value = args->argv[args->next++];
	} else {
		cli_usage(args->cli, "-%c needs an argument: %s", letter, option->arg);
		return CLI_USAGE;
	}
	args->group = NULL;
	return option->id;
}

int cli_next(struct cli_args *args, const char **ret_value)
{
	*ret_value = NULL;
	if (args->group && *args->group)
		return short_option(args, ret_value);
	args->group = NULL;

	while (args->next < args->argc) {
		const char *word = args->argv[args->next++];

		if (args->operands_only || word[0] != '-' || !word[1]) {
			*ret_value = word;
			return CLI_OPERAND;
		}
		if (!strcmp(word, "--")) {
			args->operands_only = true;
			continue;
		}

		int rc = common_option(args, word);

		if (rc < 0)
			return rc;
		if (rc)
			continue;
		if (word[1] == '-')
			return long_option(args, word, ret_value);
		args->group = word + 1;
		return short_option(args, ret_value);
	}
	return CLI_END;
}

int cli_operands(struct cli *cli, int argc, char **argv, int min, int max, const char **ret_operands)
{
	struct cli_args args;
	const char *value;
	int count = 0;
	int c;

	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		if (c == CLI_USAGE)
			return CLI_USAGE;
		if (count == max) {
			cli_usage(cli, "one argument too many: %s", value);
			return CLI_USAGE;
		}
		ret_operands[count++] = value;
	}
	if (count < min) {
		cli_usage(cli, "an argument is missing");
		return CLI_USAGE;
	}
	return count;
}

int cli_parse_unsigned(const char *text, uint64_t max, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		if (value > (UINT64_MAX - 9) / 10)
			return -ERANGE;
		value = value * 10 + (uint64_t)(*text - '0');
	}
	if (value > max)
		return -ERANGE;
	*ret_value = value;
	return 0;
}

int cli_parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char units[] = "KMGTPE";
	uint64_t whole = 0;
	long double fraction = 0;
	long double digit = 0.1L;
	const char *p = text;
	unsigned shift = 0;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (whole > (UINT64_MAX - 9) / 10)
			return -ERANGE;
		whole = whole * 10 + (uint64_t)(*p - '0');
	}
	if (*p == '.' && p[1] >= '0' && p[1] <= '9')
		for (p++; *p >= '0' && *p <= '9'; p++, digit /= 10)
			fraction += digit * (*p - '0');
	if (*p) {
		const char *unit = strchr(units, toupper((unsigned char)*p));

		if (unit) {
			shift = 10 * (unsigned)(unit - units + 1);
			p++;
			if (*p == 'i' && (p[1] == 'B' || p[1] == 'b'))
				p++;
		}
		if (*p == 'B' || *p == 'b')
			p++;
		if (*p)
			return -EINVAL;
	}
	if (fraction > 0 && shift == 0)
		return -EINVAL;
	if (whole > (uint64_t)INT64_MAX >> shift)
		return -ERANGE;
	*ret_bytes = (whole << shift) + (uint64_t)(fraction * (long double)(1ULL << shift));
	return *ret_bytes > INT64_MAX ? -ERANGE : 0;
}

int cli_parse_property(struct cli *cli, const char *text, struct json_object *into)
{
	const char *equals = strchr(text, '=');

	if (!equals || equals == text) {
		cli_usage(cli, "%s: a property is set by name=value", text);
		return CLI_USAGE;
	}

	pv_autofree char *name = strndup(text, (size_t)(equals - text));

	if (!name)
		abort();
	if (json_object_object_get_ex(into, name, NULL)) {
		cli_usage(cli, "the property %s is given twice", name);
		return CLI_USAGE;
	}
	pv_json_add_string(into, name, equals + 1);
	return 0;
}
