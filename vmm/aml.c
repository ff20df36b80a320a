// SPDX-License-Identifier: MIT
/*
 * AML writer.  A package length stands before what it measures and has 1 to 4 bytes, so closing a
 * construct moves its contents up by the size of the length.
 */
#include "aml.h"

#include <string.h>

enum {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_DUAL_NAME = 0x2e,
	OP_MULTI_NAME = 0x2f,
	OP_EXT = 0x5b,
	OP_EXT_DEVICE = 0x82,
};

void aml_init(struct aml *a, void *buf, size_t cap)
{
	*a = (struct aml){ .buf = buf, .cap = cap };
}

static void put(struct aml *a, const void *data, size_t len)
{
	if (len > a->cap - a->len) {
		a->failed = true;
		return;
	}
	memcpy(a->buf + a->len, data, len);
	a->len += len;
}

static void put8(struct aml *a, u8 v)
{
	put(a, &v, 1);
}

static void put16(struct aml *a, u16 v)
{
	put(a, &v, 2);
}

static void put32(struct aml *a, u32 v)
{
	put(a, &v, 4);
}

/* NameString, 20.2.2. */
static void put_path(struct aml *a, const char *path)
{
	unsigned segs;

	if (*path == '\\') {
		put8(a, '\\');
		path++;
	}
	segs = (unsigned)(strlen(path) + 1) / 5;
	if (strlen(path) != segs * 5 - 1) {
		a->failed = true;
		return;
	}
	if (segs == 2) {
		put8(a, OP_DUAL_NAME);
	} else if (segs > 2) {
		put8(a, OP_MULTI_NAME);
		put8(a, (u8)segs);
	}
	for (unsigned i = 0; i < segs; i++)
		put(a, path + 5 * i, 4);
}

/* Begin something whose length is measured. */
static void open_length(struct aml *a)
{
	if (a->depth == AML_MAX_DEPTH) {
		a->failed = true;
		return;
	}
	a->start[a->depth++] = a->len;
}

/* PkgLength, 20.2.4: it counts its own bytes. */
static unsigned encode_length(size_t len, u8 out[4])
{
	unsigned extra = 0;

	if (len + 1 < 1u << 6) {
		out[0] = (u8)(len + 1);
		return 1;
	}
	while (len + extra + 1 >= 1u << (4 + 8 * extra))
		extra++;
	len += extra + 1;
	out[0] = (u8)(extra << 6 | (len & 15));
	for (unsigned i = 1; i <= extra; i++)
		out[i] = (u8)(len >> (4 + 8 * (i - 1)));
	return extra + 1;
}

void aml_end(struct aml *a)
{
	u8 bytes[4];
	size_t start;
	unsigned n;

	if (a->failed || !a->depth) {
		a->failed = true;
		return;
	}
	start = a->start[--a->depth];
	n = encode_length(a->len - start, bytes);
	if (n > a->cap - a->len) {
		a->failed = true;
		return;
	}
	memmove(a->buf + start + n, a->buf + start, a->len - start);
	memcpy(a->buf + start, bytes, n);
	a->len += n;
}

void aml_scope(struct aml *a, const char *path)
{
	put8(a, OP_SCOPE);
	open_length(a);
	put_path(a, path);
}

void aml_device(struct aml *a, const char *name)
{
	put8(a, OP_EXT);
	put8(a, OP_EXT_DEVICE);
	open_length(a);
	put_path(a, name);
}

void aml_package(struct aml *a, u8 elements)
{
	put8(a, OP_PACKAGE);
	open_length(a);
	put8(a, elements);
}

void aml_name(struct aml *a, const char *name)
{
	put8(a, OP_NAME);
	put_path(a, name);
}

