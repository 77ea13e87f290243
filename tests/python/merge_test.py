"""Merges and calibrations through the wire: exact whatever the partition, the order and the workers; after kill -9 too."""

import concurrent.futures
import tempfile
import unittest

import normserve
import numpy as np

from server_process import ServerProcess, ServerTestCase

Moments = normserve.Moments


def pooled(values):
    """Mean, biased and unbiased variance of [n, C] values, in long double."""
    wide = values.astype(np.longdouble)
    mean = wide.mean(axis=0)
    m2 = ((wide - mean) ** 2).sum(axis=0)
    return mean, m2 / len(values), m2 / (len(values) - 1)


def assert_close(found, expected):
    """To 1e-12 of the value."""
    error = np.abs((np.asarray(found, np.longdouble) - expected) / expected)
    assert error.max() < 1e-12, (found, expected, float(error.max()))


def exact_moments(values):
    wide = values.astype(np.longdouble)
    mean = wide.mean(axis=0).astype(np.float64)
    m2 = ((wide - mean) ** 2).sum(axis=0)
    return Moments(len(values), mean, m2.astype(np.float64))


class Merge(ServerTestCase):
    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))
        self.rng = np.random.default_rng(11)

    def sites(self, count, channels=5):
        """Uneven sites that lie far apart, their means and scales too: {id: [n, C]}."""
        return {f"site-{i}": self.rng.standard_normal((int(self.rng.integers(1, 400)) + 1, channels))
                * 10.0 ** self.rng.uniform(-2, 2) + self.rng.uniform(-1e3, 1e3) for i in range(count)}

    def test_any_number_of_uneven_sites_is_the_pooled_sample(self):
        for count in (2, 3, 7, 16, 33, 64):
            sites = self.sites(count)
            bn = self.client.create(num_features=5)
            merged = bn.merge("m", {id: exact_moments(values) for id, values in sites.items()}, commit=True)
            mean, biased, unbiased = pooled(np.concatenate(list(sites.values())))
            self.assertEqual((merged.num_parts, merged.committed, merged.generation), (count, True, 1))
            stats = bn.stats()
            assert_close(stats.running_mean, mean)
            assert_close(stats.running_var, unbiased)
            assert_close(merged.merged.m2 / merged.merged.count, biased)
            assert_close(merged.variance_within + merged.variance_between, biased)
            self.assertEqual(bn.describe().num_batches_tracked, count)

    def test_neither_order_nor_calls_nor_workers_change_a_bit(self):
        parts = {id: Moments.of(values) for id, values in self.sites(24).items()}
        found = []
        for workers in (1, 2, 5):
            bn = self.client.create(num_features=5)
            order = list(parts)
            self.rng.shuffle(order)

            def send(ids, bn=bn):
                for id in ids:
                    for _ in range(2):  # a part that is sent again counts once
                        bn.merge("m", {id: parts[id]})

            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                list(pool.map(send, [order[i::workers] for i in range(workers)]))
            self.assertEqual(bn.merge("m").num_parts, 24)
            merged = bn.merge("m", commit=True)
            found.append((merged.merged.count, bytes(merged.merged.mean), bytes(merged.merged.m2),
                          bytes(bn.stats().running_var)))
        self.assertEqual(found[1:], found[:1] * 2)

    def test_policies_differ_where_sites_lie_apart(self):
        parts = {"a": Moments(4, np.array([-1.0]), np.array([4.0])), "b": Moments(4, np.array([1.0]), np.array([4.0]))}
        bn = self.client.create(num_features=1, running_variance="biased")
        self.assertEqual(bn.merge("exact", parts, commit=True).merged.m2, 16)
        self.assertEqual(bn.stats().running_var, 2)
        weighted = bn.merge("weighted", parts, policy="weighted", commit=True)
        self.assertEqual((weighted.variance_within, weighted.variance_between, bn.stats().running_var), (1, 1, 1))
        before = bn.describe()
        local = bn.merge("local", parts, policy="keep_local", commit=True)
        self.assertEqual((local.merged, local.variance_between, local.generation), (None, 1, before.generation))
        self.assertEqual(bn.describe().generation, before.generation)

    def test_parts_that_are_late_or_conflict_or_never_came_are_told(self):
        bn = self.client.create(num_features=1)
        part = {"a": Moments(4, np.array([1.0]), np.array([4.0]))}
        other = {"a": Moments(5, np.array([1.0]), np.array([4.0]))}
        for call, reason in (
            (lambda: bn.merge("m", commit=True), "COLLECTION_NOT_FOUND"),
            (lambda: bn.merge("m"), "COLLECTION_NOT_FOUND"),
            (lambda: bn.merge("m", drop=True), "COLLECTION_NOT_FOUND"),
        ):
            with self.assertRaises(normserve.Error) as raised:
                call()
            self.assertEqual(raised.exception.reason, reason)
        bn.merge("m", part)
        with self.assertRaises(normserve.Error) as raised:
            bn.merge("m", other)
        self.assertEqual(raised.exception.reason, "PART_CONFLICT")
        first = bn.merge("m", commit=True, request_id="commit")
        for again in (bn.merge("m", commit=True, request_id="commit"), bn.merge("m", commit=True), bn.merge("m")):
            self.assertEqual((again.generation, again.num_parts, bytes(again.merged.m2)),
                             (1, 1, bytes(first.merged.m2)))
        for late in (part, {"b": part["a"]}):
            with self.assertRaises(normserve.Error) as raised:
                bn.merge("m", late)
            self.assertEqual(raised.exception.reason, "COLLECTION_COMMITTED")
        self.assertEqual(bn.describe().generation, 1)

    def test_a_result_beyond_float32_never_becomes_the_statistics(self):
        bn = self.client.create("merge/huge", num_features=2)
        huge = normserve.Moments(10, [1, 1e300], [1, 1])
        for bring in (lambda: bn.merge("m", {"a": huge}, commit=True),
                      lambda: (bn.calibrate("c", huge, part_id="a"), bn.calibrate("c", commit=True))):  # fmt: skip
            with self.assertRaisesRegex(normserve.Error, r"mean of channel 1 .* is 1e\+300, beyond float32") as refused:
                bring()
            self.assertEqual(refused.exception.reason, "NON_FINITE")
        self.assertEqual((bn.stats().generation, bn.stats().running_mean.tolist()), (0, [0, 0]))

    def test_what_are_no_moments_is_named(self):
        bn, model = self.client.create("typed/a", num_features=1), self.client.model("typed")
        for call, text in ((lambda: bn.merge("m", [1]), "parts is of type list"),
                           (lambda: bn.merge("m", {"one": 3.0}), r'parts\["one"\] is of type float'),
                           (lambda: model.merge("m", {"one": {"a": 3}}), r'parts\["one"\]\["a"\] is of type int'),
                           (lambda: model.observe({"a": 1}), r'data\["a"\] is of type int'),
                           (lambda: model.diagnose({"a": 1}), r'layers\["a"\] is of type int')):  # fmt: skip
            with self.assertRaisesRegex(TypeError, text):
                call()

    def test_a_second_commit_that_asks_for_something_else_is_refused(self):
        bn, part = self.client.create("twice/a", num_features=1), Moments(4, np.zeros(1), np.ones(1))
        bn.merge("m", {"one": part}, policy="weighted", commit=True)
        bn.calibrate("c", part, part_id="one", commit=True, to_snapshot="kept")
        for _ in range(2):
            self.assertEqual(bn.merge("m", policy="weighted", commit=True).num_parts, 1)
            self.assertEqual(bn.merge("m").num_parts, 1)
            self.assertEqual(bn.calibrate("c", commit=True, to_snapshot="kept").num_batches, 1)
        for call, text in ((lambda: bn.merge("m", commit=True), "committed with policy WEIGHTED.*asks for policy EXACT"),
                           (lambda: bn.calibrate("c", commit=True), 'committed with estimator POOLED to_snapshot "kept"'),
                           (lambda: bn.calibrate("c", commit=True, to_snapshot="kept", estimator="algorithm_2"),
                            "asks for estimator ALGORITHM_2")):  # fmt: skip
            with self.assertRaisesRegex(normserve.Error, text) as raised:
                call()
            self.assertEqual(raised.exception.reason, "COLLECTION_COMMITTED")

    def test_what_is_begun_and_not_ended_is_told(self):
        bn, part = self.client.create("open/a", num_features=1), Moments(2, np.zeros(1), np.ones(1))
        bn.merge("round", {"one": part, "two": part})
        bn.calibrate("drift", part, part_id="batch")
        bn.merge("ended", {"one": part}, commit=True)
        info = bn.describe()
        self.assertEqual(info.open_merges, (normserve.OpenCollection("round", 2, 4),))
        self.assertEqual(info.open_calibrations, (normserve.OpenCollection("drift", 1, 2),))
        bn.merge("round", drop=True)
        self.assertEqual(bn.describe().open_merges, ())

    def test_a_dropped_merge_is_forgotten_and_its_bytes_are_free(self):
        bn = self.client.create(num_features=1000)
        before = self.client.info().state_bytes
        bn.merge("m", {"a": Moments.of(self.rng.standard_normal((4, 1000)))})
        self.assertGreater(self.client.info().state_bytes, before + 16_000)
        bn.merge("m", drop=True)
        self.assertEqual(self.client.info().state_bytes, before)
        with self.assertRaises(normserve.Error):
            bn.merge("m")
        bn.merge("m", {"a": Moments.of(self.rng.standard_normal((4, 1000)))})
        bn.delete()
        self.assertLess(self.client.info().state_bytes, before)

    def test_a_model_is_merged_in_one_change_and_layers_without_parts_stay(self):
        sessions = {layer: self.client.create(f"net/{layer}", 3) for layer in ("a", "b", "c")}
        model = self.client.model("net")
        values = {layer: self.sites(4, 3) for layer in ("a", "c")}
        for i in range(4):
            part = {layer: exact_moments(values[layer][f"site-{i}"]) for layer in values}
            model.merge("round-1", {f"site-{i}": part})
        merged = model.merge("round-1", commit=True)
        self.assertEqual({layer: each.num_parts for layer, each in merged.items()}, {"a": 4, "c": 4})
        for layer, of_layer in values.items():
            mean, _, unbiased = pooled(np.concatenate(list(of_layer.values())))
            assert_close(sessions[layer].stats().running_mean, mean)
            assert_close(sessions[layer].stats().running_var, unbiased)
        self.assertEqual([session.describe().generation for session in sessions.values()], [1, 0, 1])
        with self.assertRaisesRegex(normserve.Error, r'parts\[0\].layers.layer is "x"'):
            model.merge("round-2", {"s": {"x": exact_moments(values["a"]["site-0"])}})
        with self.assertRaises(normserve.Error) as raised:
            model.merge("round-3", commit=True)
        self.assertEqual(raised.exception.reason, "COLLECTION_NOT_FOUND")
        # One layer's part is wrong: the other's is not kept.
        bad = {"a": exact_moments(values["a"]["site-0"]), "c": Moments(4, np.zeros(2), np.zeros(2))}
        with self.assertRaisesRegex(normserve.Error, r"parts\[0\].layers\[c\].moments.mean has 2 values"):
            model.merge("round-4", {"s": bad})
        with self.assertRaises(normserve.Error):
            sessions["a"].merge("round-4")

    def test_what_a_session_may_hold_is_bounded(self):
        flags = ["--max-collections", "2", "--max-collection-parts", "3", "--max-state-bytes", "2MiB"]
        part = Moments(4, np.array([1.0]), np.array([4.0]))
        with ServerProcess("reference", flags) as server, normserve.Client(server.address) as client:
            limits = client.info().limits
            self.assertEqual((limits.max_collections, limits.max_collection_parts), (2, 3))
            bn = client.create(num_features=1)
            bn.merge("a", {str(i): part for i in range(3)})
            bn.calibrate("b", part, part_id="x")
            for call, limit in ((lambda: bn.merge("a", {"4": part}), "max_collection_parts"),
                                (lambda: bn.merge("c", {"1": part}), "max_collections")):
                with self.assertRaises(normserve.Error) as raised:
                    call()
                self.assertEqual((raised.exception.reason, raised.exception.metadata["limit"]),
                                 ("LIMIT_REACHED", limit))
            bn.merge("a", drop=True)
            bn.merge("c", {"1": part})
            for i in range(20):  # committed ones are remembered, but not for ever
                bn.calibrate("b" if i == 0 else f"b{i}", part, part_id="y", commit=True)
            with self.assertRaises(normserve.Error) as raised:
                bn.calibrate("b", commit=True)
            self.assertEqual(raised.exception.reason, "COLLECTION_NOT_FOUND")
            wide = client.create(num_features=8000)
            with self.assertRaises(normserve.Error) as raised:
                for i in range(10):
                    wide.merge("m", {str(i): Moments(4, np.ones(8000), np.ones(8000))})
                    wide.merge(f"m{i}", {str(i): Moments(4, np.ones(8000), np.ones(8000))}, commit=True)
            self.assertEqual(raised.exception.metadata["limit"], "max_state_bytes")

    def test_sessions_without_running_statistics_refuse(self):
        bn = self.client.create(num_features=1, track_running_stats=False)
        part = Moments(4, np.array([1.0]), np.array([4.0]))
        for call in (lambda: bn.merge("m", {"a": part}), lambda: bn.calibrate("c", part, part_id="a", commit=True)):
            with self.assertRaises(normserve.Error) as raised:
                call()
            self.assertEqual(raised.exception.reason, "NOT_TRACKED")


