#!/bin/sh
# SPDX-License-Identifier: MIT
# A program outside of the tree builds against the installed engine alone, and works.
# Usage: check-install.sh MAKE CC
set -e
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$1" --no-print-directory install PREFIX=/usr DESTDIR="$dir/root" >/dev/null
cat > "$dir/outside.c" <<'PROGRAM'
#include <stdio.h>
#include <string.h>
#include <talos/engine.h>

int main(int argc, char **argv)
{
	struct talos_format_options format = {
		.device_bytes = 64 << 20,
		.volume = { "outside" },
		.replica = { "first" },
	};
	struct talos_engine_options options = { 0 };
	struct talos_batch *b = NULL;
	struct talos_engine *e = NULL;
	struct talos_io *io = NULL;
	struct talos_pos end;
	uint32_t bytes = 0;
	char value[8];
	int pid, err;

	err = argc == 2 ? talos_io_file_open(argv[1], TALOS_IO_OPEN_CREATE, &io, &pid) : TALOS_ERR_INVALID;
	err = err ? err : talos_engine_format(io, &format);
	err = err ? err : talos_engine_open(io, &options, &e);
	err = err ? err : talos_engine_lead(e, 1);
	b = err ? NULL : talos_batch_new(e);
	err = err || b ? err : TALOS_ERR_NO_MEMORY;
	err = err ? err : talos_batch_put(b, "key", 3, "value", 5);
	err = err ? err : talos_engine_write(e, b, &end);
	err = err ? err : talos_engine_sync(e, end);
	err = err ? err : talos_engine_get(e, "key", 3, value, sizeof(value), &bytes);
	if (err)
		fprintf(stderr, "outside: %s\n", talos_strerror(err));
	talos_batch_free(b);
	err = talos_engine_close(e) || err;
	talos_io_close(io);
	return err || bytes != 5 || memcmp(value, "value", 5) != 0;
}
PROGRAM
export PKG_CONFIG_PATH="$dir/root/usr/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$dir/root"
# shellcheck disable=SC2046
$2 -std=gnu11 -Wall -Wextra -Werror -o "$dir/outside" "$dir/outside.c" \
	$(pkg-config --static --cflags --libs talos_engine)
"$dir/outside" "$dir/volume"
echo "install: a program builds against the engine alone, and works"
