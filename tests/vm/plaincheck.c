/*
 * Describes the file systems of a pool in a plain file (no encryption header) in the form of
 * tools/vm/manifest.py, one JSON line per file, read through our own POSIX layer alone: for pools that the
 * kernel made.
 *
 *   plaincheck IMAGE LABEL_PATH POOL [DATASET@SNAPSHOT...] >MANIFEST
 */
#include "base/error.h"
#include "block/file.h"
#include "pool/pool.h"
#include "zpl/zpl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static struct pv_error err;
static int failures;

__attribute__((noreturn)) static void die(const char *what)
{
	fflush(stdout);
	fprintf(stderr, "plaincheck: %s: %s: %s\n", what, err.object, err.message);
	_exit(2);
}

static void wrong(const char *path, const char *what, int rc)
{
	fprintf(stderr, "%s: %s: %s\n", path, what, pv_strerror(rc));
	failures++;
}

/* The mounted file systems by the place where the manifest expects them. */
struct dataset {
	char *name, *place;
	struct zpl_fs *fs;
};
static struct dataset datasets[128];
static unsigned ndatasets;

static void add_dataset(const char *name, const char *place)
{
	struct dataset *d = &datasets[ndatasets++];

	d->name = strdup(name);
	d->place = strdup(place);
	if (zpl_fs_mount(name, true, &d->fs, &err) < 0)
		die(name);
}

static int each_dataset(const struct pv_dataset_info *info, void *private)
{
	/* the manifest's paths are the mount points without the slash, which are the datasets' names */
	if (!info->is_volume && ndatasets < 128)
		add_dataset(info->name, info->mountpoint[0] == '/' ? info->mountpoint + 1 : info->name);
	return 0;
}

static struct dataset *dataset_at(const char *place)
{
	for (unsigned i = 0; i < ndatasets; i++)
		if (!strcmp(datasets[i].place, place))
			return &datasets[i];
	return NULL;
}

static void add_hex(struct json_object *into, const char *key, const uint8_t *data, size_t length)
{
	char *text = malloc(2 * length + 1);

	text[0] = 0;
	for (size_t i = 0; i < length; i++)
		sprintf(text + 2 * i, "%02x", data[i]);
	json_object_object_add(into, key, json_object_new_string(text));
	free(text);
}

static struct json_object *int64(int64_t value)
{
	return json_object_new_int64(value);
}

/* SHA-256 of a range as hex, into `into` as array element or member. */
static int digest(struct zpl_node *node, uint64_t offset, uint64_t length, char ret_hex[static 65])
{
	static uint8_t buffer[1 << 20];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t out[32];
	int rc = 0;

	EVP_DigestInit_ex(md, EVP_sha256(), NULL);
	while (length && rc == 0) {
		size_t n = 0;

		rc = zpl_read(node, offset, length < sizeof(buffer) ? length : sizeof(buffer), buffer, &n);
		if (rc == 0 && n == 0)
			rc = -EIO;
		if (rc == 0)
			EVP_DigestUpdate(md, buffer, n);
		offset += n;
		length -= n;
	}
	EVP_DigestFinal_ex(md, out, NULL);
	EVP_MD_CTX_free(md);
	for (int i = 0; i < 32; i++)
		sprintf(ret_hex + 2 * i, "%02x", out[i]);
	return rc;
}

static void describe_data(
	struct json_object *r, struct zpl_node *node, const struct zpl_attr *attr, const char *path)
{
	char hex[65];
	struct json_object *extents;
	uint64_t o = 0, e;
	int rc = 0;

	json_object_object_add(r, "size", int64((int64_t)attr->size));
	json_object_object_add(r, "blocks512", int64((int64_t)attr->blocks));
	if (attr->size <= 1 << 30) {
		rc = digest(node, 0, attr->size, hex);
		json_object_object_add(r, "sha256", json_object_new_string(hex));
		if (rc < 0)
			wrong(path, "read", rc);
		return;
	}
	extents = json_object_new_array();
	while (rc == 0 && zpl_seek(node, o, SEEK_DATA, &o) == 0) {
		struct json_object *x = json_object_new_array();

		rc = zpl_seek(node, o, SEEK_HOLE, &e);
		if (rc == 0)
			rc = digest(node, o, e - o, hex);
		json_object_array_add(x, int64((int64_t)o));
		json_object_array_add(x, int64((int64_t)(e - o)));
		json_object_array_add(x, json_object_new_string(hex));
		json_object_array_add(extents, x);
		o = e;
	}
	if (rc < 0)
		wrong(path, "read of an extent", rc);
	json_object_object_add(r, "extents", extents);
}

static void describe_xattrs(struct json_object *r, struct zpl_node *node, const char *path)
{
	static char names[1 << 16], value[1 << 17];
	struct json_object *x = json_object_new_object();
	size_t length = 0, size = 0;
	int rc = zpl_listxattr(node, names, sizeof(names), &length);

	if (rc < 0)
		wrong(path, "listxattr", rc);
	for (char *n = names; rc == 0 && n < names + length; n += strlen(n) + 1) {
		int got = zpl_getxattr(node, n, value, sizeof(value), &size);

		if (got < 0)
			wrong(path, n, got);
		else
			add_hex(x, n, (uint8_t *)value, size);
	}
	if (json_object_object_length(x))
		json_object_object_add(r, "xattrs", x);
	else
		json_object_put(x);
}

