// SPDX-License-Identifier: MIT
/* What a VMM asks for with KVM_ENABLE_CAP and attributes, and what a guest then does to it. */
#include <stdbool.h>
#include <stdio.h>

#include "guest.h"

static int enable(int fd, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap c = { .cap = cap, .args = { arg } };

	return io(fd, KVM_ENABLE_CAP, &c);
}

/* ---- dirty logs by hand ---- */

static uint64_t dirty(struct guest *g)
{
	uint64_t bits = 0;
	struct kvm_dirty_log log = { .dirty_bitmap = &bits };

	assert_int_equal(io(g->vm, KVM_GET_DIRTY_LOG, &log), 0);
	return bits;
}

static void clear_dirty(struct guest *g, uint64_t bits)
{
	struct kvm_clear_dirty_log log = { .num_pages = GUEST_MEM / 4096, .dirty_bitmap = &bits };

	assert_int_equal(io(g->vm, KVM_CLEAR_DIRTY_LOG, &log), 0);
}

static void set_logging(struct guest *g, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.flags = flags,
		.memory_size = GUEST_MEM,
		.userspace_addr = (uintptr_t)g->mem,
	};

	assert_int_equal(io(g->vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
}

static void test_manual_dirty_log(void **state)
{
	static const uint8_t code[] = {
		0xa2, 0x00, 0x30, /* 1: mov %al, 0x3000 */
		0xa2, 0x00, 0x50, /* mov %al, 0x5000 */
		0xe6, 0x80,	  /* out %al, $0x80 */
		0xeb, 0xf6,	  /* jmp 1b */
	};
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), 3);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 2));
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 5));
	assert_int_equal(enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1), 0);
	set_logging(&g, KVM_MEM_LOG_DIRTY_PAGES);
	assert_exit(&g, KVM_EXIT_IO);
	for (int i = 0; i < 2; i++)
		assert_int_equal(dirty(&g), 1 << 3 | 1 << 5);
	clear_dirty(&g, 1 << 3);
	assert_int_equal(dirty(&g), 1 << 5);
	clear_dirty(&g, 1 << 5 | 1 << 7);
	assert_int_equal(dirty(&g), 0);
	/* The guest has translations to both, and is seen to write all the same. */
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(dirty(&g), 1 << 3 | 1 << 5);
	/* One call that fetches and clears, again. */
	assert_int_equal(enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0), 0);
	assert_int_equal(dirty(&g), 1 << 3 | 1 << 5);
	assert_int_equal(dirty(&g), 0);
	/* A log that begins full. */
	assert_int_equal(enable(g.vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3), 0);
	set_logging(&g, 0);
	set_logging(&g, KVM_MEM_LOG_DIRTY_PAGES);
	assert_int_equal(dirty(&g), 0xffff);
	clear_dirty(&g, 0xffff);
	assert_int_equal(dirty(&g), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(dirty(&g), 1 << 3 | 1 << 5);
	guest_stop(&g);
}

/* ---- MSRs ---- */

/* mov $msr, %ecx; mov $0x11223344, %eax; xor %edx, %edx; in real mode */
#define MSR_ARGS(msr)                                                                           \
	0x66, 0xb9, (msr)&0xff, (msr) >> 8 & 0xff, (msr) >> 16 & 0xff, (msr) >> 24, 0x66, 0xb8, \
		0x44, 0x33, 0x22, 0x11, 0x66, 0x31, 0xd2
#define RDMSR 0x0f, 0x32
#define WRMSR 0x0f, 0x30

#define STAR	   0xc0000081u
#define LSTAR	   0xc0000082u
#define PAT	   0x277u
#define UNKNOWN	   0x12345678u
#define GP_HANDLER 0x4000

/* #GP: write port 0x99 and stop. */
static void catch_gp(struct guest *g)
{
	static const uint8_t handler[] = { 0xe6, 0x99, 0xf4 };

	memcpy(g->mem + GP_HANDLER, handler, sizeof(handler));
	memcpy(g->mem + 4 * 13, &(uint16_t[]){ GP_HANDLER, 0 }, 4);
}

