// SPDX-License-Identifier: MIT
/* The local APIC: priorities, EOI, the two register interfaces, modes, PV EOI, state. */
#include "fixture.h"

#include <errno.h>
#include <string.h>

#define MSI_TO(id) (0xfee00000u | (id) << 12)

static void test_reset_values(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[1];

	um_lapic_reset(c->l, false);
	assert_int_equal(um_lapic_get_base(c->l), 0xfee00800);
	assert_int_equal(um_lapic_get_base(vm->cpu[0].l), 0xfee00900);
	assert_int_equal(mmio_read(c, 0x20), 1 << 24);
	assert_int_equal(um_lapic_id(c->l), 1);
	assert_int_equal(mmio_read(c, 0x30), 0x50014);
	assert_int_equal(mmio_read(c, 0xe0), 0xffffffff);
	assert_int_equal(mmio_read(c, 0xd0), 0);
	assert_int_equal(mmio_read(c, 0xf0), 0xff);
	for (u32 reg = 0x320; reg <= 0x370; reg += 0x10)
		assert_int_equal(mmio_read(c, reg), 0x10000);
	for (u32 reg = 0x100; reg < 0x280; reg += 0x10)
		assert_int_equal(mmio_read(c, reg), 0);
	assert_int_equal(mmio_read(c, 0x80) | mmio_read(c, 0xa0) | mmio_read(c, 0x280), 0);
	/* LINT0 of the boot CPU, with and without the quirk. */
	um_lapic_reset(vm->cpu[0].l, false);
	assert_int_equal(mmio_read(&vm->cpu[0], 0x350), 0x700);
	um_irqchip_disable_quirks(vm->chip, KVM_X86_QUIRK_LINT0_REENABLED);
	um_lapic_reset(vm->cpu[0].l, false);
	assert_int_equal(mmio_read(&vm->cpu[0], 0x350), 0x10000);
}

static void test_init_keeps_mode(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[1];

	enter_x2apic(c);
	msr_write(c, 0x808, 0x50);
	msi(vm, MSI_TO(1), 0x61);
	um_lapic_reset(c->l, true);
	assert_int_equal(um_lapic_get_base(c->l), 0xfee00c00);
	assert_int_equal(msr_read(c, 0x802), 1);
	assert_int_equal(msr_read(c, 0x80d), 2);
	assert_int_equal(msr_read(c, 0x808), 0);
	assert_int_equal(msr_read(c, 0x80f), 0xff);
	assert_false(um_lapic_has_interrupt(c->l));
}

static void test_priorities(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];

	msi(vm, MSI_TO(0), 0x41);
	msi(vm, MSI_TO(0), 0x83);
	msi(vm, MSI_TO(0), 0x85);
	assert_int_equal(um_lapic_ack(c->l), 0x85);
	/* Same class: waits. */
	assert_false(um_lapic_has_interrupt(c->l));
	assert_int_equal(mmio_read(c, 0xa0), 0x80);
	/* Higher class: nests. */
	msi(vm, MSI_TO(0), 0x90);
	assert_int_equal(um_lapic_ack(c->l), 0x90);
	assert_int_equal(mmio_read(c, 0xa0), 0x90);
	eoi(c);
	assert_int_equal(mmio_read(c, 0xa0), 0x80);
	assert_int_equal(um_lapic_ack(c->l), -1);
	eoi(c);
	assert_int_equal(take(c), 0x83);
	assert_int_equal(take(c), 0x41);
	assert_int_equal(take(c), -1);
	eoi(c); /* with nothing in service: nothing */
	assert_int_equal(mmio_read(c, 0xa0), 0);
}

/* Who asked for interrupts: its own timer, or others, too? */
static void test_heard(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];

	um_lapic_heard(c->l);
	mmio_write(c, 0x320, 0x41);
	mmio_write(c, 0x350, 0x51);
	assert_true(um_lapic_local_deliver(c->l, UM_LVT_TIMER));
	assert_int_equal(take(c), 0x41);
	assert_false(um_lapic_heard(c->l));
	/* The timer's vector, but not from the timer. */
	msi(vm, MSI_TO(0), 0x41);
	assert_int_equal(take(c), 0x41);
	assert_true(um_lapic_heard(c->l));
	assert_false(um_lapic_heard(c->l));
	/* Before the timer, and not delivered yet. */
	assert_true(um_lapic_fixed(c->l, 0x31) > 0);
	assert_true(um_lapic_local_deliver(c->l, UM_LVT_TIMER));
	assert_int_equal(take(c), 0x41);
	assert_true(um_lapic_heard(c->l));
	assert_int_equal(take(c), 0x31);
	assert_true(um_lapic_local_deliver(c->l, UM_LVT_LINT0));
	assert_int_equal(take(c), 0x51);
	assert_true(um_lapic_heard(c->l));
}

