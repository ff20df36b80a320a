// SPDX-License-Identifier: MIT
/*
 * Requests at random, with arguments of all kinds: what a VMM with a bug might do, and what a
 * prober does.
 *
 * Two threads take descriptors from a common pool (system, VMs, vCPUs; closed ones and foreign ones
 * too), and requests from the list of <linux/kvm.h>, some of them with bits flipped.  What must
 * hold:
 *  1. No crash, no report of a sanitizer, no leak, no hang.
 *  2. A structure that can't be read or written is never the argument of a success; one that ends
 *     with its page is never the reason for EFAULT, and nothing behind it is written.
 *  3. Requests that nobody knows fail with what their kind of descriptor answers.
 *  4. errno is one of those that api.rst has.
 *  5. What a GET request gave, SET takes, in any state; unless CPUID says no meanwhile.
 *
 * Guests don't run here: KVM_RUN only comes with immediate_exit.  Slots are put where nothing of
 * the process is.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "code.h"
#include "options.h"
#include "report.h"
#include "umbra.h"

#define POOL	     24
#define NTHREADS     2
#define HANG_SECONDS 60 /* a run takes less than one */
#define BUF_SIZE     0x4000
#define ARENA_SIZE   0x100000ull
#define CANARY_BYTE  0xa5

enum kind { NONE, SYSTEM, VM, VCPU, FOREIGN, CLOSED };

struct fd_entry {
	int fd;
	enum kind kind;
	struct kvm_run *run;
	bool new_cpuid; /* other features than those that the state came about with */
};

struct fuzzer {
	pthread_t id;
	struct rng r;
	struct fd_entry pool[POOL];
	uint8_t *buf; /* BUF_SIZE bytes, then a page that can't be accessed */
	uint8_t *arena;
	size_t run_size;
	unsigned long steps, done, succeeded;
};

#define io(fd, request, arg) umbra_ioctl(fd, request, (void *)(uintptr_t)(arg))

/* Fixed: all of the structure is read or written, and nothing else. */
enum shape { FIXED, LIST, INTEGER };

struct request {
	unsigned long cmd;
	enum kind on;
	enum shape shape;
};

