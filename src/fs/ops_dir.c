/*
 * Reading directories. Offsets that the kernel sees:
 *
 *   0 "."   1 ".."   2 ".zfs" (where visible)   3 start of the directory   cookie + 3   INT64_MAX end
 *
 * An offset in the answer is the one of the next entry. The kernel holds the directory's lock while it reads,
 * so no name changes between listing it and looking its node up for readdirplus.
 */
#include "base/cleanup.h"
#include "fs/fs_int.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OFF_DOTDOT 1
#define OFF_ZFS 2
#define OFF_FIRST 3

static off_t to_offset(uint64_t cookie)
{
	return cookie > INT64_MAX - OFF_FIRST ? INT64_MAX : (off_t)(cookie + OFF_FIRST);
}

static uint64_t to_cookie(off_t off)
{
	if (off <= OFF_FIRST)
		return 0;
	return off == INT64_MAX ? INT64_MAX : (uint64_t)off - OFF_FIRST;
}

struct item {
	uint64_t object; /* 0 = no node is looked up */
	uint64_t ino;
	unsigned type;
	off_t next;
	uint32_t name; /* offset in names */
};

struct listing {
	fuse_req_t req;
	struct pv_graft *graft;
	bool plus;
	bool nodes;  /* the objects listed are nodes of the graft; in .zfs they are not */
	size_t left; /* of the answer */
	struct item *items;
	size_t count, room;
	char *names;
	size_t names_length, names_room;
	int error;
};

static int add(
	struct listing *listing, const char *name, uint64_t object, uint64_t ino, unsigned type, off_t next)
{
	size_t length = strlen(name) + 1, size;

	size = listing->plus ? fuse_add_direntry_plus(listing->req, NULL, 0, name, NULL, 0)
			     : fuse_add_direntry(listing->req, NULL, 0, name, NULL, 0);
	if (size > listing->left)
		return 1;
	if (listing->count == listing->room) {
		size_t room = listing->room ? listing->room * 2 : 64;
		struct item *items = reallocarray(listing->items, room, sizeof(*items));

		if (!items)
			return -ENOMEM;
		listing->items = items;
		listing->room = room;
	}
	if (listing->names_length + length > listing->names_room) {
		size_t room = listing->names_room * 2 + 4096;
		char *names = realloc(listing->names, room);

		if (!names)
			return -ENOMEM;
		listing->names = names;
		listing->names_room = room;
	}
	memcpy(listing->names + listing->names_length, name, length);
	listing->items[listing->count++] = (struct item){.object = object,
		.ino = ino,
		.type = type,
		.next = next,
		.name = (uint32_t)listing->names_length};
	listing->names_length += length;
	listing->left -= size;
	return 0;
}

static uint64_t ino_of(const struct pv_graft *graft, uint64_t object)
{
	return (uint64_t)graft->index << PV_OBJECT_BITS | object;
}

static int emit(void *private, const char *name, uint64_t object, unsigned type, uint64_t next)
{
	struct listing *listing = private;
	uint64_t ino = ino_of(listing->graft, object);
	int r;

	if (type == DT_DIR && listing->nodes) {
		struct pv_graft *child = pv_graft_covering(listing->graft, object);

		if (child)
			ino = ino_of(child, child->root);
	}
	r = add(listing, name, listing->nodes ? object : 0, ino, type, to_offset(next));
	if (r < 0)
		listing->error = r;
	return r;
}

static uint64_t parent_ino(const struct listing *listing, const struct pv_noderef *dir)
{
	const struct pv_graft *graft = listing->graft;
	uint64_t parent;

	if (graft->above && pv_is_root(dir))
		return graft->snapshot ? ino_of(graft->above, PV_CTL_SNAPSHOTS) : graft->covered_parent;
	if (zpl_parent(dir->node, &parent) < 0)
		parent = zpl_object(dir->node);
	return ino_of(graft, parent);
}

