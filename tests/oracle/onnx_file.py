"""Reads the few parts of ONNX files that the published batch-norm cases use, from protobuf's wire format.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

import struct
from dataclasses import dataclass, field

import numpy as np

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data):
    """{number: [values]} of one message; a submessage stays bytes."""
    found, at = {}, 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, at = _varint(data, at)
        elif wire_type == _FIXED64:
            value, at = data[at:at + 8], at + 8
        elif wire_type == _FIXED32:
            value, at = data[at:at + 4], at + 4
        elif wire_type == _BYTES:
            size, at = _varint(data, at)
            value, at = data[at:at + size], at + size
            if len(value) != size:
                raise ValueError("truncated")
        else:
            raise ValueError(f"wire type {wire_type}")
        found.setdefault(number, []).append(value)
    return found


def _varints(values):
    """A repeated integer, packed or not."""
    out = []
    for value in values:
        if isinstance(value, int):
            out.append(value)
            continue
        at = 0
        while at < len(value):
            one, at = _varint(value, at)
            out.append(one)
    return out


def read_tensor(data):
    """(name, array) of a TensorProto."""
    message = fields(data)
    dims = _varints(message.get(1, []))
    kind = message[2][0]
    name = message.get(8, [b""])[0].decode()
    if kind == _FLOAT:
        raw = message[9][0] if 9 in message else b"".join(message.get(4, []))
        values = np.frombuffer(raw, dtype="<f4")
    elif kind == _INT64:
        values = (np.frombuffer(message[9][0], dtype="<i8") if 9 in message
                  else np.array(_varints(message.get(7, [])), dtype="<i8"))
    else:
        raise ValueError(f"tensor {name} has data type {kind}")
    return name, values.reshape(dims)


@dataclass
class Node:
    op_type: str
    inputs: list
    outputs: list
    attributes: dict  # name -> float or int


@dataclass
class Graph:
    nodes: list = field(default_factory=list)
    initializers: dict = field(default_factory=dict)
    inputs: list = field(default_factory=list)  # names
    outputs: list = field(default_factory=list)


def _attribute(data):
    message = fields(data)
    name = message[1][0].decode()
    if 2 in message:
        return name, struct.unpack("<f", message[2][0])[0]
    if 3 in message:
        return name, message[3][0]
    return name, None


def read_model(data):
    """The graph of a ModelProto."""
    graph = fields(fields(data)[7][0])
    result = Graph()
    for node in map(fields, graph.get(1, [])):
        result.nodes.append(Node(node[4][0].decode(), [name.decode() for name in node.get(1, [])],
                                 [name.decode() for name in node.get(2, [])],
                                 dict(_attribute(attribute) for attribute in node.get(5, []))))
    result.initializers = dict(read_tensor(tensor) for tensor in graph.get(5, []))
    for values, names in ((graph.get(11, []), result.inputs), (graph.get(12, []), result.outputs)):
        names.extend(fields(value)[1][0].decode() for value in values)
    return result
