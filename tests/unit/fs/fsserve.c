/*
 * Test program: a pool in a plain file (with a private directory FILE.state beside it), its file systems
 * mounted, commands on standard input (one a line, one answer line each: "ok ..." or "error: ...").
 *
 *   fsserve FILE POOL DIR [-c SIZE_MIB] [-a] [-s] [-o UID] [-r] [-k]
 *     -c  make the file and the pool   -a allow_other   -s separate mounts   -o the only uid   -r read-only
 *     -k  end without export when the input ends (a crash)
 *
 *   snapshot DATASET NAME | rollback DATASET NAME | destroy DATASET[@SNAP] | create DATASET | set DATASET P V
 * | forget NODES | add DATASET | remove DATASET | force DATASET | list | failed | holders | sync | stop |
 * kill
 *
 * SIGTERM and the end of the input stop it in order.
 */
#include "base/log.h"
#include "block/file.h"
#include "fs/fs_int.h"
#include "pool/pool.h"
#include "zpl/zpl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEVICE "/dev/mapper/pvol-fsserve"

static struct pv_error err;
static struct pv_mounts *mounts;
static bool stopped, ended;

static int die(const char *what)
{
	printf("error: %s: %s: %s\n", what, err.object, err.message);
	fflush(stdout);
	return 1;
}

static void answer(int r)
{
	if (r < 0)
		printf("error: %d %s: %s\n", r, err.object, err.message);
	else
		printf("ok\n");
	fflush(stdout);
	memset(&err, 0, sizeof(err));
}

