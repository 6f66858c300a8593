/* The two copies of the header: which one is in force, what repairs the other. */
#include "fixture.h"

static struct container {
	int fd;
	uint8_t *bytes; /* mapped */
	struct pv_secret *key;
} c;

static int set_up(void **state)
{
	c.fd = make_container(CONTAINER_SIZE);
	c.key = make_volume(c.fd, "pass");
	c.bytes = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, c.fd, 0);
	assert_true(c.bytes != MAP_FAILED);
	return 0;
}

static int tear_down(void **state)
{
	munmap(c.bytes, 1 << 20);
	pv_secret_free(c.key);
	close(c.fd);
	return 0;
}

static void copies_are(const char *primary, const char *secondary)
{
	struct json_object *info, *copies;
	struct pv_error err = {0};

	if (pv_luks2_ops.info(c.fd, &info, &err))
		fail_msg("info: %s", err.message);
	copies = pv_json_object(info, "copies");
	assert_string_equal(pv_json_string(copies, "primary", ""), primary);
	assert_string_equal(pv_json_string(copies, "secondary", ""), secondary);
	json_object_put(info);
}

static void every_flipped_byte_of_one_copy_is_repaired(void **state)
{
	struct pv_error err = {0};

	for (unsigned copy = 0; copy < 2; copy++) {
		for (unsigned at = 0; at < LUKS2_BIN_SIZE; at++) {
			luks2_auto struct luks2 *header = NULL;

			c.bytes[copy * LUKS2_HDR_MIN + at] ^= (uint8_t)(1 + at % 255);
			if (luks2_read(c.fd, &header, &err))
				fail_msg("byte %u of copy %u: %s", at, copy, err.message);
			assert_int_equal(header->copy[copy], LUKS2_COPY_DAMAGED);
			assert_int_equal(header->copy[!copy], LUKS2_COPY_OK);
			if (at % 512 == 7) { /* the slow way now and then */
				assert_int_equal(pv_luks2_ops.probe(c.fd, &err), 1);
				assert_int_equal(unlock_as(c.fd, "passphrase", "pass", true, c.key, &err), 0);
			} else {
				assert_int_equal(luks2_repair(c.fd, header, &err), 0);
			}
			copies_are("ok", "ok");
		}
	}
}

static void flipped_json_is_repaired(void **state)
{
	for (unsigned at = 4096; at < LUKS2_HDR_MIN; at += 97) {
		c.bytes[at] ^= 0x80;
		copies_are("damaged", "ok");
		assert_int_equal(unlock_as(c.fd, "passphrase", "pass", true, NULL, NULL), 0);
		copies_are("ok", "ok");
	}
}

static void without_repair_nothing_is_written(void **state)
{
	c.bytes[100] ^= 1;
	assert_int_equal(unlock(c.fd, "pass", c.key), 0);
	copies_are("damaged", "ok");
	/* A wrong key repairs nothing either. */
	assert_int_equal(unlock_as(c.fd, "passphrase", "wrong", true, NULL, NULL), -EKEYREJECTED);
	copies_are("damaged", "ok");
	c.bytes[100] ^= 1;
	copies_are("ok", "ok");
}

static void damage_in_both_is_reported(void **state)
{
	struct pv_error err = {0};

	for (unsigned at = 0; at < LUKS2_BIN_SIZE; at += 61) {
		c.bytes[at] ^= 0x10;
		c.bytes[LUKS2_HDR_MIN + (at * 7) % LUKS2_BIN_SIZE] ^= 0x10;
		assert_int_equal(unlock_as(c.fd, "passphrase", "pass", true, NULL, &err), -EUCLEAN);
		assert_non_null(strstr(err.message, "both copies of the LUKS2 header are damaged"));
		assert_int_equal(err.exit, PV_EXIT_DAMAGED);
		c.bytes[at] ^= 0x10;
		c.bytes[LUKS2_HDR_MIN + (at * 7) % LUKS2_BIN_SIZE] ^= 0x10;
	}
	copies_are("ok", "ok");
}

