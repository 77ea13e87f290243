"""Every method of Client and Session does on the server what it says."""

import copy
import datetime
import pickle
import unittest
import unittest.mock
from concurrent import futures

import grpc
import normserve
import numpy as np
from normserve import Error, Moments, UseBlend, UseSnapshot
from normserve.caller import Caller
from server_process import ServerProcess, ServerTestCase, pb


def batch(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 2 + 3


def normalised(x, mean, var, eps=1e-5, weight=1.0, bias=0.0):
    """Batch norm of [N, C, S] in float64."""
    mean, var, weight, bias = (np.reshape(value, (-1, 1)) for value in (mean, var, weight, bias))
    return (x.astype(np.float64) - mean) / np.sqrt(var + eps) * weight + bias


class ClientTestCase(ServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = cls.enterClassContext(normserve.Client(cls.server.address))

    def assert_fails(self, code, reason, text, call, *args, **kwargs):
        with self.assertRaisesRegex(Error, text) as raised:
            call(*args, **kwargs)
        self.assertEqual((raised.exception.code, raised.exception.reason), (grpc.StatusCode[code], reason))
        return raised.exception


class Creating(ClientTestCase):
    def test_num_features_alone_is_pytorchs_batch_norm(self):
        info = self.client.create(num_features=3).describe()
        config = info.config
        self.assertTrue(info.name)
        self.assertEqual((config.num_features, config.eps, config.momentum, config.zero_debiased), (3, 1e-5, 0.1, False))
        self.assertEqual((config.affine, config.track_running_stats, config.convention), (True, True, "pytorch"))
        self.assertEqual((config.running_variance, config.non_finite_policy), ("unbiased", "reject"))
        self.assertEqual((info.mode, info.generation, info.num_batches_tracked, info.num_snapshots), ("train", 0, 0, 0))
        self.assertEqual((info.durability, dict(config.labels)), ("none", {}))
        for found, expected in ((info.weight, 1), (info.bias, 0), (info.running_mean, 0), (info.running_var, 1)):
            np.testing.assert_array_equal(found, [expected] * 3)
        self.assertLess(abs(datetime.datetime.now(datetime.timezone.utc) - info.create_time).total_seconds(), 3600)

    def test_every_option_reaches_the_server(self):
        info = self.client.create(
            "creating/all", 2, eps=0.5, momentum=0.25, zero_debiased=True, convention="keras", running_variance="unbiased",
            non_finite_policy="skip_update", durability="none", labels={"team": "vision"}, mode="eval", weight=[2, 3],
            bias=np.array([4, 5]), running_mean=[6, 7], running_var=[8, 9], num_batches_tracked=10).describe()  # fmt: skip
        config = info.config
        self.assertEqual((info.name, info.mode, info.num_batches_tracked), ("creating/all", "eval", 10))
        self.assertEqual((config.eps, config.momentum, config.zero_debiased), (0.5, 0.25, True))
        self.assertEqual((config.convention, config.running_variance), ("keras", "unbiased"))
        self.assertEqual((config.non_finite_policy, config.durability), ("skip_update", "none"))
        self.assertEqual(dict(config.labels), {"team": "vision"})
        vectors = [list(v) for v in (info.weight, info.bias, info.running_mean, info.running_var)]
        self.assertEqual(vectors, [[2, 3], [4, 5], [6, 7], [8, 9]])

    def test_momentum_none_counts_every_batch_the_same_and_left_out_is_the_conventions(self):
        for arguments, expected in (({"momentum": None}, None), ({"convention": "keras"}, 0.01), ({"momentum": 0}, 0),
                                    ({"zero_debiased": True}, 0.1)):  # fmt: skip
            self.assertEqual(self.client.create(num_features=1, **arguments).describe().config.momentum, expected)

    def test_statistics_left_out_are_those_of_a_new_layer(self):
        stats = self.client.create(num_features=2, running_mean=[3, 4]).stats()
        self.assertEqual((list(stats.running_mean), list(stats.running_var)), ([3, 4], [1, 1]))
        stats = self.client.create(num_features=2, num_batches_tracked=5).stats()
        self.assertEqual((list(stats.running_mean), list(stats.running_var), stats.num_batches_tracked), ([0, 0], [1, 1], 5))

    def test_layers_without_parameters_or_statistics(self):
        info = self.client.create(num_features=2, affine=False, track_running_stats=False).describe()
        self.assertEqual([info.weight, info.bias, info.running_mean, info.running_var], [None] * 4)

    def test_what_is_wrong_is_named(self):
        create = self.client.create
        for error, text, arguments in (
            (TypeError, "num_features is missing", {"name": "x"}),
            (TypeError, r"create\(num_features=64\)", {"name": 64}),
            (ValueError, "mode is 'evaluate': one of train, eval, shadow", {"num_features": 1, "mode": "evaluate"}),
            (ValueError, "durability is 'always': one of none, commit, flush", {"num_features": 1, "durability": "always"}),
            (ValueError, "zero_debiased needs", {"num_features": 1, "zero_debiased": True, "momentum": None}),
            (ValueError, r"weight has shape \(1, 2\)", {"num_features": 2, "weight": [[1, 2]]}),
        ):
            with self.assertRaisesRegex(error, text):
                create(**arguments)
        create("creating/taken", 1)
        self.assert_fails("ALREADY_EXISTS", "SESSION_EXISTS", "creating/taken", create, "creating/taken", 1)
        error = self.assert_fails("INVALID_ARGUMENT", "INVALID_FIELD", "num_features", create, num_features=0)
        self.assertEqual(error.metadata["field"], "config.num_features")
        self.assert_fails("FAILED_PRECONDITION", "DURABILITY_UNAVAILABLE", "", create, num_features=1, durability="flush")


class Listing(ClientTestCase):
    def test_all_pages_are_read(self):
        names = [f"pages/{i:04}" for i in range(1003)]
        for name in names:
            self.client.create(name, 1)
        self.assertEqual([info.name for info in self.client.list("pages")], names)

    def test_prefix_and_labels_choose(self):
        for name, team in (("list/a", "x"), ("list/b", "y"), ("list-not/c", "x")):
            self.client.create(name, 1, labels={"team": team})
        names = lambda *args: [info.name for info in self.client.list(*args)]  # noqa: E731
        self.assertEqual(names("list"), ["list/a", "list/b"])
        self.assertEqual(names("list", {"team": "x"}), ["list/a"])
        self.assertEqual(names("list", {"team": "z"}), [])
        self.assertGreaterEqual(set(names()), {"list/a", "list/b", "list-not/c"})

    def test_info_tells_version_limits_and_how_full_the_server_is(self):
        before = self.client.info().num_sessions
        self.client.create(num_features=4)
        info = self.client.info()
        self.assertEqual(info.num_sessions, before + 1)
        self.assertRegex(info.version, r"^\d+\.\d+\.\d+$")
        self.assertEqual((info.default_durability, info.devices), ("none", ()))
        self.assertGreater(info.state_bytes, 0)
        self.assertGreater(info.limits.max_message_bytes, 1 << 20)
        self.assertGreater(info.limits.max_saved_forward_bytes, 0)

    def test_devices_are_described_with_their_self_tests(self):
        with ServerProcess("lavapipe") as server, normserve.Client(server.address) as client:
            client.create(num_features=2).forward(batch(4, 2))
            device = client.info().devices[0]
        self.assertIn("llvmpipe", device.name)
        self.assertEqual((device.in_use, device.type, device.bit_exact), (True, "CPU", True))
        self.assertIn("passed", device.self_tests.values())
        self.assertIn(device.subnormals, ("kept", "flushed"))


class Batches(ClientTestCase):
    def test_training_normalises_with_the_batch_and_updates(self):
        bn, x = self.client.create(num_features=3, weight=[1, 2, 3], bias=[4, 5, 6]), batch(8, 3, 10)
        result = bn.forward(x, return_batch_moments=True)
        moments = Moments.of(x)
        np.testing.assert_allclose(
            result.output, normalised(x, moments.mean, moments.var(), weight=[1, 2, 3], bias=[4, 5, 6]), 1e-5, 1e-5)
        self.assertEqual((result.generation, result.snapshot_generation, result.num_batches_tracked), (1, 0, 1))
        self.assertEqual((result.normalized_with, result.update, result.durability), ("batch", "running", "none"))
        self.assertEqual(result.uid, bn.describe().uid)
        self.assertEqual(result.batch_moments.count, 80)
        np.testing.assert_allclose(result.batch_moments.mean, moments.mean, 1e-6)
        np.testing.assert_allclose(result.batch_moments.m2, moments.m2, 1e-6)
        self.assertEqual([result.normalization, result.saved_forward], [None, None])
        stats = bn.stats()
        np.testing.assert_allclose(stats.running_mean, 0.1 * moments.mean, 1e-6)
        np.testing.assert_allclose(stats.running_var, 0.9 + 0.1 * moments.var(unbiased=True), 1e-6)
        self.assertEqual((stats.running_mean.dtype, stats.generation, stats.mode), (np.float64, 1, "train"))

    def test_what_is_not_asked_for_is_none(self):
        result = self.client.create(num_features=3).forward(batch(8, 3))
        self.assertIsNone(result.batch_moments)

    def test_mode_use_and_update_of_one_call_leave_the_mode_alone(self):
        bn, x = self.client.create(num_features=2, running_mean=[1, 2], running_var=[3, 4]), batch(4, 2, 5)
        evaluated, given = normalised(x, [1, 2], [3, 4]), Moments(1, np.array([5.0, 6.0]), np.array([7.0, 8.0]))
        trained = normalised(x, Moments.of(x).mean, Moments.of(x).var())
        for options, output, told in (
            ({"mode": "eval"}, evaluated, ("running", "none")),
            ({"mode": "shadow"}, evaluated, ("running", "shadow")),
            ({"normalize_with": "running", "update": "none"}, evaluated, ("running", "none")),
            ({"mode": "eval", "normalize_with": "batch"}, trained, ("batch", "none")),
            ({"normalize_with": given, "update": "none"}, normalised(x, [5, 6], [7, 8]), ("given", "none")),
            ({"update": "running"}, trained, ("batch", "running")),
        ):
            with self.subTest(options=options):
                result = bn.forward(x, **options)
                np.testing.assert_allclose(result.output, output, 1e-5, 1e-5)
                self.assertEqual((result.normalized_with, result.update), told)
                self.assertEqual(bn.describe().mode, "train")
        for options, text in (({"mode": "test"}, "mode"), ({"update": "all"}, "update"), ({"normalize_with": "x"}, "Moments")):
            with self.assertRaisesRegex(ValueError, text):
                bn.forward(x, **options)

    def test_a_snapshot_and_a_blend_of_it_with_the_batch_adapt_a_layer(self):
        bn, x = self.client.create(num_features=2, running_mean=[1, 2], running_var=[3, 4]), batch(4, 2, 5)
        bn.snapshot("source")
        for _ in range(3):
            bn.forward(x)
        moments = Moments.of(x)
        for what, share, told in ((UseSnapshot("source"), 0, "snapshot"), (UseBlend("source"), 0.1, "blend"),
                                  (UseBlend("source", 0), 0, "blend"), (UseBlend("source", 0.7), 0.7, "blend"),
                                  (UseBlend("source", 1), 1, "blend")):
            with self.subTest(what):
                mean = (1 - share) * np.array([1, 2]) + share * moments.mean
                variance = (1 - share) * np.array([3, 4]) + share * moments.var()
                result = bn.forward(x, normalize_with=what, update="none")
                np.testing.assert_allclose(result.output, normalised(x, mean, variance), 1e-5, 1e-5)
                self.assertEqual((result.normalized_with, result.update), (told, "none"))
        for what, reason in ((UseSnapshot("absent"), "SNAPSHOT_NOT_FOUND"), (UseBlend("source", 1.5), "INVALID_FIELD")):
            with self.assertRaises(Error) as caught:
                bn.forward(x, normalize_with=what)
            self.assertEqual(caught.exception.reason, reason)

    def test_threads_may_share_a_session(self):
        bn = self.client.create(num_features=3)
        with futures.ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda seed: bn.forward(batch(4, 3, seed=seed)), range(64)))
        self.assertEqual(sorted(result.generation for result in results), list(range(1, 65)))
        self.assertEqual(bn.stats().num_batches_tracked, 64)

    def test_errors_say_what_would_be_right_and_change_nothing(self):
        bn = self.client.create("batches/errors", 3)
        bad = batch(4, 3)
        bad[2, 1] = np.nan
        for reason, x in (("SHAPE_MISMATCH", batch(4, 5)), ("BATCH_TOO_SMALL", batch(1, 3)), ("NON_FINITE", bad)):
            error = self.assert_fails("INVALID_ARGUMENT", reason, "", bn.forward, x)
            self.assertTrue(error.message and error.metadata)
            self.assertEqual(str(error), f"INVALID_ARGUMENT ({reason}): {error.message}")
        self.assertEqual(bn.stats().generation, 0)

    def test_an_error_can_be_pickled_and_copied(self):
        error = self.assert_fails("NOT_FOUND", "SESSION_NOT_FOUND", "nobody", self.client.session("nobody").stats)
        for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
            self.assertEqual((str(again), again.reason, again.metadata), (str(error), error.reason, error.metadata))


