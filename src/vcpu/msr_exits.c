// SPDX-License-Identifier: MIT
/*
 * The guest's RDMSR and WRMSR: what the VMM forbids (KVM_X86_SET_MSR_FILTER, api.rst 4.97), and what it wants to
 * answer itself (KVM_CAP_X86_USER_SPACE_MSR).
 *
 * A filter is up to 16 ranges with a bit for each MSR, and a default for all others; the first range that has the
 * MSR and speaks of this kind of access decides.  The x2APIC's registers are never filtered.  VMMs replace
 * filters while vCPUs run; a read-write lock makes that safe, and a VM without a filter does not take it.
 *
 * An access that fails is the guest's #GP(0), or an exit if the VMM asked for those of its reason.  The answer is
 * taken when KVM_RUN is called again, before anything else happens to the vCPU.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/uaccess.h"
#include "cpu/msr.h"
#include "vcpu/vcpu.h"

struct range {
	u32 first, n, flags; /* KVM_MSR_FILTER_READ, _WRITE */
	u8 *allowed;
};

struct um_msr_filter {
	bool allow; /* what is in no range */
	unsigned n;
	struct range range[KVM_MSR_FILTER_MAX_RANGES];
};

static void free_filter(struct um_msr_filter *f)
{
	for (unsigned i = 0; f && i < f->n; i++)
		free(f->range[i].allowed);
	free(f);
}

static int add_range(struct um_msr_filter *f, const struct kvm_msr_filter_range *r)
{
	/* As the kernel copies it: in words of 64 bits. */
	size_t size = ((size_t)r->nmsrs + 63) / 64 * 8;
	u8 *allowed;

	if (!r->nmsrs)
		return 0;
	if (!r->flags || r->flags & ~(u32)(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE) ||
	    size > KVM_MSR_FILTER_MAX_BITMAP_SIZE)
		return -EINVAL;
	allowed = malloc(size);
	if (!allowed)
		return -ENOMEM;
	if (um_copy_from(allowed, r->bitmap, size)) {
		free(allowed);
		return -EFAULT;
	}
	f->range[f->n++] = (struct range){
		.first = r->base, .n = r->nmsrs, .flags = r->flags, .allowed = allowed
	};
	return 0;
}

static int build(const struct kvm_msr_filter *args, struct um_msr_filter **out)
{
	struct um_msr_filter *f;
	int err = 0;

	if (args->flags & ~(u32)KVM_MSR_FILTER_DEFAULT_DENY)
		return -EINVAL;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->allow = !(args->flags & KVM_MSR_FILTER_DEFAULT_DENY);
	for (unsigned i = 0; i < KVM_MSR_FILTER_MAX_RANGES && !err; i++)
		err = add_range(f, &args->ranges[i]);
	if (!err && !f->n && !f->allow) /* no MSR at all: surely a mistake */
		err = -EINVAL;
	if (err) {
		free_filter(f);
		return err;
	}
	*out = f;
	return 0;
}

static void replace(struct um_vm *vm, struct um_msr_filter *f)
{
	struct um_msr_filter *old;
	struct um_vcpu *v;
	unsigned i;

	pthread_rwlock_wrlock(&vm->msr_filter_lock);
	old = atomic_exchange(&vm->msr_filter, f);
	pthread_rwlock_unlock(&vm->msr_filter_lock);
	free_filter(old);
	/* Engines do some accesses by themselves as long as there is no filter. */
	um_for_each_vcpu(vm, i, v) um_vcpu_kick(v);
}

int um_vm_set_msr_filter(struct um_vm *vm, const struct kvm_msr_filter *args)
{
	struct um_msr_filter *f;
	int err = build(args, &f);

	if (err)
		return err;
	if (!f->n) { /* everything is allowed: the same as no filter */
		free_filter(f);
		f = NULL;
	}
	replace(vm, f);
	return 0;
}

void um_vm_free_msr_filter(struct um_vm *vm)
{
	free_filter(atomic_load(&vm->msr_filter));
}

