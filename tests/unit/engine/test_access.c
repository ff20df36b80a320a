// SPDX-License-Identifier: MIT
/*
 * Memory operands: page crossing, faults without partial effects, MMIO replay, tracked pages,
 * segments, alignment.
 */
#include <sys/mman.h>

#include "fixture.h"

static int setup(void **state)
{
	*state = machine_new();
	return 0;
}
static int teardown(void **state)
{
	machine_free(*state);
	return 0;
}

CODE64(store8, "mov [rdi], rax\n hlt");
CODE64(load8, "mov rax, [rdi]\n hlt");
CODE64(add8, "add [rdi], rax\n hlt");
CODE64(add4, "add dword ptr [rdi], 1\n hlt");
CODE64(inc1, "inc byte ptr [rdi]\n hlt");
CODE64(lock_add8, "lock add [rdi], rax\n hlt");
CODE64(xchg8, "xchg [rdi], rax\n hlt");
CODE64(cmpxchg8, "lock cmpxchg [rdi], rdx\n hlt");
CODE64(cmpxchg16, "lock cmpxchg16b [rdi]\n hlt");
CODE64(cmpxchg16_stack, "cmpxchg16b [rsp]\n hlt");
CODE64(flags_leave, "cmp rax, rsp\n mov bl, [rdi]\n leave\n cmp esi, esp\n hlt");
CODE64(flags_pop, "cmp rax, rsp\n mov bl, [rdi]\n pop rax\n cmp esi, esp\n hlt");
CODE64(push_pop, "push rax\n pop rdx\n hlt");
CODE64(push_only, "push rax\n hlt");
CODE64(pop_to_mem, "pop qword ptr [rsp+8]\n hlt");
CODE64(stack_load, "mov rax, [rsp]\n hlt");

static void test_crossing(void **state)
{
	struct machine *m = *state;
	const gva_t edge = DATA + UM_PAGE_SIZE - 3;

	for (unsigned slow = 0; slow < 2; slow++) {
		m->no_tlb = slow;
		machine_flush(m);
		load_code(m, store8);
		m->x.cpu.gpr[UM_RDI] = edge;
		m->x.cpu.gpr[UM_RAX] = 0x1122334455667788 + slow;
		run_to_hlt(m);
		assert_int_equal(peek(m, edge, 8), 0x1122334455667788 + slow);
		load_code(m, add8);
		run_to_hlt(m);
		assert_int_equal(peek(m, edge, 8), 2 * (0x1122334455667788 + slow));
		load_code(m, load8);
		m->x.cpu.gpr[UM_RAX] = 0;
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], peek(m, edge, 8));
		load_code(m, lock_add8);
		m->x.cpu.gpr[UM_RAX] = 1;
		run_to_hlt(m);
		assert_int_equal(peek(m, edge, 8), 2 * (0x1122334455667788 + slow) + 1);
	}
}

/* The second page is missing: nothing is stored to the first, CR2 is where the second begins. */
static void crossing_fault(struct machine *m, const u8 *code, const u8 *end, u8 second, u32 error)
{
	u64 before = 0xa5a5a5a5a5a5a5a5;

	machine_prop(m, 9, second);
	memcpy(at(m, DATA) + UM_PAGE_SIZE - 8, &before, 8);
	machine_code(m, CODE, code, end);
	m->x.cpu.gpr[UM_RDI] = DATA + UM_PAGE_SIZE - 4;
	m->x.cpu.gpr[UM_RAX] = 0x1122334455667788;
	m->x.cpu.rflags = RFLAGS_FIXED1 | RFLAGS_ZF | RFLAGS_CF;
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.exit.exc.payload, DATA + UM_PAGE_SIZE);
	assert_int_equal(m->x.exit.exc.error_code, error);
	assert_true(m->x.exit.exc.has_error);
	assert_int_equal(m->x.cpu.rip, CODE);
	assert_memory_equal(at(m, DATA) + UM_PAGE_SIZE - 8, &before, 8);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 0x1122334455667788);
	assert_int_equal(m->x.cpu.rflags, RFLAGS_FIXED1 | RFLAGS_ZF | RFLAGS_CF);
}

