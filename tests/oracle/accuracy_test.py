"""The error curve: how far variance, output and gradients are from double precision as the mean grows beside the spread.

Prints a table with PyTorch's float32 beside ours, and asserts the bounds that the service promises. By hand:
ctest --test-dir build/release -R oracle_accuracy_lavapipe --verbose
"""

import statistics
import unittest

import numpy as np
import torch

from server_process import ENGINE, ServerTestCase, array, pb, session_pb2, statistics_pb2, tensor

# What is promised: relative to the variance; to max(1, |y|) with weight 1 and bias 0; in Euclidean norm.
VARIANCE, OUTPUT, GRADIENT = 5e-7, 1e-6, 4e-7
# The median gradient error at each ratio beside PyTorch's.
MEDIAN_BESIDE_PYTORCH = 1.2
RATIOS = (0, 1, 10, 100, 1e3, 1e4, 1e5, 1e6)
SHAPES = ((16, 8, 14, 14), (64, 32), (4, 3, 33), (2, 2, 5000), (8, 64, 7, 7), (32, 5, 3))
EPSILON = 1e-5


def output_error(y, exact):
    return float(np.max(np.abs(np.asarray(y, np.float64) - exact) / np.maximum(1, np.abs(exact))))


def norm_error(found, exact):
    return float(np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact))


class Exact:
    """A batch whose mean is `ratio` standard deviations, and all that follows from it in double."""

    def __init__(self, shape, ratio, seed):
        rng = np.random.default_rng(seed)
        self.axes = (0, *range(2, len(shape)))
        self.x = (rng.standard_normal(shape) + ratio).astype(np.float32)
        self.g = rng.standard_normal(shape).astype(np.float32)
        # Two passes; the second takes back what rounding left in the mean.
        x = self.x.astype(np.longdouble)
        mean = x.mean(self.axes, keepdims=True)
        self.var = ((x - mean) ** 2).mean(self.axes, keepdims=True)
        xhat = (x - mean) / np.sqrt(self.var + EPSILON)
        g = self.g.astype(np.longdouble)
        self.y = xhat
        self.grad_bias = g.sum(self.axes)
        self.grad_weight = (g * xhat).sum(self.axes)
        spread = [-1 if i == 1 else 1 for i in range(len(shape))]
        count = x.size // shape[1]
        self.grad_input = (g - self.grad_bias.reshape(spread) / count
                           - xhat * self.grad_weight.reshape(spread) / count) / np.sqrt(self.var + EPSILON)
        # Statistics for evaluation that float32 cannot hold.
        self.running_mean = ratio + rng.standard_normal(shape[1]) * 0.1
        self.running_var = rng.random(shape[1]) + 0.5
        self.y_eval = (x - self.running_mean.reshape(spread)) / np.sqrt(self.running_var.reshape(spread) + EPSILON)


def by_pytorch(exact):
    """(variance, output, eval, gradient) errors of PyTorch in float32."""
    layer = torch.nn.BatchNorm1d(exact.x.shape[1], momentum=1.0)
    x = torch.from_numpy(exact.x).requires_grad_()
    y = torch.nn.functional.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, True, 1.0, EPSILON)
    y.backward(torch.from_numpy(exact.g))
    count = exact.x.size // exact.x.shape[1]
    var = layer.running_var.double().numpy() * (count - 1) / count
    e = torch.nn.functional.batch_norm(x, torch.tensor(exact.running_mean, dtype=torch.float32),
                                       torch.tensor(exact.running_var, dtype=torch.float32), None, None, False, 0, EPSILON)
    return (float(np.max(np.abs(var / exact.var.ravel() - 1))), output_error(y.detach().numpy(), exact.y),
            output_error(e.detach().numpy(), exact.y_eval), norm_error(x.grad.numpy(), exact.grad_input))


class ErrorCurve(ServerTestCase):
    def by_service(self, exact):
        """The same of the service; the gradients of weight and bias count too."""
        channels = exact.x.shape[1]
        name = self.stub.CreateSession(pb.CreateSessionRequest(config=session_pb2.SessionConfig(num_features=channels))).name
        reply = self.stub.Forward(pb.ForwardRequest(name=name, input=tensor(exact.x), return_batch_moments=True,
                                                    return_saved_forward=True))
        var = np.array(reply.batch_moments.m2) / reply.batch_moments.count
        backward = self.stub.Backward(pb.BackwardRequest(name=name, saved_forward=reply.saved_forward,
                                                         grad_output=tensor(exact.g)))
        self.parameter_error = max(norm_error(backward.grad_weight, exact.grad_weight),
                                   norm_error(backward.grad_bias, exact.grad_bias))
        evaluated = self.stub.CreateSession(pb.CreateSessionRequest(
            config=session_pb2.SessionConfig(num_features=channels), mode=session_pb2.MODE_EVAL,
            statistics=statistics_pb2.RunningStatistics(running_mean=exact.running_mean, running_var=exact.running_var)))
        e = self.stub.Forward(pb.ForwardRequest(name=evaluated.name, input=tensor(exact.x)))
        return (float(np.max(np.abs(var / exact.var.ravel() - 1))), output_error(array(reply.output), exact.y),
                output_error(array(e.output), exact.y_eval), norm_error(array(backward.grad_input), exact.grad_input))

    def test_errors_stay_within_the_bounds_at_every_mean(self):
        bounds = dict(zip(("variance", "output", "evaluation", "gradient"), (VARIANCE, OUTPUT, OUTPUT, GRADIENT)))
        print(f"\n{ENGINE}: largest error over {len(SHAPES)} shapes, ours and (PyTorch {torch.__version__}, float32)\n"
              f"{'mean/std':>9}" + "".join(f"{name:>24}" for name in bounds))
        for ratio in RATIOS:
            ours, theirs = [], []
            for seed, shape in enumerate(SHAPES):
                exact = Exact(shape, ratio, seed)
                ours.append(self.by_service(exact))
                theirs.append(by_pytorch(exact))
                with self.subTest(shape=shape, ratio=ratio):
                    for (name, bound), error in zip(bounds.items(), ours[-1]):
                        self.assertLessEqual(error, bound, name)
                    self.assertLessEqual(self.parameter_error, GRADIENT, "gradient of weight or bias")
            mine, others = (statistics.median(errors[3] for errors in of) for of in (ours, theirs))
            print(f"{ratio:9g}" + "".join(f"{max(o):12.1e} ({max(t):8.1e})" for o, t in zip(zip(*ours), zip(*theirs)))
                  + f"   median gradient {mine:.1e}, {mine / others:.2f} of PyTorch's")
            with self.subTest(ratio=ratio):
                self.assertLessEqual(mine, MEDIAN_BESIDE_PYTORCH * others, "median gradient error")


if __name__ == "__main__":
    unittest.main()
