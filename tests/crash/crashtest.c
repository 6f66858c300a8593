/*
 * Crash cuts. A mixed workload runs on a pool whose disk is recorded by the trace device; the recorder writes
 * every operation and every fsync that returned into the trace as marks. Then, for a cut and a seed, the disk
 * is rebuilt as a power cut there would have left it, imported by a fresh process, and compared with what was
 * promised.
 *
 *   crashtest record TRACE SEED OPERATIONS
 *   crashtest verify TRACE IMAGE SEED            the cut is chosen by the seed
 *   crashtest verify TRACE IMAGE SEED --cut=N    at record N; --end is after the last fsync, everything
 * written crashtest omit TRACE OUT all|data            copies the trace without writes that the last fsync
 * had flushed: all of them, or only the one that holds the file's data Exit codes: 0 all is there, 1 it is
 * not, 2 usage or trouble of the test itself.
 */
#include "base/error.h"
#include "block/file.h"
#include "block/sim.h"
#include "block/trace.h"
#include "model.h"
#include "pool/pool.h"
#include "zpl/zpl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POOL "crash"
#define DEVICE "/dev/mapper/pvol-crash"
#define XATTR "user.crash"
enum { DISK = 192 << 20 };

static struct pv_error err;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("crashtest: ", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (err.code)
		fprintf(stderr, ": %s: %s (%s)", err.object, err.message, pv_strerror(err.code));
	fputc('\n', stderr);
	_exit(2);
}

static uint64_t random_state;

static uint64_t random_below(uint64_t limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545f4914f6cdd1dULL % limit;
}

static void random_seed(uint64_t seed)
{
	random_state = seed * 0x9e3779b97f4a7c15ULL + 0x5851f42d4c957f2dULL;
	for (int i = 0; i < 8; i++)
		random_below(2);
}

/* Its private files go to the directory of the trace or image, which the caller removes. */
static void start_pool(const char *beside)
{
	static char state[4096];
	struct pv_pool_options options = {.state_dir = state, .arc_max = 64 << 20};

	snprintf(state, sizeof(state), "%s.state", beside);
	if ((mkdir(state, 0700) < 0 && errno != EEXIST) || pv_pool_start(&options, &err) < 0)
		die("libzpool does not start");
}

/* ---- record ---- */

struct recorder {
	struct model *model;
	struct pv_bdev *disk;
	struct zpl_fs *fs;
	struct zpl_node *nodes[MODEL_OBJECTS];
	int op;
	int held; /* an unlinked object whose node stays referenced */
};

static void mark(struct recorder *r, const char *text)
{
	if (pv_trace_mark(r->disk, text) < 0)
		die("cannot mark the trace");
	if (!model_apply(r->model, text))
		die("the model does not take: %s", text);
}

__attribute__((format(printf, 2, 3))) static void announce(struct recorder *r, const char *fmt, ...)
{
	char what[160], line[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "op %d %s", r->op, what);
	mark(r, line);
}

static void check(int rc, struct recorder *r, const char *what)
{
	if (rc < 0)
		die("operation %d, %s: %s", r->op, what, pv_strerror(rc));
}

/* A live object of a type ('*' any), or -1. */
static int pick(struct recorder *r, char type)
{
	int n = r->model->next_id;

	for (int tries = 0; tries < 60 && n > 1; tries++) {
		int id = 1 + (int)random_below((uint64_t)n - 1);
		const struct model_object *o = &r->model->objects[id];

		if (o->nplaces && (type == '*' || o->type == type))
			return id;
	}
	return -1;
}

static int pick_dir(struct recorder *r)
{
	int id = random_below(4) ? pick(r, 'd') : 0;

	return id < 0 ? 0 : id;
}

static const struct model_place *pick_place(struct recorder *r, int id)
{
	const struct model_object *o = &r->model->objects[id];

	return &o->places[random_below(o->nplaces)];
}

static void new_name(struct recorder *r, int dir, char *ret_name)
{
	do
		snprintf(ret_name, MODEL_NAME, "%.*sn%d", (int)random_below(9), "longish-",
			(int)random_below(40));
	while (model_find(r->model, dir, ret_name) >= 0);
}

