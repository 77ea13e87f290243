"""pip installs the package from the tree without a network, and what it installs works by itself."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from server_process import ServerProcess

SOURCE = pathlib.Path(os.environ["NORMSERVE_SOURCE"])

PROGRAM = """
import importlib.metadata, sys
import normserve, normserve.v1.batch_norm_service_pb2_grpc
assert normserve.__file__.startswith(sys.argv[2]), normserve.__file__
assert "torch" not in sys.modules
import numpy as np
with normserve.Client(sys.argv[1]) as client:
    assert normserve.__version__ == importlib.metadata.version("normserve") == client.info().version
    bn = client.create(num_features=3)
    print(bn.forward(np.ones((4, 3, 2), np.float32)).num_batches_tracked)
normserve.torch.push
assert "torch" in sys.modules
"""


class Pip(unittest.TestCase):
    @staticmethod
    def run_python(*arguments, **environment):
        # Of the package only what pip installs may be found.
        clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([sys.executable, "-B", *arguments], env={**clean, **environment}, text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            raise AssertionError(f"{arguments}\nended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    @classmethod
    def setUpClass(cls):
        scratch = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.tree, cls.target = scratch / "tree", scratch / "target"
        shutil.copytree(SOURCE / "proto", cls.tree / "proto")
        # Without what an editable install may have left.
        left = shutil.ignore_patterns("v1", "__pycache__", "*.egg-info")
        shutil.copytree(SOURCE / "client/python", cls.tree / "client/python", ignore=left)
        cls.before = cls.files(cls.tree)
        cls.run_python("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check",
                       "--target", cls.target, cls.tree / "client/python")

    @staticmethod
    def files(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def test_what_pip_installs_works_by_itself(self):
        with ServerProcess() as server:
            self.assertEqual(self.run_python("-c", PROGRAM, server.address, self.target, PYTHONPATH=str(self.target)), "1\n")

    def test_everything_and_nothing_else_is_installed_and_the_tree_stays_clean(self):
        sources = {name.removeprefix("client/python/") for name in self.before if name.startswith("client/python/normserve/")}
        messages = {f"normserve/v1/{path.stem}_pb2{kind}.py" for path in (self.tree / "proto").rglob("*.proto")
                    for kind in ("", "_grpc")}  # fmt: skip
        installed = {name for name in self.files(self.target) if ".dist-info/" not in name and not name.endswith(".pyc")}
        self.assertEqual(installed, sources - {"normserve/README.md"} | messages)
        self.assertIn("normserve/py.typed", installed)
        self.assertEqual(self.files(self.tree), self.before)


if __name__ == "__main__":
    unittest.main()
