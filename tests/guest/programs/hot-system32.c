// SPDX-License-Identifier: MIT
/* System instructions that are executed often, in 32-bit mode: lib/hot.h. */
#include "guest.h"
#include "hot.h"

void guest_main(void)
{
	hot_system(0);
}
