// SPDX-License-Identifier: MIT
/* The VM and its host: see machine.h. */
#include "machine.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "report.h"
#include "umbra.h"

#define CANARY	    0x10000
#define CANARY_WORD 0x5ca1ab1e0ddba11dull
#define ALIGNMENT   0x200000ull /* of RAM, so that large pages are possible */

/* Offsets in the area: canary, ROM, canary, HIGH, canary, …, RAM, canary. */
#define ROM_OFF	  CANARY
#define HIGH_OFF  (ROM_OFF + ROM_SIZE + CANARY)
#define RAM_OFF	  ALIGNMENT
#define AREA_SIZE (RAM_OFF + RAM_SIZE + CANARY)

static void fill_canary(uint8_t *from, uint8_t *to)
{
	for (uint64_t *p = (uint64_t *)from; p < (uint64_t *)to; p++)
		*p = CANARY_WORD;
}

static void check_canary(struct machine *m, uint8_t *from, uint8_t *to)
{
	for (uint64_t *p = (uint64_t *)from; p < (uint64_t *)to; p++) {
		if (*p != CANARY_WORD)
			report_fail("canary at %#lx holds %#llx", (long)((uint8_t *)p - m->area),
				    (unsigned long long)*p);
	}
}

static void map_ram(struct machine *m, uint8_t *at, size_t len)
{
	int flags = MAP_FIXED | (m->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
	int fd = m->shared ? m->ram_fd : -1;

	if (mmap(at, len, PROT_READ | PROT_WRITE, flags, fd, m->shared ? at - m->ram : 0) ==
	    MAP_FAILED)
		report_fail("mmap: errno %d", errno);
}

static void create_memory(struct machine *m)
{
	uint8_t *base = mmap(NULL, AREA_SIZE + ALIGNMENT, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		report_fail("mmap: errno %d", errno);
	m->area = (uint8_t *)(((uintptr_t)base + ALIGNMENT - 1) & ~(ALIGNMENT - 1));
	/* Trim, so that destroying needs no more than the area. */
	if (m->area > base)
		munmap(base, (size_t)(m->area - base));
	munmap(m->area + AREA_SIZE, (size_t)(base + ALIGNMENT - m->area));
	m->rom = m->area + ROM_OFF;
	m->high = m->area + HIGH_OFF;
	m->ram = m->area + RAM_OFF;
	fill_canary(m->area, m->rom);
	fill_canary(m->rom + ROM_SIZE, m->high);
	fill_canary(m->high + HIGH_SIZE, m->high + HIGH_SIZE + CANARY);
	fill_canary(m->ram + RAM_SIZE, m->area + AREA_SIZE);
	if (m->shared) {
		m->ram_fd = memfd_create("ram", MFD_CLOEXEC);
		if (m->ram_fd < 0 || ftruncate(m->ram_fd, RAM_SIZE) < 0)
			report_fail("memfd: errno %d", errno);
		map_ram(m, m->ram, RAM_SIZE);
	}
	m->rom_image = calloc(1, ROM_SIZE);
	pthread_mutex_init(&m->slots_lock, NULL);
}

static struct kvm_userspace_memory_region region_of(struct machine *m, enum slot_id id)
{
	struct kvm_userspace_memory_region r = { .slot = id };

	switch (id) {
	case SLOT_RAM:
		r.memory_size = RAM_SIZE;
		r.userspace_addr = (uintptr_t)m->ram;
		break;
	case SLOT_ROM:
		r.guest_phys_addr = ROM_ADDR;
		r.memory_size = ROM_SIZE;
		r.userspace_addr = (uintptr_t)m->rom;
		r.flags = KVM_MEM_READONLY;
		break;
	case SLOT_ALIAS:
		r.guest_phys_addr = ALIAS_ADDR;
		r.memory_size = ALIAS_SIZE;
		r.userspace_addr = (uintptr_t)m->ram + RAM_SIZE - ALIAS_SIZE;
		break;
	default:
		r.guest_phys_addr = HIGH_ADDR;
		r.memory_size = HIGH_SIZE;
		r.userspace_addr = (uintptr_t)m->high;
		break;
	}
	return r;
}

static int set_region(struct machine *m, struct kvm_userspace_memory_region *r)
{
	int ret = io(m->vm, KVM_SET_USER_MEMORY_REGION, r);

	if (!ret && m->smm) {
		r->slot |= 1u << 16;
		ret = io(m->vm, KVM_SET_USER_MEMORY_REGION, r);
		r->slot &= 0xffff;
	}
	if (ret < 0 && errno != EINVAL && errno != EEXIST && errno != ENOMEM)
		report_fail("KVM_SET_USER_MEMORY_REGION: errno %d", errno);
	return ret;
}

void machine_create(struct machine *m, struct rng *r)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_enable_cap rings = { .cap = KVM_CAP_DIRTY_LOG_RING, .args = { RING_BYTES } };
	struct kvm_pit_config pit = { .flags = rng_below(r, 2) };

	m->sys = umbra_open();
	m->vm = m->sys < 0 ? -1 : io(m->sys, KVM_CREATE_VM, 0);
	if (m->vm < 0)
		report_fail("no VM: errno %d", errno);
	m->chip = rng_below(r, CHIP_KINDS);
	m->nvcpus = 1 + rng_below(r, MAX_VCPUS);
	m->shared = rng_one_in(r, 2);
	m->smm = rng_one_in(r, 2);
	m->rings = rng_one_in(r, 3);
	if (m->rings && io(m->vm, KVM_ENABLE_CAP, &rings) < 0)
		report_fail("no dirty rings: errno %d", errno);
	m->ram_fd = -1;
	create_memory(m);
	for (unsigned id = 0; id < SLOTS; id++) {
		struct kvm_userspace_memory_region region = region_of(m, id);

		if (id == SLOT_ALIAS && m->audited)
			continue;
		if (id != SLOT_ROM && rng_one_in(r, 3))
			region.flags |= KVM_MEM_LOG_DIRTY_PAGES;
		if (set_region(m, &region))
			report_fail("slot %u: errno %d", id, errno);
	}
	if (m->chip == CHIP_FULL && (io(m->vm, KVM_CREATE_IRQCHIP, 0) < 0 ||
				     (rng_one_in(r, 2) && io(m->vm, KVM_CREATE_PIT2, &pit) < 0)))
		report_fail("no interrupt controllers: errno %d", errno);
	if (m->chip == CHIP_SPLIT && io(m->vm, KVM_ENABLE_CAP, &split) < 0)
		report_fail("no split interrupt controllers: errno %d", errno);
	if (rng_one_in(r, 3))
		io(m->vm, KVM_SET_NR_MMU_PAGES, 64 + rng_below(r, 64));
}

static void write_ram(struct machine *m, const void *from, size_t len)
{
	struct iovec local = { .iov_base = (void *)from }, remote = { .iov_base = m->ram };
	static const size_t page = 4096;

	/* Pages by themselves: some may be away. */
	while (len) {
		local.iov_len = remote.iov_len = len < page ? len : page;
		if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) < 0 && errno != EFAULT)
			report_fail("process_vm_writev: errno %d", errno);
		len -= local.iov_len;
		local.iov_base = (char *)local.iov_base + local.iov_len;
		remote.iov_base = (char *)remote.iov_base + remote.iov_len;
	}
}

