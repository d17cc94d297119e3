/* SPDX-License-Identifier: MIT */
/* Tells and counts findings and progress. */
#include <stdarg.h>
#include <stdio.h>

#include "checker.h"

const char advice_restore[] = "restore this image from a replica (mkfs.talosfs --backup --force, "
			      "then mount with primary=), or the file from a backup";

void talos_check_found(struct talos_check *c, const struct talos_finding *f)
{
	uint64_t *counters[] = {
		[TALOS_NOTE] = &c->counts.notes,
		[TALOS_REPAIRABLE] = &c->counts.repairable,
		[TALOS_DAMAGE] = &c->counts.damaged,
	};

	talos_mutex_lock(&c->lock);
	++*counters[f->severity];
	if (c->report.found)
		c->report.found(c->report.ctx, f);
	talos_mutex_unlock(&c->lock);
}

void found(struct talos_check *c, struct talos_finding where, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	where.text = text;
	if (where.severity == TALOS_DAMAGE && !where.advice)
		where.advice = advice_restore;
	talos_check_found(c, &where);
}

void progress_begin(struct talos_check *c, uint64_t total)
{
	c->progress_done = 0;
	c->progress_total = total;
}

void progress_add(struct talos_check *c, const char *phase, uint64_t bytes)
{
	talos_mutex_lock(&c->lock);
	c->progress_done += bytes;
	c->counts.read_bytes += bytes;
	if (c->report.progress)
		c->report.progress(c->report.ctx, phase, c->progress_done, c->progress_total);
	talos_mutex_unlock(&c->lock);
}
