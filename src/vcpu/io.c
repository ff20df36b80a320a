// SPDX-License-Identifier: MIT
/*
 * Port and memory-mapped I/O: to a controller in the library, else to the VMM through struct kvm_run,
 * whose answer is taken when it calls KVM_RUN again.
 *
 * The engine stands at the instruction meanwhile, and completes it with the answer (engine/exec.h).
 */
#include <string.h>

#include "vcpu/vcpu.h"

#define PIO_OFFSET UM_PAGE_SIZE /* of the port data behind struct kvm_run */

_Static_assert(UM_PIO_MAX <= UM_PAGE_SIZE, "a batch fits in the page");

static u8 *pio_data(struct um_vcpu *v)
{
	return (u8 *)v->run + PIO_OFFSET;
}

/* The whole batch goes to one port, hence to one device. */
static bool library_pio(struct um_vcpu *v)
{
	struct um_irqchip *chip = um_vm_irqchip(v->vm);
	struct um_pio *p = &v->x.pio;

	if (!chip)
		return false;
	for (unsigned i = 0; i < p->count; i++) {
		u8 *data = p->data + i * p->size;
		bool mine = p->write ? um_irqchip_pio_write(chip, p->port, p->size, data)
				     : um_irqchip_pio_read(chip, p->port, p->size, data);

		if (!mine)
			return false;
	}
	return true;
}

int um_vcpu_pio(struct um_vcpu *v)
{
	struct um_pio *p = &v->x.pio;
	struct kvm_run *run = v->run;

	if (library_pio(v)) {
		um_count(v->counters, kernel_io);
		p->state = UM_PIO_DONE;
		return 1;
	}
	um_count(v->counters, io_exits);
	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = p->write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
	run->io.size = p->size;
	run->io.port = p->port;
	run->io.count = p->count;
	run->io.data_offset = PIO_OFFSET;
	if (p->write)
		memcpy(pio_data(v), p->data, (size_t)p->size * p->count);
	v->user_io = UM_USER_PIO;
	return 0;
}

static bool library_mmio(struct um_vcpu *v)
{
	struct um_irqchip *chip = um_vm_irqchip(v->vm);
	struct um_exit *e = &v->x.exit;

	if (!v->lapic)
		return false;
	if (e->mmio.write)
		return um_lapic_mmio_write(v->lapic, e->mmio.gpa, e->mmio.len, e->mmio.data) ||
		       um_irqchip_mmio_write(chip, e->mmio.gpa, e->mmio.len, e->mmio.data);
	return um_lapic_mmio_read(v->lapic, e->mmio.gpa, e->mmio.len, e->mmio.data) ||
	       um_irqchip_mmio_read(chip, e->mmio.gpa, e->mmio.len, e->mmio.data);
}

int um_vcpu_mmio(struct um_vcpu *v)
{
	struct um_exit *e = &v->x.exit;
	struct kvm_run *run = v->run;

	if (library_mmio(v)) {
		um_count(v->counters, kernel_mmio);
		um_engine_mmio_done(&v->x, e->mmio.data);
		return 1;
	}
	um_count(v->counters, mmio_exits);
	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.phys_addr = e->mmio.gpa;
	run->mmio.len = e->mmio.len;
	run->mmio.is_write = e->mmio.write;
	if (e->mmio.write)
		memcpy(run->mmio.data, e->mmio.data, sizeof(run->mmio.data));
	v->user_io = UM_USER_MMIO;
	return 0;
}

void um_vcpu_complete_user_io(struct um_vcpu *v)
{
	struct um_pio *p = &v->x.pio;
	u8 data[8];

	switch (v->user_io) {
	case UM_USER_NONE:
		return;
	case UM_USER_PIO:
		if (!p->write)
			memcpy(p->data, pio_data(v), (size_t)p->size * p->count);
		p->state = UM_PIO_DONE;
		break;
	case UM_USER_MMIO:
		memcpy(data, v->run->mmio.data, sizeof(data));
		um_engine_mmio_done(&v->x, data);
		break;
	}
	v->user_io = UM_USER_NONE;
}

int um_vcpu_ioapic_eoi(struct um_vcpu *v)
{
	int vector;

	if (!v->lapic || !um_irqchip_is_split(um_vm_irqchip(v->vm)))
		return 1;
	vector = um_lapic_take_ioapic_eoi(v->lapic);
	if (vector < 0)
		return 1;
	v->run->exit_reason = KVM_EXIT_IOAPIC_EOI;
	v->run->eoi.vector = (u8)vector;
	return 0;
}
