/* Properties as text: what is taken, what is refused and with which words. */
#include "device.h"

static const char *const path = "/dev/mapper/pvol-T";
static struct device device;

static int start(void **state)
{
	int error = start_pool(state);

	if (error == 0) {
		device_init(&device, 128 << 20);
		device_register(&device, path);
	}
	return error;
}

static int stop(void **state)
{
	int error = stop_pool(state);

	pv_pool_unregister_device(path);
	device_fini(&device);
	return error;
}

#define try_create(pool, fs)                                                                                 \
	pv_pool_create(&(struct pv_pool_create){.name = "tank",                                              \
			       .devices = &path,                                                             \
			       .ndevices = 1,                                                                \
			       .pool_props = pool,                                                           \
			       .npool_props = (pool) != NULL,                                                \
			       .fs_props = fs,                                                               \
			       .nfs_props = (fs) != NULL},                                                   \
		&err)

static void assert_property(const char *dataset, const char *name, const char *expected)
{
	char value[256];

	ok(pv_dataset_get(dataset, name, value, sizeof(value), &err));
	assert_string_equal(value, expected);
}

static void bad_pool_properties(void **state)
{
	static const struct {
		struct pv_property property;
		int code;
		const char *word;
	} cases[] = {
		{{"nonsense", "1"}, -EINVAL, "no such pool property"},
		{{"autotrim", "maybe"}, -EINVAL, "is not one of"},
		{{"ashift", "99"}, -EINVAL, "between"},
		{{"ashift", "twelve"}, -EINVAL, "between"},
		{{"feature@warp", "enabled"}, -EINVAL, "no such feature"},
		{{"feature@lz4_compress", "on"}, -EINVAL, "enabled"},
		{{"compatibility", "../etc/passwd"}, -EINVAL, "not the name"},
		{{"compatibility", "never-heard"}, -ENOENT, "no feature set"},
		{{"cachefile", "/etc/zfs/zpool.cache"}, -EINVAL, "none"},
		{{"altroot", "mnt"}, -EINVAL, "absolute"},
		{{"size", "1G"}, -EINVAL, "cannot be set"},
		{{"comment", "t\xc3\xbcr"}, -EINVAL, "printable"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		refused(try_create(&cases[i].property, NULL), cases[i].code, cases[i].word);
}

static void bad_fs_properties_leave_nothing(void **state)
{
	static const struct {
		struct pv_property property;
		int code;
		const char *word;
	} cases[] = {
		{{"compression", "brotli"}, -EINVAL, "is not one of"},
		{{"recordsize", "100000"}, -EINVAL, "power of two"},
		{{"recordsize", "12T"}, -EINVAL, "power of two"},
		{{"quota", "ten"}, -EINVAL, "not a size"},
		{{"quota", "99999999999999999999"}, -EINVAL, "not a size"},
		{{"used", "1"}, -EINVAL, "read-only"},
		{{"volsize", "1G"}, -EINVAL, "does not apply"},
		{{"mountpoint", "relative"}, -EINVAL, "absolute path"},
		{{"encryption", "on"}, -ENOTSUP, "zfs create"},
		{{"casesensitivity", "mixed"}, -ENOTSUP, "sensitive"},
		{{"nosuch", "1"}, -EINVAL, "no such property"},
		{{"checksum", "blake3"}, -ENOTSUP, "feature \"blake3\""},
		{{"reservation", "1T"}, -ENOSPC, "no space"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct pv_pool_import import = {.name = "tank"};

		refused(try_create(NULL, &cases[i].property), cases[i].code, cases[i].word);
		refused(pv_pool_import(&import, NULL, &err), -ENOENT, "no pool");
	}
}

static void values_come_back(void **state)
{
	static const struct pv_property pool[] = {{"comment", "for tests"}},
					fs[] = {{"compression", "zstd-5"}};
	static const struct {
		const char *name, *set, *get;
	} cases[] = {
		{"recordsize", "1M", "1048576"},
		{"quota", "50M", "52428800"},
		{"quota", "none", "0"},
		{"reservation", "1.5M", "1572864"},
		{"refquota", "40MiB", "41943040"},
		{"compression", "gzip-9", "gzip-9"},
		{"atime", "off", "off"},
		{"mountpoint", "/data", "/data"},
		{"mountpoint", "legacy", "legacy"},
		{"canmount", "noauto", "noauto"},
		{"snapshot_limit", "12", "12"},
		{"snapshot_limit", "none", "none"},
		{"com.example:tag", "a b c", "a b c"},
		{"copies", "2", "2"},
		{"sync", "always", "always"},
	};

	ok(try_create(pool, fs));
	assert_property("tank", "compression", "zstd-5");
	assert_property("tank", "utf8only", "off");
	assert_property("tank", "version", "5");
	assert_property("tank", "type", "filesystem");
	ok(pv_dataset_create("tank/a", NULL, 0, 0, 0, &err));
	ok(pv_dataset_create("tank/a/b", NULL, 0, 0, 0, &err));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ok(pv_dataset_set("tank/a", cases[i].name, cases[i].set, &err));
		assert_property("tank/a", cases[i].name, cases[i].get);
	}
	ok(pv_dataset_set("tank/a", "mountpoint", "/data", &err));
	assert_property("tank/a/b", "mountpoint", "/data/b");
	ok(pv_dataset_set("tank/a", "mountpoint", NULL, &err));
	assert_property("tank/a/b", "mountpoint", "/tank/a/b");
	refused(pv_dataset_set("tank/a", "quota", NULL, &err), -EINVAL, "inherited");
	refused(pv_dataset_set("tank/a", "utf8only", "on", &err), -EINVAL, "made");
	refused(pv_dataset_set("tank/none", "atime", "on", &err), -ENOENT, "not exist");
	refused(pv_dataset_set("tank/a@s", "atime", "on", &err), -EINVAL, "");
	ok(pv_pool_export("tank", false, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_pool_properties),
		cmocka_unit_test(bad_fs_properties_leave_nothing),
		cmocka_unit_test(values_come_back),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
