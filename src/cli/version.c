/*
 * pvol version.
 */
#include "cli/cli_int.h"

int cli_version(struct cli *cli, int argc, char **argv)
{
	if (argc > 1 && cli_operands(cli, argc, argv, 0, 0, NULL) < 0)
		return PV_EXIT_USAGE;
	if (cli->json) {
		pv_autojson struct json_object *json = json_object_new_object();

		pv_json_add_string(json, "version", PV_VERSION);
		pv_json_add_int(json, "protocol", PV_PROTOCOL_VERSION);
		return cli_print_json(json);
	}
	puts("pvol " PV_VERSION);
	return cli_flush();
}
