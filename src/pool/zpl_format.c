/*
 * What a ZPL file system consists of on disk, as far as creating things goes.
 *
 * An empty objset becomes a file system by these objects, in this order (so that the numbers come out as the
 * kernel's do: 1, 32, 33, 34):
 *
 *   1   master node, a ZAP: normalization, utf8only, casesensitivity, VERSION, SA_ATTRS, DELETE_QUEUE, ROOT
 *   32  SA master node, a ZAP: REGISTRY and LAYOUTS, filled by the SA code at first use
 *   33  unlinked set, a ZAP: objects without a name that are still to be freed
 *   34  root directory, a ZAP with SA bonus
 *
 * A znode is an object whose bonus buffer (and spill block) holds system attributes. Space accounting reads
 * owner, group, generation, flags and project at fixed offsets behind the SA header, hence the attribute
 * order in zpl_znode_write() is part of the format:
 *
 *   0 MODE  8 SIZE  16 GEN  24 UID  32 GID  40 PARENT  48 FLAGS  56 ATIME  72 MTIME  88 CTIME  104 CRTIME 120
 * LINKS 128 PROJID (only with flag PROJID)   then RDEV (devices), DACL_COUNT, DACL_ACES, SYMLINK
 *
 * Holds for zpl_create_objset() in an open-context transaction: eight dmu_tx_hold_zap(tx, DMU_NEW_OBJECT,
 * TRUE, NULL) and one dmu_tx_hold_bonus(tx, DMU_NEW_OBJECT).
 */
#include "pool/zpl_format.h"

#include <sys/dmu_objset.h>
#include <sys/dnode.h>
#include <sys/sa_impl.h>
#include <sys/spa_impl.h>
#include <sys/u8_textprep.h>
#include <sys/zap.h>
#include <sys/acl.h>
#include <sys/zfs_acl.h>
#include <sys/zfs_sa.h>
#include <sys/zfs_znode.h>
#include <zfs_comutil.h>

#include <sys/stat.h>
#include <time.h>

/* Offsets behind the SA header, see above, and in the znode of file systems before version 5. */
enum {
	SA_OFF_GEN = 16,
	SA_OFF_UID = 24,
	SA_OFF_GID = 32,
	SA_OFF_FLAGS = 48,
	SA_OFF_PROJID = 128,
	OLD_OFF_GEN = 64,
	OLD_OFF_UID = 128,
	OLD_OFF_GID = 136,
};

/* ---- ACL ---- */

/* Rights everybody has, and those only the owner has. */
#define ACE_MASK_ALL (ACE_READ_ACL | ACE_READ_ATTRIBUTES | ACE_READ_NAMED_ATTRS | ACE_SYNCHRONIZE)
#define ACE_MASK_OWNER (ACE_WRITE_ATTRIBUTES | ACE_WRITE_OWNER | ACE_WRITE_ACL | ACE_WRITE_NAMED_ATTRS)

static uint32_t mask_of_bits(unsigned rwx, bool directory)
{
	uint32_t mask = 0;

	if (rwx & 4)
		mask |= ACE_READ_DATA;
	if (rwx & 2)
		mask |= ACE_WRITE_DATA | ACE_APPEND_DATA | (directory ? ACE_DELETE_CHILD : 0);
	if (rwx & 1)
		mask |= ACE_EXECUTE;
	return mask;
}

static void add_ace(struct zpl_acl *acl, uint16_t type, uint16_t flags, uint32_t mask)
{
	acl->ace[acl->count].type = type;
	acl->ace[acl->count].flags = flags;
	acl->ace[acl->count].mask = mask;
	acl->count++;
	acl->bytes += sizeof(acl->ace[0]);
}

