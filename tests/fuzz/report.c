// SPDX-License-Identifier: MIT
/*
 * Reports: see report.h.  The sanitizers' settings are here too, so that the programs need no
 * environment.
 */
#include "report.h"

#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const char *program;
static char run_text[256];
static int real_stderr = STDERR_FILENO, log_fd = -1;
static off_t log_read;

/* The library handles SIGSEGV, SIGBUS and SIGFPE, and passes on what is not guest memory. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "allow_user_segv_handler=1:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_"
	       "abort=0:"
	       "detect_stack_use_after_return=0:allocator_may_return_null=1";
}

__attribute__((visibility("default"))) const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void)
{
	return "halt_on_error=1:print_stacktrace=1";
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void put_line(int fd, const char *text)
{
	if (write(fd, text, strlen(text)) < 0 || write(fd, "\n", 1) < 0)
		_exit(2);
}

/* Async-signal-safe. */
static bool dump_log(void)
{
	static char buf[4096];
	ssize_t n;

	if (log_fd < 0)
		return false;
	while ((n = pread(log_fd, buf, sizeof(buf), log_read)) > 0) {
		if (write(real_stderr, buf, (size_t)n) < 0)
			break;
		log_read += n;
	}
	return true;
}

static void last_words(void)
{
	dump_log();
	if (run_text[0])
		put_line(real_stderr, run_text);
}

static void backtrace_here(void)
{
	void *pc[64];

	backtrace_symbols_fd(pc, backtrace(pc, 64), real_stderr);
}

static void on_fatal(int sig)
{
	dump_log();
	put_line(real_stderr, sig == SIGSEGV  ? "fatal: SIGSEGV"
			      : sig == SIGBUS ? "fatal: SIGBUS"
			      : sig == SIGFPE ? "fatal: SIGFPE"
			      : sig == SIGILL ? "fatal: SIGILL"
					      : "fatal: SIGABRT");
	backtrace_here();
	last_words();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void on_show(int sig)
{
	backtrace_here();
}

void report_init(const char *name)
{
	static const int fatal[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
	struct sigaction sa = { .sa_handler = on_fatal, .sa_flags = SA_NODEFER | SA_RESETHAND };
	void *pc[1];

	program = name;
	backtrace(pc, 1); /* loads what it needs now, not in a handler */
	for (unsigned i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
		sigaction(fatal[i], &sa, NULL);
	sa = (struct sigaction){ .sa_handler = on_show, .sa_flags = SA_RESTART };
	sigaction(SIGUSR2, &sa, NULL);
	real_stderr = dup(STDERR_FILENO);
	log_fd = memfd_create("log", MFD_CLOEXEC);
	/*
	 * Appending, since threads that write to a memfd at its position may write over each other.
	 */
	if (real_stderr < 0 || log_fd < 0 || fcntl(log_fd, F_SETFL, O_APPEND) < 0 ||
	    dup2(log_fd, STDERR_FILENO) < 0) {
		perror(name);
		exit(2);
	}
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(last_words);
}

void report_run(const char *fmt, ...)
{
	int n = snprintf(run_text, sizeof(run_text), "%s: repeat with ", program);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(run_text + n, sizeof(run_text) - (size_t)n, fmt, ap);
	va_end(ap);
}

static void say(const char *prefix, const char *fmt, va_list ap)
{
	char line[512];
	int n = snprintf(line, sizeof(line), "%s: %s", program, prefix);

	vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, ap);
	put_line(real_stderr, line);
}

void report_say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap);
	va_end(ap);
}

void report_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("FAILED: ", fmt, ap);
	va_end(ap);
	last_words();
	_exit(1);
}

void report_hang(pthread_t thread, const char *what)
{
	struct timespec wait = { .tv_nsec = 200000000 };

	report_say("HANG: %s; it is at:", what);
	for (unsigned i = 0; i < 4; i++) {
		pthread_kill(thread, SIGUSR2);
		nanosleep(&wait, NULL);
	}
	last_words();
	_exit(1);
}

unsigned report_log(void)
{
	off_t end = lseek(log_fd, 0, SEEK_END);
	size_t size = (size_t)(end - log_read);
	unsigned lines = 0;
	char *text;

	if (end <= log_read)
		return 0;
	text = calloc(1, size + 1);
	if (!text || pread(log_fd, text, size, log_read) != (ssize_t)size)
		report_fail("cannot read the log");
	for (char *line = text, *next; (next = strchr(line, '\n')); line = next + 1) {
		*next = 0;
		if (!strstr(line, "from a device") && !strstr(line, "through MMIO") &&
		    !strstr(line, "found 0 violations"))
			report_fail("logged: %s", line);
		lines++;
	}
	free(text);
	log_read = end;
	return lines;
}
