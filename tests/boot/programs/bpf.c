// SPDX-License-Identifier: MIT
/*
 * Random BPF programs, which the kernel compiles: each must return what a model in C says. Usage:
 * bpf HOW-MANY.
 *
 * A program computes with r0 to r5 (r6 to r8 keep arguments of no use to it, so that the compiler's
 * prologue has work), stores to and loads from its stack, and jumps forward. Division by zero and
 * shifts are what BPF says they are.
 */
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REGS = 6, SLOTS = 8, MAX = 160 };

static uint32_t state = 12345;

static uint32_t next(uint32_t n)
{
	state = state * 1664525u + 1013904223u;
	return (state >> 8) % n;
}

static int32_t constant(void)
{
	static const int32_t edges[] = {
		0, 1, -1, 2, 0x7fffffff, (int32_t)0x80000000, 255, 31, 63
	};

	return next(3) ? (int32_t)(next(1 << 16) << 16 | next(1 << 16)) : edges[next(9)];
}

struct program {
	struct bpf_insn insn[MAX];
	int n;
};

static void put(struct program *p, int code, int dst, int src, int off, int32_t imm)
{
	p->insn[p->n++] = (struct bpf_insn){ .code = (uint8_t)code,
					     .dst_reg = dst & 15,
					     .src_reg = src & 15,
					     .off = (int16_t)off,
					     .imm = imm };
}

static void put_arithmetic(struct program *p)
{
	static const int ops[] = { BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR,	BPF_AND, BPF_LSH,
				   BPF_RSH, BPF_NEG, BPF_MOD, BPF_XOR, BPF_MOV, BPF_ARSH };
	int op = ops[next(13)], wide = next(2), reg = next(2), bits = wide ? 64 : 32;
	int32_t imm = constant();

	/* The verifier takes no such constants; and a shift by a register only below the width. */
	if (op == BPF_DIV || op == BPF_MOD)
		imm = imm ? imm : 7;
	if (op == BPF_LSH || op == BPF_RSH || op == BPF_ARSH)
		reg = 0, imm = (int32_t)((uint32_t)imm % (uint32_t)bits);
	if (op == BPF_NEG)
		reg = 0, imm = 0;
	put(p, (wide ? BPF_ALU64 : BPF_ALU) | op | (reg ? BPF_X : BPF_K), (int)next(REGS),
	    reg ? (int)next(REGS) : 0, 0, reg ? 0 : imm);
}

