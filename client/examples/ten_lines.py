"""Ten lines of Python: a layer, a training step, an evaluation.

After ./dev build demo, from the root of the tree (Debian: python3-grpcio, python3-protobuf, python3-numpy), or without
PYTHONPATH once the package is installed (client/python/README.md):

    PYTHONPATH=build/demo/python /usr/bin/python3 client/examples/ten_lines.py
"""

import sys

import normserve
import numpy as np

with normserve.Client(*sys.argv[1:]) as client:  # "127.0.0.1:8001"
    bn = client.create(num_features=3)  # as nn.BatchNorm2d(3)
    x = np.random.rand(4, 3, 32, 32).astype(np.float32)
    trained = bn.forward(x)  # normalises with the batch, updates the running statistics
    bn.eval()
    evaluated = bn.forward(x)  # normalises with the running statistics
    print("training sums to", trained.output.sum(), "and evaluation sums to", evaluated.output.sum())
    print("running mean and variance", bn.stats().running_mean, bn.stats().running_var)
    bn.delete()
