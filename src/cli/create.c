/*
 * pvol create: a volume with its key slots, or (a name with a slash) a file system in an open volume.
 *
 * The recovery key is made here, so that its text never passes another process; only the bytes that unlock go
 * to the keeper, as a slot of their own. It is shown after everything else has succeeded, once.
 */
#include "cli/cli_int.h"

#include <errno.h>
#include <string.h>

#define DEFAULT_SIZE (10ULL << 30)
#define MAX_KEYS 7 /* and the recovery key */

enum {
	OPT_SIZE = CLI_LONG,
	OPT_CONTAINER,
	OPT_AT,
	OPT_PASSPHRASE_FILE,
	OPT_FULL,
	OPT_MIRROR,
	OPT_NO_RECOVERY,
	OPT_CIPHER,
	OPT_KEY_SIZE,
	OPT_SECTOR_SIZE,
	OPT_LATER,
};

const struct cli_option cli_options_create[] = {
	{OPT_SIZE, "size", "SIZE", "Size of the container: 10G (default), 512M, 1.5T ...", NULL},
	{OPT_CONTAINER, "container", "PATH", "Where the container goes (default: pvol's own folder).", NULL},
	{OPT_AT, "at", "DIR", "Mount point: an empty directory or a new one (default ~/NAME).", NULL},
	{'k', "key", "KIND", "passphrase (default) or keyfile:PATH; repeat it for several key slots.", NULL},
	{OPT_PASSPHRASE_FILE, "passphrase-file", "FILE",
		"Read the passphrase from FILE, \"-\" for standard input, instead of asking.", NULL},
	{OPT_NO_RECOVERY, "no-recovery-key", NULL, "Make no recovery key.", NULL},
	{OPT_FULL, "full", NULL, "Fill the container with ciphertext, so that its used size tells nothing.",
		NULL},
	{OPT_MIRROR, "mirror", "PATH", "Keep a second copy in another container.", NULL},
	{OPT_CIPHER, "cipher", "NAME", "Cipher in LUKS notation (default aes-xts-plain64).", NULL},
	{OPT_KEY_SIZE, "key-size", "BITS", "Size of the volume key: 512 (default) or 256.", NULL},
	{OPT_SECTOR_SIZE, "sector-size", "BYTES", "Unit of encryption: 4096 (default) or 512.", NULL},
	CLI_PBKDF_OPTIONS,
	{'o', "pool-property", "P=V", "Property of the pool, as zpool create -o.", NULL},
	{'O', "property", "P=V", "Property of the file system, as zpool create -O or zfs create -o.", NULL},
	{OPT_LATER, "format", "FORMAT", NULL, NULL},
	{OPT_LATER + 1, "device", "DEV", NULL, "a block device as container"},
	{OPT_LATER + 2, "zvol", "POOL/VOL", NULL, "a ZVOL as container"},
	{.name = NULL},
};

struct request {
	const char *name;
	uint64_t size;
	const char *container, *at, *mirror, *cipher;
	uint64_t key_bits, sector_size;
	bool size_given, full, no_recovery;
	struct cli_key_source keys[MAX_KEYS];
	unsigned nkeys;
	const char *passphrase_file;
	struct cli_pbkdf pbkdf;
	struct json_object *pool_props, *fs_props; /* owned */
};

static int bad_size(struct cli *cli, const char *value)
{
	cli_usage(cli, "--size %s: not a size (examples: 512M, 10G, 1.5T)", value);
	return CLI_USAGE;
}

static int take_key(struct cli *cli, struct request *r, const char *value)
{
	if (r->nkeys == MAX_KEYS) {
		cli_usage(cli, "more than %d keys", MAX_KEYS);
		return CLI_USAGE;
	}
	if (cli_key_parse(cli, value, &r->keys[r->nkeys]))
		return CLI_USAGE;
	if (!strcmp(r->keys[r->nkeys].kind, "recovery")) {
		cli_usage(cli, "a recovery key is made by default and cannot be chosen");
		return CLI_USAGE;
	}
	r->nkeys++;
	return 0;
}

