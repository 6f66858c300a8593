/*
 * pvol close and pvol restart.
 */
#include "cli/cli_int.h"

enum { OPT_ALL = CLI_LONG };

const struct cli_option cli_options_close[] = {
	{OPT_ALL, "all", NULL, "Close every open volume.", NULL},
	{'f', "force", NULL, "Unmount although files are open.", NULL},
	{.name = NULL},
};

static int close_one(struct cli *cli, struct json_object *params)
{
	pv_autojson struct json_object *result = NULL;
	int rc = cli_request(cli, "volume.close", params, &result);

	if (rc == 0) {
		struct json_object *closed = pv_json_array(result, "closed");

		for (size_t i = 0; closed && i < json_object_array_length(closed); i++) {
			cli_print_safe(stdout, json_object_get_string(json_object_array_get_idx(closed, i)));
			puts(": closed");
		}
		rc = cli_flush();
	}
	return rc;
}

int cli_close(struct cli *cli, int argc, char **argv)
{
	pv_autofree const char **names = calloc((size_t)argc, sizeof(*names));
	struct cli_args args;
	const char *value;
	bool all = false;
	bool force = false;
	int count = 0;
	int worst = 0;
	int c;

	if (!names)
		abort();
	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		switch (c) {
		case OPT_ALL: all = true; break;
		case 'f': force = true; break;
		case CLI_OPERAND: names[count++] = value; break;
		default: return PV_EXIT_USAGE;
		}
	}
	if (all == (count > 0))
		return cli_usage(cli, "name the volumes, or say --all");

	for (int i = 0; i < count || (all && i == 0); i++) {
		struct json_object *params = json_object_new_object();
		int rc;

		if (all)
			pv_json_add_bool(params, "all", true);
		else
			pv_json_add_string(params, "name", names[i]);
		pv_json_add_bool(params, "force", force);
		rc = close_one(cli, params);
		if (rc > worst)
			worst = rc;
	}
	return worst;
}

int cli_restart(struct cli *cli, int argc, char **argv)
{
	const char *name;
	int rc = cli_operands(cli, argc, argv, 1, 1, &name);

	if (rc < 0)
		return PV_EXIT_USAGE;
	rc = cli_request(cli, "volume.restart", cli_params_name(name), NULL);
	if (rc)
		return rc;
	cli_print_safe(stdout, name);
	puts(": restarted");
	return cli_flush();
}
