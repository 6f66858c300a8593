/*
 * The on-disk structures of a new ZPL file system (facts: OpenZFS's zfs_create_fs). Needs OpenZFS's headers; for
 * pool/ and zpl/ only.
 */
#ifndef PV_ZPL_CREATE_H
#define PV_ZPL_CREATE_H

#include <sys/zfs_context.h>
#include <sys/dmu.h>

struct zpl_create_args {
	uint64_t version; /* ZPL version, 5 */
	uint64_t normalization, utf8only, casesensitivity;
	uint64_t uid, gid; /* of the root directory */
	uint64_t mode;     /* permission bits of the root directory, 0755 */
};

/*
 * Fills an empty objset with master node, SA tables, unlinked set and root directory. Has the signature that
 * dmu_objset_create() wants for its callback (syncing context); with an open-context `tx` the caller must have made
 * the holds described in the .c file (pool root after spa_create).
 */
void zpl_create_objset(objset_t *os, void *args, cred_t *cr, dmu_tx_t *tx);

#endif