static bool decide(const struct um_msr_filter *f, u32 msr, u32 access)
{
	for (unsigned i = 0; i < f->n; i++) {
		const struct range *r = &f->range[i];
		u32 bit = msr - r->first;

		if (bit < r->n && r->flags & access)
			return r->allowed[bit / 8] >> (bit % 8) & 1;
	}
	return f->allow;
}

static bool filter_allows(struct um_vm *vm, u32 msr, u32 access)
{
	struct um_msr_filter *f;
	bool ok = true;

	if (likely(!atomic_load_explicit(&vm->msr_filter, memory_order_relaxed)) ||
	    (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST))
		return true;
	pthread_rwlock_rdlock(&vm->msr_filter_lock);
	f = atomic_load(&vm->msr_filter);
	if (f)
		ok = decide(f, msr, access);
	pthread_rwlock_unlock(&vm->msr_filter_lock);
	return ok;
}

static int raise_gp(struct um_vcpu *v)
{
	um_vcpu_queue_exception(v, UM_VEC_GP, true, 0);
	return 1;
}

/* @reason: KVM_MSR_EXIT_REASON_... why the access can't be done here. */
static int fail(struct um_vcpu *v, u32 reason, u32 msr, bool write, u64 val)
{
	struct kvm_run *run = v->run;

	if (!(READ_ONCE(v->vm->user_msr_reasons) & reason))
		return raise_gp(v);
	run->exit_reason = write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
	memset(&run->msr, 0, sizeof(run->msr));
	run->msr.reason = reason;
	run->msr.index = msr;
	run->msr.data = val;
	v->user_io = write ? UM_USER_WRMSR : UM_USER_RDMSR;
	v->user_insn_len = (u8)v->x.exit.insn_len;
	return 0;
}

static u32 failure_reason(u32 msr)
{
	return um_msr_exists(msr) ? KVM_MSR_EXIT_REASON_INVAL : KVM_MSR_EXIT_REASON_UNKNOWN;
}

static void set_result(struct um_vcpu *v, u64 val)
{
	v->x.cpu.gpr[UM_RAX] = (u32)val;
	v->x.cpu.gpr[UM_RDX] = val >> 32;
}

int um_vcpu_rdmsr(struct um_vcpu *v)
{
	u32 msr = (u32)v->x.cpu.gpr[UM_RCX], reason = 0;
	u64 val = 0;

	if (!filter_allows(v->vm, msr, KVM_MSR_FILTER_READ))
		reason = KVM_MSR_EXIT_REASON_FILTER;
	else if (!um_vcpu_get_msr(v, msr, false, &val))
		reason = failure_reason(msr);
	um_count(v->counters, msr_accesses);
	um_trace(&v->vm->cfg.trace, msr, "vcpu %u: rdmsr %#x = %#llx%s", v->id, msr,
		 (unsigned long long)val, reason ? " fails" : "");
	if (reason)
		return fail(v, reason, msr, false, 0);
	set_result(v, val);
	return um_vcpu_retire(v);
}

int um_vcpu_wrmsr(struct um_vcpu *v)
{
	const u64 *gpr = v->x.cpu.gpr;
	u32 msr = (u32)gpr[UM_RCX], reason = 0;
	u64 val = gpr[UM_RDX] << 32 | (u32)gpr[UM_RAX];

	if (!filter_allows(v->vm, msr, KVM_MSR_FILTER_WRITE))
		reason = KVM_MSR_EXIT_REASON_FILTER;
	else if (!um_vcpu_set_msr(v, msr, false, val))
		reason = failure_reason(msr);
	um_count(v->counters, msr_accesses);
	um_trace(&v->vm->cfg.trace, msr, "vcpu %u: wrmsr %#x = %#llx%s", v->id, msr,
		 (unsigned long long)val, reason ? " fails" : "");
	return reason ? fail(v, reason, msr, true, val) : um_vcpu_retire(v);
}

int um_vcpu_complete_msr(struct um_vcpu *v, bool write)
{
	/* The VMM may have looked at other things meanwhile, through the engine. */
	v->x.exit.insn_len = v->user_insn_len;
	if (v->run->msr.error)
		return raise_gp(v);
	if (!write)
		set_result(v, v->run->msr.data);
	return um_vcpu_retire(v);
}
