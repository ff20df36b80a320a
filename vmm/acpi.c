// SPDX-License-Identifier: MIT
/*
 * ACPI tables.  They are written one after the other into the BIOS area, the ones that point after
 * those that are pointed at, except the RSDP, which a scanning kernel expects on a 16-byte boundary and
 * which comes first.
 */
#include "acpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "aml.h"
#include "base/bits.h"
#include "pci.h"
#include "pm.h"
#include "rtc.h"
#include "serial.h"

struct acpi_header {
	char signature[4];
	u32 length;
	u8 revision, checksum;
	char oem_id[6], oem_table_id[8];
	u32 oem_revision;
	char creator_id[4];
	u32 creator_revision;
} __attribute__((packed));

struct acpi_rsdp {
	char signature[8];
	u8 checksum;
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 extended_checksum;
	u8 reserved[3];
} __attribute__((packed));

/* Generic address structure, 5.2.3.2. */
struct acpi_gas {
	u8 space, bits, offset, access;
	u64 address;
} __attribute__((packed));

#define GAS_IO 1
#define GAS_PORT(bytes, port)                                              \
	{                                                                  \
		GAS_IO, 8 * (bytes), 0, (bytes) == 4 ? 3 : (bytes), (port) \
	}

/* 5.2.9, revision 6. */
struct acpi_fadt {
	struct acpi_header h;
	u32 firmware_ctrl, dsdt;
	u8 reserved0, preferred_profile;
	u16 sci_int;
	u32 smi_cmd;
	u8 acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	u32 pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	u8 pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base;
	u8 cst_cnt;
	u16 c2_latency, c3_latency, flush_size, flush_stride;
	u8 duty_offset, duty_width, day_alarm, month_alarm, century;
	u16 iapc_boot_arch;
	u8 reserved1;
	u32 flags;
	struct acpi_gas reset_reg;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor_revision;
	u64 x_firmware_ctrl, x_dsdt;
	struct acpi_gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr;
	struct acpi_gas x_gpe0, x_gpe1, sleep_control, sleep_status;
	u64 hypervisor_vendor;
} __attribute__((packed));

_Static_assert(sizeof(struct acpi_fadt) == 276, "FADT of revision 6");

#define FADT_WBINVD	    BIT(0)
#define FADT_PROC_C1	    BIT(2)
#define FADT_SLP_BUTTON	    BIT(5) /* no fixed sleep button */
#define FADT_FIX_RTC	    BIT(6) /* RTC wake is no fixed feature */
#define FADT_TMR_VAL_EXT    BIT(8) /* 32-bit timer */
#define FADT_RESET_REG_SUP  BIT(10)
#define BOOT_LEGACY_DEVICES BIT(0)
#define BOOT_NO_VGA	    BIT(2)

struct acpi_facs {
	char signature[4];
	u32 length, hardware_signature, waking_vector, global_lock, flags;
	u64 x_waking_vector;
	u8 version, reserved[31];
} __attribute__((packed));

_Static_assert(sizeof(struct acpi_facs) == 64, "FACS");

struct writer {
	u8 *base; /* of the BIOS area */
	u32 used;
};

/* Reserve @len bytes and return where they are, or NULL. */
static void *reserve(struct writer *w, u32 len, u32 align)
{
	u32 at = ALIGN_UP(w->used, align);

	if (at + len > MEM_BIOS_END - MEM_BIOS)
		return NULL;
	w->used = at + len;
	return w->base + at;
}

static u32 gpa_of(const struct writer *w, const void *p)
{
	return MEM_BIOS + (u32)((const u8 *)p - w->base);
}

/* The byte that makes the sum of all bytes zero. */
static u8 checksum(const void *p, size_t len)
{
	u8 sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += ((const u8 *)p)[i];
	return (u8)-sum;
}

static void fill_header(struct acpi_header *h, const char *signature, u8 revision, u32 length)
{
	memcpy(h->signature, signature, 4);
	h->length = length;
	h->revision = revision;
	memcpy(h->oem_id, "UMBRA ", 6);
	memcpy(h->oem_table_id, "UMBRAVMM", 8);
	h->oem_revision = 1;
	memcpy(h->creator_id, "UMBR", 4);
	h->creator_revision = 1;
	h->checksum = 0;
	h->checksum = checksum(h, length);
}

