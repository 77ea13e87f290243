"""What the story of fix.py is about: pictures made here, a small network that learns them, and a camera that changes."""

import math

import torch
import torch.nn.functional as F
from torch import nn

SIZE = 32  # pixels, either way
SHAPES = ("disc", "ring", "square", "frame", "triangle", "cross", "bar", "flower", "stripes", "crescent")


def pictures(count, generator):
    """(pictures, labels): [count, 3, SIZE, SIZE] in 0 to 1 and [count] of which shape of SHAPES each shows.

    A shape lies anywhere, in any size and turn, brighter or darker than a background that slopes, in any colours, under
    the noise of a camera: no colour, brightness or place tells what it is.
    """

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    labels = torch.randint(0, len(SHAPES), (count,), generator=generator)
    axis = torch.linspace(-1, 1, SIZE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    center_x, center_y = (rand(2, count, 1, 1) - 0.5) * 0.7
    radius = 0.45 + 0.3 * rand(count, 1, 1)
    turn = 2 * math.pi * rand(count, 1, 1)
    u = ((x - center_x) * turn.cos() + (y - center_y) * turn.sin()) / radius
    v = ((y - center_y) * turn.cos() - (x - center_x) * turn.sin()) / radius
    from_center, angle = (u * u + v * v).sqrt(), torch.atan2(v, u)
    larger, smaller = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    inside = (
        from_center < 0.9,
        (from_center < 0.95) & (from_center > 0.55),
        larger < 0.8,
        (larger < 0.85) & (larger > 0.5),
        (v > -0.5) & (v < 1 - 1.8 * u.abs()),
        (larger < 0.95) & (smaller < 0.28),
        (v.abs() < 0.3) & (u.abs() < 1.1),
        from_center < 0.55 + 0.35 * torch.cos(5 * angle),
        (larger < 0.95) & (torch.sin(6 * u) > 0),
        (from_center < 0.95) & ((u - 0.35).square() + v.square() > 0.5),
    )
    mask = torch.stack(inside, 1)[torch.arange(count), labels].float()[:, None]
    background = 0.2 + 0.6 * rand(count, 3, 1, 1)
    contrast = (0.2 + 0.3 * rand(count, 3, 1, 1)) * torch.sign(rand(count, 3, 1, 1) - 0.5)
    slope = 0.4 * ((rand(count, 3, 1, 1) - 0.5) * x + (rand(count, 3, 1, 1) - 0.5) * y)
    noise = 0.05 * torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return (background + slope + contrast * mask + noise).clamp(0, 1), labels


# Of the new camera, for red, green and blue: less light through a warm filter, and a black that is none.
_GAIN = torch.tensor([0.35, 0.25, 0.15])[:, None, None]
_BLACK = torch.tensor([0.40, 0.20, 0.05])[:, None, None]


def through_the_new_camera(images, generator):
    """The same pictures as another sensor sees them: darker, flatter, reddish, with noise of its own."""
    noise = 0.01 * torch.randn(images.shape, generator=generator)
    return (images * _GAIN + _BLACK + noise).clamp(0, 1)


class Block(nn.Module):
    """The basic residual block (He et al. 2015)."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class Network(nn.Module):
    """A ResNet of three blocks with nine batch norms, 78,000 parameters."""

    def __init__(self, width=16):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = Block(width, width, 1)
        self.layer2 = Block(width, 2 * width, 2)
        self.layer3 = Block(2 * width, 4 * width, 2)
        self.fc = nn.Linear(4 * width, len(SHAPES))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def train(network, images, labels, generator, *, epochs, batch_size=64, progress=lambda epoch: None):
    """Stochastic gradient descent with a one-cycle rate; `progress` is told each epoch that is done."""
    steps = len(images) // batch_size
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=epochs * steps)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: steps * batch_size].split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            rate.step()
        progress(epoch + 1)


def outputs(network, images):
    """[N, classes], in evaluation mode."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(256)])


def accuracy(network, images, labels):
    """Percent that evaluation mode gets right."""
    return 100 * (outputs(network, images).argmax(1) == labels).double().mean().item()