static void do_create(struct recorder *r, char type)
{
	int dir = pick_dir(r), id = r->model->next_id;
	struct zpl_cred cred = {.uid = (uid_t)id};
	char name[MODEL_NAME], target[64];

	if (id >= MODEL_OBJECTS)
		return;
	new_name(r, dir, name);
	announce(r, "%s %d %d %s", type == 'f' ? "create" : type == 'd' ? "mkdir" : "symlink", id, dir, name);
	if (type == 'f')
		check(zpl_create(r->nodes[dir], name, S_IFREG | 0640, 0, &cred, &r->nodes[id], NULL), r,
			"create");
	else if (type == 'd')
		check(zpl_mkdir(r->nodes[dir], name, S_IFDIR | 0750, &cred, &r->nodes[id], NULL), r, "mkdir");
	else {
		snprintf(target, sizeof(target), "target of %d", id);
		check(zpl_symlink(r->nodes[dir], name, target, &cred, &r->nodes[id], NULL), r, "symlink");
	}
}

static void write_file(struct recorder *r, int id, size_t offset, size_t length)
{
	static uint8_t data[MODEL_RECORD];
	struct iovec iov = {.iov_base = data, .iov_len = length};
	size_t written = 0;

	announce(r, "write %d %zu %zu", id, offset, length);
	model_bytes(r->op, data, length);
	check(zpl_write(r->nodes[id], offset, &iov, 1, false, &written), r, "write");
}

static void do_write(struct recorder *r)
{
	int id = pick(r, 'f');
	size_t offset, room, length;

	if (id < 0)
		return;
	/* mostly near or at the end, within one record */
	offset = random_below(3) ? r->model->objects[id].size : random_below(MODEL_FILE - 1);
	if (offset >= MODEL_FILE)
		offset = random_below(MODEL_FILE - 1);
	if (!random_below(3))
		offset &= ~(size_t)4095;
	room = MODEL_RECORD - offset % MODEL_RECORD;
	length = 1 + random_below(random_below(4) ? 9000 : MODEL_RECORD);
	write_file(r, id, offset, length < room ? length : room);
}

static void do_setattr(struct recorder *r, bool truncate)
{
	int id = pick(r, 'f');
	struct zpl_attr attr = {0};

	if (id < 0)
		return;
	if (truncate) {
		size_t size = r->model->objects[id].size;

		attr.size = random_below(3) ? random_below(size + 1) : random_below(MODEL_FILE);
		announce(r, "truncate %d %llu", id, (unsigned long long)attr.size);
		check(zpl_setattr(r->nodes[id], &attr, ZPL_SET_SIZE, NULL), r, "truncate");
		return;
	}
	attr.mode = (uint32_t)random_below(01000);
	announce(r, "mode %d %o", id, attr.mode);
	check(zpl_setattr(r->nodes[id], &attr, ZPL_SET_MODE, NULL), r, "chmod");
}

static void do_xattr(struct recorder *r)
{
	int id = pick(r, 'f');
	char value[1024];
	size_t length;

	if (id < 0)
		return;
	if (r->model->objects[id].xattr >= 0 && !random_below(3)) {
		announce(r, "noxattr %d", id);
		check(zpl_removexattr(r->nodes[id], XATTR), r, "removexattr");
		return;
	}
	announce(r, "xattr %d", id);
	length = model_xattr(r->op, value, sizeof(value));
	check(zpl_setxattr(r->nodes[id], XATTR, value, length, 0), r, "setxattr");
}

static void gone(struct recorder *r, int id)
{
	if (r->model->objects[id].nplaces)
		return;
	/* every second one stays open: its storage is freed by the next mount */
	if (random_below(2))
		r->held++;
	else
		zpl_release(r->nodes[id]);
	r->nodes[id] = NULL;
}

