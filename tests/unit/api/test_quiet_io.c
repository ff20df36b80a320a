// SPDX-License-Identifier: MIT
/*
 * Guest writes that don't end KVM_RUN: ioeventfds, and zones of coalesced writes; an irqfd to a
 * guest.
 */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DEVICE 0x20000u /* beyond GUEST_MEM: segment 0x2000 */

static uint64_t taken(int fd)
{
	uint64_t n = 0;

	if (read(fd, &n, sizeof(n)) < 0)
		assert_int_equal(errno, EAGAIN);
	return n;
}

static int event(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}

static int ioeventfd(struct guest *g, int fd, uint64_t addr, uint32_t len, uint32_t flags,
		     uint64_t match)
{
	struct kvm_ioeventfd e = {
		.fd = fd, .addr = addr, .len = len, .flags = flags, .datamatch = match
	};

	return io(g->vm, KVM_IOEVENTFD, &e);
}

#define PIO   KVM_IOEVENTFD_FLAG_PIO
#define MATCH KVM_IOEVENTFD_FLAG_DATAMATCH
#define GONE  KVM_IOEVENTFD_FLAG_DEASSIGN

static void test_ioeventfd_refusals(void **state)
{
	struct guest g;
	int a = event(), b = event(), p[2];

	assert_int_equal(pipe(p), 0);
	guest_open_vm(&g, NO_CHIP);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD), 1);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_ANY_LENGTH), 1);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_NO_LENGTH), 1);
	assert_errno(EINVAL, ioeventfd(&g, a, DEVICE, 3, 0, 0));
	assert_errno(EINVAL, ioeventfd(&g, a, DEVICE, 16, 0, 0));
	assert_errno(EINVAL, ioeventfd(&g, a, DEVICE, 4, 1 << 5, 0));
	assert_errno(EINVAL, ioeventfd(&g, a, DEVICE, 0, MATCH, 0));
	assert_errno(EINVAL, ioeventfd(&g, a, ~0ull, 4, 0, 0));
	assert_errno(EBADF, ioeventfd(&g, -1, DEVICE, 4, 0, 0));
	assert_errno(EINVAL, ioeventfd(&g, p[0], DEVICE, 4, 0, 0));
	assert_errno(EFAULT, io(g.vm, KVM_IOEVENTFD, 8));

	/* Collisions: only with what could match the same write. */
	assert_int_equal(ioeventfd(&g, a, DEVICE, 4, MATCH, 1), 0);
	assert_errno(EEXIST, ioeventfd(&g, b, DEVICE, 4, MATCH, 1));
	assert_errno(EEXIST, ioeventfd(&g, b, DEVICE, 4, 0, 0));
	assert_errno(EEXIST, ioeventfd(&g, b, DEVICE, 0, 0, 0));
	assert_int_equal(ioeventfd(&g, b, DEVICE, 4, MATCH, 2), 0);
	assert_int_equal(ioeventfd(&g, b, DEVICE, 2, 0, 0), 0);
	assert_errno(EEXIST, ioeventfd(&g, b, DEVICE, 2, MATCH, 7));
	assert_int_equal(ioeventfd(&g, a, DEVICE, 4, PIO, 0), 0); /* another space */
	assert_int_equal(ioeventfd(&g, a, DEVICE + 2, 0, 0, 0), 0);
	assert_errno(EEXIST, ioeventfd(&g, a, DEVICE + 2, 8, MATCH, 0));

	/* To deassign, all has to be the same. */
	assert_errno(ENOENT, ioeventfd(&g, b, DEVICE, 4, GONE | MATCH, 1));
	assert_errno(ENOENT, ioeventfd(&g, a, DEVICE, 4, GONE | MATCH, 2));
	assert_errno(ENOENT, ioeventfd(&g, a, DEVICE, 4, GONE, 1));
	assert_errno(ENOENT, ioeventfd(&g, a, DEVICE, 4, GONE | MATCH | PIO, 1));
	assert_errno(ENOENT, ioeventfd(&g, a, DEVICE + 1, 4, GONE | MATCH, 1));
	assert_errno(EBADF, ioeventfd(&g, -1, DEVICE, 4, GONE | MATCH, 1));
	assert_errno(EINVAL, ioeventfd(&g, p[0], DEVICE, 4, GONE | MATCH, 1));
	assert_int_equal(ioeventfd(&g, a, DEVICE, 4, GONE | MATCH, 1), 0);
	assert_errno(ENOENT, ioeventfd(&g, a, DEVICE, 4, GONE | MATCH, 1));
	assert_int_equal(ioeventfd(&g, a, DEVICE, 4, MATCH, 1), 0);
	guest_stop(&g);
	close(p[0]);
	close(p[1]);
	close(a);
	close(b);
}

