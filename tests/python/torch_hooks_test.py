"""Moments are sent while a model trains, and whatever becomes of them, training goes on."""

import copy
import threading
import unittest

import normserve
import normserve.torch
import numpy as np
import torch
from normserve.torch_hooks import TrainingHooks
from torch import nn

DEADLINE_SECONDS = 60  # for what should take no time


class Model(nn.Module):
    """A layer that is used twice, one that is frozen, and an ordinary one."""

    def __init__(self):
        super().__init__()
        self.twice = nn.BatchNorm1d(3)
        self.frozen = nn.BatchNorm1d(3)
        self.last = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))

    def forward(self, x):
        return self.last(self.frozen(self.twice(self.twice(x) * 2 + 1)))


def batches(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8 + i, 3, generator=generator) * 3 + 5 for i in range(count)]


class Receiver:
    """Stands for the server: keeps what is sent, once it may."""

    def __init__(self, error=None, waits=False):
        self.error = error
        self.parts = []
        self.called = threading.Event()
        self.may_go_on = threading.Event()
        if not waits:
            self.may_go_on.set()

    def __call__(self, moments):
        self.called.set()
        self.may_go_on.wait(DEADLINE_SECONDS)
        if self.error is not None:
            raise self.error
        self.parts.append(moments)

    def total(self, layer):
        return sum(part[layer] for part in self.parts)


def hooks(model, send, **options):
    return TrainingHooks(model, send, **{"every": 1, "queue_size": 64, "interval": 0, "flush_timeout": DEADLINE_SECONDS} | options)


