/* SPDX-License-Identifier: MIT */
/* A source of entropy: virtio-rng, fed from getrandom(2). */
#ifndef VMM_VIRTIO_RNG_H
#define VMM_VIRTIO_RNG_H

#include "virtio.h"

struct virtio_rng;

struct virtio_rng *virtio_rng_new(const struct memory *mem);
struct virtio *virtio_rng_device(struct virtio_rng *r);
void virtio_rng_free(struct virtio_rng *r);

#endif