static void hide(struct machine *m, enum slot_id id)
{
	struct kvm_userspace_memory_region r = region_of(m, id);

	r.memory_size = 0;
	if (set_region(m, &r))
		report_fail("slot %u does not go: errno %d", id, errno);
}

static void unhide(struct machine *m, enum slot_id id)
{
	struct kvm_userspace_memory_region r = region_of(m, id);

	if (set_region(m, &r))
		report_fail("slot %u does not come back: errno %d", id, errno);
}

void machine_write(struct machine *m, const void *ram, size_t len, const void *rom)
{
	pthread_mutex_lock(&m->slots_lock);
	if (m->audited) {
		hide(m, SLOT_RAM);
		hide(m, SLOT_ROM);
	}
	write_ram(m, ram, len);
	if (rom) {
		memcpy(m->rom_image, rom, ROM_SIZE);
		memcpy(m->rom, rom, ROM_SIZE);
	}
	if (m->audited) {
		unhide(m, SLOT_RAM);
		unhide(m, SLOT_ROM);
	}
	pthread_mutex_unlock(&m->slots_lock);
}

void machine_destroy(struct machine *m)
{
	if (umbra_close(m->vm) || umbra_close(m->sys))
		report_fail("close: errno %d", errno);
	check_canary(m, m->area, m->rom);
	check_canary(m, m->rom + ROM_SIZE, m->high);
	check_canary(m, m->high + HIGH_SIZE, m->high + HIGH_SIZE + CANARY);
	check_canary(m, m->ram + RAM_SIZE, m->area + AREA_SIZE);
	if (memcmp(m->rom, m->rom_image, ROM_SIZE))
		report_fail("the guest wrote to read-only memory");
	munmap(m->area, AREA_SIZE);
	if (m->ram_fd >= 0)
		close(m->ram_fd);
	free(m->rom_image);
	pthread_mutex_destroy(&m->slots_lock);
}

