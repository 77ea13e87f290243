"""Moments are those of exact arithmetic, and merge to those of all values together."""

import math
import unittest
from fractions import Fraction

import normserve
import numpy as np
from normserve import Moments


def exact(values):
    """(mean, m2) of one channel, by rational arithmetic."""
    values = [Fraction(float(value)) for value in values]
    mean = sum(values) / len(values)
    return float(mean), float(sum((value - mean) ** 2 for value in values))


class OfData(unittest.TestCase):
    def test_moments_of_data_far_from_zero_are_exact_to_rounding(self):
        rng = np.random.default_rng(1)
        for offset in (0, 1e3, 1e6, 1e9):
            for dtype in (np.float32, np.float64):
                x = (rng.standard_normal((7, 3, 5)) + offset).astype(dtype)
                found = Moments.of(x)
                self.assertEqual((found.count, found.mean.dtype, found.m2.dtype), (35, np.float64, np.float64))
                for c in range(3):
                    mean, m2 = exact(x[:, c].ravel())
                    np.testing.assert_allclose([found.mean[c], found.m2[c]], [mean, m2], rtol=1e-12)

    def test_moments_of_many_values_far_from_zero_keep_their_digits(self):
        shifted = np.round(np.random.default_rng(4).standard_normal((300000, 2)) * 1024) / 1024  # + 1e9 is exact
        found = Moments.of(shifted + 1e9)
        for c in range(2):
            mean = math.fsum(shifted[:, c]) / len(shifted)
            np.testing.assert_allclose(found.mean[c] - 1e9, mean, rtol=0, atol=2e-7)  # an ulp
            np.testing.assert_allclose(found.m2[c], math.fsum((shifted[:, c] - mean) ** 2), rtol=1e-10)

    def test_any_axis_type_and_stride_will_do(self):
        x = np.arange(2 * 3 * 4).reshape(2, 3, 4)
        for array, axis in ((x, 1), (x.astype(np.float16), 1), (np.moveaxis(x, 1, -1), -1), (x.transpose(1, 0, 2), 0),
                            (x.tolist(), 1), (normserve.BFloat16.of(x), 1)):  # fmt: skip
            found = Moments.of(array, axis)
            np.testing.assert_array_equal(found.mean, x.mean(axis=(0, 2)))
            np.testing.assert_allclose(found.m2, x.var(axis=(0, 2)) * 8, rtol=1e-15)

    def test_samples_are_the_first_of_the_other_axes_and_known_together_if_all_are(self):
        x = np.zeros((2, 3, 4))
        self.assertEqual([Moments.of(x, axis).num_samples for axis in (1, -1, 2, 0, -3)], [2, 2, 2, 0, 0])
        self.assertEqual((Moments.of(x) + Moments.of(x)).num_samples, 4)
        self.assertEqual((Moments.of(x) + Moments(1, np.zeros(3), np.zeros(3))).num_samples, 0)
        self.assertEqual((Moments.of(x) + Moments(0, np.zeros(3), np.zeros(3))).num_samples, 2)

    def test_the_array_is_left_as_it_is(self):
        x = np.full((4, 2), 3.0)
        Moments.of(x)
        np.testing.assert_array_equal(x, 3)

    def test_what_has_no_channels_or_is_complex_is_refused(self):
        for bad in (3.0, np.zeros((2, 2), complex)):
            with self.assertRaisesRegex(TypeError, "real values"):
                Moments.of(bad)


class Merging(unittest.TestCase):
    def test_the_sum_of_parts_is_the_whole(self):
        x = np.random.default_rng(2).standard_normal((12, 4, 3)) * 3 + 1e5
        whole, parts = Moments.of(x), [Moments.of(part) for part in (x[:1], x[1:5], x[5:5], x[5:])]
        for merged in (sum(parts), parts[0] + parts[1] + parts[2] + parts[3], parts[3] + sum(parts[:3])):
            self.assertEqual(merged.count, whole.count)
            np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-15)
            np.testing.assert_allclose(merged.m2, whole.m2, rtol=1e-10)

    def test_no_data_changes_nothing(self):
        some, none = Moments.of(np.ones((2, 3))), Moments.of(np.ones((0, 3)))
        self.assertEqual((none.count, list(none.mean), list(none.m2)), (0, [0] * 3, [0] * 3))
        self.assertIs(some + none, some)
        self.assertIs(none + some, some)

    def test_other_numbers_of_channels_do_not_merge(self):
        with self.assertRaisesRegex(ValueError, "3 and of 4"):
            Moments.of(np.ones((2, 3))) + Moments.of(np.ones((2, 4)))  # pylint: disable=expression-not-assigned


class Variance(unittest.TestCase):
    def test_variance_is_biased_unless_asked_otherwise(self):
        x = np.random.default_rng(3).standard_normal((6, 2))
        np.testing.assert_allclose(Moments.of(x).var(), x.var(axis=0))
        np.testing.assert_allclose(Moments.of(x).var(unbiased=True), x.var(axis=0, ddof=1))

    def test_too_few_values_have_none(self):
        for count, unbiased in ((0, False), (0, True), (1, True)):
            with self.assertRaisesRegex(ValueError, f"{count} values"):
                Moments.of(np.ones((count, 2))).var(unbiased)


if __name__ == "__main__":
    unittest.main()
