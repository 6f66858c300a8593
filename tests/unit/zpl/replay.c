/*
 * Intent logs as the kernel leaves them after a crash. The records are written here through libzpool's own
 * log, with the changes themselves left out, as if their transaction group had been lost; the next mount has
 * to make them.
 */
#include "support.h"

#include "pool/zpl_format.h"

#include <sys/dmu_objset.h>
#include <sys/dmu_tx.h>
#include <sys/dsl_dataset.h>
#include <sys/txg.h>
#include <sys/zil.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct zpl_cred cred = {0, 0};
static objset_t *os;
static zilog_t *zilog;
static uint64_t dir, file, victim;

enum { NEW_FILE = 300, NEW_DIR = 301, NEW_LINK = 302 };

/* One record of `fixed` bytes and a tail. */
static void add(uint64_t type, const void *record, size_t fixed, const void *tail, size_t length)
{
	dmu_tx_t *tx = dmu_tx_create(os);
	itx_t *itx = zil_itx_create(type, fixed + length);

	dmu_tx_hold_bonus(tx, file);
	OK(dmu_tx_assign(tx, DMU_TX_WAIT));
	memcpy((char *)&itx->itx_lr + sizeof(lr_t), (const char *)record + sizeof(lr_t),
		fixed - sizeof(lr_t));
	memcpy((char *)&itx->itx_lr + fixed, tail, length);
	itx->itx_wr_state = WR_COPIED;
	zil_itx_assign(zilog, itx, tx);
	dmu_tx_commit(tx);
}

static void add_create(uint64_t type, uint64_t object, uint32_t mode, const char *tail, size_t length)
{
	lr_create_t lr = {.lr_create = {.lr_doid = dir,
				  .lr_foid = object,
				  .lr_mode = mode,
				  .lr_uid = 5,
				  .lr_gid = 6,
				  .lr_gen = 77,
				  .lr_crtime = {1000, 1}}};

	add(type, &lr, sizeof(lr), tail, length);
}

static void add_remove(uint64_t type, const char *name)
{
	lr_remove_t lr = {.lr_doid = dir};

	add(type, &lr, sizeof(lr), name, strlen(name) + 1);
}

static void add_records(void)
{
	lr_write_t write = {.lr_foid = NEW_FILE, .lr_offset = 5, .lr_length = 7};
	lr_link_t link = {.lr_doid = dir, .lr_link_obj = file};
	lr_rename_t rename = {.lr_rename = {.lr_sdoid = dir, .lr_tdoid = NEW_DIR}};
	lr_setattr_t setattr = {
		.lr_foid = file, .lr_mask = 1 | 0x20, .lr_mode = S_IFREG | 0640, .lr_mtime = {4321, 1234}};
	lr_truncate_t truncate = {.lr_foid = file, .lr_offset = 100};
	lr_setsaxattr_t xattr = {.lr_foid = file, .lr_size = 3};
	lr_write_t gone = {.lr_foid = 400, .lr_length = 3};

	add_create(TX_CREATE, NEW_FILE, S_IFREG | 0604, "created", 8);
	add(TX_WRITE, &write, sizeof(write), "written", 7);
	add_create(TX_MKDIR, NEW_DIR, S_IFDIR | 0750, "newdir", 7);
	add_create(TX_SYMLINK, NEW_LINK, S_IFLNK | 0777, "sym\0target", 11);
	add(TX_LINK, &link, sizeof(link), "linked", 7);
	add(TX_RENAME, &rename, sizeof(rename), "file\0moved", 11);
	add_remove(TX_REMOVE, "victim");
	add_remove(TX_RMDIR, "rd");
	add(TX_TRUNCATE, &truncate, sizeof(truncate), "", 0);
	add(TX_SETSAXATTR, &xattr, sizeof(xattr), "user.x\0abc", 10);
	add(TX_WRITE, &gone, sizeof(gone), "xyz", 3); /* to a file that was removed meanwhile: no error */
	add(TX_SETATTR, &setattr, sizeof(setattr), "", 0);
}

static void prepare(void)
{
	struct zpl_fs *fs;
	struct zpl_node *root, *d, *node;
	static char data[10000];
	struct iovec iov = {data, sizeof(data)};
	size_t written;

	memset(data, 'A', sizeof(data));
	test_start();
	test_create_pool("test", 256 << 20);
	fs = test_mount("test", false);
	OK(zpl_root(fs, &root));
	OK(zpl_mkdir(root, "d", 0755, &cred, &d, NULL));
	dir = zpl_object(d);
	OK(zpl_create(d, "file", 0644, 0, &cred, &node, NULL));
	OK(zpl_write(node, 0, &iov, 1, false, &written));
	file = zpl_object(node);
	zpl_release(node);
	OK(zpl_create(d, "victim", 0644, 0, &cred, &node, NULL));
	victim = zpl_object(node);
	zpl_release(node);
	OK(zpl_mkdir(d, "rd", 0755, &cred, &node, NULL));
	zpl_release(node);
	zpl_release(d);
	zpl_release(root);
	OK(zpl_fs_unmount(fs, false));
	OK(dmu_objset_own("test", DMU_OST_ZFS, B_FALSE, B_TRUE, FTAG, &os));
	zilog = zil_open(os, NULL, NULL);
	/* The first commit makes the chain, for which it waits for a transaction group; the records come
	 * after. */
	lr_truncate_t nothing = {.lr_foid = victim, .lr_offset = 0};
	add(TX_TRUNCATE, &nothing, sizeof(nothing), "", 0);
	zil_commit(zilog, 0);
	txg_wait_synced(dmu_objset_pool(os), 0);
}

