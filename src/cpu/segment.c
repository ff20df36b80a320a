// SPDX-License-Identifier: MIT
/*
 * Segment descriptors, packed and unpacked.  See the header for the layout.
 */
#include "cpu/segment.h"

struct um_segment um_segment_unpack(u16 selector, u64 d, u64 hi)
{
	return (struct um_segment){
		.base = um_desc_base(d) | hi << 32,
		.limit = um_desc_limit(d),
		.selector = selector,
		.type = um_desc_type(d),
		.dpl = um_desc_dpl(d),
		.s = um_desc_s(d),
		.present = um_desc_present(d),
		.avl = (d >> 52) & 1,
		.l = um_desc_l(d),
		.db = um_desc_db(d),
		.g = um_desc_g(d),
	};
}

u64 um_segment_pack(const struct um_segment *s, u64 *hi)
{
	u64 limit = s->g ? s->limit >> 12 : s->limit;
	u64 rights = um_segment_rights(s) & 0xf0ff;

	if (hi)
		*hi = s->base >> 32;
	return (limit & 0xffff) | (s->base & 0xffffff) << 16 | rights << 40 |
	       (limit & 0xf0000) << 32 | (s->base & 0xff000000) << 32;
}

struct um_segment um_segment_null(u16 selector, unsigned dpl)
{
	return (struct um_segment){ .selector = selector, .dpl = dpl, .unusable = true };
}

struct um_segment um_segment_vm86(u16 selector)
{
	return (struct um_segment){
		.base = (u64)selector << 4,
		.limit = 0xffff,
		.selector = selector,
		.type = UM_DESC_WRITABLE | UM_DESC_ACCESSED,
		.dpl = 3,
		.s = true,
		.present = true,
	};
}

struct um_segment um_segment_flat_code(u16 selector, unsigned dpl, bool l)
{
	return (struct um_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = UM_DESC_CODE | UM_DESC_READABLE | UM_DESC_ACCESSED,
		.dpl = dpl,
		.s = true,
		.present = true,
		.l = l,
		.db = !l,
		.g = true,
	};
}

struct um_segment um_segment_flat_data(u16 selector, unsigned dpl)
{
	return (struct um_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = UM_DESC_WRITABLE | UM_DESC_ACCESSED,
		.dpl = dpl,
		.s = true,
		.present = true,
		.db = true,
		.g = true,
	};
}

u32 um_segment_rights(const struct um_segment *s)
{
	return s->type | s->s << 4 | s->dpl << 5 | s->present << 7 | s->avl << 12 | s->l << 13 |
	       s->db << 14 | s->g << 15 | (u32)s->unusable << 16;
}

void um_segment_set_rights(struct um_segment *s, u32 rights)
{
	s->type = rights & 15;
	s->s = rights >> 4 & 1;
	s->dpl = rights >> 5 & 3;
	s->present = rights >> 7 & 1;
	s->avl = rights >> 12 & 1;
	s->l = rights >> 13 & 1;
	s->db = rights >> 14 & 1;
	s->g = rights >> 15 & 1;
	s->unusable = rights >> 16 & 1;
}
