// SPDX-License-Identifier: MIT
/*
 * What the host's processor has: CPUID's answers, against the lists below.
 */
#include "engine/host.h"

#include <pthread.h>

#include "cpu/hostid.h"
#include "cpu/xsave.h"

/* X(ISA set, feature, second feature).  ALWAYS: part of every x86-64 processor, or done in C. */
#define UM_F_ALWAYS UM_F_MAX
#define NATIVE_SETS(X)                                            \
	X(X87, ALWAYS, ALWAYS)                                    \
	X(FCMOV, ALWAYS, ALWAYS)                                  \
	X(PPRO, ALWAYS, ALWAYS)                                   \
	X(PENTIUMMMX, ALWAYS, ALWAYS)                             \
	X(FXSAVE, ALWAYS, ALWAYS)                                 \
	X(FXSAVE64, ALWAYS, ALWAYS)                               \
	X(SSE, ALWAYS, ALWAYS)                                    \
	X(SSEMXCSR, ALWAYS, ALWAYS)                               \
	X(SSE2, ALWAYS, ALWAYS)                                   \
	X(SSE2MMX, ALWAYS, ALWAYS)                                \
	X(SSE3, SSE3, ALWAYS)                                     \
	X(SSE3X87, SSE3, ALWAYS)                                  \
	X(SSSE3, SSSE3, ALWAYS)                                   \
	X(SSSE3MMX, SSSE3, ALWAYS)                                \
	X(SSE4, SSE4_1, ALWAYS)                                   \
	X(SSE42, SSE4_2, ALWAYS)                                  \
	X(POPCNT, POPCNT, ALWAYS)                                 \
	X(AES, AES, ALWAYS)                                       \
	X(PCLMULQDQ, PCLMULQDQ, ALWAYS)                           \
	X(SHA, SHA, ALWAYS)                                       \
	X(GFNI, GFNI, ALWAYS)                                     \
	X(ADOX_ADCX, ADX, ALWAYS)                                 \
	X(RDRAND, RDRAND, ALWAYS)                                 \
	X(RDSEED, RDSEED, ALWAYS)                                 \
	X(MOVDIR, MOVDIRI, ALWAYS)                                \
	X(PKU, ALWAYS, ALWAYS)                                    \
	X(XSAVE, ALWAYS, ALWAYS)                                  \
	X(XSAVEC, ALWAYS, ALWAYS)                                 \
	X(XSAVEOPT, ALWAYS, ALWAYS)                               \
	X(XSAVES, ALWAYS, ALWAYS)                                 \
	X(BMI1, BMI1, ALWAYS)                                     \
	X(BMI2, BMI2, ALWAYS)                                     \
	X(AVX, AVX, ALWAYS)                                       \
	X(F16C, F16C, AVX)                                        \
	X(FMA, FMA, AVX)                                          \
	X(AVX2, AVX2, ALWAYS)                                     \
	X(AVX2GATHER, AVX2, ALWAYS)                               \
	X(AVXAES, AES, AVX)                                       \
	X(AVX_GFNI, GFNI, AVX)                                    \
	X(AVX_VNNI, AVX_VNNI, AVX2)                               \
	X(VAES, VAES, AVX)                                        \
	X(VPCLMULQDQ, VPCLMULQDQ, AVX)                            \
	X(AVX512F_KOP, AVX512F, ALWAYS)                           \
	X(AVX512F_SCALAR, AVX512F, ALWAYS)                        \
	X(AVX512F_512, AVX512F, ALWAYS)                           \
	X(AVX512F_128, AVX512F, AVX512VL)                         \
	X(AVX512F_128N, AVX512F, ALWAYS)                          \
	X(AVX512F_256, AVX512F, AVX512VL)                         \
	X(AVX512BW_KOP, AVX512BW, ALWAYS)                         \
	X(AVX512BW_512, AVX512BW, ALWAYS)                         \
	X(AVX512BW_128, AVX512BW, AVX512VL)                       \
	X(AVX512BW_128N, AVX512BW, ALWAYS)                        \
	X(AVX512BW_256, AVX512BW, AVX512VL)                       \
	X(AVX512DQ_KOP, AVX512DQ, ALWAYS)                         \
	X(AVX512DQ_SCALAR, AVX512DQ, ALWAYS)                      \
	X(AVX512DQ_512, AVX512DQ, ALWAYS)                         \
	X(AVX512DQ_128, AVX512DQ, AVX512VL)                       \
	X(AVX512DQ_128N, AVX512DQ, ALWAYS)                        \
	X(AVX512DQ_256, AVX512DQ, AVX512VL)                       \
	X(AVX512CD_512, AVX512CD, ALWAYS)                         \
	X(AVX512CD_128, AVX512CD, AVX512VL)                       \
	X(AVX512CD_256, AVX512CD, AVX512VL)                       \
	X(AVX512_BF16_512, AVX512_BF16, ALWAYS)                   \
	X(AVX512_BF16_128, AVX512_BF16, AVX512VL)                 \
	X(AVX512_BF16_256, AVX512_BF16, AVX512VL)                 \
	X(AVX512_BITALG_512, AVX512BITALG, ALWAYS)                \
	X(AVX512_BITALG_128, AVX512BITALG, AVX512VL)              \
	X(AVX512_BITALG_256, AVX512BITALG, AVX512VL)              \
	X(AVX512_FP16_SCALAR, AVX512_FP16, ALWAYS)                \
	X(AVX512_FP16_512, AVX512_FP16, ALWAYS)                   \
	X(AVX512_FP16_128, AVX512_FP16, AVX512VL)                 \
	X(AVX512_FP16_128N, AVX512_FP16, ALWAYS)                  \
	X(AVX512_FP16_256, AVX512_FP16, AVX512VL)                 \
	X(AVX512_GFNI_512, GFNI, AVX512F)                         \
	X(AVX512_GFNI_128, GFNI, AVX512VL)                        \
	X(AVX512_GFNI_256, GFNI, AVX512VL)                        \
	X(AVX512_IFMA_512, AVX512IFMA, ALWAYS)                    \
	X(AVX512_IFMA_128, AVX512IFMA, AVX512VL)                  \
	X(AVX512_IFMA_256, AVX512IFMA, AVX512VL)                  \
	X(AVX512_VAES_512, VAES, AVX512F)                         \
	X(AVX512_VAES_128, VAES, AVX512VL)                        \
	X(AVX512_VAES_256, VAES, AVX512VL)                        \
	X(AVX512_VBMI2_512, AVX512VBMI2, ALWAYS)                  \
	X(AVX512_VBMI2_128, AVX512VBMI2, AVX512VL)                \
	X(AVX512_VBMI2_256, AVX512VBMI2, AVX512VL)                \
	X(AVX512_VBMI_512, AVX512VBMI, ALWAYS)                    \
	X(AVX512_VBMI_128, AVX512VBMI, AVX512VL)                  \
	X(AVX512_VBMI_256, AVX512VBMI, AVX512VL)                  \
	X(AVX512_VNNI_512, AVX512VNNI, ALWAYS)                    \
	X(AVX512_VNNI_128, AVX512VNNI, AVX512VL)                  \
	X(AVX512_VNNI_256, AVX512VNNI, AVX512VL)                  \
	X(AVX512_VP2INTERSECT_512, AVX512_VP2INTERSECT, ALWAYS)   \
	X(AVX512_VP2INTERSECT_128, AVX512_VP2INTERSECT, AVX512VL) \
	X(AVX512_VP2INTERSECT_256, AVX512_VP2INTERSECT, AVX512VL) \
	X(AVX512_VPCLMULQDQ_512, VPCLMULQDQ, AVX512F)             \
	X(AVX512_VPCLMULQDQ_128, VPCLMULQDQ, AVX512VL)            \
	X(AVX512_VPCLMULQDQ_256, VPCLMULQDQ, AVX512VL)            \
	X(AVX512_VPOPCNTDQ_512, AVX512VPOPCNTDQ, ALWAYS)          \
	X(AVX512_VPOPCNTDQ_128, AVX512VPOPCNTDQ, AVX512VL)        \
	X(AVX512_VPOPCNTDQ_256, AVX512VPOPCNTDQ, AVX512VL)

