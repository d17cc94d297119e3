/* SPDX-License-Identifier: MIT */
/*
 * The control socket: /run/talosfs/MAJOR:MINOR.sock, by the mount's device
 * number, which is found in /proc/self/mountinfo without touching the mount: a
 * hung daemon must not hang the tool that asks what is wrong with it.
 *
 * One JSON object each way per connection, ended by shutting down the sending
 * side; at most 64 KiB, a few seconds. Behind a request's object, and a newline,
 * may follow a body of up to CONTROL_BODY_BYTES_MAX: the pairs of a batch.
 *
 * A fixed number of threads serves connections, each one from its beginning to its
 * end; further ones wait to be accepted. Those that may take long have only some of the
 * threads: the others are always there for a question.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon.h"
#include "options.h"
#include "talos/lock.h"
#include "talos/log.h"

#define RUN_DIR "/run/talosfs"
#define REQUEST_BYTES_MAX 65536u
#define REPLY_BYTES_MAX (1u << 20)

#define THREADS 8u
#define SLOW_MAX 6u

struct control {
	struct daemon *daemon;
	control_handler handler;
	control_kind_fn kind_of;
	int fd, stop_fd;
	pthread_t threads[THREADS];
	unsigned thread_count;
	_Atomic unsigned slow_count; /* requests under way that are CONTROL_SLOW */
	struct talos_mutex alone;    /* TALOS_LOCK_TOOL: held by one that is CONTROL_ALONE */
	char path[108];
	ino_t ino; /* of the socket at path */
};

/* --- where it is ------------------------------------------------------------------------- */

/* Undo mountinfo's \040 and the like, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

bool control_path(const char *mountpoint, char *buf, size_t bytes)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[8192], dev[32], dir[4097];
	bool found = false;

	if (!f)
		return false;
	/* The last one wins: it lies on top. */
	while (fgets(line, sizeof(line), f)) {
		if (!strstr(line, " - fuse.talosfs ") && !strstr(line, " - fuseblk.talosfs "))
			continue;
		if (sscanf(line, "%*d %*d %31s %*s %4096s", dev, dir) != 2)
			continue;
		unescape(dir);
		if (strcmp(dir, mountpoint) != 0)
			continue;
		snprintf(buf, bytes, RUN_DIR "/%s.sock", dev);
		found = true;
	}
	fclose(f);
	return found;
}

/* --- bytes ------------------------------------------------------------------------------------ */

/* Read to the end, within limits; NUL-terminated. NULL: too long, too slow, or an error. */
static char *read_all(int fd, size_t max, int timeout_ms, size_t *out_bytes)
{
	size_t used = 0, room = talos_min(max, (size_t)REQUEST_BYTES_MAX);
	char *buf = malloc(room + 1);

	while (buf) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n = poll(&p, 1, timeout_ms) == 1 ? read(fd, buf + used, room - used) : -1;

		if (n == 0) {
			buf[used] = 0;
			*out_bytes = used;
			return buf;
		}
		if (n > 0)
			used += (size_t)n;
		if (n < 0 && errno != EINTR)
			break;
		if (used == room) {
			char *more;

			room = talos_min(room * 4, max);
			more = used < room ? realloc(buf, room + 1) : NULL;
			if (!more)
				break;
			buf = more;
		}
	}
	free(buf);
	return NULL;
}

