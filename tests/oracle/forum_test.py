"""The forum's question over a real server: equal statistics, and outputs that sum to about 0 and about 5.8e3.

https://discuss.pytorch.org: 'Inconsistent Batchnorm behavior in eval and training modes'.
"""

import copy
import json
import os
import subprocess
import unittest

import numpy as np
import torch

from server_process import ENGINE, ServerTestCase, array, pb, session_pb2, statistics_of, tensor, tensor_pb2

RELATIVE, ABSOLUTE = 1e-5, 1e-6


class ForumScenario(ServerTestCase):
    def assert_close(self, ours, torchs, what):
        np.testing.assert_allclose(ours, torchs.detach().numpy(), rtol=RELATIVE, atol=ABSOLUTE, err_msg=what)

    def forward(self, name, x):
        """Through the raw stub: name, shape and bytes, every other field left alone."""
        return self.stub.Forward(pb.ForwardRequest(
            name=name, input=tensor_pb2.Tensor(shape=x.shape, data=x.numpy().astype("<f4").tobytes())))

    def test_a_config_of_num_features_alone_is_batch_norm_2d_step_by_step(self):
        torch.manual_seed(0)
        x = torch.rand(4, 3, 32, 32)
        module = torch.nn.BatchNorm2d(3)
        session = self.stub.CreateSession(pb.CreateSessionRequest(config=session_pb2.SessionConfig(num_features=3)))
        self.assertTrue(session.name)
        self.assertEqual(session.mode, session_pb2.MODE_TRAIN)
        self.assertEqual(session.config.epsilon, module.eps)
        self.assertEqual(session.config.momentum, module.momentum)
        self.assertEqual(session.generation, 0)

        for step in range(1, 6):
            reply = self.forward(session.name, x)
            self.assert_close(array(reply.output), module(x), f"TRAIN output of step {step}")
            statistics = statistics_of(self.stub, session.name)
            self.assert_close(statistics.running_mean, module.running_mean, f"running_mean of step {step}")
            self.assert_close(statistics.running_var, module.running_var, f"running_var of step {step}")
            self.assertEqual(statistics.num_batches_tracked, step)
            self.assertEqual(reply.num_batches_tracked, module.num_batches_tracked.item())
            self.assertEqual((reply.snapshot_generation, reply.generation), (step - 1, step))
            self.assertEqual(reply.normalized_with, pb.NORMALIZED_WITH_BATCH)
            self.assertEqual(reply.update, pb.UPDATE_RUNNING)
            x = x * 0.9 + 0.3  # another batch each step

        module.eval()
        self.stub.SetMode(pb.SetModeRequest(name=session.name, mode=session_pb2.MODE_EVAL))
        before = statistics_of(self.stub, session.name)
        reply = self.forward(session.name, x)
        self.assert_close(array(reply.output), module(x), "EVAL output")
        self.assertEqual(reply.normalized_with, pb.NORMALIZED_WITH_RUNNING)
        self.assertEqual(reply.update, pb.UPDATE_NONE)
        self.assertEqual(statistics_of(self.stub, session.name), before)

    def test_two_deep_copies_with_equal_statistics_sum_to_0_and_to_5800(self):
        torch.manual_seed(1)
        x = torch.rand(4, 3, 32, 32)
        config = session_pb2.SessionConfig(num_features=3)
        original = self.stub.CreateSession(pb.CreateSessionRequest(config=config)).name
        names = [self.stub.CloneSession(pb.CloneSessionRequest(name=original)).name for _ in range(2)]
        module = torch.nn.BatchNorm2d(3)
        modules = [copy.deepcopy(module) for _ in range(2)]

        outputs = [array(self.forward(name, x).output) for name in names]
        torchs = [m(x) for m in modules]
        first, second = (statistics_of(self.stub, name) for name in names)
        self.assertEqual(first, second)
        self.assertTrue(np.allclose(first.running_mean, 0.05, atol=0.002), first.running_mean)
        self.assertTrue(np.allclose(first.running_var, 0.908, atol=0.002), first.running_var)
        self.assert_close(first.running_mean, modules[0].running_mean, "running_mean")
        self.assert_close(first.running_var, modules[0].running_var, "running_var")
        self.assertEqual(statistics_of(self.stub, original).num_batches_tracked, 0, "a clone is independent")

        self.stub.SetMode(pb.SetModeRequest(name=names[1], mode=session_pb2.MODE_EVAL))
        modules[1].eval()
        evaluated = array(self.forward(names[1], x).output)
        self.assert_close(outputs[0], torchs[0], "TRAIN output")
        self.assert_close(evaluated, modules[1](x), "EVAL output")
        train_sum, eval_sum = (float(y.astype(np.float64).sum()) for y in (outputs[0], evaluated))
        print(f"{ENGINE}: train sum {train_sum:.6g}, eval sum {eval_sum:.6g}")
        self.assertLess(abs(train_sum), 0.05)
        self.assertGreater(eval_sum, 5600)
        self.assertLess(eval_sum, 6000)

    def test_the_scenario_program_prints_what_pytorch_computes(self):
        """Its input is its own, so what follows from the input's statistics is recomputed from what it reports."""
        done = subprocess.run([os.environ["NORMSERVE_FORUM_PROGRAM"], "--server", self.server.address, "--json"],
                              capture_output=True, text=True, timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout.strip().splitlines()[-1])
        self.assertIs(result["statistics_equal"], True)
        self.assertEqual(result["bn1_running_mean"], result["bn2_running_mean"])
        self.assertEqual(result["bn1_running_var"], result["bn2_running_var"])
        running_mean, running_var = (torch.tensor(result[key], dtype=torch.float64)
                                     for key in ("bn1_running_mean", "bn1_running_var"))
        self.assertEqual(len(running_mean), 3)
        self.assertTrue(torch.allclose(running_mean, torch.full((3,), 0.05, dtype=torch.float64), atol=0.002))
        self.assertTrue(torch.allclose(running_var, torch.full((3,), 0.908, dtype=torch.float64), atol=0.002))
        self.assertLess(abs(result["train_sum"]), 0.05)

        # One update on a batch of mean m and unbiased variance v leaves 0.1 m and 0.9 + 0.1 v; an evaluation of the
        # same batch then sums to n * sum over channels of (m - running_mean) / sqrt(running_var + eps).
        count = 4 * 32 * 32
        batch_mean = running_mean / 0.1
        batch_var = (running_var - 0.9) / 0.1

        def eval_sum(updates):
            kept = 0.9 ** updates
            mean, var = (1 - kept) * batch_mean, kept + (1 - kept) * batch_var
            return float((count * (batch_mean - mean) / torch.sqrt(var + 1e-5)).sum())

        self.assertAlmostEqual(result["eval_sum"], eval_sum(1), delta=0.5)
        after = result["eval_sums_after"]
        pairs = after.items() if isinstance(after, dict) else zip((1, 10, 50, 100), after)
        sums = [(int(updates), float(value)) for updates, value in pairs]
        self.assertEqual([updates for updates, _ in sums], [1, 10, 50, 100])
        for updates, value in sums:
            self.assertAlmostEqual(value, eval_sum(updates), delta=0.5, msg=f"after {updates} updates")
        self.assertLess(abs(sums[-1][1]), 1.5)


if __name__ == "__main__":
    unittest.main()
