/* SPDX-License-Identifier: MIT */
/*
 * Numbers of Microsoft's "Hypervisor Top Level Functional Specification" (TLFS), as far as they are used here:
 * MSRs, CPUID bits, hypercalls, layouts in guest memory.  The chapters are named at each group.
 */
#ifndef UM_X86_HYPERV_H
#define UM_X86_HYPERV_H

#include "base/bits.h"
#include "base/types.h"

/* ---- MSRs ("Appendix: MSRs") ---- */

enum {
	HV_MSR_GUEST_OS_ID = 0x40000000,
	HV_MSR_HYPERCALL,
	HV_MSR_VP_INDEX,
	HV_MSR_RESET,
	HV_MSR_VP_RUNTIME = 0x40000010,
	HV_MSR_TIME_REF_COUNT = 0x40000020,
	HV_MSR_REFERENCE_TSC,
	HV_MSR_TSC_FREQUENCY,
	HV_MSR_APIC_FREQUENCY,
	HV_MSR_EOI = 0x40000070,
	HV_MSR_ICR,
	HV_MSR_TPR,
	HV_MSR_VP_ASSIST_PAGE,
	HV_MSR_SCONTROL = 0x40000080,
	HV_MSR_SVERSION,
	HV_MSR_SIEFP,
	HV_MSR_SIMP,
	HV_MSR_EOM,
	HV_MSR_SINT0 = 0x40000090,
	HV_MSR_SINT15 = 0x4000009f,
	HV_MSR_STIMER0_CONFIG = 0x400000b0, /* then its count, then timer 1 */
	HV_MSR_STIMER3_COUNT = 0x400000b7,
	HV_MSR_SYNDBG_CONTROL = 0x400000f1,
	HV_MSR_SYNDBG_STATUS,
	HV_MSR_SYNDBG_SEND_BUFFER,
	HV_MSR_SYNDBG_RECV_BUFFER,
	HV_MSR_SYNDBG_PENDING_BUFFER,
	HV_MSR_SYNDBG_OPTIONS = 0x400000ff,
	HV_MSR_CRASH_P0 = 0x40000100,
	HV_MSR_CRASH_P4 = 0x40000104,
	HV_MSR_CRASH_CTL,
	HV_MSR_REENLIGHTENMENT_CONTROL,
	HV_MSR_TSC_EMULATION_CONTROL,
	HV_MSR_TSC_EMULATION_STATUS,
};

#define HV_MSR_FIRST 0x40000000
#define HV_MSR_LAST  0x400001ff

/* Of the MSRs that name a page: it is in use; its address. */
#define HV_PAGE_ENABLE	     BIT(0)
#define HV_PAGE_ADDRESS	     (~0xfffull)
#define HV_HYPERCALL_LOCKED  BIT(1)
#define HV_SCONTROL_ENABLE   BIT(0)
#define HV_CRASH_CTL_NOTIFY  BIT(63)
#define HV_SYNIC_VERSION     1
#define HV_SYNDBG_USE_HCALLS BIT(2) /* HV_MSR_SYNDBG_OPTIONS */

#define HV_STIMER_ENABLE      BIT(0)
#define HV_STIMER_PERIODIC    BIT(1)
#define HV_STIMER_LAZY	      BIT(2)
#define HV_STIMER_AUTO_ENABLE BIT(3)
#define HV_STIMER_VECTOR(c)   ((u8)((c) >> 4))
#define HV_STIMER_DIRECT      BIT(12)
#define HV_STIMER_SINT(c)     ((unsigned)((c) >> 16) & 0xf)

/* ---- CPUID ("Feature and Interface Discovery") ---- */

enum {
	HV_CPUID_VENDOR = 0x40000000,
	HV_CPUID_INTERFACE,
	HV_CPUID_VERSION,
	HV_CPUID_FEATURES,
	HV_CPUID_HINTS,
	HV_CPUID_LIMITS,
	HV_CPUID_NESTED = 0x4000000a,
	HV_CPUID_SYNDBG_VENDOR = 0x40000080,
	HV_CPUID_SYNDBG_INTERFACE,
	HV_CPUID_SYNDBG_CAPS,
};

#define HV_INTERFACE_HV1 0x31237648u /* "Hv#1" */
#define HV_INTERFACE_VS1 0x31235356u /* "VS#1": the synthetic debugger's */

