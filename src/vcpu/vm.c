// SPDX-License-Identifier: MIT
/*
 * Making and unmaking a VM: memory, shadow MMU, statistics, later the irqchip; vCPUs join by themselves
 * (vcpu.c) and hold references.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vcpu/hyperv.h"
#include "vcpu/vcpu.h"

static void destroy(struct um_vm *vm)
{
	struct um_irqchip *chip = um_vm_irqchip(vm);

	for (unsigned i = 0; i < atomic_load(&vm->nvcpus); i++)
		um_vcpu_destroy(vm->vcpu[i]);
	if (vm->poll_timers)
		um_timers_destroy(vm->poll_timers);
	if (chip)
		um_irqchip_destroy(chip);
	if (vm->ioeventfds)
		um_ioeventfds_destroy(vm->ioeventfds);
	um_coalesced_destroy(vm);
	um_vm_free_msr_filter(vm);
	um_hv_vm_destroy(vm);
	if (vm->mmu)
		um_mmu_vm_destroy(vm->mmu);
	if (vm->mem)
		um_mem_destroy(vm->mem);
	if (vm->stat)
		um_stat_unmap(vm->stat);
	if (vm->stats_fd >= 0)
		close(vm->stats_fd);
	if (vm->stat_fd >= 0)
		close(vm->stat_fd);
	pthread_mutex_destroy(&vm->lock);
	pthread_mutex_destroy(&vm->split_lock);
	pthread_mutex_destroy(&vm->lockstep_queue.lock);
	pthread_cond_destroy(&vm->lockstep_queue.changed);
	pthread_mutex_destroy(&vm->clock_lock);
	pthread_mutex_destroy(&vm->pages_lock);
	pthread_mutex_destroy(&vm->timers_lock);
	pthread_mutex_destroy(&vm->coalesced_lock);
	pthread_rwlock_destroy(&vm->msr_filter_lock);
	free(vm);
}

int um_vm_create(const struct um_vm_config *cfg, struct um_vm **out)
{
	struct um_vm *vm = calloc(1, sizeof(*vm));
	struct um_mmu_config mmu_cfg = { .tdp = cfg->tdp, .audit = cfg->audit };
	int err = -ENOMEM;

	if (!vm)
		return -ENOMEM;
	vm->cfg = *cfg;
	atomic_init(&vm->refs, 1);
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->split_lock, NULL);
	pthread_mutex_init(&vm->lockstep_queue.lock, NULL);
	pthread_cond_init(&vm->lockstep_queue.changed, NULL);
	pthread_mutex_init(&vm->clock_lock, NULL);
	pthread_mutex_init(&vm->pages_lock, NULL);
	pthread_mutex_init(&vm->timers_lock, NULL);
	pthread_mutex_init(&vm->coalesced_lock, NULL);
	pthread_rwlock_init(&vm->msr_filter_lock, NULL);
	vm->ring_fd = -1;
	vm->stats_fd = -1;
	vm->default_tsc_khz = cfg->tsc_khz;
	vm->stat_fd = um_stat_create(&vm->stat);
	if (vm->stat_fd < 0) {
		err = vm->stat_fd;
		vm->stat = NULL;
		goto fail;
	}
	vm->ioeventfds = um_ioeventfds_create();
	if (!vm->ioeventfds)
		goto fail;
	err = um_coalesced_init(vm);
	if (err)
		goto fail;
	err = um_hv_vm_init(vm);
	if (err)
		goto fail;
	err = -ENOMEM;
	vm->mem = um_mem_create(&vm->cfg.trace);
	if (!vm->mem)
		goto fail;
	mmu_cfg.trace = &vm->cfg.trace;
	mmu_cfg.counters = &vm->stat->block[0].counters;
	vm->mmu = um_mmu_vm_create(vm->mem, &mmu_cfg);
	if (!vm->mmu)
		goto fail;
	um_clock_init(vm);
	*out = vm;
	return 0;
fail:
	destroy(vm);
	return err;
}

void um_vm_get(struct um_vm *vm)
{
	atomic_fetch_add(&vm->refs, 1);
}

void um_vm_put(struct um_vm *vm)
{
	if (atomic_fetch_sub(&vm->refs, 1) == 1)
		destroy(vm);
}

int um_vm_create_irqchip(struct um_vm *vm, bool split, u32 nr_reserved_pins)
{
	struct um_irqchip_config cfg = {
		.split = split,
		.nr_reserved_pins = nr_reserved_pins,
		.trace = &vm->cfg.trace,
		.counters = &vm->stat->block[0].counters,
	};
	struct um_irqchip *chip;
	int err = 0;

	pthread_mutex_lock(&vm->lock);
	if (um_vm_irqchip(vm))
		err = -EEXIST;
	else if (atomic_load(&vm->nvcpus))
		err = -EINVAL;
	else
		err = um_irqchip_create(&chip, &cfg);
	if (!err) {
		um_irqchip_disable_quirks(chip, vm->quirks_disabled);
		um_irqchip_set_x2apic_api(chip, vm->x2apic_flags);
		atomic_store_explicit(&vm->irqchip, chip, memory_order_release);
	}
	pthread_mutex_unlock(&vm->lock);
	return err;
}

int um_vm_enable_dirty_rings(struct um_vm *vm, u64 bytes)
{
	int err = 0;

	if (!bytes || (bytes & (bytes - 1)) || bytes < UM_PAGE_SIZE ||
	    bytes <= UM_RING_RESERVED * sizeof(struct kvm_dirty_gfn))
		return -EINVAL;
	if (bytes > UM_RING_MAX_ENTRIES * sizeof(struct kvm_dirty_gfn))
		return -E2BIG;
	pthread_mutex_lock(&vm->lock);
	if (vm->ring_bytes || atomic_load(&vm->nvcpus))
		err = -EINVAL;
	else
		WRITE_ONCE(vm->ring_bytes, (u32)bytes);
	if (!err)
		um_mem_enable_rings(vm->mem);
	pthread_mutex_unlock(&vm->lock);
	return err;
}

struct um_vcpu *um_vm_find_vcpu(struct um_vm *vm, u32 id)
{
	struct um_vcpu *v;
	unsigned i;

	um_for_each_vcpu(vm, i, v)
	{
		if (v->id == id)
			return v;
	}
	return NULL;
}
