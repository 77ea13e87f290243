#!/usr/bin/python3
"""What watching costs: steps a second of one client that trains, with and without 100 watchers of what it trains, and how
long GetStats of a model as large as ResNet-50 takes.

A round measures without watchers, with, and without again: the ratio is taken within it, against the mean of the two, and
what the two differ by is the noise. Server, trainer and watchers are processes of their own, on this machine. Prints
tables, whether the targets hold, and as its last line the same figures as JSON.
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

SHAPES = ("4,3,32,32", "8,256,14,14")
# What of its steps a second a client that trains keeps with all watchers, at least.
KEPT = 0.95
# What GetStats of 53 layers may take, milliseconds.
STATS_MS = 50


def fail(message):
    sys.exit(f"watch.py: {message}")


class Part:
    """One subcommand of watch_bench, spoken to by lines."""

    def __init__(self, options, server, *arguments):
        self.process = subprocess.Popen(
            [options.program, *arguments, "--server", server, "--seconds", str(options.seconds),
             "--watchers", str(options.watchers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            fail(f"watch_bench ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def end(self):
        """What it says when its input ends."""
        rest, _ = self.process.communicate()
        if self.process.returncode != 0:
            fail(f"watch_bench ended with {self.process.returncode}")
        return [json.loads(line) for line in rest.splitlines()]


def serve(options, folder):
    port_file = os.path.join(folder, "address")
    program = os.path.join(os.path.dirname(options.program), "normserve-server")
    flags = ["--data-dir", os.path.join(folder, "data")] if options.durable else []
    with open(os.path.join(folder, "log"), "wb") as log:
        process = subprocess.Popen([program, "--engine", options.engine, "--listen", "127.0.0.1:0", "--port-file",
                                    port_file, *flags], stdout=log, stderr=log)  # fmt: skip
    while not os.path.exists(port_file):
        if process.poll() is not None:
            with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as log:
                fail(f"the server did not start:\n{log.read()}")
        time.sleep(0.02)
    with open(port_file, encoding="utf-8") as file:
        return process, file.readline().strip()


def measure(options, server, shape):
    trainer = Part(options, server, "train", "--shape", shape)
    trainer.ask()  # warms up
    rounds = []
    for number in range(options.rounds):
        before = trainer.ask()
        watchers = Part(options, server, "watch")
        watchers.read()
        watched = trainer.ask()
        told = watchers.end()[0]["messages_per_s"]
        after = trainer.ask()
        base = (before["steps_per_s"] + after["steps_per_s"]) / 2
        rounds.append({"alone": base, "watched": watched["steps_per_s"], "kept": watched["steps_per_s"] / base,
                       "noise": abs(before["steps_per_s"] / after["steps_per_s"] - 1), "messages_per_s": told,
                       "alone_p50_ms": (before["p50_ms"] + after["p50_ms"]) / 2, "watched_p50_ms": watched["p50_ms"]})
        print(f"{shape}: round {number + 1} of {options.rounds}, kept {rounds[-1]['kept']:.3f}", file=sys.stderr)
    trainer.end()
    return {"shape": shape, **{key: statistics.median(each[key] for each in rounds) for key in rounds[0]}}


def report(options, figures, asked):
    print(f"\none client that trains, {options.watchers} watchers, engine {options.engine}, "
          f"{'COMMIT' if options.durable else 'NONE'}, {os.cpu_count()} processors; medians of {options.rounds} rounds "
          f"of {options.seconds} s")
    print(f"{'':14}{'steps/s':>9}{'watched':>9}{'kept':>8}{'noise':>8}{'p50 ms':>9}{'watched':>9}{'messages/s':>12}")
    for row in figures:
        print(f"[{row['shape']}]".ljust(14) + f"{row['alone']:9.0f}{row['watched']:9.0f}{row['kept']:8.3f}"
              f"{row['noise']:8.3f}{row['alone_p50_ms']:9.3f}{row['watched_p50_ms']:9.3f}{row['messages_per_s']:12.0f}")
    print(f"\n{'GetStats of ' + str(asked[0]['layers']) + ' layers':28}{'p50 ms':>9}{'p99 ms':>9}{'KB':>9}")
    for row in asked:
        print(f"{row['asked']:28}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}{row['reply_bytes'] / 1e3:9.0f}")
    print()
    targets = [{"target": f"[{row['shape']}]: steps a second kept, at least", "limit": KEPT,
                "measured": round(row["kept"], 3), "holds": row["kept"] >= KEPT} for row in figures]  # fmt: skip
    targets += [{"target": f"GetStats, {row['asked']}: p50 ms, at most", "limit": STATS_MS,
                 "measured": round(row["p50_ms"], 2), "holds": row["p50_ms"] <= STATS_MS} for row in asked]  # fmt: skip
    for target in targets:
        print(f"{'holds ' if target['holds'] else 'MISSED'} {target['target']} {target['limit']}: {target['measured']}")
    print(json.dumps({"engine": options.engine, "durable": options.durable, "watchers": options.watchers,
                      "rounds": options.rounds, "seconds": options.seconds, "watching": figures, "stats": asked,
                      "targets": targets}))  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the built watch_bench, beside normserve-server")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each shape (default 9)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each figure of a round (default 1)")
    parser.add_argument("--watchers", type=int, default=100, help="how many watch (default 100)")
    parser.add_argument("--engine", choices=("vulkan", "reference"), default="vulkan", help="of the server")
    parser.add_argument("--durable", action="store_true", help="keep sessions in a data directory, durability COMMIT")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds <= 0 or options.watchers < 1:
        parser.error("rounds and watchers are 1 or more, seconds more than 0")
    options.program = os.path.abspath(options.program)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped
    with tempfile.TemporaryDirectory(prefix="watch-", dir=os.path.dirname(os.path.dirname(options.program))) as folder:
        server, address = serve(options, folder)
        try:
            figures = [measure(options, address, shape) for shape in SHAPES]
            asked = Part(options, address, "stats").end()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    report(options, figures, asked)


if __name__ == "__main__":
    main()