static const struct request requests[] = {
	{ KVM_GET_API_VERSION, SYSTEM, INTEGER },
	{ KVM_CREATE_VM, SYSTEM, INTEGER },
	{ KVM_CHECK_EXTENSION, SYSTEM, INTEGER },
	{ KVM_GET_VCPU_MMAP_SIZE, SYSTEM, INTEGER },
	{ KVM_GET_MSR_INDEX_LIST, SYSTEM, LIST },
	{ KVM_GET_MSR_FEATURE_INDEX_LIST, SYSTEM, LIST },
	{ KVM_GET_MSRS, SYSTEM, LIST },
	{ KVM_GET_SUPPORTED_CPUID, SYSTEM, LIST },
	{ KVM_GET_EMULATED_CPUID, SYSTEM, LIST },
	{ KVM_X86_GET_MCE_CAP_SUPPORTED, SYSTEM, FIXED },
	{ KVM_CREATE_VCPU, VM, INTEGER },
	{ KVM_CHECK_EXTENSION, VM, INTEGER },
	{ KVM_ENABLE_CAP, VM, FIXED },
	{ KVM_SET_BOOT_CPU_ID, VM, INTEGER },
	{ KVM_SET_TSS_ADDR, VM, INTEGER },
	{ KVM_SET_IDENTITY_MAP_ADDR, VM, FIXED },
	{ KVM_SET_USER_MEMORY_REGION, VM, FIXED },
	{ KVM_GET_DIRTY_LOG, VM, LIST },
	{ KVM_SET_NR_MMU_PAGES, VM, INTEGER },
	{ KVM_GET_NR_MMU_PAGES, VM, INTEGER },
	{ KVM_CREATE_IRQCHIP, VM, INTEGER },
	{ KVM_GET_IRQCHIP, VM, FIXED },
	{ KVM_SET_IRQCHIP, VM, FIXED },
	{ KVM_IRQ_LINE, VM, FIXED },
	{ KVM_IRQ_LINE_STATUS, VM, FIXED },
	{ KVM_SIGNAL_MSI, VM, FIXED },
	{ KVM_SET_GSI_ROUTING, VM, LIST },
	{ KVM_CREATE_PIT, VM, INTEGER },
	{ KVM_CREATE_PIT2, VM, FIXED },
	{ KVM_GET_PIT, VM, FIXED },
	{ KVM_SET_PIT, VM, FIXED },
	{ KVM_GET_PIT2, VM, FIXED },
	{ KVM_SET_PIT2, VM, FIXED },
	{ KVM_REINJECT_CONTROL, VM, LIST },
	{ KVM_GET_CLOCK, VM, FIXED },
	{ KVM_SET_CLOCK, VM, FIXED },
	{ KVM_GET_TSC_KHZ, VM, INTEGER },
	{ KVM_SET_TSC_KHZ, VM, INTEGER },
	{ KVM_RUN, VCPU, INTEGER },
	{ KVM_GET_REGS, VCPU, FIXED },
	{ KVM_SET_REGS, VCPU, FIXED },
	{ KVM_GET_SREGS, VCPU, FIXED },
	{ KVM_SET_SREGS, VCPU, FIXED },
	{ KVM_GET_SREGS2, VCPU, FIXED },
	{ KVM_SET_SREGS2, VCPU, FIXED },
	{ KVM_GET_DEBUGREGS, VCPU, FIXED },
	{ KVM_SET_DEBUGREGS, VCPU, FIXED },
	{ KVM_SET_GUEST_DEBUG, VCPU, FIXED },
	{ KVM_GET_FPU, VCPU, FIXED },
	{ KVM_SET_FPU, VCPU, FIXED },
	{ KVM_GET_XSAVE, VCPU, FIXED },
	{ KVM_SET_XSAVE, VCPU, FIXED },
	{ KVM_GET_XSAVE2, VCPU, LIST },
	{ KVM_GET_XCRS, VCPU, FIXED },
	{ KVM_SET_XCRS, VCPU, FIXED },
	{ KVM_GET_MSRS, VCPU, LIST },
	{ KVM_SET_MSRS, VCPU, LIST },
	{ KVM_SET_CPUID, VCPU, LIST },
	{ KVM_SET_CPUID2, VCPU, LIST },
	{ KVM_GET_CPUID2, VCPU, LIST },
	{ KVM_GET_VCPU_EVENTS, VCPU, FIXED },
	{ KVM_SET_VCPU_EVENTS, VCPU, FIXED },
	{ KVM_GET_MP_STATE, VCPU, FIXED },
	{ KVM_SET_MP_STATE, VCPU, FIXED },
	{ KVM_INTERRUPT, VCPU, FIXED },
	{ KVM_NMI, VCPU, INTEGER },
	{ KVM_SMI, VCPU, INTEGER },
	{ KVM_GET_LAPIC, VCPU, FIXED },
	{ KVM_SET_LAPIC, VCPU, FIXED },
	{ KVM_X86_SETUP_MCE, VCPU, FIXED },
	{ KVM_X86_SET_MCE, VCPU, FIXED },
	{ KVM_SET_SIGNAL_MASK, VCPU, LIST },
	{ KVM_TRANSLATE, VCPU, FIXED },
	{ KVM_GET_TSC_KHZ, VCPU, INTEGER },
	{ KVM_SET_TSC_KHZ, VCPU, INTEGER },
	{ KVM_KVMCLOCK_CTRL, VCPU, INTEGER },
	{ KVM_ENABLE_CAP, VCPU, FIXED },
	/* What may not be there: any answer will do, but an answer. */
	{ KVM_IRQFD, VM, LIST },
	{ KVM_IOEVENTFD, VM, LIST },
	{ KVM_CREATE_DEVICE, VM, LIST },
	{ KVM_REGISTER_COALESCED_MMIO, VM, LIST },
	{ KVM_CLEAR_DIRTY_LOG, VM, LIST },
	{ KVM_X86_SET_MSR_FILTER, VM, LIST },
	{ KVM_RESET_DIRTY_RINGS, VM, INTEGER },
	{ KVM_GET_NESTED_STATE, VCPU, LIST },
	{ KVM_SET_NESTED_STATE, VCPU, LIST },
	{ KVM_GET_ONE_REG, VCPU, LIST },
};

