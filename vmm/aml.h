/* SPDX-License-Identifier: MIT */
/*
 * A writer of ACPI Machine Language (ACPI 6.4, chapter 20), as much of it as describes devices: scopes,
 * devices, names, integers, strings, packages and resource templates.  No methods.
 *
 * Constructs with a length are opened and closed; a name is followed by its value:
 *
 *   aml_scope(a, "\\_SB_");
 *   aml_device(a, "COM1");
 *   aml_name(a, "_HID"), aml_eisaid(a, "PNP0501");
 *   aml_name(a, "_CRS"), aml_resources(a);
 *   aml_res_io(a, 0x3f8, 8);
 *   aml_end_resources(a);
 *   aml_end(a);
 *   aml_end(a);
 *
 * What does not fit, or nests too deep, sets `failed`; check it once, at the end.
 */
#ifndef VMM_AML_H
#define VMM_AML_H

#include "base/types.h"

#define AML_MAX_DEPTH 8

struct aml {
	u8 *buf;
	size_t len, cap;
	size_t start[AML_MAX_DEPTH]; /* where the contents of each open construct begin */
	unsigned depth;
	bool failed;
};

void aml_init(struct aml *a, void *buf, size_t cap);

/* Path: names of four characters with dots between, a backslash in front if it is absolute. */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *name);
void aml_package(struct aml *a, u8 elements);
void aml_end(struct aml *a);

void aml_name(struct aml *a, const char *name);
void aml_int(struct aml *a, u64 v);
void aml_string(struct aml *a, const char *s);
/* A compressed identifier: three capital letters and four hexadecimal digits. */
void aml_eisaid(struct aml *a, const char *id);

/* Resource templates (ACPI 6.4, 6.4). */
void aml_resources(struct aml *a);
void aml_end_resources(struct aml *a);
void aml_res_io(struct aml *a, u16 base, u8 len);
void aml_res_irq(struct aml *a, unsigned irq);
void aml_res_bus_range(struct aml *a, u16 first, u16 last);
void aml_res_io_range(struct aml *a, u16 first, u16 last);
void aml_res_memory_range(struct aml *a, u32 first, u32 last);

#endif
