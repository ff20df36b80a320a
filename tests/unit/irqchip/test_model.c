// SPDX-License-Identifier: MIT
/*
 * Random steps.  First a LAPIC and an IOAPIC against a model that is written as plainly as can be;
 * then nonsense from guest and VMM everywhere, which must do no harm.
 */
#include "fixture.h"

#include <string.h>

#define STEPS 100000

static u32 rnd(u32 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* ---- The model: three arrays of booleans and the rules of the SDM ---- */

struct model {
	bool irr[256], isr[256], tmr[256];
	u32 tpr;
};

static int highest(const bool *bits)
{
	for (int i = 255; i >= 0; i--)
		if (bits[i])
			return i;
	return -1;
}

static u32 model_ppr(const struct model *m)
{
	int isr = highest(m->isr);
	u32 isrv = isr < 0 ? 0 : (u32)isr;

	if (m->tpr >> 4 >= isrv >> 4)
		return m->tpr;
	return isrv & 0xf0;
}

static int model_pending(const struct model *m)
{
	int irr = highest(m->irr);

	return irr >= 0 && (u32)irr >> 4 > model_ppr(m) >> 4 ? irr : -1;
}

static void compare(struct cpu *c, const struct model *m)
{
	struct kvm_lapic_state s;
	static const struct {
		u32 reg;
		size_t bits;
	} sets[] = {
		{ 0x100, offsetof(struct model, isr) },
		{ 0x180, offsetof(struct model, tmr) },
		{ 0x200, offsetof(struct model, irr) },
	};

	um_lapic_get_state(c->l, &s);
	for (unsigned i = 0; i < 3; i++) {
		const bool *bits = (const bool *)((const char *)m + sets[i].bits);

		for (u32 v = 0; v < 256; v++) {
			u32 word;

			memcpy(&word, s.regs + sets[i].reg + v / 32 * 16, 4);
			assert_int_equal(word >> (v & 31) & 1, bits[v]);
		}
	}
	assert_int_equal(mmio_read(c, 0xa0), model_ppr(m));
}

static void test_lapic_against_model(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];
	struct model m = { 0 };
	u32 seed = 12345;
	int want, isr;

	for (int step = 0; step < STEPS; step++) {
		u32 r = rnd(&seed), vec = 16 + (r >> 8) % 240;
		bool level = r >> 20 & 1;

		switch (r % 5) {
		case 0:
			assert_int_equal(msi(vm, 0xfee00000, vec | (level ? 0xc000 : 0)),
					 !m.irr[vec]);
			m.irr[vec] = true;
			m.tmr[vec] = level;
			break;
		case 1:
			m.tpr = r >> 24;
			if (level)
				m.tpr &= 0xf0;
			mmio_write(c, 0x80, m.tpr);
			break;
		case 2:
			isr = highest(m.isr);
			if (isr >= 0)
				m.isr[isr] = false;
			eoi(c);
			break;
		default:
			want = model_pending(&m);
			assert_int_equal(um_lapic_has_interrupt(c->l), want >= 0);
			assert_int_equal(um_lapic_ack(c->l), want);
			if (want >= 0) {
				m.irr[want] = false;
				m.isr[want] = true;
			}
		}
		if (step % 64 == 0)
			compare(c, &m);
	}
}

/*
 * Level-triggered pins with vectors of their own: at any time, a pin that is high and unmasked has
 * its request in IRR, in ISR, or its Remote IRR set; and Remote IRR is set only while one of those
 * is.
 */
static void test_ioapic_invariant(void **state)
{
	struct vm *vm = *state;
	struct cpu *c = &vm->cpu[0];
	bool high[8] = { 0 }, masked[8] = { 0 };
	u32 seed = 777;

	for (u32 i = 0; i < 8; i++)
		redir_write(vm, 16 + i, 0x8000 | (0x40 + i * 0x11));
	for (int step = 0; step < STEPS / 4; step++) {
		u32 r = rnd(&seed), i = r >> 8 & 7;

		switch (r % 4) {
		case 0:
			high[i] = r >> 20 & 1;
			line(vm, 16 + i, high[i]);
			break;
		case 1:
			masked[i] = r >> 20 & 1;
			io_write(vm, (u8)(0x10 + 2 * (16 + i)),
				 (masked[i] ? 0x18000 : 0x8000) | (0x40 + i * 0x11));
			break;
		case 2:
			um_lapic_ack(c->l);
			break;
		default:
			eoi(c);
		}
		for (u32 n = 0; n < 8; n++) {
			u32 vec = 0x40 + n * 0x11, reg = vec / 32 * 16;
			bool busy = (mmio_read(c, 0x200 + reg) | mmio_read(c, 0x100 + reg)) >>
					    (vec & 31) &
				    1;
			bool remote = redir_read(vm, 16 + n) & 0x4000;

			assert_int_equal(remote, busy);
			if (high[n] && !masked[n])
				assert_true(remote);
		}
	}
}

/* ---- Nonsense ---- */

static void random_bytes(u32 *seed, void *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((u8 *)p)[i] = rnd(seed) & 3 ? (u8)(rnd(seed) >> 8) : 0;
}

