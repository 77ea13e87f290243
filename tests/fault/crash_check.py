"""What is checked of a restarted server against the log that its clients kept."""

import contextlib
import random

from server_process import pb, session_pb2
from crash_client import LATER, REMEMBERED, Session, Source, call_once, end, may_fail, repeat, reuse_id
from session_model import Call, Content, Contradiction, Moments, Sighting, State, first_state, judge, judge_deleted


class Counts:
    """What is printed at the end."""

    def __init__(self):
        self.kills = self.kills_while_starting = self.stops = self.acknowledged = 0
        self.unknown = self.applied = self.undecided = self.repeats = self.snapshots = 0

    def __str__(self):
        return (f"{self.kills} kills under load, {self.kills_while_starting} while starting and {self.stops} stops; "
                f"{self.acknowledged} changes acknowledged; {self.unknown} outcomes unknown, of which {self.applied} had been "
                f"applied and {self.undecided} were of sessions deleted since; "
                f"{self.repeats} repeats of acknowledged changes and {self.snapshots} snapshots checked")


@contextlib.contextmanager
def log_of(session):
    """Shows the session's log with what contradicts it."""
    try:
        yield
    except Contradiction as found:
        lines = [f"{session.name}: {found}", f"opened by {session.opening}, confirmed at "
                 f"{session.confirmed and session.confirmed.generation}, calls of this round:", *map(str, session.calls)]
        raise Contradiction("\n  ".join(lines)) from found


