// SPDX-License-Identifier: MIT
/* CPUID: what is offered, what a choice allows, what the guest sees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpuid.h"

#define MAX 256

static struct kvm_cpuid_entry2 offered[MAX];
static int noffered;

static struct kvm_cpuid_entry2 *entry(struct kvm_cpuid_entry2 *e, int n, uint32_t leaf,
				      uint32_t sub)
{
	for (int i = 0; i < n; i++) {
		if (e[i].function == leaf && e[i].index == sub)
			return &e[i];
	}
	return NULL;
}

static uint32_t reg(const struct kvm_cpuid_entry2 *e, unsigned r)
{
	const uint32_t regs[] = { e->eax, e->ebx, e->ecx, e->edx };

	return regs[r];
}

static int setup(void **state)
{
	noffered = um_cpuid_supported(offered, MAX);
	*state = aligned_alloc(64, ALIGN_UP(sizeof(struct um_cpu), 64));
	if (*state)
		memset(*state, 0, sizeof(struct um_cpu));
	return noffered > 0 && *state ? 0 : -1;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

/* Every row of the list: offered exactly if its policy says so; nothing else is. */
static void test_policies(void **state)
{
	uint32_t listed[UM_F_MAX] = { 0 };

	for (unsigned f = 0; f < UM_F_MAX; f++) {
		const struct um_feature_info *i = um_feature_info(f);
		struct kvm_cpuid_entry2 *e = entry(offered, noffered, i->leaf, i->subleaf);
		uint32_t host[4] = { 0 };
		bool is = e && reg(e, i->reg) >> i->bit & 1, has;

		if ((i->leaf & 0xffff0000) != 0x40000000 &&
		    (u32)__get_cpuid_max(i->leaf & 0x80000000, NULL) >= i->leaf)
			__cpuid_count(i->leaf, i->subleaf, host[0], host[1], host[2], host[3]);
		has = host[i->reg] >> i->bit & 1;
		switch (i->policy) {
		case UM_FEATURE_HOST:
			assert_int_equal(is, has);
			break;
		case UM_FEATURE_OURS:
			if (e)
				assert_true(is);
			break;
		default:
			assert_false(is);
			assert_true(i->why[0]); /* withheld or dynamic: the list says why */
		}
		for (unsigned g = 0; g < UM_F_MAX; g++) {
			const struct um_feature_info *o = um_feature_info(g);

			if (o->leaf == i->leaf && o->subleaf == i->subleaf && o->reg == i->reg)
				listed[f] |= 1u << o->bit;
		}
		if (e)
			assert_int_equal(reg(e, i->reg) & ~listed[f], 0);
	}
}

static void test_size_of_buffer(void **state)
{
	struct kvm_cpuid_entry2 few[MAX];

	assert_int_equal(um_cpuid_supported(few, 0), -E2BIG);
	assert_int_equal(um_cpuid_supported(few, (unsigned)noffered - 1), -E2BIG);
	assert_int_equal(um_cpuid_supported(few, (unsigned)noffered), noffered);
	assert_int_equal(um_cpuid_emulated(few, 2), -E2BIG);
	assert_int_equal(um_cpuid_emulated(few, 3), 3);
}

/* A list must be one that can be set: no leaf twice. */
static void test_no_duplicates(void **state)
{
	for (int i = 0; i < noffered; i++)
		assert_ptr_equal(entry(offered, noffered, offered[i].function, offered[i].index),
				 &offered[i]);
}

static void test_kvm_leaves(void **state)
{
	struct kvm_cpuid_entry2 *e = entry(offered, noffered, 0x40000000, 0);

	assert_non_null(e);
	assert_int_equal(e->eax, 0x40000001);
	assert_memory_equal(&e->ebx, "KVMKVMKVM\0\0\0", 12);
	e = entry(offered, noffered, 0x40000001, 0);
	assert_non_null(e);
	assert_int_equal(e->eax & 9, 9); /* both kvmclocks */
	assert_int_equal(e->eax & 1 << 4, 0);
}

/*
 * Beside another hypervisor's interface, KVM's leaves are higher up; they are found by their
 * signature.
 */
