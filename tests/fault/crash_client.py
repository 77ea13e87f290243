"""Clients that change sessions of one server at random until it is gone, and log every call and every answer."""

import collections
import itertools
import random
import threading
from typing import NamedTuple, Optional

import grpc
import numpy as np

from server_process import pb, session_pb2, statistics_pb2, tensor, tensor_pb2
from session_model import EVAL, SHADOW, TRAIN, Call, Contradiction
from normserve.v1 import error_details_pb2

MAX_SESSIONS = 24
WIDE = 2048  # channels; beyond 150 the server may have dropped what an old Forward was computed with
CALL_SECONDS = 60
# The contract promises a session's last 1,024 changes.
REMEMBERED = 1000
# What a call may get while its session is being deleted, or when there is another of its name.
LATER = ("SESSION_NOT_FOUND", "UID_MISMATCH", "LINEAGE_CHANGED", "SHAPE_MISMATCH", "INVALID_FIELD")


class Lost(Exception):
    """The server is gone."""


def error_of(error):
    """(code, reason) of a failed call."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in error_details_pb2.StatusDetails.FromString(value).details:
                if detail.type_url.endswith("ErrorInfo"):
                    return error.code().name, error_details_pb2.ErrorInfo.FromString(detail.value).reason
    return error.code().name, ""


def call_once(stub, method, request):
    """(reply, error); Lost where the outcome is unknown."""
    try:
        return getattr(stub, method)(request, timeout=CALL_SECONDS), None
    except grpc.RpcError as error:
        return None, _known(error)


def _known(error):
    code, reason = details = error_of(error)
    if code in ("UNAVAILABLE", "CANCELLED") and reason in ("", "DRAINING"):
        raise Lost from error
    return details


class Source(NamedTuple):
    """What a clone can have copied."""

    session: "Session"
    first: int  # generation
    last: Optional[int]  # None: any later one


class Session:
    """A session as the clients know it."""

    def __init__(self, opening, source=None):
        described = opening.reply
        self.opening, self.source = opening, source
        self.name, self.uid, self.config = described.name, described.uid, described.config
        self.num_features = described.config.num_features
        self.is_durable = described.durability != session_pb2.DURABILITY_NONE
        self.is_guarded = random.Random(opening.number).random() < 0.5  # its calls expect its uid
        self.is_kept = False  # never deleted
        self.cloned_in = -1  # the newest round
        self.deletion = None  # the call
        self.newest = 0  # the highest generation told
        self.snapshots = []  # names
        self.aside = threading.Lock()  # held for what no reply orders
        self.calls = []  # of this round
        self.late = []  # of these, those without an answer when the server died
        self.confirmed = None  # the Content after the round before
        self.states = {}  # of the round that was checked last, by generation
        self.history = collections.deque(maxlen=REMEMBERED)  # answered changes, checked


class World:
    """What all clients share, and what outlives a round."""

    def __init__(self):
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        self.round = 0
        self.sessions = []  # open, as far as is known
        self.ended = []  # deleted in this round
        self.gone = []  # deleted before
        self.openings = []  # Creates and Clones of this round whose outcome is unknown, each with its Source or None
        self.free_names = []  # of sessions that are gone; theirs expected a uid, so that a late repeat cannot hit another
        self.history = collections.deque(maxlen=REMEMBERED)  # Creates, Clones and Deletes that were answered
        self.failures = []
        self.is_lost = False  # the server
        self.awaited = None  # a method, whose next call sets:
        self.sent = threading.Event()

    def next_call(self, method, request, allowed=()):
        number = next(self.numbers)
        request.request_id = f"request-{number}"
        return Call(number, method, request, allowed=allowed)


class Client(threading.Thread):
    def __init__(self, world, stub, seed):
        super().__init__(daemon=True)
        self.world, self.stub = world, stub
        self.random, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.acknowledged = self.repeated = 0
        self.actions = {
            self.train: 26, self.train_with_running: 10, self.shadow: 10, self.by_mode: 8, self.read: 8, self.set_mode: 7,
            self.set_parameters: 6, self.snapshot: 7, self.restore: 4, self.delete_snapshot: 4, self.clone: 4,
            self.create: 5, self.delete: 3, self.ask_for_nonsense: 4}

    def run(self):
        try:
            while not (self.world.is_lost or self.world.failures):
                self.random.choices(list(self.actions), self.actions.values())[0]()
        except Lost:
            pass
        except Exception as failure:  # pylint: disable=broad-except
            self.world.failures.append(failure)

    def chance(self, probability):
        return self.random.random() < probability

    # ---- Calls

    def ask(self, call, session=None):
        """Sends `call`, at times twice at once, until its outcome is known; then, at times, repeats it."""
        if self.world.awaited == call.method:
            self.world.sent.set()
        # One that follows the session's mode may change nothing, and then its copy is another call.
        follows_mode = call.method == "Forward" and not (call.request.mode or call.request.update)
        for _ in range(3):
            self._send(call, session, copies=2 if self.chance(0.06) and not follows_mode else 1)
            if call.error is None or call.error[1] != "LINEAGE_CHANGED" or self.chance(0.5):
                break
            call.error = None  # safe to repeat, says the contract
        if call.error is not None:
            if not may_fail(call, call.error, session):
                raise Contradiction(f"{call}: nothing explains it")
            return None
        if call.is_change:
            self.acknowledged += 1
            if self.chance(0.15):
                repeat(self.stub, call, session)
                self.repeated += 1
            if self.chance(0.07):
                reuse_id(self.stub, call, session)
        return call.reply

    def _send(self, call, session, copies):
        futures = [getattr(self.stub, call.method).future(call.request, timeout=CALL_SECONDS) for _ in range(copies)]
        replies, errors, lost = [], [], None
        for future in futures:
            try:
                replies.append(future.result())
            except grpc.RpcError as error:
                try:
                    errors.append(_known(error))
                except Lost as unknown:
                    lost = unknown
        if replies:
            call.reply = replies[0]
            if replies[-1] != replies[0] or not all(may_fail(call, error, session) for error in errors):
                raise Contradiction(f"{call}: two copies sent at once were answered {replies} {errors}")
        elif lost is not None:
            self.world.is_lost = True  # before the session's lock is given to another
            raise lost
        else:
            call.error = errors[0]

    # ---- Sessions

    def pick(self):
        with self.world.lock:
            among = self.world.sessions
            among = among[:4] if self.chance(0.5) else among
            return self.random.choice(among)

    def change(self, session, method, request, allowed=()):
        """One change of `session`: logged, sent, and its generation noted."""
        request.name = session.name
        if session.is_guarded:
            request.expected_uid = session.uid
        if self.chance(0.05) and request.DESCRIPTOR.name != "ForwardRequest":
            request.expected_generation = session.newest
            allowed = (*allowed, "GENERATION_MISMATCH")
        if self.world.is_lost:
            raise Lost
        call = self.world.next_call(method, request, allowed)
        session.calls.append(call)
        reply = self.ask(call, session)
        if reply is not None:
            with self.world.lock:
                session.newest = max(session.newest, call.told)
        return reply

    def parameters(self, num_features):
        def vector():
            return self.numbers.normal(1, 1, num_features).astype("<f4") if self.chance(0.7) else []
        return statistics_pb2.Parameters(weight=vector(), bias=vector())

    def create(self):
        with self.world.lock:
            if len(self.world.sessions) >= MAX_SESSIONS:
                return
            reused = self.world.free_names and self.chance(0.5)
            name = self.world.free_names.pop() if reused else f"crash/{next(self.world.numbers)}"
        self.open(name, self.random.choice((1, 3, 8, 40)))

    def open(self, name, num_features, durability=None):
        if durability is None:
            durability = self.random.choices([session_pb2.DURABILITY_UNSPECIFIED, session_pb2.DURABILITY_FLUSH,
                                              session_pb2.DURABILITY_NONE], [5, 4, 1])[0]
        config = session_pb2.SessionConfig(num_features=num_features, durability=durability,
                                           labels={"round": str(self.world.round), "words": "a b"})
        averaging = self.random.randrange(4)
        if averaging == 1:
            config.momentum = self.random.random()
        elif averaging == 2:
            config.cumulative.SetInParent()
        elif averaging == 3:
            config.zero_debiased.momentum = 0.25
        if self.chance(0.3):
            config.convention = session_pb2.CONVENTION_KERAS
        request = pb.CreateSessionRequest(name=name, config=config, mode=self.random.choice((TRAIN, TRAIN, EVAL, SHADOW)),
                                          parameters=self.parameters(num_features))
        if self.chance(0.5):
            request.statistics.running_mean.extend(self.numbers.normal(size=num_features))
            request.statistics.running_var.extend(self.numbers.random(num_features) + 0.5)
            request.statistics.num_batches_tracked = self.random.randrange(5)
        return self._opened("CreateSession", request)

    def clone(self):
        with self.world.lock:
            sessions = [session for session in self.world.sessions if session.deletion is None]
            if len(self.world.sessions) >= MAX_SESSIONS or not sessions:
                return
            origin = self.random.choice(sessions)
            origin.cloned_in = self.world.round
            first = origin.newest
        request = pb.CloneSessionRequest(name=origin.name, clone_name=f"clone/{next(self.world.numbers)}")
        if origin.is_guarded:
            request.expected_uid = origin.uid
        if self.chance(0.3):
            request.expected_generation = first
            self._opened("CloneSession", request, Source(origin, first, first), ("GENERATION_MISMATCH",))
        else:
            self._opened("CloneSession", request, Source(origin, first, None))

    def _opened(self, method, request, source=None, allowed=()):
        call = self.world.next_call(method, request, allowed)
        opening = (call, source)
        self.world.openings.append(opening)
        reply = self.ask(call)
        session = reply and Session(call, source)
        with self.world.lock:
            self.world.openings.remove(opening)
        if session is None:
            return None
        try:
            # Of a clone: which state of its source it has, before anybody changes it.
            self._read(session)
        finally:
            with self.world.lock:
                self.world.sessions.append(session)
                if session.is_durable:
                    self.world.history.append(call)
        return session

    def delete(self):
        with self.world.lock:
            sessions = [session for session in self.world.sessions[4:]
                        if session.deletion is None and session.cloned_in != self.world.round and not session.is_kept]
            if not sessions or len(self.world.sessions) < MAX_SESSIONS // 2:
                return
            session = self.random.choice(sessions)
            request = pb.DeleteSessionRequest(name=session.name)
            if session.is_guarded:
                request.expected_uid = session.uid
            session.deletion = self.world.next_call("DeleteSession", request)
        self.ask(session.deletion, session)
        with self.world.lock:
            end(self.world, session)

    # ---- Changes of one session

    def batch(self, session):
        shape = [self.random.randint(2, 5), session.num_features]
        if session.num_features < WIDE:
            shape += [self.random.randint(1, 4) for _ in range(self.random.randrange(3))]
        values = self.numbers.normal(self.random.uniform(-2, 2), self.random.uniform(0.1, 3), shape)
        values = values.astype("<f2" if self.chance(0.1) else "<f4")
        if self.chance(0.2):
            return tensor(np.moveaxis(values, 1, -1), tensor_pb2.LAYOUT_CHANNELS_LAST)
        return tensor(values)

    def forward(self, session, **fields):
        self.change(session, "Forward",
                    pb.ForwardRequest(return_batch_moments=True, input=self.batch(session), **fields))

    def train(self):
        self.forward(self.pick(), mode=TRAIN)

    def train_with_running(self):
        self.forward(self.pick(), running=pb.UseRunning(), update=pb.UPDATE_RUNNING)

    def shadow(self):
        session = self.pick()
        with session.aside:
            if self.chance(0.7):
                self.forward(session, mode=SHADOW)
            else:
                self.forward(session, batch=pb.UseBatch(), update=pb.UPDATE_SHADOW)

    def by_mode(self):
        session = self.pick()
        with session.aside:  # which may be SHADOW
            self.forward(session)

    def read(self):
        """Nobody may see what a crash could still take back."""
        self._read(self.pick())

    def _read(self, session):
        request = pb.GetSessionRequest(name=session.name, view=session_pb2.SESSION_VIEW_FULL)
        reply, _ = call_once(self.stub, "GetSession", request)
        if reply is not None and reply.uid == session.uid:
            session.calls.append(Call(next(self.world.numbers), "GetSession", request, reply))

    def set_mode(self):
        self.change(self.pick(), "SetMode", pb.SetModeRequest(mode=self.random.choice((TRAIN, EVAL, SHADOW))))

    def set_parameters(self):
        session = self.pick()
        parameters = self.parameters(session.num_features)
        if parameters.weight or parameters.bias:
            self.change(session, "SetParameters", pb.SetParametersRequest(parameters=parameters))

    def snapshot(self):
        session = self.pick()
        with session.aside:
            name = f"snapshot-{self.random.randrange(6)}"
            if name in session.snapshots:
                self.change(session, "SnapshotState", pb.SnapshotStateRequest(snapshot=name), ("SNAPSHOT_EXISTS",))
            elif self.change(session, "SnapshotState", pb.SnapshotStateRequest(snapshot=name)) is not None:
                session.snapshots.append(name)

    def restore(self):
        session = self.pick()
        with session.aside:
            if session.snapshots:
                self.change(session, "RestoreState", pb.RestoreStateRequest(snapshot=self.random.choice(session.snapshots)))

    def delete_snapshot(self):
        session = self.pick()
        with session.aside:
            if session.snapshots:
                name = self.random.choice(session.snapshots)
                if self.change(session, "DeleteSnapshot", pb.DeleteSnapshotRequest(snapshot=name)) is not None:
                    session.snapshots.remove(name)

    def ask_for_nonsense(self):
        session = self.pick()
        kind = self.random.randrange(4)
        if kind == 0:
            self.change(session, "RestoreState", pb.RestoreStateRequest(snapshot="absent"), ("SNAPSHOT_NOT_FOUND",))
        elif kind == 1:
            parameters = statistics_pb2.Parameters(bias=[1] * (session.num_features + 1))
            self.change(session, "SetParameters", pb.SetParametersRequest(parameters=parameters), ("INVALID_FIELD",))
        elif kind == 2:
            values = np.full((2, session.num_features), np.nan, "<f4")
            self.change(session, "Forward", pb.ForwardRequest(mode=TRAIN, input=tensor(values)), ("NON_FINITE",))
        else:
            request = pb.CreateSessionRequest(name=self.world.sessions[0].name,
                                              config=session_pb2.SessionConfig(num_features=2))
            call = self.world.next_call("CreateSession", request, ("SESSION_EXISTS",))
            if self.ask(call) is not None:
                raise Contradiction(f"{call}: there is a session of this name")


def end(world, session):
    """Notes that `session` is deleted; under the world's lock once there are clients."""
    world.sessions.remove(session)
    world.ended.append(session)
    if session.is_durable:
        world.history.append(session.deletion)
    if session.is_guarded:
        world.free_names.append(session.name)


