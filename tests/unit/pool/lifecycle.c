/* A pool is made, exported, found again by its labels, renamed, grown; garbage is refused. */
#include "device.h"

/* libzpool's; 0 where the system has none. */
extern uint32_t hostid;

static const char *const path = "/dev/mapper/pvol-T";

static void create_one(const char *name)
{
	struct pv_pool_create create = {
		.name = name, .devices = &path, .ndevices = 1, .uid = 1000, .gid = 100};

	ok(pv_pool_create(&create, &err));
}

static void comes_back_after_export(void **state)
{
	struct pv_pool_import import = {0};
	struct device device;
	char *name = NULL, value[64];

	device_init(&device, 128 << 20);
	device_register(&device, path);
	create_one("tank");
	assert_status("tank", "health", "ONLINE");
	assert_status("tank", "ashift", "12");
	ok(pv_dataset_get("tank", "checksum", value, sizeof(value), &err));
	assert_string_equal(value, "sha256");
	ok(pv_dataset_create("tank/home", NULL, 0, 1000, 100, &err));
	ok(pv_dataset_set("tank/home", "com.example:note", "kept", &err));
	ok(pv_pool_export("tank", false, &err));
	assert_true(device.flushes > 0);
	ok(pv_pool_import(&import, &name, &err));
	assert_string_equal(name, "tank");
	free(name);
	ok(pv_dataset_get("tank/home", "com.example:note", value, sizeof(value), &err));
	assert_string_equal(value, "kept");
	refused(pv_pool_import(&import, NULL, &err), -EEXIST, "imported already");
	ok(pv_pool_scrub("tank", false, &err));
	ok(pv_pool_sync("tank", &err));
	ok(pv_pool_export("tank", false, &err));
	refused(pv_pool_export("tank", false, &err), -ENOENT, "no pool");
	pv_pool_unregister_device(path);
	device_fini(&device);
}

/* The label names the path of the maker; what counts is where the device is registered now. */
static void another_path_and_name(void **state)
{
	struct pv_pool_import import = {.name = "tank", .new_name = "cistern", .altroot = "/mnt"};
	struct device device;
	char value[64];

	device_init(&device, 128 << 20);
	device_register(&device, path);
	create_one("tank");
	ok(pv_pool_export("tank", false, &err));
	pv_pool_unregister_device(path);
	device_register(&device, "/dev/lofi/1");
	ok(pv_pool_import(&import, NULL, &err));
	assert_status("cistern", "health", "ONLINE");
	assert_status("cistern", "altroot", "/mnt");
	ok(pv_dataset_get("cistern", "mountpoint", value, sizeof(value), &err));
	assert_string_equal(value, "/mnt/cistern");
	ok(pv_pool_export("cistern", false, &err));
	pv_pool_unregister_device("/dev/lofi/1");
	device_fini(&device);
}

static void read_only_device_is_never_written(void **state)
{
	struct pv_pool_import import = {.name = "tank"};
	struct device device;
	unsigned writes;

	device_init(&device, 128 << 20);
	device_register(&device, path);
	create_one("tank");
	ok(pv_pool_export("tank", false, &err));
	device.bdev.read_only = true;
	writes = device.writes;
	ok(pv_pool_import(&import, NULL, &err));
	assert_status("tank", "read_only", "true");
	refused(pv_snapshot_create("tank", "s", false, &err), -EROFS, "read-only");
	refused(pv_dataset_create("tank/a", NULL, 0, 0, 0, &err), -EROFS, "read-only");
	ok(pv_pool_export("tank", false, &err));
	assert_int_equal(device.writes, writes);
	pv_pool_unregister_device(path);
	device_fini(&device);
}

static void grows_with_its_device(void **state)
{
	struct device device;
	pv_autofree char *before = NULL, *after = NULL;

	device_init(&device, 128 << 20);
	device_register(&device, path);
	create_one("tank");
	before = status_field("tank", "size");
	pv_bdev_set_size(&device.bdev, 256 << 20);
	ok(pv_pool_device_grown(path, &err));
	after = status_field("tank", "size");
	assert_true(strtoull(after, NULL, 10) > strtoull(before, NULL, 10) + (64 << 20));
	refused(pv_pool_device_grown("/dev/none", &err), -ENOENT, "no imported pool");
	ok(pv_pool_export("tank", false, &err));
	pv_pool_unregister_device(path);
	device_fini(&device);
}

/* Only free space is discarded: a discard here zeroes, so the scrub would find any other. */
static void trim_keeps_what_is_used(void **state)
{
	struct pv_pool_import import = {.name = "tank"};
	struct device device;

	device_init(&device, 128 << 20);
	device_register(&device, path);
	create_one("tank");
	ok(pv_dataset_create("tank/a", NULL, 0, 0, 0, &err));
	device.discards = 0;
	ok(pv_pool_trim("tank", true, &err));
	assert_true(device.discards > 0);
	ok(pv_pool_export("tank", false, &err));
	ok(pv_pool_import(&import, NULL, &err));
	ok(pv_pool_scrub("tank", false, &err));
	for (int i = 0; i < 400; i++) {
		pv_autofree char *scan = status_field("tank", "scan");

		if (strstr(scan, "finished"))
			break;
		usleep(25000);
	}
	assert_status("tank", "errors", "0");
	ok(pv_pool_export("tank", false, &err));
	device.bdev.can_discard = false;
	ok(pv_pool_import(&import, NULL, &err));
	refused(pv_pool_trim("tank", true, &err), -EOPNOTSUPP, "none of its devices");
	ok(pv_pool_export("tank", false, &err));
	pv_pool_unregister_device(path);
	device_fini(&device);
}

