// SPDX-License-Identifier: MIT
/* A host some of whose features are masked: run with UMBRA_HOST_MASK=avx2,BMI2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/hostid.h"
#include "cpu/xsave.h"

static void test_masked(void **state)
{
	static const enum um_feature gone[] = { UM_F_BMI2,    UM_F_AVX2,     UM_F_AVX_VNNI,
						UM_F_AVX512F, UM_F_AVX512VL, UM_F_AVX512_FP16 };
	struct kvm_cpuid_entry2 e[128];
	int n = um_cpuid_supported(e, 128);

	assert_true(n > 0);
	for (unsigned k = 0; k < ARRAY_SIZE(gone); k++) {
		const struct um_feature_info *i = um_feature_info(gone[k]);

		assert_false(um_host_has_feature(gone[k]));
		for (int m = 0; m < n; m++) {
			u32 regs[4] = { e[m].eax, e[m].ebx, e[m].ecx, e[m].edx };

			if (e[m].function == i->leaf && e[m].index == i->subleaf)
				assert_false(regs[i->reg] >> i->bit & 1);
		}
	}
	assert_true(um_host_has_feature(UM_F_SSE2));
	assert_int_equal(um_supported_xcr0() & XCR0_AVX512, 0);
	assert_int_equal(um_xsave_layout()->supported & XCR0_AVX512, 0);
}

static void test_check(void **state)
{
	const char *bad = NULL, *list = "avx,nothing,bmi2";

	assert_int_equal(um_host_mask_check("avx", &bad), 0);
	assert_int_equal(um_host_mask_check("SSE4_2,bmi2,", &bad), 0);
	assert_int_equal(um_host_mask_check("", &bad), 0);
	assert_null(bad);
	assert_true(um_host_mask_check(list, &bad) < 0);
	assert_ptr_equal(bad, list + 4);
	assert_true(um_host_mask_check("av", &bad) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_masked),
					    cmocka_unit_test(test_check) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
