"""What a session must be after the changes that took place, bit for bit. No server, no clock: crash_test.py checks it too.

Generations order most changes, because every reply tells one. What makes none (shadow Forwards, snapshots) is sent one at a
time for a session and ordered by when it was sent.
"""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

import numpy as np

from server_process import pb, session_pb2

TRAIN, EVAL, SHADOW = session_pb2.MODE_TRAIN, session_pb2.MODE_EVAL, session_pb2.MODE_SHADOW


class Contradiction(AssertionError):
    """The server says what no order of the changes explains."""


@dataclass(eq=False)
class Call:
    """A call as it was sent, and its answer; neither reply nor error: the outcome is unknown."""

    number: int  # rises with the time of sending
    method: str
    request: Any
    reply: Any = None
    error: Optional[tuple] = None  # (code, reason)
    allowed: tuple = ()  # the reasons with which it may fail

    @property
    def is_unknown(self):
        return self.reply is None and self.error is None

    def __str__(self):
        outcome = self.error or ("unknown" if self.reply is None else f"generation {self.told}")
        words = [self.method, getattr(self.request, "request_id", ""), getattr(self.request, "snapshot", "")]
        if self.reply is not None and self.method == "Forward":
            words.append(pb.Update.Name(self.reply.update))
        return f"{self.number}: {' '.join(filter(None, words))} ({outcome})"

    @property
    def told(self):
        """The generation in the reply."""
        if hasattr(self.reply, "sessions"):
            return self.reply.sessions[0].generation
        if hasattr(self.reply, "snapshots"):
            return self.reply.snapshots[0].generation
        return self.reply.generation

    @property
    def batches(self):
        """num_batches_tracked in the reply."""
        for several in ("sessions", "snapshots"):
            if hasattr(self.reply, several):
                return getattr(self.reply, several)[0].num_batches_tracked
        return self.reply.num_batches_tracked

    @property
    def is_change(self):
        """Whether it is answered and changed something: then it is remembered."""
        if self.reply is None or self.method == "GetSession":
            return False
        return self.method != "Forward" or self.reply.update != pb.UPDATE_NONE

    @property
    def makes_generation(self):
        if self.method == "Forward":
            return self.reply.update == pb.UPDATE_RUNNING
        return self.method in ("SetMode", "SetParameters", "RestoreState")

    @property
    def is_aside(self):
        """Whether it changes what lies beside the state."""
        if self.method == "Forward":
            return self.reply.update == pb.UPDATE_SHADOW
        return self.method in ("SnapshotState", "DeleteSnapshot")


class State(NamedTuple):
    mode: int
    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    batches: int

    @staticmethod
    def of(session):
        """The state in a Session, SESSION_VIEW_FULL."""
        return State(session.mode, np.array(session.parameters.weight, "<f4"), np.array(session.parameters.bias, "<f4"),
                     np.array(session.statistics.running_mean), np.array(session.statistics.running_var),
                     session.num_batches_tracked)


def first_state(request):
    """What a CreateSession begins with."""
    num_features = request.config.num_features
    given, statistics = request.parameters, request.statistics
    return State(request.mode or TRAIN,
                 np.array(given.weight, "<f4") if given.weight else np.ones(num_features, "<f4"),
                 np.array(given.bias, "<f4") if given.bias else np.zeros(num_features, "<f4"),
                 np.array(statistics.running_mean) if statistics.running_mean else np.zeros(num_features),
                 np.array(statistics.running_var) if statistics.running_var else np.ones(num_features),
                 statistics.num_batches_tracked)


class Moments(NamedTuple):
    count: int
    mean: np.ndarray
    m2: np.ndarray

    @staticmethod
    def of(message):
        return Moments(message.count, np.array(message.mean), np.array(message.m2)) if message.count else None


class Kept(NamedTuple):
    """A snapshot."""

    generation: int
    state: State


@dataclass
class Content:
    """All of a session that outlives a crash, but its remembered requests."""

    generation: int
    state: State
    shadow: Optional[Moments] = None
    snapshots: dict = field(default_factory=dict)  # name to Kept


@dataclass
class Sighting:
    """A session as the server shows it: of a snapshot generation and batches only."""

    generation: int
    state: State
    shadow: Optional[Moments]
    snapshots: dict  # name to (generation, batches)


