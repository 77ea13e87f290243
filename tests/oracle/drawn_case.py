"""A drawn layer with a drawn sequence of batches, forward and backward, run through the service and through PyTorch."""

import dataclasses
import math

import numpy as np
import torch

from exact_gradient import input_gradient
from server_process import array, pb, session_pb2, statistics_of, statistics_pb2, tensor, tensor_pb2

RELATIVE, ABSOLUTE = 1e-5, 1e-6
# Of a gradient, in Euclidean norm, beside float64.
GRADIENT = 4e-7
# Half a last place, relative, and half the smallest step: what rounding the result to its type takes.
ROUNDING = {"FLOAT32": (0.0, 0.0), "FLOAT16": (2.0**-11, 2.0**-25), "BFLOAT16": (2.0**-8, 0.0)}
_TORCH_TYPES = {"FLOAT32": torch.float32, "FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16}
# What a batch is normalised with and what it does to the session. TRAIN, EVAL and SHADOW say both by the mode; the others
# say them one by one: the statistics to use, then the update.
STEPS = ("TRAIN", "EVAL", "SHADOW", "BATCH NONE", "RUNNING RUNNING", "GIVEN NONE", "GIVEN RUNNING")
UNTRACKED_STEPS = ("TRAIN", "EVAL", "BATCH NONE", "GIVEN NONE")  # without running statistics
_MODES = {"TRAIN": session_pb2.MODE_TRAIN, "EVAL": session_pb2.MODE_EVAL, "SHADOW": session_pb2.MODE_SHADOW}
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
    data_type: str = "FLOAT32"
    channels_last: bool = False
    averaging: str = "momentum"  # or "cumulative", or "zero_debiased" by momentum
    tracked: bool = True  # track_running_stats
    has_affine: bool = True  # the session has weight and bias
    backward: bool = False  # each batch has a gradient of its output, too

    def values_per_channel(self):
        return self.shape[0] * math.prod(self.shape[2:])

    def updates(self, step):
        return self.tracked and _updates(step)

    def use(self, step):
        """What `step` normalises with."""
        if step not in _MODES:
            return step.split(" ")[0]
        return "BATCH" if step == "TRAIN" or not self.tracked else "RUNNING"

    def size(self):
        return math.prod(self.shape) * len(self.steps)

    def is_legal(self):
        needs_two = any(self.updates(step) or self.use(step) == "BATCH" for step in self.steps)
        return self.steps and (self.tracked or set(self.steps) <= set(UNTRACKED_STEPS)) and (not needs_two or self.values_per_channel() > 1)


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
    tracked = rng.random() < 0.85
    steps = tuple(rng.choice(("TRAIN", "TRAIN", "EVAL", "EVAL", "TRAIN", "EVAL") + (STEPS if tracked else UNTRACKED_STEPS))
                  for _ in range(rng.randint(1, 6)))
    averaging = rng.choice(("momentum", "momentum", "momentum", "cumulative", "zero_debiased"))
    momenta = [None, None, 0.0, 1.0, 0.1, 0.9, rng.random(), -0.5, -0.1, 1.05, 1.7]
    has_affine = rng.random() < 0.85
    std = rng.choice([1.0, 1.0, 10 ** rng.uniform(-1, 1)])
    mean = std * (rng.uniform(-1, 1) if rng.random() < 0.875 else rng.choice([-1, 1]) * 10 ** rng.uniform(0, 3))
    case = DrawnCase(
        seed=rng.randrange(2**31), shape=shape, steps=steps, per_call=rng.random() < 0.5,
        epsilon=rng.choice([None, None, 1e-5, 1e-3, 1e-12, 0.1, 1.0, 10 ** rng.uniform(-8, 0)]),
        momentum=None if averaging == "cumulative" else
        rng.choice([0.1, 0.9, 1.0]) if averaging == "zero_debiased" else rng.choice(momenta),
        affine=has_affine and rng.random() < 0.7, statistics=tracked and averaging == "momentum" and rng.random() < 0.3,
        mean=mean, std=std, data_type=rng.choice(("FLOAT32", "FLOAT32", "FLOAT16", "BFLOAT16")),
        channels_last=rng.random() < 0.4, averaging=averaging, tracked=tracked, has_affine=has_affine,
        backward=rng.random() < 0.6)
    if not case.is_legal():
        case = dataclasses.replace(case, shape=(case.shape[0] + 1, *case.shape[1:]))
    return case


def _message_config(case):
    config = session_pb2.SessionConfig(num_features=case.shape[1], affine=case.has_affine,
                                       track_running_stats=case.tracked)
    if case.epsilon is not None:
        config.epsilon = case.epsilon
    if case.averaging == "cumulative":
        config.cumulative.SetInParent()
    elif case.averaging == "zero_debiased":
        config.zero_debiased.momentum = case.momentum
    elif case.momentum is not None:
        config.momentum = case.momentum
    return config


def _torch_module(case, weight, bias, mean, var, dtype, momentum):
    options = {"track_running_stats": case.tracked}
    if case.epsilon is not None:
        options["eps"] = case.epsilon
    if momentum is not None or case.averaging == "cumulative":
        options["momentum"] = momentum
    module = _MODULES[len(case.shape)](case.shape[1], **options)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight))
        module.bias.copy_(torch.from_numpy(bias))
        if case.tracked:
            module.running_mean.copy_(torch.from_numpy(mean))
            module.running_var.copy_(torch.from_numpy(var))
    return module.to(dtype)