class Calibrate(ServerTestCase):
    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))
        self.rng = np.random.default_rng(12)

    def test_pooled_is_the_same_over_all_partitions_and_workers(self):
        values = self.rng.standard_normal((960, 4)) * [1, 10, 0.1, 3] + [0.5, 1e3, -5, 7]
        mean, _, unbiased = pooled(values)
        for batch, workers in ((960, 1), (7, 3), (64, 4), (1, 2)):
            bn = self.client.create(num_features=4)
            batches = [values[i : i + batch] for i in range(0, 960, batch)]

            def send(worker, bn=bn, batches=batches, workers=workers):
                for i in range(worker, len(batches), workers):
                    bn.calibrate("c", exact_moments(batches[i]), part_id=f"{i:04}")

            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                list(pool.map(send, range(workers)))
            found = bn.calibrate("c", commit=True)
            assert_close(found.running_mean, mean)
            assert_close(found.running_var, unbiased)
            np.testing.assert_array_equal(found.running_var, bn.stats().running_var)
            self.assertEqual((found.num_batches, bn.describe().num_batches_tracked), (len(batches), len(batches)))
            np.testing.assert_array_equal(found.running_var_before, np.ones(4))

    def test_algorithm_2_is_the_papers_whoever_brings_the_batches(self):
        batches = self.rng.standard_normal((30, 16, 3)) * 2 + self.rng.standard_normal((30, 1, 3)) * 5
        wide = batches.astype(np.longdouble)
        variance = wide.var(axis=1).mean(axis=0) * 16 / 15
        found = []
        for order in (range(30), reversed(range(30))):
            bn = self.client.create(num_features=3)
            for i in order:
                bn.calibrate("c", exact_moments(batches[i]), part_id=str(i), estimator="algorithm_2")
            bn.calibrate("c", estimator="algorithm_2", commit=True)
            assert_close(bn.stats().running_mean, wide.mean(axis=(0, 1)))
            assert_close(bn.stats().running_var, variance)
            found.append(bytes(bn.stats().running_var))
        self.assertEqual(found[0], found[1])
        bn.calibrate("d", exact_moments(batches[0]), part_id="0")
        bn.calibrate("d", exact_moments(batches[1][:9]), part_id="1")
        with self.assertRaisesRegex(normserve.Error, "one size"):
            bn.calibrate("d", estimator="algorithm_2", commit=True)
        self.assertEqual(bn.calibrate("d", commit=True).num_batches, 2)

    def test_batches_themselves_will_do_and_a_snapshot_takes_the_result(self):
        bn = self.client.create(num_features=3)
        x = self.rng.standard_normal((4, 8, 3, 5)).astype(np.float32) * 3 + 2
        for i in range(4):
            bn.calibrate("c", x[i], part_id=str(i))
        before = bn.describe()
        found = bn.calibrate("c", commit=True, to_snapshot="population")
        self.assertEqual((found.generation, bn.describe().generation), (0, before.generation))
        mean, _, unbiased = pooled(np.moveaxis(x, 2, -1).reshape(-1, 3))
        np.testing.assert_allclose(found.running_mean, mean.astype(float), rtol=1e-6)
        np.testing.assert_allclose(found.running_var, unbiased.astype(float), rtol=1e-6)
        bn.restore("population")
        np.testing.assert_array_equal(bn.stats().running_mean, found.running_mean)
        self.assertEqual(bn.describe().num_batches_tracked, 4)
        with self.assertRaises(normserve.Error) as raised:
            bn.calibrate("d", x[0], part_id="0", commit=True, to_snapshot="population")
        self.assertEqual((raised.exception.reason, bn.describe().generation), ("SNAPSHOT_EXISTS", 1))
        with self.assertRaisesRegex(normserve.Error, "without commit"):
            bn.calibrate("d", to_snapshot="other")
        with self.assertRaisesRegex(normserve.Error, "part_id is empty"):
            bn.calibrate("d", x[0])
        with self.assertRaisesRegex(normserve.Error, "no samples"):
            bn.calibrate("d", x[0][:0], part_id="0")

    def test_evaluation_after_a_calibration_has_no_gap_to_explain(self):
        bn = self.client.create(num_features=3)
        bn.forward(self.rng.standard_normal((64, 3)).astype(np.float32))
        x = (self.rng.standard_normal((256, 3)) * 4 + 9).astype(np.float32)
        self.assertEqual(bn.diagnose(Moments.of(x)).verdict, "train_eval_gap")
        for i in range(8):
            bn.calibrate("c", x[i * 32 : i * 32 + 32], part_id=str(i))
        bn.calibrate("c", commit=True)
        self.assertEqual(bn.diagnose(Moments.of(x)).verdict, "healthy")
        # The population's statistics are a start as good as any: a shift after them is not laid to the first zeros and ones.
        shifted = bn.diagnose(Moments.of(x + 20))
        self.assertEqual(shifted.verdict, "train_eval_gap")
        self.assertLess(shifted.causes["initialisation"], 0.1 * shifted.gap_rms)
        bn.forward(x[:32])
        self.assertLess(bn.diagnose(Moments.of(x + 20)).causes["initialisation"], 0.1 * shifted.gap_rms)

    def test_it_goes_on_after_kill_9_in_the_middle(self):
        batches = [self.rng.standard_normal((int(n), 6)) * 2 + 1 for n in self.rng.integers(2, 50, 40)]
        parts = [exact_moments(batch) for batch in batches]
        whole = self.client.create(num_features=6)
        for i, part in enumerate(parts):
            whole.calibrate("c", part, part_id=str(i))
        expected = whole.calibrate("c", commit=True)
        with tempfile.TemporaryDirectory() as directory:
            flags = ["--data-dir", directory]
            with ServerProcess("reference", flags) as server, normserve.Client(server.address) as client:
                layers = {layer: client.create(f"net/{layer}", 6) for layer in ("a", "b")}
                for i in range(20):
                    client.model("net").calibrate("c", {"a": parts[i], "b": parts[i]}, part_id=str(i))
                layers["a"].merge("done", {"p": parts[0]}, commit=True)
                server.crash()
            with ServerProcess("reference", flags) as server, normserve.Client(server.address) as client:
                model = client.model("net")
                used = client.info().state_bytes
                # The worker does not know what arrived: it sends some again.
                for i in range(15, 40):
                    model.calibrate("c", {"a": parts[i], "b": parts[i]}, part_id=str(i))
                self.assertGreater(client.info().state_bytes, used)
                found = model.calibrate("c", commit=True, request_id="commit")
                self.assertEqual(found["b"].num_batches, 40)
                server.crash()
            with ServerProcess("reference", flags) as server, normserve.Client(server.address) as client:
                model = client.model("net")
                for again in (model.calibrate("c", commit=True, request_id="commit"), model.calibrate("c", commit=True)):
                    for layer in ("a", "b"):
                        self.assertEqual(bytes(again[layer].running_mean), bytes(expected.running_mean))
                        self.assertEqual(bytes(again[layer].running_var), bytes(expected.running_var))
                        stats = client.session(f"net/{layer}").stats()
                        self.assertEqual(bytes(stats.running_var), bytes(expected.running_var))
                with self.assertRaises(normserve.Error) as raised:
                    model.merge("done", {"q": {"a": parts[1]}})
                self.assertEqual(raised.exception.reason, "COLLECTION_COMMITTED")
                for layer in ("a", "b"):
                    client.session(f"net/{layer}").delete()
                self.assertEqual(client.info().state_bytes, 0)


if __name__ == "__main__":
    unittest.main()
