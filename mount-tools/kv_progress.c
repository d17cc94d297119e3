/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "kv.h"
#include "options.h"
#include "talos/clock.h"

#define SHOW_EVERY_NS (200 * TALOS_NS_PER_MS)

void kv_progress_start(struct kv_progress *p)
{
	*p = (struct kv_progress){ .shown = isatty(STDERR_FILENO),
				   .started_ns = talos_now_ns(&talos_system_clock) };
}

static double seconds(const struct kv_progress *p, uint64_t now)
{
	return (double)(now - p->started_ns + 1) / 1e9;
}

void kv_progress_show(struct kv_progress *p, uint64_t done, uint64_t size)
{
	uint64_t now;
	char text[32];
	double s;

	if (!p->shown)
		return;
	now = talos_now_ns(&talos_system_clock);
	if (now - p->last_ns < SHOW_EVERY_NS)
		return;
	p->last_ns = now;
	s = seconds(p, now);
	fprintf(stderr, "\r%" PRIu64 " pairs, %s, %.0f/s", p->pairs, size_text(p->bytes, text),
		(double)p->pairs / s);
	if (size && done)
		fprintf(stderr, ", %.0f%%, %.0f s left", 100.0 * (double)done / (double)size,
			s * (double)(size - talos_min(done, size)) / (double)done);
	fputs("   ", stderr);
}

void kv_progress_end(struct kv_progress *p, bool json, uint64_t position)
{
	double s = seconds(p, talos_now_ns(&talos_system_clock));
	char text[32];

	/* An export may have taken standard output: so this goes to stderr. */
	if (json)
		fprintf(stderr,
			"%s{\"pairs\": %" PRIu64 ", \"bytes\": %" PRIu64
			", \"seconds\": %.3f, \"pairs_per_second\": %.0f, \"position\": %" PRIu64
			"}\n",
			p->shown ? "\r" : "", p->pairs, p->bytes, s, (double)p->pairs / s,
			position);
	else if (p->shown)
		fprintf(stderr, "\r%" PRIu64 " pairs, %s in %.1f s, %.0f/s          \n", p->pairs,
			size_text(p->bytes, text), s, (double)p->pairs / s);
}
