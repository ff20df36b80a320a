/* SPDX-License-Identifier: MIT */
/* Enumerations of what page-table entries permit, the same for every paging mode. */
#ifndef GUEST_PERM_H
#define GUEST_PERM_H

#include "paging.h"

/*
 * Every combination of {present, writable, user, no-execute} in the leaf and in one entry above
 * it, for every page size, with every combination of CR0.WP, EFER.NXE, CR4.SMEP, CR4.SMAP and
 * EFLAGS.AC that the processor has, against every kind of access from either ring.  Checks who
 * gets through and, for who does not, error code and CR2.
 */
void perm_enumerate(enum paging_mode mode);

/* Each reserved bit of each entry, one at a time. */
void perm_reserved(enum paging_mode mode);

#endif
