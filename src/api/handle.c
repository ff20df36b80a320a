// SPDX-License-Identifier: MIT
/*
 * The table of descriptors: by number, in chunks that are made when first needed and never freed.
 *
 * Looking one up takes no lock.  A slot has a count of references, of which the open descriptor is one,
 * and a flag that it is being closed.  A user adds a reference if the count is not 0 and the flag not set;
 * whoever drops the last one releases the object and closes the descriptor, in this order of events:
 * the number can't be given out again by the system, and the slot be installed again, before that.
 */
#include "api/handle.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define CHUNK	  1024
#define NR_CHUNKS 1024
#define CLOSING	  0x80000000u

struct slot {
	atomic_uint refs;
	struct um_handle h;
};

static struct slot *_Atomic chunks[NR_CHUNKS];
static pthread_mutex_t chunks_lock = PTHREAD_MUTEX_INITIALIZER;

static struct slot *find(int fd)
{
	struct slot *chunk;

	if (fd < 0 || fd >= CHUNK * NR_CHUNKS)
		return NULL;
	chunk = atomic_load_explicit(&chunks[fd / CHUNK], memory_order_acquire);
	return chunk ? &chunk[fd % CHUNK] : NULL;
}

int um_handle_install(int fd, const struct um_handle *h)
{
	struct slot *s;

	if (fd >= CHUNK * NR_CHUNKS) {
		close(fd);
		return -ENFILE;
	}
	pthread_mutex_lock(&chunks_lock);
	if (!chunks[fd / CHUNK])
		atomic_store_explicit(&chunks[fd / CHUNK], calloc(CHUNK, sizeof(struct slot)),
				      memory_order_release);
	pthread_mutex_unlock(&chunks_lock);
	s = find(fd);
	if (!s) {
		close(fd);
		return -ENOMEM;
	}
	s->h = *h;
	atomic_store_explicit(&s->refs, 1, memory_order_release);
	return fd;
}

bool um_handle_get(int fd, struct um_handle *h)
{
	struct slot *s = find(fd);
	unsigned refs;

	if (!s)
		return false;
	refs = atomic_load(&s->refs);
	do {
		if (!refs || (refs & CLOSING))
			return false;
	} while (!atomic_compare_exchange_weak(&s->refs, &refs, refs + 1));
	*h = s->h;
	return true;
}

void um_handle_put(int fd)
{
	struct slot *s = find(fd);
	struct um_handle h = s->h;

	if ((atomic_fetch_sub(&s->refs, 1) & ~CLOSING) != 1)
		return;
	atomic_store(&s->refs, 0);
	h.release(h.obj);
	close(fd);
}

int um_handle_close(int fd)
{
	struct slot *s = find(fd);
	unsigned refs;

	if (!s)
		return -EBADF;
	refs = atomic_load(&s->refs);
	do {
		if (!refs || (refs & CLOSING))
			return -EBADF;
	} while (!atomic_compare_exchange_weak(&s->refs, &refs, refs | CLOSING));
	um_handle_put(fd);
	return 0;
}
