// SPDX-License-Identifier: MIT
/* 4-level paging: who may access what, and reserved bits (SDM vol. 3, 4.5 to 4.7). */
#include "perm.h"
#include "guest.h"

void guest_main(void)
{
	perm_enumerate(PAGING_4LEVEL);
	perm_reserved(PAGING_4LEVEL);
}
