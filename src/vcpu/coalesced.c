// SPDX-License-Identifier: MIT
/*
 * Coalesced writes (KVM_REGISTER_COALESCED_MMIO, api.rst 4.32): writes to registers that have no
 * immediate effect, such as an index or a frame buffer window, are put in a ring, and the VMM takes them out
 * before it looks at the device, at the latest when the vCPU leaves for something else.
 *
 * The VM has one ring for all vCPUs, in a page of its own that lies over the last page of each vCPU's mapping.
 * The VMM moves `first`, we move `last`, under a lock that makes vCPUs take turns; one entry stays empty, so
 * that first == last means that all are.  What the VMM writes into the page is not trusted: an index out of
 * range counts as a full ring, and the write goes to the VMM.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memfd.h"
#include "vcpu/vcpu.h"

#define MAX_ZONES 1000 /* as many as devices fit on a bus of KVM's */
#define RING_SIZE                                                  \
	((UM_PAGE_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / \
	 sizeof(struct kvm_coalesced_mmio))

struct um_coalesced_zone {
	enum um_io_space space;
	u64 addr;
	u32 size;
};

int um_coalesced_init(struct um_vm *vm)
{
	void *p;

	vm->ring_fd = um_memfd_create("umbra-ring", UM_PAGE_SIZE);
	if (vm->ring_fd < 0)
		return vm->ring_fd;
	p = mmap(NULL, UM_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, vm->ring_fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	vm->ring = p;
	return 0;
}

void um_coalesced_destroy(struct um_vm *vm)
{
	if (vm->ring)
		munmap(vm->ring, UM_PAGE_SIZE);
	if (vm->ring_fd >= 0)
		close(vm->ring_fd);
	free(vm->zones);
}

static bool contains(const struct um_coalesced_zone *z, enum um_io_space space, u64 addr, u64 len)
{
	return z->space == space && addr >= z->addr && addr + len >= addr &&
	       addr + len <= z->addr + z->size;
}

/* Those that contain the range, out; returns how many are left. */
static unsigned drop_zones(struct um_vm *vm, enum um_io_space space, u64 addr, u64 len)
{
	unsigned n = atomic_load(&vm->nr_zones), kept = 0;

	for (unsigned i = 0; i < n; i++)
		if (!contains(&vm->zones[i], space, addr, len))
			vm->zones[kept++] = vm->zones[i];
	return kept;
}

static int add_zone(struct um_vm *vm, enum um_io_space space, u64 addr, u32 size)
{
	unsigned n = atomic_load(&vm->nr_zones);
	struct um_coalesced_zone *zones;

	if (n >= MAX_ZONES)
		return -ENOSPC;
	zones = realloc(vm->zones, (n + 1) * sizeof(*zones));
	if (!zones)
		return -ENOMEM;
	zones[n] = (struct um_coalesced_zone){ .space = space, .addr = addr, .size = size };
	vm->zones = zones;
	atomic_store(&vm->nr_zones, n + 1);
	return 0;
}

int um_coalesced_register(struct um_vm *vm, const struct kvm_coalesced_mmio_zone *z)
{
	int err;

	if (z->pio > 1)
		return -EINVAL;
	pthread_mutex_lock(&vm->coalesced_lock);
	err = add_zone(vm, z->pio ? UM_IO_PIO : UM_IO_MMIO, z->addr, z->size);
	pthread_mutex_unlock(&vm->coalesced_lock);
	return err;
}

int um_coalesced_unregister(struct um_vm *vm, const struct kvm_coalesced_mmio_zone *z)
{
	if (z->pio > 1)
		return -EINVAL;
	pthread_mutex_lock(&vm->coalesced_lock);
	atomic_store(&vm->nr_zones,
		     drop_zones(vm, z->pio ? UM_IO_PIO : UM_IO_MMIO, z->addr, z->size));
	pthread_mutex_unlock(&vm->coalesced_lock);
	return 0;
}

static bool in_zone(const struct um_vm *vm, enum um_io_space space, u64 addr, unsigned len)
{
	for (unsigned i = 0; i < atomic_load(&vm->nr_zones); i++)
		if (contains(&vm->zones[i], space, addr, len))
			return true;
	return false;
}

static bool put(struct kvm_coalesced_mmio_ring *ring, enum um_io_space space, u64 addr,
		unsigned len, const void *data)
{
	u32 last = __atomic_load_n(&ring->last, __ATOMIC_RELAXED);
	/* Acquire: the VMM has read the entry that it gave back. */
	u32 first = __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE);
	struct kvm_coalesced_mmio *e;

	if (last >= RING_SIZE || (last + 1) % RING_SIZE == first)
		return false;
	e = &ring->coalesced_mmio[last];
	e->phys_addr = addr;
	e->len = len;
	e->pio = space == UM_IO_PIO;
	memcpy(e->data, data, len);
	__atomic_store_n(&ring->last, (last + 1) % RING_SIZE, __ATOMIC_RELEASE);
	return true;
}

bool um_coalesced_write(struct um_vm *vm, enum um_io_space space, u64 addr, unsigned len,
			const void *data)
{
	bool taken;

	if (likely(!atomic_load_explicit(&vm->nr_zones, memory_order_relaxed)))
		return false;
	pthread_mutex_lock(&vm->coalesced_lock);
	taken = in_zone(vm, space, addr, len) && put(vm->ring, space, addr, len, data);
	pthread_mutex_unlock(&vm->coalesced_lock);
	return taken;
}
