/*
 * How much work a new key slot demands: so much that one unlock takes the wanted time on this machine.
 *
 * Work is measured in CPU time, divided by the number of lanes that can run at once, not in wall-clock time:
 * a machine that is busy while a volume is created must not give it a cheap key slot.
 */
#include "format/luks2_int.h"

#include "base/cleanup.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#define DEFAULT_TIME_MS 2000U
#define PBKDF2_FLOOR 1000U
#define ARGON2_PASSES_FLOOR 4U
#define ARGON2_MEMORY_FLOOR 32U           /* KiB, of forced costs */
#define ARGON2_MEASURED_FLOOR (64U << 10) /* KiB, of measured costs */
#define ARGON2_MEMORY_CAP (1U << 20)      /* KiB: 1 GiB */

static unsigned online_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	return (unsigned)CPU_COUNT(&set);
}

static uint32_t default_memory(void)
{
	struct sysinfo info;
	uint64_t kib = ARGON2_MEMORY_CAP;

	if (!sysinfo(&info))
		kib = (uint64_t)info.totalram * info.mem_unit / 1024 / 4;
	if (kib > ARGON2_MEMORY_CAP)
		kib = ARGON2_MEMORY_CAP;
	return kib < ARGON2_MEASURED_FLOOR ? ARGON2_MEASURED_FLOOR : (uint32_t)kib;
}

/* What a derivation took, in milliseconds of the machine alone: of the program, which grows with the passes,
 * and of the kernel, which clears the memory once. */
struct cost {
	double user;
	double system;
};

static double milliseconds(struct timeval from, struct timeval to)
{
	return (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_usec - from.tv_usec) / 1e3;
}

static int measure(const struct luks2_kdf *kdf, struct cost *ret_cost, struct pv_error *err)
{
	pv_autosecret struct pv_secret *password = NULL, *out = NULL;
	struct rusage from, to;
	unsigned lanes = 1;
	int r;

	r = pv_secret_copy("measuring only", 14, &password, err);
	if (!r)
		r = pv_secret_new(64, &out, err);
	if (r)
		return r;
	if (kdf->type != LUKS2_PBKDF2) {
		unsigned cpus = online_cpus();

		lanes = kdf->lanes < cpus ? kdf->lanes : cpus;
	}
	getrusage(RUSAGE_SELF, &from);
	r = luks2_kdf_derive(kdf, password, out, err);
	if (r)
		return r;
	getrusage(RUSAGE_SELF, &to);
	ret_cost->user = milliseconds(from.ru_utime, to.ru_utime) / lanes;
	ret_cost->system = milliseconds(from.ru_stime, to.ru_stime) / lanes;
	if (ret_cost->user < 0.001)
		ret_cost->user = 0.001; /* below the clock's resolution */
	return 0;
}

static int choose_pbkdf2(unsigned target_ms, struct luks2_kdf *kdf, struct pv_error *err)
{
	struct cost cost = {0};
	double wanted;
	int r;

	kdf->iterations = 1U << 15;
	for (;;) {
		r = measure(kdf, &cost, err);
		if (r)
			return r;
		if (cost.user >= 100 || kdf->iterations >= luks2_limits.pbkdf2_iterations / 4)
			break;
		kdf->iterations *= 4;
	}
	wanted = kdf->iterations / cost.user * target_ms;
	if (wanted > luks2_limits.pbkdf2_iterations)
		wanted = luks2_limits.pbkdf2_iterations;
	kdf->iterations = wanted < PBKDF2_FLOOR ? PBKDF2_FLOOR : (uint32_t)wanted;
	return 0;
}

/*
 * Prefers memory to passes: as much of the permitted memory as four passes can fill in time, then more passes
 * if there is time left. Two measurements of one pass: a small one to guess the memory, one of that size to
 * correct it (large memory is slower per byte than what the caches hold).
 */
static int choose_argon2(unsigned target_ms, uint32_t cap, struct luks2_kdf *kdf, struct pv_error *err)
{
	double memory, passes = 0, limit;
	struct cost cost;
	int r;

	kdf->iterations = 1;
	kdf->memory = cap < ARGON2_MEASURED_FLOOR ? cap : ARGON2_MEASURED_FLOOR;
	for (int round = 0; round < 2; round++) {
		r = measure(kdf, &cost, err);
		if (r)
			return r;
		memory = kdf->memory * target_ms / (cost.system + ARGON2_PASSES_FLOOR * cost.user);
		if (memory < ARGON2_MEASURED_FLOOR)
			memory = ARGON2_MEASURED_FLOOR;
		if (memory > cap)
			memory = cap;
		passes = (target_ms * kdf->memory / memory - cost.system) / cost.user;
		kdf->memory = (uint32_t)memory;
	}
	limit = (double)luks2_limits.argon2_work / kdf->memory;
	if (passes > limit)
		passes = limit;
	kdf->iterations = passes < ARGON2_PASSES_FLOOR ? ARGON2_PASSES_FLOOR : (uint32_t)passes;
	return 0;
}

int luks2_cost_choose(const struct pv_pbkdf_params *params, struct luks2_kdf *ret_kdf, struct pv_error *err)
{
	const unsigned target = params->iter_time_ms ? params->iter_time_ms : DEFAULT_TIME_MS;
	struct luks2_kdf kdf = {.type = LUKS2_PBKDF2, .salt_size = 32, .hash = "sha256"};
	uint64_t cap = params->memory_kib;
	unsigned cpus = online_cpus();
	int r = 0;

	if (params->type == PV_PBKDF_PBKDF2) {
		kdf.iterations = params->forced_iterations;
		if (!kdf.iterations)
			r = choose_pbkdf2(target, &kdf, err);
		else if (kdf.iterations < PBKDF2_FLOOR || kdf.iterations > luks2_limits.pbkdf2_iterations)
			return pv_fail(err, -EINVAL, NULL, "PBKDF2 takes %u to %u rounds", PBKDF2_FLOOR,
				luks2_limits.pbkdf2_iterations);
		if (!r)
			*ret_kdf = kdf;
		return r;
	}
	kdf.type = LUKS2_ARGON2ID;
	memset(kdf.hash, 0, sizeof(kdf.hash));
	kdf.lanes = params->parallel ? params->parallel : cpus < 4 ? cpus : 4;
	if (kdf.lanes < 1 || kdf.lanes > 4)
		return pv_fail(err, -EINVAL, NULL, "Argon2 takes 1 to 4 lanes");
	if (cap && (cap < ARGON2_MEMORY_FLOOR || cap > luks2_limits.argon2_memory))
		return pv_fail(err, -EINVAL, NULL, "Argon2 takes %u to %u KiB of memory", ARGON2_MEMORY_FLOOR,
			luks2_limits.argon2_memory);
	if (params->forced_iterations) {
		kdf.iterations = params->forced_iterations;
		kdf.memory = cap ? (uint32_t)cap : ARGON2_MEASURED_FLOOR;
		if (kdf.iterations < ARGON2_PASSES_FLOOR)
			return pv_fail(
				err, -EINVAL, NULL, "Argon2 takes at least %u passes", ARGON2_PASSES_FLOOR);
		r = luks2_kdf_check(&kdf, &luks2_limits, err);
	} else {
		r = choose_argon2(target, cap ? (uint32_t)cap : default_memory(), &kdf, err);
	}
	if (!r)
		*ret_kdf = kdf;
	return r;
}
