/*
 * The pvol command. Every subcommand is a file of its own and an entry of the table in commands.c; what they
 * share is declared here:
 *
 *   args.c      options and operands from the subcommand's own table, which is also its help text
 *   output.c    errors, sizes, times, tables; everything that came from a volume is printed escaped
 *   progress.c  progress on a terminal or as JSON lines
 *   keeper.c    one request to the keeper and its answer
 *   keys.c      passphrases, key files and recovery keys: from the user into locked memory into a pipe
 *
 * A subcommand returns its exit code (enum pv_exit); whatever prints an error returns that error's code.
 */
#ifndef PV_CLI_CLI_INT_H
#define PV_CLI_CLI_INT_H

#include "base/channel.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/secret.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* ---- the table ---- */

struct cli_option {
	int id; /* what cli_next() returns: a letter that is also the short option, or >= CLI_LONG */
	const char *name; /* long name without the dashes; NULL ends the table */
	const char *arg;  /* name of its argument, NULL if it takes none */
	const char *help; /* one sentence; NULL hides it from help (for tests) */
	/* Set on options of later versions: they are refused with this name of what is missing. */
	const char *unsupported;
};
#define CLI_LONG 256

struct cli;
struct cli_command {
	const char *name;
	const char *synopsis; /* operands and the most used options */
	const char *summary;  /* one line for the list of commands */
	const char *text;     /* paragraphs for its own help */
	const struct cli_option *options;
	bool json; /* takes --json */
	int (*run)(struct cli *cli, int argc, char **argv);
};
extern const struct cli_command cli_commands[]; /* ends with name NULL */
const struct cli_command *cli_command_find(const char *name);

enum cli_progress { CLI_PROGRESS_AUTO, CLI_PROGRESS_JSON, CLI_PROGRESS_NONE };

/* One run of the program. */
struct cli {
	const struct cli_command *command;
	bool json;
	enum cli_progress progress;
	struct pv_channel *keeper; /* connected by the first request */
};

/* ---- args.c ---- */

struct cli_args {
	struct cli *cli;
	int argc;
	char **argv;
	int next;          /* index of the next word */
	const char *group; /* rest of a group of short options */
	bool operands_only;
	bool stop; /* set by the command: what follows belongs to another program */
};
enum { CLI_END = 0, CLI_OPERAND = -1, CLI_USAGE = -2 };

void cli_args_init(struct cli_args *args, struct cli *cli, int argc, char **argv);
/*
 * The next option's id with its argument in *ret_value, CLI_OPERAND with the operand, CLI_END, or CLI_USAGE
 * after the error was printed. --json, --progress and --help are dealt with here (the last one exits).
 */
int cli_next(struct cli_args *args, const char **ret_value);
/* For commands that take operands only (and --json): between min and max of them into ret_operands. */
int cli_operands(struct cli *cli, int argc, char **argv, int min, int max, const char **ret_operands);
/* "10G", "512M", "1.5TiB", "4096" to bytes; 0 or -EINVAL, -ERANGE. */
int cli_parse_size(const char *text, uint64_t *ret_bytes);
/* Decimal digits only; 0, -EINVAL or -ERANGE when beyond max. */
int cli_parse_unsigned(const char *text, uint64_t max, uint64_t *ret_value);
/* Splits "prop=value" and adds it to the object; the error is printed. */
int cli_parse_property(struct cli *cli, const char *text, struct json_object *into);

/* ---- output.c ---- */

