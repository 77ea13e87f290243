"""Normserve: batch normalisation as a service, called from Python.

    with normserve.Client("127.0.0.1:8001") as client:
        bn = client.create("encoder/bn3", 64)        # as nn.BatchNorm2d(64)
        y = bn.forward(x).output                      # trains: normalises with the batch, updates the statistics
        bn.eval()                                     # from now on: with the running statistics

Start at Client, Session and Model. `normserve.torch`, which is loaded when it is first used and alone needs torch, copies a
model's layers to a server and back.
"""

import importlib
from typing import Any

from normserve.bfloat16 import BFloat16
from normserve.checkpoint import Export, ExportedLayer, ImportedLayer, ImportResult
from normserve.client import Client
from normserve.descriptions import Config, Device, Limits, OpenCollection, ServerInfo, SessionInfo, Snapshot, Stats
from normserve.diagnosis import Diagnosis
from normserve.error import Error
from normserve.model import Model
from normserve.moments import Moments
from normserve.normalize_with import UseBlend, UseSnapshot
from normserve.population import Calibrated, Merged, Observed
from normserve.results import BackwardResult, ForwardResult, GradientSums, Normalization
from normserve.session import Session
from normserve.stats_view import Comparison, HistoryPoint, HistoryRange, Quantiles, StatsSummary
from normserve.watch import StatsUpdate, Watch

__version__ = "0.1.0"

__all__ = [
    "BFloat16",
    "BackwardResult",
    "Calibrated",
    "Client",
    "Comparison",
    "Config",
    "Device",
    "Diagnosis",
    "Error",
    "Export",
    "ExportedLayer",
    "ForwardResult",
    "GradientSums",
    "HistoryPoint",
    "HistoryRange",
    "ImportResult",
    "ImportedLayer",
    "Limits",
    "Merged",
    "Model",
    "Moments",
    "Normalization",
    "Observed",
    "OpenCollection",
    "Quantiles",
    "ServerInfo",
    "Session",
    "SessionInfo",
    "Snapshot",
    "Stats",
    "StatsSummary",
    "StatsUpdate",
    "UseBlend",
    "UseSnapshot",
    "Watch",
]


def __getattr__(name: str) -> Any:
    if name == "torch":
        return importlib.import_module("normserve.torch")
    raise AttributeError(f"module 'normserve' has no attribute '{name}'")
