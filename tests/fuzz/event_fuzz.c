// SPDX-License-Identifier: MIT
/*
 * Eventfds used well, and all at once: ioeventfds and irqfds that come and go while a guest writes
 * and is interrupted, while other threads close and replace descriptors.
 *
 * A run is a VM drawn from its seed: two vCPUs that write to ports and device memory, and count
 * what they have written; two workers with addresses, interrupt lines and eventfds of their own; a
 * troublemaker, whose descriptors a fourth thread closes and replaces at any moment.  What must
 * hold:
 *  1. Requests of the workers are answered as api.rst has it, whatever the others do.
 *  2. Every write of the guest is either one signal or one exit: at the end, what the guest has
 *     counted is what the eventfds and the vCPUs' threads have.
 *  3. A signal of an irqfd that resamples ends with the guest's EOI, and its resample descriptor
 *     tells.
 *  4. Once an irqfd is deassigned, or its VM closed, nobody takes the signals of its eventfd.
 *  5. No crash, no report of a sanitizer, no leak of descriptors, no hang.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "options.h"
#include "report.h"
#include "rng.h"
#include "umbra.h"

#define NVCPUS	 2
#define NWORKERS 2
#define PARTIES	 3 /* the workers, and the troublemaker */

#define HANG_SECONDS 120
#define RESAMPLE_MS  60000

/* The guest's memory. */
#define MEM_SIZE     0x10000
#define HANDLER_PIC  0x500
#define HANDLER_APIC 0x520
#define STOP	     0x580
#define COUNTERS     0x600 /* NVCPUS * NWRITES words of 32 bits */
#define CODE(vcpu)   (0x1000 + (vcpu)*0x2000)
#define STACK(vcpu)  (0x8000 + (vcpu)*0x2000)
#define NWRITES	     32

/* Where each party's eventfds listen: NPLACES ports, and as many addresses. */
#define NPLACES	  4
#define PORT	  0x600
#define PORT_DONE 0x5f0
#define DEVICE	  0x20000
#define PORTS	  0x40	 /* of a party */
#define ADDRESSES 0x1000 /* of a party */

#define NEVENTS 4  /* of a worker, for either kind */
#define NLISTEN 16 /* ioeventfds of a worker at a time */
#define NLINES	6
#define LOOSE \
	400 /* numbers of the descriptors that are closed at any moment: nobody else gets them */
#define NLOOSE 6
#define NRAISING \
	4 /* the first of them; the others tell of EOIs, which must not raise lines again */
#define VECTOR 0x40 /* of line 0 */

/*
 * Those of the PIC, and those that only the IOAPIC has.  The troublemaker's have the lowest
 * priority: however often they are raised, the workers' interrupts come through.
 */
static const uint32_t lines[PARTIES][NLINES] = {
	{ 3, 4, 5, 18, 19, 20 },
	{ 10, 11, 12, 21, 22, 23 },
	{ 16, 17, 16, 17, 16, 17 },
};

enum chip { CHIP_NONE, CHIP_FULL, CHIP_SPLIT, CHIP_KINDS };

struct write {
	bool port;
	uint8_t party, place, len;
	uint32_t value;
};

struct listener {
	bool used;
	struct kvm_ioeventfd args; /* but the descriptor */
	unsigned event;
};

struct irq_event {
	int fd, resample;
	bool assigned, resamples;
	uint32_t gsi;
};

struct machine;

struct worker {
	pthread_t id;
	struct machine *m;
	struct rng r;
	unsigned party;
	int events[NEVENTS]; /* of ioeventfds */
	uint64_t signals;    /* read from them */
	struct listener listeners[NLISTEN];
	struct irq_event irqs[NEVENTS];
	unsigned long requests, resamples;
};

struct vcpu {
	pthread_t id;
	struct machine *m;
	int fd;
	size_t run_size;
	struct kvm_run *run;
	struct write writes[NWRITES];
	uint64_t exits[PARTIES];
};

struct machine {
	int sys, vm;
	enum chip chip;
	uint8_t *mem;
	struct vcpu vcpus[NVCPUS];
	struct worker workers[NWORKERS];
	struct rng trouble, closing;
	atomic_bool quiet; /* the workers are done: the others end too */
	unsigned steps;
};

#define io(fd, request, arg) umbra_ioctl(fd, request, (void *)(uintptr_t)(arg))

static unsigned long total_writes, total_signals, total_resamples, total_requests;

/* ---- the guest: real mode, ES at the devices, FS at the local APIC ---- */

