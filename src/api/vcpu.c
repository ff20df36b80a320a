// SPDX-License-Identifier: MIT
/* Requests on a vCPU's descriptor (api.rst, "vcpu ioctls").  All of them hold the vCPU's lock. */
#include <errno.h>
#include <linux/ioctl.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/lists.h"
#include "api/thread.h"
#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/xsave.h"
#include "vcpu/hyperv.h"

static long run(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;
	long r;

	if (arg)
		return -EINVAL;
	v->wanted_back = um_thread_set_vcpu(v);
	r = um_vcpu_run(v);
	um_thread_set_vcpu(NULL);
	return r;
}

/* ---- registers ---- */

static long get_regs(void *obj, unsigned long arg, void *data)
{
	um_vcpu_get_regs(obj, data);
	return 0;
}

static long set_regs(void *obj, unsigned long arg, void *data)
{
	um_vcpu_set_regs(obj, data);
	return 0;
}

static long get_sregs(void *obj, unsigned long arg, void *data)
{
	um_vcpu_get_sregs(obj, data);
	return 0;
}

static long set_sregs(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_set_sregs(obj, data);
}

static long get_sregs2(void *obj, unsigned long arg, void *data)
{
	um_vcpu_get_sregs2(obj, data);
	return 0;
}

static long set_sregs2(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_set_sregs2(obj, data);
}

static long get_debugregs(void *obj, unsigned long arg, void *data)
{
	um_vcpu_get_debugregs(obj, data);
	return 0;
}

static long set_debugregs(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_set_debugregs(obj, data);
}

static long set_guest_debug(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_set_guest_debug(obj, data);
}

/* struct kvm_fpu is the legacy region in another order (SDM vol. 1 10.5.1). */
static long get_fpu(void *obj, unsigned long arg, void *data)
{
	const struct um_fpu *f = &((struct um_vcpu *)obj)->x.cpu.fpu;
	struct kvm_fpu *k = data;

	memset(k, 0, sizeof(*k));
	memcpy(k->fpr, f->fxsave + 32, sizeof(k->fpr));
	memcpy(&k->fcw, f->fxsave, 2);
	memcpy(&k->fsw, f->fxsave + 2, 2);
	k->ftwx = f->fxsave[4];
	memcpy(&k->last_opcode, f->fxsave + 6, 2);
	memcpy(&k->last_ip, f->fxsave + 8, 8);
	memcpy(&k->last_dp, f->fxsave + 16, 8);
	for (unsigned i = 0; i < ARRAY_SIZE(k->xmm); i++)
		memcpy(k->xmm[i], f->zmm[i], sizeof(k->xmm[i]));
	k->mxcsr = f->mxcsr;
	return 0;
}

static long set_fpu(void *obj, unsigned long arg, void *data)
{
	struct um_fpu *f = &((struct um_vcpu *)obj)->x.cpu.fpu;
	const struct kvm_fpu *k = data;

	memcpy(f->fxsave + 32, k->fpr, sizeof(k->fpr));
	memcpy(f->fxsave, &k->fcw, 2);
	memcpy(f->fxsave + 2, &k->fsw, 2);
	f->fxsave[4] = k->ftwx;
	f->fxsave[5] = 0;
	memcpy(f->fxsave + 6, &k->last_opcode, 2);
	memcpy(f->fxsave + 8, &k->last_ip, 8);
	memcpy(f->fxsave + 16, &k->last_dp, 8);
	for (unsigned i = 0; i < ARRAY_SIZE(k->xmm); i++)
		memcpy(f->zmm[i], k->xmm[i], sizeof(k->xmm[i]));
	f->mxcsr = k->mxcsr & UM_MXCSR_MASK;
	f->xinuse |= XCR0_X87 | XCR0_SSE;
	return 0;
}

static long get_xsave(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;

	memset(data, 0, UM_XSAVE_MAX);
	um_fpu_to_xsave(&v->x.cpu.fpu, data, um_xsave_layout()->supported, false);
	return 0;
}

