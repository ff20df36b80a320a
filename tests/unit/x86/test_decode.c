// SPDX-License-Identifier: MIT
/*
 * The decoder: golden cases, one line each, and random bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "x86/insn.h"

#define OFF 0x100 /* offset in the page of every golden case */

/* What a case says about the result; fields that are -1 or NULL are not looked at. */
struct golden {
	enum um_mode mode;
	const char *hex;
	const char *text; /* um_disassemble() at address 0x1000; NULL if it is #UD */
	int len, osz, asz, msz;
	unsigned flags;
};

#define B  UM_INSN_BRANCH
#define E  UM_INSN_END
#define S  UM_INSN_SYSTEM
#define M  UM_INSN_MEM
#define O  UM_INSN_SEGOVERRIDE
#define UD (UM_INSN_UD | UM_INSN_END)

static const struct golden cases[] = {
	/* sizes: operand, address, memory */
	{ UM_MODE_64, "4881e0ffffffff", "and rax, 0xFFFFFFFFFFFFFFFF", 7, 8, 8, 0, 0 },
	{ UM_MODE_64, "8b0510000000", "mov eax, [0x0000000000001016]", 6, 4, 8, 4, M },
	{ UM_MODE_64, "678b0510000000", "mov eax, [0x0000000000001017]", 7, 4, 4, 4, M },
	{ UM_MODE_64, "0fb6c1", "movzx eax, cl", 3, 4, 8, 1, 0 },
	{ UM_MODE_64, "0fb7c1", "movzx eax, cx", 3, 4, 8, 2, 0 },
	{ UM_MODE_64, "480fbe00", "movsx rax, byte ptr [rax]", 4, 8, 8, 1, M },
	{ UM_MODE_64, "4863c8", "movsxd rcx, eax", 3, 8, 8, 4, 0 },
	{ UM_MODE_64, "f20f38f0c1", "crc32 eax, cl", 5, 4, 8, 1, 0 },
	{ UM_MODE_64, "65488b042528000000", "mov rax, gs:[0x0000000000000028]", 9, 8, 8, 8, M | O },
	{ UM_MODE_64, "48a14433221111223344", "mov rax, [0x4433221111223344]", 10, 8, 8, 8, M },
	{ UM_MODE_64, "ee", "out dx, al", 1, 1, 8, 0, S | E },
	{ UM_MODE_64, "50", "push rax", 1, 8, 8, 0, 0 },
	{ UM_MODE_64, "6650", "push ax", 2, 2, 8, 0, 0 },
	{ UM_MODE_64, "0f20c0", "mov rax, cr0", 3, 8, 8, 0, S | E },
	{ UM_MODE_64, "0f2000", "mov rax, cr0", 3, 8, 8, 0, S | E }, /* mod is ignored */
	{ UM_MODE_64, "480fc70f", "cmpxchg16b [rdi]", 4, 8, 8, 16, M },
	{ UM_MODE_REAL, "678b442410", "mov ax, [esp+0x10]", 5, 2, 4, 2, M },
	{ UM_MODE_REAL, "6aff", "push 0xFFFF", 2, 2, 2, 0, 0 },
	{ UM_MODE_REAL, "0f20c0", "mov eax, cr0", 3, 4, 2, 0, S | E },
	{ UM_MODE_32, "67a11234", "mov eax, [0x00003412]", 4, 4, 2, 4, M },
	{ UM_MODE_16, "66e800000000", "call 0x1006", 6, 4, 2, 0, B },

	/* branches; 66h before a near branch in 64-bit mode is ignored (Intel) */
	{ UM_MODE_64, "66e800000000", "call 0x0000000000001006", 6, 8, 8, 0, B },
	{ UM_MODE_64, "e800000080", "call 0xFFFFFFFF80001005", 5, 8, 8, 0, B },
	{ UM_MODE_64, "c20800", "ret 0x08", 3, 8, 8, 0, B },
	{ UM_MODE_64, "48cb", "ret far", 2, 8, 8, 0, B | UM_INSN_FAR },
	{ UM_MODE_64, "ff28", "jmp far [rax]", 2, 4, 8, 6, B | M | UM_INSN_FAR },
	{ UM_MODE_64, "67e30a", "jecxz 0x000000000000100D", 3, 8, 4, 0, B },
	{ UM_MODE_32, "66e80000", "call 0x00001004", 4, 2, 4, 0, B },
	{ UM_MODE_32, "9a112233445566", "call far 0x6655:0x44332211", 7, 4, 4, 0, B | UM_INSN_FAR },
	{ UM_MODE_64, "cc", "int3", 1, -1, -1, 0, B },
	{ UM_MODE_64, "f1", "int1", 1, -1, -1, 0, B },
	{ UM_MODE_64, "0f05", "syscall", 2, -1, -1, 0, B | S },
	{ UM_MODE_64, "48cf", "iretq", 2, 8, 8, 0, B | S },

	/* what ends a block */
	{ UM_MODE_64, "fb", "sti", 1, -1, -1, 0, S | E },
	{ UM_MODE_64, "9d", "popfq", 1, 8, 8, 0, E },
	{ UM_MODE_64, "8ed0", "mov ss, ax", 2, -1, -1, 0, S | E },
	{ UM_MODE_64, "8cd0", "mov eax, ss", 2, -1, -1, 0, S },
	{ UM_MODE_64, "f4", "hlt", 1, -1, -1, 0, S | E },
	{ UM_MODE_64, "0fa2", "cpuid", 2, -1, -1, 0, E },
	{ UM_MODE_64, "f390", "pause", 2, -1, -1, 0, E },
	{ UM_MODE_64, "0f0b", "ud2", 2, -1, -1, 0, B },
	{ UM_MODE_64, "0f01d0", "xgetbv", 3, -1, -1, 0, 0 },

	/* repeat prefixes: the last counts; F2 repeats MOVS as F3 does */
	{ UM_MODE_64, "a4", NULL, 1, 1, 8, 0, 0 },
	{ UM_MODE_64, "f2a4", NULL, 2, 1, 8, 0, UM_INSN_REP },
	{ UM_MODE_64, "f3a4", NULL, 2, 1, 8, 0, UM_INSN_REP },
	{ UM_MODE_64, "f2a6", NULL, 2, 1, 8, 0, UM_INSN_REPNE },
	{ UM_MODE_64, "f2f3a6", NULL, 3, 1, 8, 0, UM_INSN_REP },
	{ UM_MODE_64, "f3f2a6", NULL, 3, 1, 8, 0, UM_INSN_REPNE },
	{ UM_MODE_64, "67f348ab", NULL, 4, 8, 4, 0, UM_INSN_REP },
	{ UM_MODE_64, "64a4", NULL, 2, 1, 8, 0, O },

	/* LOCK */
	{ UM_MODE_64, "f00100", "lock add [rax], eax", 3, 4, 8, 4, M | UM_INSN_LOCK },
	{ UM_MODE_64, "f001c0", NULL, 1, -1, -1, 0, UD },
	{ UM_MODE_64, "f08900", NULL, 1, -1, -1, 0, UD },
	{ UM_MODE_64, "f00fc9", NULL, 1, -1, -1, 0, UD },
	{ UM_MODE_32, "f00f20c0", NULL, 1, -1, -1, 0, UD }, /* AMD's other CR8 */

	/* opcodes that depend on the mode */
	{ UM_MODE_32, "d6", "salc", 1, -1, -1, 0, 0 },
	{ UM_MODE_64, "d6", NULL, 1, -1, -1, 0, UD },
	{ UM_MODE_32, "82c001", "add al, 0x01", 3, 1, 4, 0, 0 },
	{ UM_MODE_64, "82c001", NULL, 1, -1, -1, 0, UD },
	{ UM_MODE_32, "6201", "bound eax, qword ptr [ecx]", 2, 4, 4, 8, M | B },
	{ UM_MODE_32, "c401", "les eax, fword ptr [ecx]", 2, 4, 4, 6, M | S | E },
	{ UM_MODE_32, "c5f858c1", "vaddps xmm0, xmm0, xmm1", 4, -1, -1, 0, 0 },
	{ UM_MODE_REAL, "c5f8", NULL, 1, -1, -1, 0, UD },
	{ UM_MODE_32, "63c1", "arpl cx, ax", 2, -1, -1, 0, S | E },
	{ UM_MODE_REAL, "63c1", NULL, 1, -1, -1, 0, UD },
	{ UM_MODE_REAL, "0f00c0", NULL, 1, -1, -1, 0, UD },
	{ UM_MODE_64, "06", NULL, 1, -1, -1, 0, UD },
	{ UM_MODE_64, "ce", NULL, 1, -1, -1, 0, UD },

	/* reserved NOPs, among them MPX and CET, which umbra does not have */
	{ UM_MODE_64, "f30f1efa", "nop edx, edi", 4, -1, -1, 0, 0 },
	{ UM_MODE_64, "0f1a00", "nop [rax]", 3, -1, -1, -1, M },
	{ UM_MODE_64, "0f1bc0", "nop eax", 3, -1, -1, 0, 0 },
	{ UM_MODE_64, "0f0dc8", "nop eax, ecx", 3, -1, -1, 0, 0 },
	{ UM_MODE_64, "0f0d08", "prefetchw [rax]", 3, -1, -1, -1, M },

	/* encodings that are #UD */
	{ UM_MODE_64, "8dc0", NULL, 1, -1, -1, 0, UD },	      /* LEA of a register */
	{ UM_MODE_64, "8ec8", NULL, 1, -1, -1, 0, UD },	      /* MOV CS */
	{ UM_MODE_64, "8ef0", NULL, 1, -1, -1, 0, UD },	      /* MOV to segment register 6 */
	{ UM_MODE_64, "c4c17abdd8", NULL, 1, -1, -1, 0, UD }, /* Xeon Phi's LZCNT with VEX */
	{ UM_MODE_64, "c4e2699004c0", NULL, 1, -1, -1, 0,
	  UD }, /* gather: destination is the index */
};

