/*
 * The mounts of this process's namespace, from /proc/self/mountinfo: never by looking at a path, which might
 * be below a mount that this very process serves.
 */
#include "base/cleanup.h"
#include "fs/session_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Undoes the table's octal escapes (\040 is a space) in place. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
			from[3] >= '0' && from[3] <= '7') {
			*to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 3;
		} else {
			*to++ = *from;
		}
	}
	*to = '\0';
}

struct line {
	int id;
	unsigned major, minor;
	char *point, *type; /* within the line */
};

/* "36 35 98:0 /root /point options [optional ...] - type source superoptions" */
static bool parse(char *text, struct line *ret_line)
{
	char *save = NULL, *field[5];

	for (int i = 0; i < 5; i++) {
		field[i] = strtok_r(i ? NULL : text, " ", &save);
		if (!field[i])
			return false;
	}
	if (sscanf(field[2], "%u:%u", &ret_line->major, &ret_line->minor) != 2)
		return false;
	ret_line->id = atoi(field[0]);
	ret_line->point = field[4];
	unescape(ret_line->point);
	for (char *word; (word = strtok_r(NULL, " ", &save));) {
		if (strcmp(word, "-"))
			continue;
		ret_line->type = strtok_r(NULL, " \n", &save);
		return ret_line->type != NULL;
	}
	return false;
}

/* Calls `fn` for each mount until it returns true. */
static bool each(bool (*fn)(const struct line *line, void *private), void *private)
{
	pv_autofclose FILE *file = fopen("/proc/self/mountinfo", "re");
	pv_autofree char *text = NULL;
	size_t size = 0;

	while (file && getline(&text, &size, file) > 0) {
		struct line line = {};

		if (parse(text, &line) && fn(&line, private))
			return true;
	}
	return false;
}

static bool has_id(const struct line *line, void *private)
{
	return line->id == *(int *)private;
}

bool pv_mount_exists(int mount_id)
{
	return each(has_id, &mount_id);
}

struct search {
	const char *point;
	struct line found;
};

static bool at_point(const struct line *line, void *private)
{
	struct search *search = private;

	if (!strcmp(line->point, search->point) && !strncmp(line->type, "fuse.", 5))
		search->found = *line; /* a later one lies on top */
	return false;
}

int pv_mount_find(const char *mountpoint, int *ret_id, unsigned *ret_major, unsigned *ret_minor)
{
	struct search search = {.point = mountpoint};

	each(at_point, &search);
	if (!search.found.type)
		return -ENOENT;
	*ret_id = search.found.id;
	*ret_major = search.found.major;
	*ret_minor = search.found.minor;
	return 0;
}

struct below {
	const char *point;
	char **paths;
	size_t count;
};

static bool lies_below(const struct line *line, void *private)
{
	struct below *below = private;
	size_t length = strlen(below->point);
	char **more;

	if (strncmp(line->point, below->point, length) || line->point[length] != '/')
		return false;
	more = reallocarray(below->paths, below->count + 1, sizeof(*more));
	if (!more)
		return true;
	below->paths = more;
	more[below->count] = strdup(line->point + length + 1);
	if (!more[below->count])
		return true;
	below->count++;
	return false;
}

size_t pv_mounts_below(const char *mountpoint, char ***ret_paths)
{
	struct below below = {.point = mountpoint};

	each(lies_below, &below);
	*ret_paths = below.paths;
	return below.count;
}