class Hooks(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(1)
        self.model = Model().train()
        self.model.frozen.eval()

    def test_what_layers_are_fed_arrives_and_training_is_as_without(self):
        plain, receiver, data = copy.deepcopy(self.model), Receiver(), batches(5)
        expected = normserve.torch.collect_moments(plain, data)
        for batch in data:
            plain(batch)
        with hooks(self.model, receiver) as sending:
            for batch in data:
                self.model(batch)
        self.assertEqual((sending.sent, sending.dropped, sending.errors), (5, 0, 0))
        for layer in ("twice", "last.1"):
            found = receiver.total(layer)
            self.assertEqual(found.count, expected[layer].count)
            self.assertEqual(found.num_samples, sum(len(batch) for batch in data))
            np.testing.assert_allclose(found.mean, expected[layer].mean, 1e-5, 1e-5)
            np.testing.assert_allclose(found.m2, expected[layer].m2, 1e-5)
        self.assertNotIn("frozen", receiver.parts[0], "it does not train")
        for key, value in plain.state_dict().items():
            self.assertTrue(torch.equal(self.model.state_dict()[key], value), key)

    def test_only_every_kth_training_step_is_sent(self):
        receiver, data = Receiver(), batches(7)
        with hooks(self.model, receiver, every=3) as sending:
            for batch in data:
                self.model(batch)
                self.model.eval()
                self.model(batch)
                self.model.train()
        self.assertEqual(sending.sent, 3)
        self.assertEqual(receiver.total("last.1").count, sum(len(data[i]) for i in (0, 3, 6)))

    def test_a_server_that_hangs_costs_the_oldest_steps_and_none_is_waited_for(self):
        receiver, data = Receiver(waits=True), batches(10)
        with hooks(self.model, receiver, queue_size=4) as sending:
            self.model(data[0])
            self.assertTrue(receiver.called.wait(DEADLINE_SECONDS))
            for batch in data[1:]:
                self.model(batch)  # nine, while the first is under way
            self.assertEqual(sending.dropped, 5)
            receiver.may_go_on.set()
        self.assertEqual((sending.sent, sending.dropped), (5, 5))
        self.assertEqual(receiver.total("last.1").count, sum(len(data[i]) for i in (0, 6, 7, 8, 9)))

    def test_errors_are_counted_and_kept_and_never_raised(self):
        receiver = Receiver(error=ConnectionError("gone"))
        with hooks(self.model, receiver) as sending:
            for batch in batches(3):
                self.model(batch)
                self.assertTrue(sending.flush(DEADLINE_SECONDS))
        self.assertEqual((sending.sent, sending.dropped), (0, 3))
        self.assertGreaterEqual(sending.errors, 1)
        self.assertIs(sending.last_error, receiver.error)

    def test_leaving_takes_the_hooks_out_ends_the_thread_and_gives_up_on_a_server_that_hangs(self):
        receiver = Receiver(waits=True)
        with self.assertRaisesRegex(RuntimeError, "training broke"):
            with hooks(self.model, receiver, flush_timeout=0) as sending:
                thread = sending._thread
                for batch in batches(2):
                    self.model(batch)
                raise RuntimeError("training broke")
        for module in self.model.modules():
            self.assertFalse(module._forward_pre_hooks or module._forward_hooks)
        self.assertEqual((sending.sent, sending.dropped), (0, 2), "what is on its way is given up too")
        self.assertIsInstance(sending.last_error, TimeoutError)
        receiver.may_go_on.set()
        thread.join(DEADLINE_SECONDS)
        self.assertFalse(thread.is_alive())
        self.assertEqual((sending.sent, sending.dropped), (0, 2))

    def test_a_step_that_is_not_finite_leaves_the_others_alone(self):
        receiver, data = Receiver(waits=True), batches(4)
        with hooks(self.model, receiver) as sending:
            self.model(data[0])
            self.assertTrue(receiver.called.wait(DEADLINE_SECONDS))
            self.model(data[1])  # these three travel together
            self.model(data[2] * torch.nan)
            self.model(data[3])
            receiver.may_go_on.set()
        # The running statistics are NaN from then on, and so is what the second layer is fed; the first one's input is not.
        self.assertEqual(receiver.total("twice").count, 2 * (len(data[0]) + len(data[1]) + len(data[3])))
        self.assertEqual((sending.sent, sending.dropped), (3, 1))
        self.assertIsInstance(sending.last_error, ValueError)

    def test_a_failed_forward_sends_nothing_of_its_step(self):
        receiver, data = Receiver(), batches(2)
        with hooks(self.model, receiver):
            with self.assertRaises(RuntimeError):
                self.model(torch.zeros(8, 2))
            self.model(data[1])
        self.assertEqual(receiver.total("last.1").count, len(data[1]))

    def test_a_single_layer_and_half_precision_are_fed_too(self):
        for dtype in (torch.float32, torch.bfloat16):
            layer, receiver = nn.BatchNorm1d(3).to(dtype), Receiver()
            with hooks(layer, receiver):
                layer(batches(1)[0].to(dtype))
            np.testing.assert_allclose(receiver.total("").mean, batches(1)[0].to(dtype).double().mean(0), 1e-5)

    def test_every_shape_and_stride_is_summed_up_right_also_far_from_zero(self):
        for shape, layer in (((6, 3), nn.BatchNorm1d(3)), ((6, 3, 5), nn.BatchNorm1d(3)), ((4, 3, 5, 6), nn.BatchNorm2d(3)),
                             ((2, 3, 4, 5, 6), nn.BatchNorm3d(3))):  # fmt: skip
            for mean in (0, 1e3, 1e5):
                x = torch.randn(shape) + mean
                for each in [x, x.contiguous(memory_format=torch.channels_last)] if len(shape) == 4 else [x]:
                    receiver = Receiver()
                    with hooks(layer, receiver):
                        layer(each)
                    expected, found = normserve.Moments.of(x.double().numpy()), receiver.total("")
                    self.assertEqual(found.count, expected.count)
                    np.testing.assert_allclose(found.mean, expected.mean, 1e-6, 1e-6)
                    np.testing.assert_allclose(found.m2, expected.m2, 1e-5)

    def test_impossible_options_are_refused(self):
        for options in ({"every": 0}, {"queue_size": 0}, {"interval": -1}, {"interval": float("nan")}):
            with self.assertRaisesRegex(ValueError, "at least"):
                hooks(self.model, Receiver(), **options)


if __name__ == "__main__":
    unittest.main()
