/*
 * The operations one by one, each with the answers it must give.
 */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static const struct zpl_cred root_cred = {0, 0};
static struct zpl_fs *fs;
static struct zpl_node *root;

static struct zpl_node *make_file(struct zpl_node *dir, const char *name)
{
	struct zpl_node *node;

	OK(zpl_create(dir, name, S_IFREG | 0644, 0, &root_cred, &node, NULL));
	return node;
}

static struct zpl_node *make_dir(struct zpl_node *dir, const char *name)
{
	struct zpl_node *node;

	OK(zpl_mkdir(dir, name, 0755, &root_cred, &node, NULL));
	return node;
}

static int put(struct zpl_node *node, uint64_t offset, const void *data, size_t length)
{
	struct iovec iov = {(void *)data, length};
	size_t written;
	int ret = zpl_write(node, offset, &iov, 1, false, &written);

	CHECK(ret || written == length);
	return ret;
}

static struct zpl_attr attr_of(struct zpl_node *node)
{
	struct zpl_attr attr;

	OK(zpl_getattr(node, &attr));
	return attr;
}

static bool exists(struct zpl_node *dir, const char *name)
{
	struct zpl_node *node;
	int ret = zpl_lookup(dir, name, &node);

	if (ret == 0)
		zpl_release(node);
	CHECK(ret == 0 || ret == -ENOENT);
	return ret == 0;
}

static void test_create(void)
{
	struct zpl_node *dir, *node, *again;
	struct zpl_attr attr;
	struct zpl_cred cred = {1000, 100};
	char long_name[300], target[5000], buffer[5000];

	OK(zpl_mkdir(root, "create", 02775, &(struct zpl_cred){7, 8}, &dir, &attr));
	CHECK_INT(attr.mode, S_IFDIR | 02775);
	CHECK_INT(attr.nlink, 2);
	CHECK_INT(attr.size, 2);
	CHECK_INT(attr.uid, 7);
	CHECK_INT(attr_of(root).nlink, 3);

	OK(zpl_create(dir, "file", 0640, 0, &cred, &node, &attr));
	CHECK_INT(attr.mode, S_IFREG | 0640);
	CHECK_INT(attr.uid, 1000);
	CHECK_INT(attr.gid, 8); /* the directory is set-group-id */
	CHECK_INT(attr.nlink, 1);
	CHECK(attr.generation != 0);
	CHECK(attr.mtime.tv_nsec == attr.ctime.tv_nsec);
	OK(zpl_lookup(dir, "file", &again));
	CHECK(again == node);
	zpl_release(again);
	CHECK_INT(zpl_create(dir, "file", 0640, 0, &cred, &again, NULL), -EEXIST);
	CHECK_INT(zpl_create(node, "x", 0640, 0, &cred, &again, NULL), -ENOTDIR);
	CHECK_INT(zpl_create(dir, "a/b", 0640, 0, &cred, &again, NULL), -EINVAL);
	OK(zpl_get(fs, zpl_object(node), zpl_generation(node), &again));
	zpl_release(again);
	CHECK_INT(zpl_get(fs, zpl_object(node), zpl_generation(node) + 1, &again), -ESTALE);
	CHECK_INT(zpl_get(fs, 1, 0, &again), -ENOENT);
	CHECK_INT(zpl_get(fs, 123456789, 0, &again), -ENOENT);
	zpl_release(node);

	OK(zpl_mkdir(dir, "sub", 0700, &cred, &node, &attr));
	CHECK_INT(attr.mode, S_IFDIR | 02700);
	CHECK_INT(attr_of(dir).nlink, 3);
	OK(zpl_lookup(node, "..", &again));
	CHECK(again == dir);
	zpl_release(again);
	zpl_release(node);

	OK(zpl_create(dir, "null", S_IFCHR | 0666, makedev(1, 3), &cred, &node, &attr));
	CHECK(attr.rdev == makedev(1, 3));
	zpl_release(node);
	OK(zpl_create(dir, "pipe", S_IFIFO | 0666, 0, &cred, &node, NULL));
	zpl_release(node);

	memset(long_name, 'n', sizeof(long_name));
	long_name[256] = '\0';
	CHECK_INT(zpl_create(dir, long_name, 0644, 0, &cred, &node, NULL), -ENAMETOOLONG);
	long_name[255] = '\0';
	OK(zpl_create(dir, long_name, 0644, 0, &cred, &node, NULL));
	zpl_release(node);

	for (size_t length = 1; length <= 4095; length = length * 4 + 3) {
		memset(target, 't', length);
		target[length] = '\0';
		OK(zpl_symlink(dir, "link", target, &cred, &node, &attr));
		CHECK_INT(attr.size, length);
		OK(zpl_readlink(node, buffer, sizeof(buffer)));
		CHECK(!strcmp(buffer, target));
		CHECK_INT(zpl_readlink(node, buffer, length), -ENAMETOOLONG);
		zpl_release(node);
		OK(zpl_unlink(dir, "link"));
	}
	memset(target, 't', 4096);
	target[4096] = '\0';
	CHECK_INT(zpl_symlink(dir, "link", target, &cred, &node, NULL), -ENAMETOOLONG);
	zpl_release(dir);
}

