/* SPDX-License-Identifier: MIT */
/* `umbra check`: what this host offers.  Returns the exit status. */
#ifndef VMM_CHECK_H
#define VMM_CHECK_H

int cmd_check(int argc, char **argv);

#endif
