/* SPDX-License-Identifier: MIT */
/* A file read into memory: kernels and initial RAM disks. */
#ifndef VMM_BLOB_H
#define VMM_BLOB_H

#include "base/types.h"

struct blob {
	u8 *data;
	size_t len;
};

/* Read the regular file @path, at most @max bytes.  @what names it in messages.  0 or -errno. */
int blob_read(struct blob *b, const char *what, const char *path, u64 max);
void blob_free(struct blob *b);

/* Copy @len bytes at @offset; false (and nothing is copied) if they are not all there. */
bool blob_get(const struct blob *b, u64 offset, void *data, size_t len);

#endif