static void test_crossing_fault(void **state)
{
	struct machine *m = *state;

	crossing_fault(m, store8, store8_end, 0, PFERR_WRITE);
	crossing_fault(m, load8, load8_end, 0, 0);
	crossing_fault(m, add8, add8_end, P_PRESENT, PFERR_WRITE | PFERR_PRESENT);
	crossing_fault(m, lock_add8, lock_add8_end, P_PRESENT, PFERR_WRITE | PFERR_PRESENT);
	crossing_fault(m, xchg8, xchg8_end, P_PRESENT, PFERR_WRITE | PFERR_PRESENT);
}

/* Read-modify-write faults as a write, and the accumulator of a failing CMPXCHG stays. */
/*
 * Another processor takes a page away while an access that crosses into the next is under way, at
 * each point where it can: all is stored or nothing, and what was taken is not stored to.
 */
static void test_crossing_taken(void **state)
{
	static const struct {
		const u8 *code, *end;
	} codes[] = { { store8, store8_end },
		      { add8, add8_end },
		      { lock_add8, lock_add8_end },
		      { xchg8, xchg8_end } };
	struct machine *m = *state;
	const gva_t edge = DATA + UM_PAGE_SIZE - 4;
	unsigned faults = 0, done = 0;

	for (unsigned c = 0; c < ARRAY_SIZE(codes); c++) {
		for (unsigned n = 0; n < 2 * 12 * 2; n++) {
			m->take_after = 0;
			m->no_tlb = n & 1;
			machine_prop(m, 8, P_PRESENT | P_WRITE);
			machine_prop(m, 9, P_PRESENT | P_WRITE);
			poke(m, edge, 8, 0x1111111111111111);
			machine_code(m, CODE, codes[c].code, codes[c].end);
			m->x.cpu.gpr[UM_RDI] = edge;
			m->x.cpu.gpr[UM_RAX] = 0x2222222222222222;
			m->take_page = n & 2 ? 8 : 9;
			m->take_prop = 0;
			m->take_after = 1 + n / 4;
			if (machine_run(m) == UM_EXIT_HLT) {
				assert_int_not_equal(peek(m, edge, 8), 0x1111111111111111);
				done++;
				continue;
			}
			assert_int_equal(m->x.exit.kind, UM_EXIT_EXCEPTION);
			assert_int_equal(m->x.exit.exc.vector, UM_VEC_PF);
			assert_int_equal(peek(m, edge, 8), 0x1111111111111111);
			assert_int_equal(m->x.cpu.gpr[UM_RAX], 0x2222222222222222);
			faults++;
		}
	}
	assert_true(faults > 8 && done > 8);
}

/* A store to memory and a device at once: the exit to the device finds nothing stored yet. */
static void test_crossing_mmio(void **state)
{
	struct machine *m = *state;
	const gva_t edge = DATA + UM_PAGE_SIZE - 4;
	u32 device = 0x00000007;

	machine_prop(m, 9, P_PRESENT | P_WRITE | P_MMIO);
	poke(m, edge, 4, 0xffffffff);
	load_code(m, add8);
	m->x.cpu.gpr[UM_RDI] = edge;
	m->x.cpu.gpr[UM_RAX] = 1;
	assert_int_equal(machine_run(m), UM_EXIT_MMIO);
	assert_false(m->x.exit.mmio.write);
	um_engine_mmio_done(&m->x, &device);
	assert_int_equal(machine_run(m), UM_EXIT_MMIO);
	assert_true(m->x.exit.mmio.write);
	assert_int_equal(m->x.exit.mmio.len, 4);
	assert_int_equal(m->x.exit.mmio.data[0], 8);
	assert_int_equal(peek(m, edge, 4), 0xffffffff);
	um_engine_mmio_done(&m->x, NULL);
	run_to_hlt(m);
	assert_int_equal(peek(m, edge, 4), 0);
}