static void do_unlink(struct recorder *r)
{
	int id = pick(r, '*');
	struct model_place at;

	if (id < 0)
		return;
	at = *pick_place(r, id);
	if (r->model->objects[id].type == 'd') {
		if (model_children(r->model, id))
			return;
		announce(r, "rmdir %d %d %s", id, at.dir, at.name);
		check(zpl_rmdir(r->nodes[at.dir], at.name), r, "rmdir");
	} else {
		announce(r, "unlink %d %d %s", id, at.dir, at.name);
		check(zpl_unlink(r->nodes[at.dir], at.name), r, "unlink");
	}
	gone(r, id);
}

static void do_link(struct recorder *r)
{
	int id = pick(r, 'f'), dir = pick_dir(r);
	char name[MODEL_NAME];

	if (id < 0 || r->model->objects[id].nplaces == MODEL_PLACES)
		return;
	new_name(r, dir, name);
	announce(r, "link %d %d %s", id, dir, name);
	check(zpl_link(r->nodes[id], r->nodes[dir], name), r, "link");
}

static void do_rename(struct recorder *r)
{
	int id = pick(r, '*'), other = random_below(2) ? pick(r, '*') : -1, dir = pick_dir(r);
	struct model_place at, to;

	if (id < 0)
		return;
	at = *pick_place(r, id);
	if (other >= 0 && other != id) {
		bool exchange = random_below(2);

		to = *pick_place(r, other);
		if (model_below(r->model, to.dir, id) || model_below(r->model, at.dir, other))
			return;
		if (exchange) {
			announce(
				r, "exchange %d %d %s %d %d %s", id, at.dir, at.name, other, to.dir, to.name);
			check(zpl_rename(
				      r->nodes[at.dir], at.name, r->nodes[to.dir], to.name, RENAME_EXCHANGE),
				r, "exchange");
			return;
		}
		/* only like over like, directories only when empty */
		if ((r->model->objects[id].type == 'd') != (r->model->objects[other].type == 'd') ||
			model_children(r->model, other))
			return;
	} else {
		to.dir = dir;
		new_name(r, dir, to.name);
		other = -1;
		if (model_below(r->model, dir, id))
			return;
	}
	announce(r, "rename %d %d %s %d %s", id, at.dir, at.name, to.dir, to.name);
	check(zpl_rename(r->nodes[at.dir], at.name, r->nodes[to.dir], to.name, 0), r, "rename");
	if (other >= 0)
		gone(r, other);
}

static void do_sync(struct recorder *r)
{
	int id = pick(r, '*');
	char line[32];

	if (id < 0)
		return;
	if (!random_below(8)) {
		check(zpl_fs_sync(r->fs), r, "sync");
		mark(r, "syncall");
		return;
	}
	check(zpl_fsync(r->nodes[id], random_below(2)), r, "fsync");
	snprintf(line, sizeof(line), "sync %d", id);
	mark(r, line);
}

static void step(struct recorder *r)
{
	unsigned what = (unsigned)random_below(100);

	if (what < 18)
		do_create(r, 'f');
	else if (what < 23)
		do_create(r, 'd');
	else if (what < 26)
		do_create(r, 'l');
	else if (what < 56)
		do_write(r);
	else if (what < 62)
		do_setattr(r, true);
	else if (what < 66)
		do_setattr(r, false);
	else if (what < 71)
		do_xattr(r);
	else if (what < 75)
		do_link(r);
	else if (what < 85)
		do_rename(r);
	else if (what < 92)
		do_unlink(r);
	else
		do_sync(r);
}

/* A file of one full record that does not compress, fsynced: the last promise, for `omit`. */
static void canary(struct recorder *r)
{
	int id;

	check(zpl_fs_sync(r->fs), r, "sync");
	mark(r, "syncall");
	r->op++;
	id = r->model->next_id;
	do_create(r, 'f');
	r->op += 3 - r->op % 3 + 1;
	write_file(r, id, 0, MODEL_RECORD);
	check(zpl_fsync(r->nodes[id], false), r, "fsync");

	char line[32];

	snprintf(line, sizeof(line), "sync %d", id);
	mark(r, line);
}

