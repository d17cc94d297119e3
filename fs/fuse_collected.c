/* SPDX-License-Identifier: MIT */
/*
 * What the kernel has collected of files that are still open, passed on before the
 * last thread stops to serve: a daemon that is told to end must not lose what programs
 * have written.
 *
 * syncfs(2) on our own mount makes the kernel send it, but does not wait for our
 * answers; so then we wait until nothing is to be read from the device and nobody is
 * at a request. All of it for a bounded time: where writes wait for a missing backup,
 * the call may hang until the connection ends. So it runs in a thread of its own, which
 * whoever closes the session joins.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "fuse_transport.h"

#define PATIENCE_NS (10 * TALOS_NS_PER_SEC)
#define LOOK_US 2000u
#define QUIET_LOOKS 5u

static void *sync_main(void *arg)
{
	struct fuse_transport *t = arg;
	int fd = open(t->mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		(void)syncfs(fd);
		close(fd);
	}
	t->collected_sent = true;
	return NULL;
}

static bool is_quiet(struct fuse_transport *t)
{
	struct pollfd p = { .fd = fuse_session_fd(t->session), .events = POLLIN };

	return t->collected_sent && poll(&p, 1, 0) == 0 && !t->busy;
}

void fuse_collected_pass_on(struct fuse_transport *t)
{
	uint64_t until = talos_now_ns(&talos_system_clock) + PATIENCE_NS;
	unsigned quiet = 0;

	/* Unmounted: it was passed on. */
	if (!t->fs->writeback || fuse_session_exited(t->session))
		return;
	t->collecting = pthread_create(&t->collected, NULL, sync_main, t) == 0;
	while (t->collecting && quiet < QUIET_LOOKS && talos_now_ns(&talos_system_clock) < until) {
		quiet = is_quiet(t) ? quiet + 1 : 0;
		usleep(LOOK_US);
	}
}

void fuse_collected_join(struct fuse_transport *t)
{
	if (t->collecting)
		pthread_join(t->collected, NULL);
	t->collecting = false;
}
