// SPDX-License-Identifier: MIT
/*
 * vCPU threads: KVM_RUN, and what to do with its exits.
 *
 * Stopping: `stop` is set, then kvm_run.immediate_exit, then the thread gets a signal whose handler
 * does nothing.  A signal that comes before KVM_RUN is entered is not lost: immediate_exit makes it
 * return at once.
 */
#include "vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/bits.h"
#include "msg.h"

#define MSR_MISC_ENABLE	  0x1a0
#define MISC_FAST_STRING  BIT(0)
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MTRR_ENABLED_WB	  (BIT(11) | 6)
#define LAPIC_LVT_LINT0	  0x350
#define LAPIC_LVT_LINT1	  0x360
#define LVT_NMI		  0x400u
#define LVT_EXTINT	  0x700u
#define EFER_LME	  BIT(8)
#define EFER_LMA	  BIT(10)
#define CR0_PE		  BIT(0)
#define CR0_ET		  BIT(4)
#define CR0_PG		  BIT(31)
#define CR4_PAE		  BIT(5)

struct vcpu {
	struct vcpu_env env;
	unsigned id;
	int fd;
	struct kvm_run *run;
	size_t run_size;
	pthread_t thread;
	bool started;
	bool stop; /* atomic */
};

#define KICK_SIGNAL SIGRTMIN

static void on_kick(int sig)
{
	(void)sig;
}

void vcpu_init_signal(void)
{
	/* Without SA_RESTART: the point is to interrupt. */
	struct sigaction sa = { .sa_handler = on_kick };

	sigaction(KICK_SIGNAL, &sa, NULL);
}

static int vcpu_ioctl(struct vcpu *v, unsigned long request, void *arg)
{
	return v->env.accel->ioctl(v->fd, request, arg);
}

static int failed(const struct vcpu *v, const char *what)
{
	return msg_err(errno, "vCPU %u: %s: %s", v->id, what, strerror(errno));
}

/* What firmware leaves behind in MSRs and the local APIC, where it matters to kernels. */
static int set_firmware_state(struct vcpu *v)
{
	static const struct kvm_msr_entry entries[] = {
		{ .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED_WB },
		{ .index = MSR_MISC_ENABLE, .data = MISC_FAST_STRING },
	};
	union {
		struct kvm_msrs head;
		u8 room[sizeof(struct kvm_msrs) + sizeof(entries)];
	} msrs = { .head.nmsrs = ARRAY_SIZE(entries) };
	struct kvm_lapic_state lapic;
	u32 extint = LVT_EXTINT, nmi = LVT_NMI;

	memcpy(msrs.head.entries, entries, sizeof(entries));
	/* Returns how many were taken; a KVM that lacks one of them is fine. */
	if (vcpu_ioctl(v, KVM_SET_MSRS, &msrs) < 0)
		return failed(v, "KVM_SET_MSRS");
	if (v->id)
		return 0;
	if (vcpu_ioctl(v, KVM_GET_LAPIC, &lapic) < 0)
		return failed(v, "KVM_GET_LAPIC");
	/* Virtual wire mode: the PIC interrupts the boot processor (MP specification 3.6.2.2). */
	memcpy(lapic.regs + LAPIC_LVT_LINT0, &extint, 4);
	memcpy(lapic.regs + LAPIC_LVT_LINT1, &nmi, 4);
	if (vcpu_ioctl(v, KVM_SET_LAPIC, &lapic) < 0)
		return failed(v, "KVM_SET_LAPIC");
	return 0;
}

struct vcpu *vcpu_new(const struct vcpu_env *env, unsigned id, const struct kvm_cpuid2 *cpuid)
{
	struct vcpu *v = calloc(1, sizeof(*v));
	int size = env->accel->ioctl(env->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);

	if (!v)
		return NULL;
	v->env = *env;
	v->id = id;
	v->run = MAP_FAILED;
	v->fd = env->accel->ioctl(env->vm, KVM_CREATE_VCPU, (void *)(uintptr_t)id);
	if (v->fd < 0) {
		failed(v, "KVM_CREATE_VCPU");
		goto fail;
	}
	if (size < (int)sizeof(struct kvm_run)) {
		msg("KVM_GET_VCPU_MMAP_SIZE: %d is too small", size);
		goto fail;
	}
	v->run_size = (size_t)size;
	v->run = env->accel->mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		failed(v, "mmap of kvm_run");
		goto fail;
	}
	if (vcpu_ioctl(v, KVM_SET_CPUID2, (void *)cpuid) < 0) {
		failed(v, "KVM_SET_CPUID2");
		goto fail;
	}
	if (set_firmware_state(v) < 0)
		goto fail;
	return v;
fail:
	vcpu_free(v);
	return NULL;
}

void vcpu_free(struct vcpu *v)
{
	if (!v)
		return;
	if (v->run != MAP_FAILED)
		munmap(v->run, v->run_size);
	if (v->fd >= 0)
		v->env.accel->close(v->fd);
	free(v);
}