static bool write_all(int fd, const void *bytes, size_t left)
{
	const char *text = bytes;

	while (left) {
		ssize_t n = send(fd, text, left, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		text += n;
		left -= (size_t)n;
	}
	return true;
}

static bool write_text(int fd, const char *text)
{
	return write_all(fd, text, strlen(text));
}

/* --- the daemon's side --------------------------------------------------------------------------- */

static json_t *answer_slow(struct control *c, const json_t *request, const uint8_t *body,
			   size_t bytes)
{
	json_t *reply;

	if (atomic_fetch_add(&c->slow_count, 1) < SLOW_MAX)
		reply = c->handler(c->daemon, request, body, bytes);
	else
		reply = json_pack("{s:s, s:b}", "error",
				  "too many requests that take long are under way: try again",
				  "blocked", true);
	atomic_fetch_sub(&c->slow_count, 1);
	return reply;
}

static json_t *answer(struct control *c, const json_t *request, const uint8_t *body, size_t bytes)
{
	enum control_kind kind = c->kind_of(request);
	json_t *reply;

	if (kind == CONTROL_SLOW)
		return answer_slow(c, request, body, bytes);
	if (kind == CONTROL_QUICK)
		return c->handler(c->daemon, request, body, bytes);
	talos_mutex_lock(&c->alone);
	reply = c->handler(c->daemon, request, body, bytes);
	talos_mutex_unlock(&c->alone);
	return reply;
}

static void serve_one(struct control *c, int fd)
{
	size_t bytes = 0, head;
	char *text = read_all(fd, REQUEST_BYTES_MAX + CONTROL_BODY_BYTES_MAX, 5000, &bytes), *end;
	json_t *request = NULL, *reply;
	char *out;

	end = text ? memchr(text, '\n', bytes) : NULL;
	head = end ? (size_t)(end - text) : bytes;
	if (text && head <= REQUEST_BYTES_MAX)
		request = json_loadb(text, head, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(request))
		reply = answer(c, request, end ? (const uint8_t *)end + 1 : NULL,
			       end ? bytes - head - 1 : 0);
	else
		reply = json_pack("{s:s}", "error", "not a JSON object");
	out = json_dumps(reply, JSON_COMPACT);
	if (out)
		write_text(fd, out);
	free(out);
	json_decref(reply);
	json_decref(request);
	free(text);
}

static void *serve(void *arg)
{
	struct control *c = arg;

	for (;;) {
		struct pollfd p[2] = { { .fd = c->fd, .events = POLLIN },
				       { .fd = c->stop_fd, .events = POLLIN } };
		int fd;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		/* Another thread may have been faster. */
		fd = p[0].revents ? accept4(c->fd, NULL, NULL, SOCK_CLOEXEC) : -1;
		if (fd >= 0) {
			serve_one(c, fd);
			close(fd);
		}
	}
	return NULL;
}

/*
 * A device number is free again as soon as it is unmounted, while its daemon is
 * still ending: so another daemon may have a socket of the same name by then.
 * Whoever makes or removes one holds this lock; -1: without.
 */
static int lock_sockets(void)
{
	int fd = open(RUN_DIR "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0)
		while (flock(fd, LOCK_EX) && errno == EINTR)
			;
	return fd;
}

static void unlock_sockets(int lock)
{
	if (lock >= 0)
		close(lock);
}

static int make_socket(const char *path, ino_t *out_ino)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int lock = lock_sockets();
	struct stat st;
	mode_t old;
	int err;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	unlink(path); /* of a daemon that was killed, or is ending */
	old = umask(0177);
	err = fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 64) ||
	      stat(path, &st);
	umask(old);
	unlock_sockets(lock);
	if (!err) {
		*out_ino = st.st_ino;
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* If it is still the one that was made: open as it is, its inode is not another's. */
static void remove_socket(const struct control *c)
{
	int lock = lock_sockets();
	struct stat st;

	if (stat(c->path, &st) == 0 && st.st_ino == c->ino)
		unlink(c->path);
	unlock_sockets(lock);
}

static void join_threads(struct control *c)
{
	uint64_t one = 1;

	/* Nobody reads it, so all of them see it. */
	if (write(c->stop_fd, &one, sizeof(one)) == sizeof(one))
		while (c->thread_count)
			pthread_join(c->threads[--c->thread_count], NULL);
}

/* At least one, or nothing. */
static bool start_threads(struct control *c)
{
	while (c->thread_count < THREADS &&
	       !pthread_create(&c->threads[c->thread_count], NULL, serve, c))
		c->thread_count++;
	return c->thread_count > 0;
}

int control_start(struct daemon *d, control_handler handler, control_kind_fn kind_of,
		  struct control **out)
{
	struct control *c = calloc(1, sizeof(*c));

	if (!c)
		return TALOS_ERR_NO_MEMORY;
	c->daemon = d;
	c->handler = handler;
	c->kind_of = kind_of;
	talos_mutex_init(&c->alone, TALOS_LOCK_TOOL);
	c->fd = c->stop_fd = -1;
	mkdir(RUN_DIR, 0700);
	if (control_path(d->o.mountpoint, c->path, sizeof(c->path)))
		c->fd = make_socket(c->path, &c->ino);
	if (c->fd >= 0)
		c->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (c->stop_fd < 0 || !start_threads(c)) {
		if (c->fd >= 0) {
			remove_socket(c);
			close(c->fd);
		}
		if (c->stop_fd >= 0)
			close(c->stop_fd);
		talos_mutex_fini(&c->alone);
		free(c);
		return TALOS_ERR_SYSTEM;
	}
	*out = c;
	return TALOS_OK;
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	join_threads(c);
	remove_socket(c);
	close(c->fd);
	close(c->stop_fd);
	talos_mutex_fini(&c->alone);
	free(c);
}

/* --- the tool's side -------------------------------------------------------------------------------- */

static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

json_t *control_ask(const char *mountpoint, json_t *request, char *why)
{
	return control_ask_with(mountpoint, request, NULL, 0, why);
}

json_t *control_ask_with(const char *mountpoint, json_t *request, const uint8_t *body,
			 size_t body_bytes, char *why)
{
	char *text = json_dumps(request, JSON_COMPACT), *answer = NULL;
	char path[108];
	json_t *reply = NULL;
	size_t answer_bytes;
	int fd = -1;

	json_decref(request);
	if (!control_path(mountpoint, path, sizeof(path))) {
		snprintf(why, 512, "%s: no talosfs is mounted here", mountpoint);
	} else {
		fd = connect_to(path);
		if (fd < 0 && errno == EACCES)
			snprintf(why, 512, "%s: only root may ask the daemon", mountpoint);
		else if (fd < 0)
			snprintf(why, 512,
				 "%s: its daemon does not run any more: unmount it (umount %s) and "
				 "mount the image again",
				 mountpoint, mountpoint);
	}
	if (fd >= 0 && text && write_text(fd, text) &&
	    (!body || (write_text(fd, "\n") && write_all(fd, body, body_bytes))) &&
	    shutdown(fd, SHUT_WR) == 0)
		answer = read_all(fd, REPLY_BYTES_MAX, 120000, &answer_bytes);
	if (answer)
		reply = json_loads(answer, 0, NULL);
	if (fd >= 0) {
		if (!reply)
			snprintf(why, 512, "%s: its daemon does not answer", mountpoint);
		close(fd);
	}
	free(answer);
	free(text);
	return reply;
}
