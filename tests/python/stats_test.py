"""Summary, flags and comparison of statistics, asked from Python and checked against numpy in double precision."""

import datetime
import math
import time
import unittest

import normserve
import numpy as np

from server_process import ServerTestCase


def expected(values, mean, var):
    """What Comparison should say of a batch [N, C], by the formulas as they are written down."""
    n, m, v = len(values), values.mean(axis=0), values.var(axis=0)
    ratio = v * n / (n - 1) / var
    spread = 2 / (9 * (n - 1))
    return {
        "kl_divergence": 0.5 * (v / var - 1 - np.log(v / var) + (m - mean) ** 2 / var),
        "wasserstein": np.sqrt((m - mean) ** 2 + (np.sqrt(v) - np.sqrt(var)) ** 2),
        "mean_z": (m - mean) / np.sqrt(var / n),
        "variance_ratio": ratio,
        "variance_z": (np.cbrt(ratio) - (1 - spread)) / math.sqrt(spread),
    }


class Stats(ServerTestCase):
    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))
        self.rng = np.random.default_rng(3)

    def test_the_comparison_is_what_numpy_makes_of_the_formulas(self):
        channels = 5
        mean, var = self.rng.normal(size=channels), self.rng.uniform(0.5, 4, channels)
        bn = self.client.create(
            num_features=channels, momentum=0.0, running_mean=mean, running_var=var, num_batches_tracked=8
        )
        values = self.rng.normal(1, 2, (50, channels)).astype(np.float32)
        bn.forward(values)
        stats = bn.stats(compare_with="last_batch")
        self.assertEqual((stats.comparison.source, stats.comparison.count), ("last_batch", 50))
        for name, want in expected(values.astype(np.float64), mean, var).items():
            np.testing.assert_allclose(getattr(stats.comparison, name), want, rtol=1e-6, atol=1e-6, err_msg=name)
        some = bn.stats(compare_with="last_batch", first_channel=2, num_channels=2)
        np.testing.assert_array_equal(some.comparison.mean_z, stats.comparison.mean_z[2:4])

        summary = bn.stats(view="summary", compare_with="last_batch").summary
        drift = np.sqrt(np.mean((stats.comparison.wasserstein / np.sqrt(var + 1e-5)) ** 2))
        self.assertAlmostEqual(summary.drift, drift, 12)
        self.assertEqual(summary.running_mean.median, np.median(mean))
        self.assertAlmostEqual(summary.running_var.low, np.quantile(var, 0.05), 12)
        self.assertAlmostEqual(summary.batch_var.high, np.quantile(values.astype(np.float64).var(axis=0), 0.95), 5)
        self.assertEqual(summary.kl_divergence.max, stats.comparison.kl_divergence.max())

    def test_what_is_not_asked_for_is_not_there(self):
        bn = self.client.create(num_features=3)
        stats = bn.stats()
        self.assertEqual((stats.comparison, stats.summary), (None, None))
        np.testing.assert_array_equal(stats.flags["never_updated"], [0, 1, 2])
        summed = bn.stats(view="summary")
        self.assertIsNone(summed.running_mean)
        self.assertIsNone(summed.summary.drift)
        self.assertEqual(summed.summary.flagged_channels, {"never_updated": 3})
        self.assertEqual(bn.stats(compare_with="shadow").comparison.count, 0)

    def test_a_dead_and_a_frozen_channel_are_flagged(self):
        bn = self.client.create(
            num_features=4, running_mean=[0] * 4, running_var=[1, 1e-12, 1, 1], num_batches_tracked=9,
            weight=[1, 1, 0, 1])
        self.assertEqual({flag: channels.tolist() for flag, channels in bn.stats().flags.items()},
                         {"dead": [1], "frozen_affine": [2]})

    def test_the_history_is_read_whole_by_generation_and_by_time(self):
        bn = self.client.create("history/a", 2)
        for k in range(1, 11):
            bn.forward(np.array([[k - 1, k], [k + 1, k]], np.float32))
        snapshot = bn.snapshot("ten")
        self.assertEqual(bn.stats().history, ())
        points = bn.stats(history=True).history
        self.assertEqual([point.update for point in points], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        self.assertEqual([(p.count, p.num_samples, p.batch_mean.max, p.batch_var.max) for p in points[-2:]],
                         [(2, 2, 9, 1), (2, 2, 10, 1)])
        self.assertEqual(points[-1].running_mean.median, np.median(bn.stats().running_mean))
        self.assertGreater(points[0].relative_gap, points[0].batch_mean.max * 0.5)
        self.assertEqual(points[0].time.utcoffset().total_seconds(), 0)
        self.assertLess(abs(points[0].time.timestamp() - time.time()), 600)

        bn.restore("ten")
        newest = bn.stats(history=normserve.HistoryRange(after_generation=snapshot.generation)).history
        self.assertEqual([(point.update, point.count) for point in newest], [(10, 0)])
        bn.merge("round", {"site": normserve.Moments(4, [1, 2], [3, 4])}, commit=True)
        bn.calibrate("drift", np.ones((4, 2), np.float32), part_id="a")
        bn.calibrate("drift", commit=True)
        newest = bn.stats(history=normserve.HistoryRange(after_generation=newest[0].generation)).history
        self.assertEqual([(point.count, point.running_mean.max) for point in newest], [(0, 2), (0, 1)])
        later = normserve.HistoryRange(since=points[-1].time + datetime.timedelta(minutes=10))
        self.assertEqual(bn.stats(history=later).history, ())
        of_model = self.client.model("history").stats(history=normserve.HistoryRange(since=points[0].time))
        self.assertEqual(len(of_model["a"].history), 13)

    def test_a_word_that_is_none_is_told_before_anything_is_sent(self):
        bn = self.client.create(num_features=1)
        with self.assertRaisesRegex(ValueError, "summary, channels"):
            bn.stats(view="whole")
        with self.assertRaisesRegex(ValueError, "last_batch, shadow, observed"):
            bn.stats(compare_with="mean")
        with self.assertRaisesRegex(TypeError, "history is 3"):
            bn.stats(history=3)
        with self.assertRaisesRegex(TypeError, "history.since is 'yesterday'"):
            bn.stats(history=normserve.HistoryRange(since="yesterday"))


if __name__ == "__main__":
    unittest.main()