static void test_ioeventfd_ports(void **state)
{
	static const uint8_t code[] = {
		0xba, 0x00, 0x05, /* mov $0x500, %dx */
		0xb8, 0x41, 0x00, /* mov $0x41, %ax */
		0xee,		  /* out %al, (%dx) */
		0xef,		  /* out %ax, (%dx) */
		0x66, 0xef,	  /* out %eax, (%dx) */
		0xec,		  /* in (%dx), %al */
		0xb0, 0x42,	  /* mov $0x42, %al */
		0xee,		  /* out %al, (%dx): another value */
		0x42,		  /* inc %dx */
		0xee, 0xef,	  /* out: any length */
		0xf4,		  /* hlt */
	};
	struct guest g;
	int byte = event(), word = event(), any = event();

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(ioeventfd(&g, byte, 0x500, 1, PIO | MATCH, 0x41), 0);
	assert_int_equal(ioeventfd(&g, word, 0x500, 2, PIO, 0), 0);
	assert_int_equal(ioeventfd(&g, any, 0x501, 0, PIO, 0), 0);
	assert_exit(&g, KVM_EXIT_IO); /* no eventfd for 4 bytes */
	assert_int_equal(g.run->io.size, 4);
	assert_int_equal(taken(byte), 1);
	assert_int_equal(taken(word), 1);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.direction, KVM_EXIT_IO_IN);
	((uint8_t *)g.run)[g.run->io.data_offset] = 0x41;
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(((uint8_t *)g.run)[g.run->io.data_offset], 0x42);
	assert_int_equal(taken(byte), 0);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(taken(any), 2);
	guest_stop(&g);
	close(byte);
	close(word);
	close(any);
}

/* A batch whose first elements an eventfd takes: the rest is for the VMM, in order, each once. */
static void test_ioeventfd_string(void **state)
{
	static const uint8_t code[] = {
		0xfc,		  /* cld */
		0xbe, 0x00, 0x20, /* mov $0x2000, %si */
		0xb9, 0x05, 0x00, /* mov $5, %cx */
		0xba, 0x00, 0x05, /* mov $0x500, %dx */
		0xf3, 0x6e,	  /* rep outsb */
		0xf4,		  /* hlt */
	};
	struct guest g;
	int fd = event();
	uint8_t got[8];
	unsigned n = 0;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	memcpy(g.mem + 0x2000, "AAbcA", 5);
	assert_int_equal(ioeventfd(&g, fd, 0x500, 1, PIO | MATCH, 'A'), 0);
	for (;;) {
		assert_int_equal(io(g.vcpu, KVM_RUN, 0), 0);
		if (g.run->exit_reason != KVM_EXIT_IO)
			break;
		assert_true(n + g.run->io.count <= sizeof(got));
		memcpy(got + n, (uint8_t *)g.run + g.run->io.data_offset, g.run->io.count);
		n += g.run->io.count;
	}
	assert_int_equal(g.run->exit_reason, KVM_EXIT_HLT);
	assert_true(n >= 2 && !memcmp(got, "bc", 2));
	/* What follows in the same batch is the VMM's, whatever it is. */
	assert_int_equal(taken(fd) + n, 5);
	assert_int_equal(guest_regs(&g).rcx, 0);
	assert_int_equal(guest_regs(&g).rsi, 0x2005);
	guest_stop(&g);
	close(fd);
}

/* DS = 0x2000: stores to DEVICE. */
#define TO_DEVICE 0xb8, 0x00, 0x20, 0x8e, 0xd8 /* mov $0x2000, %ax; mov %ax, %ds */

