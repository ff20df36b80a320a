/* SPDX-License-Identifier: MIT */
/*
 * What every guest program uses: checks, the serial console, and the way out.
 *
 * A guest program is a multiboot v1 image without an operating system.  It defines guest_main(),
 * which the runtime calls on the boot processor with interrupts off, on a stack of 16 KiB, with
 * the descriptor tables of desc.h and the exception handling of trap.h in place.  A program for
 * 64-bit mode runs in long mode with the first 4 GiB mapped one to one (writable, user); one for
 * 32-bit mode runs without paging.
 *
 * When guest_main() returns, the program ends: it passed if no check failed.  The verdict goes to
 * the debug-exit device (port 0xf4), which ends the virtual machine with the exit status
 * (value << 1) | 1, and as text to the serial port.
 */
#ifndef GUEST_H
#define GUEST_H

#include "types.h"

enum guest_verdict {
	GUEST_PASS = 0x10, /* exit status 33 */
	GUEST_FAIL = 0x11, /* exit status 35 */
	GUEST_SKIP = 0x12, /* exit status 37: this processor has not what the program is about */
};

/* The program. */
void guest_main(void);

/* Print to the serial port.  Formats: %s %c %d %u %x %lx %llx %p %%, with %0Nx for a width. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* End the virtual machine. */
_Noreturn void guest_exit(enum guest_verdict verdict);

/* End the program: what it is about does not exist here.  Only after looking at CPUID. */
_Noreturn void guest_skip(const char *why);

/*
 * The checks.  A failed one is printed and counted, and the program goes on.  @what names the
 * behaviour, in the words that a reader of the report understands.
 */
void check_true(bool ok, const char *what, const char *file, int line);
void check_equal(u64 got, u64 want, const char *what, const char *file, int line);
unsigned checks_failed(void);

#define CHECK(condition, what)	  check_true((condition), (what), __FILE__, __LINE__)
#define CHECK_EQ(got, want, what) check_equal((got), (want), (what), __FILE__, __LINE__)

/* A check that later ones depend on: the program ends here when it fails. */
#define REQUIRE(condition, what)                             \
	do {                                                 \
		bool ok_ = (condition);                      \
		check_true(ok_, (what), __FILE__, __LINE__); \
		if (!ok_)                                    \
			guest_exit(GUEST_FAIL);              \
	} while (0)

/*
 * Memory from the end of the program on, zeroed, aligned to its size's next power of two (at
 * most a page).  It is identity mapped and never given back.  There are 16 MiB of it.
 */
void *alloc(size_t size);
static inline void *alloc_page(void)
{
	return alloc(4096);
}

/* Physical memory that the runtime never touches, for programs that need a place of their own. */
#define SCRATCH_PHYS 0x2000000ul
#define SCRATCH_SIZE 0x1000000ul

void *memset(void *to, int byte, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

#endif