static void test_kvm_leaves_moved(void **state)
{
	struct um_cpu *c = *state;
	struct kvm_cpuid_entry2 e[] = {
		{ .function = 0x40000000, .eax = 0x40000005 },
		{ .function = 0x40000001, .eax = 0x31237648 }, /* bits 3, 5, 6, 9 among others */
		{ .function = 0x40000100, .eax = 0x40000101 },
		{ .function = 0x40000101, .eax = 1 << 7 },
	};

	memcpy(&e[0].ebx, "Microsoft Hv", 12);
	memcpy(&e[2].ebx, "KVMKVMKVM\0\0\0", 12);
	assert_int_equal(um_cpuid_set(c, e, 4), 0);
	assert_true(um_cpu_has(c, UM_F_KVM_PV_UNHALT));
	assert_false(um_cpu_has(c, UM_F_KVM_CLOCKSOURCE2));
	assert_false(um_cpu_has(c, UM_F_KVM_PV_EOI));
	/* None at all */
	assert_int_equal(um_cpuid_set(c, e, 2), 0);
	assert_false(um_cpu_has(c, UM_F_KVM_CLOCKSOURCE2));
}

static void test_xsave_leaf(void **state)
{
	struct kvm_cpuid_entry2 *e = entry(offered, noffered, 0xd, 0);
	uint32_t a, b, c, d;

	if (!e) /* a host without XSAVE */
		return;
	assert_int_equal((uint64_t)e->edx << 32 | e->eax, um_supported_xcr0());
	assert_true(e->ebx >= 576);
	assert_int_equal(e->ebx, e->ecx);
	for (unsigned i = 2; i < 10; i++) {
		struct kvm_cpuid_entry2 *s = entry(offered, noffered, 0xd, i);

		assert_int_equal(s != NULL, um_supported_xcr0() >> i & 1);
		if (!s)
			continue;
		__cpuid_count(0xd, i, a, b, c, d);
		assert_int_equal(s->eax, a);
		assert_int_equal(s->ebx, b);
		assert_true(s->eax + s->ebx <= e->ebx);
	}
}

static void test_set_derives(void **state)
{
	struct um_cpu *c = *state;

	um_cpuid_init(c);
	assert_int_equal(c->cr4_allowed, um_supported_cr4());
	assert_int_equal(c->maxphyaddr, 36);
	assert_int_equal(um_cpuid_set(c, offered, (unsigned)noffered), 0);
	assert_true(c->maxphyaddr >= 36 && c->maxphyaddr <= 52);
	assert_int_equal(c->cr4_allowed, um_supported_cr4());
	assert_int_equal(c->efer_allowed, um_supported_efer());
	assert_int_equal(c->xcr0_allowed, um_supported_xcr0());
	for (unsigned f = 0; f < UM_F_MAX; f++) {
		const struct um_feature_info *i = um_feature_info(f);
		struct kvm_cpuid_entry2 *e = entry(offered, noffered, i->leaf, i->subleaf);

		assert_int_equal(um_cpu_has(c, f), e && reg(e, i->reg) >> i->bit & 1);
	}
	/* An old processor. */
	struct kvm_cpuid_entry2 old[] = { { .function = 0, .eax = 1 },
					  { .function = 1, .edx = 0x1bf } };

	assert_int_equal(um_cpuid_set(c, old, 2), 0);
	assert_int_equal(c->maxphyaddr, 36);
	assert_false(c->cr4_allowed & (CR4_SMEP | CR4_SMAP | CR4_OSXSAVE | CR4_PCIDE | CR4_LA57 |
				       CR4_FSGSBASE | CR4_UMIP | CR4_PKE));
	assert_int_equal(c->efer_allowed, EFER_SCE);
	assert_int_equal(c->xcr0_allowed, 0);
}

static void test_set_refuses(void **state)
{
	struct um_cpu *c = *state;
	struct kvm_cpuid_entry2 e = { .function = 0x80000008, .eax = 48 << 8 | 40 };

	assert_int_equal(um_cpuid_set(c, &e, 1), 0);
	e.eax = 49 << 8 | 40;
	assert_int_equal(um_cpuid_set(c, &e, 1), -EINVAL);
	assert_int_equal(um_cpuid_set(c, offered, UM_MAX_CPUID_ENTRIES + 1), -E2BIG);
}

