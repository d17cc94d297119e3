/* SPDX-License-Identifier: MIT */
#include "test_door.h"

#include <assert.h>
#include <time.h>

#include "talos/clock.h"

/* True: it has ended, and is closed. */
static bool look_at(struct test_door *d, struct transport_conn *c)
{
	struct transport_event ev;

	while (c->ops->poll(c, 0, &ev)) {
		if (ev.kind != TRANSPORT_CLOSED)
			continue;
		d->last_status = ev.status;
		c->ops->close(c);
		d->turned_away++;
		return true;
	}
	return false;
}

static void *door_main(void *arg)
{
	struct transport_conn *visitors[TEST_DOOR_VISITORS], *c;
	struct test_door *d = arg;
	unsigned count = 0;

	while (!d->stop) {
		unsigned left = 0;

		if (!d->listener->ops->accept(d->listener, TALOS_NS_PER_MS, &c)) {
			if (!d->first) {
				d->first = c;
			} else {
				assert(count < TEST_DOOR_VISITORS);
				visitors[count++] = c;
			}
		}
		for (unsigned i = 0; i < count; i++)
			if (!look_at(d, visitors[i]))
				visitors[left++] = visitors[i];
		count = left;
	}
	for (unsigned i = 0; i < count; i++)
		visitors[i]->ops->close(visitors[i]);
	return NULL;
}

void test_door_open(struct test_door *d, struct transport_listener *l)
{
	int err;

	*d = (struct test_door){ .listener = l };
	err = pthread_create(&d->thread, NULL, door_main, d);
	assert(!err);
}

struct transport_conn *test_door_first(struct test_door *d)
{
	const struct timespec pause = { 0, 1000000 };

	for (unsigned i = 0; i < 10000 && !d->first; i++)
		nanosleep(&pause, NULL);
	assert(d->first);
	return d->first;
}

void test_door_close(struct test_door *d)
{
	d->stop = true;
	pthread_join(d->thread, NULL);
}
