/* Containers: making, opening, locking, and every file that is none; the mount table; swap. */
#include "fixture.h"
#include "volume/container.h"
#include "volume/machine.h"
#include "volume/mountinfo.h"

#include <errno.h>

#define SIZE (PV_CONTAINER_MIN + 4096)

static void made_and_opened(void **state)
{
	struct pv_container c = PV_CONTAINER_NONE, again = PV_CONTAINER_NONE;
	struct pv_error err = {0};
	const char *path = in_dir("c");
	bool made = false;
	struct stat st;

	assert_int_equal(pv_container_create(path, SIZE, false, &c, &made, &err), 0);
	assert_true(made);
	assert_true(c.size == SIZE);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(st.st_blocks * 512 < 65536);
	/* our own lock keeps us out too: it belongs to the open file description */
	assert_int_equal(pv_container_open(path, 0, &again, &err), -EBUSY);
	assert_int_equal(err.exit, PV_EXIT_BUSY);
	assert_int_equal(pv_container_open(path, PV_CONTAINER_READ_ONLY, &again, &err), -EBUSY);
	assert_int_equal(
		pv_container_open(path, PV_CONTAINER_READ_ONLY | PV_CONTAINER_NO_LOCK, &again, &err), 0);
	pv_container_close(&again);
	/* a duplicate keeps the lock */
	int copy = dup(c.fd);

	pv_container_close(&c);
	assert_int_equal(pv_container_open(path, 0, &again, &err), -EBUSY);
	close(copy);
	assert_int_equal(pv_container_open(path, 0, &again, &err), 0);
	assert_true(again.size == SIZE);
	pv_container_close(&again);
	/* two readers may */
	assert_int_equal(pv_container_open(path, PV_CONTAINER_READ_ONLY, &c, &err), 0);
	assert_int_equal(pv_container_open(path, PV_CONTAINER_READ_ONLY, &again, &err), 0);
	pv_container_close(&c);
	pv_container_close(&again);
	pv_container_close(&again);
}

