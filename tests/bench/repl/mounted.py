#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The evaluation on mounts: files as pairs, a primary and its backups as daemons.

mounted.py BUILD-FOLDER DIR [quick]: prints an object for each workload, as replbench does.
Environment: MIXES, MODES, BACKUPS, WORKLOADS, SECONDS_EACH, FILES (of the load).
"""
import json
import os
import subprocess
import sys
import time

OUT, DIR = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
QUICK = "quick" in sys.argv[3:]
TICKS = os.sysconf("SC_CLK_TCK")


def setting(name, default, quick=None):
    return os.environ.get(name) or (quick if QUICK and quick else default)


def tool(name, *args):
    return subprocess.run([OUT + "/" + name, *args], check=True, stdout=subprocess.PIPE, text=True).stdout


def wait_for(seconds, what):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            sys.exit("mounted.py: waited too long")
        time.sleep(0.02)


class Node:
    """A mounted volume."""

    def __init__(self, idx, port):
        self.address = "127.0.0.1:%d" % (port + idx)
        self.image, self.at = "%s/%d.tfs" % (DIR, idx), "%s/%d" % (DIR, idx)
        os.makedirs(self.at, exist_ok=True)

    def mount(self, options):
        with open(self.image + ".log", "w") as log:
            subprocess.run(
                [OUT + "/mount.talosfs", self.image, self.at, "-o", "l0=1M,timeout=60s,listen=%s%s" % (self.address, options)],
                check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        self.pid = self.status()["pid"]

    def status(self):
        return json.loads(tool("talosfs", "status", "--json", self.at))

    def cpu(self):
        fields = open("/proc/%d/stat" % self.pid).read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def umount(self):
        if subprocess.run(["umount", self.at]).returncode:
            subprocess.run(["umount", "-l", self.at])
        wait_for(60, lambda: not os.path.exists("/proc/%d" % self.pid))
        os.unlink(self.image)


def counted(causes):
    """Bytes of all causes; those of levels are a list."""
    if isinstance(causes, list):
        return sum(counted(c) for c in causes)
    return causes["bytes"] if "bytes" in causes else sum(counted(c) for c in causes.values())


class Snapshot:
    def __init__(self, primary, backups):
        self.primary, self.backups = primary.status(), [b.status() for b in backups]
        self.primary_cpu, self.backup_cpu = primary.cpu(), sum(b.cpu() for b in backups)

    def device(self, direction):
        return sum(counted(b["engine"]["device_" + direction]) for b in self.backups)

    def network(self):
        links = [p["link"] for p in self.primary["replication"]["peers"]]
        return sum(l["sent_bytes"] + l["received_bytes"] for l in links)


def caught_up(primary, backups):
    end = primary.status()["log"]["end"]
    return all(b.status()["log"]["end"] == end for b in backups)


def start(mode, count, port):
    primary = Node(0, port)
    tool("mkfs.talosfs", "--force", "--size", "16G", primary.image)
    primary.mount("")
    backups = []
    for i in range(1, count + 1):
        b = Node(i, port)
        tool("mkfs.talosfs", "--force", "--backup", b.image)
        b.mount(",mode=%s,primary=%s" % (mode, primary.address))
        wait_for(60, lambda: b.status()["replication"]["in_sync"])
        backups.append(b)
    return primary, backups


def workload(client, primary, backups, mode, mix):
    before, begin = Snapshot(primary, backups), time.monotonic()
    client.stdin.write("\n")
    client.stdin.flush()
    line = client.stdout.readline()
    if not line:
        sys.exit("mounted.py: the load failed")
    o = json.loads(line)
    tool("talosfs", "sync", primary.at)
    wait_for(300, lambda: caught_up(primary, backups))
    seconds = time.monotonic() - begin
    after, n = Snapshot(primary, backups), max(len(backups), 1)
    user = after.primary["engine"]["user_bytes"] - before.primary["engine"]["user_bytes"]
    slots = after.primary["space"]
    o.update(
        level="mount", processors="free", mode=mode, backups=len(backups), growth_factor=8,
        system_ops_per_s=round(o["ops"] / seconds, 1),
        primary_cpu_us_per_op=round((after.primary_cpu - before.primary_cpu) * 1e6 / o["ops"], 2),
        backup_cpu_us_per_op=round((after.backup_cpu - before.backup_cpu) * 1e6 / o["ops"] / n, 2),
        backup_read_per_user_byte=round((after.device("read") - before.device("read")) / user / n, 4) if user else 0,
        backup_written_per_user_byte=round((after.device("written") - before.device("written")) / user / n, 4) if user else 0,
        network_per_user_byte=round((after.network() - before.network()) / user / n, 4) if user else 0,
        backup_write_path_mb=round(sum(b["write_path"]["bytes"] for b in after.backups) / 1048576 / n, 2),
        space_amp=round((slots["log_bytes"] + slots["index_bytes"]) / o["live_bytes"], 3),
    )
    print(json.dumps(o), flush=True)


def cell(mode, count, mix, port):
    primary, backups = start(mode, count, port)
    client = None
    try:
        os.mkdir(primary.at + "/files")
        client = subprocess.Popen(
            [OUT + "/replbench", "--files", "--mix=" + mix, "--keys=" + setting("FILES", "60000", "10000"),
             "--workloads=" + setting("WORKLOADS", "LABCD", "LA"), "--seconds=" + setting("SECONDS_EACH", "5", "1"),
             primary.at + "/files"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in setting("WORKLOADS", "LABCD", "LA"):
            workload(client, primary, backups, mode, mix)
        client.communicate()
    finally:
        if client:
            client.kill()
            client.wait()
        for node in backups + [primary]:
            node.umount()


def main():
    port = 20000 + os.getpid() % 20000
    for mix in setting("MIXES", "s l sd", "sd").split():
        for mode in setting("MODES", "none lean fresh build-index", "none lean").split():
            for count in [0] if mode == "none" else [int(n) for n in setting("BACKUPS", "1", "1").split()]:
                cell(mode, count, mix, port)


main()