static void test_link(void)
{
	struct zpl_node *dir = make_dir(root, "links"), *node = make_file(dir, "a"),
			*other = make_dir(dir, "d");

	OK(zpl_link(node, dir, "b"));
	CHECK_INT(attr_of(node).nlink, 2);
	CHECK_INT(zpl_link(node, dir, "b"), -EEXIST);
	CHECK_INT(zpl_link(other, dir, "c"), -EPERM);
	OK(zpl_unlink(dir, "a"));
	CHECK_INT(attr_of(node).nlink, 1);
	OK(zpl_unlink(dir, "b"));
	CHECK_INT(attr_of(node).nlink, 0);
	CHECK_INT(zpl_link(node, dir, "again"), -ENOENT);
	OK(put(node, 0, "still", 5));
	zpl_release(node);
	CHECK_INT(zpl_unlink(dir, "b"), -ENOENT);
	CHECK_INT(zpl_unlink(dir, "d"), -EISDIR);
	zpl_release(make_file(other, "x"));
	CHECK_INT(zpl_rmdir(dir, "d"), -ENOTEMPTY);
	CHECK_INT(zpl_rmdir(other, "x"), -ENOTDIR);
	OK(zpl_unlink(other, "x"));
	OK(zpl_rmdir(dir, "d"));
	/* Nothing can be made in a directory that is gone. */
	CHECK_INT(zpl_create(other, "late", 0644, 0, &root_cred, &node, NULL), -ENOENT);
	zpl_release(other);
	CHECK_INT(attr_of(dir).nlink, 2);
	CHECK_INT(attr_of(dir).size, 2);
	zpl_release(dir);
}

