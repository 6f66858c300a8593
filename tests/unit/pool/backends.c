/*
 * The vdev operations over devices that behave like real ones: completions late, out of order and on other
 * threads; a side whose bits rot; records larger than one system call takes pieces.
 */
#include <sys/zfs_context.h>
#include <sys/dmu.h>
#include <sys/dmu_objset.h>
#include <sys/txg.h>

#include "device.h"

#include "block/sim.h"

static const char *const paths[] = {"/dev/mapper/pvol-A", "/dev/mapper/pvol-B"};
#define RECORD (16U << 20)

static void fill(char *data, size_t length)
{
	uint64_t x = 88172645463325252ULL;

	for (size_t i = 0; i + 8 <= length; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(data + i, &x, 8);
	}
}

/* One object of one block of random data. */
static uint64_t write_record(const char *dataset, const char *data, unsigned length)
{
	uint64_t object;
	objset_t *os;
	dmu_tx_t *tx;

	assert_int_equal(dmu_objset_own(dataset, DMU_OST_ZFS, B_FALSE, B_FALSE, FTAG, &os), 0);
	tx = dmu_tx_create(os);
	dmu_tx_hold_write(tx, DMU_NEW_OBJECT, 0, (int)length);
	assert_int_equal(dmu_tx_assign(tx, DMU_TX_WAIT), 0);
	object = dmu_object_alloc(os, DMU_OT_PLAIN_FILE_CONTENTS, (int)length, DMU_OT_NONE, 0, tx);
	dmu_write(os, object, 0, length, data, tx);
	dmu_tx_commit(tx);
	txg_wait_synced(dmu_objset_pool(os), 0);
	dmu_objset_disown(os, B_FALSE, FTAG);
	return object;
}

static void read_record(const char *dataset, uint64_t object, char *data, unsigned length)
{
	objset_t *os;

	assert_int_equal(dmu_objset_own(dataset, DMU_OST_ZFS, B_TRUE, B_FALSE, FTAG, &os), 0);
	assert_int_equal(dmu_read(os, object, 0, length, data, DMU_READ_PREFETCH), 0);
	dmu_objset_disown(os, B_FALSE, FTAG);
}

/* ABDs have pieces of a page: 4096 of them here, more than IOV_MAX. */
static void large_records_survive(void **state)
{
	static const struct pv_property large[] = {{"recordsize", "16M"}, {"compression", "off"}};
	struct pv_pool_create create = {
		.name = "tank", .devices = paths, .ndevices = 1, .fs_props = large, .nfs_props = 2};
	struct pv_pool_import import = {.name = "tank"};
	pv_autofree char *data = malloc(RECORD), *back = malloc(RECORD);
	struct device device;
	uint64_t object;

	device_init(&device, 192 << 20);
	device_register(&device, paths[0]);
	ok(pv_pool_create(&create, &err));
	fill(data, RECORD);
	object = write_record("tank", data, RECORD);
	ok(pv_pool_export("tank", false, &err));
	ok(pv_pool_import(&import, NULL, &err));
	read_record("tank", object, back, RECORD);
	assert_memory_equal(data, back, RECORD);
	ok(pv_pool_export("tank", false, &err));
	pv_pool_unregister_device(paths[0]);
	device_fini(&device);
}

static uint64_t checksum_errors(const char *pool, unsigned side)
{
	struct json_object *status = NULL, *vdevs, *children, *value;
	uint64_t count;

	ok(pv_pool_status(pool, &status, &err));
	assert_true(json_object_object_get_ex(status, "vdevs", &vdevs));
	assert_true(json_object_object_get_ex(json_object_array_get_idx(vdevs, 0), "children", &children));
	assert_true(json_object_object_get_ex(json_object_array_get_idx(children, side), "checksum", &value));
	count = strtoull(json_object_get_string(value), NULL, 10);
	json_object_put(status);
	return count;
}

static void wait_for_scrub(const char *pool)
{
	for (int i = 0; i < 1000; i++) {
		pv_autofree char *scan = status_field(pool, "scan");

		if (strstr(scan, "finished"))
			return;
		usleep(25000);
	}
	fail_msg("the scrub did not end");
}

/* One bit in every 64 KiB, but for the labels: a scrub reopens the devices, and without a label there is
 * none. */
static void rot(struct pv_bdev *bdev)
{
	char sector[512];

	for (uint64_t at = 4 << 20; at < (95 << 20); at += 65536) {
		assert_int_equal(pv_bdev_read(bdev, sector, sizeof(sector), at), 0);
		sector[17] ^= 4;
		assert_int_equal(pv_bdev_write(bdev, sector, sizeof(sector), at), 0);
	}
}

/* Requests complete late and out of order; one side has rotten. The mirror heals and tells. */
static void rotten_side_is_healed(void **state)
{
	struct pv_sim_options slow = {.seed = 1, .delay_us = 300};
	struct pv_pool_create create = {.name = "tank", .devices = paths, .ndevices = 2, .mirror = true};
	pv_autofree char *data = malloc(1 << 20), *back = malloc(1 << 20);
	struct pv_bdev *mem[2] = {NULL}, *sim[2] = {NULL};
	uint64_t objects[16];

	fill(data, 1 << 20);
	for (int i = 0; i < 2; i++) {
		ok(pv_mem_open(96 << 20, &mem[i], &err));
		ok(pv_sim_open(mem[i], &slow, &sim[i], &err));
		ok(pv_pool_register_device(paths[i], sim[i], &err));
	}
	ok(pv_pool_create(&create, &err));
	for (int i = 0; i < 16; i++)
		objects[i] = write_record("tank", data + i * 1000, 131072);
	rot(mem[1]);
	ok(pv_pool_scrub("tank", false, &err));
	wait_for_scrub("tank");
	assert_int_equal(checksum_errors("tank", 0), 0);
	assert_true(checksum_errors("tank", 1) > 0);
	assert_status("tank", "errors", "0");
	ok(pv_pool_clear("tank", &err));
	ok(pv_pool_scrub("tank", false, &err));
	wait_for_scrub("tank");
	assert_status("tank", "errors", "0");
	for (int i = 0; i < 16; i++) {
		read_record("tank", objects[i], back, 131072);
		assert_memory_equal(data + i * 1000, back, 131072);
	}
	ok(pv_pool_export("tank", false, &err));
	for (int i = 0; i < 2; i++) {
		pv_pool_unregister_device(paths[i]);
		pv_bdev_close(sim[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(large_records_survive),
		cmocka_unit_test(rotten_side_is_healed),
	};

	return cmocka_run_group_tests(tests, start_pool, stop_pool);
}
