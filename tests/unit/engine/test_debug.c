// SPDX-License-Identifier: MIT
/*
 * Everything that makes the interpreter look at single instructions: TF, RF, interrupt shadows, the
 * interrupt window, breakpoints on instructions and data, single-stepping by the VMM, PAUSE exits,
 * retiring.
 */
#include "engine/jit/jit.h"
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

CODE64(simple, "inc eax\n inc eax\n inc eax\n hlt");
CODE64(store, "mov [rdi], eax\n inc ecx\n mov ebx, [rdi+4]\n inc ecx\n hlt");
CODE64(sti_code, "sti\n inc eax\n inc eax\n hlt");
CODE64(sti_hlt, "sti\n hlt");
CODE64(popf_code, "popfq\n inc eax\n inc eax\n hlt");
CODE64(rep_movs, "rep movsb\n hlt");
CODE64(pause_code, "pause\n inc eax\n hlt");
CODE64(fault_code, "mov rax, [rdi]\n hlt");
CODE64(jumpy, "xor eax, eax\n jz 1f\n ud2\n 1: hlt");

static void expect_trap(struct machine *m, u64 dr6, u64 rip)
{
	expect_fault(m, UM_VEC_DB);
	assert_int_equal(m->x.exit.exc.kind, UM_EVENT_TRAP);
	assert_int_equal(m->x.exit.exc.payload, dr6);
	assert_int_equal(m->x.cpu.rip, rip);
}

static void test_tf(void **state)
{
	struct machine *m = *state;

	load_code(m, simple);
	m->x.cpu.rflags |= RFLAGS_TF;
	for (unsigned k = 1; k <= 3; k++) {
		expect_trap(m, DR6_BS, CODE + 2 * k);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], k);
	}
	/* POPF that sets TF is not trapped itself; the next instruction is. */
	load_code(m, popf_code);
	m->x.cpu.rflags = RFLAGS_FIXED1;
	m->x.cpu.gpr[UM_RSP] = STACK - 8;
	*(u64 *)at(m, STACK - 8) = RFLAGS_FIXED1 | RFLAGS_TF;
	expect_trap(m, DR6_BS, CODE + 3);
	/* And one that clears it is. */
	load_code(m, popf_code);
	m->x.cpu.gpr[UM_RSP] = STACK - 8;
	*(u64 *)at(m, STACK - 8) = RFLAGS_FIXED1;
	expect_trap(m, DR6_BS, CODE + 1);
	run_to_hlt(m);
	/* Each iteration of a string instruction is trapped, with rip still on it. */
	load_code(m, rep_movs);
	m->x.cpu.rflags |= RFLAGS_TF;
	m->x.cpu.gpr[UM_RSI] = DATA;
	m->x.cpu.gpr[UM_RDI] = PAGE(10);
	m->x.cpu.gpr[UM_RCX] = 3;
	expect_trap(m, DR6_BS, CODE);
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 2);
	expect_trap(m, DR6_BS, CODE);
	expect_trap(m, DR6_BS, CODE + 2);
	assert_int_equal(m->x.cpu.gpr[UM_RCX], 0);
	/* A fault comes in place of the trap. */
	machine_prop(m, 8, 0);
	load_code(m, fault_code);
	m->x.cpu.gpr[UM_RDI] = DATA;
	expect_fault(m, UM_VEC_PF);
	assert_int_equal(m->x.cpu.rip, CODE);
	/* MMIO: the trap comes when the access is done. */
	machine_prop(m, 8, P_PRESENT | P_WRITE | P_MMIO);
	assert_int_equal(machine_run(m), UM_EXIT_MMIO);
	um_engine_mmio_done(&m->x, "12345678");
	assert_int_equal(um_engine_complete_io(&m->x), UM_EXIT_EXCEPTION);
	assert_int_equal(m->x.exit.exc.payload, DR6_BS);
	assert_int_equal(m->x.cpu.rip, CODE + 3);
}

static void test_guest_step(void **state)
{
	struct machine *m = *state;

	load_code(m, simple);
	m->x.guest_step = true;
	expect_trap(m, DR6_BS, CODE + 2);
	expect_trap(m, DR6_BS, CODE + 4);
	m->x.guest_step = false;
	run_to_hlt(m);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 3);
}

