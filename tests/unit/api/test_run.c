// SPDX-License-Identifier: MIT
/* KVM_RUN with a few bytes of guest: each kind of exit, and how it is completed. */
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void *pio(struct guest *g)
{
	return (uint8_t *)g->run + g->run->io.data_offset;
}

static void test_out_hlt(void **state)
{
	static const uint8_t code[] = {
		0xb0, 0x41,	  /* mov $0x41, %al */
		0xba, 0xf8, 0x03, /* mov $0x3f8, %dx */
		0xee,		  /* out %al, (%dx) */
		0xf4,		  /* hlt */
	};
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.direction, KVM_EXIT_IO_OUT);
	assert_int_equal(g.run->io.port, 0x3f8);
	assert_int_equal(g.run->io.size, 1);
	assert_int_equal(g.run->io.count, 1);
	assert_int_equal(*(uint8_t *)pio(&g), 0x41);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(guest_regs(&g).rip, GUEST_CODE + sizeof(code));
	guest_stop(&g);
}

static void test_in_completed_by_immediate_exit(void **state)
{
	static const uint8_t code[] = {
		0xe4, 0x60, /* in $0x60, %al */
		0xf4,	    /* hlt */
	};
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.direction, KVM_EXIT_IO_IN);
	*(uint8_t *)pio(&g) = 0x5a;
	g.run->immediate_exit = 1;
	assert_errno(EINTR, io(g.vcpu, KVM_RUN, 0));
	/* What was answered can still be read: the guest has not been left for another reason. */
	assert_int_equal(g.run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(guest_regs(&g).rax, 0x5a);
	assert_int_equal(guest_regs(&g).rip, GUEST_CODE + 2);
	g.run->immediate_exit = 0;
	assert_exit(&g, KVM_EXIT_HLT);
	guest_stop(&g);
}

static void test_string_io(void **state)
{
	static const uint8_t code[] = {
		0xfc,		  /* cld */
		0xbe, 0x00, 0x20, /* mov $0x2000, %si */
		0xba, 0x34, 0x12, /* mov $0x1234, %dx */
		0xb9, 0x10, 0x00, /* mov $16, %cx */
		0xf3, 0x6e,	  /* rep outsb */
		0xbf, 0x00, 0x30, /* mov $0x3000, %di */
		0xb9, 0x08, 0x00, /* mov $8, %cx */
		0xf3, 0x6d,	  /* rep insw */
		0xf4,		  /* hlt */
	};
	static const char text[] = "sixteen letters!";
	struct guest g;
	unsigned got = 0;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	memcpy(g.mem + 0x2000, text, 16);
	while (got < 16) { /* batches of any size */
		assert_exit(&g, KVM_EXIT_IO);
		assert_int_equal(g.run->io.direction, KVM_EXIT_IO_OUT);
		assert_int_equal(g.run->io.size, 1);
		assert_true(g.run->io.count >= 1 && g.run->io.count <= 16 - got);
		assert_memory_equal(pio(&g), text + got, g.run->io.count);
		got += g.run->io.count;
	}
	for (got = 0; got < 8; got += g.run->io.count) {
		assert_exit(&g, KVM_EXIT_IO);
		assert_int_equal(g.run->io.direction, KVM_EXIT_IO_IN);
		assert_int_equal(g.run->io.size, 2);
		for (unsigned i = 0; i < g.run->io.count; i++)
			((uint16_t *)pio(&g))[i] = (uint16_t)(0x1100 + got + i);
	}
	assert_exit(&g, KVM_EXIT_HLT);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(((uint16_t *)(g.mem + 0x3000))[i], 0x1100 + i);
	assert_int_equal(guest_regs(&g).rcx, 0);
	assert_int_equal(guest_regs(&g).rdi, 0x3010);
	assert_int_equal(guest_regs(&g).rsi, 0x2010);
	guest_stop(&g);
}

