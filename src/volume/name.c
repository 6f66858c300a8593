/*
 * The rules for volume names: those of zpool(8) for pools (first a letter; letters, digits, '-', '_', '.',
 * ':'; not a word that means a kind of vdev) without the blank, which device-mapper names cannot hold.
 */
#include "volume/name.h"

#include <errno.h>
#include <string.h>

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_allowed(char c)
{
	return is_letter(c) || (c >= '0' && c <= '9') || (c && strchr("-_.:", c));
}

int pv_volume_name_check(const char *name, struct pv_error *err)
{
	static const char *const prefixes[] = {"mirror", "raidz", "draid", "spare"};

	if (!name || !*name)
		return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, NULL, "the name of the volume is empty");
	if (strlen(name) > PV_VOLUME_NAME_MAX)
		return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, NULL,
			"the name of the volume is longer than %d characters", PV_VOLUME_NAME_MAX);
	if (!is_letter(name[0]))
		return pv_fail_as(
			err, -EINVAL, PV_EXIT_USAGE, name, "the name of a volume must begin with a letter");
	for (const char *p = name; *p; p++) {
		if (!is_allowed(*p))
			return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, name,
				"the name of a volume may hold letters, digits, '-', '_', '.' and ':' only");
	}
	for (unsigned i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
			return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, name,
				"names that begin with '%s' are reserved by ZFS", prefixes[i]);
	}
	if (!strcmp(name, "log"))
		return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, name, "this name is reserved by ZFS");
	/* the engine's socket would have the name of another engine's log */
	if (strlen(name) > 4 && !strcmp(name + strlen(name) - 4, ".log"))
		return pv_fail_as(
			err, -EINVAL, PV_EXIT_USAGE, name, "the name of a volume may not end in '.log'");
	return 0;
}

int pv_volume_name_of(const char *dataset, char ret_name[PV_VOLUME_NAME_MAX + 1], struct pv_error *err)
{
	size_t length = strcspn(dataset ? dataset : "", "/@");
	char name[PV_VOLUME_NAME_MAX + 1];
	int r;

	if (length > PV_VOLUME_NAME_MAX)
		return pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, NULL,
			"the name of the volume is longer than %d characters", PV_VOLUME_NAME_MAX);
	memcpy(name, dataset ? dataset : "", length);
	name[length] = '\0';
	r = pv_volume_name_check(name, err);
	if (r < 0)
		return r;
	memcpy(ret_name, name, length + 1);
	return 0;
}
