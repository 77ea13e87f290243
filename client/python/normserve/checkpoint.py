"""Checkpoints: batch-norm layers of safetensors files become sessions, and sessions such a file."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any, BinaryIO

import grpc
import numpy.typing as npt

from normserve import safetensors
from normserve.caller import Caller, request_id_or_random
from normserve.enumerators import from_wire, to_wire
from normserve.v1 import batch_norm_service_pb2 as pb
from normserve.v1 import session_pb2

_LEAVES = ("running_mean", "running_var", "weight", "bias", "num_batches_tracked")
_PIECE = 1 << 19

# A file's path, its bytes, an open file, or a state dict {name: array} (of numpy, or of torch tensors on the CPU).
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Mapping[str, Any]
# Called with the bytes sent or received so far, and with all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportedLayer:
    """A layer of a checkpoint and its session. action: "created", "replaced" or "skipped"."""

    name: str
    uid: str
    generation: int
    num_features: int
    num_batches_tracked: int
    action: str


@dataclass(frozen=True)
class ImportResult:
    """What came of an import.

      layers                      in the order of the sessions' names
      skipped                     {tensor: why} of tensors that look like a part of a batch-norm layer and were left out; the
                                  first 100 of num_skipped
      largest_parameter_rounding  largest relative difference of a weight or bias from the file's: 0 unless it has float64
    """

    layers: tuple[ImportedLayer, ...]
    skipped: dict[str, str]
    num_skipped: int
    largest_parameter_rounding: float


@dataclass(frozen=True)
class ExportedLayer:
    """A session as it was written.

      path                    what its tensors' names begin with; "": they are called "running_mean" and so on
      eps, momentum           which are not in the file; momentum as the convention writes it, None for averages that have none
      largest_relative_error  of the file's float32 from the session's float64
      folded_error_bound      of y = x * scale + shift in float32, absolute, for x within 10 standard deviations
    """

    name: str
    uid: str
    generation: int
    path: str
    num_features: int
    eps: float
    momentum: float | None
    largest_relative_error: float
    folded_error_bound: float


@dataclass(frozen=True)
class Export:
    """Sessions as a safetensors file.

      file                    its bytes
      layers                  in the order of the sessions' names
      largest_relative_error  the largest of the layers'
    """

    file: bytes = field(repr=False)
    layers: tuple[ExportedLayer, ...]
    largest_relative_error: float

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The state dict, {name: array}: float32, counters int64 of shape (). What load_state_dict(strict=True) asks for, once
        the arrays are tensors."""
        return {name: array.copy() for name, array in safetensors.read(self.file).items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file, whole or not at all."""
        with _Replacement(path) as file:
            file.write(self.file)

    def save_into(self, checkpoint: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
        """Writes `path`: the safetensors file `checkpoint` (which may be `path`) with these layers' values, in its own types and
        shapes. All else in it stays byte for byte. Whole or not at all.

        A count that the checkpoint has no tensor for is left out, and so is a weight of ones or a bias of zeros.
        ValueError: the checkpoint is no safetensors file, or has not these layers; nothing is written.
        """
        size = os.path.getsize(checkpoint)
        with open(checkpoint, "rb") as original:
            start = original.read(8)
            head = start + original.read(safetensors.header_bytes(start) - 8)
        changes = safetensors.patches(safetensors.read(self.file), safetensors.read_header(head, size))
        with _Replacement(path) as file:
            with open(checkpoint, "rb") as original:
                shutil.copyfileobj(original, file)
            for position, values in changes:
                file.seek(position)
                file.write(values)


class _Replacement:
    """A file that takes the place of `path` once all went well."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def __enter__(self) -> BinaryIO:
        folder = os.path.dirname(self._path) or "."
        self._file = tempfile.NamedTemporaryFile("wb", dir=folder, delete=False)  # pylint: disable=consider-using-with
        return self._file  # type: ignore[return-value]

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        self._file.close()
        if kind is None:
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(self._file.name, 0o666 & ~umask)
            os.replace(self._file.name, self._path)
        else:
            os.unlink(self._file.name)


def import_state(caller: Caller, begin: Any, source: Source, timeout: float | None, progress: Progress | None) -> ImportResult:
    """Client.import_state."""
    size, pieces = _pieces(source)

    def requests(failures: list[BaseException]) -> Iterator[Any]:
        sent = 0
        try:
            yield pb.ImportStateRequest(begin=begin)
            for piece in pieces():
                yield pb.ImportStateRequest(data=piece)
                sent += len(piece)
                if progress is not None:
                    progress(sent, size)
        except Exception as failure:  # gRPC, which runs this, would not pass it on
            failures.append(failure)
            raise

    def attempt(_: Any, **call: Any) -> Any:
        """Sends the file from its beginning."""
        failures: list[BaseException] = []
        try:
            return caller.stub.ImportState(requests(failures), **call)
        except grpc.RpcError:
            if failures:
                raise failures[0] from None
            raise

    reply = caller.call(
        attempt,
        None,
        caller.deadline(timeout),
        repeatable=begin.request_id != "",
        session=begin.name,
    )
    layers = (ImportedLayer(each.name, each.uid, each.generation, each.num_features, each.num_batches_tracked,
                            from_wire(pb.ImportAction, each.action)) for each in reply.sessions)  # fmt: skip
    skipped = {each.name: each.reason for each in reply.skipped}
    return ImportResult(tuple(layers), skipped, reply.num_skipped, reply.largest_parameter_rounding)


def export_state(
    caller: Caller, request: Any, timeout: float | None, progress: Progress | None
) -> Export:
    """Exports.export_state."""

    def attempt(message: Any, **call: Any) -> tuple[Any, bytes]:
        summary, pieces, received = None, [], 0
        for reply in caller.stub.ExportState(message, **call):
            if reply.HasField("summary"):
                summary = reply.summary
                continue
            pieces.append(reply.data)
            received += len(reply.data)
            if progress is not None and summary is not None:
                progress(received, summary.size_bytes)
        return summary, b"".join(pieces)

    deadline = caller.deadline(timeout)
    summary, file = caller.call(attempt, request, deadline, repeatable=True, session=request.name)
    layers = (ExportedLayer(each.name, each.uid, each.generation, each.path, each.num_features, each.epsilon,
                            each.momentum if each.HasField("momentum") else None, each.largest_relative_error,
                            each.folded_error_bound) for each in summary.layers)  # fmt: skip
    return Export(file, tuple(layers), summary.largest_relative_error)


class Exports:
    """What Session and models have in common: calls about `_target`, a session's name or a model's with its "/"."""

    _caller: Caller

    @property
    def _target(self) -> str:
        raise NotImplementedError

    def export_state(
        self,
        *,
        prefix: str = "",
        convention: str | None = None,
        folded: bool = False,
        values_per_channel: int = 0,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> Export:
        """The state as a safetensors file under PyTorch's names. Changes nothing.

          prefix              put before every tensor's name, with a "."
          convention          "pytorch", "keras", "flax" or "onnx": the running variance as that keeps it. None: as it is
          folded              instead of the layers, X.scale and X.shift: evaluation as y = x * scale + shift
          values_per_channel  of every training batch; read where the variance must be converted
          progress            called with the bytes received and all of them

        Errors: FAILED_PRECONDITION (CONVENTION_MISMATCH): the conversion is not exact; (NON_FINITE): float32 does not hold it.
        """
        request = pb.ExportStateRequest(
            name=self._target,
            prefix=prefix,
            convention=to_wire(session_pb2.Convention, convention, "convention"),
            folded=folded,
            values_per_channel=values_per_channel,
        )
        return export_state(self._caller, request, timeout, progress)


class ExportsOf(Exports):
    """Exports of a name."""

    def __init__(self, caller: Caller, name: str) -> None:
        self._caller = caller
        self._name = name

    @property
    def _target(self) -> str:
        return self._name


def import_begin(
    name: str,
    *,
    prefix: str,
    existing: str,
    mode: str | None,
    eps: float | None,
    momentum: float | None | EllipsisType,
    convention: str | None,
    running_variance: str | None,
    durability: str | None,
    labels: Mapping[str, str] | None,
    kept_by: str | None,
    values_per_channel: int,
    request_id: str | None,
) -> Any:
    """The first message of Client.import_state."""
    config = session_pb2.SessionConfig(
        epsilon=eps,
        convention=to_wire(session_pb2.Convention, convention, "convention"),
        running_variance=to_wire(session_pb2.RunningVariance, running_variance, "running_variance"),
        durability=to_wire(session_pb2.Durability, durability, "durability"),
        labels=labels,
    )
    if momentum is None:
        config.cumulative.SetInParent()
    elif not isinstance(momentum, EllipsisType):
        config.momentum = momentum
    return pb.ImportBegin(
        name=name,
        request_id=request_id_or_random(request_id),
        config=config,
        mode=to_wire(session_pb2.Mode, mode, "mode"),
        prefix=prefix,
        existing=to_wire(pb.ExistingSession, existing, "existing"),
        kept_by=to_wire(session_pb2.Convention, kept_by, "kept_by"),
        values_per_channel=values_per_channel,
    )


def _pieces(source: Source) -> tuple[int, Callable[[], Iterator[bytes]]]:
    """The length of the file, and what yields its bytes, as often as it is called."""
    if isinstance(source, Mapping):
        source = safetensors.write(_layers_of(source))
    elif isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)

        def of_path() -> Iterator[bytes]:
            with open(path, "rb") as file:
                while piece := file.read(_PIECE):
                    yield piece

        return os.path.getsize(path), of_path
    elif not isinstance(source, (bytes, bytearray, memoryview)):
        source = source.read()
    view = memoryview(source).cast("B")
    return len(view), lambda: (bytes(view[at : at + _PIECE]) for at in range(0, len(view), _PIECE))


def _layers_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a state dict that batch-norm layers can have: the others need not travel."""
    found = {}
    for name, values in state.items():
        stem, _, leaf = name.rpartition(".")
        stem += "." if stem else ""
        if leaf in _LEAVES and (stem + "running_mean" in state or stem + "running_var" in state):
            # A torch tensor of bfloat16 has no numpy array: it is exact in float32.
            exact = values.float() if "bfloat16" in str(getattr(values, "dtype", "")) and hasattr(values, "float") else values
            found[name] = exact.detach().cpu().numpy() if hasattr(exact, "detach") else exact
    return found
