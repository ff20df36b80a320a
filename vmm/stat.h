/* SPDX-License-Identifier: MIT */
/* `umbra stat`: the counters of running VMs.  Returns the exit status. */
#ifndef VMM_STAT_H
#define VMM_STAT_H

#include <stdio.h>
#include <sys/types.h>

int cmd_stat(int argc, char **argv);

/*
 * Print the counters of all VMs in process @pid to @f, with rates over @seconds if @last (STAT_MEMORY
 * values, kept by the caller between calls, zero at first) has an earlier reading.  Returns the
 * number of VMs found, or -errno.
 */
#define STAT_MEMORY 4096
int stat_print(FILE *f, pid_t pid, double seconds, unsigned long long *last);

#endif
