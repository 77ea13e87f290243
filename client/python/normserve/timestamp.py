"""Times on the wire. Internal."""

from __future__ import annotations

import datetime
from typing import Any


def from_wire(message: Any) -> datetime.datetime:
    """In UTC."""
    whole: datetime.datetime = message.ToDatetime(tzinfo=datetime.timezone.utc)
    return whole


def to_wire(time: datetime.datetime, message: Any) -> None:
    """Into `message`; a time without a zone is the local one's."""
    message.FromDatetime(time.astimezone(datetime.timezone.utc))