static void test_tpr_and_cr8(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];
	int kicks;

	mmio_write(c, 0x80, 0x45);
	assert_int_equal(um_lapic_get_cr8(c->l), 4);
	assert_int_equal(mmio_read(c, 0xa0), 0x45);
	kicks = c->kicks;
	msi(vm, MSI_TO(0), 0x4f);
	assert_false(um_lapic_has_interrupt(c->l));
	assert_int_equal(c->kicks, kicks); /* no reason to disturb */
	msi(vm, MSI_TO(0), 0x50);
	assert_true(c->kicks > kicks);
	assert_int_equal(take(c), 0x50);
	um_lapic_set_cr8(c->l, 3);
	assert_int_equal(mmio_read(c, 0x80), 0x30);
	assert_true(um_lapic_has_interrupt(c->l));
	um_lapic_set_cr8(c->l, 15);
	assert_int_equal(um_lapic_ack(c->l), -1);
	um_lapic_set_cr8(c->l, 0);
	/* The sub-class of TPR shows in PPR only when TPR decides. */
	assert_int_equal(um_lapic_ack(c->l), 0x4f);
	mmio_write(c, 0x80, 0x3f);
	assert_int_equal(mmio_read(c, 0xa0), 0x40);
}

static void test_irr_isr_tmr(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];

	msi(vm, MSI_TO(0), 0xc000 | 0x61); /* level */
	assert_int_equal(mmio_read(c, 0x230), 2);
	assert_int_equal(mmio_read(c, 0x1b0), 2);
	assert_int_equal(um_lapic_ack(c->l), 0x61);
	assert_int_equal(mmio_read(c, 0x230), 0);
	assert_int_equal(mmio_read(c, 0x130), 2);
	/* The same vector once more while in service: pending, and now an edge. */
	assert_int_equal(msi(vm, MSI_TO(0), 0x61), 1);
	assert_int_equal(msi(vm, MSI_TO(0), 0x61), 0);
	assert_int_equal(mmio_read(c, 0x1b0), 0);
	eoi(c);
	assert_int_equal(take(c), 0x61);
	assert_int_equal(take(c), -1);
}

static void test_software_disable(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];

	mmio_write(c, 0x320, 0x61);
	mmio_write(c, 0x370, 0x62);
	msi(vm, MSI_TO(0), 0x71);
	mmio_write(c, 0xf0, 0x0ff);
	for (u32 reg = 0x320; reg <= 0x370; reg += 0x10)
		assert_int_equal(mmio_read(c, reg) & 0x10000, 0x10000);
	mmio_write(c, 0x320, 0x61);
	assert_int_equal(mmio_read(c, 0x320), 0x10061);
	/* What was pending is held; new requests are refused, but not NMI. */
	assert_int_equal(msi(vm, MSI_TO(0), 0x72), 0);
	assert_int_equal(msi(vm, MSI_TO(0), 0x400), 1);
	assert_int_equal(c->nmis, 1);
	assert_int_equal(take(c), 0x71);
	assert_int_equal(take(c), -1);
	mmio_write(c, 0xf0, 0x1ff);
	assert_int_equal(mmio_read(c, 0x320), 0x10061);
}

