/* SPDX-License-Identifier: MIT */
#include "idle_hook.h"

#include "talos/status.h"

static int admit(void *ctx)
{
	(void)ctx;
	return TALOS_OK;
}

static void note_pos(void *ctx, struct talos_pos pos)
{
	(void)ctx;
	(void)pos;
}

static int log_wait(void *ctx, struct talos_pos pos)
{
	(void)ctx;
	(void)pos;
	return TALOS_OK;
}

static int index_built(void *ctx, const struct talos_built *b)
{
	(void)ctx;
	(void)b;
	return TALOS_OK;
}

static int index_wait(void *ctx, const struct talos_segment_id *ids, uint32_t count)
{
	(void)ctx;
	(void)ids;
	(void)count;
	return TALOS_OK;
}

const struct talos_repl_hook idle_hook = {
	.admit = admit,
	.log_appended = note_pos,
	.log_urgent = note_pos,
	.log_durable = note_pos,
	.log_wait = log_wait,
	.index_built = index_built,
	.index_wait = index_wait,
};
