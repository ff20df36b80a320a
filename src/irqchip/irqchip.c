// SPDX-License-Identifier: MIT
/*
 * The chip as a whole: creation, the entry points that take its lock, and which part has which
 * port.
 *
 * Work that one part causes in another while the lock is held, and that could come back to the
 * first (the PIT sends its next tick when the PIC's EOI acknowledges the last one), is noted and
 * done in chip_unlock().
 */
#include "irqchip/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct um_trace no_trace;

void chip_lock(struct um_irqchip *chip)
{
	pthread_mutex_lock(&chip->lock);
}

void chip_unlock(struct um_irqchip *chip)
{
	/* A tick waits for an acknowledgement of the one before: this ends. */
	while (chip->pit_kick) {
		chip->pit_kick = false;
		pit_send_tick(chip);
	}
	pthread_mutex_unlock(&chip->lock);
}

int um_irqchip_create(struct um_irqchip **out, const struct um_irqchip_config *cfg)
{
	struct um_irqchip *chip;
	int err;

	if (cfg->split && cfg->nr_reserved_pins > UM_MAX_IRQ_ROUTES)
		return -EINVAL;
	chip = calloc(1, sizeof(*chip));
	if (!chip)
		return -ENOMEM;
	chip->split = cfg->split;
	chip->nr_reserved_pins = cfg->split ? cfg->nr_reserved_pins : 0;
	chip->trace = cfg->trace ? cfg->trace : &no_trace;
	chip->counters = cfg->counters;
	pthread_mutex_init(&chip->lock, NULL);
	pthread_mutex_init(&chip->irqfds_lock, NULL);
	err = routing_init(chip);
	if (err)
		goto fail;
	err = um_timers_create(&chip->timers);
	if (err)
		goto fail_routing;
	pic_init(chip);
	ioapic_init(chip);
	*out = chip;
	return 0;
fail_routing:
	free(chip->routing);
fail:
	pthread_mutex_destroy(&chip->lock);
	pthread_mutex_destroy(&chip->irqfds_lock);
	free(chip);
	return err;
}

void um_irqchip_destroy(struct um_irqchip *chip)
{
	irqfds_destroy(chip);
	pit_destroy(chip);
	um_timers_destroy(chip->timers);
	while (chip->dead) {
		struct um_lapic *l = chip->dead;

		chip->dead = l->next_dead;
		pthread_mutex_destroy(&l->lock);
		free(l);
	}
	free(chip->routing);
	pthread_mutex_destroy(&chip->lock);
	pthread_mutex_destroy(&chip->irqfds_lock);
	free(chip);
}

bool um_irqchip_is_split(const struct um_irqchip *chip)
{
	return chip->split;
}

struct um_timers *um_irqchip_timers(struct um_irqchip *chip)
{
	return chip->timers;
}

void um_irqchip_disable_quirks(struct um_irqchip *chip, u64 quirks)
{
	store_relaxed(&chip->quirks_off, quirks);
}

int um_irqchip_set_x2apic_api(struct um_irqchip *chip, u64 flags)
{
	const u64 known = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;

	if (flags & ~known)
		return -EINVAL;
	/* They can only be added. */
	store_relaxed(&chip->x2apic_api, chip->x2apic_api | flags);
	return 0;
}

/* ---- Lines ---- */

int um_irqchip_set_irq(struct um_irqchip *chip, enum um_irq_source source, u32 gsi, int level)
{
	int ret;

	if ((unsigned)source >= UM_IRQ_SOURCE_MAX)
		return -1;
	chip_count(chip, irq_lines);
	chip_lock(chip);
	ret = routing_set_irq(chip, source, gsi, level != 0);
	chip_unlock(chip);
	um_trace(chip->trace, irq, "gsi %u = %d source %d -> %d", gsi, level, (int)source, ret);
	return ret;
}

/* The PIT sits on GSI 0, wherever that is routed. */
void chip_pin_acked(struct um_irqchip *chip, unsigned which, unsigned pin)
{
	int gsi = routing_gsi_of(chip, which, pin);

	if (gsi < 0)
		return;
	if (chip->pit && gsi == 0)
		pit_acked(chip);
	if (chip->resamplers)
		irqfd_acked(chip, (u32)gsi);
}

