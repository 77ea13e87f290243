"""The mergeable description of data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Moments:
    """How many values there were and, per channel, where they lie and how far they spread.

      count  values per channel, the same for every channel
      mean   float64 [C]
      m2     float64 [C], sum over the values of (value - mean)^2
      num_samples  N of [N, C, *], summed where data are merged; 0: not known. Values of a sample, such as pixels, hang
                   together, so that data may tell less than their count says: Diagnose allows for it

    `a + b` are the moments of both data together, as sum([...]) are of many (Chan, Golub & LeVeque 1979). Never average
    variances.
    """

    count: int
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]
    num_samples: int = 0

    @classmethod
    def of(cls, array: npt.ArrayLike, channel_axis: int = 1) -> Moments:
        """The moments of `array`, any real type and shape, per index of `channel_axis` over all other axes, of which the
        first counts the samples.

        Computed in float64 in two passes, the mean first; rounding left in it is taken out again.
        """
        values = np.asarray(array)
        if values.dtype.kind == "c" or values.ndim == 0:
            raise TypeError(f"array is {values.dtype} of shape {values.shape}: real values with a channel axis are needed")
        channels = values.shape[channel_axis]
        num_samples = 0 if channel_axis in (0, -values.ndim) else values.shape[0]
        values = np.moveaxis(values, channel_axis, -1).astype(np.float64, order="C").reshape(-1, channels)
        count = len(values)
        if count == 0:
            return cls(0, np.zeros(channels), np.zeros(channels))
        mean = values.mean(axis=0)
        values -= mean
        rest = values.mean(axis=0)
        m2 = np.einsum("nc,nc->c", values, values) - count * rest * rest
        return cls(count, mean + rest, np.maximum(m2, 0), num_samples)

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        if self.mean.shape != other.mean.shape:
            raise ValueError(f"moments of {len(self.mean)} and of {len(other.mean)} channels have no sum")
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + delta * delta * (self.count * (other.count / count))
        known = self.num_samples > 0 and other.num_samples > 0
        return Moments(count, mean, m2, self.num_samples + other.num_samples if known else 0)

    def __radd__(self, other: int) -> Moments:
        if other != 0:  # which sum() starts with
            return NotImplemented
        return self

    def var(self, unbiased: bool = False) -> npt.NDArray[np.float64]:
        """Variance per channel, float64 [C]: m2 / count, which training normalises with, or with `unbiased`
        m2 / (count - 1), which PyTorch's running variance follows. ValueError: too few values."""
        divisor = self.count - 1 if unbiased else self.count
        if divisor < 1:
            raise ValueError(f"{self.count} values per channel have no {'unbiased ' * unbiased}variance")
        return self.m2 / divisor

    @classmethod
    def _from_message(cls, message: Any) -> Moments:
        return cls(
            message.count, np.array(message.mean, np.float64), np.array(message.m2, np.float64), message.num_samples
        )


def write_moments(moments: Moments, message: Any, what: str) -> None:
    """Into a v1.Moments; TypeError, naming `what`: they are none."""
    if not isinstance(moments, Moments):
        raise TypeError(f"{what} is of type {type(moments).__name__}: Moments are needed, such as Moments.of(array)")
    message.count = moments.count
    message.mean.extend(moments.mean)
    message.m2.extend(moments.m2)
    message.num_samples = moments.num_samples