static int record(const char *path, uint64_t seed, int operations)
{
	struct recorder r = {.model = model_new()};
	struct pv_bdev *memory = NULL;
	const char *device = DEVICE;
	struct pv_pool_create create = {.name = POOL, .devices = &device, .ndevices = 1};
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	random_seed(seed);
	start_pool(path);
	if (pv_mem_open(DISK, &memory, &err) < 0 || pv_trace_open(memory, fd, &r.disk, &err) < 0 ||
		pv_pool_register_device(DEVICE, r.disk, &err) < 0 || pv_pool_create(&create, &err) < 0 ||
		zpl_fs_mount(POOL, false, &r.fs, &err) < 0)
		die("cannot make the pool");
	check(zpl_root(r.fs, &r.nodes[0]), &r, "root");
	check(zpl_fs_sync(r.fs), &r, "sync");
	if (pv_pool_sync(POOL, &err) < 0)
		die("cannot sync");
	mark(&r, "syncall");
	for (r.op = 0; r.op < operations; r.op++)
		step(&r);
	canary(&r);
	printf("%d operations, %d objects, %d of them unlinked and held\n", r.op, r.model->next_id, r.held);
	fflush(stdout);
	return 0;
}

/* ---- the trace file: its layout is in block/trace.h ---- */

struct record {
	uint32_t op, reserved;
	uint64_t offset, length, sequence;
} __attribute__((packed));
enum { OP_WRITE = 1, OP_FLUSH = 2, OP_DISCARD = 3, OP_MARK = 4 };

static FILE *open_trace(const char *path)
{
	char head[16];
	FILE *f = fopen(path, "re");

	if (!f || fread(head, sizeof(head), 1, f) != 1 || memcmp(head, "PVTRACE1", 8))
		die("%s is no trace", path);
	return f;
}

static bool next_record(FILE *f, struct record *ret_record, uint8_t **payload)
{
	size_t n;

	if (fread(ret_record, sizeof(*ret_record), 1, f) != 1)
		return false;
	n = ret_record->op == OP_WRITE || ret_record->op == OP_MARK ? ret_record->length : 0;
	*payload = realloc(*payload, n + 1);
	if (!*payload)
		abort();
	(*payload)[n] = 0;
	return n == 0 || fread(*payload, n, 1, f) == 1;
}

/* Index of the first record after the first promise (the pool is made), and after the last one; their number.
 */
static uint64_t scan(const char *path, uint64_t *ret_first, uint64_t *ret_last)
{
	FILE *f = open_trace(path);
	struct record rec;
	uint8_t *payload = NULL;
	uint64_t n = 0;

	*ret_first = *ret_last = 0;
	for (; next_record(f, &rec, &payload); n++) {
		if (rec.op == OP_MARK && !strncmp((char *)payload, "sync", 4)) {
			if (!*ret_first)
				*ret_first = n + 1;
			*ret_last = n + 1;
		}
	}
	free(payload);
	fclose(f);
	if (!*ret_first)
		die("%s: no promise in the trace", path);
	return n;
}

static int omit(const char *path, const char *out_path, bool all)
{
	uint64_t first, last, n = 0, from = 0, largest = 0;
	FILE *f, *out;
	struct record rec;
	uint8_t *payload = NULL;
	char head[16];
	size_t omitted = 0, largest_length = 0;

	scan(path, &first, &last);
	/* from the promise before the last one: the operations that the last fsync made durable */
	f = open_trace(path);
	for (n = 0; next_record(f, &rec, &payload) && n + 1 < last; n++) {
		if (rec.op == OP_MARK && !strncmp((char *)payload, "sync", 4)) {
			from = n;
			largest_length = 0;
		} else if (rec.op == OP_WRITE && rec.length >= largest_length) {
			largest = n;
			largest_length = rec.length;
		}
	}
	rewind(f);
	out = fopen(out_path, "we");
	if (!out || fread(head, sizeof(head), 1, f) != 1 || fwrite(head, sizeof(head), 1, out) != 1)
		die("%s: %s", out_path, strerror(errno));
	for (n = 0; next_record(f, &rec, &payload); n++) {
		bool payload_follows = rec.op == OP_WRITE || rec.op == OP_MARK;

		if (rec.op == OP_WRITE && n < last && (all ? n > from : n == largest)) {
			omitted++;
			rec.op = OP_FLUSH; /* the numbering of the records stays */
			rec.offset = rec.length = 0;
			payload_follows = false;
		}
		if (fwrite(&rec, sizeof(rec), 1, out) != 1 ||
			(payload_follows && rec.length && fwrite(payload, rec.length, 1, out) != 1))
			die("%s: %s", out_path, strerror(errno));
	}
	if (fclose(out))
		die("%s: %s", out_path, strerror(errno));
	fclose(f);
	free(payload);
	printf("omitted %zu writes\n", omitted);
	return omitted ? 0 : 2;
}