static void test_rename(void)
{
	struct zpl_node *a = make_dir(root, "ra"), *b = make_dir(root, "rb"), *node, *deep;

	node = make_file(a, "f");
	OK(zpl_rename(a, "f", a, "f", 0));
	OK(zpl_rename(a, "f", a, "g", 0));
	CHECK(!exists(a, "f") && exists(a, "g"));
	OK(zpl_rename(a, "g", b, "h", 0));
	CHECK(!exists(a, "g") && exists(b, "h"));
	CHECK_INT(attr_of(a).size, 2);
	CHECK_INT(attr_of(b).size, 3);
	zpl_release(make_file(a, "f"));
	CHECK_INT(zpl_rename(a, "f", b, "h", RENAME_NOREPLACE), -EEXIST);
	CHECK_INT(zpl_rename(a, "none", b, "h", 0), -ENOENT);
	CHECK_INT(zpl_rename(a, "f", b, "none", RENAME_EXCHANGE), -ENOENT);
	CHECK_INT(zpl_rename(a, "f", b, "none", RENAME_WHITEOUT), -EINVAL);
	OK(zpl_rename(a, "f", b, "h", 0)); /* replaces */
	CHECK_INT(attr_of(node).nlink, 0);
	zpl_release(node);
	CHECK_INT(attr_of(b).size, 3);

	/* Two names of one object: nothing happens. */
	OK(zpl_lookup(b, "h", &node));
	OK(zpl_link(node, a, "hh"));
	OK(zpl_rename(a, "hh", b, "h", 0));
	CHECK(exists(a, "hh") && exists(b, "h"));
	zpl_release(node);

	deep = make_dir(a, "deep");
	node = make_dir(deep, "er");
	CHECK_INT(zpl_rename(root, "ra", node, "loop", 0), -EINVAL);
	CHECK_INT(zpl_rename(root, "ra", a, "loop", 0), -EINVAL);
	CHECK_INT(zpl_rename(a, "deep", b, "h", 0), -ENOTDIR);
	CHECK_INT(zpl_rename(b, "h", a, "deep", 0), -EISDIR);
	zpl_release(make_dir(b, "target"));
	CHECK_INT(zpl_rename(b, "target", a, "deep", 0), -ENOTEMPTY);
	CHECK_INT(zpl_rename(deep, "er", a, "deep", 0), -ENOTEMPTY);
	OK(zpl_rename(a, "deep", b, "target", 0));
	CHECK_INT(attr_of(a).nlink, 2);
	CHECK_INT(attr_of(b).nlink, 3);
	uint64_t parent;
	OK(zpl_parent(deep, &parent));
	CHECK(parent == zpl_object(b));

	OK(zpl_rename(b, "target", a, "hh", RENAME_EXCHANGE));
	CHECK_INT(attr_of(a).nlink, 3);
	CHECK_INT(attr_of(b).nlink, 2);
	zpl_release(node);
	OK(zpl_lookup(b, "target", &node));
	CHECK(S_ISREG(attr_of(node).mode));
	zpl_release(node);
	zpl_release(deep);
	zpl_release(a);
	zpl_release(b);
}

static void test_data(void)
{
	struct zpl_node *node = make_file(root, "data");
	static char big[6 << 20], back[6 << 20];
	struct iovec iov[3];
	size_t length;

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 2654435761u >> 13);
	OK(put(node, 0, big, 100));
	OK(put(node, 100, big + 100, 70000)); /* one block grows */
	OK(put(node, 70100, big + 70100, sizeof(big) - 70100));
	CHECK_INT(attr_of(node).size, sizeof(big));
	CHECK_INT(attr_of(node).blksize, 131072);
	OK(zpl_read(node, 0, sizeof(back), back, &length));
	CHECK_INT(length, sizeof(big));
	CHECK(!memcmp(big, back, length));
	OK(zpl_read(node, sizeof(big) - 10, 100, back, &length));
	CHECK_INT(length, 10);
	OK(zpl_read(node, sizeof(big) + 10, 100, back, &length));
	CHECK_INT(length, 0);

	iov[0] = (struct iovec){big, 5};
	iov[1] = (struct iovec){big + 5, 0};
	iov[2] = (struct iovec){big + 5, 200000};
	OK(zpl_write(node, 999, iov, 3, true, &length)); /* appends */
	CHECK_INT(length, 200005);
	CHECK_INT(attr_of(node).size, sizeof(big) + 200005);
	OK(zpl_read(node, sizeof(big), 200005, back, &length));
	CHECK(length == 200005 && !memcmp(big, back, length));
	CHECK_INT(zpl_write(root, 0, iov, 1, false, &length), -EISDIR);
	CHECK_INT(put(node, INT64_MAX - 2, big, 100), -EFBIG);

	/* Shrinking clears what a later growth shows again. */
	struct zpl_attr attr = {.size = 1000};
	OK(zpl_setattr(node, &attr, ZPL_SET_SIZE, &attr));
	CHECK_INT(attr.size, 1000);
	attr.size = 3000;
	OK(zpl_setattr(node, &attr, ZPL_SET_SIZE, &attr));
	OK(zpl_read(node, 0, 5000, back, &length));
	CHECK_INT(length, 3000);
	CHECK(!memcmp(big, back, 1000));
	for (int i = 1000; i < 3000; i++)
		CHECK(back[i] == 0);
	OK(zpl_fsync(node, false));
	zpl_release(node);
}

