// SPDX-License-Identifier: MIT
#include "base/size.h"

#include <errno.h>
#include <stdlib.h>

bool um_parse_size(const char *s, u64 *bytes)
{
	unsigned long long v;
	unsigned shift = 20;
	char *end;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno)
		return false;
	switch (*end) {
	case 'k':
	case 'K':
		shift = 10;
		end++;
		break;
	case 'm':
	case 'M':
		end++;
		break;
	case 'g':
	case 'G':
		shift = 30;
		end++;
		break;
	case 't':
	case 'T':
		shift = 40;
		end++;
		break;
	default:
		break;
	}
	if (*end || v > ~0ull >> shift)
		return false;
	*bytes = v << shift;
	return true;
}