static void test_ioeventfd_memory(void **state)
{
	static const uint8_t code[] = {
		TO_DEVICE, 0xc6, 0x06, 0x00, 0x00, 0x01,		   /* movb $1, 0 */
		0xc7,	   0x06, 0x00, 0x00, 0x02, 0x00,		   /* movw $2, 0 */
		0x66,	   0xc7, 0x06, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, /* movl $3, 0 */
		0xc7,	   0x06, 0x08, 0x00, 0x04, 0x00, /* movw $4, 8: any length */
		0xc6,	   0x06, 0x08, 0x00, 0x05,	 /* movb $5, 8 */
		0xa1,	   0x08, 0x00,			 /* mov 8, %ax: a read */
		0xc6,	   0x06, 0x01, 0x00, 0x06,	 /* movb $6, 1: beside */
		0xf4,
	};
	struct guest g;
	int fd[3] = { event(), event(), event() }, any = event(), closed;

	guest_start(&g, SPLIT_CHIP, code, sizeof(code));
	assert_int_equal(ioeventfd(&g, fd[0], DEVICE, 1, MATCH, 1), 0);
	assert_int_equal(ioeventfd(&g, fd[1], DEVICE, 2, MATCH, 2), 0);
	assert_int_equal(ioeventfd(&g, fd[2], DEVICE, 4, MATCH, 3), 0);
	/* Ours stays when the VMM closes its descriptor. */
	closed = dup(any);
	assert_int_equal(ioeventfd(&g, closed, DEVICE + 8, 0, 0, 0), 0);
	close(closed);
	assert_exit(&g, KVM_EXIT_MMIO);
	assert_int_equal(g.run->mmio.phys_addr, DEVICE + 8);
	assert_int_equal(g.run->mmio.is_write, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(taken(fd[i]), 1);
	assert_int_equal(taken(any), 2);
	assert_exit(&g, KVM_EXIT_MMIO);
	assert_int_equal(g.run->mmio.phys_addr, DEVICE + 1);
	/* Deassigned by another descriptor of the same eventfd. */
	assert_int_equal(ioeventfd(&g, any, DEVICE + 8, 0, GONE, 0), 0);
	g.run->immediate_exit = 1;
	assert_errno(EINTR, io(g.vcpu, KVM_RUN, 0));
	g.run->immediate_exit = 0;
	guest_stop(&g);
	for (unsigned i = 0; i < 3; i++)
		close(fd[i]);
	close(any);
}

static void test_ioeventfd_gone(void **state)
{
	static const uint8_t code[] = {
		0xe6, 0x80, 0xe6, 0x80, /* out %al, $0x80, twice */
		0xe6, 0x81,		/* out %al, $0x81 */
		0xf4,
	};
	struct guest g;
	int fd = event();

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(ioeventfd(&g, fd, 0x80, 1, PIO, 0), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	assert_int_equal(taken(fd), 2);
	assert_int_equal(ioeventfd(&g, fd, 0x80, 1, PIO | GONE, 0), 0);
	assert_exit(&g, KVM_EXIT_HLT);
	guest_stop(&g);

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(ioeventfd(&g, fd, 0x80, 1, PIO, 0), 0);
	assert_int_equal(ioeventfd(&g, fd, 0x80, 1, PIO | GONE, 0), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x80);
	assert_int_equal(taken(fd), 0);
	guest_stop(&g);
	close(fd);
}

/* ---- coalesced ---- */

#define RING_MAX \
	((4096 - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

static struct kvm_coalesced_mmio_ring *ring_of(struct kvm_run *run)
{
	return (void *)((uint8_t *)run + 2 * 4096);
}

static int zone(struct guest *g, unsigned long request, uint64_t addr, uint32_t size, uint32_t pio)
{
	struct kvm_coalesced_mmio_zone z = { .addr = addr, .size = size, .pio = pio };

	return io(g->vm, request, &z);
}

#define ADD  KVM_REGISTER_COALESCED_MMIO
#define DROP KVM_UNREGISTER_COALESCED_MMIO

static void assert_entry(const struct kvm_coalesced_mmio_ring *r, unsigned i, uint64_t addr,
			 unsigned len, bool pio, uint64_t val)
{
	uint64_t data = 0;

	memcpy(&data, r->coalesced_mmio[i].data, len);
	assert_int_equal(r->coalesced_mmio[i].phys_addr, addr);
	assert_int_equal(r->coalesced_mmio[i].len, len);
	assert_int_equal(r->coalesced_mmio[i].pio, pio);
	assert_int_equal(data, val);
}

static void test_coalesced(void **state)
{
	static const uint8_t code[] = {
		TO_DEVICE, 0xc6, 0x06, 0x00, 0x00, 0x11, /* movb $0x11, 0 */
		0xc7,	   0x06, 0x0e, 0x00, 0x34, 0x12, /* movw $0x1234, 14: the zone's end */
		0xb0,	   0x55, 0xe6, 0x70,		 /* out $0x55 to port 0x70 */
		0xa0,	   0x00, 0x00,			 /* mov 0, %al: reads leave */
		0xc7,	   0x06, 0x0f, 0x00, 0x34, 0x12, /* movw $0x1234, 15: across the end */
		0xf4,
	};
	struct kvm_coalesced_mmio_ring *r;
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO), 2);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO), 1);
	r = ring_of(g.run);
	assert_errno(EINVAL, zone(&g, ADD, DEVICE, 16, 2));
	assert_errno(EINVAL, zone(&g, DROP, DEVICE, 16, 2));
	assert_int_equal(zone(&g, ADD, DEVICE, 16, 0), 0);
	assert_int_equal(zone(&g, ADD, 0x70, 1, 1), 0);
	assert_exit(&g, KVM_EXIT_MMIO);
	assert_int_equal(g.run->mmio.is_write, 0);
	assert_int_equal(r->first, 0);
	assert_int_equal(r->last, 3);
	assert_entry(r, 0, DEVICE, 1, false, 0x11);
	assert_entry(r, 1, DEVICE + 14, 2, false, 0x1234);
	assert_entry(r, 2, 0x70, 1, true, 0x55);
	assert_exit(&g, KVM_EXIT_MMIO);
	assert_int_equal(g.run->mmio.phys_addr, DEVICE + 15);
	assert_int_equal(g.run->mmio.is_write, 1);
	assert_int_equal(r->last, 3);
	guest_stop(&g);
}

