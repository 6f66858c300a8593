/*
 * A mounted objset: ownership, master node, live properties, and the teardown lock that lets suspend (for a
 * rollback) and unmount exclude all operations.
 *
 * Every operation is a reader of the teardown lock. Because callbacks (directory listing) may call further
 * operations, a thread counts its entries itself: only the first takes the lock, so that a waiting writer
 * cannot block the second for ever.
 *
 * Suspending drops every SA handle but keeps the nodes; the objset may then be exchanged under them. Resuming
 * reads each node again; those whose object is gone or is another by its generation are stale from then on.
 */
#include "zpl/zpl_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

static bool no_space;                    /* atomic */
static uint64_t room_below = UINT64_MAX; /* atomic */

static struct {
	pthread_mutex_t lock;
	unsigned mounts;
	arc_prune_t *registration;
	void (*prune)(uint64_t nodes, void *private);
	void *private;
} arc_pressure = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- entering ---- */

#define NESTED_FS 4
static __thread struct {
	struct zpl_fs *fs;
	unsigned depth;
} entered[NESTED_FS];

void zpl_enter_any(struct zpl_fs *fs)
{
	unsigned i, slot = NESTED_FS;

	for (i = 0; i < NESTED_FS; i++) {
		if (entered[i].fs == fs) {
			entered[i].depth++;
			return;
		}
		if (!entered[i].fs)
			slot = i;
	}
	VERIFY3U(slot, <, NESTED_FS);
	for (;;) {
		pthread_rwlock_rdlock(&fs->teardown);
		if (!fs->suspended)
			break;
		pthread_rwlock_unlock(&fs->teardown);
		pthread_mutex_lock(&fs->suspend_lock);
		while (fs->suspended)
			pthread_cond_wait(&fs->resumed, &fs->suspend_lock);
		pthread_mutex_unlock(&fs->suspend_lock);
	}
	entered[slot].fs = fs;
	entered[slot].depth = 1;
}

void zpl_exit(struct zpl_fs *fs)
{
	unsigned i = 0;

	while (entered[i].fs != fs)
		i++;
	if (--entered[i].depth == 0) {
		entered[i].fs = NULL;
		pthread_rwlock_unlock(&fs->teardown);
	}
}

int zpl_enter(struct zpl_fs *fs)
{
	zpl_enter_any(fs);
	if (fs->dead) {
		zpl_exit(fs);
		return -EIO;
	}
	return 0;
}

int zpl_enter_node(struct zpl_node *node, bool write)
{
	struct zpl_fs *fs = node->fs;
	int ret = zpl_enter(fs);

	if (ret)
		return ret;
	if (!node->hdl)
		ret = -ESTALE;
	else if (write && zpl_fs_read_only(fs))
		ret = -EROFS;
	if (ret)
		zpl_exit(fs);
	return ret;
}

/* ---- small things ---- */

int zpl_error(int error)
{
	switch (error) {
	case 0: return 0;
	case ECKSUM:
	case EFRAGS:
	case ENXIO: return -EIO;
	case ERESTART: return -EAGAIN;
	default: return -error;
	}
}

void zpl_set_no_space(bool value)
{
	__atomic_store_n(&no_space, value, __ATOMIC_RELAXED);
}

void zpl_set_room(uint64_t bytes)
{
	__atomic_store_n(&room_below, bytes, __ATOMIC_RELAXED);
}

bool zpl_no_space(void)
{
	return __atomic_load_n(&no_space, __ATOMIC_RELAXED);
}

const char *zpl_fs_name(const struct zpl_fs *fs)
{
	return fs->name;
}

bool zpl_fs_read_only(const struct zpl_fs *fs)
{
	if (fs->replaying)
		return false;
	return fs->owned_read_only || fs->forced_read_only || fs->readonly != 0;
}

bool zpl_fs_is_snapshot(const struct zpl_fs *fs)
{
	return fs->snapshot;
}

uint64_t zpl_fs_objset(const struct zpl_fs *fs)
{
	return fs->objset_id;
}

