/*
 * pvol snapshot, snapshots and rollback.
 */
#include "cli/cli_int.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

enum { OPT_DESTROY_LATER = CLI_LONG };

const struct cli_option cli_options_snapshot[] = {
	{'r', "recursive", NULL, "Also of all file systems below, at the same instant.", NULL},
	{'d', "destroy", NULL, "Destroy the snapshot instead (asks first on a terminal).", NULL},
	{'y', "yes", NULL, "Do not ask.", NULL},
	{.name = NULL},
};

const struct cli_option cli_options_snapshots[] = {
	{.name = NULL},
};

const struct cli_option cli_options_rollback[] = {
	{OPT_DESTROY_LATER, "destroy-later", NULL, "Destroy the snapshots taken after it.", NULL},
	{'y', "yes", NULL, "Do not ask.", NULL},
	{.name = NULL},
};

/* "T" becomes "T@2026-02-01T12-00-00": sorts by time, and is a legal name everywhere. */
static char *name_by_time(const char *dataset)
{
	char stamp[32];
	time_t now = time(NULL);
	struct tm tm;
	char *name;

	if (!localtime_r(&now, &tm) || !strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H-%M-%S", &tm) ||
		asprintf(&name, "%s@%s", dataset, stamp) < 0)
		abort();
	return name;
}

static int destroy(struct cli *cli, const char *name, bool yes)
{
	if (!strchr(name, '@'))
		return cli_usage(cli, "%s: a snapshot is named VOLUME@SNAPSHOT", name);
	if (!yes && cli_interactive() && !cli_confirm("Destroy the snapshot %s?", name)) {
		fputs("Nothing was changed.\n", stderr);
		return PV_EXIT_FAILED;
	}
	return cli_request(cli, "snapshot.destroy", cli_params_name(name), NULL);
}

int cli_snapshot(struct cli *cli, int argc, char **argv)
{
	struct cli_args args;
	const char *value;
	const char *operand = NULL;
	bool recursive = false;
	bool remove = false;
	bool yes = false;
	int c;

	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		switch (c) {
		case 'r': recursive = true; break;
		case 'd': remove = true; break;
		case 'y': yes = true; break;
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
	if (remove)
		return destroy(cli, operand, yes);

	pv_autofree char *name = strchr(operand, '@') ? strdup(operand) : name_by_time(operand);
	struct json_object *params = cli_params_name(name);
	int rc;

	if (recursive)
		pv_json_add_bool(params, "recursive", true);
	rc = cli_request(cli, "snapshot.create", params, NULL);
	if (rc)
		return rc;
	cli_print_safe(stdout, name);
	puts(": taken");
	return cli_flush();
}

/* All pages of the list in one array. */
static int fetch_snapshots(struct cli *cli, const char *volume, struct json_object *into)
{
	uint64_t offset = 0;

	for (;;) {
		struct json_object *params = json_object_new_object();
		pv_autojson struct json_object *result = NULL;
		struct json_object *page;
		uint64_t next;
		int rc;

		pv_json_add_string(params, "volume", volume);
		pv_json_add_u64(params, "offset", offset);
		rc = cli_request(cli, "snapshot.list", params, &result);
		if (rc)
			return rc;
		page = pv_json_array(result, "snapshots");
		for (size_t i = 0; page && i < json_object_array_length(page); i++)
			json_object_array_add(into, json_object_get(json_object_array_get_idx(page, i)));
		next = pv_json_u64(result, "next", 0);
		if (next <= offset)
			return 0;
		offset = next;
	}
}

int cli_snapshots(struct cli *cli, int argc, char **argv)
{
	const char *volume;
	pv_autojson struct json_object *all = NULL;
	struct json_object *snapshots;
	struct cli_table *table;
	int rc = cli_operands(cli, argc, argv, 1, 1, &volume);

	if (rc < 0)
		return PV_EXIT_USAGE;
	all = json_object_new_object();
	snapshots = json_object_new_array();
	json_object_object_add(all, "snapshots", snapshots);
	rc = fetch_snapshots(cli, volume, snapshots);
	if (rc)
		return rc;
	if (cli->json)
		return cli_print_json(all);

	table = cli_table_new("SNAPSHOT,>USED,>REFER,TAKEN");
	for (size_t i = 0; i < json_object_array_length(snapshots); i++) {
		struct json_object *s = json_object_array_get_idx(snapshots, i);
		char taken[32];

		cli_table_cell(table, pv_json_string(s, "name", ""));
		cli_table_size(table, s, "used");
		cli_table_size(table, s, "referenced");
		cli_table_cell(table, cli_time(pv_json_int(s, "creation", 0), taken, sizeof(taken)));
	}
	cli_table_print(table);
	return cli_flush();
}

int cli_rollback(struct cli *cli, int argc, char **argv)
{
	struct cli_args args;
	struct json_object *params;
	const char *value;
	const char *name = NULL;
	bool later = false;
	bool yes = false;
	int c;

	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		switch (c) {
		case OPT_DESTROY_LATER: later = true; break;
		case 'y': yes = true; break;
		case CLI_OPERAND:
			if (name)
				return cli_usage(cli, "one argument too many: %s", value);
			name = value;
			break;
		default: return PV_EXIT_USAGE;
		}
	}
	if (!name || !strchr(name, '@'))
		return cli_usage(cli, "the snapshot is missing: VOLUME@SNAPSHOT");
	if (!yes && cli_interactive() &&
		!cli_confirm("Return to %s? Everything written after it is lost%s.", name,
			later ? ", and the snapshots taken after it are destroyed" : "")) {
		fputs("Nothing was changed.\n", stderr);
		return PV_EXIT_FAILED;
	}
	params = cli_params_name(name);
	if (later)
		pv_json_add_bool(params, "destroy_later", true);
	c = cli_request(cli, "snapshot.rollback", params, NULL);
	if (c)
		return c;
	cli_print_safe(stdout, name);
	puts(": restored");
	return cli_flush();
}