/* Lists what goes into one answer. */
static int list(struct listing *listing, uint64_t nodeid, const struct pv_noderef *dir, off_t off)
{
	bool ctl = pv_is_ctl(nodeid), stop = false, eof;
	uint64_t own = ctl ? nodeid : ino_of(listing->graft, zpl_object(dir->node));
	int r = 0;

	if (off < OFF_DOTDOT)
		stop = add(listing, ".", 0, own, DT_DIR, OFF_DOTDOT) != 0;
	if (!stop && off < OFF_ZFS) {
		uint64_t up = ctl ? ino_of(listing->graft, PV_CTL_ROOT) : parent_ino(listing, dir);

		stop = add(listing, "..", 0, up, DT_DIR, OFF_ZFS) != 0;
	}
	if (!stop && off < OFF_FIRST && !ctl && !listing->graft->snapshot && pv_is_root(dir)) {
		if (zpl_fs_snapdir_visible(zpl_node_fs(dir->node)))
			stop = add(listing, ".zfs", 0, ino_of(listing->graft, PV_CTL_ROOT), DT_DIR,
				       OFF_FIRST) != 0;
	}
	if (stop)
		return 0;
	if (ctl)
		r = pv_ctl_readdir(listing->graft, nodeid, to_cookie(off), emit, listing);
	else
		r = zpl_readdir(dir->node, to_cookie(off), emit, listing, &eof);
	if (r < 0)
		return r;
	return listing->error;
}

/* The attributes and a counted lookup of one item; entry->ino 0 leaves it to a later lookup. */
static void look_up(const struct listing *listing, struct zpl_fs *fs, const struct item *item,
	struct fuse_entry_param *ret_entry)
{
	struct zpl_node *node;

	*ret_entry = (struct fuse_entry_param){
		.attr = {.st_ino = item->ino, .st_mode = item->type << 12},
	};
	if (!item->object || zpl_get(fs, item->object, 0, &node) < 0)
		return;
	/* On failure *ret_entry is as it was. */
	pv_make_entry(listing->graft, node, NULL, ret_entry);
}

static void answer(fuse_req_t req, const struct listing *listing, struct zpl_fs *fs, size_t size)
{
	struct pv_connection *connection = fuse_req_userdata(req);
	pv_autofree char *buffer = malloc(size + 1);
	pv_autofree uint64_t *counted = calloc(listing->count + 1, sizeof(*counted));
	size_t used = 0, ncounted = 0;

	if (!buffer || !counted) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (size_t i = 0; i < listing->count; i++) {
		const struct item *item = &listing->items[i];
		const char *name = listing->names + item->name;

		if (listing->plus) {
			struct fuse_entry_param entry;

			look_up(listing, fs, item, &entry);
			if (entry.ino)
				counted[ncounted++] = entry.ino;
			used += fuse_add_direntry_plus(
				req, buffer + used, size - used, name, &entry, item->next);
		} else {
			const struct stat st = {.st_ino = item->ino, .st_mode = item->type << 12};

			used += fuse_add_direntry(req, buffer + used, size - used, name, &st, item->next);
		}
	}
	if (fuse_reply_buf(req, buffer, used) < 0) {
		while (ncounted > 0)
			pv_node_forget(connection, counted[--ncounted], 1);
	}
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
	struct pv_connection *connection = fuse_req_userdata(req);
	struct listing listing = {.req = req, .plus = plus, .left = size};
	pv_autonode struct pv_noderef dir = {};
	int r = 0;

	if (pv_refused(req))
		return;
	if (pv_is_ctl(ino)) {
		listing.graft = pv_ctl_graft(connection, ino);
		r = listing.graft ? 0 : -ESTALE;
	} else {
		r = pv_node_get(connection, ino, &dir);
		listing.graft = dir.graft;
		listing.nodes = true;
	}
	if (r == 0)
		r = list(&listing, ino, &dir, off);
	/* What was listed before an error is an answer; the error comes with the next request. */
	if (r < 0 && listing.count == 0)
		fuse_reply_err(req, -r);
	else
		answer(req, &listing, dir.node ? zpl_node_fs(dir.node) : NULL, size);
	free(listing.items);
	free(listing.names);
}

void pv_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_dir(req, ino, size, off, false);
}

void pv_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	read_dir(req, ino, size, off, true);
}
