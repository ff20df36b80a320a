/* SPDX-License-Identifier: MIT */
/*
 * The ACPI tables that describe the machine: RSDP, RSDT, XSDT, FADT, FACS, MADT, DSDT (ACPI 6.4,
 * chapter 5), written where a BIOS would have put them.
 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include "base/types.h"
#include "memory.h"

#define ACPI_RSDP_GPA	MEM_BIOS
#define ACPI_IOAPIC_GPA 0xfec00000u
#define ACPI_LAPIC_GPA	0xfee00000u

/* Write the tables for @ncpus processors with APIC ids 0 to @ncpus - 1.  0 or -ENOSPC. */
int acpi_write(const struct memory *mem, unsigned ncpus);

#endif
