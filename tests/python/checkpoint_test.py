"""Checkpoints in and out through the package: files, state dicts and real PyTorch modules."""

import io
import os
import pathlib
import tempfile
import unittest

import grpc
import model_shapes
import normserve
import numpy as np
import safetensors_file
import torch
from normserve import Error
from server_process import ServerTestCase


class CheckpointTestCase(ServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = cls.enterClassContext(normserve.Client(cls.server.address))

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def save(self, name, state):
        path = self.folder / name
        path.write_bytes(safetensors_file.write(state, {"format": "pt"}))
        return path


def bits(state):
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in state.items()}


class Importing(CheckpointTestCase):
    def test_every_kind_of_source_is_the_same_file(self):
        state = model_shapes.mobilenet_v2()
        path = self.save("m.safetensors", state)
        sources = {"path": path, "text": str(path), "bytes": path.read_bytes(), "open": io.BytesIO(path.read_bytes()),
                   "numpy": state, "torch": {name: torch.from_numpy(array.copy()) for name, array in state.items()}}  # fmt: skip
        expected = bits({name: array for name, array in state.items()
                         if name.rpartition(".")[0] + ".running_mean" in state})  # fmt: skip
        for name, source in sources.items():
            steps = []
            result = self.client.import_state(f"{name}/", source, progress=lambda done, of, to=steps: to.append((done, of)))
            self.assertEqual(len(result.layers), 52)
            self.assertEqual({layer.action for layer in result.layers}, {"created"})
            self.assertEqual(steps[-1][0], steps[-1][1])
            self.assertEqual(bits(self.client.export_state(f"{name}/").tensors()), expected)

    def test_what_fails_on_this_side_is_raised_as_it_is_and_opens_nothing(self):
        def refuse(done, of):
            raise KeyError("mine")

        state = {"bn." + leaf: np.float32([2, 3]) for leaf in ("running_mean", "running_var")}
        with self.assertRaisesRegex(KeyError, "mine"):
            self.client.import_state("raised/", state, progress=refuse)
        with self.assertRaises(IsADirectoryError):
            self.client.import_state("raised/", self.folder)
        self.assertEqual(list(self.client.model("raised").list()), [])

    def test_options_reach_the_sessions(self):
        state = {"bn." + leaf: np.float32([2, 3]) for leaf in ("running_mean", "running_var")}
        result = self.client.import_state("options/", state, mode="shadow", eps=1e-3, momentum=None, labels={"from": "test"},
                                          convention="flax", running_variance="unbiased", durability="none")  # fmt: skip
        info = self.client.session(result.layers[0].name).describe()
        self.assertEqual((info.mode, info.config.eps, info.config.momentum), ("shadow", 1e-3, None))
        self.assertEqual((info.config.convention, info.config.running_variance), ("flax", "unbiased"))
        self.assertEqual((dict(info.config.labels), info.config.affine), ({"from": "test"}, False))
        with self.assertRaisesRegex(Error, "is open already") as raised:
            self.client.import_state("options/", state)
        self.assertEqual(raised.exception.code, grpc.StatusCode.ALREADY_EXISTS)
        self.assertEqual(self.client.import_state("options/", state, existing="skip").layers[0].action, "skipped")
        self.assertEqual(self.client.import_state("options/", state, existing="replace").layers[0].action, "replaced")
        with self.assertRaisesRegex(ValueError, "refuse, replace, skip"):
            self.client.import_state("options/", state, existing="merge")
        lone = self.client.import_state("lone/", state | {"x.running_mean": np.float32([1])})
        self.assertEqual((list(lone.skipped), lone.num_skipped), (["x.running_mean"], 1))

    def test_a_repeat_makes_nothing_new(self):
        state = {"bn.running_mean": np.zeros(3), "bn.running_var": np.ones(3)}
        first = self.client.import_state("repeat/", state, request_id="repeat")
        self.assertEqual(self.client.import_state("repeat/", state, request_id="repeat"), first)


