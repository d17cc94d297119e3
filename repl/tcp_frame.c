/* SPDX-License-Identifier: MIT */
/* One socket of a connection: frames out, frames in. See tcp_private.h. */
#include "tcp_private.h"

#include <assert.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "talos/alloc.h"
#include "talos/checksum.h"

#define IOV_MAX_USED 64
#define READ_AHEAD_BYTES 65536u

/* A frame on its way out. */
struct out_frame {
	struct out_frame *next;
	struct frame_head head;
	const uint8_t *payload; /* borrowed, or own */
	uint32_t n, sent;	/* sent counts head and payload */
	uint8_t own[];
};

struct lane *lane_new(int fd, struct tls_context *context, bool accepts)
{
	struct lane *l = talos_calloc(1, sizeof(*l));

	if (!l) {
		close(fd);
		return NULL;
	}
	l->out_last = &l->out;
	l->pending_last = &l->pending;
	l->ready = true;
	l->ahead = talos_malloc(READ_AHEAD_BYTES);
	if (stream_init(&l->stream, fd, context, accepts) || !l->ahead) {
		lane_free(l);
		return NULL;
	}
	return l;
}

void lane_free(struct lane *l)
{
	if (!l)
		return;
	stream_fini(&l->stream);
	while (l->out) {
		struct out_frame *f = l->out;

		l->out = f->next;
		talos_free(f);
	}
	talos_free(l->ahead);
	talos_free(l);
}

static uint64_t head_sum(const struct frame_head *h)
{
	return talos_sum64(h, offsetof(struct frame_head, head_sum), FRAME_MAGIC);
}

static uint64_t payload_sum(const struct lane *l, const void *payload, uint32_t n)
{
	return n && !l->stream.context ? talos_sum64(payload, n, 0) : 0;
}

/* --- out ------------------------------------------------------------------------------------ */

int lane_put(struct lane *l, enum frame_kind kind, uint8_t type, uint32_t region, uint64_t offset,
	     const void *payload, uint32_t n, bool copy)
{
	struct out_frame *f = talos_malloc(sizeof(*f) + (copy ? n : 0));

	if (!f)
		return TALOS_ERR_NO_MEMORY;
	if (copy && n)
		memcpy(f->own, payload, n);
	f->next = NULL;
	f->payload = copy ? f->own : payload;
	f->n = n;
	f->sent = 0;
	f->head = (struct frame_head){
		.magic = le32_from(FRAME_MAGIC),
		.kind = (uint8_t)kind,
		.type = type,
		.bytes = le32_from(n),
		.region = le32_from(region),
		.offset = le64_from(offset),
		.payload_sum = le64_from(payload_sum(l, f->payload, n)),
	};
	f->head.head_sum = le64_from(head_sum(&f->head));
	*l->out_last = f;
	l->out_last = &f->next;
	return TALOS_OK;
}

static unsigned gather(const struct lane *l, struct iovec *iov)
{
	unsigned n = 0;

	for (const struct out_frame *f = l->out; f && n + 2 <= IOV_MAX_USED; f = f->next) {
		uint32_t sent = f->sent;

		if (sent < sizeof(f->head)) {
			iov[n++] = (struct iovec){ (uint8_t *)&f->head + sent,
						   sizeof(f->head) - sent };
			sent = sizeof(f->head);
		}
		sent -= sizeof(f->head);
		if (sent < f->n)
			iov[n++] = (struct iovec){ (uint8_t *)f->payload + sent, f->n - sent };
	}
	return n;
}

static void drop_sent(struct lane *l, size_t n)
{
	while (l->out) {
		struct out_frame *f = l->out;
		size_t left = sizeof(f->head) + f->n - f->sent;

		if (n < left) {
			f->sent += (uint32_t)n;
			return;
		}
		n -= left;
		l->out = f->next;
		if (!l->out)
			l->out_last = &l->out;
		talos_free(f);
	}
}

