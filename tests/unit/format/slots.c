/* The operations of a LUKS2 volume on its keys, and what they leave on disk. */
#include "fixture.h"
#include "format/luks2_int.h"

#include <pthread.h>
#include <sched.h>

static int slots_of(int fd, char *text, size_t size)
{
	struct json_object *info, *slots;
	struct pv_error err = {0};

	if (pv_luks2_ops.info(fd, &info, &err))
		fail_msg("info: %s", err.message);
	slots = pv_json_array(info, "slots");
	text[0] = '\0';
	for (size_t i = 0; i < json_object_array_length(slots); i++) {
		struct json_object *slot = json_object_array_get_idx(slots, i);
		size_t used = strlen(text);

		snprintf(text + used, size - used, "%d:%s ", (int)pv_json_int(slot, "slot", -1),
			pv_json_string(slot, "kind", ""));
	}
	json_object_put(info);
	return 0;
}

static void created_volume_opens(void **state)
{
	int fd = make_container(CONTAINER_SIZE);
	struct pv_secret *key = make_volume(fd, "first");
	const struct pv_format_ops *ops = NULL;
	struct pv_error err = {0};

	assert_int_equal(pv_format_probe(fd, &ops, &err), 0);
	assert_ptr_equal(ops, &pv_luks2_ops);
	assert_int_equal(key->size, 64);
	assert_int_equal(unlock(fd, "first", key), 0);
	assert_int_equal(unlock_as(fd, "passphrase", "First", false, NULL, &err), -EKEYREJECTED);
	assert_int_equal(err.exit, PV_EXIT_WRONG_KEY);
	assert_string_equal(err.message, "the passphrase opens none of the key slots");
	pv_secret_free(key);
	close(fd);
}

static void segment_says_where_the_data_are(void **state)
{
	int fd = make_container(CONTAINER_SIZE), slot;
	struct pv_secret *key = make_volume(fd, "p"), *again;
	struct pv_unlock_key with = make_key("passphrase", "p");
	struct pv_segment segment;

	assert_int_equal(pv_luks2_ops.unlock(fd, &with, 0, false, &slot, &segment, &again, NULL), 0);
	assert_int_equal(segment.offset, 16 << 20);
	assert_int_equal(segment.size, 0);
	assert_string_equal(segment.cipher, "aes-xts-plain64");
	assert_int_equal(segment.key_size, 64);
	assert_int_equal(segment.sector_size, 4096);
	assert_int_equal(segment.iv_tweak, 0);
	assert_int_equal(pv_luks2_ops.unlock(fd, &with, 1, false, &slot, &segment, &again, NULL), -ENOENT);
	pv_secret_free(again);
	pv_secret_free(key);
	drop_key(&with);
	close(fd);
}

static void several_keys_of_several_kinds(void **state)
{
	int fd = make_container(CONTAINER_SIZE);
	struct pv_unlock_key keys[3] = {make_key("passphrase", "word"), make_key("keyfile", "bytes\n"),
		make_key("recovery", "cbdefghi-recovery")};
	struct pv_format_create params = {
		.keys = keys, .nkeys = 3, .key_size = 32, .sector_size = 512, .label = "L"};
	struct pv_secret *key;
	struct pv_segment segment;
	char text[128];

	keys[1].pbkdf = (struct pv_pbkdf_params){
		.type = PV_PBKDF_ARGON2ID, .forced_iterations = 4, .memory_kib = 64, .parallel = 2};
	assert_int_equal(pv_luks2_ops.create(fd, &params, &segment, &key, NULL), 0);
	assert_int_equal(key->size, 32);
	assert_int_equal(unlock_as(fd, "passphrase", "word", false, key, NULL), 0);
	assert_int_equal(unlock_as(fd, "keyfile", "bytes\n", false, key, NULL), 1);
	assert_int_equal(unlock_as(fd, "recovery", "cbdefghi-recovery", false, key, NULL), 2);
	/* The kind orders the attempts, it excludes none. */
	assert_int_equal(unlock_as(fd, "passphrase", "cbdefghi-recovery", false, key, NULL), 2);
	slots_of(fd, text, sizeof(text));
	assert_string_equal(text, "0:passphrase 1:keyfile 2:recovery ");
	for (int i = 0; i < 3; i++)
		drop_key(&keys[i]);
	pv_secret_free(key);
	close(fd);
}