static void assert_gp(struct guest *g, uint64_t rip)
{
	uint16_t pushed;

	assert_exit(g, KVM_EXIT_IO);
	assert_int_equal(g->run->io.port, 0x99);
	memcpy(&pushed, g->mem + 0x8000 - 6, sizeof(pushed));
	assert_int_equal(pushed, rip);
}

static void assert_msr_exit(struct guest *g, uint32_t exit, uint32_t reason, uint32_t msr)
{
	assert_exit(g, exit);
	assert_int_equal(g->run->msr.reason, reason);
	assert_int_equal(g->run->msr.index, msr);
	assert_int_equal(g->run->msr.error, 0);
}

static void test_user_space_msrs(void **state)
{
	static const uint8_t code[] = {
		MSR_ARGS(UNKNOWN),
		RDMSR, /* at 15 */
		0xe6,
		0x80, /* out %al, $0x80 */
		MSR_ARGS(UNKNOWN),
		WRMSR,
		MSR_ARGS(PAT),
		WRMSR, /* 0x44 is no memory type */
	};
	const uint64_t bad_pat = GUEST_CODE + 2 * 17 + 2 + 15;
	struct kvm_regs regs;
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	catch_gp(&g);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_USER_SPACE_MSR), 7);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_MSR_FILTER), 1);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_X86_USER_SPACE_MSR, 8));
	assert_int_equal(enable(g.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN), 0);

	assert_msr_exit(&g, KVM_EXIT_X86_RDMSR, KVM_MSR_EXIT_REASON_UNKNOWN, UNKNOWN);
	assert_int_equal(guest_regs(&g).rip, GUEST_CODE + 15);
	g.run->msr.data = 0x5566778899aabbccull;
	/* Completed before KVM_RUN returns, whatever for. */
	g.run->immediate_exit = 1;
	assert_errno(EINTR, io(g.vcpu, KVM_RUN, 0));
	g.run->immediate_exit = 0;
	regs = guest_regs(&g);
	assert_int_equal(regs.rip, GUEST_CODE + 17);
	assert_int_equal(regs.rax, 0x99aabbcc);
	assert_int_equal(regs.rdx, 0x55667788);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x80);

	assert_msr_exit(&g, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_UNKNOWN, UNKNOWN);
	assert_int_equal(g.run->msr.data, 0x11223344);
	/* A value that the MSR can't have: not asked for, so it is the guest's. */
	assert_gp(&g, bad_pat);
	guest_stop(&g);

	guest_start(&g, NO_CHIP, code, sizeof(code));
	catch_gp(&g);
	assert_int_equal(enable(g.vm, KVM_CAP_X86_USER_SPACE_MSR,
				KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL),
			 0);
	assert_msr_exit(&g, KVM_EXIT_X86_RDMSR, KVM_MSR_EXIT_REASON_UNKNOWN, UNKNOWN);
	assert_exit(&g, KVM_EXIT_IO);
	assert_msr_exit(&g, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_UNKNOWN, UNKNOWN);
	assert_msr_exit(&g, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_INVAL, PAT);
	g.run->msr.error = 1;
	assert_gp(&g, bad_pat);
	guest_stop(&g);

	/* Without the capability: #GP. */
	guest_start(&g, NO_CHIP, code, sizeof(code));
	catch_gp(&g);
	assert_gp(&g, GUEST_CODE + 15);
	guest_stop(&g);
}

static void set_bit(uint8_t *bitmap, unsigned n)
{
	bitmap[n / 8] |= (uint8_t)(1 << n % 8);
}

