// SPDX-License-Identifier: MIT
/* The state after power-up and INIT: SDM vol. 3 table 9-1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "cpu/cpuid.h"

static void test_power_up(void **state)
{
	struct um_cpu *c = aligned_alloc(64, ALIGN_UP(sizeof(*c), 64));

	assert_non_null(c);
	memset(c, 0xff, sizeof(*c));
	um_cpuid_init(c);
	um_cpu_reset(c, false);
	assert_int_equal(c->rip, 0xfff0);
	assert_int_equal(c->rflags, 2);
	assert_int_equal(c->gpr[UM_RDX], 0x600);
	assert_int_equal(c->gpr[UM_RAX], 0);
	assert_int_equal(c->gpr[UM_R15], 0);
	assert_int_equal(c->cr0, CR0_ET | CR0_CD | CR0_NW);
	assert_int_equal(c->cr2 | c->cr3 | c->cr4 | c->efer, 0);
	assert_int_equal(c->xcr0, 1);
	assert_int_equal(c->dr6, 0xffff0ff0);
	assert_int_equal(c->dr7, 0x400);
	assert_int_equal(c->seg[UM_CS].selector, 0xf000);
	assert_int_equal(c->seg[UM_CS].base, 0xffff0000);
	assert_int_equal(c->seg[UM_CS].limit, 0xffff);
	assert_int_equal(c->seg[UM_DS].base, 0);
	assert_int_equal(c->tr.type, UM_SYS_TSS_BUSY);
	assert_int_equal(c->idt.limit, 0xffff);
	assert_int_equal(c->cpl, 0);
	assert_int_equal(um_cpu_mode(c), UM_MODE_REAL);
	assert_int_equal(c->fpu.mxcsr, 0x1f80);
	assert_int_equal(c->msr.pat, 0x0007040600070406);
	assert_int_equal(c->msr.lstar, 0);
	free(c);
}

static void test_init_keeps(void **state)
{
	struct kvm_cpuid_entry2 e[] = { { .function = 1, .eax = 0x906ea } };
	struct um_cpu *c = aligned_alloc(64, ALIGN_UP(sizeof(*c), 64));

	assert_non_null(c);
	memset(c, 0, sizeof(*c));
	um_cpuid_set(c, e, 1);
	um_cpu_reset(c, false);
	c->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_CD;
	c->cr4 = CR4_PAE;
	c->efer = EFER_LME | EFER_LMA;
	c->xcr0 = 7;
	c->gpr[UM_RAX] = 5;
	c->msr.lstar = 0x1234;
	c->fpu.mxcsr = 0x1fa0;
	c->fpu.zmm[3][0] = 9;
	c->nmi_masked = true;
	c->int_shadow = UM_SHADOW_STI;
	um_cpu_reset(c, true);
	assert_int_equal(c->cr0, CR0_ET | CR0_CD);
	assert_int_equal(c->cr4 | c->efer, 0);
	assert_int_equal(c->gpr[UM_RAX], 0);
	assert_int_equal(c->gpr[UM_RDX], 0x906ea);
	assert_int_equal(c->xcr0, 7);
	assert_int_equal(c->msr.lstar, 0x1234);
	assert_int_equal(c->fpu.mxcsr, 0x1fa0);
	assert_int_equal(c->fpu.zmm[3][0], 9);
	assert_false(c->nmi_masked);
	assert_int_equal(c->int_shadow, 0);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_up),
		cmocka_unit_test(test_init_keeps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