/* GET and SET of the same. */
static const struct {
	unsigned long get, set;
	enum kind on;
} pairs[] = {
	{ KVM_GET_REGS, KVM_SET_REGS, VCPU },
	{ KVM_GET_SREGS, KVM_SET_SREGS, VCPU },
	{ KVM_GET_SREGS2, KVM_SET_SREGS2, VCPU },
	{ KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, VCPU },
	{ KVM_GET_FPU, KVM_SET_FPU, VCPU },
	{ KVM_GET_XSAVE, KVM_SET_XSAVE, VCPU },
	{ KVM_GET_XCRS, KVM_SET_XCRS, VCPU },
	{ KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, VCPU },
	{ KVM_GET_MP_STATE, KVM_SET_MP_STATE, VCPU },
	{ KVM_GET_LAPIC, KVM_SET_LAPIC, VCPU },
	{ KVM_GET_PIT2, KVM_SET_PIT2, VM },
	{ KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, VM },
};

static bool known_errno(int err, unsigned long cmd)
{
	switch (err) {
	case EINVAL:
	case EFAULT:
	case ENOTTY:
	case EBADF:
	case E2BIG:
	case ENOMEM:
	case ENXIO:
	case EEXIST:
	case EBUSY:
	case ENOENT:
	case EMFILE:
	case ENODEV:
	case EPERM:
	case EOPNOTSUPP:
		return true;
	case EINTR:
	case EAGAIN:
		return cmd == KVM_RUN;
	default:
		return false;
	}
}

/* ---- the pool ---- */

static void drop(struct fuzzer *f, struct fd_entry *e)
{
	if (e->run)
		munmap(e->run, f->run_size);
	e->run = NULL;
	if (e->kind == FOREIGN) {
		close(e->fd);
	} else if (e->kind != NONE && e->kind != CLOSED) {
		if (umbra_close(e->fd))
			report_fail("close: errno %d", errno);
	}
	e->kind = CLOSED;
}

