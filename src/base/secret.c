/*
 * Memory for secrets. Each secret has its own mapping between two inaccessible guard pages:
 *
 *   memfd_secret(2)  the pages are taken out of the kernel's own map, are never swapped, dumped or read by
 *                    ptrace, and count against RLIMIT_MEMLOCK
 *   mlock(2)         where the kernel has no memfd_secret: locked, MADV_DONTDUMP, wiped in a forked child
 *
 * A forked child must not touch its parent's secrets: the first kind is not mapped there at all.
 * Neither kind can be the target of direct I/O or of io_uring's registered buffers; read, write, send and
 * receive copy and are fine.
 */
#include "base/secret.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

#define SECRET_MAX (1U << 20)

void pv_wipe(void *data, size_t size)
{
	if (size)
		explicit_bzero(data, size);
}

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* Puts secret memory at [at, at + capacity), which is reserved. */
static int map_memfd_secret(void *at, size_t capacity)
{
	pv_autoclose int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)capacity) < 0)
		return -errno;
	if (mmap(at, capacity, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		return -errno;
	if (madvise(at, capacity, MADV_DONTFORK) < 0)
		return -errno;
	return 0;
}

static int map_locked(void *at, size_t capacity)
{
	if (mmap(at, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		MAP_FAILED)
		return -errno;
	/* Past the C library: the sanitizers' mlock(3) succeeds and does nothing. */
	if (syscall(SYS_mlock, at, capacity) < 0)
		return -errno;
	if (madvise(at, capacity, MADV_DONTDUMP) < 0 || madvise(at, capacity, MADV_WIPEONFORK) < 0)
		return -errno;
	return 0;
}

static int refuse(struct pv_error *err, int r)
{
	struct rlimit limit;
	int code;

	code = pv_fail(err, -ENOMEM, NULL, "cannot lock memory for a secret: %s", pv_strerror(r));
	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
		pv_remedy(err,
			"raise the memory-lock limit (RLIMIT_MEMLOCK), now %llu KiB: ulimit -l, "
			"/etc/security/limits.conf or LimitMEMLOCK= of the service",
			(unsigned long long)limit.rlim_cur / 1024);
	else
		pv_remedy(err, "the kernel refuses memfd_secret(2) and mlock(2): check the memory-lock limit "
			       "(RLIMIT_MEMLOCK) and the sandbox this runs in");
	return code;
}

static int new_secret(size_t size, struct pv_secret **ret_secret, struct pv_error *err)
{
	size_t page = page_size();
	size_t capacity = (size + page - 1) / page * page;
	struct pv_secret *secret = malloc(sizeof(*secret));
	uint8_t *base;
	int r;

	if (!secret)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	base = mmap(NULL, capacity + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED) {
		r = -errno;
		free(secret);
		return pv_fail(err, -ENOMEM, NULL, "cannot reserve memory for a secret: %s", pv_strerror(r));
	}
	if (map_memfd_secret(base + page, capacity) < 0) {
		r = map_locked(base + page, capacity);
		if (r < 0) {
			munmap(base, capacity + 2 * page);
			free(secret);
			return refuse(err, r);
		}
	}
	*secret = (struct pv_secret){.data = base + page, .size = size, .capacity = capacity};
	*ret_secret = secret;
	return 0;
}

int pv_secret_new(size_t size, struct pv_secret **ret_secret, struct pv_error *err)
{
	if (size == 0 || size > SECRET_MAX)
		return pv_fail(
			err, -EINVAL, NULL, "a secret of %zu bytes: must be 1 to %u", size, SECRET_MAX);
	return new_secret(size, ret_secret, err);
}

int pv_secret_copy(const void *data, size_t size, struct pv_secret **ret_secret, struct pv_error *err)
{
	struct pv_secret *secret;
	int r = pv_secret_new(size, &secret, err);

	if (r < 0)
		return r;
	memcpy(secret->data, data, size);
	*ret_secret = secret;
	return 0;
}

int pv_secret_random(size_t size, struct pv_secret **ret_secret, struct pv_error *err)
{
	pv_autosecret struct pv_secret *secret = NULL;
	int r = pv_secret_new(size, &secret, err);

	if (r < 0)
		return r;
	for (size_t n = 0; n < size;) {
		ssize_t got = getrandom(secret->data + n, size - n, 0);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			r = -errno;
			return pv_fail(err, r, NULL, "cannot get random numbers: %s", pv_strerror(r));
		}
		n += (size_t)got;
	}
	*ret_secret = pv_steal_ptr(&secret);
	return 0;
}

struct pv_secret *pv_secret_free(struct pv_secret *secret)
{
	size_t page = page_size();

	if (!secret)
		return NULL;
	pv_wipe(secret->data, secret->capacity);
	munmap(secret->data - page, secret->capacity + 2 * page);
	free(secret);
	return NULL;
}

/* Waits until a descriptor that may be non-blocking is ready. */
static int wait_for(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	if (poll(&p, 1, -1) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

int pv_secret_read(int fd, size_t max, struct pv_secret **ret_secret, struct pv_error *err)
{
	pv_autosecret struct pv_secret *secret = NULL;
	size_t limit = max < SECRET_MAX ? max : SECRET_MAX;
	size_t n = 0;
	int r;

	/* One byte more than allowed tells "too long" from "just fits"; the memory grows with the need. */
	r = new_secret(1, &secret, err);
	if (r < 0)
		return r;
	for (;;) {
		size_t want = secret->capacity - n;
		ssize_t got;

		if (want > limit + 1 - n)
			want = limit + 1 - n;
		got = read(fd, secret->data + n, want);
		if (got < 0) {
			r = errno == EINTR ? 0 : errno == EAGAIN ? wait_for(fd, POLLIN) : -errno;
			if (r == 0)
				continue;
			return pv_fail(err, r, NULL, "cannot read the secret: %s", pv_strerror(r));
		}
		if (got == 0)
			break;
		n += (size_t)got;
		if (n > limit)
			return pv_fail(err, -EMSGSIZE, NULL, "the secret is longer than %zu bytes", limit);
		if (n == secret->capacity) {
			struct pv_secret *bigger;

			r = new_secret(2 * secret->capacity, &bigger, err);
			if (r < 0)
				return r;
			memcpy(bigger->data, secret->data, n);
			pv_secret_free(secret);
			secret = bigger;
		}
	}
	if (n == 0)
		return pv_fail(err, -ENODATA, NULL, "the secret is empty");
	secret->size = n;
	*ret_secret = pv_steal_ptr(&secret);
	return 0;
}

int pv_secret_write(int fd, const struct pv_secret *secret, struct pv_error *err)
{
	for (size_t n = 0; n < secret->size;) {
		ssize_t put = write(fd, secret->data + n, secret->size - n);

		if (put < 0) {
			int r = errno == EINTR ? 0 : errno == EAGAIN ? wait_for(fd, POLLOUT) : -errno;

			if (r == 0)
				continue;
			return pv_fail(err, r, NULL, "cannot pass on the secret: %s", pv_strerror(r));
		}
		n += (size_t)put;
	}
	return 0;
}

int pv_secret_pipe(const struct pv_secret *secret, int *ret_fd, struct pv_error *err)
{
	pv_autoclose int from = -1, to = -1;
	int ends[2], r;

	if (secret->size > 65536)
		return pv_fail(
			err, -EMSGSIZE, NULL, "a secret of %zu bytes does not fit into a pipe", secret->size);
	if (pipe2(ends, O_CLOEXEC) < 0) {
		r = -errno;
		return pv_fail(err, r, NULL, "cannot make a pipe: %s", pv_strerror(r));
	}
	from = ends[0];
	to = ends[1];
	/* A user with many pipes gets one of a page only: then it must grow, or the write below would block.
	 */
	if ((size_t)fcntl(to, F_GETPIPE_SZ) < secret->size && fcntl(to, F_SETPIPE_SZ, 65536) < 0) {
		r = -errno;
		return pv_fail(err, r, NULL, "cannot enlarge a pipe: %s", pv_strerror(r));
	}
	r = pv_secret_write(to, secret, err);
	if (r < 0)
		return r;
	*ret_fd = pv_steal_fd(&from);
	return 0;
}

bool pv_secret_equal(const struct pv_secret *a, const struct pv_secret *b)
{
	uint8_t different = 0;

	if (a->size != b->size)
		return false;
	for (size_t i = 0; i < a->size; i++)
		different |= a->data[i] ^ b->data[i];
	return different == 0;
}