static void test_msr_filter(void **state)
{
	static const uint8_t code[] = {
		MSR_ARGS(STAR),
		WRMSR, /* allowed by its bit */
		MSR_ARGS(LSTAR),
		RDMSR, /* reading is not filtered */
		MSR_ARGS(LSTAR),
		WRMSR, /* writing is forbidden */
		MSR_ARGS(PAT),
		RDMSR, /* in no range */
		0xe6,
		0x80,
		MSR_ARGS(STAR),
		RDMSR,
		0xe6,
		0x80,
	};
	static uint8_t bitmap[0x700];
	struct kvm_msr_filter f = { 0 };
	struct guest g;

	guest_start(&g, SPLIT_CHIP, code, sizeof(code));
	catch_gp(&g);
	/* Refused. */
	f.flags = KVM_MSR_FILTER_DEFAULT_DENY;
	assert_errno(EINVAL, io(g.vm, KVM_X86_SET_MSR_FILTER, &f)); /* nothing would be left */
	f.flags = 2;
	assert_errno(EINVAL, io(g.vm, KVM_X86_SET_MSR_FILTER, &f));
	f.flags = 0;
	f.ranges[3] = (struct kvm_msr_filter_range){
		.flags = KVM_MSR_FILTER_WRITE, .nmsrs = 2, .base = STAR, .bitmap = (uint8_t *)8
	};
	assert_errno(EFAULT, io(g.vm, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[3].bitmap = bitmap;
	f.ranges[3].flags = 4;
	assert_errno(EINVAL, io(g.vm, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[3].flags = 0;
	assert_errno(EINVAL, io(g.vm, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[3].flags = KVM_MSR_FILTER_WRITE;
	f.ranges[3].nmsrs = 0x600 * 8 + 1;
	assert_errno(EINVAL, io(g.vm, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[3].nmsrs = ~0u;
	assert_errno(EINVAL, io(g.vm, KVM_X86_SET_MSR_FILTER, &f));
	f.ranges[3].nmsrs = 2;
	set_bit(bitmap, 0);
	assert_int_equal(io(g.vm, KVM_X86_SET_MSR_FILTER, &f), 0);
	memset(bitmap, 0, sizeof(bitmap)); /* it was copied */

	assert_int_equal(enable(g.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER), 0);
	assert_msr_exit(&g, KVM_EXIT_X86_WRMSR, KVM_MSR_EXIT_REASON_FILTER, LSTAR);
	assert_int_equal(guest_regs(&g).rip, GUEST_CODE + 2 * 17 + 15);
	assert_exit(&g, KVM_EXIT_IO);
	/* Another filter while the guest runs: nothing but PAT. */
	f.flags = KVM_MSR_FILTER_DEFAULT_DENY;
	f.ranges[3].base = PAT;
	f.ranges[3].nmsrs = 1;
	set_bit(bitmap, 0);
	assert_int_equal(io(g.vm, KVM_X86_SET_MSR_FILTER, &f), 0);
	assert_msr_exit(&g, KVM_EXIT_X86_RDMSR, KVM_MSR_EXIT_REASON_FILTER, STAR);
	g.run->msr.error = 1;
	assert_gp(&g, GUEST_CODE + 4 * 17 + 2 + 15);

	/* The VMM's own accesses are not filtered; no filter at all again. */
	{
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry e;
		} m = { .head = { .nmsrs = 1 }, .e = { .index = STAR } };
		struct kvm_regs regs = { .rip = GUEST_CODE + 4 * 17 + 2,
					 .rflags = 2,
					 .rsp = 0x8000 };

		assert_int_equal(io(g.vcpu, KVM_GET_MSRS, &m), 1);
		assert_int_equal(m.e.data, 0x11223344);
		memset(&f, 0, sizeof(f));
		assert_int_equal(io(g.vm, KVM_X86_SET_MSR_FILTER, &f), 0);
		assert_int_equal(io(g.vcpu, KVM_SET_REGS, &regs), 0);
		assert_exit(&g, KVM_EXIT_IO);
		assert_int_equal(g.run->io.port, 0x80);
		assert_int_equal(guest_regs(&g).rax, 0x11223344);
	}
	guest_stop(&g);
}

/* ---- exits that a VMM does without ---- */

static void test_hlt_without_exit(void **state)
{
	static const uint8_t code[] = {
		0xfb,	    /* sti */
		0xf4,	    /* hlt */
		0xe6, 0x80, /* out %al, $0x80 */
	};
	static const uint8_t handler[] = { 0xcf }; /* iret */
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_MEM };
	struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2, .rsp = 0x8000 };
	struct kvm_interrupt irq = { .irq = 0x40 };
	struct kvm_sregs sregs;
	struct guest g;

	guest_open_vm(&g, NO_CHIP);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_DISABLE_EXITS),
			 KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE |
				 KVM_X86_DISABLE_EXITS_CSTATE);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_X86_DISABLE_EXITS, 16));
	assert_int_equal(enable(g.vm, KVM_CAP_X86_DISABLE_EXITS,
				KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE),
			 0);
	g.mem = mmap(NULL, GUEST_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(g.mem + GUEST_CODE, code, sizeof(code));
	memcpy(g.mem + 0x3000, handler, sizeof(handler));
	memcpy(g.mem + 4 * 0x40, &(uint16_t[]){ 0x3000, 0 }, 4);
	region.userspace_addr = (uintptr_t)g.mem;
	assert_int_equal(io(g.vm, KVM_SET_USER_MEMORY_REGION, &region), 0);
	g.vcpu = io(g.vm, KVM_CREATE_VCPU, 0);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_X86_DISABLE_EXITS, 2)); /* too late */
	g.run = umbra_mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, g.vcpu, 0);
	guest_set_cpuid(g.sys, g.vcpu);
	assert_int_equal(io(g.vcpu, KVM_GET_SREGS, &sregs), 0);
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	assert_int_equal(io(g.vcpu, KVM_SET_SREGS, &sregs), 0);
	assert_int_equal(io(g.vcpu, KVM_SET_REGS, &regs), 0);

	/* HLT waits in KVM_RUN: for the window that the VMM asks for, ... */
	g.run->request_interrupt_window = 1;
	assert_exit(&g, KVM_EXIT_IRQ_WINDOW_OPEN);
	g.run->request_interrupt_window = 0;
	/* ... and the interrupt. */
	assert_int_equal(io(g.vcpu, KVM_INTERRUPT, &irq), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x80);
	guest_stop(&g);
}

