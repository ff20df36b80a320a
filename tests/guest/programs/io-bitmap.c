// SPDX-License-Identifier: MIT
/*
 * Which ports ring 3 may use: IOPL, and the bitmap of the task state segment, bit by bit, for
 * every width, up to the limit of the segment (SDM vol. 1, 19.5).
 */
#include "cpu.h"
#include "desc.h"
#include "guest.h"
#include "trap.h"

USER_PROBE(in1, "mov %eax, %edx", "in %dx, %al");
USER_PROBE(in2, "mov %eax, %edx", "in %dx, %ax");
USER_PROBE(in4, "mov %eax, %edx", "in %dx, %eax");
USER_PROBE(out1, "mov %eax, %edx", "out %al, %dx");
USER_PROBE(ins1, "mov %eax, %edx; mov $user_stack, %edi", "insb");
USER_PROBE(out_imm, "", "out %al, $0x80");

/* A port where nothing is. */
#define PORT 0x560

static void only(unsigned port, unsigned n)
{
	memset(desc_tss(0)->bitmap, 0xff, sizeof(desc_tss(0)->bitmap));
	for (unsigned p = port; p < port + n; p++)
		desc_tss(0)->bitmap[p / 8] &= ~(1 << p % 8);
}

static bool may(guest_fn fn, ulong port)
{
	struct trap t = user_call(fn, port);

	if (t.vector != TRAP_NONE)
		CHECK(t.vector == VEC_GP && t.error == 0, "the refusal is #GP(0)");
	return t.vector == TRAP_NONE;
}

static void set_limit(u32 limit)
{
	gdt_system(SEL_TSS, (ulong)desc_tss(0), limit, ACC_P | ACC_TSS);
	load_tr(SEL_TSS);
}

void guest_main(void)
{
	struct tss32 *tss = desc_tss(0);
	unsigned wrong = 0;

	CHECK(!may(in1, PORT), "no bitmap, no port");
	CHECK_EQ(user_call_flags(in4, PORT, 0x3000).vector, TRAP_NONE, "IOPL 3 opens all");
	CHECK(!may(in1, PORT), "and the flags are not kept");

	tss->iomap = offsetof(struct tss32, bitmap);
	for (unsigned first = PORT - 4; first < PORT + 4; first++) {
		for (unsigned n = 0; n <= 4; n++) {
			only(first, n);
			for (unsigned port = PORT - 4; port < PORT + 8; port++) {
				wrong += may(in1, port) != (port >= first && port + 1 <= first + n);
				wrong += may(in2, port) != (port >= first && port + 2 <= first + n);
				wrong += may(in4, port) != (port >= first && port + 4 <= first + n);
			}
		}
	}
	CHECK_EQ(wrong, 0, "each port of an access needs its bit");

	only(0, 0x10000);
	CHECK(may(out1, PORT), "OUT too");
	CHECK(may(ins1, PORT), "INS too");
	CHECK(may(out_imm, 0), "and a port in the instruction");
	only(PORT, 1);
	CHECK(!may(out_imm, 0), "which is looked up as well");

	/* Two bytes of the map are read, so the byte behind the port's must be within the limit. */
	only(0, 0x10000);
	set_limit(offsetof(struct tss32, bitmap) + PORT / 8 + 1);
	CHECK(may(in1, PORT), "the map reaches far enough");
	set_limit(offsetof(struct tss32, bitmap) + PORT / 8);
	CHECK(!may(in1, PORT), "the second byte is beyond the limit");
	set_limit(offsetof(struct tss32, bitmap) + PORT / 8 - 1);
	CHECK(!may(in1, PORT), "both are");
	set_limit(sizeof(*tss) - 1);
	CHECK(may(in1, 0xffff), "the last port");
}
