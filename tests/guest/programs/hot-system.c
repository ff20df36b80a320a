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

/* ---- the bases of FS and GS, segment and control registers ---- */

PROBE(fs_base, "", "wrfsbase %rax; rdfsbase %rax");
PROBE(gs_base, "", "wrgsbase %rax; rdgsbase %rax");
PROBE(fs_base32, "", "wrfsbase %eax; or $-1, %rax; rdfsbase %eax");
PROBE(gs_base32, "", "wrgsbase %eax; mov $-1, %rax; rdgsbase %eax");
PROBE(fs_read, "rdfsbase %rdx", "wrfsbase %rax; mov %fs:0, %rax; wrfsbase %rdx");
PROBE(fs_r13, "push %r13; mov %rax, %r13",
      "wrfsbase %r13; rdfsbase %r13; mov %r13, %rax; pop %r13");
PROBE(base_flags, "cmp $5, %eax", "rdfsbase %rcx; wrfsbase %rcx; mov %ss, %edx; pushf; pop %rax");
PROBE(read_fs, "", "rdfsbase %rax");

static void bases(void)
{
	u64 fs = rdmsr(MSR_FS_BASE), gs = rdmsr(MSR_GS_BASE);
	static const struct {
		guest_fn fn;
		const u8 *at;
		u64 mask;
	} probes[] = {
		{ fs_base, fs_base_at, ~0ul },
		{ gs_base, gs_base_at, ~0ul },
		{ fs_base32, fs_base32_at, 0xffffffff },
		{ gs_base32, gs_base32_at, 0xffffffff },
		{ fs_r13, fs_r13_at, ~0ul },
	};

	if (!(cpuid_if(7, 0).b & 1))
		return;
	for (unsigned round = 0; round < HOT; round++) {
		u64 v = ((u64)hot_random() << 15 ^ hot_random()) | (round % 2 ? -BIT64(47) : 0);
		bool off = round % 16 == 11, bad = round % 16 == 13;

		if (bad)
			v ^= BIT64(48 + hot_random() % 16);
		write_cr4(off ? read_cr4() & ~CR4_FSGSBASE : read_cr4() | CR4_FSGSBASE);
		for (unsigned n = 0; n < COUNT(probes); n++) {
			struct trap t = trap_call(probes[n].fn, v);

			if (off)
				CHECK_TRAP(t, VEC_UD, 0, probes[n].at, "CR4.FSGSBASE is clear");
			else if (bad && probes[n].mask == ~0ul)
				CHECK_TRAP(t, VEC_GP, 0, probes[n].at, "no canonical address");
			else if (!HOT_EQ(t.value, v & probes[n].mask, "a base, and back"))
				return;
		}
		if (off)
			continue;
		if (!HOT_EQ(trap_call(fs_read, (ulong)&slots[round % 2]).value, slots[round % 2],
			    "an access by the new base") ||
		    !HOT_EQ(trap_call(base_flags, 5).value & (FLAG_CF | FLAG_ZF), FLAG_ZF,
			    "flags are left alone"))
			return;
		wrmsr(MSR_FS_BASE, v & 0x7fff0000);
		if (!HOT_EQ(user_call(read_fs, 0).value, v & 0x7fff0000, "RDFSBASE in ring 3"))
			return;
	}
	write_cr4(read_cr4() & ~CR4_FSGSBASE);
	wrmsr(MSR_FS_BASE, fs);
	wrmsr(MSR_GS_BASE, gs);
}

PROBE(selectors, "or $-1, %rdx; or $-1, %rsi; push %rdi; or $-1, %rdi",
      "mov %ss, %edx; mov %cs, %rsi; mov %ss, %di; mov %rdx, %rax; shl $32, %rsi; or %rsi, %rax; "
      "shl $16, %rdi; add %rdi, %rax; pop %rdi");