void aml_int(struct aml *a, u64 v)
{
	if (v <= 1) {
		put8(a, v ? OP_ONE : OP_ZERO);
	} else if (v <= 0xff) {
		put8(a, OP_BYTE);
		put8(a, (u8)v);
	} else if (v <= 0xffff) {
		put8(a, OP_WORD);
		put16(a, (u16)v);
	} else if (v <= 0xffffffff) {
		put8(a, OP_DWORD);
		put32(a, (u32)v);
	} else {
		put8(a, OP_QWORD);
		put(a, &v, 8);
	}
}

void aml_string(struct aml *a, const char *s)
{
	put8(a, OP_STRING);
	put(a, s, strlen(s) + 1);
}

static u32 hex_digit(char c)
{
	return (u32)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters of five bits and four digits, big-endian (ACPI 6.4, 19.3.4, EISAID macro). */
void aml_eisaid(struct aml *a, const char *id)
{
	u32 v = 0;

	if (strlen(id) != 7) {
		a->failed = true;
		return;
	}
	for (unsigned i = 0; i < 3; i++)
		v = v << 5 | (u32)(id[i] - 0x40);
	for (unsigned i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	put8(a, OP_DWORD);
	put32(a, __builtin_bswap32(v));
}

/*
 * A resource template is a buffer: its size, an integer of unknown length until the end, stands between
 * the package length and the bytes.
 */
void aml_resources(struct aml *a)
{
	put8(a, OP_BUFFER);
	open_length(a);
}

void aml_end_resources(struct aml *a)
{
	u8 size[16];
	struct aml n;
	size_t start, len;

	put8(a, 0x79); /* end tag; checksum 0 means "not checked" */
	put8(a, 0);
	if (a->failed || !a->depth) {
		a->failed = true;
		return;
	}
	start = a->start[a->depth - 1];
	len = a->len - start;
	aml_init(&n, size, sizeof(size));
	aml_int(&n, len);
	if (n.len > a->cap - a->len) {
		a->failed = true;
		return;
	}
	memmove(a->buf + start + n.len, a->buf + start, len);
	memcpy(a->buf + start, size, n.len);
	a->len += n.len;
	aml_end(a);
}

/* I/O port descriptor, 6.4.2.5: 16-bit decode, fixed. */
void aml_res_io(struct aml *a, u16 base, u8 len)
{
	put8(a, 0x47);
	put8(a, 1);
	put16(a, base);
	put16(a, base);
	put8(a, 1);
	put8(a, len);
}

/* IRQ descriptor without flags, 6.4.2.1: edge, active high. */
void aml_res_irq(struct aml *a, unsigned irq)
{
	put8(a, 0x22);
	put16(a, (u16)(1u << irq));
}

#define RANGE_MEMORY 0
#define RANGE_IO     1
#define RANGE_BUS    2
#define RANGE_FIXED  0x0c /* minimum and maximum are fixed */

/* Word address space descriptor, 6.4.3.5.3. */
static void word_range(struct aml *a, u8 type, u8 type_flags, u16 first, u16 last)
{
	put8(a, 0x88);
	put16(a, 13);
	put8(a, type);
	put8(a, RANGE_FIXED);
	put8(a, type_flags);
	put16(a, 0); /* granularity */
	put16(a, first);
	put16(a, last);
	put16(a, 0); /* translation */
	put16(a, (u16)(last - first + 1));
}

void aml_res_bus_range(struct aml *a, u16 first, u16 last)
{
	word_range(a, RANGE_BUS, 0, first, last);
}

void aml_res_io_range(struct aml *a, u16 first, u16 last)
{
	word_range(a, RANGE_IO, 3, first, last); /* the entire range, ISA and not */
}

/* Double word address space descriptor, 6.4.3.5.2: read-write, not cacheable. */
void aml_res_memory_range(struct aml *a, u32 first, u32 last)
{
	put8(a, 0x87);
	put16(a, 23);
	put8(a, RANGE_MEMORY);
	put8(a, RANGE_FIXED);
	put8(a, 1);
	put32(a, 0);
	put32(a, first);
	put32(a, last);
	put32(a, 0);
	put32(a, last - first + 1);
}
