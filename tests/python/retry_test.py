"""A lost reply is asked for again where that is safe, and a change is made once however often it is sent."""

import socket
import time
import unittest
import unittest.mock
from concurrent import futures

import grpc
import normserve
import numpy as np
from lossy_proxy import LossyProxy
from normserve.caller import Caller
from normserve.v1 import batch_norm_service_pb2_grpc, error_details_pb2, server_info_pb2
from server_process import ServerTestCase

X = np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32)


def asks_to_wait(seconds, limit=None):
    """Trailers that ask for it; and with `limit` name the one that is reached."""
    details = error_details_pb2.StatusDetails()
    if limit is not None:
        info = error_details_pb2.ErrorInfo(reason="LIMIT_REACHED", domain="normserve", metadata={"limit": limit})
        details.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=info.SerializeToString())
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(int(seconds * 1000))
    details.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=retry.SerializeToString())
    return (("grpc-status-details-bin", details.SerializeToString()),)


class LostReplies(ServerTestCase):
    def setUp(self):
        self.proxy = self.enterContext(LossyProxy(self.server.address))
        self.client = self.enterContext(normserve.Client(self.proxy.address))

    def methods(self):
        return [method for method, *_ in self.proxy.calls]

    def test_a_training_forward_whose_reply_was_lost_updates_once(self):
        bn = self.client.create(num_features=2)
        self.proxy.lose(2)
        result = bn.forward(X)
        self.assertEqual(self.methods(), ["CreateSession"] + ["Forward"] * 3)
        self.assertEqual(len({message for _, message, *_ in self.proxy.calls[1:]}), 1)  # the request id, too
        self.assertEqual((result.generation, bn.stats().num_batches_tracked), (1, 1))

    def test_every_change_whose_reply_was_lost_is_made_once(self):
        name = "retry/every"
        self.proxy.lose()
        bn = self.client.create(name, 2)
        changes = [
            bn.eval, bn.train, lambda: bn.set_mode("train"), lambda: bn.set_parameters(weight=[1, 2]),
            lambda: bn.snapshot("kept"), lambda: bn.restore("kept"), lambda: bn.delete_snapshot("kept"),
        ]  # fmt: skip
        for change in changes:
            self.proxy.lose()
            change()
        self.assertEqual(bn.stats().generation, 5)
        self.proxy.lose()
        bn.clone(name + "/clone")
        self.proxy.lose()
        bn.delete()
        methods = self.methods()
        self.assertEqual(methods[:2], ["CreateSession"] * 2)
        self.assertEqual(methods[-4:], ["CloneSession"] * 2 + ["DeleteSession"] * 2)

    def test_a_change_without_a_request_id_is_not_repeated(self):
        bn = self.client.create(num_features=2)
        for change in (lambda: bn.forward(X, request_id=""), lambda: bn.eval(request_id=""),
                       lambda: bn.forward(X, mode="eval", update="running", request_id="")):  # fmt: skip
            self.proxy.lose()
            with self.assertRaisesRegex(normserve.Error, "UNAVAILABLE: lost on the way"):
                change()
        self.assertEqual(self.methods(), ["CreateSession", "Forward", "SetMode", "Forward"])
        self.assertEqual(bn.stats().generation, 3)

    def test_reads_are_repeated(self):
        bn = self.client.create(num_features=2)
        saved = bn.forward(X, save_for_backward=True)
        bn.snapshot("kept")
        reads = [
            bn.stats, bn.describe, lambda: list(bn.snapshots()), self.client.info, lambda: list(self.client.list()),
            lambda: bn.backward(X, saved), lambda: bn.forward(X, mode="eval", request_id=""),
            lambda: bn.forward(X, update="none", request_id=""),
        ]  # fmt: skip
        for read in reads:
            del self.proxy.calls[:]
            self.proxy.lose()
            read()
            self.assertEqual(len(self.methods()), 2)

    def test_only_what_may_end_better_is_repeated(self):
        bn = self.client.create(num_features=2)
        codes = grpc.StatusCode
        for code, trailers, sent in ((codes.CANCELLED, (), 2), (codes.RESOURCE_EXHAUSTED, asks_to_wait(0.05), 2),
                                     (codes.RESOURCE_EXHAUSTED, (), 1), (codes.ABORTED, (), 1), (codes.INTERNAL, (), 1),
                                     (codes.RESOURCE_EXHAUSTED, asks_to_wait(0.05, limit="max_sessions"), 1),
                                     (codes.DEADLINE_EXCEEDED, (), 1), (codes.ABORTED, asks_to_wait(0.05), 1)):  # fmt: skip
            with self.subTest(code=code, trailers=bool(trailers)):
                del self.proxy.calls[:]
                self.proxy.lose(1, code, trailers)
                if sent == 2:
                    bn.stats()
                else:
                    with self.assertRaises(normserve.Error) as raised:
                        bn.stats()
                    self.assertEqual(raised.exception.code, code)
                    self.assertEqual(raised.exception.retry_delay, 0.05 if trailers else None)
                self.assertEqual(len(self.methods()), sent)

    def test_retries_is_how_often(self):
        for retries in (0, 2):
            with normserve.Client(self.proxy.address, retries=retries) as client:
                del self.proxy.calls[:]
                self.proxy.lose(5)
                with self.assertRaisesRegex(normserve.Error, "UNAVAILABLE"):
                    client.info()
                self.assertEqual(len(self.methods()), 1 + retries)

    def test_a_wait_beyond_the_deadline_is_not_begun(self):
        self.proxy.lose(1, grpc.StatusCode.RESOURCE_EXHAUSTED, asks_to_wait(3600))
        with self.assertRaises(normserve.Error) as raised:
            self.client.info()
        self.assertEqual(raised.exception.retry_delay, 3600)
        self.assertEqual(len(self.methods()), 1)

    def test_the_deadline_is_the_calls_or_else_the_clients(self):
        with normserve.Client(self.proxy.address, timeout=1000) as client:
            client.info()
            client.info(timeout=50)
            bn = client.create(num_features=2, timeout=60)
            bn.forward(X, timeout=70)
        left = [seconds for *_, seconds in self.proxy.calls]
        for found, given in zip(left, (1000, 50, 60, 70), strict=True):
            # On the wire a time is rounded up to two or three digits.
            self.assertTrue(given - 20 < found <= 1.1 * given, left)

    def test_the_session_travels_in_the_metadata_where_it_may(self):
        self.client.create("retry/routed", 2).stats()
        with self.assertRaises(normserve.Error) as raised:
            self.client.session("nåme").stats()
        self.assertEqual(raised.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
        self.client.info()
        names = [metadata.get("normserve-session") for _, _, metadata, _ in self.proxy.calls]
        self.assertEqual(names, ["retry/routed", "retry/routed", None, None])

    def test_nobody_there_is_unavailable_once_the_time_is_up(self):
        with normserve.Client("127.0.0.1:1", timeout=0.5) as client, self.assertRaises(normserve.Error) as raised:
            client.info()
        self.assertIn(raised.exception.code, (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED))
        self.assertEqual((raised.exception.reason, raised.exception.metadata), ("", {}))


class Unavailable(grpc.RpcError):
    """What a stub raises."""

    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def details(self):
        return "away"

    def trailing_metadata(self):
        return None


class Repeating(unittest.TestCase):
    """The loop by itself, with a clock that only sleeping moves."""

    def setUp(self):
        self.now, self.waits, self.timeouts = 1000.0, [], []
        clock = self.enterContext(unittest.mock.patch("normserve.caller.time"))
        clock.monotonic.side_effect = lambda: self.now
        clock.sleep.side_effect = self.sleep
        self.enterContext(unittest.mock.patch("grpc.channel_ready_future"))

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds

    def fail(self, request, timeout, metadata):
        self.timeouts.append(timeout)
        raise Unavailable

    def test_waits_double_up_to_five_seconds_and_all_attempts_share_one_deadline(self):
        caller = Caller("", 30, 99, unittest.mock.Mock())
        with self.assertRaises(normserve.Error):
            caller.call(self.fail, b"", caller.deadline(None), repeatable=True)
        for wait, most in zip(self.waits, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2] + [5] * 20):
            self.assertTrue(most / 2 <= wait <= most, self.waits)
        self.assertGreater(len(self.waits), 8)
        self.assertNotEqual(self.waits[-1], self.waits[-2])  # drawn
        self.assertEqual(len(self.timeouts), len(self.waits) + 1)
        self.assertAlmostEqual(self.timeouts[0], 30)
        for before, after, wait in zip(self.timeouts, self.timeouts[1:], self.waits):
            self.assertAlmostEqual(before - after, wait)
        self.assertGreater(self.timeouts[-1], 0)


