// SPDX-License-Identifier: MIT
/*
 * The host's side of the oracle: a trampoline that loads every register from a struct, jumps to the
 * instruction, and stores every register.  The instruction is followed by a jump back; a fault
 * continues there too.
 *
 * The stack pointer is a register like others, so signals need their own stack.
 *
 * 32-bit code is entered by a far jump to Linux's code segment for it, and left by a signal, whose
 * handler sets CS.
 */
#include "host.h"

#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/bits.h"
#include "x86/regs.h"

static struct {
	struct host_state s;
	u64 rsp; /* the host's own */
	u64 code;
	u64 vector; /* 16, 32, 64 */
	u64 fcw;
	u32 far_offset, far_selector; /* m16:32 */
} image __attribute__((used, aligned(64)));

static volatile int vector_raised;
static u8 *code;
static char alt_stack[65536] __attribute__((aligned(64)));

void host_enter(void);
void host_return(void);
void host_far(void);

/* Offsets into `image`, for the assembly. */
#define O_FX  2048
#define O_K   2560
#define O_GPR 2624
#define O_FL  2752
#define O_RSP 2816
_Static_assert(offsetof(struct host_state, fxsave) == O_FX, "");
_Static_assert(offsetof(struct host_state, k) == O_K, "");
_Static_assert(offsetof(struct host_state, gpr) == O_GPR, "");
_Static_assert(offsetof(struct host_state, flags) == O_FL, "");
_Static_assert(offsetof(__typeof__(image), rsp) == O_RSP, "");

#define STR_(x) #x
#define STR(x)	STR_(x)
#define EACH16(M) \
	M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define EACH32(M) \
	EACH16(M) \
	M(16)     \
	M(17) M(18) M(19) M(20) M(21) M(22) M(23) M(24) M(25) M(26) M(27) M(28) M(29) M(30) M(31)
#define LOAD_ZMM(n)  "vmovups image+64*" #n "(%rip), %zmm" #n "\n"
#define STORE_ZMM(n) "vmovups %zmm" #n ", image+64*" #n "(%rip)\n"
#define LOAD_YMM(n)  "vmovups image+64*" #n "(%rip), %ymm" #n "\n"
#define STORE_YMM(n) "vmovups %ymm" #n ", image+64*" #n "(%rip)\n"
#define LOAD_XMM(n)  "movups image+64*" #n "(%rip), %xmm" #n "\n"
#define STORE_XMM(n) "movups %xmm" #n ", image+64*" #n "(%rip)\n"
#define EACH8(M)     M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)
#define LOAD_K(n)    "kmovq image+" STR(O_K) "+8*" #n "(%rip), %k" #n "\n"
#define STORE_K(n)   "kmovq %k" #n ", image+" STR(O_K) "+8*" #n "(%rip)\n"
#define GPR(n)	     "image+" STR(O_GPR) "+8*" #n "(%rip)"

/* clang-format off */
asm(".text\n"
    ".globl host_enter, host_return, host_far\n"
    "host_enter:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "mov %rsp, image+" STR(O_RSP) "(%rip)\n"
    "fnstcw image+" STR(O_RSP) "+24(%rip)\n"
    "fxrstor64 image+" STR(O_FX) "(%rip)\n"
    "cmpq $32, image+" STR(O_RSP) "+16(%rip)\n"
    "je 2f\n"
    "jb 1f\n"
    EACH32(LOAD_ZMM) EACH8(LOAD_K)
    "jmp 3f\n"
    "2:" EACH16(LOAD_YMM) "jmp 3f\n"
    "1:" EACH16(LOAD_XMM)
    "3:\n"
    "push image+" STR(O_FL) "(%rip); popfq\n"
    "mov " GPR(0) ", %rax; mov " GPR(1) ", %rcx; mov " GPR(2) ", %rdx; mov " GPR(3) ", %rbx\n"
    "mov " GPR(5) ", %rbp; mov " GPR(6) ", %rsi; mov " GPR(7) ", %rdi; mov " GPR(8) ", %r8\n"
    "mov " GPR(9) ", %r9; mov " GPR(10) ", %r10; mov " GPR(11) ", %r11; mov " GPR(12) ", %r12\n"
    "mov " GPR(13) ", %r13; mov " GPR(14) ", %r14; mov " GPR(15) ", %r15; mov " GPR(4) ", %rsp\n"
    "jmp *image+" STR(O_RSP) "+8(%rip)\n"
    "host_far: ljmpl *image+" STR(O_RSP) "+32(%rip)\n"
    "host_return:\n"
    "mov %rax, " GPR(0) "; mov %rcx, " GPR(1) "; mov %rdx, " GPR(2) "; mov %rbx, " GPR(3) "\n"
    "mov %rsp, " GPR(4) "; mov %rbp, " GPR(5) "; mov %rsi, " GPR(6) "; mov %rdi, " GPR(7) "\n"
    "mov %r8, " GPR(8) "; mov %r9, " GPR(9) "; mov %r10, " GPR(10) "; mov %r11, " GPR(11) "\n"
    "mov %r12, " GPR(12) "; mov %r13, " GPR(13) "; mov %r14, " GPR(14) "; mov %r15, " GPR(15) "\n"
    "mov image+" STR(O_RSP) "(%rip), %rsp\n"
    "pushfq; pop image+" STR(O_FL) "(%rip)\n"
    "cld\n"
    "cmpq $32, image+" STR(O_RSP) "+16(%rip)\n"
    "je 2f\n"
    "jb 1f\n"
    EACH32(STORE_ZMM) EACH8(STORE_K)
    "vzeroupper\n"
    "jmp 3f\n"
    "2:" EACH16(STORE_YMM) "vzeroupper; jmp 3f\n"
    "1:" EACH16(STORE_XMM)
    "3:\n"
    "fxsave64 image+" STR(O_FX) "(%rip)\n"
    "fninit\n"
    "fldcw image+" STR(O_RSP) "+24(%rip)\n"
    "push $0x1f80; ldmxcsr (%rsp); pop %rax\n"
    "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "ret\n");
/* clang-format on */

#define USER_CS32 0x23
#define USER_CS64 0x33
#define USER_DS	  0x2b

/* Where mcontext's registers are, by the numbers that instructions have for them. */
static const int gregs[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
			       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
			       REG_R12, REG_R13, REG_R14, REG_R15 };

/* What host_run_at() is doing: NULL outside. */
static host_fault_fn *volatile fault_fn;
static void *fault_arg;

static void leave(ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;

	g[REG_RIP] = (greg_t)(uintptr_t)host_return;
	g[REG_EFL] &= ~(greg_t)(RFLAGS_TF | RFLAGS_AC);
	g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffll) | USER_CS64;
}

