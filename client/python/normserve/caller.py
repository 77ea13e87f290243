"""What every call has: one deadline over all attempts, and the decision what is repeated. Internal."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import grpc

from normserve.error import Error, from_rpc_error
from normserve.v1 import batch_norm_service_pb2_grpc

# What stays exhausted until somebody deletes something or asks for less.
_LASTING_LIMITS = ("max_sessions", "max_snapshots", "max_state_bytes", "max_message_bytes", "max_collections",
                   "max_collection_parts")  # fmt: skip
_FIRST_BACKOFF = 0.1  # seconds
_LONGEST_BACKOFF = 5.0  # seconds
_CONNECTION_WAIT = 0.15  # seconds; what gRPC waits before it connects again, and a little
# No caller can cancel: a CANCELLED is the word of a server that shuts down, or of a proxy. DEADLINE_EXCEEDED is not
# among them: each attempt has the call's own deadline.
_TRANSIENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Repetitions are Caller's, which knows what may be repeated; gRPC's buffer is too small for tensors.
    ("grpc.enable_retries", 0),
    # Come back soon after a server that starts again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


def request_id_or_random(request_id: str | None) -> str:
    return str(uuid.uuid4()) if request_id is None else request_id


class Caller:
    """A channel to a server. Thread-safe."""

    def __init__(self, target: str, timeout: float, retries: int, channel: grpc.Channel | None) -> None:
        self._own = channel is None
        self._channel = grpc.insecure_channel(target, options=_OPTIONS) if channel is None else channel
        self._timeout = timeout
        self._retries = retries
        self._closed = False
        self.stub: Any = batch_norm_service_pb2_grpc.BatchNormServiceStub(self._channel)
        # Of bytes: tensor_message.py makes and reads these messages without copying a tensor more than once.
        self.forward = self._channel.unary_unary("/normserve.v1.BatchNormService/Forward")
        self.backward = self._channel.unary_unary("/normserve.v1.BatchNormService/Backward")

    def raw(self, method: str) -> Callable[..., Any]:
        """A method of the service that takes and gives bytes, for messages with tensors."""
        call: Callable[..., Any] = self._channel.unary_unary(f"/normserve.v1.BatchNormService/{method}")
        return call

    def close(self) -> None:
        """Ends the connection, unless it is the user's own."""
        self._closed = True
        if self._own:
            self._channel.close()

    def deadline(self, timeout: float | None) -> float:
        """The time on time.monotonic() at which a call that begins now is given up."""
        return time.monotonic() + (self._timeout if timeout is None else timeout)

    def call(
        self, method: Callable[..., Any], request: Any, deadline: float, *, repeatable: bool, session: str = ""
    ) -> Any:
        """The reply to `request`; repeats the call if it is `repeatable`, which is whether the server may see it twice
        without harm. Raises Error."""
        backoff = _FIRST_BACKOFF
        # Lets a proxy route by session without reading the message. A name that may not travel in metadata stays out of
        # it; the server refuses it anyway, and says why.
        routable = 0 < len(session) <= 255 and all(" " < c <= "~" for c in session)
        metadata = (("normserve-session", session),) if routable else ()
        for attempts_left in range(self._retries if repeatable else 0, -1, -1):
            try:
                return method(request, timeout=deadline - time.monotonic(), metadata=metadata)
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                delay = self._delay(error, backoff)
                if self._closed or not attempts_left or delay is None or time.monotonic() + delay >= deadline:
                    raise error from None
            time.sleep(delay)
            backoff = min(2 * backoff, _LONGEST_BACKOFF)
            if error.code == grpc.StatusCode.UNAVAILABLE:
                self._await_connection(deadline)
        raise AssertionError("a call is made at least once")

    def _await_connection(self, deadline: float) -> None:
        """Gives a channel that could not connect a short while to do so. gRPC goes on connecting only while somebody waits,
        and a call that finds no connection does not: the next attempt would find the channel as it was."""
        ready = grpc.channel_ready_future(self._channel)
        try:
            ready.result(timeout=max(0.0, min(_CONNECTION_WAIT, deadline - time.monotonic())))
        except grpc.FutureTimeoutError:
            ready.cancel()  # or it would be told of every change to come

    @staticmethod
    def _delay(error: Error, backoff: float) -> float | None:
        """Seconds to wait before the next attempt; None if repeating does not mend the error."""
        lasts = error.metadata.get("limit") in _LASTING_LIMITS
        asked = error.code == grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_delay is not None and not lasts
        if error.code not in _TRANSIENT and not asked:
            return None
        # The server's word is the least; the jitter keeps its callers from coming back all at once.
        return max(0.0, error.retry_delay or 0.0) + backoff * random.uniform(0.5, 1)
