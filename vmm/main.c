// SPDX-License-Identifier: MIT
/* The umbra program: its commands. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "check.h"
#include "exec.h"
#include "msg.h"
#include "run.h"
#include "stat.h"
#include "umbra.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv); /* argv[0] is the command */
	const char *help;
} commands[] = {
	{ "run", cmd_run, "boot a kernel" },
	{ "exec", cmd_exec, "run a program that uses /dev/kvm" },
	{ "stat", cmd_stat, "show the counters of running VMs" },
	{ "check", cmd_check, "tell what this host offers" },
};

static void print_help(FILE *f)
{
	fprintf(f,
		"Usage: umbra COMMAND [ARGUMENT]...\n"
		"Virtual machines on x86-64 hosts, with or without virtualization hardware.\n\n");
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].help);
	fprintf(f, "\n`umbra COMMAND --help` tells more.  `umbra --version` prints the version.\n");
}

/*
 * Standard descriptors that we were started without would be given to what we open next: messages and
 * console output would go into a disk.
 */
static bool open_standard_fds(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return false;
	return true;
}

int main(int argc, char **argv)
{
	if (!open_standard_fds())
		return 2;
	if (argc < 2) {
		print_help(stderr);
		return 2;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_help(stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("umbra %s\n", umbra_version());
		return 0;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	msg("'%s': no such command; see `umbra --help`", argv[1]);
	return 2;
}
