/*
 * The registry: what is remembered of a volume outside of it, one file $PVOL_HOME/volumes/NAME.json each.
 *
 * It is readable by whoever gets hold of the disk, so it holds nothing of the inside: never a dataset,
 * snapshot or file name. Files are replaced atomically (write, fsync, rename, fsync of the directory), so a
 * crash leaves the old or the new one.
 */
#ifndef PV_VOLUME_REGISTRY_H
#define PV_VOLUME_REGISTRY_H

#include "base/error.h"
#include "volume/name.h"

#include <json-c/json.h>
#include <stdint.h>
#include <time.h>

#define PV_CONTAINERS_MAX 2 /* a volume, or a mirror of two */
#define PV_INCIDENTS_MAX 50 /* the oldest are forgotten */
#define PV_INCIDENT_DETAIL 700

struct pv_record {
	char name[PV_VOLUME_NAME_MAX + 1];
	char uuid[64];                       /* of the (first) header */
	char *containers[PV_CONTAINERS_MAX]; /* absolute paths */
	uint64_t sizes[PV_CONTAINERS_MAX];   /* as registered: a smaller container is truncated */
	unsigned ncontainers;
	char *at; /* mount directory */
	char format[16];
	struct json_object *slots; /* [{"slot","kind"}] or NULL */
	uint64_t pool_guid;
	uint64_t last_txg; /* known to be on disk: an older pool was put back from a copy */
	int64_t created;
	/* Set while the volume is open; left behind when keeper and engine were both killed. */
	char *opened_at; /* where it is mounted, NULL = closed */
	bool opened_read_only;
	char boot_id[40]; /* of the machine's run in which it was opened */
	bool interrupted; /* not closed in order: the pool is still marked as in use by this machine */
	char *failed;     /* why it stays closed after its engine died again and again, or NULL */
	struct json_object
		*incidents; /* [{"time","what","detail"}], oldest first; never NULL after load/new */
};

struct pv_record *pv_record_new(const char *name);
struct pv_record *pv_record_free(struct pv_record *record);

/* Appends an incident ("the engine died"). `detail` (may be NULL) is cut to PV_INCIDENT_DETAIL bytes. */
void pv_record_incident(struct pv_record *record, const char *what, const char *detail);

/* `dirfd` is $PVOL_HOME/volumes. -ENOENT when there is none; -EUCLEAN when the file makes no sense. */
int pv_registry_load(int dirfd, const char *name, struct pv_record **ret_record, struct pv_error *err);
int pv_registry_save(int dirfd, const struct pv_record *record, struct pv_error *err);
/* Removing what is not there succeeds. */
int pv_registry_remove(int dirfd, const char *name, struct pv_error *err);
/* Calls fn for each name, sorted; a non-zero result ends the walk and is returned. */
int pv_registry_walk(
	int dirfd, int (*fn)(const char *name, void *private), void *private, struct pv_error *err);

/* The kernel's boot id, "" when unknown. */
void pv_boot_id(char ret_id[40]);

static inline void pv_cleanup_record(struct pv_record **r)
{
	pv_record_free(*r);
}
#define pv_autorecord __attribute__((cleanup(pv_cleanup_record)))

#endif
