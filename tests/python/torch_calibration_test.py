"""A model is diagnosed and calibrated on data, which its sessions observe, and its state dict goes to a server and back without it."""

import copy
import unittest
import uuid

import normserve
import normserve.torch
import numpy as np
import torch
from torch import nn

from server_process import ServerTestCase


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return x + torch.relu(self.norm(self.conv(x)))


def trained_model(seed=0):
    """Three layers, whose statistics are those of `data(...)`."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3), Residual(), Residual()).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
        for _ in range(60):
            model(data(32))
    return model


def data(count, scale=1.0, shift=0.0):
    return torch.randn(count, 3, 8, 8) * scale + shift


class TorchCase(ServerTestCase):
    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))
        self.name = "model-" + uuid.uuid4().hex


class Diagnose(TorchCase):
    def test_the_layer_at_which_the_data_changed_comes_first_and_nothing_is_changed(self):
        model = trained_model().eval()
        normserve.torch.push(model, self.client, self.name)
        before = copy.deepcopy(model.state_dict())
        healthy = normserve.torch.diagnose(model, [data(32) for _ in range(8)], self.client, self.name)
        self.assertEqual({each.verdict for each in healthy}, {"healthy"})
        drifted = [data(32, 0.3, 2) for _ in range(8)]
        found = normserve.torch.diagnose(model, [(x, None) for x in drifted], self.client, self.name)
        self.assertEqual((found[0].name, found[0].verdict), (self.name + "/1", "train_eval_gap"))
        self.assertGreater(found[0].relative_gap, 5 * found[1].relative_gap)
        self.assertEqual(found[0].batch_count, 8 * 32 * 36)
        for key, value in model.state_dict().items():
            self.assertTrue(torch.equal(value, before[key]), key)
        self.assertFalse(any(module.training for module in model.modules()))
        self.assertEqual({info.generation for info in self.client.model(self.name).list()}, {0})

    def test_no_data_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "nothing to tell"):
            normserve.torch.diagnose(trained_model(), [], self.client, self.name)


class Observing(TorchCase):
    def test_what_layers_are_fed_is_observed_as_one_part(self):
        model = trained_model().eval()
        normserve.torch.push(model, self.client, self.name)
        batches = [data(n) for n in (8, 4)]
        training = copy.deepcopy(model)
        for _, layer in normserve.torch.batch_norm_layers(training):
            layer.train()
        expected = normserve.torch.collect_moments(training, batches)
        for _ in range(2):
            seen = normserve.torch.push_moments(model, batches, self.client, self.name, part_id="part")
        self.assertEqual({layer: each.count for layer, each in seen.items()}, {name: expected[name].count for name in expected})
        for layer, moments in self.client.model(self.name).moments().items():
            np.testing.assert_allclose(moments.mean, expected[layer].mean, 1e-12)
            np.testing.assert_allclose(moments.m2, expected[layer].m2, 1e-12)
        other = normserve.torch.push_moments(model, batches[:1], self.client, self.name, reset=True)
        self.assertEqual(other["1"].count, 8 * 36)

    def test_pixels_that_hang_together_are_no_fault(self):
        layer = nn.BatchNorm2d(16)
        model = nn.Sequential(nn.Identity(), layer).train()
        rng = torch.Generator().manual_seed(3)

        def images(count):  # whose pixels are nearly one value
            return torch.randn(count, 16, 1, 1, generator=rng) + 0.1 * torch.randn(count, 16, 8, 8, generator=rng)

        with torch.no_grad():
            layer.momentum = None
            for _ in range(100):
                model(images(64))
        normserve.torch.push(model, self.client, self.name)
        normserve.torch.push_moments(model, [images(64)], self.client, self.name)
        found = self.client.model(self.name)
        (sound,) = found.diagnose(observed=True)
        self.assertEqual((sound.verdict, found.moments()["1"].num_samples), ("healthy", 64), sound.explanation)
        self.assertGreater(sound.relative_gap, 0.05)  # which is no small one
        (other,) = found.diagnose(observed=True, samples_per_batch=64 * 64)
        self.assertEqual(other.verdict, "train_eval_gap")

    def test_hooks_make_the_sessions_that_are_missing_and_send_what_training_feeds_them(self):
        model = trained_model()
        before, batches = copy.deepcopy(model), [data(8) for _ in range(4)]
        self.client.create(f"{self.name}/1", 4, labels={"mine": "yes"})
        with normserve.torch.hooks(model, self.client, self.name, every=2, interval=0) as sending:
            for batch in batches:
                model(batch)
        self.assertEqual((sending.sent, sending.dropped, sending.last_error), (2, 0, None))
        found = self.client.model(self.name)
        self.assertEqual([info.name for info in found.list()], [f"{self.name}/{layer}" for layer in ("1", "3.norm", "4.norm")])
        self.assertEqual(dict(found["1"].describe().config.labels), {"mine": "yes"})
        self.assertEqual(list(found["4.norm"].describe().running_mean), before[4].norm.running_mean.tolist())
        expected = normserve.Moments.of(np.concatenate([before[0](batches[i]).detach().double().numpy() for i in (0, 2)]))
        observed = found.moments()
        self.assertEqual({each.count for each in observed.values()}, {expected.count})
        np.testing.assert_allclose(observed["1"].mean, expected.mean, 1e-5, 1e-6)
        np.testing.assert_allclose(observed["1"].m2, expected.m2, 1e-5)

    def test_a_layer_by_itself_observes_too(self):
        layer = nn.BatchNorm1d(2)
        with normserve.torch.hooks(layer, self.client, self.name, every=1) as sending:
            layer(torch.randn(6, 2))
        self.assertEqual((sending.sent, self.client.session(self.name).moments().count), (1, 6))

    def test_a_layer_by_itself_is_pushed_diagnosed_and_calibrated_too(self):
        layer, batches = nn.BatchNorm1d(2), [torch.randn(50, 2) * 2 + 3 for _ in range(4)]
        layer.running_mean.fill_(5)
        layer.eval()
        normserve.torch.push(layer, self.client, self.name)
        self.assertEqual(normserve.torch.push_moments(layer, batches, self.client, self.name)[""].count, 200)
        (found,) = normserve.torch.diagnose(layer, batches, self.client, self.name)
        self.assertEqual((found.name, found.verdict), (self.name, "train_eval_gap"))
        for options in ({}, {"normalize": "population"}):
            calibrated = normserve.torch.calibrate(layer, batches, self.client, self.name, **options)
            np.testing.assert_allclose(calibrated[""].running_mean, torch.cat(batches).mean(dim=0), 1e-5)
            np.testing.assert_allclose(layer.running_mean, calibrated[""].running_mean, 1e-6)

    def test_training_goes_on_without_a_server(self):
        model = trained_model()
        with normserve.Client("127.0.0.1:1", retries=0) as nobody:
            with normserve.torch.hooks(model, nobody, self.name, every=1, interval=0, timeout=1) as sending:
                model(data(4))
        self.assertEqual((sending.sent, sending.dropped), (0, 1))
        self.assertEqual(sending.last_error.code.name, "UNAVAILABLE")


class Calibrate(TorchCase):
    def setUp(self):
        super().setUp()
        self.model = trained_model().eval()
        normserve.torch.push(self.model, self.client, self.name)
        self.batches = [data(16, 0.3, 2) for _ in range(6)]

    def estimated_by_pytorch(self):
        model = copy.deepcopy(self.model)
        for _, layer in normserve.torch.batch_norm_layers(model):
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
        with torch.no_grad():
            for batch in self.batches:
                model(batch)
        return model

    def assert_close(self, found, expected):
        for (name, layer), (_, other) in zip(
            normserve.torch.batch_norm_layers(found), normserve.torch.batch_norm_layers(expected), strict=True
        ):
            torch.testing.assert_close(layer.running_mean, other.running_mean, rtol=1e-5, atol=1e-6, msg=name)
            torch.testing.assert_close(layer.running_var, other.running_var, rtol=1e-5, atol=1e-9, msg=name)

    def test_algorithm_2_is_what_pytorch_estimates(self):
        expected = self.estimated_by_pytorch()
        before = copy.deepcopy(self.model.state_dict())
        stands = normserve.torch.calibrate(self.model, self.batches, self.client, self.name, estimator="algorithm_2")
        self.assert_close(self.model, expected)
        for key in ("0.weight", "1.weight", "1.bias"):
            self.assertTrue(torch.equal(self.model.state_dict()[key], before[key]), key)
        self.assertEqual(list(stands["1"].running_mean_before), before["1.running_mean"].tolist())
        self.assertEqual(int(self.model[1].num_batches_tracked), 6)
        self.assertFalse(any(module.training for module in self.model.modules()))
        pulled = copy.deepcopy(self.model)
        normserve.torch.pull(pulled, self.client, self.name)
        for key, value in self.model.state_dict().items():
            self.assertTrue(torch.equal(pulled.state_dict()[key], value), key)
        self.assertEqual({info.generation for info in self.client.model(self.name).list()}, {1})

    def test_pooled_is_all_values_as_one_sample_whoever_brings_them(self):
        training = copy.deepcopy(self.model)
        for _, layer in normserve.torch.batch_norm_layers(training):
            layer.train()
        whole = normserve.torch.collect_moments(training, self.batches)
        before = copy.deepcopy(self.model.state_dict())
        normserve.torch.calibrate(self.model, self.batches[:2], self.client, self.name, calibration_id="x", worker="a", commit=False)
        for key, value in self.model.state_dict().items():
            self.assertTrue(torch.equal(value, before[key]), key)
        stands = normserve.torch.calibrate(self.model, self.batches[2:], self.client, self.name, calibration_id="x", worker="b")
        for layer, moments in whole.items():
            self.assertEqual(stands[layer].num_batches, 6)
            np.testing.assert_allclose(stands[layer].running_mean, moments.mean, 1e-12)
            np.testing.assert_allclose(stands[layer].running_var, moments.var(unbiased=True), 1e-12)

    def test_with_the_population_s_normalisation_evaluation_is_consistent(self):
        normserve.torch.calibrate(self.model, self.batches, self.client, self.name, normalize="population")
        for name, moments in normserve.torch.collect_moments(self.model, self.batches).items():
            layer = self.model.get_submodule(name)
            np.testing.assert_allclose(layer.running_mean.numpy(), moments.mean, 1e-4, 1e-5)
            np.testing.assert_allclose(layer.running_var.numpy(), moments.var(unbiased=True), 1e-4)

    def test_a_snapshot_takes_the_result_and_a_failure_changes_nothing(self):
        before = copy.deepcopy(self.model.state_dict())

        def fails():
            yield self.batches[0]
            raise RuntimeError("the loader is broken")

        with self.assertRaisesRegex(RuntimeError, "broken"):
            normserve.torch.calibrate(self.model, fails(), self.client, self.name)
        normserve.torch.calibrate(self.model, self.batches, self.client, self.name, to_snapshot="new")
        for key, value in self.model.state_dict().items():
            self.assertTrue(torch.equal(value, before[key]), key)
        model = self.client.model(self.name)
        self.assertEqual({info.generation for info in model.list()}, {0})
        self.assertEqual({each.snapshot for each in model.list_snapshots()}, {"new"})
        for options, text in (({"normalize": "x"}, "normalize is 'x'"),
                              ({"normalize": "population", "estimator": "algorithm_2"}, "one worker")):  # fmt: skip
            with self.assertRaisesRegex(ValueError, text):
                normserve.torch.calibrate(self.model, self.batches, self.client, self.name, **options)
        with self.assertRaisesRegex(ValueError, "nothing to estimate"):
            normserve.torch.calibrate(self.model, [], self.client, self.name)


class Sequential(unittest.TestCase):
    def test_what_is_found_is_what_evaluation_feeds_the_layers_then(self):
        model = trained_model().eval()
        drifted = [data(16, 0.3, 2) for _ in range(4)]
        before = copy.deepcopy(model.state_dict())
        found = normserve.torch.collect_sequentially(model, drifted)
        for key, value in model.state_dict().items():
            self.assertTrue(torch.equal(value, before[key]), key)
        for name, layer in normserve.torch.batch_norm_layers(model):
            layer.running_mean.copy_(torch.from_numpy(found[name].mean))
            layer.running_var.copy_(torch.from_numpy(found[name].var(unbiased=True)))
        for name, moments in normserve.torch.collect_moments(model, drifted).items():
            self.assertEqual(moments.count, found[name].count)
            np.testing.assert_allclose(moments.mean, found[name].mean, 1e-4, 1e-5)
            np.testing.assert_allclose(moments.m2, found[name].m2, 1e-4)

    def test_a_loader_that_ends_is_refused(self):
        with self.assertRaisesRegex(ValueError, "iterator"):
            normserve.torch.collect_sequentially(trained_model(), iter([data(4)]))


class StateDict(TorchCase):
    def test_a_state_dict_makes_the_round_trip_without_its_model(self):
        model = trained_model()
        state = model.state_dict()
        normserve.torch.push_state_dict(state, self.client, self.name)
        layers = [self.client.model(self.name).layer(info.name) for info in self.client.model(self.name).list()]
        self.assertEqual(layers, ["1", "3.norm", "4.norm"])
        self.assertEqual({info.mode for info in self.client.model(self.name).list()}, {"eval"})
        other = trained_model(seed=1)
        pulled = normserve.torch.pull_state_dict(self.client, self.name, other.state_dict())
        other.load_state_dict(pulled, strict=True)
        for key, value in state.items():
            of_layer = key.rpartition(".")[0] in layers
            self.assertEqual(torch.equal(other.state_dict()[key], value), of_layer, key)
            self.assertEqual(other.state_dict()[key].dtype, value.dtype)
        alone = normserve.torch.pull_state_dict(self.client, self.name)
        self.assertEqual(set(alone), {key for key in state if key.rpartition(".")[0] in layers})
        self.assertEqual(trained_model(seed=2).load_state_dict(alone, strict=False).unexpected_keys, [])

    def test_half_precision_and_layers_without_parameters_or_counters_come_back_as_they_were(self):
        plain = nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(3)).half()
        state = plain.state_dict()
        state["1.running_mean"] += 0.1
        del state["0.num_batches_tracked"]
        self.assertEqual(len(normserve.torch.push_state_dict(state, self.client, self.name, momentum=None).layers), 2)
        self.assertIsNone(self.client.model(self.name)["0"].describe().config.momentum)
        full = plain.state_dict() | state
        pulled = normserve.torch.pull_state_dict(self.client, self.name, full)
        for key, value in full.items():
            self.assertTrue(torch.equal(pulled[key], value) and pulled[key].dtype == value.dtype, key)
        # As old checkpoints have it: no counter, or one in a list.
        old = state | {"1.num_batches_tracked": state["1.num_batches_tracked"].reshape(1)}
        pulled = normserve.torch.pull_state_dict(self.client, self.name, old)
        self.assertEqual(set(pulled), set(old))
        self.assertEqual(pulled["1.num_batches_tracked"].shape, (1,))

    def test_what_does_not_fit_is_refused(self):
        with self.assertRaisesRegex(normserve.Error, "no_model"):
            normserve.torch.pull_state_dict(self.client, "no_model")
        with self.assertRaises(normserve.Error):
            normserve.torch.push_state_dict({"weight": torch.zeros(3)}, self.client, self.name)
        layer = nn.BatchNorm1d(3)
        normserve.torch.push_state_dict({f"a.{key}": value for key, value in layer.state_dict().items()}, self.client, self.name)
        for state, text in (({}, "no such entry"), ({"a.weight": torch.zeros(2)}, r"shape \[2\]")):
            with self.assertRaisesRegex(ValueError, text):
                normserve.torch.pull_state_dict(self.client, self.name, state)


if __name__ == "__main__":
    unittest.main()
