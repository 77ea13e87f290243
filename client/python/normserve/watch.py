"""Statistics as they change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc

from normserve.caller import Caller
from normserve.descriptions import Stats, stats
from normserve.error import from_rpc_error
from normserve.v1 import batch_norm_service_pb2 as pb

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class StatsUpdate:
    """What changed in a model since the update before."""

    sessions: tuple[Stats, ...]  # those that changed or were opened, in the order of their names
    deleted_sessions: tuple[str, ...]  # names of those that are gone
    is_complete: bool  # whether `sessions` holds all of the model, as at first: what is not in it is gone


class Watch(Generic[T], Iterator[T]):
    """A watch under way, made by Session.watch and Model.watch. `for each in watch` waits for what comes next.

    close() ends it, also from another thread while that waits, and so does the end of a `with` block and Ctrl-C. A lost
    connection, or a server that starts again, is watched again.
    """

    def __init__(self, caller: Caller, request: Any, read: Callable[[Any], T], timeout: float | None) -> None:
        self._caller = caller
        self._request = request
        self._read = read
        self._timeout = timeout
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._call: Any = None

    def __enter__(self) -> Watch[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the iteration. Any thread."""
        self._closed.set()
        with self._lock:
            if self._call is not None:
                self._call.cancel()

    def __iter__(self) -> Watch[T]:
        return self

    def __next__(self) -> T:
        retries = None
        while not self._closed.is_set():
            try:
                with self._lock:
                    if self._closed.is_set():
                        break
                    if self._call is None:
                        self._call = self._caller.watch(self._request)
                    call = self._call
                return self._read(next(call))
            except StopIteration:
                self._call = None  # the server ended the watch, which it has no reason to do well
                self._closed.wait(1)
            except grpc.RpcError as rpc_error:
                self._call = None
                if self._closed.is_set():
                    break
                error = from_rpc_error(rpc_error)
                # From when the server is missed: it may have been silent for long.
                retries = retries or self._caller.retries(self._timeout)
                delay = retries.next_delay(error)
                if delay is None:
                    self._closed.set()
                    raise error from None
                self._closed.wait(delay)
            except BaseException:
                self.close()  # Ctrl-C
                raise
        raise StopIteration


def watch_request(request: Any, interval: float | None, after_generation: int | None) -> Any:
    """As the server takes it, for a GetStatsRequest. Internal."""
    watched = pb.WatchStatsRequest(stats=request, after_generation=after_generation)
    if interval is not None:
        watched.interval.FromNanoseconds(round(interval * 1e9))
    return watched


def stats_update(message: Any) -> StatsUpdate:
    return StatsUpdate(
        sessions=tuple(map(stats, message.sessions)),
        deleted_sessions=tuple(message.deleted_sessions),
        is_complete=message.is_complete,
    )
