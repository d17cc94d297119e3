/* SPDX-License-Identifier: MIT */
#include "files.h"

#include <stdio.h>

#include "kv_files.h"
#include "usage.h"

static void print_object(const struct workload *w, const struct phase_result *p,
			 const struct session *n)
{
	printf("{\"workload\": \"%s\", \"mix\": \"%s\", \"ops\": %llu, \"ops_per_s\": %.1f, "
	       "\"client_cpu_us_per_op\": %.3f, \"live_bytes\": %llu, \"p50_us\": %.2f, "
	       "\"p99_us\": %.2f, \"p999_us\": %.2f, \"p9999_us\": %.2f, \"longest_us\": %.1f, "
	       "\"errors\": %llu, \"missing\": %llu}\n",
	       w->name == 'L' ? "load" : (const char[]){ w->name, 0 }, n->s->mix->name,
	       (unsigned long long)p->ops, p->ops_per_s, p->cpu_us_per_op_running,
	       (unsigned long long)n->live_bytes, p->p50_us, p->p99_us, p->p999_us, p->p9999_us,
	       p->longest_us, (unsigned long long)p->errors, (unsigned long long)p->missing);
	fflush(stdout);
}

bool files_run(const struct cell *c)
{
	struct settings s = c->s;
	struct session n = { .s = &s, .backend = &kv_files, .dir = "" };
	bool good = session_init(&n);

	s.settle_s = 0;
	s.config.dir = c->dir;
	usage_init(c->dir);
	values_init();
	n.store = kv_files.open(&s.config);
	good = good && n.store;
	for (const char *w = c->workloads; good && *w; w++) {
		struct phase_result p;

		if (getchar() == EOF)
			break;
		p = phase_run(&n, workload_find(*w));
		print_object(workload_find(*w), &p, &n);
		good = !p.errors && !p.missing;
	}
	if (n.store)
		kv_files.close(n.store);
	session_fini(&n);
	return good;
}
