"""Ten lines of Python over the raw stubs: a layer, a training step, an evaluation.

Make the stubs once, from the root of the tree (Debian: protobuf-compiler, protobuf-compiler-grpc, python3-grpcio,
python3-protobuf, python3-numpy):

    mkdir -p build/python && protoc -I proto --python_out=build/python --grpc_out=build/python \
        --plugin=protoc-gen-grpc="$(command -v grpc_python_plugin)" proto/normserve/v1/*.proto
    PYTHONPATH=build/python python3 client/examples/ten_lines.py
"""

import sys

import grpc
import numpy as np
from normserve.v1 import batch_norm_service_pb2 as pb
from normserve.v1 import batch_norm_service_pb2_grpc as stubs

server = stubs.BatchNormServiceStub(grpc.insecure_channel(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"))
bn = server.CreateSession(pb.CreateSessionRequest(config={"num_features": 3}), timeout=30)  # as nn.BatchNorm2d(3)
x = {"shape": [4, 3, 32, 32], "data": np.random.rand(4, 3, 32, 32).astype("<f4").tobytes()}
for mode in "MODE_TRAIN", "MODE_EVAL":  # TRAIN normalises with the batch and updates the running statistics
    y = server.Forward(pb.ForwardRequest(name=bn.name, mode=mode, input=x), timeout=30).output
    print(mode, "sums to", np.frombuffer(y.data, "<f4").sum())
print(server.GetStats(pb.GetStatsRequest(name=bn.name), timeout=30).sessions[0].statistics)
server.DeleteSession(pb.DeleteSessionRequest(name=bn.name), timeout=30)
