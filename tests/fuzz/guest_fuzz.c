// SPDX-License-Identifier: MIT
/*
 * The guest is the adversary: guests gone mad, on hosts that pull their memory from under them.
 *
 * A run is a VM drawn from its seed.  Each vCPU's thread builds worlds (world.h), calls KVM_RUN a
 * few times in each, and answers exits with noise; another thread does what hosts do
 * (machine_event()); the main thread kicks the vCPUs every few milliseconds and watches that all
 * calls return.
 *
 * What must hold: no crash, no report of a sanitizer; every call returns soon after a kick; exits
 * and errno are documented ones; memory outside of the slots and in read-only slots stays; with a
 * host that leaves memory alone, no exit for memory that a slot has; the MMU's auditor is content.
 *
 * What a seed draws is the same each time; how threads interleave is not.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "machine.h"
#include "options.h"
#include "report.h"
#include "umbra.h"
#include "world.h"

#define KICK_NS		 2000000ull
#define HANG_CPU	 (4000000000ull) /* of a thread's own time in one call: independent of other load */
#define HANG_WALL	 60000000000ull /* a call that sleeps where nothing wakes it */
#define KVM_RUN_MAX_EXIT 64

struct thread {
	pthread_t id;
	struct machine *m;
	struct rng r;
	/* The call that is on: since when, on both clocks; 0 if none. */
	atomic_ullong wall_since, cpu_since;
	atomic_bool done;
};

struct vcpu {
	struct thread t;
	int fd;
	size_t run_size;
	struct kvm_run *run;
	struct kvm_dirty_gfn *ring; /* if the machine has rings */
	unsigned harvested;
	struct world w;
	struct kvm_sregs reset;
	unsigned rounds;
};

struct tally {
	atomic_ulong rounds, runs, eintr, efault, eother, exits[KVM_RUN_MAX_EXIT], refused;
};

static struct tally tally;
static atomic_bool stop;
static uint32_t msr_list[256];
static unsigned nmsrs;

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;

	if (clock_gettime(id, &t) < 0)
		return 0;
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void call_begins(struct thread *t)
{
	atomic_store(&t->cpu_since, clock_ns(CLOCK_THREAD_CPUTIME_ID));
	atomic_store(&t->wall_since, clock_ns(CLOCK_MONOTONIC));
}

static void call_ends(struct thread *t)
{
	atomic_store(&t->wall_since, 0);
}

/* An ioctl of the vCPU that may be refused, for one of KVM's reasons. */
static int vcpu_io(struct vcpu *v, unsigned long request, void *arg)
{
	int r;

	call_begins(&v->t);
	r = umbra_ioctl(v->fd, request, arg);
	call_ends(&v->t);
	if (r < 0) {
		atomic_fetch_add(&tally.refused, 1);
		if (errno != EINVAL && errno != EBUSY && errno != ENOMEM && errno != ENXIO &&
		    errno != EEXIST && errno != E2BIG)
			report_fail("request %#lx: errno %d", request, errno);
	}
	return r;
}

/* ---- state ---- */

static void new_world(struct vcpu *v)
{
	struct machine *m = v->t.m;
	struct rng *r = &v->t.r;

	v->w.sregs = v->reset;
	world_build(&v->w, r);
	/* The ROM: from the code on, with the page tables. */
	machine_write(m, v->w.image, WORLD_IMAGE, rng_one_in(r, 2) ? v->w.image + CODE_ADDR : NULL);
}

static void set_state(struct vcpu *v)
{
	struct rng *r = &v->t.r;
	struct kvm_sregs s = v->w.sregs;
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_vcpu_events events = {
		.flags = KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM,
		.smi.smm = rng_one_in(r, 8),
	};

	vcpu_io(v, KVM_SET_VCPU_EVENTS, &events);
	if (rng_one_in(r, 4))
		world_spoil_sregs(&s, r);
	s.apic_base = v->reset.apic_base;
	if (vcpu_io(v, KVM_SET_SREGS, &s) < 0) {
		s = v->w.sregs;
		s.cr4 &= ~0x1003ull; /* what not every host has: 57-bit addresses, VME */
		if (v->w.mode != WORLD_LONG5 && vcpu_io(v, KVM_SET_SREGS, &s) < 0)
			report_fail("valid system registers refused: mode %s cr0 %#llx cr4 %#llx "
				    "efer %#llx",
				    world_mode_name(v->w.mode), s.cr0, s.cr4, s.efer);
	}
	if (rng_one_in(r, 4))
		world_regs(&v->w, r);
	vcpu_io(v, KVM_SET_REGS, &v->w.regs);
	vcpu_io(v, KVM_SET_MP_STATE, &mp);
}

