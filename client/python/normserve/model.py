"""A handle of the sessions of one model."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from typing import Any

from normserve import descriptions, diagnosis
from normserve.caller import Caller, request_id_or_random
from normserve.checkpoint import Exports
from normserve.descriptions import SessionInfo, Snapshot, Stats
from normserve.diagnosis import Diagnosis
from normserve.enumerators import to_wire
from normserve.moments import Moments
from normserve.population import ModelPopulation
from normserve.session import Session
from normserve.stats_view import HistoryRange, stats_request
from normserve.v1 import batch_norm_service_pb2 as pb
from normserve.v1 import session_pb2
from normserve.watch import StatsUpdate, Watch, stats_update, watch_request


class Model(ModelPopulation, Exports):
    """All sessions whose names begin with a prefix, such as the layers of "resnet50/". Made by Client.model.

    A layer is a session's name without the prefix, such as "layer1.0.bn1", which is how the model's state_dict() names it.
    Every method but iteration is one RPC; a change is made of all sessions or of none. The handle holds the prefix alone:
    sessions that are opened below it later belong to the model too. Thread-safe.

    `timeout` and `request_id` are as in Session. Raises normserve.Error: NOT_FOUND if no session's name begins so, beside
    what Session's method of the same name says, naming the session.
    """

    def __init__(self, caller: Caller, prefix: str) -> None:
        self._caller = caller
        self._prefix = prefix if prefix.endswith("/") else prefix + "/"

    @property
    def prefix(self) -> str:
        """With its "/" at the end."""
        return self._prefix

    @property
    def _target(self) -> str:
        return self._prefix

    def __repr__(self) -> str:
        return f"normserve.Model({self._prefix!r})"

    def __getitem__(self, layer: str) -> Session:
        """The handle of one layer's session, which is taken to exist; asks nobody."""
        return Session(self._caller, self._prefix + layer)

    def __iter__(self) -> Iterator[Session]:
        """A handle of every session there is now, in the order of their names."""
        for info in self.list():
            yield Session(self._caller, info.name)

    def layer(self, session: str) -> str:
        """The layer that a session of this model is of: its name without the prefix."""
        return session.removeprefix(self._prefix)

    # ---- What there is

    def list(self, *, timeout: float | None = None) -> Iterator[SessionInfo]:
        """All sessions in the order of their names, read page by page as they are asked for; `timeout` is a page's. None
        is no error."""
        request = pb.ListSessionsRequest(prefix=self._prefix, page_size=1000)
        while True:
            reply = self._read(self._caller.stub.ListSessions, request, timeout)
            # A listing of a prefix has the session of that very name too, which is no layer.
            yield from (descriptions.session_info(each) for each in reply.sessions if each.name + "/" != self._prefix)
            request.page_token = reply.next_page_token
            if not request.page_token:
                return

    def stats(
        self,
        *,
        view: str | None = None,
        compare_with: str | None = None,
        return_last_batch: bool = False,
        return_shadow: bool = False,
        history: bool | HistoryRange = False,
        timeout: float | None = None,
    ) -> dict[str, Stats]:
        """{layer: Session.stats}, of all layers as of one moment, in the order of their names. Changes nothing.

        Errors: RESOURCE_EXHAUSTED (LIMIT_REACHED) if that is more than a reply may be long: view "summary" is short.
        """
        request = stats_request(
            self._prefix,
            view=view,
            compare_with=compare_with,
            return_last_batch=return_last_batch,
            return_shadow=return_shadow,
            history=history,
        )
        reply = self._read(self._caller.stub.GetStats, request, timeout)
        return {self.layer(each.name): descriptions.stats(each) for each in reply.sessions}

    def watch(
        self,
        *,
        interval: float | None = None,
        view: str | None = None,
        compare_with: str | None = None,
        return_last_batch: bool = False,
        return_shadow: bool = False,
        history: bool | HistoryRange = False,
        timeout: float | None = None,
    ) -> Watch[StatsUpdate]:
        """stats() again and again, of the sessions that changed or were opened, and which are gone; see Session.watch. Changes
        nothing.

        Errors: NOT_FOUND also when the last session is deleted.
        """
        request = stats_request(
            self._prefix,
            view=view,
            compare_with=compare_with,
            return_last_batch=return_last_batch,
            return_shadow=return_shadow,
            history=history,
        )
        return Watch(self._caller, watch_request(request, interval, None), stats_update, timeout)

    def diagnose(
        self,
        layers: Mapping[str, Moments] | None = None,
        *,
        observed: bool = False,
        samples_per_batch: int = 0,
        return_channels: bool = False,
        timeout: float | None = None,
    ) -> builtins.list[Diagnosis]:
        """Session.diagnose of every layer, the worst first. Changes nothing.

          layers             moments of one batch by layer, such as normserve.torch.collect_moments gives; None: what the
                             server has seen
          observed           in their place: what each layer has observed; see Session.diagnose
          samples_per_batch  N of that batch [N, C, *]; 0: as the moments' num_samples, see Session.diagnose

        Errors: INVALID_ARGUMENT if a layer is none of the model's.
        """
        request = diagnosis._request(self._prefix, None, layers, samples_per_batch, return_channels, observed)
        reply = self._read(self._caller.stub.Diagnose, request, timeout)
        return [diagnosis._diagnosis(each) for each in reply.sessions]

    # ---- Modes

    def train(self, *, request_id: str | None = None, timeout: float | None = None) -> builtins.list[SessionInfo]:
        """Training mode: a forward normalises with the batch and updates the running statistics."""
        return self.set_mode("train", request_id=request_id, timeout=timeout)

    def eval(self, *, request_id: str | None = None, timeout: float | None = None) -> builtins.list[SessionInfo]:
        """Evaluation mode: a forward normalises with the running statistics and changes nothing."""
        return self.set_mode("eval", request_id=request_id, timeout=timeout)

    def shadow(self, *, request_id: str | None = None, timeout: float | None = None) -> builtins.list[SessionInfo]:
        """Evaluation mode that keeps the batches' moments beside the state, anew."""
        return self.set_mode("shadow", request_id=request_id, timeout=timeout)

    def set_mode(self, mode: str, *, request_id: str | None = None, timeout: float | None = None) -> builtins.list[SessionInfo]:
        """ "train", "eval" or "shadow"."""
        request = pb.SetModeRequest(mode=to_wire(session_pb2.Mode, mode, "mode"))
        reply = self._change(self._caller.stub.SetMode, request, request_id, timeout)
        return [descriptions.session_info(each) for each in reply.sessions]

    # ---- Snapshots

    def snapshot(self, name: str, *, request_id: str | None = None, timeout: float | None = None) -> builtins.list[Snapshot]:
        """Keeps the state of every layer under `name`. Errors: ALREADY_EXISTS (SNAPSHOT_EXISTS)."""
        request = pb.SnapshotStateRequest(snapshot=name)
        reply = self._change(self._caller.stub.SnapshotState, request, request_id, timeout)
        return [descriptions.snapshot(each) for each in reply.snapshots]

    def restore(self, name: str, *, request_id: str | None = None, timeout: float | None = None) -> builtins.list[SessionInfo]:
        """Takes every layer back to its snapshot `name`, as one new generation. Errors: NOT_FOUND (SNAPSHOT_NOT_FOUND)."""
        request = pb.RestoreStateRequest(snapshot=name)
        reply = self._change(self._caller.stub.RestoreState, request, request_id, timeout)
        return [descriptions.session_info(each) for each in reply.sessions]

    def list_snapshots(self, *, timeout: float | None = None) -> Iterator[Snapshot]:
        """All snapshots, layer by layer, in the order of their names, read page by page as they are asked for."""
        request = pb.ListSnapshotsRequest(name=self._prefix, page_size=1000)
        while True:
            reply = self._read(self._caller.stub.ListSnapshots, request, timeout)
            yield from map(descriptions.snapshot, reply.snapshots)
            request.page_token = reply.next_page_token
            if not request.page_token:
                return

    def delete_snapshot(self, name: str, *, request_id: str | None = None, timeout: float | None = None) -> builtins.list[Snapshot]:
        """Forgets the snapshot `name` of every layer; tells what they were. Errors: NOT_FOUND (SNAPSHOT_NOT_FOUND)."""
        request = pb.DeleteSnapshotRequest(snapshot=name)
        reply = self._change(self._caller.stub.DeleteSnapshot, request, request_id, timeout)
        return [descriptions.snapshot(each) for each in reply.snapshots]

    # ---- The end

    def delete(self, *, request_id: str | None = None, timeout: float | None = None) -> builtins.list[str]:
        """Forgets all sessions and their snapshots; tells their names."""
        reply = self._change(self._caller.stub.DeleteSession, pb.DeleteSessionRequest(), request_id, timeout)
        return [each.name for each in reply.sessions]

    # ---- Calls

    def _read(self, method: Any, request: Any, timeout: float | None) -> Any:
        deadline = self._caller.deadline(timeout)
        session = "" if isinstance(request, pb.ListSessionsRequest) else self._prefix
        return self._caller.call(method, request, deadline, repeatable=True, session=session)

    def _change(self, method: Any, request: Any, request_id: str | None, timeout: float | None) -> Any:
        """Sends a change of the model, which is repeated only if it has a request id."""
        request.name = self._prefix
        request.request_id = request_id_or_random(request_id)
        deadline = self._caller.deadline(timeout)
        repeatable = request.request_id != ""
        return self._caller.call(method, request, deadline, repeatable=repeatable, session=self._prefix)
