// SPDX-License-Identifier: MIT
/*
 * `umbra check`: what the CPU and the host offer, whether umbra's engine works here (a guest says), what
 * `--accel=auto` would pick, and what to type.  A line for each thing, marked if it is good (ok), worth knowing (note)
 * or in the way (FAIL); on a terminal, in colours.
 */
#include "check.h"

#include <cpuid.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <linux/kvm.h>
#include <linux/prctl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "accel.h"
#include "base/bits.h"
#include "base/types.h"
#include "exec.h"
#include "msg.h"
#include "umbra.h"

enum reg { EAX, EBX, ECX, EDX };

/* What the engine can hand to guests natively, in the order of CPUID. */
static const struct {
	const char *name;
	u32 leaf, subleaf;
	enum reg reg;
	u8 bit;
} features[] = {
	{ "sse3", 1, 0, ECX, 0 },	    { "ssse3", 1, 0, ECX, 9 },
	{ "fma", 1, 0, ECX, 12 },	    { "cx16", 1, 0, ECX, 13 },
	{ "sse4.1", 1, 0, ECX, 19 },	    { "sse4.2", 1, 0, ECX, 20 },
	{ "movbe", 1, 0, ECX, 22 },	    { "popcnt", 1, 0, ECX, 23 },
	{ "aes", 1, 0, ECX, 25 },	    { "xsave", 1, 0, ECX, 26 },
	{ "avx", 1, 0, ECX, 28 },	    { "rdrand", 1, 0, ECX, 30 },
	{ "fsgsbase", 7, 0, EBX, 0 },	    { "bmi1", 7, 0, EBX, 3 },
	{ "avx2", 7, 0, EBX, 5 },	    { "bmi2", 7, 0, EBX, 8 },
	{ "erms", 7, 0, EBX, 9 },	    { "avx512f", 7, 0, EBX, 16 },
	{ "rdseed", 7, 0, EBX, 18 },	    { "adx", 7, 0, EBX, 19 },
	{ "sha", 7, 0, EBX, 29 },	    { "vaes", 7, 0, ECX, 9 },
	{ "lzcnt", 0x80000001, 0, ECX, 5 },
};

static u32 cpuid_reg(u32 leaf, u32 subleaf, enum reg r)
{
	u32 v[4];

	if (!__get_cpuid_count(leaf, subleaf, &v[EAX], &v[EBX], &v[ECX], &v[EDX]))
		return 0;
	return v[r];
}

static void cpu_names(char vendor[13], char brand[49])
{
	u32 a, b, c, d;

	memset(vendor, 0, 13);
	memset(brand, 0, 49);
	if (__get_cpuid(0, &a, &b, &c, &d)) {
		memcpy(vendor, &b, 4);
		memcpy(vendor + 4, &d, 4);
		memcpy(vendor + 8, &c, 4);
	}
	for (u32 i = 0; i < 3; i++) {
		u32 v[4];

		if (!__get_cpuid(0x80000002 + i, &v[0], &v[1], &v[2], &v[3]))
			return;
		memcpy(brand + 16 * i, v, 16);
	}
}

/* ---- printing ---- */

enum mark { PLAIN, GOOD, NOTE, BAD };

#define LABEL "%-18s"

static void colour(enum mark m, const char *text)
{
	static const char *const codes[] = { "", "\033[32m", "\033[33m", "\033[31m" };

	if (m != PLAIN && isatty(STDOUT_FILENO))
		printf("%s%s\033[0m", codes[m], text);
	else
		printf("%s", text);
}

static void heading(const char *text)
{
	printf(isatty(STDOUT_FILENO) ? "\n\033[1m%s\033[0m\n" : "\n%s\n", text);
}

