// SPDX-License-Identifier: MIT
/* MSRs: a table of values that are allowed and refused, for the guest and for the VMM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/msr.h"

static struct um_cpu *new_cpu(void)
{
	struct kvm_cpuid_entry2 e[256];
	struct um_cpu *c = aligned_alloc(64, ALIGN_UP(sizeof(*c), 64));
	int n = um_cpuid_supported(e, 256);

	assert_non_null(c);
	memset(c, 0, sizeof(*c));
	assert_true(n > 0);
	assert_int_equal(um_cpuid_set(c, e, (unsigned)n), 0);
	c->maxphyaddr = 40;
	um_cpu_reset(c, false);
	return c;
}

#define NONCANONICAL 0x0000800000000000ull
#define OK	     UM_MSR_OK
#define BAD	     UM_MSR_BAD

static const struct {
	uint32_t msr;
	uint64_t val;
	enum um_msr_result guest, host;
	uint64_t reads; /* afterwards, if it was taken */
} writes[] = {
	{ MSR_LSTAR, 0xffffffff81000000, OK, OK, 0xffffffff81000000 },
	{ MSR_LSTAR, NONCANONICAL, BAD, BAD, 0 },
	{ MSR_CSTAR, NONCANONICAL, BAD, BAD, 0 },
	{ MSR_KERNEL_GS_BASE, NONCANONICAL, BAD, BAD, 0 },
	{ MSR_FS_BASE, NONCANONICAL, BAD, BAD, 0 },
	{ MSR_GS_BASE, 0x7ffff7d8a740, OK, OK, 0x7ffff7d8a740 },
	{ MSR_IA32_SYSENTER_ESP, NONCANONICAL, BAD, BAD, 0 },
	{ MSR_IA32_SYSENTER_CS, 0x1234567800000010, OK, OK, 0x10 },
	{ MSR_STAR, 0x0023001000000000, OK, OK, 0x0023001000000000 },
	{ MSR_TSC_AUX, 5, OK, OK, 5 },
	{ MSR_TSC_AUX, 1ull << 32, BAD, BAD, 0 },
	{ MSR_EFER, EFER_SCE | EFER_LME | EFER_NXE, OK, OK, EFER_SCE | EFER_LME | EFER_NXE },
	{ MSR_EFER, EFER_SVME, BAD, BAD, 0 },
	{ MSR_EFER, 1ull << 1, BAD, BAD, 0 },
	{ MSR_EFER, EFER_FFXSR, BAD, BAD, 0 },
	{ MSR_IA32_PAT, 0x0606060606060606, OK, OK, 0x0606060606060606 },
	{ MSR_IA32_PAT, 0x0606060602060606, BAD, BAD, 0 },
	{ MSR_IA32_PAT, 0x0806060606060606, BAD, BAD, 0 },
	{ MSR_IA32_MTRRCAP, 0, BAD, BAD, 0 },
	{ MSR_IA32_MTRR_DEF_TYPE, 0xc06, OK, OK, 0xc06 },
	{ MSR_IA32_MTRR_DEF_TYPE, 0xc02, BAD, BAD, 0 },
	{ MSR_IA32_MTRR_DEF_TYPE, 0x1006, BAD, BAD, 0 },
	{ MSR_IA32_MTRR_PHYSBASE0, 0xc0000006, OK, OK, 0xc0000006 },
	{ MSR_IA32_MTRR_PHYSBASE0, 0xc0000003, BAD, BAD, 0 },
	{ MSR_IA32_MTRR_PHYSBASE0, 1ull << 40, BAD, BAD, 0 },
	{ MSR_IA32_MTRR_PHYSBASE0 + 1, 0xffc0000800, OK, OK, 0xffc0000800 },
	{ MSR_IA32_MTRR_PHYSBASE0 + 15, 0x400, BAD, BAD, 0 },
	{ MSR_IA32_MTRR_FIX64K_00000, 0x0606060606060606, OK, OK, 0x0606060606060606 },
	{ MSR_IA32_MTRR_FIX4K_C0000 + 7, 0x0707070707070707, BAD, BAD, 0 },
	{ MSR_IA32_DEBUGCTL, 1, OK, OK, 0 },
	{ MSR_IA32_DEBUGCTL, 1 << 6, BAD, BAD, 0 },
	{ MSR_IA32_MISC_ENABLE, 0x1801, OK, OK, 0x1801 },
	{ MSR_IA32_MISC_ENABLE, 1, BAD, OK, 1 },
	{ MSR_IA32_UCODE_REV, 0x1234, OK, OK, 0x1234 },
	{ MSR_PLATFORM_INFO, 0, BAD, OK, 0 },
	{ MSR_PLATFORM_INFO, 1ull << 31, BAD, BAD, 0 },
	{ MSR_IA32_ARCH_CAPABILITIES, 0, BAD, OK, 0 },
	{ MSR_IA32_SMBASE, 0x30000, BAD, OK, 0x30000 },
	{ MSR_IA32_FEAT_CTL, 1, OK, OK, 1 },
	{ MSR_IA32_FEAT_CTL, 4, BAD, BAD, 0 },
	{ MSR_IA32_MC0_CTL, ~0ull, OK, OK, ~0ull },
	{ MSR_IA32_MC0_CTL, 2, BAD, BAD, 0 },
	{ MSR_IA32_MC0_CTL + 1, 1, BAD, OK, 1 },
	{ MSR_IA32_MC0_CTL + 1, 0, OK, OK, 0 },
	{ MSR_IA32_MC0_CTL + 2, 0x1000, OK, OK, 0x1000 },
	{ MSR_IA32_MCG_CTL, ~0ull, BAD, BAD, 0 }, /* without MCG_CTL_P */
	{ MSR_IA32_SPEC_CTRL, 0, BAD, BAD, 0 },
	{ MSR_IA32_XSS, 1, BAD, BAD, 0 },
	{ 0xc1, 5, OK, OK, 0 },
	{ 0x186, 5, OK, OK, 0 },
	{ 0x38f, 0, BAD, BAD, 0 },
	{ 0x12345678, 0, BAD, BAD, 0 },
};

