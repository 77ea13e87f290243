"""BFloat16 rounds as torch does and holds its values exactly."""

import unittest

import numpy as np
import torch
from normserve import BFloat16


class Rounding(unittest.TestCase):
    def test_values_round_as_torch_rounds_them(self):
        bits = np.random.default_rng(1).integers(0, 1 << 32, 100000, dtype=np.uint32)
        ties = (np.arange(1 << 16, dtype=np.uint32) << 16) | 0x8000
        for values in (bits.view(np.float32), ties.view(np.float32), np.float32([0.0, -0.0, np.inf, -np.inf, 3.4e38])):
            expected = torch.from_numpy(values.copy()).bfloat16().float().numpy()
            found = BFloat16.of(values).float32()
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(np.signbit(found[found == 0]), np.signbit(expected[expected == 0]))

    def test_words_are_the_upper_halves(self):
        words = np.arange(1 << 16, dtype=np.uint16).reshape(2, -1)
        array = BFloat16(words)
        self.assertIs(array.words, words)
        self.assertEqual(array.shape, words.shape)
        np.testing.assert_array_equal(array.float32().view(np.uint32), words.astype(np.uint32) << 16)
        finite = np.isfinite(array.float32())
        np.testing.assert_array_equal(BFloat16.of(array.float32()).words[finite], words[finite])

    def test_other_words_are_refused(self):
        with self.assertRaisesRegex(TypeError, r"float32.*BFloat16\.of"):
            BFloat16(np.zeros(2, np.float32))

    def test_numpy_reads_it_as_float32(self):
        self.assertEqual(np.asarray(BFloat16.of([1.5])).dtype, np.float32)
        self.assertEqual(repr(BFloat16.of([1.5])), "BFloat16(array([1.5], dtype=float32))")


if __name__ == "__main__":
    unittest.main()
