"""Files of the safetensors format: written of arrays, read, and changed in place. Internal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normserve.bfloat16 import BFloat16

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: `begin` and `end` from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def write(tensors: Mapping[str, Any]) -> bytes:
    """The file of {name: array or BFloat16}. TypeError: an array of another type."""
    header: dict[str, Any] = {}
    data: list[bytes] = []
    position = 0
    for name, values in tensors.items():
        if isinstance(values, BFloat16):
            dtype, shape, raw = "BF16", values.shape, values.words.astype("<u2").tobytes()
        else:
            array = np.asarray(values)
            little = array.dtype.newbyteorder("<")
            if little not in _NAMES:
                raise TypeError(f"{name} is {array.dtype}: {', '.join(sorted(map(str, _NAMES)))} or BFloat16")
            dtype, shape, raw = _NAMES[little], array.shape, array.astype(little).tobytes()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(raw)]}
        position += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *data])


def read_header(head: bytes, file_bytes: int) -> dict[str, Entry]:
    """The tensors of a file of `file_bytes` that begins with `head`, all of its header. ValueError: it is none."""
    length = int.from_bytes(head[:8], "little")
    try:
        if length > _LONGEST_HEADER or len(head) < 8 + length:
            raise ValueError(f"its header would have {length} bytes")
        header = json.loads(head[8 : 8 + length])
        header.pop("__metadata__", None)
        entries = {}
        for name, entry in header.items():
            begin, end = (8 + length + int(offset) for offset in entry["data_offsets"])
            if not 8 + length <= begin <= end <= file_bytes:
                raise ValueError(f"tensor {name!r} lies outside of it")
            entries[name] = Entry(entry["dtype"], tuple(map(int, entry["shape"])), begin, end)
        return entries
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no safetensors file: {error}") from error


def header_bytes(start: bytes) -> int:
    """How many bytes the length and the header take, of a file that begins with `start`, 8 bytes or more."""
    return 8 + min(int.from_bytes(start[:8], "little"), _LONGEST_HEADER)


def read(file: bytes) -> dict[str, npt.NDArray[Any]]:
    """{name: array} of a file without BF16, such as an export."""
    return {name: np.frombuffer(file[entry.begin : entry.end], _DTYPES[entry.dtype]).reshape(entry.shape)
            for name, entry in read_header(file, len(file)).items()}  # fmt: skip


def patches(exported: Mapping[str, npt.NDArray[Any]], entries: Mapping[str, Entry]) -> list[tuple[int, bytes]]:
    """What to write where in a file of `entries` so that it has the tensors `exported`, each in the file's own type and
    shape. A count that the file has no tensor for is left out, and so is a weight of ones or a bias of zeros.

    ValueError: the file has no such tensor, or of another length, or its type does not hold the values.
    """
    found = []
    for name, array in exported.items():
        entry = entries.get(name)
        if entry is None:
            leaf = name.rpartition(".")[2]
            neutral = {"num_batches_tracked": array, "weight": np.ones_like(array), "bias": np.zeros_like(array)}.get(leaf)
            if neutral is None or not np.array_equal(array, neutral):
                raise ValueError(f"the checkpoint has no tensor {name!r}: it is of another model, or lacks the prefix")
            continue
        if int(np.prod(entry.shape, dtype=object)) != array.size:
            raise ValueError(f"{name!r} has shape {entry.shape} in the checkpoint and {array.shape} on the server")
        found.append((entry.begin, _as_type(name, array, entry.dtype)))
    return found


def _as_type(name: str, array: npt.NDArray[Any], dtype: str) -> bytes:
    is_count = array.dtype.kind == "i"
    if dtype not in (("I64", "I32") if is_count else ("F64", "F32", "F16", "BF16")):
        raise ValueError(f"{name!r} is {dtype} in the checkpoint, which does not hold it")
    if dtype == "BF16":
        words = BFloat16.of(array)
        converted: npt.NDArray[Any] = words.float32()
        raw = words.words.astype("<u2").tobytes()
    else:
        with np.errstate(over="ignore"):
            converted = array.astype(_DTYPES[dtype])
        raw = converted.tobytes()
    holds = np.array_equal(converted, array) if is_count else bool(np.all(np.isfinite(converted)))
    if not holds:
        raise ValueError(f"{name!r} is {dtype} in the checkpoint, which does not hold {np.max(np.abs(array))}")
    return raw