static void add_pci(struct aml *a)
{
	aml_device(a, "PCI0");
	aml_name(a, "_HID"), aml_eisaid(a, "PNP0A03");
	aml_name(a, "_UID"), aml_int(a, 0);
	aml_name(a, "_BBN"), aml_int(a, 0);
	aml_name(a, "_CRS"), aml_resources(a);
	aml_res_bus_range(a, 0, 0);
	aml_res_io(a, PCI_CONF_PORT, PCI_CONF_NPORTS);
	aml_res_io_range(a, 0, PCI_CONF_PORT - 1);
	aml_res_io_range(a, PCI_CONF_PORT + PCI_CONF_NPORTS, 0xffff);
	aml_res_memory_range(a, PCI_MMIO_BASE, PCI_MMIO_END - 1);
	aml_end_resources(a);
	/* INTA of each slot (the only pin that is used), wired straight to an interrupt (6.2.13). */
	aml_name(a, "_PRT"), aml_package(a, PCI_MAX_SLOTS - 1);
	for (unsigned slot = 1; slot < PCI_MAX_SLOTS; slot++) {
		aml_package(a, 4);
		aml_int(a, slot << 16 | 0xffff);
		aml_int(a, 0);
		aml_int(a, 0);
		aml_int(a, pci_line_gsi[slot % PCI_NLINES]);
		aml_end(a);
	}
	aml_end(a);
	aml_end(a);
}

static void add_isa_device(struct aml *a, const char *name, const char *hid, u16 port, u8 nports,
			   unsigned irq)
{
	aml_device(a, name);
	aml_name(a, "_HID"), aml_eisaid(a, hid);
	aml_name(a, "_UID"), aml_int(a, 1);
	aml_name(a, "_CRS"), aml_resources(a);
	aml_res_io(a, port, nports);
	aml_res_irq(a, irq);
	aml_end_resources(a);
	aml_end(a);
}

static void add_processor(struct aml *a, unsigned n)
{
	char name[16];

	snprintf(name, sizeof(name), "C%03X", n & 0xfff);
	aml_device(a, name);
	aml_name(a, "_HID"), aml_string(a, "ACPI0007");
	aml_name(a, "_UID"), aml_int(a, n);
	aml_end(a);
}

/* The differentiated system description: what is there and cannot be enumerated. */
static bool write_dsdt_body(struct aml *a, unsigned ncpus)
{
	aml_name(a, "\\_S5_"), aml_package(a, 4);
	aml_int(a, PM_S5_TYPE);
	aml_int(a, PM_S5_TYPE);
	aml_int(a, 0);
	aml_int(a, 0);
	aml_end(a);

	aml_scope(a, "\\_SB_");
	add_pci(a);
	add_isa_device(a, "COM1", "PNP0501", SERIAL_COM1_PORT, SERIAL_NPORTS, SERIAL_COM1_IRQ);
	add_isa_device(a, "RTC0", "PNP0B00", RTC_PORT, RTC_NPORTS, RTC_IRQ);
	/* Ports of the board itself, so that nobody else gets them. */
	aml_device(a, "MBRD");
	aml_name(a, "_HID"), aml_eisaid(a, "PNP0C02");
	aml_name(a, "_UID"), aml_int(a, 0);
	aml_name(a, "_CRS"), aml_resources(a);
	aml_res_io(a, PM_PORT, PM_NPORTS);
	aml_end_resources(a);
	aml_end(a);
	for (unsigned i = 0; i < ncpus; i++)
		add_processor(a, i);
	aml_end(a);
	return !a->failed;
}

static struct acpi_header *write_dsdt(struct writer *w, unsigned ncpus)
{
	u32 at = ALIGN_UP(w->used, 16u);
	struct acpi_header *h = (void *)(w->base + at);
	struct aml a;

	if (at + sizeof(*h) > MEM_BIOS_END - MEM_BIOS)
		return NULL;
	aml_init(&a, h + 1, MEM_BIOS_END - MEM_BIOS - at - sizeof(*h));
	if (!write_dsdt_body(&a, ncpus))
		return NULL;
	fill_header(h, "DSDT", 2, (u32)(sizeof(*h) + a.len));
	w->used = at + h->length;
	return h;
}

static struct acpi_facs *write_facs(struct writer *w)
{
	struct acpi_facs *f = reserve(w, sizeof(*f), 64);

	if (f) {
		memset(f, 0, sizeof(*f));
		memcpy(f->signature, "FACS", 4);
		f->length = sizeof(*f);
		f->version = 2;
	}
	return f;
}

static struct acpi_header *write_fadt(struct writer *w, const struct acpi_facs *facs,
				      const struct acpi_header *dsdt)
{
	struct acpi_fadt *f = reserve(w, sizeof(*f), 16);

	if (!f)
		return NULL;
	*f = (struct acpi_fadt){
		.firmware_ctrl = gpa_of(w, facs),
		.dsdt = gpa_of(w, dsdt),
		.sci_int = PM_SCI_IRQ,
		.pm1a_evt = PM_PORT + PM1_EVT,
		.pm1a_cnt = PM_PORT + PM1_CNT,
		.pm_tmr = PM_PORT + PM_TMR,
		.pm1_evt_len = 4,
		.pm1_cnt_len = 2,
		.pm_tmr_len = 4,
		.c2_latency = 0xfff, /* no C2, no C3 */
		.c3_latency = 0xfff,
		.century = 0x32,
		.iapc_boot_arch = BOOT_LEGACY_DEVICES | BOOT_NO_VGA,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC |
			 FADT_TMR_VAL_EXT | FADT_RESET_REG_SUP,
		.reset_reg = GAS_PORT(1, RESET_PORT),
		.reset_value = RESET_VALUE,
		.minor_revision = 4,
		.x_dsdt = gpa_of(w, dsdt),
		.x_pm1a_evt = { GAS_IO, 32, 0, 2, PM_PORT + PM1_EVT },
		.x_pm1a_cnt = GAS_PORT(2, PM_PORT + PM1_CNT),
		.x_pm_tmr = GAS_PORT(4, PM_PORT + PM_TMR),
	};
	fill_header(&f->h, "FACP", 6, sizeof(*f));
	return &f->h;
}

