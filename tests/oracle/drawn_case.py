"""A drawn layer with a drawn sequence of batches, run through the service and through PyTorch."""

import dataclasses
import math

import numpy as np
import torch

from server_process import array, pb, session_pb2, statistics_of, statistics_pb2, tensor

RELATIVE, ABSOLUTE = 1e-5, 1e-6
# What a batch is normalised with and what it does to the session. TRAIN and EVAL say both by the mode; the others say
# them one by one: the statistics to use, then the update.
STEPS = ("TRAIN", "EVAL", "BATCH NONE", "RUNNING RUNNING", "GIVEN NONE", "GIVEN RUNNING")
_MODES = {"TRAIN": session_pb2.MODE_TRAIN, "EVAL": session_pb2.MODE_EVAL}
_MODULES = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}


def _updates(step):
    return step == "TRAIN" or step.endswith(" RUNNING")


@dataclasses.dataclass(frozen=True)
class DrawnCase:
    seed: int  # of the values
    shape: tuple  # [N, C, *]
    steps: tuple = ("TRAIN",)  # of STEPS, one a batch
    per_call: bool = False  # the mode travels with the Forward, not by SetMode
    epsilon: float = None  # None: left unset
    momentum: float = None
    affine: bool = False  # weight and bias are drawn
    statistics: bool = False  # first running statistics are drawn
    mean: float = 0.0  # of the values
    std: float = 1.0

    def values_per_channel(self):
        return self.shape[0] * math.prod(self.shape[2:])

    def size(self):
        return math.prod(self.shape) * len(self.steps)

    def is_legal(self):
        needs_two = any(_updates(step) or step == "BATCH NONE" for step in self.steps)
        return self.steps and (not needs_two or self.values_per_channel() > 1)


def draw(rng):
    """A case from `rng`; about one in eight has a mean far above its standard deviation."""
    dimensions = rng.randint(2, 5)
    kind = rng.random()
    if kind < 0.08:
        shape = (rng.randint(2, 4), rng.choice([1000, 1024, 4099]))
        shape += (1,) * (dimensions - 2)
    elif kind < 0.16 and dimensions > 2:
        shape = (rng.randint(1, 3), rng.randint(1, 3)) + (rng.choice([1023, 4096, 5001]),) + (1,) * (dimensions - 3)
    else:
        longest = {2: 1, 3: 130, 4: 20, 5: 8}[dimensions]
        shape = (rng.randint(1, 9), rng.randint(1, 40)) + tuple(rng.randint(1, longest) for _ in range(dimensions - 2))
    steps = tuple(rng.choice(("TRAIN", "TRAIN", "EVAL", "EVAL", "TRAIN", "EVAL") + STEPS)
                  for _ in range(rng.randint(1, 6)))
    std = rng.choice([1.0, 1.0, 10 ** rng.uniform(-1, 1)])
    mean = std * (rng.uniform(-1, 1) if rng.random() < 0.875 else rng.choice([-1, 1]) * 10 ** rng.uniform(0, 3))
    case = DrawnCase(
        seed=rng.randrange(2**31), shape=shape, steps=steps, per_call=rng.random() < 0.5,
        epsilon=rng.choice([None, None, 1e-5, 1e-3, 1e-12, 0.1, 1.0, 10 ** rng.uniform(-8, 0)]),
        momentum=rng.choice([None, None, 0.0, 1.0, 0.1, 0.9, rng.random(), -0.5, -0.1, 1.05, 1.7]),
        affine=rng.random() < 0.6, statistics=rng.random() < 0.3, mean=mean, std=std)
    if not case.is_legal():
        case = dataclasses.replace(case, shape=(case.shape[0] + 1, *case.shape[1:]))
    return case


def _message_config(case):
    config = session_pb2.SessionConfig(num_features=case.shape[1])
    if case.epsilon is not None:
        config.epsilon = case.epsilon
    if case.momentum is not None:
        config.momentum = case.momentum
    return config


def _torch_module(case, weight, bias, mean, var, dtype, momentum):
    options = {}
    if case.epsilon is not None:
        options["eps"] = case.epsilon
    if momentum is not None:
        options["momentum"] = momentum
    module = _MODULES[len(case.shape)](case.shape[1], **options)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight))
        module.bias.copy_(torch.from_numpy(bias))
        module.running_mean.copy_(torch.from_numpy(mean))
        module.running_var.copy_(torch.from_numpy(var))
    return module.to(dtype)


def _used(ours, theirs, scale=0.0):
    """How much of the bound, relative to `scale` where that is larger, each value uses; 0 where both are NaN."""
    with np.errstate(invalid="ignore"):
        used = np.abs(ours - theirs) / (ABSOLUTE + RELATIVE * np.maximum(np.abs(theirs), scale))
    used = np.where(np.isnan(ours) & np.isnan(theirs), 0, used)
    return np.where(np.isnan(used), np.inf, used)