/* "pvol: OBJECT: MESSAGE" and the remedy on a line of its own; returns the exit code. */
int cli_fail(const struct pv_error *err);
/* A usage error of the running command: exit code 2. */
int cli_usage(struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "pvol: OBJECT: warning: ..." */
void cli_warn(const char *object, const char *text);
/* Bytes that could move the cursor or hide text are shown as \xNN. */
void cli_print_safe(FILE *to, const char *text);
/* "1.5 GiB"; `ret` holds at least 16 bytes; returned. */
const char *cli_size(uint64_t bytes, char *ret, size_t size);
/* Local time "2026-02-01 12:00:00"; "-" for 0. At least 24 bytes. */
const char *cli_time(int64_t seconds, char *ret, size_t size);
/* The object on standard output, one line if it is not a terminal; exit code 0. */
int cli_print_json(struct json_object *json);
/* What the command was asked for is on standard output; a full disk there is an error too. */
int cli_flush(void);
void cli_print_help(FILE *to, const struct cli_command *command);
void cli_print_overview(FILE *to);
/* True if a person can be asked: standard input and standard error are terminals. */
bool cli_interactive(void);
/* Asks a question; true on "y" or "yes". */
bool cli_confirm(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Asks for the text to be typed; true if it was. */
bool cli_confirm_by_name(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A table whose columns fit their contents; cells are copied. */
struct cli_table;
/* `columns` is a comma-separated heading; a heading that starts with '>' is right-aligned. */
struct cli_table *cli_table_new(const char *columns);
void cli_table_cell(struct cli_table *table, const char *text);
void cli_table_size(struct cli_table *table, struct json_object *row, const char *key);
/* Prints (nothing but the heading if there are no rows) and releases. */
void cli_table_print(struct cli_table *table);

/* ---- progress.c ---- */

struct cli_meter {
	enum cli_progress mode;
	int64_t started_ms;
	bool shown;
	unsigned ticks;
	char phase[64];
	uint64_t done, total;
};
void cli_meter_start(struct cli_meter *meter, const struct cli *cli);
void cli_meter_update(struct cli_meter *meter, struct json_object *progress);
/* Redraws; called a few times a second. */
void cli_meter_tick(struct cli_meter *meter);
void cli_meter_end(struct cli_meter *meter);

/* ---- keeper.c ---- */

struct cli_call {
	const char *method;
	struct json_object *params; /* borrowed; NULL = none */
	const int *fds;             /* borrowed */
	size_t nfds;
	/* With it, SIGINT ends the call (-EINTR after the keeper has undone everything); else SIGINT ends
	 * pvol. */
	bool interruptible;
	bool quiet;                  /* errors are left to the caller */
	struct json_object *result;  /* out: owned by the caller */
	struct json_object *failure; /* out: the error object as sent, owned by the caller; may be NULL */
	struct pv_error error;       /* out */
};
/* One request with progress; starts the keeper if there is none. Returns 0 or the exit code; errors are
 * printed unless `quiet`. */
int cli_call(struct cli *cli, struct cli_call *call);
/* For simple requests: *ret_result may be NULL. Takes `params`. */
int cli_request(
	struct cli *cli, const char *method, struct json_object *params, struct json_object **ret_result);
/* {"name": name} */
struct json_object *cli_params_name(const char *name);
/* The entry of volume.list, owned by the caller; NULL in *ret_volume if there is none of that name. */
int cli_find_volume(struct cli *cli, const char *name, struct json_object **ret_volume);
/*
 * What the user called NAME: a volume's name as it is, anything with a slash as an absolute path. Allocated.
 * -ENAMETOOLONG and the like are printed.
 */
int cli_volume_operand(const char *text, char **ret_name);
/* Absolute path of a file that need not exist; symbolic links of its folder are resolved. */
int cli_absolute(const char *path, char **ret_path);

/* ---- keys.c ---- */

/* One --key KIND[:ARG], or the default. */
struct cli_key_source {
	const char *kind; /* "passphrase", "keyfile", "recovery" */
	const char *path; /* of the key file or passphrase file; NULL = ask */
};
/* Parses KIND[:ARG]; kinds of later versions are refused by name. 0 or exit code. */
int cli_key_parse(struct cli *cli, const char *text, struct cli_key_source *ret_source);
/* The secret of an existing slot. `what` is the volume's name for the prompt. 0 or exit code. */
int cli_key_read(const struct cli_key_source *source, const char *what, struct pv_secret **ret_secret);
/* The secret of a new slot: a typed passphrase is asked twice. */
int cli_key_read_new(const struct cli_key_source *source, const char *what, struct pv_secret **ret_secret);
/* True, and the secret replaced by its canonical form, if what was typed at a passphrase prompt is a recovery
 * key. */
bool cli_key_is_recovery(struct pv_secret **secret);
/* A new recovery key: its text for the user, and the bytes that unlock. */
int cli_recovery_new(struct pv_secret **ret_text, struct pv_secret **ret_key);
/* Shows the recovery key once on standard output, in a box. When that fails it says so: nobody knows the key
 * then. */
int cli_recovery_show(const char *volume, const struct pv_secret *text);
/* Puts a secret into a pipe for the keeper and wipes the secret. 0 or exit code. */
int cli_key_pipe(struct pv_secret **secret, int *ret_fd);

/* Costs of a new slot, from --pbkdf, --iter-time, --pbkdf-memory, --pbkdf-parallel, --pbkdf-force-iterations.
 */
struct cli_pbkdf {
	const char *type;
	uint64_t iter_time_ms, memory_kib, parallel, forced_iterations;
};
enum {
	CLI_OPT_PBKDF = CLI_LONG + 200,
	CLI_OPT_ITER_TIME,
	CLI_OPT_PBKDF_MEMORY,
	CLI_OPT_PBKDF_PARALLEL,
	CLI_OPT_PBKDF_FORCE,
};
#define CLI_PBKDF_OPTIONS                                                                                    \
	{CLI_OPT_PBKDF, "pbkdf", "TYPE", "Key derivation: argon2id (default) or pbkdf2.", NULL},             \
		{CLI_OPT_ITER_TIME, "iter-time", "MS",                                                       \
			"Time that one unlock shall take on this machine (default 2000).", NULL},            \
		{CLI_OPT_PBKDF_MEMORY, "pbkdf-memory", "KIB",                                                \
			"Most memory for Argon2id (default 1 GiB or a quarter of memory).", NULL},           \
		{CLI_OPT_PBKDF_PARALLEL, "pbkdf-parallel", "N",                                              \
			"Lanes of Argon2id (default: CPUs, at most 4).", NULL},                              \
	{                                                                                                    \
		CLI_OPT_PBKDF_FORCE, "pbkdf-force-iterations", "N", NULL, NULL                               \
	}
/* 1 if the option was one of these, 0 if not, CLI_USAGE after printing. */
int cli_pbkdf_option(struct cli *cli, struct cli_pbkdf *pbkdf, int id, const char *value);
/* The "pbkdf" object of the protocol. */
struct json_object *cli_pbkdf_json(const struct cli_pbkdf *pbkdf);

/* ---- subcommands ---- */

int cli_create(struct cli *cli, int argc, char **argv);
int cli_open(struct cli *cli, int argc, char **argv);
int cli_close(struct cli *cli, int argc, char **argv);
int cli_restart(struct cli *cli, int argc, char **argv);
int cli_list(struct cli *cli, int argc, char **argv);
int cli_status(struct cli *cli, int argc, char **argv);
int cli_info(struct cli *cli, int argc, char **argv);
int cli_snapshot(struct cli *cli, int argc, char **argv);
int cli_snapshots(struct cli *cli, int argc, char **argv);
int cli_rollback(struct cli *cli, int argc, char **argv);
int cli_scrub(struct cli *cli, int argc, char **argv);
int cli_key(struct cli *cli, int argc, char **argv);
int cli_header(struct cli *cli, int argc, char **argv);
int cli_erase(struct cli *cli, int argc, char **argv);
int cli_forget(struct cli *cli, int argc, char **argv);
int cli_doctor(struct cli *cli, int argc, char **argv);
int cli_zdb(struct cli *cli, int argc, char **argv);
int cli_help(struct cli *cli, int argc, char **argv);
int cli_version(struct cli *cli, int argc, char **argv);

/* Each subcommand's own options; help and the parser both read them. */
extern const struct cli_option cli_options_create[], cli_options_open[], cli_options_close[],
	cli_options_snapshot[], cli_options_snapshots[], cli_options_rollback[], cli_options_scrub[],
	cli_options_key[], cli_options_header[], cli_options_erase[], cli_options_zdb[], cli_options_none[];

#endif
