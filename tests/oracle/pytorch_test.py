"""Drawn layers and batches give what PyTorch gives: output, batch moments, running statistics and gradients.

Of two to five dimensions, in every type and layout, with every averaging, with and without affine parameters and running
statistics, one to six batches in every mode. Each engine draws its own; NORMSERVE_ORACLE_SEED repeats a run,
NORMSERVE_ORACLE_CASES draws more.
"""

import dataclasses
import math
import os
import random
import unittest

import torch

import drawn_case
from server_process import ENGINE, ServerTestCase

CASES = int(os.environ.get("NORMSERVE_ORACLE_CASES", "400"))
SEED = int(os.environ.get("NORMSERVE_ORACLE_SEED", {"reference": "20231", "lavapipe": "20232"}.get(ENGINE, "20233")))


class DrawnLayers(ServerTestCase):
    def setUp(self):
        torch.set_num_threads(1)

    def fails(self, case):
        return bool(drawn_case.run(self.stub, case).mismatches)

    def test_agree_with_pytorch(self):
        rng = random.Random(SEED)
        failing, worst, values, float32, batches, shapes = [], (0.0, None), 0, 0, 0, set()
        gradients, worst_gradient, drawn = 0, 0.0, set()
        for _ in range(CASES):
            case = drawn_case.draw(rng)
            drawn.add(dataclasses.replace(case, seed=0))
            result = drawn_case.run(self.stub, case)
            if result.mismatches:
                failing.append(case)
            if result.worst > worst[0]:
                worst = (result.worst, case)
            values += result.values
            float32 += result.values_float32
            batches += len(case.steps)
            shapes.add(case.shape)
            gradients += result.gradients
            worst_gradient = max(worst_gradient, result.worst_gradient)
        print(f"{ENGINE}, seed {SEED}: {CASES} cases, {len(shapes)} shapes, {batches} batches, {values} values against "
              f"float64 PyTorch and {float32} against float32: {len(failing)} cases disagree; the worst value uses "
              f"{worst[0]:.3f} of the bound, in {worst[1]}; {gradients} gradients, the worst uses {worst_gradient:.3f} of "
              f"its bound")
        self.assertEqual(len(drawn), CASES, "configurations drawn twice")
        if failing:
            smallest = drawn_case.shrink(min(failing, key=lambda case: case.size()), self.fails)
            mismatches = drawn_case.run(self.stub, smallest).mismatches
            self.fail(f"seed {SEED}: {len(failing)} of {CASES} disagree; the smallest like them is\n  {smallest}\n  "
                      + "\n  ".join(mismatches[:8]))

    def test_a_planted_difference_is_found_and_shrunk(self):
        def differs(case):
            return bool(drawn_case.run(self.stub, case, planted_momentum=lambda momentum: 1 - momentum).mismatches)

        rng = random.Random(1)
        drawn = [drawn_case.draw(rng) for _ in range(20)]
        failing = [case for case in drawn if differs(case)]
        self.assertGreater(len(failing), 10)
        smallest = drawn_case.shrink(min(failing, key=lambda case: case.size()), differs)
        self.assertEqual(len(smallest.steps), 1, smallest)
        self.assertLessEqual(math.prod(smallest.shape), 3, smallest)


if __name__ == "__main__":
    unittest.main()