static void test_errors(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];

	mmio_write(c, 0x370, 0xf1);
	assert_int_equal(msi(vm, MSI_TO(0), 0x0f), 0);
	assert_int_equal(mmio_read(c, 0x280), 0); /* not latched yet */
	assert_int_equal(take(c), 0xf1);
	mmio_write(c, 0x280, 0);
	assert_int_equal(mmio_read(c, 0x280), 0x40);
	mmio_write(c, 0x280, 0);
	assert_int_equal(mmio_read(c, 0x280), 0);
	/* An IPI with such a vector is not sent. */
	mmio_write(c, 0x310, 1 << 24);
	mmio_write(c, 0x300, 0x05);
	mmio_write(c, 0x280, 0);
	assert_int_equal(mmio_read(c, 0x280), 0x20);
	mmio_write(&vm->cpu[1], 0x280, 0);
	assert_int_equal(mmio_read(&vm->cpu[1], 0x280), 0);
	assert_int_equal(take(c), 0xf1);
	/* A register that is not there. */
	assert_int_equal(mmio_read(c, 0x40), 0);
	mmio_write(c, 0x2f0, 0x55);
	mmio_write(c, 0x280, 0);
	assert_int_equal(mmio_read(c, 0x280), 0x80);
	assert_int_equal(take(c), 0xf1);
	/* The error entry itself with an illegal vector does not run in circles. */
	mmio_write(c, 0x370, 0x03);
	msi(vm, MSI_TO(0), 0x0f);
	mmio_write(c, 0x280, 0);
	assert_int_equal(mmio_read(c, 0x280), 0x40);
	assert_int_equal(take(c), -1);
}

static void test_local_sources(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];

	assert_false(um_lapic_local_deliver(c->l, UM_LVT_PERF));
	mmio_write(c, 0x340, 0x00400);
	assert_true(um_lapic_local_deliver(c->l, UM_LVT_PERF));
	assert_int_equal(c->nmis, 1);
	/* It masked itself. */
	assert_false(um_lapic_local_deliver(c->l, UM_LVT_PERF));
	assert_int_equal(mmio_read(c, 0x340), 0x10400);
	mmio_write(c, 0x330, 0x91);
	assert_true(um_lapic_local_deliver(c->l, UM_LVT_THERMAL));
	assert_int_equal(take(c), 0x91);
	mmio_write(c, 0x360, 0x200);
	assert_true(um_lapic_local_deliver(c->l, UM_LVT_LINT1));
	assert_int_equal(c->smis, 1);
	mmio_write(c, 0x360, 0x400);
	assert_true(um_lapic_local_deliver(c->l, UM_LVT_LINT1));
	assert_int_equal(c->nmis, 2);
	mmio_write(c, 0x360, 0x10400);
	assert_false(um_lapic_local_deliver(c->l, UM_LVT_LINT1));
	assert_false(um_lapic_local_deliver(c->l, 0x300));
}

static void test_mmio_widths(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];
	u8 buf[8];

	mmio_write(c, 0xd0, 0xa5000000);
	assert_true(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + 0xd3, 1, buf));
	assert_int_equal(buf[0], 0xa5);
	assert_true(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + 0xd2, 2, buf));
	assert_memory_equal(buf, "\0\xa5", 2);
	assert_true(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + 0xd4, 4, buf));
	assert_memory_equal(buf, "\0\0\0\0", 4);
	assert_true(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + 0xd0, 8, buf));
	/* Writes count only if aligned and 32 bits wide. */
	assert_true(um_lapic_mmio_write(c->l, UM_LAPIC_BASE + 0xd3, 1, "\x11"));
	assert_true(um_lapic_mmio_write(c->l, UM_LAPIC_BASE + 0xd0, 8, "\1\1\1\1\1\1\1\1"));
	assert_true(um_lapic_mmio_write(c->l, UM_LAPIC_BASE + 0xd4, 4, "\1\1\1\1"));
	assert_int_equal(mmio_read(c, 0xd0), 0xa5000000);
	assert_false(um_lapic_mmio_read(c->l, UM_LAPIC_BASE - 4, 4, buf));
	assert_false(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + 0x1000, 4, buf));
	/* Every offset of the page, also those beyond the registers, is safe. */
	for (u32 off = 0; off < 0x1000; off += 4) {
		assert_true(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + off, 4, buf));
		if (off != 0x300)
			assert_true(um_lapic_mmio_write(c->l, UM_LAPIC_BASE + off, 4, buf));
	}
}

static void test_relocation(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];
	u32 val;

	assert_true(um_lapic_set_base(c->l, 0xfed00900, false));
	assert_false(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + 0x30, 4, &val));
	assert_true(um_lapic_mmio_read(c->l, 0xfed00030, 4, &val));
	assert_int_equal(val, 0x50014);
}

