// SPDX-License-Identifier: MIT
/* Copying between umbra and guest-physical memory, page by page. */
#include "mem/internal.h"

#include <errno.h>

#include "base/uaccess.h"

static int copy_page(struct um_mem *m, unsigned as, gpa_t gpa, void *buf, size_t len, bool write)
{
	struct um_slot *s = um_mem_slot(m, as, gpa >> UM_PAGE_SHIFT);
	void *hva;

	if (!s || (write && (s->flags & KVM_MEM_READONLY)))
		return -EFAULT;
	hva = (void *)(um_slot_hva(s, gpa >> UM_PAGE_SHIFT) + (gpa & ~UM_PAGE_MASK));
	if (!write)
		return um_copy_from(buf, hva, len) ? -EFAULT : 0;
	if (um_copy_to(hva, buf, len))
		return -EFAULT;
	um_mem_mark_dirty(m, s, gpa >> UM_PAGE_SHIFT, NULL);
	return 0;
}

static int copy(struct um_mem *m, unsigned as, gpa_t gpa, void *buf, size_t len, bool write)
{
	unsigned token = um_mem_read_lock(m);
	int err = 0;

	while (len && !err) {
		size_t n = um_min(len, UM_PAGE_SIZE - (gpa & ~UM_PAGE_MASK));

		err = copy_page(m, as, gpa, buf, n, write);
		gpa += n;
		buf = (char *)buf + n;
		len -= n;
	}
	um_mem_read_unlock(m, token);
	return err;
}

int um_mem_read(struct um_mem *m, unsigned as, gpa_t gpa, void *buf, size_t len)
{
	return copy(m, as, gpa, buf, len, false);
}

int um_mem_write(struct um_mem *m, unsigned as, gpa_t gpa, const void *buf, size_t len)
{
	return copy(m, as, gpa, (void *)buf, len, true);
}
