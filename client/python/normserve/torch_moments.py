"""What a model's batch-norm layers are fed, as moments. Internal; `normserve.torch` has the names."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from normserve.moments import Moments

# How one batch is run: call(model, batch).
Call = Callable[[nn.Module, Any], Any]


def batch_norm_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of every batch-norm layer (BatchNorm1d to 3d, SyncBatchNorm), named as state_dict() names them.

    The name of `model` itself, if it is one, is "". A layer that is used in several places comes once.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            yield name, module


def run(model: nn.Module, batch: Any, call: Call | None) -> None:
    """One batch through the model: `call(model, batch)`; None: model(batch), of a tuple or list its first entry."""
    if call is not None:
        call(model, batch)
    else:
        model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def nothing(module: Any) -> Moments:
    """The moments of a layer that no batch has reached."""
    return Moments(0, np.zeros(module.num_features), np.zeros(module.num_features))


@contextlib.contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Puts back running statistics, counters, momenta and modes of the batch-norm layers."""
    layers = [module for _, module in batch_norm_layers(model)]
    buffers = [(module, key, value.clone()) for module in layers for key, value in module.named_buffers()]
    modes = [(module, module.training) for module in layers]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, key, value in buffers:
                module.get_buffer(key).copy_(value)
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def tapped(layers: dict[str, nn.Module], tap: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    """Calls tap(layer's name, its input) before every forward of these layers."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: tap(name, inputs[0].detach())

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def moments_of(tensor: torch.Tensor) -> Moments:
    """Of [N, C, *], exactly, in float64."""
    return Moments.of(tensor.cpu().double().numpy())


def of_samples(moments: Moments, num_samples: int) -> Moments:
    """The same of a batch of so many samples: later layers may see several rows of each, or be used several times."""
    return dataclasses.replace(moments, num_samples=min(num_samples, moments.count))


def moments_of_batches(
    model: nn.Module, loader: Iterable[Any], call: Call | None = None
) -> Iterator[dict[str, Moments]]:
    """{layer's name: Moments of what it is fed} of each batch, in the mode that the model is in; the samples are those of
    the first layer's input. The caller keeps the statistics.

    Layers that the batch does not reach are left out.
    """
    layers = dict(batch_norm_layers(model))
    with torch.no_grad():
        for batch in loader:
            found: dict[str, Moments] = {}
            samples = 0

            def tap(name: str, tensor: torch.Tensor) -> None:
                nonlocal samples
                samples = samples or int(tensor.shape[0])
                found[name] = found[name] + moments_of(tensor) if name in found else moments_of(tensor)

            with tapped(layers, tap):
                run(model, batch, call)
            yield {name: of_samples(moments, samples) for name, moments in found.items()}


def collect_moments(model: nn.Module, loader: Iterable[Any], call: Call | None = None) -> dict[str, Moments]:
    """{layer's name: Moments of all that it is fed}, over every batch of `loader`, merged exactly, in float64.

      loader  batches, already on the model's device: whatever `call` takes
      call    call(model, batch) runs one batch. None: model(batch), of a tuple or list its first entry

    The model runs without gradients, in the mode it is in: in train() layers see inputs normalised with their batches, in
    eval() with the running statistics. Its layers' running statistics are as before afterwards. A layer that no batch
    reaches has count 0.
    """
    found = {name: nothing(module) for name, module in batch_norm_layers(model)}
    with kept_statistics(model):
        for layers in moments_of_batches(model, loader, call):
            for name, moments in layers.items():
                found[name] += moments
    return found


class _Enough(Exception):
    """Ends a forward in which the layer in question has been fed all it will be."""


def collect_sequentially(model: nn.Module, loader: Iterable[Any], call: Call | None = None) -> dict[str, Moments]:
    """collect_moments with every earlier layer normalising with the statistics that are found here, so that what comes is
    consistent: set as running statistics, all of them are exactly those of what eval() feeds the layers.

    Layer by layer in the order of their first use, so as many passes over `loader` as there are layers, each ending at the
    layer in question; `loader` must give the same batches each time. ValueError: it is an iterator, which is used up after
    one.
    """
    if isinstance(loader, Iterator):
        raise ValueError("loader is an iterator, which ends after one pass: pass a DataLoader or a list of batches")
    layers = dict(batch_norm_layers(model))
    found = {name: nothing(module) for name, module in layers.items()}
    uses: dict[str, int] = {}
    with kept_statistics(model), torch.no_grad():
        for every in layers.values():
            every.eval()
        for batch in loader:  # the first tells the order

            def count(name: str, tensor: torch.Tensor) -> None:
                uses[name] = uses.get(name, 0) + 1

            with tapped(layers, count):
                run(model, batch, call)
            break
        for name, times in uses.items():
            module: Any = layers[name]
            for batch in loader:
                left = times

                def add(name: str, tensor: torch.Tensor) -> None:
                    nonlocal left
                    found[name] += moments_of(tensor)
                    left -= 1
                    if left == 0:
                        raise _Enough

                with tapped({name: module}, add), contextlib.suppress(_Enough):
                    run(model, batch, call)
            if module.running_mean is not None and found[name].count > 1:
                module.running_mean.copy_(torch.from_numpy(found[name].mean))
                module.running_var.copy_(torch.from_numpy(found[name].var(unbiased=True)))
    return found