/* IA32_APIC_BASE: from each mode to each, by the guest and by the host. */
static void test_mode_transitions(void **state)
{
	static const u64 mode[] = { 0x000, 0x800, 0xc00 };
	static const bool legal[3][3] = {
		{ true, true, false },
		{ true, true, true },
		{ true, false, true },
	};
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[1];

	for (int from = 0; from < 3; from++) {
		for (int to = 0; to < 3; to++) {
			assert_true(um_lapic_set_base(c->l, UM_LAPIC_BASE | mode[from], true));
			assert_int_equal(um_lapic_set_base(c->l, UM_LAPIC_BASE | mode[to], false),
					 legal[from][to]);
			assert_int_equal(um_lapic_get_base(c->l),
					 UM_LAPIC_BASE | mode[legal[from][to] ? to : from]);
		}
		assert_false(um_lapic_set_base(c->l, UM_LAPIC_BASE | 0x400, false));
		assert_false(um_lapic_set_base(c->l, UM_LAPIC_BASE | 0x400, true));
	}
	for (int bit = 0; bit < 64; bit++) {
		bool reserved = bit < 8 || bit == 9 || bit >= 40;
		u64 val = (1ull << bit) | 0x800;

		um_lapic_set_cpuid(c->l, true, true, 40);
		assert_true(um_lapic_set_base(c->l, UM_LAPIC_BASE | 0x800, true));
		assert_int_equal(um_lapic_set_base(c->l, val, true), !reserved);
	}
	um_lapic_set_cpuid(c->l, false, true, 40);
	assert_true(um_lapic_set_base(c->l, UM_LAPIC_BASE | 0x800, true));
	assert_false(um_lapic_set_base(c->l, UM_LAPIC_BASE | 0xc00, true));
}

static void test_mmio_hole(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];
	u32 val = 0;

	enter_x2apic(c);
	assert_true(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + 0x30, 4, &val));
	assert_int_equal(val, 0xffffffff);
	assert_true(um_lapic_mmio_write(c->l, UM_LAPIC_BASE + 0x80, 4, &val));
	assert_int_equal(msr_read(c, 0x808), 0);
	um_irqchip_disable_quirks(vm->chip, KVM_X86_QUIRK_LAPIC_MMIO_HOLE);
	assert_false(um_lapic_mmio_read(c->l, UM_LAPIC_BASE + 0x30, 4, &val));
	assert_false(um_lapic_mmio_write(c->l, UM_LAPIC_BASE + 0x80, 4, &val));
}

/* Which x2APIC MSRs can be read and written, all 256 of them (SDM, table of the x2APIC MSRs). */
static void test_x2apic_msrs(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];
	static const u8 ro[] = { 0x02, 0x03, 0x0a, 0x0d, 0x39 };
	static const u8 rw[] = { 0x08, 0x0f, 0x28, 0x30, 0x32, 0x33,
				 0x34, 0x35, 0x36, 0x37, 0x38, 0x3e };
	bool can_read[256] = { 0 }, can_write[256] = { 0 };
	u64 val;

	assert_false(um_lapic_msr_read(c->l, 0x802, &val)); /* not in that mode */
	assert_false(um_lapic_msr_write(c->l, 0x808, 0));
	enter_x2apic(c);
	for (unsigned i = 0; i < sizeof(ro); i++)
		can_read[ro[i]] = true;
	for (unsigned i = 0; i < sizeof(rw); i++)
		can_read[rw[i]] = can_write[rw[i]] = true;
	for (unsigned i = 0x10; i < 0x28; i++)
		can_read[i] = true;
	can_write[0x0b] = can_write[0x3f] = true;
	for (u32 i = 0; i < 256; i++) {
		assert_int_equal(um_lapic_msr_read(c->l, 0x800 + i, &val), can_read[i]);
		assert_int_equal(um_lapic_msr_write(c->l, 0x800 + i, 0), can_write[i]);
		/* Bits 63:32 are reserved but in ICR. */
		assert_int_equal(um_lapic_msr_write(c->l, 0x800 + i, 1ull << 32), i == 0x30);
	}
	assert_false(um_lapic_msr_write(c->l, 0x80b, 1));
	assert_false(um_lapic_msr_write(c->l, 0x828, 1));
	assert_false(um_lapic_msr_write(c->l, 0x83f, 0x100));
	assert_false(um_lapic_msr_read(c->l, 0x7ff, &val));
	assert_false(um_lapic_msr_read(c->l, 0x900, &val));
	assert_int_equal(msr_read(c, 0x803), 0x50014);
}