def may_fail(call, error, session=None):
    """Whether a call may get this error for another reason than that it is wrong."""
    if error[1] in call.allowed or (call.method == "Forward" and error[1] == "LINEAGE_CHANGED"):
        return True
    return session is not None and session.deletion not in (None, call) and error[1] in LATER


def repeat(stub, call, session=None):
    """The same request again gets the same answer, to the last bit of a Forward's output."""
    reply, error = call_once(stub, call.method, call.request)
    if error is not None:
        is_wide = session is not None and session.num_features == WIDE
        if (is_wide and error[1] == "ANSWER_DROPPED") or may_fail(call, error, session):
            return
        raise Contradiction(f"{call}: repeated, it got {error}")
    if reply != call.reply:
        raise Contradiction(f"{call}: first answered\n{call.reply}\nrepeated\n{reply}")


def reuse_id(stub, call, session=None):
    """The same id with another payload is refused."""
    request = type(call.request).FromString(call.request.SerializeToString())
    if call.method == "Forward":
        request.input.data = bytes([request.input.data[0] ^ 1]) + request.input.data[1:]
    elif call.method == "SetMode":
        request.mode = request.mode % 3 + 1
    elif call.method == "SetParameters":
        vector = request.parameters.weight or request.parameters.bias
        vector[-1] += 1
    elif call.method == "CreateSession":
        request.config.num_features = 2
        request.ClearField("parameters")
        request.ClearField("statistics")
        request.config.labels["other"] = "payload"
    elif call.method == "CloneSession":
        request.clone_name += "-other"
    elif call.method == "DeleteSession":
        request.expected_generation = 1 << 40
    else:
        request.snapshot += "-other"
    reply, error = call_once(stub, call.method, request)
    if error != ("INVALID_ARGUMENT", "REQUEST_ID_REUSED") and not (error and may_fail(call, error, session)):
        raise Contradiction(f"{call}: another payload with its id got {error or reply}")
