/* SPDX-License-Identifier: MIT */
/*
 * A VM with memory of several kinds, and what its host does to it meanwhile.
 *
 * Host memory of the pieces lies between canaries, in one mapping that is reserved as a whole: what
 * is unmapped there is never given to anybody else.
 */
#ifndef FUZZ_MACHINE_H
#define FUZZ_MACHINE_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "code.h"
#include "rng.h"

#define MAX_VCPUS 2

#define RING_BYTES 16384 /* the smallest that there is */

enum chip { CHIP_NONE, CHIP_FULL, CHIP_SPLIT, CHIP_KINDS };

enum slot_id { SLOT_RAM, SLOT_ROM, SLOT_ALIAS, SLOT_HIGH, SLOTS };

struct machine {
	int sys, vm;
	enum chip chip;
	unsigned nvcpus;
	bool smm;   /* what a vCPU in system-management mode sees: the same slots, or no memory */
	bool rings; /* pages that are dirty go into rings, not into bitmaps */
	bool quiet; /* the host leaves slots and memory alone */
	/*
	 * The auditor compares shadow pages with the guest's tables, and the MMU learns only of
	 * what the guest writes, by its own frame numbers: no alias then, no host that changes
	 * contents, and new worlds come while their slots are away.
	 */
	bool audited;
	bool shared;   /* RAM is a file that is mapped shared, and may be truncated */
	uint8_t *area; /* the whole mapping */
	uint8_t *ram, *rom, *high;
	int ram_fd;
	uint8_t *rom_image;	    /* what the ROM must hold; under @slots_lock */
	pthread_mutex_t slots_lock; /* who changes slots, or the ROM */
};

/* Requests that say no to nothing here. */
#define io(fd, request, arg) umbra_ioctl(fd, request, (void *)(uintptr_t)(arg))

void machine_create(struct machine *m, struct rng *r);
/* Checks canaries and ROM, and frees everything. */
void machine_destroy(struct machine *m);
/*
 * Write to the guest's RAM from 0 on, and to the ROM if @rom is not NULL (ROM_SIZE bytes), as the
 * host, whatever state RAM is in (what can't be written stays).
 */
void machine_write(struct machine *m, const void *ram, size_t len, const void *rom);

/* One event from the host's side. */
void machine_event(struct machine *m, struct rng *r);

#endif
