// SPDX-License-Identifier: MIT
/* The UART, with a terminal on pipes. */
#include "fixture.h"

#include <linux/serial_reg.h>

#include "vmm/serial.h"
#include "vmm/terminal.h"

#define GSI 4

struct env {
	struct mock_board board;
	struct loop_thread loop;
	int in[2], out[2];
	struct terminal *term;
	struct serial *s;
};

static int setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	mock_board_init(&e->board);
	assert_int_equal(pipe(e->in) | pipe(e->out), 0);
	assert_int_equal(loop_init(&e->loop.loop), 0);
	e->term = term_new(e->in[0], e->out[1], &e->loop.loop, &e->board.board);
	assert_non_null(e->term);
	e->s = serial_new(&e->board.board, GSI, e->term, true);
	term_on_input(e->term, serial_input, e->s);
	term_start(e->term);
	loop_thread_start(&e->loop);
	*state = e;
	return 0;
}

static int teardown(void **state)
{
	struct env *e = *state;

	loop_thread_stop(&e->loop);
	term_unblock(e->term);
	term_close(e->term);
	serial_free(e->s);
	loop_fini(&e->loop.loop);
	for (unsigned i = 0; i < 2; i++) {
		close(e->in[i]);
		close(e->out[i]);
	}
	free(e);
	return 0;
}

static u8 rd(struct env *e, unsigned reg)
{
	return in8(serial_io, e->s, reg);
}

static void wr(struct env *e, unsigned reg, u8 v)
{
	out8(serial_io, e->s, reg, v);
}

static void type(struct env *e, const char *text)
{
	assert_int_equal(write(e->in[1], text, strlen(text)), (ssize_t)strlen(text));
	wait_until(term_avail(e->term) >= strlen(text));
}

