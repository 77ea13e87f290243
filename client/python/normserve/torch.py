"""A model's batch-norm layers on a server, and back.

    normserve.torch.push(model, client, "resnet50")   # one session a layer: "resnet50/layer1.0.bn1", ...
    normserve.torch.pull(model, client, "resnet50")   # parameters and statistics back into the model

    normserve.torch.diagnose(model, loader, client, "resnet50")   # which layers these data do not suit, and why
    normserve.torch.calibrate(model, loader, client, "resnet50")  # statistics of these data, on the server and in the model

    moments = normserve.torch.collect_moments(model, loader)   # {layer: Moments} of what each layer is fed

A Client may be used by several threads at once, a model may not.
"""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from normserve.bfloat16 import BFloat16
from normserve.client import Client
from normserve.descriptions import SessionInfo
from normserve.error import Error
from normserve.moments import Moments
from normserve.torch_calibration import calibrate, diagnose, push_moments
from normserve.torch_hooks import TrainingHooks
from normserve.torch_moments import batch_norm_layers, collect_moments, collect_sequentially
from normserve.torch_sessions import session_name, sessions_of
from normserve.torch_state import pull_state_dict, push_state_dict

__all__ = [
    "TrainingHooks",
    "batch_norm_layers",
    "calibrate",
    "collect_moments",
    "collect_sequentially",
    "diagnose",
    "from_numpy",
    "hooks",
    "pull",
    "pull_state_dict",
    "push",
    "push_moments",
    "push_state_dict",
    "to_numpy",
]

# Parameters that a layer without them has in effect.
_DEFAULTS = {"weight": 1, "bias": 0}


def push(model: nn.Module, client: Client, prefix: str) -> None:
    """Makes the sessions under `prefix` what the model's layers are: `prefix`/NAME has the layer's parameters, running
    statistics, counter, mode and configuration, exactly.

    Sessions that are there keep their uid, snapshots and what they have observed: statistics that differ are replaced, of all
    such layers in one transaction (of one mode), mode and parameters changed. Where the configuration differs the session is
    deleted and made anew, with its labels, durability and non-finite policy. ValueError, before anything is changed: that
    would delete snapshots, or a layer's parameters are float64, which the server would round (its statistics may be float64).

    When a call fails, those before it are done, and push may be repeated. Somebody else's change of mode or parameters in the
    meantime is ABORTED, one of statistics overwritten.
    """
    layers = list(batch_norm_layers(model))
    wanted = {session_name(prefix, name): _content(name, module) for name, module in layers}
    found = {session: _describe(client, session) for session in wanted}
    for session, info in found.items():
        if info is not None and info.num_snapshots and not _same_configuration(info, wanted[session]):
            raise ValueError(
                f'session "{session}" has {info.num_snapshots} snapshots, which making it anew would delete: delete them, or '
                "push under another prefix"
            )
    others: dict[str, dict[str, Any]] = {}  # by mode, the statistics that differ
    for session, content in wanted.items():
        info = found[session]
        if info is not None and _same_configuration(info, content) and not _same_statistics(info, content):
            state = others.setdefault(content["mode"], {})
            layer = session.removeprefix(session_name(prefix, "")).removeprefix("/")
            for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                if content[key] is not None:
                    state[f"{layer}.{key}" if layer else key] = np.asarray(content[key])
        else:
            _push_layer(client, session, content, info)
    for mode, state in others.items():
        is_layer = "running_mean" in state
        name = session_name(prefix, "")
        client.import_state(name if is_layer else name + "/", state, existing="replace", mode=mode)


def pull(model: nn.Module, client: Client, prefix: str) -> None:
    """Writes parameters, running statistics and counters of the sessions `prefix`/NAME into the model's layers.

    Statistics are rounded to the layers' type. Modes and configurations are left alone. All sessions are read, one after
    the other, and compared with the layers (ValueError: other channels; parameters or statistics that a layer has no place
    for, or lacks), before any layer is written.
    Errors: NOT_FOUND if a layer has no session.
    """
    pairs = []
    for name, module in batch_norm_layers(model):
        info = client.session(session_name(prefix, name)).describe()
        values = {
            "weight": info.weight,
            "bias": info.bias,
            "running_mean": info.running_mean,
            "running_var": info.running_var,
        }
        targets = {key: getattr(module, key) for key in values}
        for key, target in targets.items():
            value = values[key]
            if target is None and (value is None or (value == _DEFAULTS.get(key)).all()):
                continue
            if target is None or value is None or value.shape != tuple(target.shape):
                here = "no " + key if target is None else f"{key} of shape {list(target.shape)}"
                there = "none" if value is None else f"shape {list(value.shape)}"
                raise ValueError(f'layer "{name}" has {here}, session "{info.name}" {there}')
        pairs.append((module, targets, values, info.num_batches_tracked))
    with torch.no_grad():
        for module, targets, values, num_batches_tracked in pairs:
            for key, target in targets.items():
                if target is not None:
                    target.copy_(torch.from_numpy(values[key]))
            if getattr(module, "num_batches_tracked", None) is not None:
                module.num_batches_tracked.fill_(num_batches_tracked)