static void test_dynamic_bits(void **state)
{
	struct um_cpu *c = *state;
	uint32_t r[4];

	um_cpuid_set(c, offered, (unsigned)noffered);
	c->xcr0 = XCR0_X87;
	um_cpuid(c, 1, 0, r);
	assert_false(r[UM_ECX] & 1u << 27);
	assert_false(r[UM_EDX] & 1u << 9);
	c->apic_enabled = true;
	um_cpuid(c, 1, 7, r); /* ECX does not matter here */
	assert_true(r[UM_EDX] & 1u << 9);
	if (!um_cpu_has(c, UM_F_XSAVE))
		return;
	c->cr4 = CR4_OSXSAVE;
	um_cpuid(c, 1, 0, r);
	assert_true(r[UM_ECX] & 1u << 27);
	um_cpuid(c, 0xd, 0, r);
	assert_int_equal(r[UM_EBX], 576);
	c->xcr0 = um_supported_xcr0();
	um_cpuid(c, 0xd, 0, r);
	assert_int_equal(r[UM_EBX], r[UM_ECX]);
}

/* SDM vol. 2, CPUID: beyond the last leaf comes the highest basic one. */
static void test_out_of_range(void **state)
{
	struct um_cpu *c = *state;
	struct kvm_cpuid_entry2 e[] = {
		{ .function = 0,
		  .eax = 0xb,
		  .ebx = signature_INTEL_ebx,
		  .ecx = signature_INTEL_ecx },
		{ .function = 7, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .ebx = 0x77 },
		{ .function = 0xb, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .eax = 1, .edx = 5 },
		{ .function = 0xb,
		  .index = 1,
		  .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
		  .eax = 2,
		  .edx = 5 },
		{ .function = 0x40000000, .eax = 0x40000001 },
		{ .function = 0x80000000, .eax = 0x80000008 },
	};
	uint32_t r[4];

	assert_int_equal(um_cpuid_set(c, e, ARRAY_SIZE(e)), 0);
	um_cpuid(c, 0x20, 0, r);
	assert_int_equal(r[UM_EAX], 1);
	um_cpuid(c, 0x20, 1, r);
	assert_int_equal(r[UM_EAX], 2);
	um_cpuid(c, 0x80000009, 0, r);
	assert_int_equal(r[UM_EAX], 1);
	um_cpuid(c, 0x40000002, 0, r);
	assert_int_equal(r[UM_EAX], 1);
	/* Inside the range, but not there: zero. */
	um_cpuid(c, 5, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
	um_cpuid(c, 7, 3, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
	um_cpuid(c, 0x80000004, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
	/* Below the last level of the topology: level and x2APIC id. */
	um_cpuid(c, 0xb, 0x102, r);
	assert_int_equal(r[UM_EAX] | r[UM_EBX], 0);
	assert_int_equal(r[UM_ECX], 2);
	assert_int_equal(r[UM_EDX], 5);
	/* AMD's processors say nothing instead. */
	e[0].ebx = signature_AMD_ebx;
	e[0].ecx = signature_AMD_ecx;
	um_cpuid_set(c, e, ARRAY_SIZE(e));
	um_cpuid(c, 0x20, 0, r);
	assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
}

static void test_get_gives_back(void **state)
{
	struct um_cpu *c = *state;
	struct kvm_cpuid_entry2 back[MAX];

	um_cpuid_set(c, offered, (unsigned)noffered);
	c->cr4 = 0;
	c->xcr0 = um_supported_xcr0();
	c->apic_enabled = true;
	assert_int_equal(um_cpuid_get(c, back, (unsigned)noffered - 1), -E2BIG);
	assert_int_equal(um_cpuid_get(c, back, MAX), noffered);
	assert_memory_equal(back, offered, (size_t)noffered * sizeof(back[0]));
	assert_true(um_cpuid_equal(c, back, offered, (unsigned)noffered));
	entry(back, noffered, 7, 0)->ebx ^= 1;
	assert_false(um_cpuid_equal(c, back, offered, (unsigned)noffered));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_policies),	 cmocka_unit_test(test_size_of_buffer),
		cmocka_unit_test(test_no_duplicates),	 cmocka_unit_test(test_kvm_leaves),
		cmocka_unit_test(test_kvm_leaves_moved), cmocka_unit_test(test_xsave_leaf),
		cmocka_unit_test(test_set_derives),	 cmocka_unit_test(test_set_refuses),
		cmocka_unit_test(test_dynamic_bits),	 cmocka_unit_test(test_out_of_range),
		cmocka_unit_test(test_get_gives_back),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