static void test_mmio(void **state)
{
	static const uint8_t code[] = {
		0xb8, 0x00, 0xa0,		    /* mov $0xa000, %ax */
		0x8e, 0xd8,			    /* mov %ax, %ds */
		0xc7, 0x06, 0x10, 0x80, 0xcd, 0xab, /* movw $0xabcd, 0x8010 -> a8010 */
		0xa1, 0x12, 0x80,		    /* mov 0x8012, %ax */
		0x01, 0x06, 0x14, 0x80,		    /* add %ax, 0x8014: read, then write */
		0xf4,				    /* hlt */
	};
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_exit(&g, KVM_EXIT_MMIO);
	assert_int_equal(g.run->mmio.phys_addr, 0xa8010);
	assert_int_equal(g.run->mmio.len, 2);
	assert_int_equal(g.run->mmio.is_write, 1);
	assert_memory_equal(g.run->mmio.data, "\xcd\xab", 2);
	assert_exit(&g, KVM_EXIT_MMIO);
	assert_int_equal(g.run->mmio.phys_addr, 0xa8012);
	assert_int_equal(g.run->mmio.is_write, 0);
	memcpy(g.run->mmio.data, "\x02\x01", 2);
	assert_exit(&g, KVM_EXIT_MMIO);
	assert_int_equal(guest_regs(&g).rax, 0x102);
	assert_int_equal(g.run->mmio.phys_addr, 0xa8014);
	assert_int_equal(g.run->mmio.is_write, 0);
	memcpy(g.run->mmio.data, "\x40\x30", 2);
	assert_exit(&g, KVM_EXIT_MMIO);
	assert_int_equal(g.run->mmio.is_write, 1);
	assert_memory_equal(g.run->mmio.data, "\x42\x31", 2);
	assert_exit(&g, KVM_EXIT_HLT);
	guest_stop(&g);
}

