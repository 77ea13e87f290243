"""The contract's enumerators as Python's words: MODE_TRAIN is "train". Internal."""

from __future__ import annotations

from typing import Any


def to_wire(enum: Any, word: str | None, what: str) -> int:
    """The number of `word`; None: 0, which means the default. ValueError names the words there are."""
    if word is None:
        return 0
    words = {from_wire(enum, number): number for number in enum.values() if number}
    if word not in words:
        raise ValueError(f"{what} is {word!r}: one of {', '.join(words)}")
    number: int = words[word]
    return number


def from_wire(enum: Any, number: int) -> str:
    """The word for `number`: "" for 0, its digits if this library has no name for it."""
    descriptor = enum.DESCRIPTOR
    if number == 0 or number not in descriptor.values_by_number:
        return str(number or "")
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(descriptor.values_by_number[number].name.removeprefix(prefix).lower())
