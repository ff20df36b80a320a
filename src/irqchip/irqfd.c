// SPDX-License-Identifier: MIT
/*
 * irqfds: eventfds that drive interrupt lines (KVM_IRQFD, api.rst 4.75).
 *
 * Each is watched by the helper thread.  Without a resample descriptor a signal is a pulse, which suits edges
 * and messages.  With one, a signal raises the GSI, and it stays up until the guest's EOI: then it is
 * lowered, and the resample descriptors are signalled, so that the device model can raise it again if
 * the device still wants service.  Irqfds that resample the same GSI are one source: the line is up if any
 * raised it, an EOI lowers it for all, and all are told.
 *
 * The list of all irqfds is under irqfds_lock; the list of those that resample, which EOIs search, under
 * chip->lock too.  The helper's function takes chip->lock alone, so that it can be waited for under
 * irqfds_lock.
 */
#include "irqchip/eventfd.h"
#include "irqchip/internal.h"

#include <errno.h>
#include <stdlib.h>

struct irqfd {
	struct um_irqchip *chip;
	u32 gsi;
	struct um_eventfd event;
	struct um_eventfd resample; /* fd -1: none */
	struct um_watch watch;
	struct irqfd *next;
	struct irqfd *next_resampler;
};

/* In the helper thread. */
static void fire(void *opaque)
{
	struct irqfd *f = opaque;

	if (!um_eventfd_take(&f->event))
		return;
	if (f->resample.fd >= 0) {
		um_irqchip_set_irq(f->chip, UM_IRQ_SOURCE_RESAMPLE, f->gsi, 1);
	} else {
		um_irqchip_set_irq(f->chip, UM_IRQ_SOURCE_IRQFD, f->gsi, 1);
		um_irqchip_set_irq(f->chip, UM_IRQ_SOURCE_IRQFD, f->gsi, 0);
	}
}

void irqfd_acked(struct um_irqchip *chip, u32 gsi)
{
	if (!irqfd_wants_ack(chip, gsi))
		return;
	/* Lowered first: who is told may raise it again at once. */
	routing_set_irq(chip, UM_IRQ_SOURCE_RESAMPLE, gsi, false);
	for (struct irqfd *f = chip->resamplers; f; f = f->next_resampler)
		if (f->gsi == gsi)
			um_eventfd_signal(&f->resample);
}

bool irqfd_wants_ack(struct um_irqchip *chip, u32 gsi)
{
	for (struct irqfd *f = chip->resamplers; f; f = f->next_resampler)
		if (f->gsi == gsi)
			return true;
	return false;
}

static void add_resampler(struct irqfd *f)
{
	struct um_irqchip *chip = f->chip;

	chip_lock(chip);
	f->next_resampler = chip->resamplers;
	chip->resamplers = f;
	ioapic_update_eoi_vectors(chip);
	chip_unlock(chip);
}

static void remove_resampler(struct irqfd *f)
{
	struct um_irqchip *chip = f->chip;
	struct irqfd **p;

	chip_lock(chip);
	for (p = &chip->resamplers; *p != f; p = &(*p)->next_resampler)
		;
	*p = f->next_resampler;
	/* The last one of a GSI lets the line go. */
	if (!irqfd_wants_ack(chip, f->gsi))
		routing_set_irq(chip, UM_IRQ_SOURCE_RESAMPLE, f->gsi, false);
	ioapic_update_eoi_vectors(chip);
	chip_unlock(chip);
}

/* Already out of the list of all. */
static void end(struct irqfd *f)
{
	um_watch_remove(&f->watch);
	if (f->resample.fd >= 0)
		remove_resampler(f);
	um_eventfd_put(&f->event);
	um_eventfd_put(&f->resample);
	free(f);
}

static int take_descriptors(struct irqfd *f, const struct kvm_irqfd *args)
{
	int err = um_eventfd_get((int)args->fd, &f->event);

	if (!err && args->flags & KVM_IRQFD_FLAG_RESAMPLE)
		err = um_eventfd_get((int)args->resamplefd, &f->resample);
	return err;
}

static bool in_use(const struct um_irqchip *chip, const struct um_eventfd *e)
{
	for (const struct irqfd *f = chip->irqfds; f; f = f->next)
		if (f->event.id == e->id)
			return true;
	return false;
}

static int assign(struct um_irqchip *chip, const struct kvm_irqfd *args)
{
	struct irqfd *f;
	int err;

	/* Only the IOAPIC and the PIC here can tell of an EOI. */
	if (args->flags & KVM_IRQFD_FLAG_RESAMPLE && chip->split)
		return -EINVAL;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->chip = chip;
	f->gsi = args->gsi;
	f->event.fd = f->resample.fd = -1;
	err = take_descriptors(f, args);
	if (!err && in_use(chip, &f->event))
		err = -EBUSY;
	if (err)
		goto fail;
	/* Before the first signal, so that its EOI is noticed. */
	if (f->resample.fd >= 0)
		add_resampler(f);
	err = um_watch_add(&f->watch, chip->timers, f->event.fd, fire, f);
	if (err) {
		if (f->resample.fd >= 0)
			remove_resampler(f);
		goto fail;
	}
	f->next = chip->irqfds;
	chip->irqfds = f;
	return 0;
fail:
	um_eventfd_put(&f->event);
	um_eventfd_put(&f->resample);
	free(f);
	return err;
}

static int deassign(struct um_irqchip *chip, const struct kvm_irqfd *args)
{
	struct irqfd **p = &chip->irqfds;
	u64 id;
	int err = um_eventfd_id((int)args->fd, &id);

	if (err)
		return err;
	while (*p) {
		struct irqfd *f = *p;

		if (f->event.id == id && f->gsi == args->gsi) {
			*p = f->next;
			end(f);
		} else {
			p = &f->next;
		}
	}
	return 0;
}

int um_irqchip_irqfd(struct um_irqchip *chip, const struct kvm_irqfd *args)
{
	int err;

	if (args->flags & ~(u32)(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
	pthread_mutex_lock(&chip->irqfds_lock);
	if (args->flags & KVM_IRQFD_FLAG_DEASSIGN)
		err = deassign(chip, args);
	else
		err = assign(chip, args);
	pthread_mutex_unlock(&chip->irqfds_lock);
	um_trace(chip->trace, irq, "irqfd %u gsi %u flags %#x: %d", args->fd, args->gsi,
		 args->flags, err);
	return err;
}

void irqfds_destroy(struct um_irqchip *chip)
{
	while (chip->irqfds) {
		struct irqfd *f = chip->irqfds;

		chip->irqfds = f->next;
		end(f);
	}
}
