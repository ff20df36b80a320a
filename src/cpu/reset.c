// SPDX-License-Identifier: MIT
/*
 * The state after power-up and INIT: SDM vol. 3 table 9-1 (10-1 in newer editions).
 */
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/xsave.h"

#define RESET_EDX 0x600 /* family 6: when CPUID doesn't say */

static const struct um_segment reset_data = {
	.limit = 0xffff,
	.type = UM_DESC_WRITABLE | UM_DESC_ACCESSED,
	.s = true,
	.present = true,
};

static const struct um_segment reset_code = {
	.base = 0xffff0000,
	.limit = 0xffff,
	.selector = 0xf000,
	.type = UM_DESC_CODE | UM_DESC_READABLE | UM_DESC_ACCESSED,
	.s = true,
	.present = true,
};

static const struct um_segment reset_ldt = {
	.limit = 0xffff,
	.type = UM_SYS_LDT,
	.present = true,
};

static const struct um_segment reset_tr = {
	.limit = 0xffff,
	.type = UM_SYS_TSS_BUSY,
	.present = true,
};

void um_cpu_reset(struct um_cpu *c, bool init)
{
	u32 leaf1[4];

	um_cpuid(c, 1, 0, leaf1);
	memset(c->gpr, 0, sizeof(c->gpr));
	c->gpr[UM_RDX] = leaf1[UM_EAX] ? leaf1[UM_EAX] : RESET_EDX;
	c->rip = 0xfff0;
	c->rflags = RFLAGS_FIXED1;
	for (unsigned s = 0; s < UM_NR_SEGS; s++)
		c->seg[s] = s == UM_CS ? reset_code : reset_data;
	c->ldt = reset_ldt;
	c->tr = reset_tr;
	c->gdt = c->idt = (struct um_dtable){ .limit = 0xffff };

	c->cr0 = CR0_ET | (init ? c->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW);
	c->cr2 = c->cr3 = c->cr4 = 0;
	c->efer = 0;
	memset(c->pdptr, 0, sizeof(c->pdptr));
	memset(c->dr, 0, sizeof(c->dr));
	c->dr6 = DR6_FIXED1;
	c->dr7 = DR7_FIXED1;
	c->int_shadow = 0;
	c->smm = false;
	c->nmi_masked = false;
	c->cpl = 0;
	if (!init) {
		c->xcr0 = XCR0_X87;
		um_msr_reset(c);
		um_fpu_reset(&c->fpu);
	}
}
