/* SPDX-License-Identifier: MIT */
/*
 * A VM that is nothing but interrupt controllers, and vCPUs that count what they are told.
 */
#ifndef UM_TESTS_IRQCHIP_FIXTURE_H
#define UM_TESTS_IRQCHIP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "irqchip/irqchip.h"
#include "irqchip/lapic.h"
#include "irqchip/timer.h"

#define MAX_CPUS   4
#define TSC_KHZ	   2000000u /* the guest's TSC: 2 GHz, from CLOCK_MONOTONIC */
#define PV_FLAG	   0x1000ull
#define MSEC	   1000000ull
#define TEST_LIMIT (20000 * MSEC) /* when waiting for something that must happen */

struct cpu {
	struct um_lapic *l;
	int kicks, nmis, smis, inits, sipis;
	u8 sipi_vector;
	u8 flag;   /* guest memory at PV_FLAG */
	u32 sints; /* whose interrupts have ended */
	s64 tsc_offset;
};

struct vm {
	struct um_irqchip *chip;
	struct cpu cpu[MAX_CPUS];
	int ncpus;
};

extern const struct um_lapic_ops fixture_ops;

/* CPUs with their LAPICs enabled by software; a full chip with PIT and with the
 * PICs masked, unless @split. */
struct vm *vm_create(int ncpus, bool split);
void vm_destroy(struct vm *vm);

/* CMocka setup and teardown: one CPU, two CPUs, split with two. */
int setup1(void **state);
int setup2(void **state);
int setup_split(void **state);
int teardown(void **state);

/* xAPIC page; LAPIC of @c must be at the default address. */
u32 mmio_read(struct cpu *c, u32 reg);
void mmio_write(struct cpu *c, u32 reg, u32 val);
/* Ports. */
u8 inb(struct vm *vm, u16 port);
void outb(struct vm *vm, u16 port, u8 val);
/* IOAPIC registers. */
u32 io_read(struct vm *vm, u8 reg);
void io_write(struct vm *vm, u8 reg, u32 val);
u64 redir_read(struct vm *vm, unsigned pin);
void redir_write(struct vm *vm, unsigned pin, u64 entry);

int line(struct vm *vm, u32 gsi, int level);
int msi(struct vm *vm, u32 address_lo, u32 data);

void eoi(struct cpu *c);
/* Acknowledge and end: the vector, or -1. */
int take(struct cpu *c);
/* Enter x2APIC mode. */
void enter_x2apic(struct cpu *c);
u64 msr_read(struct cpu *c, u32 msr);
void msr_write(struct cpu *c, u32 msr, u64 val);

/* Both 8259s at 0x20 and 0x28, all masked but for @unmasked. */
void pic_program(struct vm *vm, u16 unmasked);

/* Wait until @c has an interrupt (at most TEST_LIMIT); the time at which it was seen. */
u64 wait_interrupt(struct cpu *c);
void sleep_ns(u64 ns);

#endif
