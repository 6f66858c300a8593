/*
 * A simulated disk over a device below (or over memory), for tests: it has a volatile write cache, so that a
 * simulated power cut keeps, drops, tears and reorders what was not flushed, all from one seed; and it
 * injects errors. Every durability claim of the project is tested against it.
 */
#ifndef PV_BLOCK_SIM_H
#define PV_BLOCK_SIM_H

#include "block/bdev.h"

struct pv_sim_options {
	uint64_t seed;          /* same seed, same requests: same faults */
	uint32_t atomic_unit;   /* a write is torn only at multiples of this: 512 by default */
	double read_error_rate; /* probability of EIO per request */
	double write_error_rate;
	double flush_error_rate;
	double bit_rot_rate; /* probability that a read returns one flipped bit (stays flipped) */
	uint64_t space;    /* bytes that may be written to new 4096-byte blocks before ENOSPC; 0 = no limit */
	bool hold;         /* hold such writes (pv_bdev.full) until pv_sim_set gives space, as files do */
	unsigned delay_us; /* each request is completed after a random time up to this, out of order */
};

/* A device of `size` bytes in memory (zero-filled), sector size 512; also useful by itself. */
int pv_mem_open(uint64_t size, struct pv_bdev **ret_bdev, struct pv_error *err);

/* Takes ownership of `below` on success only. */
int pv_sim_open(struct pv_bdev *below, const struct pv_sim_options *options, struct pv_bdev **ret_bdev,
	struct pv_error *err);

/*
 * Power cut: applies to `below` a random subset of the unflushed writes, in random order, some torn; forgets
 * the rest. Everything completed before the last completed flush is kept. Requests afterwards fail with -EIO
 * until pv_sim_power_on(), which also forgets, on this device and those above, that a flush has failed. Not
 * to be called on a completion's thread. Both find the sim device in any stack.
 */
void pv_sim_power_cut(struct pv_bdev *bdev);
void pv_sim_power_on(struct pv_bdev *bdev);

/* Changes all options but the seed at run time; held writes are tried again. */
void pv_sim_set(struct pv_bdev *bdev, const struct pv_sim_options *options);

/*
 * For the engine's --sim switch of tests: "seed=1,flush_error=0.5,space=1048576". Words: seed, atomic_unit,
 * read_error, write_error, flush_error, bit_rot (rates 0 to 1), space, hold (0 or 1), delay_us. -EINVAL names
 * the wrong one.
 */
int pv_sim_parse(const char *text, struct pv_sim_options *ret_options, struct pv_error *err);

#endif
