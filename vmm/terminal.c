// SPDX-License-Identifier: MIT
/*
 * The user's terminal.
 *
 * Input: the loop reads into a ring as long as there is room, and leaves standard input alone when
 * there is none; term_consume() makes room and asks the loop again.
 * Output: a ring emptied by a writer thread with blocking writes.  Standard output is not made
 * non-blocking, since that would also change it for the shell and for whoever else shares it.
 *
 * The only mutable global of the program is the saved terminal mode: a handler of fatal signals must
 * be able to put it back.
 */
#include "terminal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "loop.h"
#include "msg.h"

#define IN_SIZE	   4096u
#define OUT_SIZE   65536u
#define CHUNK	   4096u
#define ESCAPE_KEY 0x01 /* Ctrl-A */

const char term_help[] = "Ctrl-A h       this help\n"
			 "Ctrl-A x       quit\n"
			 "Ctrl-A p       press the power button\n"
			 "Ctrl-A Ctrl-A  send Ctrl-A\n";

struct terminal {
	int in_fd, out_fd;
	bool in_tty;
	struct loop *loop;
	struct board *board;
	term_event_fn on_input, on_power_button;
	void *input_opaque, *power_button_opaque;
	bool escaped; /* the escape key was the last one (loop's thread only) */

	pthread_mutex_t lock;
	pthread_cond_t out_data, out_room;
	pthread_t writer;
	bool closing;	/* the writer ends when all is written */
	bool unblocked; /* term_write() no longer waits */
	bool out_dead;	/* nobody reads standard output any more */

	u8 in[IN_SIZE];
	size_t in_head, in_len;
	bool in_eof;
	u8 *out;
	size_t out_head, out_len, out_cap;
};

/* For the handler of fatal signals: what to restore, if anything. */
static struct {
	volatile sig_atomic_t raw;
	int fd;
	struct termios mode;
} saved;

static const int fatal_signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };

static void restore_mode(void)
{
	if (saved.raw) {
		saved.raw = 0;
		tcsetattr(saved.fd, TCSANOW, &saved.mode);
	}
}

/*
 * Die of the signal after all.  The default action is set by hand, not by SA_RESETHAND: this may be
 * called by the engine's handler, as the one that was there before it.
 */
static void on_fatal(int sig)
{
	restore_mode();
	signal(sig, SIG_DFL);
	raise(sig);
}

void term_catch_fatal_signals(void)
{
	struct sigaction sa = { .sa_handler = on_fatal };

	for (unsigned i = 0; i < ARRAY_SIZE(fatal_signals); i++)
		sigaction(fatal_signals[i], &sa, NULL);
	atexit(restore_mode);
}

void term_raw(struct terminal *t)
{
	struct termios raw;

	if (!t->in_tty || saved.raw || tcgetattr(t->in_fd, &saved.mode) < 0)
		return;
	saved.fd = t->in_fd;
	raw = saved.mode;
	raw.c_iflag &=
		~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	raw.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
	raw.c_cflag |= CS8;
	/* Output processing stays on: our own messages end lines with \n, and a guest's \r\n is fine. */
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	saved.raw = 1;
	tcsetattr(t->in_fd, TCSANOW, &raw);
}

void term_restore(struct terminal *t)
{
	(void)t;
	restore_mode();
}

/* Write all, waiting as long as it takes.  False if that will never succeed. */
static bool write_all(int fd, const u8 *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n >= 0) {
			p += n;
			len -= (size_t)n;
		} else if (errno == EAGAIN) {
			/* Somebody else made the description non-blocking. */
			struct pollfd pfd = { fd, POLLOUT, 0 };

			poll(&pfd, 1, -1);
		} else if (errno != EINTR) {
			return false;
		}
	}
	return true;
}