static long set_xsave(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;
	u64 all = um_xsave_layout()->supported;

	if (um_xsave_check(data, all, all))
		return -EINVAL;
	um_fpu_from_xsave(&v->x.cpu.fpu, data, all);
	/* PKRU may have changed. */
	um_mmu_rights_changed(v->mmu);
	return 0;
}

static long get_xcrs(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;
	struct kvm_xcrs *x = data;

	if (!(um_supported_cr4() & CR4_OSXSAVE))
		return -EINVAL;
	x->nr_xcrs = 1;
	x->xcrs[0].xcr = 0;
	x->xcrs[0].value = v->x.cpu.xcr0;
	return 0;
}

/* What XSETBV would take (SDM vol. 1 13.3). */
static bool valid_xcr0(const struct um_cpu *c, u64 xcr0)
{
	if (!(xcr0 & XCR0_X87) || (xcr0 & ~(c->xcr0_allowed | XCR0_X87)))
		return false;
	if ((xcr0 & XCR0_AVX) && !(xcr0 & XCR0_SSE))
		return false;
	return !(xcr0 & XCR0_AVX512) || ((xcr0 & XCR0_AVX) && (xcr0 & XCR0_AVX512) == XCR0_AVX512);
}

static long set_xcrs(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;
	const struct kvm_xcrs *x = data;

	if (!(um_supported_cr4() & CR4_OSXSAVE) || x->nr_xcrs > KVM_MAX_XCRS || x->flags)
		return -EINVAL;
	for (u32 i = 0; i < x->nr_xcrs; i++) {
		if (x->xcrs[i].xcr)
			continue;
		if (!valid_xcr0(&v->x.cpu, x->xcrs[i].value))
			return -EINVAL;
		v->x.cpu.xcr0 = x->xcrs[i].value;
		break;
	}
	return 0;
}

/* ---- MSRs and CPUID ---- */

static bool get_msr(void *v, u32 msr, u64 *val)
{
	return um_vcpu_get_msr(v, msr, true, val);
}

static bool set_msr(void *v, u32 msr, u64 val)
{
	return um_vcpu_set_msr(v, msr, true, val);
}

static long get_msrs(void *obj, unsigned long arg, void *data)
{
	return um_api_get_msrs(arg, get_msr, obj);
}

static long set_msrs(void *obj, unsigned long arg, void *data)
{
	return um_api_set_msrs(arg, set_msr, obj);
}

/* After the guest has run, its CPUID is what it is: only the same may be set again. */
static long same_cpuid(struct um_vcpu *v, const struct kvm_cpuid_entry2 *e, unsigned n)
{
	const struct um_cpu *c = &v->x.cpu;
	struct kvm_cpuid_entry2 *now;
	bool same;

	if (n != c->ncpuid)
		return -EINVAL;
	now = calloc(n + 1, sizeof(*now));
	if (!now)
		return -ENOMEM;
	um_cpuid_get(c, now, n);
	same = um_cpuid_equal(c, e, now, n);
	free(now);
	return same ? 0 : -EINVAL;
}

static long take_cpuid(struct um_vcpu *v, const struct kvm_cpuid_entry2 *e, unsigned n)
{
	struct um_cpu *c = &v->x.cpu;
	long r;

	if (v->ran)
		return same_cpuid(v, e, n);
	r = um_cpuid_set(c, e, n);
	if (r)
		return r;
	if (v->lapic)
		um_lapic_set_cpuid(v->lapic, um_cpu_has(c, UM_F_X2APIC),
				   um_cpu_has(c, UM_F_TSC_DEADLINE), c->maxphyaddr);
	um_hv_cpuid_changed(v);
	um_vcpu_state_changed(v);
	return 0;
}

