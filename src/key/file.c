/*
 * Keys from files: a passphrase file, of which one trailing newline is not part of the passphrase (editors
 * and echo add it), and a key file, of which every byte counts.
 */
#include "key/key.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int read_file(
	const char *path, size_t max, struct pv_secret **ret_secret, bool *ret_exposed, struct pv_error *err)
{
	pv_autoclose int opened = -1;
	struct stat st;
	int fd, r;

	if (!strcmp(path, "-")) {
		fd = STDIN_FILENO;
	} else {
		fd = opened = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0) {
			r = -errno;
			return pv_fail(err, r, path, "cannot open the file: %s", pv_strerror(r));
		}
	}
	if (fstat(fd, &st) < 0) {
		r = -errno;
		return pv_fail(err, r, path, "cannot look at the file: %s", pv_strerror(r));
	}
	if (S_ISDIR(st.st_mode))
		return pv_fail(err, -EISDIR, path, "this is a directory, not a file with a key");
	r = pv_secret_read(fd, max, ret_secret, err);
	if (r == -ENODATA)
		return pv_fail(err, r, path, "the file is empty");
	if (r == -EMSGSIZE)
		return pv_fail(err, r, path, "the file is too large for a key: more than %zu bytes", max);
	if (!r && ret_exposed)
		*ret_exposed = S_ISREG(st.st_mode) && (st.st_mode & (S_IRGRP | S_IROTH));
	return r;
}

int pv_key_passphrase_file(
	const char *path, struct pv_secret **ret_secret, bool *ret_exposed, struct pv_error *err)
{
	pv_autosecret struct pv_secret *secret = NULL;
	int r;

	r = read_file(path, PV_KEY_PASSPHRASE_MAX, &secret, ret_exposed, err);
	if (r)
		return r;
	if (secret->data[secret->size - 1] == '\n')
		secret->data[--secret->size] = 0;
	if (!secret->size)
		return pv_fail(err, -ENODATA, path, "the file holds an empty passphrase");
	*ret_secret = pv_steal_ptr(&secret);
	return 0;
}

int pv_key_keyfile(const char *path, struct pv_secret **ret_secret, bool *ret_exposed, struct pv_error *err)
{
	return read_file(path, PV_KEY_FILE_MAX, ret_secret, ret_exposed, err);
}