def _used(ours, theirs, scale=0.0, rounding=(0.0, 0.0)):
    """How much of the bound, relative to `scale` where that is larger, each value uses; 0 where both are NaN."""
    relative, absolute = rounding
    with np.errstate(invalid="ignore"):
        used = np.abs(ours - theirs) / (ABSOLUTE + absolute + RELATIVE * np.maximum(np.abs(theirs), scale)
                                        + relative * 1.01 * np.abs(theirs))
    used = np.where((ours == theirs) | np.isnan(ours) & np.isnan(theirs), 0, used)
    return np.where(np.isnan(used), np.inf, used)


def _round(values, data_type):
    """Float32 numbers that are of the type; beyond its range infinite."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(_TORCH_TYPES[data_type]).to(torch.float32).numpy()


def _message(case, values):
    """[N, C, *] of the case's type as it sends them."""
    if case.channels_last:
        values = np.moveaxis(values, 1, -1)
    layout = tensor_pb2.LAYOUT_CHANNELS_LAST if case.channels_last else tensor_pb2.LAYOUT_CHANNELS_FIRST
    if case.data_type == "FLOAT16":
        values = values.astype(np.float16)
    return tensor(values, layout, bfloat16=case.data_type == "BFLOAT16")


def _values(case, message):
    values = array(message)
    return np.moveaxis(values, -1, 1) if case.channels_last else values


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
            # Without running statistics PyTorch's flag is the batch's, also in evaluation.
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


def _torch_gradients(module, x, g, statistics):
    """Of input, weight and bias; `statistics` to use, None: the batch's own."""
    x = torch.from_numpy(x).double().requires_grad_()
    g = torch.from_numpy(g).double()
    weight = module.weight.detach().double().requires_grad_()
    bias = module.bias.detach().double().requires_grad_()
    if statistics is None:
        y = torch.nn.functional.batch_norm(x, None, None, weight, bias, True, eps=module.eps)
    else:
        mean, var = (torch.tensor(np.asarray(part, np.float64)) for part in statistics)
        y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, False, eps=module.eps)
    y.backward(g)
    gradient = x.grad.numpy()
    if statistics is None and x.numel() == 2 * x.shape[1]:  # float64 keeps few digits of it
        exact = input_gradient(x.detach().numpy(), g.numpy(), weight.detach().numpy(), module.eps)
        np.testing.assert_allclose(exact, gradient, 1e-9, 1e-14 * float((g.abs().max() * weight.abs().max())
                                                                        / math.sqrt(module.eps or 1e-30)))
        gradient = exact
    return [gradient, weight.grad.numpy(), bias.grad.numpy()]


class RunningScale:
    """The size of what has been added up in the running statistics, per channel.

    A momentum outside [0, 1] subtracts, and the difference of two close numbers keeps the errors of both: agreement is
    then relative to the terms, and a variance much smaller than its terms says nothing about a later evaluation.
    """

    def __init__(self, momentum, mean, var):
        self._momentum = 0.1 if momentum is None else momentum  # of a cumulative average: also in [0, 1]
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
        self.gradients = 0
        self.worst_gradient = 0.0

    def compare(self, what, ours, exact, float32=None, scale=0.0, rounding=(0.0, 0.0)):
        ours = np.asarray(ours, dtype=np.float64)
        exact = exact.detach().numpy()
        if ours.shape != exact.shape:
            self.mismatches.append(f"{what}: shape {ours.shape}, expected {exact.shape}")
            return
        self.values += ours.size
        self._judge(what + " against float64 PyTorch", ours, exact, _used(ours, exact, scale, rounding))
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

    def gradient(self, what, ours, exact, rounding=(0.0, 0.0)):
        """In Euclidean norm, where it is finite; what is not must be so in both."""
        ours = np.asarray(ours, np.float64)
        finite = np.isfinite(exact)
        self.gradients += 1
        if ours.shape != exact.shape or not np.array_equal(ours[~finite], exact[~finite], equal_nan=True):
            self.mismatches.append(f"{what}: not finite elsewhere than float64 PyTorch's")
            return
        relative, absolute = rounding
        error = np.linalg.norm(ours[finite] - exact[finite])
        allowed = (GRADIENT + relative) * np.linalg.norm(exact[finite]) + absolute * np.sqrt(exact.size)
        used = error / allowed if error else 0.0
        self.worst_gradient = max(self.worst_gradient, float(used))
        if not used <= 1:
            self.mismatches.append(f"{what}: {error:.3g} off in norm, {used:.2f} of what is allowed")

    def equal(self, what, ours, theirs):
        if ours != theirs:
            self.mismatches.append(f"{what}: {ours}, expected {theirs}")