class Exporting(CheckpointTestCase):
    def test_a_real_module_takes_the_file_strictly(self):
        torch.manual_seed(0)
        make = lambda: torch.nn.Sequential(
            torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3, affine=False), torch.nn.Sequential(torch.nn.BatchNorm2d(3)))
        module = make().train()
        for _ in range(3):
            module(torch.randn(4, 3, 5, 5) * 2 + 1)
        self.client.import_state("module/", module.state_dict())
        session = self.client.session("module/0")
        x = torch.randn(4, 3, 5, 5)
        self.assertEqual(session.describe().mode, "eval")
        np.testing.assert_allclose(session.forward(x.numpy()).output, module.eval()[0](x).detach().numpy(), atol=1e-6)
        export = self.client.export_state("module/")
        fresh = make()
        fresh.load_state_dict({name: torch.from_numpy(array) for name, array in export.tensors().items()}, strict=True)
        for name, tensor in module.state_dict().items():
            self.assertTrue(torch.equal(fresh.state_dict()[name], tensor), name)
        alone = session.export_state()
        torch.nn.BatchNorm2d(3).load_state_dict(
            {name: torch.from_numpy(array) for name, array in alone.tensors().items()}, strict=True)
        self.assertEqual((alone.layers[0].eps, alone.layers[0].momentum, alone.layers[0].path), (1e-5, 0.1, ""))

    def test_what_float32_loses_is_told(self):
        self.client.create("loss", 1, running_mean=[1 + 2**-25], running_var=[1])
        self.assertEqual(self.client.session("loss").export_state().largest_relative_error, 2**-25 / (1 + 2**-25))

    def test_folded_and_prefix(self):
        self.client.create("folded", 2, weight=[2, 3], bias=[1, 1], running_mean=[1, 0], running_var=[4, 1], eps=0)
        export = self.client.session("folded").export_state(folded=True, prefix="backbone.bn1.")
        tensors = export.tensors()
        self.assertEqual({name: array.tolist() for name, array in tensors.items()},
                         {"backbone.bn1.scale": [1, 3], "backbone.bn1.shift": [0, 1]})  # fmt: skip
        self.assertGreater(export.layers[0].folded_error_bound, 0)

    def test_layers_go_back_into_their_checkpoint_and_nothing_else_changes(self):
        state = model_shapes.mobilenet_v2()
        halved = {}
        for index, name in enumerate(state):
            array = state[name]
            if name.startswith("features.1."):
                array = array.astype("f2") if array.dtype.kind == "f" else array.reshape(1).astype("i4")
            elif name.startswith("features.2.") and array.dtype.kind == "f":
                array = safetensors_file.bfloat16(array)
            if not (name.startswith("features.3.") and name.endswith("num_batches_tracked")):
                halved[name] = array
        path = self.save("whole.safetensors", halved)
        original = path.read_bytes()
        self.client.import_state("into/", path)
        self.client.export_state("into/").save_into(path, self.folder / "same")
        self.assertEqual((self.folder / "same").read_bytes(), original)

        session = self.client.session("into/features.1.conv.0.1")
        session.set_parameters(weight=np.full(32, 0.5), bias=np.full(32, -0.25))
        self.client.export_state("into/").save_into(path, path)  # in place
        changed = path.read_bytes()
        self.assertEqual(len(changed), len(original))
        before, after = safetensors_file.read(original), safetensors_file.read(changed)
        different = {name for name in before if before[name].tobytes() != after[name].tobytes()}
        self.assertEqual(different, {"features.1.conv.0.1.weight", "features.1.conv.0.1.bias"})
        self.assertEqual(after["features.1.conv.0.1.weight"].tolist(), [0.5] * 32)

    def test_a_checkpoint_that_lacks_a_layer_is_left_alone(self):
        path = self.save("other.safetensors", {"bn.running_mean": np.float32([0]), "bn.running_var": np.float32([1])})
        before = path.read_bytes()
        for name, values, text in (("lacks/x", {}, "no tensor 'x.running_mean'"),
                                   ("lacks2/bn", {"weight": [2]}, "no tensor 'bn.weight'")):  # fmt: skip
            self.client.create(name, 1, **values)
            with self.assertRaisesRegex(ValueError, text):
                self.client.export_state(name.split("/")[0] + "/").save_into(path, path)
        for bad in (b"", b"\xff" * 20, safetensors_file.from_header('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}')):
            path.write_bytes(bad)
            with self.assertRaisesRegex(ValueError, "no safetensors file"):
                self.client.export_state("lacks/").save_into(path, path)
            self.assertEqual(path.read_bytes(), bad)
        path.write_bytes(before)
        self.client.create("lacks3/bn", 1)  # of weight 1, bias 0 and no count in the file nothing is missing
        self.client.export_state("lacks3/").save_into(path, path)
        self.assertEqual(path.read_bytes(), before)
        self.assertEqual(os.listdir(self.folder), ["other.safetensors"])


if __name__ == "__main__":
    unittest.main()
