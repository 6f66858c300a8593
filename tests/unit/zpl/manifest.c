/*
 * manifest DIR POOL FILE: reads the pool found in DIR, read-only, and compares every file with FILE, one JSON
 * object per line as the kernel saw it: path (below the pool's name; "fs@snap/..." for snapshots), type,
 * mode, uid, gid, nlink, ino, mtime_ns, size, blocks512, sha256 or extents [offset, length, sha256], target,
 * rdev, xattrs in hex. For golden images that are too large for the test suite.
 */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <json-c/json.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static unsigned long files, wrong, values;

/* ---- datasets by name ---- */

static struct dataset {
	char *name;
	struct zpl_fs *fs; /* NULL: there is none */
	struct dataset *next;
} * datasets;

static struct zpl_fs *dataset(const char *name)
{
	struct dataset *d;
	struct pv_error err;
	int ret;

	for (d = datasets; d; d = d->next)
		if (!strcmp(d->name, name))
			return d->fs;
	d = calloc(1, sizeof(*d));
	d->name = strdup(name);
	ret = zpl_fs_mount(name, true, &d->fs, &err);
	if (ret && ret != -ENOENT)
		printf("%s: %s\n", name, err.message);
	if (ret)
		d->fs = NULL;
	d->next = datasets;
	datasets = d;
	return d->fs;
}

/* From a manifest path to a node: while the directory is a dataset's root, a child may be a dataset. */
static struct zpl_node *resolve(const char *path)
{
	char *copy = strdup(path), *rest = copy, *component, name[1024];
	struct zpl_node *node = NULL, *next;
	bool at_root = true;

	component = strsep(&rest, "/");
	snprintf(name, sizeof(name), "%s", component);
	while ((component = rest ? strsep(&rest, "/") : NULL) && at_root && !strchr(name, '@')) {
		size_t length = strlen(name);

		snprintf(name + length, sizeof(name) - length, "/%s", component);
		if (strchr(component, '@') == NULL && strlen(component) < 100 && dataset(name))
			continue;
		if (strchr(component, '@') && dataset(name))
			continue;
		name[length] = '\0';
		at_root = false;
		break;
	}
	if (dataset(name) && zpl_root(dataset(name), &node) == 0) {
		while (component) {
			int ret = zpl_lookup(node, component, &next);

			zpl_release(node);
			node = ret ? NULL : next;
			if (ret) {
				printf("%s: lookup: %s\n", path, strerror(-ret));
				break;
			}
			component = rest ? strsep(&rest, "/") : NULL;
		}
	}
	free(copy);
	return node;
}

/* ---- comparing ---- */

static bool failed;

static void same_int(const char *path, struct json_object *line, const char *key, int64_t value)
{
	struct json_object *member;

	if (!json_object_object_get_ex(line, key, &member))
		return;
	values++;
	if (json_object_get_int64(member) != value) {
		printf("%s: %s is %lld, not %lld\n", path, key, (long long)value,
			(long long)json_object_get_int64(member));
		failed = true;
	}
}

static void same_string(const char *path, struct json_object *line, const char *key, const char *value)
{
	struct json_object *member;

	if (!json_object_object_get_ex(line, key, &member))
		return;
	values++;
	if (strcmp(json_object_get_string(member), value) != 0) {
		printf("%s: %s is %.80s, not %.80s\n", path, key, value, json_object_get_string(member));
		failed = true;
	}
}

static void to_hex(const unsigned char *data, size_t length, char *hex)
{
	for (size_t i = 0; i < length; i++)
		sprintf(hex + 2 * i, "%02x", data[i]);
	hex[2 * length] = '\0';
}

static void hash(const char *path, struct zpl_node *node, uint64_t offset, uint64_t length, char *hex)
{
	static char buffer[1 << 20];
	unsigned char digest[32];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t n;

	EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
	while (length) {
		int ret =
			zpl_read(node, offset, length < sizeof(buffer) ? length : sizeof(buffer), buffer, &n);

		if (ret || n == 0) {
			printf("%s: read: %s\n", path, strerror(-ret));
			failed = true;
			break;
		}
		EVP_DigestUpdate(ctx, buffer, n);
		offset += n;
		length -= n;
	}
	EVP_DigestFinal_ex(ctx, digest, NULL);
	EVP_MD_CTX_free(ctx);
	to_hex(digest, sizeof(digest), hex);
}

static void compare_data(const char *path, struct zpl_node *node, struct json_object *line, uint64_t size)
{
	struct json_object *extents;
	char hex[65];
	uint64_t offset = 0;

	if (!json_object_object_get_ex(line, "extents", &extents)) {
		hash(path, node, 0, size, hex);
		same_string(path, line, "sha256", hex);
		return;
	}
	for (size_t i = 0; i < json_object_array_length(extents); i++) {
		struct json_object *extent = json_object_array_get_idx(extents, i);
		uint64_t start = json_object_get_uint64(json_object_array_get_idx(extent, 0));
		uint64_t length = json_object_get_uint64(json_object_array_get_idx(extent, 1)), data, end;

		OK(zpl_seek(node, offset, SEEK_DATA, &data));
		OK(zpl_seek(node, data, SEEK_HOLE, &end));
		hash(path, node, start, length, hex);
		values += 3;
		if (data != start || end != start + length ||
			strcmp(hex, json_object_get_string(json_object_array_get_idx(extent, 2))) != 0) {
			printf("%s: extent %zu differs\n", path, i);
			failed = true;
		}
		offset = end;
	}
	CHECK_INT(zpl_seek(node, offset, SEEK_DATA, &offset), -ENXIO);
}