static void set_random_msr(struct vcpu *v)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} msr = { .head = { .nmsrs = 1 } };
	struct rng *r = &v->t.r;

	msr.e.index = rng_one_in(r, 2) ? fuzz_msr(r) : msr_list[rng_below(r, nmsrs)];
	msr.e.data = fuzz_value(r);
	vcpu_io(v, KVM_SET_MSRS, &msr);
	vcpu_io(v, KVM_GET_MSRS, &msr);
}

/* Spoil one piece of the vCPU's state. */
static void disturb(struct vcpu *v)
{
	struct rng *r = &v->t.r;
	union {
		struct kvm_regs regs;
		struct kvm_sregs sregs;
		struct kvm_sregs2 sregs2;
		struct kvm_vcpu_events events;
		struct kvm_debugregs debug;
		struct kvm_guest_debug guest_debug;
		struct kvm_xsave xsave;
		struct kvm_fpu fpu;
		struct kvm_lapic_state lapic;
		struct kvm_xcrs xcrs;
		struct kvm_mp_state mp;
		struct kvm_translation tr;
		struct kvm_interrupt irq;
	} u;

	memset(&u, 0, sizeof(u));
	switch (rng_below(r, 17)) {
	case 0:
		vcpu_io(v, KVM_GET_REGS, &u.regs);
		((uint64_t *)&u.regs)[rng_below(r, 18)] = fuzz_value(r);
		vcpu_io(v, KVM_SET_REGS, &u.regs);
		break;
	case 1:
	case 2:
		vcpu_io(v, KVM_GET_SREGS, &u.sregs);
		world_spoil_sregs(&u.sregs, r);
		vcpu_io(v, KVM_SET_SREGS, &u.sregs);
		break;
	case 3:
		vcpu_io(v, KVM_GET_SREGS2, &u.sregs2);
		u.sregs2.pdptrs[rng_below(r, 4)] = fuzz_cr(r, 3) | 1;
		vcpu_io(v, KVM_SET_SREGS2, &u.sregs2);
		break;
	case 4:
		rng_fill(r, &u.events, sizeof(u.events));
		u.events.flags &= rng_one_in(r, 2) ? 0x1f : 0x5;
		u.events.exception.nr &= 31;
		vcpu_io(v, KVM_SET_VCPU_EVENTS, &u.events);
		break;
	case 5:
		for (unsigned i = 0; i < 4; i++)
			u.debug.db[i] = fuzz_value(r);
		u.debug.dr6 = rng64(r) & 0xffffffff;
		u.debug.dr7 = rng64(r) & 0xffffffff;
		vcpu_io(v, KVM_SET_DEBUGREGS, &u.debug);
		break;
	case 6:
		u.guest_debug.control = rng_below(r, 2) | (uint32_t)rng_below(r, 4) << 16;
		for (unsigned i = 0; i < 4; i++)
			u.guest_debug.arch.debugreg[i] = fuzz_value(r);
		u.guest_debug.arch.debugreg[7] = rng64(r) & 0xffff07ff;
		vcpu_io(v, KVM_SET_GUEST_DEBUG, &u.guest_debug);
		break;
	case 7: /* XSTATE_BV of what there is; the rest as it comes */
		rng_fill(r, &u.xsave, 512);
		rng_fill(r, (uint8_t *)&u.xsave + 576, sizeof(u.xsave) - 576);
		memset((uint8_t *)&u.xsave + 24, 0, 8);
		((uint8_t *)&u.xsave)[512] = (uint8_t)rng64(r) & 0xe7;
		vcpu_io(v, KVM_SET_XSAVE, &u.xsave);
		break;
	case 8:
		rng_fill(r, &u.fpu, sizeof(u.fpu));
		vcpu_io(v, KVM_SET_FPU, &u.fpu);
		break;
	case 9:
		if (v->t.m->chip == CHIP_NONE)
			break;
		vcpu_io(v, KVM_GET_LAPIC, &u.lapic);
		if (rng_one_in(r, 4))
			rng_fill(r, &u.lapic, sizeof(u.lapic));
		else
			rng_fill(r, u.lapic.regs + (rng_below(r, 0x40) << 4), 4);
		vcpu_io(v, KVM_SET_LAPIC, &u.lapic);
		break;
	case 10:
		u.xcrs.nr_xcrs = 1;
		u.xcrs.xcrs[0].value = rng_below(r, 256) | 1;
		vcpu_io(v, KVM_SET_XCRS, &u.xcrs);
		break;
	case 11:
		u.mp.mp_state = rng_below(r, 5);
		vcpu_io(v, KVM_SET_MP_STATE, &u.mp);
		break;
	case 12:
		u.tr.linear_address = fuzz_value(r);
		vcpu_io(v, KVM_TRANSLATE, &u.tr);
		break;
	case 13:
		u.irq.irq = rng_below(r, 257);
		vcpu_io(v, KVM_INTERRUPT, &u.irq);
		break;
	case 14:
		vcpu_io(v, KVM_NMI, NULL);
		break;
	case 15:
		vcpu_io(v, KVM_SMI, NULL);
		break;
	default:
		set_random_msr(v);
		break;
	}
	v->run->request_interrupt_window = rng_below(r, 2);
	v->run->kvm_valid_regs = rng_below(r, 8);
}