static void test_writes(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(writes); i++) {
		for (int host = 0; host < 2; host++) {
			struct um_cpu *c = new_cpu();
			enum um_msr_result want = host ? writes[i].host : writes[i].guest;
			uint64_t before = ~0ull, after = ~0ull;
			unsigned effects = 0;

			um_msr_get(c, writes[i].msr, true, &before);
			if (um_msr_set(c, writes[i].msr, host, writes[i].val, &effects) != want)
				fail_msg("MSR %#x = %#llx (host %d)", writes[i].msr,
					 (unsigned long long)writes[i].val, host);
			if (um_msr_get(c, writes[i].msr, true, &after) == OK) {
				/* The guest's write of a microcode revision is dropped. */
				if (want == OK && !(writes[i].msr == MSR_IA32_UCODE_REV && !host))
					assert_int_equal(after, writes[i].reads);
				else
					assert_int_equal(after, before);
			}
			free(c);
		}
	}
}

/* SDM vol. 3 2.2.1, 9.8.5 */
static void test_efer_and_paging(void **state)
{
	struct um_cpu *c = new_cpu();
	unsigned effects = 0;
	uint64_t val;

	assert_int_equal(um_msr_set(c, MSR_EFER, false, EFER_LME, &effects), OK);
	assert_int_equal(effects, UM_MSR_PAGING);
	c->cr0 |= CR0_PG | CR0_PE;
	c->efer |= EFER_LMA;
	assert_int_equal(um_msr_set(c, MSR_EFER, false, 0, &effects), BAD);
	/* LMA is kept, whatever is written. */
	effects = 0;
	assert_int_equal(um_msr_set(c, MSR_EFER, false, EFER_LME | EFER_SCE, &effects), OK);
	assert_int_equal(effects, 0);
	assert_int_equal(um_msr_get(c, MSR_EFER, false, &val), OK);
	assert_int_equal(val, EFER_LMA | EFER_LME | EFER_SCE);
	assert_int_equal(um_msr_set(c, MSR_EFER, false, EFER_LME | EFER_NXE, &effects), OK);
	assert_int_equal(effects, UM_MSR_PAGING);
	free(c);
}

static void test_canonical_with_la57(void **state)
{
	struct um_cpu *c = new_cpu();
	unsigned effects = 0;

	c->cr4 |= CR4_LA57;
	assert_int_equal(um_msr_set(c, MSR_LSTAR, false, NONCANONICAL, &effects), OK);
	assert_int_equal(um_msr_set(c, MSR_LSTAR, false, 1ull << 56, &effects), BAD);
	free(c);
}