void zpl_acl_trivial(uint64_t mode, struct zpl_acl *ret_acl)
{
	const bool directory = S_ISDIR(mode);
	const unsigned owner = mode >> 6 & 7, group = mode >> 3 & 7, other = mode & 7;
	/* ACEs are read in order and a right once granted or denied stays so; hence what a class lacks but a
	 * later, wider entry would give is denied first. Owners and group members are also "everyone". */
	const unsigned allow_owner = owner & ~group & other;
	const unsigned deny_owner = ~owner & (group | other) & 7;
	const unsigned deny_group = ~group & other & 7;

	*ret_acl = (struct zpl_acl){.pflags = ZFS_ACL_TRIVIAL};
	if (allow_owner)
		add_ace(ret_acl, ACE_ACCESS_ALLOWED_ACE_TYPE, ACE_OWNER,
			mask_of_bits(allow_owner, directory));
	if (deny_owner)
		add_ace(ret_acl, ACE_ACCESS_DENIED_ACE_TYPE, ACE_OWNER, mask_of_bits(deny_owner, directory));
	if (deny_group)
		add_ace(ret_acl, ACE_ACCESS_DENIED_ACE_TYPE, ACE_GROUP | ACE_IDENTIFIER_GROUP,
			mask_of_bits(deny_group, directory));
	add_ace(ret_acl, ACE_ACCESS_ALLOWED_ACE_TYPE, ACE_OWNER,
		mask_of_bits(owner, directory) | ACE_MASK_ALL | ACE_MASK_OWNER);
	add_ace(ret_acl, ACE_ACCESS_ALLOWED_ACE_TYPE, ACE_GROUP | ACE_IDENTIFIER_GROUP,
		mask_of_bits(group, directory) | ACE_MASK_ALL);
	add_ace(ret_acl, ACE_ACCESS_ALLOWED_ACE_TYPE, ACE_EVERYONE,
		mask_of_bits(other, directory) | ACE_MASK_ALL);

	if ((mode & 0111) == 0111)
		ret_acl->pflags |= ZFS_NO_EXECS_DENIED;
	if (directory)
		ret_acl->pflags |= ZFS_ACL_AUTO_INHERIT;
}

/* ---- znodes ---- */

uint64_t zpl_new_pflags(const struct zpl_znode *znode)
{
	return ZFS_ARCHIVE | ZFS_AV_MODIFIED | (znode->has_projid ? ZFS_PROJID : 0);
}

int zpl_znode_hold_size(const struct zpl_znode *znode)
{
	/* The kernel's estimate: 176 bytes of base attributes. */
	enum { BASE_ATTR_SIZE = 176 };

	return (int)(BASE_ATTR_SIZE + znode->acl.bytes + znode->symlink_length);
}

int zpl_znode_write(
	sa_handle_t *hdl, const sa_attr_type_t *table, const struct zpl_znode *znode, dmu_tx_t *tx)
{
	struct zpl_znode z = *znode; /* the bulk interface wants writable memory */
	sa_bulk_attr_t bulk[20];
	int n = 0;

	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MODE], NULL, &z.mode, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_SIZE], NULL, &z.size, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_GEN], NULL, &z.gen, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_UID], NULL, &z.uid, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_GID], NULL, &z.gid, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_PARENT], NULL, &z.parent, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_FLAGS], NULL, &z.flags, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_ATIME], NULL, z.atime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_MTIME], NULL, z.mtime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CTIME], NULL, z.ctime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_CRTIME], NULL, z.crtime, 16);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_LINKS], NULL, &z.links, 8);
	if (z.has_projid)
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_PROJID], NULL, &z.projid, 8);
	if (S_ISCHR(z.mode) || S_ISBLK(z.mode))
		SA_ADD_BULK_ATTR(bulk, n, table[ZPL_RDEV], NULL, &z.rdev, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_DACL_COUNT], NULL, &z.acl.count, 8);
	SA_ADD_BULK_ATTR(bulk, n, table[ZPL_DACL_ACES], NULL, z.acl.ace, z.acl.bytes);
	if (sa_replace_all_by_template(hdl, bulk, n, tx) != 0)
		return EIO;
	/* The kernel adds the target in a second step; doing alike makes the same layouts. */
	if (z.symlink)
		return sa_update(hdl, table[ZPL_SYMLINK], (void *)z.symlink, z.symlink_length, tx);
	return 0;
}

