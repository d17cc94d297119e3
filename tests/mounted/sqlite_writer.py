# SPDX-License-Identifier: MIT
"""Transactions on an SQLite database until it fails: sqlite_writer.py DATABASE wal|delete.

Each adds a row and changes a sum beside it; its number goes to standard output when COMMIT has returned.
With "check" behind: judges what is there against the last number that was printed, on standard input.
"""
import hashlib, os, sqlite3, sys

path, journal = sys.argv[1:3]


def body(n):
    """What row n has to hold: of very different lengths."""
    return hashlib.sha256(b"%d" % n).digest() * (n * n % 300)


def check(db, acked):
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    count, most = db.execute("SELECT count(*), coalesce(max(n), 0) FROM rows").fetchone()
    assert count == most >= acked, f"{count} rows up to {most}, {acked} were acknowledged"
    total = db.execute("SELECT total FROM sums").fetchone()[0]
    assert total == count * (count + 1) // 2, f"the sum is {total} with {count} rows"
    for n, value in db.execute("SELECT n, body FROM rows ORDER BY n DESC LIMIT 200"):
        assert value == body(n), f"row {n} is another"
    print(count)


def write(db):
    n = db.execute("SELECT coalesce(max(n), 0) FROM rows").fetchone()[0]
    while True:
        n += 1
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO rows VALUES (?, ?)", (n, body(n)))
        db.execute("UPDATE sums SET total = total + ?", (n,))
        db.execute("COMMIT")
        os.statvfs(path)  # SQLite goes on if it cannot open the directory to sync it: alive now, alive then
        print(n, flush=True)


db = sqlite3.connect(path, isolation_level=None)
if len(sys.argv) > 3:
    check(db, int(sys.stdin.read().split()[-1]))
    sys.exit()
assert db.execute(f"PRAGMA journal_mode={journal}").fetchone()[0] == journal
db.execute("PRAGMA synchronous=EXTRA")  # FULL does not sync the directory that the journal is removed from
db.execute("CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY, body BLOB)")
db.execute("CREATE TABLE IF NOT EXISTS sums (total INTEGER)")
db.execute("INSERT INTO sums SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM sums)")
try:
    write(db)
except (sqlite3.OperationalError, OSError) as e:
    print(f"ended by: {e}", file=sys.stderr)
