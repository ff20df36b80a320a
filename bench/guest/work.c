// SPDX-License-Identifier: MIT
/*
 * The benchmark programs: one static executable that runs natively, and as /init of a guest.
 *
 * Each program does a fixed amount of work, several times, and prints the best time:
 *
 *	bench CLASS NAME NANOSECONDS CHECKSUM
 *
 * The checksum is a function of the work's result; runs on different machines must agree on it.
 * As /init (pid 1) it first prints "bench start", mounts /proc, and powers the machine off at the end.
 * Names on the command line (natively) or bench=NAME,... on the kernel's command line choose programs;
 * "spin" runs the sieve for ever, to sample counters.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint32_t lcg(uint32_t *s)
{
	return *s = *s * 1664525u + 1013904223u;
}

/* ---- integer and memory ---- */

static uint64_t sieve(void)
{
	enum { N = 1 << 20 };
	static uint8_t composite[N];
	uint64_t count = 0;

	memset(composite, 0, N);
	for (uint32_t i = 2; i < N; i++) {
		if (composite[i])
			continue;
		count++;
		for (uint32_t j = 2 * i; j < N; j += i)
			composite[j] = 1;
	}
	return count;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t sort(void)
{
	enum { N = 100000 };
	static uint32_t v[N];
	uint32_t s = 1;
	uint64_t sum = 0;

	for (int i = 0; i < N; i++)
		v[i] = lcg(&s);
	qsort(v, N, sizeof(v[0]), compare);
	for (int i = 0; i < N; i++)
		sum = sum * 31 + v[i];
	return sum;
}

static uint64_t fnv(void)
{
	static uint8_t text[1 << 16];
	uint64_t h = 14695981039346656037ull;

	for (int round = 0; round < 32; round++) {
		for (size_t i = 0; i < sizeof(text); i++)
			h = (h ^ text[i]) * 1099511628211ull;
	}
	return h;
}

static uint32_t rol(uint32_t v, int n)
{
	return v << n | v >> (32 - n);
}

static uint64_t sha1(void)
{
	uint32_t h[5] = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 };
	uint32_t w[80], s = 7;

	for (int block = 0; block < 8000; block++) {
		uint32_t a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];

		for (int i = 0; i < 16; i++)
			w[i] = lcg(&s);
		for (int i = 16; i < 80; i++)
			w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
		for (int i = 0; i < 80; i++) {
			uint32_t f, k, t;

			if (i < 20)
				f = (b & c) | (~b & d), k = 0x5a827999;
			else if (i < 40)
				f = b ^ c ^ d, k = 0x6ed9eba1;
			else if (i < 60)
				f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
			else
				f = b ^ c ^ d, k = 0xca62c1d6;
			t = rol(a, 5) + f + e + k + w[i];
			e = d, d = c, c = rol(b, 30), b = a, a = t;
		}
		h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
	}
	return (uint64_t)h[0] << 32 | h[4];
}

static uint64_t chase(void)
{
	enum { N = 1 << 18 };
	static uint32_t next[N];
	uint32_t s = 3, p = 0;

	for (uint32_t i = 0; i < N; i++)
		next[i] = i;
	for (uint32_t i = N - 1; i > 0; i--) { /* Sattolo: one cycle */
		uint32_t j = lcg(&s) % i, t = next[i];

		next[i] = next[j], next[j] = t;
	}
	for (int i = 0; i < 2000000; i++)
		p = next[p];
	return p;
}

static uint64_t copy(void)
{
	static uint8_t a[1 << 20], b[1 << 20];

	for (int i = 0; i < 64; i++) {
		a[i] = (uint8_t)i;
		memcpy(b, a, sizeof(a));
		memmove(a + 1, b, sizeof(a) - 1);
	}
	return a[64] + 256u * b[63];
}

static uint64_t op_add(uint64_t a, uint64_t b)
{
	return a + b;
}
static uint64_t op_xor(uint64_t a, uint64_t b)
{
	return a ^ (b << 1);
}
static uint64_t op_mul(uint64_t a, uint64_t b)
{
	return a * (b | 1);
}
static uint64_t op_sub(uint64_t a, uint64_t b)
{
	return a - b;
}

