// SPDX-License-Identifier: MIT
/*
 * Two tasks that share the vector registers, switched lazily: CR0.TS, #NM, FXSAVE and FXRSTOR, as
 * kernels did it for decades (SDM vol. 3, 13.4).
 */
#include "cpu.h"
#include "guest.h"
#include "trap.h"

static u8 images[2][512] __attribute__((aligned(16)));
static unsigned current, owner, switches;

static bool hand_over(struct frame *f)
{
	asm volatile("clts");
	if (owner != current) {
		asm volatile("fxsave %0" : "=m"(images[owner]));
		asm volatile("fxrstor %0" : : "m"(images[current]));
		owner = current;
		switches++;
	}
	return true;
}

static void switch_to(unsigned task)
{
	current = task;
	write_cr0(read_cr0() | CR0_TS);
}

static u64 bump(u64 by)
{
	u64 sum;

	asm volatile("movq %1, %%xmm1; paddq %%xmm1, %%xmm7; movq %%xmm7, %0"
		     : "=r"(sum)
		     : "r"(by));
	return sum;
}

static u32 bump_x87(void)
{
	u32 n;

	asm volatile("fld1; faddp; fistl %0" : "=m"(n));
	return n;
}

void guest_main(void)
{
	u64 sums[2] = { 0, 0 }, got;

	write_cr0((read_cr0() & ~(CR0_EM | CR0_TS)) | CR0_MP | CR0_NE);
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	trap_handle(VEC_NM, hand_over);
	asm volatile("fninit; fldz; pxor %xmm7, %xmm7");
	asm volatile("fxsave %0; fxsave %1" : "=m"(images[0]), "=m"(images[1]));
	for (unsigned i = 0; i < 1000; i++) {
		unsigned task = (i * 7 >> 2) & 1;

		switch_to(task);
		if (i % 5 == 4)
			continue; /* this one does not touch the registers */
		sums[task] += i;
		got = bump(i);
		if (got != sums[task])
			CHECK_EQ(got, sums[task], "each task has its own XMM7");
	}
	CHECK(switches > 100, "the registers changed hands");
	for (unsigned task = 0; task < 2; task++) {
		switch_to(task);
		for (unsigned i = 1; i <= 20 + task; i++)
			CHECK_EQ(bump_x87(), i, "each task has its own x87 stack");
	}
	switch_to(0);
	CHECK_EQ(bump_x87(), 21, "the first goes on where it was");
	CHECK_EQ(bump(0), sums[0], "in XMM7 as well");
}