static void keep(struct fuzzer *f, int fd, enum kind kind)
{
	/* The first three stay: a system, a VM, a vCPU. */
	struct fd_entry *e = &f->pool[3 + rng_below(&f->r, POOL - 3)];

	for (unsigned i = 0; i < 3; i++) {
		if (f->pool[i].kind == NONE) {
			e = &f->pool[i];
			break;
		}
	}
	drop(f, e);
	*e = (struct fd_entry){ .fd = fd, .kind = kind };
	if (kind != VCPU)
		return;
	e->run = umbra_mmap(NULL, f->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (e->run == MAP_FAILED)
		report_fail("umbra_mmap: errno %d", errno);
	e->run->immediate_exit = 1;
}

static struct fd_entry *pick(struct fuzzer *f, enum kind kind)
{
	for (unsigned i = 0; i < POOL; i++) {
		struct fd_entry *e = &f->pool[rng_below(&f->r, POOL)];

		if (e->kind == kind)
			return e;
	}
	return &f->pool[kind == SYSTEM ? 0 : kind == VM ? 1 : 2];
}

static void add_some(struct fuzzer *f)
{
	int fd = -1;

	switch (rng_below(&f->r, 4)) {
	case 0:
		fd = umbra_open();
		if (fd >= 0)
			keep(f, fd, SYSTEM);
		break;
	case 1:
		fd = dup(STDIN_FILENO);
		if (fd >= 0)
			keep(f, fd, FOREIGN);
		break;
	case 2:
		fd = io(f->pool[0].fd, KVM_CREATE_VM, 0);
		if (fd >= 0)
			keep(f, fd, VM);
		break;
	default:
		fd = io(pick(f, VM)->fd, KVM_CREATE_VCPU, rng_below(&f->r, 8));
		if (fd >= 0)
			keep(f, fd, VCPU);
		break;
	}
}

/* ---- arguments ---- */

/* Slots only where nothing of ours is: in the arena, or so low that nothing is mapped. */
static void tame_region(struct fuzzer *f, struct kvm_userspace_memory_region *m)
{
	struct rng *r = &f->r;

	if (rng_one_in(r, 4))
		m->slot = (uint32_t)rng64(r);
	else
		m->slot = rng_below(r, 16);
	m->flags = rng_one_in(r, 8) ? (uint32_t)rng64(r) : rng_below(r, 4);
	m->guest_phys_addr = rng_one_in(r, 4) ? fuzz_value(r) : rng_below(r, 0x1000) << 12;
	m->memory_size = rng_one_in(r, 4) ? 0 : (rng_below(r, 16) + 1) << 12;
	m->userspace_addr = (uintptr_t)f->arena + (rng_below(r, 0x80) << 12);
	switch (rng_below(r, 8)) {
	case 0:
		m->userspace_addr = 0x10000 + (rng_below(r, 0x1000) << 12);
		break;
	case 1: /* beyond user space: must be refused */
		m->userspace_addr = (0xffffull << 47) + (rng64(r) & 0x3fffffff000);
		break;
	case 2: /* large, and never written to */
		m->memory_size = rng64(r) & 0xffffff000;
		m->flags |= KVM_MEM_READONLY;
		break;
	case 3:
		m->memory_size += rng_below(r, 0x1000);
		break;
	default:
		break;
	}
}

/* Contents for a structure at @p. */
static void fill(struct fuzzer *f, const struct request *q, int fd, uint8_t *p, size_t size)
{
	struct rng *r = &f->r;
	unsigned n;

	if (rng_one_in(r, 4))
		rng_fill(r, p, size);
	else
		memset(p, 0, size);
	/* What is there, with a few bits changed. */
	for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		if (pairs[i].set != q->cmd || !rng_one_in(r, 2))
			continue;
		umbra_ioctl(fd, pairs[i].get, p);
		for (n = rng_below(r, 4); n--;)
			p[rng_below(r, (unsigned)size)] ^= (uint8_t)(1u << rng_below(r, 8));
	}
	for (n = rng_below(r, 4); n-- && size >= 8;) {
		uint64_t v = fuzz_value(r);

		memcpy(p + (rng_below(r, (unsigned)(size / 8)) << 3), &v, 8);
	}
	if (q->cmd == KVM_SET_USER_MEMORY_REGION)
		tame_region(f, (void *)p);
	if (q->cmd == KVM_GET_DIRTY_LOG) {
		struct kvm_dirty_log *log = (void *)p;

		log->slot = rng_below(r, 16);
		log->dirty_bitmap = rng_one_in(r, 2) ? f->buf : f->buf + BUF_SIZE;
	}
	if (q->cmd == KVM_ENABLE_CAP && rng_one_in(r, 2))
		*(uint32_t *)p = rng_below(r, 250);
}