bool zpl_fs_snapdir_visible(const struct zpl_fs *fs)
{
	enum { VISIBLE = 1 }; /* 0 hidden, 2 disabled */

	return fs->snapdir == VISIBLE;
}

void *zpl_fs_owner(struct zpl_fs *fs)
{
	return fs;
}

/* ---- quotas ---- */

static const char *const quota_entry[ZPL_QUOTAS] = {
	"userquota@", "groupquota@", "projectquota@", "userobjquota@", "groupobjquota@", "projectobjquota@"};

static bool over_quota(
	struct zpl_fs *fs, uint64_t quota_object, uint64_t used_object, const char *prefix, uint64_t id)
{
	char name[40];
	uint64_t quota, used;

	if (quota_object == 0)
		return false;
	snprintf(name, sizeof(name), "%llx", (unsigned long long)id);
	if (zap_lookup(fs->os, quota_object, name, 8, 1, &quota) != 0)
		return false;
	snprintf(name, sizeof(name), "%s%llx", prefix, (unsigned long long)id);
	if (zap_lookup(fs->os, used_object, name, 8, 1, &used) != 0)
		return false;
	return used >= quota;
}

int zpl_check_quota(struct zpl_fs *fs, uint64_t uid, uint64_t gid, uint64_t projid, bool objects)
{
	const uint64_t *quota = fs->quota + (objects ? 3 : 0);
	const char *prefix = objects ? "obj-" : "";

	if (fs->replaying)
		return 0;
	if (over_quota(fs, quota[0], DMU_USERUSED_OBJECT, prefix, uid) ||
		over_quota(fs, quota[1], DMU_GROUPUSED_OBJECT, prefix, gid) ||
		over_quota(fs, quota[2], DMU_PROJECTUSED_OBJECT, prefix, projid))
		return -EDQUOT;
	return 0;
}

/* ---- properties: these callbacks may run in syncing context, so they only store ---- */

#define PROPERTY(field)                                                                                      \
	static void field##_changed(void *arg, uint64_t value)                                               \
	{                                                                                                    \
		__atomic_store_n(&((struct zpl_fs *)arg)->field, value, __ATOMIC_RELAXED);                   \
	}
PROPERTY(recordsize)
PROPERTY(atime)
PROPERTY(relatime)
PROPERTY(xattr)
PROPERTY(readonly)
PROPERTY(snapdir)
PROPERTY(acltype)
PROPERTY(aclmode)

static const struct {
	zfs_prop_t prop;
	dsl_prop_changed_cb_t *changed;
} properties[] = {
	{ZFS_PROP_RECORDSIZE, recordsize_changed},
	{ZFS_PROP_ATIME, atime_changed},
	{ZFS_PROP_RELATIME, relatime_changed},
	{ZFS_PROP_XATTR, xattr_changed},
	{ZFS_PROP_READONLY, readonly_changed},
	{ZFS_PROP_SNAPDIR, snapdir_changed},
	{ZFS_PROP_ACLTYPE, acltype_changed},
	{ZFS_PROP_ACLMODE, aclmode_changed},
};

static int watch_properties(struct zpl_fs *fs)
{
	int error = 0;

	dsl_pool_config_enter(fs->dp, FTAG);
	for (size_t i = 0; i < ARRAY_SIZE(properties) && !error; i++) {
		const char *name = zfs_prop_to_name(properties[i].prop);

		if (fs->snapshot) {
			uint64_t value;

			error = dsl_prop_get_int_ds(fs->ds, name, &value);
			if (!error)
				properties[i].changed(fs, value);
			else if (error == ENOENT)
				error = 0; /* not a property of snapshots: the zero default does */
		} else {
			error = dsl_prop_register(fs->ds, name, properties[i].changed, fs);
		}
	}
	dsl_pool_config_exit(fs->dp, FTAG);
	if (fs->snapshot && fs->recordsize == 0)
		fs->recordsize = SPA_OLD_MAXBLOCKSIZE;
	return zpl_error(error);
}

