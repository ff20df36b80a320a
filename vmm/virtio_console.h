/* SPDX-License-Identifier: MIT */
/* A console on the terminal: virtio-console with one port (hvc0 in Linux). */
#ifndef VMM_VIRTIO_CONSOLE_H
#define VMM_VIRTIO_CONSOLE_H

#include "virtio.h"

struct terminal;
struct virtio_console;

struct virtio_console *virtio_console_new(struct terminal *term, const struct memory *mem);
struct virtio *virtio_console_device(struct virtio_console *c);
void virtio_console_free(struct virtio_console *c);

/* Input arrived (a term_event_fn); the terminal's window changed its size. */
void virtio_console_input(void *opaque);
void virtio_console_resized(struct virtio_console *c);

#endif
