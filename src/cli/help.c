/*
 * Help from the table of commands: the overview, and a page per command.
 */
#include "cli/cli_int.h"

#include <errno.h>
#include <string.h>

/* Prints text after `column` spaces, broken at blanks before column 79; the cursor stands at `at`. */
static void print_wrapped(FILE *to, const char *text, size_t column, size_t at)
{
	while (*text) {
		size_t word = strcspn(text, " \n");

		if (at > column && at + 1 + word > 79) {
			fputc('\n', to);
			at = 0;
		} else if (at > column) {
			fputc(' ', to);
			at++;
		}
		for (; at < column; at++)
			fputc(' ', to);
		fwrite(text, 1, word, to);
		at += word;
		text += word;
		if (*text == '\n') {
			fputc('\n', to);
			at = 0;
		}
		if (*text)
			text++;
	}
	fputc('\n', to);
}

static void print_option(FILE *to, const struct cli_option *option)
{
	char head[80];
	int n;

	if (option->id < CLI_LONG)
		n = snprintf(head, sizeof(head), "  -%c, --%s%s%s", option->id, option->name,
			option->arg ? " " : "", option->arg ? option->arg : "");
	else
		n = snprintf(head, sizeof(head), "      --%s%s%s", option->name, option->arg ? " " : "",
			option->arg ? option->arg : "");
	fputs(head, to);
	if (n >= 30) {
		fputc('\n', to);
		n = 0;
	}
	print_wrapped(to, option->help, 30, (size_t)n);
}

void cli_print_help(FILE *to, const struct cli_command *command)
{
	fprintf(to, "usage: pvol %s%s%s\n\n", command->name, command->synopsis[0] ? " " : "",
		command->synopsis);
	print_wrapped(to, command->text, 0, 0);
	fputs("\nOptions:\n", to);
	for (const struct cli_option *o = command->options; o->name; o++)
		if (o->help && !o->unsupported)
			print_option(to, o);
	if (command->json)
		fputs("      --json                  Print JSON for programs.\n", to);
	fputs("      --progress=auto|json|none\n"
	      "                              Progress on a terminal, as JSON lines on standard\n"
	      "                              error, or none.\n"
	      "  -h, --help                  This text.\n",
		to);
}

void cli_print_overview(FILE *to)
{
	fputs("pvol keeps an encrypted ZFS file system in a file and mounts it, without root.\n\n"
	      "usage: pvol COMMAND [ARGUMENT...]      pvol alone lists the volumes\n\n",
		to);
	for (const struct cli_command *c = cli_commands; c->name; c++)
		fprintf(to, "  %-10s %s\n", c->name, c->summary);
	fputs("\n'pvol help COMMAND' tells more; pvol(1) is the manual; 'pvol doctor' says what is\n"
	      "missing on this machine.\n\n"
	      "Exit codes: 0 done, 1 failed, 2 usage, 3 wrong key, 4 no such volume, 5 busy, 6 damaged.\n",
		to);
}

int cli_help(struct cli *cli, int argc, char **argv)
{
	const char *operand[1];
	int n = cli_operands(cli, argc, argv, 0, 1, operand);

	if (n < 0)
		return PV_EXIT_USAGE;
	if (n == 0) {
		cli_print_overview(stdout);
		return cli_flush();
	}

	const struct cli_command *command = cli_command_find(operand[0]);

	if (!command)
		return cli_usage(cli, "%s: no such command", operand[0]);
	cli_print_help(stdout, command);
	return cli_flush();
}