static void test_read_only(void **state)
{
	struct machine *m = *state;

	machine_prop(m, 8, P_PRESENT | P_USER);
	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RAX] = 5;
	load_code(m, cmpxchg8);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.exit.exc.error_code, PFERR_WRITE | PFERR_PRESENT);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 5);
	load_code(m, add4);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.exit.exc.error_code, PFERR_WRITE | PFERR_PRESENT);
	load_code(m, load8);
	run_to_hlt(m);
	/* Then the page becomes writable and the same instruction goes through. */
	load_code(m, add4);
	expect_fault(m, UM_VEC_PF);
	machine_prop(m, 8, P_PRESENT | P_WRITE);
	run_to_hlt(m);
	assert_int_equal(*(u32 *)at(m, DATA), 1);
}

static void test_user(void **state)
{
	struct machine *m = *state;

	machine_prop(m, 8, P_PRESENT | P_WRITE);
	m->x.cpu.gpr[UM_RDI] = DATA;
	load_code(m, load8);
	run_to_hlt(m);
	m->x.cpu.cpl = 3; /* the supervisor's TLB entry must not serve the user */
	load_code(m, load8);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.exit.exc.error_code, PFERR_USER | PFERR_PRESENT);
}

/* cmocka puts handlers of its own in place of the library's around each test. */
static struct sigaction library_segv;

