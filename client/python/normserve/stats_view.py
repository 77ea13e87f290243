"""What stats() tells beside the statistics themselves: summary, comparison, flags."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normserve import timestamp
from normserve.enumerators import from_wire, to_wire
from normserve.v1 import batch_norm_service_pb2 as pb
from normserve.v1 import stats_view_pb2


@dataclass(frozen=True, eq=False)
class Comparison:
    """How far data lie from the running statistics, float64 [C] each, of the channels asked for.

    With v and m the data's biased variance and mean, V and M the running ones and n the data's count. NaN: the data are too
    few to tell, or something it is made of is not finite.

      source          "last_batch", "shadow" or "observed": what was compared
      count           values a channel of that; 0: there are none, and all arrays are empty
      kl_divergence   of the two normals, data || running, in nats: (v/V - 1 - ln(v/V) + (m - M)^2 / V) / 2
      wasserstein     2-Wasserstein distance of the two normals, in the values' own unit
      mean_z          (m - M) / sqrt(V / n), standard errors
      variance_ratio  F: v n / (n - 1) / V
      variance_z      the same as a standard normal score that knows n
    """

    source: str
    count: int
    kl_divergence: npt.NDArray[np.float64]
    wasserstein: npt.NDArray[np.float64]
    mean_z: npt.NDArray[np.float64]
    variance_ratio: npt.NDArray[np.float64]
    variance_z: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quantiles:
    """Of values over the channels, those that are not finite left out. low and high: 5 % and 95 % are below."""

    min: float
    low: float
    median: float
    high: float
    max: float


@dataclass(frozen=True)
class StatsSummary:
    """A layer in a few numbers, of all its channels. None: there is nothing finite to take it from.

      batch_count       values a channel of the newest training batch; 0: none is known
      batch_mean, batch_var
                        of that batch; the variance biased
      flagged_channels  how many channels have each flag, such as "dead"
      drift             how far the layer has drifted, which layers are ranked by: root mean square over the channels of
                        wasserstein as a share of sqrt(running_var + eps). With compare_with, as what follows
      kl_divergence, wasserstein, mean_z, variance_z
                        of the comparison
    """

    num_features: int
    running_mean: Quantiles | None
    running_var: Quantiles | None
    batch_count: int
    batch_mean: Quantiles | None
    batch_var: Quantiles | None
    flagged_channels: Mapping[str, int]
    drift: float | None
    kl_divergence: Quantiles | None
    wasserstein: Quantiles | None
    mean_z: Quantiles | None
    variance_z: Quantiles | None


@dataclass(frozen=True)
class HistoryRange:
    """Which points of a session's history are asked for: all that are kept, if nothing is set.

      since             only those of this time or later, by the server's clock; a time without a zone is the local one's
      after_generation  only those whose generation is above this: with that of the point read last, what has come since
    """

    since: datetime.datetime | None = None
    after_generation: int | None = None


@dataclass(frozen=True)
class HistoryPoint:
    """A training batch that was folded into the running statistics, or a replacement of these (restored, imported,
    calibrated, merged). The newest eight batches are kept, and ever fewer of those before: 63 points at most, back to
    65,536 batches.

      update        batches that the session had folded in by then, this one too; never set back
      time          UTC, by the server's clock
      count         values a channel of the batch; 0: no batch, the running statistics were replaced
      num_samples   N of the batch
      running_mean, running_var
                    over the channels, afterwards. None, as those below: not kept of this point, or not finite
      batch_mean, batch_var
                    of the batch; the variance biased
      relative_gap  evaluation's output less training's on this batch, with the running statistics as they were afterwards:
                    root mean square over all values, as a share of the weight's
    """

    update: int
    generation: int
    num_batches_tracked: int
    time: datetime.datetime
    count: int
    num_samples: int
    running_mean: Quantiles | None
    running_var: Quantiles | None
    batch_mean: Quantiles | None
    batch_var: Quantiles | None
    relative_gap: float | None


def stats_request(
    name: str,
    *,
    view: str | None = None,
    compare_with: str | None = None,
    first_channel: int = 0,
    num_channels: int = 0,
    return_last_batch: bool = False,
    return_shadow: bool = False,
    history: bool | HistoryRange = False,
) -> Any:
    """As the server takes it, of a session or a model. Internal."""
    request = pb.GetStatsRequest(
        name=name,
        view=to_wire(stats_view_pb2.StatsView, view, "view"),
        return_last_batch=return_last_batch,
        return_shadow=return_shadow,
        return_comparison=compare_with is not None,
        compare_with=to_wire(stats_view_pb2.ComparisonSource, compare_with, "compare_with"),
    )
    if first_channel or num_channels:
        request.channel_range.CopyFrom(pb.ChannelRange(first=first_channel, count=num_channels))
    if not isinstance(history, bool | HistoryRange):
        raise TypeError(f"history is {history!r}: True, False or a HistoryRange")
    if history is not False:
        request.history_range.SetInParent()
    if isinstance(history, HistoryRange):
        if history.since is not None:
            if not isinstance(history.since, datetime.datetime):
                raise TypeError(f"history.since is {history.since!r}: a datetime.datetime, or None")
            timestamp.to_wire(history.since, request.history_range.since_time)
        if history.after_generation is not None:
            request.history_range.after_generation = history.after_generation
    return request


def comparison(message: Any) -> Comparison:
    vectors = ("kl_divergence", "wasserstein", "mean_z", "variance_ratio", "variance_z")
    return Comparison(
        source=from_wire(stats_view_pb2.ComparisonSource, message.source),
        count=message.count,
        **{name: np.array(getattr(message, name), np.float64) for name in vectors},
    )


def _quantiles(message: Any, name: str) -> Quantiles | None:
    of = getattr(message, name)
    return Quantiles(of.min, of.low, of.median, of.high, of.max) if message.HasField(name) else None


def history(messages: Any) -> tuple[HistoryPoint, ...]:
    quantities = ("running_mean", "running_var", "batch_mean", "batch_var")
    return tuple(
        HistoryPoint(
            update=each.update,
            generation=each.generation,
            num_batches_tracked=each.num_batches_tracked,
            time=timestamp.from_wire(each.time),
            count=each.count,
            num_samples=each.num_samples,
            relative_gap=each.relative_gap if each.HasField("relative_gap") else None,
            **{name: _quantiles(each, name) for name in quantities},
        )
        for each in messages
    )


def summary(message: Any) -> StatsSummary:
    quantities = (
        "running_mean", "running_var", "batch_mean", "batch_var", "kl_divergence", "wasserstein", "mean_z", "variance_z"
    )  # fmt: skip
    return StatsSummary(
        num_features=message.num_features,
        batch_count=message.batch_count,
        flagged_channels={flag.lower(): count for flag, count in message.flagged_channels.items()},
        drift=message.drift if message.HasField("drift") else None,
        **{name: _quantiles(message, name) for name in quantities},
    )


def flags(messages: Any) -> dict[str, npt.NDArray[np.int64]]:
    return {
        from_wire(stats_view_pb2.FlagReason, each.reason): np.array(each.channels, np.int64) for each in messages
    }
