/* SPDX-License-Identifier: MIT */
/*
 * The ioctl layer: for each kind of descriptor a list of requests with their handlers (system.c, vm.c,
 * vcpu.c).  A handler validates, calls, and answers as the kernel does: >= 0 or -errno.
 */
#ifndef UM_API_API_H
#define UM_API_API_H

#include "vcpu/vcpu.h"

/* What is behind the descriptor of umbra_open(). */
struct um_system {
	struct um_vm_config cfg; /* tsc_khz is filled in when a VM is made */
};

/* How a request takes its argument. */
enum um_arg {
	UM_ARG_VAL,   /* an integer, or none */
	UM_ARG_IN,    /* a structure, read */
	UM_ARG_OUT,   /* a structure, written on success */
	UM_ARG_INOUT, /* both */
	UM_ARG_RAW,   /* a pointer, which the handler follows itself */
};

/* @arg: the ioctl's argument as it is; @data: the copy of the structure that it points at. */
typedef long (*um_handler)(void *obj, unsigned long arg, void *data);

struct um_ioctl {
	u32 cmd;
	enum um_arg arg;
	u32 size; /* of the structure */
	um_handler fn;
	const char *name;
};

/* A row of a table.  @type: of the structure; char if there is none. */
#define UM_IOCTL(cmd_, arg_, type, handler)                                                    \
	{                                                                                      \
		.cmd = (u32)(cmd_), .arg = UM_ARG_##arg_, .size = sizeof(type), .fn = handler, \
		.name = #cmd_                                                                  \
	}

#define UM_ARG_MAX 4096 /* bytes of the largest structure */

/* Copy in, call, copy out.  @unknown: the error for a request that is not in the table. */
long um_ioctl_dispatch(const struct um_ioctl *table, size_t n, void *obj, u32 cmd,
		       unsigned long arg, long unknown);

long um_system_ioctl(struct um_system *s, u32 cmd, unsigned long arg);
long um_vm_ioctl(struct um_vm *vm, u32 cmd, unsigned long arg);
long um_vcpu_ioctl(struct um_vcpu *v, u32 cmd, unsigned long arg);

/* KVM_CHECK_EXTENSION; @vm may be NULL.  caps.c */
long um_check_extension(const struct um_vm *vm, unsigned long cap);
/* KVM_ENABLE_CAP on a VM and on a vCPU. */
long um_vm_enable_cap(struct um_vm *vm, const struct kvm_enable_cap *cap);
long um_vcpu_enable_cap(struct um_vcpu *v, const struct kvm_enable_cap *cap);

/* Make descriptors: the number, or -errno.  They take over @s, the caller's reference to @vm. */
int um_system_fd(struct um_system *s);
int um_vm_fd(struct um_vm *vm);
int um_vcpu_fd(struct um_vm *vm, u32 id); /* takes a reference of its own */

/* KVM_GET_STATS_FD: a descriptor, or -errno; the vCPU's lock held.  stats.c */
int um_vm_stats_fd(struct um_vm *vm);
int um_vcpu_stats_fd(struct um_vcpu *v);

/* Frequency of the host's TSC: host.c. */
u32 um_host_tsc_khz(void);

/* Copies between the VMM's memory, at an address that may be wrong, and ours.  0 or -EFAULT. */
int um_copy_in_user(void *dst, unsigned long src, size_t len);
int um_copy_out_user(unsigned long dst, const void *src, size_t len);

#endif