/* ---- verify ---- */

struct found {
	char type;
	unsigned mode;
	uint8_t *data;
	size_t size;
	int xattr;
	unsigned nplaces;
	struct model_place places[MODEL_PLACES];
	uint64_t object, nlink;
};

struct verifier {
	struct zpl_fs *fs;
	struct found *found; /* by id */
	int errors;
};

__attribute__((format(printf, 2, 3))) static void wrong(struct verifier *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	v->errors++;
}

static void take_mark(const char *text, void *private)
{
	if (!model_apply(private, text))
		die("the model does not take the mark: %s", text);
}

static void read_xattr(struct verifier *v, struct zpl_node *node, struct found *f, int id)
{
	char value[2048], expected[1024];
	size_t length = 0;
	int rc = zpl_getxattr(node, XATTR, value, sizeof(value) - 1, &length);

	f->xattr = -1;
	if (rc == -ENODATA)
		return;
	if (rc < 0)
		return wrong(v, "object %d: getxattr: %s", id, pv_strerror(rc));
	value[length] = 0;
	if (sscanf(value, "set by %d", &f->xattr) != 1 ||
		model_xattr(f->xattr, expected, sizeof(expected)) != length ||
		memcmp(value, expected, length))
		wrong(v, "object %d: its attribute is torn", id);
}

static void read_data(
	struct verifier *v, struct zpl_node *node, const struct zpl_attr *attr, struct found *f, int id)
{
	size_t done = 0;
	int rc = 0;

	if (attr->size > MODEL_FILE)
		return wrong(v, "object %d: size %llu", id, (unsigned long long)attr->size);
	f->size = attr->size;
	f->data = calloc(1, f->size + 64);
	if (!f->data)
		abort();
	if (f->type == 'l') {
		rc = zpl_readlink(node, (char *)f->data, f->size + 64);
		if (!rc && strlen((char *)f->data) != f->size)
			wrong(v, "object %d: link of %zu bytes, size %zu", id, strlen((char *)f->data),
				f->size);
	}
	while (f->type == 'f' && rc == 0 && done < f->size) {
		size_t n = 0;

		rc = zpl_read(node, done, f->size - done, f->data + done, &n);
		if (!rc && !n)
			return wrong(v, "object %d: ends at %zu of %zu", id, done, f->size);
		done += n;
	}
	if (rc < 0)
		wrong(v, "object %d: read at %zu: %s", id, done, pv_strerror(rc));
}

struct entry {
	char name[256];
	uint64_t object;
	unsigned type;
};
struct entries {
	struct entry *list;
	size_t count;
};

static int collect(void *private, const char *name, uint64_t object, unsigned type, uint64_t next_cookie)
{
	struct entries *e = private;

	e->list = realloc(e->list, (e->count + 1) * sizeof(*e->list));
	if (!e->list)
		abort();
	snprintf(e->list[e->count].name, sizeof(e->list->name), "%s", name);
	e->list[e->count].object = object;
	e->list[e->count++].type = type;
	return 0;
}

static void walk(struct verifier *v, struct zpl_node *dir, int dir_id);

