// SPDX-License-Identifier: MIT
/*
 * Results and flags of integer instructions against the CPU that the test runs on: exhaustive at 8
 * bits, random and edge operands at the others.  Each operation is assembled once and its bytes are
 * used twice: called on the host, and decoded, bound and executed by the interpreter.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "engine/interp/interp.h"
#include "fixture.h"

/* rax, rdx: operands; rcx: count; flags.  In and out. */
struct regs {
	u64 rax, rdx, rcx, flags;
};

/*
 * Load struct regs at rdi, execute what replaces the NOPs, store.  (r8 stays; rbx is not touched.)
 */
CODE64(host_before,
       "push qword ptr [rdi+24]\n popfq\n mov rax, [rdi]\n mov rdx, [rdi+8]\n mov rcx, [rdi+16]\n");
CODE64(host_after, "mov [rdi], rax\n mov [rdi+8], rdx\n mov [rdi+16], rcx\n"
		   "pushfq\n pop qword ptr [rdi+24]\n ret\n");

struct op {
	const char *name;
	u64 undefined; /* flags */
	bool count;    /* OF is undefined unless the count is 1 */
	bool divides;  /* operands must not raise #DE */
	const u8 *code, *end;
	unsigned size;
};

#define AF    RFLAGS_AF
#define OF    RFLAGS_OF
#define SZAPF (RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF)

/* X(name, 8-bit, 16-bit, 32-bit, 64-bit operands, undefined flags, by count) */
#define TWO_OPS(X) \
	X(add, 0)  \
	X(or, AF)  \
	X(adc, 0)  \
	X(sbb, 0)  \
	X(and, AF) \
	X(sub, 0) X(xor, AF) X(cmp, 0) X(test, AF) X(xadd, 0) X(cmpxchg, 0) X(xchg, 0) X(mov, 0)
#define ONE_OPS(X) X(inc, 0) X(dec, 0) X(neg, 0) X(not, 0)
#define MUL_OPS(X) X(mul, SZAPF) X(imul, SZAPF)
#define SHIFTS(X)  X(rol) X(ror) X(rcl) X(rcr) X(shl) X(shr) X(sar)
/* clang-format off */
#define WIDE_OPS(X)                                                                      \
	X(imul, SZAPF)                                                                   \
	X(bt, OF | SZAPF)                                                                \
	X(bts, OF | SZAPF)                                                               \
	X(btr, OF | SZAPF)                                                               \
	X(btc, OF | SZAPF)                                                               \
	X(bsf, OF | SZAPF | RFLAGS_CF)                                                   \
	X(bsr, OF | SZAPF | RFLAGS_CF)                                                   \
	X(cmovb, 0)                                                                      \
	X(cmovnle, 0)                                                                    \
	X(cmovp, 0)                                                                      \
	X(cmovs, 0)                                                                      \
	X(cmovo, 0)
#define SETS(X)                                                                          \
	X(seto) X(setno) X(setb) X(setnb) X(setz) X(setnz) X(setbe) X(setnbe)            \
	X(sets) X(setns) X(setp) X(setnp) X(setl) X(setnl) X(setle) X(setnle)
/* clang-format on */