static void write_log(void)
{
	prepare();
	add_records();
	zil_commit(zilog, 0);
	_exit(0);
}

static void check_log(void)
{
	struct zpl_node *root, *d, *node, *sub, *linked;
	struct zpl_attr attr;
	struct zpl_fs *fs;
	char buffer[200];
	size_t length;

	test_start();
	test_import_pool(test_dir(), "test", false);
	fs = test_mount("test", false);
	OK(zpl_root(fs, &root));
	OK(zpl_lookup(root, "d", &d));

	OK(zpl_lookup(d, "created", &node));
	OK(zpl_getattr(node, &attr));
	CHECK_INT(attr.object, NEW_FILE);
	CHECK_INT(attr.generation, 77);
	CHECK_INT(attr.mode, S_IFREG | 0604);
	CHECK(attr.uid == 5 && attr.gid == 6);
	CHECK(attr.btime.tv_sec == 1000 && attr.btime.tv_nsec == 1);
	OK(zpl_read(node, 0, sizeof(buffer), buffer, &length));
	CHECK(length == 12 && !memcmp(buffer, "\0\0\0\0\0written", 12));
	zpl_release(node);

	OK(zpl_lookup(d, "sym", &node));
	OK(zpl_readlink(node, buffer, sizeof(buffer)));
	CHECK(!strcmp(buffer, "target"));
	zpl_release(node);

	CHECK_INT(zpl_lookup(d, "victim", &node), -ENOENT);
	CHECK_INT(zpl_lookup(d, "rd", &node), -ENOENT);
	CHECK_INT(zpl_lookup(d, "file", &node), -ENOENT);

	OK(zpl_lookup(d, "newdir", &sub));
	OK(zpl_getattr(sub, &attr));
	CHECK_INT(attr.object, NEW_DIR);
	OK(zpl_lookup(sub, "moved", &node));
	OK(zpl_getattr(node, &attr));
	OK(zpl_lookup(d, "linked", &linked));
	CHECK(linked == node);
	zpl_release(linked);
	CHECK_INT(attr.nlink, 2);
	CHECK_INT(attr.size, 100);
	CHECK_INT(attr.mode, S_IFREG | 0640);
	CHECK(attr.mtime.tv_sec == 4321 && attr.mtime.tv_nsec == 1234);
	OK(zpl_getxattr(node, "user.x", buffer, sizeof(buffer), &length));
	CHECK(length == 3 && !memcmp(buffer, "abc", 3));
	zpl_release(node);
	zpl_release(sub);

	OK(zpl_getattr(d, &attr));
	CHECK_INT(attr.size, 2 + 4); /* created, newdir, sym, linked */
	CHECK_INT(attr.nlink, 3);
	zpl_release(d);
	zpl_release(root);
	OK(zpl_fs_unmount(fs, false));
	/* Done once: a second mount finds nothing to do. */
	fs = test_mount("test", false);
	OK(zpl_fs_unmount(fs, false));
	test_export_pool("test");
}

/* A record that cannot be replayed: nothing of the log is, and nothing is lost. */
static void write_foreign_log(void)
{
	lr_acl_t acl = {.lr_foid = 0};

	prepare();
	acl.lr_foid = file;
	add_remove(TX_REMOVE, "victim");
	add(TX_ACL, &acl, sizeof(acl), "", 0);
	zil_commit(zilog, 0);
	_exit(0);
}

static void check_foreign_log(void)
{
	struct pv_error err = {0};
	struct zpl_fs *fs;

	test_start();
	test_import_pool(test_dir(), "test", false);
	for (int i = 0; i < 2; i++) {
		CHECK_INT(zpl_fs_mount("test", false, &fs, &err), -ENOTSUP);
		CHECK(strstr(err.message, "intent log") != NULL && err.remedy[0]);
	}
	test_export_pool("test");
}

int main(void)
{
	if (!test_step(write_log) || !test_step(check_log))
		return 1;
	test_zdb("test");
	if (!test_step(write_foreign_log) || !test_step(check_foreign_log))
		return 1;
	return 0;
}
