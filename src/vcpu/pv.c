// SPDX-License-Identifier: MIT
/*
 * Paravirtual time (the kernel's Documentation/virt/kvm/x86/msr.rst): kvmclock, the wall clock, stolen
 * time; and the guest's TSC as far as the VM decides it.
 *
 * kvmclock.  A VM's clock is a linear function of the host's TSC, fixed when the VM is made or the clock is set:
 *
 *	clock(tsc) = clock_ns + (tsc - clock_tsc) / frequency
 *
 * Each vCPU's page says the same in terms of the guest's TSC, from the same point on: so the readings of
 * different pages agree to the last bit, and the page says so (TSC_STABLE), as long as the vCPUs' TSCs do.
 *
 * Guests rely on it: Linux reads the page of its first CPU on all CPUs, without a system call.  So when the
 * clock is set, the first vCPU that goes on writes the pages of all that have not come to it yet.
 *
 * Stolen time is the time that the vCPU's thread, in KVM_RUN or out of it, was ready to run and did not: the
 * kernel's run delay (Documentation/scheduler/sched-stats.rst).  Where /proc is not to be had, nothing is stolen.
 */
#include <errno.h>
#include <string.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

#include "base/syscall.h"
#include "base/uaccess.h"
#include "cpu/tsc.h"
#include "vcpu/vcpu.h"

/* After x86/regs.h, whose enumerators it defines again as macros of the same values. */
#include <asm/kvm_para.h>

#define NSEC_PER_SEC 1000000000ull
/* Stolen time is brought up to date every 4 ms, or after 0.1 ms with the VMM: looking takes some microseconds. */
#define STEAL_PERIOD_TICKS(v) ((v)->vm->cfg.tsc_khz * 4ull)
#define STEAL_AWAY_TICKS(v)   ((v)->vm->cfg.tsc_khz / 10)

/* The page of MSR_KVM_SYSTEM_TIME (msr.rst). */
struct pv_time {
	u32 version; /* odd while it changes */
	u32 pad0;
	u64 tsc_timestamp;
	u64 system_time;
	u32 tsc_to_system_mul;
	s8 tsc_shift;
	u8 flags;
	u8 pad[2];
};

_Static_assert(sizeof(struct pv_time) == 32, "the guest's ABI");

#define PV_TSC_STABLE	 BIT(0)
#define PV_GUEST_STOPPED BIT(1)

struct pv_wall {
	u32 version, sec, nsec;
};

static u64 clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (u64)ts.tv_sec * NSEC_PER_SEC + (u64)ts.tv_nsec;
}

/* ---- the VM's clock ---- */

/* ns = ((ticks << shift) * mul) >> 32, with mul in [2^31, 2^32) for precision. */
static void tsc_scale_to_ns(u64 hz, u32 *mul, s8 *shift)
{
	u64 from = hz, to = NSEC_PER_SEC;

	*shift = 0;
	while (from >= to * 2) { /* ticks shorter than half a ns: shift them right */
		from >>= 1;
		(*shift)--;
	}
	while (from < to) {
		from <<= 1;
		(*shift)++;
	}
	/* Recompute from the exact frequency: shifting right has lost bits. */
	if (*shift < 0)
		*mul = (u32)um_min(((u128)to << (32 - *shift)) / hz, (u128)0xffffffffu);
	else
		*mul = (u32)um_min(((u128)to << 32) / ((u128)hz << *shift), (u128)0xffffffffu);
}

/* In the precision that guests have, so that they and the VMM read the same. */
static u64 tsc_to_ns(const struct um_vm *vm, u64 ticks)
{
	u32 mul;
	s8 shift;

	tsc_scale_to_ns(vm->cfg.tsc_khz * 1000ull, &mul, &shift);
	ticks = shift < 0 ? ticks >> -shift : ticks << shift;
	return (u64)((u128)ticks * mul >> 32);
}

/* Read a clock and the TSC at the same moment, as well as that is possible. */
static u64 clock_with_tsc(clockid_t id, u64 *tsc)
{
	u64 best = ~0ull, ns = 0;

	*tsc = 0;

	for (unsigned i = 0; i < 5; i++) {
		u64 before = __rdtsc(), now = clock_ns(id), after = __rdtsc();

		if (after - before < best) {
			best = after - before;
			*tsc = before + (after - before) / 2;
			ns = now;
		}
	}
	return ns;
}

u64 um_clock_realtime(u64 *tsc)
{
	return clock_with_tsc(CLOCK_REALTIME, tsc);
}

void um_clock_init(struct um_vm *vm)
{
	vm->created_tsc = __rdtsc();
	vm->clock_tsc = vm->created_tsc;
	vm->clock_ns = 0;
	vm->tsc_offset = -vm->created_tsc; /* the guest's TSC starts at 0 with the VM */
	vm->tsc_ratio = 0;
}

