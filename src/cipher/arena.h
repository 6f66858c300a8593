/*
 * Private to cipher and format: OpenSSL objects in secret memory.
 *
 * A key schedule is as good as the key, and OpenSSL puts it on the ordinary heap. So this installs OpenSSL's
 * memory hooks before main(), and while a thread is between pv_arena_enter() and pv_arena_leave() what it
 * allocates there comes from the arena, a pv_secret. Everything else goes to malloc as ever.
 */
#ifndef PV_CIPHER_ARENA_H
#define PV_CIPHER_ARENA_H

#include "base/error.h"

#include <stddef.h>

struct pv_arena;

/* -ENOTSUP when another library used OpenSSL before the hooks were in place. */
int pv_arena_new(size_t size, struct pv_arena **ret_arena, struct pv_error *err);
/* Wipes; whatever was allocated in it must have been freed. Accepts NULL; returns NULL. */
struct pv_arena *pv_arena_free(struct pv_arena *arena);

void pv_arena_enter(struct pv_arena *arena);
void pv_arena_leave(void);

/* Bytes taken: nothing allocated while inside means that the hooks do not work. */
size_t pv_arena_used(const struct pv_arena *arena);

#endif