/* ---- attributes ---- */

static void test_attributes(void **state)
{
	static const uint8_t code[] = { 0x0f, 0x31, 0xe6, 0x80 }; /* rdtsc; out %al, $0x80 */
	uint64_t val = 0;
	struct kvm_device_attr a = { .group = 0, .attr = KVM_X86_XCOMP_GUEST_SUPP };
	struct kvm_regs regs;
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(io(g.sys, KVM_CHECK_EXTENSION, KVM_CAP_SYS_ATTRIBUTES), 1);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_VCPU_ATTRIBUTES), 1);
	a.addr = (uintptr_t)&val;
	assert_int_equal(io(g.sys, KVM_HAS_DEVICE_ATTR, &a), 0);
	assert_int_equal(io(g.sys, KVM_GET_DEVICE_ATTR, &a), 0);
	assert_int_equal(val & 3, 3);
	assert_errno(EINVAL, io(g.sys, KVM_SET_DEVICE_ATTR, &a));
	a.addr = 8;
	assert_errno(EFAULT, io(g.sys, KVM_GET_DEVICE_ATTR, &a));
	a.attr = 1;
	assert_errno(ENXIO, io(g.sys, KVM_HAS_DEVICE_ATTR, &a));
	a.attr = 0;
	a.group = 1;
	assert_errno(ENXIO, io(g.sys, KVM_GET_DEVICE_ATTR, &a));

	assert_errno(ENXIO, io(g.vcpu, KVM_HAS_DEVICE_ATTR, &a));
	a = (struct kvm_device_attr){ .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET };
	assert_int_equal(io(g.vcpu, KVM_HAS_DEVICE_ATTR, &a), 0);
	assert_errno(EFAULT, io(g.vcpu, KVM_GET_DEVICE_ATTR, &a));
	assert_errno(EFAULT, io(g.vcpu, KVM_SET_DEVICE_ATTR, &a));
	a.addr = (uintptr_t)&val;
	val = 1ull << 62;
	assert_int_equal(io(g.vcpu, KVM_SET_DEVICE_ATTR, &a), 0);
	val = 0;
	assert_int_equal(io(g.vcpu, KVM_GET_DEVICE_ATTR, &a), 0);
	assert_true(val == 1ull << 62);
	assert_exit(&g, KVM_EXIT_IO);
	regs = guest_regs(&g);
	assert_int_equal(regs.rdx >> 30, 1); /* the offset is in what the guest reads */
	guest_stop(&g);
}

