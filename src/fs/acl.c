/*
 * What a new object gets from its directory's default ACL. The kernel enforces ACLs and caches them, but
 * leaves inheritance to the file system, and with it the umask, which counts only where there is no default
 * ACL.
 *
 * The ACL follows the object's creation in a transaction of its own. Until then the object has no permissions
 * for its group, whose bits in the mode mean the ACL's mask.
 */
#include "fs/fs_int.h"

#include <errno.h>
#include <string.h>

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

/* The form in which Linux passes ACLs: u32 version 2, then entries of u16 tag, u16 permissions, u32 id. */
enum {
	HEADER = 4,
	ENTRY = 8,
	TAG_USER_OBJ = 1,
	TAG_USER = 2,
	TAG_GROUP_OBJ = 4,
	TAG_GROUP = 8,
	TAG_MASK = 0x10,
	TAG_OTHER = 0x20,
};

/* Both get what they have in common: the ACL's entry, and three bits of the mode. */
static void meet(uint8_t *permissions, uint32_t *mode, unsigned shift)
{
	*permissions &= *mode >> shift & 7;
	*mode = (*mode & ~(7U << shift)) | (uint32_t)*permissions << shift;
}

/* Makes the access ACL for `mode` of a default ACL. *ret_more: it says more than the mode does. */
static int restrict_to(uint8_t *acl, size_t length, uint32_t *inout_mode, bool *ret_more)
{
	uint8_t *owner = NULL, *group = NULL, *mask = NULL, *other = NULL;
	bool named = false;

	if (length < HEADER || (length - HEADER) % ENTRY || acl[0] != 2 || acl[1] || acl[2] || acl[3])
		return -EINVAL;
	for (uint8_t *entry = acl + HEADER; entry < acl + length; entry += ENTRY) {
		if (entry[2] > 7 || entry[3])
			return -EINVAL;
		switch (entry[0] | entry[1] << 8) {
		case TAG_USER_OBJ: owner = entry + 2; break;
		case TAG_GROUP_OBJ: group = entry + 2; break;
		case TAG_MASK: mask = entry + 2; break;
		case TAG_OTHER: other = entry + 2; break;
		case TAG_USER:
		case TAG_GROUP: named = true; break;
		default: return -EINVAL;
		}
	}
	if (!owner || !group || !other || (named && !mask))
		return -EINVAL;
	meet(owner, inout_mode, 6);
	meet(mask ? mask : group, inout_mode, 3);
	meet(other, inout_mode, 0);
	*ret_more = mask != NULL;
	return 0;
}

int pv_acl_inherit(struct zpl_node *dir, uint32_t mode, uint32_t umask, struct pv_inherited *ret_inherited)
{
	struct pv_inherited *inherited = ret_inherited;
	bool more = false;
	size_t length;
	int r;

	inherited->access_length = inherited->default_length = 0;
	r = zpl_getxattr(dir, DEFAULT, inherited->access, sizeof(inherited->access), &length);
	if (r == -ENODATA) {
		inherited->mode = mode & ~(umask & 0777);
		return 0;
	}
	if (r < 0)
		return r;
	if (S_ISDIR(mode)) {
		memcpy(inherited->defaults, inherited->access, length);
		inherited->default_length = length;
	}
	r = restrict_to(inherited->access, length, &mode, &more);
	if (r < 0)
		return r;
	if (more) {
		inherited->access_length = length;
		mode &= ~(uint32_t)S_IRWXG;
	}
	inherited->mode = mode;
	return 0;
}

int pv_acl_apply(struct zpl_node *node, const struct pv_inherited *inherited)
{
	int r = 0;

	if (inherited->default_length)
		r = zpl_setxattr(node, DEFAULT, inherited->defaults, inherited->default_length, 0);
	if (r == 0 && inherited->access_length)
		r = zpl_setxattr(node, ACCESS, inherited->access, inherited->access_length, 0);
	return r;
}
