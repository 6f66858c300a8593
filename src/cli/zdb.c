/*
 * pvol zdb: OpenZFS's own debugger on the decrypted pool of a closed volume. The keeper serves the decrypted
 * container as one read-only file, to the owner alone, for as long as this process keeps the connection.
 */
#include "cli/cli_int.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

enum { OPT_PASSPHRASE_FILE = CLI_LONG };

const struct cli_option cli_options_zdb[] = {
	{'k', "key", "KIND", "passphrase (default), keyfile:PATH or recovery[:PATH].", NULL},
	{OPT_PASSPHRASE_FILE, "passphrase-file", "FILE", "Read the passphrase from FILE.", NULL},
	{.name = NULL},
};

static const char *find_zdb(void)
{
	static const char *const places[] = {
		"/usr/sbin/zdb", "/sbin/zdb", "/usr/local/sbin/zdb", "/usr/bin/zdb"};

	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

/* zdb -e -p DIR ARGUMENT... POOL */
static int run_zdb(const char *zdb, const char *dir, const char *pool, char **extra, int nextra)
{
	pv_autofree char **argv = calloc((size_t)nextra + 6, sizeof(*argv));
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct sigaction old_int, old_quit;
	struct pv_error err = {0};
	int n = 0;
	int status;
	pid_t pid;

	if (!argv)
		abort();
	argv[n++] = (char *)(uintptr_t) "zdb";
	argv[n++] = (char *)(uintptr_t) "-e";
	argv[n++] = (char *)(uintptr_t) "-p";
	argv[n++] = (char *)(uintptr_t)dir;
	for (int i = 0; i < nextra; i++)
		argv[n++] = extra[i];
	argv[n++] = (char *)(uintptr_t)pool;
	argv[n] = NULL;

	/* Ctrl-C is for zdb; this process must live on to end the service in order. */
	sigaction(SIGINT, &ignore, &old_int);
	sigaction(SIGQUIT, &ignore, &old_quit);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		sigaction(SIGINT, &old_int, NULL);
		sigaction(SIGQUIT, &old_quit, NULL);
		execv(zdb, argv);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	sigaction(SIGINT, &old_int, NULL);
	sigaction(SIGQUIT, &old_quit, NULL);
	if (pid < 0) {
		pv_fail(&err, -errno, zdb, "cannot start: %s", pv_strerror(errno));
		return cli_fail(&err);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return PV_EXIT_OK;
	if (WIFSIGNALED(status)) {
		pv_fail(&err, -EIO, zdb, "killed by signal %d (%s)", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
		return cli_fail(&err);
	}
	return PV_EXIT_FAILED;
}

/* A volume that is open must not be read from below: zdb would see a changing pool. */
static int check_closed(struct cli *cli, const char *name)
{
	pv_autojson struct json_object *volume = NULL;
	struct pv_error err = {0};
	int rc = cli_find_volume(cli, name, &volume);

	if (rc)
		return rc;
	if (!volume && name[0] != '/') {
		pv_fail_as(&err, -ENOENT, PV_EXIT_NO_VOLUME, name, "there is no volume of this name");
		pv_remedy(&err, "'pvol list' shows the known ones");
		return cli_fail(&err);
	}
	if (volume && !strcmp(pv_json_string(volume, "state", ""), "open")) {
		pv_fail(&err, -EBUSY, name, "the volume is open; zdb needs a closed one");
		pv_remedy(&err, "'pvol close %s' first", name);
		return cli_fail(&err);
	}
	return 0;
}

static int serve_and_run(
	struct cli *cli, const char *name, const struct cli_key_source *key, char **extra, int nextra)
{
	pv_autojson struct json_object *params = cli_params_name(name);
	pv_autosecret struct pv_secret *secret = NULL;
	pv_autoclose int fd = -1;
	struct cli_call call = {.method = "volume.zdb", .params = params, .fds = &fd, .nfds = 1};
	const char *zdb = find_zdb();
	struct pv_error err = {0};
	int rc;

	if (!zdb) {
		pv_fail(&err, -ENOENT, "zdb", "not found");
		pv_remedy(&err, "install the Debian package zfsutils-linux");
		return cli_fail(&err);
	}
	rc = check_closed(cli, name);
	if (rc == 0)
		rc = cli_key_read(key, name, &secret);
	if (rc == 0)
		rc = cli_key_pipe(&secret, &fd);
	if (rc)
		return rc;
	pv_json_add_string(params, "kind", key->kind);
	rc = cli_call(cli, &call);
	if (rc == 0) {
		const char *dir = pv_json_string(call.result, "dir", "");
		const char *pool = pv_json_string(call.result, "pool", "");

		rc = run_zdb(zdb, dir, pool, extra, nextra);
		/* The end of the connection ends the service. */
		cli->keeper = pv_channel_free(cli->keeper);
	}
	json_object_put(call.result);
	json_object_put(call.failure);
	return rc;
}

int cli_zdb(struct cli *cli, int argc, char **argv)
{
	struct cli_key_source key = {0};
	const char *passphrase_file = NULL;
	pv_autofree char *name = NULL;
	struct cli_args args;
	const char *value;
	int c;

	cli_args_init(&args, cli, argc, argv);
	/* What follows NAME is zdb's. */
	while (!name && (c = cli_next(&args, &value)) != CLI_END) {
		switch (c) {
		case 'k':
			if (cli_key_parse(cli, value, &key))
				return PV_EXIT_USAGE;
			break;
		case OPT_PASSPHRASE_FILE: passphrase_file = value; break;
		case CLI_OPERAND:
			if (cli_volume_operand(value, &name))
				return PV_EXIT_FAILED;
			break;
		default: return PV_EXIT_USAGE;
		}
	}
	if (!name)
		return cli_usage(cli, "the volume is missing");
	if (!key.kind)
		key.kind = "passphrase";
	if (passphrase_file && strcmp(key.kind, "passphrase") != 0)
		return cli_usage(cli, "--passphrase-file is for --key passphrase only");
	if (passphrase_file)
		key.path = passphrase_file;
	return serve_and_run(cli, name, &key, argv + args.next, argc - args.next);
}
