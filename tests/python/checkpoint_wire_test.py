"""ImportState and ExportState over the wire, with the generated stubs alone."""

import json
import time
import unittest

import grpc
import model_shapes
import numpy as np
import safetensors_file
from normserve.v1 import error_details_pb2
from server_process import ServerTestCase, pb

LEAVES = ("running_mean", "running_var", "weight", "bias", "num_batches_tracked")


def layers_of(state):
    """The tensors of a state dict's batch norms."""
    return {name: array for name, array in state.items() if name.rpartition(".")[0] + ".running_mean" in state}


def small(channels=3, prefix="bn."):
    random = np.random.default_rng(7)
    state = {leaf: random.random(channels, np.float32) for leaf in LEAVES[:4]}
    return {prefix + name: array for name, array in (state | {"num_batches_tracked": np.array(5, np.int64)}).items()}


class CheckpointTestCase(ServerTestCase):
    def import_state(self, file, name, piece=1 << 18, **begin):
        def requests():
            yield pb.ImportStateRequest(begin=pb.ImportBegin(name=name, **begin))
            for start in range(0, len(file), piece):
                yield pb.ImportStateRequest(data=file[start : start + piece])

        return self.stub.ImportState(requests())

    def export_state(self, name, **request):
        replies = list(self.stub.ExportState(pb.ExportStateRequest(name=name, **request)))
        file = b"".join(reply.data for reply in replies[1:])
        self.assertEqual(len(file), replies[0].summary.size_bytes)
        return replies[0].summary, file

    def assert_refused(self, code, reason, text, call, *args, **kwargs):
        with self.assertRaisesRegex(grpc.RpcError, text) as raised:
            call(*args, **kwargs)
        self.assertEqual(raised.exception.code(), grpc.StatusCode[code], raised.exception)
        metadata = dict(raised.exception.trailing_metadata())
        details = error_details_pb2.StatusDetails.FromString(metadata["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        details.details[0].Unpack(info) or info.ParseFromString(details.details[0].value)
        self.assertEqual(info.reason, reason, raised.exception)

    def names(self, prefix):
        return [session.name for session in self.stub.ListSessions(pb.ListSessionsRequest(prefix=prefix)).sessions]


class WholeModels(CheckpointTestCase):
    def check(self, name, state, num_layers):
        file = safetensors_file.write(state)
        start = time.perf_counter()
        reply = self.import_state(file, name + "/")
        seconds = time.perf_counter() - start
        print(f"{name}: {len(reply.sessions)} layers of a file of {len(file) / 1e6:.0f} MB imported in {seconds:.3f} s")
        self.assertEqual(len(reply.sessions), num_layers)
        self.assertEqual({session.action for session in reply.sessions}, {pb.IMPORT_ACTION_CREATED})
        modes = {session.mode for session in self.stub.ListSessions(pb.ListSessionsRequest(prefix=name)).sessions}
        self.assertEqual(modes, {pb.MODE_EVAL})
        summary, exported = self.export_state(name + "/")
        self.assertEqual(summary.largest_relative_error, 0)
        found, expected = safetensors_file.read(exported), layers_of(state)
        self.assertEqual(sorted(found), sorted(expected))
        for tensor, array in expected.items():
            self.assertEqual((found[tensor].dtype, found[tensor].shape), (array.dtype, array.shape), tensor)
            self.assertEqual(found[tensor].tobytes(), array.tobytes(), tensor)

    def test_resnet50_comes_back_byte_for_byte(self):
        self.check("resnet50", model_shapes.resnet50(), 53)

    def test_mobilenet_v2_comes_back_byte_for_byte(self):
        self.check("mobilenet_v2", model_shapes.mobilenet_v2(), 52)

    def test_ten_thousand_layers_are_the_limit_and_no_more(self):
        with self.subTest("more than the limit"):
            state = {}
            for layer in range(10_001):
                state[f"l{layer}.running_mean"] = state[f"l{layer}.running_var"] = np.ones(1, np.float32)
            file = safetensors_file.write(state)
            self.assert_refused("RESOURCE_EXHAUSTED", "LIMIT_REACHED", "max_sessions is 10000", self.import_state, file, "many/")
            self.assertEqual(self.names("many"), [])
        with self.subTest("as many as there is room for"):
            room = 10_000 - 1_000
            file = safetensors_file.write({name: array for name, array in state.items()
                                           if int(name[1:].split(".")[0]) < room})  # fmt: skip
            start = time.perf_counter()
            reply = self.import_state(file, "many/", request_id="many")
            print(f"{room} layers imported in {time.perf_counter() - start:.3f} s")
            self.assertEqual(len(reply.sessions), room)
            again = self.import_state(file, "many/", request_id="many")
            self.assertEqual([session.uid for session in again.sessions], [session.uid for session in reply.sessions])
            _, exported = self.export_state("many/")
            self.assertEqual(len(safetensors_file.read(exported)), 3 * room)
            for session in reply.sessions:
                self.stub.DeleteSession(pb.DeleteSessionRequest(name=session.name))


class WhatIsFound(CheckpointTestCase):
    def test_names_and_cuts_say_nothing(self):
        state = {"a.weight": np.ones((4, 3), np.float32), **small(prefix="backbone.q."), **small(4, "backbone.x.y."),
                 "bn1.weight": np.ones(3, np.float32), "bn1.bias": np.ones(3, np.float32)}  # fmt: skip
        for piece in (1, 7, 1 << 20):
            reply = self.import_state(safetensors_file.write(state), f"found{piece}/", piece)
            self.assertEqual([session.name for session in reply.sessions],
                             [f"found{piece}/backbone.q", f"found{piece}/backbone.x.y"])  # fmt: skip
        reply = self.import_state(safetensors_file.write(state), "below/", prefix="backbone")
        self.assertEqual([session.name for session in reply.sessions], ["below/q", "below/x.y"])
        _, exported = self.export_state("below/", prefix="backbone.")
        self.assertEqual({name: array.tobytes() for name, array in safetensors_file.read(exported).items()},
                         {name: array.tobytes() for name, array in state.items() if name.startswith("backbone.")})

    def test_one_layer_is_a_session(self):
        state = small(prefix="")
        self.import_state(safetensors_file.write(state), "single")
        _, exported = self.export_state("single")
        self.assertEqual(sorted(safetensors_file.read(exported)), sorted(state))
        self.import_state(safetensors_file.write(small(prefix="deep.bn.")), "other/single", prefix="deep.bn")
        self.assertEqual(self.names("other"), ["other/single"])
        self.assert_refused("INVALID_ARGUMENT", "INVALID_FIELD", "has a layer \"bn\"", self.import_state,
                            safetensors_file.write(small()), "no/model")
        self.assert_refused("INVALID_ARGUMENT", "INVALID_FIELD", "without a path", self.import_state,
                            safetensors_file.write(state), "model/")

    def test_types_counters_and_what_is_missing(self):
        mean, var = np.array([0.1, -2.5]), np.array([1.5, 0.25])
        cases = {
            "f64": ({"running_mean": mean, "running_var": var, "num_batches_tracked": np.array([3], np.int32)}, 3),
            "f16": ({"running_mean": mean.astype("f2"), "running_var": var.astype("f2"), "weight": var.astype("f2")}, 0),
            "bf16": ({"running_mean": safetensors_file.bfloat16(mean), "running_var": safetensors_file.bfloat16(var),
                      "num_batches_tracked": np.array([9])}, 9),
        }  # fmt: skip
        file = safetensors_file.write({f"{name}.{leaf}": array for name, (state, _) in cases.items()
                                       for leaf, array in state.items()})  # fmt: skip
        reply = self.import_state(file, "types/")
        self.assertEqual(len(reply.sessions), 3)
        for name, (state, count) in cases.items():
            session = self.stub.GetSession(pb.GetSessionRequest(name="types/" + name, view=pb.SESSION_VIEW_FULL))
            exact = [float(np.uint32(v << 16).view(np.float32)) for v in state["running_mean"].tolist()] \
                if name == "bf16" else state["running_mean"].astype(float).tolist()
            self.assertEqual(list(session.statistics.running_mean), exact)
            self.assertEqual(session.num_batches_tracked, count)
            self.assertEqual(session.config.affine, name == "f16")
        self.assertEqual(list(self.stub.GetSession(pb.GetSessionRequest(name="types/f16", view=pb.SESSION_VIEW_FULL))
                              .parameters.bias), [0, 0])  # fmt: skip
        summary, _ = self.export_state("types/f64")
        expected = max(abs(float(np.float32(v)) / v - 1) for v in [*mean, *var])
        self.assertAlmostEqual(summary.largest_relative_error, expected, delta=1e-15)
        self.assertGreater(expected, 0)

    def test_what_looks_like_a_part_is_named(self):
        state = small() | {"a.running_mean": np.ones(2, np.float32), "b.running_var": np.ones(2, np.float32)}
        state["bn.num_batches_tracked"] = np.float32(3)
        reply = self.import_state(safetensors_file.write(state), "parts/")
        self.assertEqual([skipped.name for skipped in reply.skipped],
                         ["a.running_mean", "b.running_var", "bn.num_batches_tracked"])  # fmt: skip
        self.assertEqual((reply.num_skipped, reply.sessions[0].num_batches_tracked), (3, 0))

    def test_long_paths_become_segments_and_come_back(self):
        path = ".".join(f"block{i}" for i in range(30))
        reply = self.import_state(safetensors_file.write(small(prefix=path + ".")), "long/")
        segments = reply.sessions[0].name.split("/")
        self.assertGreater(len(segments), 3)
        _, exported = self.export_state("long/")
        self.assertEqual(sorted(safetensors_file.read(exported)), sorted(small(prefix=path + ".")))
        for bad in ("with space.", "ünï.", "a/b.", "x" * 64 + ".", ".".join(["y"] * 200) + "."):
            self.assert_refused("INVALID_ARGUMENT", "INVALID_FIELD", "not legal", self.import_state,
                                safetensors_file.write(small(prefix=bad)), "bad/")
        self.assertEqual(self.names("bad"), [])


class ExistingSessions(CheckpointTestCase):
    def test_policies(self):
        first, second = small(prefix="a."), small(prefix="a.") | small(prefix="b.")
        second["a.running_mean"] = np.float32([7, 8, 9])
        created = self.import_state(safetensors_file.write(first), "net/").sessions[0]
        file = safetensors_file.write(second)
        self.assert_refused("ALREADY_EXISTS", "SESSION_EXISTS", '"net/a" is open already', self.import_state, file, "net/")
        self.assertEqual(self.names("net"), ["net/a"])
        skipped = self.import_state(file, "net/", existing=pb.EXISTING_SESSION_SKIP).sessions
        self.assertEqual([(s.name, s.action, s.generation) for s in skipped],
                         [("net/a", pb.IMPORT_ACTION_SKIPPED, 0), ("net/b", pb.IMPORT_ACTION_CREATED, 0)])  # fmt: skip
        replaced = self.import_state(file, "net/", existing=pb.EXISTING_SESSION_REPLACE, request_id="r").sessions
        self.assertEqual([(s.action, s.generation) for s in replaced], [(pb.IMPORT_ACTION_REPLACED, 1)] * 2)
        self.assertEqual(replaced[0].uid, created.uid)
        again = self.import_state(file, "net/", existing=pb.EXISTING_SESSION_REPLACE, request_id="r").sessions
        self.assertEqual(list(again), list(replaced))
        session = self.stub.GetSession(pb.GetSessionRequest(name="net/a", view=pb.SESSION_VIEW_FULL))
        self.assertEqual((session.generation, list(session.statistics.running_mean)), (1, [7, 8, 9]))
        self.assert_refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED", "another payload", self.import_state,
                            safetensors_file.write(first), "net/", request_id="r")

    def test_a_session_that_does_not_fit_refuses_all(self):
        self.stub.CreateSession(pb.CreateSessionRequest(name="fit/b", config=pb.SessionConfig(num_features=4)))
        file = safetensors_file.write(small(prefix="a.") | small(prefix="b."))
        replace = {"existing": pb.EXISTING_SESSION_REPLACE}
        self.assert_refused("INVALID_ARGUMENT", "INVALID_FIELD", "has 4 channels", self.import_state, file, "fit/", **replace)
        for config, reason in ((pb.SessionConfig(num_features=3, affine=False), "NOT_AFFINE"),
                               (pb.SessionConfig(num_features=3, track_running_stats=False), "NOT_TRACKED"),
                               (pb.SessionConfig(num_features=3, epsilon=0.1), "CONVENTION_MISMATCH")):  # fmt: skip
            self.stub.DeleteSession(pb.DeleteSessionRequest(name="fit/b"))
            self.stub.CreateSession(pb.CreateSessionRequest(name="fit/b", config=config))
            self.assert_refused("FAILED_PRECONDITION", reason, "fit/b", self.import_state, file, "fit/",
                                config=pb.SessionConfig(epsilon=0.2), **replace)
        self.assertEqual(self.names("fit"), ["fit/b"])


class Conventions(CheckpointTestCase):
    def test_a_variance_is_converted_where_that_is_exact(self):
        n, momentum, batches = 16, 0.01, 40
        random = np.random.default_rng(0)
        moments = [(random.standard_normal(n), 0) for _ in range(batches)]
        biased = unbiased = 1.0
        for values, _ in moments:
            biased += momentum * (values.var() - biased)
            unbiased += momentum * (values.var(ddof=1) - unbiased)
        file = safetensors_file.write({"bn.running_mean": np.zeros(1), "bn.running_var": np.array([biased]),
                                       "bn.num_batches_tracked": np.array(batches)})  # fmt: skip
        config = pb.SessionConfig(momentum=momentum)
        self.import_state(file, "keras/", config=config, kept_by=pb.CONVENTION_KERAS, values_per_channel=n)
        stats = self.stub.GetStats(pb.GetStatsRequest(name="keras/bn")).sessions[0].statistics
        self.assertAlmostEqual(stats.running_var[0], unbiased, delta=1e-13)
        summary, exported = self.export_state("keras/", convention=pb.CONVENTION_KERAS, values_per_channel=n)
        self.assertAlmostEqual(float(safetensors_file.read(exported)["bn.running_var"][0]), biased, delta=1e-6)
        self.assertEqual(summary.layers[0].momentum, 1 - momentum)

        for begin, text in (({}, "values_per_channel is 0"),
                            ({"values_per_channel": n, "config": pb.SessionConfig(momentum=1e-4)}, "less than")):
            self.assert_refused("FAILED_PRECONDITION", "CONVENTION_MISMATCH", text, self.import_state, file, "refused/",
                                kept_by=pb.CONVENTION_KERAS, **begin)
        no_count = safetensors_file.write({"bn.running_mean": np.zeros(1), "bn.running_var": np.ones(1)})
        self.assert_refused("FAILED_PRECONDITION", "CONVENTION_MISMATCH", "without num_batches_tracked", self.import_state,
                            no_count, "refused/", kept_by=pb.CONVENTION_KERAS, values_per_channel=n)
        self.stub.CreateSession(pb.CreateSessionRequest(
            name="debiased", config=pb.SessionConfig(num_features=1, zero_debiased=pb.ZeroDebiasedAverage())))
        self.assert_refused("FAILED_PRECONDITION", "CONVENTION_MISMATCH", "zero-debiased", self.export_state, "debiased",
                            convention=pb.CONVENTION_PYTORCH)

    def test_folded_is_the_layer_up_to_its_bound(self):
        state = small(64)
        state["bn.running_mean"] *= 100
        self.import_state(safetensors_file.write(state), "folded/", config=pb.SessionConfig(epsilon=1e-3))
        summary, exported = self.export_state("folded/", folded=True)
        found = safetensors_file.read(exported)
        self.assertEqual(sorted(found), ["bn.scale", "bn.shift"])
        mean, var, weight, bias = (state["bn." + leaf].astype(float) for leaf in LEAVES[:4])
        deviation = np.sqrt(var + 1e-3)
        x = (mean + np.random.default_rng(1).uniform(-10, 10, (500, 64)) * deviation).astype(np.float32)
        y = x * found["bn.scale"] + found["bn.shift"]
        error = np.abs(y - (weight * (x - mean) / deviation + bias)).max()
        bound = summary.layers[0].folded_error_bound
        self.assertLessEqual(error, bound)
        self.assertGreater(error, bound / 20)  # and it says something


class BadFiles(CheckpointTestCase):
    def test_each_is_refused_and_nothing_is_left(self):
        entry = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
        mean = json.dumps({"bn.running_mean": entry})[1:-1]
        var = json.dumps({"bn.running_var": entry | {"data_offsets": [12, 24]}})[1:-1]
        good = safetensors_file.write(small())
        headers = {
            f"{{{mean},{mean},{var}}}": "is there twice",
            f"{{{mean},{var.replace('[12, 24]', '[8, 20]')}}}": "inside another",
            f"{{{mean},{var.replace('[12, 24]', '[16, 28]')}}}": "after a gap",
            f"{{{mean},{var.replace('[12, 24]', '[24, 12]')}}}": "before it begins",
            f"{{{mean},{var.replace('[3]', '[4]')}}}": "it takes 16",
            f"{{{mean},{var.replace('[3]', '[-3]')}}}": "negative",
            f"{{{mean},{var.replace('[3]', '[3.0]')}}}": "no integer",
            f"{{{mean},{var.replace('[3]', '[4294967296, 4294967296, 4]')}}}": "bn.running_var",
            f"{{{mean},{var.replace('F32', 'I32')}}}": "can be read",
            f"{{{mean},{var.replace('12, 24', '12')}}}": "two",
            f"{{{mean},{var.replace('dtype', 'type')}}}": "nothing else",
            f"{{{mean},{var}": "no JSON",
            f'{{"__metadata__":{{"a":"b","a":"c"}},{mean},{var}}}': "twice",
            f'{{"__metadata__":{{"a":1}},{mean},{var}}}': "number",
            "[]": "does not begin",
            "{}": "no batch-norm layer",
            '{"bn.running_mean":3}': "number",
        }
        files = {safetensors_file.from_header(text, bytes(24)): why for text, why in headers.items()}
        nan = small() | {"bn.running_mean": np.float32([0, np.nan, 1])}
        huge = small() | {"bn.weight": np.array([1e39, 1, 1])}
        far = small() | {"bn.running_mean": np.array([1e200, 1, 1])}
        files |= {
            b"": "ends after 0 bytes",
            good[:5]: "8 bytes",
            good[:50]: "inside its header",
            good[:-1]: "ends early",
            good + b"x": "goes on after",
            (2**63).to_bytes(8, "little") + good[8:]: "2 up to 100000000",
            (10**8 + 1).to_bytes(8, "little") + good[8:]: "2 up to 100000000",
            bytes(8) + good: "0 bytes",
            safetensors_file.write(nan): "nan at channel 1",
            safetensors_file.write(huge): r"1e\+39 at channel 0: send finite values of float32",
            safetensors_file.write(far): r"1e\+200 at channel 0: send finite values of float32",
            safetensors_file.write(small() | {"bn.running_var": np.float32([1, -1, 1])}): "variance is 0 or more",
            safetensors_file.write(small() | {"bn.weight": np.ones(4, np.float32)}): "one number of channels",
            safetensors_file.write(small() | {"bn.bias": np.ones((3, 1), np.float32)}): "one value per channel",
            safetensors_file.write(small() | {"bn.num_batches_tracked": np.array(-1)}): "count is 0 or more",
            safetensors_file.write(small() | {"bn.num_batches_tracked": np.array(2**63 - 1)}): "num_batches_tracked",
        }  # fmt: skip
        for file, why in files.items():
            with self.subTest(why):
                self.assert_refused("INVALID_ARGUMENT", "INVALID_FIELD", why, self.import_state, file, "refused/")
        self.assertEqual(self.names("refused"), [])

    def test_messages_out_of_order_are_refused(self):
        begin = pb.ImportStateRequest(begin=pb.ImportBegin(name="order/"))
        data = pb.ImportStateRequest(data=safetensors_file.write(small()))
        for requests, why in (([], "no begin"), ([data], "before begin"), ([begin, begin], "twice"),
                              ([pb.ImportStateRequest()], "neither"), ([begin], "ends after 0 bytes")):  # fmt: skip
            self.assert_refused("INVALID_ARGUMENT", "INVALID_FIELD", why, self.stub.ImportState, iter(requests))

    def test_fields_that_cannot_be_are_refused(self):
        file = safetensors_file.write(small())
        for begin, why in (({"existing": 9}, "existing is 9"), ({"mode": 7}, "mode is 7"), ({"kept_by": 9}, "kept_by is 9"),
                           ({"values_per_channel": 1}, "2 or more"), ({"prefix": "x" * 256}, "prefix has 256"),
                           ({"config": pb.SessionConfig(num_features=3)}, "leave it out"),
                           ({"config": pb.SessionConfig(track_running_stats=False)}, "leave it out"),
                           ({"config": pb.SessionConfig(affine=False)}, "affine is false"),
                           ({"request_id": "x" * 129}, "request_id")):  # fmt: skip
            with self.subTest(why):
                self.assert_refused("INVALID_ARGUMENT", "INVALID_FIELD", why, self.import_state, file, "fields/", **begin)
        self.assert_refused("INVALID_ARGUMENT", "INVALID_FIELD", "name", self.import_state, file, "a b/")
        for request, why in (({"format": 2}, "format is 2"), ({"convention": 9}, "convention is 9")):
            self.stub.CreateSession(pb.CreateSessionRequest(name=f"fields{why[-1]}", config=pb.SessionConfig(num_features=1)))
            self.assert_refused("INVALID_ARGUMENT", "INVALID_FIELD", why, self.export_state, f"fields{why[-1]}", **request)
        self.assert_refused("NOT_FOUND", "SESSION_NOT_FOUND", "none/", self.export_state, "none/")
        for name in ("same/a/b", "same/a.b"):
            self.stub.CreateSession(pb.CreateSessionRequest(name=name, config=pb.SessionConfig(num_features=1)))
        self.assert_refused("FAILED_PRECONDITION", "INVALID_FIELD", "are both", self.export_state, "same/")


if __name__ == "__main__":
    unittest.main()