/* A list: a count that may be anything, and entries. */
static void fill_list(struct fuzzer *f, const struct request *q, int fd, uint8_t *p)
{
	static const uint32_t counts[] = {
		0, 1, 2, 3, 8, 40, 80, 255, 256, 257, 4096, 0x7fffffff, 0x80000000, 0xffffffff
	};
	struct rng *r = &f->r;
	uint32_t n = rng_pick(r, counts);

	rng_fill(r, p, 0x800);
	if (q->cmd == KVM_SET_CPUID2 && rng_one_in(r, 2)) {
		struct kvm_cpuid2 *c = (void *)p;

		c->nent = 256;
		io(f->pool[0].fd, KVM_GET_SUPPORTED_CPUID, c);
		n = c->nent;
		if (rng_one_in(r, 2) && n && n < 256)
			((uint32_t *)&c->entries[rng_below(r, n)])[rng_below(r, 10)] =
				(uint32_t)fuzz_value(r);
	}
	if (q->cmd == KVM_GET_MSRS || q->cmd == KVM_SET_MSRS) {
		struct kvm_msrs *m = (void *)p;

		for (unsigned i = 0; i < 16; i++) {
			m->entries[i].index = fuzz_msr(r);
			m->entries[i].data = fuzz_value(r);
		}
	}
	if (q->cmd == KVM_SET_GSI_ROUTING && rng_one_in(r, 2)) {
		struct kvm_irq_routing *g = (void *)p;

		g->flags = 0;
		for (unsigned i = 0; i < 8; i++)
			g->entries[i] =
				(struct kvm_irq_routing_entry){ .gsi = rng_below(r, 4200),
								.type = rng_below(r, 5),
								.u.irqchip = { rng_below(r, 4),
									       rng_below(r, 30) } };
	}
	memcpy(p, &n, 4);
	if (q->cmd == KVM_GET_DIRTY_LOG)
		fill(f, q, fd, p, sizeof(struct kvm_dirty_log));
}

/* ---- a step ---- */

static void spoil_run(struct fuzzer *f, struct kvm_run *run)
{
	struct rng *r = &f->r;

	if (!run || !rng_one_in(r, 2))
		return;
	rng_fill(r, run, sizeof(*run));
	run->immediate_exit = 1;
	run->kvm_valid_regs = rng_below(r, rng_one_in(r, 4) ? 16 : 8);
	run->kvm_dirty_regs = rng_below(r, rng_one_in(r, 4) ? 16 : 8);
	if (rng_one_in(r, 2))
		run->cr8 &= 15;
}

/*
 * KVM doesn't take back the one combination that it can give: an SMI that came to a processor
 * between INIT and SIPI.
 */
static bool smi_between_init_and_sipi(int vcpu)
{
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;

	return !io(vcpu, KVM_GET_MP_STATE, &mp) && mp.mp_state == KVM_MP_STATE_INIT_RECEIVED &&
	       !io(vcpu, KVM_GET_VCPU_EVENTS, &events) && (events.smi.smm || events.smi.pending);
}

static void round_trip(struct fuzzer *f)
{
	unsigned i = rng_below(&f->r, sizeof(pairs) / sizeof(pairs[0]));
	struct fd_entry *e = pick(f, pairs[i].on);
	uint8_t *p = f->buf;
	struct kvm_mp_state mp;

	/*
	 * This takes in a SIPI that waits, if one does; smi_between_init_and_sipi() must not be
	 * what does it.
	 */
	if (pairs[i].get == KVM_GET_VCPU_EVENTS)
		io(e->fd, KVM_GET_MP_STATE, &mp);
	if (e->new_cpuid && (pairs[i].get == KVM_GET_SREGS || pairs[i].get == KVM_GET_SREGS2 ||
			     pairs[i].get == KVM_GET_XCRS))
		return;
	memset(p, 0, BUF_SIZE);
	if (pairs[i].get == KVM_GET_IRQCHIP)
		((struct kvm_irqchip *)p)->chip_id = rng_below(&f->r, 3);
	if (umbra_ioctl(e->fd, pairs[i].get, p) < 0)
		return;
	if (umbra_ioctl(e->fd, pairs[i].set, p) < 0 &&
	    !(pairs[i].on == VCPU && errno == EINVAL && smi_between_init_and_sipi(e->fd)))
		report_fail("request %#lx: errno %d for what %#lx gave", pairs[i].set, errno,
			    pairs[i].get);
}