static void put_bytes(u8 **p, const void *data, size_t len)
{
	memcpy(*p, data, len);
	*p += len;
}

/* Multiple APIC description, 5.2.12. */
static struct acpi_header *write_madt(struct writer *w, unsigned ncpus)
{
	static const struct {
		u8 irq, gsi;
		u16 flags;
	} override[] = {
		{ 0, 2, 0 }, /* the PIT, conforming to ISA: edge, active high */
		{ PM_SCI_IRQ, PM_SCI_IRQ, 0x0d }, /* level, active high */
	};
	u32 len = sizeof(struct acpi_header) + 8 + ncpus * 8 + 12 + ARRAY_SIZE(override) * 10 + 6;
	u32 lapic = ACPI_LAPIC_GPA, ioapic = ACPI_IOAPIC_GPA, pcat_compat = 1;
	struct acpi_header *h = reserve(w, len, 16);
	u8 *p = (u8 *)(h + 1);

	if (!h)
		return NULL;
	put_bytes(&p, &lapic, 4);
	put_bytes(&p, &pcat_compat, 4);
	for (unsigned i = 0; i < ncpus; i++)
		put_bytes(&p, (u8[]){ 0, 8, (u8)i, (u8)i, 1, 0, 0, 0 }, 8);
	put_bytes(&p, (u8[]){ 1, 12, 0, 0 }, 4); /* IOAPIC 0 ... */
	put_bytes(&p, &ioapic, 4);
	put_bytes(&p, (u8[]){ 0, 0, 0, 0 }, 4); /* ... from GSI 0 */
	for (unsigned i = 0; i < ARRAY_SIZE(override); i++) {
		put_bytes(&p, (u8[]){ 2, 10, 0, override[i].irq, override[i].gsi, 0, 0, 0 }, 8);
		put_bytes(&p, &override[i].flags, 2);
	}
	put_bytes(&p, (u8[]){ 4, 6, 0xff, 0, 0, 1 }, 6); /* LINT1 of all CPUs is NMI */
	fill_header(h, "APIC", 5, len);
	return h;
}

/* RSDT (entries of 4 bytes) or XSDT (8). */
static struct acpi_header *write_root(struct writer *w, bool wide,
				      struct acpi_header *const *tables, unsigned n)
{
	u32 size = wide ? 8 : 4, len = (u32)sizeof(struct acpi_header) + n * size;
	struct acpi_header *h = reserve(w, len, 16);

	if (!h)
		return NULL;
	for (unsigned i = 0; i < n; i++) {
		u64 gpa = gpa_of(w, tables[i]);

		memcpy((u8 *)(h + 1) + i * size, &gpa, size);
	}
	fill_header(h, wide ? "XSDT" : "RSDT", 1, len);
	return h;
}

int acpi_write(const struct memory *mem, unsigned ncpus)
{
	struct writer w = { .base = mem_hva(mem, MEM_BIOS, MEM_BIOS_END - MEM_BIOS) };
	struct acpi_header *dsdt, *table[2], *rsdt, *xsdt;
	struct acpi_rsdp *rsdp = reserve(&w, sizeof(*rsdp), 16);
	struct acpi_facs *facs = write_facs(&w);

	if (!rsdp || !facs)
		return -ENOSPC;
	dsdt = write_dsdt(&w, ncpus);
	if (!dsdt)
		return -ENOSPC;
	table[0] = write_fadt(&w, facs, dsdt);
	table[1] = write_madt(&w, ncpus);
	if (!table[0] || !table[1])
		return -ENOSPC;
	rsdt = write_root(&w, false, table, ARRAY_SIZE(table));
	xsdt = write_root(&w, true, table, ARRAY_SIZE(table));
	if (!rsdt || !xsdt)
		return -ENOSPC;
	*rsdp = (struct acpi_rsdp){
		.revision = 2,
		.rsdt = gpa_of(&w, rsdt),
		.length = sizeof(*rsdp),
		.xsdt = gpa_of(&w, xsdt),
	};
	memcpy(rsdp->signature, "RSD PTR ", 8);
	memcpy(rsdp->oem_id, "UMBRA ", 6);
	rsdp->checksum = checksum(rsdp, 20); /* of the part that ACPI 1.0 knew */
	rsdp->extended_checksum = checksum(rsdp, sizeof(*rsdp));
	return 0;
}