struct assembler {
	uint8_t *at;
};

static void emit(struct assembler *a, const void *bytes, size_t n)
{
	memcpy(a->at, bytes, n);
	a->at += n;
}

#define EMIT(a, ...) emit(a, (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))
#define LE16(v)	     (uint8_t)(v), (uint8_t)((v) >> 8)

static uint64_t place_address(bool port, unsigned party, unsigned place)
{
	return port ? PORT + party * PORTS + place * 8 : DEVICE + party * ADDRESSES + place * 0x100;
}

static void emit_write(struct assembler *a, const struct write *w)
{
	uint64_t at = place_address(w->port, w->party, w->place);

	EMIT(a, 0x66, 0xb8, LE16(w->value), LE16(w->value >> 16)); /* mov eax, value */
	if (w->port) {
		EMIT(a, 0xba, LE16(at)); /* mov dx, port */
		if (w->len == 4)
			EMIT(a, 0x66);
		EMIT(a, w->len == 1 ? 0xee : 0xef); /* out dx, al/ax/eax */
	} else {
		EMIT(a, 0xbf, LE16(at - DEVICE), 0x26); /* mov di, offset; es: */
		if (w->len == 4)
			EMIT(a, 0x66);
		EMIT(a, w->len == 1 ? 0x88 : 0x89, 0x05); /* mov [di], al/ax/eax */
	}
}

static void build_code(struct machine *m, unsigned n, struct rng *r)
{
	struct vcpu *v = &m->vcpus[n];
	struct assembler a = { m->mem + CODE(n) };
	uint8_t *loop;
	long back;

	EMIT(&a, 0x64, 0x66, 0xc7, 0x06, 0xf0, 0, 0xff, 1, 0, 0); /* enable the APIC */
	loop = a.at;
	for (unsigned i = 0; i < NWRITES; i++) {
		static const uint8_t lengths[] = { 1, 2, 4 };
		struct write *w = &v->writes[i];

		*w = (struct write){ .port = rng_one_in(r, 2),
				     .party = (uint8_t)rng_below(r, PARTIES),
				     .place = (uint8_t)rng_below(r, NPLACES),
				     .len = rng_pick(r, lengths),
				     .value = rng_below(r, 3) };
		emit_write(&a, w);
		EMIT(&a, 0x66, 0xff, 0x06,
		     LE16(COUNTERS + (n * NWRITES + i) * 4)); /* inc dword [counter] */
		if (rng_one_in(r, 4))
			EMIT(&a, 0xfb, 0x90, 0xfa); /* sti; nop; cli */
	}
	EMIT(&a, 0xfb, 0x90, 0xfa);
	EMIT(&a, 0x80, 0x3e, LE16(STOP), 0); /* cmp byte [STOP], 0 */
	back = loop - (a.at + 4);
	EMIT(&a, 0x0f, 0x84, LE16(back));		   /* je loop */
	EMIT(&a, 0xba, LE16(PORT_DONE), 0xee, 0xeb, 0xfe); /* out; for ever */
}

static void build_handlers(uint8_t *mem)
{
	/* push ax; mov al, 0x20; out 0xa0, al; out 0x20, al; pop ax; iret */
	static const uint8_t pic[] = { 0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf };
	/* mov dword fs:[0xb0], 0; iret */
	static const uint8_t apic[] = { 0x64, 0x66, 0xc7, 0x06, 0xb0, 0, 0, 0, 0, 0, 0xcf };

	for (unsigned v = 0; v < 256; v++)
		mem[v * 4 + 1] = (v < VECTOR ? HANDLER_PIC : HANDLER_APIC) >> 8,
			    mem[v * 4] = (uint8_t)(v < VECTOR ? HANDLER_PIC : HANDLER_APIC);
	memcpy(mem + HANDLER_PIC, pic, sizeof(pic));
	memcpy(mem + HANDLER_APIC, apic, sizeof(apic));
}

static uint32_t counted(const struct machine *m, unsigned vcpu, unsigned write)
{
	uint32_t n;

	memcpy(&n, m->mem + COUNTERS + (vcpu * NWRITES + write) * 4, 4);
	return n;
}

/* ---- the machine ---- */

static void must(bool ok, const char *what)
{
	if (!ok)
		report_fail("%s: errno %d", what, errno);
}

