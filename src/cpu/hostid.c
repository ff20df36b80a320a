// SPDX-License-Identifier: MIT
#include "cpu/hostid.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* X(feature, the feature that it needs): what an operating system may rely on (SDM vol. 1 ch. 14, 15). */
#define NEEDS(X)                        \
	X(AVX, XSAVE)                   \
	X(F16C, AVX)                    \
	X(FMA, AVX)                     \
	X(AVX2, AVX)                    \
	X(VAES, AVX)                    \
	X(VPCLMULQDQ, AVX)              \
	X(AVX_VNNI, AVX2)               \
	X(AVX512F, AVX2)                \
	X(AVX512DQ, AVX512F)            \
	X(AVX512IFMA, AVX512F)          \
	X(AVX512CD, AVX512F)            \
	X(AVX512BW, AVX512F)            \
	X(AVX512VL, AVX512F)            \
	X(AVX512VBMI, AVX512BW)         \
	X(AVX512VBMI2, AVX512BW)        \
	X(AVX512VNNI, AVX512F)          \
	X(AVX512BITALG, AVX512BW)       \
	X(AVX512VPOPCNTDQ, AVX512F)     \
	X(AVX512_VP2INTERSECT, AVX512F) \
	X(AVX512_FP16, AVX512BW)        \
	X(AVX512_BF16, AVX512BW)        \
	X(XSAVEOPT, XSAVE)              \
	X(XSAVEC, XSAVE)                \
	X(XSAVES, XSAVEC)

static u64 masked[4]; /* bit enum um_feature */
static pthread_once_t masked_once = PTHREAD_ONCE_INIT;

static bool is_masked(enum um_feature f)
{
	return masked[f / 64] >> (f % 64) & 1;
}

/* The feature of this name; UM_F_MAX: none. */
static enum um_feature by_name(const char *name, size_t len)
{
	for (unsigned f = 0; f < UM_F_MAX; f++) {
		const char *known = um_feature_info((enum um_feature)f)->name;

		if (strlen(known) == len && !strncasecmp(known, name, len))
			return (enum um_feature)f;
	}
	return UM_F_MAX;
}

static void mask(enum um_feature f)
{
	masked[f / 64] |= BIT(f % 64);
}

static void read_mask(void)
{
	const char *list = getenv("UMBRA_HOST_MASK");

	while (list && *list) {
		size_t len = strcspn(list, ",");
		enum um_feature f = by_name(list, len);

		if (f != UM_F_MAX)
			mask(f);
		list += len + (list[len] == ',');
	}
	/* (In an order in which one pass does.) */
#define X(f, needed)                  \
	if (is_masked(UM_F_##needed)) \
		mask(UM_F_##f);
	NEEDS(X)
#undef X
}

int um_host_mask_check(const char *list, const char **bad)
{
	while (*list) {
		size_t len = strcspn(list, ",");

		if (by_name(list, len) == UM_F_MAX) {
			*bad = list;
			return -EINVAL;
		}
		list += len + (list[len] == ',');
	}
	return 0;
}

void um_host_cpuid(u32 leaf, u32 subleaf, u32 out[4])
{
	pthread_once(&masked_once, read_mask);
	__cpuid_count(leaf, subleaf, out[UM_EAX], out[UM_EBX], out[UM_ECX], out[UM_EDX]);
	for (unsigned f = 0; f < UM_F_MAX; f++) {
		const struct um_feature_info *i = um_feature_info((enum um_feature)f);

		if (is_masked((enum um_feature)f) && i->leaf == leaf && i->subleaf == subleaf)
			out[i->reg] &= ~(1u << i->bit);
	}
}

u32 um_host_max_leaf(u32 class)
{
	u32 out[4];

	um_host_cpuid(class, 0, out);
	/* A processor without the class answers with something else's leaf. */
	return (out[UM_EAX] & 0xffff0000u) == class ? out[UM_EAX] : class;
}

bool um_host_has_feature(enum um_feature f)
{
	const struct um_feature_info *i = um_feature_info(f);
	u32 out[4];

	if (um_host_max_leaf(i->leaf & 0xffff0000u) < i->leaf)
		return false;
	um_host_cpuid(i->leaf, i->subleaf, out);
	return out[i->reg] >> i->bit & 1;
}
