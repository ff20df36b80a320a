// SPDX-License-Identifier: MIT
/*
 * The notifier chain: what happens to host memory under the slots, told to those who keep translations to it.
 */
#include "mem/internal.h"

void um_mem_invalidate_start(struct um_mem *m, hva_t start, hva_t end)
{
	struct um_mem_listener *l;

	um_trace(m->trace, slots, "invalidate_range_start %#lx-%#lx", start, end);
	um_for_each_listener(l, m)
	{
		if (l->invalidate_range_start)
			l->invalidate_range_start(l, start, end);
	}
}

void um_mem_invalidate_end(struct um_mem *m, hva_t start, hva_t end)
{
	struct um_mem_listener *l;

	um_trace(m->trace, slots, "invalidate_range_end %#lx-%#lx", start, end);
	um_for_each_listener(l, m)
	{
		if (l->invalidate_range_end)
			l->invalidate_range_end(l, start, end);
	}
}

void um_mem_invalidate(struct um_mem *m, hva_t start, hva_t end)
{
	um_mem_invalidate_start(m, start, end);
	um_mem_invalidate_end(m, start, end);
}

void um_mem_change(struct um_mem *m, hva_t hva)
{
	struct um_mem_listener *l;

	um_for_each_listener(l, m)
	{
		if (l->change)
			l->change(l, hva);
	}
}

bool um_mem_clear_young(struct um_mem *m, hva_t start, hva_t end)
{
	struct um_mem_listener *l;
	bool young = false;

	um_for_each_listener(l, m)
	{
		if (l->clear_young)
			young |= l->clear_young(l, start, end);
	}
	return young;
}

bool um_mem_test_young(struct um_mem *m, hva_t start, hva_t end)
{
	struct um_mem_listener *l;

	um_for_each_listener(l, m)
	{
		if (l->test_young && l->test_young(l, start, end))
			return true;
	}
	return false;
}
