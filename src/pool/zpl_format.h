/*
 * The on-disk structures of the ZPL that both the creation of file systems (pool/) and the POSIX layer (zpl/) write:
 * the objects of a new file system, the attribute template of a znode, trivial ACLs, space accounting. Needs
 * OpenZFS's headers; for pool/ and zpl/ only.
 */
#ifndef PV_POOL_ZPL_FORMAT_H
#define PV_POOL_ZPL_FORMAT_H

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

/*
 * Registers the callback through which the DMU learns owner, group and project of an object for space accounting
 * (facts: without it accounting is silently lost). Right after kernel_init(), before any pool is created or imported.
 */
void zpl_register_accounting(void);

#endif