int zpl_object_alloc(objset_t *os, bool directory, int norm, uint64_t claim, int dnodesize, dmu_tx_t *tx,
	uint64_t *ret_object)
{
	int bonus, error = 0;

	if (dnodesize == 0)
		dnodesize = (int)dmu_objset_dnodesize(os);
	if (dnodesize == 0)
		dnodesize = DNODE_MIN_SIZE;
	bonus = DN_BONUS_SIZE(dnodesize);
	if (claim) {
		error = directory ? zap_create_claim_norm_dnsize(os, claim, norm, DMU_OT_DIRECTORY_CONTENTS,
					    DMU_OT_SA, bonus, dnodesize, tx)
				  : dmu_object_claim_dnsize(os, claim, DMU_OT_PLAIN_FILE_CONTENTS, 0,
					    DMU_OT_SA, bonus, dnodesize, tx);
		if (!error)
			*ret_object = claim;
	} else {
		*ret_object = directory ? zap_create_norm_dnsize(os, norm, DMU_OT_DIRECTORY_CONTENTS,
						  DMU_OT_SA, bonus, dnodesize, tx)
					: dmu_object_alloc_dnsize(os, DMU_OT_PLAIN_FILE_CONTENTS, 0,
						  DMU_OT_SA, bonus, dnodesize, tx);
	}
	return error;
}

/* ---- a new file system ---- */

static uint64_t create_root(
	objset_t *os, const struct zpl_create_args *args, int norm, const sa_attr_type_t *table, dmu_tx_t *tx)
{
	struct timespec now;
	struct zpl_znode z = {
		.mode = S_IFDIR | (args->mode & 07777),
		.size = 2,
		.gen = dmu_tx_get_txg(tx),
		.uid = args->uid,
		.gid = args->gid,
		.links = 2,
		.has_projid = dmu_objset_projectquota_enabled(os),
	};
	uint64_t object = 0;
	sa_handle_t *hdl;

	clock_gettime(CLOCK_REALTIME, &now);
	z.atime[0] = z.mtime[0] = z.ctime[0] = z.crtime[0] = (uint64_t)now.tv_sec;
	z.atime[1] = z.mtime[1] = z.ctime[1] = z.crtime[1] = (uint64_t)now.tv_nsec;
	VERIFY0(zpl_object_alloc(os, true, norm, 0, 0, tx, &object));
	z.parent = object;
	zpl_acl_trivial(z.mode, &z.acl);
	z.flags = zpl_new_pflags(&z) | z.acl.pflags;
	VERIFY0(sa_handle_get(os, object, NULL, SA_HDL_PRIVATE, &hdl));
	VERIFY0(zpl_znode_write(hdl, table, &z, tx));
	sa_handle_destroy(hdl);
	return object;
}

/*
 * Nothing is read from disk here: every object is new, so a failure is a broken libzpool and no damaged pool;
 * and syncing context has no way to refuse.
 */
