// SPDX-License-Identifier: MIT
#include "base/trace.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

static const struct {
	const char *name, *help;
} classes[UM_TRACE_MAX] = {
#define X(name, help) [UM_TRACE_##name] = { #name, help },
	UM_TRACE_CLASSES(X)
#undef X
};

const char *um_trace_class_name(enum um_trace_class c)
{
	return classes[c].name;
}

const char *um_trace_class_help(enum um_trace_class c)
{
	return classes[c].help;
}

static bool parse_word(const char *word, size_t len, u32 *mask)
{
	if (len == 3 && !memcmp(word, "all", 3)) {
		*mask = (1u << UM_TRACE_MAX) - 1;
		return true;
	}
	for (unsigned i = 0; i < UM_TRACE_MAX; i++) {
		if (strlen(classes[i].name) == len && !memcmp(word, classes[i].name, len)) {
			*mask |= 1u << i;
			return true;
		}
	}
	return len == 0;
}

int um_trace_parse(const char *list, u32 *mask, const char **bad)
{
	*mask = 0;
	while (*list) {
		size_t len = strcspn(list, ",");

		if (!parse_word(list, len, mask)) {
			*bad = list;
			return -EINVAL;
		}
		list += len + (list[len] == ',');
	}
	return 0;
}

void um_trace_print(const struct um_trace *t, enum um_trace_class c, const char *fmt, ...)
{
	struct timespec now;
	char start[64];
	va_list ap;

	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(start, sizeof(start), "%lld.%06ld %d %-10s ", (long long)now.tv_sec,
		 now.tv_nsec / 1000, (int)gettid(), classes[c].name);
	va_start(ap, fmt);
	um_write_line(t->fd, start, fmt, ap);
	va_end(ap);
}
