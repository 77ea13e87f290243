#!/usr/bin/python3
"""The engine beside PyTorch: one batch [32, 64, 56, 56], training, evaluation and gradients in every element type and
layout, medians of interleaved rounds.

Prints a table, and as its last line the same figures as JSON. Times are milliseconds a batch.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

SHAPE = (32, 64, 56, 56)
KINDS = ("Train", "Eval", "Backward")
VARIANTS = [f"{data_type} {layout}" for data_type in ("FLOAT32", "FLOAT16", "BFLOAT16") for layout in ("first", "last")]
# Keeps freed memory in the process: what a training loop that was tuned would do.
WARM_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}


def measure_torch(seconds):
    """Times torch.nn.BatchNorm2d in this process; prints {"Train": ms, "Eval": ms, "version": text}."""
    import torch

    torch.manual_seed(1)
    torch.set_num_threads(os.cpu_count())  # its own default may be fewer
    x = torch.randn(*SHAPE)
    figures = {"version": torch.__version__, "threads": torch.get_num_threads()}
    for name in ("Train", "Eval"):
        layer = torch.nn.BatchNorm2d(SHAPE[1])
        layer.train(name == "Train")
        times = []
        with torch.no_grad():
            for _ in range(3):
                layer(x)
            end = time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < 5:
                begin = time.perf_counter()
                layer(x)
                times.append(time.perf_counter() - begin)
        figures[name] = statistics.median(times) * 1e3
    layer = torch.nn.BatchNorm2d(SHAPE[1])
    x = x.requires_grad_()
    y, g = layer(x), torch.randn(*SHAPE)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        begin = time.perf_counter()
        torch.autograd.grad(y, (x, layer.weight, layer.bias), g, retain_graph=True)
        times.append(time.perf_counter() - begin)
    figures["Backward"] = statistics.median(times) * 1e3
    print(json.dumps(figures))


def run_json(command, environment=None):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **(environment or {})})
    if result.returncode != 0:
        sys.exit(f"engine.py: {' '.join(command)} failed:\n{result.stderr}")
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", help="the built engine_bench")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each measuring everything once (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each figure of a round (default 1)")
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch:
        return measure_torch(options.seconds)
    if options.program is None or options.rounds < 1:
        parser.error("run it as ./dev bench engine [--rounds N] [--seconds S]; rounds is 1 or more")

    rounds = []
    context = torch = None
    for index in range(options.rounds):
        print(f"round {index + 1} of {options.rounds}", file=sys.stderr)
        report = run_json([options.program, "--benchmark_format=json",
                           f"--benchmark_min_time={options.seconds}"])
        context = report["context"]
        figures = {f"engine {b['name'].split('/')[0]}": b["real_time"] for b in report["benchmarks"]}
        own = [sys.executable, __file__, "--torch", "--seconds", str(options.seconds)]
        for label, environment in (("torch", None), ("torch warm", WARM_ALLOCATOR)):
            torch = run_json(own, environment)
            figures.update({f"{label} {name}": torch[name] for name in ("Train", "Eval", "Backward")})
        rounds.append(figures)

    median = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
    gigabytes = 4e-9 * SHAPE[0] * SHAPE[1] * SHAPE[2] * SHAPE[3]
    for kind in KINDS:
        for figures in rounds:
            figures[f"engine {kind}"] = figures[f"engine {kind} FLOAT32 first"]
        median[f"engine {kind}"] = median[f"engine {kind} FLOAT32 first"]
    rows = []
    for kind in KINDS:
        rows += [(f"normserve engine, {kind.lower()}", f"engine {kind}"), (f"PyTorch, {kind.lower()}", f"torch {kind}"),
                 (f"PyTorch, {kind.lower()}, memory kept", f"torch warm {kind}")]
    rows.append(("copy shader", "engine CopyShader"))
    for kind in KINDS:
        rows += [(f"{kind.lower()}, {variant}", f"engine {kind} {variant}") for variant in VARIANTS[1:]]
    print(f"\n{list(SHAPE)} float32 on {context['device']}, {context['num_cpus']} processors; "
          f"PyTorch {torch['version']}, {torch['threads']} threads")
    print(f"{'':32}{'median ms':>10}{'min':>9}{'max':>9}")
    for label, name in rows:
        values = [figures[name] for figures in rounds]
        print(f"{label:32}{median[name]:10.2f}{min(values):9.2f}{max(values):9.2f}")
    # Paired within a round, so that a slow spell of the machine hits both sides.
    ratio = {name: statistics.median(f[f"engine {name}"] / f[f"torch {name}"] for f in rounds)
             for name in KINDS}
    warm = {name: statistics.median(f[f"engine {name}"] / f[f"torch warm {name}"] for f in rounds)
            for name in KINDS}
    print(f"engine / PyTorch: train {ratio['Train']:.2f} ({warm['Train']:.2f} with memory kept), "
          f"eval {ratio['Eval']:.2f} ({warm['Eval']:.2f}), backward {ratio['Backward']:.2f} ({warm['Backward']:.2f})")
    print(json.dumps({
        "shape": SHAPE, "device": context["device"], "torch": torch["version"], "rounds": options.rounds,
        "train_ms": median["engine Train"], "eval_ms": median["engine Eval"],
        "torch_train_ms": median["torch Train"], "torch_eval_ms": median["torch Eval"],
        "torch_kept_train_ms": median["torch warm Train"], "torch_kept_eval_ms": median["torch warm Eval"],
        "train_over_torch": ratio["Train"], "eval_over_torch": ratio["Eval"],
        "train_over_torch_kept": warm["Train"], "eval_over_torch_kept": warm["Eval"],
        "backward_ms": median["engine Backward"], "torch_backward_ms": median["torch Backward"],
        "backward_over_torch": ratio["Backward"], "backward_over_torch_kept": warm["Backward"],
        "variants_ms": {f"{kind} {variant}": median[f"engine {kind} {variant}"] for kind in KINDS for variant in VARIANTS},
        "copy_shader_ms": median["engine CopyShader"],
        "copy_shader_gb_per_s": 2 * gigabytes / median["engine CopyShader"] * 1e3,
    }))


if __name__ == "__main__":
    main()