static void unwatch_properties(struct zpl_fs *fs)
{
	if (!fs->snapshot)
		dsl_prop_unregister_all(fs->ds, fs);
}

/* ---- the objset ---- */

static int master_value(struct zpl_fs *fs, const char *name, uint64_t absent, uint64_t *ret_value)
{
	int error = zap_lookup(fs->os, MASTER_NODE_OBJ, name, 8, 1, ret_value);

	if (error == ENOENT) {
		*ret_value = absent;
		error = 0;
	}
	return zpl_error(error);
}

/* Reads the master node and the attribute tables of fs->os. */
static int read_master(struct zpl_fs *fs, struct pv_error *err)
{
	uint64_t sa_object = 0;
	int ret;

	fs->objset_id = dmu_objset_id(fs->os);
	ret = master_value(fs, ZPL_VERSION_STR, 0, &fs->version);
	if (ret == 0 && fs->version == 0)
		ret = -EUCLEAN;
	if (ret)
		return pv_fail(err, ret == -EIO ? -EIO : -EUCLEAN, fs->name,
			"the file system has no readable master node");
	if (fs->version > ZPL_VERSION)
		return pv_fail(err, -ENOTSUP, fs->name, "file system version %llu is newer than %llu",
			(unsigned long long)fs->version, (unsigned long long)ZPL_VERSION);
	ret = master_value(fs, zfs_prop_to_name(ZFS_PROP_NORMALIZE), 0, &fs->norm);
	if (ret == 0)
		ret = master_value(fs, zfs_prop_to_name(ZFS_PROP_UTF8ONLY), 0, &fs->utf8only);
	if (ret == 0)
		ret = master_value(
			fs, zfs_prop_to_name(ZFS_PROP_CASE), ZPL_CASE_SENSITIVE, &fs->casesensitivity);
	if (ret == 0 && fs->version >= ZPL_VERSION_SA)
		ret = master_value(fs, ZFS_SA_ATTRS, 0, &sa_object);
	if (ret == 0)
		ret = master_value(fs, ZFS_ROOT_OBJ, 0, &fs->root);
	if (ret == 0)
		ret = master_value(fs, ZFS_UNLINKED_SET, 0, &fs->unlinked_set);
	for (int i = 0; i < ZPL_QUOTAS && ret == 0; i++)
		ret = master_value(fs, quota_entry[i], 0, &fs->quota[i]);
	if (ret == 0 && (fs->root == 0 || fs->unlinked_set == 0))
		ret = -EUCLEAN;
	if (ret)
		return pv_fail(err, ret, fs->name, "the master node is damaged: %s", pv_strerror(ret));
	if (fs->casesensitivity != ZPL_CASE_SENSITIVE)
		fs->norm |= U8_TEXTPREP_TOUPPER;
	ret = zpl_error(sa_setup(fs->os, sa_object, zfs_attr_table, ZPL_END, &fs->table));
	if (ret)
		return pv_fail(err, ret, fs->name, "the attribute tables are damaged: %s", pv_strerror(ret));
	return 0;
}

static int own(struct zpl_fs *fs, struct pv_error *err)
{
	int error;

	fs->snapshot = strchr(fs->name, '@') != NULL;
	fs->owned_read_only = fs->snapshot;
	error = dmu_objset_own(fs->name, DMU_OST_ZFS, fs->owned_read_only, B_TRUE, fs, &fs->os);
	if (error == EROFS && !fs->owned_read_only) {
		fs->owned_read_only = true;
		error = dmu_objset_own(fs->name, DMU_OST_ZFS, B_TRUE, B_TRUE, fs, &fs->os);
	}
	if (error == EBUSY)
		return pv_fail(err, -EBUSY, fs->name, "the file system is mounted already");
	if (error == EACCES)
		return pv_fail(err, -EACCES, fs->name,
			"the file system is encrypted by ZFS and its key is not loaded");
	if (error == EINVAL)
		return pv_fail(err, -EINVAL, fs->name, "not a file system");
	if (error)
		return pv_fail(err, zpl_error(error), fs->name, "cannot open the file system: %s",
			pv_strerror(error));
	if (!spa_writeable(dmu_objset_spa(fs->os)))
		fs->owned_read_only = true;
	fs->dp = dmu_objset_pool(fs->os);
	fs->ds = dmu_objset_ds(fs->os);
	return 0;
}

