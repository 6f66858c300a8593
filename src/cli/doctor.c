/*
 * pvol doctor: what this machine can and cannot do, and every known trouble, each with its remedy. It starts
 * no keeper: if one runs, its volumes are looked at too.
 */
#include "cli/cli_int.h"
#include "cli/doctor_int.h"

#include "daemon/client.h"
#include "volume/home.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

/* Incidents older than this no longer tell anything about today. */
#define RECENT_SECONDS (30LL * 24 * 3600)

static const char *const state_names[] = {"ok", "warn", "fail"};

void doctor_add(struct json_object *list, enum doctor_state state, const char *check, const char *remedy,
	const char *fmt, ...)
{
	struct json_object *finding = json_object_new_object();
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pv_json_add_string(finding, "check", check);
	pv_json_add_string(finding, "state", state_names[state]);
	pv_json_add_string(finding, "text", text);
	pv_json_add_string(finding, "remedy", remedy);
	json_object_array_add(list, finding);
}

static void check_directories(struct json_object *list)
{
	pv_autohome struct pv_home *home = NULL;
	struct pv_error err = {0};

	if (pv_home_open(false, &home, &err) < 0) {
		doctor_add(list, DOCTOR_FAIL, "directories", err.remedy[0] ? err.remedy : NULL, "%s: %s",
			err.object, err.message);
		return;
	}
	doctor_add(list, DOCTOR_OK, "directories", NULL,
		"volumes are registered in %s; sockets and logs in %s", home->home, home->runtime);
}

static void check_volume(struct cli *cli, struct json_object *list, struct json_object *volume)
{
	const char *name = pv_json_string(volume, "name", "?");
	const char *state = pv_json_string(volume, "state", "?");
	const char *health = pv_json_string(volume, "health", "");
	pv_autojson struct json_object *params = cli_params_name(name);
	struct cli_call call = {.method = "volume.status", .params = params, .quiet = true};
	struct json_object *incidents, *warnings;

	if (!strcmp(state, "failed"))
		doctor_add(list, DOCTOR_FAIL, "volume", "pvol status tells why; then pvol open", "%s: failed",
			name);
	else if (!strcmp(state, "missing"))
		doctor_add(list, DOCTOR_WARN, "volume", "put the container back, or pvol forget",
			"%s: %s is missing", name, pv_json_string(volume, "container", "the container"));
	else if (*health && strcmp(health, "ONLINE") != 0)
		doctor_add(list, DOCTOR_WARN, "volume", "pvol status tells more", "%s: health is %s", name,
			health);
	else
		doctor_add(list, DOCTOR_OK, "volume", NULL, "%s: %s", name, state);

	if (cli_call(cli, &call) == 0) {
		incidents = pv_json_array(call.result, "incidents");
		for (size_t i = 0; incidents && i < json_object_array_length(incidents); i++) {
			struct json_object *incident = json_object_array_get_idx(incidents, i);
			int64_t when = pv_json_int(incident, "time", 0);
			char text[32];

			if (when < (int64_t)time(NULL) - RECENT_SECONDS)
				continue;
			doctor_add(list, DOCTOR_WARN, "incident", NULL, "%s: %s: %s: %s", name,
				cli_time(when, text, sizeof(text)), pv_json_string(incident, "what", "?"),
				pv_json_string(incident, "detail", ""));
		}
		warnings = pv_json_array(call.result, "warnings");
		for (size_t i = 0; warnings && i < json_object_array_length(warnings); i++)
			doctor_add(list, DOCTOR_WARN, "volume", NULL, "%s: %s", name,
				json_object_get_string(json_object_array_get_idx(warnings, i)));
	}
	json_object_put(call.result);
	json_object_put(call.failure);
}

static void check_keeper(struct cli *cli, struct json_object *list)
{
	struct cli_call call = {.method = "keeper.status", .quiet = true};
	struct pv_error err = {0};
	struct json_object *volumes;

	if (pv_keeper_connect(false, &cli->keeper, &err) < 0) {
		if (err.code == -ENOENT)
			doctor_add(list, DOCTOR_OK, "keeper", NULL,
				"not running; it is started when it is needed");
		else
			doctor_add(list, DOCTOR_FAIL, "keeper", err.remedy[0] ? err.remedy : NULL, "%s",
				err.message);
		return;
	}
	if (cli_call(cli, &call)) {
		doctor_add(list, DOCTOR_FAIL, "keeper", NULL, "does not answer: %s", call.error.message);
	} else {
		doctor_add(list, DOCTOR_OK, "keeper", NULL,
			"process %" PRId64 ", version %s, %" PRId64 " volumes open",
			pv_json_int(call.result, "pid", 0), pv_json_string(call.result, "version", "?"),
			pv_json_int(call.result, "open", 0));
		if (strcmp(pv_json_string(call.result, "version", PV_VERSION), PV_VERSION) != 0)
			doctor_add(list, DOCTOR_WARN, "keeper",
				"close the volumes; the next pvol starts a new one",
				"the running keeper is of another version than this pvol (" PV_VERSION ")");
	}
	json_object_put(call.result);
	json_object_put(call.failure);
	if (!cli->keeper)
		return;

	call = (struct cli_call){.method = "volume.list", .quiet = true};
	if (cli_call(cli, &call) == 0) {
		volumes = pv_json_array(call.result, "volumes");
		for (size_t i = 0; volumes && i < json_object_array_length(volumes) && cli->keeper; i++)
			check_volume(cli, list, json_object_array_get_idx(volumes, i));
	}
	json_object_put(call.result);
	json_object_put(call.failure);
}

static void print_findings(struct json_object *list)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *finding = json_object_array_get_idx(list, i);
		const char *remedy = pv_json_string(finding, "remedy", NULL);

		printf("%-5s %-12s ", pv_json_string(finding, "state", "?"),
			pv_json_string(finding, "check", "?"));
		cli_print_safe(stdout, pv_json_string(finding, "text", ""));
		putchar('\n');
		if (remedy) {
			printf("%18s -> ", "");
			cli_print_safe(stdout, remedy);
			putchar('\n');
		}
	}
}

int cli_doctor(struct cli *cli, int argc, char **argv)
{
	pv_autojson struct json_object *report = NULL;
	struct json_object *list;
	bool failed = false;
	int rc;

	if (cli_operands(cli, argc, argv, 0, 0, NULL) < 0)
		return PV_EXIT_USAGE;
	report = json_object_new_object();
	list = json_object_new_array();
	json_object_object_add(report, "checks", list);
	doctor_check_fuse(list);
	doctor_check_openzfs(list);
	doctor_check_memory(list);
	doctor_check_kernel(list);
	doctor_check_processor(list);
	check_directories(list);
	check_keeper(cli, list);

	for (size_t i = 0; i < json_object_array_length(list); i++)
		failed |= !strcmp(pv_json_string(json_object_array_get_idx(list, i), "state", ""), "fail");
	if (cli->json) {
		rc = cli_print_json(report);
	} else {
		print_findings(list);
		rc = cli_flush();
	}
	return rc ? rc : failed ? PV_EXIT_FAILED : PV_EXIT_OK;
}
