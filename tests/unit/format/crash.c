/*
 * Crashes at every write boundary of the header's changes, and inside every write.
 *
 * pwrite and fsync of the code under test are recorded (the linker wraps them). Afterwards the container is
 * rebuilt from its state before the change and a prefix of the recorded writes, the last of them torn at some
 * sector, or, of the writes since the last fsync, only the last. Whatever comes out must open with the old or
 * the new key, with the same volume key.
 */
#include "fixture.h"

#define MAX_EVENTS 64
#define SECTOR 512U

struct event {
	off_t offset;
	size_t size; /* 0: an fsync */
	uint8_t *data;
};

static struct event events[MAX_EVENTS];
static size_t nevents;
static bool recording;

ssize_t __real_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset);
int __real_fsync(int fd);
int __wrap_fsync(int fd);

static void record(const void *data, size_t size, off_t offset)
{
	struct event *event = &events[nevents++];

	assert_true(nevents <= MAX_EVENTS);
	*event = (struct event){.offset = offset, .size = size};
	if (size) {
		event->data = malloc(size);
		assert_non_null(event->data);
		memcpy(event->data, data, size);
	}
}

ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset)
{
	if (recording)
		record(data, size, offset);
	return __real_pwrite64(fd, data, size, offset);
}

int __wrap_fsync(int fd)
{
	if (recording)
		record(NULL, 0, 0);
	return 0; /* not needed, and slow */
}

static void forget(void)
{
	while (nevents)
		free(events[--nevents].data);
}

/* The part of the container that changes touch. */
#define STATE_SIZE (2U << 20)

static void save(int fd, uint8_t *bytes)
{
	assert_int_equal(pread(fd, bytes, STATE_SIZE, 0), STATE_SIZE);
}

static void put(int fd, const void *data, size_t size, off_t offset)
{
	assert_int_equal(__real_pwrite64(fd, data, size, offset), (ssize_t)size);
}

static struct outcome {
	unsigned old, new;
} seen;

/* Opens what is left; counts which keys do. At least one must; what opens must repair itself. */
static void check(int fd, const struct pv_secret *key, const char *old_pass, const char *new_pass,
	const char *where, size_t event, size_t part)
{
	struct pv_error err = {0};
	int by_new = unlock_as(fd, "passphrase", new_pass, false, key, &err);
	int by_old = unlock_as(fd, "passphrase", old_pass, true, key, &err);

	if (by_new < 0 && by_old < 0)
		fail_msg("%s cut in event %zu at %zu: %s", where, event, part, err.message);
	seen.old += by_old >= 0;
	seen.new += by_new >= 0;
}

static void cut_everywhere(int fd, const uint8_t *before, const struct pv_secret *key, const char *old_pass,
	const char *new_pass, const char *where)
{
	size_t stable = 0; /* events before this index are on disk for certain */

	seen = (struct outcome){0};
	recording = false;
	for (size_t e = 0; e < nevents; e++) {
		const struct event *event = &events[e];
		/* A header copy is torn at every kilobyte, an area at a few places: its contents do not
		 * matter then. */
		size_t step = event->size <= LUKS2_HDR_MIN ? 2 * SECTOR : event->size / 3;

		if (!event->size) {
			stable = e + 1;
			continue;
		}
		for (size_t part = 0; part <= event->size; part += step) {
			put(fd, before, STATE_SIZE, 0);
			for (size_t i = 0; i < e; i++)
				put(fd, events[i].data, events[i].size, events[i].offset);
			put(fd, event->data, part, event->offset);
			check(fd, key, old_pass, new_pass, where, e, part);
		}
		/* Its second half reached the disk, its first and everything since the last fsync did not. */
		put(fd, before, STATE_SIZE, 0);
		for (size_t i = 0; i < stable; i++)
			put(fd, events[i].data, events[i].size, events[i].offset);
		put(fd, event->data + event->size / 2, event->size - event->size / 2,
			event->offset + (off_t)(event->size / 2));
		check(fd, key, old_pass, new_pass, where, e, event->size);
	}
}

static void run(const char *where, bool change)
{
	struct pv_unlock_key old = make_key("passphrase", "old"), new = make_key("passphrase", "new");
	uint8_t *before = malloc(STATE_SIZE);
	int fd = make_container(CONTAINER_SIZE), slot;
	struct pv_secret *key;

	key = make_volume(fd, "old");
	save(fd, before);
	recording = true;
	assert_int_equal(
		(change ? pv_luks2_ops.key_change : pv_luks2_ops.key_add)(fd, &old, &new, &slot, NULL), 0);
	recording = false;
	assert_true(nevents >= (change ? 12U : 6U)); /* area and two copies, each synced; change: twice */
	cut_everywhere(fd, before, key, "old", "new", where);
	/* The cuts were at both sides of the moment that counts. */
	assert_true(seen.old > 0 && seen.new > 0);
	if (!change)
		assert_true(seen.old > seen.new); /* adding never takes the old key away */
	forget();
	free(before);
	pv_secret_free(key);
	drop_key(&old);
	drop_key(&new);
	close(fd);
}

static void key_add_survives_any_cut(void **state)
{
	run("key_add", false);
}

static void key_change_survives_any_cut(void **state)
{
	run("key_change", true);
}

static void key_remove_keeps_the_other_key(void **state)
{
	struct pv_unlock_key old = make_key("passphrase", "stays"), new = make_key("passphrase", "goes");
	uint8_t *before = malloc(STATE_SIZE);
	int fd = make_container(CONTAINER_SIZE), slot;
	struct pv_secret *key = make_volume(fd, "stays");

	assert_int_equal(pv_luks2_ops.key_add(fd, &old, &new, &slot, NULL), 0);
	save(fd, before);
	recording = true;
	assert_int_equal(pv_luks2_ops.key_remove(fd, slot, false, NULL), 0);
	recording = false;
	cut_everywhere(fd, before, key, "stays", "goes", "key_remove");
	assert_int_equal(unlock(fd, "stays", key), 0);
	assert_true(seen.old > seen.new);
	forget();
	free(before);
	pv_secret_free(key);
	drop_key(&old);
	drop_key(&new);
	close(fd);
}

/* The repair itself may be cut. */
static void repair_survives_any_cut(void **state)
{
	uint8_t *before = malloc(STATE_SIZE);
	int fd = make_container(CONTAINER_SIZE);
	struct pv_secret *key = make_volume(fd, "old");
	uint8_t bad = 0xff;

	put(fd, &bad, 1, 77);
	save(fd, before);
	recording = true;
	assert_int_equal(unlock_as(fd, "passphrase", "old", true, key, NULL), 0);
	recording = false;
	assert_int_equal(nevents, 2);
	cut_everywhere(fd, before, key, "old", "none", "repair");
	forget();
	free(before);
	pv_secret_free(key);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(key_add_survives_any_cut),
		cmocka_unit_test(key_change_survives_any_cut),
		cmocka_unit_test(key_remove_keeps_the_other_key),
		cmocka_unit_test(repair_survives_any_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
