/* Names, registry files, homes: what is written is read back, what makes no sense is refused. */
#include "fixture.h"
#include "base/json.h"
#include "volume/home.h"
#include "volume/name.h"
#include "volume/registry.h"

#include <errno.h>

static void names(void **state)
{
	static const char *const good[] = {"T", "tank", "a-b_c.d:e9", "Z0"};
	static const char *const bad[] = {"", "9x", ".x", "-x", "a b", "a/b", "a@b", "a#b", "mirror1",
		"raidz", "draid2", "spare", "log", "x.log", "..", "\303\244"};
	char name[PV_VOLUME_NAME_MAX + 1], longest[PV_VOLUME_NAME_MAX + 2];
	struct pv_error err = {0};

	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_int_equal(pv_volume_name_check(good[i], &err), 0);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(pv_volume_name_check(bad[i], &err), -EINVAL);
		assert_int_equal(err.exit, PV_EXIT_USAGE);
	}
	memset(longest, 'x', sizeof(longest));
	longest[PV_VOLUME_NAME_MAX + 1] = '\0';
	assert_int_equal(pv_volume_name_check(longest, &err), -EINVAL);
	longest[PV_VOLUME_NAME_MAX] = '\0';
	assert_int_equal(pv_volume_name_check(longest, &err), 0);

	assert_int_equal(pv_volume_name_of("T/docs@snap", name, &err), 0);
	assert_string_equal(name, "T");
	assert_int_equal(pv_volume_name_of("T@snap", name, &err), 0);
	assert_string_equal(name, "T");
	assert_int_equal(pv_volume_name_of("/T", name, &err), -EINVAL);
	assert_int_equal(pv_volume_name_of(NULL, name, &err), -EINVAL);
}

static struct pv_record *sample(void)
{
	struct pv_record *record = pv_record_new("T");

	record->containers[0] = strdup("/a/T.pvol");
	record->containers[1] = strdup("/b/T \"two\".pvol");
	record->sizes[0] = 1ULL << 40;
	record->sizes[1] = 12345;
	record->ncontainers = 2;
	record->at = strdup("/home/u/T");
	record->pool_guid = 0xfedcba9876543210ULL;
	record->last_txg = 1ULL << 60;
	record->created = 1700000000;
	strcpy(record->uuid, "4711-0815");
	return record;
}

