// SPDX-License-Identifier: MIT
/*
 * What it costs to catch a system call of a program and answer it, by the ways that Linux has:
 *
 *	native		the call itself, for comparison
 *	dispatch	syscall user dispatch: a signal in the thread, which answers
 *	trap		a seccomp filter that raises a signal: the same
 *	notify		a seccomp filter that asks another thread by a descriptor (user notification)
 *	ptrace		another process that is told by the tracer's interface
 *	dispatch idle	calls that pass, by the selector, while dispatch is on
 *
 * The first two leave the answer in the thread, where guest memory and the vCPU are; the others need a second thread or process,
 * and two changes of it for each call.  Prints nanoseconds for one call: the median and the least of many short runs.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define ROUNDS 199
#define CALLS  200
#define CALL   SYS_getppid /* what is caught */
#define ANSWER 0x1234
#define BLOCK  1 /* the selector: calls are caught */

static volatile char selector;
static int failed;

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static long call(long nr)
{
	long r;

	asm volatile("syscall" : "=a"(r) : "a"(nr) : "rcx", "r11", "memory");
	return r;
}

struct ns {
	double median, least;
};

/* @block: the selector during the calls. */
static struct ns measure(long want, char block)
{
	double ns[ROUNDS];

	if (failed)
		return (struct ns){ 0 };

	for (int r = 0; r < ROUNDS; r++) {
		double start = now_ns();

		for (int i = 0; i < CALLS; i++) {
			long got;

			selector = block;
			got = call(CALL);
			selector = 0;
			if (want && got != want)
				failed = 1;
		}
		ns[r] = (now_ns() - start) / CALLS;
	}
	qsort(ns, ROUNDS, sizeof(ns[0]), compare);
	return (struct ns){ ns[ROUNDS / 2], ns[0] };
}

static void report(const char *name, struct ns ns)
{
	if (failed)
		printf("%-14s does not work here\n", name);
	else
		printf("%-14s %7.0f ns (median), %.0f ns (least)\n", name, ns.median, ns.least);
	fflush(stdout);
}

/* ---- signals in the thread ---- */

static void on_sigsys(int sig, siginfo_t *si, void *ucv)
{
	ucontext_t *uc = ucv;

	(void)sig;
	(void)si;
	selector = 0;
	uc->uc_mcontext.gregs[REG_RAX] = ANSWER;
}

static void catch_sigsys(void)
{
	struct sigaction sa = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };

	sigaction(SIGSYS, &sa, NULL);
}

static void by_dispatch(void)
{
	catch_sigsys();
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector) < 0)
		failed = 1;
	report("dispatch", measure(ANSWER, BLOCK));
	report("dispatch idle", measure(0, 0));
}

static int filter(uint32_t action, unsigned flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALL, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

static void by_trap(void)
{
	catch_sigsys();
	failed = filter(SECCOMP_RET_TRAP, 0) < 0;
	report("trap", measure(ANSWER, 0));
}

/* ---- another thread ---- */

static void *answer(void *arg)
{
	int fd = *(int *)arg;
	struct seccomp_notif req;
	struct seccomp_notif_resp resp;

	for (;;) {
		memset(&req, 0, sizeof(req));
		if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &req) < 0)
			return NULL;
		resp = (struct seccomp_notif_resp){ .id = req.id, .val = ANSWER };
		ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &resp);
	}
}

static int listener = -1;

static void *ask(void *arg)
{
	struct ns *ns = arg;

	listener = filter(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
	if (listener < 0) {
		failed = 1;
		return NULL;
	}
	while (!*(volatile double *)&ns->median)
		;
	*ns = measure(ANSWER, 0);
	return NULL;
}

static void by_notify(void)
{
	pthread_t asking, answering;
	struct ns ns = { 0 };

	pthread_create(&asking, NULL, ask, &ns);
	while (*(volatile int *)&listener < 0 && !*(volatile int *)&failed)
		usleep(100);
	if (!failed) {
		pthread_create(&answering, NULL, answer, &listener);
		*(volatile double *)&ns.median = 1;
	}
	pthread_join(asking, NULL);
	report("notify", ns);
}

/* ---- another process ---- */

static void by_ptrace(void)
{
	pid_t child = fork();
	int status;

	if (!child) {
		failed = ptrace(PTRACE_TRACEME, 0, 0, 0) < 0;
		raise(SIGSTOP);
		report("ptrace", measure(ANSWER, 0));
		_exit(failed);
	}
	if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
		return;
	ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
	/* Both stops of a call: what it is, and what is answered. */
	for (int entry = 1;; entry = !entry) {
		struct user_regs_struct regs;

		ptrace(PTRACE_SYSCALL, child, 0, 0);
		if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
			return;
		ptrace(PTRACE_GETREGS, child, 0, &regs);
		if (!entry && regs.orig_rax == CALL) {
			regs.rax = ANSWER;
			ptrace(PTRACE_SETREGS, child, 0, &regs);
		}
	}
}

/* Each in a process of its own: filters stay. */
static void run(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		fn();
		_exit(0);
	}
	waitpid(pid, &status, 0);
}

static void native(void)
{
	report("native", measure(0, 0));
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	run(native);
	run(by_dispatch);
	run(by_trap);
	run(by_notify);
	run(by_ptrace);
	return 0;
}
