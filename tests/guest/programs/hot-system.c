// SPDX-License-Identifier: MIT
/*
 * System instructions that are executed often, in 64-bit mode: lib/hot.h, and those that other
 * modes have not.
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "hot.h"
#include "trap.h"

/* ---- SWAPGS ---- */

static u64 slots[2] = { 0x1111, 0x2222 };

PROBE(both_gs, "",
      "mov %gs:0, %eax; swapgs; mov %gs:0, %ecx; swapgs; shl $16, %ecx; or %ecx, %eax");
PROBE(swap_once, "", "mov %gs:0, %eax; swapgs; shl $16, %eax; mov %gs:0, %ax");
PROBE(swap_and_read, "swapgs", "rdgsbase %rax");
PROBE(swap_flags, "cmp $5, %eax", "swapgs; pushf; pop %rax; swapgs");

static void swapgs(void)
{
	bool fsgsbase = cpuid_if(7, 0).b & 1;

	if (fsgsbase)
		write_cr4(read_cr4() | CR4_FSGSBASE);
	for (unsigned round = 0; round < HOT; round++) {
		unsigned first = round % 4 == 3;
		u64 want = first ? 0x11112222 : 0x22221111;

		wrmsr(MSR_GS_BASE, (ulong)&slots[first]);
		wrmsr(MSR_KERNEL_GS_BASE, (ulong)&slots[!first]);
		if (!HOT_EQ(trap_call(both_gs, 0).value, want, "SWAPGS twice") ||
		    !HOT_EQ(trap_call(swap_once, 0).value, (u32)(want << 16 | want >> 16),
			    "SWAPGS once"))
			break;
		if (!HOT_EQ(rdmsr(MSR_GS_BASE), (ulong)&slots[!first], "what was the other base") ||
		    !HOT_EQ(rdmsr(MSR_KERNEL_GS_BASE), (ulong)&slots[first], "and is it now"))
			break;
		if (!HOT_EQ(trap_call(swap_flags, round % 8).value & (FLAG_CF | FLAG_ZF),
			    round % 8 < 5    ? FLAG_CF
			    : round % 8 == 5 ? FLAG_ZF
					     : 0,
			    "SWAPGS leaves flags alone"))
			break;
		if (fsgsbase && !HOT_EQ(trap_call(swap_and_read, 0).value, (ulong)&slots[first],
					"SWAPGS, RDGSBASE"))
			break;
		CHECK_TRAP(user_call(swap_flags, 0), VEC_GP, 0, swap_flags_at, "SWAPGS in ring 3");
	}
	write_cr4(read_cr4() & ~CR4_FSGSBASE);
	wrmsr(MSR_GS_BASE, 0);
	wrmsr(MSR_KERNEL_GS_BASE, 0);
}

/* ---- POP of a stack that is not there ---- */

#define NOWHERE 0x500000000000ul

PROBE(pop_there, "mov %rsp, %rdx; mov %rax, %rsp", "pop %rsp; mov %rsp, %rax; mov %rdx, %rsp");
PROBE(popf_there, "mov %rsp, %rdx; mov %rax, %rsp", "popf; mov %rsp, %rax; mov %rdx, %rsp");
PROBE(pushf_there, "mov %rsp, %rdx; mov %rax, %rsp", "pushf; mov %rsp, %rax; mov %rdx, %rsp");

