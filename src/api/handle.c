// SPDX-License-Identifier: MIT
/*
 * The table of descriptors: by number, in chunks that are made when first needed and never freed.
 *
 * A slot points at a struct um_file, which counts its references: one for each descriptor, one for each
 * call in progress.  Looking one up takes no lock: read the slot, add a reference unless there is none
 * left, and read the slot again: if it still has the file, the reference is good.  That works because files
 * are recycled but never freed, so the count can be read at any time.
 */
#include "api/handle.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define CHUNK	  1024
#define NR_CHUNKS 1024

struct um_file {
	atomic_uint refs;
	unsigned generation; /* see below */
	struct um_handle h;
	struct um_file *next_free;
};

typedef struct um_file *_Atomic slot_t;

static slot_t *_Atomic chunks[NR_CHUNKS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* chunks that are made, the list */
static struct um_file *free_files;

/* How many forks there were between the first process and this one. */
static unsigned generation;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

static void after_fork_child(void)
{
	pthread_mutex_init(&lock, NULL);
	generation++;
}

static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork, after_fork_child);
}

static slot_t *find(int fd)
{
	slot_t *chunk;

	if (fd < 0 || fd >= CHUNK * NR_CHUNKS)
		return NULL;
	chunk = atomic_load_explicit(&chunks[fd / CHUNK], memory_order_acquire);
	return chunk ? &chunk[fd % CHUNK] : NULL;
}

/* As find(), making the chunk.  NULL with *err. */
static slot_t *find_or_make(int fd, int *err)
{
	slot_t *s;

	*err = fd < 0 || fd >= CHUNK * NR_CHUNKS ? -ENFILE : -ENOMEM;
	if (*err == -ENFILE)
		return NULL;
	s = find(fd);
	if (s)
		return s;
	pthread_mutex_lock(&lock);
	if (!chunks[fd / CHUNK])
		atomic_store_explicit(&chunks[fd / CHUNK], calloc(CHUNK, sizeof(slot_t)),
				      memory_order_release);
	pthread_mutex_unlock(&lock);
	return find(fd);
}

static struct um_file *new_file(const struct um_handle *h)
{
	struct um_file *f;

	pthread_once(&once, watch_forks);
	pthread_mutex_lock(&lock);
	f = free_files;
	if (f)
		free_files = f->next_free;
	pthread_mutex_unlock(&lock);
	if (!f)
		f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->h = *h;
	f->h.file = f;
	f->h.dead = false;
	f->generation = generation;
	atomic_store_explicit(&f->refs, 1, memory_order_release);
	return f;
}

static void free_file(struct um_file *f)
{
	pthread_mutex_lock(&lock);
	f->next_free = free_files;
	free_files = f;
	pthread_mutex_unlock(&lock);
}

/* A system descriptor has nothing behind it but settings: it stays good. */
static bool is_dead(const struct um_file *f)
{
	return f->h.foreign || (f->generation != generation && f->h.kind != UM_HANDLE_SYSTEM);
}

static void put_file(struct um_file *f)
{
	if (atomic_fetch_sub(&f->refs, 1) != 1)
		return;
	if (!is_dead(f))
		f->h.release(f->h.obj);
	free_file(f);
}

static struct um_file *get_file(int fd)
{
	slot_t *s = find(fd);
	struct um_file *f;
	unsigned refs;

	if (!s)
		return NULL;
	for (;;) {
		f = atomic_load_explicit(s, memory_order_acquire);
		if (!f)
			return NULL;
		refs = atomic_load(&f->refs);
		while (refs && !atomic_compare_exchange_weak(&f->refs, &refs, refs + 1))
			;
		if (refs && atomic_load(s) == f)
			return f;
		if (refs)
			put_file(f);
	}
}

int um_handle_adopt(int fd, const struct um_handle *h)
{
	struct um_file *f;
	slot_t *s;
	int err;

	s = find_or_make(fd, &err);
	f = s ? new_file(h) : NULL;
	if (!f)
		return err;
	/* If the caller closed a descriptor of ours behind our back, its number comes again. */
	f = atomic_exchange(s, f);
	if (f)
		put_file(f);
	return 0;
}

int um_handle_install(int fd, const struct um_handle *h)
{
	int err = um_handle_adopt(fd, h);

	if (!err)
		return fd;
	close(fd);
	return err;
}

bool um_handle_get(int fd, struct um_handle *h)
{
	struct um_file *f = get_file(fd);

	if (!f)
		return false;
	*h = f->h;
	h->dead = is_dead(f);
	return true;
}

void um_handle_put(const struct um_handle *h)
{
	put_file(h->file);
}

static int drop(int fd, bool and_close)
{
	slot_t *s = find(fd);
	struct um_file *f = s ? atomic_exchange(s, NULL) : NULL;

	if (!f)
		return -EBADF;
	/* In this order: as soon as the number is free, it may be installed again. */
	if (and_close)
		close(fd);
	put_file(f);
	return 0;
}

int um_handle_close(int fd)
{
	return drop(fd, true);
}

int um_handle_forget(int fd)
{
	return drop(fd, false);
}

int um_handle_dup(int fd, int newfd)
{
	struct um_file *f = get_file(fd);
	slot_t *s;
	int err;

	if (!f)
		return -EBADF;
	s = find_or_make(newfd, &err);
	if (!s) {
		put_file(f);
		return err;
	}
	f = atomic_exchange(s, f); /* the reference is the slot's now */
	if (f)
		put_file(f);
	return 0;
}

int um_handle_kind(int fd)
{
	slot_t *s = find(fd);
	struct um_file *f = s ? atomic_load_explicit(s, memory_order_acquire) : NULL;

	return f ? (int)f->h.kind : -1;
}

int um_handle_next(int fd)
{
	for (fd = fd < 0 ? 0 : fd; fd < CHUNK * NR_CHUNKS; fd++) {
		slot_t *s = find(fd);

		if (!s)
			fd |= CHUNK - 1; /* none in this chunk */
		else if (atomic_load_explicit(s, memory_order_acquire))
			return fd;
	}
	return -1;
}
