/*
 * pvol status: all that is known of a volume, for a person or as the keeper's JSON.
 */
#include "cli/cli_int.h"
#include "cli/slots_int.h"

#include <inttypes.h>
#include <string.h>

/* Starts a line of the report: a label in a column of its own. */
static void label(const char *text)
{
	printf("  %-12s", text);
}

static void line(const char *name, const char *text)
{
	label(name);
	cli_print_safe(stdout, text);
	putchar('\n');
}

static void print_scan(struct json_object *pool)
{
	struct json_object *scan = pv_json_object(pool, "scan");
	const char *state;
	uint64_t todo;
	char when[32];

	label("scrub");
	if (!scan) {
		puts("never");
		return;
	}
	state = pv_json_string(scan, "state", "?");
	todo = pv_json_u64(scan, "to_examine", 0);
	if (!strcmp(state, "scanning") && todo) {
		printf("running, %.0f %% done",
			100.0 * (double)pv_json_u64(scan, "examined", 0) / (double)todo);
	} else {
		cli_print_safe(stdout, pv_json_string(scan, "function", "scrub"));
		printf(" %s %s", state, cli_time(pv_json_int(scan, "end", 0), when, sizeof(when)));
	}
	printf(", %" PRIu64 " errors\n", pv_json_u64(scan, "errors", 0));
}

/* Devices that are not healthy or have counted errors. */
static void print_vdevs(struct json_object *vdevs)
{
	for (size_t i = 0; vdevs && i < json_object_array_length(vdevs); i++) {
		struct json_object *v = json_object_array_get_idx(vdevs, i);
		uint64_t errors = pv_json_u64(v, "read", 0) + pv_json_u64(v, "write", 0) +
				  pv_json_u64(v, "checksum", 0);
		const char *state = pv_json_string(v, "state", "");

		if (errors || (*state && strcmp(state, "ONLINE") != 0 && strcmp(state, "HEALTHY") != 0)) {
			label("device");
			cli_print_safe(stdout, pv_json_string(v, "path", pv_json_string(v, "type", "?")));
			printf(" %s, %" PRIu64 " read, %" PRIu64 " write, %" PRIu64 " checksum errors\n",
				state, pv_json_u64(v, "read", 0), pv_json_u64(v, "write", 0),
				pv_json_u64(v, "checksum", 0));
		}
		print_vdevs(pv_json_array(v, "children"));
	}
}

static void print_pool(struct json_object *status)
{
	struct json_object *pool = pv_json_object(status, "pool");
	char a[32], b[32];

	if (!pool)
		return;
	label("health");
	cli_print_safe(stdout, pv_json_string(pool, "health", "?"));
	if (pv_json_bool(pool, "suspended", false))
		fputs(", SUSPENDED: the container cannot be written", stdout);
	printf(", %" PRIu64 " known data errors\n", pv_json_u64(pool, "errors", 0));
	label("space");
	printf("%s used of %s\n", cli_size(pv_json_u64(pool, "allocated", 0), a, sizeof(a)),
		cli_size(pv_json_u64(pool, "size", 0), b, sizeof(b)));
	print_vdevs(pv_json_array(pool, "vdevs"));
	print_scan(pool);
}

static void print_mounts(struct json_object *status)
{
	struct json_object *mounts = pv_json_array(status, "mounts");

	for (size_t i = 0; mounts && i < json_object_array_length(mounts); i++) {
		struct json_object *m = json_object_array_get_idx(mounts, i);

		label(i ? "" : "mounts");
		/* A mount is a name and a place; a plain string is the place. */
		if (json_object_is_type(m, json_type_string)) {
			cli_print_safe(stdout, json_object_get_string(m));
		} else {
			cli_print_safe(stdout, pv_json_string(m, "dataset", "?"));
			fputs(" at ", stdout);
			cli_print_safe(stdout, pv_json_string(m, "mountpoint", "?"));
			if (pv_json_bool(m, "read_only", false))
				fputs(", read-only", stdout);
		}
		putchar('\n');
	}
}

static void print_engine(struct json_object *status)
{
	struct json_object *engine = pv_json_object(status, "engine");
	uint64_t up = engine ? pv_json_u64(engine, "uptime", 0) : 0;
	char rss[32];

	if (!engine)
		return;
	label("engine");
	printf("process %" PRId64 ", up %" PRIu64 " h %02" PRIu64 " min, %s of memory\n",
		pv_json_int(engine, "pid", 0), up / 3600, up / 60 % 60,
		cli_size(pv_json_u64(engine, "rss", 0), rss, sizeof(rss)));
}

static void print_incidents(struct json_object *status)
{
	struct json_object *incidents = pv_json_array(status, "incidents");

	for (size_t i = 0; incidents && i < json_object_array_length(incidents); i++) {
		struct json_object *incident = json_object_array_get_idx(incidents, i);
		const char *detail = pv_json_string(incident, "detail", "");
		char when[32];

		label(i ? "" : "incidents");
		printf("%s ", cli_time(pv_json_int(incident, "time", 0), when, sizeof(when)));
		cli_print_safe(stdout, pv_json_string(incident, "what", "?"));
		if (*detail) {
			fputs(": ", stdout);
			cli_print_safe(stdout, detail);
		}
		putchar('\n');
	}
}

static void print_status(struct json_object *status)
{
	struct json_object *device = pv_json_object(status, "device");
	struct json_object *warnings = pv_json_array(status, "warnings");
	struct json_object *slots = pv_json_array(status, "slots");
	char size[32];

	cli_print_safe(stdout, pv_json_string(status, "name", "?"));
	printf(": %s\n", pv_json_string(status, "state", "?"));
	line("container", pv_json_string(status, "container", "?"));
	if (pv_json_string(status, "at", NULL))
		line("mounts at", pv_json_string(status, "at", ""));
	print_pool(status);
	print_mounts(status);
	if (json_object_object_get_ex(status, "snapshots", NULL)) {
		label("snapshots");
		printf("%" PRIu64 "\n", pv_json_u64(status, "snapshots", 0));
	}
	if (json_object_object_get_ex(status, "backing_free", NULL)) {
		label("disk below");
		printf("%s free\n", cli_size(pv_json_u64(status, "backing_free", 0), size, sizeof(size)));
	}
	if (device && pv_json_string(device, "backend", NULL))
		line("disk I/O", pv_json_string(device, "backend", ""));
	print_engine(status);
	if (slots && json_object_array_length(slots)) {
		puts("  key slots");
		cli_print_slots(slots, "    ");
	}
	print_incidents(status);
	for (size_t i = 0; warnings && i < json_object_array_length(warnings); i++)
		line(i ? "" : "warnings", json_object_get_string(json_object_array_get_idx(warnings, i)));
}

int cli_status(struct cli *cli, int argc, char **argv)
{
	const char *name;
	pv_autojson struct json_object *status = NULL;
	int rc = cli_operands(cli, argc, argv, 1, 1, &name);

	if (rc < 0)
		return PV_EXIT_USAGE;
	rc = cli_request(cli, "volume.status", cli_params_name(name), &status);
	if (rc)
		return rc;
	if (cli->json)
		return cli_print_json(status);
	print_status(status);
	return cli_flush();
}
