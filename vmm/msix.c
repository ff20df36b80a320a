// SPDX-License-Identifier: MIT
/* MSI-X: the table is an array of dwords as the guest sees it; the pending bits are one word. */
#include "msix.h"

#include <linux/pci_regs.h>
#include <string.h>

void msix_init(struct msix *m, struct board *board, struct pci_dev *dev, unsigned bar,
	       unsigned nvectors)
{
	u8 cap[PCI_CAP_MSIX_SIZEOF] = { PCI_CAP_ID_MSIX };
	u16 flags = (u16)(nvectors - 1);
	u32 table = bar, pba = bar | MSIX_PBA_OFFSET;

	memset(m, 0, sizeof(*m));
	m->board = board;
	m->dev = dev;
	m->nvectors = nvectors;
	memcpy(cap + PCI_MSIX_FLAGS, &flags, 2);
	memcpy(cap + PCI_MSIX_TABLE, &table, 4);
	memcpy(cap + PCI_MSIX_PBA, &pba, 4);
	m->cap = pci_add_capability(dev, cap, sizeof(cap));
	dev->writable[m->cap + PCI_MSIX_FLAGS + 1] =
		(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
	for (unsigned i = 0; i < nvectors; i++)
		m->table[i][3] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

static u16 flags(const struct msix *m)
{
	u16 v;

	memcpy(&v, m->dev->config + m->cap + PCI_MSIX_FLAGS, 2);
	return v;
}

bool msix_enabled(const struct msix *m)
{
	return flags(m) & PCI_MSIX_FLAGS_ENABLE;
}

static bool masked(const struct msix *m, unsigned n)
{
	return (flags(m) & PCI_MSIX_FLAGS_MASKALL) ||
	       (m->table[n][3] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

void msix_send(struct msix *m, unsigned n)
{
	const u32 *e;

	if (n >= m->nvectors)
		return;
	if (masked(m, n)) {
		m->pending |= 1u << n;
		return;
	}
	e = m->table[n];
	board_send_msi(m->board, (u64)e[1] << 32 | e[0], e[2]);
}

static void send_pending(struct msix *m)
{
	if (!msix_enabled(m))
		return;
	for (unsigned n = 0; n < m->nvectors; n++)
		if ((m->pending & (1u << n)) && !masked(m, n)) {
			m->pending &= ~(1u << n);
			msix_send(m, n);
		}
}

void msix_bar(struct msix *m, u32 offset, void *data, unsigned len, bool write)
{
	size_t size = m->nvectors * sizeof(m->table[0]);

	if (offset + len <= size) {
		u8 *p = (u8 *)m->table + offset;

		if (!write) {
			memcpy(data, p, len);
			return;
		}
		memcpy(p, data, len);
		for (unsigned n = 0; n < m->nvectors; n++)
			m->table[n][3] &= PCI_MSIX_ENTRY_CTRL_MASKBIT; /* the rest is reserved */
		send_pending(m);
	} else if (!write) {
		u64 pba = m->pending;

		memset(data, 0, len);
		if (offset >= MSIX_PBA_OFFSET && offset - MSIX_PBA_OFFSET + len <= sizeof(pba))
			memcpy(data, (u8 *)&pba + (offset - MSIX_PBA_OFFSET), len);
	}
}

void msix_config_written(struct msix *m)
{
	send_pending(m);
}

void msix_reset(struct msix *m)
{
	m->pending = 0;
}
