/*
 * pvol key: the key slots of a volume.
 */
#include "cli/cli_int.h"
#include "cli/slots_int.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { OPT_PASSPHRASE_FILE = CLI_LONG, OPT_NEW_KEY, OPT_NEW_PASSPHRASE_FILE, OPT_SLOT };

const struct cli_option cli_options_key[] = {
	{'k', "key", "KIND",
		"A key that opens the volume: passphrase (default), keyfile:PATH or recovery[:PATH].", NULL},
	{OPT_PASSPHRASE_FILE, "passphrase-file", "FILE", "Read that passphrase from FILE.", NULL},
	{OPT_NEW_KEY, "new-key", "KIND",
		"The key to add or change to: passphrase (default), keyfile:PATH or recovery.", NULL},
	{OPT_NEW_PASSPHRASE_FILE, "new-passphrase-file", "FILE", "Read the new passphrase from FILE.", NULL},
	{OPT_SLOT, "slot", "N", "Slot to remove, or the only one to test.", NULL},
	{'f', "force", NULL, "Remove even the last slot: nothing opens the volume then.", NULL},
	CLI_PBKDF_OPTIONS,
	{.name = NULL},
};

struct request {
	const char *verb;
	char *name; /* owned */
	struct cli_key_source key, new_key;
	const char *passphrase_file, *new_passphrase_file;
	bool has_slot, force;
	uint64_t slot;
	struct cli_pbkdf pbkdf;
};

static int take_operand(struct cli *cli, struct request *r, const char *value)
{
	if (!r->verb) {
		r->verb = value;
		return 0;
	}
	if (r->name)
		return cli_usage(cli, "one argument too many: %s", value);
	return cli_volume_operand(value, &r->name);
}

static int parse(struct cli *cli, int argc, char **argv, struct request *r)
{
	struct cli_args args;
	const char *value;
	int c;

	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		int rc = c == CLI_USAGE ? PV_EXIT_USAGE : 0;
		int pbkdf = rc ? 0 : cli_pbkdf_option(cli, &r->pbkdf, c, value);

		if (pbkdf > 0)
			continue;
		if (rc || pbkdf < 0)
			return PV_EXIT_USAGE;
		switch (c) {
		case CLI_OPERAND: rc = take_operand(cli, r, value); break;
		case 'k': rc = cli_key_parse(cli, value, &r->key); break;
		case OPT_NEW_KEY: rc = cli_key_parse(cli, value, &r->new_key); break;
		case OPT_PASSPHRASE_FILE: r->passphrase_file = value; break;
		case OPT_NEW_PASSPHRASE_FILE: r->new_passphrase_file = value; break;
		case 'f': r->force = true; break;
		case OPT_SLOT:
			if (cli_parse_unsigned(value, 31, &r->slot) < 0)
				rc = cli_usage(cli, "--slot is a number from 0 to 31");
			r->has_slot = true;
			break;
		default: abort();
		}
		if (rc)
			return rc;
	}
	return 0;
}

static int settle(struct cli *cli, struct cli_key_source *source, const char *file, const char *option)
{
	if (!source->kind)
		source->kind = "passphrase";
	if (!file)
		return 0;
	if (strcmp(source->kind, "passphrase") != 0)
		return cli_usage(cli, "%s is for passphrases only", option);
	source->path = file;
	return 0;
}

static int key_list(struct cli *cli, struct request *r)
{
	pv_autojson struct json_object *result = NULL;
	int rc = cli_request(cli, "key.list", cli_params_name(r->name), &result);

	if (rc)
		return rc;
	if (cli->json)
		return cli_print_json(result);
	cli_print_slots(pv_json_array(result, "slots"), "");
	return cli_flush();
}

static int key_test(struct cli *cli, struct request *r)
{
	pv_autojson struct json_object *params = cli_params_name(r->name);
	pv_autosecret struct pv_secret *secret = NULL;
	pv_autoclose int fd = -1;
	struct cli_call call = {.method = "key.test", .params = params, .fds = &fd, .nfds = 1};
	int rc = cli_key_read(&r->key, r->name, &secret);

	if (rc == 0)
		rc = cli_key_pipe(&secret, &fd);
	if (rc)
		return rc;
	pv_json_add_string(params, "kind", r->key.kind);
	if (r->has_slot)
		pv_json_add_u64(params, "slot", r->slot);
	rc = cli_call(cli, &call);
	if (rc == 0) {
		cli_print_safe(stdout, r->name);
		printf(": this key opens slot %" PRId64 "\n", pv_json_int(call.result, "slot", -1));
		rc = cli_flush();
	}
	json_object_put(call.result);
	json_object_put(call.failure);
	return rc;
}

