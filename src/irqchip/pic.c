// SPDX-License-Identifier: MIT
/*
 * The pair of 8259A interrupt controllers of a PC, and the ELCR that makes pins level-triggered
 * (Intel 8259A datasheet; the names ICW and OCW are its own).
 *
 * The state is KVM's struct kvm_pic_state.  `irr` holds requests: an edge stays until it is
 * acknowledged, a level follows the pin.  `last_irr` is the pin as last seen.  The slave's INT
 * output is pin 2 of the master, as a level; nobody else can drive that pin.
 */
#include "irqchip/internal.h"

#define CASCADE 2
#define NONE	8 /* a priority below all */

static struct kvm_pic_state *master(struct um_irqchip *chip)
{
	return &chip->pic.s[0];
}

static struct kvm_pic_state *slave(struct um_irqchip *chip)
{
	return &chip->pic.s[1];
}

/* 0 for the most urgent of @mask's pins under the present rotation, up to 7; NONE if there is none.
 */
static int top_priority(const struct kvm_pic_state *s, u8 mask)
{
	for (int prio = 0; prio < 8; prio++)
		if (mask >> ((prio + s->priority_add) & 7) & 1)
			return prio;
	return NONE;
}

static int pin_of(const struct kvm_pic_state *s, int prio)
{
	return (prio + s->priority_add) & 7;
}

/* The pin for which this controller raises INT, or -1: fully nested, unless told otherwise. */
static int pending_pin(struct um_irqchip *chip, const struct kvm_pic_state *s)
{
	int want = top_priority(s, s->irr & ~s->imr);
	u8 busy = s->isr;

	/* Special mask mode: a masked pin in service holds nobody back. */
	if (s->special_mask)
		busy &= ~s->imr;
	/* Special fully nested mode: the slave sorts out its own pins. */
	if (s->special_fully_nested_mode && s == master(chip))
		busy &= (u8)~BIT(CASCADE);
	return want < top_priority(s, busy) ? pin_of(s, want) : -1;
}

static void kick_extint_targets(struct um_irqchip *chip)
{
	struct um_lapic *l;

	for_each_lapic(chip, id, l)
	{
		pthread_mutex_lock(&l->lock);
		if (!l->dead && l->accepts_pic)
			l->ops->kick(l->vcpu);
		pthread_mutex_unlock(&l->lock);
	}
}

static void update(struct um_irqchip *chip)
{
	struct kvm_pic_state *m = master(chip);
	bool was = chip->pic.output, now;

	if (pending_pin(chip, slave(chip)) >= 0)
		m->irr |= (u8)BIT(CASCADE);
	else
		m->irr &= (u8)~BIT(CASCADE);
	now = pending_pin(chip, m) >= 0;
	__atomic_store_n(&chip->pic.output, now, __ATOMIC_SEQ_CST);
	if (now && !was)
		kick_extint_targets(chip);
}

static void acked(struct um_irqchip *chip, const struct kvm_pic_state *s, int pin)
{
	chip_pin_acked(chip, s == master(chip) ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
		       (unsigned)pin);
}

static void end_service(struct um_irqchip *chip, struct kvm_pic_state *s, int pin)
{
	s->isr &= (u8)~BIT(pin);
	acked(chip, s, pin);
}

/* The INTA cycle, or the read that takes its place in poll mode. */
static void accept_pin(struct um_irqchip *chip, struct kvm_pic_state *s, int pin)
{
	s->isr |= (u8)BIT(pin);
	if (!(s->elcr >> pin & 1))
		s->irr &= (u8)~BIT(pin);
	if (s->auto_eoi) {
		if (s->rotate_on_auto_eoi)
			s->priority_add = (pin + 1) & 7;
		end_service(chip, s, pin);
	}
}

int pic_ack(struct um_irqchip *chip)
{
	struct kvm_pic_state *s = master(chip);
	int pin = pending_pin(chip, s);

	if (pin < 0)
		return -1;
	accept_pin(chip, s, pin);
	if (pin == CASCADE) {
		s = slave(chip);
		pin = pending_pin(chip, s);
		if (pin >= 0)
			accept_pin(chip, s, pin);
		else
			pin = 7; /* the default vector when a request has gone */
	}
	update(chip);
	um_trace(chip->trace, irq, "pic: ack %s pin %d vector 0x%x",
		 s == master(chip) ? "master" : "slave", pin, (s->irq_base + pin) & 0xff);
	return (s->irq_base + pin) & 0xff;
}

int pic_set_line(struct um_irqchip *chip, unsigned pin, bool level)
{
	struct kvm_pic_state *s = &chip->pic.s[pin >> 3];
	u8 bit = (u8)BIT(pin & 7);
	int ret = 1;

	if (pin == CASCADE)
		return -1;
	if (s->elcr & bit) {
		if (level) {
			ret = !(s->irr & bit);
			s->irr |= bit;
		} else {
			s->irr &= ~bit;
		}
	} else if (level && !(s->last_irr & bit)) {
		ret = !(s->irr & bit);
		s->irr |= bit;
	}
	if (level)
		s->last_irr |= bit;
	else
		s->last_irr &= ~bit;
	update(chip);
	return s->imr & bit ? -1 : ret;
}

