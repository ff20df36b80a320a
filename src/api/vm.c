// SPDX-License-Identifier: MIT
/* Requests on a VM's descriptor (api.rst, "VM ioctls"). */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "vcpu/hyperv.h"

#define MIN_MMU_PAGES 64      /* fewer than KVM would take */
#define MAX_MMU_PAGES INT_MAX /* what KVM_GET_NR_MMU_PAGES can return */

/* ---- the VM itself ---- */

static long check_extension(void *obj, unsigned long arg, void *data)
{
	return um_check_extension(obj, arg);
}

static long enable_cap(void *obj, unsigned long arg, void *data)
{
	return um_vm_enable_cap(obj, data);
}

static long create_vcpu(void *obj, unsigned long arg, void *data)
{
	if (arg >= UM_MAX_VCPU_IDS)
		return -EINVAL;
	return um_vcpu_fd(obj, (u32)arg);
}

static long set_boot_cpu_id(void *obj, unsigned long arg, void *data)
{
	struct um_vm *vm = obj;
	long r = 0;

	pthread_mutex_lock(&vm->lock);
	if (atomic_load(&vm->nvcpus))
		r = -EBUSY;
	else
		vm->bsp_id = (u32)arg;
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/*
 * Where Intel hosts put three pages and a page table for a guest in real mode.  The engine needs neither;
 * VMMs insist that they can say where.
 */
static long set_tss_addr(void *obj, unsigned long arg, void *data)
{
	struct um_vm *vm = obj;

	if (arg > 0xffffffff - 3 * UM_PAGE_SIZE + 1)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	vm->tss_addr = arg;
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

static long set_identity_map_addr(void *obj, unsigned long arg, void *data)
{
	struct um_vm *vm = obj;
	long r = 0;

	pthread_mutex_lock(&vm->lock);
	if (atomic_load(&vm->nvcpus))
		r = -EINVAL;
	else
		vm->identity_map_addr = *(u64 *)data;
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* ---- memory ---- */

static long set_user_memory_region(void *obj, unsigned long arg, void *data)
{
	struct um_vm *vm = obj;

	return um_mem_set_region(vm->mem, data);
}

static long get_dirty_log(void *obj, unsigned long arg, void *data)
{
	struct um_vm *vm = obj;
	const struct kvm_dirty_log *log = data;

	return um_mem_get_dirty_log(vm->mem, log->slot, log->dirty_bitmap);
}

static long set_msr_filter(void *obj, unsigned long arg, void *data)
{
	return um_vm_set_msr_filter(obj, data);
}

static long clear_dirty_log(void *obj, unsigned long arg, void *data)
{
	return um_mem_clear_dirty_log(((struct um_vm *)obj)->mem, data);
}

static long reset_dirty_rings(void *obj, unsigned long arg, void *data)
{
	return um_mem_reset_rings(((struct um_vm *)obj)->mem);
}

static long set_nr_mmu_pages(void *obj, unsigned long arg, void *data)
{
	struct um_vm *vm = obj;

	if (arg < MIN_MMU_PAGES)
		return -EINVAL;
	um_mmu_set_nr_pages(vm->mmu, um_min(arg, (unsigned long)MAX_MMU_PAGES));
	return 0;
}

static long get_nr_mmu_pages(void *obj, unsigned long arg, void *data)
{
	struct um_vm *vm = obj;

	return (long)um_mmu_get_nr_pages(vm->mmu);
}

/* ---- interrupt controllers ---- */

static long create_irqchip(void *obj, unsigned long arg, void *data)
{
	return um_vm_create_irqchip(obj, false, 0);
}

static long get_irqchip(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);

	return chip ? um_irqchip_get_state(chip, data) : -ENXIO;
}

static long set_irqchip(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);

	return chip ? um_irqchip_set_state(chip, data) : -ENXIO;
}

static long irq_line(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);
	struct kvm_irq_level *l = data;
	u32 gsi = l->irq, level = l->level;

	if (!chip)
		return -ENXIO;
	l->status = um_irqchip_set_irq(chip, UM_IRQ_SOURCE_USER, gsi, level != 0);
	return 0;
}

