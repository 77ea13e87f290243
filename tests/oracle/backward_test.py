"""Gradients are torch.autograd's: from a token or the input sent again, whole or by way of the sums of two workers."""

import random
import unittest

import grpc
import numpy as np
import torch

from exact_gradient import input_gradient
from server_process import ServerTestCase, array, pb, session_pb2, statistics_pb2, tensor, tensor_pb2

LAST = tensor_pb2.LAYOUT_CHANNELS_LAST
# ||error|| / ||gradient||; PyTorch in float64 is the judge.
BOUND = 4e-7


def error(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    wrong = np.linalg.norm(found - expected)
    return wrong and wrong / np.linalg.norm(expected)


class Case:
    """A layer, a batch and a gradient of its output, and what torch.autograd makes of them in float64."""

    def __init__(self, rng, affine=True):
        torch.manual_seed(rng.randrange(1 << 30))
        rank = rng.choice((2, 3, 4, 5))
        spatial = [rng.choice((1, 2, 3, 5, 8, 16)) for _ in range(rank - 2)]
        self.shape = (rng.choice((2, 3, 4, 7, 16)), rng.choice((1, 2, 3, 8, 17, 64)), *spatial)
        self.training = rng.random() < 0.7
        self.x = (torch.randn(self.shape) * 10 ** rng.uniform(-2, 2) + rng.choice((0.0, 1.0, 30.0)))
        self.g = torch.randn(self.shape) + rng.choice((0.0, 0.5, 3.0))
        if rng.random() < 0.2:  # the gradient of |y|^2 / 2, nearly all of which cancels
            self.g = torch.nn.functional.batch_norm(self.x.double(), None, None, training=True).float()
        self.weight = torch.rand(self.shape[1]) * 4 - 2 if affine else None
        self.mean = torch.randn(self.shape[1]).double()
        self.var = torch.rand(self.shape[1]).double() + 0.1
        x = self.x.double().requires_grad_()
        weight = torch.ones(self.shape[1]) if self.weight is None else self.weight
        weight = weight.double().requires_grad_()
        bias = torch.zeros(self.shape[1], dtype=torch.float64, requires_grad=True)
        y = torch.nn.functional.batch_norm(x, self.mean.clone(), self.var.clone(), weight, bias, self.training)
        y.backward(self.g.double())
        self.grads = x.grad.numpy(), weight.grad.numpy(), bias.grad.numpy()

    def __str__(self):
        return f"{list(self.shape)} {'train' if self.training else 'eval'}"


class Gradients(ServerTestCase):
    def create(self, case):
        parameters = statistics_pb2.Parameters()
        if case.weight is not None:
            parameters.weight.extend(case.weight.tolist())
        return self.stub.CreateSession(pb.CreateSessionRequest(
            config=session_pb2.SessionConfig(num_features=case.shape[1], affine=case.weight is not None),
            mode=session_pb2.MODE_TRAIN if case.training else session_pb2.MODE_EVAL, parameters=parameters,
            statistics=statistics_pb2.RunningStatistics(running_mean=case.mean.tolist(),
                                                        running_var=case.var.tolist()))).name

    def forward(self, name, x, layout=tensor_pb2.LAYOUT_CHANNELS_FIRST):
        return self.stub.Forward(pb.ForwardRequest(name=name, input=tensor(x, layout), return_saved_forward=True,
                                                   return_normalization=True))

    def check(self, case, reply, what):
        gradient, weight, bias = case.grads
        self.assertLessEqual(error(array(reply.grad_input), gradient), BOUND, what)
        if case.weight is None:
            self.assertEqual((len(reply.grad_weight), len(reply.grad_bias)), (0, 0))
            return
        self.assertLessEqual(error(reply.grad_weight, weight), BOUND, what)
        self.assertLessEqual(error(reply.grad_bias, bias), BOUND, what)

    def test_drawn_layers_have_the_gradients_of_autograd(self):
        rng = random.Random(20261)
        for i in range(120):
            case = Case(rng, affine=i % 5 != 0)
            with self.subTest(str(case)):
                name = self.create(case)
                saved = self.forward(name, case.x.numpy())
                g = tensor(case.g.numpy())
                token = self.stub.Backward(pb.BackwardRequest(name=name, saved_forward=saved.saved_forward, grad_output=g))
                self.check(case, token, "token")
                self.assertEqual(saved.normalization.from_batch, case.training)
                resent = pb.ResentForward(normalization=saved.normalization, input=tensor(case.x.numpy()))
                again = self.stub.Backward(pb.BackwardRequest(name=name, resent=resent, grad_output=g))
                self.assertEqual(again, token)
                sums = self.stub.Backward(pb.BackwardRequest(name=name, resent=resent, grad_output=g, stop_at_sums=True))
                self.assertFalse(sums.HasField("grad_input"))
                self.assertEqual((sums.sums, sums.grad_weight), (token.sums, token.grad_weight))
                rest = self.stub.Backward(pb.BackwardRequest(name=name, saved_forward=saved.saved_forward, grad_output=g,
                                                             start_from_sums=sums.sums, release_saved_forward=True))
                self.assertEqual(rest, token)
                # Released, and yet there for a retry.
                self.stub.Backward(pb.BackwardRequest(name=name, saved_forward=saved.saved_forward, grad_output=g))

    def test_of_two_values_a_channel_nearly_all_of_the_gradient_cancels(self):
        rng = np.random.default_rng(8)
        for i in range(60):
            shape = [(2, 5), (1, 5, 2), (2, 5, 1, 1)][i % 3]
            scale, epsilon = 10 ** rng.uniform(-6, 6), [1e-5, 1e-12, 1e-3, 0.0][i % 4]
            x = ((rng.standard_normal(shape) + rng.choice([0.0, 1000.0])) * scale).astype(np.float32)
            g = (rng.standard_normal(shape) + rng.choice([0.0, 3.0])).astype(np.float32)
            weight = rng.uniform(-2, 2, 5).astype(np.float32)
            name = self.stub.CreateSession(pb.CreateSessionRequest(
                config=session_pb2.SessionConfig(num_features=5, epsilon=epsilon),
                parameters=statistics_pb2.Parameters(weight=weight))).name
            saved = self.forward(name, x)
            resent = pb.ResentForward(normalization=saved.normalization, input=tensor(x))
            request = pb.BackwardRequest(name=name, saved_forward=saved.saved_forward, grad_output=tensor(g))
            # By way of the sums of two workers with one value a channel each, too.
            pieces = [(part, grad) for part, grad in zip(np.split(x, 2, -1), np.split(g, 2, -1))] if i % 3 == 1 else [
                (part, grad) for part, grad in zip(np.split(x, 2), np.split(g, 2))]
            sums = [self.stub.Backward(pb.BackwardRequest(
                name=name, resent=pb.ResentForward(normalization=saved.normalization, input=tensor(part)),
                grad_output=tensor(grad), stop_at_sums=True)).sums for part, grad in pieces]
            total = pb.GradientSums(count=2)
            for field in ("grad_output", "grad_output_centered_input", "centered_input", "centered_input_squared"):
                getattr(total, field).extend(np.add(getattr(sums[0], field), getattr(sums[1], field)))
            expected = input_gradient(x, g, weight, epsilon) if epsilon else np.zeros(shape)
            with self.subTest(shape=shape, scale=scale, epsilon=epsilon):
                found = self.stub.Backward(request)
                self.assertLessEqual(error(array(found.grad_input), expected), BOUND)
                joined = self.stub.Backward(pb.BackwardRequest(name=name, resent=resent, grad_output=tensor(g),
                                                               start_from_sums=total))
                self.assertLessEqual(error(array(joined.grad_input), expected), BOUND)

    def test_channels_last_gives_the_same_bits(self):
        rng = random.Random(2)
        for _ in range(20):
            case = Case(rng)
            with self.subTest(str(case)):
                name = self.create(case)
                saved = self.forward(name, case.x.numpy())
                first = self.stub.Backward(pb.BackwardRequest(name=name, saved_forward=saved.saved_forward,
                                                              grad_output=tensor(case.g.numpy())))
                name = self.create(case)
                saved = self.forward(name, np.moveaxis(case.x.numpy(), 1, -1), LAST)
                last = self.stub.Backward(pb.BackwardRequest(
                    name=name, saved_forward=saved.saved_forward,
                    grad_output=tensor(np.moveaxis(case.g.numpy(), 1, -1), LAST)))
                np.testing.assert_array_equal(np.moveaxis(array(last.grad_input), -1, 1), array(first.grad_input))
                self.assertEqual(last.sums, first.sums)

    def test_two_workers_that_add_their_sums_have_the_gradient_of_the_whole_batch(self):
        case = Case(random.Random(5))
        while not case.training or case.shape[0] < 4:
            case = Case(random.Random(case.shape[0] + int(case.x.sum())))
        whole = self.create(case)
        normalization = self.forward(whole, case.x.numpy()).normalization
        parts = [(case.x.numpy()[rows], case.g.numpy()[rows]) for rows in (slice(0, 3), slice(3, None))]
        sums = [self.stub.Backward(pb.BackwardRequest(
            name=whole, resent=pb.ResentForward(normalization=normalization, input=tensor(x)), grad_output=tensor(g),
            stop_at_sums=True)).sums for x, g in parts]
        total = pb.GradientSums(count=sums[0].count + sums[1].count)
        for field in ("grad_output", "grad_output_centered_input", "centered_input", "centered_input_squared"):
            getattr(total, field).extend(np.add(getattr(sums[0], field), getattr(sums[1], field)))
        pieces = [array(self.stub.Backward(pb.BackwardRequest(
            name=whole, resent=pb.ResentForward(normalization=normalization, input=tensor(x)), grad_output=tensor(g),
            start_from_sums=total)).grad_input) for x, g in parts]
        self.assertLessEqual(error(np.concatenate(pieces), case.grads[0]), BOUND)

    def test_what_does_not_fit_is_refused_by_name(self):
        case = Case(random.Random(7))
        name, other = self.create(case), self.create(case)
        saved = self.forward(name, case.x.numpy())
        g = case.g.numpy()
        good = {"name": name, "saved_forward": saved.saved_forward, "grad_output": tensor(g)}
        self.stub.Backward(pb.BackwardRequest(**good))
        cases = [
            ({"saved_forward": b"0123456789abcdef"}, grpc.StatusCode.FAILED_PRECONDITION, "resend|send the input again"),
            ({"name": other}, grpc.StatusCode.FAILED_PRECONDITION, "send the input again"),
            ({"grad_output": tensor(g[:-1])}, grpc.StatusCode.INVALID_ARGUMENT, "grad_output.shape is"),
            ({"grad_output": tensor(g.astype(np.float16))}, grpc.StatusCode.INVALID_ARGUMENT, "grad_output.data_type"),
            ({"name": "nobody"}, grpc.StatusCode.NOT_FOUND, "nobody"),
            ({"expected_generation": 77}, grpc.StatusCode.ABORTED, "77"),
            ({"start_from_sums": pb.GradientSums(count=1)}, grpc.StatusCode.INVALID_ARGUMENT, "start_from_sums"),
            ({"saved_forward": b""}, grpc.StatusCode.INVALID_ARGUMENT, "saved_forward nor resent"),
            ({"saved_forward": None, "resent": pb.ResentForward(input=tensor(case.x.numpy()))},
             grpc.StatusCode.INVALID_ARGUMENT, "resent.normalization.mean"),
        ]
        for change, code, text in cases:
            with self.subTest(text=text), self.assertRaises(grpc.RpcError) as raised:
                self.stub.Backward(pb.BackwardRequest(**{k: v for k, v in {**good, **change}.items() if v is not None}))
            self.assertEqual(raised.exception.code(), code, raised.exception.details())
            self.assertRegex(raised.exception.details(), text)

    def test_an_empty_batch_has_an_empty_gradient_from_every_source(self):
        empty = tensor(np.zeros((0, 3, 4), np.float32))
        for mode in (session_pb2.MODE_TRAIN, session_pb2.MODE_EVAL):
            name = self.stub.CreateSession(pb.CreateSessionRequest(
                config=session_pb2.SessionConfig(num_features=3, epsilon=0), mode=mode,
                statistics=statistics_pb2.RunningStatistics(running_mean=[0] * 3, running_var=[0] * 3))).name
            saved = self.stub.Forward(pb.ForwardRequest(name=name, input=empty, return_saved_forward=True,
                                                        return_normalization=True))
            self.assertEqual(saved.normalization.from_batch, mode == session_pb2.MODE_TRAIN)
            resent = pb.ResentForward(normalization=saved.normalization, input=empty)
            for source in ({"saved_forward": saved.saved_forward}, {"resent": resent}):
                sums = self.stub.Backward(pb.BackwardRequest(name=name, grad_output=empty, stop_at_sums=True, **source)).sums
                for start in ({}, {"start_from_sums": sums}):
                    with self.subTest(mode=mode, source=list(source), start=bool(start)):
                        reply = self.stub.Backward(pb.BackwardRequest(name=name, grad_output=empty, **source, **start))
                        self.assertEqual(list(reply.grad_input.shape), [0, 3, 4])
                        self.assertEqual((list(reply.grad_weight), list(reply.grad_bias)), ([0] * 3, [0] * 3))
                        self.assertEqual((reply.sums.count, list(reply.sums.grad_output)), (0, [0] * 3))

    def test_whatever_forward_and_backward_report_can_be_sent_again(self):
        x = np.random.default_rng(3).standard_normal((4, 2, 5)).astype(np.float32)
        infinite = x.copy()
        infinite[1, 0, 2] = np.inf
        g = x[::-1].copy()
        skip = {"non_finite_policy": session_pb2.NON_FINITE_POLICY_SKIP_UPDATE}
        cases = [("a batch that was skipped", skip, infinite, g, pb.NORMALIZED_WITH_BATCH),
                 ("an infinite gradient", {}, x, infinite, pb.NORMALIZED_WITH_BATCH),
                 ("a negative running variance", {"momentum": 2}, x, g, pb.NORMALIZED_WITH_RUNNING)]
        for what, config, values, gradient, use in cases:
            with self.subTest(what):
                name = self.stub.CreateSession(pb.CreateSessionRequest(
                    config=session_pb2.SessionConfig(num_features=2, **config))).name
                if use == pb.NORMALIZED_WITH_RUNNING:
                    self.stub.Forward(pb.ForwardRequest(name=name, input=tensor(x * np.float32(0.1))))
                    self.stub.SetMode(pb.SetModeRequest(name=name, mode=session_pb2.MODE_EVAL))
                saved = self.forward(name, values)
                self.assertEqual(saved.normalized_with, use)
                if use == pb.NORMALIZED_WITH_RUNNING:
                    self.assertLess(min(saved.normalization.var), 0)
                message = tensor(gradient)
                token = self.stub.Backward(pb.BackwardRequest(name=name, saved_forward=saved.saved_forward,
                                                              grad_output=message))
                resent = pb.ResentForward(normalization=saved.normalization, input=tensor(values))
                again = self.stub.Backward(pb.BackwardRequest(name=name, resent=resent, grad_output=message))
                rest = self.stub.Backward(pb.BackwardRequest(name=name, resent=resent, grad_output=message,
                                                             start_from_sums=token.sums))
                for reply in (again, rest):
                    np.testing.assert_array_equal(array(reply.grad_input), array(token.grad_input))
                    np.testing.assert_array_equal(reply.grad_weight, token.grad_weight)
                    np.testing.assert_array_equal(reply.grad_bias, token.grad_bias)

    def test_infinities_reach_the_gradients_that_autograd_gives_them(self):
        rng = np.random.default_rng(4)
        for training in (True, False):
            for infinite_input in (True, False):
                if training and infinite_input:
                    continue  # refused by default
                x, g = (rng.standard_normal((4, 2, 5)).astype(np.float32) for _ in range(2))
                (x if infinite_input else g)[1, 0, 2] = np.inf
                with self.subTest(training=training, infinite_input=infinite_input):
                    theirs = torch.from_numpy(x).double().requires_grad_()
                    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
                    bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)
                    torch.nn.functional.batch_norm(theirs, torch.zeros(2).double(), torch.ones(2).double(), weight, bias,
                                                   training).backward(torch.from_numpy(g).double())
                    mode = session_pb2.MODE_TRAIN if training else session_pb2.MODE_EVAL
                    name = self.stub.CreateSession(pb.CreateSessionRequest(
                        config=session_pb2.SessionConfig(num_features=2), mode=mode)).name
                    saved = self.forward(name, x)
                    reply = self.stub.Backward(pb.BackwardRequest(name=name, saved_forward=saved.saved_forward,
                                                                  grad_output=tensor(g)))
                    np.testing.assert_allclose(array(reply.grad_input), theirs.grad.numpy(), 1e-5, 1e-6)
                    np.testing.assert_allclose(reply.grad_weight, weight.grad.numpy(), 1e-5, 1e-6)
                    np.testing.assert_allclose(reply.grad_bias, bias.grad.numpy(), 1e-5, 1e-6)


if __name__ == "__main__":
    unittest.main()
