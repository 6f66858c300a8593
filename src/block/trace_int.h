/*
 * Private to block: the trace file as structures, and its reader.
 */
#ifndef PV_BLOCK_TRACE_INT_H
#define PV_BLOCK_TRACE_INT_H

#include "base/error.h"

#include <endian.h>
#include <stdint.h>

#define PV_TRACE_MAGIC                                                                                       \
	{                                                                                                    \
		'P', 'V', 'T', 'R', 'A', 'C', 'E', '1'                                                       \
	}

enum pv_trace_op { PV_TRACE_WRITE = 1, PV_TRACE_FLUSH, PV_TRACE_DISCARD, PV_TRACE_MARK };

struct pv_trace_header {
	char magic[8];
	uint64_t device_size;
};

struct pv_trace_record {
	uint32_t op;
	uint32_t zero;
	uint64_t offset;
	uint64_t length;
	uint64_t sequence;
};

/* A record in host order; its data is at `data` in the file. */
struct pv_trace_entry {
	enum pv_trace_op op;
	uint64_t offset, length, data;
};

struct pv_trace_reader {
	int fd;
	uint64_t device_size;
	uint64_t size;     /* of the trace file */
	uint64_t position; /* after the last whole record read */
	uint64_t sequence; /* of the next record */
};

int pv_trace_reader_init(struct pv_trace_reader *reader, int fd, struct pv_error *err);
/* 1 a record, 0 the end or a torn record, -EUCLEAN no trace any more. */
int pv_trace_next(struct pv_trace_reader *reader, struct pv_trace_entry *ret_entry);

#endif
