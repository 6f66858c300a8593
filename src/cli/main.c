/*
 * Start of pvol: options before the subcommand, then the subcommand of the table. `pvol` alone lists the
 * volumes.
 */
#include "cli/cli_int.h"

#include "base/process.h"

#include <errno.h>
#include <locale.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct cli cli = {.command = cli_command_find("list")};
	struct pv_error err = {0};
	static char list[] = "list";
	char *nothing[] = {list, NULL};
	int i = 1;

	setlocale(LC_CTYPE, "");
	setlocale(LC_TIME, "");
	if (pv_process_harden(&err) < 0)
		return cli_fail(&err);

	/* Options may come first; those of the list command then belong to it. */
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		cli_print_overview(stdout);
		return cli_flush();
	}
	if (argc > 1 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))) {
		nothing[0] = argv[1];
		cli.command = cli_command_find("version");
		return cli_version(&cli, 1, nothing);
	}
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--json")) {
			cli.json = true;
		} else if (!strcmp(argv[i], "--progress=json")) {
			cli.progress = CLI_PROGRESS_JSON;
		} else if (!strcmp(argv[i], "--progress=none")) {
			cli.progress = CLI_PROGRESS_NONE;
		} else {
			pv_fail_as(&err, -EINVAL, PV_EXIT_USAGE, argv[i], "unknown option before a command");
			pv_remedy(&err,
				"'pvol help' lists the commands; options of a command come after its name");
			return cli_fail(&err);
		}
	}
	if (i == argc) {
		int rc = cli_list(&cli, 1, nothing);

		pv_channel_free(cli.keeper);
		return rc;
	}

	const struct cli_command *command = cli_command_find(argv[i]);

	if (!command) {
		pv_fail_as(&err, -EINVAL, PV_EXIT_USAGE, argv[i], "no such command");
		pv_remedy(&err, "'pvol help' lists the commands");
		return cli_fail(&err);
	}
	cli.command = command;
	if (cli.json && !command->json)
		return cli_usage(&cli, "--json is not for this command");

	int rc = command->run(&cli, argc - i, argv + i);

	pv_channel_free(cli.keeper);
	return rc;
}