static void test_read_only_memory(void **state)
{
	static const uint8_t code[] = {
		0xc6, 0x06, 0x00, 0x20, 0x77, /* movb $0x77, 0x2000 */
		0xf4,			      /* hlt */
	};
	struct kvm_userspace_memory_region region = {
		.memory_size = GUEST_MEM,
		.flags = KVM_MEM_READONLY,
	};
	struct kvm_userspace_memory_region gone = { 0 };
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	region.userspace_addr = (uintptr_t)g.mem;
	/* READONLY can't be changed on a slot that is there. */
	assert_errno(EINVAL, io(g.vm, KVM_SET_USER_MEMORY_REGION, &region));
	assert_int_equal(io(g.vm, KVM_SET_USER_MEMORY_REGION, &gone), 0);
	assert_int_equal(io(g.vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
	assert_exit(&g, KVM_EXIT_MMIO);
	assert_int_equal(g.run->mmio.phys_addr, 0x2000);
	assert_int_equal(g.run->mmio.is_write, 1);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(g.mem[0x2000], 0);
	guest_stop(&g);
}

static void test_dirty_log(void **state)
{
	static const uint8_t code[] = {
		0xc6, 0x06, 0x00, 0x20, 0x77, /* movb $0x77, 0x2000 */
		0xe6, 0x80,		      /* out %al, $0x80 */
		0xc6, 0x06, 0x00, 0x50, 0x77, /* movb $0x77, 0x5000 */
		0xf4,			      /* hlt */
	};
	struct kvm_userspace_memory_region region = {
		.memory_size = GUEST_MEM,
		.flags = KVM_MEM_LOG_DIRTY_PAGES,
	};
	uint64_t bits = 0;
	struct kvm_dirty_log log = { .dirty_bitmap = &bits };
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_errno(ENOENT, io(g.vm, KVM_GET_DIRTY_LOG, &log));
	region.userspace_addr = (uintptr_t)g.mem;
	assert_int_equal(io(g.vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(io(g.vm, KVM_GET_DIRTY_LOG, &log), 0);
	assert_int_equal(bits, 1 << 2);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(io(g.vm, KVM_GET_DIRTY_LOG, &log), 0);
	assert_int_equal(bits, 1 << 5);
	log.dirty_bitmap = (void *)8;
	assert_errno(EFAULT, io(g.vm, KVM_GET_DIRTY_LOG, &log));
	guest_stop(&g);
}

static void test_triple_fault(void **state)
{
	static const uint8_t code[] = {
		0x0f, 0x01, 0x1e, 0x00, 0x20, /* lidt 0x2000: limit 0 */
		0xcc,			      /* int3 */
	};
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_exit(&g, KVM_EXIT_SHUTDOWN);
	guest_stop(&g);
}

/* The host takes memory away under the guest: an error of KVM_RUN, not of the process. */
static void test_host_fault(void **state)
{
	static const uint8_t code[] = {
		0xc6, 0x06, 0x00, 0x20, 0x77, /* movb $0x77, 0x2000 */
		0xf4,			      /* hlt */
	};
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(mprotect(g.mem + 0x2000, 0x1000, PROT_READ), 0);
	assert_errno(EFAULT, io(g.vcpu, KVM_RUN, 0));
	assert_int_equal(guest_regs(&g).rip, GUEST_CODE);
	assert_int_equal(mprotect(g.mem + 0x2000, 0x1000, PROT_READ | PROT_WRITE), 0);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(g.mem[0x2000], 0x77);
	guest_stop(&g);
}

static void test_interrupt_window(void **state)
{
	static const uint8_t code[] = {
		0xe6, 0x80, /* out %al, $0x80 */
		0xfb,	    /* sti */
		0x90,	    /* nop: in the shadow of sti */
		0x90,	    /* nop */
		0xeb, 0xfe, /* jmp . */
	};
	static const uint8_t handler[] = { 0xe6, 0x81, 0xf4 }; /* out %al, $0x81; hlt */
	struct kvm_interrupt irq = { .irq = 0x20 };
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	memcpy(g.mem + 0x2000, handler, sizeof(handler));
	((uint16_t *)g.mem)[0x20 * 2] = 0x2000;
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->ready_for_interrupt_injection, 0);
	assert_int_equal(g.run->if_flag, 0);
	g.run->request_interrupt_window = 1;
	assert_exit(&g, KVM_EXIT_IRQ_WINDOW_OPEN);
	assert_int_equal(g.run->ready_for_interrupt_injection, 1);
	assert_int_equal(g.run->if_flag, 1);
	assert_int_equal(guest_regs(&g).rip, GUEST_CODE + 4);
	g.run->request_interrupt_window = 0;
	assert_int_equal(io(g.vcpu, KVM_INTERRUPT, &irq), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	/* Return address on the stack. */
	assert_int_equal(*(uint16_t *)(g.mem + 0x8000 - 6), GUEST_CODE + 4);
	guest_stop(&g);
}

/* A window that the LAPIC keeps shut (LINT0 is masked) does not stop the guest. */
static void test_interrupt_window_shut(void **state)
{
	static const uint8_t code[] = {
		0xfb,	    /* sti */
		0x90,	    /* nop */
		0xe6, 0x80, /* out %al, $0x80 */
	};
	uint32_t masked = 0x10700;
	struct kvm_lapic_state lapic;
	struct guest g;

	guest_start(&g, SPLIT_CHIP, code, sizeof(code));
	assert_int_equal(io(g.vcpu, KVM_GET_LAPIC, &lapic), 0);
	memcpy(lapic.regs + 0x350, &masked, sizeof(masked));
	assert_int_equal(io(g.vcpu, KVM_SET_LAPIC, &lapic), 0);
	g.run->request_interrupt_window = 1;
	alarm(20); /* if the guest gets nowhere */
	assert_exit(&g, KVM_EXIT_IO);
	alarm(0);
	assert_int_equal(g.run->ready_for_interrupt_injection, 0);
	guest_stop(&g);
}

static void test_nmi_masked_until_iret(void **state)
{
	static const uint8_t code[] = {
		0xe6, 0x80, /* out %al, $0x80 */
		0x90,	    /* nop */
		0xe6, 0x82, /* out %al, $0x82 */
		0xf4,	    /* hlt */
	};
	static const uint8_t handler[] = {
		0xe6, 0x81, /* out %al, $0x81 */
		0x90,	    /* nop */
		0xcf,	    /* iret */
	};
	struct kvm_vcpu_events events;
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	memcpy(g.mem + 0x2000, handler, sizeof(handler));
	((uint16_t *)g.mem)[2 * 2] = 0x2000;
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(io(g.vcpu, KVM_NMI, 0), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	assert_int_equal(io(g.vcpu, KVM_GET_VCPU_EVENTS, &events), 0);
	assert_int_equal(events.nmi.masked, 1);
	/* Two more: one is latched, the other lost; it comes right after IRET. */
	assert_int_equal(io(g.vcpu, KVM_NMI, 0), 0);
	assert_int_equal(io(g.vcpu, KVM_NMI, 0), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x82);
	guest_stop(&g);
}

static void test_guest_debug(void **state)
{
	static const uint8_t code[] = {
		0xb8, 0x34, 0x12, /* mov $0x1234, %ax */
		0x40,		  /* inc %ax */
		0xcc,		  /* int3 */
		0x48,		  /* dec %ax */
		0xf4,		  /* hlt */
	};
	struct kvm_guest_debug debug = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_SW_BP,
	};
	struct kvm_regs regs;
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(io(g.vcpu, KVM_SET_GUEST_DEBUG, &debug), 0);
	for (unsigned pc = GUEST_CODE + 3; pc <= GUEST_CODE + 4; pc++) {
		assert_exit(&g, KVM_EXIT_DEBUG);
		assert_int_equal(g.run->debug.arch.exception, 1);
		assert_int_equal(g.run->debug.arch.pc, pc);
		assert_true(g.run->debug.arch.dr6 & 0x4000);
	}
	assert_exit(&g, KVM_EXIT_DEBUG);
	assert_int_equal(g.run->debug.arch.exception, 3);
	assert_int_equal(g.run->debug.arch.pc, GUEST_CODE + 4);
	assert_int_equal(guest_regs(&g).rip, GUEST_CODE + 4);
	/* A hardware breakpoint instead, on the last instruction. */
	debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
	debug.arch.debugreg[0] = GUEST_CODE + 6;
	debug.arch.debugreg[7] = 0x402;
	assert_int_equal(io(g.vcpu, KVM_SET_GUEST_DEBUG, &debug), 0);
	regs = guest_regs(&g);
	regs.rip++;
	assert_int_equal(io(g.vcpu, KVM_SET_REGS, &regs), 0);
	assert_exit(&g, KVM_EXIT_DEBUG);
	assert_int_equal(g.run->debug.arch.pc, GUEST_CODE + 6);
	assert_int_equal(g.run->debug.arch.dr6 & 0xf, 1);
	assert_int_equal(guest_regs(&g).rax, 0x1234);
	debug.control = 0;
	assert_int_equal(io(g.vcpu, KVM_SET_GUEST_DEBUG, &debug), 0);
	assert_exit(&g, KVM_EXIT_HLT);
	guest_stop(&g);
}

static void test_sync_regs(void **state)
{
	static const uint8_t code[] = {
		0x40,	    /* inc %ax */
		0xe7, 0x80, /* out %ax, $0x80 */
		0xeb, 0xfb, /* jmp back */
	};
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	g.run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->s.regs.regs.rax, 1);
	assert_int_equal(g.run->s.regs.sregs.cs.base, 0);
	g.run->s.regs.regs.rax = 0x41;
	g.run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->s.regs.regs.rax, 0x42);
	assert_int_equal(g.run->kvm_dirty_regs, 0);
	g.run->kvm_valid_regs = 1 << 3;
	assert_errno(EINVAL, io(g.vcpu, KVM_RUN, 0));
	guest_stop(&g);
}

/* ---- stopping a vCPU ---- */

static struct kvm_run *signalled;

static void on_signal(int sig)
{
	signalled->immediate_exit = 1;
}

static void *send_signal(void *thread)
{
	usleep(20000);
	pthread_kill(*(pthread_t *)thread, SIGUSR1);
	return NULL;
}

static void stop_by_signal(const uint8_t *code, size_t len, enum guest_chip chip)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	pthread_t self = pthread_self(), other;
	struct guest g;

	guest_start(&g, chip, code, len);
	signalled = g.run;
	assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
	assert_int_equal(pthread_create(&other, NULL, send_signal, &self), 0);
	assert_errno(EINTR, io(g.vcpu, KVM_RUN, 0));
	assert_int_equal(g.run->exit_reason, KVM_EXIT_INTR);
	pthread_join(other, NULL);
	guest_stop(&g);
}

static const uint8_t loop_code[] = { 0xeb, 0xfe };	       /* jmp . */
static const uint8_t halt_code[] = { 0xfb, 0xf4, 0xeb, 0xfd }; /* sti; hlt; jmp back */

static void test_signal_stops_a_loop(void **state)
{
	stop_by_signal(loop_code, sizeof(loop_code), NO_CHIP);
}

static void test_signal_stops_a_halted_vcpu(void **state)
{
	stop_by_signal(halt_code, sizeof(halt_code), FULL_CHIP);
}

/* KVM_SET_SIGNAL_MASK: the signal is blocked but in KVM_RUN, and still pending afterwards. */
static void *interrupt_soon(void *vcpu)
{
	usleep(20000);
	umbra_interrupt_vcpu(*(int *)vcpu);
	return NULL;
}

/* Another thread stops it; or whoever comes before it runs. */
static void test_interrupt_vcpu(void **state)
{
	static const uint8_t spin[] = { 0xeb, 0xfe }; /* jmp . */
	static const uint8_t halt[] = { 0xf4 };
	const enum guest_chip chips[] = { NO_CHIP, FULL_CHIP };
	struct guest g;
	pthread_t t;

	for (unsigned i = 0; i < 2; i++) {
		guest_start(&g, chips[i], i ? halt : spin, i ? sizeof(halt) : sizeof(spin));
		assert_int_equal(pthread_create(&t, NULL, interrupt_soon, &g.vcpu), 0);
		assert_errno(EINTR, io(g.vcpu, KVM_RUN, 0));
		assert_int_equal(g.run->exit_reason, KVM_EXIT_INTR);
		assert_int_equal(pthread_join(t, NULL), 0);
		assert_int_equal(umbra_interrupt_vcpu(g.vcpu), 0);
		assert_errno(EINTR, io(g.vcpu, KVM_RUN, 0));
		guest_stop(&g);
	}
	guest_start(&g, NO_CHIP, halt, sizeof(halt));
	assert_int_equal(umbra_interrupt_vcpu(g.vcpu), 0);
	assert_int_equal(umbra_interrupt_vcpu(g.vcpu), 0);
	assert_errno(EINTR, io(g.vcpu, KVM_RUN, 0));
	assert_exit(&g, KVM_EXIT_HLT);
	assert_errno(EINVAL, umbra_interrupt_vcpu(g.vm));
	assert_errno(EBADF, umbra_interrupt_vcpu(-1));
	guest_stop(&g);
}

static void test_signal_mask(void **state)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t bits;
	} __attribute__((packed)) mask = { .head = { .len = 8 } };
	const struct timespec now = { 0 };
	pthread_t self = pthread_self(), other;
	sigset_t set, old;
	struct guest g;

	guest_start(&g, NO_CHIP, loop_code, sizeof(loop_code));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	mask.head.len = 4;
	assert_errno(EINVAL, io(g.vcpu, KVM_SET_SIGNAL_MASK, &mask));
	mask.head.len = 8;
	assert_int_equal(io(g.vcpu, KVM_SET_SIGNAL_MASK, &mask), 0);
	assert_int_equal(pthread_create(&other, NULL, send_signal, &self), 0);
	assert_errno(EINTR, io(g.vcpu, KVM_RUN, 0));
	pthread_join(other, NULL);
	assert_int_equal(sigtimedwait(&set, NULL, &now), SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	guest_stop(&g);
}