/*
 * A full ring: the write leaves, and what is in the ring comes before it.  A mad index is a full
 * ring.
 */
static void test_coalesced_full(void **state)
{
	static const uint8_t code[] = {
		0xb9, 0x00, 0x10, /* mov $0x1000, %cx */
		0x89, 0xc8,	  /* 1: mov %cx, %ax */
		0xe7, 0x70,	  /* out %ax, $0x70 */
		0xe2, 0xfa,	  /* loop 1b */
		0xf4,
	};
	struct kvm_coalesced_mmio_ring *r;
	struct guest g;
	unsigned expect = 0x1000, exits = 0;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	r = ring_of(g.run);
	assert_int_equal(zone(&g, ADD, 0x70, 2, 1), 0);
	for (;;) {
		assert_int_equal(io(g.vcpu, KVM_RUN, 0), 0);
		while (r->first != r->last) {
			assert_entry(r, r->first, 0x70, 2, true, expect--);
			r->first = (r->first + 1) % RING_MAX;
		}
		if (g.run->exit_reason == KVM_EXIT_HLT)
			break;
		assert_int_equal(g.run->exit_reason, KVM_EXIT_IO);
		assert_int_equal(*(uint16_t *)((uint8_t *)g.run + g.run->io.data_offset), expect);
		expect--;
		exits++;
	}
	assert_int_equal(expect, 0);
	assert_int_equal(exits, 0x1000 / RING_MAX); /* RING_MAX - 1 entries, then one exit */

	for (unsigned i = 0; i < 4; i++) {
		const uint32_t mad[] = { RING_MAX, RING_MAX + 1, 1u << 20, ~0u };
		struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2 };

		r->last = mad[i];
		assert_int_equal(io(g.vcpu, KVM_SET_REGS, &regs), 0);
		assert_exit(&g, KVM_EXIT_IO);
		assert_int_equal(r->last, mad[i]);
	}
	guest_stop(&g);
}

static void test_coalesced_unregister(void **state)
{
	static const uint8_t code[] = { 0xe6, 0x70, 0xe6, 0x78, 0xf4 };
	struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2 };
	struct guest g;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	assert_int_equal(zone(&g, ADD, 0x70, 4, 1), 0);
	assert_int_equal(zone(&g, ADD, 0x78, 4, 1), 0);
	assert_int_equal(zone(&g, DROP, 0x70, 8, 1), 0); /* no zone contains that */
	assert_int_equal(zone(&g, DROP, 0x70, 4, 0), 0); /* not memory */
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(ring_of(g.run)->last, 2);
	assert_int_equal(zone(&g, DROP, 0x71, 1, 1), 0); /* inside of the first */
	assert_int_equal(io(g.vcpu, KVM_SET_REGS, &regs), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x70);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(ring_of(g.run)->last, 3);
	for (unsigned i = 0; i < 999; i++)
		assert_int_equal(zone(&g, ADD, 0x1000 + i, 1, 1), 0);
	assert_errno(ENOSPC, zone(&g, ADD, 0x2000, 1, 1));
	guest_stop(&g);
}