static long set_cpuid2(void *obj, unsigned long arg, void *data)
{
	struct kvm_cpuid_entry2 *e;
	long n = um_api_copy_cpuid(arg, &e);

	if (n >= 0) {
		n = take_cpuid(obj, e, (unsigned)n);
		free(e);
	}
	return n;
}

static long set_cpuid(void *obj, unsigned long arg, void *data)
{
	struct kvm_cpuid_entry2 *e;
	long n = um_api_copy_cpuid1(arg, &e);

	if (n >= 0) {
		n = take_cpuid(obj, e, (unsigned)n);
		free(e);
	}
	return n;
}

static int fill_cpuid(void *v, struct kvm_cpuid_entry2 *e, unsigned max)
{
	return um_cpuid_get(&((struct um_vcpu *)v)->x.cpu, e, max);
}

static long get_cpuid2(void *obj, unsigned long arg, void *data)
{
	return um_api_get_cpuid(arg, fill_cpuid, obj);
}

static int fill_hv_cpuid(void *v, struct kvm_cpuid_entry2 *e, unsigned max)
{
	return um_hv_supported_cpuid(((struct um_vcpu *)v)->lapic, e, max);
}

static long get_supported_hv_cpuid(void *obj, unsigned long arg, void *data)
{
	return um_api_get_cpuid(arg, fill_hv_cpuid, obj);
}

/* ---- events and interrupts ---- */

static long get_vcpu_events(void *obj, unsigned long arg, void *data)
{
	um_vcpu_get_events(obj, data);
	return 0;
}

static long set_vcpu_events(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_set_events(obj, data);
}

static long get_mp_state(void *obj, unsigned long arg, void *data)
{
	um_vcpu_get_mp_state(obj, data);
	return 0;
}

static long set_mp_state(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_set_mp_state(obj, data);
}

static long interrupt(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_interrupt(obj, ((struct kvm_interrupt *)data)->irq);
}

static long nmi(void *obj, unsigned long arg, void *data)
{
	um_vcpu_nmi(obj);
	return 0;
}

static long smi(void *obj, unsigned long arg, void *data)
{
	um_vcpu_request(obj, UM_REQ_SMI);
	return 0;
}

static long get_lapic(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;

	if (!v->lapic)
		return -EINVAL;
	um_lapic_get_state(v->lapic, data);
	return 0;
}

static long set_lapic(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;

	return v->lapic ? um_lapic_set_state(v->lapic, data) : -EINVAL;
}

/*
 * Where an option ROM of QEMU's keeps a copy of TPR, for guests that it patches because their accesses to TPR
 * were slow on old VT-x.  They are not slow here: QEMU says 0, "nowhere", which must work; a guest is patched
 * only after KVM_EXIT_TPR_ACCESS, which never comes.
 */
static long set_vapic_addr(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;

	return v->lapic && !((struct kvm_vapic_addr *)data)->vapic_addr ? 0 : -EINVAL;
}

static long setup_mce(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;
	u64 mcg_cap = *(u64 *)data;
	int err = um_msr_setup_mce(&v->x.cpu, mcg_cap);

	if (!err && v->lapic)
		um_lapic_set_cmci(v->lapic, mcg_cap & UM_MCG_CMCI_P);
	return err;
}

static long set_mce(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_set_mce(obj, data);
}

/* ---- the rest ---- */

