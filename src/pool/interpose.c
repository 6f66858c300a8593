/*
 * Functions of libzpool that this executable replaces, and the proof that it did. libzpool calls its own
 * exported functions through its relocation table without -Bsymbolic, so a definition in the executable wins,
 * provided that it is in the dynamic symbol table. pool_interpose_check() therefore reads libzpool's
 * relocations themselves: nothing else shows it for functions that must not be called to try them.
 *
 * Replaced: the ARC's three views of memory (libzpool's return random numbers), the two ways in which it
 * gives up and its warnings (they would go to stderr, with names in them), the cancelling of a task (a stub,
 * with fatal consequences), and the operations of leaf vdevs (vdev_ops.c).
 */
#include "pool/pool_int.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/arc_impl.h>
#include <sys/dmu_objset.h>
#include <sys/spa_impl.h>
#include <sys/vdev_impl.h>

/* ---- memory ---- */

static _Atomic uint64_t memory_calls;

uint64_t pool_memory_calls(void)
{
	return atomic_load(&memory_calls);
}

static bool read_text(const char *path, char *text, size_t size)
{
	pv_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return true;
}

static bool read_number(const char *path, uint64_t *ret_value)
{
	char text[64];
	char *end;
	uint64_t value;

	if (!read_text(path, text, sizeof(text)))
		return false;
	value = strtoull(text, &end, 10);
	if (end == text) /* "max" */
		return false;
	*ret_value = value;
	return true;
}

/* Value in bytes of a line "Name:   N kB" (meminfo) or "name N" (memory.stat). */
static bool find_line(const char *text, const char *name, uint64_t *ret_value)
{
	size_t length = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, length) == 0) {
			*ret_value = strtoull(line + length, NULL, 10);
			return true;
		}
	}
	return false;
}

/* The memory controller's directory of this process: cgroup version 2, or version 1's memory hierarchy. */
static bool cgroup_dir(char *dir, size_t size, bool *ret_v2)
{
	char text[4096];
	char *line, *save = NULL;

	if (!read_text("/proc/self/cgroup", text, sizeof(text)))
		return false;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		controllers++;
		if (*controllers == '\0' && access("/sys/fs/cgroup/cgroup.controllers", R_OK) == 0) {
			snprintf(dir, size, "/sys/fs/cgroup%s", path);
			*ret_v2 = true;
			return true;
		}
		if (strstr(controllers, "memory")) {
			snprintf(dir, size, "/sys/fs/cgroup/memory%s", path);
			*ret_v2 = false;
			return true;
		}
	}
	return false;
}