/* ---- Ports ---- */

bool pic_has_port(u16 port)
{
	switch (port) {
	case 0x20:
	case 0x21:
	case 0xa0:
	case 0xa1:
	case 0x4d0:
	case 0x4d1:
		return true;
	}
	return false;
}

static void notify_masks(struct um_irqchip *chip, const struct kvm_pic_state *s, u8 old)
{
	unsigned which = s == master(chip) ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;

	for (unsigned pin = 0; pin < 8; pin++)
		if ((old ^ s->imr) >> pin & 1)
			chip_pin_mask(chip, which, pin, s->imr >> pin & 1);
}

/* ICW1: edges seen before are forgotten, levels stand; priorities and modes as after power-on. */
static void start_init(struct um_irqchip *chip, struct kvm_pic_state *s, u8 icw1)
{
	u8 mask = s->imr;

	s->init4 = icw1 & 1;
	s->last_irr = 0;
	s->irr &= s->elcr;
	s->imr = 0;
	s->isr = 0;
	s->priority_add = 0;
	s->special_mask = 0;
	s->read_reg_select = 0;
	s->poll = 0;
	if (!s->init4) {
		s->special_fully_nested_mode = 0;
		s->auto_eoi = 0;
	}
	s->rotate_on_auto_eoi = 0;
	s->init_state = 1;
	notify_masks(chip, s, mask);
}

static void write_ocw2(struct um_irqchip *chip, struct kvm_pic_state *s, u8 val)
{
	bool rotate = val & 0x80, specific = val & 0x40, eoi = val & 0x20;
	int pin = val & 7, prio;

	if (!eoi) {
		if (!specific)
			s->rotate_on_auto_eoi = rotate;
		else if (rotate)
			s->priority_add = (pin + 1) & 7; /* set priority */
		return;
	}
	if (!specific) {
		/* In special mask mode a masked pin is passed over. */
		prio = top_priority(s, s->special_mask ? s->isr & ~s->imr : s->isr);
		if (prio == NONE)
			return;
		pin = pin_of(s, prio);
	}
	if (rotate)
		s->priority_add = (pin + 1) & 7;
	end_service(chip, s, pin);
}

static void write_command(struct um_irqchip *chip, struct kvm_pic_state *s, u8 val)
{
	if (val & 0x10) {
		start_init(chip, s, val);
	} else if (val & 0x08) { /* OCW3 */
		if (val & 0x04)
			s->poll = 1;
		if (val & 0x02)
			s->read_reg_select = val & 1;
		if (val & 0x40)
			s->special_mask = val >> 5 & 1;
	} else {
		write_ocw2(chip, s, val);
	}
}

static void write_data(struct um_irqchip *chip, struct kvm_pic_state *s, u8 val)
{
	u8 old = s->imr;

	switch (s->init_state) {
	case 1: /* ICW2 */
		s->irq_base = val & 0xf8;
		s->init_state = 2;
		break;
	case 2: /* ICW3: the cascade is wired, there is nothing to learn */
		s->init_state = s->init4 ? 3 : 0;
		break;
	case 3: /* ICW4 */
		s->special_fully_nested_mode = val >> 4 & 1;
		s->auto_eoi = val >> 1 & 1;
		s->init_state = 0;
		break;
	default: /* OCW1 */
		s->imr = val;
		notify_masks(chip, s, old);
	}
}

void pic_write(struct um_irqchip *chip, u16 port, u8 val)
{
	struct kvm_pic_state *s = &chip->pic.s[port >= 0x4d0 ? port & 1 : port >> 7 & 1];

	if (port >= 0x4d0)
		s->elcr = val & s->elcr_mask;
	else if (port & 1)
		write_data(chip, s, val);
	else
		write_command(chip, s, val);
	update(chip);
}

u8 pic_read(struct um_irqchip *chip, u16 port)
{
	struct kvm_pic_state *s = &chip->pic.s[port >= 0x4d0 ? port & 1 : port >> 7 & 1];
	int pin;

	if (port >= 0x4d0)
		return s->elcr;
	if (s->poll) {
		s->poll = 0;
		pin = pending_pin(chip, s);
		if (pin < 0)
			return 0;
		accept_pin(chip, s, pin);
		update(chip);
		return (u8)(0x80 | pin);
	}
	if (port & 1)
		return s->imr;
	return s->read_reg_select ? s->isr : s->irr;
}

/* ---- State ---- */

void pic_init(struct um_irqchip *chip)
{
	/* Pins 0, 1, 2, 8 and 13 are edge-triggered whatever the ELCR is told. */
	master(chip)->elcr_mask = 0xf8;
	slave(chip)->elcr_mask = 0xde;
}

void pic_get(struct um_irqchip *chip, unsigned which, struct kvm_pic_state *s)
{
	*s = chip->pic.s[which];
}

void pic_set(struct um_irqchip *chip, unsigned which, const struct kvm_pic_state *s)
{
	chip->pic.s[which] = *s;
	chip->pic.s[which].priority_add &= 7;
	update(chip);
	/* The state may come with INTR up already. */
	if (chip->pic.output)
		kick_extint_targets(chip);
}
