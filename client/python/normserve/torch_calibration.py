"""A model's statistics diagnosed and estimated anew from data. `normserve.torch` has the names."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from normserve.client import Client
from normserve.diagnosis import Diagnosis
from normserve.error import Error
from normserve.moments import Moments
from normserve.population import Calibrated, Observed
from normserve.torch_moments import Call, batch_norm_layers, collect_sequentially, kept_statistics, moments_of_batches
from normserve.torch_sessions import sessions_of


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
      reset, part_id  as in Model.observe: what is observed begins anew; the part counts once

    Sent first for data as in training and then, with `reset`, for what comes in, they let the server tell a shift of the
    data from momentum's lag (Model.diagnose with `observed`), also where it has seen no training. The moments say how many
    samples they are of, as values of one sample, such as pixels, hang together.

    Errors: NOT_FOUND if there is no such session; INVALID_ARGUMENT if a layer has none, or its data are not finite.
    """
    found = _collected(model, loader, call)
    return sessions_of(model, client, name).observe(found, reset=reset, part_id=part_id, timeout=timeout)


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
    return sessions_of(model, client, name).diagnose(_collected(model, loader, call), timeout=timeout)


def calibrate(
    model: nn.Module,
    loader: Iterable[Any],
    client: Client,
    name: str,
    *,
    call: Call | None = None,
    estimator: str = "pooled",
    normalize: str = "batch",
    calibration_id: str | None = None,
    worker: str = "",
    commit: bool = True,
    to_snapshot: str = "",
    timeout: float | None = None,
) -> dict[str, Calibrated]:
    """Estimates the running statistics of the model's layers anew from the batches of `loader`, which need no labels: batch
    by batch their moments go to the sessions below `name`; then, together, the population's statistics take the place of
    theirs, and of the model's. {layer: what its statistics were and are}. Parameters stay as they are, here and there.

    What was sent survives a crash of the server; a call whose reply is lost is repeated and counts once. Where it fails
    nothing is changed, here or there.

      loader, call    as in collect_moments. Batches of the size that training has; many, of data as evaluation will see
      estimator       "pooled": mean and unbiased variance of all values. "algorithm_2" (Ioffe & Szegedy 2015): E[mean] and
                      m/(m-1) E[variance] over batches of one size m, which is what PyTorch estimates with
                      reset_running_stats(), momentum=None and train()
      normalize       with what earlier layers normalise meanwhile. "batch": with the batch, as in training and in PyTorch's
                      estimate: one pass. "population": with what is estimated here, as evaluation will: the statistics are
                      exactly those of what evaluation feeds the layers then. A pass a layer, so `loader` must give the same
                      batches every time; "pooled" only, and by one worker
      calibration_id  several workers that say the same bring their batches to one calibration, which any of them commits
                      once all are there. None: one of its own
      worker          tells this worker's batches from the others'
      commit          False: brings the batches only; the model stays as it is
      to_snapshot     the result becomes a snapshot of this name; sessions and model stay as they are

    Layers that keep no running statistics are left out. Errors: NOT_FOUND if a layer has no session; INVALID_ARGUMENT if
    batches are not finite, or for "algorithm_2" of several sizes. ValueError: `loader` is empty, an option is none.
    """
    if normalize not in ("batch", "population"):
        raise ValueError(f"normalize is {normalize!r}: 'batch' or 'population'")
    if normalize == "population" and (estimator != "pooled" or not commit):
        raise ValueError("normalize='population' is for estimator='pooled' and one worker, which commits")
    layers: dict[str, Any] = {
        layer: module for layer, module in batch_norm_layers(model) if module.running_mean is not None
    }
    sessions, identity = sessions_of(model, client, name), calibration_id or str(uuid.uuid4())
    sent = 0
    try:
        with kept_statistics(model):
            for part in _parts(model, loader, call, normalize):
                found = {layer: moments for layer, moments in part.items() if layer in layers}
                if found:
                    sessions.calibrate(identity, found, part_id=f"{worker}/{sent:08d}", timeout=timeout)
                    sent += 1
        if not sent:
            raise ValueError("loader gave no batch that reaches a batch-norm layer: there is nothing to estimate from")
        stands = sessions.calibrate(
            identity, estimator=estimator, commit=commit, to_snapshot=to_snapshot if commit else "", timeout=timeout
        )
    except BaseException:
        if calibration_id is None and sent:
            with contextlib.suppress(Error):
                sessions.calibrate(identity, drop=True, timeout=timeout)
        raise
    if commit and not to_snapshot:
        with torch.no_grad():
            for layer, found_now in stands.items():
                if layer not in layers:
                    continue
                module = layers[layer]
                module.running_mean.copy_(torch.from_numpy(found_now.running_mean))
                module.running_var.copy_(torch.from_numpy(found_now.running_var))
                if module.num_batches_tracked is not None:
                    module.num_batches_tracked.fill_(found_now.num_batches)
    return stands


def _parts(model: nn.Module, loader: Iterable[Any], call: Call | None, normalize: str) -> Iterator[dict[str, Moments]]:
    """{layer: Moments} of every batch; of all together where earlier layers normalise with the population's."""
    if normalize == "population":
        yield {layer: moments for layer, moments in collect_sequentially(model, loader, call).items() if moments.count}
        return
    train_batch_norm(model)
    yield from moments_of_batches(model, loader, call)


def _collected(model: nn.Module, loader: Iterable[Any], call: Call | None) -> dict[str, Moments]:
    """The moments of all batches together, with every layer normalising with its batch."""
    found: dict[str, Moments] = {}
    with kept_statistics(model):
        train_batch_norm(model)
        for layers in moments_of_batches(model, loader, call):
            for layer, moments in layers.items():
                found[layer] = found[layer] + moments if layer in found else moments
    if not found:
        raise ValueError("loader gave no batch that reaches a batch-norm layer: there is nothing to tell of it")
    return found


def train_batch_norm(model: nn.Module) -> None:
    """Lets batch-norm layers normalise with their batches; all else, such as dropout, stays in its mode."""
    for _, module in batch_norm_layers(model):
        module.train()
