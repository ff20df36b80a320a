// SPDX-License-Identifier: MIT
/*
 * The interpreter alone: millions of guest instructions a second on integer loops in 64-bit mode, through the
 * software TLB.  No MMU, no devices.  Usage: interp-speed [seconds a loop]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../tests/unit/engine/fixture.h"

/* Each runs for ever; rdi: a data page. */
CODE64(loop_sieve, "1: xor eax, eax\n"
		   "2: mov byte ptr [rdi+rax], 1\n inc eax\n cmp eax, 8192\n jb 2b\n"
		   "mov ecx, 2\n"
		   "3: cmp byte ptr [rdi+rcx], 0\n je 5f\n"
		   "lea edx, [rcx+rcx]\n"
		   "4: cmp edx, 8192\n jae 5f\n mov byte ptr [rdi+rdx], 0\n add edx, ecx\n jmp 4b\n"
		   "5: inc ecx\n cmp ecx, 91\n jb 3b\n jmp 1b\n");
CODE64(loop_hash, "1: mov rax, 0xcbf29ce484222325\n mov r8, 0x100000001b3\n xor ecx, ecx\n"
		  "2: movzx edx, byte ptr [rdi+rcx]\n xor rax, rdx\n imul rax, r8\n inc rcx\n"
		  "cmp rcx, 4096\n jb 2b\n mov [rdi+8], rax\n jmp 1b\n");
CODE64(loop_sort, /* insertion sort of 256 words that an LCG makes */
       "1: xor ecx, ecx\n mov eax, 12345\n"
       "2: imul eax, eax, 1103515245\n add eax, 12345\n mov [rdi+rcx*4], eax\n inc ecx\n"
       "cmp ecx, 256\n jb 2b\n"
       "mov ecx, 1\n"
       "3: mov eax, [rdi+rcx*4]\n mov edx, ecx\n"
       "4: test edx, edx\n je 5f\n mov esi, [rdi+rdx*4-4]\n cmp esi, eax\n jle 5f\n"
       "mov [rdi+rdx*4], esi\n dec edx\n jmp 4b\n"
       "5: mov [rdi+rdx*4], eax\n inc ecx\n cmp ecx, 256\n jb 3b\n jmp 1b\n");
CODE64(loop_calls, "1: mov ebx, 1000\n"
		   "2: call 3f\n dec ebx\n jnz 2b\n jmp 1b\n"
		   "3: push rbp\n mov rbp, rsp\n sub rsp, 16\n mov [rbp-8], rbx\n"
		   "mov rax, [rbp-8]\n shl rax, 3\n and eax, 0xff\n lea rdx, [rax+rbx*2+5]\n"
		   "leave\n ret\n");
CODE64(loop_regs, "1: mov ecx, 1000\n"
		  "2: add rax, rcx\n xor rdx, rax\n ror rdx, 7\n sub rbx, rdx\n and rbx, rax\n"
		  "or rsi, rbx\n dec ecx\n jnz 2b\n jmp 1b\n");

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *kicker(void *arg)
{
	struct machine *m = arg;
	struct timespec t = { .tv_nsec = 20 * 1000 * 1000 };

	for (;;) {
		nanosleep(&t, NULL);
		atomic_store(&m->x.kick, 1);
		if (m->nwritten)
			return NULL;
	}
}

static void measure(const char *name, const u8 *code, const u8 *end, double seconds)
{
	struct machine *m = machine_new();
	double start, stop;
	pthread_t t;

	machine_code(m, CODE, code, end);
	m->x.cpu.gpr[UM_RDI] = DATA;
	if (pthread_create(&t, NULL, kicker, m))
		exit(2);
	start = now();
	do {
		if (machine_run(m) != UM_EXIT_KICK) {
			fprintf(stderr, "%s: stopped by %s\n", name, um_exit_name(m->x.exit.kind));
			exit(1);
		}
		atomic_store(&m->x.kick, 0);
		stop = now();
	} while (stop - start < seconds);
	m->nwritten = 1;
	pthread_join(t, NULL);
	printf("%-8s %7.1f M instructions/s\n", name,
	       (double)m->counters.v[UM_CNT_insns] / (stop - start) / 1e6);
	machine_free(m);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 1.0;

#define RUN(name) measure(#name, loop_##name, loop_##name##_end, seconds)
	RUN(sieve);
	RUN(hash);
	RUN(sort);
	RUN(calls);
	RUN(regs);
	return 0;
}
