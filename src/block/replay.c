/*
 * Reading traces, and rebuilding the disk as a power cut would have left it.
 */
#include "block/trace.h"
#include "base/cleanup.h"
#include "block/trace_int.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define UNIT 512 /* a write is torn at multiples of it */

static int read_at(int fd, void *data, size_t length, uint64_t at)
{
	for (size_t n = 0; n < length;) {
		ssize_t got = pread(fd, (uint8_t *)data + n, length - n, (off_t)(at + n));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -ENODATA;
		n += (size_t)got;
	}
	return 0;
}

int pv_trace_reader_init(struct pv_trace_reader *reader, int fd, struct pv_error *err)
{
	static const char magic[8] = PV_TRACE_MAGIC;
	struct pv_trace_header header;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0) {
		r = -errno;
		return pv_fail(err, r, "trace", "cannot examine: %s", pv_strerror(r));
	}
	r = read_at(fd, &header, sizeof(header), 0);
	if (r < 0)
		return pv_fail(err, r, "trace", "cannot read the header: %s", pv_strerror(r));
	if (memcmp(header.magic, magic, sizeof(magic)) != 0)
		return pv_fail(err, -EUCLEAN, "trace", "not a trace file");
	*reader = (struct pv_trace_reader){.fd = fd,
		.device_size = le64toh(header.device_size),
		.size = (uint64_t)st.st_size,
		.position = sizeof(header)};
	return 0;
}

int pv_trace_next(struct pv_trace_reader *reader, struct pv_trace_entry *ret_entry)
{
	struct pv_trace_record record;
	struct pv_trace_entry entry;
	uint64_t left = reader->size - reader->position, data = 0;
	int r;

	if (left < sizeof(record))
		return 0;
	r = read_at(reader->fd, &record, sizeof(record), reader->position);
	if (r < 0)
		return r;
	entry.op = le32toh(record.op);
	entry.offset = le64toh(record.offset);
	entry.length = le64toh(record.length);
	entry.data = reader->position + sizeof(record);
	if (entry.op < PV_TRACE_WRITE || entry.op > PV_TRACE_MARK ||
		le64toh(record.sequence) != reader->sequence)
		return -EUCLEAN;
	if ((entry.op == PV_TRACE_WRITE || entry.op == PV_TRACE_DISCARD) &&
		(entry.offset > reader->device_size || entry.length > reader->device_size - entry.offset))
		return -EUCLEAN;
	if (entry.op == PV_TRACE_WRITE || entry.op == PV_TRACE_MARK)
		data = entry.length;
	if (data > left - sizeof(record))
		return 0;
	reader->position = entry.data + data;
	reader->sequence++;
	*ret_entry = entry;
	return 1;
}

int pv_trace_summary(int trace_fd, struct pv_trace_summary *ret_summary, struct pv_error *err)
{
	struct pv_trace_summary summary = {0};
	struct pv_trace_reader reader;
	struct pv_trace_entry entry;
	int r;

	r = pv_trace_reader_init(&reader, trace_fd, err);
	if (r < 0)
		return r;
	summary.device_size = reader.device_size;
	while ((r = pv_trace_next(&reader, &entry)) > 0) {
		summary.records++;
		summary.writes += entry.op == PV_TRACE_WRITE;
		summary.flushes += entry.op == PV_TRACE_FLUSH;
		summary.marks += entry.op == PV_TRACE_MARK;
	}
	if (r < 0)
		return pv_fail(
			err, r, "trace", "record %llu is invalid", (unsigned long long)summary.records);
	*ret_summary = summary;
	return 0;
}

/* What is being rebuilt. */
struct replay {
	int trace_fd, image_fd;
	uint64_t random;
	struct pv_trace_entry *entries;
	uint64_t count;
	uint64_t durable; /* entries before this were covered by a flush */
};

