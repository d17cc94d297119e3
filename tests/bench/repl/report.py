#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tables, and plots by gnuplot, of what replbench and mounted.py printed.

report.py [--plots=DIR] FILE...: one object a line; of several of the same cell, the medians.
"""
import json
import os
import statistics
import subprocess
import sys

CELL = ("level", "processors", "mix", "growth_factor", "workload", "mode", "backups")
PLACES = {"free": "", "apart": ", primary and backup on a processor each", "together": ", all nodes on one processor"}
MODES = ["none", "lean", "fresh", "build-index"]
MIXES = ["s", "m", "l", "sd", "md", "ld"]


def read(files):
    """Medians of each number, by cell; the objects of other kinds as they are."""
    cells, rest = {}, []
    for name in files:
        for line in open(name):
            o = json.loads(line)
            if "mode" in o:
                cells.setdefault(tuple(o.get(k) for k in CELL), []).append(o)
            else:
                rest.append(o)
    medians = {}
    for key, rows in cells.items():
        medians[key] = {
            k: statistics.median(r[k] for r in rows) if isinstance(v, (int, float)) and not isinstance(v, bool) else v
            for k, v in rows[0].items()
        }
    return medians, rest


class Results:
    def __init__(self, cells):
        self.cells = cells

    def values(self, field):
        order = {"mix": MIXES, "mode": MODES}.get(field)
        found = {k[CELL.index(field)] for k in self.cells}
        return [v for v in order if v in found] if order else sorted(found)

    def get(self, mode, mix, workload="load", growth=8, backups=1, level="engine", processors="free"):
        return self.cells.get((level, processors, mix, growth, workload, mode, 0 if mode == "none" else backups))

    def ratio(self, field, over, under, mix, **more):
        """field of one mode over that of another; None where either was not run."""
        a, b = self.get(over, mix, **more), self.get(under, mix, **more)
        if not a or not b:
            return None
        if callable(field):
            a, b = field(a), field(b)
        else:
            a, b = a[field], b[field]
        return a / b if b else None


def device_bytes(o):
    return o["backup_read_per_user_byte"] + o["backup_written_per_user_byte"]


def system_cpu(o):
    return o["primary_cpu_us_per_op"] + o["backups"] * o["backup_cpu_us_per_op"]


# --- tables ------------------------------------------------------------------------------


COLUMNS = [
    ("op/s", "ops_per_s", "%.0f"),
    ("system", "system_ops_per_s", "%.0f"),
    ("P us", "primary_cpu_us_per_op", "%.2f"),
    ("B us", "backup_cpu_us_per_op", "%.2f"),
    ("B read", "backup_read_per_user_byte", "%.2f"),
    ("B writ", "backup_written_per_user_byte", "%.2f"),
    ("net", "network_per_user_byte", "%.2f"),
    ("B MB", "backup_write_path_mb", "%.1f"),
    ("space", "space_amp", "%.2f"),
    ("p50", "p50_us", "%.1f"),
    ("p99", "p99_us", "%.1f"),
    ("p99.9", "p999_us", "%.0f"),
    ("p99.99", "p9999_us", "%.0f"),
]


def cell_table(r, level, processors):
    keys = [k for k in r.cells if k[0] == level and k[1] == processors]
    if not keys:
        return
    keys.sort(key=lambda k: (k[3], MIXES.index(k[2]), "LlABCDEFU".index(k[4][0]), MODES.index(k[5]), k[6]))
    print("\n%s%s" % (level, PLACES[processors]))
    print("%-6s %-4s %-4s %-11s %1s" % ("growth", "mix", "", "mode", "B") + "".join("%9s" % c[0] for c in COLUMNS))
    last = None
    for k in keys:
        if last and last != k[2:5]:
            print()
        last = k[2:5]
        o = r.cells[k]
        print(
            "%-6s %-4s %-4s %-11s %1d" % (k[3], k[2], k[4], k[5], k[6])
            + "".join("%9s" % (fmt % o[f] if o.get(f) is not None else "-") for _, f, fmt in COLUMNS)
        )


def at_least(best, each):
    return lambda mix_values: max(v for _, v in mix_values) >= best and all(v >= each for _, v in mix_values)


def network_is_low(mix_values):
    """At most 1.3 times where values are the greater part, 3 times for small pairs."""
    most = {"s": 3, "m": 1.3, "l": 1.3, "md": 1.3, "ld": 1.3}
    return all(v <= most[m] for m, v in mix_values if m in most)


def line(name, bar, values, met=None):
    shown = "".join("%10s" % ("-" if v is None else "%.2f" % v) for _, v in values)
    measured = [(m, v) for m, v in values if v is not None]
    if measured:
        verdict = "" if not met else "met" if met(measured) else "MISSED"
        print("%-48s%s   %-22s%s" % (name, shown, bar, verdict))


def bars_table(r):
    mixes = r.values("mix")
    bi, lean = "build-index", "lean"
    print("\nload, growth factor 8, one backup; build-index over lean and fresh unless said otherwise")
    print("%-48s%s   %s" % ("", "".join("%10s" % m for m in mixes), "wanted"))
    for mode in (lean, "fresh"):
        wanted = mode == lean
        for name, bar, field, met in (
            ("backup's device bytes", "3.5 best, 1.5 each", device_bytes, at_least(3.5, 1.5)),
            ("backup's CPU of an operation", "5 best, 2 each", "backup_cpu_us_per_op", at_least(5, 2)),
            ("CPU of primary and backup", "", system_cpu, None),
            ("memory of the backup's write path", "2", "backup_write_path_mb", at_least(2, 2)),
        ):
            values = [(m, r.ratio(field, bi, mode, m)) for m in mixes]
            line("%s: %s" % (mode, name), bar if wanted else "", values, met if wanted else None)
        for workload in ("load", "A"):
            for processors in ("free", "together"):
                bar = wanted and processors == "together"
                line(
                    "%s / build-index: throughput, %s, %s" % (mode, workload, processors),
                    "1.1 to 3" if bar else "",
                    [(m, r.ratio("system_ops_per_s", mode, bi, m, workload=workload, processors=processors)) for m in mixes],
                    at_least(1.1, 1.1) if bar else None,
                )
        line(
            "%s / build-index: network" % mode,
            "1.3 m l md ld, 3 s" if wanted else "",
            [(m, r.ratio("network_per_user_byte", mode, bi, m)) for m in mixes],
            network_is_low if wanted else None,
        )
    line(
        "lean / none: primary, a processor each",
        "0.85",
        [(m, r.ratio("ops_per_s", lean, "none", m, processors="apart")) for m in mixes],
        at_least(0.85, 0.85),
    )
    for field, name in (("space_amp", "space"), ("ops_per_s", "throughput"), ("backup_written_per_user_byte", "backup's writes")):
        values = []
        for m in mixes:
            a, b = (r.get(lean, m, growth=g) for g in (16, 8))
            values.append((m, a[field] / b[field] if a and b and b[field] else None))
        line("growth factor 16 / 8, lean: %s" % name, "shown", values)


def rewrite_table(rest):
    rows = [o for o in rest if o.get("level") == "rewrite"]
    if rows:
        print("\nrewriting the pointers of a shipped segment, as the paper's backups do: us a segment")
    for o in rows:
        print(
            "%-4s %4d segments of %d KiB, %.0f pointers each: %.1f us; here: none"
            % (o["mix"], o["segments"], o["segment_bytes"] >> 10, o["pointers_per_segment"], o["paper_us_per_segment"])
        )


# --- plots --------------------------------------------------------------------------------


HEAD = """set terminal svg size 720,360 font "Helvetica,12" background "white"
set output "%s"
set title "%s"
set ylabel "%s"
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
set key outside right top
"""
COLOURS = {"none": "#999999", "lean": "#1b7837", "fresh": "#7fbf7b", "build-index": "#b2182b"}


def gnuplot(script):
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def bar_chart(path, title, ylabel, groups, series, log=False):
    """@series: name to a list of a value (or None) for each group."""
    script = HEAD % (path, title, ylabel)
    script += "set style data histograms\nset style histogram clustered gap 1\nset style fill solid 0.9 border -1\n"
    script += "set logscale y\n" if log else "set yrange [0:*]\n"
    script += "$data << END\n"
    for i, g in enumerate(groups):
        script += '"%s" %s\n' % (g, " ".join("?" if s[i] is None else "%g" % s[i] for s in series.values()))
    script += "END\nset datafile missing '?'\nplot "
    script += ", ".join(
        '$data using %d:xtic(1) title "%s" linecolor rgb "%s"' % (i + 2, name, COLOURS[name]) for i, name in enumerate(series)
    )
    gnuplot(script + "\n")


def line_chart(path, title, xlabel, ylabel, lines):
    """@lines: name to (colour, [(x, y)])."""
    script = HEAD % (path, title, ylabel) + 'set xlabel "%s"\nset yrange [0:*]\n' % xlabel
    for i, (_, points) in enumerate(lines.values()):
        script += "$d%d << END\n%s\nEND\n" % (i, "\n".join("%g %g" % p for p in points))
    script += "plot " + ", ".join(
        '$d%d with linespoints lw 2 pt 7 lc rgb "%s" title "%s"' % (i, c, name) for i, (name, (c, _)) in enumerate(lines.items())
    )
    gnuplot(script + "\n")


def by_mix(r, field, modes, **more):
    mixes = r.values("mix")
    series = {}
    for mode in modes:
        cells = [r.get(mode, m, **more) for m in mixes]
        if any(cells):
            series[mode] = [None if not c else field(c) if callable(field) else c[field] for c in cells]
    return mixes, series


def plots(r, to):
    os.makedirs(to, exist_ok=True)
    backups = MODES[1:]
    for name, title, ylabel, field, modes, workload in (
        ("throughput", "Load, primary and backup on shared processors", "op/s, until no node has work left", "system_ops_per_s", MODES, "load"),
        ("throughput-a", "YCSB A, primary and backup on shared processors", "op/s, until no node has work left", "system_ops_per_s", MODES, "A"),
        ("backup-cpu", "CPU of the backup, load", "us of an operation", "backup_cpu_us_per_op", backups, "load"),
        ("backup-io", "Device bytes of the backup, load", "read and written for each user byte", device_bytes, backups, "load"),
        ("network", "Network, load", "bytes for each user byte", "network_per_user_byte", backups, "load"),
        ("memory", "Memory of the backup's write path, load", "MiB at most", "backup_write_path_mb", backups, "load"),
    ):
        mixes, series = by_mix(r, field, modes, workload=workload)
        if series:
            bar_chart("%s/repl-%s.svg" % (to, name), title, ylabel, mixes, series)
    latency_plot(r, to)
    growth_plots(r, to)


def latency_plot(r, to):
    fields = ["p50_us", "p99_us", "p999_us", "p9999_us"]
    mix = "sd" if "sd" in r.values("mix") else r.values("mix")[0]
    cells = {m: r.get(m, mix, workload="A") for m in MODES}
    series = {m: [c[f] for f in fields] for m, c in cells.items() if c}
    if series:
        bar_chart(to + "/repl-latency.svg", "Latency, YCSB A, mix %s" % mix, "us", ["p50", "p99", "p99.9", "p99.99"], series, log=True)


def growth_plots(r, to):
    mix = "sd" if "sd" in r.values("mix") else r.values("mix")[0]
    growths = [g for g in r.values("growth_factor") if r.get("lean", mix, growth=g)]
    if len(growths) < 2:
        return
    for name, title, ylabel, field in (
        ("growth-io", "Device bytes of the backup by growth factor, load, mix %s" % mix, "for each user byte", device_bytes),
        ("growth-throughput", "Load by growth factor, mix %s" % mix, "op/s, until no node has work left", lambda o: o["system_ops_per_s"]),
        ("growth-space", "Space by growth factor, after the load, mix %s" % mix, "bytes for each live byte", lambda o: o["space_amp"]),
    ):
        lines = {}
        for mode in MODES:
            points = [(g, field(c)) for g in growths if (c := r.get(mode, mix, growth=g))]
            if points and not (mode == "none" and field is device_bytes):
                lines[mode] = (COLOURS[mode], points)
        line_chart("%s/repl-%s.svg" % (to, name), title, "growth factor", ylabel, lines)


def main():
    files = [a for a in sys.argv[1:] if not a.startswith("--")]
    to = [a[len("--plots="):] for a in sys.argv[1:] if a.startswith("--plots=")]
    cells, rest = read(files)
    r = Results(cells)
    for level, processors in (("engine", "free"), ("engine", "apart"), ("engine", "together"), ("mount", "free")):
        cell_table(r, level, processors)
    bars_table(r)
    rewrite_table(rest)
    if to:
        plots(r, to[0])


main()
