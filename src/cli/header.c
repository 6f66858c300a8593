/*
 * pvol header: a copy of the header and its key slots in a file, and back.
 */
#include "cli/cli_int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

const struct cli_option cli_options_header[] = {
	{'f', "force", NULL, "Restore although the backup is of another volume.", NULL},
	{'y', "yes", NULL, "Do not ask before restoring.", NULL},
	{.name = NULL},
};

static int file_error(const char *path, const char *what)
{
	struct pv_error err = {0};

	pv_fail(&err, -errno, path, "%s: %s", what, pv_strerror(errno));
	return cli_fail(&err);
}

static int backup(struct cli *cli, const char *name, const char *path)
{
	pv_autojson struct json_object *params = cli_params_name(name);
	/* Never over an existing file: that may be the only good backup. */
	pv_autoclose int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct cli_call call = {.method = "header.backup", .params = params, .fds = &fd, .nfds = 1};
	int rc;

	if (fd < 0)
		return file_error(path, "cannot make the backup file");
	rc = cli_call(cli, &call);
	if (rc == 0 && fsync(fd) < 0)
		rc = file_error(path, "cannot write the backup file");
	if (rc) {
		unlink(path);
	} else {
		cli_print_safe(stdout, name);
		fputs(": header saved in ", stdout);
		cli_print_safe(stdout, path);
		puts("\nKeep it as safe as the volume: today's keys open the volume with it even if they are "
		     "removed "
		     "later.");
		rc = cli_flush();
	}
	json_object_put(call.result);
	json_object_put(call.failure);
	return rc;
}

static int restore(struct cli *cli, const char *name, const char *path, bool force, bool yes)
{
	pv_autojson struct json_object *params = cli_params_name(name);
	pv_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct cli_call call = {.method = "header.restore", .params = params, .fds = &fd, .nfds = 1};
	int rc;

	if (fd < 0)
		return file_error(path, "cannot open the backup");
	if (!yes && cli_interactive() &&
		!cli_confirm(
			"Replace the header of %s? Keys that were added since the backup will not open it.",
			name)) {
		fputs("Nothing was changed.\n", stderr);
		return PV_EXIT_FAILED;
	}
	if (force)
		pv_json_add_bool(params, "force", true);
	rc = cli_call(cli, &call);
	if (rc == 0) {
		cli_print_safe(stdout, name);
		puts(": header restored");
		rc = cli_flush();
	}
	json_object_put(call.result);
	json_object_put(call.failure);
	return rc;
}

int cli_header(struct cli *cli, int argc, char **argv)
{
	struct cli_args args;
	pv_autofree char *name = NULL;
	const char *operands[3];
	const char *value;
	bool force = false;
	bool yes = false;
	int count = 0;
	int c;

	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		switch (c) {
		case 'f': force = true; break;
		case 'y': yes = true; break;
		case CLI_OPERAND:
			if (count == 3)
				return cli_usage(cli, "one argument too many: %s", value);
			operands[count++] = value;
			break;
		default: return PV_EXIT_USAGE;
		}
	}
	if (count < 3)
		return cli_usage(cli, "an argument is missing");
	if (strcmp(operands[0], "backup") != 0 && strcmp(operands[0], "restore") != 0)
		return cli_usage(cli, "%s: say backup or restore", operands[0]);
	c = cli_volume_operand(operands[1], &name);
	if (c)
		return c;
	if (!strcmp(operands[0], "backup"))
		return backup(cli, name, operands[2]);
	return restore(cli, name, operands[2], force, yes);
}
