// SPDX-License-Identifier: MIT
/* The list of the executable with Debian's libraries and its compiler: what others wrote, as it is. */
#include "work.h"

const char *const next_executable = NULL;

const struct program programs[] = {
	{ "integer", "zlib", deflate_inflate },
	{ "integer", "sqlite", sqlite },
	{ "integer", "lua", lua },
	{ "integer", "gcc", gcc },
	{ "float", "aes-gcm", aes_gcm },
	{ "float", "sha256", sha256 },
	{ NULL, NULL, NULL },
};
