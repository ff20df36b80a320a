// SPDX-License-Identifier: MIT
/*
 * A program that checks the machine and kernel under it, from inside a guest: memory and its
 * protection, signals, floating point across context switches, processes and copy-on-write,
 * pipes, threads and futexes, timers, files, code that changes itself.  It is linked statically,
 * for 64 or for 32 bits, and is run by the initramfs of tools/mkinitramfs-test.
 *
 *	selfcheck [rounds]
 *
 * Prints "SELFCHECK OK n", n being the number of checks, or "SELFCHECK FAIL what" and stops.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <cpuid.h>

static unsigned long checks;
static size_t page;

static void __attribute__((format(printf, 1, 2), noreturn)) fail(const char *format, ...)
{
	va_list args;
	int error = errno;

	va_start(args, format);
	printf("SELFCHECK FAIL ");
	vprintf(format, args);
	printf(" (errno %d)\n", error);
	va_end(args);
	fflush(stdout);
	_exit(1);
}

#define CHECK(condition, ...)              \
	do {                               \
		checks++;                  \
		if (!(condition))          \
			fail(__VA_ARGS__); \
	} while (0)

/* A child's failure is the parent's. */
static void reap(pid_t pid, const char *what)
{
	int status = 0;

	CHECK(waitpid(pid, &status, 0) == pid, "%s: waitpid", what);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status 0x%x", what, status);
}

static uint32_t hash(uint32_t x)
{
	x ^= x >> 16;
	x *= 0x7feb352d;
	x ^= x >> 15;
	x *= 0x846ca68b;
	return x ^ x >> 16;
}

static void fill(uint32_t *p, size_t words, uint32_t seed)
{
	for (size_t i = 0; i < words; i++)
		p[i] = hash(seed + i);
}

static void verify(const uint32_t *p, size_t words, uint32_t seed, const char *what)
{
	for (size_t i = 0; i < words; i++)
		if (p[i] != hash(seed + i))
			fail("%s: word %zu is 0x%x", what, i, p[i]);
	checks++;
}

static void *map(size_t size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED, "mmap of %zu", size);
	return p;
}

/* Mapping, moving, growing, shrinking, punching holes. */
static void memory(void)
{
	size_t words = page / 4, n = 256;
	uint32_t *p = map(n * page, PROT_READ | PROT_WRITE), *q;

	for (size_t i = 0; i < n * words; i += words / 2)
		CHECK(!p[i], "fresh memory is not zero");
	fill(p, n * words, 1);
	verify(p, n * words, 1, "pattern");
	q = mremap(p, n * page, 2 * n * page, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED, "mremap");
	verify(q, n * words, 1, "pattern after growing");
	CHECK(!q[n * words], "the new half is not zero");
	CHECK(!munmap(q + 3 * words, page), "munmap of a page");
	verify(q, 3 * words, 1, "in front of the hole");
	verify(q + 4 * words, (n - 4) * words, 1 + 4 * words, "behind the hole");
	p = mmap(q + 3 * words, page, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(p == q + 3 * words && !p[0], "a new page in the hole");
	CHECK(!madvise(q, n * page, MADV_DONTNEED), "madvise");
	for (size_t i = 0; i < n * words; i += words)
		CHECK(!q[i], "memory that was given back is not zero");
	CHECK(!munmap(q, 2 * n * page), "munmap");
}

static sigjmp_buf jump;
static volatile siginfo_t fault_info;
static volatile sig_atomic_t faults;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	faults++;
	*(siginfo_t *)&fault_info = *info;
	siglongjmp(jump, 1);
}

static void handle(int sig, void (*fn)(int, siginfo_t *, void *), int flags)
{
	struct sigaction sa = { .sa_sigaction = fn, .sa_flags = SA_SIGINFO | flags };

	CHECK(!sigaction(sig, &sa, NULL), "sigaction %d", sig);
}

