#!/bin/sh
# SPDX-License-Identifier: MIT
# The arrows of ARCHITECTURE.md: mount-tools -> fs, repl -> engine; inside the engine base <- store
# <- index <- core <- check. The -I paths of the Makefile make most of them impossible; this checks the rest.
cd "$(dirname "$0")/.." || exit 1
bad=0
complain() {
	echo "$1" >&2
	bad=1
}
# forbid FOLDER HEADERS-OF...: no file of FOLDER includes a private header of the others
forbid() {
	folder=$1
	shift
	for other in "$@"; do
		for h in "$other"/*.h; do
			[ -e "$h" ] || continue
			found=$(grep -ln "^#include \"$(basename "$h")\"" "$folder"/*.c "$folder"/*.h 2>/dev/null)
			[ -z "$found" ] || complain "$found includes $h"
		done
	done
}
if grep -n '^#include "\.\./' -r engine fs repl mount-tools >&2; then complain "includes by .."; fi
if grep -ln '^#include "talos/\(fs\|repl\|fs_format\)\.h"' -r engine >&2; then complain "the engine includes fs or repl"; fi
if grep -ln '^#include "talos/repl\.h"' -r fs >&2; then complain "fs includes repl"; fi
if grep -ln '^#include "talos/fs' -r repl >&2; then complain "repl includes fs"; fi
forbid engine/base engine/store engine/index engine/core engine/check fs repl mount-tools
forbid engine/store engine/index engine/core engine/check fs repl mount-tools
forbid engine/index engine/core engine/check fs repl mount-tools
forbid engine/core engine/check fs repl mount-tools
forbid engine/check fs repl mount-tools
forbid fs engine/base engine/store engine/index engine/core engine/check repl mount-tools
forbid repl engine/base engine/store engine/index engine/core engine/check fs mount-tools
forbid mount-tools engine/base engine/store engine/index engine/core engine/check fs repl
[ $bad = 0 ] && echo "includes: every arrow points the right way"
exit $bad
