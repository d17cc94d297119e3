#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the packages that README.md names: the list is there, so that the two cannot differ.
set -e
cd "$(dirname "$0")"
packages=$(sed -n '/^<!-- packages -->/,/^<!-- end -->/p' README.md | grep -v '^<!--')
export DEBIAN_FRONTEND=noninteractive
missing=
for p in $packages; do
	dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
apt-get update -q
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $missing
