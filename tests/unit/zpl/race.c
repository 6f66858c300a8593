/*
 * Many threads on the same few names: whatever they did to each other, counts and contents agree in the end.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 1500, NAMES = 12 };

static const struct zpl_cred cred = {0, 0};
static struct zpl_fs *fs;
static struct zpl_node *dirs[2];

static void expected(int ret)
{
	switch (ret) {
	case 0:
	case -ENOENT:
	case -EEXIST:
	case -ENOTEMPTY:
	case -EISDIR:
	case -ENOTDIR:
	case -EINVAL:
	case -EPERM: return;
	default: CHECK_INT(ret, 0);
	}
}

static void use(struct zpl_node *node, unsigned *seed)
{
	static const char text[20000];
	struct iovec iov = {(char *)text, (size_t)(rand_r(seed) % 20000)};
	struct zpl_attr attr;
	char buffer[4096];
	size_t length;

	OK(zpl_getattr(node, &attr));
	if (S_ISREG(attr.mode)) {
		if (rand_r(seed) % 2)
			OK(zpl_write(
				node, (uint64_t)(rand_r(seed) % 50000), &iov, 1, rand_r(seed) % 2, &length));
		OK(zpl_read(node, 0, sizeof(buffer), buffer, &length));
		attr.size = (uint64_t)(rand_r(seed) % 60000);
		if (rand_r(seed) % 4 == 0)
			OK(zpl_setattr(node, &attr, ZPL_SET_SIZE, NULL));
		if (rand_r(seed) % 8 == 0)
			OK(zpl_setxattr(node, "user.x", buffer, (size_t)(rand_r(seed) % 3000), 0));
	} else if (S_ISDIR(attr.mode) && rand_r(seed) % 2) {
		struct zpl_node *child;
		int ret = zpl_create(node, "child", S_IFREG | 0644, 0, &cred, &child, NULL);

		expected(ret);
		if (ret == 0)
			zpl_release(child);
		if (rand_r(seed) % 2)
			expected(zpl_unlink(node, "child"));
	}
	zpl_release(node);
}

static int ignore(void *private, const char *name, uint64_t object, unsigned type, uint64_t next)
{
	return 0;
}

static void *work(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int i = 0; i < ROUNDS; i++) {
		struct zpl_node *dir = dirs[rand_r(&seed) % 2], *to = dirs[rand_r(&seed) % 2], *node = NULL;
		char name[8], other[8];
		bool eof;
		int ret = -1;

		snprintf(name, sizeof(name), "n%d", rand_r(&seed) % NAMES);
		snprintf(other, sizeof(other), "n%d", rand_r(&seed) % NAMES);
		switch (rand_r(&seed) % 11) {
		case 0:
		case 1: ret = zpl_create(dir, name, S_IFREG | 0644, 0, &cred, &node, NULL); break;
		case 2: ret = zpl_mkdir(dir, name, 0755, &cred, &node, NULL); break;
		case 3: expected(zpl_unlink(dir, name)); break;
		case 4: expected(zpl_rmdir(dir, name)); break;
		case 5: expected(zpl_rename(dir, name, to, other, 0)); break;
		case 6: expected(zpl_rename(dir, name, to, other, RENAME_EXCHANGE)); break;
		case 7:
			ret = zpl_lookup(dir, name, &node);
			if (ret == 0)
				expected(zpl_link(node, to, other));
			break;
		case 8: OK(zpl_readdir(dir, 0, ignore, NULL, &eof)); break;
		default: ret = zpl_lookup(dir, name, &node);
		}
		if (node)
			use(node, &seed);
		else if (ret != -1)
			expected(ret);
	}
	return NULL;
}

struct tally {
	uint64_t entries, dirs;
};

static int count(void *private, const char *name, uint64_t object, unsigned type, uint64_t next)
{
	struct tally *tally = private;
	struct zpl_node *node;
	struct zpl_attr attr;

	OK(zpl_get(fs, object, 0, &node));
	OK(zpl_getattr(node, &attr));
	CHECK_INT(attr.mode >> 12, type);
	CHECK(attr.nlink > 0);
	zpl_release(node);
	tally->entries++;
	tally->dirs += S_ISDIR(attr.mode);
	return 0;
}

static void run(void)
{
	struct zpl_node *root;
	pthread_t threads[THREADS];
	struct zpl_attr attr;
	bool eof;

	test_start();
	test_create_pool("test", 256 << 20);
	fs = test_mount("test", false);
	OK(zpl_root(fs, &root));
	OK(zpl_mkdir(root, "a", 0755, &cred, &dirs[0], NULL));
	OK(zpl_mkdir(root, "b", 0755, &cred, &dirs[1], NULL));
	for (uintptr_t i = 0; i < THREADS; i++)
		OK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)));
	for (int i = 0; i < THREADS; i++)
		OK(pthread_join(threads[i], NULL));
	for (int i = 0; i < 2; i++) {
		struct tally tally = {0};

		OK(zpl_readdir(dirs[i], 0, count, &tally, &eof));
		OK(zpl_getattr(dirs[i], &attr));
		CHECK_INT(attr.size, tally.entries + 2);
		CHECK_INT(attr.nlink, tally.dirs + 2);
		zpl_release(dirs[i]);
	}
	zpl_release(root);
	OK(zpl_fs_unmount(fs, false));
	fs = test_mount("test", true);
	CHECK_INT(test_zap_count(fs, "DELETE_QUEUE"), 0);
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
