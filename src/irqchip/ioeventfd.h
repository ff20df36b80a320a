/* SPDX-License-Identifier: MIT */
/*
 * ioeventfds (KVM_IOEVENTFD, api.rst 4.59): guest writes that signal an eventfd of the VMM instead of
 * leaving for it.  A VM has one set, with or without interrupt controllers.
 *
 * Used by src/api (assigning) and src/vcpu (matching).  Any thread.
 *
 * Lock: the set's own, a leaf.
 */
#ifndef UM_IRQCHIP_IOEVENTFD_H
#define UM_IRQCHIP_IOEVENTFD_H

#include <linux/kvm.h>

#include "base/types.h"

struct um_ioeventfds;

enum um_io_space { UM_IO_MMIO, UM_IO_PIO };

struct um_ioeventfds *um_ioeventfds_create(void); /* NULL: ENOMEM */
void um_ioeventfds_destroy(struct um_ioeventfds *set);

/*
 * KVM_IOEVENTFD.  0; -EINVAL: length, flags, address wraps, DATAMATCH without length, not an eventfd;
 * -EBADF; -EEXIST: one that could match the same write; -ENOENT: nothing to deassign; -ENOMEM, -EMFILE.
 */
int um_ioeventfds_set(struct um_ioeventfds *set, const struct kvm_ioeventfd *args);

/*
 * The guest writes @len bytes (1 to 8) at @addr.  True: an eventfd was signalled, and that is all that the
 * write does.  Where nothing is assigned, this takes no lock.
 */
bool um_ioeventfds_write(struct um_ioeventfds *set, enum um_io_space space, u64 addr, unsigned len,
			 const void *data);

#endif