static void test_holes(void)
{
	struct zpl_node *node = make_file(root, "sparse");
	const uint64_t far = 10ULL << 40;
	uint64_t found;
	char byte = 'x', back[8];
	size_t length;

	OK(put(node, 0, &byte, 1));
	OK(put(node, far, &byte, 1));
	CHECK_INT(attr_of(node).size, far + 1);
	/* Before it is on disk the answer may be coarse, but data is never called a hole. */
	OK(zpl_seek(node, 5, SEEK_DATA, &found));
	CHECK(found <= far);
	OK(zpl_fs_sync(fs));
	CHECK(attr_of(node).blocks < 1000);
	OK(zpl_seek(node, 1 << 20, SEEK_DATA, &found));
	CHECK(found <= far && found > far - (1 << 20));
	OK(zpl_seek(node, 0, SEEK_HOLE, &found));
	CHECK(found > 0 && found <= 1 << 20);
	OK(zpl_seek(node, far, SEEK_HOLE, &found));
	CHECK_INT(found, far + 1);
	CHECK_INT(zpl_seek(node, far + 1, SEEK_DATA, &found), -ENXIO);

	static char block[1 << 20];
	memset(block, 'y', sizeof(block));
	OK(put(node, 0, block, sizeof(block)));
	OK(zpl_fallocate(node, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 500000));
	OK(zpl_read(node, 999, 2, back, &length));
	CHECK(back[0] == 'y' && back[1] == 0);
	OK(zpl_read(node, 500999, 2, back, &length));
	CHECK(back[0] == 0 && back[1] == 'y');
	OK(zpl_fallocate(node, 0, far, 5000));
	CHECK_INT(attr_of(node).size, far + 5000);
	OK(zpl_fallocate(node, FALLOC_FL_KEEP_SIZE, far, 50000));
	CHECK_INT(attr_of(node).size, far + 5000);
	CHECK_INT(zpl_fallocate(node, 0, 0, 1ULL << 50), -ENOSPC);
	OK(zpl_fallocate(node, FALLOC_FL_ZERO_RANGE, far, 9000));
	CHECK_INT(attr_of(node).size, far + 9000);
	CHECK_INT(zpl_fallocate(node, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
	zpl_release(node);
}

static void test_attributes(void)
{
	struct zpl_node *node = make_file(root, "attributes");
	struct zpl_attr before, attr = {.mode = 04711, .uid = 12, .gid = 34};

	OK(zpl_getattr(node, &before));
	OK(zpl_setattr(node, &attr, ZPL_SET_MODE | ZPL_SET_UID | ZPL_SET_GID, &attr));
	CHECK_INT(attr.mode, S_IFREG | 04711);
	CHECK(attr.uid == 12 && attr.gid == 34);
	CHECK(attr.flags & 0x4);   /* trivial ACL */
	CHECK(attr.flags & 0x100); /* everyone may execute */
	attr = (struct zpl_attr){.atime = {-5, 7}, .mtime = {1, 2}, .ctime = {3, 4}};
	OK(zpl_setattr(node, &attr, ZPL_SET_ATIME | ZPL_SET_MTIME | ZPL_SET_CTIME, &attr));
	CHECK(attr.atime.tv_sec == -5 && attr.atime.tv_nsec == 7);
	CHECK(attr.mtime.tv_sec == 1 && attr.ctime.tv_nsec == 4);
	CHECK(attr.btime.tv_sec == before.btime.tv_sec && attr.btime.tv_nsec == before.btime.tv_nsec);
	OK(zpl_setattr(node, &attr, ZPL_SET_ATIME_NOW | ZPL_SET_MTIME_NOW, &attr));
	CHECK(attr.mtime.tv_sec >= before.mtime.tv_sec && attr.atime.tv_sec >= before.mtime.tv_sec);
	attr.size = 1;
	CHECK_INT(zpl_setattr(root, &attr, ZPL_SET_SIZE, NULL), -EISDIR);
	/* Every mode, so that every length of ACL follows every other. */
	for (unsigned mode = 0; mode < 512; mode++) {
		attr.mode = mode * 5 % 512;
		OK(zpl_setattr(node, &attr, ZPL_SET_MODE, &attr));
	}
	zpl_release(node);
}

struct seen {
	unsigned count, stop;
	uint64_t cookie;
	char *names;
};

static int emit(void *private, const char *name, uint64_t object, unsigned type, uint64_t next)
{
	struct seen *seen = private;
	struct zpl_node *node;

	if (seen->stop && seen->count == seen->stop)
		return 1;
	CHECK_INT(type, DT_REG);
	CHECK(next >= 1 && next <= INT64_MAX);
	/* Looking up from the callback is what READDIRPLUS does. */
	OK(zpl_get(fs, object, 0, &node));
	zpl_release(node);
	seen->names[atoi(name)]++;
	seen->count++;
	seen->cookie = next;
	return 0;
}

static void test_readdir(void)
{
	enum { COUNT = 5000 };
	struct zpl_node *dir = make_dir(root, "many");
	struct seen seen = {.names = calloc(1, COUNT)};
	char name[16];
	bool eof;

	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "%d", i);
		zpl_release(make_file(dir, name));
	}
	CHECK_INT(attr_of(dir).size, COUNT + 2);
	/* In pieces; between them entries go that were seen already. */
	for (eof = false; !eof;) {
		seen.stop = seen.count + 700;
		OK(zpl_readdir(dir, seen.cookie, emit, &seen, &eof));
		for (int i = 0; i < COUNT; i++) {
			if (seen.names[i] != 1 || i % 3)
				continue;
			snprintf(name, sizeof(name), "%d", i);
			OK(zpl_unlink(dir, name));
			seen.names[i] = 2;
		}
	}
	CHECK_INT(seen.count, COUNT);
	for (int i = 0; i < COUNT; i++)
		CHECK_INT(seen.names[i], i % 3 ? 1 : 2);
	seen.count = seen.stop = 0;
	OK(zpl_readdir(dir, INT64_MAX, emit, &seen, &eof));
	CHECK(eof && seen.count == 0);
	free(seen.names);
	zpl_release(dir);
}

