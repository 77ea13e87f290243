"""A handle of one session, used as nn.BatchNorm2d is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from normserve import descriptions, diagnosis
from normserve.caller import Caller, request_id_or_random
from normserve.checkpoint import Exports
from normserve.descriptions import SessionInfo, Snapshot, Stats
from normserve.diagnosis import Diagnosis
from normserve.enumerators import to_wire
from normserve.error import Error
from normserve.moments import Moments
from normserve.normalize_with import NormalizeWith, normalize_with_fields
from normserve.population import SessionPopulation
from normserve.results import (
    BackwardResult,
    ForwardResult,
    GradientSums,
    _Sent,
    backward_result,
    forward_result,
    normalization_message,
    sums_message,
)
from normserve.stats_view import HistoryRange, stats_request
from normserve.tensor_message import GRADIENT, INPUT, OUTPUT, RESENT, Array, field, form_of, split, tensor_parts
from normserve.v1 import batch_norm_service_pb2 as pb
from normserve.v1 import session_pb2, statistics_pb2
from normserve.watch import Watch, watch_request


def vector(values: npt.ArrayLike | None, dtype: type, what: str) -> list[float] | None:
    """A vector of length C as protobuf takes it; None stays None."""
    if values is None:
        return None
    array: npt.NDArray[Any] = np.asarray(values, dtype)
    if array.ndim != 1:
        raise ValueError(f"{what} has shape {array.shape}: a vector, [C], is needed")
    return array.tolist()  # type: ignore[no-any-return]


class Session(SessionPopulation, Exports):
    """One batch-norm layer on the server.

    The handle holds the session's name and nothing of its state: several handles, also in other programs, may drive one
    session, and dropping a handle does not delete the session. Made by Client.create and Client.session; lives as long
    as the Client. Thread-safe.

    Every call blocks until the reply is there or its time is up, and takes, by keyword:

      timeout              seconds for the call and its repetitions together. None: the client's
      request_id           (changes) makes the change happen at most once, however often it is sent: printable ASCII, 128
                           characters at most. None: a random UUID, the same for every repetition. "": none, and then
                           the change is never repeated
      expected_generation  the change is made only at this generation of the session, else ABORTED (GENERATION_MISMATCH)
      expected_uid         ... only if the session has this uid, else ABORTED (UID_MISMATCH). "": any

    Raises normserve.Error: NOT_FOUND if there is no such session, ABORTED if an expectation is not met, and what the
    method says.
    """

    def __init__(self, caller: Caller, name: str) -> None:
        self._caller = caller
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def _target(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"normserve.Session({self._name!r})"

    # ---- Batches

    def forward(
        self,
        x: Array,
        *,
        layout: str = "channels_first",
        mode: str | None = None,
        normalize_with: NormalizeWith = None,
        update: str | None = None,
        return_batch_moments: bool = False,
        save_for_backward: bool = False,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> ForwardResult:
        """Runs a batch through the layer. Commits everything (statistics, counter, generation) or nothing.

          x                     float32, float16 or bfloat16 (ml_dtypes or normserve.BFloat16), [N, C, *], or [N, *, C]
                                with layout "channels_last". Any strides; an array that is not dense is copied first,
                                but for [N, C, *] whose memory is [N, *, C], which travels as it lies
          mode                  "train", "eval" or "shadow" for this call alone. None: the session's
          normalize_with        "batch", "running", Moments (their mean and m2 / count), UseSnapshot or UseBlend, whatever
                                the mode says
          update                "none", "running" (fold the batch into the running statistics) or "shadow" (merge its
                                moments beside the state), whatever the mode says
          return_batch_moments  whether the result has batch_moments, computed by the server
          save_for_backward     whether the result will do for backward

        Errors: INVALID_ARGUMENT if the batch does not fit the session (SHAPE_MISMATCH), holds one value per channel in
        training (BATCH_TOO_SMALL) or is not finite (NON_FINITE). TypeError, with nothing sent: another type.
        """
        form = form_of(x, layout, "x")
        request = pb.ForwardRequest(
            name=self._name,
            request_id=request_id_or_random(request_id),
            expected_generation=expected_generation,
            expected_uid=expected_uid,
            mode=to_wire(session_pb2.Mode, mode, "mode"),
            update=to_wire(pb.Update, update, "update"),
            return_batch_moments=return_batch_moments,
            return_saved_forward=save_for_backward,
            return_normalization=save_for_backward,
            **normalize_with_fields(normalize_with),
        )
        tensor = tensor_parts(x, form, "x")
        message = b"".join([request.SerializeToString(), *field(INPUT, tensor)])
        sent = _Sent(form, memoryview(message)[len(message) - sum(map(len, tensor)) :])
        # It changes nothing, whatever the session's mode is.
        is_read = update == "none" or (update is None and mode == "eval")
        reply = self._call(self._caller.forward, message, timeout, repeatable=is_read or request.request_id != "")
        rest, output = split(reply, OUTPUT)
        return forward_result(pb.ForwardReply.FromString(rest), output, sent, save_for_backward)

    def backward(
        self,
        grad_output: Array,
        result: ForwardResult,
        *,
        stop_at_sums: bool = False,
        start_from_sums: GradientSums | None = None,
        release: bool = False,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> BackwardResult:
        """The gradients of a forward of this session, for the gradient of its output. Changes nothing.

          grad_output      shape and type of that forward's x
          result           that forward's, with save_for_backward. Its input is sent again, as it was then, only if the
                           server has dropped it (TOKEN_DROPPED)
          stop_at_sums     end with the sums, which several workers may add: no gradient of the input
          start_from_sums  in place of this batch's. None: this batch's
          release          the server need not keep the input any longer

        Errors: INVALID_ARGUMENT if the tensors or sums do not fit each other. ValueError: `result` is of a forward
        without save_for_backward.
        """
        if result._sent is None or result.normalization is None:
            raise ValueError("result is of a forward that saved nothing: forward(x, save_for_backward=True)")
        form = result._sent.form
        request = pb.BackwardRequest(
            name=self._name,
            expected_generation=expected_generation,
            expected_uid=expected_uid,
            stop_at_sums=stop_at_sums,
            start_from_sums=None if start_from_sums is None else sums_message(start_from_sums),
            release_saved_forward=release,
        )
        gradient = field(GRADIENT, tensor_parts(grad_output, form, "grad_output"))
        deadline = self._caller.deadline(timeout)

        def attempt(message: bytes, resent: bool) -> BackwardResult:
            reply = self._caller.call(self._caller.backward, message, deadline, repeatable=True, session=self._name)
            rest, grad_input = split(reply, OUTPUT)
            return backward_result(pb.BackwardReply.FromString(rest), grad_input, form, resent)

        if result.saved_forward:
            request.saved_forward = result.saved_forward
            try:
                return attempt(b"".join([request.SerializeToString(), *gradient]), False)
            except Error as error:
                if error.reason != "TOKEN_DROPPED":
                    raise
            request.ClearField("source")
        again = pb.ResentForward(normalization=normalization_message(result.normalization)).SerializeToString()
        resent = field(RESENT, [again, *field(INPUT, [result._sent.message])])
        return attempt(b"".join([request.SerializeToString(), *resent, *gradient]), True)

    # ---- State

    def train(
        self,
        *,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> SessionInfo:
        """Training mode: a forward normalises with the batch and updates the running statistics."""
        return self.set_mode(
            "train",
            request_id=request_id,
            expected_generation=expected_generation,
            expected_uid=expected_uid,
            timeout=timeout,
        )

    def eval(
        self,
        *,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> SessionInfo:
        """Evaluation mode: a forward normalises with the running statistics and changes nothing."""
        return self.set_mode(
            "eval",
            request_id=request_id,
            expected_generation=expected_generation,
            expected_uid=expected_uid,
            timeout=timeout,
        )

    def set_mode(
        self,
        mode: str,
        *,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> SessionInfo:
        """ "train", "eval" or "shadow", which is evaluation and keeps the batches' moments beside the state, anew."""
        request = pb.SetModeRequest(mode=to_wire(session_pb2.Mode, mode, "mode"))
        reply = self._change(
            self._caller.stub.SetMode, request, request_id, expected_generation, expected_uid, timeout
        )
        return descriptions.session_info(reply.sessions[0])

    def set_parameters(
        self,
        *,
        weight: npt.ArrayLike | None = None,
        bias: npt.ArrayLike | None = None,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> SessionInfo:
        """Replaces weight (gamma), bias (beta) or both: [C], finite, rounded to float32. None: stays as it is.

        Errors: FAILED_PRECONDITION (NOT_AFFINE) if the session is not affine, INVALID_ARGUMENT if nothing is set or the
        length is not C.
        """
        request = pb.SetParametersRequest(parameters=parameters_message(weight, bias))
        return descriptions.session_info(
            self._change(
                self._caller.stub.SetParameters, request, request_id, expected_generation, expected_uid, timeout
            )
        )

    def stats(
        self,
        *,
        view: str | None = None,
        compare_with: str | None = None,
        first_channel: int = 0,
        num_channels: int = 0,
        return_last_batch: bool = False,
        return_shadow: bool = False,
        history: bool | HistoryRange = False,
        timeout: float | None = None,
    ) -> Stats:
        """The running statistics and what is the matter with channels. Changes nothing.

          view               "channels": a number a channel. "summary": the layer in a few numbers, and of each flag the
                             first 100 channels. None: "channels"
          compare_with       "last_batch", "shadow" or "observed" (what observe() was told): how far those lie from the running
                             statistics. None: not asked
          first_channel, num_channels
                             only these channels; 0: all from first_channel on
          return_last_batch, return_shadow
                             the moments that are kept beside the state too
          history            what was seen over time: True all that is kept, or the points of a HistoryRange

        Errors: INVALID_ARGUMENT if there are no such channels.
        """
        request = stats_request(
            self._name,
            view=view,
            compare_with=compare_with,
            first_channel=first_channel,
            num_channels=num_channels,
            return_last_batch=return_last_batch,
            return_shadow=return_shadow,
            history=history,
        )
        reply = self._call(self._caller.stub.GetStats, request, timeout, repeatable=True)
        return descriptions.stats(reply.sessions[0])

    def watch(
        self,
        *,
        interval: float | None = None,
        after_generation: int | None = None,
        view: str | None = None,
        compare_with: str | None = None,
        first_channel: int = 0,
        num_channels: int = 0,
        return_last_batch: bool = False,
        return_shadow: bool = False,
        history: bool | HistoryRange = False,
        timeout: float | None = None,
    ) -> Watch[Stats]:
        """stats() again and again: `for stats in session.watch(): ...`. Changes nothing and holds nothing up: who is slow
        is told less often, never of something old.

          interval          seconds between two, 0.01 up to a day, changed or not. None: when something changed, ten a second
                            at most
          after_generation  nothing is told before the session's generation is above this. None: the first comes at once
          timeout           seconds that the server may be away; then, and after a restart, it is watched again. None: the
                            client's

        The rest is as in stats(). The iteration ends when close() is called, from any thread; with Error NOT_FOUND when
        there is no such session or it is deleted.
        """
        request = stats_request(
            self._name,
            view=view,
            compare_with=compare_with,
            first_channel=first_channel,
            num_channels=num_channels,
            return_last_batch=return_last_batch,
            return_shadow=return_shadow,
            history=history,
        )
        return Watch(
            self._caller,
            watch_request(request, interval, after_generation),
            lambda message: descriptions.stats(message.sessions[0]),
            timeout,
        )

    def diagnose(
        self,
        moments: Moments | Array | None = None,
        *,
        observed: bool = False,
        samples_per_batch: int = 0,
        return_channels: bool = False,
        layout: str = "channels_first",
        timeout: float | None = None,
    ) -> Diagnosis:
        """Why evaluation puts out something else than training here, how much, and what to do. Changes nothing.

        moments            of one batch as the layer is trained with, or such a batch itself, in `layout`; None: the newest
                           that the server has seen
        observed           in their place: what the session has observed. What it had observed before the last reset tells a
                           shift of the data from momentum's lag, where batches folded in before cannot
        samples_per_batch  N of that batch [N, C, *]: values of a sample, such as pixels, hang together. 0: as the moments'
                           num_samples, which batches know, and what was observed if all of it told; where that is
                           0 too all values count as independent

        Errors: INVALID_ARGUMENT if the moments do not fit.
        """
        if observed and moments is not None:
            raise ValueError("observed is True and there are moments: what was observed, or these, is the evidence")
        request = diagnosis._request(self._name, None, None, samples_per_batch, return_channels, observed)
        reply = self._send("Diagnose", request, moments, layout, timeout, reads=True)
        return diagnosis._diagnosis(pb.DiagnoseReply.FromString(reply).sessions[0])

    def describe(self, *, timeout: float | None = None) -> SessionInfo:
        """Everything about the session, parameters and statistics too, of one generation. Changes nothing."""
        request = pb.GetSessionRequest(name=self._name, view=session_pb2.SESSION_VIEW_FULL)
        return descriptions.session_info(
            self._call(self._caller.stub.GetSession, request, timeout, repeatable=True)
        )

    # ---- Copies

    def clone(
        self,
        name: str | None = None,
        *,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> Session:
        """copy.deepcopy: a session `name` (None: the server makes a name) with the same state bit for bit, independent
        from then on and without snapshots. Errors: ALREADY_EXISTS if the name is taken."""
        request = pb.CloneSessionRequest(clone_name=name or "")
        reply = self._change(
            self._caller.stub.CloneSession, request, request_id, expected_generation, expected_uid, timeout
        )
        return Session(self._caller, reply.name)

    def snapshot(
        self,
        name: str,
        *,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> Snapshot:
        """Keeps the state, byte-exact, under `name`: one segment of a session's name. Makes no generation.

        Errors: ALREADY_EXISTS (SNAPSHOT_EXISTS), RESOURCE_EXHAUSTED if there are too many snapshots or bytes.
        """
        request = pb.SnapshotStateRequest(snapshot=name)
        reply = self._change(
            self._caller.stub.SnapshotState, request, request_id, expected_generation, expected_uid, timeout
        )
        return descriptions.snapshot(reply.snapshots[0])

    def restore(
        self,
        name: str,
        *,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> SessionInfo:
        """Goes back to the snapshot `name` as one new generation; the snapshot stays.

        Errors: NOT_FOUND (SNAPSHOT_NOT_FOUND).
        """
        request = pb.RestoreStateRequest(snapshot=name)
        reply = self._change(
            self._caller.stub.RestoreState, request, request_id, expected_generation, expected_uid, timeout
        )
        return descriptions.session_info(reply.sessions[0])

    def snapshots(self, *, timeout: float | None = None) -> Iterator[Snapshot]:
        """All snapshots in the order of their names, read page by page as they are asked for; `timeout` is a page's."""
        request = pb.ListSnapshotsRequest(name=self._name, page_size=1000)
        while True:
            reply = self._call(self._caller.stub.ListSnapshots, request, timeout, repeatable=True)
            yield from map(descriptions.snapshot, reply.snapshots)
            request.page_token = reply.next_page_token
            if not request.page_token:
                return

    def delete_snapshot(
        self,
        name: str,
        *,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> None:
        """Forgets the snapshot `name`. Makes no generation. Errors: NOT_FOUND (SNAPSHOT_NOT_FOUND)."""
        request = pb.DeleteSnapshotRequest(snapshot=name)
        self._change(
            self._caller.stub.DeleteSnapshot, request, request_id, expected_generation, expected_uid, timeout
        )

    def delete(
        self,
        *,
        request_id: str | None = None,
        expected_generation: int | None = None,
        expected_uid: str = "",
        timeout: float | None = None,
    ) -> None:
        """Forgets the session and its snapshots."""
        request = pb.DeleteSessionRequest()
        self._change(
            self._caller.stub.DeleteSession, request, request_id, expected_generation, expected_uid, timeout
        )

    # ---- Calls

    def _call(self, method: Any, request: Any, timeout: float | None, *, repeatable: bool) -> Any:
        deadline = self._caller.deadline(timeout)
        return self._caller.call(method, request, deadline, repeatable=repeatable, session=self._name)

    def _change(
        self,
        method: Any,
        request: Any,
        request_id: str | None,
        expected_generation: int | None,
        expected_uid: str,
        timeout: float | None,
    ) -> Any:
        """Sends a change of the session, which is repeated only if it has a request id."""
        request.name = self._name
        request.request_id = request_id_or_random(request_id)
        request.expected_uid = expected_uid
        if expected_generation is not None:
            request.expected_generation = expected_generation
        return self._call(method, request, timeout, repeatable=request.request_id != "")


def parameters_message(weight: npt.ArrayLike | None, bias: npt.ArrayLike | None) -> Any:
    return statistics_pb2.Parameters(weight=vector(weight, np.float32, "weight"), bias=vector(bias, np.float32, "bias"))
