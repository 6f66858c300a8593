#include "support.h"

#include "pool/zpl_format.h"

#include <sys/dmu_objset.h>
#include <sys/dmu_tx.h>
#include <sys/dsl_dataset.h>
#include <sys/dsl_destroy.h>
#include <sys/dsl_prop.h>
#include <sys/spa.h>
#include <sys/txg.h>
#include <sys/zap.h>
#include <zfeature_common.h>

#define zpl_attr zfs_zpl_attr
#include <sys/zfs_acl.h>
#include <sys/zfs_sa.h>
#undef zpl_attr
#include <sys/zfs_znode.h>
#include <libzutil.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256];
static pid_t dir_owner;

void test_fail(const char *file, int line, const char *what, long long value)
{
	fprintf(stderr, "%s:%d: not so: %s (%lld)\n", file, line, what, value);
	fflush(NULL);
	_exit(1);
}

static void remove_dir(void)
{
	DIR *d;
	struct dirent *entry;

	if (getpid() != dir_owner || !(d = opendir(dir)))
		return;
	while ((entry = readdir(d)) != NULL)
		unlinkat(dirfd(d), entry->d_name, 0);
	closedir(d);
	rmdir(dir);
}

const char *test_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	if (!dir[0]) {
		snprintf(dir, sizeof(dir), "%s/pvol-test-zpl.XXXXXX", tmp ? tmp : "/var/tmp");
		if (!mkdtemp(dir))
			test_fail(__FILE__, __LINE__, dir, errno);
		dir_owner = getpid();
		atexit(remove_dir);
	}
	return dir;
}