static void make(struct program *p)
{
	static const int jumps[] = { BPF_JEQ,  BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT,
				     BPF_JSGE, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE };
	int length = 60 + (int)next(60);

	p->n = 0;
	for (int r = 6; r < 9; r++)
		put(p, BPF_ALU64 | BPF_MOV | BPF_K, r, 0, 0, constant());
	for (int r = 0; r < REGS; r++)
		put(p, BPF_ALU64 | BPF_MOV | BPF_K, r, 0, 0, constant());
	for (int s = 0; s < SLOTS; s++)
		put(p, BPF_STX | BPF_MEM | BPF_DW, 10, (int)next(REGS), -8 * (s + 1), 0);
	while (p->n < length) {
		int sizes[] = { BPF_B, BPF_H, BPF_W, BPF_DW };

		switch (next(8)) {
		case 0:
			put(p, BPF_STX | BPF_MEM | sizes[next(4)], 10, (int)next(REGS),
			    -8 * (int)(1 + next(SLOTS)), 0);
			break;
		case 1:
			put(p, BPF_LDX | BPF_MEM | sizes[next(4)], (int)next(REGS), 10,
			    -8 * (int)(1 + next(SLOTS)), 0);
			break;
		case 2:
			put(p,
			    (next(2) ? BPF_JMP : BPF_JMP32) | jumps[next(11)] |
				    (next(2) ? BPF_X : BPF_K),
			    (int)next(REGS), (int)next(REGS), (int)next(4), constant());
			if (!(p->insn[p->n - 1].code & BPF_X))
				p->insn[p->n - 1].src_reg = 0;
			else
				p->insn[p->n - 1].imm = 0;
			for (int i = 0; i < 4; i++) /* what may be jumped over is arithmetic */
				put_arithmetic(p);
			break;
		default:
			put_arithmetic(p);
		}
	}
	for (int r = 1; r < 9; r++)
		put(p, BPF_ALU64 | BPF_XOR | BPF_X, 0, r, 0, 0);
	put(p, BPF_ALU64 | BPF_MOV | BPF_X, 1, 0, 0, 0);
	put(p, BPF_ALU64 | BPF_RSH | BPF_K, 1, 0, 0, 32);
	put(p, BPF_ALU64 | BPF_XOR | BPF_X, 0, 1, 0, 0);
	put(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static uint64_t arithmetic(int op, int wide, uint64_t a, uint64_t b)
{
	uint64_t v;

	if (!wide)
		a = (uint32_t)a, b = (uint32_t)b;
	switch (op) {
	case BPF_ADD:
		v = a + b;
		break;
	case BPF_SUB:
		v = a - b;
		break;
	case BPF_MUL:
		v = a * b;
		break;
	case BPF_DIV:
		v = b ? a / b : 0;
		break;
	case BPF_MOD:
		v = b ? a % b : a;
		break;
	case BPF_OR:
		v = a | b;
		break;
	case BPF_AND:
		v = a & b;
		break;
	case BPF_XOR:
		v = a ^ b;
		break;
	case BPF_LSH:
		v = a << b;
		break;
	case BPF_RSH:
		v = a >> b;
		break;
	case BPF_ARSH:
		v = wide ? (uint64_t)((int64_t)a >> b) : (uint64_t)((int32_t)a >> b);
		break;
	case BPF_NEG:
		v = -a;
		break;
	default:
		v = b; /* BPF_MOV */
	}
	return wide ? v : (uint32_t)v;
}

static int jumps(int op, int wide, uint64_t a, uint64_t b)
{
	int64_t x = wide ? (int64_t)a : (int32_t)a, y = wide ? (int64_t)b : (int32_t)b;

	if (!wide)
		a = (uint32_t)a, b = (uint32_t)b;
	switch (op) {
	case BPF_JEQ:
		return a == b;
	case BPF_JGT:
		return a > b;
	case BPF_JGE:
		return a >= b;
	case BPF_JSET:
		return (a & b) != 0;
	case BPF_JNE:
		return a != b;
	case BPF_JSGT:
		return x > y;
	case BPF_JSGE:
		return x >= y;
	case BPF_JLT:
		return a < b;
	case BPF_JLE:
		return a <= b;
	case BPF_JSLT:
		return x < y;
	default:
		return x <= y; /* BPF_JSLE */
	}
}

static uint32_t model(const struct program *p)
{
	uint64_t r[11] = { 0 };
	uint8_t stack[8 * SLOTS] = { 0 };

	for (int i = 0; i < p->n; i++) {
		const struct bpf_insn *in = &p->insn[i];
		int class = BPF_CLASS(in->code),
		    size = (int[]){ 4, 2, 1, 8 }[BPF_SIZE(in->code) >> 3];
		uint64_t b = BPF_SRC(in->code) == BPF_X ? r[in->src_reg] : (uint64_t)in->imm;

		switch (class) {
		case BPF_ALU:
		case BPF_ALU64:
			r[in->dst_reg] =
				arithmetic(BPF_OP(in->code), class == BPF_ALU64, r[in->dst_reg], b);
			break;
		case BPF_STX:
			memcpy(stack + sizeof(stack) + in->off, &r[in->src_reg], (size_t)size);
			break;
		case BPF_LDX:
			r[in->dst_reg] = 0;
			memcpy(&r[in->dst_reg], stack + sizeof(stack) + in->off, (size_t)size);
			break;
		default:
			if (BPF_OP(in->code) == BPF_EXIT)
				return (uint32_t)r[0];
			if (jumps(BPF_OP(in->code), class == BPF_JMP, r[in->dst_reg], b))
				i += in->off;
		}
	}
	return 0;
}

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* What the kernel's version of it returns; or end. */
static uint32_t run(const struct program *p)
{
	static char log[1 << 16], packet[64];
	union bpf_attr load = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
				.insns = (uintptr_t)p->insn,
				.insn_cnt = (uint32_t)p->n,
				.license = (uintptr_t) "MIT",
				.log_buf = (uintptr_t)log,
				.log_size = sizeof(log),
				.log_level = 1 };
	union bpf_attr test = { 0 };
	int fd = bpf(BPF_PROG_LOAD, &load);

	if (fd < 0) {
		perror(log);
		exit(1);
	}
	test.test.prog_fd = (uint32_t)fd;
	test.test.data_in = (uintptr_t)packet;
	test.test.data_size_in = sizeof(packet);
	test.test.repeat = 50;
	if (bpf(BPF_PROG_TEST_RUN, &test)) {
		perror("run");
		exit(1);
	}
	close(fd);
	return test.test.retval;
}

int main(int argc, char **argv)
{
	int many = argc > 1 ? atoi(argv[1]) : 100;

	for (int i = 0; i < many; i++) {
		struct program p;
		uint32_t wanted, got;

		make(&p);
		wanted = model(&p);
		got = run(&p);
		if (got != wanted) {
			printf("program %d returns %x, not %x\n", i, got, wanted);
			return 1;
		}
	}
	printf("%d programs return what they should\n", many);
	return 0;
}
