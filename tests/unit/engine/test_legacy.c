// SPDX-License-Identifier: MIT
/*
 * Instructions that 64-bit mode doesn't have.  Those on registers run on the host, too, in
 * compatibility mode: its code and stack are put below 4 GiB and entered by a far call.  If the
 * host kernel has no 32-bit segments (a sandbox), that part is skipped.
 */
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/interp/interp.h"
#include "fixture.h"

static int setup(void **state)
{
	*state = machine_new();
	machine_mode(*state, UM_MODE_32);
	return 0;
}
static int teardown(void **state)
{
	machine_free(*state);
	return 0;
}

/* ---- against the host ---- */

#define OFF_FAR	  0x700 /* far pointer to the 32-bit code */
#define OFF_EAX	  0x800
#define OFF_FLAGS 0x804
#define OFF_CODE  0x400
#define USER32_CS 0x23 /* Linux's */

CODE64(to_32,
       "push rbx\n push rbp\n push r12\n push r13\n push r14\n push r15\n mov rbp, rdi\n"
       "mov [rbp+0x808], rsp\n lea rsp, [rbp+0xf00]\n"
       ".byte 0xff, 0x9d, 0x00, 0x07, 0x00, 0x00\n" /* call far [rbp+0x700] */
       "mov rsp, [rbp+0x808]\n pop r15\n pop r14\n pop r13\n pop r12\n pop rbp\n pop rbx\n ret");
CODE32(before_32, "push dword ptr [ebp+0x804]\n popfd\n mov eax, [ebp+0x800]\n");
CODE32(after_32, "mov [ebp+0x800], eax\n pushfd\n pop dword ptr [ebp+0x804]\n retf");

CODE32(daa_32, "daa");
CODE32(das_32, "das");
CODE32(aaa_32, "aaa");
CODE32(aas_32, "aas");
CODE32(aam_32, "aam");
CODE32(aam7_32, ".byte 0xd4, 0x07");
CODE32(aad_32, "aad");
CODE32(aad7_32, ".byte 0xd5, 0x07");
CODE32(salc_32, ".byte 0xd6");
CODE32(inc_32, "inc ax");
CODE32(dec_32, "dec eax");

static const struct {
	const char *name;
	const u8 *code, *end;
	u64 defined; /* flags */
} ops[] = {
#define R(n, f)                           \
	{                                 \
#n, n##_32, n##_32_end, f \
	}
#define SZP (RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF)
	R(daa, SZP | RFLAGS_AF | RFLAGS_CF),
	R(das, SZP | RFLAGS_AF | RFLAGS_CF),
	R(aaa, RFLAGS_AF | RFLAGS_CF),
	R(aas, RFLAGS_AF | RFLAGS_CF),
	R(aam, SZP),
	R(aam7, SZP),
	R(aad, SZP),
	R(aad7, SZP),
	R(salc, RFLAGS_STATUS),
	R(inc, RFLAGS_STATUS),
	R(dec, RFLAGS_STATUS),
};

static sigjmp_buf no_32bit;
static void on_fault(int sig)
{
	siglongjmp(no_32bit, 1);
}

/* Does @enter come back? */
static bool try_32bit(void (*enter)(u8 *), u8 *low)
{
	static const int signals[3] = { SIGSEGV, SIGILL, SIGBUS };
	struct sigaction sa = { .sa_handler = on_fault }, old[3];
	volatile bool ok = false;

	for (unsigned n = 0; n < 3; n++)
		sigaction(signals[n], &sa, &old[n]);
	if (!sigsetjmp(no_32bit, 1)) {
		enter(low);
		ok = true;
	}
	for (unsigned n = 0; n < 3; n++)
		sigaction(signals[n], &old[n], NULL);
	return ok;
}

static const struct um_insn *stop(struct um_exec *x, const struct um_insn *i)
{
	return NULL;
}