/* Integer instructions: done in C by the interpreter, on any host. */
#define CORE_SETS(X)            \
	X(I86, ALWAYS)          \
	X(I186, ALWAYS)         \
	X(I386, ALWAYS)         \
	X(I486REAL, ALWAYS)     \
	X(PENTIUMREAL, ALWAYS)  \
	X(PPRO, ALWAYS)         \
	X(CMOV, ALWAYS)         \
	X(LONGMODE, ALWAYS)     \
	X(FAT_NOP, ALWAYS)      \
	X(PREFETCH_NOP, ALWAYS) \
	X(SSE_PREFETCH, ALWAYS) \
	X(SSE, ALWAYS)          \
	X(SSE2, ALWAYS)         \
	X(LAHF, LAHF_LM)        \
	X(CMPXCHG16B, CX16)     \
	X(MOVBE, MOVBE)         \
	X(POPCNT, POPCNT)       \
	X(LZCNT, ABM)           \
	X(BMI1, BMI1)

/* CPUID answers cost a VM exit on most hosts, so ask once in the process: they don't change. */
static struct um_host host;
static pthread_once_t host_once = PTHREAD_ONCE_INIT;

static void read_host(void)
{
	for (unsigned f = 0; f < UM_F_MAX; f++) {
		const struct um_feature_info *d = um_feature_info((enum um_feature)f);

		if ((d->leaf & 0xffff0000u) ==
		    0x40000000u) /* the hypervisor's, not the processor's */
			continue;
		if (um_host_has_feature((enum um_feature)f))
			host.features[f / 64] |= BIT(f % 64);
	}
	host.states = um_xsave_layout()->supported;
}

const struct um_host *um_host(void)
{
	pthread_once(&host_once, read_host);
	return &host;
}

static bool has(const struct um_host *h, unsigned f)
{
	return f == UM_F_ALWAYS || um_host_feature(h, f);
}

bool um_host_has(const struct um_host *h, const ZydisDecodedInstruction *z)
{
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && !(h->states & XCR0_AVX))
		return false;
	/*
	 * Moves of whole registers are AVX512F, VL and BW: what all processors but Xeon Phi have
	 * together.
	 */
	if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
	    z->meta.isa_ext == ZYDIS_ISA_EXT_AVX512VEX) {
		if ((h->states & XCR0_AVX512) != XCR0_AVX512 || !has(h, UM_F_AVX512VL) ||
		    !has(h, UM_F_AVX512BW))
			return false;
	}
	switch (z->meta.isa_set) {
#define X(set, f1, f2)            \
	case ZYDIS_ISA_SET_##set: \
		return has(h, UM_F_##f1) && has(h, UM_F_##f2);
		NATIVE_SETS(X)
#undef X
	default:
		return false;
	}
}

bool um_host_has_core(const struct um_host *h, const ZydisDecodedInstruction *z)
{
	switch (z->meta.isa_set) {
#define X(set, f)                 \
	case ZYDIS_ISA_SET_##set: \
		return has(h, UM_F_##f);
		CORE_SETS(X)
#undef X
	default:
		return false;
	}
}
