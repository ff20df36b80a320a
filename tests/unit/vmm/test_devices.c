// SPDX-License-Identifier: MIT
/* The clock, the keyboard controller, ACPI's fixed hardware, and PCI configuration. */
#include "fixture.h"

#include <linux/pci_regs.h>
#include <time.h>

#include "vmm/i8042.h"
#include "vmm/memory.h"
#include "vmm/pci.h"
#include "vmm/pm.h"
#include "vmm/rtc.h"

struct env {
	struct mock_board board;
	struct loop_thread loop;
	struct memory mem;
	struct rtc *rtc;
};

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	mock_board_init(&e->board);
	assert_int_equal(loop_init(&e->loop.loop), 0);
	assert_int_equal(mem_init(&e->mem, 64 << 20), 0);
	e->rtc = rtc_new(&e->board.board, &e->loop.loop, &e->mem);
	assert_non_null(e->rtc);
	loop_thread_start(&e->loop);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	loop_thread_stop(&e->loop);
	rtc_free(e->rtc);
	loop_fini(&e->loop.loop);
	mem_fini(&e->mem);
	free(e);
	return 0;
}

static u8 cmos(struct env *e, u8 reg)
{
	out8(rtc_io, e->rtc, 0, reg);
	return in8(rtc_io, e->rtc, 1);
}

static void set_cmos(struct env *e, u8 reg, u8 v)
{
	out8(rtc_io, e->rtc, 0, reg);
	out8(rtc_io, e->rtc, 1, v);
}

static unsigned bcd(u8 v)
{
	return (v >> 4) * 10u + (v & 15u);
}

/* Read as software does: not during an update, and twice the same second. */
static time_t read_clock(struct env *e)
{
	struct tm tm = { 0 };
	u8 sec;

	do {
		while (cmos(e, 10) & 0x80)
			;
		sec = cmos(e, 0);
		tm.tm_sec = (int)bcd(sec);
		tm.tm_min = (int)bcd(cmos(e, 2));
		tm.tm_hour = (int)bcd(cmos(e, 4));
		tm.tm_mday = (int)bcd(cmos(e, 7));
		tm.tm_mon = (int)bcd(cmos(e, 8)) - 1;
		tm.tm_year = (int)(bcd(cmos(e, 0x32)) * 100 + bcd(cmos(e, 9))) - 1900;
	} while (cmos(e, 0) != sec);
	return timegm(&tm);
}

static void test_rtc_time(void **state)
{
	struct env *e = *state;
	time_t now = time(NULL), t = read_clock(e);

	assert_true(t >= now && t <= now + 2);
	assert_true(cmos(e, 13) & 0x80); /* battery good */
	/* Memory above 1 MiB in KiB, and above 16 MiB in 64 KiB. */
	assert_int_equal(cmos(e, 0x30) | cmos(e, 0x31) << 8, 63 << 10);
	assert_int_equal(cmos(e, 0x34) | cmos(e, 0x35) << 8, 48 << 4);
}

static void test_rtc_set_time(void **state)
{
	struct env *e = *state;
	struct tm want = { .tm_year = 99,
			   .tm_mon = 11,
			   .tm_mday = 31,
			   .tm_hour = 23,
			   .tm_min = 59,
			   .tm_sec = 58 };
	time_t t;

	set_cmos(e, 11, 0x82); /* SET, 24 hours, BCD */
	set_cmos(e, 0, 0x58);
	set_cmos(e, 2, 0x59);
	set_cmos(e, 4, 0x23);
	set_cmos(e, 7, 0x31);
	set_cmos(e, 8, 0x12);
	set_cmos(e, 9, 0x99);
	set_cmos(e, 0x32, 0x19);
	assert_int_equal(cmos(e, 0), 0x58);
	set_cmos(e, 11, 0x02);
	t = read_clock(e);
	assert_true(t >= timegm(&want) && t <= timegm(&want) + 1);
	/* Over the turn of the century. */
	wait_until(read_clock(e) >= timegm(&want) + 2);
	assert_int_equal(cmos(e, 0x32), 0x20);
	assert_int_equal(cmos(e, 9), 0x00);
	/* 12-hour binary format of the same time: 12 o'clock at night. */
	set_cmos(e, 11, 0x04);
	assert_int_equal(cmos(e, 4), 12);
	assert_int_equal(cmos(e, 0x32), 20);
}