__attribute__((format(printf, 3, 4))) static void line(enum mark m, const char *label,
						       const char *fmt, ...)
{
	static const char *const words[] = { "    ", "ok  ", "note", "FAIL" };
	va_list ap;

	printf("  ");
	colour(m, words[m]);
	printf("  " LABEL, label);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* What to do about the line above. */
__attribute__((format(printf, 1, 2))) static void hint(const char *fmt, ...)
{
	va_list ap;

	printf("        " LABEL, "");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* ---- the host ---- */

static bool has_vmx(void)
{
	return cpuid_reg(1, 0, ECX) & BIT(5);
}

static bool has_svm(void)
{
	return cpuid_reg(0x80000001, 0, ECX) & BIT(2);
}

static bool under_hypervisor(void)
{
	return cpuid_reg(1, 0, ECX) & BIT(31);
}

/* The leaf that hypervisors sign: 12 letters in EBX, ECX, EDX. */
static void hypervisor_name(char name[13])
{
	u32 v[4];

	__cpuid(0x40000000, v[EAX], v[EBX], v[ECX], v[EDX]);
	memcpy(name, &v[EBX], 12);
	name[12] = 0;
	for (char *c = name; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

static void print_cpu(void)
{
	char vendor[13], brand[49], hypervisor[13];
	bool virt = has_vmx() || has_svm();

	cpu_names(vendor, brand);
	line(PLAIN, "CPU", "%s, %ld of them", *brand ? brand : vendor,
	     sysconf(_SC_NPROCESSORS_ONLN));
	if (under_hypervisor()) {
		hypervisor_name(hypervisor);
		line(PLAIN, "hypervisor", "%s: this host is itself a virtual machine",
		     *hypervisor ? hypervisor : "unknown");
	}
	line(virt ? GOOD : NOTE, "virtualization", "%s",
	     has_vmx()	 ? "VMX"
	     : has_svm() ? "SVM"
			 : "none: the CPU shows neither VMX nor SVM");
	if (!virt)
		hint("%s", under_hypervisor()
				   ? "Its owner would have to allow nested virtualization."
				   : "Perhaps the firmware's setup has switched it off.");
	printf("        %-17s", "instructions");
	for (unsigned i = 0, column = 0; i < ARRAY_SIZE(features); i++) {
		if (!(cpuid_reg(features[i].leaf, features[i].subleaf, features[i].reg) &
		      BIT(features[i].bit)))
			continue;
		if (column > 60) {
			printf("\n        %-17s", "");
			column = 0;
		}
		column += (unsigned)printf(" %s", features[i].name);
	}
	putchar('\n');
}

static void print_system(void)
{
	struct utsname u;
	struct sysinfo si;

	if (uname(&u) == 0)
		line(PLAIN, "kernel", "%s %s", u.sysname, u.release);
	if (sysinfo(&si) == 0)
		line(PLAIN, "memory", "%llu MiB, %llu of them free",
		     (unsigned long long)si.totalram * si.mem_unit >> 20,
		     (unsigned long long)si.freeram * si.mem_unit >> 20);
}

/* Looked at, not opened. */
static void print_node(void)
{
	struct stat st;
	struct group *g;

	if (stat("/dev/kvm", &st) < 0) {
		line(NOTE, "/dev/kvm", "none: %s", strerror(errno));
		if (has_vmx() || has_svm())
			hint("Is the module there?  modprobe %s",
			     has_vmx() ? "kvm_intel" : "kvm_amd");
	} else if (!S_ISCHR(st.st_mode)) {
		line(NOTE, "/dev/kvm", "is not a device");
	} else if (access("/dev/kvm", R_OK | W_OK) < 0) {
		g = getgrgid(st.st_gid);
		line(NOTE, "/dev/kvm", "is there, but not for this user (mode %o, group %s): %s",
		     st.st_mode & 07777, g ? g->gr_name : "unknown", strerror(errno));
		if (g && st.st_gid && (st.st_mode & 060) == 060)
			hint("Join its group: adduser USER %s", g->gr_name);
	} else {
		line(has_vmx() || has_svm() ? GOOD : NOTE, "/dev/kvm",
		     "is there, and this user may open it");
	}
}

/* ---- what umbra makes of it ---- */

/*
 * The engine generates code: it writes through one mapping of a memfd, and executes through another.  Security
 * modules and vm.memfd_noexec may forbid it.
 */
static bool code_works(const char **why)
{
	static const u8 code[] = { 0xb8, 42, 0, 0, 0, 0xc3 }; /* mov eax, 42; ret */
	int fd = memfd_create("umbra-check", MFD_CLOEXEC);
	void *p = MAP_FAILED;
	int r = 0;

	*why = strerror(errno);
	if (fd < 0)
		return false;
	if (write(fd, code, sizeof(code)) == sizeof(code))
		p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	*why = strerror(errno);
	if (p != MAP_FAILED) {
		r = ((int (*)(void))p)();
		munmap(p, 4096);
	}
	close(fd);
	return r == 42;
}

static int extension(int fd, long cap)
{
	return umbra_ioctl(fd, KVM_CHECK_EXTENSION, (void *)cap);
}

/* A VM with one vCPU in real mode, as every client makes it. */
struct guest {
	int sys, vm, vcpu;
	u8 *mem;
	struct kvm_run *run;
	size_t run_size;
};

#define GUEST_MEM  0x10000
#define GUEST_CODE 0x1000

/* Of a few batches the fastest counts: others share this host's CPUs. */
#define BATCHES 10
#define EXITS	300

/* fldpi: through a generated stub; mov al, 42; again: out 0x10, al; jmp again */
static const u8 guest_code[] = { 0xd9, 0xeb, 0xb0, 42, 0xe6, 0x10, 0xeb, 0xfc };

/* NULL, or what went wrong, with errno. */
static const char *guest_make(struct guest *g)
{
	struct kvm_userspace_memory_region region = { .memory_size = GUEST_MEM };
	struct kvm_regs regs = { .rip = GUEST_CODE, .rflags = 2 };
	struct kvm_sregs sregs;
	int size;

	g->sys = umbra_open();
	if (g->sys < 0)
		return "it cannot be opened";
	if (umbra_ioctl(g->sys, KVM_GET_API_VERSION, NULL) != KVM_API_VERSION)
		return "it does not speak version 12 of the API";
	g->vm = umbra_ioctl(g->sys, KVM_CREATE_VM, NULL);
	if (g->vm < 0)
		return "it cannot make a VM";
	if (umbra_ioctl(g->vm, KVM_CREATE_IRQCHIP, NULL) < 0)
		return "it cannot make interrupt controllers";
	g->vcpu = umbra_ioctl(g->vm, KVM_CREATE_VCPU, NULL);
	if (g->vcpu < 0)
		return "it cannot make a vCPU";
	size = umbra_ioctl(g->sys, KVM_GET_VCPU_MMAP_SIZE, NULL);
	g->run_size = size > 0 ? (size_t)size : 0;
	g->run = umbra_mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	g->mem = mmap(NULL, GUEST_MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (g->run == MAP_FAILED || g->mem == MAP_FAILED)
		return "it cannot map memory";
	memcpy(g->mem + GUEST_CODE, guest_code, sizeof(guest_code));
	region.userspace_addr = (uintptr_t)g->mem;
	if (umbra_ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ||
	    umbra_ioctl(g->vcpu, KVM_GET_SREGS, &sregs) < 0)
		return "it cannot give memory to a guest";
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (umbra_ioctl(g->vcpu, KVM_SET_SREGS, &sregs) < 0 ||
	    umbra_ioctl(g->vcpu, KVM_SET_REGS, &regs) < 0)
		return "it cannot set registers";
	return NULL;
}

/* The guest's next word, or -1. */
static int guest_out(const struct guest *g)
{
	errno = 0;
	if (umbra_ioctl(g->vcpu, KVM_RUN, NULL) < 0 || g->run->exit_reason != KVM_EXIT_IO)
		return -1;
	return ((const u8 *)g->run)[g->run->io.data_offset];
}

/* Nanoseconds from the guest to here and back; less than 0 if it does not run. */
static double guest_exit_ns(const struct guest *g)
{
	double best = -1;

	for (unsigned batch = 0; batch < BATCHES; batch++) {
		struct timespec from, to;
		double ns;

		clock_gettime(CLOCK_MONOTONIC, &from);
		for (unsigned i = 0; i < EXITS; i++)
			if (guest_out(g) != 42)
				return -1;
		clock_gettime(CLOCK_MONOTONIC, &to);
		ns = ((double)(to.tv_sec - from.tv_sec) * 1e9 +
		      (double)(to.tv_nsec - from.tv_nsec)) /
		     EXITS;
		if (best < 0 || ns < best)
			best = ns;
	}
	return best;
}

static void guest_end(struct guest *g)
{
	if (g->mem != MAP_FAILED)
		munmap(g->mem, GUEST_MEM);
	if (g->run != MAP_FAILED)
		munmap(g->run, g->run_size);
	for (int *fd = (int[]){ g->vcpu, g->vm, g->sys, -2 }; *fd != -2; fd++)
		if (*fd >= 0)
			umbra_close(*fd);
}

static bool print_guest(void)
{
	struct guest g = { -1, -1, -1, MAP_FAILED, MAP_FAILED, 0 };
	const char *wrong = guest_make(&g);
	double ns;

	if (wrong) {
		line(BAD, "engine", "does not work: %s: %s", wrong, strerror(errno));
		guest_end(&g);
		return false;
	}
	line(GOOD, "KVM API", "version %d; up to %d vCPUs and %d memory slots a VM",
	     KVM_API_VERSION, extension(g.sys, KVM_CAP_MAX_VCPUS),
	     extension(g.sys, KVM_CAP_NR_MEMSLOTS));
	ns = guest_exit_ns(&g);
	if (ns >= 0)
		line(GOOD, "a guest", "runs; from it to its VMM and back takes %.2f us", ns / 1000);
	else
		line(BAD, "a guest", "does not run: exit reason %u, %s", g.run->exit_reason,
		     strerror(errno));
	guest_end(&g);
	return ns >= 0;
}

static void print_limits(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < 256)
		line(NOTE, "descriptors", "only %llu (`ulimit -n`): each VM and vCPU takes some",
		     (unsigned long long)r.rlim_cur);
	if (getrlimit(RLIMIT_FSIZE, &r) == 0 && r.rlim_cur != RLIM_INFINITY)
		line(NOTE, "size of files",
		     "at most %llu KiB (`ulimit -f`), which holds for generated code too",
		     (unsigned long long)r.rlim_cur >> 10);
	if (getrlimit(RLIMIT_AS, &r) == 0 && r.rlim_cur != RLIM_INFINITY)
		line(NOTE, "address space",
		     "at most %llu MiB (`ulimit -v`), guests' memory included",
		     (unsigned long long)r.rlim_cur >> 20);
}

/* What umbra exec needs. */
static bool print_exec(void)
{
	char path[PATH_MAX];
	bool ok = exec_find_preload(path, false);

	if (ok)
		line(GOOD, "umbra exec", "puts %s in front of programs", path);
	else
		line(BAD, "umbra exec", "does not find libumbra-preload.so");
	/* The kernel's answer to "switch it off" is whether it has it. */
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0) < 0)
		line(NOTE, "static programs",
		     "cannot be reached: the kernel has no system call user dispatch (%s)",
		     strerror(errno));
	else if (!exec_find_loader(path))
		line(NOTE, "static programs", "cannot be reached: umbra-load is not found");
	else
		line(GOOD, "static programs", "run under %s", path);
	return ok;
}

/* True: programs that use /dev/kvm can run here. */
static bool print_soft(void)
{
	const char *why;
	bool code = code_works(&why), guest, exec;

	if (code) {
		line(GOOD, "generated code", "may run");
	} else {
		line(BAD, "generated code", "may not run (%s): the engine needs that", why);
		hint("See vm.memfd_noexec, and the rules of SELinux and the like.");
	}
	/* A guest needs generated code at its first instruction that is not an integer one. */
	guest = code && print_guest();
	print_limits();
	exec = print_exec();
	return code && guest && exec;
}

/* ---- what to do ---- */

/* The first of the directories in PATH that has this program. */
static bool find_in_path(const char *name, char *path)
{
	const char *dirs = getenv("PATH");

	for (dirs = dirs ? dirs : "/usr/local/bin:/usr/bin:/bin"; *dirs;
	     dirs += strspn(dirs, ":")) {
		size_t len = strcspn(dirs, ":");

		if (snprintf(path, PATH_MAX, "%.*s/%s", (int)len, dirs, name) < PATH_MAX &&
		    access(path, X_OK) == 0)
			return true;
		dirs += len;
	}
	return false;
}

static void print_commands(bool host)
{
	const char *prefix = host ? "" : "umbra exec -- ";
	char path[PATH_MAX];

	line(PLAIN, "any program", "%sCOMMAND...", prefix);
	line(PLAIN, "a kernel", "umbra run --kernel VMLINUZ --initrd INITRD");
	if (find_in_path("qemu-system-x86_64", path))
		line(PLAIN, "QEMU", "%sqemu-system-x86_64 -accel kvm -cpu host -m 2G DISK", prefix);
	else
		line(PLAIN, "QEMU", "is not installed");
	if (find_in_path("virsh", path)) {
		line(PLAIN, "libvirt", "%svirsh -c qemu:///session start DOMAIN", prefix);
		if (!host)
			hint("A libvirtd that runs already was not started this way: end it "
			     "first.");
	} else {
		line(PLAIN, "libvirt", "is not installed");
	}
}

static int usage(const char *arg)
{
	if (strcmp(arg, "--help") && strcmp(arg, "-h")) {
		msg("umbra check takes no arguments");
		return 2;
	}
	printf("Usage: umbra check\n"
	       "Tell what this host offers to virtual machines, whether umbra's engine works here, "
	       "and\n"
	       "what to type.  Lines are marked: ok, note (worth knowing), FAIL (in the way).\n\n"
	       "Exit status: 0 if programs that use /dev/kvm can run here, 1 if not.\n");
	return 0;
}

int cmd_check(int argc, char **argv)
{
	const char *why;
	bool host, soft;

	if (argc > 1)
		return usage(argv[1]);
	printf("umbra %s\n", umbra_version());
	heading("This host");
	print_cpu();
	print_system();
	print_node();
	heading("umbra's engine");
	soft = print_soft();
	host = accel_host_usable(&why);
	heading(host || soft ? "What to type" : "Programs that use /dev/kvm cannot run here");
	if (host || soft) {
		line(GOOD, "--accel=auto", "picks the %s (%s)", host ? "host's KVM" : "engine",
		     why);
		print_commands(host);
	} else {
		line(BAD, "the host's KVM", "%s", why);
		line(BAD, "umbra's engine", "see above");
	}
	return host || soft ? 0 : 1;
}