bool chip_pin_watched(struct um_irqchip *chip, unsigned which, unsigned pin)
{
	int gsi = routing_gsi_of(chip, which, pin);

	return gsi >= 0 && ((chip->pit && gsi == 0) || irqfd_wants_ack(chip, (u32)gsi));
}

void chip_pin_mask(struct um_irqchip *chip, unsigned which, unsigned pin, bool masked)
{
	if (chip->pit && !masked && routing_gsi_of(chip, which, pin) == 0)
		pit_unmasked(chip);
}

/* ---- Accesses by the guest ---- */

static bool ioapic_hit(struct um_irqchip *chip, gpa_t gpa)
{
	return !chip->split && gpa - UM_IOAPIC_BASE < UM_IOAPIC_LEN;
}

bool um_irqchip_mmio_read(struct um_irqchip *chip, gpa_t gpa, unsigned len, void *data)
{
	u32 val;

	if (!ioapic_hit(chip, gpa))
		return false;
	chip_lock(chip);
	val = ioapic_read(chip, (u32)(gpa - UM_IOAPIC_BASE));
	chip_unlock(chip);
	memset(data, 0, len);
	memcpy(data, &val, um_min(len, (unsigned)sizeof(val)));
	return true;
}

bool um_irqchip_mmio_write(struct um_irqchip *chip, gpa_t gpa, unsigned len, const void *data)
{
	u32 val = 0;

	if (!ioapic_hit(chip, gpa))
		return false;
	memcpy(&val, data, um_min(len, (unsigned)sizeof(val)));
	chip_lock(chip);
	ioapic_write(chip, (u32)(gpa - UM_IOAPIC_BASE), val);
	chip_unlock(chip);
	return true;
}

bool um_irqchip_pio_read(struct um_irqchip *chip, u16 port, unsigned len, void *data)
{
	bool hit = true;
	u8 val = 0;

	if (chip->split)
		return false;
	/* These are 8-bit devices.  Wider accesses to the PIC do nothing, to the PIT reach one
	 * port. */
	chip_lock(chip);
	if (pic_has_port(port))
		val = len == 1 ? pic_read(chip, port) : 0;
	else if (pit_has_port(chip, port))
		val = pit_read(chip, port);
	else
		hit = false;
	chip_unlock(chip);
	if (!hit)
		return false;
	memset(data, 0, len);
	memcpy(data, &val, 1);
	return true;
}

bool um_irqchip_pio_write(struct um_irqchip *chip, u16 port, unsigned len, const void *data)
{
	bool hit = true;
	u8 val;

	if (chip->split)
		return false;
	memcpy(&val, data, 1);
	chip_lock(chip);
	if (pic_has_port(port)) {
		if (len == 1)
			pic_write(chip, port, val);
	} else if (pit_has_port(chip, port)) {
		pit_write(chip, port, val);
	} else {
		hit = false;
	}
	chip_unlock(chip);
	return hit;
}

/* ---- State ---- */

int um_irqchip_get_state(struct um_irqchip *chip, struct kvm_irqchip *state)
{
	int err = 0;

	if (chip->split)
		return -ENXIO;
	chip_lock(chip);
	switch (state->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		pic_get(chip, state->chip_id, &state->chip.pic);
		break;
	case KVM_IRQCHIP_IOAPIC:
		ioapic_get(chip, &state->chip.ioapic);
		break;
	default:
		err = -EINVAL;
	}
	chip_unlock(chip);
	return err;
}

int um_irqchip_set_state(struct um_irqchip *chip, const struct kvm_irqchip *state)
{
	int err = 0;

	if (chip->split)
		return -ENXIO;
	chip_lock(chip);
	switch (state->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		pic_set(chip, state->chip_id, &state->chip.pic);
		break;
	case KVM_IRQCHIP_IOAPIC:
		ioapic_set(chip, &state->chip.ioapic);
		break;
	default:
		err = -EINVAL;
	}
	chip_unlock(chip);
	return err;
}