/* ---- with the library's irqchip ---- */

static void test_halt_woken_by_irq(void **state)
{
	static const uint8_t code[] = {
		/* 8259: base 0x20, all but IRQ 0 masked */
		0xb0, 0x11, 0xe6, 0x20, /* ICW1 */
		0xb0, 0x20, 0xe6, 0x21, /* ICW2 */
		0xb0, 0x04, 0xe6, 0x21, /* ICW3 */
		0xb0, 0x01, 0xe6, 0x21, /* ICW4 */
		0xb0, 0xef, 0xe6, 0x21, /* mask: IRQ 4 is open */
		0xe6, 0x80,		/* out: ready */
		0xfb,			/* sti */
		0xf4,			/* hlt */
		0xe6, 0x82,		/* out: after */
	};
	static const uint8_t handler[] = { 0xe6, 0x81, 0xcf }; /* out %al, $0x81; iret */
	struct kvm_irq_level line = { .irq = 4, .level = 1 };
	struct guest g;

	guest_start(&g, FULL_CHIP, code, sizeof(code));
	memcpy(g.mem + 0x2000, handler, sizeof(handler));
	((uint16_t *)g.mem)[0x24 * 2] = 0x2000;
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x80);
	assert_int_equal(io(g.vm, KVM_IRQ_LINE, &line), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x82);
	guest_stop(&g);
}

