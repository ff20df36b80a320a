/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the VMM's devices share: a board that records, and a loop that runs in a
 * thread.
 */
#ifndef TEST_VMM_FIXTURE_H
#define TEST_VMM_FIXTURE_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/board.h"
#include "vmm/bus.h"
#include "vmm/loop.h"

#define MOCK_GSIS 24

struct mock_board {
	struct board board;
	pthread_mutex_t lock;
	bool line[MOCK_GSIS];
	unsigned rises[MOCK_GSIS]; /* low-to-high transitions */
	unsigned nmsi;
	u64 msi_addr;
	u32 msi_data;
	enum stop_reason reason;
	int code;
};

void mock_board_init(struct mock_board *b);

/* Reading fields that other threads change. */
unsigned mock_rises(struct mock_board *b, unsigned gsi);
unsigned mock_msis(struct mock_board *b);
enum stop_reason mock_reason(struct mock_board *b);

struct loop_thread {
	struct loop loop;
	pthread_t thread;
};

void loop_thread_start(struct loop_thread *t);
void loop_thread_stop(struct loop_thread *t);

/* Wait up to ten seconds until the condition holds. */
#define wait_until(condition)                            \
	do {                                             \
		unsigned tries_ = 0;                     \
		while (!(condition) && tries_++ < 10000) \
			usleep(1000);                    \
		assert_true(condition);                  \
	} while (0)

/* Accesses through a bus_fn. */
u8 in8(bus_fn fn, void *opaque, u64 offset);
u16 in16(bus_fn fn, void *opaque, u64 offset);
u32 in32(bus_fn fn, void *opaque, u64 offset);
void out8(bus_fn fn, void *opaque, u64 offset, u8 v);
void out16(bus_fn fn, void *opaque, u64 offset, u16 v);
void out32(bus_fn fn, void *opaque, u64 offset, u32 v);

/* A new temporary file with these contents; its path, which the caller unlinks and frees. */
char *temp_file(const void *data, size_t len);

#endif
