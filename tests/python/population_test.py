"""Moments in and out of sessions, asked from Python."""

import unittest

import normserve
import numpy as np

from server_process import ServerTestCase


class Observe(ServerTestCase):
    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))
        self.rng = np.random.default_rng(5)

    def test_what_is_observed_is_all_of_it_together_and_the_state_stays(self):
        bn = self.client.create(num_features=3)
        before = bn.describe()
        batches = [self.rng.standard_normal((8, 3, 4, 4)).astype(np.float32) * 3 + 100 for _ in range(3)]
        self.assertEqual(bn.moments().count, 0)
        for batch in batches[:2]:
            seen = bn.observe(batch)
        self.assertEqual((seen.name, seen.uid, seen.generation, seen.count), (bn.name, before.uid, 0, 256))
        self.assertEqual(bn.observe(normserve.Moments.of(batches[2])).count, 384)
        expected = normserve.Moments.of(np.concatenate(batches))
        found = bn.moments()
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6)
        np.testing.assert_allclose(found.m2, expected.m2, rtol=1e-5)
        np.testing.assert_array_equal(bn.moments(first_channel=1, num_channels=1).mean, found.mean[1:2])
        after = bn.describe()
        self.assertEqual((after.generation, list(after.running_mean)), (0, [0, 0, 0]))

    def test_a_part_counts_once_until_a_reset(self):
        bn = self.client.create(num_features=2)
        first, second = (normserve.Moments.of(self.rng.standard_normal((n, 2))) for n in (10, 20))
        for _ in range(3):
            self.assertEqual(bn.observe(first, part_id="worker-1/step-1").count, 10)
        with self.assertRaises(normserve.Error) as raised:
            bn.observe(second, part_id="worker-1/step-1")
        self.assertEqual(raised.exception.reason, "PART_CONFLICT")
        self.assertEqual(bn.observe(second, part_id="worker-1/step-2").count, 30)
        tried = bn.observe(first, dry_run=True)
        self.assertEqual((tried.count, tried.moments.count, bn.moments().count), (40, 40, 30))
        self.assertEqual(bn.observe(second, part_id="worker-1/step-1", reset=True).count, 20)
        self.assertEqual(bn.observe(reset=True).count, 0)
        self.assertEqual(len(bn.moments().mean), 0)

    def test_a_reset_keeps_a_reference_that_names_a_shift_of_pushed_statistics(self):
        bn = self.client.create(num_features=2, running_mean=[3, 4], running_var=[1, 1], num_batches_tracked=500)
        reference, production = (self.rng.standard_normal((4000, 2)) + offset for offset in ([3, 4], [5, 4]))
        bn.observe(normserve.Moments.of(production))
        self.assertEqual(self.cause(bn), "lag_or_shift")
        self.assertEqual(bn.moments("observed_before").count, 0)
        bn.observe(normserve.Moments.of(reference), reset=True)
        bn.observe(normserve.Moments.of(production), reset=True)
        np.testing.assert_array_equal(bn.moments("observed_before").mean, normserve.Moments.of(reference).mean)
        self.assertEqual(self.cause(bn), "data_shift")
        self.assertIn("fit what was observed before the last reset, 4000 values a channel", bn.diagnose(observed=True).explanation)
        bn.observe(reset=True)
        bn.observe(reset=True)  # finds nothing, and leaves it
        self.assertEqual(bn.moments("observed_before").count, 4000)
        bn.observe(normserve.Moments.of(production))
        self.assertEqual(self.cause(bn), "momentum_lag")

    @staticmethod
    def cause(bn):
        causes = bn.diagnose(observed=True).causes
        return max(causes, key=causes.get)

    def test_last_batch_and_shadow_are_read_too(self):
        bn = self.client.create(num_features=2)
        x = self.rng.standard_normal((8, 2)).astype(np.float32)
        sent = bn.forward(x, return_batch_moments=True).batch_moments
        np.testing.assert_array_equal(bn.moments("last_batch").m2, sent.m2)
        bn.set_mode("shadow")
        bn.forward(x)
        self.assertEqual((bn.moments("shadow").count, bn.moments("observed").count), (8, 0))
        with self.assertRaisesRegex(ValueError, "source is 'all'"):
            bn.moments("all")

    def test_layouts_types_and_empty_batches(self):
        bn = self.client.create(num_features=3)
        x = self.rng.standard_normal((2, 3, 5)).astype(np.float16)
        bn.observe(x)
        first = bn.moments()
        bn.observe(np.ascontiguousarray(np.moveaxis(x, 1, -1)), layout="channels_last", reset=True)
        np.testing.assert_array_equal(bn.moments().mean, first.mean)
        self.assertEqual(bn.observe(np.zeros((0, 3), np.float32)).count, 10)
        self.assertEqual(bn.observe(np.ones((1, 3), np.float32)).count, 11)
        with self.assertRaises(normserve.Error) as raised:
            bn.observe(np.full((2, 3), np.inf, np.float32))
        self.assertEqual((raised.exception.reason, bn.moments().count), ("NON_FINITE", 11))
        with self.assertRaisesRegex(normserve.Error, "moments.mean has 2 values"):
            bn.observe(normserve.Moments.of(np.zeros((4, 2))))


if __name__ == "__main__":
    unittest.main()