static void test_xattrs(bool sa)
{
	struct zpl_node *node = make_file(root, sa ? "xattr-sa" : "xattr-dir");
	static char value[65537], back[65537];
	size_t length;
	char list[256];

	test_set_property("test", "xattr", sa ? 2 : 1);
	CHECK_INT(zpl_getxattr(node, "user.a", back, sizeof(back), &length), -ENODATA);
	OK(zpl_listxattr(node, NULL, 0, &length));
	CHECK_INT(length, 0);
	CHECK_INT(zpl_setxattr(node, "user.a", "1", 1, XATTR_REPLACE), -ENODATA);
	OK(zpl_setxattr(node, "user.a", "1", 1, XATTR_CREATE));
	CHECK_INT(zpl_setxattr(node, "user.a", "1", 1, XATTR_CREATE), -EEXIST);
	OK(zpl_setxattr(node, "user.a", "22", 2, XATTR_REPLACE));
	OK(zpl_setxattr(node, "security.empty", "", 0, 0));
	OK(zpl_getxattr(node, "user.a", back, sizeof(back), &length));
	CHECK(length == 2 && !memcmp(back, "22", 2));
	OK(zpl_getxattr(node, "user.a", NULL, 0, &length));
	CHECK_INT(length, 2);
	CHECK_INT(zpl_getxattr(node, "user.a", back, 1, &length), -ERANGE);
	OK(zpl_getxattr(node, "security.empty", back, sizeof(back), &length));
	CHECK_INT(length, 0);
	memset(value, 'v', sizeof(value));
	CHECK_INT(zpl_setxattr(node, "user.big", value, 65537, 0), -E2BIG);
	for (size_t size = 1000; size <= 65536; size = size < 60000 ? size * 2 : size + 5536) {
		OK(zpl_setxattr(node, "user.big", value, size, 0));
		OK(zpl_getxattr(node, "user.big", back, sizeof(back), &length));
		CHECK(length == size && !memcmp(back, value, size));
	}
	OK(zpl_setxattr(node, "user.big", value, 100, 0));
	OK(zpl_listxattr(node, list, sizeof(list), &length));
	CHECK_INT(length, sizeof("user.a") + sizeof("security.empty") + sizeof("user.big"));
	CHECK_INT(zpl_listxattr(node, list, 3, &length), -ERANGE);
	OK(zpl_removexattr(node, "user.big"));
	CHECK_INT(zpl_removexattr(node, "user.big"), -ENODATA);
	OK(zpl_removexattr(node, "security.empty"));
	OK(zpl_listxattr(node, list, sizeof(list), &length));
	CHECK(length == sizeof("user.a") && !strcmp(list, "user.a"));
	zpl_release(node);
}

