/*
 * Suspend, rollback, resume under nodes that are held and threads that work on.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct zpl_cred cred = {0, 0};
static struct zpl_fs *fs;
static _Atomic bool stop;
static _Atomic unsigned rounds;

static void put(struct zpl_node *node, const char *text)
{
	struct iovec iov = {(char *)text, strlen(text)};
	size_t written;

	OK(zpl_write(node, 0, &iov, 1, false, &written));
}

static bool holds(struct zpl_node *node, const char *text)
{
	char buffer[100];
	size_t length;

	OK(zpl_read(node, 0, sizeof(buffer), buffer, &length));
	return length == strlen(text) && !memcmp(buffer, text, length);
}

static bool harmless(int ret)
{
	return ret == 0 || ret == -ENOENT || ret == -EEXIST || ret == -ESTALE;
}

static void *work(void *arg)
{
	struct zpl_node *root, *node;
	char name[32];

	snprintf(name, sizeof(name), "busy%d", (int)(intptr_t)arg);
	while (!stop) {
		int ret = zpl_root(fs, &root);

		CHECK(ret == 0);
		ret = zpl_create(root, name, S_IFREG | 0644, 0, &cred, &node, NULL);
		CHECK(harmless(ret));
		if (ret == 0) {
			struct iovec iov = {(char *)"data", 4};
			size_t written;

			CHECK(harmless(zpl_write(node, 0, &iov, 1, false, &written)));
			zpl_release(node);
		}
		CHECK(harmless(zpl_unlink(root, name)));
		zpl_release(root);
		rounds++;
	}
	return NULL;
}

static void run(void)
{
	struct zpl_node *root, *kept, *later, *gone, *found, *snap_root;
	struct zpl_attr attr;
	struct zpl_fs *snap;
	pthread_t threads[3];

	test_start();
	test_create_pool("test", 256 << 20);
	test_create_fs("test/fs", 0, 0);
	fs = test_mount("test/fs", false);
	OK(zpl_root(fs, &root));
	OK(zpl_create(root, "kept", S_IFREG | 0644, 0, &cred, &kept, NULL));
	put(kept, "before");
	OK(zpl_create(root, "gone", S_IFREG | 0644, 0, &cred, &gone, NULL));
	OK(zpl_setxattr(kept, "user.a", "before", 6, 0));
	test_snapshot("test/fs@snap");
	put(kept, "after snapshot");
	OK(zpl_setxattr(kept, "user.a", "after", 5, 0));
	OK(zpl_create(root, "later", S_IFREG | 0644, 0, &cred, &later, NULL));
	OK(zpl_unlink(root, "gone")); /* still held */
	OK(zpl_mkdir(root, "dir", 0755, &cred, &found, NULL));
	zpl_release(found);

	for (intptr_t i = 0; i < 3; i++)
		OK(pthread_create(&threads[i], NULL, work, (void *)i));
	while (rounds < 50)
		usleep(1000);
	for (int i = 0; i < 3; i++) {
		OK(zpl_fs_suspend(fs));
		OK(test_rollback("test/fs", "test/fs@snap", zpl_fs_owner(fs)));
		OK(zpl_fs_resume(fs));
		usleep(50000);
	}
	stop = true;
	for (int i = 0; i < 3; i++)
		OK(pthread_join(threads[i], NULL));

	CHECK(holds(kept, "before"));
	OK(zpl_getattr(kept, &attr));
	CHECK_INT(attr.size, 6);
	char value[10];
	size_t length;
	OK(zpl_getxattr(kept, "user.a", value, sizeof(value), &length));
	CHECK(length == 6 && !memcmp(value, "before", 6));
	CHECK_INT(zpl_getattr(later, &attr), -ESTALE);
	CHECK_INT(zpl_lookup(root, "later", &found), -ENOENT);
	CHECK_INT(zpl_lookup(root, "dir", &found), -ENOENT);
	/* What had been removed has its name again, and the held node is that file. */
	OK(zpl_getattr(gone, &attr));
	CHECK_INT(attr.nlink, 1);
	OK(zpl_lookup(root, "gone", &found));
	CHECK(found == gone);
	zpl_release(found);
	zpl_release(gone);
	OK(zpl_lookup(root, "gone", &found));
	zpl_release(found);
	zpl_release(later);
	OK(zpl_create(root, "later", S_IFREG | 0644, 0, &cred, &later, NULL));
	put(later, "new");
	OK(zpl_fsync(later, false));

	snap = test_mount("test/fs@snap", true);
	CHECK(zpl_fs_is_snapshot(snap) && zpl_fs_read_only(snap));
	OK(zpl_root(snap, &snap_root));
	OK(zpl_lookup(snap_root, "kept", &found));
	CHECK(holds(found, "before"));
	CHECK_INT(zpl_unlink(snap_root, "kept"), -EROFS);
	zpl_release(found);
	zpl_release(snap_root);
	OK(zpl_fs_unmount(snap, false));

	/* By force: the nodes outlive the mount and answer nothing any more. */
	OK(zpl_fs_unmount(fs, true));
	CHECK_INT(zpl_getattr(kept, &attr), -EIO);
	zpl_release(later);
	zpl_release(kept);
	zpl_release(root);
	test_export_pool("test");
}

int main(void)
{
	if (!test_step(run))
		return 1;
	test_zdb("test");
	return 0;
}