u64 um_clock_at(struct um_vm *vm, u64 tsc)
{
	u64 ns;

	pthread_mutex_lock(&vm->clock_lock);
	ns = vm->clock_ns;
	/* The stamp of another CPU may be a little ahead of this one's. */
	ns += tsc >= vm->clock_tsc ? tsc_to_ns(vm, tsc - vm->clock_tsc)
				   : -tsc_to_ns(vm, vm->clock_tsc - tsc);
	pthread_mutex_unlock(&vm->clock_lock);
	return ns;
}

void um_clock_get(struct um_vm *vm, struct kvm_clock_data *d)
{
	memset(d, 0, sizeof(*d));
	d->realtime = clock_with_tsc(CLOCK_REALTIME, (u64 *)&d->host_tsc);
	d->clock = um_clock_at(vm, d->host_tsc);
	d->flags = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
	if (um_tsc_in_step(vm))
		d->flags |= KVM_CLOCK_TSC_STABLE;
}

int um_clock_set(struct um_vm *vm, const struct kvm_clock_data *d)
{
	struct um_vcpu *v;
	u64 now, want = d->clock;
	unsigned i;

	if (d->flags & ~(u32)(KVM_CLOCK_REALTIME | KVM_CLOCK_TSC_STABLE | KVM_CLOCK_HOST_TSC))
		return -EINVAL;
	if (d->flags & KVM_CLOCK_REALTIME) {
		now = clock_ns(CLOCK_REALTIME);
		if (now > d->realtime) /* time that passed since it was saved */
			want += now - d->realtime;
	}
	pthread_mutex_lock(&vm->clock_lock);
	vm->clock_tsc = __rdtsc();
	vm->clock_ns = want;
	vm->clock_times_set++;
	pthread_mutex_unlock(&vm->clock_lock);
	um_for_each_vcpu(vm, i, v) um_vcpu_request(v, UM_REQ_CLOCK);
	return 0;
}

/* ---- the guest's TSC ---- */

void um_tsc_init(struct um_vcpu *v)
{
	struct um_vm *vm = v->vm;

	v->tsc_khz = vm->default_tsc_khz;
	v->x.cpu.tsc_ratio =
		v->tsc_khz == vm->cfg.tsc_khz
			? 0
			: (u64)(((u128)v->tsc_khz << UM_TSC_RATIO_SHIFT) / vm->cfg.tsc_khz);
	pthread_mutex_lock(&vm->clock_lock);
	if (v->x.cpu.tsc_ratio != vm->tsc_ratio && v->index == 0) {
		vm->tsc_ratio = v->x.cpu.tsc_ratio;
		vm->tsc_offset = -um_tsc_scale(vm->created_tsc, vm->tsc_ratio);
	}
	v->x.cpu.tsc_offset = vm->tsc_offset;
	pthread_mutex_unlock(&vm->clock_lock);
}

/* Do all vCPUs read the same TSC at the same moment? */
bool um_tsc_in_step(struct um_vm *vm)
{
	struct um_vcpu *v;
	unsigned i;

	um_for_each_vcpu(vm, i, v)
	{
		if (READ_ONCE(v->x.cpu.tsc_offset) != READ_ONCE(vm->vcpu[0]->x.cpu.tsc_offset) ||
		    READ_ONCE(v->x.cpu.tsc_ratio) != READ_ONCE(vm->vcpu[0]->x.cpu.tsc_ratio))
			return false;
	}
	return true;
}

/*
 * A VMM restores the TSC of its vCPUs one after the other, and means them to be equal.  As KVM: a write
 * of 0, or one that is within a second of where the last write would be by now, gets the same offset.
 */
void um_tsc_host_write(struct um_vcpu *v, u64 val)
{
	struct um_vm *vm = v->vm;
	struct um_cpu *c = &v->x.cpu;
	u64 host = __rdtsc(), expected, distance;

	pthread_mutex_lock(&vm->clock_lock);
	expected = vm->tsc_last_write + um_tsc_scale(host - vm->tsc_last_write_host, c->tsc_ratio);
	distance = val > expected ? val - expected : expected - val;
	if (!vm->tsc_written || (val && distance >= v->tsc_khz * 1000ull)) {
		vm->tsc_offset = val - um_tsc_scale(host, c->tsc_ratio);
		vm->tsc_last_write = val;
		vm->tsc_last_write_host = host;
		vm->tsc_written = true;
	}
	c->tsc_offset = vm->tsc_offset;
	pthread_mutex_unlock(&vm->clock_lock);
	if (v->lapic)
		um_lapic_tsc_changed(v->lapic);
	um_vcpu_request(v, UM_REQ_CLOCK);
}

