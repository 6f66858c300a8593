/*
 * From labels to a pool's configuration. Every device carries four copies of a label: two at its start, two
 * at its end (its size rounded down to 256 KiB). Of each 256 KiB label the part that counts here is the 112
 * KiB at 16 KiB: a packed name-value list, and at its very end a SHA-256 over the whole with the byte offset
 * in the checksum's place. A copy is taken only if that sum matches; of the copies of one device the one of
 * the highest transaction group counts.
 *
 * A label describes the device's own top-level vdev (all mirror sides of it, say) and how many top-levels
 * there are. The pool is put together of the newest description of each; what is described nowhere enters as
 * "missing", and spa_import() decides whether it can do without.
 *
 * Labels are hostile: every field is looked up with its type, counts are bounded before they size anything.
 */
#include "pool/pool_int.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <stdatomic.h>
#include <sys/sha2.h>
#include <sys/vdev_impl.h>
#include <sys/zio.h>

#define TOPS_MAX 1024
#define LABEL_SIZE sizeof(vdev_label_t)
#define LABEL_MAGIC 0x210da7ab10c7a11ULL

struct found {
	char path[MAXPATHLEN];
	nvlist_t *label;
	uint64_t pool_guid, guid, top_guid, top_id, txg, state;
	const char *name; /* in label */
};

struct search {
	struct found found[POOL_DEVICES_MAX];
	unsigned count;
	unsigned unreadable; /* devices of which no label could be read at all */
};

static bool checksum_matches(const vdev_phys_t *phys, uint64_t offset)
{
	bool swapped = phys->vp_zbt.zec_magic == BSWAP_64(LABEL_MAGIC);
	pv_autofree vdev_phys_t *copy = malloc(sizeof(*copy));
	uint64_t verifier = swapped ? BSWAP_64(offset) : offset;
	uint64_t digest[4];
	SHA2_CTX context;

	if (!copy || (!swapped && phys->vp_zbt.zec_magic != LABEL_MAGIC))
		return false;
	memcpy(copy, phys, sizeof(*copy));
	memset(&copy->vp_zbt.zec_cksum, 0, sizeof(copy->vp_zbt.zec_cksum));
	copy->vp_zbt.zec_cksum.zc_word[0] = verifier;
	SHA2Init(SHA256, &context);
	SHA2Update(&context, copy, sizeof(*copy));
	SHA2Final(digest, &context);
	for (int i = 0; i < 4; i++) {
		uint64_t word = phys->vp_zbt.zec_cksum.zc_word[i];

		if ((swapped ? BSWAP_64(word) : word) != BE_64(digest[i]))
			return false;
	}
	return true;
}

/* Takes a label's fields; false if it is not that of an ordinary leaf. */
static bool take_fields(nvlist_t *label, struct found *found)
{
	nvlist_t *tree;

	if (nvlist_lookup_uint64(label, ZPOOL_CONFIG_POOL_GUID, &found->pool_guid) != 0 ||
		nvlist_lookup_uint64(label, ZPOOL_CONFIG_GUID, &found->guid) != 0 ||
		nvlist_lookup_uint64(label, ZPOOL_CONFIG_TOP_GUID, &found->top_guid) != 0 ||
		nvlist_lookup_uint64(label, ZPOOL_CONFIG_POOL_TXG, &found->txg) != 0 ||
		nvlist_lookup_uint64(label, ZPOOL_CONFIG_POOL_STATE, &found->state) != 0 ||
		nvlist_lookup_string(label, ZPOOL_CONFIG_POOL_NAME, &found->name) != 0 ||
		nvlist_lookup_nvlist(label, ZPOOL_CONFIG_VDEV_TREE, &tree) != 0 ||
		nvlist_lookup_uint64(tree, ZPOOL_CONFIG_ID, &found->top_id) != 0)
		return false;
	/* Transaction group 0: the device was being added when everything stopped, and never became part. */
	return found->txg != 0 && found->guid != 0 && found->pool_guid != 0 && found->top_id < TOPS_MAX &&
	       found->state <= POOL_STATE_DESTROYED;
}

