"""State dicts to sessions and back, without the model they are of. `normserve.torch` has the names."""

from __future__ import annotations

from collections.abc import Mapping
from types import EllipsisType

import numpy as np
import torch

from normserve.checkpoint import ImportResult
from normserve.client import Client

_PARAMETERS = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var")


def push_state_dict(
    state: Mapping[str, torch.Tensor],
    client: Client,
    prefix: str,
    *,
    eps: float | None = None,
    momentum: float | None | EllipsisType = ...,
    mode: str = "eval",
    existing: str = "refuse",
) -> ImportResult:
    """Makes a session `prefix`/NAME of every layer in a state dict that keeps running statistics, found by its tensors: all or
    none, by Client.import_state, which says more.

      eps, momentum  of all layers: a state dict does not tell. Left out: nn.BatchNorm2d's
      mode           of the new sessions. Default: "eval"
      existing       sessions that are there: "refuse" (ALREADY_EXISTS), "replace" their state, or "skip" them
    """
    is_layer = "running_mean" in state  # by itself: its entries have no prefix
    name = prefix.rstrip("/") + ("" if is_layer else "/")
    return client.import_state(name, state, eps=eps, momentum=momentum, mode=mode, existing=existing)


def pull_state_dict(
    client: Client, prefix: str, state: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The sessions below `prefix` as a state dict, for model.load_state_dict.

      state  a whole model's: what comes is a copy of it in which the sessions' entries are replaced, of the type and on the
             device that each had, so that it loads with strict=True. None: the sessions' entries alone, float32, for
             strict=False

    A counter that `state` lacks, as old checkpoints do, is left out; one of shape [1] stays so. ValueError: `state` has an
    entry of another shape than its session's, or a session has no entries in it. Error NOT_FOUND: there are no sessions.
    """
    model = client.model(prefix)
    found: dict[str, torch.Tensor] = {}
    for session in model:
        info = session.describe()
        layer = model.layer(info.name)
        for each in (*_PARAMETERS, *_STATISTICS):
            value = getattr(info, each)
            if value is not None:
                found[_key(layer, each)] = torch.from_numpy(np.asarray(value))
        if info.running_mean is not None:
            found[_key(layer, "num_batches_tracked")] = torch.tensor(info.num_batches_tracked)
    if not found:
        model.stats(view="summary")  # NOT_FOUND, where there is nothing to read
    if state is None:
        return {key: value.float() if value.is_floating_point() else value for key, value in found.items()}
    replaced = dict(state)
    for key, value in found.items():
        before = state.get(key)
        if value.dim() == 0:  # the counter
            if before is None:
                continue
            if before.numel() == 1:
                value = value.reshape(before.shape)
        if before is None or before.shape != value.shape:
            there = "no such entry" if before is None else f"shape {list(before.shape)}"
            raise ValueError(f'session "{prefix}" has {key} of shape {list(value.shape)}, the state dict {there}')
        replaced[key] = value.to(dtype=before.dtype, device=before.device)
    return replaced


def _key(layer: str, entry: str) -> str:
    return f"{layer}.{entry}" if layer else entry