class AfterCrash:
    """One check. Whatever was unknown before is known afterwards."""

    def __init__(self, world, stub, seed, counts):
        self.world, self.stub, self.counts = world, stub, counts
        self.random = random.Random(seed)
        self.first, self.second = {}, {}  # by Session: what was seen before and after all repeats
        self.restored = {}  # by Session: a restore of this check's own

    def run(self):
        self._forget_what_was_not_durable()
        listed = self._list()
        self._repeat_openings(listed)
        self._look_at_what_must_be_there(listed)
        for session in self.first:
            with log_of(session):
                self._repeat_calls(session)
                self.second[session] = self._look(session)
        for session in sorted((*self.first, *self.world.ended), key=lambda session: session.opening.number):
            with log_of(session):
                self._judge(session)
        for session in list(self.first):
            if session.deletion is not None:
                self._repeat_deletion(session)
        self._repeat_history()
        self._look_for_what_is_gone()
        for session in self.world.sessions:
            session.calls.clear()
        self.world.ended.clear()

    def _call(self, method, request):
        reply, error = call_once(self.stub, method, request)
        if error is not None:
            raise Contradiction(f"{method} {request.name}: {error}")
        return reply

    # ---- What is there

    def _forget_what_was_not_durable(self):
        fleeting = [session for session in self.world.sessions if not session.is_durable]
        for session in fleeting:
            self.world.sessions.remove(session)
        self.world.ended = [session for session in self.world.ended if session.is_durable]
        if fleeting:
            # Nothing of it is left, not even that it was asked for.
            session = self.random.choice(fleeting)
            if session.opening.method == "CreateSession":
                again = Call(session.opening.number, "CreateSession", session.opening.request)
                again.reply = self._call("CreateSession", again.request)
                if again.reply.uid == session.uid:
                    raise Contradiction(f"{session.name} lived in memory only and has the uid it had before the crash")
                self.world.sessions.append(Session(again))

    def _list(self):
        sessions, token = {}, ""
        while True:
            page = self.stub.ListSessions(pb.ListSessionsRequest(page_size=7, page_token=token))
            sessions.update((session.name, session) for session in page.sessions)
            token = page.next_page_token
            if not token:
                break
        if self.stub.GetServerInfo(pb.GetServerInfoRequest()).num_sessions != len(sessions):
            raise Contradiction("ListSessions and GetServerInfo disagree")
        # What this check opened itself.
        return {name: session for name, session in sessions.items() if session.durability != session_pb2.DURABILITY_NONE
                or name not in {ours.name for ours in self.world.sessions if not ours.is_durable}}

    def _look_at_what_must_be_there(self, listed):
        expected = set()
        for session in [session for session in self.world.sessions if session.is_durable]:
            expected.add(session.name)
            if session.name not in listed:
                if session.deletion is None:
                    raise Contradiction(f"{session.name} is gone, and nobody deleted it")
                self._repeat_deletion(session, was_there=False)
                continue
            if session not in self.first:
                self.first[session] = self._look(session, listed[session.name])
        if not set(listed) <= expected:
            raise Contradiction(f"{set(listed) - expected} came back or nobody asked for it")

    def _look(self, session, listed=None):
        name = session.name
        full = self._call("GetSession", pb.GetSessionRequest(name=name, view=session_pb2.SESSION_VIEW_FULL))
        first = session.opening.reply
        for field in ("uid", "config", "create_time", "durability"):
            if getattr(full, field) != getattr(first, field):
                raise Contradiction(f"{name}: {field} is {getattr(full, field)}, it was {getattr(first, field)}")
        statistics = self._call("GetStats", pb.GetStatsRequest(name=name, return_shadow=True)).sessions[0]
        if (statistics.statistics != full.statistics or statistics.generation != full.generation or
                statistics.mode != full.mode):
            raise Contradiction(f"{name}: GetStats and GetSession disagree")
        snapshots = self._call("ListSnapshots", pb.ListSnapshotsRequest(name=name)).snapshots
        if full.num_snapshots != len(snapshots) or any(snapshot.uid != full.uid for snapshot in snapshots):
            raise Contradiction(f"{name}: ListSnapshots and GetSession disagree")
        sighting = Sighting(full.generation, State.of(full), Moments.of(statistics.shadow),
                            {snapshot.snapshot: (snapshot.generation, snapshot.num_batches_tracked) for snapshot in snapshots})
        basic = session_pb2.Session.FromString(full.SerializeToString())
        basic.ClearField("parameters")
        basic.ClearField("statistics")
        if listed is not None and listed != basic:
            raise Contradiction(f"ListSessions shows\n{listed}\nGetSession\n{basic}")
        return sighting

    # ---- Repeats

    def _repeat(self, call, session=None):
        """Asks once more for what has no answer yet."""
        call.reply, call.error = call_once(self.stub, call.method, call.request)
        if call.error is not None and not may_fail(call, call.error, session):
            raise Contradiction(f"{call}: repeated after the restart")

    def _repeat_openings(self, listed):
        """Before anything else changes: what a clone can have copied is what is there now, or was before."""
        for call, source in self.world.openings:
            is_clone = call.method == "CloneSession"
            name = call.request.clone_name if is_clone else call.request.name
            was_there = name in listed
            if is_clone and not source.session.is_durable:
                if was_there:
                    raise Contradiction(f"{name} was cloned from what lived in memory only, and is there")
                continue
            self.counts.unknown += 1
            self.counts.applied += was_there
            if is_clone and not was_there:
                source = Source(source.session, None, None)  # as of now
            self._repeat(call)
            if call.reply is None:
                if was_there:
                    raise Contradiction(f"{call}: it is there")
                continue
            session = Session(call, source)
            if was_there and (not session.is_durable or session.uid != listed[name].uid):
                raise Contradiction(f"{call}: there was a session of uid {listed[name].uid}, durable or not")
            self.world.sessions.append(session)
            if session.is_durable:
                self.world.history.append(call)
                listed.setdefault(name, call.reply)
        self.world.openings.clear()

    def _repeat_calls(self, session):
        late = [call for call in session.calls if call.is_unknown]
        self.random.shuffle(late)
        session.late = list(late)
        for call in late:
            # Not may_fail's: nobody else is there that could have come in between.
            call.reply, call.error = call_once(self.stub, call.method, call.request)
            if call.error is not None and call.error[1] not in call.allowed:
                raise Contradiction(f"{call}: repeated after the restart")
        history = [*session.history, *(call for call in session.calls if call not in late and call.is_change)]
        history = history[-REMEMBERED:]
        for call in self.random.sample(history, min(4, len(history))):
            repeat(self.stub, call, session)
            self.counts.repeats += 1
        if history and self.random.random() < 0.3:
            reuse_id(self.stub, self.random.choice(history))
        if session.snapshots and self.random.random() < 0.4:
            self._restore(session)

    def _restore(self, session):
        """The only way to see what is in a snapshot."""
        there = self._call("ListSnapshots", pb.ListSnapshotsRequest(name=session.name)).snapshots
        if there:
            request = pb.RestoreStateRequest(name=session.name, snapshot=self.random.choice(there).snapshot)
            if session.is_guarded:
                request.expected_uid = session.uid
            call = self.world.next_call("RestoreState", request)
            self._repeat(call)
            self.restored[session] = call
            self.counts.snapshots += 1

    def _repeat_deletion(self, session, was_there=True):
        self.counts.unknown += 1
        self.counts.applied += not was_there
        self._repeat(session.deletion)
        if session.deletion.reply.sessions[0].uid != session.uid:
            raise Contradiction(f"{session.deletion}: another session was deleted")
        if was_there and session.deletion.told != session.confirmed.generation:
            raise Contradiction(f"{session.deletion}: it was at {session.confirmed.generation}")
        end(self.world, session)

    def _repeat_history(self):
        for call in self.random.sample(list(self.world.history), min(6, len(self.world.history))):
            repeat(self.stub, call)
            reuse_id(self.stub, call)
            self.counts.repeats += 1

    # ---- Judgement

    def _bases(self, session):
        """What it can have begun this round as."""
        if session.confirmed is not None:
            return [session.confirmed]
        source = session.source
        if source is None:
            return [Content(0, first_state(session.opening.request))]
        states = source.session.states
        now = self.first[source.session].generation
        first = now if source.first is None else source.first
        last = now if source.last is None else source.last
        return [Content(0, states[generation]) for generation in range(last, first - 1, -1) if generation in states]

    def _judge(self, session):
        bases = self._bases(session)
        if session not in self.first:
            self._judge_deleted(session, bases)
            return
        late = session.late
        calls = [call for call in session.calls if call not in late]
        judged = judge(session.config, bases, calls, late, self.first[session])
        done = [call for call in late if call.reply is not None]
        self.counts.unknown += len(done)
        self.counts.applied += len(judged.took_place)
        ours = [self.restored[session]] if session in self.restored else []
        after = [call for call in done if call not in judged.took_place] + ours
        session.states = judged.states
        judged = judge(session.config, [judged.content], after, [], self.second[session])
        session.confirmed = judged.content
        session.newest = judged.content.generation
        session.snapshots = list(judged.content.snapshots)
        session.history.extend(call for call in (*calls, *done, *ours) if call.is_change)

    def _judge_deleted(self, session, bases):
        late = [call for call in session.calls if call.is_unknown]
        self.counts.unknown += len(late)
        self.counts.undecided += len(late)
        judge_deleted(session.config, bases, session.calls, len(late), session.deletion.told)
        for call in late:
            _, error = call_once(self.stub, call.method, call.request)
            if error is None or error[1] not in LATER:
                raise Contradiction(f"{call}: the session is deleted, and it got {error}")

    def _look_for_what_is_gone(self):
        self.world.gone += self.world.ended
        for session in self.random.sample(self.world.gone, min(8, len(self.world.gone))):
            reply, error = call_once(self.stub, "GetSession", pb.GetSessionRequest(name=session.name))
            if error not in (None, ("NOT_FOUND", "SESSION_NOT_FOUND")) or (reply is not None and reply.uid == session.uid):
                raise Contradiction(f"{session.name} was deleted: {error or reply}")