static void visit(struct verifier *v, struct zpl_node *dir, int dir_id, const struct entry *entry)
{
	struct zpl_node *node = NULL;
	struct zpl_attr attr;
	struct found *f;
	int rc = zpl_lookup(dir, entry->name, &node);

	if (rc < 0)
		return wrong(v, "%d/%s: lookup: %s", dir_id, entry->name, pv_strerror(rc));
	rc = zpl_getattr(node, &attr);
	if (rc < 0 || attr.object != entry->object || attr.uid >= MODEL_OBJECTS) {
		wrong(v, "%d/%s: attributes: %s", dir_id, entry->name,
			rc < 0 ? pv_strerror(rc) : "of another object");
		zpl_release(node);
		return;
	}
	f = &v->found[attr.uid];
	if (IFTODT(attr.mode) != entry->type)
		wrong(v, "%d/%s: type %u in the directory, mode %o", dir_id, entry->name, entry->type,
			attr.mode);
	if (f->nplaces == MODEL_PLACES || (f->nplaces && f->object != attr.object)) {
		wrong(v, "%d/%s: object %u is there twice", dir_id, entry->name, attr.uid);
		zpl_release(node);
		return;
	}
	f->places[f->nplaces].dir = dir_id;
	snprintf(f->places[f->nplaces].name, MODEL_NAME, "%.23s", entry->name);
	if (f->nplaces++ == 0) {
		f->object = attr.object;
		f->nlink = attr.nlink;
		f->mode = attr.mode & 07777;
		f->type = S_ISDIR(attr.mode) ? 'd' : S_ISLNK(attr.mode) ? 'l' : 'f';
		f->xattr = -1;
		if (f->type != 'd')
			read_data(v, node, &attr, f, (int)attr.uid);
		if (f->type == 'f')
			read_xattr(v, node, f, (int)attr.uid);
		if (f->type == 'd')
			walk(v, node, (int)attr.uid);
	}
	zpl_release(node);
}

static void walk(struct verifier *v, struct zpl_node *dir, int dir_id)
{
	struct entries entries = {0};
	bool eof = false;
	int rc = zpl_readdir(dir, 0, collect, &entries, &eof);

	if (rc < 0 || !eof)
		wrong(v, "directory %d: readdir: %s", dir_id, rc < 0 ? pv_strerror(rc) : "no end");
	for (size_t i = 0; i < entries.count; i++)
		visit(v, dir, dir_id, &entries.list[i]);
	free(entries.list);
}

static void check_links(struct verifier *v)
{
	for (int id = 1; id < MODEL_OBJECTS; id++) {
		const struct found *f = &v->found[id];
		unsigned subdirs = 0;

		if (!f->nplaces)
			continue;
		for (int other = 1; f->type == 'd' && other < MODEL_OBJECTS; other++)
			subdirs += v->found[other].nplaces && v->found[other].type == 'd' &&
				   v->found[other].places[0].dir == id;
		if (f->nlink != (f->type == 'd' ? 2 + subdirs : f->nplaces))
			wrong(v, "object %d (%c): link count %llu, but %u names, %u subdirectories", id,
				f->type, (unsigned long long)f->nlink, f->nplaces, subdirs);
	}
}

/* The recovered file system takes new work. */
static void use(struct verifier *v, struct zpl_node *root)
{
	static uint8_t data[MODEL_RECORD], back[MODEL_RECORD];
	struct zpl_cred cred = {0};
	struct zpl_node *node = NULL;
	struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
	size_t n = 0;
	int rc = zpl_create(root, "after-the-crash", S_IFREG | 0600, 0, &cred, &node, NULL);

	if (rc < 0)
		return wrong(v, "create after the crash: %s", pv_strerror(rc));
	model_bytes(1, data, sizeof(data));
	rc = zpl_write(node, 0, &iov, 1, false, &n);
	if (!rc)
		rc = zpl_fsync(node, false);
	if (!rc)
		rc = zpl_read(node, 0, sizeof(back), back, &n);
	if (rc < 0 || n != sizeof(back) || memcmp(data, back, sizeof(back)))
		wrong(v, "writing after the crash: %s", rc < 0 ? pv_strerror(rc) : "other data");
	zpl_release(node);
	rc = zpl_unlink(root, "after-the-crash");
	if (rc < 0)
		wrong(v, "unlink after the crash: %s", pv_strerror(rc));
}

