"""The sessions of a model's layers. Internal; `normserve.torch` has the names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from normserve.client import Client
from normserve.diagnosis import Diagnosis
from normserve.model import Model
from normserve.moments import Moments
from normserve.population import Calibrated, Observed
from normserve.session import Session
from normserve.torch_moments import batch_norm_layers


def session_name(prefix: str, layer: str) -> str:
    """Of the layer's session; the prefix alone where the model is a layer itself, whose name is ""."""
    return "/".join(part for part in (prefix.rstrip("/"), layer) if part)


class SingleLayer:
    """The calls of a Model for a model that is a layer itself, named "" as state_dict() does; it has one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def observe(self, layers: Mapping[str, Moments], **options: Any) -> dict[str, Observed]:
        return {"": self._session.observe(layers[""], **options)}

    def diagnose(self, layers: Mapping[str, Moments], **options: Any) -> list[Diagnosis]:
        return [self._session.diagnose(layers[""], **options)]

    def calibrate(
        self, calibration_id: str, layers: Mapping[str, Moments] | None = None, **options: Any
    ) -> dict[str, Calibrated]:
        data = None if layers is None else layers[""]
        return {"": self._session.calibrate(calibration_id, data, **options)}


def sessions_of(model: nn.Module, client: Client, prefix: str) -> Model | SingleLayer:
    """Where the model's layers observe, are diagnosed and calibrated."""
    if any(layer == "" for layer, _ in batch_norm_layers(model)):
        return SingleLayer(client.session(session_name(prefix, "")))
    return client.model(prefix)
