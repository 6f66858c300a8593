/*
 * Start and end of libzpool in this process. Everything here must be decided before kernel_init(): the
 * library reads its tunables once, loads its pool cache file and starts some ninety threads.
 */
#include "pool/pool_int.h"

#include "pool/zpl_format.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <stdatomic.h>
#include <sys/arc.h>
#include <sys/arc_impl.h>
#include <sys/dsl_pool.h>
#include <sys/spa_impl.h>
#include <sys/stat.h>
#include <sys/zfs_debug.h>
#include <sys/zfs_impl.h>
#include <zfeature_common.h>
#include <zfs_prop.h>

#define MIB (1ULL << 20)

static _Atomic bool started;
static bool reads_only;
static char cache_file[MAXPATHLEN];

bool pool_started(void)
{
	return atomic_load(&started);
}

bool pool_only_reads(void)
{
	return reads_only;
}

/*
 * The cache file would name the pools of the last run, to be opened at start. Ours is private and empty;
 * pools are made and imported with cachefile=none, so that none is ever written either.
 */
static int set_cache_file(const char *state_dir, struct pv_error *err)
{
	if (snprintf(cache_file, sizeof(cache_file), "%s/zpool.cache", state_dir) >= (int)sizeof(cache_file))
		return pv_fail(err, -ENAMETOOLONG, state_dir, "the path of the state directory is too long");
	if (unlink(cache_file) != 0 && errno != ENOENT)
		return pv_fail(err, -errno, cache_file, "cannot remove a left-over pool cache: %s",
			pv_strerror(errno));
	spa_config_path = cache_file;
	return 0;
}

static void set_tunables(const struct pv_pool_options *options)
{
	uint64_t arc_max = options->arc_max, dirty_max = options->dirty_max;

	if (arc_max == 0)
		arc_max = MIN(1024 * MIB, pool_memory_total() / 8);
	arc_max = MAX(arc_max, 64 * MIB); /* libzpool ignores a smaller one */
	if (dirty_max == 0)
		dirty_max = MIN(256 * MIB, arc_max / 4);
	dirty_max = MAX(dirty_max, 16 * MIB); /* one largest block and its metadata */

	zfs_flags = 0; /* the debug build's own checks of every buffer; its assertions stay */
	/* One malloc a buffer: it can be shared between cache and I/O, which pages gathered from everywhere
	 * cannot. */
	zfs_abd_scatter_enabled = 0;
	zfs_dbgmsg_enable = 0; /* dataset names would pile up in memory */
	zfs_arc_max = arc_max;
	zfs_arc_min = 32 * MIB; /* the least it takes: an idle pool gives memory back */
	zfs_dirty_data_max = dirty_max;
	zfs_dirty_data_max_max = dirty_max;
	zfs_wrlog_data_max = 2 * dirty_max;
}

/* The defaults are plain C: nothing is measured in user space. A setting that the processor lacks is refused.
 */
static void choose_checksums(void)
{
	static const struct {
		const char *algorithm, *implementations[4];
	} choices[] = {
		{"sha256", {"shani", "avx2", "ssse3"}},
		{"sha512", {"avx2", "avx"}},
		{"blake3", {"avx2", "sse41", "sse2"}},
	};

	for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
		const zfs_impl_t *ops = zfs_impl_get_ops(choices[i].algorithm);

		for (int c = 0; ops && choices[i].implementations[c]; c++) {
			if (ops->setname(choices[i].implementations[c]) == 0)
				break;
		}
	}
}

static void init_property_tables(void)
{
	zfs_prop_init();
	zpool_prop_init();
	zpool_feature_init();
	vdev_prop_init();
}

int pv_pool_start(const struct pv_pool_options *options, struct pv_error *err)
{
	struct pv_error failure = {0};
	int error;

	if (atomic_load(&started))
		return pv_fail(err, -EALREADY, "libzpool", "it has been started in this process already");
	error = pool_library_check(err);
	if (error == 0)
		error = pool_interpose_check(err);
	if (error == 0)
		error = set_cache_file(options->state_dir, err);
	if (error < 0)
		return error;
	set_tunables(options);
	kernel_init(SPA_MODE_READ | SPA_MODE_WRITE);
	init_property_tables();
	choose_checksums();
	zpl_register_accounting();
	atomic_store(&started, true);
	error = pool_selftest(&failure);
	if (error < 0) {
		/* Reading does not change what is on disk, so a way to the data stays open. */
		pv_log(PV_LOG_ERROR, "pool: pools are opened read-only: %s", failure.message);
	}
	reads_only = options->read_only || error < 0;
	return 0;
}

void pv_pool_stop(void)
{
	struct pv_error err = {0};
	bool all = true;
	spa_t *spa;

	if (!atomic_load(&started))
		return;
	for (;;) {
		char name[ZFS_MAX_DATASET_NAME_LEN];

		mutex_enter(&spa_namespace_lock);
		spa = spa_next(NULL);
		if (spa)
			strlcpy(name, spa_name(spa), sizeof(name));
		mutex_exit(&spa_namespace_lock);
		if (!spa)
			break;
		if (pv_pool_export(name, true, &err) < 0) {
			pv_log(PV_LOG_ERROR, "pool: not exported at the end: %s", err.message);
			all = false;
			break;
		}
	}
	atomic_store(&started, false);
	/* With a pool that cannot be exported (suspended) the library's own end would hang: the process just
	 * ends. */
	if (all)
		kernel_fini();
}
