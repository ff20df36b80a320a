// SPDX-License-Identifier: MIT
#include "base/jit_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"

static const struct {
	const char *env, *option;
} names[UM_JIT_OPT_MAX] = {
#define X(name, env, option, argument) [UM_JIT_OPT_##name] = { env, option },
	UM_JIT_OPTIONS(X)
#undef X
};

const char *um_jit_option_env(enum um_jit_option n)
{
	return names[n].env;
}

const char *um_jit_option_name(enum um_jit_option n)
{
	return names[n].option;
}

void um_jit_options_init(struct um_jit_options *o)
{
	memset(o, 0, sizeof(*o));
	o->dump_passes = BIT(UM_DUMP_MAX) - 1;
	o->dump_last = ~0ull;
	o->code_cache = UM_CODE_CACHE_DEFAULT;
	o->threshold = UM_JIT_THRESHOLD;
}

static int set_dump(struct um_jit_options *o, const char *value)
{
	size_t len = strlen(value);

	if (!len || len >= sizeof(o->dump))
		return -EINVAL;
	memcpy(o->dump, value, len + 1);
	return 0;
}

static int set_passes(struct um_jit_options *o, const char *list)
{
	static const char *const passes[UM_DUMP_MAX] = {
#define X(name, help) [UM_DUMP_##name] = #name,
		UM_DUMP_PASSES(X)
#undef X
	};
	u8 mask = 0;

	while (*list) {
		size_t len = strcspn(list, ",");
		unsigned n = 0;

		while (n < UM_DUMP_MAX &&
		       (strlen(passes[n]) != len || memcmp(passes[n], list, len)))
			n++;
		if (n == UM_DUMP_MAX)
			return -EINVAL;
		mask |= (u8)BIT(n);
		list += len + (list[len] == ',');
	}
	if (!mask)
		return -EINVAL;
	o->dump_passes = mask;
	return 0;
}

/* FIRST-LAST or one address, hexadecimal. */
static int set_range(struct um_jit_options *o, const char *s)
{
	char *end;

	if (!*s || strspn(s, "0123456789abcdefABCDEFxX-") != strlen(s) || *s == '-')
		return -EINVAL;
	errno = 0;
	o->dump_first = o->dump_last = strtoull(s, &end, 16);
	if (*end == '-' && end[1] && end[1] != '-')
		o->dump_last = strtoull(end + 1, &end, 16);
	return errno || *end || o->dump_last < o->dump_first ? -EINVAL : 0;
}

static int set_perf(struct um_jit_options *o, const char *value)
{
	if (!strcmp(value, "map"))
		o->perf = UM_PERF_MAP;
	else if (!strcmp(value, "jitdump"))
		o->perf = UM_PERF_JITDUMP;
	else
		return -EINVAL;
	return 0;
}

static int set_code_cache(struct um_jit_options *o, const char *value)
{
	u64 size;

	if (!um_parse_size(value, &size) || size < UM_CODE_CACHE_MIN || size > UM_CODE_CACHE_MAX)
		return -EINVAL;
	o->code_cache = size;
	return 0;
}

static int set_threshold(struct um_jit_options *o, const char *value)
{
	u64 n = 0;

	if (!*value || strspn(value, "0123456789") != strlen(value))
		return -EINVAL;
	for (; *value && n <= UM_JIT_THRESHOLD_MAX; value++)
		n = n * 10 + (u64)(*value - '0');
	if (n > UM_JIT_THRESHOLD_MAX)
		return -EINVAL;
	o->threshold = (u32)n;
	return 0;
}

int um_jit_option_set(struct um_jit_options *o, enum um_jit_option n, const char *value)
{
	switch (n) {
	case UM_JIT_OPT_DUMP_CODE:
		return set_dump(o, value);
	case UM_JIT_OPT_DUMP_PASSES:
		return set_passes(o, value);
	case UM_JIT_OPT_DUMP_RANGE:
		return set_range(o, value);
	case UM_JIT_OPT_PERF:
		return set_perf(o, value);
	case UM_JIT_OPT_CODE_CACHE:
		return set_code_cache(o, value);
	case UM_JIT_OPT_THRESHOLD:
		return set_threshold(o, value);
	case UM_JIT_OPT_MAX:
		break;
	}
	return -EINVAL;
}