static void test_host_fault(void **state)
{
	struct machine *m = *state;

	sigaction(SIGSEGV, &library_segv, NULL);
	m->x.cpu.gpr[UM_RDI] = DATA + 16;
	load_code(m, load8);
	run_to_hlt(m); /* in the TLB now */
	assert_int_equal(mprotect(at(m, DATA), UM_PAGE_SIZE, PROT_NONE), 0);
	load_code(m, load8);
	assert_int_equal(machine_run(m), UM_EXIT_HOST_FAULT);
	assert_int_equal(m->x.exit.hva, (hva_t)at(m, DATA + 16));
	assert_int_equal(m->x.exit.gpa, DATA + 16);
	assert_int_equal(m->x.cpu.rip, CODE);
	load_code(m, lock_add8);
	assert_int_equal(machine_run(m), UM_EXIT_HOST_FAULT);
	load_code(m, store8);
	assert_int_equal(machine_run(m), UM_EXIT_HOST_FAULT);
	assert_int_equal(mprotect(at(m, DATA), UM_PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
	run_to_hlt(m);
	machine_prop(m, 8, P_PRESENT | P_GONE);
	load_code(m, load8);
	assert_int_equal(machine_run(m), UM_EXIT_HOST_FAULT);
	assert_int_equal(m->x.exit.gpa, DATA + 16);
	/* Code too. */
	machine_prop(m, 8, P_PRESENT | P_WRITE);
	machine_code(m, PAGE(9), load8, load8_end);
	run_to_hlt(m);
	machine_code(m, PAGE(9), load8, load8_end);
	assert_int_equal(mprotect(at(m, PAGE(9)), UM_PAGE_SIZE, PROT_NONE), 0);
	assert_int_equal(machine_run(m), UM_EXIT_HOST_FAULT);
	assert_int_equal(m->x.exit.gpa, PAGE(9));
	assert_int_equal(mprotect(at(m, PAGE(9)), UM_PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
	run_to_hlt(m);
}

/* ---- MMIO ---- */

static void expect_mmio(struct machine *m, gpa_t gpa, unsigned len, bool write)
{
	assert_int_equal(machine_run(m), UM_EXIT_MMIO);
	assert_int_equal(m->x.exit.mmio.gpa, gpa);
	assert_int_equal(m->x.exit.mmio.len, len);
	assert_int_equal(m->x.exit.mmio.write, write);
	assert_int_equal(m->x.cpu.rip, CODE);
}

static u32 data32(struct machine *m)
{
	u32 v;

	memcpy(&v, m->x.exit.mmio.data, 4);
	return v;
}
static u64 data64(struct machine *m)
{
	u64 v;

	memcpy(&v, m->x.exit.mmio.data, 8);
	return v;
}

static void test_mmio(void **state)
{
	struct machine *m = *state;
	u64 answer = 0x0102030405060708;

	machine_prop(m, 8, P_PRESENT | P_WRITE | P_MMIO);
	m->x.cpu.gpr[UM_RDI] = DATA;
	load_code(m, load8);
	expect_mmio(m, DATA, 8, false);
	assert_false(um_engine_io_pending(&m->x));
	um_engine_mmio_done(&m->x, &answer);
	assert_true(um_engine_io_pending(&m->x));
	assert_int_equal(um_engine_complete_io(&m->x), UM_EXIT_KICK);
	assert_false(um_engine_io_pending(&m->x));
	assert_int_equal(m->x.cpu.gpr[UM_RAX], answer);
	assert_int_equal(m->x.cpu.rip, CODE + 3);
	run_to_hlt(m);

	/* Read, then write what was made of it. */
	load_code(m, add4);
	expect_mmio(m, DATA, 4, false);
	um_engine_mmio_done(&m->x, &answer);
	expect_mmio(m, DATA, 4, true);
	assert_int_equal(data32(m), 0x05060709);
	um_engine_mmio_done(&m->x, NULL);
	run_to_hlt(m);
	assert_int_equal(m->x.mmio.done, 0);

	/* Half memory, half device. */
	*(u32 *)(at(m, DATA) - 4) = 0;
	load_code(m, store8);
	m->x.cpu.gpr[UM_RDI] = DATA - 4;
	m->x.cpu.gpr[UM_RAX] = answer;
	expect_mmio(m, DATA, 4, true);
	assert_int_equal(data32(m), 0x01020304);
	um_engine_mmio_done(&m->x, NULL);
	run_to_hlt(m);
	assert_int_equal(*(u32 *)(at(m, DATA) - 4), 0x05060708);

	/* 16 bytes are two accesses. */
	load_code(m, cmpxchg16);
	m->x.cpu.gpr[UM_RDI] = DATA;
	m->x.cpu.gpr[UM_RAX] = answer;
	m->x.cpu.gpr[UM_RDX] = answer;
	m->x.cpu.gpr[UM_RBX] = 1;
	m->x.cpu.gpr[UM_RCX] = 2;
	expect_mmio(m, DATA, 8, false);
	um_engine_mmio_done(&m->x, &answer);
	expect_mmio(m, DATA + 8, 8, false);
	um_engine_mmio_done(&m->x, &answer);
	expect_mmio(m, DATA, 8, true);
	assert_int_equal(data64(m), 1);
	um_engine_mmio_done(&m->x, NULL);
	expect_mmio(m, DATA + 8, 8, true);
	assert_int_equal(data64(m), 2);
	um_engine_mmio_done(&m->x, NULL);
	run_to_hlt(m);
	assert_true(m->x.cpu.rflags & RFLAGS_ZF);
}

/* ---- tracked pages ---- */

static void test_tracked(void **state)
{
	struct machine *m = *state;

	machine_prop(m, 8, P_PRESENT | P_WRITE | P_TRACKED);
	m->x.cpu.gpr[UM_RDI] = DATA + 8;
	m->x.cpu.gpr[UM_RAX] = 7;
	load_code(m, store8);
	run_to_hlt(m);
	assert_int_equal(m->nwritten, 1);
	assert_int_equal(m->written[0].gpa, DATA + 8);
	assert_int_equal(m->written[0].len, 8);
	load_code(m, lock_add8);
	run_to_hlt(m);
	assert_int_equal(m->nwritten, 2);
	assert_int_equal(*(u64 *)at(m, DATA + 8), 14);
	load_code(m, inc1);
	run_to_hlt(m);
	assert_int_equal(m->nwritten, 3);
	assert_int_equal(m->written[2].len, 1);
	/* Reading put the page into the TLB: it must still be tracked for writing. */
	load_code(m, load8);
	run_to_hlt(m);
	load_code(m, store8);
	run_to_hlt(m);
	assert_int_equal(m->nwritten, 4);
}

/* ---- stack ---- */

static void test_stack(void **state)
{
	struct machine *m = *state;

	m->x.cpu.gpr[UM_RAX] = 77;
	load_code(m, push_pop);
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RDX], 77);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK);

	/* POP to memory forms its address with the new RSP; if it faults RSP is the old one. */
	m->x.cpu.gpr[UM_RSP] = STACK - 32;
	*(u64 *)at(m, STACK - 32) = 99;
	load_code(m, pop_to_mem);
	run_to_hlt(m);
	assert_int_equal(*(u64 *)at(m, STACK - 16), 99);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK - 24);
	m->x.cpu.gpr[UM_RSP] = STACK - 16;
	machine_prop(m, 5, 0);
	load_code(m, pop_to_mem);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK - 16);

	m->x.cpu.gpr[UM_RSP] = PAGE(6);
	load_code(m, push_only);
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], PAGE(6));
}

