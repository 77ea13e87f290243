"""What /api says of models, layers and channels, beside what the RPCs say and numpy computes."""

import json
import re
import unittest

import normserve
import numpy as np

from admin_server import AdminTestCase


class Api(AdminTestCase):
    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))
        self.rng = np.random.default_rng(3)

    def batch(self, num_features, mean=0.0, std=1.0):
        return (self.rng.standard_normal((64, num_features)) * std + mean).astype(np.float32)

    def forget(self, *names):
        for name in names:
            self.addCleanup(self.client.session(name).delete)

    def test_models_are_the_first_segments_of_names(self):
        for name in ("deep/a", "deep/b/c", "alone", "deeper/a"):
            self.client.create(name, num_features=4)
        self.forget("deep/a", "deep/b/c", "alone", "deeper/a")
        self.client.session("deep/a").eval()
        found = self.server.get_json("/api/models")
        lines = {line["name"]: (line["is_session"], line["num_layers"], line["num_features"], line["modes"])
                 for line in found["models"]}
        self.assertEqual(lines, {"alone": (True, 1, 4, {"TRAIN": 1}), "deep/": (False, 2, 8, {"EVAL": 1, "TRAIN": 1}),
                                 "deeper/": (False, 1, 4, {"TRAIN": 1})})
        self.assertEqual(found["server"]["num_sessions"], 4)
        self.assertFalse(found["server"]["is_draining"])

    def test_layers_are_ranked_by_drift_and_say_what_diagnose_says(self):
        names = ("net/calm", "net/moved", "net/unseen")
        for name in names:
            self.client.create(name, num_features=8)
        self.forget(*names)
        for name, mean in (("net/calm", 0), ("net/moved", 0), ("net/calm", 0), ("net/moved", 3)):
            for _ in range(40 if mean == 0 else 1):
                self.client.session(name).forward(self.batch(8, mean))
        layers = self.server.get_json("/api/models/net")["layers"]
        self.assertEqual([layer["name"] for layer in layers], ["net/moved", "net/calm", "net/unseen"])
        diagnosed = self.client.session("net/moved").diagnose()
        self.assertEqual(layers[0]["explanation"], diagnosed.explanation)
        self.assertEqual(layers[0]["verdict"], diagnosed.verdict.upper())
        self.assertEqual((layers[0]["num_batches_tracked"], layers[0]["batch_count"]), (41, 64))
        # What the comparison's documentation says, from the statistics that an RPC gives.
        stats = self.client.session("net/moved").stats(return_last_batch=True)
        running_std = np.sqrt(stats.running_var)
        batch_std = np.sqrt(stats.last_batch.m2 / stats.last_batch.count)
        apart = np.hypot(stats.last_batch.mean - stats.running_mean, batch_std - running_std)
        drift = apart / np.sqrt(stats.running_var + 1e-5)
        self.assertAlmostEqual(layers[0]["drift"], np.sqrt(np.mean(drift**2)), 9)
        self.assertIsNone(layers[2]["drift"])
        self.assertEqual(layers[2]["flags"], {"NEVER_UPDATED": 8})

        session = self.server.get_json("/api/sessions/net/moved?order=drift&count=5&begin=2")
        channels = session["channels"]
        order = np.argsort(-drift)[2:7]
        self.assertEqual((channels["begin"], channels["channel"]), (2, order.tolist()))
        for name, expected in (("running_mean", stats.running_mean), ("running_std", running_std),
                               ("batch_mean", stats.last_batch.mean), ("batch_std", batch_std), ("drift", drift)):
            np.testing.assert_allclose(channels[name], expected[order], rtol=1e-9, err_msg=name)

    def test_a_layer_is_judged_on_what_it_is_fed(self):
        bn = self.client.create("fed", num_features=3)
        self.forget("fed")

        def judged():
            found = self.server.get_json("/api/sessions/fed")
            return found["evidence"], found["batch_count"], found["channels"]["batch_mean"]

        self.assertEqual(judged(), (None, 0, [None] * 3))
        bn.observe(normserve.Moments(5, [1, 2, 3], [1, 1, 1]))
        self.assertEqual(judged(), ("OBSERVED", 5, [1, 2, 3]))
        bn.forward(self.batch(3))
        self.assertEqual(judged()[:2], ("LAST_BATCH", 64))
        bn.eval()
        self.assertEqual(judged()[:2], ("OBSERVED", 5))
        drift = self.server.get_json("/api/models/fed")["layers"][0]["drift"]
        stats = bn.stats()
        apart = np.hypot(np.array([1, 2, 3]) - stats.running_mean, np.sqrt(1 / 5) - np.sqrt(stats.running_var))
        self.assertAlmostEqual(drift, np.sqrt(np.mean(apart**2 / (stats.running_var + 1e-5))), 9)
        told = re.search(r'normserve_session_drift\{session="fed"\} (\S+)', self.server.get("/metrics")[2]).group(1)
        self.assertAlmostEqual(float(told), drift, 9)
        bn.set_mode("shadow")
        bn.forward(self.batch(3))
        bn.forward(self.batch(3))
        self.assertEqual(judged()[:2], ("SHADOW", 128))

    def test_what_was_observed_before_names_a_shift(self):
        bn = self.client.create("pushed", num_features=2, mode="eval", running_mean=[3, 4], running_var=[1, 1])
        self.forget("pushed")
        bn.observe(normserve.Moments(4000, [3, 4], [4000, 4000]))
        bn.observe(normserve.Moments(4000, [5, 6], [4000, 4000]), reset=True)
        self.assertEqual(self.server.get_json("/api/sessions/pushed")["main_cause"], "DATA_SHIFT")

    def test_history_goes_back_to_the_first_batch(self):
        bn = self.client.create("long/ago", num_features=4)
        self.forget("long/ago")
        for step in range(20):
            bn.forward(self.batch(4, mean=0 if step < 19 else 5))
        points = self.server.get_json("/api/sessions/long/ago")["history"]
        updates = [point["update"] for point in points]
        self.assertEqual((updates[0], updates[-1], updates), (1, 20, sorted(updates)))
        self.assertEqual([point["generation"] for point in points], updates)
        newest = self.server.get_json("/api/models/long")["layers"][0]
        self.assertAlmostEqual(points[-1]["relative_gap"], newest["relative_gap"], 9)
        self.assertAlmostEqual(points[-1]["running_mean"]["median"], np.median(bn.stats().running_mean), 9)
        self.assertGreater(points[-1]["batch_mean"]["median"], 4)

    def test_a_session_is_told_whole(self):
        bn = self.client.create("whole", num_features=2, eps=1e-3, momentum=0.2, weight=[2, 0], bias=[1, -1],
                                labels={"site": "north"})
        self.forget("whole")
        bn.snapshot("before")
        found = self.server.get_json("/api/sessions/whole")
        self.assertEqual(found["config"], {
            "epsilon": 1e-3, "averaging": "EXPONENTIAL", "momentum": 0.2, "affine": True, "track_running_stats": True,
            "running_variance": "UNBIASED", "durability": "NONE"})  # fmt: skip
        self.assertEqual((found["labels"], found["snapshots"][0]["name"]), ({"site": "north"}, "before"))
        channels = found["channels"]
        self.assertEqual((channels["weight"], channels["bias"]), ([2, 0], [1, -1]))
        self.assertEqual((channels["batch_mean"], channels["running_std"]), ([None, None], [1, 1]))
        self.assertEqual(found["flagged"], [{"channel": 0, "flags": ["NEVER_UPDATED"]},
                                            {"channel": 1, "flags": ["NEVER_UPDATED", "FROZEN_AFFINE"]}])
        self.assertEqual(self.server.get_json("/api/models/whole")["layers"][0]["name"], "whole")

    def test_what_is_wrong_is_said(self):
        self.client.create("right", num_features=1)
        self.forget("right")
        for path, status, text in (
            ("/api/sessions/nowhere", 404, 'nowhere'),
            ("/api/models/nowhere", 404, 'nowhere'),
            ("/api/sessions/%3Cscript%3E", 400, "name"),
            ("/api/sessions/right?begin=-1", 400, "begin is -1"),
            ("/api/sessions/right?count=0", 400, "count is 0"),
            ("/api/sessions/right?count=4097", 400, "4096"),
            ("/api/sessions/right?count=many", 400, "count"),
            ("/api/sessions/right?order=none", 400, "order"),
        ):
            code, headers, body = self.server.get(path)
            self.assertEqual((code, headers["Content-Type"]), (status, "application/json"), path)
            self.assertIn(text, json.loads(body)["error"], path)
        self.assertEqual(self.server.get_json("/api/sessions/right?begin=5")["channels"]["channel"], [])

    def test_looking_changes_nothing(self):
        bn = self.client.create("looked/at", num_features=3)
        self.forget("looked/at")
        bn.forward(self.batch(3))
        before = (repr(bn.describe()), bn.stats().running_mean.tolist())
        for path in ("/api/models", "/api/models/looked", "/api/sessions/looked/at", "/metrics"):
            self.assertEqual(self.server.get(path)[0], 200)
        self.assertEqual((repr(bn.describe()), bn.stats().running_mean.tolist()), before)


if __name__ == "__main__":
    unittest.main()