static long set_signal_mask(void *obj, unsigned long arg, void *data)
{
	struct kvm_signal_mask head;
	sigset_t mask;
	u64 bits;

	if (!arg)
		return um_vcpu_set_signal_mask(obj, NULL);
	if (um_copy_in_user(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.len != sizeof(bits))
		return -EINVAL;
	if (um_copy_in_user(&bits, arg + sizeof(head), sizeof(bits)))
		return -EFAULT;
	sigemptyset(&mask);
	for (int sig = 1; sig <= 64; sig++) {
		/* The ones that the C library keeps for itself it does not let us set: fine. */
		if (bits >> (sig - 1) & 1 && sig != SIGKILL && sig != SIGSTOP)
			sigaddset(&mask, sig);
	}
	return um_vcpu_set_signal_mask(obj, &mask);
}

/* A debugger's look at an address: no effects, as supervisor. */
static long translate(void *obj, unsigned long arg, void *data)
{
	struct um_vcpu *v = obj;
	struct kvm_translation *t = data;
	struct um_fault f = {
		.gva = t->linear_address,
		.acc = UM_READ,
		.priv = UM_PRIV_KERNEL,
		.implicit = true,
		.probe = true,
	};

	t->valid = um_mmu_access(v->mmu, &f) != UM_ACCESS_FAULT;
	t->physical_address = t->valid ? f.gpa : ~0ull;
	t->writeable = 1;
	t->usermode = 0;
	return 0;
}

static long get_tsc_khz(void *obj, unsigned long arg, void *data)
{
	return ((struct um_vcpu *)obj)->tsc_khz;
}

static long set_tsc_khz(void *obj, unsigned long arg, void *data)
{
	if (arg > UM_TSC_KHZ_MAX)
		return -EINVAL;
	return um_vcpu_set_tsc_khz(obj, (u32)arg);
}

/* The one attribute: what is added to the host's TSC, scaled. */
static long has_device_attr(void *obj, unsigned long arg, void *data)
{
	const struct kvm_device_attr *a = data;

	return a->group != KVM_VCPU_TSC_CTRL || a->attr != KVM_VCPU_TSC_OFFSET ? -ENXIO : 0;
}

static long get_device_attr(void *obj, unsigned long arg, void *data)
{
	const struct kvm_device_attr *a = data;
	u64 offset = ((struct um_vcpu *)obj)->x.cpu.tsc_offset;
	long err = has_device_attr(obj, arg, data);

	return err ? err : um_copy_out_user(a->addr, &offset, sizeof(offset));
}

static long set_device_attr(void *obj, unsigned long arg, void *data)
{
	const struct kvm_device_attr *a = data;
	long err = has_device_attr(obj, arg, data);
	u64 offset;

	if (!err)
		err = um_copy_in_user(&offset, a->addr, sizeof(offset));
	if (!err)
		um_tsc_set_offset(obj, offset);
	return err;
}

static long kvmclock_ctrl(void *obj, unsigned long arg, void *data)
{
	return um_pv_guest_stopped(obj);
}

static long enable_cap(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_enable_cap(obj, data);
}

static long get_stats_fd(void *obj, unsigned long arg, void *data)
{
	return um_vcpu_stats_fd(obj);
}

static const struct um_ioctl vcpu_ioctls[] = {
	UM_IOCTL(KVM_RUN, VAL, char, run),
	UM_IOCTL(KVM_GET_REGS, OUT, struct kvm_regs, get_regs),
	UM_IOCTL(KVM_SET_REGS, IN, struct kvm_regs, set_regs),
	UM_IOCTL(KVM_GET_SREGS, OUT, struct kvm_sregs, get_sregs),
	UM_IOCTL(KVM_SET_SREGS, IN, struct kvm_sregs, set_sregs),
	UM_IOCTL(KVM_GET_SREGS2, OUT, struct kvm_sregs2, get_sregs2),
	UM_IOCTL(KVM_SET_SREGS2, IN, struct kvm_sregs2, set_sregs2),
	UM_IOCTL(KVM_GET_DEBUGREGS, OUT, struct kvm_debugregs, get_debugregs),
	UM_IOCTL(KVM_SET_DEBUGREGS, IN, struct kvm_debugregs, set_debugregs),
	UM_IOCTL(KVM_SET_GUEST_DEBUG, IN, struct kvm_guest_debug, set_guest_debug),
	UM_IOCTL(KVM_GET_FPU, OUT, struct kvm_fpu, get_fpu),
	UM_IOCTL(KVM_SET_FPU, IN, struct kvm_fpu, set_fpu),
	UM_IOCTL(KVM_GET_XSAVE, OUT, struct kvm_xsave, get_xsave),
	UM_IOCTL(KVM_GET_XSAVE2, OUT, struct kvm_xsave, get_xsave),
	UM_IOCTL(KVM_SET_XSAVE, IN, struct kvm_xsave, set_xsave),
	UM_IOCTL(KVM_GET_XCRS, OUT, struct kvm_xcrs, get_xcrs),
	UM_IOCTL(KVM_SET_XCRS, IN, struct kvm_xcrs, set_xcrs),
	UM_IOCTL(KVM_GET_MSRS, RAW, char, get_msrs),
	UM_IOCTL(KVM_SET_MSRS, RAW, char, set_msrs),
	UM_IOCTL(KVM_SET_CPUID, RAW, char, set_cpuid),
	UM_IOCTL(KVM_SET_CPUID2, RAW, char, set_cpuid2),
	UM_IOCTL(KVM_GET_CPUID2, RAW, char, get_cpuid2),
	UM_IOCTL(KVM_GET_SUPPORTED_HV_CPUID, RAW, char, get_supported_hv_cpuid),
	UM_IOCTL(KVM_GET_VCPU_EVENTS, OUT, struct kvm_vcpu_events, get_vcpu_events),
	UM_IOCTL(KVM_SET_VCPU_EVENTS, IN, struct kvm_vcpu_events, set_vcpu_events),
	UM_IOCTL(KVM_GET_MP_STATE, OUT, struct kvm_mp_state, get_mp_state),
	UM_IOCTL(KVM_SET_MP_STATE, IN, struct kvm_mp_state, set_mp_state),
	UM_IOCTL(KVM_INTERRUPT, IN, struct kvm_interrupt, interrupt),
	UM_IOCTL(KVM_NMI, VAL, char, nmi),
	UM_IOCTL(KVM_SMI, VAL, char, smi),
	UM_IOCTL(KVM_GET_LAPIC, OUT, struct kvm_lapic_state, get_lapic),
	UM_IOCTL(KVM_SET_LAPIC, IN, struct kvm_lapic_state, set_lapic),
	UM_IOCTL(KVM_SET_VAPIC_ADDR, IN, struct kvm_vapic_addr, set_vapic_addr),
	UM_IOCTL(KVM_X86_SETUP_MCE, IN, u64, setup_mce),
	UM_IOCTL(KVM_X86_SET_MCE, IN, struct kvm_x86_mce, set_mce),
	UM_IOCTL(KVM_SET_SIGNAL_MASK, RAW, char, set_signal_mask),
	UM_IOCTL(KVM_TRANSLATE, INOUT, struct kvm_translation, translate),
	UM_IOCTL(KVM_GET_TSC_KHZ, VAL, char, get_tsc_khz),
	UM_IOCTL(KVM_SET_TSC_KHZ, VAL, char, set_tsc_khz),
	UM_IOCTL(KVM_HAS_DEVICE_ATTR, IN, struct kvm_device_attr, has_device_attr),
	UM_IOCTL(KVM_GET_DEVICE_ATTR, IN, struct kvm_device_attr, get_device_attr),
	UM_IOCTL(KVM_SET_DEVICE_ATTR, IN, struct kvm_device_attr, set_device_attr),
	UM_IOCTL(KVM_KVMCLOCK_CTRL, VAL, char, kvmclock_ctrl),
	UM_IOCTL(KVM_GET_STATS_FD, VAL, char, get_stats_fd),
	UM_IOCTL(KVM_ENABLE_CAP, IN, struct kvm_enable_cap, enable_cap),
};

long um_vcpu_ioctl(struct um_vcpu *v, u32 cmd, unsigned long arg)
{
	long r;

	pthread_mutex_lock(&v->lock);
	r = um_ioctl_dispatch(vcpu_ioctls, ARRAY_SIZE(vcpu_ioctls), v, cmd, arg, -EINVAL);
	pthread_mutex_unlock(&v->lock);
	return r;
}