/* HV_CPUID_FEATURES.EAX: what the partition may access */
#define HV_ACCESS_VP_RUNTIME	  BIT(0)
#define HV_ACCESS_TIME_REF_COUNT  BIT(1)
#define HV_ACCESS_SYNIC		  BIT(2)
#define HV_ACCESS_STIMER	  BIT(3)
#define HV_ACCESS_APIC		  BIT(4)
#define HV_ACCESS_HYPERCALL	  BIT(5)
#define HV_ACCESS_VP_INDEX	  BIT(6)
#define HV_ACCESS_RESET		  BIT(7)
#define HV_ACCESS_REFERENCE_TSC	  BIT(9)
#define HV_ACCESS_FREQUENCIES	  BIT(11)
#define HV_ACCESS_REENLIGHTENMENT BIT(13)
/* .EBX */
#define HV_ALLOW_POST_MESSAGES BIT(4)
#define HV_ALLOW_SIGNAL_EVENTS BIT(5)
#define HV_ALLOW_DEBUGGING     BIT(11)
/* .EDX */
#define HV_FEATURE_XMM_INPUT	   BIT(4)
#define HV_FEATURE_FREQUENCIES	   BIT(8)
#define HV_FEATURE_CRASH	   BIT(10)
#define HV_FEATURE_SYNDBG	   BIT(11)
#define HV_FEATURE_EXTENDED_RANGES BIT(14)
#define HV_FEATURE_STIMER_DIRECT   BIT(19)
/* HV_CPUID_HINTS.EAX: what the guest had better do */
#define HV_HINT_REMOTE_TLB_FLUSH   BIT(2)
#define HV_HINT_APIC_MSRS	   BIT(3)
#define HV_HINT_RELAXED_TIMING	   BIT(5)
#define HV_HINT_NO_AUTO_EOI	   BIT(9)
#define HV_HINT_CLUSTER_IPI	   BIT(10)
#define HV_HINT_EX_PROCESSOR_MASKS BIT(11)
#define HV_HINT_NO_CORE_SHARING	   BIT(18) /* no stranger on a sibling of a vCPU's hardware thread */
/* .EBX: tries before a spinning vCPU tells; all ones: never */
#define HV_SPIN_NEVER 0xffffffffu
/* HV_CPUID_NESTED.EAX */
#define HV_NESTED_MSR_BITMAP BIT(19)
/* HV_CPUID_SYNDBG_CAPS.EAX */
#define HV_SYNDBG_KERNEL_DEBUGGING BIT(1)

/* ---- Hypercalls ("Hypercall Interface") ---- */

/* The input value */
#define HV_CALL_CODE(c)	     ((u16)(c))
#define HV_CALL_FAST	     BIT(16)
#define HV_CALL_VARIABLE(c)  ((unsigned)((c) >> 17) & 0x3ff) /* variable header, in 8 bytes */
#define HV_CALL_RESERVED     (GENMASK(31, 27) | GENMASK(47, 44) | GENMASK(63, 60))
#define HV_CALL_REPS(c)	     ((unsigned)((c) >> 32) & 0xfff)
#define HV_CALL_REP_START(c) ((unsigned)((c) >> 48) & 0xfff)
/* The result value: the status, and */
#define HV_RESULT_REPS_SHIFT 32

enum {
	HV_CALL_FLUSH_SPACE = 0x0002,
	HV_CALL_FLUSH_LIST = 0x0003,
	HV_CALL_LONG_SPIN_WAIT = 0x0008,
	HV_CALL_SEND_IPI = 0x000b,
	HV_CALL_FLUSH_SPACE_EX = 0x0013,
	HV_CALL_FLUSH_LIST_EX = 0x0014,
	HV_CALL_SEND_IPI_EX = 0x0015,
	HV_CALL_POST_MESSAGE = 0x005c,
	HV_CALL_SIGNAL_EVENT = 0x005d,
	HV_CALL_POST_DEBUG_DATA = 0x0069,
	HV_CALL_RETRIEVE_DEBUG_DATA = 0x006a,
	HV_CALL_RESET_DEBUG_SESSION = 0x006b,
};

enum hv_status {
	HV_SUCCESS = 0,
	HV_INVALID_HYPERCALL_CODE = 2,
	HV_INVALID_HYPERCALL_INPUT = 3,
	HV_INVALID_ALIGNMENT = 4,
	HV_ACCESS_DENIED = 6,
	HV_OPERATION_DENIED = 8,
	HV_INVALID_PORT_ID = 17,
};

/* Flags of the flushes */
#define HV_FLUSH_ALL_PROCESSORS BIT(0)

/* Formats of sets of virtual processors ("Virtual Processors") */
#define HV_SET_SPARSE_4K 0 /* bank n, of 64 processors, follows if bit n of a mask is set */
#define HV_SET_ALL	 1

/* ---- Messages and time ("Inter-Partition Communication", "Timers") ---- */

#define HV_MESSAGE_SIZE	       256
#define HV_MESSAGE_PAYLOAD_MAX 240
#define HV_MESSAGE_NONE	       0u
#define HV_MESSAGE_TIMER       0x80000010u
#define HV_MESSAGE_PENDING     BIT(0) /* another one waits for the slot */

struct hv_message {
	u32 type; /* HV_MESSAGE_NONE: the slot is free */
	u8 payload_size, flags, reserved[2];
	u64 sender;
	u8 payload[HV_MESSAGE_PAYLOAD_MAX];
};

_Static_assert(sizeof(struct hv_message) == HV_MESSAGE_SIZE, "the guest's ABI");

struct hv_timer_payload {
	u32 timer, reserved;
	u64 expiration, delivery;
};

/* Reference time = (TSC * scale >> 64) + offset, in 100 ns; sequence 0: not to be used. */
struct hv_reference_tsc {
	u32 sequence, reserved;
	u64 scale;
	s64 offset;
};

_Static_assert(sizeof(struct hv_reference_tsc) == 24, "the guest's ABI");

#endif