static void test_x2apic_ids(void **state)
{
	struct vm *vm = *state;
	struct cpu big = { 0 };

	assert_int_equal(um_lapic_create(&big.l, vm->chip, 0x123, false, &fixture_ops, &big), 0);
	assert_int_equal(um_lapic_id(big.l), 0x23);
	enter_x2apic(&big);
	assert_int_equal(msr_read(&big, 0x802), 0x123);
	assert_int_equal(msr_read(&big, 0x80d), 0x12 << 16 | 1 << 3);
	msr_write(&big, 0x80f, 0x1ff);
	assert_ptr_equal(um_irqchip_find_lapic(vm->chip, 0x123), big.l);
	assert_ptr_equal(um_lapic_vcpu(big.l), &big);
	assert_null(um_irqchip_find_lapic(vm->chip, 0x55));
	um_lapic_destroy(big.l);
	assert_null(um_irqchip_find_lapic(vm->chip, 0x123));
	assert_int_equal(um_lapic_create(&big.l, vm->chip, 4096, false, &fixture_ops, &big),
			 -EINVAL);
	assert_int_equal(um_lapic_create(&big.l, vm->chip, 1, false, &fixture_ops, &big), -EEXIST);
}

static void test_xapic_id_is_writable(void **state)
{
	struct vm *vm = *state;

	mmio_write(&vm->cpu[1], 0x20, 0x07ffffff);
	assert_int_equal(mmio_read(&vm->cpu[1], 0x20), 0x07000000);
	assert_int_equal(msi(vm, MSI_TO(1), 0x61), -EPERM);
	assert_int_equal(msi(vm, MSI_TO(7), 0x61), 1);
	assert_int_equal(take(&vm->cpu[1]), 0x61);
	/* x2APIC goes back to the number it was made with. */
	enter_x2apic(&vm->cpu[1]);
	assert_int_equal(msr_read(&vm->cpu[1], 0x802), 1);
}

static void test_pv_eoi(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];

	assert_false(um_lapic_set_pv_eoi(c->l, PV_FLAG | 3));
	assert_true(um_lapic_set_pv_eoi(c->l, PV_FLAG | 1));
	assert_int_equal(um_lapic_get_pv_eoi(c->l), PV_FLAG | 1);
	um_lapic_pv_eoi_enter(c->l);
	assert_int_equal(c->flag, 0); /* nothing in service */

	/* Taken: the guest clears the flag, ISR follows. */
	msi(vm, MSI_TO(0), 0x61);
	assert_int_equal(um_lapic_ack(c->l), 0x61);
	um_lapic_pv_eoi_enter(c->l);
	assert_int_equal(c->flag, 1);
	c->flag = 0;
	um_lapic_pv_eoi_exit(c->l);
	assert_int_equal(mmio_read(c, 0x130), 0);

	/* Not taken: withdrawn. */
	msi(vm, MSI_TO(0), 0x61);
	assert_int_equal(um_lapic_ack(c->l), 0x61);
	um_lapic_pv_eoi_enter(c->l);
	um_lapic_pv_eoi_exit(c->l);
	assert_int_equal(c->flag, 0);
	assert_int_equal(mmio_read(c, 0x130), 2);

	/* Taken, then a request of the same class: it kicks, and is delivered. */
	um_lapic_pv_eoi_enter(c->l);
	c->flag = 0;
	c->kicks = 0;
	msi(vm, MSI_TO(0), 0x60);
	assert_int_equal(c->kicks, 1);
	assert_true(um_lapic_has_interrupt(c->l));
	assert_int_equal(um_lapic_ack(c->l), 0x60);

	/* Not taken, and such a request: nothing to deliver, and the EOI is made by register. */
	um_lapic_pv_eoi_enter(c->l);
	assert_int_equal(c->flag, 1);
	msi(vm, MSI_TO(0), 0x61);
	assert_int_equal(um_lapic_ack(c->l), -1);
	assert_false(um_lapic_has_interrupt(c->l));
	assert_int_equal(c->flag, 0);
	um_lapic_pv_eoi_enter(c->l); /* another one waits for the EOI: no offer */
	assert_int_equal(c->flag, 0);
	eoi(c);
	assert_int_equal(take(c), 0x61);

	/* An EOI by register while the offer stands ends one interrupt, not two. */
	msi(vm, MSI_TO(0), 0x61);
	assert_int_equal(um_lapic_ack(c->l), 0x61);
	msi(vm, MSI_TO(0), 0x81);
	assert_int_equal(um_lapic_ack(c->l), 0x81);
	um_lapic_pv_eoi_enter(c->l);
	assert_int_equal(c->flag, 1);
	eoi(c);
	assert_int_equal(mmio_read(c, 0x130), 2);
	assert_int_equal(mmio_read(c, 0x140), 0);
	eoi(c);

	/* Level-triggered ones need the broadcast. */
	redir_write(vm, 20, 0x8061);
	line(vm, 20, 1);
	assert_int_equal(um_lapic_ack(c->l), 0x61);
	um_lapic_pv_eoi_enter(c->l);
	assert_int_equal(c->flag, 0);
	line(vm, 20, 0);
	eoi(c);

	/* A flag that is not in memory. */
	assert_true(um_lapic_set_pv_eoi(c->l, 0x99999000 | 1));
	msi(vm, MSI_TO(0), 0x71);
	assert_int_equal(um_lapic_ack(c->l), 0x71);
	um_lapic_pv_eoi_enter(c->l);
	um_lapic_pv_eoi_exit(c->l);
	assert_int_equal(mmio_read(c, 0x130), 0x20000);
}