/*
 * An interrupt that comes while an instruction with accesses to the VMM's devices and to the LAPIC
 * is under way gets in right behind it, though the guest never exits again: FXSAVE to both.
 */
static void test_irq_during_many_accesses(void **state)
{
	static const uint8_t code[] = {
		0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, 0xb0, 0x04,
		0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, 0xb0, 0xef, 0xe6, 0x21, /* 8259, as above */
		0xfb,							    /* sti */
		0x0f, 0xae, 0x06, 0xf0, 0xfe,				    /* fxsave 0xfef0 */
		0xeb, 0xfe,						    /* jmp . */
	};
	static const uint8_t handler[] = { 0xe6, 0x81, 0xcf };
	struct kvm_irq_level line = { .irq = 4, .level = 1 };
	struct sigaction sa = { .sa_handler = on_signal };
	struct kvm_sregs sregs;
	unsigned writes = 0;
	struct guest g;

	guest_start(&g, FULL_CHIP, code, sizeof(code));
	memcpy(g.mem + 0x2000, handler, sizeof(handler));
	((uint16_t *)g.mem)[0x24 * 2] = 0x2000;
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.ds.base = 0xfedf0000;
	sregs.ds.limit = 0xffffffff;
	sregs.cr4 |= 1 << 9; /* OSFXSR: the XMM registers are saved too */
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &sregs), 0);
	signalled = g.run;
	assert_int_equal(sigaction(SIGALRM, &sa, NULL), 0);
	alarm(10);
	for (;;) {
		assert_int_equal(io(g.vcpu, KVM_RUN, 0), 0);
		if (g.run->exit_reason != KVM_EXIT_MMIO)
			break;
		assert_true(g.run->mmio.phys_addr < 0xfee00000);
		writes++;
		/* The last: what is left goes to the LAPIC. */
		if (g.run->mmio.phys_addr == 0xfee00000 - 8)
			assert_int_equal(io(g.vm, KVM_IRQ_LINE, &line), 0);
	}
	alarm(0);
	assert_int_equal(writes, 272 / 8);
	assert_int_equal(g.run->exit_reason, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	guest_stop(&g);
}