def _set_choice(forward, step, given_mean, given_var):
    """Says in the request what `step` says in words."""
    use, update = step.split(" ")
    if use == "BATCH":
        forward.batch.SetInParent()
    elif use == "RUNNING":
        forward.running.SetInParent()
    else:
        forward.given.CopyFrom(statistics_pb2.Moments(count=10, mean=given_mean, m2=10 * given_var))
    forward.update = pb.UPDATE_RUNNING if update == "RUNNING" else pb.UPDATE_NONE


def _torch_step(module, step, x, given_mean, given_var):
    """What PyTorch makes of `step`; its module offers TRAIN and EVAL, the functional form the rest."""
    x = torch.from_numpy(x).to(module.weight.dtype)
    parts = {"weight": module.weight, "bias": module.bias, "eps": module.eps}
    with torch.no_grad():
        if step in _MODES:
            return module.train(step == "TRAIN")(x)
        use = step.split(" ")[0]
        if use == "BATCH":
            y = torch.nn.functional.batch_norm(x, None, None, training=True, **parts)
        elif use == "RUNNING":
            y = module.eval()(x)
        else:
            y = torch.nn.functional.batch_norm(x, torch.from_numpy(given_mean).to(x.dtype),
                                               torch.from_numpy(given_var).to(x.dtype), training=False, **parts)
        if _updates(step):
            module.train()(x)
        return y


class RunningScale:
    """The size of what has been added up in the running statistics, per channel.

    A momentum outside [0, 1] subtracts, and the difference of two close numbers keeps the errors of both: agreement is
    then relative to the terms, and a variance much smaller than its terms says nothing about a later evaluation.
    """

    def __init__(self, momentum, mean, var):
        self._momentum = 0.1 if momentum is None else momentum
        self._terms = np.abs(np.stack([mean, var]).astype(np.float64))
        self._digits_lost = False

    def fold(self, flat, var_after):
        """After an update with the values `flat` [C, n]: the scales of running_mean and running_var."""
        if 0 <= self._momentum <= 1:
            return 0.0, 0.0
        batch = np.abs(np.stack([flat.mean(1).numpy(), flat.var(1, unbiased=True).numpy()]))
        self._terms = abs(1 - self._momentum) * self._terms + abs(self._momentum) * batch
        self._digits_lost = bool((self._terms[1] > 10 * np.abs(var_after.numpy())).any())
        return tuple(self._terms)

    def digits_are_lost(self):
        return self._digits_lost


class Comparison:
    """Mismatches of one case, and how much of the bound the worst value used.

    Every value is compared with float64 PyTorch, and with float32 PyTorch where that itself keeps to half the bound: it
    writes y = x * a + b, which cancels where the mean is large beside the standard deviation.
    """

    def __init__(self):
        self.mismatches = []
        self.worst = 0.0
        self.values = 0
        self.values_float32 = 0

    def compare(self, what, ours, exact, float32=None, scale=0.0):
        ours = np.asarray(ours, dtype=np.float64)
        exact = exact.detach().numpy()
        if ours.shape != exact.shape:
            self.mismatches.append(f"{what}: shape {ours.shape}, expected {exact.shape}")
            return
        self.values += ours.size
        self._judge(what + " against float64 PyTorch", ours, exact, _used(ours, exact, scale))
        if float32 is not None:
            float32 = float32.detach().double().numpy()
            trusted = _used(float32, exact, scale) <= 0.5
            self.values_float32 += int(trusted.sum())
            used = np.where(trusted, _used(ours, float32, scale), 0)
            self._judge(what + " against float32 PyTorch", ours, float32, used)

    def _judge(self, what, ours, theirs, used):
        at = np.unravel_index(np.argmax(used), used.shape)
        self.worst = max(self.worst, float(used[at]))
        if used[at] > 1:
            self.mismatches.append(f"{what}, at {[int(i) for i in at]}: {ours[at]:.9g}, expected {theirs[at]:.9g}, "
                                   f"{used[at]:.2f} of the bound")

    def equal(self, what, ours, theirs):
        if ours != theirs:
            self.mismatches.append(f"{what}: {ours}, expected {theirs}")