/* ---- events ---- */

static void pause_a_bit(struct rng *r)
{
	struct timespec t = { .tv_nsec = rng_below(r, 300000) };

	if (rng_one_in(r, 2))
		nanosleep(&t, NULL);
}

/* A slot goes, moves, gets flags; and comes back. */
static void event_slot(struct machine *m, struct rng *r)
{
	enum slot_id id = rng_below(r, SLOTS);
	struct kvm_userspace_memory_region now = region_of(m, id);

	if (id == SLOT_ALIAS && m->audited)
		return;
	switch (rng_below(r, 3)) {
	case 0:
		now.memory_size = 0;
		break;
	case 1:
		now.guest_phys_addr = 0x10000000 + (rng_below(r, 0x1000) << 12);
		break;
	default:
		now.flags ^= KVM_MEM_LOG_DIRTY_PAGES;
		break;
	}
	pthread_mutex_lock(&m->slots_lock);
	set_region(m, &now);
	pause_a_bit(r);
	unhide(m, id);
	pthread_mutex_unlock(&m->slots_lock);
}

/* Host memory goes away in one of several ways, and comes back (perhaps with zeros). */
static void event_memory(struct machine *m, struct rng *r)
{
	bool high = rng_one_in(r, 4);
	uint8_t *base = high ? m->high : m->ram;
	unsigned pages = (unsigned)((high ? HIGH_SIZE : RAM_SIZE) >> 12);
	/* What the worlds are made of, half of the time. */
	unsigned first = rng_below(r, rng_one_in(r, 2) ? pages : 64);
	unsigned n = 1 + rng_below(r, rng_one_in(r, 4) ? pages - first : 4);
	uint8_t *at;
	size_t len;

	if (n > pages - first)
		n = pages - first;
	at = base + first * 4096ull;
	len = n * 4096ull;
	switch (rng_below(r, 5)) {
	case 0:
		mprotect(at, len, PROT_NONE);
		pause_a_bit(r);
		mprotect(at, len, PROT_READ | PROT_WRITE);
		break;
	case 1:
		mprotect(at, len, PROT_READ);
		pause_a_bit(r);
		mprotect(at, len, PROT_READ | PROT_WRITE);
		break;
	case 2: /* like munmap(2), but nobody else gets the place */
		if (high)
			break;
		if (mmap(at, len, PROT_NONE,
			 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			 0) == MAP_FAILED)
			report_fail("mmap: errno %d", errno);
		pause_a_bit(r);
		map_ram(m, at, len);
		break;
	case 3:
		madvise(at, len, MADV_DONTNEED);
		break;
	default: /* SIGBUS instead of SIGSEGV */
		if (!m->shared || high)
			break;
		if (ftruncate(m->ram_fd, first * 4096ll) < 0)
			report_fail("ftruncate: errno %d", errno);
		pause_a_bit(r);
		if (ftruncate(m->ram_fd, RAM_SIZE) < 0)
			report_fail("ftruncate: errno %d", errno);
		break;
	}
}