int lane_push(struct lane *l)
{
	while (l->out) {
		struct iovec iov[IOV_MAX_USED];
		ssize_t n = stream_send(&l->stream, iov, gather(l, iov));

		if (n <= 0)
			return (int)n;
		drop_sent(l, (size_t)n);
	}
	return TALOS_OK;
}

/* --- in ------------------------------------------------------------------------------------- */

/* Up to @n bytes, from what was read ahead or the socket. 0: nothing now. */
static ssize_t take_bytes(struct lane *l, uint8_t *to, uint32_t n)
{
	uint32_t have = l->ahead_end - l->ahead_at;
	bool direct = n >= READ_AHEAD_BYTES / 2;
	ssize_t got;

	if (!have) {
		got = stream_recv(&l->stream, direct ? to : l->ahead,
				  direct ? n : READ_AHEAD_BYTES);
		if (got <= 0 || direct)
			return got;
		l->ahead_at = 0;
		l->ahead_end = have = (uint32_t)got;
	}
	n = talos_min(n, have);
	memcpy(to, l->ahead + l->ahead_at, n);
	l->ahead_at += n;
	return n;
}

/* What holds for every frame; the rest is the connection's to say. */
static bool head_is_sound(const struct frame_head *h)
{
	uint32_t n = le32_get(h->bytes);

	if (le32_get(h->magic) != FRAME_MAGIC || le64_get(h->head_sum) != head_sum(h) ||
	    h->reserved[0] || h->reserved[1])
		return false;
	switch (h->kind) {
	case FRAME_MESSAGE:
		return n <= TRANSPORT_MESSAGE_BYTES_MAX;
	case FRAME_WRITE:
		return n && n <= TRANSPORT_WRITE_BYTES_MAX;
	case FRAME_ACK:
	case FRAME_JOINED:
		return !n;
	case FRAME_AFTER:
		return n == sizeof(struct frame_after);
	case FRAME_INVITE:
		return n == sizeof(struct frame_invite);
	case FRAME_JOIN:
		return n == JOIN_TOKEN_BYTES;
	}
	return false;
}

/* 1: the head is complete; 0: not so far. */
static int pull_head(struct lane *l)
{
	uint8_t *head = (uint8_t *)&l->head;

	while (l->head_got < sizeof(l->head)) {
		ssize_t n =
			take_bytes(l, head + l->head_got, (uint32_t)sizeof(l->head) - l->head_got);

		if (n <= 0)
			return (int)n;
		l->head_got += (uint32_t)n;
		if (l->head_got >= 3 && !l->stream.context && !l->any_in &&
		    tls_is_first_word(head)) {
			tls_say_no_key(l->stream.fd);
			return TALOS_ERR_SECRET_MISSING;
		}
	}
	if (!head_is_sound(&l->head))
		return TALOS_ERR_PROTOCOL;
	l->in_payload = true;
	l->payload_got = 0;
	return 1;
}

int lane_pull(struct lane *l, lane_place_fn *place, void *ctx, uint8_t **payload)
{
	int r = l->in_payload ? 1 : pull_head(l);
	uint32_t bytes;

	if (r <= 0)
		return r;
	bytes = le32_get(l->head.bytes);
	for (;;) {
		/* Asked each time: a region may be revoked in the middle of a frame. */
		uint8_t *to = place(ctx, l);
		ssize_t n;

		if (!to)
			return TALOS_ERR_PROTOCOL;
		*payload = to;
		if (l->payload_got == bytes)
			break;
		n = take_bytes(l, to + l->payload_got, bytes - l->payload_got);
		if (n <= 0)
			return (int)n;
		l->payload_got += (uint32_t)n;
	}
	l->in_payload = false;
	l->head_got = 0;
	l->any_in = true;
	return payload_sum(l, *payload, bytes) == le64_get(l->head.payload_sum) ? 1
										: TALOS_ERR_CORRUPT;
}