void um_tsc_set_offset(struct um_vcpu *v, u64 offset)
{
	struct um_vm *vm = v->vm;
	struct um_cpu *c = &v->x.cpu;

	pthread_mutex_lock(&vm->clock_lock);
	/* Later writes of the TSC itself are compared with this one. */
	vm->tsc_offset = offset;
	vm->tsc_last_write_host = __rdtsc();
	vm->tsc_last_write = um_tsc_scale(vm->tsc_last_write_host, c->tsc_ratio) + offset;
	vm->tsc_written = true;
	c->tsc_offset = offset;
	pthread_mutex_unlock(&vm->clock_lock);
	if (v->lapic)
		um_lapic_tsc_changed(v->lapic);
	um_vcpu_request(v, UM_REQ_CLOCK);
}

/* ---- kvmclock pages ---- */

/* pages_lock held. */
static void write_clock_page(struct um_vcpu *v)
{
	struct um_vm *vm = v->vm;
	u64 msr = READ_ONCE(v->pv_system_time);
	gpa_t gpa = msr & ~(u64)KVM_MSR_ENABLED;
	struct pv_time t;
	u32 version;
	u64 tsc;

	if (!(msr & KVM_MSR_ENABLED) || um_mem_read(vm->mem, 0, gpa, &t, sizeof(t)))
		return;
	/* Odd while it changes: it may be read at this moment.  What the guest was told before stays true. */
	version = t.version | 1;
	t = (struct pv_time){ .version = version, .flags = t.flags & PV_GUEST_STOPPED };
	if (um_mem_write(vm->mem, 0, gpa, &version, sizeof(version)))
		return;
	atomic_thread_fence(memory_order_release);
	pthread_mutex_lock(&vm->clock_lock);
	tsc = vm->clock_tsc;
	t.system_time = vm->clock_ns;
	v->pv_times_set = vm->clock_times_set;
	pthread_mutex_unlock(&vm->clock_lock);
	t.tsc_timestamp = um_guest_tsc_at(&v->x.cpu, tsc);
	tsc_scale_to_ns(v->tsc_khz * 1000ull, &t.tsc_to_system_mul, &t.tsc_shift);
	if (um_tsc_in_step(vm))
		t.flags |= PV_TSC_STABLE;
	if (atomic_exchange(&v->pv_guest_stopped, false))
		t.flags |= PV_GUEST_STOPPED;
	um_mem_write(vm->mem, 0, gpa, &t, sizeof(t));
	atomic_thread_fence(memory_order_release);
	version++;
	um_mem_write(vm->mem, 0, gpa, &version, sizeof(version));
}

void um_pv_update_clock(struct um_vcpu *v)
{
	struct um_vm *vm = v->vm;
	struct um_vcpu *other;
	unsigned i;

	pthread_mutex_lock(&vm->pages_lock);
	um_for_each_vcpu(vm, i, other)
	{
		/* Others write theirs once more when they come to it, which changes nothing. */
		if (other == v || other->pv_times_set != READ_ONCE(vm->clock_times_set))
			write_clock_page(other);
	}
	pthread_mutex_unlock(&vm->pages_lock);
}

bool um_pv_set_system_time(struct um_vcpu *v, u64 val)
{
	v->pv_system_time = val;
	if (val & KVM_MSR_ENABLED)
		um_vcpu_request(v, UM_REQ_CLOCK);
	return true;
}

bool um_pv_set_wall_clock(struct um_vcpu *v, u64 val)
{
	struct um_vm *vm = v->vm;
	struct pv_wall w = { 0 };
	u64 tsc, boot;

	vm->wall_clock = val;
	if (!val)
		return true;
	/* No such memory: the guest has nothing to read.  KVM doesn't mind either. */
	if (um_mem_read(vm->mem, 0, val, &w.version, sizeof(w.version)))
		return true;
	w.version |= 1;
	if (um_mem_write(vm->mem, 0, val, &w.version, sizeof(w.version)))
		return true;
	boot = clock_with_tsc(CLOCK_REALTIME, &tsc) - um_clock_at(vm, tsc);
	w.sec = (u32)(boot / NSEC_PER_SEC);
	w.nsec = (u32)(boot % NSEC_PER_SEC);
	um_mem_write(vm->mem, 0, val, &w, sizeof(w));
	w.version++;
	um_mem_write(vm->mem, 0, val, &w.version, sizeof(w.version));
	return true;
}

int um_pv_guest_stopped(struct um_vcpu *v)
{
	if (!(v->pv_system_time & KVM_MSR_ENABLED))
		return -EINVAL;
	v->pv_guest_stopped = true;
	um_vcpu_request(v, UM_REQ_CLOCK);
	return 0;
}

/* ---- stolen time ---- */

static gpa_t steal_field(const struct um_vcpu *v, size_t offset)
{
	return (v->pv_steal & KVM_STEAL_VALID_BITS) + offset;
}

