// SPDX-License-Identifier: MIT
/* The list of the executable that needs no library but libc: /init of the guests. */
#include "work.h"

const char *const next_executable = "/apps";

const struct program programs[] = {
	{ "integer", "sieve", sieve },
	{ "integer", "sort", sort },
	{ "integer", "fnv", fnv },
	{ "integer", "sha1", sha1 },
	{ "integer", "chase", chase },
	{ "integer", "copy", copy },
	{ "integer", "calls", calls },
	{ "integer", "strings", strings },
	{ "integer", "bytecode", bytecode },
	{ "float", "matrix", matrix },
	{ "float", "mandelbrot", mandelbrot },
	{ "float", "nbody", nbody },
	{ "float", "fft", fft },
	{ "float", "libm", libm },
	{ "system", "syscall", do_syscall },
	{ "system", "fork", do_fork },
	{ "system", "exec", do_exec },
	{ "system", "fault", do_fault },
	{ "system", "mmap", do_mmap },
	{ "system", "pipe", do_pipe },
	{ "system", "signal", do_signal },
	{ "cold", "coldcode", coldcode },
	{ NULL, NULL, NULL },
};
