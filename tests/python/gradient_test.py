"""backward gives torch.autograd's gradients, from a token, from the input sent again, and by way of sums."""

import dataclasses
import unittest

import normserve
import numpy as np
import torch
from lossy_proxy import LossyProxy
from normserve import BFloat16
from server_process import ServerTestCase, pb

WEIGHT = np.array([0.5, 2.0, -1.0], np.float32)


def autograd(x, g):
    """grad_input, grad_weight, grad_bias of training, [N, C, *], in float64."""
    x = torch.from_numpy(np.asarray(x, np.float64)).requires_grad_()
    weight, bias = torch.from_numpy(WEIGHT).double().requires_grad_(), torch.zeros(3).double().requires_grad_()
    torch.nn.functional.batch_norm(x, None, None, weight, bias, True).backward(torch.from_numpy(np.asarray(g, np.float64)))
    return x.grad.numpy(), weight.grad.numpy(), bias.grad.numpy()


class Gradients(ServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = cls.enterClassContext(normserve.Client(cls.server.address))
        cls.bn = cls.client.create("gradients", 3, weight=WEIGHT)
        rng = np.random.default_rng(1)
        cls.x, cls.g = (rng.standard_normal((6, 3, 4, 2)).astype(np.float32) + 1 for _ in range(2))

    def assert_gradients(self, found, expected, close=1e-5):
        for one, other in zip((found.grad_input, found.grad_weight, found.grad_bias), expected):
            np.testing.assert_allclose(one, other, close, close)

    def test_gradients_are_autograds(self):
        result = self.bn.forward(self.x, save_for_backward=True)
        self.assertTrue(result.saved_forward)
        self.assertTrue(result.normalization.from_batch)
        np.testing.assert_allclose(result.normalization.mean, self.x.mean((0, 2, 3)), 1e-5)
        np.testing.assert_allclose(result.normalization.var, self.x.var((0, 2, 3)), 1e-5)
        np.testing.assert_array_equal(result.normalization.weight, WEIGHT)
        found = self.bn.backward(self.g, result)
        self.assert_gradients(found, autograd(self.x, self.g))
        self.assertEqual((found.resent, found.generation, found.uid), (False, result.generation, result.uid))
        self.assertEqual((found.grad_input.dtype, found.grad_weight.dtype, found.sums.count), (np.float32, np.float32, 48))

    def test_an_input_that_the_server_dropped_is_sent_again_as_it_was(self):
        x = self.x.copy()
        result = self.bn.forward(x, save_for_backward=True)
        expected = self.bn.backward(self.g, result)
        x[:] = 7  # a layer that works in place
        for token in (b"0123456789abcdef", None):
            found = self.bn.backward(self.g, dataclasses.replace(result, saved_forward=token))
            self.assertTrue(found.resent)
            np.testing.assert_array_equal(found.grad_input, expected.grad_input)
            np.testing.assert_array_equal(found.grad_weight, expected.grad_weight)

    def test_layouts_and_types_of_both_tensors_go_together(self):
        expected, close = autograd(self.x, self.g), 1e-5
        half = autograd(self.x.astype(np.float16), self.g.astype(np.float16))
        brain = autograd(BFloat16.of(self.x), BFloat16.of(self.g))
        last = lambda a: np.ascontiguousarray(np.moveaxis(a, 1, -1))  # noqa: E731
        cases = {
            "channels last": (last(self.x), last(self.g), "channels_last", expected, close),
            "memory channels last": (last(self.x).transpose(0, 3, 1, 2), self.g, "channels_first", expected, close),
            "one dense only": (self.x, last(self.g).transpose(0, 3, 1, 2), "channels_first", expected, close),
            "float16": (self.x.astype(np.float16), self.g.astype(np.float16), "channels_first", half, 2e-3),
            "bfloat16": (BFloat16.of(self.x), BFloat16.of(self.g), "channels_first", brain, 2e-2),
        }
        for what, (x, g, layout, expected, close) in cases.items():
            result = self.bn.forward(x, layout=layout, save_for_backward=True)
            for token in (result.saved_forward, None):
                with self.subTest(what, token=token is not None):
                    found = self.bn.backward(g, dataclasses.replace(result, saved_forward=token))
                    gradient = np.asarray(found.grad_input)
                    self.assertEqual(type(found.grad_input), type(x))
                    self.assertEqual(gradient.shape, np.asarray(x).shape)
                    gradient = np.moveaxis(gradient, -1, 1) if layout == "channels_last" else gradient
                    np.testing.assert_allclose(gradient, expected[0], close, close)

    def test_workers_that_add_their_sums_have_the_gradient_of_the_whole_batch(self):
        whole = self.bn.forward(self.x, save_for_backward=True)
        parts = []
        for rows in (slice(0, 2), slice(2, None)):
            part = self.bn.forward(self.x[rows], update="none", save_for_backward=True)
            parts.append((dataclasses.replace(part, saved_forward=None, normalization=whole.normalization), self.g[rows]))
        first, second = (self.bn.backward(g, part, stop_at_sums=True) for part, g in parts)
        self.assertIsNone(first.grad_input)
        total = first.sums + second.sums
        self.assertEqual(total.count, 48)
        pieces = [self.bn.backward(g, part, start_from_sums=total).grad_input for part, g in parts]
        np.testing.assert_allclose(np.concatenate(pieces), autograd(self.x, self.g)[0], 1e-5, 1e-5)

    def test_evaluation_and_layers_without_parameters_have_gradients(self):
        bn = self.client.create(num_features=3, affine=False, mode="eval", running_var=[4, 4, 4], eps=0)
        result = bn.forward(self.x, save_for_backward=True)
        self.assertFalse(result.normalization.from_batch)
        found = bn.backward(self.g, result, release=True)
        np.testing.assert_allclose(found.grad_input, self.g / 2, 1e-6)
        self.assertEqual((found.grad_weight, found.grad_bias, found.sums.centered_input_squared), (None, None, None))
        self.assertIsNone((found.sums + found.sums).centered_input_squared)

    def test_release_reaches_the_server(self):
        with LossyProxy(self.server.address) as proxy, normserve.Client(proxy.address) as client:
            bn = client.session(self.bn.name)
            result = bn.forward(self.x, save_for_backward=True)
            bn.backward(self.g, result)
            bn.backward(self.g, result, release=True)
        sent = [pb.BackwardRequest.FromString(message) for method, message, *_ in proxy.calls if method == "Backward"]
        self.assertEqual([request.release_saved_forward for request in sent], [False, True])

    def test_what_is_not_saved_is_not_held_on_to(self):
        self.assertIsNone(self.bn.forward(self.x)._sent)

    def test_what_does_not_fit_is_refused(self):
        with self.assertRaisesRegex(ValueError, "save_for_backward=True"):
            self.bn.backward(self.g, self.bn.forward(self.x))
        result = self.bn.forward(self.x, save_for_backward=True)
        for arguments, reason in (({"grad_output": self.g[:2]}, "SHAPE_MISMATCH"),
                                  ({"expected_generation": 0}, "GENERATION_MISMATCH"),
                                  ({"expected_uid": "x"}, "UID_MISMATCH")):  # fmt: skip
            with self.assertRaises(normserve.Error) as raised:
                self.bn.backward(**{"grad_output": self.g, "result": result, **arguments})
            self.assertEqual(raised.exception.reason, reason)


if __name__ == "__main__":
    unittest.main()