static void test_state(void **state)
{
	struct vm *vm = *state, *other = vm_create(2, false);
	struct cpu *c = &vm->cpu[1], *d = &other->cpu[1];
	struct kvm_lapic_state s, back;

	mmio_write(c, 0x80, 0x20);
	mmio_write(c, 0xd0, 0x02000000);
	mmio_write(c, 0x350, 0x18700);
	msi(vm, MSI_TO(1), 0x61);
	msi(vm, MSI_TO(1), 0xc0a1);
	assert_int_equal(um_lapic_ack(c->l), 0xa1);
	msi(vm, MSI_TO(1), 0xb1);
	um_lapic_get_state(c->l, &s);
	assert_int_equal(um_lapic_set_state(d->l, &s), 0);
	um_lapic_get_state(d->l, &back);
	assert_memory_equal(&s, &back, sizeof(s));
	assert_true(d->kicks > 0);
	assert_int_equal(take(d), 0xb1);
	assert_int_equal(um_lapic_ack(d->l), -1);
	eoi(d);
	assert_int_equal(take(d), 0x61);

	/* The state after reset, in which LINT0 of a disabled LAPIC is open. */
	um_lapic_reset(vm->cpu[0].l, false);
	um_lapic_get_state(vm->cpu[0].l, &s);
	assert_int_equal(um_lapic_set_state(other->cpu[0].l, &s), 0);
	um_lapic_get_state(other->cpu[0].l, &back);
	assert_memory_equal(&s, &back, sizeof(s));
	assert_true(um_lapic_accepts_extint(other->cpu[0].l));

	/* x2APIC: the id in the old place, or all of it. */
	enter_x2apic(c);
	enter_x2apic(d);
	msr_write(c, 0x830, 0x1234567800044000ull);
	um_lapic_get_state(c->l, &s);
	assert_memory_equal(s.regs + 0x20, "\0\0\0\1", 4);
	assert_memory_equal(s.regs + 0x310, "\x78\x56\x34\x12", 4);
	memset(s.regs + 0xd0, 0, 4); /* the logical id follows from the id */
	assert_int_equal(um_lapic_set_state(d->l, &s), 0);
	assert_int_equal(msr_read(d, 0x80d), 2);
	assert_int_equal(msr_read(d, 0x830), 0x1234567800044000ull);
	assert_int_equal(um_irqchip_set_x2apic_api(vm->chip, KVM_X2APIC_API_USE_32BIT_IDS), 0);
	assert_int_equal(um_irqchip_set_x2apic_api(vm->chip, 4), -EINVAL);
	assert_int_equal(um_lapic_set_state(c->l, &s), -EINVAL);
	um_lapic_get_state(c->l, &s);
	assert_memory_equal(s.regs + 0x20, "\1\0\0\0", 4);
	assert_int_equal(um_lapic_set_state(c->l, &s), 0);
	vm_destroy(other);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup2, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_reset_values),	  T(test_init_keeps_mode),
		T(test_priorities),	  T(test_heard),
		T(test_tpr_and_cr8),	  T(test_irr_isr_tmr),
		T(test_software_disable), T(test_errors),
		T(test_local_sources),	  T(test_mmio_widths),
		T(test_relocation),	  T(test_mode_transitions),
		T(test_mmio_hole),	  T(test_x2apic_msrs),
		T(test_x2apic_ids),	  T(test_xapic_id_is_writable),
		T(test_pv_eoi),		  T(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
