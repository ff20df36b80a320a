// SPDX-License-Identifier: MIT
/* The copy is a memory file: made anew at each open, as the kernel's is. */
#include "cpuinfo.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shim.h"

#define NAME	  "/proc/cpuinfo"
#define FLAGS	  "\nflags\t"
#define MAX_BYTES (16u << 20)

bool um_shim_is_cpuinfo(const char *path)
{
	return !um_shim_in && path && !strcmp(path, NAME);
}

/* All of @fd, with a 0 behind it; NULL if that can't be had. */
static char *read_all(int fd, size_t *size)
{
	size_t room = 0;
	char *text = NULL;
	ssize_t n;

	for (*size = 0;; *size += (size_t)n) {
		if (*size + 1 >= room) {
			char *more = room < MAX_BYTES ? realloc(text, room + 65536) : NULL;

			if (!more)
				break;
			text = more;
			room += 65536;
		}
		n = read(fd, text + *size, room - *size - 1);
		if (n <= 0) {
			text[*size] = 0;
			return text;
		}
	}
	free(text);
	return NULL;
}

/* Is @word among the words of [@line, @end)? */
static bool has_word(const char *line, const char *end, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = line; p + len <= end; p++) {
		if (!memcmp(p, word, len) && (p == line || p[-1] == ' ') &&
		    (p + len == end || p[len] == ' '))
			return true;
	}
	return false;
}

static bool put(int fd, const char *from, const char *to)
{
	while (from < to) {
		ssize_t n = write(fd, from, (size_t)(to - from));

		if (n <= 0)
			return false;
		from += n;
	}
	return true;
}

static bool put_masked(int fd, const char *text, size_t size)
{
	const char *flag =
		strstr(text, "AuthenticAMD") || strstr(text, "HygonGenuine") ? "svm" : "vmx";
	const char *end = text + size, *line;
	static const char space[] = " ";

	while ((line = strstr(text, FLAGS))) {
		const char *eol = line + 1 + strcspn(line + 1, "\n");

		if (!put(fd, text, eol))
			return false;
		if (!has_word(line, eol, flag) &&
		    !(put(fd, space, space + 1) && put(fd, flag, flag + 3)))
			return false;
		text = eol;
	}
	return put(fd, text, end);
}

int um_shim_open_cpuinfo(int flags)
{
	int fd = um_next()->open(NAME, flags), copy = -1;
	size_t size = 0;
	char *text;

	if (fd < 0 || (flags & O_ACCMODE) != O_RDONLY)
		return fd;
	um_shim_enter();
	text = read_all(fd, &size);
	if (text)
		copy = memfd_create("cpuinfo", flags & O_CLOEXEC ? MFD_CLOEXEC : 0);
	if (copy >= 0 && put_masked(copy, text, size) && lseek(copy, 0, SEEK_SET) == 0) {
		um_next()->close(fd);
		fd = copy;
	} else if (copy >= 0) {
		um_next()->close(copy);
	}
	free(text);
	um_shim_leave();
	return fd;
}
