/*
 * The kernel's mount table, read without touching any mounted file system: a path below a dead FUSE mount
 * answers ENOTCONN, one below a stuck mount never.
 */
#ifndef PV_VOLUME_MOUNTINFO_H
#define PV_VOLUME_MOUNTINFO_H

#include "base/error.h"

#include <stddef.h>

struct pv_mount_entry {
	int id, parent;
	char *point; /* unescaped */
	char *type;  /* "fuse.zfs" */
	char *source;
	char *options; /* of the super block */
};

struct pv_mount_table {
	struct pv_mount_entry
		*entries; /* in the kernel's order: parents first, the topmost of a stack last */
	size_t count;
};

int pv_mount_table_read(struct pv_mount_table *ret_table, struct pv_error *err);
/* Parses the text of a mountinfo file; lines that make no sense are skipped. */
int pv_mount_table_parse(const char *text, struct pv_mount_table *ret_table);
void pv_mount_table_free(struct pv_mount_table *table);

/* True when `path` is `point` or lies below it. Both absolute; string comparison only. */
bool pv_path_is_below(const char *path, const char *point);

/* The pvol mount that `path` is on or below, or NULL; borrowed from the table. */
const struct pv_mount_entry *pv_mount_table_pvol(const struct pv_mount_table *table, const char *path);

/*
 * Lazily unmounts every mount of ours at or below `point`, and other FUSE mounts below those, in reverse
 * order, with fusermount3 (as root: umount2). Used when their server is dead. Returns how many are left (0 =
 * all gone), or -errno.
 */
int pv_mounts_detach_below(const char *point, struct pv_error *err);

#endif
