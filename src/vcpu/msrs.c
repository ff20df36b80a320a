// SPDX-License-Identifier: MIT
/*
 * MSRs with behaviour (time, APIC, paravirtualization), in front of those that are storage (cpu/msr.c);
 * CR8 and IA32_APIC_BASE, which are the LAPIC's if there is one.
 */
#include <errno.h>

#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/tsc.h"
#include "vcpu/hyperv.h"
#include "vcpu/vcpu.h"

#define APIC_BASE_EN BIT(11)

u64 um_vcpu_get_apic_base(struct um_vcpu *v)
{
	return v->lapic ? um_lapic_get_base(v->lapic) : v->apic_base;
}

bool um_vcpu_set_apic_base(struct um_vcpu *v, u64 val, bool host)
{
	if (v->lapic) {
		if (!um_lapic_set_base(v->lapic, val, host))
			return false;
	} else {
		if (val & ~(GENMASK(v->x.cpu.maxphyaddr - 1, 12) | APIC_BASE_EN | BIT(10) | BIT(8)))
			return false;
		v->apic_base = val;
	}
	v->x.cpu.apic_enabled = val & APIC_BASE_EN;
	return true;
}

u64 um_vcpu_get_cr8(struct um_vcpu *v)
{
	return v->lapic ? um_lapic_get_cr8(v->lapic) : v->cr8;
}

bool um_vcpu_set_cr8(struct um_vcpu *v, u64 val)
{
	if (val > 15)
		return false;
	if (v->lapic)
		um_lapic_set_cr8(v->lapic, (u8)val);
	else
		v->cr8 = val;
	return true;
}

int um_vcpu_set_tsc_khz(struct um_vcpu *v, u32 khz)
{
	struct um_cpu *c = &v->x.cpu;
	u32 host = v->vm->cfg.tsc_khz;
	u64 now = um_guest_tsc(c);

	if (!khz)
		khz = v->vm->default_tsc_khz;
	if (khz < UM_TSC_KHZ_MIN || khz > UM_TSC_KHZ_MAX)
		return -EINVAL;
	v->tsc_khz = khz;
	c->tsc_ratio = khz == host ? 0 : (u64)(((u128)khz << UM_TSC_RATIO_SHIFT) / host);
	/* It goes on from where it is. */
	c->tsc_offset += now - um_guest_tsc(c);
	if (v->lapic)
		um_lapic_tsc_changed(v->lapic);
	um_vcpu_request(v, UM_REQ_CLOCK);
	return 0;
}

static void tsc_moved(struct um_vcpu *v, u64 by)
{
	v->x.cpu.tsc_offset += by;
	if (v->lapic)
		um_lapic_tsc_changed(v->lapic);
	um_vcpu_request(v, UM_REQ_CLOCK);
}

static void set_tsc(struct um_vcpu *v, bool host, u64 val)
{
	u64 by;

	if (host) {
		um_tsc_host_write(v, val);
		return;
	}
	by = val - um_guest_tsc(&v->x.cpu);
	v->x.cpu.msr.tsc_adjust += by;
	tsc_moved(v, by);
}

static bool set_tsc_adjust(struct um_vcpu *v, bool host, u64 val)
{
	if (!host) {
		if (!um_cpu_has(&v->x.cpu, UM_F_TSC_ADJUST))
			return false;
		tsc_moved(v, val - v->x.cpu.msr.tsc_adjust);
	}
	v->x.cpu.msr.tsc_adjust = val;
	return true;
}

/* The features of leaf 0x40000001 that make an MSR exist for the guest. */
static bool has_pv(const struct um_vcpu *v, u32 msr, bool host)
{
	const struct um_cpu *c = &v->x.cpu;

	if (host)
		return true;
	switch (msr) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_SYSTEM_TIME:
		return !v->pv_enforce || um_cpu_has(c, UM_F_KVM_CLOCKSOURCE);
	case MSR_KVM_WALL_CLOCK_NEW:
	case MSR_KVM_SYSTEM_TIME_NEW:
		return !v->pv_enforce || um_cpu_has(c, UM_F_KVM_CLOCKSOURCE2);
	case MSR_KVM_STEAL_TIME:
		return !v->pv_enforce || um_cpu_has(c, UM_F_KVM_STEAL_TIME);
	case MSR_KVM_PV_EOI_EN:
		return !v->pv_enforce || um_cpu_has(c, UM_F_KVM_PV_EOI);
	case MSR_KVM_POLL_CONTROL:
		return !v->pv_enforce || um_cpu_has(c, UM_F_KVM_POLL_CONTROL);
	}
	return false;
}