static void report_fault(int sig, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	struct host_fault f = { .vector = sig == SIGVTALRM ? HOST_TICK
					  : sig == SIGSYS  ? HOST_SYSCALL
							   : (int)g[REG_TRAPNO],
				.error = (u32)g[REG_ERR],
				.cr2 = (u64)g[REG_CR2],
				.rip = (u64)g[REG_RIP],
				.flags = (u64)g[REG_EFL] };

	for (unsigned r = 0; r < 16; r++)
		f.gpr[r] = (u64)g[gregs[r]];
	if (!fault_fn(fault_arg, &f)) {
		leave(uc);
		return;
	}
	for (unsigned r = 0; r < 16; r++)
		g[gregs[r]] = (greg_t)f.gpr[r];
	g[REG_RIP] = (greg_t)f.rip;
	g[REG_EFL] = (greg_t)f.flags;
}

static void on_signal(int sig, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;
	u64 pc = (u64)uc->uc_mcontext.gregs[REG_RIP];
	bool in_trampoline = pc >= (u64)host_enter && pc < (u64)host_enter + 4096;

	/* A program's alignment checks are not for the C library. */
	asm volatile("pushfq; andl $~0x40000, (%%rsp); popfq" : : : "memory", "cc");
	if (sig == SIGVTALRM && (!fault_fn || in_trampoline))
		return;
	if (fault_fn && !in_trampoline) {
		report_fault(sig, uc);
		return;
	}
	if (pc < (u64)code || pc >= (u64)code + UM_PAGE_SIZE) {
		signal(sig, SIG_DFL); /* not ours: die of it */
		return;
	}
	vector_raised = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
	leave(uc);
	(void)si;
}

unsigned host_vector(void)
{
	u32 a, b, c, d, lo, hi;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 16;
	asm("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
		return 16;
	if ((lo & 0xe6) == 0xe6 && (b & bit_AVX512F) && (b & bit_AVX512BW))
		return 64;
	return (lo & 6) == 6 ? 32 : 16;
}

u8 *host_code(void)
{
	return code + 64;
}

void host_init(void)
{
	static const int signals[] = {
		SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGVTALRM
	};
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t st = { .ss_sp = alt_stack, .ss_size = sizeof(alt_stack) };

	code = mmap(NULL, UM_PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED || sigaltstack(&st, NULL) < 0) {
		perror("oracle");
		exit(1);
	}
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &sa, NULL);
	image.vector = host_vector();
}

int host_run(const struct host_state *in, struct host_state *out, unsigned len)
{
	u8 *end = host_code() + len;

	/* jmp [rip]: to host_return */
	static const u8 jump[6] = { 0xff, 0x25, 0, 0, 0, 0 };
	u64 to = (u64)(uintptr_t)host_return;

	memcpy(end, jump, 6);
	memcpy(end + 6, &to, 8);
	image.s = *in;
	image.code = (u64)host_code();
	vector_raised = -1;
	host_enter();
	*out = image.s;
	return vector_raised;
}

void host_run_at(u64 rip, bool compat, const struct host_state *in, struct host_state *out,
		 host_fault_fn *fn, void *arg)
{
	image.s = *in;
	image.code = compat ? (u64)(uintptr_t)host_far : rip;
	image.far_offset = (u32)rip;
	image.far_selector = USER_CS32;
	if (compat) /* 64-bit code has no use for these, and Linux keeps what is in them */
		asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(USER_DS));
	fault_arg = arg;
	fault_fn = fn;
	host_enter();
	fault_fn = NULL;
	*out = image.s;
}