/* Lines to vectors: messages where there is no IOAPIC, else its pins, triggered by level. */
static void route(struct machine *m)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e[24];
	} table = { .head = { .nr = 24 } };

	if (m->chip == CHIP_FULL) {
		must(!io(m->vm, KVM_GET_IRQCHIP, &chip), "KVM_GET_IRQCHIP");
		for (unsigned pin = 16; pin < 24; pin++)
			chip.chip.ioapic.redirtbl[pin].bits = (VECTOR + pin) | 1 << 15;
		must(!io(m->vm, KVM_SET_IRQCHIP, &chip), "KVM_SET_IRQCHIP");
	} else if (m->chip == CHIP_SPLIT) {
		for (unsigned i = 0; i < 24; i++)
			table.e[i] = (struct kvm_irq_routing_entry){
				.gsi = i,
				.type = KVM_IRQ_ROUTING_MSI,
				.u.msi = { .address_lo = 0xfee00000, .data = VECTOR + i },
			};
		must(!io(m->vm, KVM_SET_GSI_ROUTING, &table), "KVM_SET_GSI_ROUTING");
	}
}

static void create_vcpu(struct machine *m, unsigned n)
{
	struct vcpu *v = &m->vcpus[n];
	struct kvm_regs regs = { .rip = CODE(n), .rsp = STACK(n), .rflags = 2 };
	struct kvm_mp_state mp = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_sregs sregs;

	v->m = m;
	v->fd = io(m->vm, KVM_CREATE_VCPU, n);
	must(v->fd >= 0, "KVM_CREATE_VCPU");
	v->run_size = (size_t)io(m->sys, KVM_GET_VCPU_MMAP_SIZE, 0);
	v->run = umbra_mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	must(v->run != MAP_FAILED, "umbra_mmap");
	must(!io(v->fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = sregs.cs.selector = 0;
	sregs.es.base = DEVICE;
	sregs.fs.base = 0xfee00000;
	must(!io(v->fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	must(!io(v->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	if (m->chip != CHIP_NONE)
		must(!io(v->fd, KVM_SET_MP_STATE, &mp), "KVM_SET_MP_STATE");
}

static void create_machine(struct machine *m, uint64_t seed)
{
	struct rng r = rng_stream(seed, 0);
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_userspace_memory_region region = { .memory_size = MEM_SIZE };

	m->chip = rng_one_in(&r, 2) ? CHIP_FULL : rng_below(&r, CHIP_KINDS);
	m->sys = umbra_open();
	must(m->sys >= 0, "umbra_open");
	m->vm = io(m->sys, KVM_CREATE_VM, 0);
	must(m->vm >= 0, "KVM_CREATE_VM");
	if (m->chip == CHIP_FULL)
		must(!io(m->vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	else if (m->chip == CHIP_SPLIT)
		must(!io(m->vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
	m->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(m->mem != MAP_FAILED, "mmap");
	build_handlers(m->mem);
	for (unsigned n = 0; n < NVCPUS; n++)
		build_code(m, n, &r);
	region.userspace_addr = (uintptr_t)m->mem;
	must(!io(m->vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	for (unsigned n = 0; n < NVCPUS; n++)
		create_vcpu(m, n);
	route(m);
}

/* ---- vCPUs ---- */

static void account(struct vcpu *v, uint64_t addr, uint64_t base, uint64_t size)
{
	if (addr >= base && addr < base + PARTIES * size)
		v->exits[(addr - base) / size]++;
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	struct kvm_run *run = v->run;

	for (;;) {
		must(!io(v->fd, KVM_RUN, 0), "KVM_RUN");
		if (run->exit_reason == KVM_EXIT_MMIO)
			account(v, run->mmio.phys_addr, DEVICE, ADDRESSES);
		else if (run->exit_reason != KVM_EXIT_IO)
			report_fail("exit %u", run->exit_reason);
		else if (run->io.port == PORT_DONE)
			return NULL;
		else
			account(v, run->io.port, PORT, PORTS);
	}
}

/* ---- workers: eventfds and what they are for ---- */

static int new_event(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	must(fd >= 0, "eventfd");
	return fd;
}

static void signal_event(int fd, uint64_t n)
{
	must(write(fd, &n, sizeof(n)) == sizeof(n), "write to an eventfd");
}

static uint64_t take_event(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* The same eventfd by another number. */
static void rename_event(int *fd)
{
	int other = fcntl(*fd, F_DUPFD_CLOEXEC, 0);

	must(other >= 0 && !close(*fd), "another descriptor");
	*fd = other;
}

static void expect(struct worker *w, int ret, int wanted, const char *what)
{
	int got = ret < 0 ? errno : 0;

	w->requests++;
	if (got != wanted || ret > 0)
		report_fail("%s: returns %d with errno %d, expected errno %d", what, ret, got,
			    wanted);
}

/* Some write is for both. */
static bool collide(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b)
{
	const uint32_t match = KVM_IOEVENTFD_FLAG_DATAMATCH;

	if (a->addr != b->addr || (a->flags ^ b->flags) & KVM_IOEVENTFD_FLAG_PIO)
		return false;
	if (!a->len || !b->len)
		return true;
	return a->len == b->len && !(a->flags & b->flags & match && a->datamatch != b->datamatch);
}

static void listen_on(struct worker *w)
{
	static const uint32_t lengths[] = { 0, 1, 2, 4, 8 };
	struct rng *r = &w->r;
	struct listener *l = &w->listeners[rng_below(r, NLISTEN)];
	struct listener new = { .used = true, .event = rng_below(r, NEVENTS) };
	bool port = rng_one_in(r, 2);
	int wanted = 0;

	if (l->used)
		return;
	new.args.addr = place_address(port, w->party, rng_below(r, NPLACES));
	new.args.len = rng_pick(r, lengths);
	new.args.flags = port ? KVM_IOEVENTFD_FLAG_PIO : 0;
	if (rng_one_in(r, 2)) {
		new.args.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
		new.args.datamatch = rng_below(r, 3);
	}
	new.args.fd = w->events[new.event];
	for (unsigned i = 0; i < NLISTEN; i++) {
		if (w->listeners[i].used && collide(&w->listeners[i].args, &new.args))
			wanted = EEXIST;
	}
	if (!new.args.len &&new.args.flags & KVM_IOEVENTFD_FLAG_DATAMATCH)
		wanted = EINVAL;
	expect(w, io(w->m->vm, KVM_IOEVENTFD, &new.args), wanted, "KVM_IOEVENTFD");
	if (!wanted)
		*l = new;
}

static void listen_no_more(struct worker *w)
{
	struct rng *r = &w->r;
	struct listener *l = &w->listeners[rng_below(r, NLISTEN)];
	struct kvm_ioeventfd args = l->args;
	bool wrong = rng_one_in(r, 8);

	if (!l->used)
		return;
	args.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	args.fd = w->events[wrong ? (l->event + 1) % NEVENTS : l->event];
	expect(w, io(w->m->vm, KVM_IOEVENTFD, &args), wrong ? ENOENT : 0,
	       "KVM_IOEVENTFD, deassign");
	if (!wrong)
		l->used = false;
}

static struct kvm_irqfd irq_args(const struct irq_event *e)
{
	return (struct kvm_irqfd){ .fd = (uint32_t)e->fd,
				   .gsi = e->gsi,
				   .flags = e->resamples ? KVM_IRQFD_FLAG_RESAMPLE : 0,
				   .resamplefd = (uint32_t)e->resample };
}

static void irq_assign(struct worker *w, struct irq_event *e)
{
	struct rng *r = &w->r;
	struct irq_event new = *e;
	struct kvm_irqfd args;
	int wanted = e->assigned ? EBUSY : 0;

	new.gsi = lines[w->party][rng_below(r, NLINES)];
	new.resamples = rng_one_in(r, 2);
	if (w->m->chip == CHIP_NONE || (new.resamples && w->m->chip != CHIP_FULL))
		wanted = EINVAL;
	if (rng_one_in(r, 4))
		signal_event(e->fd, 1); /* before: counts, too */
	args = irq_args(&new);
	expect(w, io(w->m->vm, KVM_IRQFD, &args), wanted, "KVM_IRQFD");
	if (!wanted) {
		new.assigned = true;
		*e = new;
	}
}

/* What is written now is there to be read. */
static void check_left_alone(struct worker *w, int fd)
{
	struct timespec a_while = { .tv_nsec = rng_below(&w->r, 200000) };
	uint64_t n;

	take_event(fd);
	signal_event(fd, 5);
	nanosleep(&a_while, NULL);
	n = take_event(fd);
	if (n != 5)
		report_fail("an eventfd that is nobody's any more has %lu instead of 5",
			    (unsigned long)n);
}

static void irq_deassign(struct worker *w, struct irq_event *e)
{
	struct kvm_irqfd args = irq_args(e);

	args.flags |= KVM_IRQFD_FLAG_DEASSIGN;
	if (w->m->chip == CHIP_NONE)
		return;
	if (rng_one_in(&w->r, 2))
		signal_event(e->fd, 1);
	expect(w, io(w->m->vm, KVM_IRQFD, &args), 0, "KVM_IRQFD, deassign");
	e->assigned = false;
	check_left_alone(w, e->fd);
}

/* Up, until the guest's EOI. */
static void irq_resample(struct worker *w, struct irq_event *e)
{
	struct pollfd told = { .fd = e->resample, .events = POLLIN };

	if (!e->assigned || !e->resamples)
		return;
	take_event(e->resample);
	signal_event(e->fd, 1);
	if (poll(&told, 1, RESAMPLE_MS) != 1)
		report_fail("line %u: no EOI", e->gsi);
	w->resamples++;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct rng *r = &w->r;

	for (unsigned i = 0; i < w->m->steps; i++) {
		struct irq_event *e = &w->irqs[rng_below(r, NEVENTS)];
		int *event = &w->events[rng_below(r, NEVENTS)];

		switch (rng_below(r, 16)) {
		case 0:
		case 1:
		case 2:
		case 3:
			listen_on(w);
			break;
		case 4:
		case 5:
			listen_no_more(w);
			break;
		case 6:
			w->signals += take_event(*event);
			break;
		case 7:
			rename_event(event);
			break;
		case 8:
			rename_event(rng_one_in(r, 2) ? &e->fd : &e->resample);
			break;
		case 9:
		case 10:
			irq_assign(w, e);
			break;
		case 11:
			irq_deassign(w, e);
			break;
		case 12:
			irq_resample(w, e);
			break;
		default:
			signal_event(e->fd, 1);
			break;
		}
	}
	return NULL;
}

static void worker_start(struct machine *m, unsigned party, uint64_t seed)
{
	struct worker *w = &m->workers[party];

	w->m = m;
	w->party = party;
	w->r = rng_stream(seed, 10 + party);
	for (unsigned i = 0; i < NEVENTS; i++) {
		w->events[i] = new_event();
		w->irqs[i].fd = new_event();
		w->irqs[i].resample = new_event();
	}
	must(!pthread_create(&w->id, NULL, worker_main, w), "a thread");
}

/* ---- trouble: descriptors that change while requests name them ---- */

static void *trouble_main(void *arg)
{
	struct machine *m = arg;
	struct rng *r = &m->trouble;

	while (!atomic_load(&m->quiet)) {
		bool port = rng_one_in(r, 2);
		struct kvm_ioeventfd listen = {
			.addr = place_address(port, PARTIES - 1, rng_below(r, NPLACES)),
			.len = 1u << rng_below(r, 4),
			.fd = LOOSE + (int)rng_below(r, NLOOSE),
			.flags = (port ? KVM_IOEVENTFD_FLAG_PIO : 0) |
				 (rng_one_in(r, 2) ? KVM_IOEVENTFD_FLAG_DEASSIGN : 0),
		};
		struct kvm_irqfd irq = {
			.fd = LOOSE + rng_below(r, NRAISING),
			.gsi = lines[PARTIES - 1][rng_below(r, NLINES)],
			.flags = rng_below(r, 4),
			.resamplefd = LOOSE + NRAISING + rng_below(r, NLOOSE - NRAISING),
		};
		int ret = rng_one_in(r, 2) ? io(m->vm, KVM_IOEVENTFD, &listen)
					   : io(m->vm, KVM_IRQFD, &irq);

		if (ret < 0 && errno != EBADF && errno != EINVAL && errno != EEXIST &&
		    errno != ENOENT && errno != EBUSY)
			report_fail("a request with a descriptor that changes: errno %d", errno);
	}
	return NULL;
}

static void *closing_main(void *arg)
{
	struct machine *m = arg;
	struct rng *r = &m->closing;
	int raising[] = { new_event(), new_event() }, telling[] = { new_event(), new_event() };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	must(null >= 0, "/dev/null");
	while (!atomic_load(&m->quiet)) {
		unsigned n = rng_below(r, NLOOSE), which = rng_below(r, 2);
		int fd = LOOSE + (int)n;

		switch (rng_below(r, 4)) {
		case 0:
			close(fd);
			break;
		case 1:
			must(dup3(null, fd, O_CLOEXEC) == fd, "dup3");
			break;
		default:
			must(dup3(n < NRAISING ? raising[which] : telling[which], fd, O_CLOEXEC) ==
				     fd,
			     "dup3");
			signal_event(fd, 1);
			break;
		}
	}
	for (int i = 0; i < NLOOSE; i++)
		close(LOOSE + i);
	for (int i = 0; i < 2; i++) {
		close(raising[i]);
		close(telling[i]);
	}
	close(null);
	return NULL;
}

/* ---- a run ---- */

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	must(d, "/proc/self/fd");
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void join(pthread_t id, const char *what)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += HANG_SECONDS;
	if (pthread_timedjoin_np(id, NULL, &until))
		report_hang(id, what);
}

/* An interrupt that comes before the guest has enabled its local APIC is lost. */
static void wait_for_guest(const struct machine *m)
{
	struct timespec wait = { .tv_nsec = 1000000 };

	while (!counted(m, 0, 0))
		nanosleep(&wait, NULL);
}

static void check_account(struct machine *m, struct worker *w)
{
	uint64_t written = 0, exits = 0;

	for (unsigned n = 0; n < NVCPUS; n++) {
		exits += m->vcpus[n].exits[w->party];
		for (unsigned i = 0; i < NWRITES; i++)
			written += m->vcpus[n].writes[i].party == w->party ? counted(m, n, i) : 0;
	}
	for (unsigned i = 0; i < NEVENTS; i++)
		w->signals += take_event(w->events[i]);
	if (written != w->signals + exits)
		report_fail("%lu writes of the guest are %lu signals and %lu exits",
			    (unsigned long)written, (unsigned long)w->signals,
			    (unsigned long)exits);
	total_writes += written;
	total_signals += w->signals;
	total_resamples += w->resamples;
	total_requests += w->requests;
}

static void one_run(uint64_t seed, unsigned steps)
{
	unsigned before = descriptors();
	pthread_t trouble, closing;
	struct machine m;

	memset(&m, 0, sizeof(m));
	m.steps = steps;
	create_machine(&m, seed);
	m.trouble = rng_stream(seed, 1);
	m.closing = rng_stream(seed, 2);
	for (unsigned n = 0; n < NVCPUS; n++)
		must(!pthread_create(&m.vcpus[n].id, NULL, vcpu_main, &m.vcpus[n]), "a thread");
	must(!pthread_create(&trouble, NULL, trouble_main, &m), "a thread");
	must(!pthread_create(&closing, NULL, closing_main, &m), "a thread");
	wait_for_guest(&m);
	for (unsigned i = 0; i < NWORKERS; i++)
		worker_start(&m, i, seed);
	for (unsigned i = 0; i < NWORKERS; i++)
		join(m.workers[i].id, "a worker");
	atomic_store(&m.quiet, true);
	join(trouble, "the troublemaker");
	join(closing, "who closes descriptors");
	__atomic_store_n(m.mem + STOP, 1, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; n < NVCPUS; n++)
		join(m.vcpus[n].id, "a vCPU");
	for (unsigned i = 0; i < NWORKERS; i++)
		check_account(&m, &m.workers[i]);
	for (unsigned n = 0; n < NVCPUS; n++) {
		munmap(m.vcpus[n].run, m.vcpus[n].run_size);
		must(!umbra_close(m.vcpus[n].fd), "close");
	}
	must(!umbra_close(m.vm) && !umbra_close(m.sys), "close");
	munmap(m.mem, MEM_SIZE);
	for (unsigned i = 0; i < NWORKERS; i++) {
		struct worker *w = &m.workers[i];

		for (unsigned k = 0; k < NEVENTS; k++) {
			check_left_alone(w, w->irqs[k].fd);
			close(w->irqs[k].fd);
			close(w->irqs[k].resample);
			close(w->events[k]);
		}
	}
	if (descriptors() != before)
		report_fail("%u descriptors are left, there were %u", descriptors(), before);
	report_log();
}

int main(int argc, char **argv)
{
	struct fuzz_options o = { .program = "event-fuzz",
				  .length_name = "--steps",
				  .length = 1000 };

	fuzz_options_init(&o, argc, argv);
	report_init(o.program);
	umbra_close(umbra_open());
	for (; fuzz_options_more(&o); o.done++) {
		report_run("--seed %lu --steps %lu", fuzz_options_seed(&o), o.length);
		one_run(fuzz_options_seed(&o), (unsigned)o.length);
	}
	report_say("%lu VMs: %lu requests; %lu writes, of which %lu were signals; %lu times "
		   "resampled; %.1f s",
		   o.done, total_requests, total_writes, total_signals, total_resamples,
		   fuzz_options_elapsed(&o));
	return 0;
}