/* ---- segmentation ---- */

static void test_canonical(void **state)
{
	struct machine *m = *state;

	m->x.cpu.gpr[UM_RDI] = 0x8000000000000000;
	load_code(m, load8);
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(m->x.exit.exc.error_code, 0);
	m->x.cpu.gpr[UM_RDI] = 0x00007ffffffffffc; /* its end is not canonical */
	load_code(m, store8);
	expect_fault(m, UM_VEC_GP);
	m->x.cpu.gpr[UM_RSP] = 0x0000800000000000;
	load_code(m, stack_load);
	expect_fault(m, UM_VEC_SS);
	load_code(m, push_only);
	m->x.cpu.gpr[UM_RSP] = 0x0000800000000010;
	expect_fault(m, UM_VEC_SS);
}

CODE32(load32, "mov eax, [edi]\n hlt");
CODE32(store32, "mov [edi], eax\n hlt");
CODE32(store32_cs, "mov cs:[edi], eax\n hlt");
CODE32(load32_cs, "mov eax, cs:[edi]\n hlt");
CODE32(load32_ss, "mov eax, [ebp]\n hlt");
CODE32(jump_far_away, "jmp edi\n");
CODE32(call_far_away, "call edi\n");

static void test_limits(void **state)
{
	struct machine *m = *state;
	struct um_segment *ds = &m->x.cpu.seg[UM_DS];

	machine_mode(m, UM_MODE_32);
	*(u32 *)at(m, DATA + 0x10) = 0x1234;
	ds->base = DATA;
	ds->limit = 0x13;
	load_code(m, load32);
	m->x.cpu.gpr[UM_RDI] = 0x10;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 0x1234);
	load_code(m, load32);
	m->x.cpu.gpr[UM_RDI] = 0x11;
	expect_fault(m, UM_VEC_GP);
	/* Expand-down: above the limit is inside. */
	ds->type |= UM_DESC_EXPANDDOWN;
	ds->limit = 0xf;
	ds->db = true;
	load_code(m, load32);
	m->x.cpu.gpr[UM_RDI] = 0x10;
	run_to_hlt(m);
	load_code(m, load32);
	m->x.cpu.gpr[UM_RDI] = 0xf;
	expect_fault(m, UM_VEC_GP);
	ds->db = false; /* now it ends at 64 KiB */
	load_code(m, load32);
	m->x.cpu.gpr[UM_RDI] = 0xfffe;
	expect_fault(m, UM_VEC_GP);
	/* Types. */
	*ds = m->x.cpu.seg[UM_ES];
	ds->type &= ~UM_DESC_WRITABLE;
	m->x.cpu.gpr[UM_RDI] = DATA;
	load_code(m, load32);
	run_to_hlt(m);
	load_code(m, store32);
	expect_fault(m, UM_VEC_GP);
	ds->unusable = true;
	load_code(m, load32);
	expect_fault(m, UM_VEC_GP);
	load_code(m, store32_cs);
	expect_fault(m, UM_VEC_GP);
	load_code(m, load32_cs);
	run_to_hlt(m);
	m->x.cpu.seg[UM_CS].type &= ~UM_DESC_READABLE;
	load_code(m, load32_cs);
	expect_fault(m, UM_VEC_GP);
	/* The stack segment has a vector of its own. */
	m->x.cpu.seg[UM_SS].limit = 0xfff;
	m->x.cpu.gpr[UM_RBP] = 0xffd;
	load_code(m, load32_ss);
	expect_fault(m, UM_VEC_SS);
	/* Flat, but a 4 GiB segment with a base wraps around the address space. */
	*ds = m->x.cpu.seg[UM_ES];
	ds->base = DATA + 0x100;
	m->x.cpu.gpr[UM_RDI] = (u32)-0xf0;
	load_code(m, load32);
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 0x1234);
	/* Branches beyond the limit fault at the branch, with the stack pointer as it was. */
	m->x.cpu.seg[UM_CS].limit = CODE + 0xff;
	m->x.cpu.gpr[UM_RDI] = CODE + 0x100;
	m->x.cpu.seg[UM_SS].limit = 0xffffffff;
	load_code(m, jump_far_away);
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(m->x.cpu.rip, CODE);
	load_code(m, call_far_away);
	expect_fault(m, UM_VEC_GP);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK);
	/* A fault of the stack comes first. */
	m->x.cpu.seg[UM_SS].limit = STACK - 4;
	expect_fault(m, UM_VEC_SS);
}