static int take_option(struct cli *cli, struct request *r, int id, const char *value)
{
	int pbkdf = cli_pbkdf_option(cli, &r->pbkdf, id, value);

	if (pbkdf)
		return pbkdf < 0 ? pbkdf : 0;
	switch (id) {
	case OPT_SIZE:
		r->size_given = true;
		return cli_parse_size(value, &r->size) < 0 ? bad_size(cli, value) : 0;
	case OPT_CONTAINER: r->container = value; return 0;
	case OPT_AT: r->at = value; return 0;
	case 'k': return take_key(cli, r, value);
	case OPT_PASSPHRASE_FILE: r->passphrase_file = value; return 0;
	case OPT_NO_RECOVERY: r->no_recovery = true; return 0;
	case OPT_FULL: r->full = true; return 0;
	case OPT_MIRROR: r->mirror = value; return 0;
	case OPT_CIPHER: r->cipher = value; return 0;
	case OPT_KEY_SIZE:
		if (cli_parse_unsigned(value, 512, &r->key_bits) < 0 || r->key_bits % 8) {
			cli_usage(cli, "--key-size is 512 or 256");
			return CLI_USAGE;
		}
		return 0;
	case OPT_SECTOR_SIZE:
		if (cli_parse_unsigned(value, 4096, &r->sector_size) < 0 ||
			(r->sector_size != 512 && r->sector_size != 4096)) {
			cli_usage(cli, "--sector-size is 4096 or 512");
			return CLI_USAGE;
		}
		return 0;
	case 'o': return cli_parse_property(cli, value, r->pool_props);
	case 'O': return cli_parse_property(cli, value, r->fs_props);
	case OPT_LATER:
		if (!strcmp(value, "luks2"))
			return 0;
		cli_usage(cli, "--format %s is not supported by this version, only luks2", value);
		return CLI_USAGE;
	default: abort();
	}
}

static int parse(struct cli *cli, int argc, char **argv, struct request *r)
{
	struct cli_args args;
	const char *value;
	int c;

	cli_args_init(&args, cli, argc, argv);
	while ((c = cli_next(&args, &value)) != CLI_END) {
		if (c == CLI_USAGE)
			return CLI_USAGE;
		if (c != CLI_OPERAND) {
			if (take_option(cli, r, c, value) < 0)
				return CLI_USAGE;
		} else if (r->name) {
			cli_usage(cli, "one argument too many: %s", value);
			return CLI_USAGE;
		} else {
			r->name = value;
		}
	}
	if (!r->name) {
		cli_usage(cli, "the name of the volume is missing");
		return CLI_USAGE;
	}
	return 0;
}

/* T/docs */
static int create_dataset(struct cli *cli, struct request *r)
{
	if (r->nkeys || r->passphrase_file || r->size_given || r->container || r->at || r->mirror ||
		r->full || r->cipher || r->no_recovery || json_object_object_length(r->pool_props))
		return cli_usage(cli, "a file system in a volume takes only -O property=value");

	struct json_object *params = cli_params_name(r->name);
	pv_autojson struct json_object *result = NULL;

	json_object_object_add(params, "props", json_object_get(r->fs_props));

	int rc = cli_request(cli, "dataset.create", params, &result);

	if (rc)
		return rc;

	const char *mountpoint = pv_json_string(result, "mountpoint", "");

	cli_print_safe(stdout, r->name);
	printf(": created%s", *mountpoint ? " at " : "");
	cli_print_safe(stdout, mountpoint);
	putchar('\n');
	return cli_flush();
}

static int add_path(struct json_object *params, const char *key, const char *path)
{
	pv_autofree char *absolute = NULL;
	int rc = path ? cli_absolute(path, &absolute) : 0;

	if (rc == 0)
		pv_json_add_string(params, key, absolute);
	return rc;
}

/* A volume of that name is told before anybody types a passphrase for it; the keeper checks again. */
static int name_is_free(struct cli *cli, const char *name)
{
	pv_autojson struct json_object *volume = NULL;
	int rc = cli_find_volume(cli, name, &volume);
	struct pv_error err = {0};

	if (rc || !volume)
		return rc;
	pv_fail(&err, -EEXIST, name, "a volume of this name exists already (its container is %s)",
		pv_json_string(volume, "container", "unknown"));
	pv_remedy(&err, "choose another name, or open it with 'pvol open %s'", name);
	return cli_fail(&err);
}

static void add_key(struct json_object *keys, const char *kind, const struct cli_pbkdf *pbkdf)
{
	struct json_object *key = json_object_new_object();

	pv_json_add_string(key, "kind", kind);
	json_object_object_add(key, "pbkdf", cli_pbkdf_json(pbkdf));
	json_object_array_add(keys, key);
}

/* Reads every key into a pipe; *inout_nfds grows with each descriptor, which the caller closes. */
static int gather_keys(struct request *r, struct json_object *keys, int *fds, size_t *inout_nfds)
{
	for (unsigned i = 0; i < r->nkeys; i++) {
		pv_autosecret struct pv_secret *secret = NULL;
		int rc = cli_key_read_new(&r->keys[i], r->name, &secret);

		if (rc == 0)
			rc = cli_key_pipe(&secret, &fds[*inout_nfds]);
		if (rc)
			return rc;
		(*inout_nfds)++;
		add_key(keys, r->keys[i].kind, &r->pbkdf);
	}
	return 0;
}

static int gather_recovery(struct request *r, struct json_object *keys, int *fds, size_t *inout_nfds,
	struct pv_secret **ret_text)
{
	pv_autosecret struct pv_secret *secret = NULL;
	int rc;

