// SPDX-License-Identifier: MIT
/*
 * Making, resetting and waking a vCPU.
 *
 * Waking.  A vCPU that sleeps waits on a futex: the first 32 bits of struct kvm_run.  They hold
 * immediate_exit, which the VMM's signal handler sets, and two bytes of padding that count the kicks.
 * So a signal between the last look at immediate_exit and the wait is not lost: the word has changed.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/cpuid.h"
#include "cpu/tsc.h"
#include "vcpu/hyperv.h"
#include "vcpu/vcpu.h"

_Static_assert(offsetof(struct kvm_run, immediate_exit) < 4 &&
		       offsetof(struct kvm_run, padding1) == 2,
	       "immediate_exit and the count of kicks share a futex word");

void um_vcpu_kick(struct um_vcpu *v)
{
	um_exec_kick(&v->x);
	/* Sequentially consistent on both sides: either we see it waiting, or it sees the request. */
	if (atomic_load(&v->waiting)) {
		__atomic_fetch_add((u16 *)v->run->padding1, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, v->run, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
}

void um_vcpu_request(struct um_vcpu *v, unsigned req)
{
	atomic_fetch_or(&v->requests, req);
	um_vcpu_kick(v);
}

/* ---- what the LAPIC tells its vCPU ---- */

static void on_kick(void *vcpu)
{
	um_vcpu_kick(vcpu);
}

static void on_nmi(void *vcpu)
{
	um_vcpu_nmi(vcpu);
}

static void on_smi(void *vcpu)
{
	um_vcpu_request(vcpu, UM_REQ_SMI);
}

static void on_init(void *vcpu)
{
	struct um_vcpu *v = vcpu;

	/* A start-up IPI before this INIT counts no more. */
	atomic_fetch_and(&v->requests, ~(unsigned)UM_REQ_SIPI);
	um_vcpu_request(v, UM_REQ_INIT);
}

static void on_sipi(void *vcpu, u8 vector)
{
	struct um_vcpu *v = vcpu;

	atomic_store(&v->sipi_vector, vector);
	um_vcpu_request(v, UM_REQ_SIPI);
}

static void on_tsc(void *vcpu, u64 *now, u32 *khz)
{
	struct um_vcpu *v = vcpu;

	*now = um_guest_tsc(&v->x.cpu);
	*khz = v->tsc_khz;
}

static bool on_guest_read8(void *vcpu, gpa_t gpa, u8 *val)
{
	return um_mem_read(((struct um_vcpu *)vcpu)->vm->mem, 0, gpa, val, 1) == 0;
}

static bool on_guest_write8(void *vcpu, gpa_t gpa, u8 val)
{
	return um_mem_write(((struct um_vcpu *)vcpu)->vm->mem, 0, gpa, &val, 1) == 0;
}

static void on_sint_eoi(void *vcpu, u32 sints)
{
	um_hv_sint_eoi(vcpu, sints);
}

static const struct um_lapic_ops lapic_ops = {
	.kick = on_kick,
	.nmi = on_nmi,
	.smi = on_smi,
	.init = on_init,
	.sipi = on_sipi,
	.tsc = on_tsc,
	.guest_read8 = on_guest_read8,
	.guest_write8 = on_guest_write8,
	.sint_eoi = on_sint_eoi,
};

/* ---- life ---- */

static void destroy(struct um_vcpu *v)
{
	if (v->poll_timer_ready)
		um_timer_destroy(&v->poll_timer);
	um_hv_vcpu_destroy(v);
	if (v->lapic)
		um_lapic_destroy(v->lapic);
	um_engine_destroy(&v->x);
	if (v->mmu)
		um_mmu_destroy(v->mmu);
	if (v->stats_fd >= 0)
		close(v->stats_fd);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static int add_dirty_ring(struct um_vcpu *v)
{
	void *ring = (char *)v->run + KVM_DIRTY_LOG_PAGE_OFFSET * UM_PAGE_SIZE;
	u32 bytes = v->vm->ring_bytes;
	int err;

	if (!bytes)
		return 0;
	err = um_mem_add_ring(v->vm->mem, ring, bytes / sizeof(struct kvm_dirty_gfn), on_kick, v,
			      &v->ring);
	if (!err)
		um_mmu_set_dirty_ring(v->mmu, v->ring);
	return err;
}

static int init_parts(struct um_vcpu *v)
{
	struct um_vm *vm = v->vm;
	struct um_irqchip *chip = um_vm_irqchip(vm);
	int err;

	v->mmu = um_mmu_create(vm->mmu, &v->x.cpu, v->counters, on_kick, v);
	if (!v->mmu)
		return -ENOMEM;
	v->x.tlb = um_mmu_tlb(v->mmu);
	v->x.mmu = v->mmu;
	v->x.counters = v->counters;
	v->x.trace = &vm->cfg.trace;
	v->x.immediate_exit = &v->run->immediate_exit;
	v->x.split_lock = &vm->split_lock;
	v->x.engine = (u8)vm->cfg.engine;
	/* In lockstep speed is no matter, and all that can be translated is to be compared. */
	v->x.jit_threshold = v->x.engine == UM_ENGINE_LOCKSTEP ? 0 : vm->cfg.jit.threshold;
	v->x.jit_options = &vm->cfg.jit;
	v->x.lockstep_queue = &vm->lockstep_queue;
	err = um_engine_init(&v->x);
	if (err)
		return err;
	if (chip) {
		err = um_lapic_create(&v->lapic, chip, v->id, v->id == vm->bsp_id, &lapic_ops, v);
		if (err)
			return err;
	}
	err = um_hv_vcpu_init(v);
	if (err)
		return err;
	um_cpuid_init(&v->x.cpu);
	um_tsc_init(v);
	um_vcpu_reset(v, false);
	/* From here on it can be kicked: nothing may fail any more. */
	return add_dirty_ring(v);
}

size_t um_vcpu_run_size(const struct um_vm *vm)
{
	u32 ring = READ_ONCE(vm->ring_bytes);

	return ring ? KVM_DIRTY_LOG_PAGE_OFFSET * UM_PAGE_SIZE + ring : UM_RUN_PAGES * UM_PAGE_SIZE;
}

int um_vcpu_create(struct um_vm *vm, u32 id, struct kvm_run *run, size_t size, struct um_vcpu **out)
{
	struct um_vcpu *v;
	unsigned n;
	int err;

	if (id >= UM_MAX_VCPU_IDS)
		return -EINVAL;
	v = aligned_alloc(64, ALIGN_UP(sizeof(*v), 64));
	if (!v)
		return -ENOMEM;
	memset(v, 0, sizeof(*v));
	v->vm = vm;
	v->id = id;
	v->run = run;
	v->stats_fd = -1;
	pthread_mutex_init(&v->lock, NULL);

	pthread_mutex_lock(&vm->lock);
	n = atomic_load(&vm->nvcpus);
	v->index = n;
	if (!vm->max_vcpu_ids)
		vm->max_vcpu_ids = UM_MAX_VCPU_IDS;
	if (n >= UM_MAX_VCPUS || id >= vm->max_vcpu_ids || size != um_vcpu_run_size(vm))
		err = -EINVAL;
	else if (um_vm_find_vcpu(vm, id))
		err = -EEXIST;
	else
		err = 0;
	if (!err) {
		v->counters = &vm->stat->block[1 + n].counters;
		err = init_parts(v);
	}
	if (!err) {
		um_vm_get(vm);
		vm->vcpu[n] = v;
		atomic_store(&vm->nvcpus, n + 1);
		__atomic_store_n(&vm->stat->nblocks, n + 2, __ATOMIC_RELEASE);
		if (n == 1) /* which is no longer alone: um_exec.alone */
			um_exec_kick(&vm->vcpu[0]->x);
	}
	pthread_mutex_unlock(&vm->lock);
	if (err) {
		destroy(v);
		return err;
	}
	*out = v;
	return 0;
}

void um_vcpu_destroy(struct um_vcpu *v)
{
	size_t size = um_vcpu_run_size(v->vm);
	struct kvm_run *run = v->run;

	destroy(v);
	munmap(run, size);
}

void um_vcpu_reset(struct um_vcpu *v, bool init)
{
	struct um_exec *x = &v->x;

	um_cpu_reset(&x->cpu, init);
	if (v->lapic) {
		um_lapic_reset(v->lapic, init);
	} else if (!init) {
		v->apic_base = UM_LAPIC_BASE | BIT(11) | (v->id == v->vm->bsp_id ? BIT(8) : 0);
	}
	x->cpu.apic_enabled = um_vcpu_get_apic_base(v) & BIT(11);
	v->cr8 = 0;

	v->exc_pending = false;
	v->irq_pending = false;
	v->nmi_pending = 0;
	atomic_store(&v->nmi_queued, 0);
	v->triple_fault = false;
	atomic_fetch_and(&v->requests, ~(unsigned)UM_REQ_SMI);
	v->smi_pending = false;
	v->smi_halted = false;
	v->smm_inside_nmi = false;
	x->cpu.msr.smi_count = 0;
	v->pv_unhalted = false;
	/* What the guest registered is the memory of a kernel that is no more. */
	v->pv_system_time = 0;
	v->pv_steal = 0;
	v->steal_preempted = false;
	if (!init) {
		v->pv_poll_control = 1;
		v->mp_state = !v->lapic || v->id == v->vm->bsp_id ? KVM_MP_STATE_RUNNABLE
								  : KVM_MP_STATE_UNINITIALIZED;
	}
	um_vcpu_cancel_io(v);
	um_vcpu_state_changed(v);
}

void um_vcpu_cancel_io(struct um_vcpu *v)
{
	v->x.mmio.done = 0;
	v->x.mmio.pos = 0;
	v->x.pio.state = UM_PIO_IDLE;
	v->user_io = UM_USER_NONE;
}

void um_vcpu_state_changed(struct um_vcpu *v)
{
	um_mmu_reset_context(v->mmu);
	um_mmu_flush_all(v->mmu);
	um_mmu_rights_changed(v->mmu);
	/* An event may be delivered before the engine runs. */
	um_exec_sync(&v->x);
}