/* A number that is nobody's, or somebody's by accident. */
static void unknown_request(struct fuzzer *f)
{
	struct rng *r = &f->r;
	unsigned long cmd = rng_pick(r, requests).cmd ^ 1ul << rng_below(r, 32);
	enum kind kind = SYSTEM + rng_below(r, 3);
	struct fd_entry *e = pick(f, kind);

	if (rng_one_in(r, 2))
		cmd = rng64(r) & 0xffffffff;
	for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		if (requests[i].cmd == cmd)
			return;
	}
	errno = 0;
	if (umbra_ioctl(e->fd, cmd, f->buf) != -1 || errno != (e->kind == VM ? ENOTTY : EINVAL))
		report_fail("request %#lx, which nobody knows: errno %d", cmd, errno);
}

static void step(struct fuzzer *f)
{
	struct rng *r = &f->r;
	const struct request *q = &requests[rng_below(r, sizeof(requests) / sizeof(requests[0]))];
	struct fd_entry *e = rng_one_in(r, 16) ? &f->pool[rng_below(r, POOL)] : pick(f, q->on);
	size_t size = _IOC_SIZE(q->cmd);
	bool right = e->kind == q->on, hostile = false;
	uint8_t *end = f->buf + BUF_SIZE, *p = end - size, *arg;
	int ret, err;

	if (q->shape == INTEGER) {
		arg = (void *)(uintptr_t)(rng_one_in(r, 2) ? rng_below(r, 300) : fuzz_value(r));
		if (q->cmd == KVM_CREATE_VM || (q->cmd == KVM_RUN && !rng_one_in(r, 16)))
			arg = NULL;
		if (q->cmd == KVM_RUN)
			spoil_run(f, e->run);
	} else {
		memset(f->buf, CANARY_BYTE, BUF_SIZE);
		if (q->shape == LIST) {
			p = rng_one_in(r, 2) ? f->buf : end - 8 - rng_below(r, 0x600);
			p = (uint8_t *)((uintptr_t)p & ~7ul);
			if (end - p >= 0x2840)
				fill_list(f, q, e->fd, p);
			else
				*(uint32_t *)p = rng_below(r, 300);
		} else {
			if (rng_one_in(r, 2))
				p -= rng_below(r, 0x100) << 3;
			fill(f, q, e->fd, p, size);
			memset(p + size, CANARY_BYTE, (size_t)(end - p) - size);
		}
		arg = p;
		if (rng_one_in(r, 8)) {
			static const uint64_t bad[] = {
				0, 1, 8, 0x1000, 1ull << 47, ~0ull, ~7ull, 0xffff800000000000
			};

			hostile = true;
			arg = rng_one_in(r, 2)
				      ? (uint8_t *)(uintptr_t)rng_pick(r, bad)
				      : end - rng_below(r, (unsigned)(size < 8 ? size : 8));
		}
	}
	ret = umbra_ioctl(e->fd, q->cmd, arg);
	err = errno;
	f->succeeded += ret >= 0;
	if (ret < 0 && !known_errno(err, q->cmd))
		report_fail("request %#lx: errno %d", q->cmd, err);
	if (!right) {
		if (e->kind == FOREIGN && (ret >= 0 || err != EBADF))
			report_fail("request %#lx on a descriptor that is not ours", q->cmd);
		if (ret >= 0 && (q->cmd == KVM_CREATE_VM || q->cmd == KVM_CREATE_VCPU))
			umbra_close(ret);
		return;
	}
	if (hostile && ret >= 0 && !(q->cmd == KVM_SET_SIGNAL_MASK && !arg))
		report_fail("request %#lx succeeds with an argument at %p", q->cmd, (void *)arg);
	if (q->shape == FIXED && !hostile) {
		if (ret < 0 && err == EFAULT)
			report_fail("request %#lx: EFAULT with a whole structure", q->cmd);
		for (uint8_t *c = p + size; c < end; c++) {
			if (*c != CANARY_BYTE)
				report_fail("request %#lx writes behind its structure", q->cmd);
		}
	}
	if (ret >= 0 && (q->cmd == KVM_SET_CPUID || q->cmd == KVM_SET_CPUID2))
		e->new_cpuid = true;
	if (ret >= 0 && q->cmd == KVM_CREATE_VM)
		keep(f, ret, VM);
	else if (ret >= 0 && q->cmd == KVM_CREATE_VCPU)
		keep(f, ret, VCPU);
}

