/* SPDX-License-Identifier: MIT */
/*
 * CPUID as the program sees it: with VMX or SVM, whichever is of the host's vendor.  Some programs look for these before
 * they open /dev/kvm.
 *
 * Where the CPU can (ARCH_SET_CPUID), the instruction raises SIGSEGV in the whole process.  Elsewhere the CPUID
 * instructions of the program's file are replaced by UD2, and raise SIGILL.  Which bytes are instructions is known
 * from the functions in .eh_frame and the decoder; a file without that table is left alone.  Programs without
 * CPUID in their own file are left alone either way.
 */
#ifndef UM_SHIM_CPUID_MASK_H
#define UM_SHIM_CPUID_MASK_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

/* What the environment variable UMBRA_CPUID asks for. */
enum um_cpuid_mode { UM_CPUID_AUTO, UM_CPUID_FAULT, UM_CPUID_PATCH, UM_CPUID_OFF };

/*
 * Arrange it for the program of the file @path, whose program headers are @ph, loaded at @bias.  Before it has more than one thread.
 * Returns the signal that CPUID raises from now on, 0 if none: that signal has to come to um_cpuid_fixup().
 */
int um_cpuid_init(const char *path, const Elf64_Phdr *ph, size_t n, uint64_t bias);

/* A signal raised by the CPU: was it by a CPUID of ours?  Then @uc is behind it, with what it says. */
bool um_cpuid_fixup(int sig, ucontext_t *uc);

#endif
