// SPDX-License-Identifier: MIT
/* The bus, guest memory, and the command line. */
#include "fixture.h"

#include <errno.h>

#include "base/size.h"
#include "vmm/memory.h"
#include "vmm/options.h"

struct seen {
	unsigned calls, last_len;
	u64 last_offset;
};

static void device(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct seen *s = opaque;

	s->calls++;
	s->last_len = len;
	s->last_offset = offset;
	if (!write)
		memset(data, 0x11 * (int)s->calls, len);
}

static void test_bus(void **state)
{
	struct bus bus = { 0 };
	struct seen wide = { 0 }, narrow = { 0 };
	u32 v = 0;

	(void)state;
	assert_int_equal(bus_add(&bus, 0x100, 8, 4, device, &wide), 0);
	assert_int_equal(bus_add(&bus, 0x108, 4, 1, device, &narrow), 0);
	assert_int_equal(bus_add(&bus, 0x107, 1, 1, device, &wide), -EEXIST);
	bus_access(&bus, 0x104, &v, 4, false);
	assert_int_equal(wide.calls, 1);
	assert_int_equal(wide.last_offset, 4);
	assert_int_equal(v, 0x11111111);
	/* A device of bytes sees bytes. */
	bus_access(&bus, 0x108, &v, 4, false);
	assert_int_equal(narrow.calls, 4);
	assert_int_equal(v, 0x44332211);
	/* An access across the end of a range reaches both neighbours. */
	bus_access(&bus, 0x106, &v, 4, true);
	assert_int_equal(wide.calls, 3);
	assert_int_equal(narrow.calls, 6);
	/* Nobody there. */
	bus_access(&bus, 0x10a, &v, 4, false);
	assert_int_equal(v >> 16, 0xffff);
	bus_access(&bus, 0xfffe, &v, 4, true);
}

static void test_bus_full(void **state)
{
	struct bus bus = { 0 };
	struct seen s = { 0 };

	(void)state;
	for (unsigned i = 0; i < BUS_MAX_RANGES; i++)
		assert_int_equal(bus_add(&bus, i, 1, 1, device, &s), 0);
	assert_int_equal(bus_add(&bus, 1000, 1, 1, device, &s), -ENOSPC);
}

static void test_memory(void **state)
{
	struct memory m;

	(void)state;
	assert_int_equal(mem_init(&m, 4096), -EINVAL);
	assert_int_equal(mem_init(&m, (4 << 20) + 1), -EINVAL);
	assert_int_equal(mem_init(&m, MEM_LOW_MAX + (1 << 20)), 0);
	assert_int_equal(m.nregions, 2);
	assert_non_null(mem_hva(&m, 0, 1));
	assert_non_null(mem_hva(&m, MEM_LOW_MAX - 1, 1));
	assert_null(mem_hva(&m, MEM_LOW_MAX - 1, 2));
	assert_null(mem_hva(&m, MEM_LOW_MAX, 1));
	assert_non_null(mem_hva(&m, MEM_HIGH_BASE, 1 << 20));
	assert_null(mem_hva(&m, MEM_HIGH_BASE, (1 << 20) + 1));
	assert_null(mem_hva(&m, MEM_HIGH_BASE + (1 << 20), 1));
	/* Sums that overflow. */
	assert_null(mem_hva(&m, 16, ~0ull));
	assert_null(mem_hva(&m, ~0ull, 2));
	assert_null(mem_hva(&m, ~0ull - 15, 32));
	assert_int_equal(mem_write(&m, MEM_LOW_MAX - 2, "abc", 3), -EFAULT);
	mem_fini(&m);
}

static void test_e820(void **state)
{
	struct e820_entry map[E820_MAX];
	struct memory m;
	unsigned n;
	u64 ram = 0;

	(void)state;
	assert_int_equal(mem_init(&m, MEM_LOW_MAX + (64 << 20)), 0);
	n = mem_e820(&m, map);
	for (unsigned i = 0; i < n; i++) {
		assert_true(i == 0 || map[i].addr >= map[i - 1].addr + map[i - 1].size);
		if (map[i].type != E820_TYPE_RAM)
			continue;
		/* Whatever is called RAM is RAM. */
		assert_non_null(mem_hva(&m, map[i].addr, map[i].size));
		ram += map[i].size;
	}
	assert_int_equal(ram, m.size - (MEM_BIOS_END - MEM_EBDA));
	mem_fini(&m);
}