static const char *type_name(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "dir";
	case S_IFLNK: return "link";
	case S_IFIFO: return "fifo";
	case S_IFCHR: return "chr";
	case S_IFBLK: return "blk";
	default: return "other";
	}
}

static void describe(struct zpl_node *node, const struct zpl_attr *attr, const char *path)
{
	struct json_object *r = json_object_new_object(), *rdev;
	char text[4096];
	int rc;

	json_object_object_add(r, "path", json_object_new_string(path));
	json_object_object_add(r, "type", json_object_new_string(type_name(attr->mode)));
	snprintf(text, sizeof(text), "0o%o", attr->mode & 07777);
	json_object_object_add(r, "mode", json_object_new_string(text));
	json_object_object_add(r, "uid", int64(attr->uid));
	json_object_object_add(r, "gid", int64(attr->gid));
	json_object_object_add(r, "nlink", int64((int64_t)attr->nlink));
	json_object_object_add(r, "mtime_ns", int64(attr->mtime.tv_sec * 1000000000LL + attr->mtime.tv_nsec));
	json_object_object_add(r, "ino", int64((int64_t)attr->object));
	if (S_ISREG(attr->mode))
		describe_data(r, node, attr, path);
	if (S_ISLNK(attr->mode)) {
		rc = zpl_readlink(node, text, sizeof(text));
		if (rc < 0)
			wrong(path, "readlink", rc);
		json_object_object_add(r, "target", json_object_new_string(rc < 0 ? "" : text));
	}
	if (S_ISCHR(attr->mode) || S_ISBLK(attr->mode)) {
		rdev = json_object_new_array();
		json_object_array_add(rdev, int64(major(attr->rdev)));
		json_object_array_add(rdev, int64(minor(attr->rdev)));
		json_object_object_add(r, "rdev", rdev);
	}
	describe_xattrs(r, node, path);
	puts(json_object_to_json_string_ext(r, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(r);
}

struct names {
	char **list;
	size_t count;
};

static int collect(void *private, const char *name, uint64_t object, unsigned type, uint64_t next_cookie)
{
	struct names *n = private;

	n->list = realloc(n->list, (n->count + 1) * sizeof(*n->list));
	n->list[n->count++] = strdup(name);
	return 0;
}

static void walk(struct zpl_node *node, const char *path)
{
	struct zpl_attr attr;
	struct names names = {0};
	bool eof = false;
	int rc = zpl_getattr(node, &attr);

	if (rc < 0)
		return wrong(path, "getattr", rc);
	describe(node, &attr, path);
	if (!S_ISDIR(attr.mode))
		return;
	rc = zpl_readdir(node, 0, collect, &names, &eof);
	if (rc < 0 || !eof)
		wrong(path, "readdir", rc);
	for (size_t i = 0; i < names.count; i++) {
		struct zpl_node *child = NULL;
		struct dataset *mounted;
		char *below = NULL;

		if (asprintf(&below, "%s/%s", path, names.list[i]) < 0)
			abort();
		mounted = strchr(path, '@') ? NULL : dataset_at(below);
		rc = mounted ? zpl_root(mounted->fs, &child) : zpl_lookup(node, names.list[i], &child);
		if (rc < 0)
			wrong(below, "lookup", rc);
		else
			walk(child, below);
		zpl_release(child);
		free(below);
		free(names.list[i]);
	}
	free(names.list);
}

int main(int argc, char **argv)
{
	char state[] = "/tmp/plaincheck.XXXXXX";
	struct pv_pool_options options = {.state_dir = mkdtemp(state), .arc_max = 128 << 20};
	struct pv_file_options file = {.read_only = true, .label = argc > 1 ? argv[1] : ""};
	struct pv_pool_import import = {.name = argc > 3 ? argv[3] : NULL, .read_only = true, .force = true};
	struct pv_bdev *disk = NULL;
	struct zpl_node *root = NULL;
	int fd;

	if (argc < 4) {
		fprintf(stderr, "usage: plaincheck IMAGE LABEL_PATH POOL [DATASET@SNAPSHOT...]\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		perror(argv[1]);
		return 2;
	}
	if (pv_pool_start(&options, &err) < 0 || pv_file_open(fd, &file, &disk, &err) < 0 ||
		pv_pool_register_device(argv[2], disk, &err) < 0 || pv_pool_import(&import, NULL, &err) < 0 ||
		pv_dataset_walk(argv[3], each_dataset, NULL, &err) < 0)
		die("import");
	for (int i = 4; i < argc; i++)
		add_dataset(argv[i], argv[i]);
	for (unsigned i = 0; i < ndatasets; i++) {
		/* the pool's root file system holds the others; snapshots stand alone */
		if (strcmp(datasets[i].name, argv[3]) && !strchr(datasets[i].name, '@'))
			continue;
		if (zpl_root(datasets[i].fs, &root) < 0)
			die("root directory");
		walk(root, datasets[i].place);
		zpl_release(root);
	}
	for (unsigned i = 0; i < ndatasets; i++) {
		int rc = zpl_fs_unmount(datasets[i].fs, false);

		if (rc < 0)
			wrong(datasets[i].name, "unmount", rc);
	}
	if (pv_pool_export(argv[3], false, &err) < 0)
		die("export");
	pv_pool_unregister_device(argv[2]);
	pv_pool_stop();
	pv_bdev_close(disk);
	rmdir(state);
	fprintf(stderr, "%u file systems, %d failures\n", ndatasets, failures);
	fflush(stdout);
	_exit(failures ? 1 : 0);
}