/* The run delay of the calling thread, in ns: the second number of three. */
static u64 run_delay(void)
{
	static const char path[] = "/proc/thread-self/schedstat";
	unsigned long long cpu, delay = 0;
	char text[64];
	long fd, n;

	fd = um_syscall3(SYS_open, (long)path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	n = um_syscall3(SYS_read, fd, (long)text, sizeof(text) - 1);
	um_syscall3(SYS_close, fd, 0, 0);
	text[n < 0 ? 0 : n] = 0;
	return sscanf(text, "%llu %llu", &cpu, &delay) == 2 ? delay : 0;
}

static void look_at_thread(struct um_vcpu *v)
{
	v->steal_tsc = __rdtsc();
	v->steal_thread = pthread_self();
	v->steal_delay = run_delay();
}

static void write_steal(struct um_vcpu *v)
{
	struct um_mem *mem = v->vm->mem;
	u32 version;

	if (um_mem_read(mem, 0, steal_field(v, offsetof(struct kvm_steal_time, version)), &version,
			sizeof(version)))
		return;
	version |= 1;
	um_mem_write(mem, 0, steal_field(v, offsetof(struct kvm_steal_time, version)), &version,
		     sizeof(version));
	atomic_thread_fence(memory_order_release);
	um_mem_write(mem, 0, steal_field(v, offsetof(struct kvm_steal_time, steal)), &v->steal_ns,
		     sizeof(v->steal_ns));
	atomic_thread_fence(memory_order_release);
	version++;
	um_mem_write(mem, 0, steal_field(v, offsetof(struct kvm_steal_time, version)), &version,
		     sizeof(version));
}

/*
 * Exchange the `preempted` byte for @val.  While it is set, another vCPU may set KVM_VCPU_FLUSH_TLB in it
 * instead of sending an IPI (KVM_FEATURE_PV_TLB_FLUSH), so it must be one atomic operation.  The byte's
 * word is exchanged; the three bytes beside it are padding.  Returns the old value.
 */
static u8 exchange_preempted(struct um_vcpu *v, u8 val)
{
	gpa_t gpa = steal_field(v, offsetof(struct kvm_steal_time, preempted));
	struct um_mem *mem = v->vm->mem;
	struct um_slot *slot;
	u32 old = 0;
	bool done = false;
	unsigned token = um_mem_read_lock(mem);

	slot = um_mem_slot(mem, 0, gpa >> UM_PAGE_SHIFT);
	if (slot && !(slot->flags & KVM_MEM_READONLY)) {
		u32 *p = (u32 *)(um_slot_hva(slot, gpa >> UM_PAGE_SHIFT) + (gpa & ~UM_PAGE_MASK));

		if (um_get32(p, &old)) {
			while (um_cmpxchg32(p, &old, (old & ~0xffu) | val, &done) && !done)
				;
			um_mem_mark_dirty(mem, slot, gpa >> UM_PAGE_SHIFT, v->ring);
		}
	}
	um_mem_read_unlock(mem, token);
	return done ? (u8)old : 0;
}

static void account_steal(struct um_vcpu *v)
{
	pthread_t thread = v->steal_thread;
	u64 delay = v->steal_delay;

	look_at_thread(v);
	if (v->steal_thread == thread && v->steal_delay > delay) {
		v->steal_ns += v->steal_delay - delay;
		write_steal(v);
	}
}

void um_pv_update_steal(struct um_vcpu *v, bool preempted)
{
	if (likely(!(v->pv_steal & KVM_MSR_ENABLED)))
		return;
	/* Asked on every exit: the TSC says cheaply that it is too early to look at clocks. */
	if (__rdtsc() - v->steal_tsc >= STEAL_PERIOD_TICKS(v))
		account_steal(v);
	if (preempted) {
		exchange_preempted(v, KVM_VCPU_PREEMPTED);
		v->steal_preempted = true;
	} else if (v->steal_preempted) {
		v->steal_preempted = false;
		if (exchange_preempted(v, 0) & KVM_VCPU_FLUSH_TLB)
			um_mmu_invpcid(v->mmu, 2, 0, 0); /* everything, global pages too */
	}
}

void um_pv_enter(struct um_vcpu *v)
{
	if ((v->pv_steal & KVM_MSR_ENABLED) && __rdtsc() - v->steal_left > STEAL_AWAY_TICKS(v))
		v->steal_tsc = 0;
}

void um_pv_leave(struct um_vcpu *v)
{
	if (v->pv_steal & KVM_MSR_ENABLED)
		v->steal_left = __rdtsc();
}

bool um_pv_set_steal(struct um_vcpu *v, u64 val)
{
	if (val & KVM_STEAL_RESERVED_MASK)
		return false;
	v->pv_steal = val;
	if (val & KVM_MSR_ENABLED) {
		look_at_thread(v);
		write_steal(v);
	}
	return true;
}
