// SPDX-License-Identifier: MIT
/*
 * The memory of the counters, and the files that KVM_GET_STATS_FD promises (api.rst 4.133).
 *
 * Such a file is a memfd too: the VMM reads it with read() and pread(), and what it reads is the counters
 * themselves.  Their page is mapped over the one that they had before.
 */
#include "base/counters.h"
#include "base/memfd.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
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
	int fd = um_memfd_create("umbra-stat", sizeof(**page));
	int err;

	if (fd < 0)
		return fd;
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

/* What comes before the counters in a file of KVM_GET_STATS_FD; they begin at the next page. */
struct stats_file {
	struct kvm_stats_header header;
	char id[UM_STAT_ID_LEN];
	struct {
		struct kvm_stats_desc desc;
		char name[UM_STAT_ID_LEN];
	} counter[UM_CNT_MAX];
};

#define STATS_DATA_OFFSET ((sizeof(struct stats_file) + UM_PAGE_SIZE - 1) & UM_PAGE_MASK)

_Static_assert(sizeof(struct stats_file) % 8 == 0 && offsetof(struct stats_file, id) % 8 == 0 &&
		       offsetof(struct stats_file, counter) % 8 == 0,
	       "all parts of the file are aligned");

static bool write_all(int fd, const void *buf, size_t size, off_t at)
{
	return pwrite(fd, buf, size, at) == (ssize_t)size;
}

/* The descriptor, or -errno. */
static int make_stats_file(const char *id)
{
	struct stats_file f = {
		.header = { .name_size = UM_STAT_ID_LEN,
			    .num_desc = UM_CNT_MAX,
			    .id_offset = offsetof(struct stats_file, id),
			    .desc_offset = offsetof(struct stats_file, counter),
			    .data_offset = STATS_DATA_OFFSET },
	};
	int fd = um_memfd_create("kvm-stats", STATS_DATA_OFFSET + sizeof(struct um_counters)), err;

	if (fd < 0)
		return fd;
	snprintf(f.id, sizeof(f.id), "%s", id);
	for (unsigned i = 0; i < UM_CNT_MAX; i++) {
		f.counter[i].desc = (struct kvm_stats_desc){
			.flags = KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_NONE |
				 KVM_STATS_BASE_POW10,
			.size = 1,
			.offset = i * sizeof(u64),
		};
		snprintf(f.counter[i].name, sizeof(f.counter[i].name), "%s", counters[i].name);
	}
	if (write_all(fd, &f, sizeof(f), 0))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int um_stat_share(struct um_stat_page *page, int stat_fd, unsigned b, const char *id)
{
	const off_t at = (off_t)((char *)&page->block[b] - (char *)page);
	struct um_counters *c = &page->block[b].counters, copied = *c, left;
	int fd = make_stats_file(id), err;
	s32 moved = fd + 1;

	if (fd < 0)
		return fd;
	if (!write_all(fd, &copied, sizeof(copied), STATS_DATA_OFFSET) ||
	    mmap(c, UM_STAT_BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
		 STATS_DATA_OFFSET) == MAP_FAILED) {
		err = -errno;
		close(fd);
		return err;
	}
	/* What was counted meanwhile. */
	if (pread(stat_fd, &left, sizeof(left), at) == (ssize_t)sizeof(left)) {
		for (unsigned i = 0; i < UM_CNT_MAX; i++)
			__atomic_fetch_add(&c->v[i], left.v[i] - copied.v[i], __ATOMIC_RELAXED);
	}
	/* Without this, `umbra stat` shows the counters as they were: no reason to fail. */
	(void)!write_all(stat_fd, &moved, sizeof(moved),
			 at + (off_t)offsetof(union um_stat_block, moved));
	return fd;
}
