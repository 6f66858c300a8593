/*
 * Keys on their way from the user to the keeper: asked for or read from a file into locked memory, put into a
 * pipe, wiped. No key is ever an argument, an environment variable or a line of a log.
 */
#include "cli/cli_int.h"

#include "key/key.h"

#include <errno.h>
#include <string.h>

int cli_key_parse(struct cli *cli, const char *text, struct cli_key_source *ret_source)
{
	static const char *const later[] = {"pkcs11", "tpm2", "fido2"};
	size_t length = strcspn(text, ":");
	const char *argument = text[length] ? text + length + 1 : NULL;

	for (unsigned i = 0; i < sizeof(later) / sizeof(later[0]); i++)
		if (strlen(later[i]) == length && !memcmp(later[i], text, length))
			return cli_usage(cli, "--key %s is not supported by this version", later[i]);
	if (length == 7 && !memcmp(text, "keyfile", 7)) {
		if (!argument || !*argument)
			return cli_usage(cli, "say which key file: --key keyfile:PATH");
		*ret_source = (struct cli_key_source){.kind = "keyfile", .path = argument};
		return 0;
	}
	if (length == 8 && !memcmp(text, "recovery", 8) && (!argument || *argument)) {
		*ret_source = (struct cli_key_source){.kind = "recovery", .path = argument};
		return 0;
	}
	if (!strcmp(text, "passphrase")) {
		*ret_source = (struct cli_key_source){.kind = "passphrase"};
		return 0;
	}
	return cli_usage(cli, "--key %.*s: unknown kind of key (passphrase, keyfile:PATH, recovery[:PATH])",
		(int)length, text);
}

static int read_file(const struct cli_key_source *source, struct pv_secret **ret_secret)
{
	bool keyfile = !strcmp(source->kind, "keyfile");
	struct pv_error err = {0};
	bool exposed = false;
	int r = keyfile ? pv_key_keyfile(source->path, ret_secret, &exposed, &err)
			: pv_key_passphrase_file(source->path, ret_secret, &exposed, &err);

	if (r < 0)
		return cli_fail(&err);
	if (exposed)
		cli_warn(source->path, "others may read this file; chmod 600 keeps it to you");
	return 0;
}

/* What was typed, in the form that unlocks. */
static int canonical_recovery(struct pv_secret **secret)
{
	struct pv_secret *canonical = NULL;
	struct pv_error err = {0};

	if (pv_key_recovery_normalise(*secret, &canonical, &err) < 0)
		return cli_fail(&err);
	pv_secret_free(*secret);
	*secret = canonical;
	return 0;
}

int cli_key_read(const struct cli_key_source *source, const char *what, struct pv_secret **ret_secret)
{
	bool recovery = !strcmp(source->kind, "recovery");
	struct pv_secret *secret = NULL;
	struct pv_error err = {0};
	char question[300];
	int rc;

	if (source->path) {
		rc = read_file(source, &secret);
		if (rc)
			return rc;
	} else {
		fflush(stdout);
		snprintf(question, sizeof(question),
			"%s for %.200s: ", recovery ? "Recovery key" : "Passphrase", what);
		if (pv_key_prompt(question, &secret, &err) < 0)
			return cli_fail(&err);
	}
	rc = recovery ? canonical_recovery(&secret) : 0;
	if (rc)
		pv_secret_free(secret);
	else
		*ret_secret = secret;
	return rc;
}

int cli_key_read_new(const struct cli_key_source *source, const char *what, struct pv_secret **ret_secret)
{
	struct pv_error err = {0};
	char question[300];

	if (source->path)
		return read_file(source, ret_secret);
	fflush(stdout);
	snprintf(question, sizeof(question), "New passphrase for %.200s: ", what);
	if (pv_key_prompt_new(question, "The same again: ", ret_secret, &err) < 0)
		return cli_fail(&err);
	return 0;
}

bool cli_key_is_recovery(struct pv_secret **secret)
{
	struct pv_secret *canonical = NULL;

	if (pv_key_recovery_normalise(*secret, &canonical, NULL) < 0)
		return false;
	pv_secret_free(*secret);
	*secret = canonical;
	return true;
}

