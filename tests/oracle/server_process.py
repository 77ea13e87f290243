"""A real server process for tests: on a free port, stopped whatever happens, its log shown when a test fails."""

import glob
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.environ.get("NORMSERVE_STUBS", "build/release/python"))

# pylint: disable=wrong-import-position
import grpc
import numpy as np

from normserve.v1 import batch_norm_service_pb2 as pb
from normserve.v1 import batch_norm_service_pb2_grpc as pb_grpc
from normserve.v1 import session_pb2, statistics_pb2, tensor_pb2

START_SECONDS = 120  # a driver may compile its shaders first
STOP_SECONDS = 60

ENGINE = os.environ.get("NORMSERVE_TEST_ENGINE", "lavapipe")

# Where Debian's packages put the drivers' manifests.
_MANIFESTS = {
    "lavapipe": ["/usr/share/vulkan/icd.d/lvp_icd*.json"],
    "swiftshader": ["/usr/lib/chromium/vk_swiftshader_icd.json", "/usr/lib/chromium*/vk_swiftshader_icd.json"],
}

_DEVICE_NAMES = {"reference": "", "lavapipe": "llvmpipe", "swiftshader": "SwiftShader"}


def driver_environment(engine):
    """The environment variables that leave the Vulkan loader one driver; none for the reference engine."""
    if engine == "reference":
        return {}
    for pattern in _MANIFESTS[engine]:
        for manifest in sorted(glob.glob(pattern)):
            # The older name is what Debian 12's loader knows; the newer one wins where it is set.
            return {"VK_ICD_FILENAMES": manifest, "VK_DRIVER_FILES": manifest}
    raise FileNotFoundError(f"no {engine} on this machine: none of {_MANIFESTS[engine]}; "
                            "install mesa-vulkan-drivers and chromium-common")


class ServerProcess:
    """A server on a port of its own. Use as a context manager; `stub` speaks to it."""

    def __init__(self, engine=ENGINE, flags=()):
        self.engine = engine
        self._flags = list(flags)
        self._process = None
        self._scratch = None
        self._crashed = False
        self.channel = None
        self.stub = None
        self.address = None

    def __enter__(self):
        self._scratch = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._scratch.name)
        port_file, self._log = folder / "port", folder / "log"
        kind = "reference" if self.engine == "reference" else "vulkan"
        # setpriv ends the server with this process. (A preexec_fn would do so too, but Python forks for it, and gRPC holds
        # up a fork until its threads idle, which they may never do.)
        command = ["setpriv", "--pdeathsig", "KILL", "--", os.environ["NORMSERVE_SERVER_PROGRAM"],
                   "--listen", "127.0.0.1:0", "--port-file", str(port_file), "--engine", kind,
                   *(["--validation"] if kind == "vulkan" else []), *self._flags]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NORMSERVE_")}
        environment.update(driver_environment(self.engine))
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                             env=environment)
        try:
            self.address = self._wait_for_address(port_file)
            self.channel = grpc.insecure_channel(self.address, options=[
                ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
            self.stub = pb_grpc.BatchNormServiceStub(self.channel)
            grpc.channel_ready_future(self.channel).result(START_SECONDS)
        except BaseException:
            self._kill()
            self.show_log()
            self._scratch.cleanup()
            raise
        return self

    def crash(self):
        """kill -9, which the end of the `with` then takes no offence at."""
        self._crashed = True
        self._kill()

    def stop(self):
        """SIGTERM; returns when the server has ended, or should have."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # which the end of the `with` reports

    def log(self):
        """What it has logged so far."""
        return self._log.read_text(errors="replace")

    def _wait_for_address(self, port_file):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if port_file.exists() and port_file.read_text().endswith("\n"):
                return port_file.read_text().splitlines()[0]  # "127.0.0.1:40123", one line an address
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode} before it listened")
            time.sleep(0.02)
        raise TimeoutError(f"no address after {START_SECONDS} s")

    def __exit__(self, kind, value, trace):
        self.channel.close()
        code = None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                code = self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._kill()
        else:
            code = self._process.returncode
        if self._crashed and code == -signal.SIGKILL:
            code = 0
        # What the Vulkan validation layer had to say, on a line of its own.
        invalid = "validation: " in self._log.read_text(errors="replace")
        if kind is not None or code != 0 or invalid:
            self.show_log()
        self._scratch.cleanup()
        if kind is None and invalid:
            raise RuntimeError("the Vulkan validation layer reported what the log shows")
        if kind is None and code != 0:
            raise RuntimeError(f"the server ended with {code} (None: it had to be killed)")
        return False

    def _kill(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def show_log(self):
        text = self._log.read_text(errors="replace")
        print(f"--- the server's log ({self.engine}), its end:\n{text[-6000:]}\n---", file=sys.stderr)


class ServerTestCase(unittest.TestCase):
    """Tests that share one server; its log is shown with each that fails."""

    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(ServerProcess())
        cls.stub = cls.server.stub
        info = cls.stub.GetServerInfo(pb.GetServerInfoRequest())
        in_use = [device.name for device in info.devices if device.in_use]
        expected = _DEVICE_NAMES[ENGINE]
        assert [expected in name for name in in_use] == [True] * (ENGINE != "reference"), (ENGINE, in_use)

    def run(self, result=None):
        def failed():
            return len(result.failures) + len(result.errors)

        before = failed()
        super().run(result)
        if failed() > before:
            self.server.show_log()


def tensor(array, layout=tensor_pb2.LAYOUT_CHANNELS_FIRST, bfloat16=False):
    """A numpy array as a message: float16 as FLOAT16, all else as FLOAT32, or as BFLOAT16, whose values it holds."""
    array = np.ascontiguousarray(array)
    if bfloat16:
        words = (array.astype("<f4").view("<u4") >> 16).astype("<u2")
        return tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_BFLOAT16, shape=array.shape, layout=layout,
                                 data=words.tobytes())
    array = array.astype("<f2" if array.dtype == np.float16 else "<f4")
    data_type = tensor_pb2.DATA_TYPE_FLOAT16 if array.itemsize == 2 else tensor_pb2.DATA_TYPE_FLOAT32
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, layout=layout, data=array.tobytes())


def array(message):
    """A message as a numpy array; BFLOAT16 as float32."""
    if message.data_type == tensor_pb2.DATA_TYPE_BFLOAT16:
        bits = np.frombuffer(message.data, dtype="<u2").astype("<u4") << 16
        return bits.view("<f4").reshape(tuple(message.shape))
    dtype = "<f2" if message.data_type == tensor_pb2.DATA_TYPE_FLOAT16 else "<f4"
    return np.frombuffer(message.data, dtype=dtype).reshape(tuple(message.shape))


def statistics_of(stub, name):
    """The RunningStatistics of one session."""
    reply = stub.GetStats(pb.GetStatsRequest(name=name))
    assert len(reply.sessions) == 1, reply
    return reply.sessions[0].statistics
