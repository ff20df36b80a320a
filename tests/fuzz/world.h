/* SPDX-License-Identifier: MIT */
/*
 * What a guest finds at power-on of the fuzzer's kind: code, descriptor tables, task state, page
 * tables of one of the processor's modes, valid at first and then spoiled here and there.
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include <linux/kvm.h>

#include "rng.h"

enum world_mode {
	WORLD_REAL,
	WORLD_PROT16,
	WORLD_PROT32, /* without paging */
	WORLD_PAGED,  /* two levels */
	WORLD_PAE,
	WORLD_COMPAT,
	WORLD_LONG,
	WORLD_LONG5,
	WORLD_VM86,
	WORLD_MODES,
};

#define WORLD_IMAGE 0x60000 /* bytes of RAM from 0 on that a world fills */

struct world {
	enum world_mode mode;
	bool user;	/* begins at CPL 3 */
	uint8_t *image; /* WORLD_IMAGE bytes */
	struct kvm_regs regs;
	/* Changes to what KVM_GET_SREGS of a new vCPU said: valid ones. */
	struct kvm_sregs sregs;
};

const char *world_mode_name(enum world_mode mode);

/* Fill w->image, w->regs and w->sregs; w->sregs comes in as KVM_GET_SREGS gave it. */
void world_build(struct world *w, struct rng *r);

/* Spoil system registers: some results are valid, others must be refused. */
void world_spoil_sregs(struct kvm_sregs *s, struct rng *r);
/* General registers anew. */
void world_regs(struct world *w, struct rng *r);

#endif