static void compare_xattrs(const char *path, struct zpl_node *node, struct json_object *line)
{
	static char list[65536], hex[131073];
	static unsigned char value[65536];
	struct json_object *xattrs = NULL;
	size_t length, size, count = 0;

	json_object_object_get_ex(line, "xattrs", &xattrs);
	if (zpl_listxattr(node, list, sizeof(list), &length) != 0) {
		printf("%s: listxattr failed\n", path);
		failed = true;
		return;
	}
	for (char *name = list; name < list + length; name += strlen(name) + 1) {
		OK(zpl_getxattr(node, name, value, sizeof(value), &size));
		to_hex(value, size, hex);
		if (!xattrs || !json_object_object_get_ex(xattrs, name, NULL)) {
			printf("%s: xattr %s should not be there\n", path, name);
			failed = true;
		} else {
			same_string(path, xattrs, name, hex);
		}
		count++;
	}
	if (count != (xattrs ? (size_t)json_object_object_length(xattrs) : 0)) {
		printf("%s: %zu xattrs\n", path, count);
		failed = true;
	}
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
	default: return "?";
	}
}

static void compare(struct json_object *line)
{
	const char *path = json_object_get_string(json_object_object_get(line, "path"));
	struct zpl_node *node = resolve(path);
	struct zpl_attr attr;
	struct json_object *rdev;
	char text[4096];

	files++;
	failed = false;
	/* A snapshot's own root: the kernel shows the directory in .zfs on which it would be mounted. */
	if (strchr(path, '@') && !strchr(strchr(path, '@'), '/')) {
		zpl_release(node);
		return;
	}
	if (!node) {
		printf("%s: not found\n", path);
		wrong++;
		return;
	}
	OK(zpl_getattr(node, &attr));
	same_string(path, line, "type", type_name(attr.mode));
	snprintf(text, sizeof(text), "0o%o", attr.mode & 07777);
	same_string(path, line, "mode", text);
	same_int(path, line, "uid", attr.uid);
	same_int(path, line, "gid", attr.gid);
	same_int(path, line, "nlink", (int64_t)attr.nlink);
	same_int(path, line, "ino", (int64_t)attr.object);
	same_int(path, line, "mtime_ns", attr.mtime.tv_sec * 1000000000LL + attr.mtime.tv_nsec);
	same_int(path, line, "size", (int64_t)attr.size);
	same_int(path, line, "blocks512", (int64_t)attr.blocks);
	if (S_ISREG(attr.mode))
		compare_data(path, node, line, attr.size);
	if (S_ISLNK(attr.mode)) {
		OK(zpl_readlink(node, text, sizeof(text)));
		same_string(path, line, "target", text);
	}
	if (json_object_object_get_ex(line, "rdev", &rdev)) {
		values++;
		failed |= makedev((unsigned)json_object_get_int(json_object_array_get_idx(rdev, 0)),
				  (unsigned)json_object_get_int(json_object_array_get_idx(rdev, 1))) !=
			  attr.rdev;
	}
	compare_xattrs(path, node, line);
	zpl_release(node);
	if (failed)
		wrong++;
}

/* ---- what the manifest does not name must not be there ---- */

static unsigned long listed;

static int count_entry(void *private, const char *name, uint64_t object, unsigned type, uint64_t next)
{
	struct zpl_node *node;
	bool eof;

	listed++;
	if (type == DT_DIR) {
		OK(zpl_get(private, object, 0, &node));
		OK(zpl_readdir(node, 0, count_entry, private, &eof));
		zpl_release(node);
	}
	return 0;
}

int main(int argc, char **argv)
{
	char *text = NULL;
	size_t capacity = 0;
	FILE *f;

	if (argc != 4 || !(f = fopen(argv[3], "re"))) {
		fprintf(stderr, "usage: manifest DIR POOL FILE\n");
		return 2;
	}
	test_start();
	test_import_pool(argv[1], argv[2], true);
	while (getline(&text, &capacity, f) > 0) {
		struct json_object *line = json_tokener_parse(text);

		CHECK(line != NULL);
		compare(line);
		json_object_put(line);
	}
	fclose(f);
	free(text);
	for (struct dataset *d = datasets; d; d = d->next) {
		struct zpl_node *root;
		bool eof;

		if (!d->fs)
			continue;
		OK(zpl_root(d->fs, &root));
		OK(zpl_readdir(root, 0, count_entry, d->fs, &eof));
		zpl_release(root);
		OK(zpl_fs_unmount(d->fs, false));
	}
	test_export_pool(argv[2]);
	printf("%lu files, %lu wrong, %lu values compared, %lu entries listed\n", files, wrong, values,
		listed);
	return wrong != 0;
}
