#!/usr/bin/python3
"""What durability costs: training Forwards of sessions with NONE, COMMIT and FLUSH against one server with a data
directory, by 1, 8 and 64 callers, medians of interleaved rounds.

NONE is measured before and after the durable ones of its round; they are compared with the mean of the two, and what
the two differ by is the noise. Each caller has a session and a connection of its own. Prints a table, whether the
targets hold, and as its last line the same figures as JSON. Times are milliseconds a call.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

LEVELS = ("NONE", "COMMIT", "FLUSH")
NOISE = "NONE again"
# A call may take so much longer than one with NONE (FLUSH: and what the disk takes), at one caller.
EXTRA_MS = 0.1
# The share of NONE's throughput that must be left, at the most callers.
SHARE = {"COMMIT": 0.9, "FLUSH": 0.7}


def fail(message):
    sys.exit(f"durable.py: {message}")


def file_system(directory):
    """The type of the file system that holds `directory`, such as ext4."""
    directory, best = os.path.realpath(directory), ("", "unknown")
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            point, kind = line.split()[1:3]
            if (directory + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
                best = (point, kind)
    return best[1]


def busy_seconds():
    """What all programs together have used of the processors."""
    with open("/proc/stat", encoding="utf-8") as stat:
        user, nice, system, _, _, interrupts, soft_interrupts = map(int, stat.readline().split()[1:8])
    return (user + nice + system + interrupts + soft_interrupts) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Server:
    """The built server beside the benchmark's program, with a data directory in `folder`."""

    def __init__(self, program, engine, folder):
        self.log = os.path.join(folder, "log")
        port_file = os.path.join(folder, "address")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [program, "--engine", engine, "--listen", "127.0.0.1:0", "--port-file", port_file,
                 "--data-dir", os.path.join(folder, "data")], stdout=log, stderr=log)  # fmt: skip
        while not os.path.exists(port_file):
            if self.process.poll() is not None:
                fail(f"the server did not start:\n{self.said()}")
            time.sleep(0.02)
        with open(port_file, encoding="utf-8") as file:
            self.address = file.readline().strip()

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure(options, folder):
    """Runs server and callers: what the server is, how much of the processors others had meanwhile, and the figures as
    durable_bench printed them."""
    start, busy, own = time.monotonic(), busy_seconds(), own_seconds()
    server = Server(os.path.join(os.path.dirname(options.program), "normserve-server"), options.engine, folder)
    lines = []
    command = [options.program, "--server", server.address, "--server-pid", str(server.process.pid),
               "--directory", folder, "--rounds", str(options.rounds), "--seconds", str(options.seconds),
               "--callers", options.callers]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as callers:
            for line in callers.stdout:
                figure = json.loads(line)
                if lines and figure["round"] > lines[-1].get("round", 0):
                    print(f"round {figure['round']} of {options.rounds}", file=sys.stderr)
                lines.append(figure)
        if callers.returncode != 0:
            fail(f"durable_bench failed; the server's log:\n{server.said()}")
    finally:
        server.stop()
    if server.process.returncode != 0:
        fail(f"the server ended with {server.process.returncode}:\n{server.said()}")
    others = busy_seconds() - busy - (own_seconds() - own)
    lines[0]["others"] = max(0, others) / (time.monotonic() - start) / os.cpu_count()
    return lines[0], [line for line in lines[1:] if line["round"] > 0]  # round 0 is the warm-up


def rounds_of(figures, shape, callers):
    """One {level: figure} a round, each with NONE as the mean of both its runs under "base"."""
    rounds = {}
    for figure in figures:
        if figure.get("shape") == shape and figure["callers"] == callers:
            rounds.setdefault(figure["round"], {})[figure["level"]] = figure
    for levels in rounds.values():
        both = levels["NONE"], levels[NOISE]
        levels["base"] = {key: (both[0][key] + both[1][key]) / 2 for key in ("p50_ms", "calls_per_s", "server_cpu_ms")}
    return list(rounds.values())


def summarise(rounds, level):
    """Medians over the rounds; differences and ratios are taken within a round."""
    figures = [levels[level] for levels in rounds]
    base = [levels["NONE" if level in ("NONE", NOISE) else "base"] for levels in rounds]
    return {
        "p50_ms": statistics.median(f["p50_ms"] for f in figures),
        "p99_ms": statistics.median(f["p99_ms"] for f in figures),
        "calls_per_s": statistics.median(f["calls_per_s"] for f in figures),
        "server_cpu_ms": statistics.median(f["server_cpu_ms"] for f in figures),
        "p50_minus_none_ms": statistics.median(f["p50_ms"] - b["p50_ms"] for f, b in zip(figures, base)),
        "calls_over_none": statistics.median(f["calls_per_s"] / b["calls_per_s"] for f, b in zip(figures, base)),
        "server_cpu_minus_none_ms": statistics.median(
            f["server_cpu_ms"] - b["server_cpu_ms"] for f, b in zip(figures, base)),
    }