#define EXPECT_FAULT(statement, address, code, what)                                       \
	do {                                                                               \
		faults = 0;                                                                \
		if (!sigsetjmp(jump, 1)) {                                                 \
			statement;                                                         \
		}                                                                          \
		CHECK(faults == 1, what ": no signal");                                    \
		CHECK(fault_info.si_addr == (void *)(address), what ": address %p",        \
		      fault_info.si_addr);                                                 \
		CHECK(fault_info.si_code == (code), what ": code %d", fault_info.si_code); \
	} while (0)

static void protection(void)
{
	volatile uint8_t *p = map(4 * page, PROT_READ | PROT_WRITE);
	volatile uintptr_t low = 16;

	handle(SIGSEGV, on_fault, 0);
	handle(SIGFPE, on_fault, 0);
	handle(SIGILL, on_fault, 0);
	handle(SIGBUS, on_fault, 0);
	p[page] = 5;
	mprotect((void *)(p + page), page, PROT_READ);
	CHECK(p[page] == 5, "read-only page");
	EXPECT_FAULT(p[page + 7] = 1, p + page + 7, SEGV_ACCERR, "write to a read-only page");
	mprotect((void *)(p + page), page, PROT_NONE);
	EXPECT_FAULT((void)p[page], p + page, SEGV_ACCERR, "read of PROT_NONE");
	mprotect((void *)(p + page), page, PROT_READ | PROT_WRITE);
	p[page]++;
	CHECK(p[page] == 6, "writable again");
	munmap((void *)(p + 2 * page), page);
	EXPECT_FAULT(p[2 * page + 3] = 1, p + 2 * page + 3, SEGV_MAPERR, "write to a hole");
	EXPECT_FAULT((void)*(volatile uint8_t *)low, low, SEGV_MAPERR, "null pointer");
	/* Four bytes over the end: the address is that of the page that is missing. */
	EXPECT_FAULT((void)*(volatile uint32_t *)(p + 2 * page - 2), p + 2 * page, SEGV_MAPERR,
		     "a word over the end");
	faults = 0;
	if (!sigsetjmp(jump, 1))
		asm volatile("xor %%ecx, %%ecx; cltd; idivl %%ecx" : : "a"(1) : "ecx", "edx", "cc");
	CHECK(faults == 1 && fault_info.si_code == FPE_INTDIV, "division by zero");
	faults = 0;
	if (!sigsetjmp(jump, 1))
		asm volatile("ud2");
	CHECK(faults == 1 && fault_info.si_code == ILL_ILLOPN, "an undefined instruction");
	munmap((void *)p, 4 * page);
}

/* Signals within signals, each with floating point of its own. */
static volatile int depth, deepest, usr[2];

static void on_usr(int sig, siginfo_t *info, void *context)
{
	volatile double x = 1.0;

	CHECK(info->si_signo == sig && info->si_pid == getpid(), "siginfo");
	CHECK(context != NULL, "context");
	usr[sig == SIGUSR2]++;
	if (++depth > deepest)
		deepest = depth;
	for (int i = 0; i < 10; i++)
		x = x * 1.5 + 0.25;
	CHECK(x > 80 && x < 90, "floating point in a handler");
	if (sig == SIGUSR1)
		raise(SIGUSR2);
	asm volatile("fninit; fldz; fldpi; xorps %%xmm0, %%xmm0; xorps %%xmm7, %%xmm7"
		     :
		     :
		     : "xmm0", "xmm7");
	asm volatile("fstp %st(0); fstp %st(0)");
	depth--;
}

