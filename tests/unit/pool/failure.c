/* A device that stops writing: the pool is suspended, says so, and goes on after a clear. */
#include "device.h"

static const char *const path = "/dev/mapper/pvol-T";

static void *snapshot_thread(void *arg)
{
	struct pv_error *err = arg;

	return (void *)(intptr_t)pv_snapshot_create("tank", "during", false, err);
}

static void suspended_pool_resumes(void **state)
{
	struct pv_pool_create create = {.name = "tank", .devices = &path, .ndevices = 1};
	struct pv_error thread_err = {0};
	struct device device;
	uint64_t objset = 0;
	pthread_t thread;
	void *result;

	device_init(&device, 128 << 20);
	device_register(&device, path);
	ok(pv_pool_create(&create, &err));
	assert_false(pv_pool_suspended("tank"));
	device.fail_writes = true;
	assert_int_equal(pthread_create(&thread, NULL, snapshot_thread, &thread_err), 0);
	for (int i = 0; i < 400 && !pv_pool_suspended("tank"); i++)
		usleep(25000);
	assert_true(pv_pool_suspended("tank"));
	assert_status("tank", "health", "SUSPENDED");
	refused(pv_pool_export("tank", false, &err), -EAGAIN, "suspended");
	refused(pv_pool_sync("tank", &err), -EAGAIN, "suspended");
	refused(pv_snapshot_create("tank", "more", false, &err), -EAGAIN, "suspended");
	device.fail_writes = false;
	ok(pv_pool_clear("tank", &err));
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_int_equal((int)(intptr_t)result, 0);
	assert_false(pv_pool_suspended("tank"));
	assert_int_equal(pv_snapshot_lookup("tank", "during", &objset, NULL), 0);
	assert_status("tank", "health", "ONLINE");
	ok(pv_pool_export("tank", false, &err));
	pv_pool_unregister_device(path);
	device_fini(&device);
}

static void lost_device_fails_calls_not_the_process(void **state)
{
	struct pv_pool_create create = {.name = "tank", .devices = &path, .ndevices = 1};
	struct pv_pool_import import = {.name = "tank"};
	struct device device;

	device_init(&device, 128 << 20);
	device_register(&device, path);
	ok(pv_pool_create(&create, &err));
	ok(pv_pool_export("tank", false, &err));
	device.fail_reads = true;
	refused(pv_pool_import(&import, NULL, &err), -EIO, "could be read");
	device.fail_reads = false;
	ok(pv_pool_import(&import, NULL, &err));
	ok(pv_pool_export("tank", false, &err));
	pv_pool_unregister_device(path);
	refused(pv_pool_import(&import, NULL, &err), -ENOENT, "no pool");
	device_fini(&device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(suspended_pool_resumes),
		cmocka_unit_test(lost_device_fails_calls_not_the_process),
	};

	return cmocka_run_group_tests(tests, start_pool, stop_pool);
}
