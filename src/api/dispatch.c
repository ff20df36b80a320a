// SPDX-License-Identifier: MIT
/*
 * From a request's number to its handler, with the structure copied in and out.
 *
 * All 32 bits of the number count: requests of different structures share the low 16 (KVM_ENABLE_CAP and
 * KVM_GET_TSC_KHZ).
 */
#include <errno.h>
#include <string.h>

#include "api/api.h"
#include "base/uaccess.h"

int um_copy_in_user(void *dst, unsigned long src, size_t len)
{
	return um_copy_from(dst, (const void *)src, len) ? -EFAULT : 0;
}

int um_copy_out_user(unsigned long dst, const void *src, size_t len)
{
	return um_copy_to((void *)dst, src, len) ? -EFAULT : 0;
}

long um_ioctl_dispatch(const struct um_ioctl *table, size_t n, void *obj, u32 cmd,
		       unsigned long arg, long unknown)
{
	u8 data[UM_ARG_MAX] __attribute__((aligned(64)));
	const struct um_ioctl *i = NULL;
	long r;

	for (size_t k = 0; k < n && !i; k++) {
		if (table[k].cmd == cmd)
			i = &table[k];
	}
	if (!i)
		return unknown;
	if (i->arg == UM_ARG_IN || i->arg == UM_ARG_INOUT) {
		if (um_copy_in_user(data, arg, i->size))
			return -EFAULT;
	} else if (i->arg == UM_ARG_OUT) {
		memset(data, 0, i->size);
	}
	r = i->fn(obj, arg, data);
	if (r >= 0 && (i->arg == UM_ARG_OUT || i->arg == UM_ARG_INOUT) &&
	    um_copy_out_user(arg, data, i->size))
		return -EFAULT;
	return r;
}
