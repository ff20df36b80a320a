// SPDX-License-Identifier: MIT
/* Messages: formatted into a buffer and written at once, so that lines of several threads do not mix. */
#include "msg.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static void vmsg(const char *fmt, va_list ap)
{
	char line[1024];
	int n = snprintf(line, sizeof(line), "umbra: ");

	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}

void msg(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vmsg(fmt, ap);
	va_end(ap);
}

int msg_err(int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vmsg(fmt, ap);
	va_end(ap);
	return -err;
}
