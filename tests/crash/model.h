/*
 * What the crash test expects of the disk: a model of a small file system that is driven by the same lines of
 * text as the real one. The recorder writes each line into the trace before it starts the operation; the
 * verifier reads the lines that lie before the cut and so knows every state that the disk may be in.
 *
 * An object's identity is its uid, given at creation, so that names are free to move, be replaced and
 * exchanged.
 *
 *   op N create ID DIR NAME | mkdir ID DIR NAME | symlink ID DIR NAME     "DIR" is an object's id, 0 the root
 *   op N write ID OFFSET LENGTH       bytes are a function of N; never across a 128 KiB record, so one
 * transaction op N truncate ID SIZE | mode ID MODE | xattr ID | noxattr ID op N link ID DIR NAME | unlink ID
 * DIR NAME | rmdir ID DIR NAME op N rename ID DIR NAME NEWDIR NEWNAME       replaces what is there op N
 * exchange ID DIR NAME OTHER DIR NAME sync ID      fsync of the object returned: it and the directories that
 * lead to it are as they are now, or newer syncall      the same for everything
 */
#ifndef CRASH_MODEL_H
#define CRASH_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	MODEL_OBJECTS = 4096,
	MODEL_PLACES = 4,
	MODEL_NAME = 24,
	MODEL_FILE = 512 * 1024,
	MODEL_RECORD = 128 * 1024
};

struct model_place {
	int dir;
	char name[MODEL_NAME];
};

/* A state of an object: its signature from operation `op` on, until the next one's. */
struct model_version {
	int op;
	char *signature; /* NULL = the object is not there */
};

struct model_object {
	char type; /* 'f', 'd', 'l'; 0 = never created */
	unsigned mode;
	uint8_t *data;
	size_t size;
	int xattr; /* number of the operation that set it, -1 = none */
	unsigned nplaces;
	struct model_place places[MODEL_PLACES];
	struct model_version *versions; /* [0] is "not there" from -1 on */
	unsigned nversions;
	unsigned promised; /* index into versions: this one or a later one */
};

struct model {
	struct model_object objects[MODEL_OBJECTS]; /* by id; 0 is the root directory */
	int next_id;
	int last_op;
};

struct model *model_new(void);
/* Carries a line out; false if it is not one of ours or does not fit the state (a bug of the test). */
bool model_apply(struct model *model, const char *line);
/* The id at a place, or -1. */
int model_find(const struct model *model, int dir, const char *name);
/* True if `dir` is `id` or lies below it. */
bool model_below(const struct model *model, int dir, int id);
unsigned model_children(const struct model *model, int id);
/* The signature's text, malloced, from what was found: `places` need not be sorted. */
char *model_signature(char type, unsigned mode, const uint8_t *data, size_t size, int xattr,
	const struct model_place *places, unsigned nplaces);
/* `found[id]` is the signature on disk or NULL. Prints what is wrong; 0 = all that was promised is there. */
int model_compare(const struct model *model, char *const *found);
/* Bytes of the write with number `op`. */
void model_bytes(int op, uint8_t *data, size_t length);
/* Value of the extended attribute user.crash set by operation `op`; returns its length. */
size_t model_xattr(int op, char *value, size_t size);

#endif