static void test_locked_feature_control(void **state)
{
	struct um_cpu *c = new_cpu();
	unsigned effects = 0;

	assert_int_equal(um_msr_set(c, MSR_IA32_FEAT_CTL, false, 1, &effects), OK);
	assert_int_equal(um_msr_set(c, MSR_IA32_FEAT_CTL, false, 1, &effects), BAD);
	assert_int_equal(um_msr_set(c, MSR_IA32_FEAT_CTL, true, 0, &effects), OK);
	free(c);
}

/* What CPUID doesn't show the guest can't read. */
static void test_hidden_by_cpuid(void **state)
{
	struct um_cpu *c = new_cpu();
	struct kvm_cpuid_entry2 none = { .function = 0 };
	uint64_t val;

	assert_int_equal(um_msr_get(c, MSR_TSC_AUX, false, &val), OK);
	assert_int_equal(um_msr_get(c, MSR_IA32_ARCH_CAPABILITIES, false, &val), OK);
	um_cpuid_set(c, &none, 1);
	assert_int_equal(um_msr_get(c, MSR_TSC_AUX, false, &val), BAD);
	assert_int_equal(um_msr_get(c, MSR_IA32_ARCH_CAPABILITIES, false, &val), BAD);
	assert_int_equal(um_msr_get(c, MSR_TSC_AUX, true, &val), OK);
	free(c);
}

static void test_machine_check_banks(void **state)
{
	struct um_cpu *c = new_cpu();
	uint64_t val;

	assert_int_equal(um_msr_setup_mce(c, 0), -EINVAL);
	assert_int_equal(um_msr_setup_mce(c, 33), -EINVAL);
	assert_int_equal(um_msr_setup_mce(c, 10 | BIT(9)), -EINVAL);
	assert_int_equal(um_msr_setup_mce(c, 10 | UM_MCG_CTL_P), 0);
	assert_int_equal(um_msr_get(c, MSR_IA32_MCG_CAP, false, &val), OK);
	assert_int_equal(val, 10 | UM_MCG_CTL_P);
	assert_int_equal(um_msr_get(c, MSR_IA32_MCG_CTL, false, &val), OK);
	assert_int_equal(um_msr_get(c, MSR_IA32_MC0_CTL + 9 * 4, false, &val), OK);
	assert_int_equal(val, ~0ull);
	assert_int_equal(um_msr_get(c, MSR_IA32_MC0_CTL + 10 * 4, false, &val), BAD);
	assert_int_equal(um_msr_get(c, MSR_IA32_MC0_CTL + 10 * 4, true, &val), BAD);
	free(c);
}

/* Everything in the list can be read, and what was read can be written: VMMs insist. */
static void test_list_is_honest(void **state)
{
	struct um_cpu *c = new_cpu();
	uint32_t list[256];
	unsigned n = um_msr_index_list(list, 256), nf, effects = 0;

	assert_true(n > 20 && n < 256);
	assert_int_equal(um_msr_index_list(list, 0), n);
	for (unsigned i = 0; i < n; i++) {
		enum um_msr_result r;
		uint64_t val = 0;

		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(list[i], list[j]);
		r = um_msr_get(c, list[i], true, &val);
		assert_int_not_equal(r, BAD);
		if (r == OK && um_msr_set(c, list[i], true, val, &effects) != OK)
			fail_msg("MSR %#x can't be written back", list[i]);
	}
	nf = um_msr_feature_list(list, 256);
	assert_true(nf > 0);
	for (unsigned i = 0; i < nf; i++) {
		uint64_t val, cur;

		assert_true(um_msr_feature(list[i], &val));
		assert_int_equal(um_msr_get(c, list[i], true, &cur), OK);
		assert_int_equal(cur, val);
	}
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writes),
		cmocka_unit_test(test_efer_and_paging),
		cmocka_unit_test(test_canonical_with_la57),
		cmocka_unit_test(test_locked_feature_control),
		cmocka_unit_test(test_hidden_by_cpuid),
		cmocka_unit_test(test_machine_check_banks),
		cmocka_unit_test(test_list_is_honest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
