/* SPDX-License-Identifier: MIT */
/*
 * What stubs.S knows of struct um_load_thread (load.h), by number: the assembler reads no structures.  thread.c
 * asserts each.
 */
#ifndef UM_SHIM_LOAD_OFFSETS_H
#define UM_SHIM_LOAD_OFFSETS_H

#define T_SELF	      0	 /* its own address, for %gs:0 */
#define T_OUR_FS      8	 /* FS base of this library's code in this thread */
#define T_PROGRAM_FS  16 /* FS base of the program, while ours is in the register */
#define T_STACK	      24 /* top of the stack that our code runs on */
#define T_PROGRAM_RSP 32
#define T_MASK	      40 /* which, if T_DEFERRED */
#define T_XSAVE	      48 /* room for the extended state */
#define T_EXIT_RSP    56 /* um_load_enter()'s own stack */
#define T_FAST_IOCTL  64 /* um_load_fast_ioctl */
#define T_ALTSTACK    72 /* lowest address of our signal stack */
#define T_KERNEL_LOW \
	80 /* the signal stack that the kernel knows, ours or the program's: lowest address, ... */
#define T_KERNEL_SIZE 88  /* ... and size */
#define T_DISPATCHED  96  /* um_load_dispatched */
#define T_SELECTOR    104 /* byte: the kernel's selector of syscall user dispatch */
#define T_DEFERRED \
	105 /* byte: the signal mask has to be set when the thread is back in the program */
#define T_FSGSBASE 106 /* byte: the CPU and the kernel have RDFSBASE and its like */
#define T_XSAVEC   107 /* byte: the CPU has XSAVEC */

#define ALTSTACK_SIZE 0x60000

/* Values of the selector: <linux/prctl.h>. */
#define SELECT_OURS    0 /* system calls go to the kernel */
#define SELECT_PROGRAM 1 /* system calls become SIGSYS */

#endif