bool test_step(void (*step)(void))
{
	int status;
	pid_t pid;

	test_dir();
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		step();
		fflush(NULL);
		_exit(0);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static char *path(const char *name)
{
	char *p;

	if (asprintf(&p, "%s/%s", test_dir(), name) < 0)
		abort();
	return p;
}

void test_start(void)
{
	extern char *spa_config_path;

	spa_config_path = path("zpool.cache");
	unlink(spa_config_path); /* a crashed run's would say that the pool is open */
	zfs_flags = 0;
	kernel_init(SPA_MODE_READ | SPA_MODE_WRITE);
	zpl_register_accounting();
}

void test_stop(void)
{
	kernel_fini();
}

static void fill_root(const char *name)
{
	struct zpl_create_args args = {.version = 5, .uid = 0, .gid = 0, .mode = 0755};
	objset_t *os;
	dmu_tx_t *tx;

	OK(dmu_objset_own(name, DMU_OST_ZFS, B_FALSE, B_FALSE, FTAG, &os));
	tx = dmu_tx_create(os);
	for (int i = 0; i < 8; i++)
		dmu_tx_hold_zap(tx, DMU_NEW_OBJECT, TRUE, NULL);
	dmu_tx_hold_bonus(tx, DMU_NEW_OBJECT);
	OK(dmu_tx_assign(tx, DMU_TX_WAIT));
	zpl_create_objset(os, &args, CRED(), tx);
	dmu_tx_commit(tx);
	txg_wait_synced(dmu_objset_pool(os), 0);
	zpl_stop_upgrade(os);
	dmu_objset_disown(os, B_FALSE, FTAG);
}

void test_create_pool(const char *name, uint64_t size)
{
	nvlist_t *file = fnvlist_alloc(), *root = fnvlist_alloc(), *props = fnvlist_alloc();
	char *image = path("image"), feature[128];
	int fd = open(image, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	OK(ftruncate(fd, (off_t)size));
	close(fd);
	fnvlist_add_string(file, ZPOOL_CONFIG_TYPE, VDEV_TYPE_FILE);
	fnvlist_add_string(file, ZPOOL_CONFIG_PATH, image);
	fnvlist_add_uint64(file, ZPOOL_CONFIG_ASHIFT, 12);
	fnvlist_add_uint64(file, ZPOOL_CONFIG_IS_LOG, 0);
	fnvlist_add_string(root, ZPOOL_CONFIG_TYPE, VDEV_TYPE_ROOT);
	fnvlist_add_nvlist_array(root, ZPOOL_CONFIG_CHILDREN, (const nvlist_t *const *)&file, 1);
	for (int i = 0; i < SPA_FEATURES; i++) {
		snprintf(feature, sizeof(feature), "feature@%s", spa_feature_table[i].fi_uname);
		fnvlist_add_uint64(props, feature, 0);
	}
	OK(spa_create(name, root, props, NULL, NULL));
	fill_root(name);
	fnvlist_free(props);
	fnvlist_free(root);
	fnvlist_free(file);
	free(image);
}

void test_create_fs(const char *name, uint64_t casesensitivity, uint64_t normalization)
{
	struct zpl_create_args args = {.version = 5,
		.mode = 0755,
		.casesensitivity = casesensitivity,
		.normalization = normalization};

	OK(dmu_objset_create(name, DMU_OST_ZFS,
		casesensitivity == ZPL_CASE_INSENSITIVE ? DS_FLAG_CI_DATASET : 0, NULL, zpl_create_objset,
		&args));
}

void test_import_pool(const char *where, const char *name, bool read_only)
{
	char *paths[] = {(char *)where};
	importargs_t args = {.path = paths, .paths = 1, .can_be_active = B_TRUE};
	libpc_handle_t handle = {.lpc_ops = &libzpool_config_ops, .lpc_printerr = B_FALSE};
	nvlist_t *config, *props = NULL;

	OK(zpool_find_config(&handle, name, &config, &args));
	if (read_only) {
		props = fnvlist_alloc();
		fnvlist_add_uint64(props, zpool_prop_to_name(ZPOOL_PROP_READONLY), 1);
	}
	OK(spa_import((char *)name, config, props, ZFS_IMPORT_NORMAL));
	nvlist_free(props);
	fnvlist_free(config);
}

void test_export_pool(const char *name)
{
	OK(spa_export(name, NULL, B_FALSE, B_FALSE));
}

void test_snapshot(const char *name)
{
	nvlist_t *snaps = fnvlist_alloc(), *errors = fnvlist_alloc();

	fnvlist_add_boolean(snaps, name);
	OK(dsl_dataset_snapshot(snaps, NULL, errors));
	fnvlist_free(snaps);
	fnvlist_free(errors);
}

int test_rollback(const char *fs, const char *snapshot, void *owner)
{
	nvlist_t *result = fnvlist_alloc();
	int error = dsl_dataset_rollback(fs, snapshot, owner, result);

	fnvlist_free(result);
	return error;
}

void test_set_property(const char *fs, const char *name, uint64_t value)
{
	OK(dsl_prop_set_int(fs, name, ZPROP_SRC_LOCAL, value));
}

uint64_t test_zap_count(struct zpl_fs *fs, const char *entry)
{
	objset_t *os;
	uint64_t object, count;
	dsl_pool_t *dp;
	dsl_dataset_t *ds;

	OK(dsl_pool_hold(zpl_fs_name(fs), FTAG, &dp));
	OK(dsl_dataset_hold(dp, zpl_fs_name(fs), FTAG, &ds));
	OK(dmu_objset_from_ds(ds, &os));
	OK(zap_lookup(os, MASTER_NODE_OBJ, entry, 8, 1, &object));
	OK(zap_count(os, object, &count));
	dsl_dataset_rele(ds, FTAG);
	dsl_pool_rele(dp, FTAG);
	return count;
}

uint64_t test_accounted(struct zpl_fs *fs, int64_t object, const char *id)
{
	objset_t *os;
	uint64_t value = 0;
	dsl_pool_t *dp;
	dsl_dataset_t *ds;

	OK(dsl_pool_hold(zpl_fs_name(fs), FTAG, &dp));
	OK(dsl_dataset_hold(dp, zpl_fs_name(fs), FTAG, &ds));
	OK(dmu_objset_from_ds(ds, &os));
	(void)zap_lookup(os, (uint64_t)object, id, 8, 1, &value);
	dsl_dataset_rele(ds, FTAG);
	dsl_pool_rele(dp, FTAG);
	return value;
}

void test_zdb(const char *name)
{
	char *command;

	if (access("/usr/sbin/zdb", X_OK) != 0) {
		printf("skipped: no zdb\n");
		return;
	}
	if (asprintf(&command, "/usr/sbin/zdb -e -p %s -bcc %s >%s/zdb.out 2>&1", test_dir(), name,
		    test_dir()) < 0)
		abort();
	if (system(command) != 0) {
		free(command);
		if (asprintf(&command, "tail -30 %s/zdb.out >&2", test_dir()) < 0 || system(command) != 0)
			fprintf(stderr, "no output of zdb\n");
		CHECK(!"zdb found the pool clean");
	}
	free(command);
}

struct zpl_fs *test_mount(const char *name, bool read_only)
{
	struct pv_error err = {0};
	struct zpl_fs *fs;
	int ret = zpl_fs_mount(name, read_only, &fs, &err);

	if (ret)
		test_fail(__FILE__, __LINE__, err.message, ret);
	return fs;
}
