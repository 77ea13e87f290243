"""A small network, trained for real, whose batch-norm layers are sessions of a server; its input can drift."""

import numpy as np
import torch
from torch import nn

import normserve


class Bars(nn.Module):
    """Tells the orientation of bars in noisy 16 x 16 pictures."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.block1 = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.block2 = nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(64, 24, bias=False), nn.BatchNorm1d(24), nn.ReLU())
        self.classifier = nn.Linear(24, 4)

    def forward(self, pictures):
        features = self.block2(self.block1(self.stem(pictures)))
        return self.classifier(self.head(features.mean((2, 3))))


def pictures(rng, count):
    """`count` pictures [count, 1, 16, 16] and which of four orientations each has."""
    labels = rng.integers(0, 4, count)
    row, column = np.mgrid[0:16, 0:16]
    angle = labels * np.pi / 4
    along = row[None] * np.cos(angle)[:, None, None] + column[None] * np.sin(angle)[:, None, None]
    bars = np.sin(along * 1.3 + rng.uniform(0, 6.3, count)[:, None, None])
    values = (bars + 0.4 * rng.standard_normal((count, 16, 16))).astype(np.float32)
    return torch.from_numpy(values[:, None]), torch.from_numpy(labels)


def train(client, name="bars", num_steps=60, num_drifted=1, seed=1):
    """Trains; every batch that a batch-norm layer is fed goes through its session below `name`/, too. After `num_steps`
    the camera ages: in `num_drifted` more batches its pictures are brighter and poorer in contrast. The model."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Bars()
    sessions = {layer: client.create(f"{name}/{layer}", num_features=module.num_features)
                for layer, module in normserve.torch.batch_norm_layers(model)}

    def send(layer):
        return lambda module, inputs: sessions[layer].forward(inputs[0].detach().numpy()) and None

    for layer, module in normserve.torch.batch_norm_layers(model):
        module.register_forward_pre_hook(send(layer))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(num_steps + num_drifted):
        values, labels = pictures(rng, 32)
        if step >= num_steps:
            values = values * 0.6 + 0.8
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(values), labels).backward()
        if step < num_steps:
            optimizer.step()
    return model