static void signals(void)
{
	double kept[8], back[8];
	long double pi = 3.14159265358979323846L, x87;

	handle(SIGUSR1, on_usr, 0);
	handle(SIGUSR2, on_usr, SA_NODEFER);
	for (int i = 0; i < 8; i++)
		kept[i] = i * 1.25 + 0.125;
	for (int round = 0; round < 100; round++) {
		long r;

		/* Registers are full when the signal comes, and must be so afterwards. */
		asm volatile("movupd (%3), %%xmm0; movupd 16(%3), %%xmm1; movupd 32(%3), %%xmm6;"
			     "movupd 48(%3), %%xmm7; fldt (%4);"
			     "int $0x80;"
			     "fstpt (%5); movupd %%xmm0, (%6); movupd %%xmm1, 16(%6);"
			     "movupd %%xmm6, 32(%6); movupd %%xmm7, 48(%6)"
			     : "=a"(r)
			     : "0"(20), "m"(kept), "r"(kept), "r"(&pi), "r"(&x87), "r"(back)
			     : "memory", "xmm0", "xmm1", "xmm6", "xmm7", "cc");
		raise(SIGUSR1);
		CHECK(r == getpid() || r == -ENOSYS, "getpid by int 0x80: %ld", r);
		CHECK(!memcmp(kept, back, sizeof(kept)), "SSE over a system call");
		CHECK(x87 == pi, "x87 over a system call");
	}
	CHECK(usr[0] == 100 && usr[1] == 100, "signals: %d and %d", usr[0], usr[1]);
	CHECK(deepest == 2, "nested: %d", deepest);
}

/* A timer that hits anywhere in a computation. */
static volatile int ticks;

static void on_alarm(int sig, siginfo_t *info, void *context)
{
	volatile float f = ticks;

	(void)sig;
	(void)info;
	(void)context;
	asm volatile("fninit; fld1; fstp %st(0)");
	f = f * 2 + 1;
	ticks++;
}

static double __attribute__((noinline)) series(unsigned n)
{
	double sum = 0;

	/* Otherwise the compiler, seeing that the result depends on n only, would call it once. */
	asm volatile("");
	for (unsigned i = 1; i <= n; i++)
		sum += 1.0 / ((double)i * i);
	return sum;
}

static long double __attribute__((noinline)) series_x87(unsigned n)
{
	long double sum = 0;

	asm volatile("");
	for (unsigned i = 1; i <= n; i++)
		sum += 1.0L / ((long double)i * i);
	return sum;
}

static void interrupted(void)
{
	struct itimerval on = { { 0, 2000 }, { 0, 2000 } }, off = { { 0, 0 }, { 0, 0 } };
	/* Stored, since x87 registers hold more bits than a double. */
	volatile double want = series(20000), got;
	long double want_x87 = series_x87(20000);

	handle(SIGALRM, on_alarm, SA_RESTART);
	CHECK(!setitimer(ITIMER_REAL, &on, NULL), "setitimer");
	for (int i = 0; ticks < 20; i++) {
		got = series(20000);
		CHECK(got == want, "a sum, interrupted by signals, changed");
		CHECK(series_x87(20000) == want_x87, "an x87 sum, interrupted, changed");
		CHECK(i < 100000, "the interval timer does not tick");
	}
	CHECK(!setitimer(ITIMER_REAL, &off, NULL), "setitimer off");
}

/* Vector registers of several processes that take turns. */
#ifdef __AVX__
#error "compile without -mavx: the test looks for AVX at run time"
#endif
static int has_avx(void)
{
	unsigned a, b, c, d, lo, hi;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
		return 0;
	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (lo & 6) == 6;
}

static void vector_child(unsigned me, int avx)
{
	uint8_t in[32], out[32];
	double x = me + 1;

	memset(in, 0x11 * (me + 1), sizeof(in));
	for (unsigned i = 0; i < 200; i++) {
		memset(out, 0, sizeof(out));
		if (avx)
			asm volatile("vmovdqu (%0), %%ymm5" : : "r"(in) : "memory");
		else
			asm volatile("movdqu (%0), %%xmm5" : : "r"(in) : "memory");
		asm volatile("fldl %0" : : "m"(x));
		/* sched_yield, without the compiler's or the library's help */
#ifdef __x86_64__
		asm volatile("syscall" : : "a"(24) : "rcx", "r11", "memory");
#else
		asm volatile("int $0x80" : : "a"(158) : "memory");
#endif
		asm volatile("fstpl %0" : "=m"(x));
		if (avx)
			asm volatile("vmovdqu %%ymm5, (%0); vzeroupper" : : "r"(out) : "memory");
		else
			asm volatile("movdqu %%xmm5, (%0)" : : "r"(out) : "memory");
		if (memcmp(in, out, avx ? 32 : 16) || x != me + 1)
			fail("vector registers of process %u after a switch", me);
	}
	_exit(0);
}