static void *fuzzer_main(void *arg)
{
	struct fuzzer *f = arg;

	while (f->done < f->steps) {
		switch (rng_below(&f->r, 32)) {
		case 0:
			add_some(f);
			break;
		case 1:
		case 2:
		case 3:
			round_trip(f);
			break;
		case 4:
			unknown_request(f);
			break;
		default:
			step(f);
			break;
		}
		f->done++;
	}
	return NULL;
}

static void start(struct fuzzer *f, uint64_t seed, unsigned n, unsigned long steps)
{
	f->r = rng_stream(seed, n);
	f->steps = steps;
	f->buf = mmap(NULL, BUF_SIZE + 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	f->arena =
		mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f->buf == MAP_FAILED || f->arena == MAP_FAILED ||
	    mprotect(f->buf + BUF_SIZE, 0x1000, PROT_NONE))
		report_fail("mmap: errno %d", errno);
	keep(f, umbra_open(), SYSTEM);
	f->run_size = (size_t)io(f->pool[0].fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	keep(f, io(f->pool[0].fd, KVM_CREATE_VM, 0), VM);
	if (n)
		io(f->pool[1].fd, KVM_CREATE_IRQCHIP, 0);
	keep(f, io(f->pool[1].fd, KVM_CREATE_VCPU, 0), VCPU);
	for (unsigned i = 0; i < 3; i++) {
		if (f->pool[i].fd < 0)
			report_fail("no descriptors: errno %d", errno);
	}
}

static void finish(struct fuzzer *f)
{
	for (unsigned i = 0; i < POOL; i++)
		drop(f, &f->pool[i]);
	munmap(f->buf, BUF_SIZE + 0x1000);
	munmap(f->arena, ARENA_SIZE);
}

struct totals {
	unsigned long requests, succeeded;
};

static void one_run(uint64_t seed, unsigned long steps, struct totals *t)
{
	struct fuzzer f[NTHREADS];

	memset(f, 0, sizeof(f));
	for (unsigned n = 0; n < NTHREADS; n++)
		start(&f[n], seed, n, steps);
	for (unsigned n = 0; n < NTHREADS; n++) {
		if (pthread_create(&f[n].id, NULL, fuzzer_main, &f[n]))
			report_fail("no thread");
	}
	for (unsigned n = 0; n < NTHREADS; n++) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += HANG_SECONDS;
		if (pthread_timedjoin_np(f[n].id, NULL, &until))
			report_hang(f[n].id, "a thread with requests");
		finish(&f[n]);
		t->requests += f[n].done;
		t->succeeded += f[n].succeeded;
	}
	report_log();
}

int main(int argc, char **argv)
{
	struct fuzz_options o = { .program = "state-fuzz",
				  .length_name = "--steps",
				  .length = 4000 };
	struct totals t = { 0 };

	fuzz_options_init(&o, argc, argv);
	report_init(o.program);
	for (; fuzz_options_more(&o); o.done++) {
		report_run("--seed %lu --steps %lu", fuzz_options_seed(&o), o.length);
		one_run(fuzz_options_seed(&o), o.length, &t);
	}
	report_say("%lu runs, %lu steps, %lu requests succeeded, %.1f s", o.done, t.requests,
		   t.succeeded, fuzz_options_elapsed(&o));
	return 0;
}