int cli_recovery_new(struct pv_secret **ret_text, struct pv_secret **ret_key)
{
	struct pv_error err = {0};
	struct pv_secret *text = NULL;

	if (pv_key_recovery_new(&text, &err) < 0)
		return cli_fail(&err);
	/* The canonical text is the key. */
	if (pv_secret_copy(text->data, text->size, ret_key, &err) < 0) {
		pv_secret_free(text);
		return cli_fail(&err);
	}
	*ret_text = text;
	return 0;
}

static bool write_all(const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(STDOUT_FILENO, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		data += n;
		size -= (size_t)n;
	}
	return true;
}

int cli_recovery_show(const char *volume, const struct pv_secret *text)
{
	static const char head[] =
		"\n"
		"  +-- recovery key -----------------------------------------------------------+\n"
		"  |                                                                           |\n"
		"  |  ";
	static const char tail[] =
		"  |\n"
		"  |                                                                           |\n"
		"  +---------------------------------------------------------------------------+\n";

	struct pv_error err = {0};

	/* Not through stdio: its buffer is ordinary memory. */
	if (fflush(stdout) != 0 || ferror(stdout) || !write_all(head, sizeof(head) - 1) ||
		!write_all((const char *)text->data, text->size) || !write_all(tail, sizeof(tail) - 1)) {
		pv_fail(&err, -EIO, volume, "the recovery key could not be shown, so nobody knows it: %s",
			pv_strerror(errno));
		pv_remedy(&err,
			"everything else was done; for another one: pvol key add %s --new-key recovery",
			volume);
		return cli_fail(&err);
	}
	fputs("  It opens ", stdout);
	cli_print_safe(stdout, volume);
	puts(" when the passphrase is lost (--key recovery). Write it down and keep\n"
	     "  it away from this machine: it is not shown again.");
	return PV_EXIT_OK;
}

int cli_key_pipe(struct pv_secret **secret, int *ret_fd)
{
	struct pv_error err = {0};
	int r = pv_secret_pipe(*secret, ret_fd, &err);

	*secret = pv_secret_free(*secret);
	return r < 0 ? cli_fail(&err) : 0;
}

static int number_option(struct cli *cli, const char *name, const char *value, uint64_t max, uint64_t *into)
{
	if (cli_parse_unsigned(value, max, into) == 0 && *into > 0)
		return 1;
	cli_usage(cli, "--%s %s: not a number that makes sense here", name, value);
	return CLI_USAGE;
}

int cli_pbkdf_option(struct cli *cli, struct cli_pbkdf *pbkdf, int id, const char *value)
{
	switch (id) {
	case CLI_OPT_PBKDF:
		if (strcmp(value, "argon2id") != 0 && strcmp(value, "pbkdf2") != 0) {
			cli_usage(cli, "--pbkdf %s: argon2id or pbkdf2", value);
			return CLI_USAGE;
		}
		pbkdf->type = value;
		return 1;
	case CLI_OPT_ITER_TIME: return number_option(cli, "iter-time", value, 600000, &pbkdf->iter_time_ms);
	case CLI_OPT_PBKDF_MEMORY:
		return number_option(cli, "pbkdf-memory", value, 4U << 20, &pbkdf->memory_kib);
	case CLI_OPT_PBKDF_PARALLEL: return number_option(cli, "pbkdf-parallel", value, 64, &pbkdf->parallel);
	case CLI_OPT_PBKDF_FORCE:
		return number_option(
			cli, "pbkdf-force-iterations", value, UINT32_MAX, &pbkdf->forced_iterations);
	default: return 0;
	}
}

struct json_object *cli_pbkdf_json(const struct cli_pbkdf *pbkdf)
{
	struct json_object *json = json_object_new_object();

	pv_json_add_string(json, "type", pbkdf->type ? pbkdf->type : "argon2id");
	if (pbkdf->iter_time_ms)
		pv_json_add_u64(json, "iter_time_ms", pbkdf->iter_time_ms);
	if (pbkdf->memory_kib)
		pv_json_add_u64(json, "memory_kib", pbkdf->memory_kib);
	if (pbkdf->parallel)
		pv_json_add_u64(json, "parallel", pbkdf->parallel);
	if (pbkdf->forced_iterations)
		pv_json_add_u64(json, "forced_iterations", pbkdf->forced_iterations);
	return json;
}