static void switching(void)
{
	pid_t child[6];

	for (unsigned i = 0; i < 6; i++) {
		child[i] = fork();
		CHECK(child[i] >= 0, "fork");
		if (!child[i])
			vector_child(i, has_avx());
	}
	for (unsigned i = 0; i < 6; i++)
		reap(child[i], "switching");
}

/* Children that change what they share copy-on-write; nobody sees what the others wrote. */
static void fork_storm(void)
{
	size_t words = 64 * page / 4;
	uint32_t *p = map(64 * page, PROT_READ | PROT_WRITE);
	volatile uint32_t *shared =
		mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(shared != MAP_FAILED, "shared mmap");
	fill(p, words, 77);
	for (int round = 0; round < 8; round++) {
		pid_t child[8];

		for (int i = 0; i < 8; i++) {
			child[i] = fork();
			CHECK(child[i] >= 0, "fork");
			if (child[i])
				continue;
			verify(p, words, 77, "what a child inherits");
			for (int k = i; k < 64; k += 8)
				fill(p + k * page / 4, page / 4, 1000 + i);
			for (int k = 0; k < 64; k++)
				verify(p + k * page / 4, page / 4,
				       k % 8 == i ? 1000u + i : 77 + k * (unsigned)page / 4,
				       "a child's own copy");
			__atomic_add_fetch(shared, 1, __ATOMIC_SEQ_CST);
			_exit(0);
		}
		for (int i = 0; i < 8; i++)
			reap(child[i], "fork storm");
		verify(p, words, 77, "what the parent keeps");
	}
	CHECK(*shared == 64, "shared memory: %u", *shared);
	munmap(p, 64 * page);
}

static void pipes(void)
{
	int to[2], from[2];
	uint32_t buffer[1024];
	pid_t pid;

	CHECK(!pipe(to) && !pipe(from), "pipe");
	pid = fork();
	CHECK(pid >= 0, "fork");
	if (!pid) {
		ssize_t n;

		close(to[1]);
		while ((n = read(to[0], buffer, sizeof(buffer))) > 0) {
			for (ssize_t i = 0; i < n; i++)
				((uint8_t *)buffer)[i] ^= 0x5a;
			if (write(from[1], buffer, n) != n)
				_exit(1);
		}
		_exit(0);
	}
	for (unsigned round = 0; round < 200; round++) {
		size_t want = 1 + hash(round) % sizeof(buffer), got = 0;
		uint8_t back[sizeof(buffer)];

		fill(buffer, 1024, round);
		CHECK(write(to[1], buffer, want) == (ssize_t)want, "write to a pipe");
		while (got < want) {
			ssize_t n = read(from[0], back + got, want - got);

			CHECK(n > 0, "read from a pipe");
			got += n;
		}
		for (size_t i = 0; i < want; i++)
			if (back[i] != (((uint8_t *)buffer)[i] ^ 0x5a))
				fail("pipe: byte %zu of round %u", i, round);
	}
	close(to[1]);
	reap(pid, "pipe");
	close(to[0]);
	close(from[0]);
	close(from[1]);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_came = PTHREAD_COND_INITIALIZER;
static unsigned turn, counted, counted_atomic;
static __thread unsigned own;

#define THREADS 4

static void *thread_main(void *arg)
{
	unsigned me = (uintptr_t)arg;

	for (unsigned i = 0; i < 2000; i++) {
		pthread_mutex_lock(&lock);
		counted++;
		pthread_mutex_unlock(&lock);
		__atomic_add_fetch(&counted_atomic, 1, __ATOMIC_SEQ_CST);
		own++;
	}
	for (unsigned i = 0; i < 50; i++) {
		pthread_mutex_lock(&lock);
		while (turn % THREADS != me)
			pthread_cond_wait(&turn_came, &lock);
		turn++;
		pthread_cond_broadcast(&turn_came);
		pthread_mutex_unlock(&lock);
	}
	return (void *)(uintptr_t)own;
}

static void threads(void)
{
	pthread_t t[THREADS];

	turn = counted = counted_atomic = 0;
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&t[i], NULL, thread_main, (void *)i), "pthread_create");
	for (unsigned i = 0; i < THREADS; i++) {
		void *result;

		CHECK(!pthread_join(t[i], &result), "pthread_join");
		CHECK((uintptr_t)result == 2000, "thread-local storage");
	}
	CHECK(counted == THREADS * 2000, "a mutex: %u", counted);
	CHECK(counted_atomic == THREADS * 2000, "an atomic: %u", counted_atomic);
	CHECK(turn == THREADS * 50, "taking turns: %u", turn);
}