/* The device as it was while the pool was imported: after a crash here it opens, elsewhere only with force.
 */
static void crashed_pool_belongs_to_its_host(void **state)
{
	struct pv_pool_import import = {.name = "tank"};
	const size_t size = 128 << 20;
	pv_autofree char *crashed = malloc(size);
	uint32_t own = hostid;
	struct device device;

	hostid = 0x1234567;
	device_init(&device, size);
	device_register(&device, path);
	create_one("tank");
	ok(pv_dataset_create("tank/a", NULL, 0, 0, 0, &err));
	ok(pv_pool_sync("tank", &err));
	memcpy(crashed, device.data, size);
	ok(pv_pool_export("tank", false, &err));
	memcpy(device.data, crashed, size);
	ok(pv_pool_import(&import, NULL, &err));
	ok(pv_pool_export("tank", false, &err));
	memcpy(device.data, crashed, size);
	hostid = 0x7654321;
	refused(pv_pool_import(&import, NULL, &err), -EBUSY, "another host");
	import.force = true;
	ok(pv_pool_import(&import, NULL, &err));
	ok(pv_pool_export("tank", false, &err));
	hostid = own;
	pv_pool_unregister_device(path);
	device_fini(&device);
}

static void garbage_is_no_pool(void **state)
{
	struct pv_pool_import import = {0};
	struct device device;
	uint64_t x = 88172645463325252ULL;

	device_init(&device, 64 << 20);
	device_register(&device, path);
	refused(pv_pool_import(&import, NULL, &err), -ENOENT, "no pool on the devices");
	for (size_t i = 0; i < (64 << 20) / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		((uint64_t *)device.data)[i] = x;
	}
	refused(pv_pool_import(&import, NULL, &err), -ENOENT, "no pool on the devices");
	device.fail_reads = true;
	refused(pv_pool_import(&import, NULL, &err), -EIO, "no label could be read");
	device.fail_reads = false;
	pv_pool_unregister_device(path);
	device_fini(&device);
}

/* Of four labels any one is enough; a flipped bit makes a label invalid instead of being believed. */
static void one_good_label_is_enough(void **state)
{
	struct pv_pool_import import = {.name = "tank"};
	const size_t size = 128 << 20, label = 256 << 10;
	struct device device;

	device_init(&device, size);
	device_register(&device, path);
	create_one("tank");
	ok(pv_pool_export("tank", false, &err));
	device.data[16384 + 40] ^= 1;
	memset(device.data + label, 0x5a, label);
	memset(device.data + size - label, 0, label);
	ok(pv_pool_import(&import, NULL, &err));
	ok(pv_pool_export("tank", false, &err));
	for (int l = 0; l < 2; l++) {
		device.data[l * label + 16384 + 40] ^= 1;
		device.data[size - (l + 1) * label + 16384 + 40] ^= 1;
	}
	refused(pv_pool_import(&import, NULL, &err), -ENOENT, "no pool on the devices");
	pv_pool_unregister_device(path);
	device_fini(&device);
}

/* The labels are whole, everything else is gone. */
static void damaged_pool_is_reported(void **state)
{
	struct pv_pool_import import = {.name = "tank"};
	const size_t size = 128 << 20;
	struct device device;

	device_init(&device, size);
	device_register(&device, path);
	create_one("tank");
	ok(pv_pool_export("tank", false, &err));
	memset(device.data + (4 << 20), 0xee, size - (5 << 20));
	refused(pv_pool_import(&import, NULL, &err), -EUCLEAN, "damaged");
	pv_pool_unregister_device(path);
	device_fini(&device);
}

static void bad_creations(void **state)
{
	const char *twice[] = {path, path}, *unknown = "/dev/none";
	struct pv_pool_create create = {.name = "tank", .devices = &path, .ndevices = 1};
	struct device device;

	device_init(&device, 32 << 20);
	device_register(&device, path);
	refused(pv_pool_create(&create, &err), -EOVERFLOW, "too small");
	create.name = "mirror";
	refused(pv_pool_create(&create, &err), -EINVAL, "reserved");
	create.name = "a/b";
	refused(pv_pool_create(&create, &err), -EINVAL, "not allowed");
	create.name = "1a";
	refused(pv_pool_create(&create, &err), -EINVAL, "letter");
	create.name = "tank";
	create.ashift = 40;
	refused(pv_pool_create(&create, &err), -EINVAL, "ashift");
	create.ashift = 0;
	create.devices = &unknown;
	refused(pv_pool_create(&create, &err), -ENOENT, "registered");
	create.devices = twice;
	create.ndevices = 2;
	refused(pv_pool_create(&create, &err), -EINVAL, "twice");
	refused(pv_pool_register_device(path, &device.bdev, &err), -EEXIST, "in use");
	refused(pv_pool_register_device("relative", &device.bdev, &err), -EINVAL, "absolute");
	pv_pool_unregister_device(path);
	device_fini(&device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comes_back_after_export),
		cmocka_unit_test(another_path_and_name),
		cmocka_unit_test(read_only_device_is_never_written),
		cmocka_unit_test(grows_with_its_device),
		cmocka_unit_test(trim_keeps_what_is_used),
		cmocka_unit_test(crashed_pool_belongs_to_its_host),
		cmocka_unit_test(garbage_is_no_pool),
		cmocka_unit_test(one_good_label_is_enough),
		cmocka_unit_test(damaged_pool_is_reported),
		cmocka_unit_test(bad_creations),
	};

	return cmocka_run_group_tests(tests, start_pool, stop_pool);
}