/* ---- KVM_RUN ---- */

static bool in_slot(uint64_t gpa, unsigned len, bool write)
{
	uint64_t end = gpa + len;

	return end <= RAM_SIZE || (gpa >= ALIAS_ADDR && end <= ALIAS_ADDR + ALIAS_SIZE) ||
	       (gpa >= HIGH_ADDR && end <= HIGH_ADDR + HIGH_SIZE) ||
	       (!write && gpa >= ROM_ADDR && end <= ROM_ADDR + ROM_SIZE);
}

/* Look at what is in the ring, and give it back; now and then with nonsense in it. */
static void harvest(struct vcpu *v)
{
	struct rng *r = &v->t.r;

	for (;;) {
		struct kvm_dirty_gfn *e =
			&v->ring[v->harvested % (RING_BYTES / sizeof(struct kvm_dirty_gfn))];

		if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
			return;
		if ((e->slot & 0xffff) >= SLOTS || e->slot >> 16 > v->t.m->smm ||
		    e->offset > RAM_SIZE >> 12)
			report_fail("ring: slot %#x, page %#llx", e->slot, e->offset);
		if (rng_one_in(r, 64)) {
			e->slot = (uint32_t)fuzz_value(r);
			e->offset = fuzz_value(r);
		}
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		v->harvested++;
	}
}

/* Check an exit, and answer it.  False if the guest cannot go on. */
static bool answer(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	struct rng *r = &v->t.r;
	uint64_t bytes;

	if (run->exit_reason < KVM_RUN_MAX_EXIT)
		atomic_fetch_add(&tally.exits[run->exit_reason], 1);
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		bytes = (uint64_t)run->io.count * run->io.size;
		if (!bytes || run->io.size > 4 || run->io.size == 3 || run->io.direction > 1 ||
		    run->io.data_offset < sizeof(*run) || run->io.data_offset + bytes > v->run_size)
			report_fail("exit IO: size %u count %u offset %#llx", run->io.size,
				    run->io.count, run->io.data_offset);
		if (run->io.direction == KVM_EXIT_IO_IN)
			rng_fill(r, (uint8_t *)run + run->io.data_offset, bytes);
		return true;
	case KVM_EXIT_MMIO:
		if (!run->mmio.len || run->mmio.len > 8 || run->mmio.is_write > 1)
			report_fail("exit MMIO: %u bytes", run->mmio.len);
		if (v->t.m->quiet && !v->t.m->audited &&
		    (v->t.m->smm || !(run->flags & KVM_RUN_X86_SMM)) &&
		    in_slot(run->mmio.phys_addr, run->mmio.len, run->mmio.is_write))
			report_fail("exit MMIO for memory at %#llx", run->mmio.phys_addr);
		if (!run->mmio.is_write)
			rng_fill(r, run->mmio.data, sizeof(run->mmio.data));
		return true;
	case KVM_EXIT_SHUTDOWN:
		return false;
	case KVM_EXIT_HLT:
		if (v->t.m->chip != CHIP_NONE)
			report_fail("exit HLT with a local APIC");
		return !rng_one_in(r, 4);
	case KVM_EXIT_INTERNAL_ERROR: /* report_log() looks at the reasons */
		if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION)
			report_fail("exit INTERNAL_ERROR %u", run->internal.suberror);
		return false;
	case KVM_EXIT_DIRTY_RING_FULL:
		if (!v->ring)
			report_fail("exit DIRTY_RING_FULL without a ring");
		harvest(v);
		if (io(v->t.m->vm, KVM_RESET_DIRTY_RINGS, 0) < 0)
			report_fail("KVM_RESET_DIRTY_RINGS: errno %d", errno);
		return true;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR:
	case KVM_EXIT_IOAPIC_EOI:
	case KVM_EXIT_DEBUG:
	case KVM_EXIT_INTR:
		return true;
	default:
		report_fail("exit reason %u", run->exit_reason);
	}
}