	if (r->no_recovery)
		return 0;
	rc = cli_recovery_new(ret_text, &secret);
	if (rc == 0)
		rc = cli_key_pipe(&secret, &fds[*inout_nfds]);
	if (rc)
		return rc;
	(*inout_nfds)++;
	add_key(keys, "recovery", &r->pbkdf);
	return 0;
}

static void report(const struct request *r, struct json_object *result)
{
	char size[32];

	cli_print_safe(stdout, r->name);
	printf(": created\n  container   ");
	cli_print_safe(stdout, pv_json_string(result, "container", "?"));
	printf(" (%s, %s)\n  mounted at  ", cli_size(r->size, size, sizeof(size)),
		r->full ? "filled with ciphertext"
			: "sparse: what it occupies on disk shows how much is stored");
	cli_print_safe(stdout, pv_json_string(result, "at", "?"));
	putchar('\n');
}

/* The keeper removes what it made once this end of the connection is gone; cli_call has waited for that. */
static int report_interrupt(const struct request *r)
{
	fputs("pvol: ", stderr);
	cli_print_safe(stderr, r->name);
	fputs(": interrupted; everything that was made has been removed\n", stderr);
	return PV_EXIT_FAILED;
}

static int fill_params(const struct request *r, struct json_object *params)
{
	const char *autotrim;
	int rc = add_path(params, "container", r->container);

	pv_json_add_string(params, "name", r->name);
	pv_json_add_u64(params, "size", r->size);
	if (rc == 0)
		rc = add_path(params, "at", r->at);
	if (rc == 0)
		rc = add_path(params, "mirror", r->mirror);
	if (r->full)
		pv_json_add_bool(params, "full", true);
	pv_json_add_string(params, "cipher", r->cipher);
	if (r->key_bits)
		pv_json_add_u64(params, "key_size", r->key_bits / 8);
	if (r->sector_size)
		pv_json_add_u64(params, "sector_size", r->sector_size);

	/* Trimming gives space back, and shows which blocks are free: not for a container that was filled to
	 * hide it. */
	autotrim = pv_json_string(r->pool_props, "autotrim", r->full ? "off" : "on");
	pv_json_add_bool(params, "autotrim", !strcmp(autotrim, "on"));
	json_object_object_add(params, "pool_props", json_object_get(r->pool_props));
	json_object_object_add(params, "fs_props", json_object_get(r->fs_props));
	return rc;
}

static int create_volume(struct cli *cli, struct request *r)
{
	pv_autojson struct json_object *params = json_object_new_object();
	pv_autosecret struct pv_secret *recovery = NULL;
	struct json_object *keys = json_object_new_array();
	int fds[MAX_KEYS + 1];
	struct cli_call call = {.method = "volume.create",
		.params = params,
		.fds = fds,
		.interruptible = true,
		.quiet = true};
	int rc = fill_params(r, params);

	json_object_object_add(params, "keys", keys);
	if (rc == 0)
		rc = name_is_free(cli, r->name);
	if (rc == 0)
		rc = gather_keys(r, keys, fds, &call.nfds);
	if (rc == 0)
		rc = gather_recovery(r, keys, fds, &call.nfds, &recovery);
	if (rc == 0) {
		rc = cli_call(cli, &call);
		if (rc)
			rc = call.error.code == -EINTR ? report_interrupt(r) : cli_fail(&call.error);
	}
	for (size_t i = 0; i < call.nfds; i++)
		close(fds[i]);
	if (rc == 0) {
		report(r, call.result);
		if (recovery)
			rc = cli_recovery_show(r->name, recovery);
		if (rc == 0)
			rc = cli_flush();
	}
	json_object_put(call.result);
	json_object_put(call.failure);
	return rc;
}

/* The default key is a passphrase; --passphrase-file answers the first passphrase asked for. */
static int settle_keys(struct cli *cli, struct request *r)
{
	if (!r->nkeys)
		r->keys[r->nkeys++] = (struct cli_key_source){.kind = "passphrase"};
	if (!r->passphrase_file)
		return 0;
	for (unsigned i = 0; i < r->nkeys; i++) {
		if (!strcmp(r->keys[i].kind, "passphrase")) {
			r->keys[i].path = r->passphrase_file;
			return 0;
		}
	}
	return cli_usage(cli, "--passphrase-file, but no --key passphrase");
}

int cli_create(struct cli *cli, int argc, char **argv)
{
	struct request r = {.size = DEFAULT_SIZE,
		.pool_props = json_object_new_object(),
		.fs_props = json_object_new_object()};
	int rc = PV_EXIT_USAGE;

	if (parse(cli, argc, argv, &r) == 0) {
		if (strchr(r.name, '/')) {
			rc = create_dataset(cli, &r);
		} else {
			rc = settle_keys(cli, &r);
			if (rc == 0)
				rc = create_volume(cli, &r);
		}
	}
	json_object_put(r.pool_props);
	json_object_put(r.fs_props);
	return rc;
}