static void keys_are_added_changed_and_removed(void **state)
{
	int fd = make_container(CONTAINER_SIZE), slot = -1;
	struct pv_secret *key = make_volume(fd, "one");
	struct pv_unlock_key one = make_key("passphrase", "one"), two = make_key("recovery", "two"),
			     three = make_key("keyfile", "three");
	struct pv_error err = {0};
	char text[128];

	assert_int_equal(pv_luks2_ops.key_add(fd, &two, &three, &slot, &err), -EKEYREJECTED);
	assert_int_equal(pv_luks2_ops.key_add(fd, &one, &two, &slot, &err), 0);
	assert_int_equal(slot, 1);
	assert_int_equal(unlock(fd, "two", key), 1);
	assert_int_equal(pv_luks2_ops.key_change(fd, &one, &three, &slot, &err), 0);
	assert_int_equal(slot, 0); /* keeps its number */
	assert_int_equal(unlock(fd, "one", NULL), -EKEYREJECTED);
	assert_int_equal(unlock(fd, "three", key), 0);
	assert_int_equal(unlock(fd, "two", key), 1);
	slots_of(fd, text, sizeof(text));
	assert_string_equal(text, "0:keyfile 1:recovery ");

	assert_int_equal(pv_luks2_ops.key_remove(fd, 0, false, &err), 0);
	assert_int_equal(unlock(fd, "three", NULL), -EKEYREJECTED);
	assert_int_equal(pv_luks2_ops.key_remove(fd, 0, false, &err), -ENOENT);
	assert_int_equal(pv_luks2_ops.key_remove(fd, 1, false, &err), -EBUSY);
	assert_int_equal(unlock(fd, "two", key), 1);
	assert_int_equal(pv_luks2_ops.key_remove(fd, 1, true, &err), 0);
	assert_int_equal(unlock(fd, "two", NULL), -EKEYREJECTED);
	drop_key(&one);
	drop_key(&two);
	drop_key(&three);
	pv_secret_free(key);
	close(fd);
}

/* What an old slot's area held must be gone, or the old passphrase still opens a copy of the old header. */
static void removed_material_is_overwritten(void **state)
{
	int fd = make_container(CONTAINER_SIZE), slot;
	struct pv_secret *key = make_volume(fd, "one");
	struct pv_unlock_key one = make_key("passphrase", "one"), two = make_key("passphrase", "two");
	static uint8_t before[256000], after[256000];

	assert_int_equal(pread(fd, before, sizeof(before), 32768), sizeof(before));
	assert_int_equal(pv_luks2_ops.key_change(fd, &one, &two, &slot, NULL), 0);
	assert_int_equal(pread(fd, after, sizeof(after), 32768), sizeof(after));
	for (size_t at = 0; at < sizeof(before); at += 512)
		assert_memory_not_equal(before + at, after + at, 512);
	drop_key(&one);
	drop_key(&two);
	pv_secret_free(key);
	close(fd);
}