static bool get_elsewhere(struct um_vcpu *v, u32 msr, bool host, u64 *val)
{
	switch (msr) {
	case MSR_IA32_TSC:
		*val = um_guest_tsc(&v->x.cpu);
		return true;
	case MSR_IA32_TSC_ADJUST:
		*val = v->x.cpu.msr.tsc_adjust;
		return true;
	case MSR_IA32_TSC_DEADLINE:
		*val = v->lapic ? um_lapic_get_tsc_deadline(v->lapic) : 0;
		return true;
	case MSR_IA32_APICBASE:
		*val = um_vcpu_get_apic_base(v);
		return true;
	case MSR_X2APIC_FIRST ... MSR_X2APIC_LAST:
		return v->lapic && um_lapic_msr_read(v->lapic, msr, val);
	case HV_MSR_FIRST ... HV_MSR_LAST:
		return um_hv_get_msr(v, msr, host, val);
	}
	if (!has_pv(v, msr, host))
		return false;
	switch (msr) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		*val = v->vm->wall_clock;
		return true;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		*val = v->pv_system_time;
		return true;
	case MSR_KVM_STEAL_TIME:
		*val = v->pv_steal;
		return true;
	case MSR_KVM_PV_EOI_EN:
		*val = v->lapic ? um_lapic_get_pv_eoi(v->lapic) : 0;
		return true;
	case MSR_KVM_POLL_CONTROL:
		*val = v->pv_poll_control;
		return true;
	}
	return false;
}

static bool set_elsewhere(struct um_vcpu *v, u32 msr, bool host, u64 val)
{
	switch (msr) {
	case MSR_IA32_TSC:
		set_tsc(v, host, val);
		return true;
	case MSR_IA32_TSC_ADJUST:
		return set_tsc_adjust(v, host, val);
	case MSR_IA32_TSC_DEADLINE:
		if (v->lapic)
			um_lapic_set_tsc_deadline(v->lapic, val);
		return true;
	case MSR_IA32_APICBASE:
		return um_vcpu_set_apic_base(v, val, host);
	case MSR_X2APIC_FIRST ... MSR_X2APIC_LAST:
		return v->lapic && um_lapic_msr_write(v->lapic, msr, val);
	case HV_MSR_FIRST ... HV_MSR_LAST:
		return um_hv_set_msr(v, msr, host, val);
	}
	if (!has_pv(v, msr, host))
		return false;
	switch (msr) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		return um_pv_set_wall_clock(v, val);
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		return um_pv_set_system_time(v, val);
	case MSR_KVM_STEAL_TIME:
		return um_pv_set_steal(v, val);
	case MSR_KVM_PV_EOI_EN:
		/* Without a LAPIC there is nothing to enable; writing back 0 is fine. */
		return v->lapic ? um_lapic_set_pv_eoi(v->lapic, val) : host && !val;
	case MSR_KVM_POLL_CONTROL:
		/* Sleeping vCPUs don't poll: kept for reading back. */
		if (val & ~1ull)
			return false;
		v->pv_poll_control = val;
		return true;
	}
	return false;
}

bool um_vcpu_get_msr(struct um_vcpu *v, u32 msr, bool host, u64 *val)
{
	if (msr == MSR_PLATFORM_INFO && !host && v->vm->platform_info_hidden)
		return false;
	switch (um_msr_get(&v->x.cpu, msr, host, val)) {
	case UM_MSR_OK:
		return true;
	case UM_MSR_BAD:
		return false;
	case UM_MSR_ELSEWHERE:
		break;
	}
	return get_elsewhere(v, msr, host, val);
}

bool um_vcpu_set_msr(struct um_vcpu *v, u32 msr, bool host, u64 val)
{
	unsigned effects = 0;

	switch (um_msr_set(&v->x.cpu, msr, host, val, &effects)) {
	case UM_MSR_OK:
		if (effects & UM_MSR_PAGING)
			um_mmu_reset_context(v->mmu);
		if (effects & UM_MSR_SEGMENT)
			um_exec_sync(&v->x);
		return true;
	case UM_MSR_BAD:
		return false;
	case UM_MSR_ELSEWHERE:
		break;
	}
	return set_elsewhere(v, msr, host, val);
}
