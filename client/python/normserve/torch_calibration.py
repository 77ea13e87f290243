"""A model's statistics diagnosed and estimated anew from data. `normserve.torch` has the names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from normserve.client import Client
from normserve.diagnosis import Diagnosis
from normserve.moments import Moments
from normserve.population import Observed
from normserve.torch_moments import Call, batch_norm_layers, kept_statistics, moments_of_batches


def push_moments(
    model: nn.Module,
    loader: Iterable[Any],
    client: Client,
    name: str,
    *,
    call: Call | None = None,
    reset: bool = False,
    part_id: str = "",
    timeout: float | None = None,
) -> dict[str, Observed]:
    """Sends the moments of all that the model's layers are fed to the sessions below `name`, as one part: they observe it,
    and their statistics stay. {layer: what its session has observed now}.

    Each layer normalises with its batch meanwhile, as in training (see diagnose). The sessions must be there (push).

      loader, call    as in collect_moments
      reset, part_id  as in Model.observe: what was observed before goes; the part counts once

    Errors: NOT_FOUND if there is no such session; INVALID_ARGUMENT if a layer has none, or its data are not finite.
    """
    found = _collected(model, loader, call)[1]
    return client.model(name).observe(found, reset=reset, part_id=part_id, timeout=timeout)


def diagnose(
    model: nn.Module,
    loader: Iterable[Any],
    client: Client,
    name: str,
    *,
    call: Call | None = None,
    timeout: float | None = None,
) -> list[Diagnosis]:
    """Which layers' running statistics the data of `loader` do not suit, how much, and why; the worst first.

    The sessions below `name` ("resnet50") are compared with what their layers are fed: all batches together, as one
    large batch. Each layer normalises with its batch meanwhile, as in training, so that a layer's own part is seen and
    not what earlier ones pass on: the layer at which the data change comes first. Nothing is changed, neither here nor
    on the server.

      loader, call  as in collect_moments

    Errors: NOT_FOUND if there is no such session; INVALID_ARGUMENT if a layer has none. ValueError: `loader` is empty.
    """
    samples, found = _collected(model, loader, call)
    return client.model(name).diagnose(found, samples_per_batch=samples, timeout=timeout)


def _collected(model: nn.Module, loader: Iterable[Any], call: Call | None) -> tuple[int, dict[str, Moments]]:
    """Samples and moments of all batches together, with every layer normalising with its batch."""
    samples, found = 0, dict[str, Moments]()
    with kept_statistics(model):
        train_batch_norm(model)
        for batch_samples, layers in moments_of_batches(model, loader, call):
            samples += batch_samples
            for layer, moments in layers.items():
                found[layer] = found[layer] + moments if layer in found else moments
    if not found:
        raise ValueError("loader gave no batch that reaches a batch-norm layer: there is nothing to tell of it")
    return samples, found


def train_batch_norm(model: nn.Module) -> None:
    """Lets batch-norm layers normalise with their batches; all else, such as dropout, stays in its mode."""
    for _, module in batch_norm_layers(model):
        module.train()
