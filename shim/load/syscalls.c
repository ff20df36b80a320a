// SPDX-License-Identifier: MIT
/*
 * System calls of a supervised program, as SIGSYS brings them: registers are in the signal's frame.
 *
 * What is about /dev/kvm is done here by the same functions that the preload library puts in front of the C library's.
 * What concerns the thread itself (its mask, stacks, registers, its end) is done on the frame.  All else the
 * kernel does, after the signal has returned, by the system call instruction of a stub.
 *
 * Pointers are the program's and may be wrong: um_load_copy() follows them.
 */
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cpuinfo.h"
#include "load/load.h"
#include "seccomp.h"
#include "shim.h"

#ifndef SYS_fchmodat2 /* Linux 6.6 */
#define SYS_fchmodat2 452
#endif

#define RED_ZONE   128
#define DISPATCHED 0x7fffffffL
#define MASK_SIZE  8

/* Signals that wait are delivered by signal.c; nothing is put off in the way of the preload library. */
__thread volatile sig_atomic_t um_shim_deferred;

void um_shim_deliver(void) {}

static char exe[PATH_MAX]; /* of the program; set once */

void um_load_set_exe(const char *path)
{
	strcpy(exe, path);
}

struct call {
	struct um_load_thread *t;
	ucontext_t *uc;
	greg_t *g;
	long nr, a, b, c, d, e, f;
};

static long outcome(long r)
{
	return r < 0 ? -errno : r;
}

static long copy_out(long to, const void *from, size_t n)
{
	return um_load_copy((void *)to, from, n) ? -EFAULT : 0;
}

/* ---- the kernel does it ---- */

static long kernel(const struct call *s)
{
	return um_load_syscall(s->nr, s->a, s->b, s->c, s->d, s->e, s->f);
}

/* After the signal: through a stub, whose return address is below the program's red zone. */
static long pass(struct call *s)
{
	greg_t sp = s->g[REG_RSP] - RED_ZONE - 8;

	if (um_load_copy((void *)sp, &s->g[REG_RIP], 8))
		return kernel(s); /* it has no stack; then it does without being interrupted */
	s->g[REG_RSP] = sp;
	s->g[REG_RIP] = (greg_t)um_load_near(um_load_stub_pass);
	return DISPATCHED;
}

/*
 * A call that waits with another signal mask, at *@where: as pass(), with a copy of the mask that leaves out what must
 * not be blocked.  @pair: *@where is the address of the mask's address and size (pselect6).
 */
static long pass_mask(struct call *s, int reg, bool pair)
{
	struct {
		greg_t rip, r10, r8, r9, rdi;
		uint64_t mask, set, size;
	} frame = { .rip = s->g[REG_RIP],
		    .r10 = s->g[REG_R10],
		    .r8 = s->g[REG_R8],
		    .r9 = s->g[REG_R9],
		    .rdi = s->g[REG_RDI] };
	greg_t sp = s->g[REG_RSP] - RED_ZONE - (greg_t)sizeof(frame);
	uint64_t from = (uint64_t)s->g[reg];

	_Static_assert(sizeof(frame) == 64, "um_load_stub_pass_mask");
	if (pair && from) {
		if (um_load_copy(&frame.set, (void *)from, 16))
			return -EFAULT;
		from = frame.set;
	}
	if (!from)
		return pass(s);
	if (um_load_copy(&frame.mask, (void *)from, sizeof(frame.mask)))
		return -EFAULT;
	if (!(frame.mask & UM_LOAD_NEVER_MASKED))
		return pass(s);
	frame.mask &= ~UM_LOAD_NEVER_MASKED;
	frame.set = (uint64_t)sp + 40;
	if (um_load_copy((void *)sp, &frame, sizeof(frame)))
		return -EFAULT;
	s->g[reg] = sp + (pair ? 48 : 40);
	s->g[REG_RSP] = sp;
	s->g[REG_RIP] = (greg_t)um_load_near(um_load_stub_pass_mask);
	return DISPATCHED;
}