/* False if the guest cannot go on. */
static bool run_once(struct vcpu *v)
{
	int r, err;

	call_begins(&v->t);
	r = umbra_ioctl(v->fd, KVM_RUN, NULL);
	err = errno;
	call_ends(&v->t);
	atomic_fetch_add(&tally.runs, 1);
	if (!r)
		return answer(v);
	if (r > 0)
		report_fail("KVM_RUN returned %d", r);
	switch (err) {
	case EINTR:
		atomic_fetch_add(&tally.eintr, 1);
		__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		return true;
	case EFAULT:
		atomic_fetch_add(&tally.efault, 1);
		if (v->t.m->quiet || v->t.m->audited)
			report_fail("KVM_RUN: EFAULT with all memory there");
		return !rng_one_in(&v->t.r, 4);
	case EAGAIN: /* a processor that waits for its INIT */
	case ENOMEM:
	case EINVAL: /* cr8 or dirty registers that the fuzzer made up */
		atomic_fetch_add(&tally.eother, 1);
		return false;
	default:
		report_fail("KVM_RUN: errno %d", err);
	}
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	struct rng *r = &v->t.r;

	for (unsigned round = 0; round < v->rounds && !atomic_load(&stop); round++) {
		unsigned runs = 1 + rng_below(r, 32);

		if (!round || !rng_one_in(r, 4))
			new_world(v);
		set_state(v);
		atomic_fetch_add(&tally.rounds, 1);
		while (runs-- && run_once(v) && !atomic_load(&stop)) {
			if (rng_one_in(r, 8))
				disturb(v);
		}
		if (rng_one_in(r, 2))
			disturb(v);
	}
	atomic_store(&v->t.done, true);
	return NULL;
}

static void *host_main(void *arg)
{
	struct thread *t = arg;

	while (!atomic_load(&stop)) {
		call_begins(t);
		machine_event(t->m, &t->r);
		call_ends(t);
	}
	return NULL;
}

/* ---- a run ---- */

static void create_vcpu(struct machine *m, struct vcpu *v, unsigned id, uint64_t seed)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[256];
	} cpuid = { .head = { .nent = 256 } };

	v->t.m = m;
	v->t.r = rng_stream(seed, 10 + id);
	v->fd = io(m->vm, KVM_CREATE_VCPU, id);
	v->run_size = (size_t)io(m->sys, KVM_GET_VCPU_MMAP_SIZE, 0);
	v->run = umbra_mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (m->rings)
		v->ring = umbra_mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd,
				     KVM_DIRTY_LOG_PAGE_OFFSET * 4096l);
	if (v->ring == MAP_FAILED)
		report_fail("no ring: errno %d", errno);
	v->w.image = malloc(WORLD_IMAGE);
	if (v->fd < 0 || v->run == MAP_FAILED || !v->w.image)
		report_fail("no vCPU: errno %d", errno);
	if (io(m->sys, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0 ||
	    io(v->fd, KVM_SET_CPUID2, &cpuid) < 0 || io(v->fd, KVM_GET_SREGS, &v->reset) < 0)
		report_fail("setting up a vCPU: errno %d", errno);
}

static void destroy_vcpu(struct vcpu *v)
{
	munmap(v->run, v->run_size);
	if (v->ring)
		munmap(v->ring, RING_BYTES);
	if (umbra_close(v->fd))
		report_fail("close: errno %d", errno);
	free(v->w.image);
}

static void watch(struct thread *t, const char *what)
{
	unsigned long long since = atomic_load(&t->wall_since),
			   cpu_since = atomic_load(&t->cpu_since);
	clockid_t clock;

	if (!since || pthread_getcpuclockid(t->id, &clock))
		return;
	if (clock_ns(clock) > cpu_since + HANG_CPU && atomic_load(&t->wall_since) == since)
		report_hang(t->id, what);
	if (clock_ns(CLOCK_MONOTONIC) > since + HANG_WALL && atomic_load(&t->wall_since) == since)
		report_hang(t->id, what);
}

