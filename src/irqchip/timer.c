// SPDX-License-Identifier: MIT
/*
 * The helper thread, its timers and its descriptors.
 *
 * Armed timers stand in a binary heap by deadline.  One timerfd carries the nearest of them; the
 * helper thread sleeps in epoll, where it also waits for other descriptors (irqfds).
 *
 *   I1  heap[0..n) is a heap by deadline, and heap[t->slot] == t for each of its timers.
 *   I2  cap >= nr_timers, so arming never allocates.
 *   I3  `programmed`, what the timerfd is set to, is <= heap[0]->deadline, unless the helper thread
 *       is awake and will look at the heap again.  It may be earlier (a timer was cancelled or put
 *       off): then the thread wakes, finds nothing due and sets it anew, which is cheaper than a
 *       system call for each change.
 *   I4  What epoll reports names a watch by its place in a table and the generation of that place, never by
 *       its address: a report may be older than the removal of the watch.
 */
#include "irqchip/timer.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"

#define NSEC_PER_SEC 1000000000ull
#define NEVER	     UINT64_MAX
/* Timers served before the descriptors get their turn, and the other way round. */
#define BATCH 64

/* What epoll reports: these two, or a watch as place and generation. */
#define EVENT_TIMER 0ull
#define EVENT_STOP  1ull
#define EVENT_WATCH BIT(63)

struct place {
	struct um_watch *watch; /* NULL: free */
	u32 generation;		/* below 2^31 */
};

struct um_timers {
	pthread_mutex_t lock;
	pthread_cond_t idle; /* `running` or `watching` became NULL */
	pthread_t thread;
	int epfd, timerfd, stopfd;
	struct um_timer **heap;
	int n, cap, nr_timers;
	u64 programmed;
	struct um_timer *running; /* whose function the helper thread is in */

	struct place *places;
	u32 nr_places;
	struct um_watch *watching; /* whose function the helper thread is in */
};

u64 um_timer_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * NSEC_PER_SEC + (u64)ts.tv_nsec;
}

/* ---- The heap ---- */

static void place(struct um_timers *s, struct um_timer *t, int slot)
{
	s->heap[slot] = t;
	t->slot = slot;
}

static void sift_up(struct um_timers *s, struct um_timer *t, int slot)
{
	while (slot > 0) {
		int parent = (slot - 1) / 2;

		if (s->heap[parent]->deadline <= t->deadline)
			break;
		place(s, s->heap[parent], slot);
		slot = parent;
	}
	place(s, t, slot);
}

static void sift_down(struct um_timers *s, struct um_timer *t, int slot)
{
	for (;;) {
		int child = 2 * slot + 1;

		if (child >= s->n)
			break;
		if (child + 1 < s->n && s->heap[child + 1]->deadline < s->heap[child]->deadline)
			child++;
		if (t->deadline <= s->heap[child]->deadline)
			break;
		place(s, s->heap[child], slot);
		slot = child;
	}
	place(s, t, slot);
}

static void heap_remove(struct um_timers *s, struct um_timer *t)
{
	int slot = t->slot;
	struct um_timer *last;

	if (slot < 0)
		return;
	t->slot = -1;
	last = s->heap[--s->n];
	if (last == t)
		return;
	sift_down(s, last, slot);
	sift_up(s, last, last->slot);
}

static void heap_insert(struct um_timers *s, struct um_timer *t)
{
	sift_up(s, t, s->n++);
}

/* ---- The thread ---- */

/*
 * Set the timerfd.  A value of 0 would disarm it, so the earliest deadline is 1.
 *
 * By syscall(2), as the other calls of the kernel that a vCPU's thread makes: a VMM's filter of system calls may forbid them,
 * and the preload library makes it an exception for these.
 */
static void program(struct um_timers *s, u64 deadline)
{
	u64 at = deadline ? deadline : 1;
	struct itimerspec its = {
		.it_value = { .tv_sec = (time_t)(at / NSEC_PER_SEC),
			      .tv_nsec = (long)(at % NSEC_PER_SEC) },
	};

	s->programmed = deadline;
	syscall(SYS_timerfd_settime, s->timerfd, TFD_TIMER_ABSTIME, &its, NULL);
}

static void serve_timers(struct um_timers *s)
{
	u64 expirations;

	/* Nothing to read is fine: the timerfd was set anew after epoll saw it. */
	if (read(s->timerfd, &expirations, sizeof(expirations)) < 0 && errno != EAGAIN)
		return;
	pthread_mutex_lock(&s->lock);
	s->programmed = NEVER;
	for (int i = 0; i < BATCH && s->n; i++) {
		struct um_timer *t = s->heap[0];

		if (t->deadline > um_timer_now())
			break;
		heap_remove(s, t);
		s->running = t;
		pthread_mutex_unlock(&s->lock);
		t->fn(t->opaque);
		pthread_mutex_lock(&s->lock);
		s->running = NULL;
		pthread_cond_broadcast(&s->idle);
	}
	if (s->n && s->heap[0]->deadline < s->programmed)
		program(s, s->heap[0]->deadline);
	pthread_mutex_unlock(&s->lock);
}

static void serve_watch(struct um_timers *s, u64 event)
{
	u32 slot = (u32)event, generation = event >> 32 & 0x7fffffff;
	struct um_watch *w = NULL;

	pthread_mutex_lock(&s->lock);
	if (slot < s->nr_places && s->places[slot].generation == generation)
		w = s->places[slot].watch;
	if (w) {
		s->watching = w;
		pthread_mutex_unlock(&s->lock);
		w->fn(w->opaque);
		pthread_mutex_lock(&s->lock);
		s->watching = NULL;
		pthread_cond_broadcast(&s->idle);
	}
	pthread_mutex_unlock(&s->lock);
}

