// SPDX-License-Identifier: MIT
/*
 * `umbra run`: options to exit status.
 *
 * Signals that end the run are blocked in all threads and read from a descriptor in the loop, so the
 * machine is taken down in order; then the signal is raised again, and the parent sees us die of it.
 * While output is flushed at the end they have their default action: a second Ctrl-C ends the wait for
 * a reader that does not read.
 */
#include "run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "machine.h"
#include "msg.h"
#include "options.h"

static const int handled[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT };

struct signals {
	sigset_t set, old;
	int fd;
	struct machine *machine;
};

static int signals_block(struct signals *s)
{
	sigemptyset(&s->set);
	for (unsigned i = 0; i < ARRAY_SIZE(handled); i++)
		sigaddset(&s->set, handled[i]);
	pthread_sigmask(SIG_BLOCK, &s->set, &s->old);
	/* A full disk or a closed pipe is an error of the write, not our death. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	s->fd = signalfd(-1, &s->set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->fd < 0 ? msg_err(errno, "signalfd: %s", strerror(errno)) : 0;
}

static void signals_unblock(struct signals *s)
{
	pthread_sigmask(SIG_SETMASK, &s->old, NULL);
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

static void on_signal(void *opaque, short revents)
{
	struct signals *s = opaque;
	struct terminal *term = machine_terminal(s->machine);
	struct signalfd_siginfo si;

	(void)revents;
	if (read(s->fd, &si, sizeof(si)) != sizeof(si))
		return;
	switch (si.ssi_signo) {
	case SIGWINCH:
		machine_resized(s->machine);
		break;
	case SIGTSTP:
		term_restore(term);
		raise(SIGSTOP);
		term_raw(term);
		break;
	case SIGCONT:
		term_raw(term);
		break;
	default:
		board_stop(machine_board(s->machine), STOP_SIGNAL, (int)si.ssi_signo);
	}
}

static int exit_status(enum stop_reason reason, int code)
{
	switch (reason) {
	case STOP_POWEROFF:
	case STOP_RESET:
	case STOP_USER:
		return 0;
	case STOP_DEBUG:
		return code;
	case STOP_DIED:
		return EXIT_GUEST_DIED;
	default:
		return EXIT_HOST_ERROR;
	}
}

static const char *reason_name(enum stop_reason reason)
{
	static const char *const names[] = {
		[STOP_NONE] = "nothing",
		[STOP_POWEROFF] = "the guest powered off",
		[STOP_RESET] = "the guest asked for a reset",
		[STOP_DIED] = "the guest died",
		[STOP_HOST] = "an error of the host",
		[STOP_DEBUG] = "the guest wrote to the debug-exit port",
		[STOP_USER] = "the user quit",
		[STOP_SIGNAL] = "a signal",
	};

	return names[reason];
}

/* The library reads these in umbra_open(). */
static int set_environment(const struct run_options *o)
{
	char trace[1024] = "death";

	if (o->trace && snprintf(trace, sizeof(trace), "death,%s", o->trace) >= (int)sizeof(trace))
		return msg_err(EINVAL, "--trace: the list is too long");
	if ((o->engine && setenv("UMBRA_ENGINE", o->engine, 1) < 0) ||
	    setenv("UMBRA_TRACE", trace, o->trace != NULL) < 0 || options_set_jit(o->jit) < 0)
		return msg_err(errno, "setenv: %s", strerror(errno));
	return 0;
}

static int run(const struct run_options *o)
{
	struct signals s = { .fd = -1 };
	enum stop_reason reason = STOP_HOST;
	int code = 0, err = set_environment(o);

	if (!err)
		err = signals_block(&s);
	if (err)
		return EXIT_HOST_ERROR;
	term_catch_fatal_signals();
	err = machine_new(&s.machine, accel_pick(o->accel, o->verbose), o, STDIN_FILENO,
			  STDOUT_FILENO);
	if (!err) {
		loop_add(machine_loop(s.machine), s.fd, POLLIN, on_signal, &s);
		reason = machine_run(s.machine, &code);
		if (o->verbose)
			msg("the run ended: %s", reason_name(reason));
	}
	signals_unblock(&s);
	/* The guest may have done all its work, but who reads our output hasn't got all of it. */
	if (!err && !machine_free(s.machine) && exit_status(reason, code) == 0)
		reason = STOP_HOST;
	if (reason == STOP_SIGNAL) {
		signal(code, SIG_DFL);
		raise(code);
	}
	return exit_status(reason, code);
}

int cmd_run(int argc, char **argv)
{
	struct run_options o;
	int status = EXIT_HOST_ERROR;

	switch (options_parse(&o, argc, argv)) {
	case OPTIONS_OK:
		status = run(&o);
		break;
	case OPTIONS_HELP:
		status = 0;
		break;
	case OPTIONS_BAD:
		break;
	}
	options_free(&o);
	return status;
}
