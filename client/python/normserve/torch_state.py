"""State dicts to sessions and back, without the model they are of. `normserve.torch` has the names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from normserve.client import Client

_PARAMETERS = ("weight", "bias")
_STATISTICS = ("running_mean", "running_var")


def batch_norm_entries(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the layers in a state dict that keep running statistics: those with a running_mean and a running_var of one
    length, and parameters of that length or none. An instance norm that tracks statistics looks the same.

    A layer by itself, whose entries have no prefix, is "".
    """
    layers = []
    for key, mean in state.items():
        layer, _, last = key.rpartition(".")
        if last != "running_mean" or mean.dim() != 1:
            continue
        of_layer = [state.get(_key(layer, each)) for each in ("running_var", *_PARAMETERS)]
        if of_layer[0] is not None and all(each is None or each.shape == mean.shape for each in of_layer):
            layers.append(layer)
    return layers


def push_state_dict(
    state: Mapping[str, torch.Tensor],
    client: Client,
    prefix: str,
    *,
    eps: float = 1e-5,
    momentum: float | None = 0.1,
    mode: str = "eval",
) -> list[str]:
    """Makes a session `prefix`/NAME of every layer in a state dict that keeps running statistics; tells their layers.

      eps, momentum  of all layers: a state dict does not tell. Defaults: nn.BatchNorm2d's
      mode           of the new sessions. Default: "eval"

    Layer by layer. Errors: ALREADY_EXISTS if a session is there; `client.model(prefix).delete()` first. ValueError: there
    is no such layer.
    """
    layers = batch_norm_entries(state)
    if not layers:
        raise ValueError("state holds no running_mean and running_var of one length: no batch-norm layer that keeps any")
    for layer in layers:
        values = {each: state.get(_key(layer, each)) for each in (*_PARAMETERS, *_STATISTICS)}
        counter = state.get(_key(layer, "num_batches_tracked"))
        arrays: dict[str, Any] = {
            key: None if value is None else value.detach().cpu().double().numpy() for key, value in values.items()
        }
        client.create(
            "/".join(part for part in (prefix.rstrip("/"), layer) if part),
            len(arrays["running_mean"]),
            eps=eps,
            momentum=momentum,
            affine=arrays["weight"] is not None or arrays["bias"] is not None,
            mode=mode,
            num_batches_tracked=0 if counter is None else int(counter),
            **arrays,
        )
    return layers


def pull_state_dict(
    client: Client, prefix: str, state: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """The sessions below `prefix` as a state dict, for model.load_state_dict.

      state  a whole model's: what comes is a copy of it in which the sessions' entries are replaced, of the type and on the
             device that each had, so that it loads with strict=True. None: the sessions' entries alone, float32, for
             strict=False

    ValueError: `state` has an entry of another shape than its session's, or a session has no entries in it.
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
    if state is None:
        return {key: value.float() if value.is_floating_point() else value for key, value in found.items()}
    replaced = dict(state)
    for key, value in found.items():
        before = state.get(key)
        if before is None or before.shape != value.shape:
            there = "no such entry" if before is None else f"shape {list(before.shape)}"
            raise ValueError(f'session "{prefix}" has {key} of shape {list(value.shape)}, the state dict {there}')
        replaced[key] = value.to(dtype=before.dtype, device=before.device)
    return replaced


def _key(layer: str, entry: str) -> str:
    return f"{layer}.{entry}" if layer else entry
