#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Databases on a mount whose daemon is killed in the middle of transactions: after the next mount they
# recover by themselves, nothing that was committed is missing, and their own checks find nothing.
# LONG=1: more rounds, more data.
. "$(dirname "$0")/lib.sh"
rounds=${LONG:+10}
rounds=${rounds:-2}
pg=/usr/lib/postgresql/$(ls /usr/lib/postgresql 2>/dev/null | sort -n | tail -n 1)/bin
need sqlite3 sqlite3
need "$pg/postgres" postgresql
need "$pg/pgbench" postgresql-contrib
chmod 755 "$dir"

mkfs.talosfs --size 3G "$image_a" >/dev/null
mount.talosfs "$image_a" "$A"

kill_daemon() { kill9 "$(pid_of "$A")"; }
back() {
	umount "$A"
	mount.talosfs "$image_a" "$A"
}

sqlite() {
	local i w before
	for ((i = 0; i < rounds; i++)); do
		for journal in delete wal; do
			before=$(sqlite3 "$A/$journal.db" 'SELECT count(*) FROM rows' 2>/dev/null) || before=0
			echo "$before" >"$dir/acked"
			python3 "$here/sqlite_writer.py" "$A/$journal.db" $journal >>"$dir/acked" 2>"$dir/err" &
			w=$!
			moved() { [ "$(tail -n 1 "$dir/acked")" -gt $((before + 20)) ]; }
			wait_for 60 moved
			sleep "0.$((RANDOM % 400 + 100))"
			kill_daemon
			wait $w || true
			grep -q '^ended by' "$dir/err" || fail "the writer said: $(cat "$dir/err")"
			back
			python3 "$here/sqlite_writer.py" "$A/$journal.db" $journal check <"$dir/acked" >"$dir/out" ||
				fail "sqlite with journal_mode=$journal: round $i"
			[ "$(sqlite3 "$A/$journal.db" 'PRAGMA integrity_check')" = ok ]
		done
	done
	echo "sqlite, $((2 * rounds)) kills: $(cat "$dir/out") transactions in the last database"
}

as_postgres() { (cd / && runuser -u postgres -- "$@"); }
sql() { as_postgres "$pg/psql" -h "$dir/run" -X -A -t -q -v ON_ERROR_STOP=1 -c "$1" postgres; }
# As a child of ours: a server that ended must not look as if it ran, which it does until it was waited for.
start_postgres() {
	as_postgres "$pg/postgres" -D "$A/pg" -k "$dir/run" -c listen_addresses= -c checkpoint_timeout=30s \
		-c shared_buffers=16MB >>"$dir/run/log" 2>&1 &
	server=$!
	answers() { ! gone $server && sql 'SELECT 1'; }
	wait_for 120 answers || fail "the server does not start: $(tail -n 5 "$dir/run/log")"
	postmaster=$(head -n 1 "$A/pg/postmaster.pid")
}
# The daemon and the server, as when a host stops: nobody gets to say anything more.
kill_both() {
	local p all
	all="$postmaster $(pgrep -P "$postmaster")"
	kill_daemon
	for p in $all; do
		kill -9 "$p" 2>/dev/null || true
		wait_for 60 gone "$p"
	done
	postmaster=
	wait $server || true
}
postmaster=
trap 'code=$?; set +e; [ -z "$postmaster" ] || kill_both; (exit $code); cleanup' EXIT

postgres() {
	local i w scale=${LONG:+10} seconds=${LONG:+30} acked
	mkdir "$dir/run" "$A/pg"
	chown postgres "$dir/run" "$A/pg"
	as_postgres "$pg/initdb" -D "$A/pg" -k --auth=trust --no-instructions >/dev/null
	start_postgres
	as_postgres "$pg/pgbench" -h "$dir/run" -i -q -s "${scale:-2}" postgres >/dev/null 2>&1
	for ((i = 0; i < (rounds + 1) / 2; i++)); do
		sql 'TRUNCATE pgbench_history; UPDATE pgbench_accounts SET abalance = 0 WHERE abalance <> 0;
			UPDATE pgbench_tellers SET tbalance = 0; UPDATE pgbench_branches SET bbalance = 0; CHECKPOINT'
		rm -f "$dir"/run/acked*
		# Its log has a line for each transaction that the server has acknowledged.
		as_postgres "$pg/pgbench" -h "$dir/run" -n -c 4 -T 300 -l --log-prefix="$dir/run/acked" postgres >"$dir/out" 2>&1 &
		w=$!
		many() { [ "$(sql 'SELECT count(*) FROM pgbench_history')" -gt 100 ]; }
		wait_for 60 many
		sleep "$((${seconds:-2} - 1)).$((RANDOM % 900 + 100))"
		kill_both
		wait $w || true
		back
		start_postgres
		acked=$(cat "$dir"/run/acked* | wc -l)
		[ "$acked" -gt 0 ] || fail "pgbench: no transaction was acknowledged: $(cat "$dir/out")"
		[ "$(sql 'SELECT count(*) FROM pgbench_history')" -ge "$acked" ] || fail "pgbench: acknowledged transactions are missing"
		[ "$(sql 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = sums.d AND (SELECT sum(tbalance) FROM pgbench_tellers) = sums.d
			AND (SELECT sum(bbalance) FROM pgbench_branches) = sums.d FROM (SELECT sum(delta) d FROM pgbench_history) sums')" = t ] ||
			fail "pgbench: the balances are not the sums of the history"
		as_postgres "$pg/pg_amcheck" -h "$dir/run" --install-missing --heapallindexed postgres || fail "pg_amcheck found something"
	done
	kill -INT "$postmaster" # a fast shutdown
	postmaster=
	wait $server || fail "the server ended with an error: $(tail -n 5 "$dir/run/log")"
	as_postgres "$pg/pg_checksums" --check -D "$A/pg" | grep -q '^Bad checksums: *0$' || fail "pg_checksums found something"
	echo "postgres: $acked transactions were acknowledged before the last kill, all there"
}

part sqlite sqlite
part postgres postgres
umount_wait "$A"
fsck.talosfs -n "$image_a" >"$dir/out" || fail "fsck: $(cat "$dir/out")"