static void slots_run_out_with_a_clear_error(void **state)
{
	int fd = make_container(CONTAINER_SIZE), slot = -1, added = 1, r;
	struct pv_secret *key = make_volume(fd, "one");
	struct pv_unlock_key one = make_key("passphrase", "one");
	struct pv_error err = {0};

	while (!(r = pv_luks2_ops.key_add(fd, &one, &one, &slot, &err)))
		added++;
	assert_int_equal(r, -ENOSPC);
	/* The JSON area of 12 KiB is full before the 32 slots are; either way nothing is lost. */
	assert_true(added >= 20);
	assert_int_equal(unlock(fd, "one", key), 0);
	assert_int_equal(pv_luks2_ops.key_remove(fd, 5, false, &err), 0);
	assert_int_equal(pv_luks2_ops.key_add(fd, &one, &one, &slot, &err), 0);
	assert_int_equal(slot, 5);
	drop_key(&one);
	pv_secret_free(key);
	close(fd);
}

static void unknown_fields_and_tokens_survive(void **state)
{
	int fd = open_image("luks2-argon2i-two-slots.img.xz"), slot;
	struct pv_unlock_key old = make_key("passphrase", "second passphrase"),
			     new = make_key("passphrase", "new");
	luks2_auto struct luks2 *header = NULL;
	struct json_object *token;

	assert_int_equal(pv_luks2_ops.key_change(fd, &old, &new, &slot, NULL), 0);
	assert_int_equal(slot, 1);
	assert_int_equal(luks2_read(fd, &header, NULL), 0);
	token = pv_json_object(pv_json_object(header->json, "tokens"), "0");
	assert_non_null(token);
	assert_string_equal(json_object_to_json_string_ext(token, JSON_C_TO_STRING_PLAIN),
		"{\"type\":\"unknown-to-pvol\",\"keyslots\":[],\"kept\":[1,{\"deep\":\"value\"}]}");
	drop_key(&old);
	drop_key(&new);
	close(fd);
}

static void backup_and_restore(void **state)
{
	int fd = make_container(CONTAINER_SIZE), other = make_container(CONTAINER_SIZE),
	    backup = make_container(0), slot;
	struct pv_secret *key = make_volume(fd, "one"), *other_key = make_volume(other, "other");
	struct pv_unlock_key one = make_key("passphrase", "one"), two = make_key("passphrase", "two");
	static uint8_t noise[65536] = {7};
	struct pv_error err = {0};
	struct stat st;

	assert_int_equal(pv_luks2_ops.backup(fd, backup, &err), 0);
	assert_int_equal(fstat(backup, &st), 0);
	assert_int_equal(st.st_size, 16 << 20);
	assert_int_equal(pv_luks2_ops.key_change(fd, &one, &two, &slot, &err), 0);
	assert_int_equal(unlock(fd, "one", NULL), -EKEYREJECTED);
	assert_int_equal(pv_luks2_ops.restore(fd, backup, false, &err), 0);
	assert_int_equal(unlock(fd, "one", key), 0);

	assert_int_equal(pv_luks2_ops.restore(other, backup, false, &err), -EINVAL);
	assert_non_null(strstr(err.message, "of another volume"));
	assert_int_equal(unlock(other, "other", other_key), 0);

	/* Both copies destroyed: only force can tell that the backup belongs here. */
	assert_int_equal(pwrite(fd, noise, sizeof(noise), 0), sizeof(noise));
	assert_int_equal(unlock(fd, "one", NULL), -EUCLEAN);
	assert_int_equal(pv_luks2_ops.restore(fd, backup, false, &err), -EINVAL);
	assert_int_equal(pv_luks2_ops.restore(fd, backup, true, &err), 0);
	assert_int_equal(unlock(fd, "one", key), 0);

	assert_int_equal(ftruncate(backup, 1 << 20), 0);
	assert_int_equal(pv_luks2_ops.restore(fd, backup, true, &err), -EUCLEAN);
	assert_int_equal(unlock(fd, "one", key), 0);
	pv_secret_free(key);
	pv_secret_free(other_key);
	drop_key(&one);
	drop_key(&two);
	close(fd);
	close(other);
	close(backup);
}

