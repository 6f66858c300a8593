/* The anti-forensic splitter: known answers (computed with an independent implementation) and the way back.
 */
#include "fixture.h"

static const struct {
	const char *hash;
	size_t size;
	const char *key;
} answers[] = {
	{"sha256", 64,
		"43732f8175ebd901ece92cb1260f956f8c106e43e8a6c67bfb917dc04ad8fa3b"
		"acdfb41d45391138ec68ec8a133f54d97b62447ea76fa348c8f4a29456de6640"},
	{"sha256", 32, "841a0aed1e1926601524c081224569084f6085735902e203f86dbd9db4de25f0"},
	{"sha1", 32, "ec6c7035ef9e30589e0eff81de932e49bc4731d7376a91673edfe3187e977bf4"},
	{"sha512", 64,
		"dd60d2dc4baa1ec452eb1ad04a9e37c0f30e02f4a3af77df01e8156744ca76c1"
		"5f1442337e24e148bbeae63dce0350102ca08535dfadca09a382c9b71c122396"},
	{"sha256", 20, "24191e6a1e5268d1e234445c2010da51bacfd0b4"},
};

static uint8_t split[LUKS2_STRIPES * 64];

static void merge_gives_known_answers(void **state)
{
	for (size_t a = 0; a < sizeof(answers) / sizeof(answers[0]); a++) {
		uint8_t key[64];
		char text[129] = "";

		for (size_t i = 0; i < LUKS2_STRIPES * answers[a].size; i++)
			split[i] = (uint8_t)(i * 7 + (i >> 8) + 3);
		assert_int_equal(luks2_af_merge(answers[a].hash, split, answers[a].size, key), 0);
		for (size_t i = 0; i < answers[a].size; i++)
			snprintf(text + 2 * i, 3, "%02x", key[i]);
		assert_string_equal(text, answers[a].key);
	}
}

static void split_and_merge_are_inverse(void **state)
{
	uint8_t key[64], back[64];

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)(200 - i);
	for (size_t size = 16; size <= 64; size += 8) {
		assert_int_equal(luks2_af_split("sha256", key, size, split), 0);
		assert_int_equal(luks2_af_merge("sha256", split, size, back), 0);
		assert_memory_equal(key, back, size);
	}
}

/* That is its purpose: any lost bit of any stripe loses the key. */
static void one_flipped_bit_changes_the_key(void **state)
{
	uint8_t key[32] = {1, 2, 3}, back[32];

	assert_int_equal(luks2_af_split("sha256", key, 32, split), 0);
	for (size_t at = 5; at < LUKS2_STRIPES * 32; at += 12345) {
		split[at] ^= 1;
		assert_int_equal(luks2_af_merge("sha256", split, 32, back), 0);
		assert_memory_not_equal(key, back, 32);
		split[at] ^= 1;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(merge_gives_known_answers),
		cmocka_unit_test(split_and_merge_are_inverse),
		cmocka_unit_test(one_flipped_bit_changes_the_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
