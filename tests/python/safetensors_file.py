"""A second implementation of the safetensors format, for tests: written from its description, and nothing of the server's."""

import json

import numpy as np

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BF16": "<u2"}
_NAMES = {np.dtype(dtype): name for name, dtype in _TYPES.items() if name != "BF16"}


class BFloat16(np.ndarray):
    """uint16 whose values are to be written as BF16."""


def bfloat16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BFloat16)


def write(tensors, metadata=None):
    """The file of {name: array}, in that order."""
    header, data, position = {}, [], 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        raw = np.asarray(array).tobytes()
        dtype = "BF16" if isinstance(array, BFloat16) else _NAMES[np.asarray(array).dtype.newbyteorder("<")]
        header[name] = {"dtype": dtype, "shape": list(np.shape(array)), "data_offsets": [position, position + len(raw)]}
        data.append(raw)
        position += len(raw)
    return from_header(json.dumps(header), b"".join(data))


def from_header(text, data=b""):
    """A file whose header is this text, whatever it says."""
    text = text.encode() if isinstance(text, str) else text
    return len(text).to_bytes(8, "little") + text + data


def read(file):
    """{name: array} of a file; BF16 as uint16."""
    length = int.from_bytes(file[:8], "little")
    header, data = json.loads(file[8 : 8 + length]), file[8 + length :]
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[begin:end], _TYPES[entry["dtype"]]).reshape(entry["shape"])
    assert sum(array.nbytes for array in tensors.values()) == len(data)
    return tensors