/* ---- names ---- */

/* The program's string at @from: its length, or -errno. */
static long get_string(char *to, long from)
{
	for (size_t n = 0; n < PATH_MAX;) {
		size_t part = 4096 - ((size_t)from + n) % 4096, end;

		part = part < PATH_MAX - n ? part : PATH_MAX - n;
		if (um_load_copy(to + n, (const char *)from + n, part))
			return -EFAULT;
		end = strnlen(to + n, part);
		n += end;
		if (end < part)
			return (long)n;
	}
	return -ENAMETOOLONG;
}

enum name { OTHER, KVM, CPUINFO, EXE };

/* Is @path's name, in the process's own words, that of its executable? */
static bool is_exe(const char *path)
{
	char own[40];

	if (strncmp(path, "/proc/", 6))
		return false;
	snprintf(own, sizeof(own), "/proc/%d/exe", getpid());
	return !strcmp(path, "/proc/self/exe") || !strcmp(path, "/proc/thread-self/exe") ||
	       !strcmp(path, own);
}

static enum name name_of(long dirfd, long from, char *path)
{
	if (get_string(path, from) < 0)
		return OTHER; /* the kernel says why */
	if (is_exe(path))
		return EXE;
	if (um_shim_is_cpuinfo(path))
		return CPUINFO;
	return um_shim_leads_to_kvm((int)dirfd, path) ? KVM : OTHER;
}

static long do_open(struct call *s, long dirfd, long name, long flags, long mode)
{
	char path[PATH_MAX];

	switch (name_of(dirfd, name, path)) {
	case EXE:
		return um_load_syscall(SYS_openat, AT_FDCWD, (long)exe, flags, mode, 0, 0);
	case KVM:
	case CPUINFO:
		return outcome(openat((int)dirfd, path, (int)flags, (mode_t)mode));
	default:
		return pass(s);
	}
}

static long do_openat2(struct call *s)
{
	struct open_how how = { 0 };

	if ((unsigned long)s->d < sizeof(how) || um_load_copy(&how, (void *)s->c, sizeof(how)))
		return pass(s);
	return do_open(s, s->a, s->b, (long)how.flags, (long)how.mode);
}

static long do_access(struct call *s, long dirfd, long name, long mode, long flags)
{
	char path[PATH_MAX];

	if (name_of(dirfd, name, path) != KVM)
		return pass(s);
	return outcome(faccessat((int)dirfd, path, (int)mode, (int)flags));
}

static long do_stat(struct call *s, long dirfd, long name, long to, long flags)
{
	char path[PATH_MAX];
	struct stat st;
	long r;

	if ((flags & AT_EMPTY_PATH) && umbra_kind((int)dirfd) && get_string(path, name) == 0)
		r = outcome(fstat((int)dirfd, &st));
	else if (name_of(dirfd, name, path) == KVM)
		r = outcome(fstatat((int)dirfd, path, &st, (int)flags));
	else
		return pass(s);
	return r ? r : copy_out(to, &st, sizeof(st));
}

static long do_fstat(struct call *s)
{
	struct stat st;
	long r;

	if (!umbra_kind((int)s->a))
		return pass(s);
	r = outcome(fstat((int)s->a, &st));
	return r ? r : copy_out(s->b, &st, sizeof(st));
}

static long do_statx(struct call *s)
{
	char path[PATH_MAX];
	struct statx sx;
	bool own = (s->c & AT_EMPTY_PATH) && umbra_kind((int)s->a) && get_string(path, s->b) == 0;
	long r;

	if (!own && name_of(s->a, s->b, path) != KVM)
		return pass(s);
	r = outcome(statx((int)s->a, path, (int)s->c, (unsigned)s->d, &sx));
	return r ? r : copy_out(s->e, &sx, sizeof(sx));
}