/* The new key: given, typed twice, or a recovery key made here, whose text is returned to be shown. */
static int read_new(struct request *r, struct pv_secret **ret_secret, struct pv_secret **ret_text)
{
	if (!strcmp(r->new_key.kind, "recovery"))
		return cli_recovery_new(ret_text, ret_secret);
	return cli_key_read_new(&r->new_key, r->name, ret_secret);
}

static int send_pair(struct cli *cli, struct request *r, const char *method, struct pv_secret **existing,
	struct pv_secret **added, struct cli_call *call)
{
	pv_autojson struct json_object *params = cli_params_name(r->name);
	pv_autoclose int old_fd = -1;
	pv_autoclose int new_fd = -1;
	int rc = cli_key_pipe(existing, &old_fd);

	if (rc == 0)
		rc = cli_key_pipe(added, &new_fd);
	if (rc)
		return rc;
	pv_json_add_string(params, "existing_kind", r->key.kind);
	pv_json_add_string(params, "kind", r->new_key.kind);
	json_object_object_add(params, "pbkdf", cli_pbkdf_json(&r->pbkdf));

	int fds[2] = {old_fd, new_fd};

	*call = (struct cli_call){.method = method, .params = params, .fds = fds, .nfds = 2};
	rc = cli_call(cli, call);
	call->params = NULL;
	call->fds = NULL;
	return rc;
}

static int key_add_or_change(struct cli *cli, struct request *r, bool change)
{
	pv_autosecret struct pv_secret *existing = NULL;
	pv_autosecret struct pv_secret *added = NULL;
	pv_autosecret struct pv_secret *text = NULL;
	struct cli_call call = {0};
	int rc;

	if (r->new_key.kind && !strcmp(r->new_key.kind, "recovery") && r->new_key.path)
		return cli_usage(cli, "a recovery key is made here and cannot be chosen: --new-key recovery");
	rc = settle(cli, &r->new_key, r->new_passphrase_file, "--new-passphrase-file");

	if (rc == 0)
		rc = cli_key_read(&r->key, r->name, &existing);
	if (rc == 0)
		rc = read_new(r, &added, &text);
	if (rc == 0)
		rc = send_pair(cli, r, change ? "key.change" : "key.add", &existing, &added, &call);
	if (rc == 0) {
		cli_print_safe(stdout, r->name);
		printf(change ? ": changed; the new key is slot %" PRId64 "\n"
			      : ": added as slot %" PRId64 "\n",
			pv_json_int(call.result, "slot", -1));
		if (text)
			rc = cli_recovery_show(r->name, text);
		if (rc == 0)
			rc = cli_flush();
	}
	json_object_put(call.result);
	json_object_put(call.failure);
	return rc;
}

static int key_remove(struct cli *cli, struct request *r)
{
	struct json_object *params;
	int rc;

	if (!r->has_slot)
		return cli_usage(cli, "--slot is missing; 'pvol key list %s' shows the slots", r->name);
	params = cli_params_name(r->name);
	pv_json_add_u64(params, "slot", r->slot);
	if (r->force)
		pv_json_add_bool(params, "force", true);
	rc = cli_request(cli, "key.remove", params, NULL);
	if (rc)
		return rc;
	cli_print_safe(stdout, r->name);
	printf(": slot %" PRIu64 " removed\n", r->slot);
	return cli_flush();
}

static int run(struct cli *cli, struct request *r)
{
	int rc;

	if (!r->verb)
		return cli_usage(cli, "say what: list, test, add, change or remove");
	if (cli->json && strcmp(r->verb, "list") != 0)
		return cli_usage(cli, "--json is for key list");
	if (!r->name)
		return cli_usage(cli, "the volume is missing");
	if (!strcmp(r->verb, "list"))
		return key_list(cli, r);
	if (!strcmp(r->verb, "remove"))
		return key_remove(cli, r);
	rc = settle(cli, &r->key, r->passphrase_file, "--passphrase-file");
	if (rc)
		return rc;
	if (!strcmp(r->verb, "test"))
		return key_test(cli, r);
	if (!strcmp(r->verb, "add"))
		return key_add_or_change(cli, r, false);
	if (!strcmp(r->verb, "change"))
		return key_add_or_change(cli, r, true);
	return cli_usage(cli, "%s: no such thing to do with keys", r->verb);
}

int cli_key(struct cli *cli, int argc, char **argv)
{
	struct request r = {0};
	int rc = parse(cli, argc, argv, &r);

	if (rc == 0)
		rc = run(cli, &r);
	free(r.name);
	return rc;
}