/* Smallest limit of this cgroup and its parents, and what is left of the tightest; UINT64_MAX without any. */
static void cgroup_memory(uint64_t *ret_limit, uint64_t *ret_left)
{
	char dir[4096], path[4160], text[8192];
	bool v2;

	*ret_limit = *ret_left = UINT64_MAX;
	if (!cgroup_dir(dir, sizeof(dir), &v2))
		return;
	for (;;) {
		uint64_t limit, used, inactive = 0;
		char *slash;

		snprintf(path, sizeof(path), "%s/%s", dir, v2 ? "memory.max" : "memory.limit_in_bytes");
		if (read_number(path, &limit) && limit < 1ULL << 60) {
			*ret_limit = MIN(*ret_limit, limit);
			snprintf(path, sizeof(path), "%s/%s", dir,
				v2 ? "memory.current" : "memory.usage_in_bytes");
			if (read_number(path, &used)) {
				snprintf(path, sizeof(path), "%s/memory.stat", dir);
				if (read_text(path, text, sizeof(text)))
					(void)find_line(text, v2 ? "inactive_file " : "total_inactive_file ",
						&inactive);
				used -= MIN(used, inactive);
				*ret_left = MIN(*ret_left, limit - MIN(limit, used));
			}
		}
		if (strcmp(dir, v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory") == 0)
			return;
		slash = strrchr(dir, '/');
		if (!slash || slash == dir)
			return;
		*slash = '\0';
	}
}

static void measure(uint64_t *ret_total, uint64_t *ret_free)
{
	uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t available = total / 2, limit, left;
	char text[8192];

	if (read_text("/proc/meminfo", text, sizeof(text)) && find_line(text, "MemAvailable:", &available))
		available <<= 10;
	cgroup_memory(&limit, &left);
	*ret_total = MIN(total, limit);
	*ret_free = MIN(available, left);
}

/* The ARC asks on hot paths; a figure of the last quarter of a second is good enough. */
static uint64_t memory_now(bool free)
{
	static _Atomic uint64_t total, left, when;
	struct timespec now;
	uint64_t ticks, last = atomic_load(&when);

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	ticks = (uint64_t)now.tv_sec * 4 + (uint64_t)now.tv_nsec / 250000000 + 1;
	if (ticks != last && atomic_compare_exchange_strong(&when, &last, ticks)) {
		uint64_t t, f;

		measure(&t, &f);
		atomic_store(&left, f);
		atomic_store(&total, t);
	}
	while (atomic_load(&total) == 0) /* another thread is measuring for the first time */
		sched_yield();
	return atomic_load(free ? &left : &total);
}

uint64_t pool_memory_total(void)
{
	return memory_now(false);
}

uint64_t arc_all_memory(void)
{
	atomic_fetch_add(&memory_calls, 1);
	return memory_now(false);
}

uint64_t arc_free_memory(void)
{
	atomic_fetch_add(&memory_calls, 1);
	return memory_now(true);
}

/* Below zero the ARC shrinks. Left to others: a 32nd of memory, at least 64 MiB, at most 1 GiB. */
int64_t arc_available_memory(void)
{
	uint64_t reserve = MIN(MAX(memory_now(false) / 32, 64ULL << 20), 1ULL << 30);

	atomic_fetch_add(&memory_calls, 1);
	return (int64_t)memory_now(true) - (int64_t)reserve;
}

/* ---- the end ---- */

/*
 * A failed assertion or a panic: the state in memory cannot be trusted, what is on disk can. The text goes to
 * the log, with object numbers at most; the process dies and its keeper opens the pool again.
 */
void libspl_assertf(const char *file, const char *func, int line, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	pv_log(PV_LOG_ERROR, "libzpool: assertion failed: %s (%s:%d, %s)", text, file, line, func);
	abort();
}

/* Strings in libzpool's messages are names of pools and datasets, which no log may have; numbers are fine. */
static void name_free_text(char *text, size_t size, const char *format, va_list args)
{
	if (strstr(format, "%s"))
		strlcpy(text, format, size);
	else
		vsnprintf(text, size, format, args);
	text[strcspn(text, "\n")] = '\0';
}

void vpanic(const char *format, va_list args)
{
	char text[512];

	name_free_text(text, sizeof(text), format, args);
	pv_log(PV_LOG_ERROR, "libzpool: panic: %s", text);
	abort();
}

/* Warnings: a suspended pool, a device that cannot be opened. */
void vcmn_err(int level, const char *format, va_list args)
{
	char text[512];

	if (level == CE_PANIC)
		vpanic(format, args);
	name_free_text(text, sizeof(text), format, args);
	pv_log(level == CE_WARN ? PV_LOG_WARNING : PV_LOG_INFO, "libzpool: %s", text);
}

/* ---- background upgrades of a file system's accounting ---- */

/*
 * Owning a file system may start such an upgrade; disowning it cancels the upgrade and, if that runs already,
 * must wait for it, because it holds the dataset. libzpool's own function does nothing: the dataset would be
 * evicted under the running task, which aborts. (Waiting for the whole queue is more than asked for and does
 * no harm: its tasks end by themselves or were told to.)
 */
int taskq_cancel_id(taskq_t *tq, taskqid_t id)
{
	taskq_wait(tq);
	return ENOENT; /* nothing was taken back: the task has run */
}

/*
 * The same for a task that has already struck itself off and still has to let go of the dataset: it is told
 * to stop and waited for before anything is evicted.
 */
void dmu_objset_disown(objset_t *os, boolean_t decrypt, const void *tag)
{
	static void (*_Atomic original)(objset_t *, boolean_t, const void *);
	void (*call)(objset_t *, boolean_t, const void *) = atomic_load(&original);

	if (!call) {
		call = (void (*)(objset_t *, boolean_t, const void *))dlsym(RTLD_NEXT, "dmu_objset_disown");
		VERIFY(call != NULL);
		atomic_store(&original, call);
	}
	mutex_enter(&os->os_upgrade_lock);
	os->os_upgrade_exit = B_TRUE;
	mutex_exit(&os->os_upgrade_lock);
	taskq_wait(os->os_spa->spa_upgrade_taskq);
	call(os, decrypt, tag);
}

/* ---- the proof ---- */

static const struct {
	const char *name;
	const void *ours;
	size_t size; /* of a data symbol, else 0 */
} replaced[] = {
	{"arc_all_memory", (const void *)arc_all_memory, 0},
	{"arc_free_memory", (const void *)arc_free_memory, 0},
	{"arc_available_memory", (const void *)arc_available_memory, 0},
	{"libspl_assertf", (const void *)libspl_assertf, 0},
	{"vpanic", (const void *)vpanic, 0},
	{"vcmn_err", (const void *)vcmn_err, 0},
	{"taskq_cancel_id", (const void *)taskq_cancel_id, 0},
	{"dmu_objset_disown", (const void *)dmu_objset_disown, 0},
	{"vdev_file_ops", &vdev_file_ops, sizeof(vdev_ops_t)},
	{"vdev_disk_ops", &vdev_disk_ops, sizeof(vdev_ops_t)},
};

struct relocations {
	const struct link_map *map;
	const ElfW(Sym) * symbols;
	const char *strings;
	const ElfW(Rela) * table[2]; /* data, functions */
	size_t count[2];
};

static int find_libzpool(struct relocations *ret, struct pv_error *err)
{
	void *handle = dlopen("libzpool.so.6", RTLD_NOLOAD | RTLD_LAZY);
	const struct link_map *map = handle;

	if (!handle)
		return pv_fail(err, -ENOTSUP, "libzpool", "libzpool.so.6 is not loaded in this process");
	dlclose(handle); /* it stays: the executable is linked with it */
	*ret = (struct relocations){.map = map};
	for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
		const void *at = (const void *)(uintptr_t)d->d_un.d_ptr; /* relocated by the loader */

		switch (d->d_tag) {
		case DT_SYMTAB: ret->symbols = at; break;
		case DT_STRTAB: ret->strings = at; break;
		case DT_RELA: ret->table[0] = at; break;
		case DT_RELASZ: ret->count[0] = d->d_un.d_val / sizeof(ElfW(Rela)); break;
		case DT_JMPREL: ret->table[1] = at; break;
		case DT_PLTRELSZ: ret->count[1] = d->d_un.d_val / sizeof(ElfW(Rela)); break;
		}
	}
	if (!ret->symbols || !ret->strings)
		return pv_fail(err, -ENOTSUP, "libzpool", "its dynamic symbol table cannot be read");
	return 0;
}

/* All references of libzpool to `name` lead to `ours`, and there is one at least. */
static int check_one(
	const struct relocations *r, const char *name, const void *ours, size_t size, struct pv_error *err)
{
	unsigned references = 0;

	for (int t = 0; t < 2; t++) {
		for (size_t i = 0; i < r->count[t]; i++) {
			const ElfW(Rela) *rela = &r->table[t][i];
			const ElfW(Sym) *symbol = &r->symbols[ELF64_R_SYM(rela->r_info)];
			void *target;

			if (ELF64_R_SYM(rela->r_info) == 0 || strcmp(r->strings + symbol->st_name, name) != 0)
				continue;
			memcpy(&target, (const void *)(r->map->l_addr + rela->r_offset), sizeof(target));
			if (target != ours)
				return pv_fail(err, -ENOTSUP, "libzpool",
					"it does not use this program's \"%s\"", name);
			if (size && symbol->st_size != size)
				return pv_fail(err, -ENOTSUP, "libzpool",
					"its \"%s\" has %zu bytes, this program's %zu", name,
					(size_t)symbol->st_size, size);
			references++;
		}
	}
	if (references == 0)
		return pv_fail(err, -ENOTSUP, "libzpool", "it has no reference to \"%s\"", name);
	return 0;
}

int pool_interpose_check(struct pv_error *err)
{
	struct relocations r = {0};
	int error = find_libzpool(&r, err);

	for (size_t i = 0; error == 0 && i < sizeof(replaced) / sizeof(replaced[0]); i++)
		error = check_one(&r, replaced[i].name, replaced[i].ours, replaced[i].size, err);
	if (error < 0)
		(void)pv_remedy(err, "install the OpenZFS packages that this program was built for (2.3.2)");
	return error;
}
