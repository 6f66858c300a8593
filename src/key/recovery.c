/*
 * Recovery keys: made by the machine, written down by a person, typed in an emergency. See key.h for the
 * format.
 */
#include "key/key.h"

#include <errno.h>
#include <string.h>

#define NIBBLES 64U
#define GROUP 8U

static const char modhex[] = "cbdefghijklnrtuv";

/* Puts a character at its place and the dash that follows a full group. */
static size_t put(uint8_t *out, size_t at, unsigned index, char c)
{
	if (index && index % GROUP == 0)
		out[at++] = '-';
	out[at++] = (uint8_t)c;
	return at;
}

int pv_key_recovery_new(struct pv_secret **ret_secret, struct pv_error *err)
{
	pv_autosecret struct pv_secret *random = NULL, *key = NULL;
	size_t at = 0;
	int r;

	r = pv_secret_random(NIBBLES / 2, &random, err);
	if (!r)
		r = pv_secret_new(PV_KEY_RECOVERY_SIZE, &key, err);
	if (r)
		return r;
	for (unsigned i = 0; i < NIBBLES; i++)
		at = put(key->data, at, i, modhex[random->data[i / 2] >> (i % 2 ? 0 : 4) & 15]);
	*ret_secret = key;
	key = NULL;
	return 0;
}

int pv_key_recovery_normalise(
	const struct pv_secret *typed, struct pv_secret **ret_secret, struct pv_error *err)
{
	pv_autosecret struct pv_secret *key = NULL;
	unsigned count = 0;
	size_t at = 0;
	int r;

	r = pv_secret_new(PV_KEY_RECOVERY_SIZE, &key, err);
	if (r)
		return r;
	for (size_t i = 0; i < typed->size; i++) {
		char c = (char)typed->data[i];

		if (strchr("- \t\r\n", c) && c)
			continue;
		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		if (!c || !strchr(modhex, c))
			return pv_fail(err, -EINVAL, NULL,
				"this is not a recovery key: it has a character that none has");
		if (count == NIBBLES)
			return pv_fail(err, -EINVAL, NULL, "this is not a recovery key: it is too long");
		at = put(key->data, at, count++, c);
	}
	if (count < NIBBLES)
		return pv_fail(err, -EINVAL, NULL,
			"this is not a recovery key: %u of its %u characters are missing", NIBBLES - count,
			NIBBLES);
	*ret_secret = key;
	key = NULL;
	return 0;
}
