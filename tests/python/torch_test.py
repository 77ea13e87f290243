"""A model's layers go to a server and come back as they were; moments of what layers are fed are exact."""

import copy
import unittest

import grpc
import normserve
import numpy as np
import torch
from normserve import Moments
from server_process import ServerTestCase
from torch import nn


class Model(nn.Module):
    """Batch norm of one, two and three dimensions, with and without what a layer may have."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, 4, 1), nn.BatchNorm3d(4, momentum=None), nn.ReLU())
        self.body = nn.ModuleDict({
            "conv": nn.Conv2d(4, 5, 3), "norm": nn.BatchNorm2d(5, eps=1e-3, momentum=0.3),
            "plain": nn.BatchNorm2d(5, affine=False), "stateless": nn.BatchNorm2d(5, track_running_stats=False)})  # fmt: skip
        self.head = nn.Linear(5, 6)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        x = self.stem(x).mean(2)
        x = self.body.stateless(self.body.plain(self.body.norm(self.body.conv(x))))
        return self.norm(self.head(x.mean((2, 3))))


NAMES = ["stem.1", "body.norm", "body.plain", "body.stateless", "norm"]


def trained_model(seed=0):
    torch.manual_seed(seed)
    model = Model()
    with torch.no_grad():
        for _, layer in normserve.torch.batch_norm_layers(model):
            if layer.affine:
                layer.weight.uniform_(-1, 2)
                layer.bias.normal_()
    model.train()
    for _ in range(3):
        model(torch.randn(8, 1, 2, 6, 6) * 3 + 1)
    model.stem.eval()  # a frozen layer
    return model


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


class ModelTestCase(ServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = cls.enterClassContext(normserve.Client(cls.server.address))

    def assert_same_state(self, found, expected):
        self.assertEqual(found.keys(), expected.keys())
        for key, value in expected.items():
            self.assertEqual((found[key].dtype, found[key].tolist()), (value.dtype, value.tolist()), key)


class Layers(unittest.TestCase):
    def test_layers_have_the_names_of_the_state_dict(self):
        model = Model()
        self.assertEqual([name for name, _ in normserve.torch.batch_norm_layers(model)], NAMES)
        for name, layer in normserve.torch.batch_norm_layers(model):
            self.assertIs(model.get_submodule(name), layer)
        layer = nn.BatchNorm1d(2)
        self.assertEqual(list(normserve.torch.batch_norm_layers(layer)), [("", layer)])
        self.assertEqual(list(normserve.torch.batch_norm_layers(nn.Sequential(nn.InstanceNorm1d(2), nn.Linear(1, 1)))), [])


class PushAndPull(ModelTestCase):
    def test_every_layer_becomes_a_session_like_it(self):
        model = trained_model()
        normserve.torch.push(model, self.client, "push/all")
        infos = {info.name: self.client.session(info.name).describe() for info in self.client.list("push/all")}
        self.assertEqual(sorted(infos), sorted("push/all/" + name for name in NAMES))
        for name, layer in normserve.torch.batch_norm_layers(model):
            info = infos["push/all/" + name]
            config = info.config
            self.assertEqual((config.num_features, config.eps), (layer.num_features, layer.eps))
            self.assertEqual((config.momentum, config.affine), (layer.momentum, layer.affine))
            self.assertEqual(config.track_running_stats, layer.track_running_stats)
            self.assertEqual(info.mode, "train" if layer.training else "eval")
            for key in ("weight", "bias", "running_mean", "running_var"):
                found, expected = getattr(info, key), getattr(layer, key)
                self.assertEqual(None if found is None else found.tolist(), None if expected is None else expected.tolist())
            self.assertEqual(info.num_batches_tracked, int(layer.num_batches_tracked or 0))

    def test_a_session_computes_what_its_layer_computes(self):
        model = trained_model()
        normserve.torch.push(model, self.client, "push/compute")
        x = torch.randn(4, 4, 2, 3, 3)
        y = self.client.session("push/compute/stem.1").forward(normserve.torch.to_numpy(x)).output
        np.testing.assert_allclose(y, model.stem[1](x).detach().numpy(), 1e-5, 1e-5)

    def test_a_round_trip_leaves_the_state_dict_equal(self):
        for dtype in (torch.float32, torch.float16):
            prefix = f"push/{str(dtype).removeprefix('torch.')}"
            model = trained_model().to(dtype)
            before, other = state(model), trained_model(seed=1).to(dtype)
            normserve.torch.push(model, self.client, prefix)
            normserve.torch.pull(model, self.client, prefix)
            self.assert_same_state(state(model), before)
            normserve.torch.pull(other, self.client, prefix + "/")
            layers = {key: value for key, value in before.items() if key.rsplit(".", 1)[0] in NAMES}
            self.assert_same_state({key: state(other)[key] for key in layers}, layers)

    def test_a_layer_by_itself_is_the_session_named_by_the_prefix(self):
        layer = nn.BatchNorm1d(2)
        normserve.torch.push(layer, self.client, "push/single")
        self.client.session("push/single").set_parameters(weight=[3, 4])
        normserve.torch.pull(layer, self.client, "push/single")
        self.assertEqual(layer.weight.tolist(), [3, 4])

    def test_training_on_the_server_comes_back(self):
        model, x = trained_model(), torch.randn(16, 6)
        normserve.torch.push(model, self.client, "push/trained")
        expected = copy.deepcopy(model.norm)
        expected(x)
        self.client.session("push/trained/norm").forward(x.numpy())
        normserve.torch.pull(model, self.client, "push/trained")
        self.assertEqual(model.norm.num_batches_tracked, expected.num_batches_tracked)
        torch.testing.assert_close(model.norm.running_mean, expected.running_mean)
        torch.testing.assert_close(model.norm.running_var, expected.running_var)

    def test_pushing_again_changes_only_what_differs(self):
        model = trained_model()
        push = lambda: normserve.torch.push(model, self.client, "push/again")  # noqa: E731
        describe = lambda name: self.client.session("push/again/" + name).describe()  # noqa: E731
        push()
        before = {name: describe(name) for name in NAMES}
        push()
        self.assertEqual([(describe(n).uid, describe(n).generation) for n in NAMES], [(before[n].uid, 0) for n in NAMES])
        with torch.no_grad():
            model.norm.weight += 1
        model.norm.eval()
        model.body.plain.eval()
        self.client.session("push/again/body.norm").snapshot("kept")  # in nobody's way
        push()
        self.assertEqual((describe("norm").uid, describe("norm").generation), (before["norm"].uid, 2))
        self.assertEqual(describe("norm").mode, "eval")
        self.assertEqual(describe("norm").weight.tolist(), model.norm.weight.tolist())
        self.assertEqual((describe("body.plain").mode, describe("body.plain").uid), ("eval", before["body.plain"].uid))
        self.assertEqual(describe("body.norm").generation, 0)

    def test_other_statistics_are_replaced_and_another_configuration_makes_the_session_anew_with_its_labels(self):
        layer = nn.BatchNorm1d(2)
        for change, is_anew in ((lambda: layer.running_mean.add_(1), False), (lambda: layer.running_var.add_(1), False),
                                (lambda: layer.num_batches_tracked.add_(1), False),
                                (lambda: setattr(layer, "momentum", None), True),
                                (lambda: setattr(layer, "eps", 0.5), True)):  # fmt: skip
            bn = self.client.create("push/anew", 2, labels={"team": "vision"}, non_finite_policy="skip_update")
            normserve.torch.push(layer, self.client, "push/anew")
            uid = bn.describe().uid
            bn.observe(normserve.Moments(3, np.zeros(2), np.ones(2)))
            change()
            normserve.torch.push(layer, self.client, "push/anew")
            info = bn.describe()
            self.assertEqual((info.uid != uid, bn.moments().count), (is_anew, 0 if is_anew else 3))
            self.assertEqual((dict(info.config.labels), info.config.non_finite_policy), ({"team": "vision"}, "skip_update"))
            self.assertEqual((info.config.momentum, info.config.eps), (layer.momentum, layer.eps))
            self.assertEqual((list(info.running_mean), list(info.running_var)),
                             (layer.running_mean.tolist(), layer.running_var.tolist()))  # fmt: skip
            self.assertEqual(info.num_batches_tracked, int(layer.num_batches_tracked))
            bn.delete()

    def test_a_session_that_another_framework_keeps_becomes_torchs(self):
        for options in ({"running_variance": "biased"}, {"zero_debiased": True}):
            bn = self.client.create("push/keras", 2, **options)
            normserve.torch.push(nn.BatchNorm1d(2), self.client, "push/keras")
            config = bn.describe().config
            self.assertEqual((config.running_variance, config.zero_debiased), ("unbiased", False))
            bn.delete()

    def test_snapshots_are_never_deleted_by_a_push(self):
        model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
        normserve.torch.push(model, self.client, "push/kept")
        self.client.session("push/kept/1").snapshot("before")
        model(torch.randn(4, 2))
        model[0].eval()
        model[1].eps = 0.5
        with self.assertRaisesRegex(ValueError, 'session "push/kept/1" has 1 snapshots'):
            normserve.torch.push(model, self.client, "push/kept")
        self.assertEqual([info.num_batches_tracked for info in self.client.list("push/kept")], [0, 0])
        model[1].eps = 1e-5
        normserve.torch.push(model, self.client, "push/kept")
        found = list(self.client.list("push/kept"))
        self.assertEqual([(info.num_batches_tracked, info.mode, info.num_snapshots) for info in found],
                         [(1, "eval", 0), (1, "train", 1)])  # fmt: skip
        again = copy.deepcopy(model)
        for layer in again:
            layer.reset_running_stats()
        normserve.torch.pull(again, self.client, "push/kept")
        self.assert_same_state(state(again), state(model))

    def test_float64_parameters_are_refused_before_anything_is_pushed(self):
        model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2).double())
        with self.assertRaisesRegex(ValueError, r'layer "1" has weight in float64.*model\.float\(\)'):
            normserve.torch.push(model, self.client, "push/double")
        self.assertEqual(list(self.client.list("push/double")), [])

    def test_statistics_in_float64_make_the_round_trip(self):
        layer = nn.BatchNorm1d(2, affine=False).double()
        layer.running_mean.copy_(torch.tensor([1 / 3, 1e-300], dtype=torch.float64))
        before = state(layer)
        normserve.torch.push(layer, self.client, "push/precise")
        layer.reset_running_stats()
        normserve.torch.pull(layer, self.client, "push/precise")
        self.assert_same_state(state(layer), before)

    def test_a_failed_pull_writes_nothing(self):
        model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
        normserve.torch.push(model, self.client, "pull/failed")
        model(torch.randn(4, 2))
        before, session = state(model), self.client.session("pull/failed/1")
        session.delete()
        with self.assertRaises(normserve.Error) as raised:
            normserve.torch.pull(model, self.client, "pull/failed")
        self.assertEqual(raised.exception.code, grpc.StatusCode.NOT_FOUND)
        for options, text in (({"num_features": 3}, r"weight of shape \[2\].*shape \[3\]"),
                              ({"num_features": 2, "affine": False}, "weight of shape .* none"),
                              ({"num_features": 2, "track_running_stats": False}, "running_mean of shape .* none")):  # fmt: skip
            self.client.create("pull/failed/1", **options)
            with self.assertRaisesRegex(ValueError, text):
                normserve.torch.pull(model, self.client, "pull/failed")
            session.delete()
        self.assert_same_state(state(model), before)
        # And what a layer has no place for is not dropped silently.
        plain = nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(2, track_running_stats=False))
        normserve.torch.push(plain, self.client, "pull/plain")
        normserve.torch.pull(plain, self.client, "pull/plain")
        for layer, options, text in (("0", {"weight": [3, 3]}, r"no weight.*shape \[2\]"), ("1", {}, "no running_mean")):
            session = self.client.session(f"pull/plain/{layer}")
            session.delete()
            self.client.create(f"pull/plain/{layer}", 2, **options)
            with self.assertRaisesRegex(ValueError, text):
                normserve.torch.pull(plain, self.client, "pull/plain")
            session.delete()
            normserve.torch.push(plain, self.client, "pull/plain")


class Collecting(unittest.TestCase):
    def inputs(self, model, batches):
        """What every layer is fed, by other means."""
        fed = {name: [] for name in NAMES}
        model = copy.deepcopy(model)
        for name, layer in normserve.torch.batch_norm_layers(model):
            plain = layer.forward
            layer.forward = lambda x, name=name, plain=plain: fed[name].append(x.detach().double().numpy()) or plain(x)
        for batch in batches:
            model(batch)
        return {name: np.concatenate(values) for name, values in fed.items()}

    def test_moments_are_those_of_all_inputs_together_in_either_mode(self):
        batches = [torch.randn(n, 1, 2, 6, 6) * 2 + 5 for n in (3, 8, 4)]
        for training in (True, False):
            model = trained_model().train(training)
            for loader in (batches, [(batch, torch.zeros(1)) for batch in batches], iter(batches)):
                found = normserve.torch.collect_moments(model, loader)
                self.assertEqual(list(found), NAMES)
                for name, values in self.inputs(model, batches).items():
                    whole = Moments.of(values)
                    self.assertEqual(found[name].count, whole.count)
                    np.testing.assert_allclose(found[name].mean, whole.mean, 1e-12, 1e-12)
                    np.testing.assert_allclose(found[name].m2, whole.m2, 1e-12)

    def test_the_model_is_left_as_it_was(self):
        model = trained_model()
        before, modes = state(model), [module.training for module in model.modules()]
        batches = [torch.randn(8, 1, 2, 6, 6)]

        def fail(model, batch):
            self.assertFalse(torch.is_grad_enabled())
            model(batch)
            raise RuntimeError("the loader is broken")

        normserve.torch.collect_moments(model, batches)
        with self.assertRaisesRegex(RuntimeError, "broken"):
            normserve.torch.collect_moments(model, batches, fail)
        self.assertEqual(state(model).keys(), before.keys())
        for key, value in state(model).items():
            self.assertTrue(torch.equal(value, before[key]), key)
        self.assertEqual([module.training for module in model.modules()], modes)
        self.assertFalse(any(module._forward_pre_hooks for module in model.modules()))
        self.assertTrue(all(parameter.grad is None for parameter in model.parameters()))

    def test_the_call_is_the_callers_and_layers_that_are_not_reached_have_no_values(self):
        model = trained_model()
        found = normserve.torch.collect_moments(model, [{"x": torch.randn(4, 6)}], lambda model, batch: model.norm(batch["x"]))
        self.assertEqual({name: moments.count for name, moments in found.items()},
                         {"stem.1": 0, "body.norm": 0, "body.plain": 0, "body.stateless": 0, "norm": 4})  # fmt: skip
        self.assertEqual(found["stem.1"].mean.shape, (4,))

    def test_a_layer_that_is_used_twice_has_the_moments_of_both(self):
        layer = nn.BatchNorm1d(2).eval()
        found = normserve.torch.collect_moments(nn.Sequential(layer, nn.Identity(), layer), [torch.randn(4, 2)])
        self.assertEqual(found["0"].count, 8)

    def test_bfloat16_layers_are_collected_too(self):
        x = torch.randn(4, 2).bfloat16()
        found = normserve.torch.collect_moments(nn.Sequential(nn.BatchNorm1d(2)), [x], lambda model, x: model[0](x.float()))
        np.testing.assert_allclose(found["0"].mean, x.double().mean(0).numpy(), 1e-12)


if __name__ == "__main__":
    unittest.main()
