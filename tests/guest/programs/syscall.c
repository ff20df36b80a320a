// SPDX-License-Identifier: MIT
/*
 * SYSCALL and SYSRET, SYSENTER and SYSEXIT, SWAPGS, 32-bit code under a 64-bit kernel (SDM vol. 2,
 * those instructions).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

u64 seen_cx, seen_r11, seen_flags, seen_cs, seen_ss, seen_sp, seen_gs, user_sp;

asm(".globl syscall_entry, sysenter_entry, compat_code, compat_entry\n"
    "syscall_entry:\n"
    "	mov %rcx, seen_cx; mov %r11, seen_r11\n"
    "	mov %rsp, seen_sp; mov %rsp, user_sp\n"
    "	mov $stacks + 4096, %rsp\n"
    "	pushf; pop seen_flags\n"
    "	mov %cs, %edx; mov %rdx, seen_cs; mov %ss, %edx; mov %rdx, seen_ss\n"
    "	swapgs; mov %gs:0, %rdx; mov %rdx, seen_gs; swapgs\n"
    "	mov user_sp, %rsp\n"
    "	mov $0x1234, %eax\n"
    "	sysretq\n"
    "sysenter_entry:\n"
    "	mov %rsp, seen_sp; mov %cs, %eax; mov %rax, seen_cs; mov %ss, %eax; mov %rax, seen_ss\n"
    "	pushf; pop seen_flags\n"
    "	mov $0x4321, %eax\n"
    "	sysexitq\n"
    ".pushsection .utext\n"
    "	.globl user_syscall, user_syscall_after, user_sysenter\n"
    "user_syscall: mov $0x11, %ecx; mov $0x22, %r11d; syscall\n"
    "user_syscall_after: ret\n"
    "user_sysenter: mov %rsp, %rcx; lea 1f(%rip), %rdx; sysenter\n"
    "1:	ret\n"
    "user_flags: pushf; pop %rax; ret\n"
    /* From 64-bit ring 3 to 32-bit ring 3 and back. */
    "	.globl to_compat\n"
    "to_compat: mov %ds, %r8d; push $0x1b; lea 2f(%rip), %rax; push %rax; lretq\n"
    ".code32\n"
    "2:	mov $0x10, %eax; .byte 0x48; inc %eax\n" /* 48 is DEC EAX here, not a prefix */
    "	mov %cs, %ecx; shl $16, %ecx; or %ecx, %eax\n"
    "	ljmp $0x2b, $3f\n"
    ".code64\n"
    "3:	ret\n"
    ".popsection");
extern const u8 syscall_entry[], sysenter_entry[], user_syscall_after[];
ulong user_syscall(ulong arg);
ulong user_sysenter(ulong arg);
ulong to_compat(ulong arg);

PROBE(do_syscall, "", "syscall");
PROBE(do_sysret, "", "sysretq");
PROBE(do_sysexit, "", "sysexitl");

static u64 per_cpu = 0x6767676767676767;

static void fast_system_call(void)
{
	struct trap t;

	CHECK_TRAP(user_call(do_syscall, 0), VEC_UD, 0, do_syscall_at, "SYSCALL without EFER.SCE");
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_STAR, (u64)SEL_KCODE << 32 | (u64)SEL_UCODE32 << 48);
	wrmsr(MSR_LSTAR, (ulong)syscall_entry);
	wrmsr(MSR_SFMASK, FLAG_CF | FLAG_DF | FLAG_AC | FLAG_IF);
	wrmsr(MSR_KERNEL_GS_BASE, (ulong)&per_cpu);
	t = user_call_flags(user_syscall, 0, FLAG_AC | FLAG_CF | FLAG_ZF);
	CHECK_EQ(t.vector, TRAP_NONE, "SYSCALL and SYSRET");
	CHECK_EQ(t.value, 0x1234, "with the value");
	CHECK_EQ(t.cs, SEL_UCODE64, "back in 64-bit ring 3");
	CHECK_EQ(t.flags & (FLAG_AC | FLAG_CF | FLAG_ZF), FLAG_AC | FLAG_CF | FLAG_ZF,
		 "with the flags from R11");
	CHECK_EQ(seen_cx, ADDR(user_syscall_after), "RCX is the address to come back to");
	CHECK_EQ(seen_r11 & (FLAG_AC | FLAG_CF | FLAG_ZF), FLAG_AC | FLAG_CF | FLAG_ZF,
		 "R11 has the flags");
	CHECK_EQ(seen_flags & (FLAG_AC | FLAG_CF | FLAG_ZF), FLAG_ZF,
		 "masked ones are clear within");
	CHECK_EQ(seen_cs, SEL_KCODE, "CS within");
	CHECK_EQ(seen_ss, SEL_KDATA, "SS within");
	CHECK(seen_sp >= (ulong)user_stack && seen_sp < (ulong)user_stack + STACK_SIZE,
	      "RSP is the caller's");
	CHECK_EQ(seen_gs, per_cpu, "SWAPGS brings the kernel's GS base");
	CHECK_TRAP(user_call(do_sysret, 0), VEC_GP, 0, do_sysret_at, "ring 3: SYSRET");
}

static void sysenter(void)
{
	struct trap t;

	/* AMD processors have it in 32-bit modes only: #UD there. */
	if (cpuid(0, 0).b == 0x68747541)
		return;
	CHECK_TRAP(user_call(do_sysexit, 0), VEC_GP, 0, do_sysexit_at, "ring 3: SYSEXIT");
	wrmsr(MSR_SYSENTER_CS, 0);
	CHECK_EQ(user_call(user_sysenter, 0).vector, VEC_GP, "SYSENTER without CS");
	wrmsr(MSR_SYSENTER_CS, SEL_KCODE);
	wrmsr(MSR_SYSENTER_ESP, (ulong)stacks + 4096);
	wrmsr(MSR_SYSENTER_EIP, (ulong)sysenter_entry);
	t = user_call(user_sysenter, 0);
	CHECK_EQ(t.vector, TRAP_NONE, "SYSENTER and SYSEXIT");
	CHECK_EQ(t.value, 0x4321, "with the value");
	CHECK_EQ(t.cs, SEL_UCODE64, "back in 64-bit ring 3");
	CHECK_EQ(seen_sp, (ulong)stacks + 4096, "RSP within");
	CHECK_EQ(seen_cs, SEL_KCODE, "CS within");
	CHECK_EQ(seen_ss, SEL_KDATA, "SS within");
	CHECK_EQ(seen_flags & FLAG_IF, 0, "IF is clear within");
}

static void compatibility(void)
{
	struct trap t = user_call(to_compat, 0);

	CHECK_EQ(t.vector, TRAP_NONE, "to 32-bit code and back");
	CHECK_EQ(t.value, (u64)SEL_UCODE32 << 16 | 0x10, "where 48 is an instruction");
}

void guest_main(void)
{
	fast_system_call();
	sysenter();
	compatibility();
}
