// SPDX-License-Identifier: MIT
/*
 * Virtual-8086 mode: segment arithmetic, which instructions IOPL guards, interrupts out of it and
 * the way back, the I/O bitmap (SDM vol. 3, chapter 20).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "smp.h"
#include "trap.h"

/* Real-mode code, copied to LOW_BASE and run with CS = LOW_BASE / 16. */
asm(".pushsection .data\n"
    ".code16\n"
    ".globl vm_begin, vm_end, vm_segments, vm_int, vm_cli, vm_pushf, vm_hlt, vm_in, vm_stack, "
    "vm_limit, vm_high, vm_far\n"
    "vm_begin:\n"
    "vm_segments:\n" /* 0x1000:0x0010 is linear 0x10010 */
    "	mov $0x1000, %ax; mov %ax, %es; movw $0x4242, %es:0x10\n"
    "	mov %cs, %ax; int $0x21\n"
    "vm_int:	int $0x20\n"
    "vm_cli:	cli; sti; mov $0x1111, %ax; int $0x21\n"
    "vm_pushf:	pushf; pop %ax; int $0x21\n"
    "vm_hlt:	hlt\n"
    "vm_in:	in $0x71, %al; mov $0x2222, %ax; int $0x21\n"
    "vm_stack:	push $0x1357; pop %ax; int $0x21\n"
    "vm_limit:	mov $0xffff, %bx; mov (%bx), %ax; int $0x21\n"
    "vm_high:	mov $0xffff, %ax; mov %ax, %es; mov %es:0x20, %ax; int $0x21\n"
    "vm_far:	push %cs; push $(1f - vm_begin); lret; 1: mov $0x3333, %ax; int $0x21\n"
    "vm_end:\n"
    ".code32\n"
    ".popsection");
extern const u8 vm_begin[], vm_end[], vm_segments[], vm_int[], vm_cli[], vm_pushf[], vm_hlt[],
	vm_in[], vm_stack[], vm_limit[], vm_high[], vm_far[];

#define OFFSET(label) ((ulong)(label) - (ulong)vm_begin)

/* IRET into virtual-8086 mode at offset %eax with the flags in %edx. */
asm(".pushsection .text\n"
    ".globl enter_vm\n"
    "enter_vm:\n"
    "	push $0; push $0; push $0x0900; push $0x0900\n" /* GS, FS, DS, ES */
    "	push $0x0700; push $0x0ff0\n"			/* SS, SP */
    "	push vm_flags_to_load; push $0x0800; push %eax\n"
    "	iret\n"
    ".popsection");
u32 vm_flags_to_load;
ulong enter_vm(ulong offset);

static struct trap vm_run(const u8 *at, ulong flags)
{
	vm_flags_to_load = FLAG_VM | FLAG_FIXED | flags;
	return trap_call(enter_vm, OFFSET(at));
}

static u16 saved_es, saved_ds;

static bool look(struct frame *f)
{
	saved_es = f->vm_es;
	saved_ds = f->vm_ds;
	return false;
}

static void segments(void)
{
	struct trap t;

	*(volatile u16 *)0x10010 = 0;
	t = vm_run(vm_segments, 0x3000);
	CHECK_EQ(t.vector, 0x21, "INT n with IOPL 3 comes to the IDT");
	CHECK_EQ(t.ax & 0xffff, LOW_BASE / 16, "CS is as loaded");
	CHECK_EQ(*(volatile u16 *)0x10010, 0x4242, "an address is 16 times the segment + offset");
	CHECK(t.flags & FLAG_VM, "the frame says virtual-8086 mode");
	CHECK_EQ(t.sp, 0x0ff0, "the stack pointer of the frame");
	CHECK_EQ(saved_es, 0x1000, "ES is saved on the stack");
	CHECK_EQ(saved_ds, 0x0900, "and DS");
	CHECK_EQ(vm_run(vm_stack, 0x3000).ax & 0xffff, 0x1357, "PUSH and POP");
	CHECK_EQ(vm_run(vm_far, 0x3000).ax & 0xffff, 0x3333, "a far return loads CS");
	CHECK_EQ(vm_run(vm_high, 0x3000).ax & 0xffff, *(volatile u16 *)0x100010,
		 "0xffff:0x20 is above 1 MiB");
}

static void limits(void)
{
	struct trap t = vm_run(vm_limit, 0x3000);

	CHECK_EQ(t.vector, VEC_GP, "a word at offset 0xffff");
	CHECK_EQ(t.error, 0, "its error code is 0");
}

static void guarded(void)
{
	idt_set_dpl(0x20, 3);
	CHECK_TRAP(vm_run(vm_int, 0), VEC_GP, 0, OFFSET(vm_int), "INT n with IOPL 0");
	CHECK_EQ(vm_run(vm_int, 0x3000).vector, 0x20, "INT n with IOPL 3");
	idt_default(0x20);
	CHECK_TRAP(vm_run(vm_int, 0x3000), VEC_GP, 0x20 * 8 + 2, OFFSET(vm_int),
		   "INT n with IOPL 3 through a gate of DPL 0");
	CHECK_TRAP(vm_run(vm_cli, 0), VEC_GP, 0, OFFSET(vm_cli), "CLI with IOPL 0");
	CHECK_EQ(vm_run(vm_cli, 0x3000).ax & 0xffff, 0x1111, "CLI with IOPL 3");
	CHECK_TRAP(vm_run(vm_pushf, 0), VEC_GP, 0, OFFSET(vm_pushf), "PUSHF with IOPL 0");
	CHECK_EQ(vm_run(vm_pushf, 0x3000).ax & 0x3000, 0x3000, "PUSHF with IOPL 3 shows it");
	CHECK_TRAP(vm_run(vm_hlt, 0x3000), VEC_GP, 0, OFFSET(vm_hlt), "HLT, whatever the IOPL");
	CHECK_TRAP(vm_run(vm_in, 0x3000), VEC_GP, 0, OFFSET(vm_in), "IN of a port that is closed");
	desc_tss(0)->iomap = offsetof(struct tss32, bitmap);
	memset(desc_tss(0)->bitmap, 0xff, sizeof(desc_tss(0)->bitmap));
	desc_tss(0)->bitmap[0x71 / 8] &= ~(1 << 0x71 % 8);
	CHECK_EQ(vm_run(vm_in, 0).vector, VEC_GP, "INT n, after the IN went through");
	CHECK_EQ(vm_run(vm_in, 0x3000).ax & 0xffff, 0x2222, "IN of a port that is open");
	desc_tss(0)->iomap = sizeof(struct tss32);
}

void guest_main(void)
{
	low_copy(vm_begin, vm_end);
	idt_set_dpl(0x21, 3);
	trap_handle(0x20, look);
	trap_handle(0x21, look);
	segments();
	guarded();
	limits();
}
