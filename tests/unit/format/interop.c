/* Both ways with the real cryptsetup(8), which needs no device-mapper for headers. */
#include "fixture.h"

static char dir[64];

static int set_up(void **state)
{
	make_folder(dir);
	return shell("cd %s && printf first >pw && printf other >pw2 && printf wrong >bad", dir);
}

static int tear_down(void **state)
{
	return shell("rm -rf %s", dir);
}

static int open_file(const char *name, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return fd;
}

/* Whether cryptsetup's volume key is this one. */
static void same_key_as_cryptsetup(const char *name, const struct pv_secret *key)
{
	char expected[129] = "", got[256] = "", command[1024];
	FILE *pipe;

	for (size_t i = 0; i < key->size; i++)
		snprintf(expected + 2 * i, 3, "%02x", key->data[i]);
	snprintf(command, sizeof(command),
		"cryptsetup luksDump --dump-volume-key --batch-mode --key-file %s/pw %s/%s | sed -n '/MK "
		"dump\\|Volume key:/,$p' "
		"| sed 's/MK dump:\\|Volume key://' | tr -dc 0-9a-f",
		dir, dir, name);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_non_null(fgets(got, sizeof(got), pipe));
	pclose(pipe);
	assert_string_equal(got, expected);
}

static void cryptsetup_reads(const char *name, struct pv_format_create *params)
{
	int fd = open_file(name, O_RDWR | O_CREAT | O_TRUNC);
	struct pv_secret *key;
	struct pv_segment segment;
	struct pv_error err = {0};

	assert_int_equal(ftruncate(fd, CONTAINER_SIZE), 0);
	if (pv_luks2_ops.create(fd, params, &segment, &key, &err))
		fail_msg("create: %s", err.message);
	assert_int_equal(shell("cryptsetup isLuks --type luks2 %s/%s", dir, name), 0);
	assert_int_equal(shell("cryptsetup luksDump %s/%s >%s/dump", dir, name, dir), 0);
	assert_int_equal(
		shell("cryptsetup open --test-passphrase --key-file %s/pw %s/%s", dir, dir, name), 0);
	assert_int_equal(shell("cryptsetup open --test-passphrase --key-file %s/bad %s/%s 2>/dev/null", dir,
				 dir, name),
		2);
	same_key_as_cryptsetup(name, key);

	/* cryptsetup changes it, we read that. */
	assert_int_equal(
		shell("cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "
		      "--key-file %s/pw %s/%s %s/pw2",
			dir, dir, name, dir),
		0);
	assert_int_equal(unlock(fd, "other", key), (int)params->nkeys);
	assert_int_equal(shell("cryptsetup luksKillSlot --batch-mode %s/%s 0", dir, name), 0);
	assert_int_equal(unlock(fd, "first", NULL), -EKEYREJECTED);
	assert_int_equal(unlock(fd, "other", key), (int)params->nkeys);
	pv_secret_free(key);
	close(fd);
}

static void cryptsetup_reads_pbkdf2_headers(void **state)
{
	struct pv_unlock_key key = make_key("passphrase", "first");
	struct pv_format_create params = {.keys = &key, .nkeys = 1, .label = "interop"};

	cryptsetup_reads("ours-default", &params);
	params.key_size = 32;
	params.sector_size = 512;
	cryptsetup_reads("ours-256-512", &params);
	assert_int_equal(shell("grep -q 'Label:.*interop' %s/dump", dir), 0);
	assert_int_equal(shell("grep -q 'sector: 512 ' %s/dump", dir), 0);
	drop_key(&key);
}

static void cryptsetup_reads_argon2id_headers(void **state)
{
	struct pv_unlock_key key = make_key("passphrase", "first");
	struct pv_format_create params = {.keys = &key, .nkeys = 1};

	key.pbkdf = (struct pv_pbkdf_params){
		.type = PV_PBKDF_ARGON2ID, .forced_iterations = 4, .memory_kib = 256};
	cryptsetup_reads("ours-argon2id", &params);
	drop_key(&key);
}

