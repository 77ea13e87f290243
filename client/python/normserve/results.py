"""What became of a batch: the results of Session.forward and Session.backward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from normserve.enumerators import from_wire
from normserve.moments import Moments
from normserve.tensor_message import Form, read_tensor
from normserve.v1 import batch_norm_service_pb2 as service_pb2
from normserve.v1 import session_pb2


@dataclass(frozen=True, eq=False)
class Normalization:
    """What a forward normalised with: all that backward needs besides the input."""

    mean: npt.NDArray[np.float64]  # [C]
    var: npt.NDArray[np.float64]  # [C], biased, without epsilon
    weight: npt.NDArray[np.float32] | None  # [C]; None: 1
    from_batch: bool  # whether mean and var are the batch's own, so that the gradient runs through them


@dataclass(frozen=True, eq=False)
class GradientSums:
    """What gradients are made of, per channel over all other axes, with g the gradient of the output and x the input.

    Those of several parts of a batch may be added with `+`: each worker stops at its sums (Session.backward with
    stop_at_sums), taken with the Normalization of the whole batch, and starts again from the total (start_from_sums).
    """

    count: int  # values per channel
    grad_output: npt.NDArray[np.float64]  # [C], sum of g
    grad_output_centered_input: npt.NDArray[np.float64]  # [C], sum of g * (x - mean)
    centered_input: npt.NDArray[np.float64]  # [C], sum of x - mean
    centered_input_squared: npt.NDArray[np.float64] | None  # [C], sum of (x - mean)^2; None: mean is not the batch's own

    def __add__(self, other: GradientSums) -> GradientSums:
        squared = (self.centered_input_squared, other.centered_input_squared)
        return GradientSums(
            self.count + other.count,
            self.grad_output + other.grad_output,
            self.grad_output_centered_input + other.grad_output_centered_input,
            self.centered_input + other.centered_input,
            None if squared[0] is None or squared[1] is None else squared[0] + squared[1],
        )


@dataclass(frozen=True, eq=False)
class _Sent:
    """The input as it was sent, so that backward can send it again whatever becomes of the array."""

    form: Form
    message: bytes | memoryview = field(repr=False)  # of type Tensor


@dataclass(frozen=True, eq=False)
class ForwardResult:
    """What became of one batch.

    Fields that were not asked for are None. A result asked for with save_for_backward holds on to the bytes that were
    sent, as many as the input's.
    """

    output: Any  # shape, type and kind of the input: a numpy array, dense and writable, or a BFloat16
    generation: int  # after this call: one more than before if it updated
    snapshot_generation: int  # of the state that the call computed with
    num_batches_tracked: int  # after this call
    uid: str  # of the session
    normalized_with: str  # "batch", "running", "given", "snapshot" or "blend"
    update: str  # what was done to the session: "none", "running" or "shadow"
    durability: str  # what the generation told here has survived
    batch_moments: Moments | None  # of this batch
    normalization: Normalization | None
    saved_forward: bytes | None  # token of the input that the server keeps; None also if it had no room
    _sent: _Sent | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class BackwardResult:
    """Gradients."""

    grad_input: Any  # shape, type and kind of the input; None with stop_at_sums
    grad_weight: npt.NDArray[np.float32] | None  # [C]; None if the session is not affine
    grad_bias: npt.NDArray[np.float32] | None  # [C]; None if the session is not affine
    sums: GradientSums  # those that were used
    generation: int
    uid: str
    resent: bool  # whether the input had to be sent again


def forward_result(message: Any, output: memoryview | None, sent: _Sent, saved: bool) -> ForwardResult:
    return ForwardResult(
        output=read_tensor(memoryview(b"") if output is None else output, sent.form),
        generation=message.generation,
        snapshot_generation=message.snapshot_generation,
        num_batches_tracked=message.num_batches_tracked,
        uid=message.uid,
        normalized_with=from_wire(service_pb2.NormalizedWith, message.normalized_with),
        update=from_wire(service_pb2.Update, message.update),
        durability=from_wire(session_pb2.Durability, message.durability),
        batch_moments=Moments._from_message(message.batch_moments) if message.HasField("batch_moments") else None,
        normalization=_normalization(message.normalization) if message.HasField("normalization") else None,
        saved_forward=message.saved_forward or None,
        _sent=sent if saved else None,
    )


def backward_result(message: Any, gradient: memoryview | None, form: Form, resent: bool) -> BackwardResult:
    sums = message.sums
    squared = np.array(sums.centered_input_squared, np.float64)
    return BackwardResult(
        grad_input=None if gradient is None else read_tensor(gradient, form),
        grad_weight=np.array(message.grad_weight, np.float32) if message.grad_weight else None,
        grad_bias=np.array(message.grad_bias, np.float32) if message.grad_bias else None,
        sums=GradientSums(
            sums.count,
            np.array(sums.grad_output, np.float64),
            np.array(sums.grad_output_centered_input, np.float64),
            np.array(sums.centered_input, np.float64),
            squared if squared.size else None,
        ),
        generation=message.generation,
        uid=message.uid,
        resent=resent,
    )


def sums_message(sums: GradientSums) -> Any:
    return service_pb2.GradientSums(
        count=sums.count,
        grad_output=sums.grad_output,
        grad_output_centered_input=sums.grad_output_centered_input,
        centered_input=sums.centered_input,
        centered_input_squared=sums.centered_input_squared,
    )


def normalization_message(normalization: Normalization) -> Any:
    return service_pb2.Normalization(
        mean=normalization.mean,
        var=normalization.var,
        weight=normalization.weight,
        from_batch=normalization.from_batch,
    )


def _normalization(message: Any) -> Normalization:
    return Normalization(
        np.array(message.mean, np.float64),
        np.array(message.var, np.float64),
        np.array(message.weight, np.float32) if message.weight else None,
        message.from_batch,
    )
