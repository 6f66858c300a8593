/* Datasets and snapshots: order, recursion, what stands in the way of a rollback or a destruction. */
#include "device.h"

static const char *const path = "/dev/mapper/pvol-T";
static struct device device;

static int start(void **state)
{
	struct pv_pool_create create = {.name = "tank", .devices = &path, .ndevices = 1};
	int error = start_pool(state);

	if (error < 0)
		return error;
	device_init(&device, 128 << 20);
	device_register(&device, path);
	return pv_pool_create(&create, NULL);
}

static int stop(void **state)
{
	int error = stop_pool(state);

	pv_pool_unregister_device(path);
	device_fini(&device);
	return error;
}

static int collect_dataset(const struct pv_dataset_info *info, void *private)
{
	char *text = private;

	snprintf(text + strlen(text), 512 - strlen(text), "%s:%s ", info->name, info->mountpoint);
	return 0;
}

static int collect_snapshot(const struct pv_snapshot_info *info, void *private)
{
	char *text = private;

	snprintf(text + strlen(text), 512 - strlen(text), "%s ", info->name);
	return 0;
}

static int stop_at_first(const struct pv_dataset_info *info, void *private)
{
	return 42;
}

static void snapshots_are(const char *dataset, const char *expected)
{
	char text[512] = "";

	ok(pv_snapshot_walk(dataset, collect_snapshot, text, &err));
	assert_string_equal(text, expected);
}

static void walks_in_order(void **state)
{
	char text[512] = "";

	ok(pv_dataset_create("tank/z", NULL, 0, 0, 0, &err));
	ok(pv_dataset_create("tank/a", NULL, 0, 0, 0, &err));
	ok(pv_dataset_create("tank/a/c", NULL, 0, 0, 0, &err));
	ok(pv_dataset_create("tank/a/b", NULL, 0, 0, 0, &err));
	ok(pv_dataset_walk("tank", collect_dataset, text, &err));
	assert_string_equal(
		text, "tank:/tank tank/a:/tank/a tank/a/b:/tank/a/b tank/a/c:/tank/a/c tank/z:/tank/z ");
	assert_int_equal(pv_dataset_walk("tank", stop_at_first, NULL, NULL), 42);
	refused(pv_dataset_walk("tank/nothing", collect_dataset, text, &err), -ENOENT, "not exist");
	refused(pv_dataset_create("tank/a", NULL, 0, 0, 0, &err), -EEXIST, "exists");
	refused(pv_dataset_create("tank/q/r", NULL, 0, 0, 0, &err), -ENOENT, "parent");
	refused(pv_dataset_create("tank/b%c", NULL, 0, 0, 0, &err), -EINVAL, "%");
	refused(pv_dataset_create("other/b", NULL, 0, 0, 0, &err), -ENOENT, "no pool");
}

static void recursive_snapshot_is_one_moment(void **state)
{
	uint64_t first = 0, second = 0, again = 0;

	ok(pv_snapshot_create("tank/a", "one", true, &err));
	snapshots_are("tank/a", "one ");
	snapshots_are("tank/a/b", "one ");
	snapshots_are("tank/z", "");
	assert_int_equal(pv_snapshot_lookup("tank/a", "one", &first, NULL), 0);
	assert_int_equal(pv_snapshot_lookup("tank/a/b", "one", &second, NULL), 0);
	assert_int_equal(pv_snapshot_lookup("tank/a", "one", &again, NULL), 0);
	assert_true(first != second && first == again && first != 0);
	assert_int_equal(pv_snapshot_lookup("tank/a", "none", &first, NULL), -ENOENT);
	assert_int_equal(pv_snapshot_lookup("tank/a", "..", &first, NULL), -ENOENT);
	refused(pv_snapshot_create("tank/a", "one", true, &err), -EEXIST, "exists");
	refused(pv_snapshot_create("tank/a", "a/b", false, &err), -EINVAL, "not allowed");
	refused(pv_snapshot_create("tank/a", "", false, &err), -EINVAL, "empty");
}

static void rollback_needs_the_newest(void **state)
{
	ok(pv_snapshot_create("tank/z", "s3", false, &err));
	ok(pv_snapshot_create("tank/z", "s1", false, &err));
	ok(pv_snapshot_create("tank/z", "s2", false, &err));
	snapshots_are("tank/z", "s3 s1 s2 ");
	ok(pv_snapshot_rollback("tank/z", "s2", false, NULL, &err));
	refused(pv_snapshot_rollback("tank/z", "s3", false, NULL, &err), -EEXIST, "\"s2\"");
	snapshots_are("tank/z", "s3 s1 s2 ");
	ok(pv_snapshot_rollback("tank/z", "s3", true, NULL, &err));
	snapshots_are("tank/z", "s3 ");
	refused(pv_snapshot_rollback("tank/z", "s1", true, NULL, &err), -ENOENT, "no snapshot");
}

static void destroys_only_what_is_free(void **state)
{
	ok(pv_dataset_create("tank/p", NULL, 0, 0, 0, &err));
	ok(pv_dataset_create("tank/p/q", NULL, 0, 0, 0, &err));
	refused(pv_dataset_destroy("tank/p", &err), -EEXIST, "below it");
	refused(pv_dataset_destroy("tank/a", &err), -EBUSY, "snapshots");
	refused(pv_dataset_destroy("tank/z", &err), -EBUSY, "snapshots");
	refused(pv_dataset_destroy("tank", &err), -EINVAL, "root");
	refused(pv_dataset_destroy("tank/z@none", &err), -ENOENT, "not exist");
	ok(pv_dataset_destroy("tank/z@s3", &err));
	ok(pv_dataset_destroy("tank/z", &err));
	refused(pv_dataset_destroy("tank/z", &err), -ENOENT, "not exist");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(walks_in_order),
		cmocka_unit_test(recursive_snapshot_is_one_moment),
		cmocka_unit_test(rollback_needs_the_newest),
		cmocka_unit_test(destroys_only_what_is_free),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
