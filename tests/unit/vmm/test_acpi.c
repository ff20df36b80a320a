// SPDX-License-Identifier: MIT
/*
 * ACPI tables: found as a kernel finds them, checksums, and the judgement of iasl: the tables must
 * disassemble, and the DSDT must compile again, without error or warning, to the same bytes.
 *
 * argv[1] is iasl.
 */
#include "fixture.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include "vmm/acpi.h"
#include "vmm/aml.h"

static const char *iasl;
static char dir[] = "/tmp/umbra-acpi-XXXXXX";

static u8 sum(const u8 *p, size_t len)
{
	u8 s = 0;

	while (len--)
		s += *p++;
	return s;
}

static u32 get32(const void *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

static u64 get64(const void *p)
{
	u64 v;

	memcpy(&v, p, 8);
	return v;
}

static const u8 *table(const struct memory *m, u64 gpa, const char *signature)
{
	const u8 *p = mem_hva(m, gpa, 36);

	assert_non_null(p);
	assert_memory_equal(p, signature, 4);
	assert_true(gpa >= MEM_BIOS && gpa + get32(p + 4) <= MEM_BIOS_END);
	assert_int_equal(sum(p, get32(p + 4)), 0);
	return p;
}

static void run_iasl(const char *arguments, const char *must_say)
{
	char command[512], line[512];
	bool said = !must_say;
	FILE *f;

	snprintf(command, sizeof(command), "cd %s && %s %s 2>&1", dir, iasl, arguments);
	f = popen(command, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (must_say && strstr(line, must_say))
			said = true;
		if (strstr(line, "Error ") || strstr(line, "ACPI Error"))
			fail_msg("iasl %s: %s", arguments, line);
	}
	assert_int_equal(pclose(f), 0);
	assert_true(said);
}

static void write_table(const char *name, const u8 *p)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(p, 1, get32(p + 4), f), get32(p + 4));
	fclose(f);
}

static void compare_recompiled(const u8 *dsdt)
{
	u32 len = get32(dsdt + 4);
	u8 *again = malloc(len + 1);
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/again.aml", dir);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fread(again, 1, len + 1, f), len);
	fclose(f);
	/* Behind the header, in which iasl names itself. */
	assert_memory_equal(again + 36, dsdt + 36, len - 36);
	free(again);
}

static void check_tables(unsigned ncpus)
{
	struct memory m;
	const u8 *rsdp, *xsdt, *rsdt, *fadt, *madt, *dsdt, *facs;
	unsigned lapics = 0;

	assert_int_equal(mem_init(&m, 16 << 20), 0);
	assert_int_equal(acpi_write(&m, ncpus), 0);
	rsdp = mem_hva(&m, ACPI_RSDP_GPA, 36);
	assert_int_equal(ACPI_RSDP_GPA % 16, 0);
	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	rsdt = table(&m, get32(rsdp + 16), "RSDT");
	xsdt = table(&m, get64(rsdp + 24), "XSDT");
	assert_int_equal(get32(rsdt + 36), get64(xsdt + 36));
	assert_int_equal(get32(rsdt + 40), get64(xsdt + 44));
	fadt = table(&m, get64(xsdt + 36), "FACP");
	madt = table(&m, get64(xsdt + 44), "APIC");
	dsdt = table(&m, get32(fadt + 40), "DSDT");
	assert_int_equal(get64(fadt + 140), get32(fadt + 40));
	facs = mem_hva(&m, get32(fadt + 36), 64);
	assert_memory_equal(facs, "FACS", 4);
	assert_int_equal(get32(fadt + 36) % 64, 0);

	/* MADT entries fill the table exactly. */
	for (u32 at = 44; at < get32(madt + 4); at += madt[at + 1]) {
		assert_true(madt[at + 1] >= 6 && at + madt[at + 1] <= get32(madt + 4));
		if (madt[at] == 0)
			assert_int_equal(madt[at + 3], lapics++);
	}
	assert_int_equal(lapics, ncpus);

	write_table("facp", fadt);
	write_table("apic", madt);
	write_table("dsdt", dsdt);
	write_table("xsdt", xsdt);
	write_table("rsdt", rsdt);
	run_iasl("-d facp.aml apic.aml xsdt.aml rsdt.aml", NULL);
	run_iasl("-p disassembled -d dsdt.aml", NULL);
	/* -oa: no optimizing, so that the bytes can be compared. */
	run_iasl("-oa -p again disassembled.dsl", "0 Errors, 0 Warnings");
	compare_recompiled(dsdt);
	mem_fini(&m);
}

static void test_tables(void **state)
{
	(void)state;
	check_tables(1);
	check_tables(4);
	check_tables(254);
}

static void test_aml_limits(void **state)
{
	u8 buf[64];
	struct aml a;

	(void)state;
	aml_init(&a, buf, sizeof(buf));
	for (unsigned i = 0; i < 100; i++)
		aml_int(&a, 0x123456789);
	assert_true(a.failed);
	assert_true(a.len <= sizeof(buf));

	aml_init(&a, buf, sizeof(buf));
	aml_end(&a);
	assert_true(a.failed);

	aml_init(&a, buf, sizeof(buf));
	for (unsigned i = 0; i < AML_MAX_DEPTH + 1; i++)
		aml_package(&a, 1);
	assert_true(a.failed);

	aml_init(&a, buf, sizeof(buf));
	aml_name(&a, "TOOLONG");
	assert_true(a.failed);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_aml_limits),
	};
	char command[64];
	int failed;

	if (argc < 2 || !mkdtemp(dir))
		return 1;
	iasl = argv[1];
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) || failed;
}
