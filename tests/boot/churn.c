// SPDX-License-Identifier: MIT
/*
 * What a guest does while it is saved, restored and moved: it changes memory all the time, and
 * notices if anything that it had is not what it left.
 *
 *	churn MEBIBYTES
 *
 * One thread for each CPU, bound to it, owns a share of that memory. Again and again it takes a
 * page at random, checks every word of it, and writes a new version; which version a page has
 * stands in a table elsewhere. So a page that arrives in an older state than another one shows.
 * Meanwhile, and across every interruption, registers keep values (general purpose, x87, SSE, AVX
 * if there is), a periodic timer delivers signals, every thread sleeps now and then (which needs
 * its own CPU's timer), a token goes round among the threads (which needs interrupts between CPUs),
 * and the clocks must go on: never back, and never too far.
 *
 * Twice a second a line "CHURN n rounds R clock MS" comes; "stop" on the console ends it with
 * "CHURN OK", an error with "CHURN FAIL". An error of a register names it.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PAGE	    4096
#define WORDS	    (PAGE / 8)
#define MAX_THREADS 64

struct worker {
	pthread_t thread;
	unsigned cpu;
	uint64_t *pages;
	uint32_t *versions;
	size_t nr_pages;
	uint64_t rounds;
	unsigned sleeps;
};

static struct worker workers[MAX_THREADS];
static unsigned nr_workers;
static volatile int stop;
static volatile sig_atomic_t ticks;
static int has_avx;

static void __attribute__((format(printf, 1, 2))) fail(const char *format, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	printf("CHURN FAIL %s\n", text);
	_exit(1);
}

/* ---- memory ---- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static uint64_t word_of(const struct worker *w, size_t page, uint32_t version, unsigned i)
{
	return mix(((uint64_t)w->cpu << 56) ^ ((uint64_t)page << 32) ^ version) +
	       i * 0x9e3779b97f4a7c15ull;
}

static void write_page(struct worker *w, size_t page)
{
	uint64_t *p = w->pages + page * WORDS, first = word_of(w, page, ++w->versions[page], 0);

	for (unsigned i = 0; i < WORDS; i++)
		p[i] = first + i * 0x9e3779b97f4a7c15ull;
}

static void check_page(const struct worker *w, size_t page)
{
	const uint64_t *p = w->pages + page * WORDS;
	uint64_t first = word_of(w, page, w->versions[page], 0);

	for (unsigned i = 0; i < WORDS; i++) {
		if (p[i] == first + i * 0x9e3779b97f4a7c15ull)
			continue;
		for (uint32_t back = 1; back < 1000 && back < w->versions[page]; back++)
			if (p[i] == word_of(w, page, w->versions[page] - back, i))
				fail("CPU %u page %zu word %u is %u versions old", w->cpu, page, i,
				     back);
		fail("CPU %u page %zu word %u is %llx", w->cpu, page, i, (unsigned long long)p[i]);
	}
}

/* ---- registers ---- */

/*
 * They hold values for a few milliseconds at a time, in which the machine may be stopped anywhere.
 */
static void hold_sse_x87(uint64_t seed)
{
	uint64_t in[8], out[8];
	long double x = (long double)(int64_t)(seed >> 12) / 3, y;
	unsigned long count = 300000;

	for (unsigned i = 0; i < 8; i++)
		in[i] = mix(seed + i);
	asm volatile("fldt %[x]\n"
		     "movdqu (%[in]), %%xmm0\n movdqu 16(%[in]), %%xmm3\n"
		     "movdqu 32(%[in]), %%xmm5\n movdqu 48(%[in]), %%xmm7\n"
		     "1: dec %[count]\n jnz 1b\n"
		     "movdqu %%xmm0, (%[out])\n movdqu %%xmm3, 16(%[out])\n"
		     "movdqu %%xmm5, 32(%[out])\n movdqu %%xmm7, 48(%[out])\n"
		     "fstpt %[y]"
		     : [count] "+r"(count), [y] "=m"(y)
		     : [in] "r"(in), [out] "r"(out), [x] "m"(x)
		     : "memory", "cc", "xmm0", "xmm3", "xmm5", "xmm7");
	if (memcmp(in, out, sizeof(in)))
		fail("SSE registers");
	if (x != y)
		fail("x87 registers");
}

static void hold_avx(uint64_t seed)
{
	uint64_t in[8], out[8];
	unsigned long count = 300000;

	for (unsigned i = 0; i < 8; i++)
		in[i] = mix(seed + i);
	asm volatile("vmovdqu (%[in]), %%ymm1\n vmovdqu 32(%[in]), %%ymm6\n"
		     "1: dec %[count]\n jnz 1b\n"
		     "vmovdqu %%ymm1, (%[out])\n vmovdqu %%ymm6, 32(%[out])\n vzeroupper"
		     : [count] "+r"(count)
		     : [in] "r"(in), [out] "r"(out)
		     : "memory", "cc", "xmm1", "xmm6");
	if (memcmp(in, out, sizeof(in)))
		fail("AVX registers");
}