def hooks(
    model: nn.Module,
    client: Client,
    prefix: str,
    *,
    every: int = 10,
    queue_size: int = 64,
    interval: float = 1.0,
    timeout: float = 5.0,
    flush_timeout: float = 10.0,
) -> TrainingHooks:
    """Sends what the model's layers are fed while it is trained to the sessions below `prefix`, which observe it:

        with normserve.torch.hooks(model, client, "resnet50") as sending:
            train(model)
        print(sending.sent, "steps;", sending.dropped, "dropped;", sending.last_error)

    Training is neither changed nor held up: of every `every`-th forward in training mode each layer's mean and variance are
    taken where the tensor lies, in its precision (float32 at least), and a thread of its own sends them, merged. Nothing that
    goes wrong there is raised. Sessions that are not there are made as push makes them; others stay as they are but for what
    they observe. At the end what is left is sent.

      every          1: every training step
      queue_size     steps that may wait to be sent; beyond, the oldest is dropped, and counted
      interval       seconds that a step waits for others to travel with. Fewer calls, less of a processor
      timeout        seconds for one call with its repetitions; then what it held is dropped, and counted
      flush_timeout  seconds to wait at the end

    One forward of the model at a time. Frozen layers, in eval(), are left out. ValueError: an option is out of range, or a
    layer's parameters are float64.
    """
    missing = {session_name(prefix, name): _content(name, module) for name, module in batch_norm_layers(model)}

    def send(moments: dict[str, Moments]) -> None:
        for session in list(missing):
            if _describe(client, session, timeout) is None:
                client.create(session, **missing[session], timeout=timeout)
            del missing[session]
        sessions_of(model, client, prefix).observe(moments, timeout=timeout)

    return TrainingHooks(
        model, send, every=every, queue_size=queue_size, interval=interval, flush_timeout=flush_timeout
    )


def to_numpy(tensor: torch.Tensor) -> npt.NDArray[Any] | BFloat16:
    """What Session.forward takes, sharing the memory of a CPU tensor of any strides; bfloat16 becomes a BFloat16."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return BFloat16(tensor.view(torch.int16).numpy().view(np.uint16))
    array: npt.NDArray[Any] = tensor.numpy()
    return array


def from_numpy(array: npt.NDArray[Any] | BFloat16) -> torch.Tensor:
    """The reverse of to_numpy: a CPU tensor that shares the array's memory."""
    if isinstance(array, BFloat16):
        return torch.from_numpy(array.words.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _content(name: str, module: Any) -> dict[str, Any]:
    """What Client.create takes for a layer."""
    content: dict[str, Any] = {
        "num_features": module.num_features,
        "eps": module.eps,
        "momentum": module.momentum,
        "affine": module.weight is not None or module.bias is not None,
        "track_running_stats": module.running_mean is not None,
        "mode": "train" if module.training else "eval",
    }
    for key in ("weight", "bias"):
        values = getattr(module, key)
        if values is not None and values.dtype == torch.float64:
            raise ValueError(f'layer "{name}" has {key} in float64, which the server keeps as float32: model.float() first')
        content[key] = None if values is None else values.detach().cpu().float().numpy()
    for key in ("running_mean", "running_var"):
        values = getattr(module, key)
        content[key] = None if values is None else values.detach().cpu().double().numpy()
    counter = getattr(module, "num_batches_tracked", None)
    content["num_batches_tracked"] = 0 if counter is None else int(counter)
    return content


def _describe(client: Client, session: str, timeout: float | None = None) -> SessionInfo | None:
    try:
        return client.session(session).describe(timeout=timeout)
    except Error as error:
        if error.code == grpc.StatusCode.NOT_FOUND:
            return None
        raise


def _same(left: npt.NDArray[Any] | None, right: npt.NDArray[Any] | None) -> bool:
    return left is right if left is None or right is None else np.array_equal(left, right)


def _same_configuration(info: SessionInfo, content: dict[str, Any]) -> bool:
    config = info.config
    fields = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    return all(getattr(config, field) == content[field] for field in fields) and (
        (config.running_variance, config.zero_debiased) == ("unbiased", False)
    )


def _same_statistics(info: SessionInfo, content: dict[str, Any]) -> bool:
    return (
        _same(info.running_mean, content["running_mean"])
        and _same(info.running_var, content["running_var"])
        and info.num_batches_tracked == content["num_batches_tracked"]
    )


def _push_layer(client: Client, session: str, content: dict[str, Any], info: SessionInfo | None) -> None:
    if info is None:
        client.create(session, **content)
        return
    guards: dict[str, Any] = {"expected_uid": info.uid, "expected_generation": info.generation}
    if not _same_configuration(info, content):
        client.session(session).delete(**guards)
        kept: dict[str, Any] = {
            "labels": info.config.labels,
            "durability": info.durability,
            "non_finite_policy": info.config.non_finite_policy,
        }
        client.create(session, **content, **kept)
        return
    parameters = {key: content[key] for key in ("weight", "bias") if content[key] is not None}
    if any(not _same(getattr(info, key), value) for key, value in parameters.items()):
        info = client.session(session).set_parameters(**parameters, **guards)
        guards["expected_generation"] = info.generation
    if info.mode != content["mode"]:
        client.session(session).set_mode(content["mode"], **guards)