static void answer_json(struct json_object *json)
{
	printf("ok %s\n", json_object_to_json_string_ext(
				  json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(json);
	fflush(stdout);
}

static void mount_ended(const char *mountpoint, void *private)
{
	ended = true;
	fprintf(stderr, "ended %s\n", mountpoint);
}

static void stop(bool force)
{
	int r = pv_mounts_stop(mounts, force, &err);

	if (r == 0) {
		mounts = NULL;
		stopped = true;
	}
	answer(r);
}

static size_t directories(struct pv_connection *connection)
{
	uint64_t *ids = NULL;
	size_t count = 0;

	pv_nodes_list(connection, NULL, S_IFDIR, 0, PV_SHARDS, &ids, &count);
	free(ids);
	return count;
}

/* Answers with the numbers of nodes, and of directories among them, that were forgotten. */
static void forget(uint64_t want)
{
	struct pv_connection *connection = mounts->connections;
	long long nodes = (long long)connection->nodes, dirs = (long long)directories(connection);
	unsigned shard = 0;

	pv_forget_some(connection, want, &shard);
	usleep(200000); /* the kernel tells by requests of their own */
	printf("ok %lld %lld\n", nodes - (long long)connection->nodes,
		dirs - (long long)directories(connection));
	fflush(stdout);
}

static void command(char *line)
{
	char *word[4] = {}, *save = NULL;
	int n = 0;

	for (char *w = strtok_r(line, " \n", &save); w && n < 4; w = strtok_r(NULL, " \n", &save))
		word[n++] = w;
	if (n == 0)
		return;
	if (!strcmp(word[0], "list"))
		answer_json(pv_mounts_list(mounts));
	else if (!strcmp(word[0], "failed"))
		answer_json(pv_mounts_failed(mounts));
	else if (!strcmp(word[0], "holders"))
		answer_json(pv_mounts_holders(mounts));
	else if (!strcmp(word[0], "sync"))
		answer(pv_mounts_sync(mounts));
	else if (!strcmp(word[0], "ended"))
		printf("ok %d\n", ended), fflush(stdout);
	else if (!strcmp(word[0], "stop"))
		stop(false);
	else if (!strcmp(word[0], "kill"))
		stop(true);
	else if (n == 3 && !strcmp(word[0], "snapshot"))
		answer(pv_snapshot_create(word[1], word[2], false, &err));
	else if (n == 3 && !strcmp(word[0], "rollback"))
		answer(pv_mounts_rollback(mounts, word[1], word[2], true, &err));
	else if (n == 2 && !strcmp(word[0], "create"))
		answer(pv_dataset_create(word[1], NULL, 0, geteuid(), getegid(), &err));
	else if (n == 4 && !strcmp(word[0], "set"))
		answer(pv_dataset_set(word[1], word[2], word[3], &err));
	else if (n == 2 && !strcmp(word[0], "destroy"))
		answer(pv_dataset_destroy(word[1], &err));
	else if (n == 2 && !strcmp(word[0], "forget"))
		forget(strtoull(word[1], NULL, 10));
	else if (n == 2 && !strcmp(word[0], "add"))
		answer(pv_mounts_add(mounts, word[1], &err));
	else if (n == 2 && !strcmp(word[0], "remove"))
		answer(pv_mounts_remove(mounts, word[1], false, &err));
	else if (n == 2 && !strcmp(word[0], "force"))
		answer(pv_mounts_remove(mounts, word[1], true, &err));
	else
		printf("error: what?\n"), fflush(stdout);
}

static void serve(int signals)
{
	char buffer[4096];
	size_t used = 0;

	while (!stopped) {
		struct pollfd fds[2] = {{.fd = 0, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
		ssize_t n;
		char *end;

		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents)
			return;
		n = read(0, buffer + used, sizeof(buffer) - 1 - used);
		if (n <= 0)
			return;
		used += (size_t)n;
		buffer[used] = '\0';
		while ((end = strchr(buffer, '\n'))) {
			*end = '\0';
			command(buffer);
			used -= (size_t)(end + 1 - buffer);
			memmove(buffer, end + 1, used + 1);
		}
	}
}

int main(int argc, char **argv)
{
	struct pv_file_options file = {.label = "file"};
	struct pv_mounts_options options = {.owner = (uid_t)-1, .ended = mount_ended};
	struct pv_pool_options pool = {};
	char state[4096];
	const char *devices[] = {DEVICE};
	unsigned long create = 0;
	bool crash = false;
	struct pv_bdev *bdev;
	sigset_t set;
	int signals, fd, c, r;

	while ((c = getopt(argc, argv, "c:aso:rk")) != -1) {
		switch (c) {
		case 'c': create = strtoul(optarg, NULL, 10); break;
		case 'a': options.allow_other = true; break;
		case 's': options.separate = true; break;
		case 'o': options.owner = (uid_t)strtoul(optarg, NULL, 10); break;
		case 'r': options.read_only = true; break;
		case 'k': crash = true; break;
		default: return 2;
		}
	}
	if (argc - optind != 3)
		return 2;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	umask(077);
	snprintf(state, sizeof(state), "%s.state", argv[optind]);
	mkdir(state, 0700);
	pool.state_dir = state;

	fd = open(argv[optind], O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
	if (fd < 0 || (create && ftruncate(fd, (off_t)create << 20) < 0)) {
		perror(argv[optind]);
		return 1;
	}
	if (pv_file_open(fd, &file, &bdev, &err) < 0)
		return die("file");
	if (pv_pool_start(&pool, &err) < 0)
		return die("start");
	if (pv_pool_register_device(DEVICE, bdev, &err) < 0)
		return die("register");
	options.pool = argv[optind + 1];
	options.at = argv[optind + 2];
	if (create) {
		const struct pv_pool_create params = {
			.name = options.pool,
			.devices = devices,
			.ndevices = 1,
			.uid = geteuid(),
			.gid = getegid(),
		};

		r = pv_pool_create(&params, &err);
	} else {
		const struct pv_pool_import params = {.name = options.pool, .read_only = options.read_only};

		r = pv_pool_import(&params, NULL, &err);
	}
	if (r < 0)
		return die("pool");
	if (pv_mounts_start(&options, &mounts, &err) < 0)
		return die("mount");
	printf("ok ready\n");
	fflush(stdout);
	serve(signals);
	if (crash)
		_exit(0);
	if (!stopped && pv_mounts_stop(mounts, true, &err) < 0)
		return die("stop");
	if (pv_pool_export(options.pool, false, &err) < 0)
		return die("export");
	pv_pool_unregister_device(DEVICE);
	pv_pool_stop();
	pv_bdev_close(bdev);
	printf("ok done\n");
	return 0;
}