int vcpu_set_boot(struct vcpu *v, const struct boot *boot)
{
	struct kvm_regs regs = {
		.rip = boot->rip,
		.rax = boot->rax,
		.rbx = boot->rbx,
		.rsi = boot->rsi,
		.rflags = 2,
	};
	struct kvm_segment code = {
		.limit = 0xffffffff,
		.selector = 0x10,
		.type = 11, /* execute, read, accessed */
		.present = 1,
		.s = 1,
		.g = 1,
		.db = !boot->long_mode,
		.l = boot->long_mode,
	};
	struct kvm_segment data = code;
	struct kvm_sregs s;

	data.selector = 0x18;
	data.type = 3; /* write, accessed */
	data.db = 1;
	data.l = 0;
	if (vcpu_ioctl(v, KVM_GET_SREGS, &s) < 0)
		return failed(v, "KVM_GET_SREGS");
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.gdt.base = BOOT_GDT;
	s.gdt.limit = 4 * 8 - 1;
	s.idt.base = 0;
	s.idt.limit = 0;
	s.cr0 = CR0_PE | CR0_ET;
	if (boot->long_mode) {
		s.cr0 |= CR0_PG;
		s.cr3 = BOOT_PAGES;
		s.cr4 = CR4_PAE;
		s.efer = EFER_LME | EFER_LMA;
	}
	if (vcpu_ioctl(v, KVM_SET_SREGS, &s) < 0)
		return failed(v, "KVM_SET_SREGS");
	if (vcpu_ioctl(v, KVM_SET_REGS, &regs) < 0)
		return failed(v, "KVM_SET_REGS");
	return 0;
}

/* The guest cannot go on: say so with all we know, and stop the machine. */
static void died(struct vcpu *v, enum stop_reason reason)
{
	__atomic_store_n(&v->stop, true, __ATOMIC_SEQ_CST);
	vcpu_dump(&v->env, v->fd, v->id);
	board_stop(v->env.board, reason, 0);
}

static void on_io(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	u8 *data = (u8 *)run + run->io.data_offset;

	for (u32 i = 0; i < run->io.count; i++, data += run->io.size)
		bus_access(v->env.io, run->io.port, data, run->io.size,
			   run->io.direction == KVM_EXIT_IO_OUT);
}

static void on_internal_error(struct vcpu *v)
{
	static const char *const names[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "an instruction that cannot be emulated",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "exceptions at the same time",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "an exit during event delivery",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an unexpected exit",
	};
	const struct kvm_run *run = v->run;
	u32 sub = run->internal.suberror;
	u32 n = um_min(run->internal.ndata, (u32)ARRAY_SIZE(run->internal.data));

	msg("vCPU %u: internal error %u (%s)", v->id, sub,
	    sub < ARRAY_SIZE(names) && names[sub] ? names[sub] : "unknown");
	for (u32 i = 0; i < n; i++)
		msg("  data[%u] = 0x%llx", i, run->internal.data[i]);
	died(v, STOP_DIED);
}

static void on_system_event(struct vcpu *v)
{
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		board_stop(v->env.board, STOP_POWEROFF, 0);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		board_stop(v->env.board, STOP_RESET, 0);
		break;
	default:
		msg("vCPU %u: system event %u", v->id, v->run->system_event.type);
		died(v, STOP_DIED);
	}
}

/* Serve one exit. */
static void on_exit_reason(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		on_io(v);
		break;
	case KVM_EXIT_MMIO:
		bus_access(v->env.mmio, run->mmio.phys_addr, run->mmio.data,
			   um_min(run->mmio.len, (u32)sizeof(run->mmio.data)), run->mmio.is_write);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR:
		break;
	case KVM_EXIT_SHUTDOWN:
		msg("vCPU %u: triple fault: the guest cannot go on", v->id);
		died(v, STOP_DIED);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		on_system_event(v);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		on_internal_error(v);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		msg("vCPU %u: the CPU refused to run the guest, reason 0x%llx", v->id,
		    run->fail_entry.hardware_entry_failure_reason);
		died(v, STOP_DIED);
		break;
	default:
		msg("vCPU %u: exit %u, which nobody asked for", v->id, run->exit_reason);
		died(v, STOP_DIED);
	}
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	char name[16];

	snprintf(name, sizeof(name), "vcpu %u", v->id);
	pthread_setname_np(pthread_self(), name);
	while (!__atomic_load_n(&v->stop, __ATOMIC_SEQ_CST)) {
		if (vcpu_ioctl(v, KVM_RUN, NULL) == 0) {
			on_exit_reason(v);
		} else if (errno != EINTR && errno != EAGAIN) {
			msg("vCPU %u: KVM_RUN: %s", v->id, strerror(errno));
			died(v, STOP_HOST);
			break;
		}
	}
	return NULL;
}

int vcpu_start(struct vcpu *v)
{
	int err = pthread_create(&v->thread, NULL, vcpu_thread, v);

	if (err)
		return msg_err(err, "vCPU %u: cannot create a thread: %s", v->id, strerror(err));
	v->started = true;
	return 0;
}

void vcpu_stop(struct vcpu *v)
{
	__atomic_store_n(&v->stop, true, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (v->started)
		pthread_kill(v->thread, KICK_SIGNAL);
}

void vcpu_join(struct vcpu *v)
{
	if (!v->started)
		return;
	for (;;) {
		struct timespec t;

		/* Kick again now and then, for a KVM that does not know immediate_exit. */
		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += 100000000;
		if (t.tv_nsec >= 1000000000) {
			t.tv_nsec -= 1000000000;
			t.tv_sec++;
		}
		if (pthread_timedjoin_np(v->thread, NULL, &t) == 0)
			break;
		pthread_kill(v->thread, KICK_SIGNAL);
	}
	v->started = false;
}