PROBE(user_selector, "or $-1, %rax", "mov %cs, %eax");
PROBE(all_cr, "",
      "mov %cr0, %rax; mov %cr2, %rcx; mov %cr3, %rdx; add %rcx, %rax; add %rdx, %rax; "
      "mov %cr4, %r8; add %r8, %rax");

static void registers(void)
{
	ulong cr2 = read_cr2();

	for (unsigned round = 0; round < HOT; round++) {
		ulong sum;

		write_cr2((ulong)hot_random() << 32 | round);
		sum = read_cr0() + read_cr2() + read_cr3() + read_cr4();
		if (!HOT_EQ(trap_call(all_cr, 0).value, sum, "MOV from control registers") ||
		    !HOT_EQ(trap_call(selectors, 0).value,
			    (SEL_KDATA | (u64)SEL_KCODE << 32) + ((~0xfffful | SEL_KDATA) << 16),
			    "MOV from segment registers") ||
		    !HOT_EQ(user_call(user_selector, 0).value, SEL_UCODE | 3, "the same in ring 3"))
			break;
		CHECK_TRAP(user_call(all_cr, 0), VEC_GP, 0, all_cr_at,
			   "control registers in ring 3");
	}
	write_cr2(cr2);
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
/* Returns to another address, with other flags. */
u64 sys_rcx, sys_r11;
ENTRY(sys_entry3, "mov sys_r11, %rdx; or %rdx, (%rsp); mov sys_rcx, %rdx; or %rdx, 8(%rsp)");
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

PROBE(sys_once, "",
      "mov $7, %eax; .globl once_at; once_at: syscall; .globl once_back; once_back: nop; "
      "nop; mov %rcx, %rax");
extern const u8 once_back[];
PROBE(sysret_user, "", "sysretq");

/* What SYSRET has to look at. */
static void sysrets(void)
{
	static u64 stack[64];
	u64 efer = rdmsr(MSR_EFER);

	sys_area[2] = (ulong)&stack[COUNT(stack)];
	wrmsr(MSR_GS_BASE, 0);
	wrmsr(MSR_STAR, (u64)SEL_UCODE32 << 48 | (u64)SEL_KCODE << 32);
	wrmsr(MSR_SFMASK, FLAG_IF | FLAG_TF);
	wrmsr(MSR_LSTAR, (ulong)sys_entry3);
	wrmsr(MSR_EFER, efer | EFER_SCE);
	for (unsigned round = 0; round < HOT; round++) {
		struct trap t;

		wrmsr(MSR_GS_BASE, 0);
		wrmsr(MSR_KERNEL_GS_BASE, (ulong)sys_area);
		sys_rcx = round % 8 == 5 ? BIT64(47) : round % 8 == 6 ? BIT64(63) : 0;
		sys_r11 = round % 8 == 3 ? FLAG_TF : 0;
		t = user_call(sys_once, 0);
		if (sys_rcx) {
			/* (With the user's stack, in ring 0.) */
			if (!HOT_EQ(t.vector, VEC_GP, "SYSRET to no canonical address") ||
			    !HOT_EQ(t.cs, SEL_KCODE, "... faults in ring 0") ||
			    !HOT_EQ(t.error, 0, "... with no error code"))
				break;
		} else if (sys_r11) {
			if (!HOT_EQ(t.vector, VEC_DB, "SYSRET sets TF") ||
			    !HOT_EQ(t.ip, ADDR(once_back), "... and traps at once"))
				break;
		} else if (!HOT_EQ(t.value, ADDR(once_back), "SYSCALL, SYSRET")) {
			break;
		}
		CHECK_TRAP(user_call(sysret_user, 0), VEC_GP, 0, sysret_user_at,
			   "SYSRET in ring 3");
	}
	wrmsr(MSR_EFER, efer);
	wrmsr(MSR_GS_BASE, 0);
	wrmsr(MSR_KERNEL_GS_BASE, 0);
}

static void only64(void)
{
	swapgs();
	bases();
	registers();
	no_stack();
	syscalls();
	sysrets();
}

void guest_main(void)
{
	hot_system(only64);
}
