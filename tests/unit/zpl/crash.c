/*
 * What is left when the process ends without a word: what fsync promised, and the unlinked set, which the
 * next mount empties.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct zpl_cred cred = {0, 0};
enum { SIZE = 3 << 20 };
static char data[SIZE];

static void fill(void)
{
	for (size_t i = 0; i < SIZE; i++)
		data[i] = (char)(i * 2654435761u >> 11);
}

static struct zpl_node *make_file(struct zpl_node *dir, const char *name, size_t size)
{
	struct iovec iov = {data, size};
	struct zpl_node *node;
	size_t written;

	OK(zpl_create(dir, name, S_IFREG | 0644, 0, &cred, &node, NULL));
	OK(zpl_write(node, 0, &iov, 1, false, &written));
	CHECK(written == size);
	return node;
}

static void first_life(void)
{
	struct zpl_node *root, *dir, *node, *open_file, *open_dir, *late;
	struct zpl_fs *fs;
	char name[32];

	fill();
	test_start();
	test_create_pool("test", 256 << 20);
	fs = test_mount("test", false);
	OK(zpl_root(fs, &root));
	open_file = make_file(root, "open", SIZE);
	test_set_property("test", "xattr", 1); /* the directory form, which has objects of its own */
	OK(zpl_setxattr(open_file, "user.a", "value", 5, 0));
	OK(zpl_setxattr(open_file, "user.b", "value", 5, 0));
	OK(zpl_unlink(root, "open"));
	OK(zpl_mkdir(root, "opendir", 0755, &cred, &open_dir, NULL));
	OK(zpl_rmdir(root, "opendir"));
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "closed%d", i);
		zpl_release(make_file(root, name, 10000));
		OK(zpl_unlink(root, name));
	}
	OK(zpl_mkdir(root, "dir", 0755, &cred, &dir, NULL));
	node = make_file(dir, "synced", SIZE);
	OK(zpl_rename(dir, "synced", dir, "renamed", 0));
	OK(zpl_fsync(node, false));
	late = make_file(root, "late", 100);
	CHECK(late != NULL);
	_exit(0);
}

static void second_life(void)
{
	static char back[SIZE];
	struct zpl_node *root, *dir, *node;
	struct zpl_fs *fs;
	size_t length;

	fill();
	test_start();
	test_import_pool(test_dir(), "test", false);
	fs = test_mount("test", true); /* reading alone does not touch the set */
	CHECK(test_zap_count(fs, "DELETE_QUEUE") >= 2);
	OK(zpl_fs_unmount(fs, false));
	fs = test_mount("test", false);
	OK(zpl_root(fs, &root));
	OK(zpl_lookup(root, "dir", &dir));
	CHECK_INT(zpl_lookup(dir, "synced", &node), -ENOENT);
	OK(zpl_lookup(dir, "renamed", &node));
	OK(zpl_read(node, 0, SIZE, back, &length));
	CHECK(length == SIZE && !memcmp(data, back, SIZE));
	for (int i = 0; i < 500 && test_zap_count(fs, "DELETE_QUEUE"); i++)
		usleep(10000);
	CHECK_INT(test_zap_count(fs, "DELETE_QUEUE"), 0);
	zpl_release(node);
	zpl_release(dir);
	zpl_release(root);
	OK(zpl_fs_sync(fs));
	/* root, dir and the file; perhaps the late one: nothing of what was unlinked. */
	CHECK(test_accounted(fs, -1, "obj-0") <= 4);
	OK(zpl_fs_unmount(fs, false));
	test_export_pool("test");
}

int main(void)
{
	if (!test_step(first_life) || !test_step(second_life))
		return 1;
	test_zdb("test");
	return 0;
}
