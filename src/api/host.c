// SPDX-License-Identifier: MIT
/*
 * The frequency of the host's TSC: what the CPU or the hypervisor says, else measured against the clock.
 */
#include <cpuid.h>
#include <pthread.h>
#include <time.h>
#include <x86intrin.h>

#include "api/api.h"

#define MEASURE_NS 20000000ull

static pthread_once_t once = PTHREAD_ONCE_INIT;
static u32 khz;

/* SDM vol. 2, CPUID leaf 15H: TSC = crystal (Hz, ECX) * EBX / EAX. */
static u32 from_cpuid(void)
{
	u32 a, b, c, d;

	if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a && b && c)
		return (u32)((u64)c * b / a / 1000);
	/* The timing leaf that hypervisors agreed on; EAX in kHz. */
	if (__get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 31)) {
		__cpuid(0x40000000, a, b, c, d);
		if (a >= 0x40000010 && a < 0x40000100) {
			__cpuid(0x40000010, a, b, c, d);
			return a;
		}
	}
	return 0;
}

/* A moment on both clocks; of several attempts the one that took least. */
static void sample(u64 *ns, u64 *tsc)
{
	u64 best = ~0ull;

	for (unsigned i = 0; i < 10; i++) {
		struct timespec ts;
		u64 before = __rdtsc(), after;

		clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
		after = __rdtsc();
		if (after - before < best) {
			best = after - before;
			*tsc = before + best / 2;
			*ns = (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
		}
	}
}

static u32 measured(void)
{
	struct timespec wait = { .tv_nsec = MEASURE_NS };
	u64 ns0 = 0, tsc0 = 0, ns1 = 0, tsc1 = 0;

	sample(&ns0, &tsc0);
	nanosleep(&wait, NULL);
	do
		sample(&ns1, &tsc1);
	while (ns1 - ns0 < MEASURE_NS);
	return (u32)((u128)(tsc1 - tsc0) * 1000000 / (ns1 - ns0));
}

static void find_khz(void)
{
	khz = from_cpuid();
	if (!khz)
		khz = measured();
}

u32 um_host_tsc_khz(void)
{
	pthread_once(&once, find_khz);
	return khz;
}
