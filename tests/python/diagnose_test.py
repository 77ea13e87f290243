"""Why evaluation differs from training, asked from Python."""

import unittest

import normserve
import numpy as np

from server_process import ServerTestCase


class Diagnose(ServerTestCase):
    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))

    def test_the_forums_layer_has_not_forgotten_its_start(self):
        bn = self.client.create(num_features=3)
        bn.forward(np.random.default_rng(1).random((4, 3, 32, 32), np.float32))
        found = bn.diagnose(return_channels=True)
        self.assertEqual((found.name, found.generation, found.verdict), (bn.name, 1, "train_eval_gap"))
        self.assertEqual((found.batch_count, found.channel_gap_rms.shape), (4096, (3,)))
        self.assertAlmostEqual(sum(found.causes.values()), found.predicted_gap_rms, 12)
        self.assertGreater(found.causes["initialisation"], 0.9 * found.gap_rms)
        self.assertIn("90 %", found.explanation)
        self.assertTrue(found.advice)

    def test_a_model_is_ranked_on_the_moments_of_its_layers(self):
        rng = np.random.default_rng(2)
        for name in ("net/a", "net/b", "net/c"):
            self.client.create(name, 2)
        moments = {"a": normserve.Moments.of(rng.standard_normal((500, 2))),
                   "b": normserve.Moments.of(rng.standard_normal((500, 2)) * 9 + 3)}
        found = self.client.diagnose("net", moments)
        self.assertEqual([(each.name, each.batch_count) for each in found][0], ("net/b", 500))
        self.assertEqual({each.name: each.verdict for each in found}["net/c"], "never_updated")
        single = self.client.session("net/b").diagnose(moments["b"])
        self.assertEqual((single.gap_rms, single.explanation), (found[0].gap_rms, found[0].explanation))

    def test_no_layers_are_no_evidence_whatever_the_server_has_seen(self):
        bn = self.client.create("nothing/a", num_features=1)
        bn.forward(np.float32([[1], [2]]))
        (found,) = self.client.model("nothing").diagnose({})
        self.assertEqual((found.verdict, found.batch_count), ("no_evidence", 0))

    def test_what_does_not_fit_is_refused(self):
        bn = self.client.create("net2/a", 2)
        with self.assertRaisesRegex(normserve.Error, "moments.mean has 3 values"):
            bn.diagnose(normserve.Moments.of(np.zeros((4, 3))))
        with self.assertRaisesRegex(normserve.Error, 'no session "net2/x"'):
            self.client.diagnose("net2/", {"x": normserve.Moments.of(np.zeros((4, 2)))})


if __name__ == "__main__":
    unittest.main()