static void test_insn_breakpoint(void **state)
{
	struct machine *m = *state;

	for (unsigned vmm = 0; vmm < 2; vmm++) {
		load_code(m, simple);
		m->x.cpu.gpr[UM_RAX] = 0;
		m->x.use_guest_dr = vmm;
		*(vmm ? &m->x.guest_dr[1] : &m->x.cpu.dr[1]) = CODE + 2;
		*(vmm ? &m->x.guest_dr7 : &m->x.cpu.dr7) = BIT(2) | DR7_FIXED1;
		if (vmm)
			m->x.cpu.dr7 = 0;
		expect_fault(m, UM_VEC_DB);
		assert_int_equal(m->x.exit.exc.kind, UM_EVENT_FAULT);
		assert_int_equal(m->x.exit.exc.payload, DR6_B(1));
		assert_int_equal(m->x.cpu.rip, CODE + 2);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], 1);
		/*
		 * It comes again, unless RF says that it was handled; RF is gone after one
		 * instruction.
		 */
		expect_fault(m, UM_VEC_DB);
		m->x.cpu.rflags |= RFLAGS_RF;
		run_to_hlt(m);
		assert_int_equal(m->x.cpu.gpr[UM_RAX], 3);
		assert_false(m->x.cpu.rflags & RFLAGS_RF);
	}
}

static void test_data_breakpoint(void **state)
{
	struct machine *m = *state;

	for (unsigned vmm = 0; vmm < 2; vmm++) {
		u64 *dr7 = vmm ? &m->x.guest_dr7 : &m->x.cpu.dr7;
		u64 *dr = vmm ? m->x.guest_dr : m->x.cpu.dr;

		m->x.cpu.dr7 = 0;
		m->x.use_guest_dr = vmm;
		machine_flush(m);
		m->x.cpu.gpr[UM_RDI] = DATA;
		load_code(m, store);
		run_to_hlt(m); /* with the page in the TLB */
		/* Writes to 4 bytes. */
		dr[0] = DATA;
		*dr7 = BIT(0) | 1ull << 16 | 3ull << 18;
		if (!vmm)
			machine_flush(m);
		load_code(m, store);
		expect_trap(m, DR6_B(0), CODE + 2);
		run_to_hlt(m); /* the load is elsewhere */
		/* Reads and writes, 1 byte, hit in the middle of an access. */
		dr[3] = DATA + 6;
		*dr7 = BIT(6) | 3ull << 28;
		load_code(m, store);
		expect_trap(m, DR6_B(3), CODE + 7);
		run_to_hlt(m);
		/* Writes only: a load doesn't hit. */
		*dr7 = BIT(6) | 1ull << 28;
		load_code(m, store);
		run_to_hlt(m);
		/* Together with TF. */
		*dr7 = BIT(0) | 1ull << 16 | 3ull << 18;
		load_code(m, store);
		m->x.cpu.rflags |= RFLAGS_TF;
		expect_trap(m, DR6_BS | DR6_B(0), CODE + 2);
		m->x.cpu.rflags &= ~RFLAGS_TF;
		/* An access that faults hits nothing. */
		machine_prop(m, 8, P_PRESENT);
		load_code(m, store);
		expect_fault(m, UM_VEC_PF);
		machine_prop(m, 8, P_PRESENT | P_WRITE);
		m->x.cpu.gpr[UM_RDI] = DATA + 0x100;
		load_code(m, store);
		run_to_hlt(m);
		/* A string instruction stops after the iteration that hit. */
		*dr7 = BIT(0) | 1ull << 16; /* 1 byte at DATA */
		load_code(m, rep_movs);
		m->x.cpu.gpr[UM_RSI] = PAGE(10);
		m->x.cpu.gpr[UM_RDI] = DATA - 2;
		m->x.cpu.gpr[UM_RCX] = 5;
		expect_trap(m, DR6_B(0), CODE);
		assert_int_equal(m->x.cpu.gpr[UM_RCX], 2);
		run_to_hlt(m);
	}
}

static void test_interrupt_window(void **state)
{
	struct machine *m = *state;

	/* STI opens the window one instruction later. */
	load_code(m, sti_code);
	m->x.irq_window = true;
	assert_int_equal(machine_run(m), UM_EXIT_IRQ_WINDOW);
	assert_int_equal(m->x.cpu.rip, CODE + 3);
	assert_int_equal(m->x.cpu.int_shadow, 0);
	assert_int_equal(m->x.cpu.gpr[UM_RAX], 1);
	/* STI; HLT: the HLT comes first, and its retirement ends the shadow. */
	load_code(m, sti_hlt);
	m->x.cpu.rflags = RFLAGS_FIXED1;
	assert_int_equal(machine_run(m), UM_EXIT_HLT);
	assert_int_equal(m->x.cpu.rip, CODE + 1);
	assert_int_equal(m->x.cpu.int_shadow, UM_SHADOW_STI);
	assert_false(um_engine_retire(&m->x));
	assert_int_equal(m->x.cpu.rip, CODE + 2);
	assert_int_equal(m->x.cpu.int_shadow, 0);
	assert_int_equal(machine_run(m), UM_EXIT_IRQ_WINDOW);
	/* POPF opens it at once. */
	load_code(m, popf_code);
	m->x.cpu.rflags = RFLAGS_FIXED1;
	m->x.cpu.gpr[UM_RSP] = STACK - 8;
	*(u64 *)at(m, STACK - 8) = RFLAGS_FIXED1 | RFLAGS_IF;
	assert_int_equal(machine_run(m), UM_EXIT_IRQ_WINDOW);
	assert_int_equal(m->x.cpu.rip, CODE + 1);
	/* Closed: no exit. */
	load_code(m, simple);
	m->x.cpu.rflags = RFLAGS_FIXED1;
	run_to_hlt(m);
}