#define X(n, u)                         \
	CODE64(n##_8, #n " al, dl");    \
	CODE64(n##_16, #n " ax, dx");   \
	CODE64(n##_32, #n " eax, edx"); \
	CODE64(n##_64, #n " rax, rdx");
TWO_OPS(X)
#undef X
#define X(n, u)                    \
	CODE64(n##_8, #n " al");   \
	CODE64(n##_16, #n " ax");  \
	CODE64(n##_32, #n " eax"); \
	CODE64(n##_64, #n " rax");
ONE_OPS(X)
#undef X
#define X(n, u)                     \
	CODE64(n##1_8, #n " dl");   \
	CODE64(n##1_16, #n " dx");  \
	CODE64(n##1_32, #n " edx"); \
	CODE64(n##1_64, #n " rdx");
MUL_OPS(X)
#undef X
#define X(n)                           \
	CODE64(n##_8, #n " al, cl");   \
	CODE64(n##_16, #n " ax, cl");  \
	CODE64(n##_32, #n " eax, cl"); \
	CODE64(n##_64, #n " rax, cl"); \
	CODE64(n##i_8, #n " al, 1");   \
	CODE64(n##i_16, #n " ax, 1");  \
	CODE64(n##i_32, #n " eax, 1"); \
	CODE64(n##i_64, #n " rax, 7");
SHIFTS(X)
#undef X
#define X(n, u)                          \
	CODE64(n##2_16, #n " ax, dx");   \
	CODE64(n##2_32, #n " eax, edx"); \
	CODE64(n##2_64, #n " rax, rdx");
WIDE_OPS(X)
#undef X
#define X(n) CODE64(n##_8, #n " al");
SETS(X)
#undef X
CODE64(shld_32, "shld eax, edx, cl");
CODE64(shld_64, "shld rax, rdx, cl");
CODE64(shrd_32, "shrd eax, edx, cl");
CODE64(shrd_64, "shrd rax, rdx, cl");
CODE64(imul3_16, "imul ax, dx, 777");
CODE64(imul3_32, "imul eax, edx, -5");
CODE64(imul3_64, "imul rax, rdx, 0x12345678");
CODE64(high_add, "add ah, dl");
CODE64(high_mov, "mov dh, ah");
CODE64(movzx_1, "movzx ax, dl");
CODE64(movzx_2, "movzx eax, dh");
CODE64(movzx_3, "movzx rax, dx");
CODE64(movsx_1, "movsx ax, dl");
CODE64(movsx_2, "movsx eax, dh");
CODE64(movsx_3, "movsx rax, dx");
CODE64(movsxd_1, "movsxd rax, edx");
CODE64(cbw_1, "cbw");
CODE64(cwde_1, "cwde");
CODE64(cdqe_1, "cdqe");
CODE64(cwd_1, "cwd");
CODE64(cdq_1, "cdq");
CODE64(cqo_1, "cqo");
CODE64(lahf_1, "lahf");
CODE64(sahf_1, "sahf");
CODE64(clc_1, "clc");
CODE64(stc_1, "stc");
CODE64(cmc_1, "cmc");
CODE64(bswap_32, "bswap eax");
CODE64(bswap_64, "bswap rax");
CODE64(lea_1, "lea eax, [rax+rdx*8-77]");
CODE64(lea_2, "lea rax, [eax+edx*2+0x7fffffff]");
CODE64(lea_3, "lea ax, [rdx+rdx+1]");
CODE64(popcnt_32, "popcnt eax, edx");
CODE64(popcnt_64, "popcnt rax, rdx");
CODE64(tzcnt_16, "tzcnt ax, dx");
CODE64(tzcnt_32, "tzcnt eax, edx");
CODE64(tzcnt_64, "tzcnt rax, rdx");
CODE64(lzcnt_16, "lzcnt ax, dx");
CODE64(lzcnt_32, "lzcnt eax, edx");
CODE64(lzcnt_64, "lzcnt rax, rdx");
CODE64(div_8, "div cl");
CODE64(div_16, "div cx");
CODE64(div_32, "div ecx");
CODE64(div_64, "div rcx");
CODE64(idiv_8, "idiv cl");
CODE64(idiv_16, "idiv cx");
CODE64(idiv_32, "idiv ecx");
CODE64(idiv_64, "idiv rcx");

#define ROW(n, sz, und, ...)     \
	{ .name = #n "_" #sz,    \
	  .undefined = und,      \
	  .code = n##_##sz,      \
	  .end = n##_##sz##_end, \
	  .size = sz / 8,        \
	  __VA_ARGS__ },
// clang-format off
static const struct op ops[] = {
#define X(n, u) ROW(n, 8, u) ROW(n, 16, u) ROW(n, 32, u) ROW(n, 64, u)
	TWO_OPS(X) ONE_OPS(X)
#undef X
#define X(n, u) ROW(n##1, 8, u) ROW(n##1, 16, u) ROW(n##1, 32, u) ROW(n##1, 64, u)
	MUL_OPS(X)
#undef X
#define X(n)                          \
	ROW(n, 8, AF, .count = true)  \
	ROW(n, 16, AF, .count = true) \
	ROW(n, 32, AF, .count = true) \
	ROW(n, 64, AF, .count = true) \
	ROW(n##i, 8, AF) ROW(n##i, 16, AF) ROW(n##i, 32, AF) ROW(n##i, 64, AF | OF)
	SHIFTS(X)
#undef X
#define X(n, u) ROW(n##2, 16, u) ROW(n##2, 32, u) ROW(n##2, 64, u)
	WIDE_OPS(X)
#undef X
#define X(n) ROW(n, 8, 0)
	SETS(X)
#undef X
	ROW(shld, 32, AF, .count = true) ROW(shld, 64, AF, .count = true)
	ROW(shrd, 32, AF, .count = true) ROW(shrd, 64, AF, .count = true)
	ROW(imul3, 16, SZAPF) ROW(imul3, 32, SZAPF) ROW(imul3, 64, SZAPF)
#define S(n, u) { .name = #n, .undefined = u, .code = n, .end = n##_end, .size = 8 },
	S(high_add, 0) S(high_mov, 0)
	S(movzx_1, 0) S(movzx_2, 0) S(movzx_3, 0) S(movsx_1, 0) S(movsx_2, 0) S(movsx_3, 0) S(movsxd_1, 0)
	S(cbw_1, 0) S(cwde_1, 0) S(cdqe_1, 0) S(cwd_1, 0) S(cdq_1, 0) S(cqo_1, 0)
	S(lahf_1, 0) S(sahf_1, 0) S(clc_1, 0) S(stc_1, 0) S(cmc_1, 0)
	S(bswap_32, 0) S(bswap_64, 0) S(lea_1, 0) S(lea_2, 0) S(lea_3, 0) S(popcnt_32, 0) S(popcnt_64, 0)
#define ZC (OF | RFLAGS_SF | AF | RFLAGS_PF)
	S(tzcnt_16, ZC) S(tzcnt_32, ZC) S(tzcnt_64, ZC) S(lzcnt_16, ZC) S(lzcnt_32, ZC) S(lzcnt_64, ZC)
	ROW(div, 8, RFLAGS_STATUS, .divides = true) ROW(div, 16, RFLAGS_STATUS, .divides = true)
	ROW(div, 32, RFLAGS_STATUS, .divides = true) ROW(div, 64, RFLAGS_STATUS, .divides = true)
	ROW(idiv, 8, RFLAGS_STATUS, .divides = true) ROW(idiv, 16, RFLAGS_STATUS, .divides = true)
	ROW(idiv, 32, RFLAGS_STATUS, .divides = true) ROW(idiv, 64, RFLAGS_STATUS, .divides = true)
};
// clang-format on

static struct machine *m;
static void (*host)(struct regs *);
static u8 *host_code;
static struct um_insn insn[2];

static const struct um_insn *stop(struct um_exec *x, const struct um_insn *i)
{
	return NULL;
}

static void prepare(const struct op *op)
{
	u8 *p = host_code;
	unsigned len = (unsigned)(op->end - op->code);

#define APPEND(from, n) (memcpy(p, from, n), p += (n))
	APPEND(host_before, (size_t)(host_before_end - host_before));
	APPEND(op->code, len);
	APPEND(host_after, (size_t)(host_after_end - host_after));
	assert_int_equal(um_decode(&insn[0], UM_MODE_64, op->code, len, 0), len);
	insn[0].fn = um_core_bind(&insn[0]);
	assert_non_null(insn[0].fn);
	insn[1].fn = stop;
}

/* Would the host fault?  By the manual's rule, not by our code. */
static bool division_overflows(const struct op *op, const struct regs *r)
{
	unsigned bits = op->size * 8;
	u64 d = um_trunc(r->rcx, op->size);
	u128 n = op->size == 1
			 ? (u16)r->rax
			 : ((u128)um_trunc(r->rdx, op->size) << bits) | um_trunc(r->rax, op->size);

	if (!d)
		return true;
	if (op->name[0] == 'd') {
		return n / d > (~0ull >> (64 - bits));
	} else {
		__int128 sn = (__int128)(n << (128 - 2 * bits)) >> (128 - 2 * bits);
		s64 sd = um_sext(d, op->size);
		__int128 q;

		if (sd == -1 && sn == (__int128)((u128)1 << 127))
			return true;
		q = sn / sd;
		return q != um_sext((u64)q, op->size);
	}
}

static void compare(const struct op *op, struct regs in)
{
	struct regs h = in;
	struct um_exec *x = &m->x;
	u64 mask = RFLAGS_STATUS & ~op->undefined, mine;
	unsigned count = in.rcx & (op->size == 8 ? 63 : 31);
	const struct um_insn *i = insn;

	/*
	 * (The manual says that results are undefined when a count exceeds the operand: SHLD, SHRD
	 * only.)
	 */
	if (op->count && count != 1)
		mask &= ~OF;
	x->cpu.gpr[UM_RAX] = in.rax;
	x->cpu.gpr[UM_RDX] = in.rdx;
	x->cpu.gpr[UM_RCX] = in.rcx;
	um_set_status(x, in.flags);
	x->exit.kind = UM_EXIT_NONE;
	do
		i = i->fn(x, i);
	while (i && i != &insn[1]);

	if (op->divides && division_overflows(op, &in)) {
		assert_int_equal(x->exit.kind, UM_EXIT_EXCEPTION);
		assert_int_equal(x->exit.exc.vector, UM_VEC_DE);
		assert_true(x->cpu.gpr[UM_RAX] == in.rax && x->cpu.gpr[UM_RDX] == in.rdx);
		return;
	}
	assert_int_equal(x->exit.kind, UM_EXIT_NONE);
	h.flags |= RFLAGS_FIXED1 | RFLAGS_IF;
	host(&h);
	mine = um_status(x);
	if (x->cpu.gpr[UM_RAX] != h.rax || x->cpu.gpr[UM_RDX] != h.rdx ||
	    x->cpu.gpr[UM_RCX] != h.rcx || ((mine ^ h.flags) & mask))
		fail_msg("%s rax=%lx rdx=%lx rcx=%lx flags=%lx\n host: %lx %lx %lx %lx\n ours: %lx "
			 "%lx %lx %lx",
			 op->name, in.rax, in.rdx, in.rcx, in.flags, h.rax, h.rdx, h.rcx,
			 h.flags & mask, x->cpu.gpr[UM_RAX], x->cpu.gpr[UM_RDX], x->cpu.gpr[UM_RCX],
			 mine & mask);
}

static u64 random_value(void)
{
	static const u64 edges[] = { 0,		 1,	 0x7f,	     0x80,	 0xff,
				     0x7fff,	 0x8000, 0xffff,     0x7fffffff, 0x80000000,
				     0xffffffff, ~0ull,	 ~0ull >> 1, 1ull << 63 };
	u64 r = (u64)random() << 42 ^ (u64)random() << 21 ^ (u64)random();

	if (r & 1)
		return edges[(r >> 8) % ARRAY_SIZE(edges)];
	return r >> ((r >> 1) & 31) % 40;
}

static u64 random_flags(void)
{
	static const u64 bits[] = {
		RFLAGS_CF, RFLAGS_PF, RFLAGS_AF, RFLAGS_ZF, RFLAGS_SF, RFLAGS_OF
	};
	long r = random();
	u64 f = 0;

	for (unsigned n = 0; n < 6; n++)
		f |= r & (1 << n) ? bits[n] : 0;
	return f;
}

static void test_random(void **state)
{
	for (unsigned n = 0; n < ARRAY_SIZE(ops); n++) {
		prepare(&ops[n]);
		for (unsigned k = 0; k < 20000; k++)
			compare(&ops[n], (struct regs){ random_value(), random_value(),
							random_value(), random_flags() });
	}
}

/* All 8-bit operands and carries. */
static void test_exhaustive(void **state)
{
	for (unsigned n = 0; n < ARRAY_SIZE(ops); n++) {
		if (ops[n].size != 1)
			continue;
		prepare(&ops[n]);
		for (unsigned k = 0; k < 2 * 65536; k++)
			compare(&ops[n], (struct regs){ k & 0xff, (k >> 8) & 0xff, (k >> 8) & 0xff,
							k >> 16 });
	}
}

/* Every combination of flags survives being loaded and read back, and CF can be put alone. */
static void test_status(void **state)
{
	static const u64 bits[] = {
		RFLAGS_CF, RFLAGS_PF, RFLAGS_AF, RFLAGS_ZF, RFLAGS_SF, RFLAGS_OF
	};

	for (unsigned n = 0; n < 64; n++) {
		u64 f = 0;

		for (unsigned b = 0; b < 6; b++)
			f |= n & (1 << b) ? bits[b] : 0;
		um_set_status(&m->x, f);
		assert_int_equal(um_status(&m->x), f);
		for (unsigned cf = 0; cf < 2; cf++) {
			um_set_status(&m->x, f);
			um_cc_put_cf(&m->x, cf);
			assert_int_equal(um_status(&m->x), (f & ~RFLAGS_CF) | cf);
		}
	}
}

static int setup(void **state)
{
	m = machine_new();
	host_code = mmap(NULL, UM_PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(host_code != MAP_FAILED);
	host = (void (*)(struct regs *))host_code;
	return 0;
}

static int teardown(void **state)
{
	machine_free(m);
	munmap(host_code, UM_PAGE_SIZE);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_exhaustive),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