class Judged(NamedTuple):
    content: Content
    states: dict  # by generation
    took_place: list  # of the late calls, those that were there already


def batch_weight(config, batches):
    """BatchWeight of server/session/running_statistics.cc."""
    averaging = config.WhichOneof("averaging")
    if averaging == "cumulative":
        return 1 / batches
    if averaging == "zero_debiased":
        momentum = config.zero_debiased.momentum
        return 1.0 if momentum == 1 else momentum / -math.expm1(batches * math.log1p(-momentum))
    return config.momentum


def fold(config, state, batch):
    """FoldBatch of the same file: the same operations on doubles, so the same bits."""
    weight = batch_weight(config, state.batches + 1)
    biased = config.running_variance == session_pb2.RUNNING_VARIANCE_BIASED
    variance = np.array(batch.m2) / float(batch.count if biased else batch.count - 1)
    return state._replace(mean=(1 - weight) * state.mean + weight * np.array(batch.mean),
                          variance=(1 - weight) * state.variance + weight * variance, batches=state.batches + 1)


def merge(left, right):
    """MergeMoments of the same file."""
    if left is None:
        return right
    share = float(right.count) / (float(left.count) + float(right.count))
    delta = right.mean - left.mean
    return Moments(left.count + right.count, left.mean + delta * share,
                   left.m2 + right.m2 + delta * delta * float(left.count) * share)


def _same(one, other):
    if one is None or other is None:
        return one is other
    return all(a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else a == b for a, b in zip(one, other))


def _snapshots(base, calls):
    """What snapshots there are after `calls`, and what each restore went back to: a Kept, or a generation."""
    there, restored = dict(base.snapshots), {}
    for call in sorted(calls, key=lambda call: call.number):
        if call.method not in ("SnapshotState", "DeleteSnapshot", "RestoreState"):
            continue
        name = call.request.snapshot
        if (name in there) == (call.method == "SnapshotState"):
            raise Contradiction(f"{call} on the snapshots {sorted(there)}")
        if call.method == "SnapshotState":
            there[name] = call.told
        elif call.method == "RestoreState":
            restored[call.number] = there[name]
        else:
            gone = there.pop(name)
            if call.told != (gone.generation if isinstance(gone, Kept) else gone):
                raise Contradiction(f"{call} deleted another snapshot than {gone}")
    return there, restored


def _kept(snapshot, states):
    if isinstance(snapshot, Kept):
        return snapshot
    if snapshot not in states:
        raise Contradiction(f"a snapshot of generation {snapshot}, which there was not")
    return Kept(snapshot, states[snapshot])


def _after(config, state, call, restored, states):
    if call.method == "Forward":
        return fold(config, state, call.reply.batch_moments)
    if call.method == "SetMode":
        return state._replace(mode=call.request.mode)
    if call.method == "SetParameters":
        given = call.request.parameters
        return state._replace(weight=np.array(given.weight, "<f4") if given.weight else state.weight,
                              bias=np.array(given.bias, "<f4") if given.bias else state.bias)
    return _kept(restored[call.number], states).state


def _shadow(base, makers, asides):
    forwards = [call for call in asides if call.method == "Forward"]
    if any(one.told > other.told for one, other in itertools.pairwise(forwards)):
        raise Contradiction("the generation went back between two shadow Forwards")
    resets = [call for call in makers if call.method == "SetMode" and call.request.mode == SHADOW]
    shadow = base.shadow
    for call in sorted(resets + forwards, key=lambda call: (call.told, call.method == "Forward", call.number)):
        shadow = merge(shadow, Moments.of(call.reply.batch_moments)) if call.method == "Forward" else None
    return shadow