static long signal_msi(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);

	return chip ? um_irqchip_send_msi(chip, data) : -EINVAL;
}

static long set_gsi_routing(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);
	const struct kvm_irq_routing *head = data;
	struct kvm_irq_routing_entry *entries;
	long r;

	if (!chip || head->nr > UM_MAX_IRQ_ROUTES || head->flags)
		return -EINVAL;
	entries = calloc(head->nr + 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	r = um_copy_in_user(entries, arg + sizeof(*head), head->nr * sizeof(*entries));
	if (!r)
		r = um_irqchip_set_routing(chip, entries, head->nr, head->flags);
	free(entries);
	return r;
}

static long irqfd(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);

	return chip ? um_irqchip_irqfd(chip, data) : -EINVAL;
}

static long ioeventfd(void *obj, unsigned long arg, void *data)
{
	return um_ioeventfds_set(((struct um_vm *)obj)->ioeventfds, data);
}

static long hyperv_eventfd(void *obj, unsigned long arg, void *data)
{
	return um_hv_eventfd(obj, data);
}

static long register_coalesced(void *obj, unsigned long arg, void *data)
{
	return um_coalesced_register(obj, data);
}

static long unregister_coalesced(void *obj, unsigned long arg, void *data)
{
	return um_coalesced_unregister(obj, data);
}

static long create_pit2(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);
	const struct kvm_pit_config *cfg = data;

	return chip ? um_irqchip_create_pit(chip, cfg->flags) : -ENOENT;
}

static long create_pit(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);

	return chip ? um_irqchip_create_pit(chip, KVM_PIT_SPEAKER_DUMMY) : -ENOENT;
}

static long get_pit2(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);

	return chip ? um_irqchip_get_pit(chip, data) : -ENXIO;
}

static long set_pit2(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);

	return chip ? um_irqchip_set_pit(chip, data) : -ENXIO;
}

/* The older requests have the channels alone. */
static long get_pit(void *obj, unsigned long arg, void *data)
{
	struct kvm_pit_state2 s;
	long r = get_pit2(obj, arg, &s);

	if (!r)
		memcpy(data, s.channels, sizeof(struct kvm_pit_state));
	return r;
}

static long set_pit(void *obj, unsigned long arg, void *data)
{
	struct kvm_pit_state2 s;
	long r = get_pit2(obj, arg, &s);

	if (r)
		return r;
	memcpy(s.channels, data, sizeof(struct kvm_pit_state));
	return set_pit2(obj, arg, &s);
}

static long reinject_control(void *obj, unsigned long arg, void *data)
{
	struct um_irqchip *chip = um_vm_irqchip(obj);
	const struct kvm_reinject_control *c = data;

	return chip ? um_irqchip_pit_reinject(chip, c->pit_reinject) : -ENXIO;
}

/* ---- time ---- */

static long get_clock(void *obj, unsigned long arg, void *data)
{
	um_clock_get(obj, data);
	return 0;
}

static long set_clock(void *obj, unsigned long arg, void *data)
{
	return um_clock_set(obj, data);
}

static long get_tsc_khz(void *obj, unsigned long arg, void *data)
{
	return ((struct um_vm *)obj)->default_tsc_khz;
}