static struct pv_bdev *replay(
	const char *trace, const char *image, uint64_t cut, uint64_t seed, struct model *model)
{
	struct pv_file_options options = {.label = image};
	struct pv_bdev *disk = NULL;
	int trace_fd = open(trace, O_RDONLY | O_CLOEXEC),
	    fd = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (trace_fd < 0 || fd < 0 || ftruncate(fd, DISK) < 0)
		die("%s: %s", image, strerror(errno));
	if (pv_trace_replay(trace_fd, fd, cut, seed, take_mark, model, &err) < 0)
		die("cannot replay");
	close(trace_fd);
	if (pv_file_open(fd, &options, &disk, &err) < 0)
		die("cannot open the image");
	return disk;
}

static int verify_cut(const char *trace, const char *image, uint64_t cut, uint64_t seed)
{
	struct verifier v = {0};
	struct model *model = model_new();
	struct pv_bdev *disk = replay(trace, image, cut, seed, model);
	struct pv_pool_import import = {.name = POOL, .force = true};
	struct zpl_node *root = NULL;
	char *signatures[MODEL_OBJECTS] = {0};
	struct json_object *status = NULL;
	int rc;

	start_pool(image);
	if (pv_pool_register_device(DEVICE, disk, &err) < 0)
		die("cannot register the device");
	rc = pv_pool_import(&import, NULL, &err);
	if (rc == 0)
		rc = zpl_fs_mount(POOL, false, &v.fs, &err);
	if (rc < 0) {
		printf("does not import or mount: %s: %s\n", err.object, err.message);
		return 1;
	}
	v.found = calloc(MODEL_OBJECTS, sizeof(*v.found));
	if (!v.found || zpl_root(v.fs, &root) < 0)
		die("no root directory");
	walk(&v, root, 0);
	check_links(&v);
	for (int id = 1; id < MODEL_OBJECTS; id++) {
		struct found *f = &v.found[id];

		if (f->nplaces)
			signatures[id] = model_signature(
				f->type, f->mode, f->data, f->size, f->xattr, f->places, f->nplaces);
		if (f->nplaces && id >= model->next_id)
			wrong(&v, "object %d was never made", id);
	}
	v.errors += model_compare(model, signatures);
	use(&v, root);
	zpl_release(root);
	if (pv_pool_status(POOL, &status, &err) < 0)
		die("no status");
	if (json_object_get_int64(json_object_object_get(status, "errors")))
		wrong(&v, "the pool has recorded errors: %s", json_object_to_json_string(status));
	json_object_put(status);
	rc = zpl_fs_unmount(v.fs, false);
	if (rc < 0)
		wrong(&v, "unmount: %s", pv_strerror(rc));
	if (pv_pool_export(POOL, false, &err) < 0)
		wrong(&v, "export: %s", err.message);
	pv_pool_unregister_device(DEVICE);
	pv_pool_stop();
	pv_bdev_close(disk);
	return v.errors ? 1 : 0;
}

static int verify_command(int argc, char **argv)
{
	uint64_t first, last, cut, seed = strtoull(argv[4], NULL, 10);
	uint64_t records = scan(argv[2], &first, &last);

	random_seed(seed);
	cut = first + random_below(records - first + 1);
	if (argc > 5 && sscanf(argv[5], "--cut=%ju", &cut) != 1) {
		if (strcmp(argv[5], "--end"))
			return 2;
		cut = last;
		seed = 0;
	}
	printf("cut at record %ju of %ju, seed %ju\n", (uintmax_t)cut, (uintmax_t)records, (uintmax_t)seed);
	fflush(stdout);
	return verify_cut(argv[2], argv[3], cut, seed);
}

int main(int argc, char **argv)
{
	int rc = 2;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 5 && !strcmp(argv[1], "record"))
		rc = record(argv[2], strtoull(argv[3], NULL, 10), atoi(argv[4]));
	else if ((argc == 5 || argc == 6) && !strcmp(argv[1], "verify"))
		rc = verify_command(argc, argv);
	else if (argc == 5 && !strcmp(argv[1], "omit"))
		rc = omit(argv[2], argv[3], !strcmp(argv[4], "all"));
	else
		fprintf(stderr, "usage: crashtest record TRACE SEED OPERATIONS | verify TRACE IMAGE SEED "
				"[--cut=N|--end] | "
				"omit TRACE OUT all|data\n");
	fflush(NULL);
	_exit(rc);
}
