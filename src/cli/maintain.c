/*
 * pvol scrub, erase and forget.
 */
#include "cli/cli_int.h"

#include <errno.h>
#include <string.h>

enum { OPT_STOP = CLI_LONG, OPT_YES };

const struct cli_option cli_options_scrub[] = {
	{OPT_STOP, "stop", NULL, "Stop a running scrub.", NULL},
	{.name = NULL},
};

const struct cli_option cli_options_erase[] = {
	{OPT_YES, "yes", NULL, "Do not ask for the name to be typed.", NULL},
	{.name = NULL},
};

int cli_scrub(struct cli *cli, int argc, char **argv)
{
	struct cli_args args;
	struct json_object *params;
	const char *value;
	const char *name = NULL;
	bool stop = false;
	int c;

	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		switch (c) {
		case OPT_STOP: stop = true; break;
		case CLI_OPERAND:
			if (name)
				return cli_usage(cli, "one argument too many: %s", value);
			name = value;
			break;
		default: return PV_EXIT_USAGE;
		}
	}
	if (!name)
		return cli_usage(cli, "the volume is missing");
	params = cli_params_name(name);
	if (stop)
		pv_json_add_bool(params, "stop", true);
	c = cli_request(cli, "pool.scrub", params, NULL);
	if (c)
		return c;
	cli_print_safe(stdout, name);
	puts(stop ? ": scrub stopped" : ": scrub started; 'pvol status' shows how it goes");
	return cli_flush();
}

static int erase(struct cli *cli, const char *name)
{
	struct json_object *params = json_object_new_object();
	pv_autojson struct json_object *result = NULL;
	struct json_object *left;
	int rc;

	pv_json_add_string(params, name[0] == '/' ? "path" : "name", name);
	rc = cli_request(cli, "volume.erase", params, &result);
	if (rc)
		return rc;
	cli_print_safe(stdout, name);
	puts(": the header and all key slots are overwritten; no key opens it any more");
	left = pv_json_array(result, "unreachable");
	if (left && json_object_array_length(left)) {
		puts("Not reached, and to be dealt with by you:");
		for (size_t i = 0; i < json_object_array_length(left); i++) {
			fputs("  - ", stdout);
			cli_print_safe(stdout, json_object_get_string(json_object_array_get_idx(left, i)));
			putchar('\n');
		}
	}
	return cli_flush();
}

int cli_erase(struct cli *cli, int argc, char **argv)
{
	struct cli_args args;
	pv_autofree char *name = NULL;
	const char *value;
	const char *operand = NULL;
	bool yes = false;
	int c;

	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		switch (c) {
		case OPT_YES: yes = true; break;
		case CLI_OPERAND:
			if (operand)
				return cli_usage(cli, "one argument too many: %s", value);
			operand = value;
			break;
		default: return PV_EXIT_USAGE;
		}
	}
	if (!operand)
		return cli_usage(cli, "the volume is missing");
	if (!yes && !cli_interactive())
		return cli_usage(cli, "without a terminal to confirm on, --yes is needed");
	c = cli_volume_operand(operand, &name);
	if (c)
		return c;
	if (!yes && !cli_confirm_by_name(operand,
			    "Everything in %s will be lost for ever: no passphrase, key file or recovery key "
			    "will open it.\nType its name to go on: ",
			    operand)) {
		fputs("Nothing was changed.\n", stderr);
		return PV_EXIT_FAILED;
	}
	return erase(cli, name);
}

int cli_forget(struct cli *cli, int argc, char **argv)
{
	const char *name;
	int rc = cli_operands(cli, argc, argv, 1, 1, &name);

	if (rc < 0)
		return PV_EXIT_USAGE;
	rc = cli_request(cli, "volume.forget", cli_params_name(name), NULL);
	if (rc)
		return rc;
	cli_print_safe(stdout, name);
	puts(": forgotten; its container is left as it is");
	return cli_flush();
}
