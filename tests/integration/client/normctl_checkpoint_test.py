"""normctl import and export over a real server, with checkpoints of another implementation."""

import json
import os
import pathlib
import subprocess
import tempfile

import model_shapes
import numpy as np
import safetensors_file
from server_process import ServerTestCase, unittest

NORMCTL = os.environ["NORMCTL"]
DONE, FAILED, USAGE = 0, 1, 2


class Checkpoints(ServerTestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def run_normctl(self, *arguments):
        return subprocess.run([NORMCTL, "--server", self.server.address, *map(str, arguments)], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=100)  # fmt: skip

    def normctl(self, *arguments):
        """stdout of a command that must do what it is told."""
        done = self.run_normctl(*arguments)
        self.assertEqual((done.returncode, done.stderr), (DONE, ""), arguments)
        return done.stdout

    def refused(self, *arguments, status=FAILED):
        """stderr of a command that must fail."""
        done = self.run_normctl(*arguments)
        self.assertEqual((done.returncode, done.stdout), (status, ""), arguments)
        return done.stderr

    def save(self, name, state):
        path = self.folder / name
        path.write_bytes(safetensors_file.write(state, {"format": "pt"}))
        return path

    def test_a_model_goes_in_and_back_into_its_checkpoint(self):
        state = model_shapes.mobilenet_v2()
        for name in list(state):
            if name.startswith("features.4.") and state[name].dtype.kind == "f":
                state[name] = safetensors_file.bfloat16(state[name])
            elif name.startswith("features.5."):
                state[name] = state[name].astype("f2") if state[name].dtype.kind == "f" else state[name].reshape(1)
        path = self.save("mobilenet.safetensors", state)
        text = self.normctl("import", "mobilenet/", path)
        self.assertEqual(len(text.splitlines()), 53)
        self.assertIn("52 batch-norm layers: 52 created, 0 replaced, 0 skipped", text)
        self.normctl("export", "mobilenet/", "--into", path, "-o", self.folder / "same")
        self.assertEqual((self.folder / "same").read_bytes(), path.read_bytes())
        result = json.loads(self.normctl("--json", "export", "mobilenet/", "-o", self.folder / "alone"))
        self.assertEqual((len(result["layers"]), result["largest_relative_error"]), (52, 0))
        alone = safetensors_file.read((self.folder / "alone").read_bytes())
        self.assertEqual(len(alone), 52 * 5)
        name = "features.0.1.running_var"
        self.assertEqual(alone[name].tobytes(), state[name].tobytes())

    def test_options(self):
        path = self.save("bn.safetensors", {"net.bn." + leaf: np.float32([1, 2]) for leaf in ("running_mean", "running_var")})
        result = json.loads(self.normctl("--json", "import", "options/", path, "--prefix", "net", "--epsilon", "0.25", "--mode",
                                         "train", "--label", "a=b"))  # fmt: skip
        self.assertEqual([(layer["name"], layer["action"]) for layer in result["layers"]], [("options/bn", "created")])
        session = json.loads(self.normctl("--json", "show", "options/bn"))
        self.assertEqual((session["epsilon"], session["mode"], session["labels"]), (0.25, "TRAIN", {"a": "b"}))
        self.assertIn("is open already", self.refused("import", "options/", path, "--prefix", "net"))
        for existing in ("replace", "skip"):
            self.assertIn(f"1 {existing}", self.normctl("import", "options/", path, "--prefix", "net", "--existing", existing)
                          .replace("replaced", "replace").replace("skipped", "skip"))  # fmt: skip
        self.normctl("export", "options/bn", "--folded", "--prefix", "net.bn", "-o", self.folder / "folded")
        self.assertEqual(sorted(safetensors_file.read((self.folder / "folded").read_bytes())), ["net.bn.scale", "net.bn.shift"])

    def test_what_cannot_be_done_is_said_and_leaves_no_file(self):
        bad = self.folder / "bad"
        bad.write_bytes(b"no checkpoint at all")
        self.assertIn("is no checkpoint", self.refused("import", "bad/", bad))
        self.assertIn("cannot read", self.refused("import", "bad/", self.folder / "none"))
        self.assertIn("none/", self.refused("export", "none/", "-o", self.folder / "out"))
        self.normctl("create", "bad/bn", "--num-features", "1")
        self.assertIn("no safetensors file", self.refused("export", "bad/", "--into", bad, "-o", self.folder / "out"))
        other = self.save("other", {"x.running_mean": np.float32([0])})
        self.assertIn('no tensor "bn.running_mean"', self.refused("export", "bad/", "--into", other, "-o", self.folder / "out"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["bad", "other"])
        self.refused("import", "bad/", bad, "--existing", "merge", status=USAGE)


if __name__ == "__main__":
    unittest.main()
