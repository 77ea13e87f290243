"""The installed C++ library is enough for a program outside this tree: find_package, build, run against a server."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from server_process import ServerProcess

CMAKE = os.environ["CMAKE"]
BUILD = os.environ["NORMSERVE_BUILD"]
SOURCE = pathlib.Path(os.environ["NORMSERVE_SOURCE"])
CONSUMER = pathlib.Path(__file__).parent / "consumer"


def run(*command):
    """The command's output; an error that holds it all if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}")
    return done.stdout


class InstalledPackage(unittest.TestCase):
    def test_a_program_outside_the_tree_builds_with_find_package_and_runs(self):
        with tempfile.TemporaryDirectory() as scratch:
            prefix, build = f"{scratch}/prefix", f"{scratch}/build"
            run(CMAKE, "--install", BUILD, "--prefix", prefix, "--component", "library")
            for path in pathlib.Path(prefix).rglob("*"):
                if path.suffix in (".cmake", ".h"):
                    for folder in (str(SOURCE), BUILD):
                        self.assertNotIn(folder, path.read_text(), f"{path.name} names a folder of the build")
            run(CMAKE, "-G", "Ninja", "-S", str(CONSUMER), "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}",
                f"-DTEN_LINES={SOURCE}/client/examples/ten_lines.cc")
            run(CMAKE, "--build", build)
            run(f"{build}/messages")
            with ServerProcess() as server:
                self.assertRegex(run(f"{build}/ten_lines", server.address), r"^59\.3\S* in training, 1\.00\S* in")

    def test_only_what_a_caller_needs_is_installed(self):
        with tempfile.TemporaryDirectory() as prefix:
            run(CMAKE, "--install", BUILD, "--prefix", prefix, "--component", "library")
            headers = {path.name for path in pathlib.Path(prefix, "include/normserve").glob("*.h")}
            self.assertIn("client.h", headers)
            self.assertFalse(headers & {"caller.h", "retry_loop.h", "messages.h", "forward_message.h", "request_id.h"})
            self.assertTrue(pathlib.Path(prefix, "share/normserve/proto/normserve/v1/tensor.proto").exists())

    def test_the_ten_lines_of_python_run_on_the_package_in_the_build_tree(self):
        with ServerProcess() as server:
            done = subprocess.run([sys.executable, "-B", SOURCE / "client/examples/ten_lines.py", server.address],
                                  env={**os.environ, "PYTHONPATH": os.environ["NORMSERVE_STUBS"]}, capture_output=True,
                                  text=True, check=True)
        train, evaluation = re.findall(r"sums to (\S+)", done.stdout)
        self.assertLess(abs(float(train)), 1)
        self.assertAlmostEqual(float(evaluation), 5800, delta=300)


if __name__ == "__main__":
    unittest.main()