/* The objset is gone after a failed resume; else its background upgrade has to be stopped too. */
static void disown(struct zpl_fs *fs)
{
	if (fs->os) {
		zpl_stop_upgrade(fs->os);
		dmu_objset_disown(fs->os, B_TRUE, fs);
	} else {
		dsl_dataset_disown(fs->ds, DS_HOLD_FLAG_DECRYPT, fs);
	}
	fs->os = NULL;
}

/* From read_master() on: everything that resume has to do again. */
static int set_up(struct zpl_fs *fs, struct pv_error *err)
{
	int ret = read_master(fs, err);

	if (ret)
		return ret;
	ret = watch_properties(fs);
	if (ret) {
		unwatch_properties(fs);
		return pv_fail(err, ret, fs->name, "cannot read the properties: %s", pv_strerror(ret));
	}
	mutex_enter(&fs->os->os_user_ptr_lock);
	dmu_objset_set_user(fs->os, fs);
	mutex_exit(&fs->os->os_user_ptr_lock);
	fs->set_up = true;
	return 0;
}

/* Everything back on disk and nothing of the objset cached; ownership stays. No operation runs. */
static void quiesce(struct zpl_fs *fs)
{
	bool dirty = false;

	if (!fs->set_up)
		return;
	fs->set_up = false;
	zpl_stop_upgrade(fs->os);
	unwatch_properties(fs);
	for (int t = 0; t < TXG_SIZE; t++)
		dirty |= dmu_objset_is_dirty(fs->os, t);
	if (dirty && !fs->owned_read_only)
		txg_wait_synced(fs->dp, 0);
	dmu_objset_evict_dbufs(fs->os);
	if (!fs->snapshot)
		dsl_dir_cancel_waiters(fs->ds->ds_dir);
	mutex_enter(&fs->os->os_user_ptr_lock);
	dmu_objset_set_user(fs->os, NULL);
	mutex_exit(&fs->os->os_user_ptr_lock);
}

static struct zpl_fs *alloc_fs(const char *name)
{
	struct zpl_fs *fs = calloc(1, sizeof(*fs));
	pthread_rwlockattr_t attr;