/*
 * Behind MOV SS no debug trap is taken; breakpoints on data wait for the end of the next
 * instruction.
 */
static void test_mov_ss_shadow(void **state)
{
	struct machine *m = *state;

	load_code(m, simple);
	m->x.cpu.dr[0] = CODE;
	m->x.cpu.dr7 = BIT(0);
	m->x.cpu.int_shadow = UM_SHADOW_MOVSS;
	m->x.cpu.rflags |= RFLAGS_TF;
	expect_trap(m, DR6_BS, CODE + 2); /* not the breakpoint on the first instruction */
	assert_int_equal(m->x.cpu.int_shadow, 0);
}

static void test_pause(void **state)
{
	struct machine *m = *state;

	load_code(m, pause_code);
	run_to_hlt(m);
	m->x.exit_on_pause = true;
	load_code(m, pause_code);
	assert_int_equal(machine_run(m), UM_EXIT_PAUSE);
	assert_int_equal(m->x.cpu.rip, CODE + 2);
	run_to_hlt(m);
	load_code(m, pause_code);
	m->x.cpu.rflags |= RFLAGS_TF;
	expect_trap(m, DR6_BS, CODE + 2);
}

static void test_retire(void **state)
{
	struct machine *m = *state;

	load_code(m, sti_hlt);
	m->x.cpu.rip = CODE + 1;
	m->x.cpu.rflags |= RFLAGS_TF;
	assert_int_equal(machine_run(m), UM_EXIT_HLT);
	assert_true(um_engine_retire(&m->x));
	assert_int_equal(m->x.exit.kind, UM_EXIT_EXCEPTION);
	assert_int_equal(m->x.exit.exc.vector, UM_VEC_DB);
	assert_int_equal(m->x.exit.exc.payload, DR6_BS);
	assert_int_equal(m->x.cpu.rip, CODE + 2);
}

static void test_report(void **state)
{
	struct machine *m = *state;
	char text[2000];

	load_code(m, simple);
	run_to_hlt(m);
	um_engine_report(&m->x, text, sizeof(text));
	assert_string_equal(text, "0000000000011000  inc eax\n0000000000011002  inc eax\n"
				  "0000000000011004  inc eax\n0000000000011006  hlt\n");
	/* A taken jump: what it jumps over was not executed. */
	load_code(m, jumpy);
	run_to_hlt(m);
	um_engine_report(&m->x, text, sizeof(text));
	assert_null(strstr(text, "ud2"));
	assert_non_null(strstr(text, "jz"));
	um_engine_report(&m->x, text, 30); /* cut, terminated */
	assert_true(strlen(text) < 30);
	for (unsigned k = 0; k < 100; k++) {
		load_code(m, simple);
		run_to_hlt(m);
	}
	um_engine_report(&m->x, text, sizeof(text));
	assert_true(strlen(text) < sizeof(text));
}

CODE64(loops, "1: add rax, [rdi]\n dec ecx\n jnz 1b\n push rax\n pop rbx\n hlt");

static void test_report_translated(void **state)
{
	struct machine *m = *state;
	char text[2000];
	char *at = text;

	if (m->x.engine != UM_ENGINE_JIT)
		return;
	m->x.cpu.gpr[UM_RDI] = DATA;
	for (unsigned k = 0; k < 3; k++) {
		m->x.cpu.gpr[UM_RCX] = 20;
		load_code(m, loops);
		run_to_hlt(m);
	}
	um_engine_report(&m->x, text, sizeof(text));
	/* What HLT is the last of, and the block that it was in. */
	for (char *next = text; (next = strstr(next, "... translated code, left in\n")); next++)
		at = next;
	assert_string_equal(at, "... translated code, left in\n0000000000011000  add rax, [rdi]\n"
				"0000000000011003  dec ecx\n"
				"0000000000011005  jnz 0x0000000000011000\n"
				"0000000000011007  push rax\n0000000000011008  pop rbx\n"
				"0000000000011009  hlt\n");
	/* They are not remembered longer than they exist. */
	um_jit_flush(&m->x);
	um_engine_report(&m->x, text, sizeof(text));
	assert_null(strstr(text, "translated"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_tf),
		T(test_guest_step),
		T(test_insn_breakpoint),
		T(test_data_breakpoint),
		T(test_interrupt_window),
		T(test_mov_ss_shadow),
		T(test_pause),
		T(test_retire),
		T(test_report),
		T(test_report_translated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
