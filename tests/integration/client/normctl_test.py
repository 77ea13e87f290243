"""normctl over a real server: every command, its JSON, its errors and its exit status."""

import json
import os
import pathlib
import pty
import signal
import struct
import subprocess
import tempfile
import unittest

import numpy as np

from server_process import ServerProcess, ServerTestCase

NORMCTL = os.environ["NORMCTL"]
DONE, FAILED, USAGE = 0, 1, 2
# Nobody listens on port 1, and connecting to it fails at once.
NOBODY = "127.0.0.1:1"


def run(*arguments, environment=None):
    variables = {key: value for key, value in os.environ.items() if not key.startswith("NORMSERVE_")}
    variables.update(environment or {})
    return subprocess.run([NORMCTL, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                          timeout=100, env=variables)


class Normctl(ServerTestCase):
    def setUp(self):
        scratch = self.enterContext(tempfile.TemporaryDirectory())
        self.folder = pathlib.Path(scratch)

    def path(self, name):
        return str(self.folder / name)

    def save(self, name, values):
        path = self.path(name)
        np.save(path, values)
        return path

    def normctl(self, *arguments):
        """stdout of a command that must do what it is told."""
        done = run("--server", self.server.address, *arguments)
        self.assertEqual((done.returncode, done.stderr), (DONE, ""), arguments)
        return done.stdout

    def normctl_with_progress(self, parts, *arguments):
        """The same of a command that sends several parts, and says on stderr how far it is."""
        done = run("--server", self.server.address, *arguments)
        self.assertEqual((done.returncode, done.stderr.splitlines()[-1]), (DONE, f"{parts} of {parts} parts"), arguments)
        return done.stdout

    def normctl_json(self, *arguments):
        text = self.normctl("--json", *arguments)
        self.assertEqual(text.count("\n"), 1, "one line of JSON")
        return json.loads(text)

    def refused(self, *arguments, status=FAILED):
        """stderr of a command that must fail."""
        done = run("--server", self.server.address, *arguments)
        self.assertEqual((done.returncode, done.stdout), (status, ""), arguments)
        return done.stderr

    def test_create_starts_as_batch_norm_2d_does(self):
        self.assertEqual(self.normctl("create", "create/a", "--num-features", "3"), "create/a\n")
        session = self.normctl_json("show", "create/a")
        self.assertEqual((session["epsilon"], session["momentum"], session["mode"]), (1e-5, 0.1, "TRAIN"))
        self.assertEqual((session["generation"], session["num_batches_tracked"]), (0, 0))
        self.assertEqual((session["weight"], session["bias"]), ([1, 1, 1], [0, 0, 0]))
        self.assertEqual((session["running_mean"], session["running_var"]), ([0, 0, 0], [1, 1, 1]))

    def test_create_takes_every_part_of_the_first_state(self):
        session = self.normctl_json(
            "create", "create/b", "--num-features", "2", "--epsilon", "0.001", "--momentum", "-0.5", "--mode", "eval",
            "--weight", self.save("w.npy", np.array([2, 3], "<f4")), "--bias", self.save("b.npy", np.array([4, 5], "<f4")),
            "--running-mean", self.save("m.npy", np.array([0.1, 0.2], "<f8")),
            "--running-var", self.save("v.npy", np.array([7, 8], "<f4")))
        self.assertEqual((session["epsilon"], session["momentum"], session["mode"]), (0.001, -0.5, "EVAL"))
        self.assertEqual((session["weight"], session["bias"]), ([2, 3], [4, 5]))
        self.assertEqual((session["running_mean"], session["running_var"]), ([0.1, 0.2], [7, 8]))

    def test_a_name_is_made_where_none_is_given(self):
        name = self.normctl("create", "--num-features", "1").strip()
        self.assertEqual(self.normctl_json("show", name)["name"], name)

    def test_list_shows_what_is_under_the_prefix_in_order(self):
        for name in ("list/b", "list/a", "list2/c"):
            self.normctl("create", name, "--num-features", "4")
        self.assertEqual([session["name"] for session in self.normctl_json("list", "list/")], ["list/a", "list/b"])
        lines = self.normctl("list", "list").splitlines()
        self.assertEqual([line.split()[-1] for line in lines], ["name", "list/a", "list/b"])
        self.assertEqual(self.normctl("list", "list/nothing"), "no sessions under list/nothing\n")

    def test_durability_labels_and_snapshots_are_shown_wherever_a_session_is(self):
        labels = ("--label", "team=vision", "--label", "run=7 b")
        created = self.normctl_json("create", "shown/labelled", "--num-features", "1", *labels)
        for session in (created, self.normctl_json("show", "shown/labelled"), self.normctl_json("list", "shown")[0]):
            self.assertEqual((session["durability"], session["num_snapshots"]), ("NONE", 0))
            self.assertEqual(session["labels"], {"run": "7 b", "team": "vision"})
        text = self.normctl("show", "shown/labelled")
        self.assertRegex(text, r"(?m)^durability +NONE$")
        self.assertRegex(text, r"(?m)^labels +run=7 b, team=vision$")
        self.assertRegex(text, r"(?m)^snapshots +0$")

        self.normctl("create", "shown/plain", "--num-features", "1")
        self.assertEqual(self.normctl_json("show", "shown/plain")["labels"], {})
        self.assertRegex(self.normctl("show", "shown/plain"), r"(?m)^labels +none$")
        title, labelled, plain = self.normctl("list", "shown").splitlines()
        self.assertEqual(title.split()[-4:], ["durability", "snapshots", "name", "labels"])
        self.assertRegex(labelled, r" NONE +0  shown/labelled  run=7 b, team=vision$")
        self.assertRegex(plain, r" NONE +0  shown/plain$")

    def test_list_shows_what_has_all_the_labels(self):
        for name, labels in (("both", ("team=vision", "run=7")), ("other", ("team=vision", "run=8")), ("none", ())):
            self.normctl("create", f"labels/{name}", "--num-features", "1", *(f"--label={label}" for label in labels))
        for labels, names in ((("team=vision",), ["labels/both", "labels/other"]),
                              (("team=vision", "run=7"), ["labels/both"]), (("team=",), [])):
            filters = [f"--label={label}" for label in labels]
            sessions = self.normctl_json("list", "labels", *filters)
            self.assertEqual([session["name"] for session in sessions], names)
        self.assertEqual(self.normctl("list", "labels", "--label", "team=sound"),
                         "no sessions under labels with team=sound\n")

    def test_a_server_without_a_data_directory_refuses_to_promise_durability(self):
        for level in ("commit", "flush"):
            message = self.refused("create", "durable", "--num-features", "1", "--durability", level)
            self.assertIn("(FAILED_PRECONDITION, DURABILITY_UNAVAILABLE)", message)
        self.assertEqual(self.normctl("list", "durable"), "no sessions under durable\n")
        session = self.normctl_json("create", "durable", "--num-features", "1", "--durability", "none")
        self.assertEqual(session["durability"], "NONE")
        self.assertEqual(self.normctl_json("info")["default_durability"], "NONE")
        self.assertRegex(self.normctl("info"), r"(?m)^durability NONE by default$")

    def test_a_server_with_a_data_directory_gives_the_level_that_is_asked_for(self):
        path = self.save("x.npy", np.arange(4, dtype="<f4").reshape(4, 1))
        data = self.folder / "data"
        data.mkdir()
        with ServerProcess(flags=["--data-dir", str(data)]) as server:
            for arguments, level in (((), "COMMIT"), (("--durability", "none"), "NONE"),
                                     (("--durability", "commit"), "COMMIT"), (("--durability", "flush"), "FLUSH")):
                done = run("create", "--num-features", "1", *arguments, "--json", "--server", server.address)
                self.assertEqual((done.returncode, done.stderr), (DONE, ""), arguments)
                session = json.loads(done.stdout)
                self.assertEqual(session["durability"], level)
                done = run("forward", session["name"], "--input", path, "--json", "--server", server.address)
                self.assertEqual(json.loads(done.stdout)["durability"], level)
            info = json.loads(run("info", "--json", "--server", server.address).stdout)
            self.assertEqual(info["default_durability"], "COMMIT")

    def test_forward_trains_and_evaluates_through_files(self):
        x = np.random.default_rng(1).random((4, 3, 8, 8), dtype="<f4")
        path, output = self.save("x.npy", x), str(self.folder / "y.npy")
        self.normctl("create", "forward", "--num-features", "3")

        text = self.normctl("forward", "forward", "--input", path, "--output", output)
        self.assertRegex(text, r"^\[4, 3, 8, 8\]  sum \S+  mean \S+  normalised with batch  generation 1 \(stat")
        mean, variance = x.mean((0, 2, 3), dtype="f8"), x.var((0, 2, 3), dtype="f8")
        spread = (1, 3, 1, 1)
        y = np.load(output)
        self.assertEqual(y.dtype, np.dtype("<f4"))
        np.testing.assert_allclose(y, (x - mean.reshape(spread)) / np.sqrt(variance.reshape(spread) + 1e-5), 1e-5, 1e-6)

        reply = self.normctl_json("forward", "forward", "--input", path, "--output", output, "--mode", "eval", "--moments")
        self.assertEqual((reply["normalized_with"], reply["updated"], reply["generation"]), ("running", False, 1))
        self.assertEqual(reply["batch_moments"]["count"], 256)
        np.testing.assert_allclose(reply["batch_moments"]["mean"], mean, 1e-6)
        np.testing.assert_allclose(np.array(reply["batch_moments"]["m2"]) / 256, variance, 1e-5)
        self.assertAlmostEqual(reply["sum"], np.load(output).sum(dtype="f8"), places=6)

        reply = self.normctl_json("forward", "forward", "--input", path, "--normalize-with", "batch", "--update", "none")
        self.assertEqual((reply["normalized_with"], reply["updated"], reply["generation"]), ("batch", False, 1))
        self.assertIn("unbiased", self.normctl("forward", "forward", "--input", path, "--moments"))

        self.normctl("snapshot", "forward", "here")
        statistics = self.normctl_json("stats", "forward")
        for options, share in (((), 0), (("--batch-weight", "0.25"), 0.25)):
            reply = self.normctl_json("forward", "forward", "--input", path, "--output", output, "--update", "none",
                                      "--snapshot", "here", *options)
            self.assertEqual(reply["normalized_with"], "blend" if share else "snapshot")
            m = (1 - share) * np.array(statistics["running_mean"]) + share * mean
            v = (1 - share) * np.array(statistics["running_var"]) + share * variance
            expected = (x - m.reshape(spread)) / np.sqrt(v.reshape(spread) + 1e-5)
            np.testing.assert_allclose(np.load(output), expected, 1e-5, 1e-5)

    def test_forward_whose_output_cannot_be_written_does_not_train(self):
        path = self.save("x.npy", np.arange(6, dtype="<f4").reshape(2, 3))
        self.normctl("create", "unwritable", "--num-features", "3")
        absent = str(self.folder / "absent" / "y.npy")
        self.assertIn(f"{absent}: cannot be opened", self.refused("forward", "unwritable", "--input", path, "--output", absent))
        self.refused("forward", "unwritable", "--input", path, "--output", str(self.folder))
        self.assertEqual(self.normctl_json("stats", "unwritable")["generation"], 0)

    def test_forward_that_fails_leaves_the_old_output_and_nothing_beside_it(self):
        path = self.save("x.npy", np.zeros((4, 2), "<f4"))
        output = self.folder / "y.npy"
        output.write_text("old")
        self.normctl("create", "old", "--num-features", "3")
        self.assertIn("SHAPE_MISMATCH", self.refused("forward", "old", "--input", path, "--output", str(output)))
        self.assertEqual(output.read_text(), "old")
        self.assertEqual(sorted(file.name for file in self.folder.iterdir()), ["x.npy", "y.npy"])

    def test_forward_writes_to_what_is_no_regular_file(self):
        path = self.save("x.npy", np.arange(6, dtype="<f4").reshape(2, 3))
        self.normctl("create", "device", "--num-features", "3")
        message = self.refused("forward", "device", "--input", path, "--output", "/dev/full")
        self.assertIn("/dev/full: cannot be written", message)
        self.assertIn("the running statistics were updated (generation 1)", message)
        self.normctl("forward", "device", "--input", path, "--output", "/dev/null")
        done = subprocess.run([NORMCTL, "--server", self.server.address, "forward", "device", "--input", path, "--output",
                               "/dev/stdout"], capture_output=True, check=True, timeout=100)
        self.assertTrue(done.stdout.startswith(b"\x93NUMPY"))

    def test_backward_gives_the_gradients_and_changes_nothing(self):
        self.normctl("create", "backward", "--num-features", "3")
        self.normctl("parameters", "backward", "--weight", self.save("w.npy", np.array([2, 1, 0.5], "<f4")))
        generator = np.random.default_rng(4)
        x, dy = generator.standard_normal((2, 4, 3, 5, 5)).astype("<f4")
        before = self.normctl_json("show", "backward")
        self.assertEqual((before["weight"], before["bias"]), ([2, 1, 0.5], [0, 0, 0]))
        paths = ["--input", self.save("x.npy", x), "--grad-output", self.save("dy.npy", dy),
                 "--output", str(self.folder / "dx.npy")]
        found = self.normctl_json("backward", "backward", *paths)
        # By the formula, in double precision.
        x, dy = x.astype(float), dy.astype(float)
        axes, shape = (0, 2, 3), (1, 3, 1, 1)
        scale = 1 / np.sqrt(x.var(axes) + 1e-5).reshape(shape)
        normalised = (x - x.mean(axes).reshape(shape)) * scale
        grad_weight, grad_bias = (dy * normalised).sum(axes), dy.sum(axes)
        dx = (dy - (grad_bias.reshape(shape) + normalised * grad_weight.reshape(shape)) / 100) * scale
        dx *= np.array([2, 1, 0.5]).reshape(shape)
        np.testing.assert_allclose(np.load(self.folder / "dx.npy"), dx, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["grad_weight"], grad_weight, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found["grad_bias"], grad_bias, rtol=1e-5, atol=1e-5)
        table = self.normctl("backward", "backward", *paths, "--mode", "eval").splitlines()
        self.assertEqual(table[2].split(), ["channel", "grad_weight", "grad_bias"])
        evaluated = dy * np.array([2, 1, 0.5]).reshape(shape) / np.sqrt(1 + 1e-5)
        np.testing.assert_allclose(np.load(self.folder / "dx.npy"), evaluated, rtol=1e-6, atol=1e-6)
        self.assertEqual(self.normctl_json("show", "backward"), before)
        self.assertIn("2 channels", self.refused("backward", "backward", "--input", self.save("x.npy", np.ones((4, 2), "<f4")),
                                                 "--grad-output", self.save("dy.npy", np.ones((4, 2), "<f4"))))

    def test_parameters_are_replaced_one_or_both(self):
        self.normctl("create", "parameters", "--num-features", "2")
        w, b = self.save("w.npy", np.array([1, 2], "<f4")), self.save("b.npy", np.array([3, 4], "<f4"))
        self.assertEqual(self.normctl("parameters", "parameters", "--weight", w),
                         "parameters has new parameters, generation 1\n")
        self.assertEqual(self.normctl_json("parameters", "parameters", "--weight", b, "--bias", w)["generation"], 2)
        found = self.normctl_json("show", "parameters")
        self.assertEqual((found["weight"], found["bias"]), ([3, 4], [1, 2]))
        self.assertIn("--weight", self.refused("parameters", "parameters", status=USAGE))
        self.normctl("create", "plain", "--num-features", "2", "--no-affine")
        self.assertIn("affine", self.refused("parameters", "plain", "--bias", b))

    def test_mode_is_what_a_forward_does_by_default(self):
        path = self.save("x.npy", np.zeros((2, 1), "<f4"))
        self.normctl("create", "mode", "--num-features", "1")
        self.assertEqual(self.normctl("mode", "mode", "eval"), "mode is in EVAL, generation 1\n")
        self.assertEqual(self.normctl_json("forward", "mode", "--input", path)["normalized_with"], "running")
        self.assertEqual(self.normctl_json("mode", "mode", "train")["mode"], "TRAIN")
        self.assertEqual(self.normctl_json("forward", "mode", "--input", path)["normalized_with"], "batch")

    def test_stats_is_a_line_a_channel(self):
        self.normctl("create", "stats", "--num-features", "3", "--running-var", self.save("v.npy", np.array([4, 9, 16.0])))
        lines = self.normctl("stats", "stats").splitlines()
        self.assertEqual(lines[0], "stats   mode TRAIN   generation 0   batches 0")
        self.assertEqual(lines[2].split(), ["channel", "running_mean", "running_var", "running_std"])
        self.assertEqual([line.split() for line in lines[3:6]], [["0", "0", "4", "2"], ["1", "0", "9", "3"],
                                                                 ["2", "0", "16", "4"]])
        self.assertEqual(lines[7:9], ["running_mean ▄▄▄", "running_std  ▁▅█"])
        part = self.normctl_json("stats", "stats", "--first", "1", "--count", "1")
        self.assertEqual((part["first_channel"], part["running_var"]), (1, [9]))
        self.assertEqual(self.normctl_json("stats", "stats")["running_var"], [4, 9, 16])

    def test_stats_of_a_model_is_a_line_a_session(self):
        self.normctl("create", "model/b", "--num-features", "2", "--running-var", self.save("v.npy", np.array([4, 9.0])))
        self.normctl("create", "model/a", "--num-features", "3", "--mode", "eval", "--no-running-stats")
        lines = self.normctl("stats", "model/").splitlines()
        self.assertEqual(lines[0].split(),
                         ["drift", "channels", "mode", "batches", "running_mean", "running_std", "running_var", "name"])
        self.assertEqual(lines[2].split(),
                         ["-", "2", "TRAIN", "0", "0", "to", "0", "▁█", "4", "to", "9", "model/b"])
        self.assertEqual([session["name"] for session in self.normctl_json("stats", "model/")], ["model/a", "model/b"])
        self.assertIn("begins with", self.refused("stats", "model/c/"))

    def test_layers_are_ranked_by_drift_and_flags_are_shown(self):
        for name in ("drift/calm", "drift/far", "drift/idle"):
            self.normctl("create", name, "--num-features", "2", "--momentum", "0")
        near = np.random.default_rng(2).standard_normal((500, 2)).astype("<f4")
        self.normctl("forward", "drift/calm", "--input", self.save("near.npy", near))
        self.normctl("forward", "drift/far", "--input", self.save("far.npy", near + 7))
        lines = self.normctl("stats", "drift/", "--by-drift").splitlines()
        self.assertIn("drift/far", lines[1])
        self.assertAlmostEqual(float(lines[1].split()[0]), 7, delta=0.2)
        self.assertIn("drift/calm", lines[2])
        self.assertRegex(lines[3], r"drift/idle +2 NEVER_UPDATED$")
        ranked = self.normctl_json("stats", "drift/", "--by-drift")
        self.assertEqual([layer["name"] for layer in ranked], ["drift/far", "drift/calm", "drift/idle"])
        self.assertEqual(ranked[2]["flags"], {"NEVER_UPDATED": [0, 1]})
        compared = self.normctl("stats", "drift/far", "--compare", "last-batch")
        self.assertIn("mean_z", compared)
        self.assertIn("compared with last_batch: 500 values a channel", compared)
        self.assertEqual(self.normctl_json("stats", "drift/far", "--compare", "shadow")["comparison"]["count"], 0)
        self.assertIn("NEVER_UPDATED: channels 0, 1", self.normctl("stats", "drift/idle"))

    def test_the_history_is_a_line_a_batch(self):
        self.normctl("create", "seen/a", "--num-features", "1")
        self.normctl("create", "seen/b", "--num-features", "1")
        for mean in (3, 8):
            values = np.array([[mean - 1], [mean + 1]], "<f4")
            self.normctl("forward", "seen/a", "--input", self.save("x.npy", values))
        lines = self.normctl("stats", "seen/a", "--history").splitlines()
        self.assertEqual(lines[2].split()[1:6], ["update", "generation", "values", "running_mean", "running_var"])
        # Date, time and UTC come first.
        self.assertEqual([line.split()[3:-1] for line in lines[3:5]],
                         [["1", "1", "2", "0.3", "1.1", "3", "1"], ["2", "2", "2", "1.07", "1.19", "8", "1"]])
        self.assertIn("running_mean ▁█", lines)
        history = self.normctl_json("stats", "seen/a", "--history", "--since", "1h")["history"]
        self.assertEqual([point["batch_mean"]["median"] for point in history], [3, 8])
        self.assertGreater(history[1]["relative_gap"], 1)
        self.assertIn("nothing was seen", self.normctl("stats", "seen/", "--history"))
        self.assertIn("no length of time", self.refused("stats", "seen/a", "--history", "--since", "yesterday", status=USAGE))

    def test_output_that_cannot_be_written_is_a_failure(self):
        self.normctl("create", "full/a", "--num-features", "2")
        for command in (["stats", "full/a"], ["watch", "full/a", "--count", "1"], ["moments", "full/a", "--json"]):
            with open("/dev/full", "wb") as full:
                done = subprocess.run([NORMCTL, "--server", self.server.address, *command], stdin=subprocess.DEVNULL,
                                      stdout=full, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
            self.assertEqual(done.returncode, FAILED, command)
            self.assertIn("standard output", done.stderr)

    def test_files_of_moments_that_are_none_are_refused_by_name(self):
        self.normctl("create", "parts/a", "--num-features", "1")
        path = self.folder / "part.json"
        for text, words in (('{"count": 10.5, "mean": [1], "m2": [2]}', "count is 10.5"), ('{"count": 1, "mean": [1]}', 'no "m2"'),
                            ('{"count": 1, "mean": ["a"], "m2": [0]}', "mean is no list of numbers"),
                            ('{"count": 1, "mean": [NaN], "m2": [0]}', "no NaN"), ("[1]", "is no JSON object"),
                            ('{"count": 2, "mean": [1], "m2": [2], "count": 3}', '"count" twice'),
                            ('{"count": 2, "mean": [1], "m2": [0], "num_samples": "2"}', 'num_samples is "2"'),
                            ('{"count": 2, "mean": [1], "m2": [0], "num_samples": 3}', "moments.num_samples is 3"),
                            ('{"layer": 3}', "layer layer: is no object")):
            path.write_text(text, encoding="utf-8")
            self.assertIn(words, self.refused("observe", "parts/a", str(path)), text)
        self.assertEqual(self.normctl_json("moments", "parts/a")["count"], 0)

    def test_of_several_files_none_is_sent_where_one_cannot_be_read(self):
        self.normctl("create", "several/a", "--num-features", "1")
        files = {"good.json": '{"count": 2, "mean": [1], "m2": [2]}', "bad.json": "[1]",
                 "wide.json": '{"count": 2, "mean": [1, 2], "m2": [2, 2]}'}  # fmt: skip
        for name, text in files.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        good, bad, wide = (str(self.folder / name) for name in files)
        self.assertIn("bad.json", self.refused("observe", "several/a", good, bad))
        self.assertEqual(self.normctl_json("moments", "several/a")["count"], 0)
        self.assertIn("the server has taken the 1 before it", self.refused("observe", "several/a", good, wide))
        self.assertEqual(self.normctl_json("moments", "several/a")["count"], 2)

    def test_what_moments_prints_of_a_model_can_be_observed_whatever_its_layers_are_called(self):
        path = self.folder / "layers.json"
        for layer in ("count", "mean"):
            self.normctl("create", f"named/{layer}", "--num-features", "1")
        path.write_text('{"count": {"count": 2, "mean": [1], "m2": [2]}}', encoding="utf-8")
        self.normctl("observe", "named/", str(path))
        path.write_text(self.normctl("moments", "named/", "--json"), encoding="utf-8")
        self.normctl("observe", "named/", str(path))
        self.assertEqual(self.normctl_json("moments", "named/"), {"count": {"count": 4, "mean": [1], "m2": [4]}})

    def test_two_files_with_one_id_are_refused_before_anything_is_sent(self):
        self.normctl("create", "ids/a", "--num-features", "1")
        for folder in ("one", "two"):
            (self.folder / folder).mkdir()
            (self.folder / folder / "site.json").write_text('{"count": 2, "mean": [1], "m2": [2]}', encoding="utf-8")
        files = [str(self.folder / folder / "site.json") for folder in ("one", "two")]
        self.assertIn('have the same id "site"', self.refused("merge", "ids/a", "round", *files))
        self.assertIn("COLLECTION_NOT_FOUND", self.refused("merge", "ids/a", "round"))
        self.assertEqual(self.normctl_with_progress(2, "merge", "ids/a", "round", files[0], "other=" + files[1]),
                         "ids/a has 2 parts\n")
        self.assertEqual(self.normctl_with_progress(2, "observe", "ids/a", *files), "ids/a has observed 4 values a channel\n")
        self.assertIn("--reset", self.refused("observe", "ids/a", status=USAGE))
        self.normctl("calibrate", "ids/a", "drift", files[0], "--commit", "--to-snapshot", "after")
        self.assertEqual(self.normctl_json("show", "ids/a")["generation"], 0)

    def test_plot_writes_a_picture_of_the_statistics(self):
        self.normctl("create", "plot/a", "--num-features", "3")
        self.normctl("forward", "plot/a", "--input", self.save("x.npy", np.arange(24, dtype="<f4").reshape(8, 3)))
        path = self.folder / "a.png"
        self.normctl("stats", "plot/a", "--plot", str(path))
        picture = path.read_bytes()
        self.assertEqual(picture[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(struct.unpack(">II", picture[16:24]), (1000, 520))
        self.assertNotIn("last_batch", self.normctl("stats", "plot/a", "--plot", str(path)), "which is for the picture")
        self.assertIn("--by-drift ranks a model's", self.refused("stats", "plot/a", "--by-drift"))
        self.assertIn("names a model", self.refused("stats", "plot/", "--plot", str(path)))
        self.assertIn("/nowhere/a.png", self.refused("stats", "plot/a", "--plot", "/nowhere/a.png"))
        self.assertEqual(path.read_bytes(), picture)

    def watch(self, *arguments, **options):
        return subprocess.Popen([NORMCTL, "--server", self.server.address, "watch", *arguments],
                                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)

    def test_watch_prints_a_line_a_change_and_ends_at_an_interrupt(self):
        path = self.save("x.npy", np.arange(8, dtype="<f4").reshape(4, 2))
        for name in ("watched/a", "watched/b"):
            self.normctl("create", name, "--num-features", "2")
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.watch("watched/", stdout=subprocess.PIPE, text=True) as watch:
                first = [watch.stdout.readline() for _ in range(2)]
                self.assertIn("watched/a  generation", first[0])
                self.normctl("forward", "watched/b", "--input", path)
                self.assertIn("watched/b  generation", watch.stdout.readline())
                watch.send_signal(number)
                self.assertEqual(watch.stdout.read(), "")
                self.assertEqual((watch.wait(60), watch.stderr.read()), (DONE, ""))

    def test_watch_ends_after_so_many_and_when_the_session_is_deleted(self):
        self.normctl("create", "watched2/a", "--num-features", "2")
        lines = self.normctl("--json", "watch", "watched2/a", "--interval", "20ms", "--count", "3").splitlines()
        self.assertEqual([json.loads(line)["summary"]["num_features"] for line in lines], [2, 2, 2])
        # Of a model too, changed or not.
        self.normctl("create", "watched2/b", "--num-features", "2")
        for flags in ((), ("--json",)):
            lines = self.normctl(*flags, "watch", "watched2/", "--interval", "20ms", "--count", "3").splitlines()
            self.assertEqual(sum("watched2/b" in line for line in lines), 3, lines)
            self.assertEqual(len(lines), 6)
        with self.watch("watched2/a", stdout=subprocess.PIPE, text=True) as watch:
            watch.stdout.readline()
            self.normctl("delete", "watched2/a")
            self.assertIn("deleted while it was watched", watch.stderr.read())
            self.assertEqual(watch.wait(60), FAILED)

    def test_watch_draws_a_table_anew_on_a_terminal(self):
        path = self.save("x.npy", np.arange(8, dtype="<f4").reshape(4, 2))
        self.normctl("create", "screen/a", "--num-features", "2")
        controller, terminal = pty.openpty()
        with self.watch("screen/", "--count", "2", stdout=terminal) as watch:
            os.close(terminal)
            shown = os.read(controller, 1 << 16)
            self.normctl("forward", "screen/a", "--input", path)
            watch.wait(60)
        try:
            while more := os.read(controller, 1 << 16):
                shown += more
        except OSError:
            pass  # how a terminal says that nobody writes to it any more
        os.close(controller)
        self.assertEqual(shown.count(b"\x1b[H\x1b[J"), 2)
        self.assertIn("screen/a", shown.decode())

    def test_watch_ends_well_when_nobody_reads(self):
        self.normctl("create", "piped/a", "--num-features", "2")
        with self.watch("piped/a", "--interval", "10ms", stdout=subprocess.PIPE) as watch:
            watch.stdout.readline()
            watch.stdout.close()
            self.assertEqual((watch.wait(60), watch.stderr.read()), (DONE, b""))

    def test_diagnose_says_why_and_ranks_a_model(self):
        path = self.save("x.npy", np.random.default_rng(1).random((4, 3, 32, 32)).astype("<f4"))
        for name in ("sick/new", "sick/young"):
            self.normctl("create", name, "--num-features", "3")
        self.normctl("forward", "sick/young", "--input", path)
        text = self.normctl("diagnose", "sick/young")
        self.assertRegex(text, r"^sick/young   TRAIN_EVAL_GAP   generation 1\n")
        self.assertIn("INITIALISATION", text)
        self.assertTrue(all(len(line) <= 78 for line in text.splitlines()), text)
        lines = self.normctl("diagnose", "sick/").splitlines()
        self.assertEqual([lines[1].split()[-1], lines[2].split()[-1]], ["sick/young", "sick/new"])
        worst = self.normctl_json("diagnose", "sick/", "--channels")[0]
        self.assertEqual((worst["verdict"], len(worst["channel_gap_rms"])), ("TRAIN_EVAL_GAP", 3))
        self.assertAlmostEqual(sum(cause["share"] for cause in worst["causes"]), worst["predicted_gap_rms"], 12)
        self.assertIn("does not exist", self.refused("diagnose", "sick/none"))

    def test_moments_go_in_and_out_and_become_the_statistics(self):
        rng = np.random.default_rng(3)
        values = {layer: rng.standard_normal((60, 2)) * 3 + 1 for layer in ("a", "b")}
        for layer in values:
            self.normctl("create", f"flow/{layer}", "--num-features", "2")
        paths = []
        for site in range(3):
            parts = {layer: self.moments(of[site * 20 : site * 20 + 20]) for layer, of in values.items()}
            paths.append(self.path(f"site-{site}.json"))
            pathlib.Path(paths[-1]).write_text(json.dumps(parts))
        self.assertEqual(self.normctl_with_progress(2, "observe", "flow/", paths[0], paths[0], "--once"),
                         "flow/a has observed 20 values a channel\nflow/b has observed 20 values a channel\n")
        batch = self.save("x.npy", values["a"][:8].astype("<f4"))
        self.assertEqual(self.normctl("observe", "flow/a", batch, "--dry-run"),
                         "flow/a would have observed 28 values a channel\n")
        self.assertEqual(self.normctl_json("moments", "flow/"), json.loads(pathlib.Path(paths[0]).read_text()))
        self.assertIn("20 values a channel", self.normctl("moments", "flow/a"))
        self.assertIn("NEVER_UPDATED", self.normctl("diagnose", "flow/a", "--observed"))
        self.assertEqual(self.normctl_json("diagnose", "flow/a", "--on", batch)["batch_count"], 8)
        self.normctl("observe", "flow/b", "--reset")
        self.assertEqual(self.normctl_json("moments", "flow/b", "--source", "observed-before")["count"], 20)

        npz = self.path("site-2.npz")
        np.savez(npz, **{f"{layer}/{key}": value for layer, of in values.items()
                         for key, value in self.moments(of[40:]).items()})
        self.assertEqual(self.normctl_with_progress(3, "merge", "flow/", "round", paths[0], paths[1], npz),
                         "flow/a has 3 parts\nflow/b has 3 parts\n")
        self.assertIn("other data", self.refused("merge", "flow/", "round", f"site-0={paths[1]}"))
        merged = self.normctl_json("merge", "flow/", "round", "--commit")
        for session, of in zip(merged, values.values()):
            np.testing.assert_allclose(session["merged"]["mean"], of.mean(axis=0), rtol=1e-12)
            self.assertEqual(session["merged"]["num_samples"], 60)
        stats = self.normctl_json("stats", "flow/a")
        np.testing.assert_allclose(stats["running_var"], values["a"].var(axis=0, ddof=1), rtol=1e-12)
        self.assertRegex(self.normctl("merge", "flow/", "round"), "flow/a is merged of 3 parts, generation 1;")
        self.assertIn("was committed", self.refused("merge", "flow/", "round", paths[0]))
        self.normctl("merge", "flow/", "other", paths[0])
        self.assertIn('open merge           "other": 1 part, 20 values a channel', self.normctl("show", "flow/a"))
        self.assertEqual(self.normctl_json("show", "flow/a")["open_merges"], [{"id": "other", "num_parts": 1, "count": 20}])
        self.assertIn("flow/a has dropped 1 part", self.normctl("merge", "flow/", "other", "--drop"))

        self.assertEqual(self.normctl("calibrate", "flow/a", "drift", batch), "flow/a has 1 batch\n")
        self.assertRegex(self.normctl("calibrate", "flow/a", "drift", "--commit"),
                         "flow/a is calibrated on 1 batch, generation 2;")
        np.testing.assert_allclose(self.normctl_json("stats", "flow/a")["running_mean"], values["a"][:8].mean(axis=0),
                                   rtol=1e-5)
        self.normctl("calibrate", "flow/", "again", paths[0], "--commit", "--to-snapshot", "population",
                     "--estimator", "algorithm-2")
        self.assertIn("population", self.normctl("snapshots", "flow/b"))
        for text, name in (("{}", "empty.json"), ("[1]", "list.json"), ('{"count": 2}', "short.json"), ("x", "no.npz")):
            path = self.path(name)
            pathlib.Path(path).write_text(text)
            self.assertIn(name, self.refused("observe", "flow/a", path))

    @staticmethod
    def moments(values):
        mean = values.mean(axis=0)
        return {"count": len(values), "mean": mean.tolist(), "m2": ((values - mean) ** 2).sum(axis=0).tolist(),
                "num_samples": len(values)}

    def test_a_model_is_changed_in_one_call(self):
        for name in ("whole/a", "whole/b"):
            self.normctl("create", name, "--num-features", "2")
        self.assertEqual(self.normctl("snapshot", "whole/", "first").count("is kept as first"), 2)
        self.assertEqual(self.normctl("mode", "whole/", "eval").splitlines(),
                         ["whole/a is in EVAL, generation 1", "whole/b is in EVAL, generation 1"])
        self.assertEqual([session["mode"] for session in self.normctl_json("restore", "whole/", "first")], ["TRAIN"] * 2)
        self.normctl("snapshot", "whole/b", "second")
        self.assertEqual([(each["name"], each["snapshot"]) for each in self.normctl_json("snapshots", "whole/")],
                         [("whole/a", "first"), ("whole/b", "first"), ("whole/b", "second")])
        self.assertEqual([line.split()[-2:] for line in self.normctl("snapshots", "whole/").splitlines()[1:]][2],
                         ["whole/b", "second"])
        self.assertEqual(self.normctl("delete-snapshot", "whole/", "first"), "deleted snapshot first of whole/\n")
        self.assertIn("whole/a", self.refused("restore", "whole/", "first"))
        self.assertEqual(self.normctl("delete", "whole/"), "deleted whole/a\ndeleted whole/b\n")
        self.assertIn("whole/", self.refused("delete", "whole/"))
        self.normctl("create", "whole/c", "--num-features", "2")
        self.assertEqual(self.normctl_json("delete", "whole/"), [{"deleted": "whole/c"}])

    def test_clone_is_equal_and_independent(self):
        path = self.save("x.npy", np.arange(6, dtype="<f4").reshape(2, 3))
        self.normctl("create", "clone/a", "--num-features", "3")
        self.normctl("forward", "clone/a", "--input", path)
        self.assertEqual(self.normctl("clone", "clone/a", "clone/b"), "clone/b\n")
        first, copy = self.normctl_json("stats", "clone/a"), self.normctl_json("stats", "clone/b")
        self.assertEqual(first["running_mean"], copy["running_mean"])
        self.assertNotEqual(first["uid"], copy["uid"])
        self.normctl("forward", "clone/a", "--input", path)
        self.assertEqual(self.normctl_json("stats", "clone/b")["running_mean"], copy["running_mean"])
        self.assertEqual(self.normctl_json("clone", "clone/b")["num_batches_tracked"], 1)

    def test_conventions_layouts_and_shadow(self):
        self.normctl("create", "kind/keras", "--num-features", "2", "--convention", "keras", "--no-affine")
        session = self.normctl_json("show", "kind/keras")
        self.assertEqual((session["epsilon"], session["momentum"], session["biased_running_variance"]), (1e-3, 0.01, True))
        self.assertFalse(session["affine"])
        self.assertNotIn("weight", session)
        self.assertIn("momentum 0.01, biased variance", self.normctl("show", "kind/keras"))
        self.normctl("create", "kind/mean", "--num-features", "2", "--averaging", "cumulative")
        first = np.arange(12, dtype="<f4").reshape(2, 2, 3)
        y, z = str(self.folder / "y.npy"), str(self.folder / "z.npy")
        self.normctl("forward", "kind/mean", "--input", self.save("first.npy", first), "--output", y)
        last = self.save("last.npy", np.ascontiguousarray(np.moveaxis(first, 1, -1)))
        self.normctl("forward", "kind/mean", "--channels-last", "--input", last, "--output", z)
        np.testing.assert_array_equal(np.moveaxis(np.load(z), -1, 1), np.load(y))
        self.assertEqual(self.normctl_json("stats", "kind/mean")["running_mean"], [4, 7])
        self.assertIn("SHADOW", self.normctl("mode", "kind/mean", "shadow"))
        self.assertIn("(shadow moments updated)",
                      self.normctl("forward", "kind/mean", "--input", str(self.folder / "first.npy")))
        stats = self.normctl_json("stats", "kind/mean", "--shadow", "--last-batch")
        self.assertEqual((stats["shadow"]["count"], stats["shadow"]["mean"]), (6, [4, 7]))
        self.assertEqual(stats["last_batch"]["count"], 6)
        self.assertIn("shadow: 6 values a channel", self.normctl("stats", "kind/mean", "--shadow"))

    def test_restore_goes_back_to_a_snapshot(self):
        path = self.save("x.npy", np.arange(6, dtype="<f4").reshape(2, 3))
        self.normctl("create", "back", "--num-features", "3")
        self.normctl("forward", "back", "--input", path)
        self.assertEqual(self.normctl("snapshot", "back", "before"), "back is kept as before, generation 1\n")
        kept = self.normctl_json("stats", "back")
        self.assertEqual((kept["mode"], kept["generation"], kept["num_batches_tracked"]), ("TRAIN", 1, 1))
        self.normctl("forward", "back", "--input", path)
        self.normctl("mode", "back", "eval")
        self.assertNotEqual(self.normctl_json("stats", "back")["running_mean"], kept["running_mean"])

        self.assertEqual(self.normctl("restore", "back", "before"), "back is back at before, generation 4\n")
        restored = self.normctl_json("stats", "back")
        for field in ("uid", "mode", "num_batches_tracked", "running_mean", "running_var"):
            self.assertEqual(restored[field], kept[field], field)
        again = self.normctl_json("restore", "back", "before")
        self.assertEqual((again["name"], again["generation"], again["num_snapshots"]), ("back", 5, 1))

    def test_snapshots_are_listed_until_they_are_deleted(self):
        path = self.save("x.npy", np.arange(6, dtype="<f4").reshape(2, 3))
        self.normctl("create", "kept", "--num-features", "3")
        self.assertEqual(self.normctl("snapshots", "kept"), "no snapshots of kept\n")
        self.assertEqual(self.normctl_json("snapshots", "kept"), [])
        first = self.normctl_json("snapshot", "kept", "b-first")
        self.normctl("forward", "kept", "--input", path)
        second = self.normctl_json("snapshot", "kept", "a-second")
        self.assertEqual((second["name"], second["snapshot"]), ("kept", "a-second"))
        self.assertEqual((second["generation"], second["num_batches_tracked"]), (1, 1))
        self.assertEqual(second["uid"], self.normctl_json("show", "kept")["uid"])
        self.assertGreater(second["size_bytes"], 0)
        self.assertRegex(second["create_time"], r"^\d{4}-\d\d-\d\dT")
        self.assertEqual(self.normctl_json("snapshots", "kept"), [second, first], "in the order of their names")
        lines = self.normctl("snapshots", "kept").splitlines()
        self.assertEqual(lines[0].split(), ["batches", "generation", "bytes", "created", "name"])
        self.assertEqual([line.split()[:2] + line.split()[-1:] for line in lines[1:]],
                         [["1", "1", "a-second"], ["0", "0", "b-first"]])
        self.assertEqual(self.normctl_json("show", "kept")["num_snapshots"], 2)
        self.assertRegex(self.normctl("list", "kept"), r" 2  kept\n$")

        self.assertEqual(self.normctl("delete-snapshot", "kept", "b-first"), "deleted snapshot b-first of kept\n")
        self.assertEqual(self.normctl_json("snapshots", "kept"), [second])
        self.assertEqual(self.normctl_json("delete-snapshot", "kept", "a-second"),
                         {"name": "kept", "deleted": "a-second"})
        self.assertEqual(self.normctl_json("show", "kept")["num_snapshots"], 0)

    def test_a_snapshot_that_there_is_or_is_not(self):
        self.normctl("create", "named", "--num-features", "1")
        self.normctl("snapshot", "named", "taken")
        self.assertIn("(ALREADY_EXISTS, SNAPSHOT_EXISTS)", self.refused("snapshot", "named", "taken"))
        for command in ("restore", "delete-snapshot"):
            message = self.refused(command, "named", "absent")
            self.assertIn("(NOT_FOUND, SNAPSHOT_NOT_FOUND)", message)
            self.assertIn("normctl snapshots", message)
        self.assertIn("INVALID_ARGUMENT", self.refused("snapshot", "named", "two/segments"))
        for command in (["snapshot", "nobody", "x"], ["restore", "nobody", "x"], ["snapshots", "nobody"],
                        ["delete-snapshot", "nobody", "x"]):
            self.assertIn("(NOT_FOUND, SESSION_NOT_FOUND)", self.refused(*command))

    def test_delete_forgets(self):
        self.normctl("create", "delete", "--num-features", "1")
        self.assertEqual(self.normctl("delete", "delete"), "deleted delete\n")
        message = self.refused("show", "delete")
        self.assertIn("(NOT_FOUND, SESSION_NOT_FOUND)", message)
        self.assertIn("normctl list", message)

    def test_info_says_how_many_snapshots_a_session_may_have(self):
        self.assertGreater(self.normctl_json("info")["limits"]["max_snapshots"], 0)
        self.assertRegex(self.normctl("info"), r"(?m)^  snapshots +\d+ a session$")

    def test_info_names_version_devices_and_limits(self):
        info = self.normctl_json("info")
        self.assertRegex(info["version"], r"^\d+\.\d+\.\d+$")
        self.assertGreater(info["limits"]["max_message_bytes"], 0)
        text = self.normctl("info")
        self.assertIn(f"version {info['version']}", text)
        for device in info["devices"]:
            self.assertIn(device["name"], text)

    def test_health_says_serving(self):
        self.assertEqual(self.normctl("health"), "SERVING\n")
        self.assertEqual(self.normctl_json("health"), {"status": "SERVING"})
        self.normctl("health", "--service", "normserve.v1.BatchNormService")
        self.assertIn("NOT_FOUND", self.refused("health", "--service", "nobody"))

    def test_doctor_shows_the_machine_and_the_server(self):
        done = run("doctor", "--server", self.server.address)
        self.assertIn("Vulkan loader", done.stdout)
        self.assertIn("What to do", done.stdout)
        self.assertIn("answers, version", done.stdout)
        report = json.loads(run("doctor", "--json", "--server", self.server.address).stdout)
        self.assertTrue(report["server"]["answers"])
        self.assertTrue(report["machine"]["inspected"])

    def test_doctor_of_a_machine_without_drivers_and_server_fails_and_says_what_to_do(self):
        nothing = str(self.folder / "none.json")
        done = run("doctor", "--server", NOBODY, environment={"VK_ICD_FILENAMES": nothing, "VK_DRIVER_FILES": nothing})
        self.assertEqual(done.returncode, FAILED)
        self.assertIn("does not answer", done.stdout)
        self.assertIn("->", done.stdout)

    def test_a_server_that_is_not_there_is_told_how_to_be_started(self):
        for command in (["list"], ["health"], ["create", "--num-features", "1"]):
            done = run(*command, "--server", NOBODY)
            self.assertEqual((done.returncode, done.stdout), (FAILED, ""))
            self.assertIn(f"No server answers at {NOBODY}", done.stderr)
            self.assertIn("./dev serve", done.stderr)

    def test_the_server_may_be_named_in_the_environment(self):
        done = run("health", environment={"NORMSERVE_SERVER": self.server.address})
        self.assertEqual((done.returncode, done.stdout), (DONE, "SERVING\n"))
        done = run("--server", self.server.address, "health", environment={"NORMSERVE_SERVER": NOBODY})
        self.assertEqual(done.returncode, DONE, "the option beats the variable")

    def test_the_servers_own_words_reach_the_user(self):
        self.normctl("create", "words", "--num-features", "3")
        two = self.save("two.npy", np.zeros((4, 2), "<f4"))
        self.assertIn("SHAPE_MISMATCH", self.refused("forward", "words", "--input", two))
        one = self.save("one.npy", np.zeros((1, 3), "<f4"))
        self.assertIn("Expected more than 1 value per channel when training",
                      self.refused("forward", "words", "--input", one))
        self.assertIn("ALREADY_EXISTS", self.refused("create", "words", "--num-features", "3"))
        self.assertIn("INVALID_ARGUMENT", self.refused("create", "--num-features", "0"))
        self.assertIn("INVALID_ARGUMENT", self.refused("create", "not a name", "--num-features", "1"))
        self.assertEqual(self.normctl_json("stats", "words")["generation"], 0)

    def test_a_batch_beyond_the_servers_limit_says_which_limit(self):
        path = self.save("large.npy", np.zeros((1 << 18, 1), "<f4"))  # 1 MiB, and a header
        with ServerProcess(flags=["--max-message-bytes", "1MiB"]) as small:
            self.assertEqual(run("create", "large", "--num-features", "1", "--server", small.address).returncode, DONE)
            done = run("forward", "large", "--input", path, "--server", small.address)
        self.assertEqual((done.returncode, done.stdout), (FAILED, ""))
        self.assertIn("RESOURCE_EXHAUSTED", done.stderr)
        self.assertIn("1048576", done.stderr)
        self.assertIn("--max-message-bytes", done.stderr)

    def test_a_file_that_would_have_to_be_converted_is_refused_by_name(self):
        self.normctl("create", "files", "--num-features", "3")
        x = np.zeros((4, 3))
        for name, values, words in (("f8", x, "its type is <f8"), ("big", x.astype(">f4"), "its type is >f4"),
                                    ("f2", x.astype("<f2"), "its type is <f2"), ("int", x.astype("<i4"), "type is <i4"),
                                    ("order", np.asfortranarray(x.astype("<f4")), "Fortran order")):
            message = self.refused("forward", "files", "--input", self.save(f"{name}.npy", values))
            self.assertIn(words, message)
            self.assertIn("numpy.save(", message)
        (self.folder / "text.npy").write_text("1 2 3")
        self.assertIn("not a readable .npy file", self.refused("forward", "files", "--input", str(self.folder / "text.npy")))
        self.assertIn("No such file", self.refused("forward", "files", "--input", str(self.folder / "absent.npy")))
        self.assertEqual(self.normctl_json("stats", "files")["generation"], 0)

    def test_a_wrong_command_line_is_a_usage_error(self):
        for arguments in ([], ["dance"], ["create"], ["forward", "x"], ["mode", "x", "sleep"], ["list", "--timeout", "5"],
                          ["list", "--timeout", "0s"], ["show"], ["list", "--no-such-option"],
                          ["list", "--label", "team"], ["list", "--label", "=vision"],
                          ["list", "--label", "run=7", "--label", "run=8"],
                          ["create", "x", "--num-features", "1", "--durability", "forever"], ["snapshot", "x"],
                          ["restore", "x"], ["snapshots"], ["delete-snapshot", "x"]):
            self.refused(*arguments, status=USAGE)

    def test_version_is_the_servers_of_the_same_build(self):
        done = run("--version")
        self.assertEqual((done.returncode, done.stderr), (DONE, ""))
        self.assertEqual(done.stdout, f"normctl {self.normctl_json('info')['version']}\n")

    def test_every_command_has_help_with_an_example(self):
        commands = ("create", "list", "show", "clone", "delete", "mode", "stats", "snapshot", "restore", "snapshots",
                    "delete-snapshot", "forward", "info", "health", "doctor", "watch")
        top = run("--help").stdout
        for command in commands:
            self.assertIn(f"\n  {command} ", top)
            self.assertIn(f"Example: normctl {command}", run(command, "--help").stdout)


if __name__ == "__main__":
    unittest.main()
