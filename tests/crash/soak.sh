#!/bin/sh
# SPDX-License-Identifier: MIT
# soak.sh BUILD SECONDS: the crash tests and the model test, one after the other, each time with a
# new seed, until the time is over; stops at the first that fails, and says its seed. CRASH_STEPS=3
# makes the exhaustive one twenty times as long.
build=$1
end=$(($(date +%s) + $2))
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
points=0
seed=$(date +%s)
run() {
	SEED=$seed DAMAGES=5000 "$build/tests/$1" >"$log" 2>&1 || {
		cat "$log"
		echo "soak: $1 failed with SEED=$seed" >&2
		exit 1
	}
	for n in $(sed -n 's/^\([0-9]*\) crash points.*/\1/p' "$log"); do points=$((points + n)); done
}
while [ "$(date +%s)" -lt "$end" ]; do
	for t in crash/test_crash_exhaustive crash/test_engine_crash crash/test_lost_writes crash/test_damage unit/test_engine_model; do
		run $t
		[ "$(date +%s)" -lt "$end" ] || break
	done
	seed=$((seed + 1))
done
echo "soak: $points crash points in $2 s, nothing found"
