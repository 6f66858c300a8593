/*
 * Finding and checking the home and the runtime directory. Both are private: what lies in them is trusted, so
 * an attacker who could place a directory of his own under the same name (in /tmp above all) must be noticed.
 */
#include "volume/home.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

static char *join(const char *a, const char *b)
{
	char *s = NULL;

	return asprintf(&s, "%s/%s", a, b) < 0 ? NULL : s;
}

/* An environment variable's absolute path; NULL when unset or empty. */
static int env_path(const char *variable, const char **ret_value, struct pv_error *err)
{
	const char *value = getenv(variable);

	if (value && !*value)
		value = NULL;
	if (value && *value != '/') {
		pv_fail_as(err, -EINVAL, PV_EXIT_USAGE, value, "%s is not an absolute path", variable);
		return -EINVAL;
	}
	*ret_value = value;
	return 0;
}

static char *find_user_home(void)
{
	const char *home = getenv("HOME");
	struct passwd entry, *result = NULL;
	char buffer[4096];

	if (home && *home == '/')
		return strdup(home);
	if (getpwuid_r(geteuid(), &entry, buffer, sizeof(buffer), &result) == 0 && result && result->pw_dir)
		return strdup(result->pw_dir);
	return strdup("/");
}

/* mkdir -p; what exists already is left as it is. */
static int make_directories(const char *path, struct pv_error *err)
{
	pv_autofree char *copy = strdup(path);

	if (!copy)
		return pv_fail(err, -ENOMEM, path, "out of memory");
	for (char *p = copy + 1;; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0700) < 0 && errno != EEXIST) {
			int code = -errno;
			struct stat st;

			/* a read-only or foreign parent may be there already although mkdir is refused */
			if (stat(copy, &st) < 0 || !S_ISDIR(st.st_mode))
				return pv_fail(
					err, code, copy, "cannot make this directory: %s", pv_strerror(code));
		}
		*p = c;
		if (!c)
			return 0;
	}
}

/* Opens a directory of ours, which nobody else may write. `closed`: nobody else may have any right on it. */
static int open_private(const char *path, bool closed, int *ret_fd, struct pv_error *err)
{
	pv_autoclose int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0) {
		int code = -errno;

		if (code == -ENOENT)
			return -ENOENT;
		if (code == -ELOOP || code == -ENOTDIR)
			return pv_fail(
				err, -ENOTDIR, path, "this must be a directory, and not a symbolic link");
		return pv_fail(err, code, path, "cannot open this directory: %s", pv_strerror(code));
	}
	if (fstat(fd, &st) < 0)
		return pv_fail(err, -errno, path, "cannot read this directory: %s", pv_strerror(errno));
	if (st.st_uid != geteuid()) {
		pv_fail(err, -EPERM, path, "this directory belongs to user %u, not to you",
			(unsigned)st.st_uid);
		pv_remedy(err, "set %s to a directory of your own", closed ? "PVOL_RUNTIME" : "PVOL_HOME");
		return -EPERM;
	}
	if (st.st_mode & (closed ? 077 : 022)) {
		pv_fail(err, -EPERM, path, "other users %s this directory (mode %04o)",
			closed ? "have rights on" : "may write", (unsigned)(st.st_mode & 07777));
		pv_remedy(err, "chmod 700 %s", path);
		return -EPERM;
	}
	*ret_fd = pv_steal_fd(&fd);
	return 0;
}

static int open_or_make(const char *path, bool create, bool closed, int *ret_fd, struct pv_error *err)
{
	int r;

	if (create) {
		r = make_directories(path, err);
		if (r < 0)
			return r;
	}
	r = open_private(path, closed, ret_fd, err);
	if (r == -ENOENT && !create)
		return 0;
	if (r == -ENOENT)
		pv_fail(err, r, path, "this directory has just vanished");
	return r;
}

static char *canonical(const char *path)
{
	char *real = realpath(path, NULL);

	if (real)
		return real;
	real = strdup(path);
	for (size_t n = real ? strlen(real) : 0; n > 1 && real[n - 1] == '/'; n--)
		real[n - 1] = '\0';
	return real;
}

