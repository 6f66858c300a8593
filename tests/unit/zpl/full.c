/*
 * A pool with no space left: writing says so, what is there stays readable, and removing makes room again.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct zpl_cred cred = {0, 0};
static char data[1 << 20], back[1 << 20];

static void run(void)
{
	struct zpl_node *root, *node, *small;
	struct iovec iov = {data, sizeof(data)};
	uint64_t size = 0;
	struct zpl_attr attr;
	struct zpl_fs *fs;
	size_t done;
	int ret;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)rand();
	test_start();
	test_create_pool("test", 128 << 20);
	fs = test_mount("test", false);
	OK(zpl_root(fs, &root));
	OK(zpl_create(root, "small", 0644, 0, &cred, &small, NULL));
	OK(zpl_create(root, "big", 0644, 0, &cred, &node, NULL));
	while ((ret = zpl_write(node, size, &iov, 1, false, &done)) == 0)
		size += done;
	CHECK_INT(ret, -ENOSPC);
	CHECK_INT(done, 0);
	CHECK(size > 32 << 20);
	OK(zpl_getattr(node, &attr));
	CHECK_INT(attr.size, size);
	OK(zpl_fs_sync(fs));
	OK(zpl_read(node, size - sizeof(data), sizeof(back), back, &done));
	CHECK(done == sizeof(data) && !memcmp(data, back, done));
	ret = zpl_write(small, 0, &iov, 1, false, &done);
	CHECK_INT(ret, -ENOSPC);
	/* Removal works on a full pool, and its space can be used once it has been written out. */
	OK(zpl_unlink(root, "big"));
	zpl_release(node);
	for (int i = 0; i < 1000; i++) {
		ret = zpl_write(small, 0, &iov, 1, false, &done);
		if (ret == 0)
			break;
		CHECK_INT(ret, -ENOSPC);
		OK(zpl_fs_sync(fs));
		usleep(5000);
	}
	OK(ret);
	zpl_release(small);
	zpl_release(root);
	OK(zpl_fs_unmount(fs, false));
	test_export_pool("test");
}

int main(void)
{
	if (!test_step(run))
		return 1;
	test_zdb("test");
	return 0;
}
