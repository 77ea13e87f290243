"""What /metrics says of real calls, by a parser of Prometheus' own client library."""

import time
import unittest

import normserve
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from admin_server import AdminTestCase


def samples(text):
    """By name and labels, every sample of the text."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            found[key] = sample.value
    return found


class Metrics(AdminTestCase):
    FLAGS = ("--admin-max-session-gauges", "2")

    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))

    def read(self):
        status, headers, body = self.server.get("/metrics")
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        return samples(body)

    def test_a_call_is_counted_with_its_code_its_sizes_and_the_engines_job(self):
        before = self.read()
        bn = self.client.create("counted", num_features=3)
        self.addCleanup(bn.delete)
        x = np.random.default_rng(1).random((4, 3, 8, 8), np.float32)
        for _ in range(3):
            bn.forward(x)
        with self.assertRaises(normserve.Error):
            self.client.session("nowhere").stats()
        after = self.read()

        def grown(name, **labels):
            key = (name, tuple(sorted(labels.items())))
            return after[key] - before.get(key, 0)

        self.assertEqual(grown("normserve_rpc_duration_seconds_count", rpc="Forward", code="OK"), 3)
        self.assertEqual(grown("normserve_rpc_duration_seconds_count", rpc="CreateSession", code="OK"), 1)
        self.assertEqual(grown("normserve_rpc_duration_seconds_count", rpc="GetStats", code="NOT_FOUND"), 1)
        self.assertGreater(grown("normserve_rpc_duration_seconds_sum", rpc="Forward", code="OK"), 0)
        for direction in ("request", "reply"):
            size = grown(f"normserve_rpc_{direction}_bytes_sum", rpc="Forward")
            self.assertTrue(3 * x.nbytes < size < 3 * (x.nbytes + 1000), size)
        self.assertEqual(grown("normserve_engine_duration_seconds_count", direction="forward", result="ok"), 3)
        self.assertEqual(after["normserve_engine_jobs_in_work", (("direction", "forward"),)], 0)
        # A call is in work until the transport is done with its reply, which may be after its client is.
        while self.read()["normserve_calls_in_work", ()] > 0:
            time.sleep(0.01)
        self.assertEqual(grown("normserve_sessions"), 1)
        self.assertGreater(grown("normserve_state_bytes"), 0)

    def test_a_watch_is_counted_when_it_ends_with_all_that_it_was_sent(self):
        before = self.read()
        bn = self.client.create("watched", num_features=2)
        watch = bn.watch()
        first = next(watch)
        bn.delete()
        with self.assertRaises(normserve.Error):
            next(watch)
        with self.assertRaises(normserve.Error):
            next(self.client.session("nowhere").watch())
        after = self.read()

        def grown(name, **labels):
            key = (name, tuple(sorted(labels.items())))
            return after[key] - before.get(key, 0)

        self.assertEqual(first.generation, 0)
        self.assertEqual(grown("normserve_rpc_duration_seconds_count", rpc="WatchStats", code="NOT_FOUND"), 2)
        self.assertGreater(grown("normserve_rpc_reply_bytes_sum", rpc="WatchStats"), 4 * 8)

    def test_gauges_of_sessions_are_limited_and_say_how_many_are_left_out(self):
        for i in range(5):
            self.client.create(f"many/{i}", num_features=1).forward(np.arange(4.0, dtype=np.float32).reshape(4, 1))
        found = self.read()
        named = {key[1] for key in found if key[0] == "normserve_session_generation"}
        self.assertEqual(named, {(("session", "many/0"),), (("session", "many/1"),)})
        self.assertEqual(found["normserve_sessions_without_gauges", ()], 3)
        self.assertGreater(found["normserve_session_relative_gap", (("session", "many/0"),)], 0.1)
        for i in range(5):
            self.client.session(f"many/{i}").delete()

    def test_no_series_is_of_a_channel(self):
        lengths = []
        for num_features in (1, 500):
            bn = self.client.create("wide", num_features=num_features)
            bn.forward(np.random.default_rng(2).random((8, num_features), np.float32))
            lengths.append(len(self.read()))
            bn.delete()
        self.assertEqual(lengths[0], lengths[1])


if __name__ == "__main__":
    unittest.main()
