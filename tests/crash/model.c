#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

void model_bytes(int op, uint8_t *data, size_t length)
{
	uint64_t x = (uint64_t)op * 0x9e3779b97f4a7c15ULL + 0x1234567;

	for (size_t i = 0; i < length; i++) {
		/* every third write compresses */
		if (i % 8 == 0 && (op % 3 || i % 512 == 0)) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
		}
		data[i] = (uint8_t)(x >> (8 * (i % 8)));
	}
}

size_t model_xattr(int op, char *value, size_t size)
{
	int n = snprintf(value, size, "set by %d ", op);
	size_t length = (size_t)n + (size_t)(op * 37 % 700);

	if (length > size)
		length = size;
	memset(value + n, 'x', length - (size_t)n);
	return length;
}

static int compare_places(const void *a, const void *b)
{
	const struct model_place *x = a, *y = b;

	return x->dir != y->dir ? (x->dir < y->dir ? -1 : 1) : strcmp(x->name, y->name);
}

char *model_signature(char type, unsigned mode, const uint8_t *data, size_t size, int xattr,
	const struct model_place *places, unsigned nplaces)
{
	struct model_place sorted[MODEL_PLACES];
	uint64_t hash = 0xcbf29ce484222325ULL;
	char *text = NULL;
	size_t length = 0;
	FILE *f = must(open_memstream(&text, &length));

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ data[i]) * 0x100000001b3ULL;
	fprintf(f, "%c mode %o size %zu hash %016llx xattr %d at", type, mode, size, (unsigned long long)hash,
		xattr);
	memcpy(sorted, places, nplaces * sizeof(*places));
	qsort(sorted, nplaces, sizeof(*sorted), compare_places);
	for (unsigned i = 0; i < nplaces; i++)
		fprintf(f, " %d/%s", sorted[i].dir, sorted[i].name);
	fclose(f);
	return must(text);
}

static void add_version(struct model *model, int id, int op)
{
	struct model_object *o = &model->objects[id];

	o->versions = must(realloc(o->versions, (o->nversions + 1) * sizeof(*o->versions)));
	o->versions[o->nversions++] = (struct model_version){
		.op = op,
		.signature = op < 0 || (o->nplaces == 0 && id != 0)
				     ? NULL
				     : model_signature(o->type, o->mode, o->data, o->size, o->xattr,
					       o->places, o->nplaces),
	};
}

struct model *model_new(void)
{
	struct model *model = must(calloc(1, sizeof(*model)));

	model->objects[0].type = 'd';
	model->objects[0].xattr = -1;
	model->next_id = 1;
	model->last_op = -1;
	return model;
}

int model_find(const struct model *model, int dir, const char *name)
{
	for (int id = 1; id < model->next_id; id++)
		for (unsigned i = 0; i < model->objects[id].nplaces; i++)
			if (model->objects[id].places[i].dir == dir &&
				!strcmp(model->objects[id].places[i].name, name))
				return id;
	return -1;
}

unsigned model_children(const struct model *model, int id)
{
	unsigned n = 0;

	for (int other = 1; other < model->next_id; other++)
		for (unsigned i = 0; i < model->objects[other].nplaces; i++)
			n += model->objects[other].places[i].dir == id;
	return n;
}

bool model_below(const struct model *model, int dir, int id)
{
	while (dir != id) {
		if (dir == 0 || model->objects[dir].nplaces == 0)
			return false;
		dir = model->objects[dir].places[0].dir;
	}
	return true;
}

static bool add_place(struct model_object *o, int dir, const char *name)
{
	if (o->nplaces == MODEL_PLACES)
		return false;
	o->places[o->nplaces].dir = dir;
	snprintf(o->places[o->nplaces].name, MODEL_NAME, "%s", name);
	o->nplaces++;
	return true;
}

static bool remove_place(struct model_object *o, int dir, const char *name)
{
	for (unsigned i = 0; i < o->nplaces; i++) {
		if (o->places[i].dir == dir && !strcmp(o->places[i].name, name)) {
			o->places[i] = o->places[--o->nplaces];
			return true;
		}
	}
	return false;
}

static bool create(struct model *model, int op, char type, int id, int dir, const char *name)
{
	struct model_object *o = &model->objects[id];

	if (id != model->next_id || id >= MODEL_OBJECTS)
		return false;
	model->next_id++;
	add_version(model, id, -1);
	o->type = type;
	o->xattr = -1;
	o->mode = type == 'f' ? 0640 : type == 'd' ? 0750 : 0777;
	if (type == 'l') {
		o->data = must(malloc(64));
		o->size = (size_t)snprintf((char *)o->data, 64, "target of %d", id);
	}
	add_place(o, dir, name);
	add_version(model, id, op);
	return true;
}

static void resize(struct model_object *o, size_t size)
{
	o->data = must(realloc(o->data, size ? size : 1));
	if (size > o->size)
		memset(o->data + o->size, 0, size - o->size);
	o->size = size;
}

static bool rename_object(
	struct model *model, int op, int id, int dir, const char *name, int dir2, const char *name2)
{
	int replaced = model_find(model, dir2, name2);

	if (replaced == id || !remove_place(&model->objects[id], dir, name))
		return false;
	if (replaced > 0) {
		remove_place(&model->objects[replaced], dir2, name2);
		add_version(model, replaced, op);
	}
	add_place(&model->objects[id], dir2, name2);
	add_version(model, id, op);
	return true;
}

