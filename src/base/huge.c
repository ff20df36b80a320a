// SPDX-License-Identifier: MIT
#include "base/huge.h"

#include <sys/mman.h>

#include "base/bits.h"
#include "base/syscall.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* <linux/mman.h> of Linux 6.1 */
#endif

static char *map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void *um_huge_map(size_t size)
{
	size_t skip;
	char *p;

	if (size < UM_HUGE_PAGE)
		return map(size);
	p = map(size + UM_HUGE_PAGE);
	if (!p)
		return NULL;
	skip = -(size_t)p % UM_HUGE_PAGE;
	if (skip)
		munmap(p, skip);
	munmap(p + skip + size, UM_HUGE_PAGE - skip);
	madvise(p + skip, size,
		MADV_HUGEPAGE); /* (A kernel without says so: then it is as it was.) */
	return p + skip;
}

void um_huge_unmap(void *p, size_t size)
{
	if (p)
		munmap(p, size);
}

void um_huge_collapse(void *p)
{
	um_syscall3(SYS_madvise, (long)p, UM_HUGE_PAGE, MADV_COLLAPSE);
}