static long do_readlink(struct call *s, long dirfd, long name, long to, long size)
{
	char path[PATH_MAX], target[PATH_MAX];
	long n;

	if (get_string(path, name) < 0)
		return pass(s);
	if (is_exe(path)) {
		n = (long)strlen(exe);
		strcpy(target, exe);
	} else if (um_shim_is_kvm((int)dirfd, path) || !strncmp(path, "/proc/self/fd/", 14)) {
		n = outcome(readlinkat((int)dirfd, path, target, sizeof(target)));
	} else {
		return pass(s);
	}
	if (n < 0 || size <= 0)
		return n < 0 ? n : -EINVAL;
	n = n < size ? n : size;
	return copy_out(to, target, (size_t)n) ? -EFAULT : n;
}

/* Its mode, owner and attributes: what the preload library's functions say, which look at the name only. */
static long do_attribute(struct call *s)
{
	bool at = s->nr == SYS_fchownat || s->nr == SYS_fchmodat || s->nr == SYS_mknodat ||
		  s->nr == SYS_fchmodat2;
	long dirfd = at ? s->a : AT_FDCWD, name = at ? s->b : s->a;
	char path[PATH_MAX];

	if (name_of(dirfd, name, path) != KVM)
		return pass(s);
	switch (s->nr) {
	case SYS_chown:
	case SYS_lchown:
	case SYS_fchownat:
		return outcome(fchownat((int)dirfd, path, (uid_t)-1, (gid_t)-1, 0));
	case SYS_chmod:
	case SYS_fchmodat:
	case SYS_fchmodat2:
		return outcome(fchmodat((int)dirfd, path, 0666, 0));
	case SYS_mknod:
	case SYS_mknodat:
		return outcome(mknodat((int)dirfd, path, 0, 0));
	case SYS_setxattr:
	case SYS_lsetxattr:
		return outcome(lsetxattr(path, "", "", 0, 0));
	case SYS_getxattr:
	case SYS_lgetxattr:
		return outcome(lgetxattr(path, "", NULL, 0));
	case SYS_removexattr:
	case SYS_lremovexattr:
		return outcome(lremovexattr(path, ""));
	default:
		return outcome(llistxattr(path, NULL, 0));
	}
}

/* ---- descriptors ---- */

static uint64_t get_mask(const ucontext_t *uc)
{
	uint64_t mask;

	memcpy(&mask, &uc->uc_sigmask, sizeof(mask));
	return mask;
}

static long kvm_ioctl(struct um_load_thread *t, long fd, long request, long arg)
{
	long r;

	um_shim_enter();
	umbra_enter();
	/* A signal that came before umbra_enter() is not known to KVM_RUN. */
	if (t->deferred && (unsigned)request == KVM_RUN) {
		r = -1;
		errno = EINTR;
	} else {
		r = umbra_ioctl((int)fd, (unsigned)request, (void *)arg);
	}
	r = outcome(r);
	umbra_leave();
	um_shim_leave();
	return r;
}

/* Is it ours, or has it come from another process of ours? */
static bool is_ours(long fd, long request)
{
	return umbra_kind((int)fd) ||
	       (_IOC_TYPE((unsigned)request) == KVMIO && um_shim_adopt((int)fd) > 0);
}

long um_load_fast_ioctl(struct um_load_thread *t, long fd, long request, long arg)
{
	return is_ours(fd, request) ? kvm_ioctl(t, fd, request, arg) : UM_LOAD_PASS;
}

static void set_mask(uint64_t mask)
{
	um_load_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, MASK_SIZE, 0, 0);
}

/* KVM_RUN is to be interrupted: the program's mask while it runs, where else SIGSYS has all signals blocked. */
static long do_ioctl(struct call *s)
{
	long r;

	if (!is_ours(s->a, s->b))
		return pass(s);
	if ((unsigned)s->b != KVM_RUN)
		return kvm_ioctl(s->t, s->a, s->b, s->c);
	set_mask(get_mask(s->uc));
	r = kvm_ioctl(s->t, s->a, s->b, s->c);
	set_mask(UM_LOAD_ALL);
	return r;
}