def noise_of(rounds):
    """How far NONE's two runs of a round lie apart: the median of the absolute differences."""
    pairs = [(levels["NONE"], levels[NOISE]) for levels in rounds]
    return {
        "p50_ms": statistics.median(abs(a["p50_ms"] - b["p50_ms"]) for a, b in pairs),
        "calls_ratio": statistics.median(abs(a["calls_per_s"] / b["calls_per_s"] - 1) for a, b in pairs),
        "server_cpu_ms": statistics.median(abs(a["server_cpu_ms"] - b["server_cpu_ms"]) for a, b in pairs),
    }


def targets_of(shape, callers, table, sync_ms):
    """(what is measured, its value, what it must be) for one shape, where the targets speak of these callers."""
    if callers == 1:
        for level in ("COMMIT", "FLUSH"):
            limit = EXTRA_MS + (sync_ms if level == "FLUSH" else 0)
            value = table[level]["p50_minus_none_ms"]
            yield {"target": f"{shape}, 1 caller, {level}: p50 above NONE's in ms, at most", "limit": round(limit, 3),
                   "measured": round(value, 3), "holds": value <= limit}  # fmt: skip
    elif callers >= 64:
        for level, share in SHARE.items():
            value = table[level]["calls_over_none"]
            yield {"target": f"{shape}, {callers} callers, {level}: calls/s over NONE's, at least", "limit": share,
                   "measured": round(value, 3), "holds": value >= share}  # fmt: skip


def report(options, server, figures, disk):
    syncs = [f for f in figures if "fdatasync_p50_ms" in f]
    sync = {key: statistics.median(f[f"fdatasync_{key}"] for f in syncs) for key in ("p50_ms", "p99_ms")}
    print(f"\ntraining Forwards, float32, {server['device']}, engine {options.engine}, {os.cpu_count()} processors, of "
          f"which other programs had {server['others']:.0%}; medians of {options.rounds} rounds of {options.seconds} s; "
          f"a session and a connection for each caller")
    print(f"disk ({disk}): append 8 KB and fdatasync {sync['p50_ms']:.3f} ms, p99 {sync['p99_ms']:.3f} ms")
    print(f"{'':15}{'callers':>7} {'durability':10}{'p50 ms':>9}{'p99 ms':>9}{'calls/s':>9}{'cpu ms':>8}"
          f"{'p50-NONE':>10}{'calls/NONE':>12}{'cpu-NONE':>10}")
    results, noises, targets = [], [], []
    measured = dict.fromkeys((f["shape"], f["callers"]) for f in figures if "shape" in f)
    for shape, callers in measured:
        rounds = rounds_of(figures, shape, callers)
        table = {level: summarise(rounds, level) for level in (*LEVELS, NOISE)}
        noise = noise_of(rounds)
        noises.append({"shape": shape, "callers": callers, **noise})
        for level, row in table.items():
            results.append({"shape": shape, "callers": callers, "durability": level, **row})
            print(f"{shape if level == 'NONE' else '':15}{callers:7} {level:10}{row['p50_ms']:9.3f}{row['p99_ms']:9.3f}"
                  f"{row['calls_per_s']:9.0f}{row['server_cpu_ms']:8.3f}{row['p50_minus_none_ms']:10.3f}"
                  f"{row['calls_over_none']:12.3f}{row['server_cpu_minus_none_ms']:10.3f}")
        print(f"{'':22} {'noise, +-':43}{noise['p50_ms']:10.3f}{noise['calls_ratio']:12.3f}"
              f"{noise['server_cpu_ms']:10.3f}")
        targets += targets_of(shape, callers, table, sync["p50_ms"])
    print()
    for target in targets:
        print(f"{'holds ' if target['holds'] else 'MISSED'} {target['target']} {target['limit']}: {target['measured']}")
    print(json.dumps({
        "device": server["device"], "engine": options.engine, "others": round(server["others"], 3),
        "rounds": options.rounds, "seconds": options.seconds,
        "disk": disk, "fdatasync_p50_ms": sync["p50_ms"], "fdatasync_p99_ms": sync["p99_ms"],
        "figures": results, "noise": noises, "targets": targets,
    }))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the built durable_bench, beside normserve-server")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, each measuring everything once (default 9)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each figure of a round (default 1)")
    parser.add_argument("--callers", default="1,8,64", help="how many at once (default 1,8,64)")
    parser.add_argument("--engine", choices=("vulkan", "reference"), default="vulkan", help="of the server")
    parser.add_argument("--data-dir", metavar="DIR",
                        help="where the server's fresh directory is made (default: the build folder)")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("rounds is 1 or more, seconds more than 0")
    options.program = os.path.abspath(options.program)
    place = options.data_dir or os.path.dirname(os.path.dirname(options.program))
    if not os.path.isdir(place):
        fail(f"{place} is no directory")
    disk = file_system(place)
    if disk in ("tmpfs", "ramfs"):
        fail(f"{place} is on {disk}, where a sync costs nothing: name a directory on a disk with --data-dir")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped
    with tempfile.TemporaryDirectory(prefix="durable-", dir=place) as folder:
        server, figures = measure(options, folder)
    report(options, server, figures, disk)


if __name__ == "__main__":
    main()