static unsigned from_hex(const char *hex, u8 *b)
{
	unsigned n = 0;

	for (; hex[0] && hex[1]; hex += 2)
		sscanf(hex, "%2hhx", &b[n++]);
	return n;
}

static void test_golden(void **state)
{
	for (size_t c = 0; c < ARRAY_SIZE(cases); c++) {
		const struct golden *g = &cases[c];
		struct um_insn i = { 0 };
		char text[96];
		u8 b[16] = { 0 };
		unsigned n = from_hex(g->hex, b), len = um_decode(&i, g->mode, b, n, OFF);

		if (len != (unsigned)g->len || i.len != len || i.flags != g->flags ||
		    (g->osz >= 0 && i.osz != g->osz) || (g->asz >= 0 && i.asz != g->asz) ||
		    (g->msz >= 0 && i.msz != g->msz))
			fail_msg("%s: len %u flags %#x osz %u asz %u msz %u", g->hex, len, i.flags,
				 i.osz, i.asz, i.msz);
		if (g->text) {
			assert_int_equal(um_disassemble(g->mode, b, n, 0x1000, text, sizeof(text)),
					 len);
			assert_string_equal(text, g->text);
		}
	}
}

static struct um_insn decode(enum um_mode mode, const char *hex)
{
	struct um_insn i = { 0 };
	u8 b[16] = { 0 };

