"""Why a layer puts out something else in evaluation than in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normserve.enumerators import from_wire
from normserve.moments import Moments, write_moments
from normserve.v1 import batch_norm_service_pb2 as pb


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """One layer, diagnosed. normserve.v1.Diagnosis has the words in full.

    verdict               "healthy", "train_eval_gap", "batch_too_small", "non_finite", "never_updated", "not_tracked" or
                          "no_evidence"
    gap_rms               root mean square of evaluation's output less training's, in units of the layer's output; None:
                          there is none to tell
    predicted_gap_rms     of a later batch of the same kind: more than gap_rms where the batch is part of the running
                          statistics, which know it better than they will know the next; the verdict goes by it
    relative_gap          gap_rms as a share of the output's own size
    sampling_noise        the gap that a sound layer shows on such batches; sampling_noise_limit is exceeded once in
                          30,000 times
    causes                what of predicted_gap_rms has which cause, such as "initialisation"; adds up to it
    flagged_channels      how many channels have each flag, such as "DEAD"
    explanation, advice   plain words; no advice: nothing is to be done
    batch_count           values a channel of the batch it was compared with; 0: none
    channel_gap_rms       float64 [C]; empty unless it was asked for
    """

    name: str
    uid: str
    generation: int
    verdict: str
    gap_rms: float | None
    predicted_gap_rms: float | None
    relative_gap: float | None
    sampling_noise: float | None
    sampling_noise_limit: float | None
    causes: dict[str, float]
    flagged_channels: dict[str, int]
    explanation: str
    advice: str
    batch_count: int
    channel_gap_rms: npt.NDArray[np.float64]


def _request(
    name: str,
    moments: Moments | None,
    layers: Mapping[str, Moments] | None,
    samples_per_batch: int,
    return_channels: bool,
    observed: bool = False,
) -> Any:
    request = pb.DiagnoseRequest(name=name, samples_per_batch=samples_per_batch, return_channels=return_channels)
    if observed:
        if moments is not None or layers is not None:
            raise ValueError("observed is True and there are moments: what was observed, or these, is the evidence")
        request.observed.SetInParent()
    if moments is not None:
        write_moments(moments, request.moments, "moments")
    if layers is not None:
        request.layers.SetInParent()
    for layer, of_layer in (layers or {}).items():
        write_moments(of_layer, request.layers.layers.add(layer=layer).moments, f'layers["{layer}"]')
    return request


def _diagnosis(message: Any) -> Diagnosis:
    def optional(field: str) -> float | None:
        return getattr(message, field) if message.HasField(field) else None

    return Diagnosis(
        name=message.name,
        uid=message.uid,
        generation=message.generation,
        verdict=from_wire(pb.Verdict, message.verdict),
        gap_rms=optional("gap_rms"),
        predicted_gap_rms=optional("predicted_gap_rms"),
        relative_gap=optional("relative_gap"),
        sampling_noise=optional("sampling_noise"),
        sampling_noise_limit=optional("sampling_noise_limit"),
        causes={from_wire(pb.Cause, share.cause): share.share for share in message.causes},
        flagged_channels=dict(message.flagged_channels),
        explanation=message.explanation,
        advice=message.advice,
        batch_count=message.batch_count,
        channel_gap_rms=np.array(message.channel_gap_rms, np.float64),
    )