static void test_rtc_nonsense(void **state)
{
	struct env *e = *state;

	/* Any byte in any register, in every format: no crash, and reads go on. */
	srand(1);
	for (unsigned i = 0; i < 20000; i++) {
		u8 reg = (u8)(rand() & 0x3f);

		set_cmos(e, reg, (u8)rand());
		cmos(e, (u8)(rand() & 0x7f));
	}
}

static void test_rtc_interrupts(void **state)
{
	struct env *e = *state;
	unsigned before;

	/* Periodic, 1024 Hz. */
	set_cmos(e, 10, 0x26);
	set_cmos(e, 11, 0x42);
	wait_until(mock_rises(&e->board, RTC_IRQ) >= 1);
	assert_int_equal(cmos(e, 12) & 0xc0, 0xc0);
	wait_until(mock_rises(&e->board, RTC_IRQ) >= 2);
	set_cmos(e, 11, 0x02);
	cmos(e, 12);
	assert_false(e->board.line[RTC_IRQ]);
	/* Update ended: once a second. */
	before = mock_rises(&e->board, RTC_IRQ);
	set_cmos(e, 11, 0x12);
	wait_until(mock_rises(&e->board, RTC_IRQ) == before + 1);
	assert_int_equal(cmos(e, 12) & 0x90, 0x90);
	/* Alarm at any time of any hour: each second. */
	before = mock_rises(&e->board, RTC_IRQ);
	set_cmos(e, 1, 0xff);
	set_cmos(e, 3, 0xff);
	set_cmos(e, 5, 0xff);
	set_cmos(e, 11, 0x22);
	wait_until(mock_rises(&e->board, RTC_IRQ) > before);
	assert_int_equal(cmos(e, 12) & 0xa0, 0xa0);
	/* An hour that does not come: no alarm. */
	set_cmos(e, 5, bcd(cmos(e, 4)) >= 12 ? 0x03 : 0x15);
	cmos(e, 12);
	before = mock_rises(&e->board, RTC_IRQ);
	usleep(1200000);
	assert_int_equal(mock_rises(&e->board, RTC_IRQ), before);
}

static void test_i8042(void **state)
{
	struct mock_board b;
	struct i8042 *k;

	(void)state;
	mock_board_init(&b);
	k = i8042_new(&b.board);
	/* Self-test. */
	out8(i8042_status_io, k, 0, 0xaa);
	assert_true(in8(i8042_status_io, k, 0) & 1);
	assert_int_equal(in8(i8042_data_io, k, 0), 0x55);
	assert_false(in8(i8042_status_io, k, 0) & 1);
	out8(i8042_status_io, k, 0, 0xab);
	assert_int_equal(in8(i8042_data_io, k, 0), 0);
	/* The command byte, and interrupts by it. */
	out8(i8042_status_io, k, 0, 0x60);
	out8(i8042_data_io, k, 0, 0x05);
	out8(i8042_status_io, k, 0, 0x20);
	assert_true(b.line[I8042_IRQ]);
	assert_int_equal(in8(i8042_data_io, k, 0), 0x05);
	assert_false(b.line[I8042_IRQ]);
	/* No keyboard: a command to it times out. */
	out8(i8042_data_io, k, 0, 0xff);
	assert_int_equal(in8(i8042_status_io, k, 0) & 0x41, 0x41);
	assert_int_equal(in8(i8042_data_io, k, 0), 0xfe);
	assert_int_equal(in8(i8042_status_io, k, 0) & 0x41, 0);
	/* The reset pulse. */
	assert_int_equal(b.reason, STOP_NONE);
	out8(i8042_status_io, k, 0, 0xff);
	assert_int_equal(b.reason, STOP_NONE);
	out8(i8042_status_io, k, 0, 0xfe);
	assert_int_equal(b.reason, STOP_RESET);
	i8042_free(k);
}