static uint64_t next_random(struct replay *p)
{
	uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* [from, to) of a write or discard reaches the image. */
static int apply(struct replay *p, const struct pv_trace_entry *e, uint64_t from, uint64_t to)
{
	uint8_t buffer[65536];

	for (uint64_t n; from < to; from += n) {
		n = to - from < sizeof(buffer) ? to - from : sizeof(buffer);
		if (e->op == PV_TRACE_DISCARD) {
			memset(buffer, 0, n);
		} else {
			int r = read_at(p->trace_fd, buffer, n, e->data + from);

			if (r < 0)
				return r;
		}
		for (uint64_t done = 0; done < n;) {
			ssize_t put = pwrite(
				p->image_fd, buffer + done, n - done, (off_t)(e->offset + from + done));

			if (put < 0 && errno != EINTR)
				return -errno;
			done += put > 0 ? (uint64_t)put : 0;
		}
	}
	return 0;
}

static int apply_torn(struct replay *p, const struct pv_trace_entry *e)
{
	uint64_t units = (e->length + UNIT - 1) / UNIT;
	bool prefix = next_random(p) & 1;
	uint64_t cut = units ? next_random(p) % units : 0;
	int r = 0;

	for (uint64_t i = 0; i < units && r == 0; i++) {
		uint64_t to = (i + 1) * UNIT < e->length ? (i + 1) * UNIT : e->length;

		if (prefix ? i < cut : next_random(p) & 1)
			r = apply(p, e, i * UNIT, to);
	}
	return r;
}

static bool changes_disk(const struct pv_trace_entry *e)
{
	return e->op == PV_TRACE_WRITE || e->op == PV_TRACE_DISCARD;
}

/* The unflushed rest: shuffled; a third each kept, torn, lost. */
static int apply_rest(struct replay *p)
{
	uint64_t n = p->count - p->durable;
	struct pv_trace_entry *rest = p->entries + p->durable;
	int r = 0;

	for (uint64_t i = n; i > 1; i--) {
		uint64_t other = next_random(p) % i;
		struct pv_trace_entry e = rest[i - 1];

		rest[i - 1] = rest[other];
		rest[other] = e;
	}
	for (uint64_t i = 0; i < n && r == 0; i++) {
		uint64_t fate;

		if (!changes_disk(&rest[i]))
			continue;
		fate = next_random(p) % 3;
		if (fate == 0)
			r = apply(p, &rest[i], 0, rest[i].length);
		else if (fate == 1)
			r = apply_torn(p, &rest[i]);
	}
	return r;
}

static int call_mark(const struct replay *p, const struct pv_trace_entry *e,
	void (*mark)(const char *text, void *private), void *private)
{
	pv_autofree char *text = calloc(1, e->length + 1);
	int r;

	if (!text)
		return -ENOMEM;
	r = read_at(p->trace_fd, text, e->length, e->data);
	if (r == 0)
		mark(text, private);
	return r;
}

/* Reads the first `cut` records. */
static int load(struct replay *p, struct pv_trace_reader *reader, uint64_t cut)
{
	uint64_t room = 0;
	struct pv_trace_entry entry;
	int r = 0;

	while (p->count < cut && (r = pv_trace_next(reader, &entry)) > 0) {
		if (p->count == room) {
			uint64_t more = room ? 2 * room : 1024;
			struct pv_trace_entry *bigger = realloc(p->entries, more * sizeof(*bigger));

			if (!bigger)
				return -ENOMEM;
			p->entries = bigger;
			room = more;
		}
		/* Flushes may overlap: the furthest counts. */
		if (entry.op == PV_TRACE_FLUSH && entry.offset <= p->count && entry.offset > p->durable)
			p->durable = entry.offset;
		p->entries[p->count++] = entry;
	}
	return r < 0 ? r : 0;
}

static int rebuild(struct replay *p, void (*mark)(const char *text, void *private), void *private)
{
	int r = 0;

	for (uint64_t i = 0; i < p->count && r == 0; i++)
		if (p->entries[i].op == PV_TRACE_MARK && mark)
			r = call_mark(p, &p->entries[i], mark, private);
	for (uint64_t i = 0; i < p->durable && r == 0; i++)
		if (changes_disk(&p->entries[i]))
			r = apply(p, &p->entries[i], 0, p->entries[i].length);
	return r < 0 ? r : apply_rest(p);
}

int pv_trace_replay(int trace_fd, int image_fd, uint64_t cut, uint64_t seed,
	void (*mark)(const char *text, void *private), void *private, struct pv_error *err)
{
	struct replay p = {.trace_fd = trace_fd, .image_fd = image_fd, .random = seed};
	struct pv_trace_reader reader;
	struct stat st;
	int r;

	r = pv_trace_reader_init(&reader, trace_fd, err);
	if (r < 0)
		return r;
	if (fstat(image_fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size < reader.device_size &&
		ftruncate(image_fd, (off_t)reader.device_size) < 0) {
		r = -errno;
		return pv_fail(err, r, "image", "cannot make it as large as the device: %s", pv_strerror(r));
	}
	r = load(&p, &reader, cut);
	if (seed == 0)
		p.durable = p.count;
	if (r == 0)
		r = rebuild(&p, mark, private);
	free(p.entries);
	if (r < 0)
		return pv_fail(err, r, "trace", "cannot replay: %s", pv_strerror(r));
	return 0;
}
