/* SPDX-License-Identifier: MIT */
/*
 * Both sides of the handshake against whatever comes. First byte: which side,
 * with a secret or without, and whether messages get their magic. Then messages: type, two bytes of length, bytes.
 * Without knowing the secret no input may get past it.
 */
#include <stdlib.h>

#include "auth.h"

static int drop(struct transport_conn *c, uint8_t type, const void *bytes, uint32_t n)
{
	/* What is said has to pass the check that all messages must. */
	(void)c;
	if (wire_check(type, bytes, n))
		abort();
	return TALOS_OK;
}

static const struct transport_ops ops = { .send = drop };

struct input {
	const uint8_t *at;
	size_t left;
	bool with_magic;
};

/* The next message, in memory of its exact size; @ev->bytes is to be freed. */
static bool next_message(struct input *in, struct transport_event *ev)
{
	le32 magic = le32_from(WIRE_MAGIC);
	uint32_t n;
	uint8_t *copy;

	if (in->left < 3)
		return false;
	n = in->at[1] | (uint32_t)in->at[2] << 8;
	if (n > in->left - 3)
		n = (uint32_t)(in->left - 3);
	copy = malloc(n ? n : 1);
	memcpy(copy, in->at + 3, n);
	if (in->with_magic && n >= sizeof(magic))
		memcpy(copy, &magic, sizeof(magic));
	*ev = (struct transport_event){
		.kind = TRANSPORT_MESSAGE, .type = in->at[0], .bytes = copy, .n = n
	};
	in->at += 3 + n;
	in->left -= 3 + n;
	return true;
}

static void fuzz_acceptor(struct input *in, const struct talos_secret *secret)
{
	struct auth_acceptor a = { .secret = secret };
	struct transport_conn c = { .ops = &ops };
	struct transport_event ev;

	while (next_message(in, &ev)) {
		int err = auth_take_visitor(&a, &c, &ev);

		free((void *)ev.bytes);
		if (!err && secret)
			abort();
		if (!err != (a.stage == AUTH_DONE))
			abort();
		if (err != TALOS_ERR_AGAIN)
			break;
	}
}

static void fuzz_connector(struct input *in, const struct talos_secret *secret)
{
	struct talos_wire_hello hello = { .magic = le32_from(WIRE_MAGIC) };
	struct transport_conn c = { .ops = &ops };
	struct auth_connector a;
	struct transport_event ev;

	if (auth_say_hello(&a, secret, &c, &hello))
		abort();
	while (next_message(in, &ev)) {
		int err = auth_take_reply(&a, &c, &ev);

		if (!err && (secret || wire_check(ev.type, ev.bytes, ev.n)))
			abort();
		free((void *)ev.bytes);
		if (err != TALOS_ERR_AGAIN)
			break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct talos_secret secret = { .challenge_key = "not to be guessed" };
	struct input in;

	if (!n || n > 8192)
		return 0;
	in = (struct input){ data + 1, n - 1, data[0] & 4 };
	if (data[0] & 1)
		fuzz_acceptor(&in, data[0] & 2 ? &secret : NULL);
	else
		fuzz_connector(&in, data[0] & 2 ? &secret : NULL);
	return 0;
}