static int read_labels(struct pool_device *device, void *private)
{
	struct search *search = private;
	struct found *best = &search->found[search->count];
	uint64_t size = P2ALIGN_TYPED(atomic_load(&device->bdev->size), LABEL_SIZE, uint64_t);
	pv_autofree vdev_phys_t *phys = NULL;
	unsigned readable = 0;

	if (size < VDEV_LABELS * LABEL_SIZE || posix_memalign((void **)&phys, 4096, sizeof(*phys)) != 0)
		return 0;
	*best = (struct found){0};
	for (int l = 0; l < VDEV_LABELS; l++) {
		uint64_t offset = vdev_label_offset(size, l, offsetof(vdev_label_t, vl_vdev_phys));
		struct found candidate = {0};
		nvlist_t *label = NULL;

		if (pv_bdev_read(device->bdev, phys, sizeof(*phys), offset) < 0)
			continue;
		readable++;
		if (!checksum_matches(phys, offset) ||
			nvlist_unpack(phys->vp_nvlist, sizeof(phys->vp_nvlist), &label, 0) != 0)
			continue;
		candidate.label = label;
		if (!take_fields(label, &candidate) || (best->label && candidate.txg <= best->txg)) {
			nvlist_free(label);
			continue;
		}
		nvlist_free(best->label);
		*best = candidate;
	}
	search->unreadable += readable == 0;
	if (best->label) {
		strlcpy(best->path, device->path, sizeof(best->path));
		search->count++;
	}
	return 0;
}

static void search_free(struct search *search)
{
	for (unsigned i = 0; i < search->count; i++)
		nvlist_free(search->found[i].label);
	free(search);
}

/* Each leaf whose label was found gets the path under which its device is registered. */
static void fix_paths(nvlist_t *vdev, const struct search *search, int depth)
{
	nvlist_t **children;
	uint64_t guid;
	uint_t count;

	if (depth > 8)
		return;
	if (nvlist_lookup_nvlist_array(vdev, ZPOOL_CONFIG_CHILDREN, &children, &count) == 0) {
		for (uint_t c = 0; c < count; c++)
			fix_paths(children[c], search, depth + 1);
		return;
	}
	if (nvlist_lookup_uint64(vdev, ZPOOL_CONFIG_GUID, &guid) != 0)
		return;
	for (unsigned i = 0; i < search->count; i++) {
		if (search->found[i].guid == guid)
			(void)nvlist_add_string(vdev, ZPOOL_CONFIG_PATH, search->found[i].path);
	}
}

static bool is_hole(nvlist_t *newest, uint64_t id)
{
	uint64_t *holes;
	uint_t count;

	if (nvlist_lookup_uint64_array(newest, ZPOOL_CONFIG_HOLE_ARRAY, &holes, &count) != 0)
		return false;
	for (uint_t i = 0; i < count; i++) {
		if (holes[i] == id)
			return true;
	}
	return false;
}

static nvlist_t *placeholder(uint64_t id, bool hole)
{
	nvlist_t *vdev = fnvlist_alloc();

	fnvlist_add_string(vdev, ZPOOL_CONFIG_TYPE, hole ? VDEV_TYPE_HOLE : VDEV_TYPE_MISSING);
	fnvlist_add_uint64(vdev, ZPOOL_CONFIG_ID, id);
	fnvlist_add_uint64(vdev, ZPOOL_CONFIG_GUID, 0);
	return vdev;
}

static void copy_field(nvlist_t *to, nvlist_t *from, const char *name)
{
	nvpair_t *pair;

	if (nvlist_lookup_nvpair(from, name, &pair) == 0)
		(void)nvlist_add_nvpair(to, pair);
}

/* The tree of all top-levels, each as its newest label of this pool has it. */
static nvlist_t *assemble_tree(const struct search *search, const struct found *newest, uint64_t tops)
{
	nvlist_t **children = calloc(tops, sizeof(nvlist_t *));
	nvlist_t *root;

	if (!children)
		return NULL;
	for (uint64_t id = 0; id < tops; id++) {
		const struct found *best = NULL;
		nvlist_t *tree;

		for (unsigned i = 0; i < search->count; i++) {
			const struct found *f = &search->found[i];

			if (f->pool_guid == newest->pool_guid && f->top_id == id &&
				(!best || f->txg > best->txg))
				best = f;
		}
		if (best && !is_hole(newest->label, id) &&
			nvlist_lookup_nvlist(best->label, ZPOOL_CONFIG_VDEV_TREE, &tree) == 0) {
			children[id] = fnvlist_dup(tree);
			fix_paths(children[id], search, 0);
		} else {
			children[id] = placeholder(id, is_hole(newest->label, id));
		}
	}
	root = fnvlist_alloc();
	fnvlist_add_string(root, ZPOOL_CONFIG_TYPE, VDEV_TYPE_ROOT);
	fnvlist_add_uint64(root, ZPOOL_CONFIG_ID, 0);
	fnvlist_add_uint64(root, ZPOOL_CONFIG_GUID, newest->pool_guid);
	fnvlist_add_nvlist_array(root, ZPOOL_CONFIG_CHILDREN, (const nvlist_t **)children, (uint_t)tops);
	for (uint64_t id = 0; id < tops; id++)
		nvlist_free(children[id]);
	free(children);
	return root;
}

