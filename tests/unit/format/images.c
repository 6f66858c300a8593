/* Headers made by cryptsetup open with the keys that cryptsetup says; evil ones are refused for the right
 * reason. */
#include "fixture.h"

static void golden(const char *name, const char *passphrase, int expected_slot, uint32_t sector_size)
{
	struct pv_unlock_key key = make_key("passphrase", passphrase);
	struct pv_secret *volume_key;
	struct pv_segment segment;
	struct pv_error err = {0};
	char file[128], path[1024], text[129] = "", expected[129] = "";
	int fd, slot;
	FILE *f;

	snprintf(file, sizeof(file), "luks2-%s.img.xz", name);
	fd = open_image(file);
	if (pv_luks2_ops.unlock(fd, &key, -1, false, &slot, &segment, &volume_key, &err))
		fail_msg("%s: %s", name, err.message);
	assert_int_equal(slot, expected_slot);
	assert_int_equal(segment.sector_size, sector_size);
	assert_int_equal(segment.offset, 16 << 20);
	assert_int_equal(segment.key_size, volume_key->size);
	for (size_t i = 0; i < volume_key->size; i++)
		snprintf(text + 2 * i, 3, "%02x", volume_key->data[i]);
	snprintf(path, sizeof(path), "%s/luks2-%s.key", PV_TEST_IMAGES, name);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(expected, sizeof(expected), f));
	fclose(f);
	assert_string_equal(text, expected);
	pv_secret_free(volume_key);
	drop_key(&key);
	assert_int_equal(unlock(fd, "golden passphrasf", NULL), -EKEYREJECTED);
	close(fd);
}

static void pbkdf2_256_bit_512_sector(void **state)
{
	golden("pbkdf2-256-512", "golden passphrase", 0, 512);
}

static void argon2id_512_bit_4096_sector(void **state)
{
	golden("argon2id-512-4096", "golden passphrase", 0, 4096);
}

static void argon2i_and_pbkdf2_sha512(void **state)
{
	golden("argon2i-two-slots", "golden passphrase", 0, 4096);
	golden("argon2i-two-slots", "second passphrase", 1, 4096);
}

/* What unlock must return, and words that its message must have. */
static const struct {
	const char *name;
	int code;
	const char *words;
} evil[] = {
	{"sound", -EKEYREJECTED, "opens none"},
	{"area-too-small", -EUCLEAN, "key slot 0 has an area too small"},
	{"area-too-large", -EUCLEAN, "key slot 0 has an area outside"},
	{"area-outside", -EUCLEAN, "key slot 0 has an area outside"},
	{"area-in-header", -EUCLEAN, "key slot 0 has an area outside"},
	{"area-overlap", -EUCLEAN, "key slots 0 and 1 overlap"},
	{"area-misaligned", -EUCLEAN, "not aligned"},
	{"area-negative", -EUCLEAN, "not a decimal number"},
	{"area-wraps", -EUCLEAN, "not a decimal number"},
	{"area-beyond-64-bits", -EUCLEAN, "not a decimal number"},
	{"area-hexadecimal", -EUCLEAN, "not a decimal number"},
	{"area-a-number", -EUCLEAN, "no valid \"offset\""},
	{"area-key-huge", -EUCLEAN, "\"key_size\" outside"},
	{"key-size-huge", -EUCLEAN, "\"key_size\" outside"},
	{"key-size-zero", -EUCLEAN, "\"key_size\" outside"},
	{"key-sizes-differ", -EUCLEAN, "disagree on the size"},
	{"stripes-one", -EUCLEAN, "\"stripes\" outside"},
	{"stripes-huge", -EUCLEAN, "\"stripes\" outside"},
	{"af-hash-unknown", -ENOTSUP, "the hash md5"},
	{"slot-32", -EUCLEAN, "objects numbered 0 to 31"},
	{"slot-not-number", -EUCLEAN, "objects numbered 0 to 31"},
	{"slot-leading-zero", -EUCLEAN, "objects numbered 0 to 31"},
	{"slot-is-list", -EUCLEAN, "objects numbered 0 to 31"},
	{"salt-not-base64", -EUCLEAN, "not base64"},
	{"salt-huge", -EUCLEAN, "not base64 of 8 to 64 bytes"},
	{"kdf-missing", -EUCLEAN, "no valid \"kdf\""},
	{"kdf-unknown", -ENOTSUP, "'scrypt'"},
	{"argon2-memory-absurd", -EUCLEAN, "8192 MiB of memory"},
	{"argon2-time-absurd", -EUCLEAN, "absurd work for Argon2"},
	{"pbkdf2-absurd", -EUCLEAN, "2147483647 PBKDF2 rounds"},
	{"pbkdf2-few", -EUCLEAN, "\"iterations\" outside"},
	{"digest-absurd", -EUCLEAN, "2147483647 PBKDF2 rounds"},
	{"digest-missing", -EUCLEAN, "no digest"},
	{"digest-no-segment", -EUCLEAN, "no digest"},
	{"digest-dangling-slot", -EUCLEAN, "a key slot that does not exist"},
	{"digest-dangling-segment", -EUCLEAN, "a segment that does not exist"},
	{"digest-short", -EUCLEAN, "\"digest\" that is not base64 of 16"},
	{"digest-twice", -EUCLEAN, "shares a key slot"},
	{"token-dangling", -EUCLEAN, "a key slot that does not exist"},
	{"token-no-type", -EUCLEAN, "no valid \"type\""},
	{"segments-none", -EUCLEAN, "no data segment"},
	{"segments-two", -ENOTSUP, "2 segments"},
	{"segment-linear", -ENOTSUP, "'linear'"},
	{"segment-flag", -ENOTSUP, "'in-reencryption'"},
	{"segment-integrity", -ENOTSUP, "dm-integrity"},
	{"segment-overlaps-slots", -EUCLEAN, "overlaps the key slots"},
	{"segment-odd-sector", -EUCLEAN, "power of two"},
	{"segment-wraps", -EUCLEAN, "beyond any container"},
	{"segment-detached", -ENOTSUP, "detached"},
	{"requirement-unknown", -ENOTSUP, "requirement 'opal-?[31m'"},
	{"requirement-class-unknown", -ENOTSUP, "'compulsory'"},
	{"flag-unknown", -ENOTSUP, "'invert-all-bits'"},
	{"keyslots-size-huge", -EUCLEAN, "impossible size"},
	{"json-size-wrong", -EUCLEAN, "another size"},
	{"config-missing", -EUCLEAN, "no valid \"config\""},
	{"reencryption", -ENOTSUP, "re-encryption (requirement 'online-reencrypt-v2')"},
	{"reencrypt-slot-alone", -ENOTSUP, "'reencrypt'"},
	{"seqid-exhausted", -EKEYREJECTED, "opens none"},
	{"truncated-in-slots", -EUCLEAN, "truncated"},
	{"truncated-in-copy", -EUCLEAN, "damaged"},
	{"json-deep", -EUCLEAN, "JSON is wrong"},
	{"json-unterminated", -EUCLEAN, "not a terminated object"},
	{"json-not-object", -EUCLEAN, "not a terminated object"},
	{"json-cut", -EUCLEAN, "JSON is wrong"},
	{"json-trailing", -EUCLEAN, "data behind its JSON"},
	{"json-not-utf8", -EUCLEAN, "JSON is wrong"},
	{"header-size-odd", -EUCLEAN, "both copies"},
	{"header-size-huge", -EUCLEAN, "both copies"},
	{"checksum-unknown", -EUCLEAN, "both copies"},
	{"damaged-primary", -EKEYREJECTED, "opens none"},
	{"damaged-secondary", -EKEYREJECTED, "opens none"},
	{"damaged-both", -EUCLEAN, "both copies"},
	{"overwritten-by-ext4", -EKEYREJECTED, "opens none"},
};

