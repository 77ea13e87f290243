"""A server under load is killed at random moments, and what it then has is compared with what its clients were told.

NORMSERVE_CRASH_KILLS: how often. NORMSERVE_CRASH_SEED: of everything chosen here; the moment itself is the machine's.
"""

import contextlib
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest

from server_process import ENGINE, ServerProcess, session_pb2
from crash_check import AfterCrash, Counts
from crash_client import CALL_SECONDS, WIDE, Client, World
from session_model import Contradiction

KILLS = int(os.environ.get("NORMSERVE_CRASH_KILLS", "25" if ENGINE == "reference" else "5"))
SEED = int(os.environ.get("NORMSERVE_CRASH_SEED", random.SystemRandom().getrandbits(32)))
NUM_CLIENTS = 6
ENOUGH = 200  # changes to have some of every kind
# A kill waits for a call of one of these, so that the rare ones are cut short as often as the others.
METHODS = ("CreateSession", "CloneSession", "DeleteSession", "SnapshotState", "RestoreState", "DeleteSnapshot", "SetMode",
           "SetParameters", "Forward")


class CrashTestCase(unittest.TestCase):
    def setUp(self):
        scratch = self.enterContext(tempfile.TemporaryDirectory())
        self.folder = pathlib.Path(scratch) / "data"
        print(f"NORMSERVE_CRASH_SEED={SEED}", file=sys.stderr, flush=True)
        self.random = random.Random(SEED)
        self.world, self.counts = World(), Counts()

    def server(self):
        return ServerProcess(flags=["--data-dir", str(self.folder)])

    def open_first(self, stub):
        """The first four take half of the load, and none of the five is deleted: they grow old."""
        client = Client(self.world, stub, self.random.getrandbits(63))
        for num_features, durability in ((8, session_pb2.DURABILITY_UNSPECIFIED), (3, session_pb2.DURABILITY_FLUSH),
                                         (40, session_pb2.DURABILITY_COMMIT), (1, session_pb2.DURABILITY_FLUSH),
                                         (WIDE, session_pb2.DURABILITY_COMMIT)):
            client.open(f"kept/{num_features}", num_features, durability).is_kept = True

    def check(self, stub):
        AfterCrash(self.world, stub, self.random.getrandbits(63), self.counts).run()

    def load(self, server, end, num_changes=0):
        """Clients at work until `end` ends the server, after `num_changes` or more."""
        self.world.round += 1
        self.world.is_lost = False
        clients = [Client(self.world, server.stub, self.random.getrandbits(63)) for _ in range(NUM_CLIENTS)]
        awaited = self.random.choice(METHODS)
        moment, delay = self.random.uniform(0.05, 0.6), self.random.uniform(0, 0.003)
        for client in clients:
            client.start()
        while sum(client.acknowledged for client in clients) < num_changes and not self.world.failures:
            time.sleep(0.01)
        time.sleep(moment)
        if self.random.random() < 0.5:
            self.world.sent.clear()
            self.world.awaited = awaited
            self.world.sent.wait(1)  # or one that nobody happened to call
            self.world.awaited = None
            time.sleep(delay)
        end()
        for client in clients:
            client.join(2 * CALL_SECONDS)
            self.assertFalse(client.is_alive(), "a client hangs")
            self.counts.acknowledged += client.acknowledged
            self.counts.repeats += client.repeated
        if self.world.failures:
            raise self.world.failures[0]


class Crash(CrashTestCase):
    def crash_while_starting(self):
        command = [os.environ["NORMSERVE_SERVER_PROGRAM"], "--engine", "reference", "--listen", "127.0.0.1:0",
                   "--data-dir", str(self.folder)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(self.random.uniform(0, 0.1))
            process.kill()
        self.counts.kills_while_starting += 1

    def test_what_was_acknowledged_is_there_once_after_every_kill(self):
        # On a busy machine a few kills may all come where nothing was at stake: then there are more of them.
        while self.counts.kills < KILLS or (self.counts.applied == 0 and self.counts.kills < 8 * KILLS):
            with self.server() as server:
                if self.world.round == 0:
                    self.open_first(server.stub)
                else:
                    self.check(server.stub)
                if self.random.random() < 0.07:
                    self.load(server, server.stop)
                    self.counts.stops += 1
                else:
                    self.load(server, server.crash)
                    self.counts.kills += 1
            if self.random.random() < 0.15:
                self.crash_while_starting()
        with self.server() as server:
            self.check(server.stub)
        print(self.counts, file=sys.stderr)
        self.assertGreater(self.counts.acknowledged, KILLS)
        self.assertGreater(self.counts.applied, 0)
        self.assertGreater(self.counts.unknown, self.counts.applied)


class Canary(CrashTestCase):
    """Crashes after which something is missing, which the check must notice."""

    def crash_once(self):
        with self.server() as server:
            self.open_first(server.stub)
            self.load(server, server.crash, ENOUGH)

    def assert_noticed(self):
        with self.server() as server, self.assertRaises(Contradiction):
            self.check(server.stub)

    def test_a_data_directory_of_one_kill_before_is_noticed(self):
        before = self.folder.parent / "before"
        self.crash_once()
        shutil.copytree(self.folder, before)
        with self.server() as server:
            self.check(server.stub)
            self.load(server, server.crash, ENOUGH)
        shutil.rmtree(self.folder)
        before.rename(self.folder)
        self.assert_noticed()

    def test_rows_that_are_gone_are_noticed(self):
        for gone in ("sessions WHERE name = 'kept/8'", "current_vectors WHERE kind = 3",
                     "kept_vectors", "requests", "server_requests", "snapshots"):
            with self.subTest(gone):
                self.world = World()
                self.crash_once()
                with contextlib.closing(sqlite3.connect(self.folder / "normserve.db")) as database:
                    database.execute(f"DELETE FROM {gone}")
                    database.commit()
                self.assert_noticed()
                shutil.rmtree(self.folder)


if __name__ == "__main__":
    unittest.main()