static void cryptsetup_reads_changed_keys(void **state)
{
	int fd = open_file("ours-changed", O_RDWR | O_CREAT | O_TRUNC), slot;
	struct pv_unlock_key start = make_key("passphrase", "start"), first = make_key("passphrase", "first"),
			     file = make_key("keyfile", "other"),
			     recovery = make_key("recovery", "cbde-fghi");
	struct pv_secret *key;

	assert_int_equal(ftruncate(fd, CONTAINER_SIZE), 0);
	key = make_volume(fd, "start");
	assert_int_equal(pv_luks2_ops.key_change(fd, &start, &first, &slot, NULL), 0);
	assert_int_equal(pv_luks2_ops.key_add(fd, &first, &file, &slot, NULL), 0);
	assert_int_equal(pv_luks2_ops.key_add(fd, &first, &recovery, &slot, NULL), 0);
	assert_int_equal(
		shell("cryptsetup open --test-passphrase --key-slot 0 --key-file %s/pw %s/ours-changed", dir,
			dir),
		0);
	assert_int_equal(
		shell("cryptsetup open --test-passphrase --key-slot 1 --key-file %s/pw2 %s/ours-changed", dir,
			dir),
		0);
	assert_int_equal(
		shell("printf cbde-fghi | cryptsetup open --test-passphrase --key-slot 2 --key-file - "
		      "%s/ours-changed",
			dir),
		0);
	assert_int_equal(shell("cryptsetup luksDump %s/ours-changed | grep -q systemd-recovery", dir), 0);
	assert_int_equal(pv_luks2_ops.key_remove(fd, 2, false, NULL), 0);
	assert_int_equal(shell("cryptsetup luksDump %s/ours-changed | grep -q systemd-recovery", dir), 1);
	assert_int_equal(
		shell("cryptsetup open --test-passphrase --key-file %s/pw %s/ours-changed", dir, dir), 0);
	same_key_as_cryptsetup("ours-changed", key);
	pv_secret_free(key);
	drop_key(&start);
	drop_key(&first);
	drop_key(&file);
	drop_key(&recovery);
	close(fd);
}

static void backups_are_interchangeable(void **state)
{
	int fd = open_file("ours-backup", O_RDWR | O_CREAT | O_TRUNC);
	int backup = open_file("backup", O_RDWR | O_CREAT | O_TRUNC), theirs;
	struct pv_secret *key;

	assert_int_equal(ftruncate(fd, CONTAINER_SIZE), 0);
	key = make_volume(fd, "first");
	assert_int_equal(pv_luks2_ops.backup(fd, backup, NULL), 0);
	assert_int_equal(shell("cryptsetup luksHeaderBackup --batch-mode --header-backup-file %s/theirs "
			       "%s/ours-backup",
				 dir, dir),
		0);
	assert_int_equal(
		shell("head -c 65536 /dev/urandom | dd of=%s/ours-backup conv=notrunc status=none", dir), 0);
	assert_int_equal(shell("cryptsetup luksHeaderRestore --batch-mode --header-backup-file %s/backup "
			       "%s/ours-backup",
				 dir, dir),
		0);
	assert_int_equal(unlock(fd, "first", key), 0);
	theirs = open_file("theirs", O_RDONLY);
	assert_int_equal(pv_luks2_ops.restore(fd, theirs, false, NULL), 0);
	assert_int_equal(
		shell("cryptsetup open --test-passphrase --key-file %s/pw %s/ours-backup", dir, dir), 0);
	pv_secret_free(key);
	close(fd);
	close(backup);
	close(theirs);
}