/* ---- limits, quirks ---- */

static void test_vcpu_ids(void **state)
{
	struct guest g;
	int max;

	guest_open_vm(&g, NO_CHIP);
	max = io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPU_ID);
	assert_true(max > 2);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_MAX_VCPU_ID, (uint64_t)max + 1));
	assert_int_equal(enable(g.vm, KVM_CAP_MAX_VCPU_ID, 2), 0);
	assert_int_equal(enable(g.vm, KVM_CAP_MAX_VCPU_ID, 2), 0);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_MAX_VCPU_ID, 3));
	assert_errno(EINVAL, io(g.vm, KVM_CREATE_VCPU, 2));
	g.vcpu = io(g.vm, KVM_CREATE_VCPU, 1);
	assert_true(g.vcpu >= 0);
	umbra_close(g.vcpu);
	umbra_close(g.vm);
	umbra_close(g.sys);
}

static void test_quirks(void **state)
{
	static const uint8_t code[] = {
		0x66, 0x31, 0xc9, /* xor %ecx, %ecx */
		0x0f, 0x01, 0xc8, /* monitor: not in CPUID */
		0xe6, 0x80,	  /* out %al, $0x80 */
		0xeb, 0xf6,	  /* jmp back */
	};
	struct guest g;
	int all;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	all = io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2);
	assert_true(all & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_DISABLE_QUIRKS2, 1ull << 40));
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(enable(g.vm, KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_LAPIC_MMIO_HOLE), 0);
	assert_exit(&g, KVM_EXIT_IO);
	/* Without the quirk it is #UD, whose handler halts. */
	g.mem[6 * 4 + 1] = 0x20;
	g.mem[0x2000] = 0xf4;
	assert_int_equal(enable(g.vm, KVM_CAP_DISABLE_QUIRKS2, all), 0);
	assert_exit(&g, KVM_EXIT_HLT);
	guest_stop(&g);
}

/* ---- what the engine does not do ---- */

static void test_emulation_failure(void **state)
{
	static const uint8_t exception[] = {
		0xb8, 0x00, 0x20, /* mov $0x2000, %ax */
		0x8e, 0xd0,	  /* mov %ax, %ss: where there is no memory */
		0x0f, 0x0b,	  /* ud2 */
	};
	static const uint8_t fetch[] = { 0xea, 0x00, 0x00, 0x00, 0x20 }; /* ljmp $0x2000, $0 */
	struct guest g;

	guest_start(&g, NO_CHIP, exception, sizeof(exception));
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_EXIT_ON_EMULATION_FAILURE), 1);
	assert_errno(EINVAL, enable(g.vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 2));
	assert_int_equal(enable(g.vm, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1), 0);
	assert_exit(&g, KVM_EXIT_INTERNAL_ERROR);
	assert_int_equal(g.run->emulation_failure.suberror, KVM_INTERNAL_ERROR_EMULATION);
	assert_true(g.run->emulation_failure.ndata >= 3);
	assert_int_equal(g.run->emulation_failure.flags,
			 KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
	assert_int_equal(g.run->emulation_failure.insn_size, 15);
	assert_memory_equal(g.run->emulation_failure.insn_bytes, exception + 5, 2);
	guest_stop(&g);

	guest_start(&g, NO_CHIP, fetch, sizeof(fetch));
	assert_exit(&g, KVM_EXIT_INTERNAL_ERROR);
	assert_int_equal(g.run->emulation_failure.flags, 0);
	guest_stop(&g);
}

