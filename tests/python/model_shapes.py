"""Names and shapes of torchvision's ResNet-50 and MobileNetV2 as their state dicts have them, with drawn values.

From the papers (He et al. 2015, Sandler et al. 2018) and torchvision's names, which are not here to ask.
"""

import numpy as np


class _StateDict(dict):
    def __init__(self, seed):
        super().__init__()
        self.random = np.random.default_rng(seed)

    def conv(self, name, out_channels, in_channels, size):
        self[name + ".weight"] = self.random.standard_normal((out_channels, in_channels, size, size), np.float32)

    def linear(self, name, out_features, in_features):
        self[name + ".weight"] = self.random.standard_normal((out_features, in_features), np.float32)
        self[name + ".bias"] = self.random.standard_normal(out_features, np.float32)

    def batch_norm(self, name, channels):
        for leaf in ("weight", "bias", "running_mean"):
            self[f"{name}.{leaf}"] = self.random.standard_normal(channels, np.float32)
        self[name + ".running_var"] = self.random.gamma(2, 2, channels).astype(np.float32)
        self[name + ".num_batches_tracked"] = np.array(self.random.integers(1, 10**6), np.int64)


def resnet50():
    """53 batch norms, 25.6 million parameters."""
    state = _StateDict(50)
    state.conv("conv1", 64, 3, 7)
    state.batch_norm("bn1", 64)
    in_channels = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            for index, (out, into, size) in enumerate(
                ((width, in_channels, 1), (width, width, 3), (4 * width, width, 1)), start=1
            ):
                state.conv(f"{name}.conv{index}", out, into, size)
                state.batch_norm(f"{name}.bn{index}", out)
            if block == 0:
                state.conv(f"{name}.downsample.0", 4 * width, in_channels, 1)
                state.batch_norm(f"{name}.downsample.1", 4 * width)
            in_channels = 4 * width
    state.linear("fc", 1000, 2048)
    return dict(state)


def mobilenet_v2():
    """52 batch norms, none of which is called so."""
    state = _StateDict(2)
    state.conv("features.0.0", 32, 3, 3)
    state.batch_norm("features.0.1", 32)
    in_channels, index = 32, 1
    for expansion, channels, repeats in ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3),
                                         (6, 320, 1)):  # fmt: skip
        for _ in range(repeats):
            hidden, name, step = in_channels * expansion, f"features.{index}.conv", 0
            if expansion != 1:
                state.conv(f"{name}.0.0", hidden, in_channels, 1)
                state.batch_norm(f"{name}.0.1", hidden)
                step = 1
            state.conv(f"{name}.{step}.0", hidden, 1, 3)
            state.batch_norm(f"{name}.{step}.1", hidden)
            state.conv(f"{name}.{step + 1}", channels, hidden, 1)
            state.batch_norm(f"{name}.{step + 2}", channels)
            in_channels = channels
            index += 1
    state.conv(f"features.{index}.0", 1280, 320, 1)
    state.batch_norm(f"features.{index}.1", 1280)
    state.linear("classifier.1", 1000, 1280)
    return dict(state)