static int64_t now(clockid_t clock)
{
	struct timespec ts;

	CHECK(!clock_gettime(clock, &ts), "clock_gettime");
	CHECK(ts.tv_nsec >= 0 && ts.tv_nsec < 1000000000, "nanoseconds");
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static void timers(void)
{
	int64_t last = now(CLOCK_MONOTONIC), start, real = now(CLOCK_REALTIME);

	for (int i = 0; i < 20000; i++) {
		int64_t t = now(CLOCK_MONOTONIC);

		if (t < last)
			fail("the clock went back by %lld ns", (long long)(last - t));
		last = t;
	}
	for (int ms = 1; ms <= 50; ms += 7) {
		struct timespec ts = { 0, ms * 1000000 };

		start = now(CLOCK_MONOTONIC);
		CHECK(!clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL), "clock_nanosleep");
		CHECK(now(CLOCK_MONOTONIC) - start >= ms * 1000000ll, "slept less than %d ms", ms);
		CHECK(now(CLOCK_MONOTONIC) - start < 20000000000ll, "slept for 20 s, not %d ms",
		      ms);
	}
	CHECK(now(CLOCK_REALTIME) > real, "the time of day stands still");
	CHECK(real > 1577836800ll * 1000000000, "the time of day is before 2020");
}

