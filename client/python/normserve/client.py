"""A server, as its callers see it."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from types import EllipsisType, TracebackType

import grpc
import numpy as np
import numpy.typing as npt

from normserve import checkpoint, descriptions
from normserve.caller import Caller, request_id_or_random
from normserve.checkpoint import Export, ExportsOf, ImportResult, Progress, Source
from normserve.descriptions import ServerInfo, SessionInfo
from normserve.diagnosis import Diagnosis
from normserve.enumerators import to_wire
from normserve.model import Model
from normserve.moments import Moments
from normserve.session import Session, parameters_message, vector
from normserve.v1 import batch_norm_service_pb2 as pb
from normserve.v1 import session_pb2, statistics_pb2


class Client:
    """A connection to a server: `with normserve.Client("127.0.0.1:8001") as client: ...`

      target   "host:port". Nothing is sent yet: a server that is not there shows in the first call. Not encrypted
      timeout  seconds for a call with all its repetitions, unless the call says otherwise
      retries  how often at most a failed call is made again; 0: never. Only calls that cannot change anything twice are
               repeated: reads, and changes with a request_id (the default). Only UNAVAILABLE, CANCELLED (the server shuts
               down) and RESOURCE_EXHAUSTED in which the server asks for it are. Waits of 0.1 s, doubling to 5 s
      channel  a grpc.Channel of the caller's own, such as one with credentials; then target is not used, and close()
               leaves it open

    Calls block. Thread-safe; the sessions made from it share its connection. Every method raises normserve.Error.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8001",
        *,
        timeout: float = 30.0,
        retries: int = 99,
        channel: grpc.Channel | None = None,
    ) -> None:
        self._caller = Caller(target, timeout, retries, channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and calls that are under way with CANCELLED. The sessions stay on the server."""
        self._caller.close()

    def create(
        self,
        name: str | None = None,
        num_features: int | None = None,
        *,
        eps: float | None = None,
        momentum: float | None | EllipsisType = ...,
        affine: bool = True,
        track_running_stats: bool = True,
        zero_debiased: bool = False,
        convention: str | None = None,
        running_variance: str | None = None,
        non_finite_policy: str | None = None,
        durability: str | None = None,
        labels: Mapping[str, str] | None = None,
        mode: str | None = None,
        weight: npt.ArrayLike | None = None,
        bias: npt.ArrayLike | None = None,
        running_mean: npt.ArrayLike | None = None,
        running_var: npt.ArrayLike | None = None,
        num_batches_tracked: int = 0,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Session:
        """Opens a session. create("encoder/bn3", 64) behaves as nn.BatchNorm2d(64) does.

          name                 segments of [A-Za-z0-9_][A-Za-z0-9._-]{0,62} joined by "/". None: the server makes one
          num_features         channels, C. Required
          eps                  added to the variance before the root. None: the convention's, 1e-5
          momentum             weight of the newest batch (Keras, ONNX and Flax call the complement so). None: every batch
                               counts the same, as in PyTorch. Left out: the convention's, 0.1
          affine               whether weight and bias follow
          track_running_stats  False: batch statistics in every mode
          zero_debiased        the average does not remember what it started from; with `momentum`
          convention           defaults of "pytorch", "keras", "flax" or "onnx". None: "pytorch"
          running_variance     "unbiased" or "biased". None: the convention's, "unbiased"
          non_finite_policy    "reject" or "skip_update": what happens to a batch that is not finite. None: "reject"
          durability           what an acknowledged change survives: "none", "commit" (a crash) or "flush" (power loss).
                               None: "commit" if the server has a data directory, else "none"
          labels               the user's own words, for `list`: at most 64, printable ASCII
          mode                 "train", "eval" or "shadow". None: "train"
          weight, bias         [C]. None: 1 and 0
          running_mean, running_var, num_batches_tracked
                               [C], [C], a number. None: 0 and 1

        Errors: ALREADY_EXISTS if the name is taken, RESOURCE_EXHAUSTED if there are too many sessions or bytes,
        INVALID_ARGUMENT naming the field. `request_id` and `timeout` are as in Session.
        """
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name is {name!r}, not a str: create(num_features={name!r}) lets the server make a name")
        if num_features is None:
            raise TypeError('num_features is missing: create("encoder/bn3", 64) or create(num_features=64)')
        config = session_pb2.SessionConfig(
            num_features=num_features,
            epsilon=eps,
            affine=affine,
            track_running_stats=track_running_stats,
            convention=to_wire(session_pb2.Convention, convention, "convention"),
            running_variance=to_wire(session_pb2.RunningVariance, running_variance, "running_variance"),
            non_finite_policy=to_wire(session_pb2.NonFinitePolicy, non_finite_policy, "non_finite_policy"),
            durability=to_wire(session_pb2.Durability, durability, "durability"),
            labels=labels,
        )
        weight_of_newest = None if isinstance(momentum, EllipsisType) else momentum
        if zero_debiased:
            if momentum is None:
                raise ValueError("zero_debiased needs a momentum: None, where every batch counts the same, has no bias")
            config.zero_debiased.CopyFrom(session_pb2.ZeroDebiasedAverage(momentum=weight_of_newest))
        elif momentum is None:
            config.cumulative.SetInParent()
        elif weight_of_newest is not None:
            config.momentum = weight_of_newest
        request = pb.CreateSessionRequest(
            name=name or "",
            request_id=request_id_or_random(request_id),
            config=config,
            mode=to_wire(session_pb2.Mode, mode, "mode"),
        )
        if weight is not None or bias is not None:
            request.parameters.CopyFrom(parameters_message(weight, bias))
        if running_mean is not None or running_var is not None or num_batches_tracked:
            request.statistics.CopyFrom(
                statistics_pb2.RunningStatistics(
                    running_mean=vector(running_mean, np.float64, "running_mean") or [0.0] * num_features,
                    running_var=vector(running_var, np.float64, "running_var") or [1.0] * num_features,
                    num_batches_tracked=num_batches_tracked,
                )
            )
        deadline = self._caller.deadline(timeout)
        reply = self._caller.call(
            self._caller.stub.CreateSession,
            request,
            deadline,
            repeatable=request.request_id != "",
            session=request.name,
        )
        return Session(self._caller, reply.name)

    def session(self, name: str) -> Session:
        """A handle of a session that is taken to exist; asks nobody. Its first call tells (NOT_FOUND).

        ValueError: `name` ends in "/", so that it means a model, all sessions below it.
        """
        if name.endswith("/"):
            raise ValueError(f"name is {name!r}, which means all sessions below it: client.model({name!r}) is their handle")
        return Session(self._caller, name)

    def model(self, prefix: str) -> Model:
        """A handle of all sessions whose names begin with `prefix` ("resnet50" and "resnet50/" are the same); asks nobody.
        Its first call tells whether there are any (NOT_FOUND)."""
        return Model(self._caller, prefix)

    def list(
        self, prefix: str = "", labels: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> Iterator[SessionInfo]:
        """All sessions under `prefix` (whole segments; "": all) that have all of `labels`, in the order of their names.

        Read page by page as they are asked for; `timeout` is a page's. A session opened or deleted meanwhile may be there
        or not.
        """
        request = pb.ListSessionsRequest(prefix=prefix, page_size=1000, label_filter=labels)
        while True:
            deadline = self._caller.deadline(timeout)
            reply = self._caller.call(self._caller.stub.ListSessions, request, deadline, repeatable=True)
            yield from map(descriptions.session_info, reply.sessions)
            request.page_token = reply.next_page_token
            if not request.page_token:
                return

    def diagnose(
        self,
        model: str,
        layers: Mapping[str, Moments] | None = None,
        *,
        observed: bool = False,
        samples_per_batch: int = 0,
        return_channels: bool = False,
        timeout: float | None = None,
    ) -> builtins.list[Diagnosis]:
        """`model(model).diagnose(...)`."""
        return self.model(model).diagnose(
            layers,
            observed=observed,
            samples_per_batch=samples_per_batch,
            return_channels=return_channels,
            timeout=timeout,
        )

    def import_state(
        self,
        name: str,
        source: Source,
        *,
        prefix: str = "",
        existing: str = "refuse",
        mode: str | None = None,
        eps: float | None = None,
        momentum: float | None | EllipsisType = ...,
        convention: str | None = None,
        running_variance: str | None = None,
        durability: str | None = None,
        labels: Mapping[str, str] | None = None,
        kept_by: str | None = None,
        values_per_channel: int = 0,
        request_id: str | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> ImportResult:
        """A checkpoint's batch-norm layers become sessions in EVAL mode: all of them, in one transaction, or none.

        They are found by their tensors (running_mean with running_var), never by a name; all else is left out.

          name                a model with its "/": layer "layer1.0.bn1" becomes "resnet50/layer1.0.bn1". Or a session, for a file
                              of one layer
          source              a safetensors file: its path, its bytes, or open; or a state dict {name: array}, of numpy or torch
          prefix              only layers below it, such as "backbone", which is taken off
          existing            sessions that are there: "refuse" (ALREADY_EXISTS), "replace" their state, or "skip" them
          mode                "train", "eval" or "shadow". None: "eval"
          eps, momentum, convention, running_variance, durability, labels
                              as in create: eps and momentum are not in the file
          kept_by             the convention that the file's statistics were kept by. None: that of the sessions
          values_per_channel  of every batch they were kept from; read where the running variance must be converted
          progress            called with the bytes sent and all of them

        Errors: INVALID_ARGUMENT names the tensor that is not sound; RESOURCE_EXHAUSTED if there are too many sessions or bytes;
        FAILED_PRECONDITION if an existing session does not fit (CONVENTION_MISMATCH and others). `request_id` and `timeout` are
        as in Session.
        """
        begin = checkpoint.import_begin(
            name,
            prefix=prefix,
            existing=existing,
            mode=mode,
            eps=eps,
            momentum=momentum,
            convention=convention,
            running_variance=running_variance,
            durability=durability,
            labels=labels,
            kept_by=kept_by,
            values_per_channel=values_per_channel,
            request_id=request_id,
        )
        return checkpoint.import_state(self._caller, begin, source, timeout, progress)

    def export_state(
        self,
        name: str,
        *,
        prefix: str = "",
        convention: str | None = None,
        folded: bool = False,
        values_per_channel: int = 0,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Export:
        """Session.export_state of a session, or of all sessions of a model, whose name ends in "/", as of one moment."""
        return ExportsOf(self._caller, name).export_state(
            prefix=prefix,
            convention=convention,
            folded=folded,
            values_per_channel=values_per_channel,
            timeout=timeout,
            progress=progress,
        )

    def info(self, *, timeout: float | None = None) -> ServerInfo:
        """What the server is: version, devices, limits, and how full it is."""
        deadline = self._caller.deadline(timeout)
        request = pb.GetServerInfoRequest()
        return descriptions.server_info(
            self._caller.call(self._caller.stub.GetServerInfo, request, deadline, repeatable=True)
        )
