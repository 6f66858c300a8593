/*
 * Memory hooks for OpenSSL, and the arenas they serve from: bump allocation in a pv_secret. Nothing is reused
 * before the arena goes, which suits contexts that live as long as their cipher.
 */
#include "cipher/arena.h"
#include "base/cleanup.h"
#include "base/secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

/* In front of each block, for realloc. */
struct head {
	_Alignas(64) size_t size;
};

struct pv_arena {
	struct pv_arena *next;
	struct pv_secret *memory;
	size_t used;
};

static bool hooked;
static _Thread_local struct pv_arena *current;

/* All arenas, to know a pointer at free. Freeing OpenSSL objects is rare beside using them. */
static pthread_rwlock_t list_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct pv_arena *list;
static _Atomic unsigned arenas;

static bool in_arena(const void *p)
{
	bool found = false;

	if (!arenas)
		return false;
	pthread_rwlock_rdlock(&list_lock);
	for (const struct pv_arena *a = list; a && !found; a = a->next)
		found = (uintptr_t)p - (uintptr_t)a->memory->data < a->memory->capacity;
	pthread_rwlock_unlock(&list_lock);
	return found;
}

static void *take(struct pv_arena *arena, size_t size)
{
	size_t need = sizeof(struct head) + (size + 63) / 64 * 64;
	struct head *h;

	if (size > arena->memory->capacity || need > arena->memory->capacity - arena->used)
		return NULL;
	h = (struct head *)(arena->memory->data + arena->used);
	h->size = size;
	arena->used += need;
	return h + 1;
}

static void *hook_malloc(size_t size, const char *file, int line)
{
	if (!size)
		return NULL;
	return current ? take(current, size) : malloc(size);
}

static void hook_free(void *p, const char *file, int line)
{
	if (!in_arena(p))
		free(p);
	else
		pv_wipe(p, ((struct head *)p)[-1].size);
}

static void *hook_realloc(void *p, size_t size, const char *file, int line)
{
	size_t had;
	void *q;

	if (!p)
		return hook_malloc(size, file, line);
	if (!size) {
		hook_free(p, file, line);
		return NULL;
	}
	if (!in_arena(p))
		return realloc(p, size);
	/* It stays secret: outside of an arena's scope there is no room to grow into. */
	had = ((struct head *)p)[-1].size;
	if (size <= had)
		return p;
	q = current ? take(current, size) : NULL;
	if (q) {
		memcpy(q, p, had);
		hook_free(p, file, line);
	}
	return q;
}

/* Before main, because OpenSSL accepts hooks only before its first allocation. */
__attribute__((constructor)) static void install_hooks(void)
{
	hooked = CRYPTO_set_mem_functions(hook_malloc, hook_realloc, hook_free) == 1;
}

int pv_arena_new(size_t size, struct pv_arena **ret_arena, struct pv_error *err)
{
	struct pv_arena *arena;
	int r;

	if (!hooked) {
		pv_fail(err, -ENOTSUP, NULL, "key schedules cannot be kept in locked memory");
		pv_remedy(err, "another library started OpenSSL first: check LD_PRELOAD");
		return -ENOTSUP;
	}
	arena = calloc(1, sizeof(*arena));
	if (!arena)
		return pv_fail(err, -ENOMEM, NULL, "out of memory");
	r = pv_secret_new(size, &arena->memory, err);
	if (r < 0) {
		free(arena);
		return r;
	}
	pthread_rwlock_wrlock(&list_lock);
	arena->next = list;
	list = arena;
	arenas++;
	pthread_rwlock_unlock(&list_lock);
	*ret_arena = arena;
	return 0;
}

struct pv_arena *pv_arena_free(struct pv_arena *arena)
{
	if (!arena)
		return NULL;
	pthread_rwlock_wrlock(&list_lock);
	for (struct pv_arena **p = &list; *p; p = &(*p)->next)
		if (*p == arena) {
			*p = arena->next;
			break;
		}
	arenas--;
	pthread_rwlock_unlock(&list_lock);
	pv_secret_free(arena->memory);
	free(arena);
	return NULL;
}

void pv_arena_enter(struct pv_arena *arena)
{
	current = arena;
}

void pv_arena_leave(void)
{
	current = NULL;
}

size_t pv_arena_used(const struct pv_arena *arena)
{
	return arena->used;
}