CODE64(movsxd16, ".byte 0x66, 0x63, 0x0f\n hlt"); /* movsxd cx, word ptr [rdi] */
CODE64(enter_odd, "enter 1, 0\n hlt");
CODE16(push16, "push ax\n hlt");
CODE16(load16, "mov ax, [bx+si]\n hlt");
CODE16(load16_wide, "mov ax, [edi]\n hlt");

static void test_real_mode(void **state)
{
	struct machine *m = *state;

	machine_mode(m, UM_MODE_REAL);
	/* 16-bit addresses wrap in the segment. */
	*(u16 *)at(m, MEM_BASE + 0x8010) = 0xbeef;
	m->x.cpu.gpr[UM_RBX] = 0xf000;
	m->x.cpu.gpr[UM_RSI] = 0x9010;
	load_code(m, load16);
	run_to_hlt(m);
	assert_int_equal((u16)m->x.cpu.gpr[UM_RAX], 0xbeef);
	/* SP wraps; its upper half stays. */
	m->x.cpu.gpr[UM_RSP] = 0x12340000;
	m->x.cpu.gpr[UM_RAX] = 0xcafe;
	load_code(m, push16);
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RSP], 0x1234fffe);
	assert_int_equal(*(u16 *)at(m, MEM_BASE + 0xfffe), 0xcafe);
	/* A word at offset ffff is beyond the limit. */
	m->x.cpu.gpr[UM_RSP] = 1;
	load_code(m, push16);
	expect_fault(m, UM_VEC_SS);
	m->x.cpu.gpr[UM_RDI] = 0x10000;
	load_code(m, load16_wide);
	expect_fault(m, UM_VEC_GP);
	/* "Unreal": a limit of 4 GiB stays after protected mode. */
	m->x.cpu.seg[UM_DS].limit = 0xffffffff;
	load_code(m, load16_wide);
	*(u16 *)at(m, MEM_BASE + 0x10000) = 0x4711;
	run_to_hlt(m);
	assert_int_equal((u16)m->x.cpu.gpr[UM_RAX], 0x4711);
}

