"""bfloat16 where numpy has no such type."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class BFloat16:
    """An array of bfloat16 values, held as their 16 bits; for programs without ml_dtypes.

      words  uint16, any shape: the upper half of each value's float32. Not copied.

    `Session.forward(BFloat16.of(x)).output` is a BFloat16 again. An array of ml_dtypes.bfloat16 needs no wrapping, and a
    torch tensor is wrapped by `normserve.torch.to_numpy`.
    """

    def __init__(self, words: npt.NDArray[np.uint16]) -> None:
        if words.dtype != np.uint16:
            raise TypeError(f"words is {words.dtype}, not uint16: BFloat16.of(array) rounds float32 values")
        self.words = words

    @classmethod
    def of(cls, array: npt.ArrayLike) -> BFloat16:
        """Rounds `array` (any shape, read as float32) to the nearest bfloat16, ties to even; NaN stays NaN."""
        values = np.array(array, np.float32)
        bits = values.view(np.uint32)
        # The carry of half a unit, or just under it where the last bit that stays is even.
        words = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
        return cls(np.where(np.isnan(values), ((bits >> 16) | 0x40).astype(np.uint16), words))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.words.shape

    def float32(self) -> npt.NDArray[np.float32]:
        """The same values as float32, exactly."""
        return (self.words.astype(np.uint32) << 16).view(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.float32() if dtype is None else self.float32().astype(dtype)

    def __repr__(self) -> str:
        return f"BFloat16({self.float32()!r})"
