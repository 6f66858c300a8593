/*
 * Records every completed write, discard and flush of the device below into a file, in completion order, so
 * that the disk's state can be rebuilt as of any cut: at, between or inside flushes.
 *
 * Trace file: 16-byte header "PVTRACE1" + le64 device size; then records of
 *   le32 op (1 write, 2 flush, 3 discard, 4 mark), le32 0, le64 offset, le64 length, le64 sequence number,
 * followed for op 1 by the data, for op 4 by `length` bytes of text. The sequence number counts records from
 * 0. A flush's offset is the sequence number of the first record that it does not cover: writes that
 * completed while it ran promised nothing. Writes of zeros are recorded as writes. A torn last record is
 * ignored.
 */
#ifndef PV_BLOCK_TRACE_H
#define PV_BLOCK_TRACE_H

#include "block/bdev.h"

/*
 * Takes ownership of `below` on success only, of trace_fd always. A trace that exists is appended to, after
 * the last whole record. When the trace cannot be written, the requests fail with -EIO.
 */
int pv_trace_open(struct pv_bdev *below, int trace_fd, struct pv_bdev **ret_bdev, struct pv_error *err);

/* Writes a mark ("fsync of file 7 returned") into the trace of the stack, ordered after all completed writes.
 */
int pv_trace_mark(struct pv_bdev *bdev, const char *text);

/* Number of records, flushes and marks in a trace file. */
struct pv_trace_summary {
	uint64_t records, writes, flushes, marks, device_size;
};
int pv_trace_summary(int trace_fd, struct pv_trace_summary *ret_summary, struct pv_error *err);

/*
 * Replays the first `cut` records onto `image_fd` as a disk with a volatile cache would have left them: what
 * was flushed before the cut is applied in full; of the unflushed rest a seeded random subset, in random
 * order, some torn at 512 bytes; discarded ranges read as before or as zeros. Calls mark() for each mark that
 * lies before the cut. seed 0 = apply everything in order.
 */
int pv_trace_replay(int trace_fd, int image_fd, uint64_t cut, uint64_t seed,
	void (*mark)(const char *text, void *private), void *private, struct pv_error *err);

#endif
