// SPDX-License-Identifier: MIT
/* Start-up, checks, the console and the way out. */
#include <stdarg.h>

#include "apic.h"
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

#define PORT_DEBUG_EXIT 0xf4
#define PORT_SERIAL	0x3f8
#define SERIAL_LSR	(PORT_SERIAL + 5)
#define LSR_THRE	0x20

void guest_start(void);

static unsigned n_checks, n_failed;
static unsigned console_lock;

static void put(char c)
{
	if (c == '\n')
		put('\r');
	while (!(inb(SERIAL_LSR) & LSR_THRE))
		pause();
	outb(PORT_SERIAL, c);
}

static void put_number(u64 n, unsigned base, unsigned width)
{
	char digits[24];
	unsigned i = 0;

	/* A 32-bit program has no 64-bit division: decimal numbers are 32 bits there. */
	do {
		unsigned digit = base == 16 ? n & 15 : (ulong)n % 10;

		digits[i++] = "0123456789abcdef"[digit];
		n = base == 16 ? n >> 4 : (ulong)n / 10;
	} while (n);
	while (width-- > i)
		put('0');
	while (i)
		put(digits[--i]);
}

void say(const char *format, ...)
{
	va_list args;
	ulong flags = read_flags();

	cli();
	while (__atomic_exchange_n(&console_lock, 1, __ATOMIC_ACQUIRE))
		pause();
	va_start(args, format);
	for (const char *p = format; *p; p++) {
		unsigned width = 0, longs = 0;
		u64 n;

		if (*p != '%') {
			put(*p);
			continue;
		}
		while (*++p >= '0' && *p <= '9')
			width = width * 10 + *p - '0';
		for (; *p == 'l'; p++)
			longs++;
		if (*p == '%') {
			put('%');
			continue;
		}
		if (*p == 's') {
			for (const char *s = va_arg(args, const char *); *s; s++)
				put(*s);
			continue;
		}
		if (*p == 'p')
			longs = 1;
		n = longs == 2 ? va_arg(args, u64)
		    : longs    ? va_arg(args, ulong)
			       : va_arg(args, unsigned);
		if (*p == 'c') {
			put(n);
		} else if (*p == 'd' && !longs && (int)n < 0) {
			put('-');
			put_number(-(int)n, 10, width);
		} else {
			put_number(n, *p == 'x' || *p == 'p' ? 16 : 10, width);
		}
	}
	va_end(args);
	__atomic_store_n(&console_lock, 0, __ATOMIC_RELEASE);
	if (flags & FLAG_IF)
		sti();
}

_Noreturn void guest_exit(enum guest_verdict verdict)
{
	outb(PORT_DEBUG_EXIT, verdict);
	/* Without that device the program stays here, and the runner's time limit ends it. */
	for (;;)
		asm volatile("cli; hlt");
}

_Noreturn void guest_skip(const char *why)
{
	say("SKIP: %s\n", why);
	guest_exit(GUEST_SKIP);
}

void check_true(bool ok, const char *what, const char *file, int line)
{
	n_checks++;
	if (ok)
		return;
	n_failed++;
	for (const char *p = file; *p; p++)
		if (*p == '/')
			file = p + 1;
	say("FAIL: %s (%s:%d)\n", what, file, line);
}

void check_equal(u64 got, u64 want, const char *what, const char *file, int line)
{
	check_true(got == want, what, file, line);
	if (got != want)
		say("  got 0x%llx, wanted 0x%llx\n", got, want);
}

unsigned checks_failed(void)
{
	return n_failed;
}

void *alloc(size_t size)
{
	static ulong next;
	ulong align = 16, at;

	while (align < size && align < 4096)
		align *= 2;
	if (!next)
		next = (ulong)image_end;
	at = (next + align - 1) & -align;
	next = at + size;
	if (next > (ulong)image_end + 0x1000000) {
		say("FAIL: the program is out of memory\n");
		guest_exit(GUEST_FAIL);
	}
	return memset((void *)at, 0, size);
}

void *memset(void *to, int byte, size_t n)
{
	void *p = to;

	asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(byte) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *p = to;

	asm volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n) : : "memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

/* The boot processor comes here from start32.S or start64.S. */
void guest_start(void)
{
	/* Firmware may have left the PIC open and the PIT running. */
	pic_mask(0xffff);
	trap_init();
	desc_load(0);
	guest_main();
	if (n_failed)
		say("FAIL: %u of %u checks\n", n_failed, n_checks);
	else
		say("PASS: %u checks\n", n_checks);
	/* A program that checks nothing has proved nothing. */
	guest_exit(n_failed || !n_checks ? GUEST_FAIL : GUEST_PASS);
}
