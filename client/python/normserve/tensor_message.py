"""Tensors in messages, whose values are copied once on the way out and once on the way in. Internal.

A tensor is the last field of its message and the payload is the last field of a tensor, so that a message is a header,
which protobuf makes, and the array's own memory after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from normserve.bfloat16 import BFloat16
from normserve.v1 import tensor_pb2

# Numbers of the fields that hold tensors; RESENT is the message around one.
INPUT, OUTPUT, GRADIENT, RESENT = 31, 31, 31, 30
_PAYLOAD = 15
_LENGTH_DELIMITED = 2

Array = npt.NDArray[Any] | BFloat16
Parts = Sequence[bytes | memoryview]

_TYPES = {
    np.dtype(np.float32): tensor_pb2.DATA_TYPE_FLOAT32,
    np.dtype(np.float16): tensor_pb2.DATA_TYPE_FLOAT16,
}


@dataclass(frozen=True)
class Form:
    """How an array travels, and what it is made of again.

      channels_last  whether the shape that is sent is [N, *, C]
      moved          whether that is the array's memory but not its shape, which is [N, C, *]: torch.channels_last
      make           of the values that came back, float32, float16 or uint16 words of bfloat16: the user's kind of array
    """

    channels_last: bool
    moved: bool
    make: Callable[[npt.NDArray[Any]], Any]


def form_of(x: Array, layout: str, what: str) -> Form:
    """How `x` is to travel. TypeError: the server does not take its type. ValueError: no such layout."""
    if layout not in ("channels_first", "channels_last"):
        raise ValueError(f"layout is {layout!r}: 'channels_first', [N, C, *], or 'channels_last', [N, *, C]")
    words, make = _words(x, what)
    last = layout == "channels_last"
    moved = not last and words.ndim > 2 and not words.flags.c_contiguous and np.moveaxis(words, 1, -1).flags.c_contiguous
    return Form(last or moved, moved, make)


def tensor_parts(x: Array, form: Form, what: str) -> list[bytes | memoryview]:
    """The message Tensor of `x`: a header and, unless `x` is empty, its memory, copied only where it is not dense."""
    words, _ = _words(x, what)
    if form.moved and words.ndim > 2:
        words = np.moveaxis(words, 1, -1)
    words = np.ascontiguousarray(words, words.dtype.newbyteorder("<"))
    layout = tensor_pb2.LAYOUT_CHANNELS_LAST if form.channels_last else tensor_pb2.LAYOUT_CHANNELS_FIRST
    data_type = _TYPES.get(words.dtype.newbyteorder("="), tensor_pb2.DATA_TYPE_BFLOAT16)
    header = tensor_pb2.Tensor(data_type=data_type, shape=words.shape, layout=layout).SerializeToString()
    if not words.size:
        return [header]
    return [header, *field(_PAYLOAD, [words.reshape(-1).view(np.uint8).data])]


def field(number: int, parts: Parts) -> list[bytes | memoryview]:
    """`parts` as one length-delimited field of the message around it."""
    return [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(sum(map(len, parts))), *parts]


def split(message: bytes | memoryview, number: int) -> tuple[bytes, memoryview | None]:
    """`message` without its field `number`, and that field's value, not copied; None if it is not there."""
    view, rest, found, at = memoryview(message), [], None, 0
    while at < len(view):
        start = at
        key, at = _read_varint(view, at)
        wire_type = key & 7
        begin = at
        if wire_type == 0:
            _, at = _read_varint(view, at)
        elif wire_type == _LENGTH_DELIMITED:
            size, begin = _read_varint(view, at)
            at = begin + size
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"a reply has a field of wire type {wire_type}")
        if at > len(view):
            raise ValueError("a reply ends within a field")
        if key == number << 3 | _LENGTH_DELIMITED:
            found = view[begin:at]
        else:
            rest.append(view[start:at])
    return b"".join(rest), found


def read_tensor(message: memoryview, form: Form) -> Any:
    """The array that a message Tensor holds, of the user's own kind, dense, aligned and writable."""
    header, payload = split(message, _PAYLOAD)
    tensor = tensor_pb2.Tensor.FromString(header)
    dtype = {tensor_pb2.DATA_TYPE_FLOAT16: "<f2", tensor_pb2.DATA_TYPE_BFLOAT16: "<u2"}.get(tensor.data_type, "<f4")
    values = np.frombuffer(payload or b"", dtype).reshape(tuple(tensor.shape)).astype(np.dtype(dtype).newbyteorder("="))
    return form.make(np.moveaxis(values, -1, 1) if form.moved else values)


def _words(x: Array, what: str) -> tuple[npt.NDArray[Any], Callable[[npt.NDArray[Any]], Any]]:
    """The values of `x` as numpy has types for, and what makes an array of the kind of `x` of such values."""
    if isinstance(x, BFloat16):
        return x.words, BFloat16
    try:
        array = np.asarray(x)
    except (RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"{what} is a {type(x).__name__} that numpy cannot read ({error}): of a torch tensor send "
            f"normserve.torch.to_numpy({what})"
        ) from None
    if array.dtype.newbyteorder("=") in _TYPES:
        return array, lambda values: values
    dtype = array.dtype
    # ml_dtypes, which need not be there to be recognised.
    if dtype.type.__name__ == "bfloat16" and dtype.itemsize == 2:
        return array.view(np.uint16), lambda values: values.view(dtype)
    raise TypeError(
        f"{what} is {dtype}: the server takes float32, float16 and bfloat16 (ml_dtypes, or normserve.BFloat16) and computes "
        f"in float32: send {what}.astype(numpy.float32)"
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view):
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a reply ends within a number")