static void test_ap_waits_for_sipi(void **state)
{
	/* The BSP sends INIT and SIPI 03 to APIC id 1 through the LAPIC's page, in unreal mode. */
	struct kvm_mp_state mp;
	struct guest g;
	int ap;

	guest_start(&g, FULL_CHIP, halt_code, sizeof(halt_code));
	ap = io(g.vm, KVM_CREATE_VCPU, 1);
	assert_true(ap >= 0);
	assert_int_equal(io(ap, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_UNINITIALIZED);
	mp.mp_state = KVM_MP_STATE_SIPI_RECEIVED;
	assert_int_equal(io(ap, KVM_SET_MP_STATE, &mp), 0);
	assert_int_equal(io(ap, KVM_GET_MP_STATE, &mp), 0);
	assert_int_equal(mp.mp_state, KVM_MP_STATE_RUNNABLE);
	assert_int_equal(umbra_close(ap), 0);
	assert_errno(EEXIST, io(g.vm, KVM_CREATE_VCPU, 1));
	guest_stop(&g);
}

/* Real mode's INT 3 pushes flags, CS, IP and comes back. */
static void test_exception_and_rdmsr(void **state)
{
	static const uint8_t code[] = {
		0xcc,				    /* int3 */
		0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00, /* mov $0x1b, %ecx: APIC_BASE */
		0x0f, 0x32,			    /* rdmsr */
		0xf4,				    /* hlt */
	};
	static const uint8_t handler[] = { 0xe6, 0x81, 0xcf };
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	memcpy(g.mem + 0x2000, handler, sizeof(handler));
	((uint16_t *)g.mem)[3 * 2] = 0x2000;
	assert_exit(&g, KVM_EXIT_IO);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(guest_regs(&g).rax, 0xfee00900);
	guest_stop(&g);
}

static void msi(struct guest *g, uint32_t vector)
{
	struct kvm_msi m = { .address_lo = 0xfee00000, .data = vector };

	assert_int_equal(io(g->vm, KVM_SIGNAL_MSI, &m), 1);
}

struct low_irq {
	struct guest *g;
	pthread_t thread;
};

static void *send_low_irq(void *opaque)
{
	struct low_irq *l = opaque;

	usleep(50000);
	msi(l->g, 0x40);
	usleep(100000);
	pthread_kill(l->thread, SIGUSR1);
	return NULL;
}

/*
 * HLT in a handler: an interrupt of lower priority does not end it, though the guest uses PV EOI.
 */
static void test_halt_in_handler(void **state)
{
	static const uint8_t code[] = { 0xfb, 0xe6, 0x80, 0xeb, 0xfe }; /* sti; out; jmp . */
	static const uint8_t handler[] = { 0xfb, 0xf4, 0xe6, 0x81 };	/* sti; hlt; out */
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} eoi = { .head = { .nmsrs = 1 }, .e = { .index = 0x4b564d04, .data = 0x5000 | 1 } };
	struct sigaction sa = { .sa_handler = on_signal };
	struct kvm_lapic_state lapic;
	struct low_irq low;
	struct guest g;
	pthread_t other;

	guest_start(&g, FULL_CHIP, code, sizeof(code));
	memcpy(g.mem + 0x2000, handler, sizeof(handler));
	((uint16_t *)g.mem)[0x50 * 2] = 0x2000;
	assert_int_equal(io(g.vcpu, KVM_GET_LAPIC, &lapic), 0);
	lapic.regs[0xf1] |= 1; /* spurious-interrupt vector register: enable */
	assert_int_equal(io(g.vcpu, KVM_SET_LAPIC, &lapic), 0);
	assert_int_equal(io(g.vcpu, KVM_SET_MSRS, &eoi), 1);
	assert_exit(&g, KVM_EXIT_IO);
	signalled = g.run;
	assert_int_equal(sigaction(SIGUSR1, &sa, NULL), 0);
	msi(&g, 0x50);
	low = (struct low_irq){ &g, pthread_self() };
	assert_int_equal(pthread_create(&other, NULL, send_low_irq, &low), 0);
	assert_errno(EINTR, io(g.vcpu, KVM_RUN, 0));
	pthread_join(other, NULL);
	assert_int_equal(guest_regs(&g).rip, 0x2002);
	guest_stop(&g);
}