static void find_avx(void)
{
	unsigned a, b, c, d, lo, hi;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
		return;
	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	has_avx = (lo & 6) == 6;
}

/* ---- time ---- */

static int64_t now(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts))
		fail("clock_gettime");
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* All threads share one idea of the latest time: no CPU's clock may be behind another's. */
static void check_clock(void)
{
	static _Atomic int64_t latest;
	int64_t seen = latest, t = now(CLOCK_MONOTONIC);

	if (t < seen)
		fail("the clock went back by %lld ns", (long long)(seen - t));
	if (seen && t - seen > 3600000000000ll)
		fail("the clock went on by %lld s", (long long)((t - seen) / 1000000000));
	while (t > seen && !atomic_compare_exchange_strong(&latest, &seen, t))
		;
}

static void on_tick(int sig)
{
	(void)sig;
	ticks++;
	/* What a handler does to these registers is its own affair. */
	asm volatile("fninit; pxor %%xmm0, %%xmm0; pxor %%xmm7, %%xmm7" : : : "xmm0", "xmm7");
}

/* ---- threads ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static unsigned turn;

static void pass_token(const struct worker *w)
{
	pthread_mutex_lock(&lock);
	while (turn % nr_workers != w->cpu && !stop)
		pthread_cond_wait(&turned, &lock);
	turn++;
	pthread_cond_broadcast(&turned);
	pthread_mutex_unlock(&lock);
}

static void *work(void *arg)
{
	const struct timespec nap = { 0, 2000000 };
	struct worker *w = arg;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(w->cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		fail("CPU %u cannot be had", w->cpu);
	for (uint64_t seed = mix(w->cpu + 1); !stop; w->rounds++) {
		for (unsigned i = 0; i < 64; i++) {
			size_t page = (seed = mix(seed + 1)) % w->nr_pages;

			check_page(w, page);
			write_page(w, page);
		}
		hold_sse_x87(seed);
		if (has_avx)
			hold_avx(seed);
		check_clock();
		pass_token(w);
		if (w->rounds % 16 == 0) {
			nanosleep(&nap, NULL);
			w->sleeps++;
		}
	}
	for (size_t page = 0; page < w->nr_pages; page++)
		check_page(w, page);
	return NULL;
}

static void *listen(void *arg)
{
	char line[64];

	while (fgets(line, sizeof(line), stdin) && strncmp(line, "stop", 4))
		;
	pthread_mutex_lock(&lock);
	stop = 1;
	pthread_cond_broadcast(&turned);
	pthread_mutex_unlock(&lock);
	return arg;
}

static void start(struct worker *w, size_t bytes)
{
	w->nr_pages = bytes / PAGE;
	w->pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	w->versions = calloc(w->nr_pages, sizeof(*w->versions));
	if (w->pages == MAP_FAILED || !w->versions)
		fail("no memory");
	for (size_t page = 0; page < w->nr_pages; page++)
		write_page(w, page);
	if (pthread_create(&w->thread, NULL, work, w))
		fail("pthread_create");
}

int main(int argc, char **argv)
{
	struct itimerval tick = { { 0, 20000 }, { 0, 20000 } };
	size_t bytes = (size_t)(argc > 1 ? atoi(argv[1]) : 16) << 20;
	const struct timespec half = { 0, 500000000 };
	uint64_t rounds = 0, before;
	pthread_t listener;
	sig_atomic_t ticked;

	setvbuf(stdout, NULL, _IOLBF, 0);
	find_avx();
	nr_workers = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	if (nr_workers > MAX_THREADS)
		nr_workers = MAX_THREADS;
	signal(SIGALRM, on_tick);
	for (unsigned i = 0; i < nr_workers; i++) {
		workers[i].cpu = i;
		start(&workers[i], bytes / nr_workers);
	}
	if (setitimer(ITIMER_REAL, &tick, NULL) || pthread_create(&listener, NULL, listen, NULL))
		fail("setitimer, pthread_create");
	for (unsigned n = 1; !stop; n++) {
		int64_t until = now(CLOCK_MONOTONIC) + 500000000;

		before = rounds;
		ticked = ticks;
		while (now(CLOCK_MONOTONIC) < until && !stop)
			clock_nanosleep(CLOCK_MONOTONIC, 0, &half, NULL);
		check_clock();
		rounds = 0;
		for (unsigned i = 0; i < nr_workers; i++)
			rounds += workers[i].rounds;
		if (ticks == ticked && !stop)
			fail("the interval timer does not tick");
		printf("CHURN %u rounds %llu clock %lld real %lld\n", n,
		       (unsigned long long)(rounds - before),
		       (long long)(now(CLOCK_MONOTONIC) / 1000000),
		       (long long)(now(CLOCK_REALTIME) / 1000000));
	}
	for (unsigned i = 0; i < nr_workers; i++) {
		pthread_join(workers[i].thread, NULL);
		if (!workers[i].sleeps || !workers[i].rounds)
			fail("CPU %u did nothing", i);
	}
	printf("CHURN OK %llu rounds\n", (unsigned long long)rounds);
	return 0;
}