static void erased_header_is_gone(void **state)
{
	int fd = make_container(CONTAINER_SIZE);
	struct pv_secret *key = make_volume(fd, "one");
	const struct pv_format_ops *ops;
	static uint8_t marker[4096] = {9}, after[4096];
	struct pv_error err = {0};

	assert_int_equal(pwrite(fd, marker, sizeof(marker), 16 << 20), sizeof(marker));
	assert_int_equal(pv_luks2_ops.erase(fd, &err), 0);
	assert_int_equal(pv_format_probe(fd, &ops, &err), -EUCLEAN);
	assert_int_equal(unlock(fd, "one", NULL), -EUCLEAN);
	assert_int_equal(pread(fd, after, sizeof(after), 16 << 20), sizeof(after));
	assert_memory_equal(marker, after, sizeof(after)); /* the data are not its business */
	pv_secret_free(key);
	close(fd);
}

static int try_create(uint64_t size, const struct pv_format_create *params, struct pv_error *err)
{
	int fd = make_container(size), r;
	struct pv_secret *key = NULL;
	struct pv_segment segment;

	r = pv_luks2_ops.create(fd, params, &segment, &key, err);
	pv_secret_free(key);
	close(fd);
	return r;
}

static void bad_parameters_are_refused(void **state)
{
	struct pv_unlock_key key = make_key("passphrase", "p");
	struct pv_format_create params = {.keys = &key, .nkeys = 1};
	struct pv_error err = {0};

	assert_int_equal(try_create(1 << 20, &params, &err), -EINVAL);
	assert_non_null(strstr(err.message, "too small"));
	params.sector_size = 8192;
	assert_int_equal(try_create(CONTAINER_SIZE, &params, &err), -EINVAL);
	params.sector_size = 0;
	snprintf(params.cipher, sizeof(params.cipher), "rot13-ecb");
	assert_int_equal(try_create(CONTAINER_SIZE, &params, &err), -ENOTSUP);
	params.cipher[0] = '\0';
	params.key_size = 48;
	assert_int_equal(try_create(CONTAINER_SIZE, &params, &err), -EINVAL);
	params.key_size = 0;
	snprintf(params.label, sizeof(params.label), "\033[31mred");
	assert_int_equal(try_create(CONTAINER_SIZE, &params, &err), -EINVAL);
	params.label[0] = '\0';
	key.pbkdf.forced_iterations = 10;
	assert_int_equal(try_create(CONTAINER_SIZE, &params, &err), -EINVAL);
	drop_key(&key);
}

/* ---- what OpenSSL copies ---- */

static const char needle_plain[] = "Yq7-a-passphrase-found-nowhere-else-4Kd";
static volatile int copies_seen, looks;
static volatile bool deriving;

static int copies_in_heap(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	const size_t size = sizeof(needle_plain) - 1;
	unsigned long from, to;
	char line[512];
	int found = 0;

	while (maps && fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "[heap]") || sscanf(line, "%lx-%lx", &from, &to) != 2)
			continue;
		for (const char *p = (const char *)from;
			(p = memmem(p, to - (uintptr_t)p, needle_plain, size)); p++)
			found++;
	}
	if (maps)
		fclose(maps);
	return found;
}

static void *look_for_copies(void *unused)
{
	while (deriving) {
		int found = copies_in_heap();

		if (found > copies_seen)
			copies_seen = found;
		looks++;
	}
	return unused;
}