static void test_sizes(void **state)
{
	u64 v;

	(void)state;
	assert_true(um_parse_size("512", &v) && v == 512ull << 20);
	assert_true(um_parse_size("512M", &v) && v == 512ull << 20);
	assert_true(um_parse_size("2g", &v) && v == 2ull << 30);
	assert_true(um_parse_size("4096k", &v) && v == 4096ull << 10);
	assert_true(um_parse_size("1T", &v) && v == 1ull << 40);
	assert_false(um_parse_size("", &v));
	assert_false(um_parse_size("M", &v));
	assert_false(um_parse_size("-1", &v));
	assert_false(um_parse_size("12MB", &v));
	assert_false(um_parse_size("99999999999999999999", &v));
	assert_false(um_parse_size("17592186044416M", &v));
}

static enum options_result parse(struct run_options *o, const char *line)
{
	char *argv[32], *copy = strdup(line);
	static char keep[8][512]; /* options point into the arguments */
	static unsigned next;
	char *buf = keep[next++ % 8];
	int argc = 0;
	enum options_result r;

	snprintf(buf, 512, "%s", copy);
	free(copy);
	for (char *p = strtok(buf, " "); p; p = strtok(NULL, " "))
		argv[argc++] = p;
	argv[argc] = NULL;
	r = options_parse(o, argc, argv);
	if (r != OPTIONS_OK)
		options_free(o);
	return r;
}

static void test_options(void **state)
{
	struct run_options o;

	(void)state;
	assert_int_equal(parse(&o, "run --kernel k"), OPTIONS_OK);
	assert_int_equal(o.mem, 512 << 20);
	assert_int_equal(o.cpus, 1);
	assert_string_equal(o.append, "console=ttyS0");
	options_free(&o);

	assert_int_equal(parse(&o, "run --kernel=k --initrd i --append quiet --mem 2G --cpus 4 "
				   "--disk a.img --disk b,,c.img,ro --accel soft --engine interp "
				   "--trace exits,mmu --console virtio --smm --debug-exit -v"),
			 OPTIONS_OK);
	assert_string_equal(o.initrd, "i");
	assert_string_equal(o.append, "quiet");
	assert_int_equal(o.mem, 2ull << 30);
	assert_int_equal(o.cpus, 4);
	assert_int_equal(o.ndisks, 2);
	assert_string_equal(o.disk[0].path, "a.img");
	assert_false(o.disk[0].read_only);
	assert_string_equal(o.disk[1].path, "b,c.img");
	assert_true(o.disk[1].read_only);
	assert_int_equal(o.accel, ACCEL_SOFT);
	assert_string_equal(o.engine, "interp");
	assert_true(o.virtio_console && o.smm && o.debug_exit && o.verbose);
	options_free(&o);
}

static void test_bad_options(void **state)
{
	static const char *const bad[] = {
		"run",
		"run --kernel",
		"run --kernel k extra",
		"run --kernel k --mem 0",
		"run --kernel k --mem lots",
		"run --kernel k --mem 5000k1",
		"run --kernel k --cpus 0",
		"run --kernel k --cpus 255",
		"run --kernel k --cpus two",
		"run --kernel k --disk d,rw",
		"run --kernel k --disk ,ro",
		"run --kernel k --accel kvm",
		"run --kernel k --engine fast",
		"run --kernel k --trace exits,none",
		"run --kernel k --console vga",
		"run --kernel k --nonsense",
		"run --kernel k -z",
	};
	struct run_options o;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (parse(&o, bad[i]) != OPTIONS_BAD)
			fail_msg("accepted: %s", bad[i]);
	assert_int_equal(parse(&o, "run --help"), OPTIONS_HELP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bus),	    cmocka_unit_test(test_bus_full),
		cmocka_unit_test(test_memory),	    cmocka_unit_test(test_e820),
		cmocka_unit_test(test_sizes),	    cmocka_unit_test(test_options),
		cmocka_unit_test(test_bad_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
