// SPDX-License-Identifier: MIT
/* `umbra check`: what the CPU and the host offer, and what `--accel=auto` would pick. */
#include "check.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "accel.h"
#include "base/bits.h"
#include "base/types.h"
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

int cmd_check(int argc, char **argv)
{
	char vendor[13], brand[49];
	const char *why;
	struct utsname u;
	struct sysinfo si;
	bool host;

	(void)argv;
	if (argc > 1) {
		bool help = !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h");

		if (!help)
			msg("umbra check takes no arguments");
		else
			printf("Usage: umbra check\nTell what this host offers to virtual "
			       "machines.\n");
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
	host = accel_host_usable(&why);
	printf("\n--accel=auto    %s (%s)\n", host ? "host" : "soft", why);
	return 0;
}