static void on_kick(int sig) {}

static void supervise(struct machine *m, struct vcpu *v, struct thread *host)
{
	struct timespec wait = { .tv_nsec = KICK_NS };

	for (;;) {
		bool all = true;

		nanosleep(&wait, NULL);
		for (unsigned i = 0; i < m->nvcpus; i++) {
			if (atomic_load(&v[i].t.done))
				continue;
			all = false;
			__atomic_store_n(&v[i].run->immediate_exit, 1, __ATOMIC_SEQ_CST);
			pthread_kill(v[i].t.id, SIGUSR1);
			watch(&v[i].t, "a vCPU");
		}
		watch(host, "the host's thread");
		if (all)
			return;
	}
}

static void one_run(uint64_t seed, bool quiet, unsigned rounds)
{
	struct rng r = rng_stream(seed, 0);
	struct machine m = { .quiet = quiet };
	struct vcpu v[MAX_VCPUS];
	struct thread host;

	memset(v, 0, sizeof(v));
	memset(&host, 0, sizeof(host));
	m.audited = rng_one_in(&r, 4);
	setenv("UMBRA_AUDIT", m.audited ? "1" : "0", 1);
	setenv("UMBRA_MMU", rng_one_in(&r, 4) ? "tdp" : "shadow", 1);
	machine_create(&m, &r);
	atomic_store(&stop, false);
	for (unsigned i = 0; i < m.nvcpus; i++)
		create_vcpu(&m, &v[i], i, seed);
	host.m = &m;
	host.r = rng_stream(seed, 1);
	for (unsigned i = 0; i < m.nvcpus; i++) {
		v[i].rounds = rounds;
		if (pthread_create(&v[i].t.id, NULL, vcpu_main, &v[i]))
			report_fail("no thread");
	}
	if (pthread_create(&host.id, NULL, host_main, &host))
		report_fail("no thread");
	supervise(&m, v, &host);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < m.nvcpus; i++)
		pthread_join(v[i].t.id, NULL);
	pthread_join(host.id, NULL);
	for (unsigned i = 0; i < m.nvcpus; i++)
		destroy_vcpu(&v[i]);
	machine_destroy(&m);
	report_log();
}

static void list_msrs(void)
{
	struct {
		struct kvm_msr_list head;
		uint32_t room[256];
	} list = { .head = { .nmsrs = 256 } };
	int sys = umbra_open();

	if (sys < 0 || io(sys, KVM_GET_MSR_INDEX_LIST, &list) < 0)
		report_fail("KVM_GET_MSR_INDEX_LIST: errno %d", errno);
	nmsrs = list.head.nmsrs;
	memcpy(msr_list, list.head.indices, nmsrs * sizeof(msr_list[0]));
	umbra_close(sys);
}

static void summary(unsigned long runs, double seconds)
{
	report_say("%lu VMs, %lu worlds, %lu KVM_RUN in %.1f s: %lu EINTR, %lu EFAULT, %lu other "
		   "errors; %lu "
		   "requests refused",
		   runs, tally.rounds, tally.runs, seconds, tally.eintr, tally.efault, tally.eother,
		   tally.refused);
	for (unsigned i = 0; i < KVM_RUN_MAX_EXIT; i++) {
		if (tally.exits[i])
			report_say("exit reason %2u: %lu", i, tally.exits[i]);
	}
}

int main(int argc, char **argv)
{
	struct fuzz_options o = { .program = "guest-fuzz",
				  .length_name = "--rounds",
				  .length = 16,
				  .flag_name = "--quiet-host" };
	struct sigaction kick = { .sa_handler = on_kick };

	fuzz_options_init(&o, argc, argv);
	report_init(o.program);
	sigaction(SIGUSR1, &kick, NULL);
	list_msrs();
	for (; fuzz_options_more(&o); o.done++) {
		unsigned long seed = fuzz_options_seed(&o);

		report_run("--seed %lu --rounds %lu%s", seed, o.length,
			   o.flag ? " --quiet-host" : "");
		one_run(seed, o.flag || seed % 3 == 0, (unsigned)o.length);
	}
	summary(o.done, fuzz_options_elapsed(&o));
	return 0;
}