static void event_dirty(struct machine *m, struct rng *r)
{
	static uint64_t bitmap[(RAM_SIZE >> 12) / 64]; /* the one thread of events */
	struct kvm_dirty_log log = { .slot = rng_below(r, SLOTS) | rng_below(r, 2) << 16,
				     .dirty_bitmap = bitmap };

	if (m->rings && io(m->vm, KVM_RESET_DIRTY_RINGS, 0) < 0)
		report_fail("KVM_RESET_DIRTY_RINGS: errno %d", errno);
	if (io(m->vm, KVM_GET_DIRTY_LOG, &log) < 0 && errno != (m->rings ? ENXIO : ENOENT))
		report_fail("KVM_GET_DIRTY_LOG: errno %d", errno);
}

static void event_interrupt(struct machine *m, struct rng *r)
{
	struct kvm_irq_level line = { .irq = rng_below(r, 25), .level = rng_below(r, 2) };
	struct kvm_msi msi = {
		.address_lo = 0xfee00000 | rng_below(r, 4) << 12 | rng_below(r, 4) << 2,
		/* Delivery modes: fixed, lowest priority, SMI, NMI, INIT, rarely. */
		.data = rng_below(r, 256) | (rng_one_in(r, 4) ? rng_below(r, 8) << 8 : 0),
	};

	if (rng_one_in(r, 2))
		io(m->vm, KVM_IRQ_LINE, &line);
	else
		io(m->vm, KVM_SIGNAL_MSI, &msi);
}

static void event_controllers(struct machine *m, struct rng *r)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e[8];
	} routing = { .head = { .nr = rng_below(r, 9) } };
	struct kvm_irqchip chip = { .chip_id = rng_below(r, 3) };
	struct kvm_pit_state2 pit;

	switch (rng_below(r, 4)) {
	case 0:
		for (unsigned i = 0; i < routing.head.nr; i++) {
			struct kvm_irq_routing_entry *e = &routing.e[i];

			e->gsi = rng_below(r, 32);
			e->type = rng_below(r, 4);
			e->u.irqchip.irqchip = rng_below(r, 3);
			e->u.irqchip.pin = rng_below(r, 26);
			if (e->type == KVM_IRQ_ROUTING_MSI)
				e->u.msi.address_lo = 0xfee00000;
		}
		io(m->vm, KVM_SET_GSI_ROUTING, &routing);
		break;
	case 1:
		if (io(m->vm, KVM_GET_IRQCHIP, &chip) < 0)
			break;
		chip.chip.dummy[rng_below(r, sizeof(chip.chip.ioapic))] ^=
			(char)(1 << rng_below(r, 8));
		io(m->vm, KVM_SET_IRQCHIP, &chip);
		break;
	case 2:
		rng_fill(r, &chip.chip, sizeof(chip.chip));
		io(m->vm, KVM_SET_IRQCHIP, &chip);
		break;
	default:
		if (io(m->vm, KVM_GET_PIT2, &pit) < 0)
			break;
		rng_fill(r, &pit.channels[rng_below(r, 3)], sizeof(pit.channels[0]));
		io(m->vm, KVM_SET_PIT2, &pit);
		break;
	}
}

void machine_event(struct machine *m, struct rng *r)
{
	struct kvm_clock_data clock = { 0 };

	switch (rng_below(r, 16)) {
	case 0:
	case 1:
	case 2:
		if (!m->quiet)
			event_slot(m, r);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
		if (!m->quiet && !m->audited)
			event_memory(m, r);
		break;
	case 7:
	case 8:
		event_dirty(m, r);
		break;
	case 9:
		event_controllers(m, r);
		break;
	case 10:
		io(m->vm, KVM_SET_NR_MMU_PAGES, 64 + rng_below(r, rng_one_in(r, 2) ? 64 : 4096));
		break;
	case 11:
		if (io(m->vm, KVM_GET_CLOCK, &clock) < 0)
			report_fail("KVM_GET_CLOCK: errno %d", errno);
		clock.flags = 0;
		clock.clock += rng_below(r, 1000000);
		io(m->vm, KVM_SET_CLOCK, &clock);
		break;
	default:
		event_interrupt(m, r);
		break;
	}
	pause_a_bit(r);
}