static void test_decimal(void **state)
{
	struct machine *m = *state;
	struct um_exec *x = &m->x;
	u8 *low = mmap(NULL, UM_PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	void (*enter)(u8 *) = (void (*)(u8 *))low;
	u32 *eax = (u32 *)(low + OFF_EAX), *flags = (u32 *)(low + OFF_FLAGS);

	assert_true(low != MAP_FAILED);
	memcpy(low, to_32, (size_t)(to_32_end - to_32));
	*(u32 *)(low + OFF_FAR) = (u32)(uintptr_t)low + OFF_CODE;
	*(u16 *)(low + OFF_FAR + 4) = USER32_CS;
	for (unsigned n = 0; n < ARRAY_SIZE(ops); n++) {
		unsigned len = (unsigned)(ops[n].end - ops[n].code);
		struct um_insn insn[2];
		u8 *p = low + OFF_CODE;

		memcpy(p, before_32, (size_t)(before_32_end - before_32));
		p += before_32_end - before_32;
		memcpy(p, ops[n].code, len);
		memcpy(p + len, after_32, (size_t)(after_32_end - after_32));
		assert_int_equal(um_decode(&insn[0], UM_MODE_32, ops[n].code, len, 0), len);
		insn[0].fn = um_core_bind(&insn[0]);
		insn[1].fn = stop;
		assert_non_null(insn[0].fn);
		*flags = RFLAGS_FIXED1 | RFLAGS_IF;
		if (n == 0 && !try_32bit(enter, low)) {
			print_message("the host has no 32-bit segments\n");
			skip();
		}

		for (unsigned k = 0; k < 65536 * 4; k++) {
			u32 in = 0x12340000 | (k & 0xffff);
			u32 f = (k & 0x10000 ? RFLAGS_CF : 0) | (k & 0x20000 ? RFLAGS_AF : 0) |
				(k & 1 ? RFLAGS_OF : 0) | (k & 2 ? RFLAGS_ZF | RFLAGS_PF : 0);
			const struct um_insn *i = insn;

			*eax = in;
			*flags = f | RFLAGS_FIXED1 | RFLAGS_IF;
			enter(low);
			x->cpu.gpr[UM_RAX] = in;
			um_set_status(x, f);
			do
				i = i->fn(x, i);
			while (i && i != &insn[1]);
			if (x->cpu.gpr[UM_RAX] != *eax ||
			    ((um_status(x) ^ *flags) & ops[n].defined))
				fail_msg("%s eax=%x flags=%x: host %x %x, ours %x %x", ops[n].name,
					 in, f, *eax, (u32)(*flags & ops[n].defined),
					 (u32)x->cpu.gpr[UM_RAX],
					 (u32)(um_status(x) & ops[n].defined));
		}
	}
	munmap(low, UM_PAGE_SIZE);
}

/* ---- by the manual ---- */
CODE32(aam0, ".byte 0xd4, 0x00");
CODE32(bound, "bound eax, [edi]\n hlt");
CODE32(pusha_popa, "pushad\n xor eax, eax\n xor ecx, ecx\n xor esi, esi\n popad\n hlt");
CODE32(popa_only, "popad\n hlt");
CODE32(enter0, "enter 0x20, 0\n hlt");
CODE32(enter3, "enter 0x20, 3\n hlt");
CODE32(enter_leave, "enter 0x20, 5\n leave\n hlt");
CODE32(xlat32, "xlatb\n hlt");
CODE32(loops, "xor eax, eax\n 1: inc eax\n loop 1b\n hlt");
CODE32(loop16, "xor eax, eax\n 1: inc eax\n .byte 0x67, 0xe2, 0xfc\n hlt");
CODE32(jecxz, "jecxz 1f\n ud2\n 1: hlt");
CODE32(jmp16, ".byte 0x66, 0xeb, 0x00\n hlt");
CODE32(pushf32, "pushfd\n pop eax\n hlt");
CODE32(popf32, "push eax\n popfd\n hlt");
CODE32(cmpxchg8b32, "lock cmpxchg8b [edi]\n hlt");
CODE32(bts_far, "bts [edi], eax\n hlt");
CODE16(pushf16, "pushf\n pop ax\n hlt");
CODE16(popf16, "push ax\n popf\n hlt");

static void test_by_the_manual(void **state)
{
	struct machine *m = *state;
	u64 *gpr = m->x.cpu.gpr;

	load_code(m, aam0);
	expect_fault(m, UM_VEC_DE);

	load_code(m, bound);
	gpr[UM_RDI] = DATA;
	((s32 *)at(m, DATA))[0] = -5;
	((s32 *)at(m, DATA))[1] = 7;
	for (s32 v = -6; v <= 8; v++) {
		load_code(m, bound);
		gpr[UM_RAX] = (u32)v;
		if (v < -5 || v > 7)
			expect_fault(m, UM_VEC_BR);
		else
			run_to_hlt(m);
	}

	load_code(m, pusha_popa);
	for (unsigned r = 0; r < 8; r++)
		gpr[r] = r == UM_RSP ? STACK : 0x1000 + r;
	run_to_hlt(m);
	for (unsigned r = 0; r < 8; r++)
		assert_int_equal(gpr[r], r == UM_RSP ? STACK : 0x1000 + r);
	assert_int_equal(*(u32 *)at(m, STACK - 20), STACK); /* ESP as it was */
	load_code(m, popa_only);
	gpr[UM_RSP] = PAGE(6) - 16; /* half of it on a missing page: no register may change */
	machine_prop(m, 6, 0);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(gpr[UM_RSP], PAGE(6) - 16);
	assert_int_equal(gpr[UM_RDI], 0x1000 + UM_RDI);

	load_code(m, enter0);
	gpr[UM_RSP] = STACK;
	gpr[UM_RBP] = 0xbbbb;
	run_to_hlt(m);
	assert_int_equal(gpr[UM_RBP], STACK - 4);
	assert_int_equal(gpr[UM_RSP], STACK - 4 - 0x20);
	assert_int_equal(*(u32 *)at(m, STACK - 4), 0xbbbb);
	load_code(m, enter3);
	gpr[UM_RSP] = STACK;
	gpr[UM_RBP] = DATA + 64;
	*(u32 *)at(m, DATA + 60) = 0x1111;
	*(u32 *)at(m, DATA + 56) = 0x2222;
	run_to_hlt(m);
	assert_int_equal(*(u32 *)at(m, STACK - 4), DATA + 64);
	assert_int_equal(*(u32 *)at(m, STACK - 8), 0x1111);
	assert_int_equal(*(u32 *)at(m, STACK - 12), 0x2222);
	assert_int_equal(*(u32 *)at(m, STACK - 16), STACK - 4);
	assert_int_equal(gpr[UM_RBP], STACK - 4);
	assert_int_equal(gpr[UM_RSP], STACK - 16 - 0x20);
	load_code(m, enter_leave);
	gpr[UM_RSP] = STACK;
	gpr[UM_RBP] = DATA + 64;
	run_to_hlt(m);
	assert_int_equal(gpr[UM_RSP], STACK);
	assert_int_equal(gpr[UM_RBP], DATA + 64);
	load_code(m, enter0); /* the frame would not be writable */
	gpr[UM_RSP] = PAGE(7) + 0x10;
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(gpr[UM_RSP], PAGE(7) + 0x10);
	assert_int_equal(gpr[UM_RBP], DATA + 64);

	load_code(m, xlat32);
	gpr[UM_RBX] = DATA;
	gpr[UM_RAX] = 0x99;
	*at(m, DATA + 0x99) = 0x42;
	run_to_hlt(m);
	assert_int_equal(gpr[UM_RAX], 0x42);

	load_code(m, loops);
	gpr[UM_RCX] = 10;
	run_to_hlt(m);
	assert_int_equal(gpr[UM_RAX], 10);
	load_code(m, loop16);
	gpr[UM_RCX] = 0x10003;
	run_to_hlt(m);
	assert_int_equal(gpr[UM_RAX], 3);
	assert_int_equal(gpr[UM_RCX], 0x10000);
	load_code(m, jecxz);
	gpr[UM_RCX] = 0;
	run_to_hlt(m);

	/* A 16-bit jump in 32-bit code cuts EIP. */
	load_code(m, jmp16);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.cpu.rip, (u16)(CODE + 3));

	load_code(m, cmpxchg8b32);
	gpr[UM_RSP] = STACK;
	gpr[UM_RDI] = DATA;
	*(u64 *)at(m, DATA) = 0x1122334455667788;
	gpr[UM_RAX] = 0x55667788;
	gpr[UM_RDX] = 0x11223344;
	gpr[UM_RBX] = 1;
	gpr[UM_RCX] = 2;
	run_to_hlt(m);
	assert_int_equal(*(u64 *)at(m, DATA), 0x0000000200000001);
	assert_true(m->x.cpu.rflags & RFLAGS_ZF);
	load_code(m, cmpxchg8b32);
	run_to_hlt(m);
	assert_int_equal(gpr[UM_RAX], 1);
	assert_int_equal(gpr[UM_RDX], 2);
	assert_false(m->x.cpu.rflags & RFLAGS_ZF);

	/* Bit strings go on in both directions. */
	memset(at(m, DATA), 0, 64);
	load_code(m, bts_far);
	gpr[UM_RDI] = DATA + 32;
	gpr[UM_RAX] = (u32)-33;
	run_to_hlt(m);
	assert_int_equal(*(u32 *)at(m, DATA + 24), 0x80000000);
	load_code(m, bts_far);
	gpr[UM_RAX] = 70;
	run_to_hlt(m);
	assert_int_equal(*(u32 *)at(m, DATA + 40), 1 << 6);
}