static void we_read_cryptsetup(const char *options, uint32_t key_size, uint32_t sector_size)
{
	struct pv_unlock_key key = make_key("passphrase", "first"), added = make_key("passphrase", "other");
	struct pv_secret *volume_key;
	struct pv_segment segment;
	struct pv_error err = {0};
	int fd, slot;

	assert_int_equal(
		shell("truncate -s 20M %s/theirs.img && cryptsetup luksFormat --batch-mode --type luks2 %s "
		      "--key-file %s/pw %s/theirs.img",
			dir, options, dir, dir),
		0);
	fd = open_file("theirs.img", O_RDWR);
	if (pv_luks2_ops.unlock(fd, &key, -1, true, &slot, &segment, &volume_key, &err))
		fail_msg("%s: %s", options, err.message);
	assert_int_equal(volume_key->size, key_size);
	assert_int_equal(segment.sector_size, sector_size);
	same_key_as_cryptsetup("theirs.img", volume_key);
	assert_int_equal(pv_luks2_ops.key_add(fd, &key, &added, &slot, &err), 0);
	assert_int_equal(
		shell("cryptsetup open --test-passphrase --key-slot %d --key-file %s/pw2 %s/theirs.img", slot,
			dir, dir),
		0);
	pv_secret_free(volume_key);
	drop_key(&key);
	drop_key(&added);
	close(fd);
	assert_int_equal(shell("rm %s/theirs.img", dir), 0);
}

static void we_read_cryptsetups_headers(void **state)
{
	we_read_cryptsetup(
		"--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-size 512 --sector-size 4096", 64, 4096);
	we_read_cryptsetup(
		"--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-size 256 --sector-size 512", 32, 512);
	we_read_cryptsetup(
		"--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --hash sha512 --sector-size 2048", 64, 2048);
	we_read_cryptsetup(
		"--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --hash sha1 --sector-size 1024", 64, 1024);
	we_read_cryptsetup(
		"--pbkdf argon2id --pbkdf-memory 256 --pbkdf-parallel 1 --pbkdf-force-iterations 4", 64,
		4096);
	we_read_cryptsetup(
		"--pbkdf argon2i --pbkdf-memory 512 --pbkdf-parallel 2 --pbkdf-force-iterations 4", 64, 4096);
	we_read_cryptsetup("--pbkdf pbkdf2 --pbkdf-force-iterations 1000 --luks2-metadata-size 64k "
			   "--luks2-keyslots-size 1m --sector-size 512",
		64, 512);
}

/* systemd-cryptenroll writes the same token and key format. */
static void systemd_token_is_a_recovery_key(void **state)
{
	struct json_object *info;
	int fd;

	assert_int_equal(shell("truncate -s 20M %s/theirs.img && cryptsetup luksFormat --batch-mode --type "
			       "luks2 --pbkdf "
			       "pbkdf2 --pbkdf-force-iterations 1000 --key-file %s/pw %s/theirs.img && "
			       "printf '{\"type\":\"systemd-recovery\",\"keyslots\":[\"0\"]}' | "
			       "cryptsetup token import %s/theirs.img",
				 dir, dir, dir, dir),
		0);
	fd = open_file("theirs.img", O_RDONLY);
	assert_int_equal(pv_luks2_ops.info(fd, &info, NULL), 0);
	assert_string_equal(
		pv_json_string(json_object_array_get_idx(pv_json_array(info, "slots"), 0), "kind", ""),
		"recovery");
	json_object_put(info);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cryptsetup_reads_pbkdf2_headers),
		cmocka_unit_test(cryptsetup_reads_argon2id_headers),
		cmocka_unit_test(cryptsetup_reads_changed_keys),
		cmocka_unit_test(backups_are_interchangeable),
		cmocka_unit_test(we_read_cryptsetups_headers),
		cmocka_unit_test(systemd_token_is_a_recovery_key),
	};

	if (shell("PATH=$PATH:/usr/sbin:/sbin command -v cryptsetup >/dev/null")) {
		fprintf(stderr, "cryptsetup(8) is not installed: nothing to compare with\n");
		return 1;
	}
	setenv("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", 1);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
