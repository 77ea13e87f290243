"""A whole model in one call each, from Python."""

import unittest
import uuid

import normserve
import numpy as np

from server_process import ServerTestCase

LAYERS = ["a", "b.bn", "deep/c"]


class ModelTest(ServerTestCase):
    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))
        self.prefix = "model-" + uuid.uuid4().hex
        self.model = self.client.model(self.prefix)
        self.client.create(self.prefix, 1)  # of the very name of the prefix: no layer
        for channels, layer in enumerate(LAYERS, 1):
            self.client.create(f"{self.prefix}/{layer}", channels)

    def refused(self, reason, call, *arguments):
        with self.assertRaises(normserve.Error) as refused:
            call(*arguments)
        self.assertEqual(refused.exception.reason, reason)

    def test_a_handle_is_of_the_prefix_and_goes_through_the_sessions_below_it(self):
        self.assertEqual(self.model.prefix, self.prefix + "/")
        self.assertEqual(self.client.model(self.prefix + "/").prefix, self.model.prefix)
        self.assertEqual([session.name for session in self.model], [f"{self.prefix}/{layer}" for layer in LAYERS])
        self.assertEqual([self.model.layer(info.name) for info in self.model.list()], LAYERS)
        self.assertEqual(self.model["b.bn"].describe().config.num_features, 2)
        self.assertEqual(list(self.client.model("nobody")), [])
        self.refused("SESSION_NOT_FOUND", self.client.model("nobody").stats)

    def test_statistics_and_diagnoses_are_by_layer(self):
        batch = np.random.default_rng(1).random((8, 2), np.float32)
        self.model["b.bn"].forward(batch)
        stats = self.model.stats(return_last_batch=True)
        self.assertEqual(list(stats), LAYERS)
        self.assertEqual([each.num_batches_tracked for each in stats.values()], [0, 1, 0])
        np.testing.assert_allclose(stats["b.bn"].last_batch.mean, batch.mean(axis=0), rtol=1e-6)
        summaries = self.model.stats(view="summary", compare_with="last_batch")
        self.assertGreater(summaries["b.bn"].summary.drift, 0)
        found = self.model.diagnose()
        self.assertEqual((found[0].name, found[0].verdict), (f"{self.prefix}/b.bn", "train_eval_gap"))
        given = self.model.diagnose({"a": normserve.Moments.of(np.array([[1.0], [2.0], [4.0]]))})
        self.assertEqual((given[0].name, given[0].batch_count), (f"{self.prefix}/a", 3))

    def test_modes_and_snapshots_are_changed_together(self):
        self.assertEqual({info.mode for info in self.model.eval()}, {"eval"})
        self.assertEqual(len(self.model.snapshot("best")), 3)
        self.assertEqual({info.mode for info in self.model.shadow()}, {"shadow"})
        self.assertEqual({info.mode for info in self.model.restore("best")}, {"eval"})
        self.assertEqual({info.generation for info in self.model.train(request_id="again")}, {4})
        self.assertEqual({info.generation for info in self.model.train(request_id="again")}, {4})
        self.model["a"].snapshot("alone")
        self.assertEqual([(self.model.layer(each.name), each.snapshot) for each in self.model.list_snapshots()],
                         [("a", "alone"), ("a", "best"), ("b.bn", "best"), ("deep/c", "best")])
        self.refused("SNAPSHOT_NOT_FOUND", self.model.delete_snapshot, "alone")
        self.assertEqual(len(self.model.delete_snapshot("best")), 3)
        self.assertEqual([each.snapshot for each in self.model.list_snapshots()], ["alone"])

    def test_layers_observe_together(self):
        parts = [np.random.default_rng(seed).random((8, 2)) for seed in (1, 2)]
        for part in parts:
            seen = self.model.observe({"b.bn": normserve.Moments.of(part), "a": normserve.Moments.of(part[:, :1])})
        self.assertEqual({layer: each.count for layer, each in seen.items()}, {"a": 16, "b.bn": 16})
        found = self.model.moments()
        self.assertEqual([(layer, each.count) for layer, each in found.items()], [("a", 16), ("b.bn", 16), ("deep/c", 0)])
        np.testing.assert_allclose(found["b.bn"].mean, np.concatenate(parts).mean(axis=0), rtol=1e-12)
        with self.assertRaises(normserve.Error):
            self.model.observe({"a": normserve.Moments.of(parts[0][:, :1]), "nobody": normserve.Moments.of(parts[0])})
        self.assertEqual(self.model.moments()["a"].count, 16)
        self.model.observe(reset=True)
        self.assertEqual({each.count for each in self.model.moments().values()}, {0})

    def test_delete_forgets_all_of_them_and_no_other(self):
        self.assertEqual(self.model.delete(), [f"{self.prefix}/{layer}" for layer in LAYERS])
        self.assertEqual(list(self.model), [])
        self.assertEqual(self.client.session(self.prefix).describe().num_batches_tracked, 0)
        self.refused("SESSION_NOT_FOUND", self.model.delete)


if __name__ == "__main__":
    unittest.main()
