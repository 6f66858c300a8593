/*
 * pvol list: the volumes, or the file systems of one.
 */
#include "cli/cli_int.h"

static int list_volumes(struct cli *cli)
{
	pv_autojson struct json_object *result = NULL;
	int rc = cli_request(cli, "volume.list", NULL, &result);

	if (rc)
		return rc;
	if (cli->json)
		return cli_print_json(result);

	struct json_object *volumes = pv_json_array(result, "volumes");
	size_t count = volumes ? json_object_array_length(volumes) : 0;

	if (count == 0) {
		puts("No volumes yet. 'pvol create NAME' makes one.");
		return cli_flush();
	}

	struct cli_table *table = cli_table_new("NAME,STATE,HEALTH,>SIZE,>USED,>AVAIL,MOUNTED AT,CONTAINER");

	for (size_t i = 0; i < count; i++) {
		struct json_object *v = json_object_array_get_idx(volumes, i);

		cli_table_cell(table, pv_json_string(v, "name", ""));
		cli_table_cell(table, pv_json_string(v, "state", ""));
		cli_table_cell(table, pv_json_string(v, "health", ""));
		cli_table_size(table, v, "size");
		cli_table_size(table, v, "used");
		cli_table_size(table, v, "available");
		cli_table_cell(table, pv_json_string(v, "at", ""));
		cli_table_cell(table, pv_json_string(v, "container", ""));
	}
	cli_table_print(table);
	return cli_flush();
}

static int list_datasets(struct cli *cli, const char *volume)
{
	struct json_object *params = json_object_new_object();
	pv_autojson struct json_object *result = NULL;
	int rc;

	pv_json_add_string(params, "volume", volume);
	rc = cli_request(cli, "dataset.list", params, &result);
	if (rc)
		return rc;
	if (cli->json)
		return cli_print_json(result);

	struct cli_table *table = cli_table_new("NAME,>USED,>AVAIL,>REFER,MOUNTED AT");
	struct json_object *datasets = pv_json_array(result, "datasets");

	for (size_t i = 0; datasets && i < json_object_array_length(datasets); i++) {
		struct json_object *d = json_object_array_get_idx(datasets, i);

		cli_table_cell(table, pv_json_string(d, "name", ""));
		cli_table_size(table, d, "used");
		cli_table_size(table, d, "available");
		cli_table_size(table, d, "referenced");
		cli_table_cell(
			table, pv_json_bool(d, "mounted", false) ? pv_json_string(d, "mountpoint", "") : "-");
	}
	cli_table_print(table);
	return cli_flush();
}

int cli_list(struct cli *cli, int argc, char **argv)
{
	const char *volume;
	int n = cli_operands(cli, argc, argv, 0, 1, &volume);

	if (n < 0)
		return PV_EXIT_USAGE;
	return n ? list_datasets(cli, volume) : list_volumes(cli);
}