static void higher_sequence_number_wins(void **state)
{
	struct pv_unlock_key old = make_key("passphrase", "pass"), new = make_key("passphrase", "more");
	static uint8_t saved[LUKS2_HDR_MIN];
	int slot;

	/* As after a crash between the copies: an old secondary ... */
	memcpy(saved, c.bytes + LUKS2_HDR_MIN, sizeof(saved));
	assert_int_equal(pv_luks2_ops.key_add(c.fd, &old, &new, &slot, NULL), 0);
	memcpy(c.bytes + LUKS2_HDR_MIN, saved, sizeof(saved));
	copies_are("ok", "old");
	assert_int_equal(unlock(c.fd, "more", c.key), 1);
	assert_int_equal(unlock_as(c.fd, "passphrase", "more", true, c.key, NULL), 1);
	copies_are("ok", "ok");

	/* ... and, which only other programs leave, an old primary. */
	memcpy(saved, c.bytes, sizeof(saved));
	assert_int_equal(pv_luks2_ops.key_remove(c.fd, 1, false, NULL), 0);
	memcpy(c.bytes, saved, sizeof(saved));
	copies_are("old", "ok");
	assert_int_equal(unlock(c.fd, "more", NULL), -EKEYREJECTED);
	assert_int_equal(unlock_as(c.fd, "passphrase", "pass", true, c.key, NULL), 0);
	copies_are("ok", "ok");
	drop_key(&old);
	drop_key(&new);
}

/* A key change starts from two good copies, or a torn primary would leave none. */
static void change_repairs_first(void **state)
{
	struct pv_unlock_key old = make_key("passphrase", "pass"), new = make_key("passphrase", "more");
	int slot;

	c.bytes[LUKS2_HDR_MIN + 200] ^= 1;
	copies_are("ok", "damaged");
	assert_int_equal(pv_luks2_ops.key_add(c.fd, &old, &new, &slot, NULL), 0);
	copies_are("ok", "ok");
	assert_int_equal(unlock(c.fd, "more", c.key), 1);
	drop_key(&old);
	drop_key(&new);
}

static void foreign_signature_stops_the_repair(void **state)
{
	struct pv_error err = {0};
	static uint8_t saved[4096];

	memcpy(saved, c.bytes, sizeof(saved));
	memset(c.bytes, 0, 4096);
	memcpy(c.bytes, "XFSB", 4);
	assert_int_equal(unlock_as(c.fd, "passphrase", "pass", true, NULL, &err), -EUCLEAN);
	assert_non_null(strstr(err.message, "an XFS file system"));
	assert_memory_equal(c.bytes, "XFSB", 4);
	assert_int_equal(unlock(c.fd, "pass", c.key), 0); /* reading is no harm */
	memcpy(c.bytes, saved, sizeof(saved));
}

/* After cryptsetup's reformatting with another header size a stale secondary may lie around. */
static void secondary_of_another_volume_is_no_copy(void **state)
{
	int other = make_container(CONTAINER_SIZE);
	struct pv_unlock_key one = make_key("passphrase", "one");
	static uint8_t stale[LUKS2_HDR_MIN];
	int slot;

	pv_secret_free(make_volume(other, "one"));
	for (int i = 0; i < 5; i++)
		assert_int_equal(pv_luks2_ops.key_add(other, &one, &one, &slot, NULL), 0);
	assert_int_equal(pread(other, stale, sizeof(stale), LUKS2_HDR_MIN), sizeof(stale));
	memcpy(c.bytes + LUKS2_HDR_MIN, stale, sizeof(stale));
	copies_are("ok", "damaged");
	assert_int_equal(unlock_as(c.fd, "passphrase", "pass", true, c.key, NULL), 0);
	copies_are("ok", "ok");
	drop_key(&one);
	close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			every_flipped_byte_of_one_copy_is_repaired, set_up, tear_down),
		cmocka_unit_test_setup_teardown(flipped_json_is_repaired, set_up, tear_down),
		cmocka_unit_test_setup_teardown(without_repair_nothing_is_written, set_up, tear_down),
		cmocka_unit_test_setup_teardown(damage_in_both_is_reported, set_up, tear_down),
		cmocka_unit_test_setup_teardown(higher_sequence_number_wins, set_up, tear_down),
		cmocka_unit_test_setup_teardown(change_repairs_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(foreign_signature_stops_the_repair, set_up, tear_down),
		cmocka_unit_test_setup_teardown(secondary_of_another_volume_is_no_copy, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