/* ---- statistics ---- */

static void read_at(int fd, uint64_t at, void *buf, size_t size)
{
	assert_int_equal(pread(fd, buf, size, (off_t)at), size);
}

/* The value of a counter: found by its name. */
static uint64_t statistic(int fd, const char *name, const char *id)
{
	struct kvm_stats_header h;
	struct {
		struct kvm_stats_desc desc;
		char name[64];
	} d;
	char found_id[64];
	uint64_t value = 0;
	bool found = false;

	read_at(fd, 0, &h, sizeof(h));
	assert_int_equal(h.flags, 0);
	assert_true(h.name_size <= sizeof(d.name));
	read_at(fd, h.id_offset, found_id, h.name_size);
	assert_string_equal(found_id, id);
	for (uint32_t i = 0; i < h.num_desc; i++) {
		size_t size = sizeof(d.desc) + h.name_size;

		read_at(fd, h.desc_offset + i * size, &d, size);
		if (strcmp(d.name, name))
			continue;
		assert_int_equal(d.desc.flags, 0); /* cumulative, no unit */
		assert_int_equal(d.desc.size, 1);
		read_at(fd, h.data_offset + d.desc.offset, &value, sizeof(value));
		found = true;
	}
	assert_true(found);
	return value;
}

static void test_statistics(void **state)
{
	static const uint8_t code[] = { 0xe6, 0x80, 0xeb, 0xfc }; /* out %al, $0x80; jmp back */
	struct kvm_irq_level line = { .irq = 3, .level = 1 };
	struct guest g;
	int vcpu_fd, again, vm_fd;
	uint64_t before;
	char id[64];

	guest_start(&g, FULL_CHIP, code, sizeof(code));
	assert_int_equal(io(g.sys, KVM_CHECK_EXTENSION, KVM_CAP_BINARY_STATS_FD), 1);
	assert_exit(&g, KVM_EXIT_IO);
	vcpu_fd = io(g.vcpu, KVM_GET_STATS_FD, 0);
	assert_true(vcpu_fd >= 0);
	snprintf(id, sizeof(id), "kvm-%d/vcpu-0", getpid());
	/* What was counted before somebody asked counts, too. */
	before = statistic(vcpu_fd, "io_exits", id);
	assert_int_equal(before, 1);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(statistic(vcpu_fd, "io_exits", id), before + 1);
	again = io(g.vcpu, KVM_GET_STATS_FD, 0);
	assert_true(again >= 0 && again != vcpu_fd);
	close(vcpu_fd);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(statistic(again, "io_exits", id), before + 2);
	assert_int_equal(write(again, id, 1), -1);
	close(again);

	vm_fd = io(g.vm, KVM_GET_STATS_FD, 0);
	assert_true(vm_fd >= 0);
	snprintf(id, sizeof(id), "kvm-%d", getpid());
	before = statistic(vm_fd, "irq_lines", id);
	assert_int_equal(io(g.vm, KVM_IRQ_LINE, &line), 0);
	assert_int_equal(statistic(vm_fd, "irq_lines", id), before + 1);
	close(vm_fd);
	guest_stop(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manual_dirty_log),
		cmocka_unit_test(test_user_space_msrs),
		cmocka_unit_test(test_msr_filter),
		cmocka_unit_test(test_hlt_without_exit),
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_vcpu_ids),
		cmocka_unit_test(test_quirks),
		cmocka_unit_test(test_statistics),
		cmocka_unit_test(test_emulation_failure),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
