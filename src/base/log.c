// SPDX-License-Identifier: MIT
#include "base/log.h"

#include <stdio.h>
#include <unistd.h>

void um_write_line(int fd, const char *start, const char *fmt, va_list ap)
{
	char line[1024];
	int n = snprintf(line, sizeof(line), "%s", start);

	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(fd, line, (size_t)n) < 0)
		return;
}

void um_log(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	um_write_line(STDERR_FILENO, "umbra: ", fmt, ap);
	va_end(ap);
}
