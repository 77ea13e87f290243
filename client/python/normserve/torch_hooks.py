"""Moments sent while a model is trained, without holding training up. `normserve.torch.hooks` is their name."""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from normserve.moments import Moments
from normserve.torch_moments import batch_norm_layers, of_samples

# (Values a channel, mean, what its rounding left out, biased variance), on the model's device.
_Summary = tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]
Send = Callable[[dict[str, Moments]], None]


@dataclasses.dataclass
class _Step:
    """One training step: N of the first layer's input, and of every layer a summary for each use."""

    num_samples: int = 0
    layers: dict[str, list[_Summary]] = dataclasses.field(default_factory=dict)


_SLOWEST_RETRY = 10.0  # seconds


class TrainingHooks:
    """Sends what a model's batch-norm layers are fed while it is trained. Made by `normserve.torch.hooks`.

    sent     steps whose moments the server has
    dropped  steps whose moments were dropped: the oldest where the queue was full, and those that could not be sent
    errors   how many calls failed; `last_error` is the newest of their exceptions, None: none so far
    """

    def __init__(
        self,
        model: nn.Module,
        send: Send,
        *,
        every: int,
        queue_size: int,
        interval: float,
        flush_timeout: float,
    ) -> None:
        if every < 1 or queue_size < 1 or not 0 <= interval < math.inf:
            raise ValueError(f"every is {every}, queue_size {queue_size}, interval {interval}: 1, 1 and 0 at least")
        self.sent = self.dropped = self.errors = 0
        self.last_error: Exception | None = None
        self._model = model
        self._send = send
        self._every = every
        self._queue_size = queue_size
        self._interval = interval
        self._flush_timeout = flush_timeout
        # Of the training thread alone.
        self._num_steps = 0
        self._step: _Step | None = None
        self._handles: list[Any] = []
        # Guarded by _changed.
        self._changed = threading.Condition()
        self._queue: collections.deque[_Step] = collections.deque()
        self._in_work = 0
        self._closing = False
        self._given_up = False  # what is in work is counted as dropped
        self._thread: threading.Thread | None = None

    def __enter__(self) -> TrainingHooks:
        # First, as the model may be a layer itself.
        self._handles.append(self._model.register_forward_pre_hook(self._begin))
        for name, module in batch_norm_layers(self._model):
            self._handles.append(module.register_forward_pre_hook(self._layer_hook(name)))
        self._handles.append(self._model.register_forward_hook(self._end))
        self._thread = threading.Thread(target=self._work, name="normserve-hooks", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all that was queued is sent or dropped, for `timeout` seconds at most (None: flush_timeout); whether
        it is."""
        end = time.monotonic() + (self._flush_timeout if timeout is None else timeout)
        with self._changed:
            self._changed.notify_all()
            while self._queue or self._in_work:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def close(self) -> None:
        """Takes the hooks out of the model, flushes, and ends the thread; what could not be sent in time counts as dropped.
        A second time does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        with self._changed:
            self._closing = True  # no more waiting for company
        is_sent = self.flush()
        with self._changed:
            # What is on its way may still arrive; nobody will know.
            lost = len(self._queue) + self._in_work
            self.dropped += lost
            self._given_up = True
            self._queue.clear()
            self._changed.notify_all()
        if not is_sent and lost and self.last_error is None:
            self._note(TimeoutError(f"{lost} steps were not sent within flush_timeout, {self._flush_timeout} s"))

    # ---- The training thread. Nothing here may raise, wait for the server or copy from a device.

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        self._step = None
        if module.training:
            if self._num_steps % self._every == 0:
                self._step = _Step()
            self._num_steps += 1

    def _layer_hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            step = self._step
            if step is None or not module.training:
                return
            try:
                step.num_samples = step.num_samples or int(inputs[0].shape[0])
                step.layers.setdefault(name, []).append(_summary(inputs[0].detach()))
            except Exception as error:  # pylint: disable=broad-exception-caught
                self._note(error)

        return add

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        step, self._step = self._step, None
        if step is None or not step.layers:
            return
        with self._changed:
            if len(self._queue) == self._queue_size:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(step)
            if len(self._queue) == 1 or self._closing:
                self._changed.notify_all()

    # ---- The background thread

    def _work(self) -> None:
        backoff = self._interval
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    return
                # Steps that come in the meantime travel along.
                end = time.monotonic() + backoff
                while not self._closing and time.monotonic() < end:
                    self._changed.wait(end - time.monotonic())
                steps = list(self._queue)
                self._queue.clear()
                self._in_work = len(steps)
            failed = 0
            try:
                # One step with a NaN must not take the sound ones with it.
                moments, failed = _merged(steps)
                if failed:
                    self._note(ValueError(f"{failed} steps have inputs that are not finite"))
                if moments:
                    self._send(moments)
                backoff = self._interval
            except Exception as error:  # pylint: disable=broad-exception-caught
                self._note(error)
                failed, backoff = len(steps), min(max(2 * backoff, 0.1), _SLOWEST_RETRY)
            with self._changed:
                if self._given_up:
                    return
                self._in_work = 0
                self.sent += len(steps) - failed
                self.dropped += failed
                self._changed.notify_all()

    def _note(self, error: Exception) -> None:
        self.errors += 1
        self.last_error = error


def _summary(tensor: torch.Tensor) -> _Summary:
    """Of [N, C, *]: values a channel, their mean, what its rounding left out, their biased variance; in float32 at least.

    In two passes, each along the memory: on a processor torch.var_mean over the axes of a channel takes ten times as long.
    """
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    values = tensor.flatten(2) if tensor.dim() > 2 else tensor.unsqueeze(2)  # [N, C, S]
    count = values.shape[0] * values.shape[2]
    mean = values.mean(2).mean(0)
    values = values - mean[:, None]
    rest = values.mean(2).mean(0)
    var = torch.linalg.vector_norm(values, dim=2).square().sum(0) / max(1, count) - rest.square()
    return count, mean, rest, var.clamp(min=0)


def _merged(steps: list[_Step]) -> tuple[dict[str, Moments], int]:
    """The moments of all steps together, and how many were left out because a layer's were not finite."""
    found: dict[str, Moments] = {}
    left_out = 0
    for step in steps:
        of_step = {
            name: [Moments(count, _double(mean) + _double(rest), _double(var) * count)
                   for count, mean, rest, var in uses if count > 0]
            for name, uses in step.layers.items()
        }  # fmt: skip
        if not all(_is_finite(moments) for uses in of_step.values() for moments in uses):
            left_out += 1
            continue
        for name, uses in of_step.items():
            if uses:
                moments = of_samples(sum(uses[1:], uses[0]), step.num_samples)
                found[name] = found[name] + moments if name in found else moments
    return found, left_out


def _is_finite(moments: Moments) -> bool:
    return bool(np.isfinite(moments.mean).all() and np.isfinite(moments.m2).all())


def _double(tensor: torch.Tensor) -> Any:
    return tensor.cpu().double().numpy().astype(np.float64, copy=False)