static uint64_t calls(void)
{
	static uint64_t (*const volatile op[4])(uint64_t, uint64_t) = { op_add, op_xor, op_mul,
									op_sub };
	uint64_t v = 1;
	uint32_t s = 11;

	for (int i = 0; i < 2000000; i++)
		v = op[lcg(&s) >> 30](v, (uint64_t)i);
	return v;
}

static uint64_t strings(void)
{
	static char text[1 << 16];
	uint64_t n = 0;
	uint32_t s = 5;

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('a' + (lcg(&s) >> 24) % 26);
	for (int round = 0; round < 20; round++) {
		for (char *p = text; (p = strchr(p, 'q')); p++)
			n += (uint64_t)(p - text);
		n += strlen(text);
		n += strstr(text, "qqqqq") != NULL;
	}
	return n;
}

/* ---- floating point ---- */

static uint64_t bits(double d)
{
	uint64_t u;

	memcpy(&u, &d, sizeof(u));
	return u;
}

static uint64_t matrix(void)
{
	enum { N = 96 };
	static double a[N][N], b[N][N], c[N][N];

	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++)
			a[i][j] = i + j, b[i][j] = i - j, c[i][j] = 0;
	for (int i = 0; i < N; i++)
		for (int k = 0; k < N; k++)
			for (int j = 0; j < N; j++)
				c[i][j] += a[i][k] * b[k][j];
	return bits(c[17][23]);
}

static uint64_t mandelbrot(void)
{
	uint64_t n = 0;

	for (int py = 0; py < 64; py++) {
		for (int px = 0; px < 64; px++) {
			double cr = px / 32.0 - 1.5, ci = py / 32.0 - 1.0, r = 0, i = 0;

			for (int k = 0; k < 100 && r * r + i * i < 4; k++, n++) {
				double t = r * r - i * i + cr;

				i = 2 * r * i + ci;
				r = t;
			}
		}
	}
	return n;
}

static uint64_t nbody(void)
{
	double x[4] = { 0, 1, 0, -1.5 }, y[4] = { 0, 0, 2, 0 }, vx[4] = { 0, 0, .7, 0 },
	       vy[4] = { 0, 1, 0, -.8 };

	for (int step = 0; step < 20000; step++) {
		for (int i = 0; i < 4; i++) {
			for (int j = 0; j < 4; j++) {
				double dx = x[j] - x[i], dy = y[j] - y[i],
				       d2 = dx * dx + dy * dy + .01;
				double f = 1e-3 / (d2 * __builtin_sqrt(d2));

				vx[i] += dx * f, vy[i] += dy * f;
			}
		}
		for (int i = 0; i < 4; i++)
			x[i] += vx[i] * 1e-3, y[i] += vy[i] * 1e-3;
	}
	return bits(x[1] + y[2]);
}

/* ---- system ---- */

static uint64_t do_syscall(void)
{
	for (int i = 0; i < 20000; i++)
		syscall(SYS_getppid);
	return 20000;
}

static uint64_t do_fork(void)
{
	for (int i = 0; i < 50; i++) {
		pid_t p = fork();

		if (p == 0)
			_exit(0);
		waitpid(p, NULL, 0);
	}
	return 50;
}

static uint64_t do_exec(void)
{
	for (int i = 0; i < 20; i++) {
		pid_t p = fork();

		if (p == 0) {
			execl("/proc/self/exe", "work", "--nothing", (char *)NULL);
			_exit(1);
		}
		waitpid(p, NULL, 0);
	}
	return 20;
}

static uint64_t do_fault(void)
{
	enum { SIZE = 8 << 20 };
	uint64_t sum = 0;
	char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(p, SIZE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < SIZE; i += 4096)
		p[i] = 1, sum++;
	munmap(p, SIZE);
	return sum;
}