static long do_mmap(struct call *s)
{
	void *p;

	if ((s->d & MAP_ANONYMOUS) || !umbra_kind((int)s->e))
		return pass(s);
	p = mmap((void *)s->a, (size_t)s->b, (int)s->c, (int)s->d, (int)s->e, s->f);
	return p == MAP_FAILED ? -errno : (long)p;
}

static long do_dup(struct call *s, long to)
{
	if (!umbra_kind((int)s->a) && (to < 0 || !umbra_kind((int)to)))
		return pass(s);
	switch (s->nr) {
	case SYS_dup:
		return outcome(dup((int)s->a));
	case SYS_dup2:
		return outcome(dup2((int)s->a, (int)s->b));
	case SYS_dup3:
		return outcome(dup3((int)s->a, (int)s->b, (int)s->c));
	default:
		return outcome(fcntl((int)s->a, (int)s->b, s->c));
	}
}

/* ---- signals ---- */

static long do_sigprocmask(struct call *s)
{
	uint64_t mask = get_mask(s->uc), old = mask, set;

	if (s->d != MASK_SIZE)
		return -EINVAL;
	if (s->b) {
		if (um_load_copy(&set, (void *)s->b, sizeof(set)))
			return -EFAULT;
		switch (s->a) {
		case SIG_BLOCK:
			mask |= set;
			break;
		case SIG_UNBLOCK:
			mask &= ~set;
			break;
		case SIG_SETMASK:
			mask = set;
			break;
		default:
			return -EINVAL;
		}
		mask &= ~(UM_LOAD_NEVER_MASKED | UM_LOAD_BIT(SIGKILL) | UM_LOAD_BIT(SIGSTOP));
		memcpy(&s->uc->uc_sigmask, &mask, sizeof(mask));
	}
	return s->c ? copy_out(s->c, &old, sizeof(old)) : 0;
}

/* Ours stands there as long as the program has none: SIGSYS must not come on stacks as small as some programs' are. */
static long do_sigaltstack(struct call *s)
{
	stack_t now = s->t->program_altstack, want;
	uint64_t sp = (uint64_t)s->g[REG_RSP];
	long r = 0;
	bool on;

	if (now.ss_sp == s->t->altstack.ss_sp)
		now = (stack_t){ .ss_flags = SS_DISABLE };
	on = !(now.ss_flags & SS_DISABLE) && sp - (uint64_t)now.ss_sp - 1 < now.ss_size;
	if (s->a) {
		if (um_load_copy(&want, (void *)s->a, sizeof(want)))
			return -EFAULT;
		if (on)
			return -EPERM;
		if (want.ss_flags == SS_DISABLE)
			want = s->t->altstack;
		else
			want.ss_flags &= ~SS_ONSTACK;
		r = um_load_set_altstack(s->t, &want);
		if (!r)
			s->uc->uc_stack = want; /* what the signal's return sets */
	}
	if (on)
		now.ss_flags |= SS_ONSTACK;
	return r || !s->b ? r : copy_out(s->b, &now, sizeof(now));
}

/* ---- threads and processes ---- */

static long do_arch_prctl(struct call *s)
{
	uint64_t zero = 0;

	switch (s->a) {
	case ARCH_SET_FS:
		if ((uint64_t)s->b >= 1ull << 47)
			return -EPERM;
		um_load_set_fs(s->t, (uint64_t)s->b);
		return 0;
	case ARCH_GET_FS:
		return copy_out(s->b, &s->t->program_fs, sizeof(uint64_t));
	case ARCH_SET_GS: /* it is ours */
		return s->b ? -EPERM : 0;
	case ARCH_GET_GS:
		return copy_out(s->b, &zero, sizeof(zero));
	default:
		return pass(s);
	}
}