static void test_alignment(void **state)
{
	struct machine *m = *state;

	m->x.cpu.gpr[UM_RDI] = DATA + 1;
	load_code(m, load8);
	run_to_hlt(m);
	m->x.cpu.cr0 |= CR0_AM;
	m->x.cpu.rflags |= RFLAGS_AC;
	load_code(m, load8);
	run_to_hlt(m); /* CPL 0 */
	m->x.cpu.cpl = 3;
	load_code(m, load8);
	expect_fault(m, UM_VEC_AC);
	assert_true(m->x.exit.exc.has_error);
	load_code(m, add8);
	expect_fault(m, UM_VEC_AC);
	m->x.cpu.gpr[UM_RSP] = STACK - 4;
	load_code(m, push_only);
	expect_fault(m, UM_VEC_AC);
	m->x.cpu.gpr[UM_RSP] = STACK;
	load_code(m, enter_odd);
	expect_fault(m, UM_VEC_AC); /* its frame's end */
	assert_int_equal(m->x.cpu.gpr[UM_RSP], STACK);
	load_code(m, inc1);
	assert_int_equal(machine_run(m), UM_EXIT_EXCEPTION);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_GP); /* HLT at CPL 3: INC was fine */
	m->x.cpu.gpr[UM_RDI] = DATA + 2;
	load_code(m, movsxd16);
	expect_fault(m, UM_VEC_GP); /* HLT: it loads two bytes */
	m->x.cpu.gpr[UM_RDI] = DATA + 8;
	load_code(m, cmpxchg16);
	expect_fault(m, UM_VEC_GP); /* always aligned, whatever AC says */
	/* ... and whatever else is wrong: */
	m->x.cpu.gpr[UM_RSP] = 0x8000000000001000;
	load_code(m, cmpxchg16_stack);
	expect_fault(m, UM_VEC_SS);
	m->x.cpu.gpr[UM_RSP]++;
	load_code(m, cmpxchg16_stack);
	expect_fault(m, UM_VEC_GP);
}

/* Flags that nothing reads, because others follow, are seen if an instruction between faults. */
static void test_flags_at_fault(void **state)
{
	struct machine *m = *state;
	struct {
		const u8 *code, *end;
		unsigned size;
	} const of[] = { { flags_leave, flags_leave_end, 5 }, { flags_pop, flags_pop_end, 5 } };

	machine_prop(m, 10, 0);
	for (unsigned n = 0; n < ARRAY_SIZE(of); n++) {
		for (unsigned round = 0; round < 4; round++) {
			bool bad = round == 3;

			machine_code(m, CODE, of[n].code, of[n].end);
			m->x.cpu.gpr[UM_RSP] = PAGE(bad ? 10 : 8) + 64;
			m->x.cpu.gpr[UM_RBP] = m->x.cpu.gpr[UM_RSP];
			m->x.cpu.gpr[UM_RDI] = PAGE(9);
			m->x.cpu.gpr[UM_RAX] = 0;
			m->x.cpu.rflags = RFLAGS_FIXED1;
			if (!bad) {
				run_to_hlt(m);
				continue;
			}
			expect_fault(m, UM_VEC_PF);
			assert_int_equal(m->x.cpu.rip, CODE + of[n].size);
			/* 0 - (PAGE(10) + 64) */
			assert_int_equal(m->x.cpu.rflags & RFLAGS_STATUS,
					 RFLAGS_CF | RFLAGS_SF | RFLAGS_PF);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_crossing),      T(test_crossing_fault), T(test_read_only),
		T(test_user),	       T(test_host_fault),     T(test_mmio),
		T(test_tracked),       T(test_stack),	       T(test_crossing_taken),
		T(test_crossing_mmio), T(test_canonical),      T(test_limits),
		T(test_real_mode),     T(test_alignment),      T(test_flags_at_fault),
	};

	um_uaccess_init();
	sigaction(SIGSEGV, NULL, &library_segv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