static void *writer_thread(void *arg)
{
	struct terminal *t = arg;
	u8 chunk[CHUNK];

	pthread_mutex_lock(&t->lock);
	for (;;) {
		size_t n;
		bool ok;

		while (!t->out_len && !t->closing)
			pthread_cond_wait(&t->out_data, &t->lock);
		if (!t->out_len)
			break;
		n = um_min(t->out_len, um_min(t->out_cap - t->out_head, sizeof(chunk)));
		memcpy(chunk, t->out + t->out_head, n);
		t->out_head = (t->out_head + n) % t->out_cap;
		t->out_len -= n;
		pthread_cond_broadcast(&t->out_room);
		if (t->out_dead)
			continue;
		pthread_mutex_unlock(&t->lock);
		ok = write_all(t->out_fd, chunk, n);
		if (!ok)
			msg("standard output: %s; the guest's output is lost from here on",
			    strerror(errno));
		pthread_mutex_lock(&t->lock);
		t->out_dead = !ok;
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

/* A larger ring, with the bytes in order from its start.  Lock held. */
static bool grow_out(struct terminal *t)
{
	u8 *bigger = malloc(t->out_cap * 2);
	size_t first = um_min(t->out_len, t->out_cap - t->out_head);

	if (!bigger)
		return false;
	memcpy(bigger, t->out + t->out_head, first);
	memcpy(bigger + first, t->out, t->out_len - first);
	free(t->out);
	t->out = bigger;
	t->out_head = 0;
	t->out_cap *= 2;
	return true;
}

void term_write(struct terminal *t, const void *data, size_t len)
{
	const u8 *p = data;

	pthread_mutex_lock(&t->lock);
	while (len && !t->out_dead) {
		size_t tail, n;

		if (t->out_len == t->out_cap) {
			if (!t->unblocked)
				pthread_cond_wait(&t->out_room, &t->lock);
			else if (!grow_out(t))
				break;
			continue;
		}
		tail = (t->out_head + t->out_len) % t->out_cap;
		n = um_min(len, um_min(t->out_cap - t->out_len, t->out_cap - tail));
		memcpy(t->out + tail, p, n);
		t->out_len += n;
		p += n;
		len -= n;
		pthread_cond_signal(&t->out_data);
	}
	pthread_mutex_unlock(&t->lock);
}

void term_unblock(struct terminal *t)
{
	pthread_mutex_lock(&t->lock);
	t->unblocked = true;
	pthread_cond_broadcast(&t->out_room);
	pthread_mutex_unlock(&t->lock);
}

static void show_help(void)
{
	if (write(STDERR_FILENO, "\n", 1) < 0 ||
	    write(STDERR_FILENO, term_help, sizeof(term_help) - 1) < 0)
		return;
}

/*
 * Act on the escape key.  Returns true if @c is for the guest.  Unknown keys after Ctrl-A are
 * dropped.
 */
static bool filter_escape(struct terminal *t, u8 c)
{
	if (!t->in_tty)
		return true;
	if (!t->escaped) {
		t->escaped = c == ESCAPE_KEY;
		return !t->escaped;
	}
	t->escaped = false;
	switch (c) {
	case ESCAPE_KEY:
		return true;
	case 'x':
		board_stop(t->board, STOP_USER, 0);
		return false;
	case 'p':
		if (t->on_power_button)
			t->on_power_button(t->power_button_opaque);
		return false;
	case 'h':
	case '?':
		show_help();
		return false;
	default:
		return false;
	}
}

static void on_readable(void *opaque, short revents)
{
	struct terminal *t = opaque;
	u8 buf[IN_SIZE];
	size_t room;
	ssize_t n;

	(void)revents;
	room = IN_SIZE - term_avail(t);
	if (!room)
		return; /* switched off meanwhile; term_consume() switches on again */
	n = read(t->in_fd, buf, room);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		pthread_mutex_lock(&t->lock);
		t->in_eof = true;
		loop_set_events(t->loop, t->in_fd, 0);
		pthread_mutex_unlock(&t->lock);
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		if (!filter_escape(t, buf[i]))
			continue;
		pthread_mutex_lock(&t->lock);
		t->in[(t->in_head + t->in_len) % IN_SIZE] = buf[i];
		t->in_len++;
		pthread_mutex_unlock(&t->lock);
	}
	/* Under the lock, so that it does not cross with term_consume() switching on. */
	pthread_mutex_lock(&t->lock);
	if (t->in_len == IN_SIZE)
		loop_set_events(t->loop, t->in_fd, 0);
	pthread_mutex_unlock(&t->lock);
	if (t->on_input)
		t->on_input(t->input_opaque);
}

size_t term_avail(struct terminal *t)
{
	size_t n;

	pthread_mutex_lock(&t->lock);
	n = t->in_len;
	pthread_mutex_unlock(&t->lock);
	return n;
}

u8 term_peek(struct terminal *t, size_t offset)
{
	u8 c;

	pthread_mutex_lock(&t->lock);
	c = t->in[(t->in_head + offset) % IN_SIZE];
	pthread_mutex_unlock(&t->lock);
	return c;
}

void term_consume(struct terminal *t, size_t n)
{
	pthread_mutex_lock(&t->lock);
	n = um_min(n, t->in_len);
	t->in_head = (t->in_head + n) % IN_SIZE;
	if (n && t->in_len == IN_SIZE && !t->in_eof)
		loop_set_events(t->loop, t->in_fd, POLLIN);
	t->in_len -= n;
	pthread_mutex_unlock(&t->lock);
}

bool term_size(struct terminal *t, u16 *cols, u16 *rows)
{
	struct winsize w;

	if (ioctl(t->out_fd, TIOCGWINSZ, &w) < 0 || !w.ws_col || !w.ws_row)
		return false;
	*cols = w.ws_col;
	*rows = w.ws_row;
	return true;
}

struct terminal *term_new(int in_fd, int out_fd, struct loop *loop, struct board *board)
{
	struct terminal *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return NULL;
	t->in_fd = in_fd;
	t->out_fd = out_fd;
	t->in_tty = isatty(in_fd);
	t->loop = loop;
	t->board = board;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->out_data, NULL);
	pthread_cond_init(&t->out_room, NULL);
	t->out_cap = OUT_SIZE;
	t->out = malloc(OUT_SIZE);
	err = t->out ? pthread_create(&t->writer, NULL, writer_thread, t) : ENOMEM;
	if (!err && loop_add(loop, in_fd, 0, on_readable, t) == 0)
		return t;
	msg("cannot set up the terminal: %s", strerror(err ? err : ENOSPC));
	if (!err) {
		term_close(t);
	} else {
		free(t->out);
		free(t);
	}
	return NULL;
}

void term_on_input(struct terminal *t, term_event_fn fn, void *opaque)
{
	t->on_input = fn;
	t->input_opaque = opaque;
}

void term_on_power_button(struct terminal *t, term_event_fn fn, void *opaque)
{
	t->on_power_button = fn;
	t->power_button_opaque = opaque;
}

void term_start(struct terminal *t)
{
	term_raw(t);
	loop_set_events(t->loop, t->in_fd, POLLIN);
}

bool term_close(struct terminal *t)
{
	bool complete;

	term_restore(t);
	pthread_mutex_lock(&t->lock);
	t->closing = true;
	pthread_cond_broadcast(&t->out_data);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->writer, NULL);
	complete = !t->out_dead;
	loop_set_events(t->loop, t->in_fd, 0);
	pthread_mutex_destroy(&t->lock);
	pthread_cond_destroy(&t->out_data);
	pthread_cond_destroy(&t->out_room);
	free(t->out);
	free(t);
	return complete;
}