/* A list of strings that can be read. */
static bool strings_valid(long list)
{
	char first;
	long s;

	for (; list; list += 8) {
		if (um_load_copy(&s, (void *)list, sizeof(s)))
			return false;
		if (!s)
			break;
		if (um_load_copy(&first, (void *)s, 1))
			return false;
	}
	return true;
}

static long do_exec(struct call *s, long dirfd, long name, long argv, long envp, long flags)
{
	char *none[] = { NULL }, path[PATH_MAX];
	long r = get_string(path, name);

	if (r < 0)
		return r;
	if (!strings_valid(argv) || !strings_valid(envp))
		return -EFAULT;
	if (is_exe(path))
		strcpy(path, exe);
	if (dirfd == AT_FDCWD && !flags)
		return outcome(execve(path, argv ? (char **)argv : none, (char **)envp));
	return outcome(
		execveat((int)dirfd, path, argv ? (char **)argv : none, (char **)envp, (int)flags));
}

/* A filter of the program must let our own calls pass. */
static long do_filter(struct call *s, long *filter)
{
	struct um_seccomp_filter f;
	struct sock_fprog prog;
	struct sock_filter code[BPF_MAXINSNS];
	long r;

	if (um_load_copy(&prog, (void *)*filter, sizeof(prog)))
		return -EFAULT;
	if (!prog.len || prog.len > BPF_MAXINSNS)
		return -EINVAL;
	if (um_load_copy(code, prog.filter, prog.len * sizeof(code[0])))
		return -EFAULT;
	prog.filter = code;
	r = um_seccomp_widen(&f, &prog);
	if (r < 0)
		return r;
	*filter = (long)&f.prog;
	r = kernel(s);
	um_seccomp_free(&f);
	return r;
}

static long do_seccomp(struct call *s)
{
	if (s->a == SECCOMP_SET_MODE_FILTER)
		return do_filter(s, &s->c);
	return s->a == SECCOMP_SET_MODE_STRICT ? -EINVAL : pass(s);
}

static long do_prctl(struct call *s)
{
	switch (s->a) {
	case PR_SET_SECCOMP:
		return s->b == SECCOMP_MODE_FILTER ? do_filter(s, &s->c) : -EINVAL;
	case PR_SET_SYSCALL_USER_DISPATCH:
		return -EINVAL;
	default:
		return pass(s);
	}
}

/* ---- all of them ---- */