static int assemble(
	const struct search *search, const struct found *newest, nvlist_t **ret_config, struct pv_error *err)
{
	static const char *const fields[] = {ZPOOL_CONFIG_VERSION, ZPOOL_CONFIG_POOL_GUID,
		ZPOOL_CONFIG_POOL_NAME, ZPOOL_CONFIG_POOL_STATE, ZPOOL_CONFIG_POOL_TXG, ZPOOL_CONFIG_COMMENT,
		ZPOOL_CONFIG_COMPATIBILITY, ZPOOL_CONFIG_HOSTID, ZPOOL_CONFIG_HOSTNAME,
		ZPOOL_CONFIG_VDEV_CHILDREN, ZPOOL_CONFIG_HOLE_ARRAY};
	uint64_t tops = 0, version;
	nvlist_t *config, *tree;

	if (nvlist_lookup_uint64(newest->label, ZPOOL_CONFIG_VERSION, &version) != 0 ||
		!SPA_VERSION_IS_SUPPORTED(version))
		return pv_fail(err, -ENOTSUP, newest->name, "the pool's version is unknown to this OpenZFS");
	if (nvlist_lookup_uint64(newest->label, ZPOOL_CONFIG_VDEV_CHILDREN, &tops) != 0) {
		/* Old pools do not say how many there are. */
		for (unsigned i = 0; i < search->count; i++) {
			if (search->found[i].pool_guid == newest->pool_guid)
				tops = MAX(tops, search->found[i].top_id + 1);
		}
	}
	if (tops == 0 || tops > TOPS_MAX)
		return pv_fail(err, -EUCLEAN, newest->name, "the labels name %llu top-level devices",
			(unsigned long long)tops);
	tree = assemble_tree(search, newest, tops);
	if (!tree)
		return pv_fail(err, -ENOMEM, newest->name, "out of memory");
	config = fnvlist_alloc();
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		copy_field(config, newest->label, fields[i]);
	fnvlist_add_nvlist(config, ZPOOL_CONFIG_VDEV_TREE, tree);
	fnvlist_free(tree);
	*ret_config = config;
	return 0;
}

/* The newest label of the wanted pool. */
static int choose(
	const struct search *search, const char *name, const struct found **ret_newest, struct pv_error *err)
{
	const struct found *newest = NULL;

	for (unsigned i = 0; i < search->count; i++) {
		const struct found *f = &search->found[i];

		if ((name && strcmp(name, f->name) != 0) || f->state == POOL_STATE_DESTROYED)
			continue;
		if (newest && newest->pool_guid != f->pool_guid) {
			(void)pv_fail(err, -EEXIST, name ? name : newest->name,
				name ? "there are two pools of this name on the devices"
				     : "there are several pools on the devices");
			return pv_remedy(err, "name the pool, or open only the devices of one");
		}
		if (!newest || f->txg > newest->txg)
			newest = f;
	}
	if (newest) {
		*ret_newest = newest;
		return 0;
	}
	if (search->unreadable)
		return pv_fail(err, -EIO, name, "no label could be read: %u of the devices fail",
			search->unreadable);
	if (search->count && name)
		return pv_fail(err, -ENOENT, name, "there is no pool of this name on the devices");
	return pv_fail(err, -ENOENT, name, "there is no pool on the devices");
}

int pool_labels_assemble(const char *name, nvlist_t **ret_config, struct pv_error *err)
{
	struct search *search = calloc(1, sizeof(*search));
	const struct found *newest = NULL;
	int error;

	if (!search)
		return pv_fail(err, -ENOMEM, name, "out of memory");
	(void)pool_device_walk(read_labels, search);
	error = choose(search, name, &newest, err);
	if (error == 0)
		error = assemble(search, newest, ret_config, err);
	search_free(search);
	return error;
}