void zpl_create_objset(objset_t *os, void *arg, cred_t *cr, dmu_tx_t *tx)
{
	const struct zpl_create_args *args = arg;
	const uint64_t master = MASTER_NODE_OBJ;
	uint64_t version =
		MIN(args->version, (uint64_t)zfs_zpl_version_map((int)spa_version(dmu_objset_spa(os))));
	uint64_t utf8only = args->normalization ? 1 : args->utf8only;
	uint64_t sa_object, unlinked, root;
	int norm = (int)args->normalization;
	sa_attr_type_t *table;

	if (args->casesensitivity != ZPL_CASE_SENSITIVE)
		norm |= U8_TEXTPREP_TOUPPER;

	VERIFY0(zap_create_claim(os, master, DMU_OT_MASTER_NODE, DMU_OT_NONE, 0, tx));
	VERIFY0(zap_update(os, master, zfs_prop_to_name(ZFS_PROP_NORMALIZE), 8, 1, &args->normalization, tx));
	VERIFY0(zap_update(os, master, zfs_prop_to_name(ZFS_PROP_UTF8ONLY), 8, 1, &utf8only, tx));
	VERIFY0(zap_update(os, master, zfs_prop_to_name(ZFS_PROP_CASE), 8, 1, &args->casesensitivity, tx));
	VERIFY0(zap_update(os, master, ZPL_VERSION_STR, 8, 1, &version, tx));

	sa_object = zap_create(os, DMU_OT_SA_MASTER_NODE, DMU_OT_NONE, 0, tx);
	VERIFY0(zap_add(os, master, ZFS_SA_ATTRS, 8, 1, &sa_object, tx));
	unlinked = zap_create(os, DMU_OT_UNLINKED_SET, DMU_OT_NONE, 0, tx);
	VERIFY0(zap_add(os, master, ZFS_UNLINKED_SET, 8, 1, &unlinked, tx));

	VERIFY0(sa_setup(os, sa_object, zfs_attr_table, ZPL_END, &table));
	root = create_root(os, args, norm, table, tx);
	VERIFY0(zap_add(os, master, ZFS_ROOT_OBJ, 8, 1, &root, tx));
}

/* ---- space accounting ---- */

static uint64_t get64(const void *data, size_t offset, bool swap)
{
	uint64_t v;

	memcpy(&v, (const char *)data + offset, sizeof(v));
	return swap ? BSWAP_64(v) : v;
}

/*
 * Who owns an object, from its bonus buffer; EEXIST = unchanged since last time, ENOENT = not accounted. May
 * meet damaged buffers: those are "not accounted".
 */
static int file_info(dmu_object_type_t bonustype, const void *data, zfs_file_info_t *ret_info)
{
	sa_hdr_phys_t hdr;
	bool swap;
	size_t size;

	if (bonustype != DMU_OT_ZNODE && bonustype != DMU_OT_SA)
		return ENOENT;
	ret_info->zfi_project = ZFS_DEFAULT_PROJID;
	if (!data)
		return EEXIST;
	if (bonustype == DMU_OT_ZNODE) {
		ret_info->zfi_user = get64(data, OLD_OFF_UID, false);
		ret_info->zfi_group = get64(data, OLD_OFF_GID, false);
		ret_info->zfi_generation = get64(data, OLD_OFF_GEN, false);
		return 0;
	}
	memcpy(&hdr, data, sizeof(hdr));
	if (hdr.sa_magic == 0) { /* created in this transaction group, not filled in yet */
		ret_info->zfi_user = ret_info->zfi_group = ret_info->zfi_generation = 0;
		return 0;
	}
	swap = hdr.sa_magic == BSWAP_32(SA_MAGIC);
	if (!swap && hdr.sa_magic != SA_MAGIC)
		return ENOENT;
	size = (size_t)((swap ? BSWAP_16(hdr.sa_layout_info) : hdr.sa_layout_info) >> 10) << 3;
	if (size < sizeof(hdr) ||
		size > 64) /* the attributes read below must lie in the smallest bonus buffer */
		return ENOENT;
	data = (const char *)data + size;
	ret_info->zfi_user = get64(data, SA_OFF_UID, swap);
	ret_info->zfi_group = get64(data, SA_OFF_GID, swap);
	ret_info->zfi_generation = get64(data, SA_OFF_GEN, swap);
	if (get64(data, SA_OFF_FLAGS, swap) & ZFS_PROJID)
		ret_info->zfi_project = get64(data, SA_OFF_PROJID, swap);
	return 0;
}

void zpl_register_accounting(void)
{
	dmu_objset_register_type(DMU_OST_ZFS, file_info);
}

void zpl_stop_upgrade(objset_t *os)
{
	mutex_enter(&os->os_upgrade_lock);
	os->os_upgrade_exit = B_TRUE;
	mutex_exit(&os->os_upgrade_lock);
	if (dmu_objset_spa(os)->spa_upgrade_taskq)
		taskq_wait(dmu_objset_spa(os)->spa_upgrade_taskq);
}
