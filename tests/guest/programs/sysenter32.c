// SPDX-License-Identifier: MIT
/* SYSENTER and SYSEXIT in 32-bit mode, which processors of either make have (SDM vol. 2). */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

u32 seen_sp, seen_cs, seen_ss, seen_flags;

asm(".globl entry\n"
    "entry:\n"
    "	mov %esp, %ss:seen_sp; mov %cs, %ss:seen_cs; mov %ss, %ss:seen_ss\n"
    "	pushf; pop %ss:seen_flags\n"
    "	mov $0x4321, %eax\n"
    "	sysexit\n"
    ".pushsection .utext\n"
    "	.globl enter\n"
    "enter:	mov %esp, %ecx; mov $1f, %edx; sysenter\n"
    "1:	ret\n"
    ".popsection");
extern const u8 entry[];
ulong enter(ulong arg);

PROBE(do_sysenter, "", "sysenter");
PROBE(do_sysexit, "", "sysexit");

void guest_main(void)
{
	struct trap t;

	if (!(cpuid(1, 0).d & BIT(11)))
		guest_skip("no SYSENTER");
	wrmsr(MSR_SYSENTER_CS, 0);
	CHECK_TRAP(user_call(do_sysenter, 0), VEC_GP, 0, do_sysenter_at, "SYSENTER without CS");
	CHECK_TRAP(trap_call(do_sysexit, 0), VEC_GP, 0, do_sysexit_at, "SYSEXIT without CS");
	wrmsr(MSR_SYSENTER_CS, SEL_KCODE);
	wrmsr(MSR_SYSENTER_ESP, (ulong)stacks + 4096);
	wrmsr(MSR_SYSENTER_EIP, (ulong)entry);
	CHECK_EQ(rdmsr(MSR_SYSENTER_EIP), (ulong)entry, "the MSR reads back");
	t = user_call(enter, 0);
	CHECK_EQ(t.vector, TRAP_NONE, "SYSENTER and SYSEXIT");
	CHECK_EQ(t.value, 0x4321, "with the value");
	CHECK_EQ(t.cs, SEL_UCODE32, "back in ring 3");
	CHECK_EQ(seen_sp, (ulong)stacks + 4096, "ESP within");
	CHECK_EQ(seen_cs, SEL_KCODE, "CS within");
	CHECK_EQ(seen_ss, SEL_KDATA, "SS within");
	CHECK_EQ(seen_flags & FLAG_IF, 0, "IF is clear within");
	CHECK_TRAP(user_call(do_sysexit, 0), VEC_GP, 0, do_sysexit_at, "ring 3: SYSEXIT");
}