static void test_acl(void)
{
	/* user::rw- user:1000:rwx group::r-- mask::rwx other::r-- */
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 0xe8, 3, 0, 0,
		4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255,
		255};
	struct zpl_node *node = make_file(root, "acl");
	struct zpl_attr attr = {.mode = 0710};
	uint8_t back[100];
	size_t length;

	OK(zpl_setxattr(node, "system.posix_acl_access", acl, sizeof(acl), 0));
	CHECK_INT(attr_of(node).mode, S_IFREG | 0674);
	OK(zpl_setattr(node, &attr, ZPL_SET_MODE, NULL));
	OK(zpl_getxattr(node, "system.posix_acl_access", back, sizeof(back), &length));
	CHECK_INT(length, sizeof(acl));
	CHECK_INT(back[6], 7);  /* owner */
	CHECK_INT(back[14], 7); /* the named user, now limited by */
	CHECK_INT(back[30], 1); /* the mask */
	CHECK_INT(back[22], 4); /* the group's own entry stays */
	CHECK_INT(back[38], 0);
	/* Owner, group and other alone are the mode. */
	memcpy(back + 12, acl + 20, 8);
	memcpy(back + 20, acl + 36, 8);
	OK(zpl_setxattr(node, "system.posix_acl_access", back, 28, 0));
	CHECK_INT(attr_of(node).mode, S_IFREG | 0744);
	CHECK_INT(zpl_getxattr(node, "system.posix_acl_access", back, sizeof(back), &length), -ENODATA);
	CHECK_INT(zpl_setxattr(node, "system.posix_acl_access", "junk", 4, 0), -EINVAL);
	CHECK_INT(zpl_setxattr(node, "system.posix_acl_default", acl, sizeof(acl), 0), -EACCES);
	zpl_release(node);
}

/* What is stored in the directory form belongs to the file's owner. */
static void test_chown_xattr(void)
{
	struct zpl_node *node = make_file(root, "chown-xattr");
	struct zpl_attr attr = {.uid = 777};

	test_set_property("test", "xattr", 1);
	OK(zpl_setxattr(node, "user.a", "1", 1, 0));
	OK(zpl_setattr(node, &attr, ZPL_SET_UID, NULL));
	OK(zpl_fs_sync(fs));
	CHECK_INT(test_accounted(fs, -1, "obj-309"), 3);
	test_set_property("test", "xattr", 2);
	zpl_release(node);
}

static void test_no_space(void)
{
	struct zpl_node *node = make_file(root, "full"), *other;
	char byte = 'x';
	size_t length;

	OK(put(node, 0, &byte, 1));
	zpl_set_no_space(true);
	CHECK_INT(put(node, 0, &byte, 1), -ENOSPC);
	CHECK_INT(zpl_create(root, "full2", 0644, 0, &root_cred, &other, NULL), -ENOSPC);
	CHECK_INT(zpl_mkdir(root, "full2", 0755, &root_cred, &other, NULL), -ENOSPC);
	CHECK_INT(zpl_setxattr(node, "user.x", &byte, 1, 0), -ENOSPC);
	OK(zpl_read(node, 0, 1, &byte, &length));
	OK(zpl_unlink(root, "full"));
	zpl_set_no_space(false);
	zpl_release(node);
}