static void test_pm(void **state)
{
	struct mock_board b;
	struct pm *pm;
	u32 t0, t1;

	(void)state;
	mock_board_init(&b);
	pm = pm_new(&b.board);
	/* 3.579545 MHz: 20 ms are 71591 ticks. */
	t0 = in32(pm_io, pm, PM_TMR);
	usleep(20000);
	t1 = in32(pm_io, pm, PM_TMR);
	assert_true(t1 - t0 >= 71590);
	assert_true(t1 - t0 < 71590 * 50);
	/* ACPI mode is on and stays on. */
	out16(pm_io, pm, PM1_CNT, 0);
	assert_int_equal(in16(pm_io, pm, PM1_CNT) & 1, 1);
	/* The button raises the SCI only when enabled; its status is cleared by writing 1. */
	pm_power_button(pm);
	assert_int_equal(in16(pm_io, pm, PM1_EVT), 0x100);
	assert_false(b.line[PM_SCI_IRQ]);
	out16(pm_io, pm, PM1_EVT + 2, 0x100);
	assert_true(b.line[PM_SCI_IRQ]);
	assert_int_equal(in16(pm_io, pm, PM1_EVT + 2), 0x100);
	out16(pm_io, pm, PM1_EVT, 0x100);
	assert_false(b.line[PM_SCI_IRQ]);
	assert_int_equal(in16(pm_io, pm, PM1_EVT), 0);
	/* Sleep states: only S5, and only with the enable bit. */
	out16(pm_io, pm, PM1_CNT, PM_S5_TYPE << 10);
	out16(pm_io, pm, PM1_CNT, 0x2000 | 1 << 10);
	assert_int_equal(b.reason, STOP_NONE);
	out16(pm_io, pm, PM1_CNT, 0x2000 | PM_S5_TYPE << 10);
	assert_int_equal(b.reason, STOP_POWEROFF);
	pm_free(pm);

	out32(debug_exit_io, &b.board, 0, 21);
	assert_int_equal(b.reason, STOP_DEBUG);
	assert_int_equal(b.code, 43);
}

static u8 last_bar_write;

static void bar(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	(void)opaque;
	if (write)
		last_bar_write = *(u8 *)data;
	else
		memset(data, (int)(offset & 0xff), len);
}

static u32 conf(struct pci_host *h, unsigned slot, unsigned reg)
{
	out32(pci_conf_io, h, 0, 0x80000000u | slot << 11 | (reg & ~3u));
	return in32(pci_conf_io, h, 4);
}

static void set_conf(struct pci_host *h, unsigned slot, unsigned reg, u32 v)
{
	out32(pci_conf_io, h, 0, 0x80000000u | slot << 11 | reg);
	out32(pci_conf_io, h, 4, v);
}