static void test_registers(void **state)
{
	struct env *e = *state;

	wr(e, UART_SCR, 0x5a);
	assert_int_equal(rd(e, UART_SCR), 0x5a);
	wr(e, UART_IER, 0xff);
	assert_int_equal(rd(e, UART_IER), 0x0f);
	wr(e, UART_IER, 0);
	wr(e, UART_LCR, UART_LCR_DLAB | 3);
	wr(e, UART_DLL, 1);
	wr(e, UART_DLM, 2);
	assert_int_equal(rd(e, UART_DLL), 1);
	assert_int_equal(rd(e, UART_DLM), 2);
	wr(e, UART_LCR, 3);
	assert_int_equal(rd(e, UART_IER), 0);
	/* What tells a 16550A: both top bits of IIR, with FIFOs on only. */
	assert_int_equal(rd(e, UART_IIR), UART_IIR_NO_INT);
	wr(e, UART_FCR, UART_FCR_ENABLE_FIFO);
	assert_int_equal(rd(e, UART_IIR), 0xc0 | UART_IIR_NO_INT);
	assert_int_equal(rd(e, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	assert_int_equal(rd(e, UART_MSR), UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
}

static void test_transmit(void **state)
{
	struct env *e = *state;
	char buf[16] = "";

	wr(e, UART_MCR, UART_MCR_OUT2);
	wr(e, UART_TX, 'a');
	assert_false(e->board.line[GSI]);
	/* Enabling the interrupt with an empty transmitter raises it; IIR clears it. */
	wr(e, UART_IER, UART_IER_THRI);
	assert_true(e->board.line[GSI]);
	assert_int_equal(rd(e, UART_IIR), UART_IIR_THRI);
	assert_false(e->board.line[GSI]);
	assert_int_equal(rd(e, UART_IIR), UART_IIR_NO_INT);
	wr(e, UART_TX, 'b');
	assert_true(e->board.line[GSI]);
	/* Each character is an edge of its own. */
	wr(e, UART_TX, 'c');
	assert_int_equal(mock_rises(&e->board, GSI), 3);
	/* OUT2 disconnects. */
	wr(e, UART_MCR, 0);
	assert_false(e->board.line[GSI]);
	for (ssize_t got = 0, n; got < 3; got += n) {
		n = read(e->out[0], buf + got, (size_t)(3 - got));
		assert_true(n > 0);
	}
	assert_string_equal(buf, "abc");
}

static void test_receive(void **state)
{
	struct env *e = *state;

	wr(e, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_4);
	wr(e, UART_MCR, UART_MCR_OUT2);
	wr(e, UART_IER, UART_IER_RDI);
	type(e, "abcdef");
	wait_until(mock_rises(&e->board, GSI) == 1);
	assert_int_equal(rd(e, UART_IIR) & 0x0f, UART_IIR_RDI);
	assert_int_equal(rd(e, UART_RX), 'a');
	assert_int_equal(rd(e, UART_RX), 'b');
	assert_int_equal(rd(e, UART_IIR) & 0x0f, UART_IIR_RDI);
	assert_int_equal(rd(e, UART_RX), 'c');
	/* Below the trigger level: a timeout. */
	assert_int_equal(rd(e, UART_IIR) & 0x0f, UART_IIR_RX_TIMEOUT);
	assert_int_equal(rd(e, UART_RX), 'd');
	assert_int_equal(rd(e, UART_RX), 'e');
	assert_true(rd(e, UART_LSR) & UART_LSR_DR);
	assert_int_equal(rd(e, UART_RX), 'f');
	assert_false(rd(e, UART_LSR) & UART_LSR_DR);
	assert_false(e->board.line[GSI]);
	assert_int_equal(rd(e, UART_IIR) & 0x0f, UART_IIR_NO_INT);
}

/* Input that waits since before the driver came must survive the driver's probing and resets. */
static void test_early_input(void **state)
{
	struct env *e = *state;

	type(e, "early");
	for (unsigned i = 0; i < 3; i++) {
		wr(e, UART_FCR, UART_FCR_ENABLE_FIFO);
		wr(e, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
		wr(e, UART_FCR, 0);
		rd(e, UART_LSR);
		rd(e, UART_RX);
		rd(e, UART_IIR);
		rd(e, UART_MSR);
	}
	wr(e, UART_MCR, UART_MCR_OUT2 | UART_MCR_DTR | UART_MCR_RTS);
	wr(e, UART_IER, UART_IER_RDI | UART_IER_RLSI);
	wr(e, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	for (const char *p = "early"; *p; p++) {
		assert_true(rd(e, UART_LSR) & UART_LSR_DR);
		assert_int_equal(rd(e, UART_RX), *p);
	}
	assert_false(rd(e, UART_LSR) & UART_LSR_DR);
}

/* A guest without interrupts polls LSR. */
static void test_polling(void **state)
{
	struct env *e = *state;
	unsigned polls = 0;

	type(e, "xy");
	while (!(rd(e, UART_LSR) & UART_LSR_DR))
		assert_true(polls++ < 100);
	assert_int_equal(rd(e, UART_RX), 'x');
	polls = 0;
	while (!(rd(e, UART_LSR) & UART_LSR_DR))
		assert_true(polls++ < 100);
	assert_int_equal(rd(e, UART_RX), 'y');
}

static void test_loopback(void **state)
{
	struct env *e = *state;

	type(e, "input");
	wr(e, UART_IER, UART_IER_RDI);
	wr(e, UART_MCR, UART_MCR_LOOP | UART_MCR_RTS | UART_MCR_OUT2);
	assert_false(e->board.line[GSI]);
	/* The lines of MCR come back in MSR. */
	assert_int_equal(rd(e, UART_MSR) & 0xf0, UART_MSR_CTS | UART_MSR_DCD);
	wr(e, UART_TX, 'L');
	assert_true(rd(e, UART_LSR) & UART_LSR_DR);
	wr(e, UART_TX, 'M'); /* no FIFO: overrun */
	assert_true(rd(e, UART_LSR) & UART_LSR_OE);
	assert_false(rd(e, UART_LSR) & UART_LSR_OE);
	assert_int_equal(rd(e, UART_RX), 'M');
	/* 16 characters fit into the FIFO. */
	wr(e, UART_FCR, UART_FCR_ENABLE_FIFO);
	for (unsigned i = 0; i < 17; i++)
		wr(e, UART_TX, (u8)i);
	assert_true(rd(e, UART_LSR) & UART_LSR_OE);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(rd(e, UART_RX), i);
	assert_false(rd(e, UART_LSR) & UART_LSR_DR);
	/* What was typed is still there. */
	wr(e, UART_MCR, UART_MCR_OUT2);
	assert_int_equal(rd(e, UART_RX), 'i');
}

/* 100000 bytes in, through a guest that reads as fast as it can: none lost, none twice. */
static void *feed(void *arg)
{
	struct env *e = arg;
	u8 buf[1000];

	for (unsigned n = 0; n < 100000; n += sizeof(buf)) {
		for (unsigned i = 0; i < sizeof(buf); i++)
			buf[i] = (u8)((n + i) % 251);
		if (write(e->in[1], buf, sizeof(buf)) != sizeof(buf))
			return e;
	}
	return NULL;
}

static void test_bulk_input(void **state)
{
	struct env *e = *state;
	pthread_t t;
	void *err;

	wr(e, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_TRIGGER_8);
	wr(e, UART_IER, UART_IER_RDI);
	pthread_create(&t, NULL, feed, e);
	for (unsigned n = 0; n < 100000; n++) {
		wait_until(rd(e, UART_LSR) & UART_LSR_DR);
		assert_int_equal(rd(e, UART_RX), n % 251);
	}
	pthread_join(t, &err);
	assert_null(err);
	assert_false(rd(e, UART_LSR) & UART_LSR_DR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_registers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_transmit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_receive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_early_input, setup, teardown),
		cmocka_unit_test_setup_teardown(test_polling, setup, teardown),
		cmocka_unit_test_setup_teardown(test_loopback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bulk_input, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