class State(ClientTestCase):
    def test_modes(self):
        bn = self.client.create(num_features=2)
        for change, mode in ((bn.eval, "eval"), (bn.train, "train"), (lambda: bn.set_mode("shadow"), "shadow")):
            self.assertEqual((change().mode, bn.describe().mode), (mode, mode))
        with self.assertRaisesRegex(ValueError, "one of train, eval, shadow"):
            bn.set_mode("test")

    def test_evaluation_uses_the_running_statistics(self):
        bn, x = self.client.create(num_features=2, running_mean=[1, 2], running_var=[3, 4]), batch(4, 2, 5)
        bn.eval()
        result = bn.forward(x)
        np.testing.assert_allclose(result.output, normalised(x, [1, 2], [3, 4]), 1e-5, 1e-5)
        self.assertEqual((result.update, bn.stats().num_batches_tracked), ("none", 0))

    def test_parameters(self):
        bn = self.client.create(num_features=2)
        self.assertEqual(bn.set_parameters(weight=[2, 3]).generation, 1)
        bn.set_parameters(bias=np.array([4.0, 5.0]))
        info = bn.describe()
        self.assertEqual((list(info.weight), list(info.bias), info.weight.dtype), ([2, 3], [4, 5], np.float32))
        self.assert_fails("INVALID_ARGUMENT", "INVALID_FIELD", "parameters", bn.set_parameters)
        bare = self.client.create(num_features=2, affine=False)
        self.assert_fails("FAILED_PRECONDITION", "NOT_AFFINE", "", bare.set_parameters, weight=[1, 1])

    def test_statistics_of_some_channels_and_beside_the_state(self):
        bn, x = self.client.create(num_features=4, mode="shadow"), batch(5, 4)
        stats = bn.stats(first_channel=1, num_channels=2)
        self.assertEqual((stats.first_channel, len(stats.running_mean), stats.last_batch, stats.shadow), (1, 2, None, None))
        bn.forward(x)
        bn.forward(x + 1, mode="train")
        stats = bn.stats(return_last_batch=True, return_shadow=True)
        np.testing.assert_allclose(stats.shadow.mean, x.mean(0), 1e-5)
        np.testing.assert_allclose(stats.last_batch.mean, (x + 1).mean(0), 1e-5)
        self.assertEqual((stats.shadow.count, stats.last_batch.count, stats.num_batches_tracked), (5, 5, 1))
        bare = self.client.create(num_features=2, track_running_stats=False)
        self.assertEqual([bare.stats().running_mean, bare.stats().running_var], [None, None])
        self.assert_fails("INVALID_ARGUMENT", "INVALID_FIELD", "channel_range", bn.stats, first_channel=5)

    def test_a_clone_is_the_same_and_independent(self):
        bn = self.client.create("state/original", 2)
        bn.forward(batch(4, 2))
        clone = bn.clone("state/clone")
        self.assertEqual((clone.name, repr(clone)), ("state/clone", "normserve.Session('state/clone')"))
        np.testing.assert_array_equal(clone.stats().running_mean, bn.stats().running_mean)
        clone.forward(batch(4, 2))
        self.assertEqual((bn.stats().num_batches_tracked, clone.stats().num_batches_tracked), (1, 2))
        self.assertTrue(bn.clone().name)
        self.assert_fails("ALREADY_EXISTS", "SESSION_EXISTS", "", bn.clone, "state/clone")

    def test_snapshots_bring_the_state_back(self):
        bn = self.client.create(num_features=2)
        bn.forward(batch(4, 2))
        before = bn.stats()
        kept = bn.snapshot("before")
        self.assertEqual((kept.name, kept.snapshot, kept.generation, kept.num_batches_tracked), (bn.name, "before", 1, 1))
        self.assertEqual((kept.uid, kept.size_bytes > 0), (before.uid, True))
        bn.forward(batch(4, 2, seed=1))
        bn.snapshot("after")
        info = bn.restore("before")
        self.assertEqual((info.generation, info.num_batches_tracked, info.num_snapshots), (3, 1, 2))
        np.testing.assert_array_equal(bn.stats().running_mean, before.running_mean)
        self.assertEqual([snapshot.snapshot for snapshot in bn.snapshots()], ["after", "before"])
        bn.delete_snapshot("after")
        self.assertEqual([snapshot.snapshot for snapshot in bn.snapshots()], ["before"])
        self.assert_fails("ALREADY_EXISTS", "SNAPSHOT_EXISTS", "before", bn.snapshot, "before")
        self.assert_fails("NOT_FOUND", "SNAPSHOT_NOT_FOUND", "after", bn.restore, "after")
        self.assert_fails("NOT_FOUND", "SNAPSHOT_NOT_FOUND", "after", bn.delete_snapshot, "after")

    def test_all_pages_of_snapshots_are_read(self):
        def page(request, timeout, metadata):  # a server's own limit of snapshots is below its limit of a page
            number = int(request.page_token or 0)
            return pb.ListSnapshotsReply(snapshots=[{"snapshot": f"kept{number}"}], next_page_token=["1", "2", ""][number])

        caller = Caller("", 30, 0, unittest.mock.Mock())
        caller.stub = unittest.mock.Mock(ListSnapshots=page)
        names = [snapshot.snapshot for snapshot in normserve.Session(caller, "state/pages").snapshots()]
        self.assertEqual(names, ["kept0", "kept1", "kept2"])

    def test_a_handle_is_of_one_session(self):
        with self.assertRaisesRegex(ValueError, "'resnet50/', which means all sessions below"):
            self.client.session("resnet50/")

    def test_a_deleted_session_is_gone(self):
        bn = self.client.create("state/gone", 2)
        bn.delete()
        self.assert_fails("NOT_FOUND", "SESSION_NOT_FOUND", "state/gone", bn.stats)
        self.assert_fails("NOT_FOUND", "SESSION_NOT_FOUND", "state/gone", self.client.session("state/gone").describe)

    def test_a_change_is_made_once_and_only_to_the_state_that_is_expected(self):
        bn = self.client.create(num_features=2)
        uid = bn.describe().uid
        bn.snapshot("kept")
        changes = [
            bn.train, bn.eval, lambda **call: bn.set_mode("eval", **call), lambda **call: bn.set_parameters(bias=[1, 2], **call),
            lambda **call: bn.forward(batch(4, 2), **call), lambda **call: bn.snapshot("new", **call),
            lambda **call: bn.restore("kept", **call), lambda **call: bn.delete_snapshot("new", **call), bn.clone, bn.delete,
        ]  # fmt: skip
        for number, change in enumerate(changes):
            generation = bn.stats().generation
            self.assert_fails("ABORTED", "GENERATION_MISMATCH", "", change, expected_generation=generation + 1)
            self.assert_fails("ABORTED", "UID_MISMATCH", "", change, expected_uid="somebody else")
            change(request_id=f"change {number}", expected_generation=generation, expected_uid=uid, timeout=20)
            after = bn.stats().generation if change != bn.delete else None
            change(request_id=f"change {number}", expected_generation=generation, expected_uid=uid, timeout=20)
            if change != bn.delete:
                self.assertEqual(bn.stats().generation, after)
        with self.assertRaises(Error):
            bn.stats()
        first, again = (self.client.create(num_features=1, request_id="one session").name for _ in range(2))
        self.assertEqual(first, again)


if __name__ == "__main__":
    unittest.main()
