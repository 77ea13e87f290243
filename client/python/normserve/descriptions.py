"""What a server tells about itself and its sessions. All are values: nothing in them changes on the server.

Words for enumerators are the contract's in lower case, such as "skip_update"; of one that this library has no name for, its
number's digits. Times are UTC.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normserve import stats_view, timestamp
from normserve.enumerators import from_wire
from normserve.moments import Moments
from normserve.stats_view import Comparison, HistoryPoint, StatsSummary
from normserve.v1 import batch_norm_service_pb2 as service_pb2
from normserve.v1 import session_pb2


@dataclass(frozen=True)
class Config:
    """What a session was created with, every default written out. See Client.create."""

    num_features: int  # channels, C
    eps: float  # added to the variance before the root
    momentum: float | None  # weight of the newest batch; None: every batch counts the same
    zero_debiased: bool
    affine: bool  # whether weight and bias follow
    track_running_stats: bool
    running_variance: str  # "unbiased" or "biased"
    non_finite_policy: str  # "reject" or "skip_update"
    durability: str  # "none", "commit" or "flush"
    labels: Mapping[str, str]
    convention: str  # "pytorch", "keras", "flax" or "onnx"


@dataclass(frozen=True)
class OpenCollection:
    """Parts of a merge or calibration that a session keeps until they are committed or dropped."""

    id: str  # merge_id or calibration_id
    num_parts: int
    count: int  # values a channel, of all parts


@dataclass(frozen=True, eq=False)
class SessionInfo:
    """A session as the server describes it. The arrays are there only from Session.describe()."""

    name: str
    uid: str  # random, new on create and clone: tells a session from a later one of the same name
    config: Config
    mode: str  # "train", "eval" or "shadow"
    generation: int  # changes that the state has seen; never set back
    num_batches_tracked: int  # training batches folded in so far
    create_time: datetime.datetime
    update_time: datetime.datetime  # when the generation last changed
    durability: str  # the level in force
    num_snapshots: int  # snapshots kept
    open_merges: tuple[OpenCollection, ...]  # begun, and neither committed nor dropped; only from Session.describe()
    open_calibrations: tuple[OpenCollection, ...]
    weight: npt.NDArray[np.float32] | None  # [C]; None also if the session is not affine
    bias: npt.NDArray[np.float32] | None  # [C]
    running_mean: npt.NDArray[np.float64] | None  # [C]; None also if the session tracks no statistics
    running_var: npt.NDArray[np.float64] | None  # [C]


@dataclass(frozen=True)
class Snapshot:
    """A state that the server keeps under a name: configuration, mode, parameters, running statistics, their count."""

    name: str  # of the session
    snapshot: str  # of the snapshot, unique in its session
    uid: str  # of the session
    generation: int  # of the state that was kept
    create_time: datetime.datetime
    size_bytes: int  # what it is charged with
    num_batches_tracked: int


@dataclass(frozen=True, eq=False)
class Stats:
    """Statistics of a session, all of one generation, of channels first_channel <= c < first_channel + C."""

    name: str
    uid: str
    generation: int
    mode: str
    running_mean: npt.NDArray[np.float64] | None  # [C]; None: the session tracks none
    running_var: npt.NDArray[np.float64] | None  # [C]
    num_batches_tracked: int
    first_channel: int
    last_batch: Moments | None  # of the newest batch that updated; None: not asked for
    shadow: Moments | None  # of all batches since SHADOW began; None: not asked for
    flags: Mapping[str, npt.NDArray[np.int64]]  # what is the matter with channels, such as "dead", and which have it
    comparison: Comparison | None  # with compare_with, of the same channels
    summary: StatsSummary | None  # with view "summary", which has no arrays else, or compare_with
    history: tuple[HistoryPoint, ...]  # what was seen over time, oldest first; empty also if not asked for


@dataclass(frozen=True)
class Device:
    """A Vulkan physical device of the server."""

    name: str  # as its driver reports it
    uuid: str  # 32 hexadecimal digits
    type: str  # "discrete GPU", "integrated GPU", "virtual GPU", "CPU" or "other"
    driver: str
    api_version: str
    in_use: bool  # whether the server computes on it
    reason: str  # why it was chosen or not
    self_tests: Mapping[str, str]  # of the one in use: variant of the shaders -> "pending", "passed" or "failed"
    subnormals: str  # "kept", "flushed" or "" (not known yet)
    bit_exact: bool  # whether every variant used so far gave the bits that every other device gives


@dataclass(frozen=True)
class Limits:
    """What the server refuses to go beyond."""

    max_message_bytes: int
    max_sessions: int
    max_state_bytes: int  # of all sessions together
    max_num_features: int
    max_in_flight_bytes: int  # of requests in work at once
    max_saved_forward_bytes: int  # of device memory for inputs kept for backward
    max_snapshots: int  # of one session
    max_collections: int  # merges and calibrations of one session that are not committed
    max_collection_parts: int  # of one merge or calibration
    max_watchers: int  # watches at once


@dataclass(frozen=True)
class ServerInfo:
    """What a server is."""

    version: str  # MAJOR.MINOR.PATCH
    start_time: datetime.datetime
    devices: tuple[Device, ...]  # the one in use first; none with the reference engine
    limits: Limits
    num_sessions: int  # open now
    state_bytes: int  # what they hold
    default_durability: str  # of a session whose creator asked for none


def _open_collections(messages: Any) -> tuple[OpenCollection, ...]:
    return tuple(OpenCollection(each.id, each.num_parts, each.count) for each in messages)


def session_info(message: Any) -> SessionInfo:
    config = message.config
    averaging = config.WhichOneof("averaging")
    momentum = {"momentum": config.momentum, "zero_debiased": config.zero_debiased.momentum}.get(averaging)
    parameters = message.parameters if message.HasField("parameters") else None
    statistics = message.statistics if message.HasField("statistics") else None
    return SessionInfo(
        name=message.name,
        uid=message.uid,
        config=Config(
            num_features=config.num_features,
            eps=config.epsilon,
            momentum=momentum,
            zero_debiased=averaging == "zero_debiased",
            affine=config.affine,
            track_running_stats=config.track_running_stats,
            running_variance=from_wire(session_pb2.RunningVariance, config.running_variance),
            non_finite_policy=from_wire(session_pb2.NonFinitePolicy, config.non_finite_policy),
            durability=from_wire(session_pb2.Durability, config.durability),
            labels=dict(config.labels),
            convention=from_wire(session_pb2.Convention, config.convention),
        ),
        mode=from_wire(session_pb2.Mode, message.mode),
        generation=message.generation,
        num_batches_tracked=message.num_batches_tracked,
        create_time=timestamp.from_wire(message.create_time),
        update_time=timestamp.from_wire(message.update_time),
        durability=from_wire(session_pb2.Durability, message.durability),
        num_snapshots=message.num_snapshots,
        open_merges=_open_collections(message.open_merges),
        open_calibrations=_open_collections(message.open_calibrations),
        weight=None if parameters is None else np.array(parameters.weight, np.float32),
        bias=None if parameters is None else np.array(parameters.bias, np.float32),
        running_mean=None if statistics is None else np.array(statistics.running_mean, np.float64),
        running_var=None if statistics is None else np.array(statistics.running_var, np.float64),
    )


def snapshot(message: Any) -> Snapshot:
    return Snapshot(
        name=message.name,
        snapshot=message.snapshot,
        uid=message.uid,
        generation=message.generation,
        create_time=timestamp.from_wire(message.create_time),
        size_bytes=message.size_bytes,
        num_batches_tracked=message.num_batches_tracked,
    )


def stats(message: Any) -> Stats:
    statistics, tracked = message.statistics, len(message.statistics.running_var) > 0
    return Stats(
        name=message.name,
        uid=message.uid,
        generation=message.generation,
        mode=from_wire(session_pb2.Mode, message.mode),
        running_mean=np.array(statistics.running_mean, np.float64) if tracked else None,
        running_var=np.array(statistics.running_var, np.float64) if tracked else None,
        num_batches_tracked=statistics.num_batches_tracked,
        first_channel=message.first_channel,
        last_batch=Moments._from_message(message.last_batch) if message.HasField("last_batch") else None,
        shadow=Moments._from_message(message.shadow) if message.HasField("shadow") else None,
        flags=stats_view.flags(message.flags),
        comparison=stats_view.comparison(message.comparison) if message.HasField("comparison") else None,
        summary=stats_view.summary(message.summary) if message.HasField("summary") else None,
        history=stats_view.history(message.history),
    )


def server_info(message: Any) -> ServerInfo:
    limits = message.limits
    return ServerInfo(
        version=message.version,
        start_time=timestamp.from_wire(message.start_time),
        devices=tuple(_device(device) for device in message.devices),
        limits=Limits(**{name: getattr(limits, name) for name in Limits.__dataclass_fields__}),
        num_sessions=message.num_sessions,
        state_bytes=message.state_bytes,
        default_durability=from_wire(session_pb2.Durability, message.default_durability),
    )


def _device(message: Any) -> Device:
    tests = {test.variant: from_wire(service_pb2.SelfTestResult, test.result) for test in message.self_tests}
    same = ("name", "uuid", "type", "driver", "api_version", "in_use", "reason", "bit_exact")
    return Device(
        **{name: getattr(message, name) for name in same},
        self_tests=tests,
        subnormals=from_wire(service_pb2.SubnormalClass, message.subnormals),
    )