/* ---- PUSHF and POPF at every privilege ---- */
static void test_flags_image(void **state)
{
	struct machine *m = *state;
	struct um_cpu *c = &m->x.cpu;
	const u64 all = RFLAGS_ALL & 0xffffffff & ~(RFLAGS_TF | RFLAGS_VM);

	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		for (unsigned iopl = 0; iopl < 4; iopl++) {
			u64 start = RFLAGS_FIXED1 | iopl << 12, may = all, f;

			machine_mode(m, UM_MODE_32);
			c->cpl = cpl;
			c->rflags = start;
			c->gpr[UM_RSP] = STACK;
			c->gpr[UM_RAX] = all;
			c->cr0 &= ~CR0_AM;
			load_code(m, popf32);
			machine_run(m); /* HLT, or #GP for it */
			may &= ~(RFLAGS_RF | RFLAGS_VIF | RFLAGS_VIP);
			if (cpl > iopl)
				may &= ~RFLAGS_IF;
			if (cpl)
				may &= ~RFLAGS_IOPL;
			assert_int_equal(c->rip, CODE + 2);
			f = (start & ~may) | may;
			assert_int_equal(c->rflags, f);
			/* RF and VM are not in the image that PUSHF makes. */
			load_code(m, pushf32);
			machine_run(m);
			assert_int_equal(c->gpr[UM_RAX], f);
		}
	}
}