def _run_backward(stub, case, name, reply, module, x, used, stored, rng, where, result):
    """A gradient of the output, beside autograd in float64 with the statistics that the service had."""
    step, given_mean, given_var = used
    g = _round((rng.standard_normal(x.shape) + rng.choice([0.0, 0.5, 3.0])).astype(np.float32), case.data_type)
    backward = stub.Backward(pb.BackwardRequest(name=name, saved_forward=reply.saved_forward,
                                                grad_output=_message(case, g), release_saved_forward=True))
    statistics = {"BATCH": None, "RUNNING": stored, "GIVEN": (given_mean, given_var)}[case.use(step)]
    input_, weight, bias = _torch_gradients(module, x, g, statistics)
    rounded = _round(input_.astype(np.float32), case.data_type)
    input_ = np.where(np.isinf(rounded), rounded, input_)
    result.gradient(where + "grad_input", _values(case, backward.grad_input), input_, ROUNDING[case.data_type])
    if case.has_affine:
        result.gradient(where + "grad_weight", backward.grad_weight, weight)
        result.gradient(where + "grad_bias", backward.grad_bias, bias)
    else:
        result.equal(where + "gradients of what is not there", len(backward.grad_weight) + len(backward.grad_bias), 0)


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
    rounding = ROUNDING[case.data_type]
    if planted_momentum is not None:
        momentum = planted_momentum(0.1 if momentum is None else momentum)
    exact = _torch_module(case, weight, bias, mean, var, torch.float64, momentum)
    float32 = _torch_module(case, weight, bias, mean, var, torch.float32, momentum)

    session = stub.CreateSession(request)
    result = Comparison()
    scale = RunningScale(momentum, mean, var)
    generation, mode, updates = 0, "TRAIN", 0
    stored = (mean, var)  # the session's running statistics
    try:
        for number, step in enumerate(case.steps):
            shape = case.shape
            if number % 2 and shape[0] > 2:
                shape = (shape[0] - 1, *shape[1:])  # batches of one session need not be of one size
            x = _round((case.mean + case.std * rng.standard_normal(shape)).astype(np.float32), case.data_type)
            forward = pb.ForwardRequest(name=session.name, input=_message(case, x), return_batch_moments=True,
                                        return_saved_forward=case.backward)
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
            generation += case.updates(step)
            updates += case.updates(step)
            if case.averaging == "zero_debiased" and case.updates(step):
                exact.momentum = float32.momentum = momentum / (1 - (1 - momentum)**updates)
            flat = torch.from_numpy(x).double().transpose(0, 1).reshape(channels, -1)
            outputs = [_torch_step(module, step, x, given_mean, given_var) for module in (exact, float32)]
            where = f"batch {number} ({step}): "
            output = _values(case, reply.output)
            if case.data_type == "FLOAT32":
                result.compare(where + "output", output, *outputs)
            else:
                expected = outputs[0].numpy()
                beyond = torch.from_numpy(np.where(np.isinf(_round(expected.astype(np.float32), case.data_type)),
                                                   np.copysign(np.inf, expected), expected))
                result.compare(where + "output", output, beyond, rounding=rounding)
            # A mean near 0 is a difference of values of the size of the standard deviation: 1e-6 of that is allowed.
            near_zero = ABSOLUTE / RELATIVE * flat.std(1).nan_to_num().numpy()
            if case.backward:
                _run_backward(stub, case, session.name, reply, exact, x, (step, given_mean, given_var), stored, rng, where, result)
            if case.tracked:
                mean_scale, var_scale = scale.fold(flat, exact.running_var) if case.updates(step) else (0.0, 0.0)
                statistics = statistics_of(stub, session.name)
                stored = (statistics.running_mean, statistics.running_var)
                result.compare(where + "running_mean", statistics.running_mean, exact.running_mean,
                               float32.running_mean, np.maximum(mean_scale, near_zero))
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
    for field, plain in [("backward", False), ("data_type", "FLOAT32"), ("channels_last", False), ("has_affine", True),
                         ("tracked", True), ("averaging", "momentum"), ("affine", False), ("statistics", False), ("per_call", False), ("epsilon", None),
                         ("momentum", None), ("mean", 0.0), ("std", 1.0)]:
        if getattr(case, field) != plain:
            changed = {field: plain}
            if field == "averaging":
                changed["momentum"] = None
            yield dataclasses.replace(case, **changed)


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