	assert_int_not_equal(um_decode(&i, mode, b, from_hex(hex, b), OFF), 0);
	return i;
}

static void test_operands(void **state)
{
	struct um_insn i = decode(UM_MODE_64, "488b44cd08"); /* mov rax, [rbp + rcx * 8 + 8] */

	assert_int_equal(i.nops, 2);
	assert_int_equal(i.kind[0], UM_OPD_GPR);
	assert_int_equal(i.reg[0], UM_RAX * 8);
	assert_int_equal(i.kind[1], UM_OPD_MEM);
	assert_int_equal(i.base, UM_RBP);
	assert_int_equal(i.index, UM_RCX);
	assert_int_equal(i.scale, 3);
	assert_int_equal(i.disp, 8);
	assert_int_equal(i.seg, UM_SS);

	i = decode(UM_MODE_64, "00e5"); /* add ch, ah */
	assert_int_equal(i.reg[0], UM_RCX * 8 + 1);
	assert_int_equal(i.reg[1], UM_RAX * 8 + 1);
	i = decode(UM_MODE_64, "4000e5"); /* add bpl, spl */
	assert_int_equal(i.reg[0], UM_RBP * 8);
	assert_int_equal(i.reg[1], UM_RSP * 8);
	i = decode(UM_MODE_64, "4500c8"); /* add r8b, r9b */
	assert_int_equal(i.reg[0], UM_R8 * 8);
	assert_int_equal(i.reg[1], UM_R9 * 8);

	i = decode(UM_MODE_64, "8b05f0ffffff"); /* mov eax, [rip - 16] */
	assert_int_equal(i.base, UM_REG_PAGE);
	assert_int_equal(i.index, UM_REG_ZERO);
	assert_int_equal(i.disp, OFF + 6 - 16);

	i = decode(UM_MODE_64, "c8100001"); /* enter 16, 1 */
	assert_int_equal(i.imm, 16);
	assert_int_equal(i.imm2, 1);
	i = decode(UM_MODE_32, "ea112233445566"); /* jmp 6655:44332211 */
	assert_int_equal(i.kind[0], UM_OPD_FAR);
	assert_int_equal(i.imm, 0x44332211);
	assert_int_equal(i.imm2, 0x6655);
	i = decode(UM_MODE_64, "68ffffffff"); /* push -1 */
	assert_true(i.imm == ~0ull);
	i = decode(UM_MODE_64, "cd80");
	assert_int_equal(i.imm, 0x80);
	i = decode(UM_MODE_64, "e2fe"); /* loop to itself */
	assert_int_equal(i.kind[0], UM_OPD_REL);
	assert_true(i.imm == ~0ull - 1);
	i = decode(UM_MODE_64, "0f23f8"); /* mov dr7, rax */
	assert_int_equal(i.kind[0], UM_OPD_DR);
	assert_int_equal(i.reg[0], 7);
	i = decode(UM_MODE_64, "8ee0"); /* mov fs, ax */
	assert_int_equal(i.kind[0], UM_OPD_SEG);
	assert_int_equal(i.reg[0], UM_FS);

	i = decode(UM_MODE_REAL, "8b4210"); /* mov ax, [bp + si + 16] */
	assert_int_equal(i.base, UM_RBP);
	assert_int_equal(i.index, UM_RSI);
	assert_int_equal(i.seg, UM_SS);
	i = decode(UM_MODE_32, "65d7"); /* xlat gs:[ebx] */
	assert_int_equal(i.seg, UM_GS);
	i = decode(UM_MODE_32, "26a5"); /* movsd from es:[esi] */
	assert_int_equal(i.seg, UM_ES);
	i = decode(UM_MODE_32, "a5");
	assert_int_equal(i.seg, UM_DS);

	/* SIB without a base, also with REX.B and 67h */
	i = decode(UM_MODE_64, "6745021c7d4beff037");
	assert_int_equal(i.base, UM_REG_ZERO);
	assert_int_equal(i.index, UM_RDI);
	assert_int_equal(i.disp, 0x37f0ef4b);
}

