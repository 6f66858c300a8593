/*
 * pvol open: unlock a volume and mount it.
 */
#include "cli/cli_int.h"

#include <errno.h>
#include <string.h>

/* A person may mistype twice; a script gets one try. */
#define TRIES 3

enum { OPT_AT = CLI_LONG, OPT_PASSPHRASE_FILE, OPT_READ_ONLY, OPT_SLOT, OPT_AS_ME };

const struct cli_option cli_options_open[] = {
	{'k', "key", "KIND", "passphrase (default), keyfile:PATH or recovery[:PATH].", NULL},
	{OPT_PASSPHRASE_FILE, "passphrase-file", "FILE",
		"Read the passphrase from FILE, \"-\" for standard input, instead of asking.", NULL},
	{OPT_AT, "at", "DIR", "Mount there instead of where the volume was mounted before.", NULL},
	{OPT_READ_ONLY, "read-only", NULL, "Change nothing in the container.", NULL},
	{OPT_SLOT, "slot", "N", "Try this key slot only.", NULL},
	{OPT_AS_ME, "as-me", NULL, NULL, "mapping the owner of files"},
	{.name = NULL},
};

struct request {
	char *volume; /* owned */
	const char *at;
	struct cli_key_source key;
	bool read_only;
	bool has_slot;
	uint64_t slot;
};

static int parse(struct cli *cli, int argc, char **argv, struct request *r)
{
	const char *passphrase_file = NULL;
	const char *value;
	struct cli_args args;
	int c;

	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		switch (c) {
		case 'k':
			if (cli_key_parse(cli, value, &r->key))
				return PV_EXIT_USAGE;
			break;
		case OPT_PASSPHRASE_FILE: passphrase_file = value; break;
		case OPT_AT: r->at = value; break;
		case OPT_READ_ONLY: r->read_only = true; break;
		case OPT_SLOT:
			if (cli_parse_unsigned(value, 31, &r->slot) < 0)
				return cli_usage(cli, "--slot is a number from 0 to 31");
			r->has_slot = true;
			break;
		case CLI_OPERAND:
			if (r->volume)
				return cli_usage(cli, "one argument too many: %s", value);
			if (cli_volume_operand(value, &r->volume))
				return PV_EXIT_FAILED;
			break;
		default: return PV_EXIT_USAGE;
		}
	}
	if (!r->volume)
		return cli_usage(cli, "the volume is missing");
	if (!r->key.kind)
		r->key = (struct cli_key_source){.kind = "passphrase"};
	if (passphrase_file && strcmp(r->key.kind, "passphrase") != 0)
		return cli_usage(cli, "--passphrase-file is for --key passphrase only");
	if (passphrase_file)
		r->key.path = passphrase_file;
	return 0;
}

static int no_such_volume(const char *name)
{
	struct pv_error err = {0};

	pv_fail_as(&err, -ENOENT, PV_EXIT_NO_VOLUME, name, "there is no volume of this name");
	pv_remedy(&err, "'pvol list' shows the known ones; a container elsewhere is opened by its path, with "
			"a slash");
	return cli_fail(&err);
}

/* 0 with *ret_open; what must be known before anybody is asked for a key. */
static int look_up(struct cli *cli, const struct request *r, bool *ret_open)
{
	pv_autojson struct json_object *volume = NULL;
	int rc = cli_find_volume(cli, r->volume, &volume);

	if (rc)
		return rc;
	if (!volume && r->volume[0] != '/')
		return no_such_volume(r->volume);
	*ret_open = volume && !strcmp(pv_json_string(volume, "state", ""), "open");
	return 0;
}

/* One attempt with the key, or without one if `secret` is NULL (the volume is open already). */
static int attempt(
	struct cli *cli, struct json_object *params, struct pv_secret **secret, struct cli_call *call)
{
	pv_autoclose int fd = -1;
	int rc;

	json_object_put(call->failure);
	*call = (struct cli_call){.method = "volume.open", .params = params, .quiet = true};
	if (secret) {
		rc = cli_key_pipe(secret, &fd);
		if (rc)
			return rc;
		call->fds = &fd;
		call->nfds = 1;
	}
	rc = cli_call(cli, call);
	call->fds = NULL;
	return rc;
}

static int try_keys(
	struct cli *cli, const struct request *r, struct json_object *params, struct cli_call *call)
{
	/* Only a typed passphrase can come out differently the next time. */
	int tries = !r->key.path && cli_interactive() ? TRIES : 1;

	for (;;) {
		pv_autosecret struct pv_secret *secret = NULL;
		int rc = cli_key_read(&r->key, r->volume, &secret);

		if (rc)
			return rc;
		/* A recovery key is 64 letters of a small alphabet: nobody means anything else by it. */
		if (!r->key.path && !strcmp(r->key.kind, "passphrase"))
			pv_json_add_string(
				params, "kind", cli_key_is_recovery(&secret) ? "recovery" : "passphrase");
		rc = attempt(cli, params, &secret, call);
		if (rc == 0)
			return 0;
		rc = call->error.code ? cli_fail(&call->error) : rc;
		if (rc != PV_EXIT_WRONG_KEY || --tries == 0)
			return rc;
	}
}

static int report(struct json_object *result, bool was_open)
{
	const char *name = pv_json_string(result, "name", "");
	struct json_object *warnings = pv_json_array(result, "warnings");

	cli_print_safe(stdout, name);
	fputs(was_open ? ": open already, at " : ": open at ", stdout);
	cli_print_safe(stdout, pv_json_string(result, "at", "?"));
	putchar('\n');
	for (size_t i = 0; warnings && i < json_object_array_length(warnings); i++)
		cli_warn(name, json_object_get_string(json_object_array_get_idx(warnings, i)));
	return cli_flush();
}

int cli_open(struct cli *cli, int argc, char **argv)
{
	struct request r = {0};
	struct cli_call call = {0};
	pv_autojson struct json_object *params = json_object_new_object();
	pv_autofree char *at = NULL;
	bool is_open = false;
	int rc = parse(cli, argc, argv, &r);

	if (rc == 0)
		rc = look_up(cli, &r, &is_open);
	if (rc == 0 && r.at)
		rc = cli_absolute(r.at, &at);
	if (rc == 0) {
		pv_json_add_string(params, "volume", r.volume);
		pv_json_add_string(params, "kind", r.key.kind);
		pv_json_add_string(params, "at", at);
		if (r.has_slot)
			pv_json_add_u64(params, "slot", r.slot);
		if (r.read_only)
			pv_json_add_bool(params, "read_only", true);
		if (is_open) {
			rc = attempt(cli, params, NULL, &call);
			if (rc)
				cli_fail(&call.error);
		} else {
			rc = try_keys(cli, &r, params, &call);
		}
	}
	if (rc == 0)
		rc = report(call.result, is_open);
	json_object_put(call.result);
	json_object_put(call.failure);
	free(r.volume);
	return rc;
}