static long set_tsc_khz(void *obj, unsigned long arg, void *data)
{
	struct um_vm *vm = obj;
	u32 khz = arg ? (u32)arg : vm->cfg.tsc_khz;

	if (khz < UM_TSC_KHZ_MIN || khz > UM_TSC_KHZ_MAX)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	vm->default_tsc_khz = khz;
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

static long get_stats_fd(void *obj, unsigned long arg, void *data)
{
	return um_vm_stats_fd(obj);
}

static const struct um_ioctl vm_ioctls[] = {
	UM_IOCTL(KVM_IRQ_LINE, IN, struct kvm_irq_level, irq_line),
	UM_IOCTL(KVM_IRQ_LINE_STATUS, INOUT, struct kvm_irq_level, irq_line),
	UM_IOCTL(KVM_SIGNAL_MSI, IN, struct kvm_msi, signal_msi),
	UM_IOCTL(KVM_CHECK_EXTENSION, VAL, char, check_extension),
	UM_IOCTL(KVM_ENABLE_CAP, IN, struct kvm_enable_cap, enable_cap),
	UM_IOCTL(KVM_CREATE_VCPU, VAL, char, create_vcpu),
	UM_IOCTL(KVM_SET_BOOT_CPU_ID, VAL, char, set_boot_cpu_id),
	UM_IOCTL(KVM_SET_TSS_ADDR, VAL, char, set_tss_addr),
	UM_IOCTL(KVM_SET_IDENTITY_MAP_ADDR, IN, u64, set_identity_map_addr),
	UM_IOCTL(KVM_SET_USER_MEMORY_REGION, IN, struct kvm_userspace_memory_region,
		 set_user_memory_region),
	UM_IOCTL(KVM_GET_DIRTY_LOG, IN, struct kvm_dirty_log, get_dirty_log),
	UM_IOCTL(KVM_X86_SET_MSR_FILTER, IN, struct kvm_msr_filter, set_msr_filter),
	UM_IOCTL(KVM_CLEAR_DIRTY_LOG, IN, struct kvm_clear_dirty_log, clear_dirty_log),
	UM_IOCTL(KVM_RESET_DIRTY_RINGS, VAL, char, reset_dirty_rings),
	UM_IOCTL(KVM_SET_NR_MMU_PAGES, VAL, char, set_nr_mmu_pages),
	UM_IOCTL(KVM_GET_NR_MMU_PAGES, VAL, char, get_nr_mmu_pages),
	UM_IOCTL(KVM_CREATE_IRQCHIP, VAL, char, create_irqchip),
	UM_IOCTL(KVM_GET_IRQCHIP, INOUT, struct kvm_irqchip, get_irqchip),
	UM_IOCTL(KVM_SET_IRQCHIP, IN, struct kvm_irqchip, set_irqchip),
	UM_IOCTL(KVM_SET_GSI_ROUTING, IN, struct kvm_irq_routing, set_gsi_routing),
	UM_IOCTL(KVM_IRQFD, IN, struct kvm_irqfd, irqfd),
	UM_IOCTL(KVM_IOEVENTFD, IN, struct kvm_ioeventfd, ioeventfd),
	UM_IOCTL(KVM_HYPERV_EVENTFD, IN, struct kvm_hyperv_eventfd, hyperv_eventfd),
	UM_IOCTL(KVM_REGISTER_COALESCED_MMIO, IN, struct kvm_coalesced_mmio_zone,
		 register_coalesced),
	UM_IOCTL(KVM_UNREGISTER_COALESCED_MMIO, IN, struct kvm_coalesced_mmio_zone,
		 unregister_coalesced),
	UM_IOCTL(KVM_CREATE_PIT, VAL, char, create_pit),
	UM_IOCTL(KVM_CREATE_PIT2, IN, struct kvm_pit_config, create_pit2),
	UM_IOCTL(KVM_GET_PIT, OUT, struct kvm_pit_state, get_pit),
	UM_IOCTL(KVM_SET_PIT, IN, struct kvm_pit_state, set_pit),
	UM_IOCTL(KVM_GET_PIT2, OUT, struct kvm_pit_state2, get_pit2),
	UM_IOCTL(KVM_SET_PIT2, IN, struct kvm_pit_state2, set_pit2),
	UM_IOCTL(KVM_REINJECT_CONTROL, IN, struct kvm_reinject_control, reinject_control),
	UM_IOCTL(KVM_GET_STATS_FD, VAL, char, get_stats_fd),
	UM_IOCTL(KVM_GET_CLOCK, OUT, struct kvm_clock_data, get_clock),
	UM_IOCTL(KVM_SET_CLOCK, IN, struct kvm_clock_data, set_clock),
	UM_IOCTL(KVM_GET_TSC_KHZ, VAL, char, get_tsc_khz),
	UM_IOCTL(KVM_SET_TSC_KHZ, VAL, char, set_tsc_khz),
};

long um_vm_ioctl(struct um_vm *vm, u32 cmd, unsigned long arg)
{
	return um_ioctl_dispatch(vm_ioctls, ARRAY_SIZE(vm_ioctls), vm, cmd, arg, -ENOTTY);
}
