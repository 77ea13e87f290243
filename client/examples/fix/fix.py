#!/usr/bin/python3
"""A network that saw well sees badly through a new camera; its batch norms are found out and put right, without labels.

    ./dev demo fix [--json] [--seed N]

A small ResNet is trained here on pictures made here. Then the camera changes. What the layers are fed goes to a server as
moments; normctl, another program, asks the server which layers suffer, and why; in the midst of the calibration that
follows the server is killed and started again. Afterwards the network is compared with a copy of itself whose statistics
PyTorch has estimated from the same batches.
"""

import argparse
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import normserve
import normserve.torch
import torch
from network import Network, accuracy, outputs, pictures, through_the_new_camera, train

MODEL = "camera"  # of the sessions
TEST, CALIBRATION = 2000, 1024  # pictures
EPOCHS = 6
BATCH = 64


class Server:
    """normserve-server on a data directory; killed and started again at the same address. Ends with the `with`."""

    def __init__(self, programs):
        self._program = os.path.join(programs, "normserve-server")
        self._process = None
        self.address = "127.0.0.1:0"

    def __enter__(self):
        self._scratch = tempfile.TemporaryDirectory()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._scratch.cleanup()

    def kill_and_start_again(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._start()

    def _start(self):
        folder = self._scratch.name
        port_file, log = os.path.join(folder, "address"), os.path.join(folder, "log")
        if os.path.exists(port_file):
            os.remove(port_file)
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [self._program, "--listen", self.address, "--port-file", port_file, "--data-dir", folder + "/data"],
                stdout=output, stderr=output)  # fmt: skip
        deadline = time.monotonic() + 60
        while not (os.path.exists(port_file) and os.path.getsize(port_file)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                with open(log, encoding="utf-8", errors="replace") as text:
                    sys.exit(f"the server does not listen; its log:\n{text.read()}")
            time.sleep(0.05)
        with open(port_file, encoding="utf-8") as text:
            self.address = text.readline().strip()


def say(text=""):
    print(text, flush=True)


def batches(images):
    return list(images.split(BATCH))


def estimated_by_pytorch(network, loader):
    """A copy whose running statistics PyTorch estimates: a cumulative average over the batches, in training mode."""
    network = copy.deepcopy(network)
    for _, layer in normserve.torch.batch_norm_layers(network):
        layer.reset_running_stats()
        layer.momentum = None
    network.train()
    with torch.no_grad():
        for batch in loader:
            network(batch)
    return network


def largest_difference(ours, theirs):
    """Of the running statistics of all layers: means in standard deviations, variances relative."""
    mean = variance = 0.0
    for (_, our), (_, their) in zip(
        normserve.torch.batch_norm_layers(ours), normserve.torch.batch_norm_layers(theirs), strict=True
    ):
        spread = their.running_var.double()
        mean = max(mean, ((our.running_mean - their.running_mean).double().abs() / spread.sqrt()).max().item())
        variance = max(variance, ((our.running_var - their.running_var).double().abs() / spread).max().item())
    return mean, variance


def tell(programs, seed, training):
    """Runs the story; returns its figures."""
    begin = time.monotonic()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    images, labels = pictures(training, generator)
    test, test_labels = pictures(TEST, generator)
    network = Network()
    count = sum(parameter.numel() for parameter in network.parameters())
    say(f"1. A ResNet of {count:,} parameters learns ten shapes from {training:,} pictures, seed {seed}.\n")

    with Server(programs) as server, normserve.Client(server.address) as client:
        with normserve.torch.hooks(network, client, MODEL) as sending:
            train(network, images, labels, generator, epochs=EPOCHS, batch_size=BATCH,
                  progress=lambda epoch: print(f"   epoch {epoch} of {EPOCHS}", file=sys.stderr))  # fmt: skip
        say(f"   Hooks sent the moments of {sending.sent} training steps on the side; {sending.dropped} were dropped.")
        network.eval()
        normserve.torch.push(network, client, MODEL)
        reference = batches(pictures(CALIBRATION, generator)[0])
        normserve.torch.push_moments(network, reference, client, MODEL, reset=True)
        say(f"   Moments of {CALIBRATION:,} more pictures, without labels, are kept: what the layers see through the old camera.")
        before = accuracy(network, test, test_labels)
        drifted = through_the_new_camera(test, generator)
        after = accuracy(network, drifted, test_labels)
        say(f"\n   Of {TEST:,} new pictures it gets right          {before:5.1f} %\n")
        say("2. The camera is replaced: less light, a warm filter, a black that is none, a little noise.\n")
        say(f"   Of the same pictures through the new camera  {after:5.1f} %\n")

        unlabelled = batches(through_the_new_camera(pictures(CALIBRATION, generator)[0], generator))
        say(f"3. Moments of {CALIBRATION:,} pictures of the new camera, without labels, go to the server. normctl asks it:\n")
        normserve.torch.push_moments(network, unlabelled, client, MODEL, reset=True)
        ask = [os.path.join(programs, "normctl"), "--server", server.address, "diagnose", MODEL + "/", "--observed"]
        say("   $ " + " ".join(["normctl", *ask[3:]]))
        text = subprocess.run(ask, check=True, capture_output=True, text=True).stdout
        say("".join(f"   {line}\n" for line in text.splitlines()))
        worst = json.loads(subprocess.run([*ask, "--json"], check=True, capture_output=True, text=True).stdout)[0]

        say("4. Calibration, from the same pictures. Half way the server is killed with -9 and started again.\n")
        killed = []

        def killing(loader):
            for number, batch in enumerate(loader):
                if number == len(loader) // 2:
                    server.kill_and_start_again()
                    killed.append(number)
                yield batch

        normserve.torch.calibrate(network, killing(unlabelled), client, MODEL, estimator="algorithm_2")
        fixed = accuracy(network, drifted, test_labels)
        say(f"   Killed after {killed[0]} of {len(unlabelled)} batches; nothing was lost.")
        say(f"   The same pictures through the new camera     {fixed:5.1f} %\n")

        local = estimated_by_pytorch(network, unlabelled)
        mean, variance = largest_difference(network, local)
        logits = (outputs(network, drifted) - outputs(local, drifted)).abs().max().item()
        theirs = accuracy(local, drifted, test_labels)
        say("5. The same done by PyTorch alone, in this process, from the same batches:\n")
        say(f"   The same pictures through the new camera     {theirs:5.1f} %")
        say(f"   Largest difference: of a running mean {mean:.1e} standard deviations, of a running variance {variance:.1e}")
        say(f"   of itself, of an output {logits:.1e}.\n")
    share = (fixed - after) / (before - after) if before > after else 0.0
    say(f"{before - after:.0f} points were lost, {fixed - after:.0f} came back ({100 * share:.0f} %), in "
        f"{time.monotonic() - begin:.0f} s.")  # fmt: skip
    return {
        "seed": seed,
        "accuracy_before": before,
        "accuracy_drifted": after,
        "accuracy_calibrated": fixed,
        "accuracy_pytorch": theirs,
        "recovered_share": share,
        "worst_layer": worst["name"],
        "worst_verdict": worst["verdict"],
        "worst_cause": max(worst["causes"], key=lambda each: each["share"])["cause"],
        "steps_sent": sending.sent,
        "steps_dropped": sending.dropped,
        "mean_difference": mean,
        "variance_difference": variance,
        "output_difference": logits,
        "seconds": time.monotonic() - begin,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, help="folder of normserve-server and normctl")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON on the last line")
    parser.add_argument("--seed", type=int, default=0, help="of pictures, network and training; default 0")
    parser.add_argument("--training", type=int, default=8000, help="pictures to train on; default 8000")
    options = parser.parse_args()
    # So that the server is stopped on every way out.
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda signum, _: sys.exit(128 + signum))
    try:
        figures = tell(options.programs, options.seed, options.training)
    except KeyboardInterrupt:
        sys.exit(130)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