def replay(config, base, calls, may_miss=0):
    """The content after `calls`, all of which took place, and the states on the way by generation.

    Up to `may_miss` generations may be nobody's; the replay ends there. Else Contradiction.
    """
    makers = sorted((call for call in calls if call.makes_generation), key=lambda call: call.told)
    asides = sorted((call for call in calls if call.is_aside), key=lambda call: call.number)
    there, restored = _snapshots(base, calls)
    generation, state = base.generation, base.state
    states = {generation: state}
    for call in makers:
        if call.told <= generation:
            raise Contradiction(f"{call}: the generation before is {generation}, so one is there twice")
        may_miss -= call.told - generation - 1
        if may_miss < 0:
            raise Contradiction(f"{call}: the generation before is {generation}, and nobody asked for what lies between")
        if call.told > generation + 1:
            return None, states
        state = _after(config, state, call, restored, states)
        generation = call.told
        if call.batches != state.batches:
            raise Contradiction(f"{call}: it told of {call.batches} batches, there are {state.batches}")
        states[generation] = state
    for call in calls:
        if call.method == "SnapshotState" and (call.told not in states or states[call.told].batches != call.batches):
            raise Contradiction(f"{call}: it kept a state that there was not")
    snapshots = {name: _kept(snapshot, states) for name, snapshot in there.items()}
    return Content(generation, state, _shadow(base, makers, asides), snapshots), states


def compare(content, seen):
    """Contradiction if the server shows anything else than `content`."""
    if content.generation != seen.generation:
        raise Contradiction(f"generation {seen.generation}, to be {content.generation}")
    for name, expected, actual in zip(State._fields, content.state, seen.state):
        if not _same((expected,), (actual,)):
            raise Contradiction(f"generation {seen.generation}: {name} is {actual}, to be {expected}")
    if not _same(content.shadow, seen.shadow):
        raise Contradiction(f"generation {seen.generation}: shadow is {seen.shadow}, to be {content.shadow}")
    expected = {name: (kept.generation, kept.state.batches) for name, kept in content.snapshots.items()}
    if expected != seen.snapshots:
        raise Contradiction(f"snapshots are {seen.snapshots}, to be {expected}")


def judge(config, bases, calls, late, seen):
    """Whether `seen` is one of `bases` after `calls`, which were answered, and any of `late`.

    Late calls had no answer when the server died, and got one when they were repeated: a generation that `seen` has already
    was there before the repeat. Where a reply cannot tell, both are tried. Contradiction: nothing explains what is seen.
    """
    calls = [call for call in calls if call.reply is not None]
    late = [call for call in late if call.reply is not None]
    there, perhaps = [], []
    for call in late:
        if call.makes_generation and call.told <= seen.generation:
            there.append(call)
        elif call.is_aside and (call.method == "DeleteSnapshot" or call.told == seen.generation):
            perhaps.append(call)
        elif call.is_aside and call.told < seen.generation:
            there.append(call)
    contradiction = Contradiction("there is nothing it can have begun as")
    for count in range(len(perhaps) + 1):
        for base, chosen in itertools.product(bases, itertools.combinations(perhaps, count)):
            try:
                content, states = replay(config, base, calls + there + list(chosen))
                compare(content, seen)
                _check_reads(calls, states)
            except Contradiction as found:
                contradiction = found if count == 0 else contradiction
                continue
            return Judged(content, states, there + list(chosen))
    raise contradiction


def _check_reads(calls, states):
    for call in calls:
        if call.method == "GetSession" and not _same(State.of(call.reply), states.get(call.told)):
            raise Contradiction(f"a read showed generation {call.told} as {State.of(call.reply)}, "
                                f"there was {states.get(call.told)}")


def judge_deleted(config, bases, calls, num_late, last_generation):
    """The same of a session that is gone: answered changes have a generation each, up to the last."""
    calls = [call for call in calls if call.reply is not None]
    told = [call.told for call in calls if call.makes_generation or call.method == "GetSession"]
    if told and max(told) > last_generation:
        raise Contradiction(f"it was deleted at generation {last_generation} and had been at {max(told)}")
    contradiction = Contradiction("there is nothing it can have begun as")
    for base in bases:
        missing = last_generation - base.generation - sum(call.makes_generation for call in calls)
        if not 0 <= missing <= num_late:
            contradiction = Contradiction(f"it was deleted with {missing} changes that nobody knows of")
            continue
        try:
            content, states = replay(config, base, calls, may_miss=missing)
            if content is not None:
                _check_reads([call for call in calls if call.told <= content.generation], states)
            return
        except Contradiction as found:
            contradiction = found
    raise contradiction
