/* SPDX-License-Identifier: MIT */
/*
 * Segment descriptors: between the 8 or 16 bytes of a descriptor table, the hidden part of a segment
 * register (struct um_segment), and the access-rights word of VMX and SMM.  SDM vol. 3 3.4.5, 3.5, 5.8.3.1,
 * 7.2.  Pure functions.
 *
 *	63      56 55  52 51   48 47     40 39            16 15          0
 *	[ base 3 ][GDLA ][limit 2][ access ][ base 2, 1, 0  ][ limit 1, 0 ]
 *	access = [ P:1 DPL:2 S:1 type:4 ]
 *
 * In IA-32e mode the system descriptors (LDT, TSS, gates) have 8 more bytes with bits 63:32 of the base
 * or offset in their low half.
 */
#ifndef UM_CPU_SEGMENT_H
#define UM_CPU_SEGMENT_H

#include "cpu/cpu.h"

/* ---- fields of a raw descriptor ---- */
static inline unsigned um_desc_type(u64 d)
{
	return (d >> 40) & 15;
}
static inline unsigned um_desc_dpl(u64 d)
{
	return (d >> 45) & 3;
}
/* Code or data; clear: system segment or gate. */
static inline bool um_desc_s(u64 d)
{
	return (d >> 44) & 1;
}
static inline bool um_desc_present(u64 d)
{
	return (d >> 47) & 1;
}
static inline bool um_desc_l(u64 d)
{
	return (d >> 53) & 1;
}
static inline bool um_desc_db(u64 d)
{
	return (d >> 54) & 1;
}
static inline bool um_desc_g(u64 d)
{
	return (d >> 55) & 1;
}
static inline u64 um_desc_base(u64 d)
{
	return ((d >> 16) & 0xffffff) | ((d >> 32) & 0xff000000);
}
/* In bytes. */
static inline u32 um_desc_limit(u64 d)
{
	u32 limit = (d & 0xffff) | ((d >> 32) & 0xf0000);

	return um_desc_g(d) ? limit << 12 | 0xfff : limit;
}
static inline bool um_desc_is_code(u64 d)
{
	return um_desc_s(d) && (um_desc_type(d) & UM_DESC_CODE);
}
static inline bool um_desc_is_conforming(u64 d)
{
	return um_desc_is_code(d) && (um_desc_type(d) & UM_DESC_CONFORMING);
}
static inline bool um_desc_is_writable(u64 d)
{
	return um_desc_s(d) &&
	       (um_desc_type(d) & (UM_DESC_CODE | UM_DESC_WRITABLE)) == UM_DESC_WRITABLE;
}
/* Data, or code that may be read. */
static inline bool um_desc_is_readable(u64 d)
{
	return um_desc_s(d) &&
	       (um_desc_type(d) & (UM_DESC_CODE | UM_DESC_READABLE)) != UM_DESC_CODE;
}

/* ---- fields of a gate (call, interrupt, trap, task) ---- */
static inline u16 um_gate_selector(u64 d)
{
	return d >> 16;
}
/* Bits 31:0; a 16-bit gate has only 15:0. */
static inline u32 um_gate_offset(u64 d)
{
	return (d & 0xffff) | ((d >> 32) & 0xffff0000);
}
/* Parameters that a call gate copies, in units of its size. */
static inline unsigned um_gate_params(u64 d)
{
	return (d >> 32) & 31;
}
static inline unsigned um_gate_ist(u64 d)
{
	return (d >> 32) & 7;
}

/* ---- segment registers ---- */
/*
 * The hidden part that loading @selector with descriptor @d gives.  @hi: the upper 8 bytes of a 16-byte
 * system descriptor, else 0.  Nothing is checked.
 */
struct um_segment um_segment_unpack(u16 selector, u64 d, u64 hi);

/* The descriptor that *@s could have come from; *@hi (may be NULL) gets bits 63:32 of the base. */
u64 um_segment_pack(const struct um_segment *s, u64 *hi);

/* What loading a null selector leaves.  @dpl: for SS in 64-bit mode, where it is the CPL. */
struct um_segment um_segment_null(u16 selector, unsigned dpl);

/* As virtual-8086 mode has it: base = selector * 16, 64 KiB, writable data, DPL 3. */
struct um_segment um_segment_vm86(u16 selector);

/* A flat 4 GiB code or data segment, accessed and present, as SYSCALL and SYSENTER make them. */
struct um_segment um_segment_flat_code(u16 selector, unsigned dpl, bool l);
struct um_segment um_segment_flat_data(u16 selector, unsigned dpl);

/*
 * Access rights as VMX keeps them (SDM vol. 3 24.4.1): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15,
 * unusable 16.  Bits 15:0 are also what SMM saves, and descriptor bits 55:40 without the limit.
 */
u32 um_segment_rights(const struct um_segment *s);
void um_segment_set_rights(struct um_segment *s, u32 rights);

/* Does *@s hold all of [off, off + len)?  Limits only, expand-down included.  Not for 64-bit mode. */
static inline bool um_segment_holds(const struct um_segment *s, u64 off, unsigned len)
{
	u64 last = off + len - 1;

	if (s->unusable)
		return false;
	if ((s->type & (UM_DESC_CODE | UM_DESC_EXPANDDOWN)) == UM_DESC_EXPANDDOWN)
		return off > s->limit && last <= (s->db ? 0xffffffffu : 0xffffu);
	return last <= s->limit;
}

#endif
