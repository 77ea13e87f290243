"""The story of ./dev demo fix, with the built programs and fewer pictures: a network is found out and put right."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

PROGRAMS = os.path.dirname(os.environ["NORMSERVE_SERVER_PROGRAM"])
FIX = os.path.join(os.environ["NORMSERVE_SOURCE"], "client", "examples", "fix", "fix.py")
DEADLINE_SECONDS = 60  # for what should take a few


def command(*arguments):
    return [sys.executable, "-B", FIX, "--programs", PROGRAMS, *arguments]


ENVIRONMENT = {**os.environ, "NORMSERVE_ENGINE": os.environ["NORMSERVE_TEST_ENGINE"]}


class FixDemo(unittest.TestCase):
    def test_what_the_camera_took_comes_back_as_pytorch_alone_would_bring_it(self):
        done = subprocess.run(command("--json", "--training", "4096"), env=ENVIRONMENT, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        told = json.loads(done.stdout.splitlines()[-1])
        lost = told["accuracy_before"] - told["accuracy_drifted"]
        self.assertGreater(lost, 30, told)
        self.assertGreater(told["accuracy_calibrated"] - told["accuracy_drifted"], lost / 2, told)
        self.assertEqual((told["worst_layer"], told["worst_verdict"]), ("camera/bn1", "TRAIN_EVAL_GAP"), "where the camera comes in")
        self.assertEqual(told["worst_cause"], "DATA_SHIFT", "the old camera's moments are the reference")
        self.assertLess(told["mean_difference"], 1e-5)
        self.assertLess(told["variance_difference"], 1e-5)
        self.assertLess(told["output_difference"], 1e-3)
        self.assertGreater(told["steps_sent"], 0)
        self.assertIn("killed", done.stdout)

    def test_interrupted_it_leaves_no_process_behind(self):
        with subprocess.Popen(
            command("--training", "100000"), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True) as story:  # fmt: skip
            children = pathlib.Path(f"/proc/{story.pid}/task/{story.pid}/children")
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not (server := children.read_text(encoding="ascii").split()):
                self.assertLess(time.monotonic(), deadline, "it started no server")
                self.assertIsNone(story.poll())
                time.sleep(0.05)
            os.killpg(story.pid, signal.SIGINT)  # as the terminal does for Ctrl-C
            self.assertEqual(story.wait(DEADLINE_SECONDS), 130)
            self.assertRaises(ProcessLookupError, os.kill, int(server[0]), 0)


if __name__ == "__main__":
    unittest.main()
