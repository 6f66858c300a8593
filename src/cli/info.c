/*
 * pvol info: what a container's header says to anybody; and the printing of key slots.
 */
#include "cli/cli_int.h"
#include "cli/slots_int.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void cli_print_slots(struct json_object *slots, const char *indent)
{
	for (size_t i = 0; slots && i < json_object_array_length(slots); i++) {
		struct json_object *slot = json_object_array_get_idx(slots, i);
		uint64_t memory = pv_json_u64(slot, "memory_kib", 0);
		char size[32];

		printf("%s%2" PRId64 "  ", indent, pv_json_int(slot, "slot", -1));
		cli_print_safe(stdout, pv_json_string(slot, "kind", "unknown"));
		/* The registry, unlike the header, knows the kinds only. */
		if (pv_json_string(slot, "pbkdf", NULL)) {
			fputs(", ", stdout);
			cli_print_safe(stdout, pv_json_string(slot, "pbkdf", ""));
		}
		if (memory)
			printf(", %s, time %" PRIu64 ", lanes %" PRIu64,
				cli_size(memory * 1024, size, sizeof(size)), pv_json_u64(slot, "time", 0),
				pv_json_u64(slot, "parallel", 0));
		else if (json_object_object_get_ex(slot, "iterations", NULL))
			printf(", %" PRIu64 " iterations", pv_json_u64(slot, "iterations", 0));
		putchar('\n');
	}
}

static void line(const char *name, const char *text)
{
	printf("  %-12s", name);
	cli_print_safe(stdout, text && *text ? text : "-");
	putchar('\n');
}

static void print_info(const char *path, struct json_object *info)
{
	struct json_object *copies = pv_json_object(info, "copies");
	struct json_object *requirements = pv_json_array(info, "requirements");
	const char *refused = pv_json_string(info, "refused", NULL);
	char size[32];

	cli_print_safe(stdout, path);
	puts(":");
	line("format", pv_json_string(info, "format", NULL));
	line("uuid", pv_json_string(info, "uuid", NULL));
	if (*pv_json_string(info, "label", ""))
		line("label", pv_json_string(info, "label", ""));
	printf("  %-12s", "cipher");
	cli_print_safe(stdout, pv_json_string(info, "cipher", "?"));
	printf(", %" PRIu64 "-bit key, %" PRIu64 "-byte sectors\n", pv_json_u64(info, "key_size", 0) * 8,
		pv_json_u64(info, "sector_size", 0));
	printf("  %-12s%s, version %" PRIu64 "\n", "data from",
		cli_size(pv_json_u64(info, "data_offset", 0), size, sizeof(size)),
		pv_json_u64(info, "seqid", 0));
	if (copies) {
		printf("  %-12sprimary ", "copies");
		cli_print_safe(stdout, pv_json_string(copies, "primary", "?"));
		fputs(", secondary ", stdout);
		cli_print_safe(stdout, pv_json_string(copies, "secondary", "?"));
		putchar('\n');
	}
	for (size_t i = 0; requirements && i < json_object_array_length(requirements); i++)
		line(i ? "" : "requires", json_object_get_string(json_object_array_get_idx(requirements, i)));
	if (refused)
		line("refused", refused);
	puts("  key slots");
	cli_print_slots(pv_json_array(info, "slots"), "    ");
}

/* A file of that name, else the container of a volume of that name. */
static int find_container(struct cli *cli, const char *operand, char **ret_path)
{
	pv_autojson struct json_object *volume = NULL;

	if (!strchr(operand, '/')) {
		int rc = cli_find_volume(cli, operand, &volume);

		if (rc)
			return rc;
		if (volume && pv_json_string(volume, "container", NULL)) {
			*ret_path = strdup(pv_json_string(volume, "container", ""));
			return 0;
		}
		if (access(operand, F_OK) < 0) {
			struct pv_error err = {0};

			pv_fail_as(&err, -ENOENT, PV_EXIT_NO_VOLUME, operand,
				"there is no volume of this name, and no such file");
			return cli_fail(&err);
		}
	}
	return cli_absolute(operand, ret_path);
}

int cli_info(struct cli *cli, int argc, char **argv)
{
	const char *operand;
	pv_autojson struct json_object *info = NULL;
	pv_autofree char *path = NULL;
	struct json_object *params;
	int rc = cli_operands(cli, argc, argv, 1, 1, &operand);

	if (rc < 0)
		return PV_EXIT_USAGE;
	rc = find_container(cli, operand, &path);
	if (rc)
		return rc;
	params = json_object_new_object();
	pv_json_add_string(params, "path", path);
	rc = cli_request(cli, "volume.info", params, &info);
	if (rc)
		return rc;
	if (cli->json)
		return cli_print_json(info);
	print_info(path, info);
	return cli_flush();
}
