"""Statistics as they change, watched from Python."""

import signal
import subprocess
import sys
import tempfile
import threading
import unittest

import grpc
import normserve
import numpy as np

from server_process import ServerProcess, ServerTestCase

X = np.random.default_rng(5).random((8, 2)).astype(np.float32)


class Watch(ServerTestCase):
    def setUp(self):
        self.client = self.enterContext(normserve.Client(self.server.address))

    def test_a_session_is_told_after_every_change(self):
        bn = self.client.create("watched/a", 2)
        with bn.watch(view="summary", compare_with="last_batch") as watch:
            self.assertEqual(next(watch).generation, 0)
            for generation in (1, 2):
                bn.forward(X)
                stats = next(watch)
                self.assertEqual((stats.generation, stats.summary.batch_count), (generation, 8))
        self.assertEqual(list(watch), [])

    def test_a_model_is_told_by_what_changed_in_it(self):
        for name in ("net/a", "net/b"):
            self.client.create(name, 2)
        with self.client.model("net").watch() as watch:
            first = next(watch)
            self.assertEqual([each.name for each in first.sessions], ["net/a", "net/b"])
            self.assertTrue(first.is_complete)
            self.client.session("net/b").forward(X)
            second = next(watch)
            self.assertEqual([(each.name, each.generation) for each in second.sessions], [("net/b", 1)])
            self.client.session("net/a").delete()
            self.assertEqual(next(watch).deleted_sessions, ("net/a",))
            self.client.model("net").delete()
            with self.assertRaises(normserve.Error) as raised:
                next(watch)
        self.assertEqual(raised.exception.code, grpc.StatusCode.NOT_FOUND)
        self.assertEqual(list(watch), [])

    def test_imported_layers_are_told_of_whether_they_are_new_or_replaced(self):
        self.client.create("imported/a", 2)
        with self.client.model("imported").watch() as watch:
            next(watch)
            state = {f"{layer}.{name}": np.ones(2, np.float32) for layer in "ab"
                     for name in ("weight", "bias", "running_mean", "running_var")}
            self.client.import_state("imported/", state, existing="replace")
            told = set()
            while told != {"imported/a", "imported/b"}:
                told |= {each.name for each in next(watch).sessions}

    def test_close_ends_a_wait_in_another_thread(self):
        bn = self.client.create("closed", 2)
        watch = bn.watch()
        seen = []
        thread = threading.Thread(target=lambda: seen.extend(each.generation for each in watch))
        thread.start()
        while not seen:
            pass
        watch.close()
        thread.join()
        self.assertEqual(seen, [0])

    def test_by_interval_it_is_told_without_a_change(self):
        bn = self.client.create("timed", 2)
        with bn.watch(interval=0.02) as watch:
            self.assertEqual([next(watch).generation for _ in range(4)], [0] * 4)

    def test_generations_that_are_known_are_not_told(self):
        bn = self.client.create("known", 2)
        bn.forward(X)
        with bn.watch(after_generation=1) as watch:
            bn.forward(X)
            self.assertEqual(next(watch).generation, 2)

    def test_what_cannot_be_watched_raises(self):
        with self.assertRaisesRegex(normserve.Error, "does not exist"):
            next(self.client.session("nobody").watch())
        self.client.create("short", 2)
        with self.assertRaisesRegex(normserve.Error, "interval is 1ms"):
            next(self.client.session("short").watch(interval=0.001))

    def test_a_server_that_starts_again_is_watched_again(self):
        data = ["--data-dir", self.enterContext(tempfile.TemporaryDirectory())]
        with ServerProcess(flags=data) as server, normserve.Client(server.address) as client:
            watch = client.create("a", 2).watch()
            self.assertEqual(next(watch).generation, 0)
            server.stop()
            with ServerProcess(flags=[*data, "--listen", server.address]) as restarted:
                with normserve.Client(restarted.address) as other:
                    other.session("a").forward(X)
                self.assertEqual(next(stats.generation for stats in watch if stats.generation), 1)
                watch.close()

    def test_ctrl_c_ends_the_iteration(self):
        self.client.create("interrupted", 2)
        program = (
            "import normserve, sys\n"
            f"client = normserve.Client({self.server.address!r})\n"
            "for stats in client.session('interrupted').watch():\n"
            "    print(stats.generation, flush=True)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), b"0\n")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertIn(b"KeyboardInterrupt", errors)


if __name__ == "__main__":
    unittest.main()