static long dispatch(struct call *s)
{
	switch (s->nr) {
	case SYS_open:
		return do_open(s, AT_FDCWD, s->a, s->b, s->c);
	case SYS_openat:
		return do_open(s, s->a, s->b, s->c, s->d);
	case SYS_openat2:
		return do_openat2(s);
	case SYS_access:
		return do_access(s, AT_FDCWD, s->a, s->b, 0);
	case SYS_faccessat:
		return do_access(s, s->a, s->b, s->c, 0);
	case SYS_faccessat2:
		return do_access(s, s->a, s->b, s->c, s->d);
	case SYS_stat:
		return do_stat(s, AT_FDCWD, s->a, s->b, 0);
	case SYS_lstat:
		return do_stat(s, AT_FDCWD, s->a, s->b, AT_SYMLINK_NOFOLLOW);
	case SYS_newfstatat:
		return do_stat(s, s->a, s->b, s->c, s->d);
	case SYS_fstat:
		return do_fstat(s);
	case SYS_statx:
		return do_statx(s);
	case SYS_readlink:
		return do_readlink(s, AT_FDCWD, s->a, s->b, s->c);
	case SYS_readlinkat:
		return do_readlink(s, s->a, s->b, s->c, s->d);
	case SYS_chown:
	case SYS_lchown:
	case SYS_fchownat:
	case SYS_chmod:
	case SYS_fchmodat:
	case SYS_fchmodat2:
	case SYS_mknod:
	case SYS_mknodat:
	case SYS_setxattr:
	case SYS_lsetxattr:
	case SYS_getxattr:
	case SYS_lgetxattr:
	case SYS_listxattr:
	case SYS_llistxattr:
	case SYS_removexattr:
	case SYS_lremovexattr:
		return do_attribute(s);
	case SYS_ioctl:
		return do_ioctl(s);
	case SYS_mmap:
		return do_mmap(s);
	case SYS_close:
		return umbra_kind((int)s->a) ? outcome(close((int)s->a)) : pass(s);
	case SYS_close_range:
		return umbra_next((int)s->a) >= 0
			       ? outcome(close_range((unsigned)s->a, (unsigned)s->b, (int)s->c))
			       : pass(s);
	case SYS_dup:
		return do_dup(s, -1);
	case SYS_dup2:
	case SYS_dup3:
		return do_dup(s, s->b);
	case SYS_fcntl:
		return s->b == F_DUPFD || s->b == F_DUPFD_CLOEXEC ? do_dup(s, -1) : pass(s);
	case SYS_rt_sigaction:
		return um_load_sigaction((int)s->a, (uint64_t)s->b, (uint64_t)s->c, (size_t)s->d);
	case SYS_rt_sigprocmask:
		return do_sigprocmask(s);
	case SYS_rt_sigreturn:
		s->g[REG_RIP] = (greg_t)um_load_near(um_load_stub_restorer);
		return DISPATCHED;
	case SYS_sigaltstack:
		return do_sigaltstack(s);
	case SYS_rt_sigsuspend:
		return pass_mask(s, REG_RDI, false);
	case SYS_ppoll:
		return pass_mask(s, REG_R10, false);
	case SYS_pselect6:
		return pass_mask(s, REG_R9, true);
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		return pass_mask(s, REG_R8, false);
	case SYS_clone:
		return um_load_do_clone(s->t, s->uc, s->a, (uint64_t)s->b, (uint64_t)s->c,
					(uint64_t)s->d, (uint64_t)s->e);
	case SYS_fork:
		return um_load_do_clone(s->t, s->uc, SIGCHLD, 0, 0, 0, 0);
	case SYS_vfork:
		return um_load_do_clone(s->t, s->uc, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
	case SYS_clone3: /* C libraries have another way then */
	case SYS_rseq:	 /* our C library has registered this thread */
		return -ENOSYS;
	case SYS_execve:
		return do_exec(s, AT_FDCWD, s->a, s->b, s->c, 0);
	case SYS_execveat:
		return do_exec(s, s->a, s->b, s->c, s->d, s->e);
	case SYS_exit:
		um_load_do_exit(s->t, s->a);
	case SYS_set_tid_address:
		s->t->clear_tid = (uint64_t)s->a;
		return um_load_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
	case SYS_set_robust_list:
		s->t->robust_list = (uint64_t)s->a;
		return kernel(s);
	case SYS_arch_prctl:
		return do_arch_prctl(s);
	case SYS_brk:
		return (long)um_load_brk((uint64_t)s->a);
	case SYS_prctl:
		return do_prctl(s);
	case SYS_seccomp:
		return do_seccomp(s);
	default:
		um_load_patch((uint64_t)s->g[REG_RIP] - 2, s->nr, true);
		return pass(s);
	}
}

void um_load_dispatch(struct um_load_thread *t, ucontext_t *uc)
{
	greg_t *g = uc->uc_mcontext.gregs;
	struct call s = { .t = t,
			  .uc = uc,
			  .g = g,
			  .nr = g[REG_RAX],
			  .a = g[REG_RDI],
			  .b = g[REG_RSI],
			  .c = g[REG_RDX],
			  .d = g[REG_R10],
			  .e = g[REG_R8],
			  .f = g[REG_R9] };
	long r;

	if (s.nr == SYS_ioctl)
		um_load_patch((uint64_t)g[REG_RIP] - 2, s.nr, false);
	r = dispatch(&s);
	if (r != DISPATCHED)
		g[REG_RAX] = r;
}
