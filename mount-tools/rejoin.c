/* SPDX-License-Identifier: MIT */
#include "rejoin.h"

#include <stdio.h>

#include "talos/log.h"

bool rejoin_is_for(const struct talos_superblock_info *info)
{
	return info->state == TALOS_REPLICA_PRIMARY || info->state == TALOS_REPLICA_DEPOSED;
}

/* One that was deposed has the later epoch in its superblock already. */
static bool is_later(const struct talos_superblock_info *info, uint64_t epoch)
{
	return epoch > info->epoch ||
	       (epoch == info->epoch && info->state == TALOS_REPLICA_DEPOSED);
}

int rejoin_image(struct talos_io *io, const char *image, const struct talos_repl_options *o,
		 const struct talos_superblock_info *info, char *why)
{
	struct talos_repl_answer answer;
	int err = talos_repl_ask(o, info, &answer);

	if (err) {
		snprintf(why, 512,
			 "%s led its volume (epoch %llu), so it becomes a backup only of a replica "
			 "that was promoted since, but %s cannot be asked: %s",
			 image, (unsigned long long)info->epoch, o->primary, talos_strerror(err));
		return err;
	}
	if (!answer.leads || !is_later(info, answer.epoch)) {
		snprintf(
			why, 512,
			"%s led its volume (epoch %llu), and %s does not lead it in a later epoch: "
			"leave out primary= to lead with it again, or promote the other one first",
			image, (unsigned long long)info->epoch, o->primary);
		return TALOS_ERR_INVALID;
	}
	talos_info("%s led its volume until %s did, in epoch %llu: it goes on as its backup", image,
		   o->primary, (unsigned long long)answer.epoch);
	return talos_engine_rejoin(io);
}