class Connections(ServerTestCase):
    def test_a_channel_of_the_callers_own_stays_open(self):
        with grpc.insecure_channel(self.server.address) as channel:
            for _ in range(2):
                with normserve.Client(channel=channel) as client:
                    client.info()

    def test_a_server_that_appears_between_two_attempts_is_reached(self):
        class Service(batch_norm_service_pb2_grpc.BatchNormServiceServicer):
            def GetServerInfo(self, request, context):
                return server_info_pb2.ServerInfo(version="7.0.0")

        server = grpc.server(futures.ThreadPoolExecutor(1))
        batch_norm_service_pb2_grpc.add_BatchNormServiceServicer_to_server(Service(), server)
        with socket.socket() as place:  # held, so that nobody else takes it
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            place.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{place.getsockname()[1]}"

            def appear(seconds):
                server.add_insecure_port(address)
                server.start()
                time.sleep(seconds)

            with (unittest.mock.patch("normserve.caller._CONNECTION_WAIT", 60),
                  unittest.mock.patch("normserve.caller.time", monotonic=time.monotonic, sleep=appear),
                  normserve.Client(address, retries=1, timeout=100) as client):  # fmt: skip
                self.assertEqual(client.info().version, "7.0.0")
        server.stop(None).wait()

    def test_closing_ends_calls_that_are_under_way(self):
        with socket.create_server(("127.0.0.1", 0)) as mute, futures.ThreadPoolExecutor(1) as thread:
            client = normserve.Client(f"127.0.0.1:{mute.getsockname()[1]}")
            call = thread.submit(client.info)
            with mute.accept()[0]:
                client.close()
                with self.assertRaises(normserve.Error) as raised:
                    call.result()
        self.assertEqual(raised.exception.code, grpc.StatusCode.CANCELLED)

    def test_a_closed_client_makes_no_calls(self):
        client = normserve.Client(self.server.address)
        client.close()
        with self.assertRaisesRegex(ValueError, "closed"):
            client.info()


if __name__ == "__main__":
    unittest.main()
