/* SPDX-License-Identifier: MIT */
/* `umbra run`: returns the exit status. */
#ifndef VMM_RUN_H
#define VMM_RUN_H

#define EXIT_GUEST_DIED 1
#define EXIT_HOST_ERROR 2

int cmd_run(int argc, char **argv);

#endif