static void no_stack(void)
{
	static u64 there[4] = { FLAG_FIXED, FLAG_FIXED };
	static const struct {
		guest_fn fn;
		const u8 *at;
		ulong error, cr2;
	} probes[] = {
		{ pop_there, pop_there_at, 0, NOWHERE },
		{ popf_there, popf_there_at, 0, NOWHERE },
		{ pushf_there, pushf_there_at, 2, NOWHERE - 8 },
	};
	ulong flags = read_flags();

	cli();
	idt_set_ist(VEC_PF, 1);
	for (unsigned n = 0; n < COUNT(probes); n++) {
		for (unsigned round = 0; round < HOT; round++) {
			bool fault = round % 8 == 7;
			ulong sp = fault ? NOWHERE : (ulong)&there[1];
			struct trap t;

			there[0] = there[1] = FLAG_FIXED;
			t = trap_call(probes[n].fn, sp);
			if (!HOT_EQ(t.vector, fault ? VEC_PF : TRAP_NONE, "a stack, or none"))
				break;
			if (!fault)
				continue;
			CHECK_EQ(t.ip, ADDR(probes[n].at), "the fault is at its instruction");
			CHECK_EQ(t.error, probes[n].error, "its kind");
			CHECK_EQ(t.cr2, probes[n].cr2, "its address");
			CHECK_EQ(t.sp, NOWHERE, "the stack pointer has not moved");
		}
	}
	idt_set_ist(VEC_PF, 0);
	write_flags(flags);
}

/* ---- SYSCALL and SYSRET, as kernels use them ---- */

u64 sys_area[3]; /* by GS: the user's stack pointer at 8, the kernel's at 16 */

#define ENTRY(name, more)                                                                   \
	asm(".pushsection .text; .globl " #name "; " #name ": swapgs; mov %rsp, %gs:8; "    \
	    "mov %gs:16, %rsp; pushf; push %rcx; push %r11; mov 16(%rsp), %rax; " more "; " \
	    "pop %r11; pop %rcx; mov %gs:8, %rsp; swapgs; sysretq; .popsection");           \
	extern const u8 name[]

ENTRY(sys_entry, "nop");
ENTRY(sys_entry2, "bts $31, %rax");
/* Returns RFLAGS as the kernel found them, and as they are afterwards in the upper half. */
PROBE(sys_calls, "mov %eax, %edx; mov $8, %edi",
      "1: cmp $5, %edx; .globl sys_at; sys_at: syscall; .globl sys_back; sys_back: pushf; pop "
      "%rsi; "
      "dec %edi; jnz 1b; shl $32, %rsi; or %rsi, %rax; cmp $sys_back, %rcx; je 2f; xor %eax, %eax; "
      "2:");
extern const u8 sys_at[];

static void syscalls(void)
{
	static u64 stack[64];
	static const u8 status[] = { 0x95, 0x44, 0x00 }; /* of CMP of 4, 5 and 6 with 5 */
	u64 interrupts = read_flags() & FLAG_IF, efer = rdmsr(MSR_EFER);

	sys_area[2] = (ulong)&stack[COUNT(stack)];
	wrmsr(MSR_GS_BASE, 0);
	wrmsr(MSR_KERNEL_GS_BASE, (ulong)sys_area);
	wrmsr(MSR_STAR, (u64)SEL_UCODE32 << 48 | (u64)SEL_KCODE << 32);
	for (unsigned round = 0; round < HOT; round++) {
		bool second = round % 8 >= 6, off = round % 16 == 13;
		u64 mask = FLAG_IF | FLAG_TF | (round % 4 == 3 ? FLAG_ZF | FLAG_CF | FLAG_AC : 0);
		u64 user = FLAG_FIXED | interrupts | status[round % 3] |
			   (round % 5 == 4 ? FLAG_AC : 0);
		struct trap t;

		wrmsr(MSR_SFMASK, mask);
		wrmsr(MSR_LSTAR, (ulong)(second ? sys_entry2 : sys_entry));
		wrmsr(MSR_EFER, off ? efer & ~EFER_SCE : efer | EFER_SCE);
		t = user_call_flags(sys_calls, 4 + round % 3, user & FLAG_AC);
		if (off) {
			CHECK_TRAP(t, VEC_UD, 0, sys_at, "SYSCALL with EFER.SCE clear");
			continue;
		}
		if (!HOT_EQ(t.value, user << 32 | (second ? BIT64(31) : 0) | (user & ~mask),
			    "SYSCALL, SYSRET: flags"))
			break;
	}
	wrmsr(MSR_EFER, efer);
	wrmsr(MSR_KERNEL_GS_BASE, 0);
}

static void only64(void)
{
	swapgs();
	no_stack();
	syscalls();
}

void guest_main(void)
{
	hot_system(only64);
}