static int home_suffix(const char *home, char ret_suffix[14])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned size = 0;

	if (!EVP_Digest(home, strlen(home), digest, &size, EVP_sha256(), NULL))
		return -EIO;
	ret_suffix[0] = '-';
	for (unsigned i = 0; i < 6; i++)
		snprintf(ret_suffix + 1 + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

static int find_home(struct pv_home *h, bool create, bool *ret_default, struct pv_error *err)
{
	const char *chosen = NULL, *data = NULL;
	pv_autofree char *path = NULL, *standard = NULL, *real_standard = NULL;
	int r;

	r = env_path("PVOL_HOME", &chosen, err);
	if (r >= 0)
		r = env_path("XDG_DATA_HOME", &data, err);
	if (r < 0)
		return r;
	if (data)
		standard = join(data, "pvol");
	else
		standard = join(h->user_home, ".local/share/pvol");
	path = strdup(chosen ? chosen : standard ? standard : "");
	if (!standard || !path)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	if (create) {
		r = make_directories(path, err);
		if (r < 0)
			return r;
	}
	h->home = canonical(path);
	real_standard = canonical(standard);
	if (!h->home || !real_standard)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	*ret_default = !strcmp(h->home, real_standard);
	return 0;
}

static int find_runtime(struct pv_home *h, bool is_default, struct pv_error *err)
{
	const char *chosen = NULL, *xdg = NULL;
	char suffix[14] = "";
	int r, n;

	r = env_path("PVOL_RUNTIME", &chosen, err);
	if (r >= 0)
		r = env_path("XDG_RUNTIME_DIR", &xdg, err);
	if (r < 0)
		return r;
	if (chosen) {
		h->runtime = strdup(chosen);
		return h->runtime ? 0 : pv_fail(err, -ENOMEM, NULL, "out of memory");
	}
	if (!is_default) {
		r = home_suffix(h->home, suffix);
		if (r < 0)
			return pv_fail(err, r, NULL, "cannot compute SHA-256");
	}
	if (geteuid() == 0)
		n = asprintf(&h->runtime, "/run/pvol%s", suffix);
	else if (xdg)
		n = asprintf(&h->runtime, "%s/pvol%s", xdg, suffix);
	else
		n = asprintf(&h->runtime, "/tmp/pvol-%u%s", (unsigned)geteuid(), suffix);
	if (n < 0) {
		h->runtime = NULL;
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	}
	return 0;
}

int pv_home_open(bool create, struct pv_home **ret_home, struct pv_error *err)
{
	pv_autohome struct pv_home *h = calloc(1, sizeof(*h));
	pv_autofree char *volumes = NULL;
	bool is_default = false;
	int r;

	if (!h)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	h->home_fd = h->volumes_fd = h->runtime_fd = -1;
	h->user_home = find_user_home();
	if (!h->user_home)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	r = find_home(h, create, &is_default, err);
	if (r >= 0)
		r = find_runtime(h, is_default, err);
	if (r < 0)
		return r;
	volumes = join(h->home, "volumes");
	if (!volumes)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	r = open_or_make(h->home, create, false, &h->home_fd, err);
	if (r >= 0)
		r = open_or_make(volumes, create, false, &h->volumes_fd, err);
	if (r >= 0)
		r = open_or_make(h->runtime, create, true, &h->runtime_fd, err);
	if (r < 0)
		return r;
	*ret_home = pv_steal_ptr(&h);
	return 0;
}

struct pv_home *pv_home_free(struct pv_home *h)
{
	if (!h)
		return NULL;
	if (h->home_fd >= 0)
		close(h->home_fd);
	if (h->volumes_fd >= 0)
		close(h->volumes_fd);
	if (h->runtime_fd >= 0)
		close(h->runtime_fd);
	free(h->home);
	free(h->runtime);
	free(h->user_home);
	free(h);
	return NULL;
}

bool pv_home_runtime_present(const struct pv_home *h)
{
	struct stat by_name, by_fd;

	return lstat(h->runtime, &by_name) == 0 && fstat(h->runtime_fd, &by_fd) == 0 &&
	       by_name.st_dev == by_fd.st_dev && by_name.st_ino == by_fd.st_ino;
}
