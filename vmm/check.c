// SPDX-License-Identifier: MIT
/* `umbra check`: what the CPU and the host offer, and what `--accel=auto` would pick. */
#include "check.h"

#include <cpuid.h>
#include <errno.h>
#include <limits.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
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

/* ---- the host ---- */

/* Looked at, not opened. */
static void print_node(void)
{
	struct stat st;

	if (stat("/dev/kvm", &st) < 0)
		printf("/dev/kvm        none: %s\n", strerror(errno));
	else if (!S_ISCHR(st.st_mode))
		printf("/dev/kvm        is not a device\n");
	else if (access("/dev/kvm", R_OK | W_OK) < 0)
		printf("/dev/kvm        is there, but not for this user (mode %o): %s\n",
		       st.st_mode & 07777, strerror(errno));
	else
		printf("/dev/kvm        is there, and this user may open it\n");
}

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

/* ---- what umbra makes of it ---- */

static int extension(int fd, long cap)
{
	return umbra_ioctl(fd, KVM_CHECK_EXTENSION, (void *)cap);
}

/* Make a VM with a vCPU, as every client begins.  0, or what went wrong. */
static const char *try_engine(void)
{
	int fd = umbra_open(), vm = -1, vcpu = -1;
	const char *wrong = NULL;

	if (fd < 0)
		return "it cannot be opened";
	if (umbra_ioctl(fd, KVM_GET_API_VERSION, NULL) != KVM_API_VERSION)
		wrong = "it does not speak version 12 of the API";
	else if ((vm = umbra_ioctl(fd, KVM_CREATE_VM, NULL)) < 0)
		wrong = "it cannot make a VM";
	else if (umbra_ioctl(vm, KVM_CREATE_IRQCHIP, NULL) < 0)
		wrong = "it cannot make interrupt controllers";
	else if ((vcpu = umbra_ioctl(vm, KVM_CREATE_VCPU, NULL)) < 0)
		wrong = "it cannot make a vCPU";
	else
		printf("engine          KVM API %d; up to %d vCPUs and %d memory slots a VM\n",
		       KVM_API_VERSION, extension(fd, KVM_CAP_MAX_VCPUS),
		       extension(fd, KVM_CAP_NR_MEMSLOTS));
	if (vcpu >= 0)
		umbra_close(vcpu);
	if (vm >= 0)
		umbra_close(vm);
	umbra_close(fd);
	return wrong;
}

/* True: programs that use /dev/kvm can run here. */
static bool print_soft(void)
{
	const char *wrong, *why;
	char preload[PATH_MAX];
	struct rlimit files;
	bool ok = true;

	if (code_works(&why)) {
		printf("generated code  may run\n");
	} else {
		printf("generated code  may not run (%s): the engine needs that\n", why);
		ok = false;
	}
	wrong = try_engine();
	if (wrong) {
		printf("engine          does not work: %s: %s\n", wrong, strerror(errno));
		ok = false;
	}
	if (exec_find_preload(preload, false)) {
		printf("umbra exec      puts %s in front of programs\n", preload);
	} else {
		printf("umbra exec      does not find libumbra-preload.so\n");
		ok = false;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 256)
		printf("descriptors     only %llu (`ulimit -n`): each VM and vCPU takes one\n",
		       (unsigned long long)files.rlim_cur);
	return ok;
}

int cmd_check(int argc, char **argv)
{
	char vendor[13], brand[49];
	const char *why;
	struct utsname u;
	struct sysinfo si;
	bool host, soft;

	(void)argv;
	if (argc > 1) {
		bool help = !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h");

		if (!help)
			msg("umbra check takes no arguments");
		else
			printf("Usage: umbra check\n"
			       "Tell what this host offers to virtual machines, and what "
			       "umbra makes of it.\n\n"
			       "Exit status: 0 if programs that use /dev/kvm can run here, "
			       "1 if not.\n");
		return help ? 0 : 2;
	}
	cpu_names(vendor, brand);
	printf("umbra           %s\n", umbra_version());
	printf("CPU             %s (%s)\n", *brand ? brand : "unknown", vendor);
	printf("virtualization  %s\n", cpuid_reg(1, 0, ECX) & BIT(5)		? "VMX"
				       : cpuid_reg(0x80000001, 0, ECX) & BIT(2) ? "SVM"
										: "none");
	printf("under a VMM     %s\n", cpuid_reg(1, 0, ECX) & BIT(31) ? "yes" : "no");
	printf("CPUs            %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
	if (sysinfo(&si) == 0)
		printf("memory          %llu MiB, %llu free\n",
		       (unsigned long long)si.totalram * si.mem_unit >> 20,
		       (unsigned long long)si.freeram * si.mem_unit >> 20);
	if (uname(&u) == 0)
		printf("kernel          %s %s\n", u.sysname, u.release);
	printf("instructions   ");
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++)
		if (cpuid_reg(features[i].leaf, features[i].subleaf, features[i].reg) &
		    BIT(features[i].bit))
			printf(" %s", features[i].name);
	printf("\n");
	print_node();
	soft = print_soft();
	host = accel_host_usable(&why);
	printf("--accel=auto    %s (%s)\n", host ? "host" : "soft", why);
	if (host || soft)
		printf("\nPrograms that use /dev/kvm can run here: %sCOMMAND\n",
		       host ? "" : "umbra exec -- ");
	else
		printf("\nPrograms that use /dev/kvm cannot run here; see above.\n");
	return host || soft ? 0 : 1;
}
