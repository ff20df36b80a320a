/* SPDX-License-Identifier: MIT */
/*
 * The user's terminal: standard input and output, as a console device sees them.
 *
 * Input waits in a queue until the device takes it; when the queue is full, standard input is left
 * alone, so nothing is ever dropped.  The end of input is not an event: the guest runs on.
 *
 * Output is written by a thread of its own.  term_write() blocks when the reader of standard output
 * is slow, so nothing is lost there either; at the end term_close() waits until all is written.
 *
 * If standard input is a terminal it goes raw and Ctrl-A is the escape key (term_help[]).  A pipe or
 * a file is passed through byte for byte.
 */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include "base/types.h"
#include "board.h"

struct loop;
struct terminal;

/* What the escape keys do, for --help and Ctrl-A h. */
extern const char term_help[];

/* Called on the loop's thread, without a lock of the terminal held. */
typedef void (*term_event_fn)(void *opaque);

/*
 * NULL (after a message) if threads or memory are short.  The terminal is not raw yet.
 */
struct terminal *term_new(int in_fd, int out_fd, struct loop *loop, struct board *board);
void term_on_input(struct terminal *t, term_event_fn fn, void *opaque);
void term_on_power_button(struct terminal *t, term_event_fn fn, void *opaque);

/* Raw mode on and off; nothing happens if input is no terminal.  Idempotent. */
void term_raw(struct terminal *t);
void term_restore(struct terminal *t);

/*
 * Make sure that the terminal is restored when the process dies of a crash or calls exit().  Call it
 * before the engine is opened: the engine passes crashes that are not its own to earlier handlers.
 */
void term_catch_fatal_signals(void);

/* Go raw and start reading standard input. */
void term_start(struct terminal *t);

/*
 * The input queue: how many bytes wait, the one at @offset (< term_avail()), and taking @n of them.
 * One device reads; any thread.
 */
size_t term_avail(struct terminal *t);
u8 term_peek(struct terminal *t, size_t offset);
void term_consume(struct terminal *t, size_t n);

/*
 * Queue output.  Blocks while the queue is full, unless term_unblock() was called: from then on the
 * queue grows.  Must not be called on the loop's thread before that, nor with a lock that it needs.
 */
void term_write(struct terminal *t, const void *data, size_t len);
void term_unblock(struct terminal *t);

/* The size of the window.  False if output is no terminal. */
bool term_size(struct terminal *t, u16 *cols, u16 *rows);

/*
 * Restore the terminal, wait until all output is written, and free.  False if output was lost, which a
 * message has said.
 */
bool term_close(struct terminal *t);

#endif
