// SPDX-License-Identifier: MIT
#include "base/counters.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
	const char *name, *help;
} counters[UM_CNT_MAX] = {
#define X(name, help) [UM_CNT_##name] = { #name, help },
	UM_COUNTERS(X)
#undef X
};

const char *um_counter_name(enum um_counter c)
{
	return counters[c].name;
}

const char *um_counter_help(enum um_counter c)
{
	return counters[c].help;
}

int um_stat_create(struct um_stat_page **page)
{
	int fd = memfd_create("umbra-stat", MFD_CLOEXEC);
	int err;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, sizeof(**page)) < 0)
		goto fail;
	*page = mmap(NULL, sizeof(**page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*page == MAP_FAILED)
		goto fail;
	for (unsigned i = 0; i < UM_CNT_MAX; i++)
		snprintf((*page)->names[i], UM_STAT_NAME_LEN, "%s", counters[i].name);
	(*page)->ncounters = UM_CNT_MAX;
	(*page)->nblocks = 1;
	__atomic_store_n(&(*page)->magic, UM_STAT_MAGIC, __ATOMIC_RELEASE);
	return fd;
fail:
	err = -errno;
	close(fd);
	return err;
}

void um_stat_unmap(struct um_stat_page *page)
{
	munmap(page, sizeof(*page));
}