/* One ring for all vCPUs, whichever mapping of whichever vCPU one looks at. */
static void test_ring_is_shared(void **state)
{
	static const uint8_t code[] = { 0xe6, 0x70, 0xf4 };
	struct guest g;
	struct kvm_run *other;
	uint8_t *tail;
	int v1;

	guest_start(&g, NO_CHIP, code, sizeof(code));
	v1 = io(g.vm, KVM_CREATE_VCPU, 1);
	assert_true(v1 >= 0);
	other = umbra_mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, v1, 0);
	assert_ptr_not_equal(other, MAP_FAILED);
	tail = umbra_mmap(NULL, 4096, PROT_READ, MAP_SHARED, v1, 2 * 4096);
	assert_ptr_not_equal(tail, MAP_FAILED);
	assert_int_equal(zone(&g, ADD, 0x70, 1, 1), 0);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(ring_of(g.run)->last, 1);
	assert_int_equal(ring_of(other)->last, 1);
	assert_int_equal(((struct kvm_coalesced_mmio_ring *)tail)->last, 1);
	ring_of(other)->first = 1;
	assert_int_equal(ring_of(g.run)->first, 1);
	/* The other pages are each vCPU's own. */
	assert_int_equal(g.run->exit_reason, KVM_EXIT_HLT);
	assert_int_not_equal(other->exit_reason, KVM_EXIT_HLT);
	munmap(tail, 4096);
	munmap(other, 3 * 4096);
	assert_int_equal(umbra_close(v1), 0);
	guest_stop(&g);
}

/* ---- irqfd ---- */

static void *signal_later(void *arg)
{
	uint64_t one = 1;

	usleep(20000);
	assert_int_equal(write(*(int *)arg, &one, sizeof(one)), sizeof(one));
	return NULL;
}

/* A signal from another thread wakes a halted vCPU by an MSI; its handler writes a port. */
static void test_irqfd_wakes_guest(void **state)
{
	static const uint8_t code[] = {
		/*
		 * enable the LAPIC: 0xfee000f0 is out of reach in real mode; done by KVM_SET_LAPIC
		 */
		0xfb,	    /* sti */
		0xf4,	    /* hlt */
		0xe6, 0x81, /* out %al, $0x81 */
		0xf4,
	};
	static const uint8_t handler[] = { 0xe6, 0x80, 0xcf }; /* out %al, $0x80; iret */
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} routes = {
		.head = { .nr = 1 },
		.e = { .gsi = 30,
		       .type = KVM_IRQ_ROUTING_MSI,
		       .u.msi = { .address_lo = 0xfee00000, .data = 0x40 } },
	};
	struct kvm_irqfd args = { .gsi = 30 };
	struct kvm_lapic_state lapic;
	struct guest g;
	pthread_t thread;
	int fd = event();

	guest_open_vm(&g, NO_CHIP);
	args.fd = (uint32_t)fd;
	assert_errno(EINVAL, io(g.vm, KVM_IRQFD, &args)); /* no irqchip */
	guest_stop(&g);

	guest_start(&g, SPLIT_CHIP, code, sizeof(code));
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD), 1);
	assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD_RESAMPLE), 1);
	memcpy(g.mem + 0x3000, handler, sizeof(handler));
	memcpy(g.mem + 4 * 0x40, &(uint16_t[]){ 0x3000, 0 }, 4);
	assert_int_equal(io(g.vcpu, KVM_GET_LAPIC, &lapic), 0);
	lapic.regs[0xf1] |= 1;
	assert_int_equal(io(g.vcpu, KVM_SET_LAPIC, &lapic), 0);
	assert_int_equal(io(g.vm, KVM_SET_GSI_ROUTING, &routes), 0);
	assert_int_equal(io(g.vm, KVM_IRQFD, &args), 0);
	assert_int_equal(pthread_create(&thread, NULL, signal_later, &fd), 0);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x80);
	pthread_join(thread, NULL);
	assert_exit(&g, KVM_EXIT_IO);
	assert_int_equal(g.run->io.port, 0x81);
	guest_stop(&g); /* with the irqfd still assigned */
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ioeventfd_refusals),
		cmocka_unit_test(test_ioeventfd_ports),
		cmocka_unit_test(test_ioeventfd_string),
		cmocka_unit_test(test_ioeventfd_memory),
		cmocka_unit_test(test_ioeventfd_gone),
		cmocka_unit_test(test_coalesced),
		cmocka_unit_test(test_coalesced_full),
		cmocka_unit_test(test_coalesced_unregister),
		cmocka_unit_test(test_ring_is_shared),
		cmocka_unit_test(test_irqfd_wakes_guest),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
