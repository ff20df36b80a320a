// SPDX-License-Identifier: MIT
/*
 * Looking up the functions behind ours: once, as early as possible, since dlsym(3) must not be called in a
 * signal handler.  Other libraries' constructors may call us before ours has run: then the first call does it.
 */
#include "next.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>

static struct um_next next;
static atomic_bool ready;

/* Threads that come here at the same time find the same. */
static void look_up(void)
{
#define X(type, name, params) *(void **)&next.name = dlsym(RTLD_NEXT, #name);
	UM_NEXT_FUNCTIONS(X)
#undef X
	atomic_store_explicit(&ready, true, memory_order_release);
}

const struct um_next *um_next(void)
{
	if (__builtin_expect(!atomic_load_explicit(&ready, memory_order_acquire), 0))
		look_up();
	return &next;
}

__attribute__((constructor)) static void init(void)
{
	um_next();
}
