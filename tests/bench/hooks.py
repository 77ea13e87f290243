#!/usr/bin/python3
"""What normserve.torch.hooks costs a training step of PyTorch: paired, interleaved, against a real server on this machine.

The network is the ResNet-20 of He et al. 2015 (section 4.2) on batches [128, 3, 32, 32] of noise: 21 batch norms, 0.27
million parameters, trained by SGD with momentum. A round runs blocks of as many steps without hooks, with the default
hooks (every 10th step), with every step's, and without again, in an order that changes from round to round; a block is
compared with the mean of its round's two without, and what those differ by is the noise. What is sent after a block is
sent outside its time, what is sent during it inside.

Prints a table and whether the target holds, and as its last line the same figures as JSON.
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

TARGET = 0.03
DEFAULT = 10
ARMS = {"without": None, f"every {DEFAULT}th step": DEFAULT, "every step": 1, "without again": None}


def start_server(program, folder):
    port_file = os.path.join(folder, "address")
    with open(os.path.join(folder, "log"), "wb") as log:
        server = subprocess.Popen(
            [program, "--engine", "reference", "--listen", "127.0.0.1:0", "--port-file", port_file, "--data-dir",
             os.path.join(folder, "data")], stdout=log, stderr=log)  # fmt: skip
    while not (os.path.exists(port_file) and os.path.getsize(port_file)):
        if server.poll() is not None:
            sys.exit("hooks.py: the server stopped before it listened")
        time.sleep(0.05)
    with open(port_file, encoding="utf-8") as text:
        return server, text.readline().strip()


def resnet20():
    import torch.nn.functional as functional
    from torch import nn

    class Block(nn.Module):
        def __init__(self, channels_in, channels):
            super().__init__()
            self.conv1 = nn.Conv2d(channels_in, channels, 3, 1 + (channels != channels_in), 1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)
            self.shortcut = nn.Sequential()
            if channels != channels_in:
                self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, 2, bias=False), nn.BatchNorm2d(channels))

        def forward(self, x):
            return functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))

    blocks = [Block(before, after) for before, after in ((16, 16), (16, 16), (16, 16), (16, 32), (32, 32), (32, 32),
                                                         (32, 64), (64, 64), (64, 64))]  # fmt: skip
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))  # fmt: skip


def measure(client, steps, rounds):
    """{arm: seconds a step, one a round}, and what the hooks sent and dropped."""
    import normserve.torch
    import torch
    import torch.nn.functional as functional

    torch.manual_seed(1)
    network = resnet20().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    x, labels = torch.randn(128, 3, 32, 32), torch.randint(0, 10, (128,))

    def train(count):
        begin = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad()
            functional.cross_entropy(network(x), labels).backward()
            optimizer.step()
        return (time.perf_counter() - begin) / count

    normserve.torch.push(network, client, "bench")
    train(steps)
    seconds = {arm: [] for arm in ARMS}
    sent = dropped = errors = 0
    for number in range(rounds):
        order = list(ARMS)
        order = order[number % len(order):] + order[:number % len(order)]
        for arm in order:
            if ARMS[arm] is None:
                seconds[arm].append(train(steps))
                continue
            with normserve.torch.hooks(network, client, "bench", every=ARMS[arm]) as sending:
                seconds[arm].append(train(steps))
            sent, dropped, errors = sent + sending.sent, dropped + sending.dropped, errors + sending.errors
    return seconds, {"steps_sent": sent, "steps_dropped": dropped, "errors": errors}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="where the benchmarks' programs lie: build/bench/bin/hooks_bench")
    parser.add_argument("--steps", type=int, default=20, help="of a block; a multiple of 10. Default 20")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if options.steps < DEFAULT or options.steps % DEFAULT or options.rounds < 1:
        parser.error("--steps is a multiple of 10, and --rounds 1 or more")
    programs = os.path.dirname(os.path.abspath(options.program))
    sys.path.insert(0, os.path.join(os.path.dirname(programs), "python"))
    import normserve
    import torch

    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    with tempfile.TemporaryDirectory() as folder:
        server, address = start_server(os.path.join(programs, "normserve-server"), folder)
        try:
            with normserve.Client(address) as client:
                seconds, counts = measure(client, options.steps, options.rounds)
        finally:
            server.terminate()
            server.wait()

    plain = [(first + again) / 2 for first, again in zip(seconds["without"], seconds["without again"], strict=True)]
    noise = statistics.median(
        abs(first - again) / mean
        for first, again, mean in zip(seconds["without"], seconds["without again"], plain, strict=True)
    )
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, ResNet-20, batch [128, 3, 32, 32], "
          f"{options.rounds} rounds of {options.steps} steps")  # fmt: skip
    figures = {"network": "ResNet-20", "batch": [128, 3, 32, 32], "threads": torch.get_num_threads(),
               "steps": options.steps, "rounds": options.rounds, "noise": noise, **counts}  # fmt: skip
    for arm, times in seconds.items():
        cost = statistics.median(time_of / mean - 1 for time_of, mean in zip(times, plain, strict=True))
        print(f"  {arm:18} {1000 * statistics.median(times):8.1f} ms a step   {100 * cost:+6.2f} %")
        figures[arm.replace(" ", "_")] = {"ms": 1000 * statistics.median(times), "cost": cost}
    cost = figures[f"every_{DEFAULT}th_step"]["cost"]
    print(f"  noise {100 * noise:.2f} %; {counts}")
    print(f"The default hooks cost {100 * cost:.2f} % of a step, under {100 * TARGET:.0f} % is the target: "
          f"{'met' if cost < TARGET else 'missed'}")  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