static void written_and_read(void **state)
{
	int dir = open(test_dir, O_RDONLY | O_DIRECTORY);
	struct pv_record *record = sample(), *read = NULL;
	struct pv_error err = {0};
	struct stat st;

	record->opened_at = strdup("/mnt");
	record->opened_read_only = true;
	record->failed = strdup("why");
	pv_record_incident(record, "the engine died", "assertion");
	assert_int_equal(pv_registry_save(dir, record, &err), 0);
	assert_int_equal(fstatat(dir, "T.json", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_not_equal(fstatat(dir, ".T.tmp", &st, 0), 0);

	assert_int_equal(pv_registry_load(dir, "T", &read, &err), 0);
	assert_string_equal(read->containers[0], "/a/T.pvol");
	assert_string_equal(read->containers[1], "/b/T \"two\".pvol");
	assert_true(read->sizes[0] == 1ULL << 40 && read->sizes[1] == 12345);
	assert_true(read->pool_guid == 0xfedcba9876543210ULL && read->last_txg == 1ULL << 60);
	assert_string_equal(read->at, "/home/u/T");
	assert_string_equal(read->opened_at, "/mnt");
	assert_true(read->opened_read_only);
	assert_string_equal(read->failed, "why");
	assert_string_equal(read->uuid, "4711-0815");
	assert_int_equal(json_object_array_length(read->incidents), 1);
	pv_record_free(read);
	pv_record_free(record);

	assert_int_equal(pv_registry_remove(dir, "T", &err), 0);
	assert_int_equal(pv_registry_remove(dir, "T", &err), 0);
	assert_int_equal(pv_registry_load(dir, "T", &read, &err), -ENOENT);
	assert_int_equal(err.exit, PV_EXIT_NO_VOLUME);
	close(dir);
}

static void incidents_are_bounded(void **state)
{
	struct pv_record *record = sample();
	char long_detail[5000];
	struct json_object *last;

	memset(long_detail, 'x', sizeof(long_detail));
	strcpy(long_detail + sizeof(long_detail) - 4, "end");
	for (unsigned i = 0; i < PV_INCIDENTS_MAX + 20; i++)
		pv_record_incident(record, "what", long_detail);
	assert_int_equal(json_object_array_length(record->incidents), PV_INCIDENTS_MAX);
	last = json_object_array_get_idx(record->incidents, PV_INCIDENTS_MAX - 1);
	assert_int_equal(strlen(pv_json_string(last, "detail", "")), PV_INCIDENT_DETAIL);
	assert_non_null(strstr(pv_json_string(last, "detail", ""), "end"));
	pv_record_free(record);
}

static void put(const char *name, const char *text)
{
	FILE *f = fopen(in_dir(name), "w");

	fputs(text, f);
	fclose(f);
}

static void damaged_files_are_refused(void **state)
{
	static const char *const bad[] = {"", "{", "[]", "{}", "null", "{\"version\":1}",
		"{\"version\":1,\"name\":\"U\",\"containers\":[{\"path\":\"/x\"}]}",
		"{\"version\":2,\"name\":\"T\",\"containers\":[{\"path\":\"/x\"}]}",
		"{\"version\":1,\"name\":\"T\",\"containers\":[]}",
		"{\"version\":1,\"name\":\"T\",\"containers\":[{\"path\":\"x\"}]}",
		"{\"version\":1,\"name\":\"T\",\"containers\":[7]}",
		"{\"version\":1,\"name\":\"T\",\"containers\":[{\"path\":\"/x\"},{\"path\":\"/"
		"x\"},{\"path\":\"/x\"}]}"};
	int dir = open(test_dir, O_RDONLY | O_DIRECTORY);
	struct pv_record *record = NULL;
	struct pv_error err = {0};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put("T.json", bad[i]);
		assert_int_equal(pv_registry_load(dir, "T", &record, &err), -EUCLEAN);
		assert_null(record);
	}
	/* nothing that is no file, and no waiting for somebody to write into it */
	assert_int_equal(unlink(in_dir("T.json")), 0);
	assert_int_equal(mkfifo(in_dir("T.json"), 0600), 0);
	assert_int_equal(pv_registry_load(dir, "T", &record, &err), -EUCLEAN);
	assert_int_equal(unlink(in_dir("T.json")), 0);
	/* wrong types of what is not needed are as if absent */
	put("T.json",
		"{\"version\":1,\"name\":\"T\",\"containers\":[{\"path\":\"/x\",\"size\":\"no\"}],\"at\":7,"
		"\"slots\":{},\"incidents\":1,\"opened\":[],\"pool_guid\":-1}");
	assert_int_equal(pv_registry_load(dir, "T", &record, &err), 0);
	assert_null(record->at);
	assert_null(record->opened_at);
	assert_int_equal(json_object_array_length(record->incidents), 0);
	pv_record_free(record);
	/* a link could point anywhere */
	unlink(in_dir("T.json"));
	assert_int_equal(symlink("/etc/passwd", in_dir("T.json")), 0);
	assert_true(pv_registry_load(dir, "T", &record, &err) < 0);
	unlink(in_dir("T.json"));
	close(dir);
}

static int collect(const char *name, void *private)
{
	strcat(private, name);
	return 0;
}

static void walk_is_sorted_and_skips_strangers(void **state)
{
	int dir = open(test_dir, O_RDONLY | O_DIRECTORY);
	char found[64] = "";

	put("b.json", "");
	put("a.json", "");
	put("C.json", "");
	put(".d.tmp", "");
	put("e.txt", "");
	put("9.json", "");
	assert_int_equal(pv_registry_walk(dir, collect, found, NULL), 0);
	assert_int_equal(strlen(found), 3);
	assert_non_null(strstr(found, "ab"));
	assert_int_equal(pv_registry_walk(-1, collect, found, NULL), 0);
	close(dir);
}

static void use_home(const char *home, const char *runtime)
{
	setenv("PVOL_HOME", home, 1);
	if (runtime)
		setenv("PVOL_RUNTIME", runtime, 1);
	else
		unsetenv("PVOL_RUNTIME");
}

static void homes(void **state)
{
	char home[128], runtime[128], xdg[128], volumes[140];
	struct pv_home *h = NULL, *other = NULL;
	struct pv_error err = {0};
	struct stat st;

	snprintf(home, sizeof(home), "%s/home/deep", test_dir);
	snprintf(runtime, sizeof(runtime), "%s/run", test_dir);
	snprintf(xdg, sizeof(xdg), "%s/xdg", test_dir);
	use_home(home, runtime);
	assert_int_equal(pv_home_open(false, &h, &err), 0);
	assert_int_equal(h->runtime_fd, -1);
	h = pv_home_free(h);
	assert_int_equal(pv_home_open(true, &h, &err), 0);
	assert_string_equal(h->home, home);
	assert_int_equal(fstat(h->runtime_fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_true(pv_home_runtime_present(h));
	assert_int_equal(rmdir(runtime), 0);
	assert_false(pv_home_runtime_present(h));
	/* another one of the same name is not it */
	assert_int_equal(mkdir(runtime, 0700), 0);
	assert_false(pv_home_runtime_present(h));
	h = pv_home_free(h);

	/* others may enter */
	assert_int_equal(chmod(runtime, 0755), 0);
	assert_int_equal(pv_home_open(true, &h, &err), -EPERM);
	assert_int_equal(rmdir(runtime), 0);
	/* others may write the home or the registry: they could name containers of their own */
	assert_int_equal(chmod(home, 0777), 0);
	assert_int_equal(pv_home_open(true, &h, &err), -EPERM);
	assert_int_equal(chmod(home, 0755), 0);
	snprintf(volumes, sizeof(volumes), "%s/volumes", home);
	assert_int_equal(chmod(volumes, 0720), 0);
	assert_int_equal(pv_home_open(true, &h, &err), -EPERM);
	assert_int_equal(chmod(volumes, 0700), 0);
	assert_int_equal(pv_home_open(true, &h, &err), 0);
	h = pv_home_free(h);
	assert_int_equal(rmdir(runtime), 0);
	/* a link, even to a directory of ours */
	assert_int_equal(symlink(home, runtime), 0);
	assert_int_equal(pv_home_open(true, &h, &err), -ENOTDIR);
	unlink(runtime);
	use_home("relative", runtime);
	assert_int_equal(pv_home_open(true, &h, &err), -EINVAL);

	/* two homes never share a runtime directory */
	if (geteuid() != 0) {
		setenv("XDG_RUNTIME_DIR", xdg, 1);
		use_home(home, NULL);
		assert_int_equal(pv_home_open(true, &h, &err), 0);
		snprintf(home, sizeof(home), "%s/home/second", test_dir);
		use_home(home, NULL);
		assert_int_equal(pv_home_open(true, &other, &err), 0);
		assert_string_not_equal(h->runtime, other->runtime);
		assert_int_equal(strncmp(h->runtime, xdg, strlen(xdg)), 0);
		pv_home_free(h);
		pv_home_free(other);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test_setup_teardown(written_and_read, setup_dir, teardown_dir),
		cmocka_unit_test(incidents_are_bounded),
		cmocka_unit_test_setup_teardown(damaged_files_are_refused, setup_dir, teardown_dir),
		cmocka_unit_test_setup_teardown(walk_is_sorted_and_skips_strangers, setup_dir, teardown_dir),
		cmocka_unit_test_setup_teardown(homes, setup_dir, teardown_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