static void guest_step(struct vm *vm, u32 *seed)
{
	static const u16 ports[] = { 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1,
				     0x40, 0x41, 0x42, 0x43, 0x61 };
	u32 r = rnd(seed);
	struct cpu *c = &vm->cpu[r % (u32)vm->ncpus];
	unsigned len = 1u << (r >> 8 & 3);
	u64 data, addr;

	random_bytes(seed, &data, sizeof(data));
	r >>= 12;
	switch (r % 10) {
	case 0:
		addr = (um_lapic_get_base(c->l) & ~0xfffull) + (rnd(seed) & 0xfff);
		um_lapic_mmio_write(c->l, addr, len, &data);
		break;
	case 1:
		addr = (um_lapic_get_base(c->l) & ~0xfffull) + (rnd(seed) & 0x3f0);
		um_lapic_mmio_write(c->l, addr, 4, &data);
		break;
	case 2:
		addr = (um_lapic_get_base(c->l) & ~0xfffull) + (rnd(seed) & 0xfff);
		um_lapic_mmio_read(c->l, addr, len, &data);
		break;
	case 3:
		um_lapic_msr_write(c->l, 0x800 + (rnd(seed) & 0x3f), data & 0xffffffff);
		um_lapic_msr_read(c->l, 0x800 + (rnd(seed) & 0x3f), &data);
		break;
	case 4:
		um_irqchip_mmio_write(vm->chip, UM_IOAPIC_BASE + (rnd(seed) & 1) * 16, len, &data);
		um_irqchip_mmio_read(vm->chip, UM_IOAPIC_BASE + (rnd(seed) & 0x1f), len, &data);
		break;
	case 5:
		um_irqchip_pio_write(vm->chip, ports[rnd(seed) % 11], len > 4 ? 4 : len, &data);
		um_irqchip_pio_read(vm->chip, ports[rnd(seed) % 11], len > 4 ? 4 : len, &data);
		break;
	case 6:
		um_lapic_set_base(c->l, UM_LAPIC_BASE | (data & 0xf00), rnd(seed) & 1);
		break;
	case 7:
		um_lapic_set_tsc_deadline(c->l, data);
		um_lapic_pv_eoi_enter(c->l);
		c->flag &= (u8)data;
		break;
	case 8:
		um_lapic_set_pv_eoi(c->l, PV_FLAG | (data & 1));
		um_lapic_reset(c->l, data & 6);
		break;
	default:
		um_irqchip_set_irq(vm->chip, (enum um_irq_source)(r >> 8 & 3), rnd(seed) % 32,
				   (int)(data & 1));
	}
	/* What is said to be there can be had, and then there is less of it. */
	for (int i = 0; i < 400 && um_lapic_has_interrupt(c->l); i++)
		if (um_lapic_ack(c->l) >= 0 && rnd(seed) & 1)
			um_lapic_mmio_write(c->l, UM_LAPIC_BASE + 0xb0, 4, "\0\0\0\0");
	um_lapic_take_ioapic_eoi(c->l);
}

static void vmm_step(struct vm *vm, u32 *seed)
{
	struct kvm_irqchip chip;
	struct kvm_lapic_state lapic;
	struct kvm_irq_routing_entry e[4];
	struct kvm_msi m;

	switch (rnd(seed) % 4) {
	case 0:
		random_bytes(seed, &chip, sizeof(chip));
		chip.chip_id = rnd(seed) % 4;
		um_irqchip_set_state(vm->chip, &chip);
		break;
	case 1:
		random_bytes(seed, &lapic, sizeof(lapic));
		um_lapic_set_state(vm->cpu[rnd(seed) % (u32)vm->ncpus].l, &lapic);
		break;
	case 2:
		random_bytes(seed, e, sizeof(e));
		for (int i = 0; i < 4; i++) {
			e[i].gsi &= 0x1f;
			e[i].type &= 3;
			e[i].flags = 0;
		}
		um_irqchip_set_routing(vm->chip, e, rnd(seed) % 5, 0);
		break;
	default:
		random_bytes(seed, &m, sizeof(m));
		m.flags = 0;
		um_irqchip_send_msi(vm->chip, &m);
	}
}

static void nonsense(struct vm *vm)
{
	u32 seed = 4242;

	for (int step = 0; step < STEPS / 2; step++) {
		guest_step(vm, &seed);
		if (step % 50 == 0)
			vmm_step(vm, &seed);
	}
	/* Quiet what may still ring, and see that it all works. */
	if (!um_irqchip_is_split(vm->chip)) {
		outb(vm, 0x43, 0x30);
		for (unsigned pin = 0; pin < 24; pin++)
			redir_write(vm, pin, 0x10000);
	}
	for (int i = 0; i < vm->ncpus; i++) {
		struct cpu *c = &vm->cpu[i];

		um_lapic_reset(c->l, false);
		mmio_write(c, 0x350, 0x10000);
		mmio_write(c, 0xf0, 0x1ff);
		mmio_write(c, 0x300, 0x44000 | 0x99);
		assert_int_equal(take(c), 0x99);
		assert_int_equal(take(c), -1);
	}
}

static void test_nonsense(void **state)
{
	struct vm *vm = vm_create(3, false);

	nonsense(vm);
	vm_destroy(vm);
}

static void test_nonsense_split(void **state)
{
	struct vm *vm = vm_create(3, true);

	nonsense(vm);
	vm_destroy(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lapic_against_model, setup1, teardown),
		cmocka_unit_test_setup_teardown(test_ioapic_invariant, setup1, teardown),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_nonsense_split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
