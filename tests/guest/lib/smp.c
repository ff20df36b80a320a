// SPDX-License-Identifier: MIT
/* Starting the other processors: SDM vol. 3, 9.4 "Multiple-processor (MP) initialization". */
#include "smp.h"
#include "apic.h"
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

void ap_start(void);
extern const u8 smp_low_begin[], smp_low_end[];
extern u32 smp_low_cpu;

static cpu_fn functions[MAX_CPUS];
static bool running[MAX_CPUS], done[MAX_CPUS];

void low_copy(const void *begin, const void *end)
{
	memcpy((void *)LOW_BASE, begin, (ulong)end - (ulong)begin);
}

/* start32.S and start64.S send the new processor here, on its own stack. */
void ap_start(void)
{
	unsigned cpu = this_cpu();

	desc_load(cpu);
	lapic_enable();
	__atomic_store_n(&running[cpu], true, __ATOMIC_RELEASE);
	functions[cpu]();
	__atomic_store_n(&done[cpu], true, __ATOMIC_RELEASE);
	for (;;)
		asm volatile("cli; hlt");
}

bool smp_start(unsigned cpu, cpu_fn fn)
{
	functions[cpu] = fn;
	running[cpu] = done[cpu] = false;
	smp_low_cpu = cpu;
	low_copy(smp_low_begin, smp_low_end);
	lapic_enable();
	lapic_send(cpu, ICR_INIT | ICR_ASSERT);
	pit_delay(PIT_HZ / 100);
	for (unsigned attempt = 0; attempt < 2; attempt++) {
		lapic_send(cpu, ICR_SIPI | ICR_ASSERT | LOW_BASE >> 12);
		for (unsigned ms = 0; ms < 500; ms++) {
			if (__atomic_load_n(&running[cpu], __ATOMIC_ACQUIRE))
				return true;
			pit_delay(PIT_HZ / 1000);
		}
	}
	return false;
}

void smp_wait(unsigned cpu)
{
	while (!__atomic_load_n(&done[cpu], __ATOMIC_ACQUIRE))
		pause();
}