static void files(void)
{
	char name[] = "/tmp/selfcheck-XXXXXX";
	size_t words = 1 << 18;
	uint32_t *data = map(words * 4, PROT_READ | PROT_WRITE), *view;
	int fd = mkstemp(name);
	struct stat st;

	CHECK(fd >= 0, "mkstemp");
	fill(data, words, 5);
	CHECK(write(fd, data, words * 4) == (ssize_t)(words * 4), "write");
	CHECK(!fstat(fd, &st) && st.st_size == (off_t)(words * 4), "fstat");
	memset(data, 0, words * 4);
	CHECK(pread(fd, data, words * 4, 0) == (ssize_t)(words * 4), "pread");
	verify(data, words, 5, "what a file gives back");
	view = mmap(NULL, words * 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(view != MAP_FAILED, "mmap of a file");
	verify(view, words, 5, "a mapped file");
	view[1000] = 0x12345678;
	CHECK(pread(fd, data, 4, 4000) == 4 && data[0] == 0x12345678, "write through the mapping");
	data[0] = 0x87654321;
	CHECK(pwrite(fd, data, 4, 8000) == 4 && view[2000] == 0x87654321, "write to the file");
	CHECK(!ftruncate(fd, page), "ftruncate");
	EXPECT_FAULT((void)*(volatile uint32_t *)(view + page / 4), view + page / 4, BUS_ADRERR,
		     "beyond the end of a mapped file");
	munmap(view, words * 4);
	munmap(data, words * 4);
	close(fd);
	CHECK(!unlink(name), "unlink");
}

static void self_modifying(void)
{
	/* mov $n, %eax; ret */
	uint8_t *code = map(2 * page, PROT_READ | PROT_WRITE | PROT_EXEC);
	uint8_t *at = code + page - 3;

	for (uint32_t n = 0; n < 2000; n++) {
		uint8_t *p = n & 1 ? at : code + n % 64;

		p[0] = 0xb8;
		memcpy(p + 1, &n, 4);
		p[5] = 0xc3;
		if (((uint32_t(*)(void))(uintptr_t)p)() != n)
			fail("code that was rewritten gave %u", n);
	}
	checks++;
	mprotect(code, 2 * page, PROT_READ | PROT_WRITE);
	faults = 0;
	if (!sigsetjmp(jump, 1))
		((void (*)(void))(uintptr_t)code)();
	/* A 32-bit kernel may page without NX, and then lets this pass. */
	if (sizeof(long) == 8)
		CHECK(faults == 1 && fault_info.si_code == SEGV_ACCERR, "execution of data");
	munmap(code, 2 * page);
}

static void exec_storm(char *self)
{
	for (int i = 0; i < 12; i++) {
		pid_t pid = fork();

		CHECK(pid >= 0, "fork");
		if (!pid) {
			execl(self, self, "--child", "x y", NULL);
			_exit(9);
		}
		reap(pid, "exec");
	}
}

/* A division and a matrix with known results, in both kinds of arithmetic. */
static void arithmetic(void)
{
	volatile double a = 355, b = 113;
	volatile float f = 16777216, g = f + 1;
	volatile int64_t big = 0x123456789abcdefll, small = -12345;
	double m[16][16], sum = 0;

	CHECK(a / b > 3.1415929 && a / b < 3.1415930, "355/113");
	CHECK(g == f, "single precision");
	CHECK(big / small == -6641193132157ll, "64-bit division");
	CHECK(big % small + big / small * small == big, "64-bit remainder");
	for (int i = 0; i < 16; i++)
		for (int j = 0; j < 16; j++)
			m[i][j] = 1.0 / (i + j + 1);
	for (int i = 0; i < 16; i++)
		for (int j = 0; j < 16; j++)
			for (int k = 0; k < 16; k++)
				sum += m[i][k] * m[k][j] * (i == j);
	CHECK(sum > 3.6572 && sum < 3.6573, "trace of a squared Hilbert matrix: %f", sum);
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 1;

	setvbuf(stdout, NULL, _IONBF, 0);
	if (argc > 2 && !strcmp(argv[1], "--child"))
		return strcmp(argv[2], "x y") || getenv("SELFCHECK") == NULL;
	setenv("SELFCHECK", "1", 1);
	page = sysconf(_SC_PAGESIZE);
	for (int i = 0; i < rounds; i++) {
		static const struct {
			const char *name;
			void (*run)(void);
		} parts[] = {
			{ "arithmetic", arithmetic },
			{ "memory", memory },
			{ "protection", protection },
			{ "signals", signals },
			{ "interrupted", interrupted },
			{ "switching", switching },
			{ "fork storm", fork_storm },
			{ "pipes", pipes },
			{ "threads", threads },
			{ "timers", timers },
			{ "files", files },
			{ "self-modifying code", self_modifying },
		};

		for (size_t k = 0; k < sizeof(parts) / sizeof(parts[0]); k++) {
			printf("selfcheck: %s\n", parts[k].name);
			usr[0] = usr[1] = ticks = 0;
			parts[k].run();
		}
		printf("selfcheck: exec\n");
		exec_storm(argv[0]);
	}
	printf("SELFCHECK OK %lu\n", checks);
	return 0;
}