static void put32(struct guest *g, unsigned at, uint32_t v)
{
	memcpy(g->mem + at, &v, 4);
}

static void put_descriptor(struct guest *g, unsigned at, uint32_t base, uint32_t limit,
			   uint32_t type)
{
	put32(g, at, (base & 0xffff) << 16 | (limit & 0xffff));
	put32(g, at + 4, (base & 0xff000000) | (limit & 0xf0000) | type << 8 | (base >> 16 & 0xff));
}

/*
 * An exception goes to a task, whose DS is not present: #NP comes in the new task, and it alone.
 * (A second try at the first exception would find the task busy: #GP.)
 */
static void test_fault_behind_a_task_gate(void **state)
{
	enum {
		GDT = 0x3000,
		IDT = 0x3100,
		TSS = 0x3400,
		NEW_TSS = 0x3500,
		NP = 0x2000,
		GP = 0x2100
	};
	static const uint8_t code[] = { 0x0f, 0x0b }; /* ud2 */
	static const uint8_t np[] = { 0xe6, 0x81 }, gp[] = { 0xe6, 0x82 };
	struct kvm_segment flat = { .limit = 0xffffffff, .present = 1, .db = 1, .s = 1, .g = 1 };
	struct kvm_sregs sregs;
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	memcpy(g.mem + NP, np, sizeof(np));
	memcpy(g.mem + GP, gp, sizeof(gp));
	put_descriptor(&g, GDT + 0x08, 0, 0xcffff, 0x9b);
	put_descriptor(&g, GDT + 0x10, 0, 0xcffff, 0x93);
	put_descriptor(&g, GDT + 0x18, TSS, 103, 0x8b);
	put_descriptor(&g, GDT + 0x20, NEW_TSS, 103, 0x89);
	put_descriptor(&g, GDT + 0x28, 0, 0xcffff, 0x13); /* data, not present */
	/* The granularity and size bits stand among the limit's. */
	for (unsigned at = GDT + 0x08; at <= GDT + 0x10; at += 8)
		g.mem[at + 6] = 0xcf;
	g.mem[GDT + 0x28 + 6] = 0xcf;
	put32(&g, IDT + 6 * 8, 0x20 << 16);
	put32(&g, IDT + 6 * 8 + 4, 0x8500); /* #UD: task gate */
	put32(&g, IDT + 11 * 8, 0x08 << 16 | NP);
	put32(&g, IDT + 11 * 8 + 4, 0x8e00);
	put32(&g, IDT + 13 * 8, 0x08 << 16 | GP);
	put32(&g, IDT + 13 * 8 + 4, 0x8e00);
	put32(&g, NEW_TSS + 0x24, 2);	   /* EFLAGS */
	put32(&g, NEW_TSS + 0x38, 0x7000); /* ESP */
	put32(&g, NEW_TSS + 0x48, 0x10);   /* ES, CS, SS, DS */
	put32(&g, NEW_TSS + 0x4c, 0x08);
	put32(&g, NEW_TSS + 0x50, 0x10);
	put32(&g, NEW_TSS + 0x54, 0x28);

	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &sregs), 0);
	flat.type = 3;
	flat.selector = 0x10;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
	flat.type = 11;
	flat.selector = 0x08;
	sregs.cs = flat;
	sregs.tr = (struct kvm_segment){
		.base = TSS, .limit = 103, .selector = 0x18, .type = 11, .present = 1
	};
	sregs.gdt = (struct kvm_dtable){ .base = GDT, .limit = 0x2f };
	sregs.idt = (struct kvm_dtable){ .base = IDT, .limit = 0xff };
	sregs.cr0 |= 1;
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &sregs), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	assert_int_equal(guest_regs(&g).rsp, 0x7000 - 16);
	assert_int_equal(*(uint32_t *)(g.mem + 0x7000 - 16), 0x28 | 1); /* the selector, and EXT */
	guest_stop(&g);
}

