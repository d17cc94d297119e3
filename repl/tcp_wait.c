/* SPDX-License-Identifier: MIT */
/*
 * What a connection over TCP sleeps for: its sockets, by epoll, and wake(). A
 * socket of which epoll says something is `ready`, and stays so until nothing
 * more comes out of it: so nobody reads where nothing is.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "talos/clock.h"
#include "tcp_private.h"

/* While a connection is ending its clock is looked at this often. */
#define ENDING_NS (20 * TALOS_NS_PER_MS)
#define EVENTS_MAX (SOCKETS + DATA_SOCKETS + 1)

bool tcp_wait_init(struct tcp_conn *t)
{
	struct epoll_event ev = { .events = EPOLLIN };

	t->wake_fd = ev.data.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return t->wake_fd >= 0 && t->epoll_fd >= 0 &&
	       !epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->wake_fd, &ev);
}

void tcp_wait_fini(struct tcp_conn *t)
{
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	if (t->epoll_fd >= 0)
		close(t->epoll_fd);
}

void tcp_watch(struct tcp_conn *t, struct lane *l, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.fd = l->stream.fd };

	if (l->watched && l->interest == events)
		return;
	if (epoll_ctl(t->epoll_fd, l->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, l->stream.fd, &ev))
		tcp_break_off(t, TALOS_ERR_SYSTEM);
	l->watched = true;
	l->interest = events;
}

void tcp_unwatch(struct tcp_conn *t, struct lane *l)
{
	if (l->watched && epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, l->stream.fd, NULL))
		tcp_break_off(t, TALOS_ERR_SYSTEM);
	l->watched = false;
}

/* Whose turn it is. */
static void note_ready(struct tcp_conn *t, const struct epoll_event *ev)
{
	uint64_t count;

	if (ev->data.fd == t->wake_fd) {
		if (read(t->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			tcp_break_off(t, TALOS_ERR_SYSTEM);
		return;
	}
	for (unsigned s = 0; s < SOCKETS; s++) {
		struct lane *l = t->sockets[s];

		if (l && l->stream.fd == ev->data.fd)
			l->ready = true;
	}
}

/* True: one was left ready, and epoll may know nothing of what it holds. */
static bool watch_all(struct tcp_conn *t)
{
	bool left = false;

	static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT, "one set of names");
	for (unsigned s = 0; s < SOCKETS; s++) {
		struct lane *l = t->sockets[s];
		bool deaf = s == SOCKET_CONTROL && tcp_control_waits(t);
		uint32_t events;

		if (!l || l->ended)
			continue;
		events = (uint32_t)stream_events(&l->stream, l->out);
		tcp_watch(t, l, deaf ? events & ~(uint32_t)EPOLLIN : events);
		left = left || (l->ready && !deaf);
	}
	return left;
}

void tcp_wait(struct tcp_conn *t, uint64_t timeout_ns)
{
	struct epoll_event events[EVENTS_MAX];
	struct timespec ts;
	int n;

	if (watch_all(t))
		timeout_ns = 0;
	if (t->joins)
		timeout_ns = talos_min(timeout_ns, join_step(t, talos_now_ns(&talos_system_clock)));
	if (t->ending)
		timeout_ns = talos_min(timeout_ns, (uint64_t)ENDING_NS);
	if (t->closed)
		return;
	ts = (struct timespec){ (time_t)(timeout_ns / TALOS_NS_PER_SEC),
				(long)(timeout_ns % TALOS_NS_PER_SEC) };
	n = epoll_pwait2(t->epoll_fd, events, EVENTS_MAX, &ts, NULL);
	for (int i = 0; i < n; i++)
		note_ready(t, &events[i]);
}