static void test_vm86(void **state)
{
	struct machine *m = *state;
	struct um_cpu *c = &m->x.cpu;

	machine_mode(m, UM_MODE_REAL);
	c->cr0 |= CR0_PE;
	c->cpl = 3;
	c->gpr[UM_RSP] = 0x8000;
	c->rflags = RFLAGS_FIXED1 | RFLAGS_VM;
	load_code(m, pushf16);
	expect_fault(m, UM_VEC_GP);
	load_code(m, popf16);
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(c->gpr[UM_RSP], 0x7ffe); /* the PUSH was fine */
	/* IOPL 3: as the program says. */
	c->gpr[UM_RSP] = 0x8000;
	c->rflags |= RFLAGS_IOPL;
	c->gpr[UM_RAX] = RFLAGS_IF;
	load_code(m, popf16);
	assert_int_equal(machine_run(m), UM_EXIT_EXCEPTION); /* the HLT */
	assert_true(c->rflags & RFLAGS_IF);
	assert_int_equal(c->rflags & RFLAGS_IOPL, RFLAGS_IOPL);
	/* VME: IF is VIF. */
	c->cr4 |= CR4_VME;
	c->rflags = RFLAGS_FIXED1 | RFLAGS_VM;
	c->gpr[UM_RAX] = RFLAGS_IF;
	load_code(m, popf16);
	assert_int_equal(machine_run(m), UM_EXIT_EXCEPTION);
	assert_int_equal(c->rip, CODE - MEM_BASE + 2);
	assert_false(c->rflags & RFLAGS_IF);
	assert_true(c->rflags & RFLAGS_VIF);
	load_code(m, pushf16);
	assert_int_equal(machine_run(m), UM_EXIT_EXCEPTION);
	assert_int_equal(c->gpr[UM_RAX] & 0xffff, RFLAGS_FIXED1 | RFLAGS_IF | RFLAGS_IOPL);
	/* A pending virtual interrupt that this would let in. */
	c->rflags = RFLAGS_FIXED1 | RFLAGS_VM | RFLAGS_VIP;
	c->gpr[UM_RAX] = RFLAGS_IF;
	load_code(m, popf16);
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(c->rip, CODE - MEM_BASE + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_decimal),
		T(test_by_the_manual),
		T(test_flags_image),
		T(test_vm86),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