#define NEVIL (sizeof(evil) / sizeof(evil[0]))

static uint32_t checksum_of(int fd)
{
	static uint8_t bytes[1 << 20];
	ssize_t n = pread(fd, bytes, sizeof(bytes), 0);
	uint32_t sum = 2166136261;

	for (ssize_t i = 0; i < n; i++)
		sum = (sum ^ bytes[i]) * 16777619;
	return sum;
}

static void evil_headers_are_refused(void **state)
{
	for (size_t i = 0; i < NEVIL; i++) {
		struct pv_error err = {0};
		char file[128];
		uint32_t sum;
		int fd, r;

		snprintf(file, sizeof(file), "evil/%s.img.xz", evil[i].name);
		fd = open_image(file);
		sum = checksum_of(fd);
		r = unlock_as(fd, "passphrase", "any", true, NULL, &err);
		if (r != evil[i].code || !strstr(err.message, evil[i].words))
			fail_msg("%s: %d '%s' instead of %d '%s'", evil[i].name, r, err.message, evil[i].code,
				evil[i].words);
		assert_int_equal(checksum_of(fd), sum); /* nothing was written */
		close(fd);
	}
}

static void refused_headers_are_not_changed(void **state)
{
	struct pv_unlock_key key = make_key("passphrase", "any");

	for (size_t i = 0; i < NEVIL; i++) {
		struct pv_error err = {0};
		char file[128];
		uint32_t sum;
		int fd, slot;

		if (evil[i].code == -EKEYREJECTED)
			continue;
		snprintf(file, sizeof(file), "evil/%s.img.xz", evil[i].name);
		fd = open_image(file);
		sum = checksum_of(fd);
		assert_true(pv_luks2_ops.key_add(fd, &key, &key, &slot, &err) < 0);
		if (evil[i].code == -ENOTSUP)
			assert_int_equal(pv_luks2_ops.key_remove(fd, 0, true, &err), -ENOTSUP);
		assert_int_equal(checksum_of(fd), sum);
		close(fd);
	}
	drop_key(&key);
}

static void info_tells_why_a_volume_is_refused(void **state)
{
	int fd = open_image("evil/reencryption.img.xz");
	struct json_object *info;

	assert_int_equal(pv_luks2_ops.info(fd, &info, NULL), 0);
	assert_non_null(strstr(pv_json_string(info, "refused", ""), "re-encryption"));
	assert_string_equal(json_object_to_json_string_ext(
				    json_object_object_get(info, "requirements"), JSON_C_TO_STRING_PLAIN),
		"[\"online-reencrypt-v2\"]");
	json_object_put(info);
	close(fd);
}

/* A sequence number that would wrap to zero would make the older copy the newer one. */
static void exhausted_sequence_is_not_incremented(void **state)
{
	int fd = open_image("evil/seqid-exhausted.img.xz");
	struct pv_error err = {0};

	assert_int_equal(pv_luks2_ops.key_remove(fd, 0, false, &err), -EUCLEAN);
	assert_non_null(strstr(err.message, "sequence number"));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pbkdf2_256_bit_512_sector),
		cmocka_unit_test(argon2id_512_bit_4096_sector),
		cmocka_unit_test(argon2i_and_pbkdf2_sha512),
		cmocka_unit_test(evil_headers_are_refused),
		cmocka_unit_test(refused_headers_are_not_changed),
		cmocka_unit_test(info_tells_why_a_volume_is_refused),
		cmocka_unit_test(exhausted_sequence_is_not_incremented),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