static void full_is_allocated(void **state)
{
	struct pv_container c = PV_CONTAINER_NONE;
	struct pv_error err = {0};
	const char *path = in_dir("full");
	bool made = false;
	struct stat st;

	assert_int_equal(pv_container_create(path, SIZE, true, &c, &made, &err), 0);
	assert_int_equal(fstat(c.fd, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 >= SIZE);
	pv_container_remove(path, &c);
	assert_int_equal(access(path, F_OK), -1);
	pv_container_close(&c);
}

static void what_is_no_container(void **state)
{
	struct pv_container c = PV_CONTAINER_NONE;
	struct pv_error err = {0};
	bool made = false;

	assert_int_equal(pv_container_create(in_dir("small"), 1 << 20, false, &c, &made, &err), -EINVAL);
	assert_int_equal(access(in_dir("small"), F_OK), -1);
	assert_int_equal(pv_container_create(in_dir("no/dir"), SIZE, false, &c, &made, &err), -ENOENT);
	/* more than any disk has */
	assert_true(pv_container_create(in_dir("huge"), (uint64_t)1 << 62, true, &c, &made, &err) < 0);
	assert_int_equal(access(in_dir("huge"), F_OK), -1);

	assert_int_equal(pv_container_open(test_dir, 0, &c, &err), -EISDIR);
	assert_int_equal(pv_container_create(test_dir, SIZE, false, &c, &made, &err), -EISDIR);
	assert_int_equal(pv_container_open(in_dir("absent"), 0, &c, &err), -ENOENT);
	assert_int_equal(err.exit, PV_EXIT_NO_VOLUME);
	assert_int_equal(pv_container_open("/dev/null", 0, &c, &err), -EINVAL);
	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	assert_int_equal(pv_container_open(in_dir("fifo"), 0, &c, &err), -EINVAL);

	/* links: to a file, to nothing */
	close(open(in_dir("file"), O_CREAT | O_WRONLY, 0600));
	assert_int_equal(symlink("file", in_dir("link")), 0);
	assert_int_equal(pv_container_open(in_dir("link"), 0, &c, &err), -ELOOP);
	assert_int_equal(pv_container_create(in_dir("link"), SIZE, false, &c, &made, &err), -EEXIST);
	assert_int_equal(symlink("nowhere", in_dir("dangling")), 0);
	assert_int_equal(pv_container_open(in_dir("dangling"), 0, &c, &err), -ELOOP);
	assert_int_equal(pv_container_create(in_dir("dangling"), SIZE, false, &c, &made, &err), -EEXIST);
	assert_int_equal(access(in_dir("nowhere"), F_OK), -1);
	if (geteuid() != 0) {
		assert_int_equal(chmod(in_dir("file"), 0400), 0);
		assert_int_equal(pv_container_open(in_dir("file"), 0, &c, &err), -EACCES);
		assert_int_equal(pv_container_open(in_dir("file"), PV_CONTAINER_READ_ONLY, &c, &err), 0);
		pv_container_close(&c);
	}
	assert_int_equal(c.fd, -1);
}

static void sizes(void **state)
{
	const struct pv_container c = {.fd = -1, .size = 1000};
	struct pv_error err = {0};

	assert_int_equal(pv_container_check_size(&c, "c", 0, 0, &err), 0);
	assert_int_equal(pv_container_check_size(&c, "c", 1000, 1000, &err), 0);
	assert_int_equal(pv_container_check_size(&c, "c", 1001, 0, &err), -EUCLEAN);
	assert_int_equal(pv_container_check_size(&c, "c", 0, 1001, &err), -EUCLEAN);
	assert_non_null(strstr(err.message, "truncated"));
}

/* Only the very file that was made is removed. */
static void removal(void **state)
{
	struct pv_container c = PV_CONTAINER_NONE;
	const char *path = in_dir("r");
	bool made = false;

	assert_int_equal(pv_container_create(path, SIZE, false, &c, &made, NULL), 0);
	assert_int_equal(unlink(path), 0);
	/* kept open, so the new file cannot have its inode number */
	close(open(path, O_CREAT | O_WRONLY, 0600));
	pv_container_remove(path, &c);
	assert_int_equal(access(path, F_OK), 0);
	pv_container_close(&c);
}

static void mount_table(void **state)
{
	static const char text[] =
		"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
		"nonsense\n"
		"30 21 0:40 / /home/u/with\\040blank\\134 rw shared:7 - fuse.zfs pvol rw,user_id=7\n"
		"31 30 0:41 / /home/u/with\\040blank\\134/sub rw - fuse.zfs pvol rw\n"
		"32 21 0:42 / /other rw - fuse.sshfs host: rw\n"
		"33 21 0:42 / /short - ext4\n";
	struct pv_mount_table table;
	const struct pv_mount_entry *entry;

	assert_int_equal(pv_mount_table_parse(text, &table), 0);
	assert_int_equal(table.count, 4);
	assert_string_equal(table.entries[1].point, "/home/u/with blank\\");
	assert_string_equal(table.entries[1].options, "rw,user_id=7");
	entry = pv_mount_table_pvol(&table, "/home/u/with blank\\/sub/deep");
	assert_int_equal(entry->id, 31);
	entry = pv_mount_table_pvol(&table, "/home/u/with blank\\/subway");
	assert_int_equal(entry->id, 30);
	assert_null(pv_mount_table_pvol(&table, "/other/x"));
	assert_null(pv_mount_table_pvol(&table, "/home/u/with"));
	pv_mount_table_free(&table);
	assert_int_equal(pv_mount_table_read(&table, NULL), 0);
	assert_true(table.count > 0);
	pv_mount_table_free(&table);

	assert_true(pv_path_is_below("/a/b", "/a"));
	assert_true(pv_path_is_below("/a", "/a"));
	assert_true(pv_path_is_below("/a", "/"));
	assert_true(pv_path_is_below("/a/b", "/a/"));
	assert_false(pv_path_is_below("/ab", "/a"));
	assert_false(pv_path_is_below("/", "/a"));
}

static bool only_dm(const char *path)
{
	return !strncmp(path, "/dev/dm-", 8);
}

static void swaps(void **state)
{
	static const char head[] = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
	char text[512], areas[64];

	assert_int_equal(pv_machine_parse_swaps(head, only_dm, areas, sizeof(areas)), 0);
	assert_int_equal(pv_machine_parse_swaps("", only_dm, areas, sizeof(areas)), 0);
	snprintf(text, sizeof(text),
		"%s/dev/dm-1 partition 1 0 -2\n/swapfile\tfile 1 0 -3\n/dev/sda2 partition 1 0 -4\n", head);
	assert_int_equal(pv_machine_parse_swaps(text, only_dm, areas, sizeof(areas)), 1);
	assert_string_equal(areas, "/swapfile /dev/sda2");
	snprintf(text, sizeof(text), "%s/dev/dm-1 partition 1 0 -2\n", head);
	assert_int_equal(pv_machine_parse_swaps(text, only_dm, areas, sizeof(areas)), 0);
	/* too many for the buffer */
	snprintf(text, sizeof(text), "%s/%0200d x\n/b x\n", head, 7);
	assert_int_equal(pv_machine_parse_swaps(text, only_dm, areas, sizeof(areas)), 1);
	assert_true(strlen(areas) < sizeof(areas));
	assert_true(pv_machine_memory() > 1 << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(made_and_opened, setup_dir, teardown_dir),
		cmocka_unit_test_setup_teardown(full_is_allocated, setup_dir, teardown_dir),
		cmocka_unit_test_setup_teardown(what_is_no_container, setup_dir, teardown_dir),
		cmocka_unit_test(sizes),
		cmocka_unit_test_setup_teardown(removal, setup_dir, teardown_dir),
		cmocka_unit_test(mount_table),
		cmocka_unit_test(swaps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
