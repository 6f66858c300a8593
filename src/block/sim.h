/*
 * A simulated disk over a device below (or over memory), for tests: it has a volatile write cache, so that a
 * simulated power cut keeps, drops, tears and reorders what was not flushed, all from one seed; and it injects
 * errors. Every durability claim of the project is tested against it.
 */
#ifndef PV_BLOCK_SIM_H
#define PV_BLOCK_SIM_H

#include "block/bdev.h"

struct pv_sim_options {
	uint64_t seed;              /* same seed, same requests: same faults */
	uint32_t atomic_unit;       /* a write is torn only at multiples of this: 512 by default */
	double read_error_rate;     /* probability of EIO per request */
	double write_error_rate;
	double flush_error_rate;
	double bit_rot_rate;        /* probability that a read returns one flipped bit (stays flipped) */
	uint64_t space;             /* bytes that may be written to new 4096-byte blocks before ENOSPC; 0 = no limit */
	unsigned delay_us;          /* each request is completed after a random time up to this, out of order */
};

/* A device of `size` bytes in memory (zero-filled), sector size 512; also useful by itself. */
int pv_mem_open(uint64_t size, struct pv_bdev **ret_bdev, struct pv_error *err);

/* Takes ownership of `below` on success only. */
int pv_sim_open(struct pv_bdev *below, const struct pv_sim_options *options, struct pv_bdev **ret_bdev,
	struct pv_error *err);

/*
 * Power cut: applies to `below` a random subset of the unflushed writes, in random order, some torn; forgets the
 * rest. Everything completed before the last completed flush is kept. Requests afterwards fail with -EIO until
 * pv_sim_power_on().
 */
void pv_sim_power_cut(struct pv_bdev *bdev);
void pv_sim_power_on(struct pv_bdev *bdev);

/* Changes the fault rates or the space limit at run time. */
void pv_sim_set(struct pv_bdev *bdev, const struct pv_sim_options *options);

/* For the engine's --sim switch of tests: parses "seed=1,flush_error=0.5,space=1048576". -EINVAL names the word. */
int pv_sim_parse(const char *text, struct pv_sim_options *ret_options, struct pv_error *err);

#endif