static bool exchange(struct model *model, int op, int id, int dir, const char *name, int other, int dir2,
	const char *name2)
{
	struct model_object *a = &model->objects[id], *b = &model->objects[other];

	if (!remove_place(a, dir, name) || !remove_place(b, dir2, name2))
		return false;
	add_place(a, dir2, name2);
	add_place(b, dir, name);
	add_version(model, id, op);
	add_version(model, other, op);
	return true;
}

static bool apply_op(struct model *model, int op, const char *verb, const char *rest)
{
	int id, dir, dir2, other;
	unsigned mode;
	size_t offset, length;
	char name[MODEL_NAME], name2[MODEL_NAME];
	struct model_object *o;

	if (sscanf(rest, "%d", &id) != 1 || id < 1 || id > model->next_id || id >= MODEL_OBJECTS)
		return false;
	o = &model->objects[id];
	model->last_op = op;
	if (sscanf(rest, "%*d %d %23s", &dir, name) == 2) {
		if (!strcmp(verb, "create") || !strcmp(verb, "mkdir") || !strcmp(verb, "symlink"))
			return create(model, op,
				*verb == 'c'   ? 'f'
				: *verb == 'm' ? 'd'
					       : 'l',
				id, dir, name);
		if (!strcmp(verb, "link") && !add_place(o, dir, name))
			return false;
		if ((!strcmp(verb, "unlink") || !strcmp(verb, "rmdir")) && !remove_place(o, dir, name))
			return false;
		if (!strcmp(verb, "rename"))
			return sscanf(rest, "%*d %*d %*s %d %23s", &dir2, name2) == 2 &&
			       rename_object(model, op, id, dir, name, dir2, name2);
		if (!strcmp(verb, "exchange"))
			return sscanf(rest, "%*d %*d %*s %d %d %23s", &other, &dir2, name2) == 3 &&
			       exchange(model, op, id, dir, name, other, dir2, name2);
	}
	if (!strcmp(verb, "write")) {
		if (sscanf(rest, "%*d %zu %zu", &offset, &length) != 2 || offset + length > MODEL_FILE)
			return false;
		if (offset + length > o->size)
			resize(o, offset + length);
		model_bytes(op, o->data + offset, length);
	} else if (!strcmp(verb, "truncate")) {
		if (sscanf(rest, "%*d %zu", &length) != 1 || length > MODEL_FILE)
			return false;
		resize(o, length);
	} else if (!strcmp(verb, "mode")) {
		if (sscanf(rest, "%*d %o", &mode) != 1)
			return false;
		o->mode = mode;
	} else if (!strcmp(verb, "xattr")) {
		o->xattr = op;
	} else if (!strcmp(verb, "noxattr")) {
		o->xattr = -1;
	}
	add_version(model, id, op);
	return true;
}

static void promise(struct model *model, int id)
{
	struct model_object *o = &model->objects[id];

	if (o->nversions)
		o->promised = o->nversions - 1;
	for (unsigned i = 0; i < o->nplaces; i++)
		if (o->places[i].dir)
			promise(model, o->places[i].dir);
}

bool model_apply(struct model *model, const char *line)
{
	int op, id, at = 0;
	char verb[16];

	if (!strcmp(line, "syncall")) {
		for (id = 1; id < model->next_id; id++)
			if (model->objects[id].nversions)
				model->objects[id].promised = model->objects[id].nversions - 1;
		return true;
	}
	if (sscanf(line, "sync %d", &id) == 1) {
		promise(model, id);
		return true;
	}
	return sscanf(line, "op %d %15s %n", &op, verb, &at) == 2 && at &&
	       apply_op(model, op, verb, line + at);
}

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

/* Index of the version in force after operation `op`. */
static unsigned version_at(const struct model_object *o, int op)
{
	unsigned i = 0;

	while (i + 1 < o->nversions && o->versions[i + 1].op <= op)
		i++;
	return i;
}

static bool all_match_at(const struct model *model, char *const *found, int op)
{
	for (int id = 1; id < model->next_id; id++) {
		const struct model_object *o = &model->objects[id];
		unsigned i = version_at(o, op);

		if (i < o->promised || !same(o->versions[i].signature, found[id]))
			return false;
	}
	return true;
}

int model_compare(const struct model *model, char *const *found)
{
	int bad = 0;

	for (int id = 1; id < model->next_id; id++) {
		const struct model_object *o = &model->objects[id];
		unsigned i = o->promised;

		while (i < o->nversions && !same(o->versions[i].signature, found[id]))
			i++;
		if (i < o->nversions)
			continue;
		bad++;
		printf("object %d: found %s\n    promised by operation %d: %s\n    newest: %s\n", id,
			found[id] ? found[id] : "nothing", o->versions[o->promised].op,
			o->versions[o->promised].signature ? o->versions[o->promised].signature : "nothing",
			o->versions[o->nversions - 1].signature ? o->versions[o->nversions - 1].signature
								: "nothing");
	}
	if (bad)
		return bad;
	/* Transaction groups are taken in order: the whole is the state after one and the same operation. */
	for (int op = model->last_op; op >= -1; op--) {
		if (all_match_at(model, found, op)) {
			printf("state after operation %d of %d\n", op, model->last_op);
			return 0;
		}
	}
	printf("every object is in a permitted state, but not all in the state after one and the same "
	       "operation\n");
	return 1;
}