static void test_length(void **state)
{
	struct um_insn i = { 0 };
	u8 b[16];
	unsigned n =
		from_hex("48c7840010000000aabbccdd", b); /* mov qword [rax + rax + 16], imm32 */

	for (unsigned avail = 1; avail < n; avail++)
		assert_int_equal(um_decode(&i, UM_MODE_64, b, avail, 0), 0);
	assert_int_equal(um_decode(&i, UM_MODE_64, b, n, 0), n);

	/* Fifteen bytes are an instruction, sixteen are #GP. */
	memset(b, 0x2e, sizeof(b));
	b[14] = 0x90;
	assert_int_equal(um_decode(&i, UM_MODE_64, b, 15, 0), 15);
	assert_int_equal(i.flags, 0);
	b[14] = 0x2e;
	assert_int_equal(um_decode(&i, UM_MODE_64, b, 15, 0), 15);
	assert_int_equal(i.flags, UM_INSN_TOOLONG | UM_INSN_END);
	assert_int_equal(um_decode(&i, UM_MODE_64, b, 14, 0), 0);
}

/* Random bytes: always an answer, always the same, and no byte beyond its length matters. */
static void test_random(void **state)
{
	u64 rng = 88172645463325252ull;
	unsigned valid = 0;

	for (unsigned n = 0; n < 400000; n++) {
		struct um_insn a = { 0 }, b = { 0 };
		enum um_mode mode = (enum um_mode)(n & 3);
		char text[64];
		u8 bytes[24];
		unsigned len;

		for (unsigned i = 0; i < sizeof(bytes); i += 8) {
			rng ^= rng << 13;
			rng ^= rng >> 7;
			rng ^= rng << 17;
			memcpy(bytes + i, &rng, 8);
		}
		if (n & 4)
			bytes[0] = 0x0f;
		len = um_decode(&a, mode, bytes, 15, (u16)(rng & 0xfff));
		assert_true(len >= 1 && len <= 15 && a.len == len);
		assert_true(a.seg < UM_NR_SEGS && a.base <= UM_REG_PAGE && a.index <= UM_REG_ZERO &&
			    a.scale < 4);
		if (!(a.flags & UM_INSN_UD)) {
			valid++;
			memset(bytes + len, 0xcc, sizeof(bytes) - len);
		}
		assert_int_equal(um_decode(&b, mode, bytes, 15, (u16)(rng & 0xfff)), len);
		assert_memory_equal(&a, &b, sizeof(a));
		um_disassemble(mode, bytes, 15, rng, text, n % sizeof(text));
	}
	assert_true(valid > 200000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_operands),
		cmocka_unit_test(test_length),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
