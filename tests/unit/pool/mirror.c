/* Pools of several devices: with one side missing or stale, and with a whole top-level missing. */
#include "device.h"

static const char *const paths[] = {"/dev/mapper/pvol-A", "/dev/mapper/pvol-B"};

static void make(struct device devices[static 2], bool mirror)
{
	struct pv_pool_create create = {.name = "tank", .devices = paths, .ndevices = 2, .mirror = mirror};

	for (int i = 0; i < 2; i++) {
		device_init(&devices[i], 96 << 20);
		device_register(&devices[i], paths[i]);
	}
	ok(pv_pool_create(&create, &err));
}

static void unmake(struct device devices[static 2])
{
	for (int i = 0; i < 2; i++) {
		pv_pool_unregister_device(paths[i]);
		device_fini(&devices[i]);
	}
}

static void wait_for_resilver(void)
{
	for (int i = 0; i < 400; i++) {
		struct json_object *status = NULL, *scan;
		bool done;

		ok(pv_pool_status("tank", &status, &err));
		done = json_object_object_get_ex(status, "scan", &scan) &&
		       strstr(json_object_to_json_string(scan), "finished");
		json_object_put(status);
		if (done)
			return;
		usleep(25000);
	}
	fail_msg("no resilver within ten seconds");
}

/* Side B misses a write; when it is back, ZFS brings it up to date by itself. */
static void stale_side_is_resilvered(void **state)
{
	struct pv_pool_import import = {.name = "tank"};
	struct device devices[2];
	char value[32];

	make(devices, true);
	ok(pv_pool_export("tank", false, &err));
	pv_pool_unregister_device(paths[1]);
	ok(pv_pool_import(&import, NULL, &err));
	assert_status("tank", "health", "DEGRADED");
	ok(pv_dataset_create("tank/new", NULL, 0, 0, 0, &err));
	ok(pv_pool_export("tank", false, &err));

	device_register(&devices[1], paths[1]);
	ok(pv_pool_import(&import, NULL, &err));
	wait_for_resilver();
	assert_status("tank", "health", "ONLINE");
	ok(pv_pool_export("tank", false, &err));

	/* Now B alone has everything. */
	pv_pool_unregister_device(paths[0]);
	ok(pv_pool_import(&import, NULL, &err));
	ok(pv_dataset_get("tank/new", "type", value, sizeof(value), &err));
	assert_string_equal(value, "filesystem");
	ok(pv_pool_export("tank", false, &err));
	unmake(devices);
}

static void missing_top_level_is_named(void **state)
{
	struct pv_pool_import import = {.name = "tank"};
	struct device devices[2];

	make(devices, false);
	ok(pv_pool_export("tank", false, &err));
	pv_pool_unregister_device(paths[1]);
	refused(pv_pool_import(&import, NULL, &err), -ENXIO, "1 of the pool's devices is missing");
	device_register(&devices[1], paths[1]);
	ok(pv_pool_import(&import, NULL, &err));
	ok(pv_pool_export("tank", false, &err));
	unmake(devices);
}

static void two_pools_need_a_name(void **state)
{
	struct pv_pool_create create = {.name = "tank", .devices = paths, .ndevices = 1};
	struct pv_pool_import import = {0};
	struct device devices[2];

	for (int i = 0; i < 2; i++) {
		device_init(&devices[i], 96 << 20);
		device_register(&devices[i], paths[i]);
	}
	ok(pv_pool_create(&create, &err));
	create.name = "vat";
	create.devices = paths + 1;
	ok(pv_pool_create(&create, &err));
	ok(pv_pool_export("tank", false, &err));
	ok(pv_pool_export("vat", false, &err));
	refused(pv_pool_import(&import, NULL, &err), -EEXIST, "several pools");
	import.name = "vat";
	ok(pv_pool_import(&import, NULL, &err));
	ok(pv_pool_export("vat", false, &err));
	import.name = "tub";
	refused(pv_pool_import(&import, NULL, &err), -ENOENT, "no pool of this name");
	unmake(devices);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stale_side_is_resilvered),
		cmocka_unit_test(missing_top_level_is_named),
		cmocka_unit_test(two_pools_need_a_name),
	};

	return cmocka_run_group_tests(tests, start_pool, stop_pool);
}