static uint64_t do_mmap(void)
{
	uint64_t n = 0;

	for (int i = 0; i < 1000; i++) {
		char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			       0);

		p[0] = 1;
		n++;
		munmap(p, 65536);
	}
	return n;
}

static uint64_t do_pipe(void)
{
	int a[2], b[2];
	char c = 0;
	pid_t child;

	if (pipe(a) || pipe(b))
		return 0;
	child = fork();
	if (child == 0) {
		close(a[1]);
		while (read(a[0], &c, 1) == 1) {
			if (write(b[1], &c, 1) != 1)
				break;
		}
		_exit(0);
	}
	close(a[0]);
	for (int i = 0; i < 1000; i++) {
		if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
			return 1;
	}
	close(a[1]);
	close(b[0]);
	close(b[1]);
	waitpid(child, NULL, 0);
	return 1000;
}

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

static uint64_t do_signal(void)
{
	signals = 0;
	signal(SIGUSR1, on_signal);
	for (int i = 0; i < 5000; i++)
		raise(SIGUSR1);
	return (uint64_t)signals;
}

/* ---- driver ---- */

static const struct program {
	const char *class, *name;
	uint64_t (*run)(void);
	int rounds;
} programs[] = {
	{ "integer", "sieve", sieve, 3 },   { "integer", "sort", sort, 3 },
	{ "integer", "fnv", fnv, 3 },	    { "integer", "sha1", sha1, 3 },
	{ "integer", "chase", chase, 3 },   { "integer", "copy", copy, 3 },
	{ "integer", "calls", calls, 3 },   { "integer", "strings", strings, 3 },
	{ "float", "matrix", matrix, 3 },   { "float", "mandelbrot", mandelbrot, 3 },
	{ "float", "nbody", nbody, 3 },	    { "system", "syscall", do_syscall, 3 },
	{ "system", "fork", do_fork, 3 },   { "system", "exec", do_exec, 3 },
	{ "system", "fault", do_fault, 3 }, { "system", "mmap", do_mmap, 3 },
	{ "system", "pipe", do_pipe, 3 },   { "system", "signal", do_signal, 3 },
};

static int chosen(const char *list, const char *name)
{
	size_t n = strlen(name);

	if (!list || !*list)
		return 1;
	for (const char *p = list; (p = strstr(p, name)); p += n) {
		if ((p == list || p[-1] == ',') && (p[n] == ',' || !p[n]))
			return 1;
	}
	return 0;
}

/* The value of bench= on the kernel's command line. */
static char *from_cmdline(void)
{
	static char line[4096];
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t n = fd < 0 ? 0 : read(fd, line, sizeof(line) - 1);
	char *p;

	line[n < 0 ? 0 : n] = 0;
	line[strcspn(line, "\n")] = 0;
	p = strstr(line, "bench=");
	if (!p)
		return NULL;
	p += strlen("bench=");
	p[strcspn(p, " ")] = 0;
	return p;
}

int main(int argc, char **argv)
{
	const char *list = argc > 1 ? argv[1] : NULL;
	int init = getpid() == 1;

	if (list && !strcmp(list, "--nothing"))
		return 0;
	if (init) {
		mkdir("/proc", 0755);
		mount("proc", "/proc", "proc", 0, NULL);
		list = from_cmdline();
		printf("bench start\n");
		fflush(stdout);
	}
	while (list && !strcmp(list, "spin"))
		sieve();
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		const struct program *p = &programs[i];
		uint64_t best = UINT64_MAX, sum = 0;

		if (!chosen(list, p->name))
			continue;
		for (int r = 0; r < p->rounds; r++) {
			uint64_t t = now();

			sum = p->run();
			t = now() - t;
			best = t < best ? t : best;
		}
		printf("bench %s %s %llu %llx\n", p->class, p->name, (unsigned long long)best,
		       (unsigned long long)sum);
		fflush(stdout);
	}
	if (init) {
		printf("bench end\n");
		fflush(stdout);
		sync();
		reboot(RB_POWER_OFF);
	}
	return 0;
}