/* Seen from another thread while it is at work: the main thread's heap is the one that is called so. */
static void passphrase_stays_out_of_the_heap(void **state)
{
	struct luks2_kdf kdf = {.type = LUKS2_PBKDF2, .hash = "sha512", .iterations = 300000, .salt_size = 8};
	const size_t size = sizeof(needle_plain) - 1;
	struct pv_secret *secret, *out;
	struct pv_error err = {0};
	pthread_t thread;
	char *volatile control = malloc(size); /* volatile: it is looked for behind the compiler's back */

	memcpy(control, needle_plain, size);
	if (copies_in_heap() != 1) {
		free(control);
		skip(); /* an allocator that does not use the heap, as the sanitizers' */
	}
	memset(control, 0, size);
	free(control);
	assert_int_equal(pv_secret_copy(needle_plain, size, &secret, &err), 0);
	assert_int_equal(pv_secret_new(64, &out, &err), 0);
	deriving = true;
	assert_int_equal(pthread_create(&thread, NULL, look_for_copies, NULL), 0);
	while (!looks)
		sched_yield();
	assert_int_equal(luks2_kdf_derive(&kdf, secret, out, &err), 0);
	deriving = false;
	pthread_join(thread, NULL);
	assert_true(looks > 1);
	assert_int_equal(copies_seen, 0);
	pv_secret_free(secret);
	pv_secret_free(out);
}

static void probe_names_what_else_it_is(void **state)
{
	static const struct {
		uint64_t at;
		const char *bytes;
		size_t size;
		const char *message;
	} cases[] = {
		{0, "", 0, "all zeros"},
		{0, "LUKS\xba\xbe\0\1aes", 11, "a LUKS1 volume"},
		{1080, "\x53\xef", 2, "an ext2 file system"},
		{131072 + 3072, "\x0c\xb1\xba\0\0\0\0\0", 8, "a ZFS pool member"},
		{512, "EFI PART", 8, "a disk with a GPT partition table"},
		{0, "XFSB", 4, "an XFS file system"},
		{(1 << 20) - 512, "GEOM::ELI\0\0\0\0\0\0\0", 16, "a GELI provider"},
	};
	const struct pv_format_ops *ops;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int fd = make_container(1 << 20);
		struct pv_error err = {0};

		assert_int_equal(pwrite(fd, cases[i].bytes, cases[i].size, (off_t)cases[i].at),
			(ssize_t)cases[i].size);
		assert_int_equal(pv_format_probe(fd, &ops, &err), i ? -EMEDIUMTYPE : -EUCLEAN);
		if (!strstr(err.message, cases[i].message))
			fail_msg("'%s' does not say '%s'", err.message, cases[i].message);
		assert_int_equal(err.exit, PV_EXIT_DAMAGED);
		close(fd);
	}
}

/* A quarter of a second instead of two: the method is the same. CPU time, so that a busy machine does not
 * matter. */
static void measured_cost_meets_its_target(void **state)
{
	struct pv_pbkdf_params params = {.type = PV_PBKDF_PBKDF2, .iter_time_ms = 250};
	struct luks2_kdf kdf;

	assert_int_equal(luks2_cost_choose(&params, &kdf, NULL), 0);
	assert_true(kdf.iterations >= 1000);
	params.type = PV_PBKDF_ARGON2ID;
	params.memory_kib = 128 << 10;
	assert_int_equal(luks2_cost_choose(&params, &kdf, NULL), 0);
	assert_int_equal(kdf.type, LUKS2_ARGON2ID);
	assert_true(kdf.memory <= 128 << 10 && kdf.memory >= 64 << 10);
	assert_true(kdf.iterations >= 4);
	assert_true(kdf.lanes >= 1 && kdf.lanes <= 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(created_volume_opens),
		cmocka_unit_test(segment_says_where_the_data_are),
		cmocka_unit_test(several_keys_of_several_kinds),
		cmocka_unit_test(keys_are_added_changed_and_removed),
		cmocka_unit_test(removed_material_is_overwritten),
		cmocka_unit_test(slots_run_out_with_a_clear_error),
		cmocka_unit_test(unknown_fields_and_tokens_survive),
		cmocka_unit_test(backup_and_restore),
		cmocka_unit_test(erased_header_is_gone),
		cmocka_unit_test(bad_parameters_are_refused),
		cmocka_unit_test(passphrase_stays_out_of_the_heap),
		cmocka_unit_test(probe_names_what_else_it_is),
		cmocka_unit_test(measured_cost_meets_its_target),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
