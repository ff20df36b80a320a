/* SPDX-License-Identifier: MIT */
/* Large areas of memory, in huge pages where the kernel has them to give (transhuge.rst). */
#ifndef UM_BASE_HUGE_H
#define UM_BASE_HUGE_H

#include <stddef.h>

#define UM_HUGE_PAGE (2ul << 20)

/*
 * @size bytes of zeroed anonymous memory, reserved only as it is touched: aligned to a huge page, and asked to be in such,
 * if it is as large as one.  NULL: there is none (errno).
 */
void *um_huge_map(size_t size);
void um_huge_unmap(void *p, size_t size);

/*
 * Have the shared memory from @p on, a huge page's size, of which some was touched already, in a huge page, and mapped as such.  With
 * madvise(MADV_COLLAPSE), so also where the system's setting is that shared memory is not (Linux 6.1 and later; else nothing happens).
 */
void um_huge_collapse(void *p);

#endif
