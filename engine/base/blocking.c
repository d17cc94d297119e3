/* SPDX-License-Identifier: MIT */
#include "talos/blocking.h"

#include <assert.h>
#include <stddef.h>

static __thread const struct talos_blocking_watch *own_watch;
static __thread unsigned depth;

void talos_blocking_set_watch(const struct talos_blocking_watch *watch)
{
	assert(depth == 0);
	own_watch = watch;
}

void talos_blocking_begin(void)
{
	if (own_watch && depth++ == 0)
		own_watch->begins(own_watch->ctx);
}

void talos_blocking_end(void)
{
	if (!own_watch)
		return;
	assert(depth > 0);
	if (--depth == 0)
		own_watch->ended(own_watch->ctx);
}
