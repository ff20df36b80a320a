// SPDX-License-Identifier: MIT
/*
 * The IOAPIC: 24 pins, each with an entry that says which message a request becomes (Intel 82093AA
 * datasheet; version 0x11, so there is no EOI register).
 *
 * An edge is sent once.  A level is sent when the pin is high and its Remote IRR clear; taking the
 * message sets Remote IRR, the EOI of its vector at a LAPIC clears it, and if the pin is still high
 * then, it is sent again.  Edges at a masked pin are lost.
 */
#include "irqchip/internal.h"

#include <string.h>

#define VERSION 0x11u

/* Which EOIs are worth taking the chip's lock for. */
void ioapic_update_eoi_vectors(struct um_irqchip *chip)
{
	u64 vectors[4] = { 0 };

	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 e = chip->ioapic.redir[pin];
		u8 vec = e & REDIR_VECTOR;

		if ((e & REDIR_LEVEL) || chip_pin_watched(chip, KVM_IRQCHIP_IOAPIC, pin))
			vectors[vec >> 6] |= BIT(vec & 63);
	}
	for (unsigned i = 0; i < 4; i++)
		store_relaxed(&chip->eoi_vectors[i], vectors[i]);
}

/* Send pin @pin's message, if it may be sent now.  Returns as um_irqchip_set_irq. */
static int service(struct um_irqchip *chip, unsigned pin)
{
	struct ioapic *io = &chip->ioapic;
	u64 *e = &io->redir[pin];
	struct irq_msg msg = {
		.vector = *e & REDIR_VECTOR,
		.mode = *e >> REDIR_MODE_SHIFT & 7,
		.logical = *e & REDIR_LOGICAL,
		.level = *e & REDIR_LEVEL,
	};
	bool accepted = false;
	int ret;

	if (*e & REDIR_MASKED)
		return -1;
	if (msg.level && (*e & REDIR_REMOTE_IRR))
		return 0;
	msg_set_device_dest(chip, &msg, *e >> REDIR_DEST_SHIFT);
	msg.lowest = msg.mode == DM_LOWEST;
	/* SMI, NMI and INIT are edges, and have no EOI, whatever the entry says. */
	if (msg.mode != DM_FIXED && msg.mode != DM_LOWEST)
		msg.level = false;
	ret = deliver(chip, NULL, &msg, &accepted);
	if (msg.level && accepted)
		*e |= REDIR_REMOTE_IRR;
	if (!(*e & REDIR_LEVEL))
		io->delivered |= 1u << pin;
	um_trace(chip->trace, irq, "ioapic: pin %u entry 0x%016llx -> %d", pin,
		 (unsigned long long)*e, ret);
	return ret;
}

int ioapic_set_line(struct um_irqchip *chip, unsigned pin, bool level)
{
	struct ioapic *io = &chip->ioapic;
	u32 bit = 1u << pin;
	bool was = io->irr & bit;

	if (!level) {
		io->irr &= ~bit;
		io->delivered &= ~bit;
		return 1;
	}
	io->irr |= bit;
	if (!(io->redir[pin] & REDIR_LEVEL) && was)
		return 0;
	return service(chip, pin);
}

void ioapic_eoi(struct um_irqchip *chip, u8 vector, bool level)
{
	struct ioapic *io = &chip->ioapic;

	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 *e = &io->redir[pin];

		if ((*e & REDIR_VECTOR) != vector)
			continue;
		chip_pin_acked(chip, KVM_IRQCHIP_IOAPIC, pin);
		if (!level || !(*e & REDIR_LEVEL))
			continue;
		*e &= ~REDIR_REMOTE_IRR;
		if (io->irr & 1u << pin)
			service(chip, pin);
	}
}

/* ---- Registers ---- */

static void write_redir(struct um_irqchip *chip, unsigned index, u32 val)
{
	struct ioapic *io = &chip->ioapic;
	unsigned pin = index / 2;
	const u64 read_only = REDIR_REMOTE_IRR | REDIR_STATUS;
	u64 old = io->redir[pin], new;

	if (index & 1) {
		/* Bits 55:32 are reserved. */
		new = (old & 0xffffffff) | (u64)(val & 0xff000000) << 32;
	} else {
		new = (old & ~0xffffffffull) | (val & GENMASK(16, 0) & ~read_only) |
		      (old & read_only);
		/* Software clears a stuck Remote IRR by making the pin edge-triggered for a moment.
		 */
		if (!(new &REDIR_LEVEL))
			new &= ~REDIR_REMOTE_IRR;
		else
			io->delivered &= ~(1u << pin);
	}
	io->redir[pin] = new;
	ioapic_update_eoi_vectors(chip);
	if ((old ^ new) & REDIR_MASKED)
		chip_pin_mask(chip, KVM_IRQCHIP_IOAPIC, pin, new &REDIR_MASKED);
	if ((new &REDIR_LEVEL) && (io->irr & 1u << pin))
		service(chip, pin);
}

void ioapic_write(struct um_irqchip *chip, u32 offset, u32 val)
{
	struct ioapic *io = &chip->ioapic;

	if (offset == 0x00) {
		io->select = val & 0xff;
	} else if (offset == 0x10) {
		if (io->select == 0)
			io->id = val >> 24 & 0xf;
		else if (io->select >= 0x10 && io->select < 0x10 + 2 * IOAPIC_PINS)
			write_redir(chip, io->select - 0x10, val);
	}
}

u32 ioapic_read(struct um_irqchip *chip, u32 offset)
{
	const struct ioapic *io = &chip->ioapic;

	if (offset == 0x00)
		return io->select;
	if (offset != 0x10)
		return 0;
	switch (io->select) {
	case 0: /* ID */
	case 2: /* arbitration ID, equal to it */
		return io->id << 24;
	case 1:
		return (IOAPIC_PINS - 1) << 16 | VERSION;
	}
	if (io->select >= 0x10 && io->select < 0x10 + 2 * IOAPIC_PINS) {
		unsigned index = io->select - 0x10;

		return (u32)(io->redir[index / 2] >> (index & 1 ? 32 : 0));
	}
	return 0;
}

/* ---- State ---- */

void ioapic_init(struct um_irqchip *chip)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		chip->ioapic.redir[pin] = REDIR_MASKED;
}

void ioapic_get(struct um_irqchip *chip, struct kvm_ioapic_state *s)
{
	const struct ioapic *io = &chip->ioapic;

	memset(s, 0, sizeof(*s));
	s->base_address = UM_IOAPIC_BASE;
	s->ioregsel = io->select;
	s->id = io->id;
	/* What was delivered must not be delivered again by whoever restores this. */
	s->irr = io->irr & ~io->delivered;
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		s->redirtbl[pin].bits = io->redir[pin];
}

void ioapic_set(struct um_irqchip *chip, const struct kvm_ioapic_state *s)
{
	struct ioapic *io = &chip->ioapic;

	io->select = s->ioregsel & 0xff;
	io->id = s->id & 0xf;
	io->irr = 0;
	io->delivered = 0;
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		io->redir[pin] = s->redirtbl[pin].bits;
	ioapic_update_eoi_vectors(chip);
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		if (s->irr & 1u << pin)
			ioapic_set_line(chip, pin, true);
}