static void test_pci(void **state)
{
	struct mock_board b;
	struct pci_host *h;
	struct pci_dev d = { .vendor = 0x1234,
			     .device = 0x5678,
			     .class = 0xff0000,
			     .has_intx = true,
			     .bar = { { 0x1000, bar } } };
	struct pci_dev d2 = d;
	u32 base, v = 0;

	(void)state;
	mock_board_init(&b);
	h = pci_host_new(&b.board);
	assert_int_equal(pci_add(h, &d), 0);
	assert_int_equal(pci_add(h, &d2), 0);
	assert_int_equal(in32(pci_conf_io, h, 0), 0);
	assert_int_equal(conf(h, 0, PCI_VENDOR_ID), 0x0d578086);
	assert_int_equal(conf(h, 0, PCI_CLASS_REVISION) >> 16, 0x0600);
	assert_int_equal(conf(h, 1, PCI_VENDOR_ID), 0x56781234);
	assert_int_equal(conf(h, 9, PCI_VENDOR_ID), 0xffffffff);
	/* Another bus, another function: nobody. */
	out32(pci_conf_io, h, 0, 0x80010800);
	assert_int_equal(in32(pci_conf_io, h, 4), 0xffffffff);
	out32(pci_conf_io, h, 0, 0x80000900);
	assert_int_equal(in32(pci_conf_io, h, 4), 0xffffffff);
	/* Not enabled. */
	out32(pci_conf_io, h, 0, 0x00000800);
	assert_int_equal(in32(pci_conf_io, h, 4), 0xffffffff);
	/* Bytes of a register. */
	out32(pci_conf_io, h, 0, 0x80000800);
	assert_int_equal(in8(pci_conf_io, h, 5), 0x12);
	assert_int_equal(in16(pci_conf_io, h, 6), 0x5678);

	/* BAR: sizing, moving, decoding. */
	base = conf(h, 1, PCI_BASE_ADDRESS_0);
	assert_true(base >= PCI_MMIO_BASE && base < PCI_MMIO_END);
	set_conf(h, 1, PCI_BASE_ADDRESS_0, 0xffffffff);
	assert_int_equal(conf(h, 1, PCI_BASE_ADDRESS_0), 0xfffff000);
	set_conf(h, 1, PCI_BASE_ADDRESS_1, 0xffffffff);
	assert_int_equal(conf(h, 1, PCI_BASE_ADDRESS_1), 0);
	set_conf(h, 1, PCI_BASE_ADDRESS_0, 0xd0000000);
	pci_mmio(h, 0xd0000010 - PCI_MMIO_BASE, &v, 4, false);
	assert_int_equal(v, 0x10101010);
	pci_mmio(h, base - PCI_MMIO_BASE, &v, 4, false);
	assert_int_equal(v, 0xffffffff);
	v = 0x77;
	pci_mmio(h, 0xd0000010 - PCI_MMIO_BASE, &v, 1, true);
	assert_int_equal(last_bar_write, 0x77);
	/* An access that leaves the BAR does not reach it. */
	pci_mmio(h, 0xd0000ffe - PCI_MMIO_BASE, &v, 4, false);
	assert_int_equal(v, 0xffffffff);
	set_conf(h, 1, PCI_COMMAND, 0);
	pci_mmio(h, 0xd0000010 - PCI_MMIO_BASE, &v, 4, false);
	assert_int_equal(v, 0xffffffff);

	/* INTx: status, disable bit; the line is shared by slots 1 and 5. */
	assert_int_equal(conf(h, 1, PCI_INTERRUPT_LINE) & 0xffff, 0x100 | pci_line_gsi[1]);
	pci_set_intx(&d, true);
	assert_true(b.line[pci_line_gsi[1]]);
	assert_true(conf(h, 1, PCI_COMMAND) >> 16 & PCI_STATUS_INTERRUPT);
	set_conf(h, 1, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE);
	assert_false(b.line[pci_line_gsi[1]]);
	set_conf(h, 1, PCI_COMMAND, 0);
	assert_true(b.line[pci_line_gsi[1]]);
	pci_set_intx(&d, false);
	assert_false(b.line[pci_line_gsi[1]]);

	/* Reset through port 0xcf9, not through CONFIG_ADDRESS. */
	out8(pci_conf_io, h, 1, 0x02);
	assert_int_equal(b.reason, STOP_NONE);
	out8(pci_conf_io, h, 1, RESET_VALUE);
	assert_int_equal(b.reason, STOP_RESET);
	pci_host_free(h);
}

static void test_pci_shared_line(void **state)
{
	struct mock_board b;
	struct pci_dev d[8];
	struct pci_host *h;

	(void)state;
	mock_board_init(&b);
	h = pci_host_new(&b.board);
	for (unsigned i = 0; i < 8; i++) {
		d[i] = (struct pci_dev){ .vendor = 1, .device = 2, .has_intx = true };
		assert_int_equal(pci_add(h, &d[i]), 0);
	}
	/* Slots 1 and 5. */
	pci_set_intx(&d[0], true);
	pci_set_intx(&d[4], true);
	pci_set_intx(&d[0], true);
	pci_set_intx(&d[0], false);
	assert_true(b.line[pci_line_gsi[1]]);
	pci_set_intx(&d[4], false);
	assert_false(b.line[pci_line_gsi[1]]);
	assert_int_equal(mock_rises(&b, pci_line_gsi[1]), 1);
	pci_host_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_rtc_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rtc_set_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rtc_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rtc_interrupts, setup, teardown),
		cmocka_unit_test(test_i8042),
		cmocka_unit_test(test_pm),
		cmocka_unit_test(test_pci),
		cmocka_unit_test(test_pci_shared_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