	if (!fs)
		return NULL;
	fs->name = strdup(name);
	if (!fs->name) {
		free(fs);
		return NULL;
	}
	fs->refs = 1;
	fs->reap_last = &fs->reap_first;
	/* A busy file system must not keep a suspend waiting for ever. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&fs->teardown, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&fs->suspend_lock, NULL);
	pthread_cond_init(&fs->resumed, NULL);
	pthread_mutex_init(&fs->rename_lock, NULL);
	pthread_mutex_init(&fs->reap_lock, NULL);
	pthread_cond_init(&fs->reap_wake, NULL);
	for (unsigned i = 0; i < ZPL_NAME_STRIPES; i++)
		pthread_rwlock_init(&fs->names[i], NULL);
	for (unsigned i = 0; i < ZPL_SHARDS; i++) {
		pthread_mutex_init(&fs->shards[i].lock, NULL);
		pthread_cond_init(&fs->shards[i].changed, NULL);
	}
	return fs;
}

void zpl_fs_put(struct zpl_fs *fs)
{
	if (__atomic_sub_fetch(&fs->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	for (unsigned i = 0; i < ZPL_SHARDS; i++) {
		pthread_cond_destroy(&fs->shards[i].changed);
		pthread_mutex_destroy(&fs->shards[i].lock);
	}
	for (unsigned i = 0; i < ZPL_NAME_STRIPES; i++)
		pthread_rwlock_destroy(&fs->names[i]);
	pthread_cond_destroy(&fs->reap_wake);
	pthread_mutex_destroy(&fs->reap_lock);
	pthread_mutex_destroy(&fs->rename_lock);
	pthread_cond_destroy(&fs->resumed);
	pthread_mutex_destroy(&fs->suspend_lock);
	pthread_rwlock_destroy(&fs->teardown);
	free(fs->drain);
	free(fs->name);
	free(fs);
}

/* ---- memory pressure ---- */

static void arc_wants_memory(uint64_t nodes, void *unused)
{
	void (*prune)(uint64_t, void *);
	void *private;

	pthread_mutex_lock(&arc_pressure.lock);
	prune = arc_pressure.prune;
	private = arc_pressure.private;
	pthread_mutex_unlock(&arc_pressure.lock);
	if (prune)
		prune(nodes, private);
}

void zpl_set_prune(void (*prune)(uint64_t nodes, void *private), void *private)
{
	pthread_mutex_lock(&arc_pressure.lock);
	arc_pressure.prune = prune;
	arc_pressure.private = private;
	pthread_mutex_unlock(&arc_pressure.lock);
}

static void arc_register(void)
{
	pthread_mutex_lock(&arc_pressure.lock);
	if (arc_pressure.mounts++ == 0)
		arc_pressure.registration = arc_add_prune_callback(arc_wants_memory, NULL);
	pthread_mutex_unlock(&arc_pressure.lock);
}

static void arc_unregister(void)
{
	arc_prune_t *gone = NULL;

	pthread_mutex_lock(&arc_pressure.lock);
	if (--arc_pressure.mounts == 0)
		gone = arc_pressure.registration;
	pthread_mutex_unlock(&arc_pressure.lock);
	if (gone)
		arc_remove_prune_callback(gone);
}

/* ---- mount ---- */

int zpl_fs_mount(const char *name, bool read_only, struct zpl_fs **ret_fs, struct pv_error *err)
{
	struct zpl_fs *fs = alloc_fs(name);
	struct zpl_node *root;
	int ret;

	if (!fs)
		return pv_fail(err, -ENOMEM, name, "out of memory");
	fs->forced_read_only = read_only;
	ret = own(fs, err);
	if (ret) {
		zpl_fs_put(fs);
		return ret;
	}
	ret = set_up(fs, err);
	if (ret) {
		disown(fs);
		zpl_fs_put(fs);
		return ret;
	}
	/* Objects of older versions have other attributes; they are read, not made. */
	if (fs->version < ZPL_VERSION_SA)
		fs->forced_read_only = true;
	if (!fs->owned_read_only)
		ret = zpl_replay(fs, err);
	if (ret == 0) {
		ret = zpl_node_get(fs, fs->root, 0, &root);
		if (ret)
			pv_fail(err, ret == -ENOENT ? -EUCLEAN : ret, fs->name,
				"the root directory is damaged");
		else
			zpl_release(root);
	}
	if (ret == 0 && !zpl_fs_read_only(fs)) {
		ret = zpl_reaper_start(fs);
		if (ret)
			pv_fail(err, ret, fs->name, "cannot start a thread: %s", pv_strerror(ret));
	}
	if (ret) {
		quiesce(fs);
		disown(fs);
		zpl_fs_put(fs);
		return ret == -ENOENT ? -EUCLEAN : ret;
	}
	arc_register();
	*ret_fs = fs;
	return 0;
}

static void count_node(struct zpl_node *node, void *private)
{
	++*(size_t *)private;
}

static void detach_node(struct zpl_node *node, void *private)
{
	zpl_node_detach(node);
}

static void set_suspended(struct zpl_fs *fs, bool suspended)
{
	pthread_mutex_lock(&fs->suspend_lock);
	fs->suspended = suspended;
	pthread_cond_broadcast(&fs->resumed);
	pthread_mutex_unlock(&fs->suspend_lock);
}

int zpl_fs_unmount(struct zpl_fs *fs, bool force)
{
	size_t busy = 0;
	spa_t *spa;

	zpl_reaper_stop(fs);
	pthread_rwlock_wrlock(&fs->teardown);
	zpl_node_each(fs, count_node, &busy);
	if (busy && !force && !fs->dead) {
		pthread_rwlock_unlock(&fs->teardown);
		if (!zpl_fs_read_only(fs) && !fs->dead && !fs->suspended)
			(void)zpl_reaper_start(fs);
		return -EBUSY;
	}
	zpl_node_each(fs, detach_node, NULL);
	spa = fs->dp->dp_spa;
	quiesce(fs);
	disown(fs);
	/* Objsets go in the background, for which the export of a read-only pool would not wait. */
	if (!spa_writeable(spa))
		spa_evicting_os_wait(spa);
	fs->dead = true;
	set_suspended(fs, false);
	pthread_rwlock_unlock(&fs->teardown);
	arc_unregister();
	zpl_fs_put(fs);
	return 0;
}

/* ---- suspend and resume ---- */

int zpl_fs_suspend(struct zpl_fs *fs)
{
	zpl_reaper_stop(fs);
	pthread_rwlock_wrlock(&fs->teardown);
	if (fs->dead || fs->suspended) {
		int ret = fs->dead ? -EIO : -EBUSY;

		pthread_rwlock_unlock(&fs->teardown);
		return ret;
	}
	zpl_node_each(fs, detach_node, NULL);
	quiesce(fs);
	fs->os = NULL; /* it may be exchanged from here on */
	/* The lock is let go, since resume may come from another thread; the flag keeps operations out. */
	set_suspended(fs, true);
	pthread_rwlock_unlock(&fs->teardown);
	return 0;
}

static void reattach_node(struct zpl_node *node, void *private)
{
	int ret;

	zpl_xattr_forget(node);
	ret = zpl_node_attach(node);
	if (ret)
		zpl_node_unhash(node);
}

int zpl_fs_resume(struct zpl_fs *fs)
{
	objset_t *os;
	int ret;

	pthread_rwlock_wrlock(&fs->teardown);
	dsl_pool_config_enter(fs->dp, FTAG);
	ret = zpl_error(dmu_objset_from_ds(fs->ds, &os));
	dsl_pool_config_exit(fs->dp, FTAG);
	fs->os = ret ? NULL : os;
	if (ret == 0) {
		fs->ds->ds_dir->dd_activity_cancelled = B_FALSE;
		ret = set_up(fs, NULL);
	}
	if (ret == 0) {
		zpl_node_each(fs, reattach_node, NULL);
		if (!zpl_fs_read_only(fs))
			ret = zpl_reaper_start(fs);
	}
	fs->dead = ret != 0;
	set_suspended(fs, false);
	pthread_rwlock_unlock(&fs->teardown);
	return ret;
}

/* ---- the whole ---- */

int zpl_fs_sync(struct zpl_fs *fs)
{
	int ret = zpl_enter(fs);

	if (ret)
		return ret;
	if (!fs->owned_read_only)
		txg_wait_synced(fs->dp, 0);
	zpl_exit(fs);
	return 0;
}

int zpl_fs_statvfs(struct zpl_fs *fs, struct statvfs *ret_stat)
{
	uint64_t used, available, objects, free_objects, unit, room;
	int ret = zpl_enter(fs);

	if (ret)
		return ret;
	dmu_objset_space(fs->os, &used, &available, &objects, &free_objects);
	unit = zpl_max_blksz(fs);
	room = MIN(available, __atomic_load_n(&room_below, __ATOMIC_RELAXED));
	*ret_stat = (struct statvfs){
		.f_bsize = unit,
		.f_frsize = unit,
		.f_blocks = (used + unit - 1) / unit + available / unit,
		.f_bfree = room / unit,
		.f_bavail = room / unit,
		.f_ffree = MIN(free_objects, available >> 9),
		.f_fsid = dmu_objset_fsid_guid(fs->os),
		.f_flag = zpl_fs_read_only(fs) ? ST_RDONLY : 0,
		.f_namemax = ZPL_NAME_MAX,
	};
	ret_stat->f_favail = ret_stat->f_ffree;
	ret_stat->f_files = ret_stat->f_ffree + objects;
	zpl_exit(fs);
	return 0;
}
