// SPDX-License-Identifier: MIT
/* Protection keys for user pages: every key's two bits against every access (SDM vol. 3, 4.6.2). */
#include "cpu.h"
#include "guest.h"
#include "paging.h"
#include "trap.h"

#define VA 0x500000000000ul

PROBE(kernel_read, "", "mov (%rax), %cl");
PROBE(kernel_write, "", "movb $0xc3, (%rax)");
USER_PROBE(user_read, "", "mov (%rax), %cl");
USER_PROBE(user_write, "", "movb $0xc3, (%rax)");
PROBE(rdpkru_ecx, "mov %eax, %ecx", ".byte 0x0f, 0x01, 0xee");
PROBE(wrpkru_ecx, "mov %eax, %ecx; xor %eax, %eax; xor %edx, %edx", ".byte 0x0f, 0x01, 0xef");

static void wrpkru(u32 v)
{
	asm volatile(".byte 0x0f, 0x01, 0xef" : : "a"(v), "c"(0), "d"(0) : "memory");
}

static void expect(guest_fn fn, bool user, bool refused, ulong error, const char *what)
{
	struct trap t = user ? user_call(fn, VA) : trap_call(fn, VA);

	CHECK_EQ(t.vector, refused ? VEC_PF : TRAP_NONE, what);
	if (refused)
		CHECK_EQ(t.error, PF_P | PF_PK | error, what);
}

void guest_main(void)
{
	struct space s = space_kernel(PAGING_4LEVEL, false, false);

	if (!(cpuid_if(7, 0).c & BIT(3)))
		guest_skip("no protection keys");
	CHECK_TRAP(trap_call(rdpkru_ecx, 0), VEC_UD, 0, rdpkru_ecx_at, "RDPKRU without CR4.PKE");
	write_cr4(read_cr4() | CR4_PKE);
	CHECK(cpuid_if(7, 0).c & BIT(4), "CPUID says OSPKE");
	CHECK_TRAP(trap_call(rdpkru_ecx, 1), VEC_GP, 0, rdpkru_ecx_at, "RDPKRU with ECX not 0");
	CHECK_TRAP(trap_call(wrpkru_ecx, 1), VEC_GP, 0, wrpkru_ecx_at, "WRPKRU with ECX not 0");
	*(volatile u8 *)SCRATCH_PHYS = 0xc3;
	space_load(&s);
	for (unsigned key = 0; key < 16; key++) {
		u64 entry = SCRATCH_PHYS | PTE_P | PTE_W | (u64)key << 59;

		for (unsigned bits = 0; bits < 4; bits++) {
			bool ad = bits & 1, wd = bits & 2;

			wrpkru(bits << key * 2);
			CHECK_EQ(trap_call(rdpkru_ecx, 0).value & 0xffffffff, bits << key * 2,
				 "PKRU reads back");
			space_map(&s, VA, 0, entry | PTE_U);
			invlpg(VA);
			expect(user_read, true, ad, PF_U, "ring 3 reads");
			expect(user_write, true, ad || wd, PF_U | PF_W, "ring 3 writes");
			expect(kernel_read, false, ad, 0, "ring 0 reads a user page");
			expect(kernel_write, false, ad, PF_W, "ring 0 writes a user page, WP 0");
			write_cr0(read_cr0() | CR0_WP);
			expect(kernel_write, false, ad || wd, PF_W, "ring 0 writes it, WP 1");
			write_cr0(read_cr0() & ~CR0_WP);
			if (key) /* the stack of ring 3 has key 0 */
				expect((guest_fn)VA, true, false, 0, "ring 3 executes");
			space_map(&s, VA, 0, entry);
			invlpg(VA);
			expect(kernel_write, false, false, 0, "a supervisor's page has no key");
		}
	}
	wrpkru(0);
	/* Keys are checked at once: PKRU changes without any invalidation. */
	space_map(&s, VA, SCRATCH_PHYS, PTE_P | PTE_W | PTE_U | 3ull << 59);
	invlpg(VA);
	expect(user_read, true, false, 0, "open");
	wrpkru(1 << 6);
	expect(user_read, true, true, PF_U, "shut");
	write_cr4(read_cr4() & ~CR4_PKE);
	expect(user_read, true, false, 0, "without CR4.PKE keys do not count");
}