/*
 * fninit; an instruction of two bytes; fistp word [0x3000]; hlt: by code generated for the host's
 * processor.
 */
static void x87_start(struct guest *g, uint8_t op0, uint8_t op1)
{
	const uint8_t code[] = { 0xdb, 0xe3, op0, op1, 0xdf, 0x1e, 0x00, 0x30, 0xf4 };

	guest_start(g, NO_CHIP, code, sizeof(code));
}

static int x87_result(struct guest *g)
{
	struct kvm_regs regs = guest_regs(g);
	int16_t v;

	regs.rip = GUEST_CODE;
	assert_int_equal(io(g->vcpu, KVM_SET_REGS, &regs), 0);
	assert_exit(g, KVM_EXIT_HLT);
	memcpy(&v, g->mem + 0x3000, sizeof(v));
	return v;
}

/* Generated code of a process and of its child must not be the same memory. */
static void test_child_has_code_of_its_own(void **state)
{
	int go[2], said[2], status;
	struct guest g;
	char c = 0;
	pid_t pid;

	x87_start(&g, 0xd9, 0xe8); /* fld1 */
	assert_int_equal(x87_result(&g), 1);
	guest_stop(&g);
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(said), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		int wrong;

		x87_start(&g, 0xd9, 0xeb); /* fldpi */
		wrong = x87_result(&g) != 3;
		(void)!write(said[1], &c, 1);
		(void)!read(go[0], &c, 1);
		wrong |= x87_result(&g) != 3;
		_exit(wrong);
	}
	assert_int_equal(read(said[0], &c, 1), 1);
	x87_start(&g, 0xd9, 0xee); /* fldz: its code would be where the child's is */
	assert_int_equal(x87_result(&g), 0);
	guest_stop(&g);
	assert_int_equal(write(go[1], &c, 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	for (int n = 0; n < 2; n++) {
		close(go[n]);
		close(said[n]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_out_hlt),
		cmocka_unit_test(test_in_completed_by_immediate_exit),
		cmocka_unit_test(test_string_io),
		cmocka_unit_test(test_mmio),
		cmocka_unit_test(test_read_only_memory),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_triple_fault),
		cmocka_unit_test(test_host_fault),
		cmocka_unit_test(test_interrupt_window),
		cmocka_unit_test(test_interrupt_window_shut),
		cmocka_unit_test(test_nmi_masked_until_iret),
		cmocka_unit_test(test_guest_debug),
		cmocka_unit_test(test_sync_regs),
		cmocka_unit_test(test_signal_stops_a_loop),
		cmocka_unit_test(test_signal_stops_a_halted_vcpu),
		cmocka_unit_test(test_interrupt_vcpu),
		cmocka_unit_test(test_signal_mask),
		cmocka_unit_test(test_halt_woken_by_irq),
		cmocka_unit_test(test_irq_during_many_accesses),
		cmocka_unit_test(test_ap_waits_for_sipi),
		cmocka_unit_test(test_exception_and_rdmsr),
		cmocka_unit_test(test_fault_behind_a_task_gate),
		cmocka_unit_test(test_halt_in_handler),
		cmocka_unit_test(test_child_has_code_of_its_own),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
