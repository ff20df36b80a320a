// SPDX-License-Identifier: MIT
/*
 * Keyboard controller (IBM PC/AT technical reference, "Keyboard Controller").  The output buffer is
 * one byte; a command that answers replaces it.
 */
#include "i8042.h"

#include <pthread.h>
#include <stdlib.h>

/* Status register. */
#define ST_OBF	   0x01 /* output buffer full */
#define ST_SYSTEM  0x04 /* self-test passed */
#define ST_COMMAND 0x08 /* last write was to 0x64 */
#define ST_UNLOCK  0x10 /* keyboard not inhibited */
#define ST_TIMEOUT 0x40

/* Command byte. */
#define CTR_KBD_INT 0x01
#define CTR_SYSTEM  0x04
#define CTR_KBD_DIS 0x10
#define CTR_AUX_DIS 0x20

#define OUT_NO_RESET 0x01 /* output port: reset when 0 */
#define OUT_A20	     0x02
#define NO_ANSWER    0xfe /* what comes, with ST_TIMEOUT, when a device does not answer */

struct i8042 {
	struct board *board;
	pthread_mutex_t lock;
	u8 status, ctr, outport, data;
	u8 command; /* waiting for its data byte, or 0 */
	bool line;
};

static void update_line(struct i8042 *k)
{
	bool level = (k->status & ST_OBF) && (k->ctr & CTR_KBD_INT);

	if (level != k->line) {
		k->line = level;
		board_set_line(k->board, I8042_IRQ, level);
	}
}

static void put(struct i8042 *k, u8 v)
{
	k->data = v;
	k->status |= ST_OBF;
}

static void put_timeout(struct i8042 *k)
{
	put(k, NO_ANSWER);
	k->status |= ST_TIMEOUT;
}

static void command(struct i8042 *k, u8 v)
{
	k->command = 0;
	switch (v) {
	case 0x20: /* read the command byte */
		put(k, k->ctr);
		break;
	case 0x60: /* these take a byte */
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4:
		k->command = v;
		break;
	case 0xa7:
		k->ctr |= CTR_AUX_DIS;
		break;
	case 0xa8:
		k->ctr &= (u8)~CTR_AUX_DIS;
		break;
	case 0xa9: /* test the mouse's lines: there is no such port */
		put(k, 0xff);
		break;
	case 0xaa: /* self-test */
		k->status |= ST_SYSTEM;
		put(k, 0x55);
		break;
	case 0xab: /* test the keyboard's lines */
		put(k, 0x00);
		break;
	case 0xad:
		k->ctr |= CTR_KBD_DIS;
		break;
	case 0xae:
		k->ctr &= (u8)~CTR_KBD_DIS;
		break;
	case 0xc0: /* input port: not locked, no manufacturing jumper */
		put(k, 0xa0);
		break;
	case 0xd0:
		put(k, k->outport);
		break;
	case 0xe0: /* test inputs: clock and data high, nothing pulls them */
		put(k, 0x03);
		break;
	default:
		/* f0-ff pulse the output port's bits that are 0; bit 0 resets. */
		if (v >= 0xf0 && !(v & 1))
			board_stop(k->board, STOP_RESET, 0);
	}
}

static void data_byte(struct i8042 *k, u8 v)
{
	u8 cmd = k->command;

	k->command = 0;
	switch (cmd) {
	case 0x60:
		k->ctr = v;
		k->status = (u8)((k->status & ~ST_SYSTEM) | (v & CTR_SYSTEM ? ST_SYSTEM : 0));
		break;
	case 0xd1:
		k->outport = v;
		if (!(v & OUT_NO_RESET))
			board_stop(k->board, STOP_RESET, 0);
		break;
	case 0xd2: /* as if the keyboard had sent it */
		put(k, v);
		break;
	case 0xd3: /* as if the mouse had: it has no port */
		break;
	default: /* to the keyboard, or the mouse (d4) */
		put_timeout(k);
	}
}

void i8042_data_io(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct i8042 *k = opaque;
	u8 *p = data;

	(void)offset;
	(void)len;
	pthread_mutex_lock(&k->lock);
	if (write) {
		k->status &= (u8)~ST_COMMAND;
		data_byte(k, *p);
	} else {
		*p = k->data;
		k->status &= (u8) ~(ST_OBF | ST_TIMEOUT);
	}
	update_line(k);
	pthread_mutex_unlock(&k->lock);
}

void i8042_status_io(void *opaque, u64 offset, void *data, unsigned len, bool write)
{
	struct i8042 *k = opaque;
	u8 *p = data;

	(void)offset;
	(void)len;
	pthread_mutex_lock(&k->lock);
	if (write) {
		k->status |= ST_COMMAND;
		command(k, *p);
	} else {
		*p = k->status;
	}
	update_line(k);
	pthread_mutex_unlock(&k->lock);
}

struct i8042 *i8042_new(struct board *board)
{
	struct i8042 *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->board = board;
	k->status = ST_SYSTEM | ST_UNLOCK;
	k->ctr = CTR_SYSTEM | CTR_KBD_DIS | CTR_AUX_DIS;
	k->outport = OUT_NO_RESET | OUT_A20;
	pthread_mutex_init(&k->lock, NULL);
	return k;
}

void i8042_free(struct i8042 *k)
{
	if (!k)
		return;
	pthread_mutex_destroy(&k->lock);
	free(k);
}