static void *helper(void *arg)
{
	struct um_timers *s = arg;

	for (;;) {
		struct epoll_event ev[BATCH];
		int n = epoll_wait(s->epfd, ev, ARRAY_SIZE(ev), -1);

		for (int i = 0; i < n; i++) {
			if (ev[i].data.u64 == EVENT_STOP)
				return NULL;
			if (ev[i].data.u64 == EVENT_TIMER)
				serve_timers(s);
			else
				serve_watch(s, ev[i].data.u64);
		}
	}
}

static int watch(struct um_timers *s, int fd, u64 event)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = event };

	return epoll_ctl(s->epfd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* Every signal is for the VMM's own threads. */
static int start_thread(struct um_timers *s)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = -pthread_create(&s->thread, NULL, helper, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!err)
		pthread_setname_np(s->thread, "umbra-timers");
	return err;
}

static void free_set(struct um_timers *s)
{
	if (s->epfd >= 0)
		close(s->epfd);
	if (s->timerfd >= 0)
		close(s->timerfd);
	if (s->stopfd >= 0)
		close(s->stopfd);
	pthread_cond_destroy(&s->idle);
	pthread_mutex_destroy(&s->lock);
	free(s->heap);
	free(s->places);
	free(s);
}

int um_timers_create(struct um_timers **set)
{
	struct um_timers *s = calloc(1, sizeof(*s));
	int err = 0;

	if (!s)
		return -ENOMEM;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->idle, NULL);
	s->programmed = NEVER;
	s->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (s->epfd < 0)
		err = -errno;
	s->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->timerfd < 0 && !err)
		err = -errno;
	s->stopfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->stopfd < 0 && !err)
		err = -errno;
	if (!err)
		err = watch(s, s->timerfd, EVENT_TIMER);
	if (!err)
		err = watch(s, s->stopfd, EVENT_STOP);
	if (!err)
		err = start_thread(s);
	if (err) {
		free_set(s);
		return err;
	}
	*set = s;
	return 0;
}

void um_timers_destroy(struct um_timers *s)
{
	u64 one = 1;

	while (write(s->stopfd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(s->thread, NULL);
	free_set(s);
}

/* ---- Timers ---- */

int um_timer_init(struct um_timer *t, struct um_timers *s, um_timer_fn fn, void *opaque)
{
	int err = 0;

	pthread_mutex_lock(&s->lock);
	if (s->nr_timers == s->cap) {
		int cap = s->cap ? 2 * s->cap : 16;
		struct um_timer **heap = realloc(s->heap, (size_t)cap * sizeof(*heap));

		if (heap) {
			s->heap = heap;
			s->cap = cap;
		} else {
			err = -ENOMEM;
		}
	}
	if (!err) {
		s->nr_timers++;
		*t = (struct um_timer){ .set = s, .fn = fn, .opaque = opaque, .slot = -1 };
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

void um_timer_arm(struct um_timer *t, u64 deadline)
{
	struct um_timers *s = t->set;

	pthread_mutex_lock(&s->lock);
	heap_remove(s, t);
	t->deadline = deadline;
	heap_insert(s, t);
	if (t->slot == 0 && deadline < s->programmed)
		program(s, deadline);
	pthread_mutex_unlock(&s->lock);
}

void um_timer_cancel(struct um_timer *t)
{
	struct um_timers *s = t->set;

	pthread_mutex_lock(&s->lock);
	heap_remove(s, t);
	pthread_mutex_unlock(&s->lock);
}

void um_timer_destroy(struct um_timer *t)
{
	struct um_timers *s = t->set;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	heap_remove(s, t);
	/* The function may arm the timer once more while it runs. */
	while (s->running == t) {
		pthread_cond_wait(&s->idle, &s->lock);
		heap_remove(s, t);
	}
	s->nr_timers--;
	t->set = NULL;
	pthread_mutex_unlock(&s->lock);
}

/* ---- Descriptors ---- */

/* A free place in the table, which grows as needed; -ENOMEM. */
static int find_place(struct um_timers *s, u32 *slot)
{
	struct place *places;
	u32 i = 0, n;

	while (i < s->nr_places && s->places[i].watch)
		i++;
	if (i == s->nr_places) {
		n = i ? 2 * i : 16;
		places = realloc(s->places, n * sizeof(*places));
		if (!places)
			return -ENOMEM;
		for (u32 k = i; k < n; k++)
			places[k] = (struct place){ 0 };
		s->places = places;
		s->nr_places = n;
	}
	*slot = i;
	return 0;
}

int um_watch_add(struct um_watch *w, struct um_timers *s, int fd, um_timer_fn fn, void *opaque)
{
	struct place *p;
	u32 slot;
	int err;

	pthread_mutex_lock(&s->lock);
	err = find_place(s, &slot);
	if (!err) {
		p = &s->places[slot];
		p->generation = (p->generation + 1) & 0x7fffffff;
		err = watch(s, fd, EVENT_WATCH | (u64)p->generation << 32 | slot);
	}
	if (!err) {
		*w = (struct um_watch){
			.set = s, .fn = fn, .opaque = opaque, .fd = fd, .slot = slot
		};
		/* The helper thread finds it once the lock is released; the report waits, if there is one. */
		s->places[slot].watch = w;
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

void um_watch_remove(struct um_watch *w)
{
	struct um_timers *s = w->set;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	epoll_ctl(s->epfd, EPOLL_CTL_DEL, w->fd, NULL);
	s->places[w->slot].watch = NULL;
	while (s->watching == w)
		pthread_cond_wait(&s->idle, &s->lock);
	w->set = NULL;
	pthread_mutex_unlock(&s->lock);
}
