// SPDX-License-Identifier: MIT
/*
 * Port and memory-mapped I/O: to a controller in the library, writes also to an eventfd or to the ring of
 * coalesced writes, else to the VMM through struct kvm_run, whose answer is taken when it calls KVM_RUN again.
 *
 * The engine stands at the instruction meanwhile, and completes it with the answer (engine/exec.h).
 */
#include <string.h>

#include "vcpu/hyperv.h"
#include "vcpu/vcpu.h"

#define PIO_OFFSET UM_PAGE_SIZE /* of the port data behind struct kvm_run */

_Static_assert(UM_PIO_MAX <= UM_PAGE_SIZE, "a batch fits in the page");

static u8 *pio_data(struct um_vcpu *v)
{
	return (u8 *)v->run + PIO_OFFSET;
}

/* One write that leaves no trace in the vCPU: to a controller, an eventfd, or the coalesced ring. */
static bool library_write(struct um_vcpu *v, enum um_io_space space, u64 addr, unsigned len,
			  const void *data)
{
	return um_ioeventfds_write(v->vm->ioeventfds, space, addr, len, data) ||
	       um_coalesced_write(v->vm, space, addr, len, data);
}

static bool library_port(struct um_vcpu *v, const struct um_pio *p, u8 *data)
{
	struct um_irqchip *chip = um_vm_irqchip(v->vm);

	if (!p->write)
		return chip && um_irqchip_pio_read(chip, p->port, p->size, data);
	return (chip && um_irqchip_pio_write(chip, p->port, p->size, data)) ||
	       library_write(v, UM_IO_PIO, p->port, p->size, data);
}

/*
 * How many accesses of the batch are served here.  They go to one port, hence to one device, but for
 * eventfds that want one value, and a ring that becomes full: what follows is the VMM's.
 */
static unsigned library_pio(struct um_vcpu *v)
{
	struct um_pio *p = &v->x.pio;
	unsigned i = 0;

	while (i < p->count && library_port(v, p, p->data + i * p->size))
		i++;
	return i;
}

int um_vcpu_pio(struct um_vcpu *v)
{
	struct um_pio *p = &v->x.pio;
	struct kvm_run *run = v->run;
	unsigned done = library_pio(v);

	if (done == p->count) {
		um_count(v->counters, kernel_io);
		p->state = UM_PIO_DONE;
		return 1;
	}
	um_count(v->counters, io_exits);
	run->exit_reason = KVM_EXIT_IO;
	run->io.direction = p->write ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
	run->io.size = p->size;
	run->io.port = p->port;
	run->io.count = p->count - done;
	run->io.data_offset = PIO_OFFSET;
	if (p->write)
		memcpy(pio_data(v), p->data + done * p->size, (size_t)p->size * run->io.count);
	v->user_io = UM_USER_PIO;
	return 0;
}

static bool library_mmio(struct um_vcpu *v)
{
	struct um_irqchip *chip = um_vm_irqchip(v->vm);
	struct um_exit *e = &v->x.exit;

	if (!e->mmio.write)
		return v->lapic &&
		       (um_lapic_mmio_read(v->lapic, e->mmio.gpa, e->mmio.len, e->mmio.data) ||
			um_irqchip_mmio_read(chip, e->mmio.gpa, e->mmio.len, e->mmio.data));
	if (v->lapic && (um_lapic_mmio_write(v->lapic, e->mmio.gpa, e->mmio.len, e->mmio.data) ||
			 um_irqchip_mmio_write(chip, e->mmio.gpa, e->mmio.len, e->mmio.data)))
		return true;
	return library_write(v, UM_IO_MMIO, e->mmio.gpa, e->mmio.len, e->mmio.data);
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

int um_vcpu_complete_user_io(struct um_vcpu *v)
{
	enum um_user_io what = v->user_io;
	struct um_pio *p = &v->x.pio;
	u8 data[8];

	v->user_io = UM_USER_NONE;
	switch (what) {
	case UM_USER_NONE:
		break;
	case UM_USER_PIO:
		if (!p->write)
			memcpy(p->data, pio_data(v), (size_t)p->size * p->count);
		p->state = UM_PIO_DONE;
		break;
	case UM_USER_MMIO:
		memcpy(data, v->run->mmio.data, sizeof(data));
		um_engine_mmio_done(&v->x, data);
		break;
	case UM_USER_RDMSR:
	case UM_USER_WRMSR:
		return um_vcpu_complete_msr(v, what == UM_USER_WRMSR);
	case UM_USER_HV_CALL:
		return um_hv_complete_hypercall(v);
	case UM_USER_HV_SYNDBG:
		return um_hv_complete_syndbg(v);
	}
	return 1;
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
