/*
 * The table of volume formats and the probe over it.
 */
#include "format/format.h"

#include "format/format_int.h"

#include <errno.h>
#include <string.h>

static const struct pv_format_ops *const formats[] = {&pv_luks2_ops};

#define NFORMATS (sizeof(formats) / sizeof(formats[0]))

const struct pv_format_ops *pv_format_by_name(const char *name)
{
	for (size_t i = 0; i < NFORMATS; i++)
		if (!strcmp(formats[i]->name, name))
			return formats[i];
	return NULL;
}

int pv_format_probe(int fd, const struct pv_format_ops **ret_ops, struct pv_error *err)
{
	const char *guess;
	uint64_t size;
	bool foreign;
	int r;

	r = format_size(fd, &size, err);
	if (r)
		return r;
	for (size_t i = 0; i < NFORMATS; i++) {
		r = formats[i]->probe(fd, err);
		if (r < 0)
			return r;
		if (r) {
			*ret_ops = formats[i];
			return 0;
		}
	}
	guess = format_sniff(fd, &foreign);
	if (guess)
		return pv_fail_as(err, foreign ? -EMEDIUMTYPE : -EUCLEAN, PV_EXIT_DAMAGED, NULL,
			"not a volume that pvol knows: it looks like %s", guess);
	return pv_fail(err, -EUCLEAN, NULL, "not a volume that pvol knows: no header is found");
}
