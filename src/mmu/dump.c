// SPDX-License-Identifier: MIT
/*
 * The shadow page tables as text.  A page that was shown already (several parents) is only named.
 *
 *	root level 4 gfn 0x1234 uwx pae nx lma (1 loaded)
 *	  [273] page level 3 gfn 0x1235 uwx unsync-children 1
 *	    [0] large 0xffff888000000000 gfn 0x0 x1 hva 0x7f... -wx SMAD
 *	    ...
 */
#include "mmu/mmu_internal.h"

#include <stdio.h>

#define MAX_SEEN 4096

struct dump {
	FILE *out;
	unsigned nseen;
	const struct um_shadow_page *seen[MAX_SEEN];
};

static void print_rights(FILE *out, u64 access)
{
	fprintf(out, " %c%c%c", access & ACC_USER ? 'u' : '-', access & ACC_WRITE ? 'w' : '-',
		access & ACC_EXEC ? 'x' : '-');
}

static void print_page(FILE *out, const struct um_shadow_page *sp)
{
	union um_role r = sp->role;

	fprintf(out, "level %u gfn %#lx", r.level, sp->gfn);
	print_rights(out, role_access(r));
	if (r.direct)
		fprintf(out, " direct%s", r.dirty ? "" : " clean");
	else
		fprintf(out, "%s%s%s%s", r.cr4_pae ? " pae" : "", r.cr4_pse ? " pse" : "",
			r.efer_nx ? " nx" : "", r.efer_lma ? " lma" : "");
	if (r.quadrant)
		fprintf(out, " quadrant %u", r.quadrant);
	if (r.pkey)
		fprintf(out, " pkey %u", r.pkey);
	if (sp->unsync)
		fputs(" unsync", out);
	if (sp->unsync_children)
		fprintf(out, " unsync-children %u", sp->unsync_children);
	if (sp->root_count)
		fprintf(out, " (%u loaded)", sp->root_count);
	if (um_ptelist_count(&sp->parents) > 1)
		fprintf(out, " (%u parents)", um_ptelist_count(&sp->parents));
}

static bool seen(struct dump *d, const struct um_shadow_page *sp)
{
	for (unsigned i = 0; i < d->nseen; i++) {
		if (d->seen[i] == sp)
			return true;
	}
	if (d->nseen < MAX_SEEN)
		d->seen[d->nseen++] = sp;
	return false;
}

/* How many sptes from @i on continue each other: next frame, next host page, same bits. */
static unsigned run_length(const struct um_shadow_page *sp, unsigned i)
{
	u64 first = sp->spt[i], pages = level_pages(sp->role.level);
	unsigned n = 1;

	while (i + n < SPTES_PER_PAGE && sp->spt[i + n] == first + ((n * pages) << UM_PAGE_SHIFT) &&
	       um_sp_gfn(sp, i + n) == um_sp_gfn(sp, i) + n * pages)
		n++;
	return n;
}

static void dump_page(struct dump *d, const struct um_shadow_page *sp, unsigned indent)
{
	unsigned level = sp->role.level, n;

	for (unsigned i = 0; i < SPTES_PER_PAGE; i += n) {
		u64 spte = sp->spt[i];

		n = 1;
		if (!spte)
			continue;
		fprintf(d->out, "%*s[%u] ", indent, "", i);
		if (spte_nonleaf(spte, level)) {
			const struct um_shadow_page *child = um_sptep_page(spte_child(spte));

			fputs("page ", d->out);
			print_page(d->out, child);
			if (seen(d, child)) {
				fputs(" (above)\n", d->out);
			} else {
				fputc('\n', d->out);
				dump_page(d, child, indent + 2);
			}
		} else if (spte_leaf(spte, level)) {
			n = run_length(sp, i);
			fprintf(d->out, "%s gfn %#lx x%u hva %#lx", level > 1 ? "large" : "leaf",
				um_sp_gfn(sp, i), n, spte_hva(spte));
			print_rights(d->out, spte);
			fprintf(d->out, " %c%c%c%c%s", spte & SPTE_STORABLE ? 'S' : '-',
				spte & SPTE_MMU_WRITABLE ? 'M' : '-',
				spte & SPTE_ACCESSED ? 'A' : '-', spte & SPTE_DIRTY ? 'D' : '-',
				spte & SPTE_HOST_WRITABLE ? "" : " read-only");
			if (spte_pkey(spte))
				fprintf(d->out, " pkey %u", spte_pkey(spte));
			fputc('\n', d->out);
		} else {
			fprintf(d->out, "mmio gfn %#lx", spte_mmio_gfn(spte));
			print_rights(d->out, spte);
			fputc('\n', d->out);
		}
	}
}

void um_mmu_dump(struct um_mmu_vm *v, FILE *out)
{
	struct dump d = { .out = out };
	const struct um_shadow_page *sp;

	pthread_mutex_lock(&v->lock);
	fprintf(out, "%lu shadow pages of at most %lu\n", v->used, v->limit);
	cds_list_for_each_entry(sp, &v->active, lru) {
		if (!sp->root_count || seen(&d, sp))
			continue;
		fputs("root ", out);
		print_page(out, sp);
		fputc('\n', out);
		dump_page(&d, sp, 2);
	}
	cds_list_for_each_entry(sp, &v->active, lru) {
		if (sp->root_count || sp->parents.val || seen(&d, sp))
			continue;
		fputs("unreached ", out);
		print_page(out, sp);
		fputc('\n', out);
		dump_page(&d, sp, 2);
	}
	pthread_mutex_unlock(&v->lock);
}
