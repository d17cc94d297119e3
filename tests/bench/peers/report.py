#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tables of what run.sh took: medians of the rounds, ratios to each peer beside the bars."""
import json
import statistics
import sys

# Operation, one thread: this project's rate is to be so many times that of each peer.
BARS = {
    "create": {"gluster": 5, "moosefs": 2},
    "openread": {"gluster": 2, "moosefs": 2},
    "rename": {"gluster": 10, "moosefs": 1},
    "unlink": {"gluster": 4, "moosefs": 1},
    "setxattr": {"moosefs": 1},
    "fsync": {"gluster": 3, "moosefs": 1},
    "seqwrite": {"gluster": 2, "moosefs": 2},
    "untar": {"gluster": 2.5, "moosefs": 2.5, "cephfs": 2.5},
}
OURS = "talosfs"


def medians(rows, field):
    cells = {}
    for o in rows:
        cells.setdefault((o["op"], o["threads"]), {}).setdefault(o["fs"], []).append(o[field])
    return {k: {fs: statistics.median(v) for fs, v in by.items()} for k, by in cells.items()}


def rates(rows, systems):
    rate, mb, p99 = (medians(rows, f) for f in ("ops_per_s", "mb_per_s", "p99_us"))
    cpu = medians(rows, "daemon_cpu_us_per_op")
    print("operations a second (streams: MB/s); p99 in us; CPU of all servers, us of an operation")
    print("%-10s %2s" % ("", "") + "".join("%29s" % s for s in systems))
    for (op, threads), by in rate.items():
        key, line = (op, threads), ""
        for s in systems:
            if s not in by:
                line += "%29s" % "-"
                continue
            first = mb[key][s] if op.startswith("seq") else by[s]
            line += "%11.0f %9.0f %7.0f" % (first, p99[key][s], cpu[key][s])
        print("%-10s %2d%s" % (op, threads, line))


def ratios(rows, systems):
    print("\nratio of %s to each; in brackets what it is to be" % OURS)
    for (op, threads), by in medians(rows, "ops_per_s").items():
        line = ""
        for s in systems:
            if s == OURS or s not in by or not by[s]:
                continue
            bar = BARS.get(op, {}).get(s) if threads == 1 else None
            ratio = by[OURS] / by[s]
            shown = "" if bar is None else " (%g: %s)" % (bar, "met" if ratio >= bar else "MISSED")
            line += "%12s %6.1f%-14s" % (s, ratio, shown)
        print("%-10s %2d%s" % (op, threads, line))


def losses(rows):
    if rows:
        print("\na replica is lost under a writer of 4 KiB files with an fsync each: its longest wait")
    for o in rows:
        print(
            "%-8s %-5s %7.2f s; %d files acknowledged, %d errors, %d missing, %d wrong"
            % (o["fs"], o["loss"], o["longest_s"], o["acknowledged"], o["errors"], o["missing"], o["wrong"])
        )


def main():
    objects = [json.loads(line) for line in open(sys.argv[1])]
    rows = [o for o in objects if "op" in o]
    systems = list(dict.fromkeys(o["fs"] for o in rows))
    rates(rows, systems)
    ratios(rows, systems)
    losses([o for o in objects if "loss" in o])


main()
