"""Layers of every kind give what PyTorch gives: averaging, affine, tracking, layouts, 16-bit types; SHADOW beside EVAL."""

import unittest

import numpy as np
import torch

from server_process import ENGINE, ServerTestCase, array, pb, session_pb2, tensor, tensor_pb2

LAST = tensor_pb2.LAYOUT_CHANNELS_LAST
SHAPES = [(8, 5), (6, 4, 7), (4, 3, 6, 5), (2, 6, 3, 4, 5), (32, 64), (5, 1, 9)]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def layer_for(shape, **arguments):
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}
    return kind[len(shape)](shape[1], **arguments)


def batches(shape, seed, count=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * (1 + i) + i for i in range(count)]


class Semantics(ServerTestCase):
    def create(self, num_features, mode=session_pb2.MODE_TRAIN, **config):
        return self.stub.CreateSession(pb.CreateSessionRequest(
            config=session_pb2.SessionConfig(num_features=num_features, **config), mode=mode)).name

    def forward(self, name, x, **fields):
        return self.stub.Forward(pb.ForwardRequest(name=name, input=tensor(x), **fields))

    def stats(self, name, **fields):
        return self.stub.GetStats(pb.GetStatsRequest(name=name, **fields)).sessions[0]

    def test_a_snapshot_and_a_blend_normalise_as_pytorch_in_double(self):
        for shape in SHAPES:
            with self.subTest(shape=shape):
                layer = layer_for(shape).double()
                name = self.create(shape[1])
                first, other, x = batches(shape, seed=4)
                layer(first.double())
                self.forward(name, first.numpy())
                self.stub.SnapshotState(pb.SnapshotStateRequest(name=name, snapshot="source"))
                self.forward(name, other.numpy())  # which the snapshot does not see
                values = x.double().transpose(0, 1).flatten(1)
                for share, fields in ((0, {"snapshot": "source"}), (0.1, {"blend": pb.Blend(snapshot="source")}),
                                      (0, {"blend": pb.Blend(snapshot="source", batch_weight=0)}),
                                      (0.6, {"blend": pb.Blend(snapshot="source", batch_weight=0.6)}),
                                      (1, {"blend": pb.Blend(snapshot="source", batch_weight=1)})):
                    mean = (1 - share) * layer.running_mean + share * values.mean(1)
                    variance = (1 - share) * layer.running_var + share * values.var(1, unbiased=False)
                    y = array(self.forward(name, x.numpy(), update=pb.UPDATE_NONE, **fields).output)
                    expected = torch.nn.functional.batch_norm(x.double(), mean, variance, eps=layer.eps)
                    np.testing.assert_allclose(y, expected.numpy(), **CLOSE)

    def test_averagings_and_flags_are_pytorchs(self):
        kinds = [
            ({}, {}),
            ({"momentum": None}, {"cumulative": session_pb2.CumulativeAverage()}),
            ({"momentum": 0.9, "eps": 1e-2}, {"momentum": 0.9, "epsilon": 1e-2}),
            ({"momentum": 0.0}, {"momentum": 0.0}),
            ({"momentum": 1.5}, {"momentum": 1.5}),
            ({"affine": False}, {"affine": False}),
            ({"track_running_stats": False}, {"track_running_stats": False}),
            ({"affine": False, "track_running_stats": False, "momentum": None},
             {"affine": False, "track_running_stats": False, "cumulative": session_pb2.CumulativeAverage()}),
        ]
        for arguments, config in kinds:
            for shape in SHAPES:
                with self.subTest(arguments, shape=shape):
                    layer = layer_for(shape, **arguments).double()
                    name = self.create(shape[1], **config)
                    for x in batches(shape, seed=1):
                        y = array(self.forward(name, x.numpy()).output)
                        np.testing.assert_allclose(y, layer(x.double()).detach().numpy(), **CLOSE)
                    found = self.stats(name).statistics
                    if layer.track_running_stats:
                        np.testing.assert_allclose(found.running_mean, layer.running_mean, **CLOSE)
                        np.testing.assert_allclose(found.running_var, layer.running_var, **CLOSE)
                        self.assertEqual(found.num_batches_tracked, int(layer.num_batches_tracked))
                    else:
                        self.assertEqual((len(found.running_mean), found.num_batches_tracked), (0, 0))
                    if arguments.get("momentum") == 1.5:
                        continue  # a negative variance in both, and NaN
                    layer.eval()
                    x = batches(shape, seed=2)[0]
                    y = array(self.forward(name, x.numpy(), mode=session_pb2.MODE_EVAL).output)
                    np.testing.assert_allclose(y, layer(x.double()).detach().numpy(), **CLOSE)

    def test_channels_last_gives_the_same_bits(self):
        for shape in SHAPES:
            for dtype in (np.float32, np.float16):
                with self.subTest(shape=shape, dtype=dtype):
                    first, last = self.create(shape[1]), self.create(shape[1])
                    for mode in (session_pb2.MODE_TRAIN, session_pb2.MODE_TRAIN, session_pb2.MODE_EVAL):
                        x = batches(shape, seed=3)[1].numpy().astype(dtype)
                        y = array(self.forward(first, x, mode=mode).output)
                        reply = self.stub.Forward(pb.ForwardRequest(name=last, mode=mode,
                                                                    input=tensor(np.moveaxis(x, 1, -1), LAST)))
                        self.assertEqual(reply.output.layout, LAST)
                        np.testing.assert_array_equal(np.moveaxis(array(reply.output), -1, 1), y)
                    self.assertEqual(self.stats(first).statistics, self.stats(last).statistics)

    def test_sixteen_bits_are_rounded_once(self):
        for torch_type, name, unit in ((torch.float16, "FLOAT16", 2.0**-11), (torch.bfloat16, "BFLOAT16", 2.0**-8)):
            for shape in SHAPES:
                with self.subTest(name, shape=shape):
                    layer = layer_for(shape).double()
                    session = self.create(shape[1])
                    for x in batches(shape, seed=4):
                        x = x.to(torch_type)
                        data = x.view(torch.int16).numpy().tobytes()
                        request = tensor_pb2.Tensor(data_type=tensor_pb2.DataType.Value("DATA_TYPE_" + name),
                                                    shape=shape, data=data)
                        reply = self.stub.Forward(pb.ForwardRequest(name=session, input=request))
                        self.assertEqual(reply.output.data_type, request.data_type)
                        expected = layer(x.double()).detach().numpy()
                        np.testing.assert_allclose(array(reply.output), expected, rtol=unit * 1.01, atol=2e-6)
                    found = self.stats(session).statistics
                    np.testing.assert_allclose(found.running_mean, layer.running_mean, **CLOSE)
                    np.testing.assert_allclose(found.running_var, layer.running_var, **CLOSE)

    def test_shadow_is_eval_bit_for_bit_and_keeps_the_moments_of_what_it_saw(self):
        shape = (6, 4, 7)
        name = self.create(4)
        for x in batches(shape, seed=5):
            self.forward(name, x.numpy())
        before = self.stats(name)
        self.stub.SetMode(pb.SetModeRequest(name=name, mode=session_pb2.MODE_SHADOW))
        seen = batches(shape, seed=6)
        for x in seen:
            reply = self.forward(name, x.numpy())
            self.assertEqual(reply.update, pb.UPDATE_SHADOW)
            evaluated = self.forward(name, x.numpy(), mode=session_pb2.MODE_EVAL)
            self.assertEqual(reply.output, evaluated.output)
        after = self.stats(name, return_shadow=True, return_last_batch=True)
        self.assertEqual(after.statistics, before.statistics)
        self.assertEqual(after.generation, before.generation + 1)  # that of SetMode
        pooled = torch.cat(seen).double().transpose(0, 1).reshape(4, -1)
        self.assertEqual(after.shadow.count, pooled.shape[1])
        np.testing.assert_allclose(after.shadow.mean, pooled.mean(1), rtol=1e-6)
        np.testing.assert_allclose(np.array(after.shadow.m2) / after.shadow.count, pooled.var(1, unbiased=False), rtol=1e-6)
        newest = batches(shape, seed=5)[-1].double().transpose(0, 1).reshape(4, -1)
        np.testing.assert_allclose(after.last_batch.mean, newest.mean(1), rtol=1e-6)
        self.stub.SetMode(pb.SetModeRequest(name=name, mode=session_pb2.MODE_SHADOW))
        self.assertEqual(self.stats(name, return_shadow=True).shadow.count, 0)

    def test_use_and_update_combine_freely_and_leave_the_mode_alone(self):
        shape = (6, 4, 7)
        x = batches(shape, seed=7)[2].numpy()
        uses = {"batch": pb.UseBatch(), "running": pb.UseRunning()}
        for mode in (session_pb2.MODE_TRAIN, session_pb2.MODE_EVAL, session_pb2.MODE_SHADOW):
            outputs, statistics = {}, {}
            for use, message in uses.items():
                for update in (pb.UPDATE_NONE, pb.UPDATE_RUNNING, pb.UPDATE_SHADOW):
                    name = self.create(4, mode=mode)
                    reply = self.forward(name, x, update=update, **{use: message})
                    self.assertEqual(reply.update, update)
                    self.assertEqual(self.stats(name).mode, mode)
                    outputs.setdefault(use, []).append(reply.output.data)
                    found = self.stats(name, return_shadow=True)
                    statistics.setdefault(update, []).append((list(found.statistics.running_var), found.shadow.count))
            for same in outputs.values():
                self.assertEqual(len(set(same)), 1)
            self.assertNotEqual(outputs["batch"][0], outputs["running"][0])
            self.assertEqual(statistics[pb.UPDATE_NONE], [([1.0] * 4, 0)] * 2)
            self.assertEqual(statistics[pb.UPDATE_SHADOW], [([1.0] * 4, 42)] * 2)
            self.assertEqual(statistics[pb.UPDATE_RUNNING][0], statistics[pb.UPDATE_RUNNING][1])
            self.assertNotEqual(statistics[pb.UPDATE_RUNNING][0][0], [1.0] * 4)

    def test_the_device_says_that_its_bits_are_right(self):
        self.forward(self.create(3), np.ones((4, 3, 16), np.float32))
        devices = [d for d in self.stub.GetServerInfo(pb.GetServerInfoRequest()).devices if d.in_use]
        self.assertEqual(len(devices), 0 if ENGINE == "reference" else 1)
        for device in devices:
            self.assertTrue(device.bit_exact)
            results = {test.variant: test.result for test in device.self_tests}
            self.assertEqual(results["forward, runs, FLOAT32"], pb.SELF_TEST_RESULT_PASSED)
            self.assertNotIn(pb.SELF_TEST_RESULT_FAILED, results.values())
            expected = pb.SUBNORMAL_CLASS_FLUSHED if ENGINE == "swiftshader" else pb.SUBNORMAL_CLASS_KEPT
            self.assertEqual(device.subnormals, expected)


if __name__ == "__main__":
    unittest.main()