static void test_read_only(void)
{
	struct zpl_node *node;

	test_set_property("test", "readonly", 1);
	CHECK(zpl_fs_read_only(fs));
	CHECK_INT(zpl_create(root, "ro", 0644, 0, &root_cred, &node, NULL), -EROFS);
	CHECK_INT(zpl_unlink(root, "data"), -EROFS);
	test_set_property("test", "readonly", 0);
	zpl_release(make_file(root, "ro"));
}

static void test_case(void)
{
	struct zpl_fs *before = fs, *ci;
	struct zpl_node *top, *node, *again;

	test_create_fs("test/ci", 1, 0);
	ci = fs = test_mount("test/ci", false);
	OK(zpl_root(ci, &top));
	node = make_file(top, "Hello");
	OK(zpl_lookup(top, "hELLO", &again));
	CHECK(node == again);
	zpl_release(again);
	CHECK_INT(zpl_create(top, "HELLO", 0644, 0, &root_cred, &again, NULL), -EEXIST);
	OK(zpl_rename(top, "hello", top, "HELLO", 0));
	OK(zpl_unlink(top, "hello"));
	zpl_release(node);
	zpl_release(top);
	OK(zpl_fs_unmount(ci, false));
	fs = before;
}

static void test_statvfs(void)
{
	struct statvfs stat;

	OK(zpl_fs_statvfs(fs, &stat));
	CHECK(stat.f_bavail > 0 && stat.f_blocks > stat.f_bavail && stat.f_namemax == 255);
}

/* Space and objects by owner; the DMU counts them when a transaction group is written. */
static void test_accounting(void)
{
	struct zpl_node *node;
	struct zpl_attr attr = {.uid = 4242};
	static char data[256 << 10];

	OK(zpl_create(root, "owned", S_IFREG | 0644, 0, &(struct zpl_cred){4141, 4343}, &node, NULL));
	memset(data, 'd', sizeof(data));
	OK(put(node, 0, data, sizeof(data)));
	OK(zpl_fs_sync(fs));
	CHECK_INT(test_accounted(fs, -1, "obj-102d"), 1);
	CHECK_INT(test_accounted(fs, -2, "obj-10f7"), 1);
	CHECK(test_accounted(fs, -1, "102d") > 0);
	OK(zpl_setattr(node, &attr, ZPL_SET_UID, NULL));
	OK(zpl_fs_sync(fs));
	CHECK_INT(test_accounted(fs, -1, "obj-102d"), 0);
	CHECK_INT(test_accounted(fs, -1, "102d"), 0);
	CHECK_INT(test_accounted(fs, -1, "obj-1092"), 1);
	OK(zpl_unlink(root, "owned"));
	zpl_release(node);
	for (int i = 0; i < 100 && test_zap_count(fs, "DELETE_QUEUE"); i++)
		usleep(10000);
	OK(zpl_fs_sync(fs));
	CHECK_INT(test_accounted(fs, -1, "obj-1092"), 0);
	CHECK_INT(test_accounted(fs, -2, "10f7"), 0);
}

static void run(void)
{
	test_start();
	test_create_pool("test", 256 << 20);
	fs = test_mount("test", false);
	OK(zpl_root(fs, &root));
	test_create();
	test_link();
	test_rename();
	test_data();
	test_holes();
	test_attributes();
	test_readdir();
	test_xattrs(true);
	test_xattrs(false);
	test_acl();
	test_chown_xattr();
	test_no_space();
	test_read_only();
	test_case();
	test_statvfs();
	test_accounting();
	CHECK_INT(zpl_fs_unmount(fs, false), -EBUSY);
	zpl_release(root);
	OK(zpl_fs_unmount(fs, false));
	test_export_pool("test");
	test_stop();
}

int main(void)
{
	if (!test_step(run))
		return 1;
	test_zdb("test");
	return 0;
}
