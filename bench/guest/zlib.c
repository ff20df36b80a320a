// SPDX-License-Identifier: MIT
/* Compression: a text of words is packed and unpacked by Debian's zlib. */
#include "work.h"

#include <zlib.h>

uint64_t deflate_inflate(void)
{
	enum { SIZE = 1 << 20 };
	static const char *const words[] = { "page",   "table", "entry", "is",	   "the",  "a",
					     "shadow", "of",	"guest", "fault",  "walk", "and",
					     "root",   "level", "not",	 "present" };
	static char text[SIZE + 16], back[SIZE];
	static unsigned char packed[SIZE + SIZE / 8];
	uLongf size = sizeof(packed), unpacked = sizeof(back);
	uint32_t s = 9;

	for (size_t n = 0; n < SIZE;) {
		const char *w = words[lcg(&s) >> 28];
		size_t length = strlen(w);

		memcpy(text + n, w, length);
		text[n + length] = (lcg(&s) >> 24) % 9 ? ' ' : (char)(lcg(&s) >> 25);
		n += length + 1;
	}
	if (compress2(packed, &size, (const unsigned char *)text, SIZE, 6) != Z_OK ||
	    uncompress((unsigned char *)back, &unpacked, packed, size) != Z_OK ||
	    memcmp(text, back, SIZE) != 0)
		return 0;
	return digest(size, packed, size);
}
