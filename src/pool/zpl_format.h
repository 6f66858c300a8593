/*
 * The on-disk structures of the ZPL that both the creation of file systems (pool/) and the POSIX layer (zpl/)
 * write: the objects of a new file system, the attribute template of a znode, trivial ACLs, space accounting.
 * Needs OpenZFS's headers; for pool/ and zpl/ only.
 */
#ifndef PV_POOL_ZPL_FORMAT_H
#define PV_POOL_ZPL_FORMAT_H

#include <sys/zfs_context.h>
#include <sys/dmu.h>
#include <sys/sa.h>

#include <stdbool.h>

/* Values of "casesensitivity" in the master node. */
enum { ZPL_CASE_SENSITIVE = 0, ZPL_CASE_INSENSITIVE = 1, ZPL_CASE_MIXED = 2 };

struct zpl_create_args {
	uint64_t version; /* ZPL version, 5 */
	uint64_t normalization, utf8only, casesensitivity;
	uint64_t uid, gid; /* of the root directory */
	uint64_t mode;     /* permission bits of the root directory, 0755 */
};

/*
 * Fills an empty objset with master node, SA tables, unlinked set and root directory. Has the signature that
 * dmu_objset_create() wants for its callback (syncing context); with an open-context `tx` the caller must
 * have made the holds described in the .c file (pool root after spa_create).
 */
void zpl_create_objset(objset_t *os, void *args, cred_t *cr, dmu_tx_t *tx);

/*
 * Registers the callback through which the DMU learns owner, group and project of an object for space
 * accounting (facts: without it accounting is silently lost). Right after kernel_init(), before any pool is
 * created or imported.
 */
void zpl_register_accounting(void);

/*
 * To be called before dmu_objset_disown() of a file system that was owned for writing: owning one may start a
 * thread that adds missing accounting, and in user space disowning does not wait for its end.
 */
void zpl_stop_upgrade(objset_t *os);

/* The ACL that says no more than the nine permission bits of `mode` (whose type bits tell directories apart).
 */
#define ZPL_TRIVIAL_ACES 6
struct zpl_acl {
	uint64_t count;
	uint32_t bytes;
	uint64_t pflags; /* what the ACL contributes to a znode's flags: ZPL_ACL_PFLAGS */
	struct zpl_ace {
		uint16_t type, flags;
		uint32_t mask;
	} ace[ZPL_TRIVIAL_ACES];
};
void zpl_acl_trivial(uint64_t mode, struct zpl_acl *ret_acl);
/* The flags of a znode that follow from its ACL. */
#define ZPL_ACL_PFLAGS                                                                                       \
	(ZFS_INHERIT_ACE | ZFS_ACL_TRIVIAL | ZFS_ACL_OBJ_ACE | ZFS_ACL_PROTECTED | ZFS_ACL_DEFAULTED |       \
		ZFS_ACL_AUTO_INHERIT | ZFS_NO_EXECS_DENIED)

/* All attributes a new znode has. */
struct zpl_znode {
	uint64_t mode, size, gen, uid, gid, parent, flags;
	uint64_t atime[2], mtime[2], ctime[2], crtime[2];
	uint64_t links, projid, rdev;
	bool has_projid; /* regular files and directories where project accounting is on */
	struct zpl_acl acl;
	/* Appended after the ACL when not NULL. */
	const void *symlink;
	uint32_t symlink_length;
};

/* Flags of a new object without ACL's share: archive and modified marks, project mark. */
uint64_t zpl_new_pflags(const struct zpl_znode *znode);

/* Size argument of dmu_tx_hold_sa_create() for such a znode. */
int zpl_znode_hold_size(const struct zpl_znode *znode);

/*
 * Writes a new znode's attributes in the order that space accounting relies on: it reads fixed offsets behind
 * the SA header. `table` is sa_setup()'s. 0 or a positive errno.
 */
int zpl_znode_write(
	sa_handle_t *hdl, const sa_attr_type_t *table, const struct zpl_znode *znode, dmu_tx_t *tx);

/* Allocates the object of a new znode (a ZAP for directories); `norm` as for ZAPs. `claim` = 0 or the number
 * to take (log replay), `dnodesize` 0 = the dataset's. 0 or a positive errno. */
int zpl_object_alloc(objset_t *os, bool directory, int norm, uint64_t claim, int dnodesize, dmu_tx_t *tx,
	uint64_t *ret_object);

#endif
