// SPDX-License-Identifier: MIT
/* The terminal: pipes that are slow, end or break; a real (pseudo-)terminal and its escape keys. */
#include "fixture.h"

#include <fcntl.h>
#include <signal.h>
#include <termios.h>

#include "vmm/terminal.h"

struct env {
	struct mock_board board;
	struct loop_thread loop;
	struct terminal *term;
};

static void start(struct env *e, int in, int out)
{
	mock_board_init(&e->board);
	assert_int_equal(loop_init(&e->loop.loop), 0);
	e->term = term_new(in, out, &e->loop.loop, &e->board.board);
	assert_non_null(e->term);
	term_start(e->term);
	loop_thread_start(&e->loop);
}

static void finish(struct env *e)
{
	loop_thread_stop(&e->loop);
	term_close(e->term);
	loop_fini(&e->loop.loop);
}

#define TOTAL 1000000u

struct reader {
	int fd;
	unsigned wrong, total;
};

static void *slow_reader(void *arg)
{
	struct reader *r = arg;
	u8 buf[30000];
	ssize_t n;

	usleep(20000);
	while ((n = read(r->fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			r->wrong += buf[i] != (u8)((r->total + i) % 253);
		r->total += (unsigned)n;
		usleep(500);
	}
	return NULL;
}

static void test_slow_output(void **state)
{
	int out[2], null = open("/dev/null", O_RDONLY);
	struct reader r = { 0 };
	struct env e;
	pthread_t t;

	(void)state;
	assert_int_equal(pipe(out), 0);
	start(&e, null, out[1]);
	r.fd = out[0];
	pthread_create(&t, NULL, slow_reader, &r);
	for (unsigned n = 0; n < TOTAL;) {
		u8 buf[777];
		unsigned len = sizeof(buf) < TOTAL - n ? sizeof(buf) : TOTAL - n;

		for (unsigned i = 0; i < len; i++)
			buf[i] = (u8)((n + i) % 253);
		term_write(e.term, buf, len);
		n += len;
	}
	/* Closing waits until everything is out. */
	finish(&e);
	close(out[1]);
	pthread_join(t, NULL);
	assert_int_equal(r.total, TOTAL);
	assert_int_equal(r.wrong, 0);
	close(out[0]);
	close(null);
}

static void *blocked_writer(void *arg)
{
	struct env *e = arg;
	u8 *data = malloc(300000);

	for (unsigned i = 0; i < 300000; i++)
		data[i] = (u8)(i % 253);
	term_write(e->term, data, 300000);
	free(data);
	return NULL;
}

/* Nobody reads: a writer waits, until term_unblock(); and still nothing is lost. */
static void test_unblock(void **state)
{
	int out[2], null = open("/dev/null", O_RDONLY);
	struct reader r = { 0 };
	struct env e;
	pthread_t t, reader;

	(void)state;
	assert_int_equal(pipe(out), 0);
	start(&e, null, out[1]);
	pthread_create(&t, NULL, blocked_writer, &e);
	usleep(50000);
	assert_int_not_equal(pthread_tryjoin_np(t, NULL), 0);
	term_unblock(e.term);
	pthread_join(t, NULL);
	r.fd = out[0];
	pthread_create(&reader, NULL, slow_reader, &r);
	finish(&e);
	close(out[1]);
	pthread_join(reader, NULL);
	assert_int_equal(r.total, 300000);
	assert_int_equal(r.wrong, 0);
	close(out[0]);
	close(null);
}

/* The reader of our output goes away: output is dropped, nobody waits, nobody dies. */
static void test_broken_pipe(void **state)
{
	int out[2], null = open("/dev/null", O_RDONLY);
	struct env e;
	u8 data[100000] = { 0 };

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe(out), 0);
	close(out[0]);
	start(&e, null, out[1]);
	term_write(e.term, data, sizeof(data));
	term_write(e.term, data, sizeof(data));
	finish(&e);
	close(out[1]);
	close(null);
}

static void test_input_from_file(void **state)
{
	char *path = temp_file("0123456789", 10);
	int in = open(path, O_RDONLY), null = open("/dev/null", O_WRONLY);
	struct env e;

	(void)state;
	start(&e, in, null);
	wait_until(term_avail(e.term) == 10);
	assert_int_equal(term_peek(e.term, 0), '0');
	assert_int_equal(term_peek(e.term, 9), '9');
	term_consume(e.term, 4);
	assert_int_equal(term_peek(e.term, 0), '4');
	term_consume(e.term, 100);
	assert_int_equal(term_avail(e.term), 0);
	/* The end of input stops nothing. */
	usleep(20000);
	assert_int_equal(mock_reason(&e.board), STOP_NONE);
	finish(&e);
	close(in);
	close(null);
	unlink(path);
	free(path);
}

/* Through a pipe, Ctrl-A is a byte like any other. */
static void test_pipe_has_no_escape(void **state)
{
	int in[2], null = open("/dev/null", O_WRONLY);
	struct env e;

	(void)state;
	assert_int_equal(pipe(in), 0);
	start(&e, in[0], null);
	assert_int_equal(write(in[1], "\001x", 2), 2);
	wait_until(term_avail(e.term) == 2);
	assert_int_equal(mock_reason(&e.board), STOP_NONE);
	finish(&e);
	close(in[0]);
	close(in[1]);
	close(null);
}

static void on_power_button(void *opaque)
{
	__atomic_add_fetch((unsigned *)opaque, 1, __ATOMIC_SEQ_CST);
}

static void test_tty(void **state)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave;
	struct termios before, raw, after;
	unsigned presses = 0;
	struct env e;

	(void)state;
	assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	assert_true(slave >= 0);
	assert_int_equal(tcgetattr(slave, &before), 0);
	assert_true(before.c_lflag & ICANON);
	start(&e, slave, slave);
	term_on_power_button(e.term, on_power_button, &presses);
	assert_int_equal(tcgetattr(slave, &raw), 0);
	assert_false(raw.c_lflag & (ICANON | ECHO | ISIG));
	assert_true(raw.c_oflag & OPOST);

	/* Ctrl-C is the guest's, Ctrl-A Ctrl-A one Ctrl-A, Ctrl-A with another key nothing. */
	assert_int_equal(write(master, "a\003\001\001\001zb", 7), 7);
	wait_until(term_avail(e.term) == 4);
	assert_int_equal(term_peek(e.term, 0), 'a');
	assert_int_equal(term_peek(e.term, 1), 3);
	assert_int_equal(term_peek(e.term, 2), 1);
	assert_int_equal(term_peek(e.term, 3), 'b');
	assert_int_equal(write(master, "\001p", 2), 2);
	wait_until(__atomic_load_n(&presses, __ATOMIC_SEQ_CST) == 1);
	assert_int_equal(mock_reason(&e.board), STOP_NONE);
	/* The escape key may come alone. */
	assert_int_equal(write(master, "\001", 1), 1);
	usleep(20000);
	assert_int_equal(write(master, "x", 1), 1);
	wait_until(mock_reason(&e.board) == STOP_USER);
	finish(&e);
	assert_int_equal(tcgetattr(slave, &after), 0);
	assert_int_equal(after.c_lflag, before.c_lflag);
	assert_int_equal(after.c_iflag, before.c_iflag);
	close(slave);
	close(master);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slow_output),	   cmocka_unit_test(test_unblock),
		cmocka_unit_test(test_broken_pipe),	   cmocka_unit_test(test_input_from_file),
		cmocka_unit_test(test_pipe_has_no_escape), cmocka_unit_test(test_tty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