def run(stub, case, planted_momentum=None):
    """Runs the case both ways and compares every step. `planted_momentum(m)` falsifies PyTorch's momentum."""
    rng = np.random.default_rng(case.seed)
    channels = case.shape[1]
    weight = np.ones(channels, np.float32)
    bias = np.zeros(channels, np.float32)
    mean = np.zeros(channels, np.float32)
    var = np.ones(channels, np.float32)
    request = pb.CreateSessionRequest(config=_message_config(case))
    if case.affine:
        weight = (rng.uniform(0.2, 1.5, channels) * rng.choice([-1, 1], channels)).astype(np.float32)
        bias = rng.uniform(-1, 1, channels).astype(np.float32)
        request.parameters.CopyFrom(statistics_pb2.Parameters(weight=weight, bias=bias))
    if case.statistics:
        mean = (case.mean + case.std * rng.uniform(-1, 1, channels)).astype(np.float32)
        var = (case.std**2 * rng.uniform(0.5, 2, channels)).astype(np.float32)
        request.statistics.CopyFrom(statistics_pb2.RunningStatistics(running_mean=mean, running_var=var))
    momentum = case.momentum
    if planted_momentum is not None:
        momentum = planted_momentum(0.1 if momentum is None else momentum)
    exact = _torch_module(case, weight, bias, mean, var, torch.float64, momentum)
    float32 = _torch_module(case, weight, bias, mean, var, torch.float32, momentum)

    session = stub.CreateSession(request)
    result = Comparison()
    scale = RunningScale(momentum, mean, var)
    generation, mode = 0, "TRAIN"
    try:
        for number, step in enumerate(case.steps):
            shape = case.shape
            if number % 2 and shape[0] > 2:
                shape = (shape[0] - 1, *shape[1:])  # batches of one session need not be of one size
            x = (case.mean + case.std * rng.standard_normal(shape)).astype(np.float32)
            forward = pb.ForwardRequest(name=session.name, input=tensor(x), return_batch_moments=True)
            given_mean = case.mean + case.std * rng.uniform(-0.5, 0.5, channels)
            given_var = case.std**2 * rng.uniform(0.5, 2, channels)
            if step not in _MODES:
                _set_choice(forward, step, given_mean, given_var)
            elif case.per_call:
                forward.mode = _MODES[step]
            elif step != mode:
                stub.SetMode(pb.SetModeRequest(name=session.name, mode=_MODES[step]))
                mode = step
                generation += 1
            reply = stub.Forward(forward)
            generation += _updates(step)
            statistics = statistics_of(stub, session.name)
            flat = torch.from_numpy(x).double().transpose(0, 1).reshape(channels, -1)
            outputs = [_torch_step(module, step, x, given_mean, given_var) for module in (exact, float32)]
            where = f"batch {number} ({step}): "
            result.compare(where + "output", array(reply.output), *outputs)
            # A mean near 0 is a difference of values of the size of the standard deviation: 1e-6 of that is allowed.
            near_zero = ABSOLUTE / RELATIVE * flat.std(1).nan_to_num().numpy()
            mean_scale, var_scale = scale.fold(flat, exact.running_var) if _updates(step) else (0.0, 0.0)
            result.compare(where + "running_mean", statistics.running_mean, exact.running_mean, float32.running_mean,
                           np.maximum(mean_scale, near_zero))
            result.compare(where + "running_var", statistics.running_var, exact.running_var, float32.running_var,
                           var_scale)
            result.equal(where + "num_batches_tracked", statistics.num_batches_tracked,
                         exact.num_batches_tracked.item())
            result.equal(where + "count", reply.batch_moments.count, flat.shape[1])
            result.compare(where + "batch mean", reply.batch_moments.mean, flat.mean(1), scale=near_zero)
            result.compare(where + "batch variance", np.array(reply.batch_moments.m2) / flat.shape[1],
                           flat.var(1, unbiased=False))
            result.equal(where + "generation", reply.generation, generation)
            if scale.digits_are_lost():
                break
    finally:
        stub.DeleteSession(pb.DeleteSessionRequest(name=session.name))
    return result


def _simpler(case):
    """Cases like this one, each simpler in one way; the greatest steps first."""
    for number in range(len(case.steps)):
        yield dataclasses.replace(case, steps=case.steps[:number] + case.steps[number + 1:])
    for place, extent in enumerate(case.shape):
        for smaller in sorted({1, extent // 2, extent - 1}):
            if 1 <= smaller < extent:
                yield dataclasses.replace(case, shape=case.shape[:place] + (smaller,) + case.shape[place + 1:])
    if len(case.shape) > 2:
        yield dataclasses.replace(case, shape=case.shape[:-1])
    for number, step in enumerate(case.steps):
        if step not in _MODES:
            plainer = "TRAIN" if _updates(step) else "EVAL"
            yield dataclasses.replace(case, steps=case.steps[:number] + (plainer,) + case.steps[number + 1:])
    for field, plain in [("affine", False), ("statistics", False), ("per_call", False), ("epsilon", None),
                         ("momentum", None), ("mean", 0.0), ("std", 1.0)]:
        if getattr(case, field) != plain:
            yield dataclasses.replace(case, **{field: plain})


def shrink(case, fails, most_tries=400):
    """The smallest case like `case` for which `fails(case)` is still true."""
    tries = 0
    progress = True
    while progress and tries < most_tries:
        progress = False
        for candidate in _simpler(case):
            if not candidate.is_legal():
                continue
            tries += 1
            if fails(candidate):
                case, progress = candidate, True
                break
    return case
