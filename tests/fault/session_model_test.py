"""The model agrees with numbers worked out by hand, and says no to every lie about a session that crash_test.py must find."""

import copy
import unittest

import numpy as np

from server_process import pb, session_pb2, statistics_pb2
from session_model import (EVAL, SHADOW, TRAIN, Call, Content, Contradiction, Moments, Sighting, first_state, judge,
                           judge_deleted, merge)

CREATE = pb.CreateSessionRequest(config=session_pb2.SessionConfig(num_features=1, momentum=0.5))
TOLD = session_pb2.SessionConfig(num_features=1, momentum=0.5, running_variance=session_pb2.RUNNING_VARIANCE_UNBIASED)


def forward(number, generation, batches, mean, m2, count=3, update=pb.UPDATE_RUNNING):
    moments = statistics_pb2.Moments(count=count, mean=[mean], m2=[m2])
    return Call(number, "Forward", pb.ForwardRequest(request_id=str(number)),
                pb.ForwardReply(generation=generation, num_batches_tracked=batches, update=update, batch_moments=moments))


def described(generation, batches, mode=TRAIN):
    return session_pb2.Session(generation=generation, num_batches_tracked=batches, mode=mode)


def kept(generation, batches):
    return session_pb2.Snapshot(generation=generation, num_batches_tracked=batches)


def log():
    """By generation: 1 and 2 batches, 3 other parameters, 4 EVAL, 5 back to the snapshot of 2, 6 one more batch."""
    return [
        forward(1, 1, 1, mean=2, m2=6),
        forward(3, 2, 2, mean=3, m2=2),
        forward(4, 2, 2, mean=1, m2=4, count=2, update=pb.UPDATE_SHADOW),
        Call(5, "SnapshotState", pb.SnapshotStateRequest(snapshot="s"), pb.SnapshotStateReply(snapshots=[kept(2, 2)])),
        Call(6, "SetParameters", pb.SetParametersRequest(parameters={"weight": [7]}), described(3, 2)),
        Call(7, "SetMode", pb.SetModeRequest(mode=EVAL), pb.SetModeReply(sessions=[described(4, 2, EVAL)])),
        Call(8, "RestoreState", pb.RestoreStateRequest(snapshot="s"), pb.RestoreStateReply(sessions=[described(5, 2)])),
        forward(9, 6, 3, mean=4, m2=0),
        forward(10, 6, 3, mean=3, m2=4, count=2, update=pb.UPDATE_SHADOW),
        Call(11, "SetMode", pb.SetModeRequest(mode=EVAL), error=("ABORTED", "GENERATION_MISMATCH")),
    ]


BEGINNING = Content(0, first_state(CREATE))


def sighting():
    # mean 0, 1, 2, and 3 after the restore; variance 1, (1 + 3) / 2, (2 + 1) / 2, and 1.5 / 2.
    state = BEGINNING.state._replace(mean=np.array([3.0]), variance=np.array([0.75]), batches=3)
    shadow = Moments(4, np.array([2.0]), np.array([12.0]))  # 4 + 4 + 2² · 2 · 2 / 4
    return Sighting(6, state, shadow, {"s": (2, 2)})


def lost(calls, number):
    """The server died with the answer on its way; `number` was answered when repeated."""
    return [call for call in calls if call.number != number], [call for call in calls if call.number == number]


class Model(unittest.TestCase):
    def test_what_is_told_truly_is_accepted(self):
        judged = judge(TOLD, [BEGINNING], log(), [], sighting())
        self.assertEqual(sorted(judged.states), list(range(7)))
        self.assertEqual(judged.states[3].weight, [7])
        self.assertEqual(judged.content.snapshots["s"].state.mean, [2])

    def test_averages_and_variances_are_the_servers(self):
        for config, expected in (({"momentum": 0.25}, (0.5, 1.5)), ({"cumulative": {}}, (2 / 3, 5 / 3)),
                                 ({"zero_debiased": {"momentum": 1}}, (2, 3)),
                                 ({"momentum": 0.5, "running_variance": session_pb2.RUNNING_VARIANCE_BIASED}, (1, 1.5))):
            first = BEGINNING.state._replace(batches=2 if "cumulative" in config else 0)
            state = first._replace(mean=np.array([expected[0]], "<f8"),
                                       variance=np.array([expected[1]], "<f8"), batches=first.batches + 1)
            with self.subTest(config):
                judge(session_pb2.SessionConfig(**config), [Content(0, first)],
                      [forward(1, 1, state.batches, mean=2, m2=6)], [], Sighting(1, state, None, {}))

    def test_moments_merge(self):
        one, other = Moments(1, np.array([0.0]), np.array([0.0])), Moments(3, np.array([4.0]), np.array([2.0]))
        self.assertEqual(merge(one, other), (4, 3, 14))
        self.assertIs(merge(None, other), other)

    def test_every_lie_is_found(self):
        def without(number):
            return lambda calls, seen: calls.remove(next(call for call in calls if call.number == number))

        def twice(calls, seen):
            calls.append(forward(12, 6, 3, mean=4, m2=0))

        def shown(**fields):
            return lambda calls, seen: seen.__dict__.update(fields)

        def shown_state(**fields):
            return lambda calls, seen: seen.__dict__.update(state=seen.state._replace(**fields))

        def read(calls, seen):
            # What was shown to somebody and then lost.
            calls.append(Call(12, "GetSession", pb.GetSessionRequest(), described(7, 4)))

        mean = np.array([3.0])
        lies = {
            "an acknowledged batch is lost": shown(generation=5, state=sighting().state._replace(
                mean=np.array([2.0]), variance=np.array([1.5]), batches=2)),
            "a batch is there twice": shown(generation=7, state=sighting().state._replace(
                mean=np.array([3.5]), variance=np.array([0.375]), batches=4)),
            "a batch is half there: no generation": shown(generation=5),
            "a batch is half there: no statistics": shown_state(mean=np.array([2.0]), variance=np.array([1.5])),
            "a batch is half there: no variance": shown_state(variance=np.array([1.5])),
            "a batch is half there: not counted": shown_state(batches=2),
            "a bit is wrong": shown_state(mean=np.nextafter(mean, 4)),
            "a restore left the parameters": shown_state(weight=np.array([7], "<f4")),
            "a restore left the mode": shown_state(mode=EVAL),
            "a generation is nobody's": without(6),
            "two changes have one generation": twice,
            "the last change is nobody's": without(9),
            "a shadow batch is lost": shown(shadow=Moments(2, np.array([1.0]), np.array([4.0]))),
            "the shadow is lost": shown(shadow=None),
            "a shadow batch is nobody's": without(10),
            "a snapshot is lost": shown(snapshots={}),
            "a snapshot came back": shown(snapshots={"s": (2, 2), "t": (2, 2)}),
            "a snapshot is of another generation": shown(snapshots={"s": (3, 2)}),
            "a snapshot was restored that there was not": without(5),
            "a read showed what was lost": read,
        }
        for name, lie in lies.items():
            calls, seen = log(), sighting()
            lie(calls, seen)
            with self.subTest(name), self.assertRaises(Contradiction):
                judge(TOLD, [BEGINNING], calls, [], seen)

    def test_what_was_unknown_may_have_been_there_or_not_but_not_half(self):
        for number in (9, 10):
            calls, late = lost(log(), number)
            with self.subTest(number):
                self.assertEqual(judge(TOLD, [BEGINNING], calls, late, sighting()).took_place, late)
        # The repeat made it: what was seen before had nothing of it.
        calls, late = lost(log()[:-2], 9)
        before = copy.copy(sighting())
        before.generation, before.shadow = 5, Moments(2, np.array([1.0]), np.array([4.0]))
        before.state = before.state._replace(mean=np.array([2.0]), variance=np.array([1.5]), batches=2)
        self.assertEqual(judge(TOLD, [BEGINNING], calls, late, before).took_place, [])
        before.state = before.state._replace(batches=3)
        with self.assertRaises(Contradiction):
            judge(TOLD, [BEGINNING], calls, late, before)

    def test_a_shadow_that_began_anew_is_empty(self):
        anew = Call(12, "SetMode", pb.SetModeRequest(mode=SHADOW), pb.SetModeReply(sessions=[described(7, 3, SHADOW)]))
        calls = log() + [anew]
        seen = sighting()
        seen.generation, seen.shadow, seen.state = 7, None, seen.state._replace(mode=SHADOW)
        # Also where the shadow batch before it was unknown and left no trace.
        for number in (10, 0):
            judge(TOLD, [BEGINNING], *lost(calls, number), seen)
        seen.shadow = sighting().shadow
        with self.assertRaises(Contradiction):
            judge(TOLD, [BEGINNING], calls, [], seen)

    def test_of_a_deleted_session_every_answered_change_was_there(self):
        judge_deleted(TOLD, [BEGINNING], log(), 0, 6)
        judge_deleted(TOLD, [BEGINNING], log(), 1, 7)
        judge_deleted(TOLD, [BEGINNING], lost(log(), 7)[0], 1, 6)
        for calls, num_late, last in ((log(), 0, 5), (log(), 0, 7), (log(), 1, 8), (lost(log(), 7)[0], 0, 6)):
            with self.assertRaises(Contradiction):
                judge_deleted(TOLD, [BEGINNING], calls, num_late, last)

    def test_a_clone_is_one_of_what_its_source_was(self):
        other = Content(0, BEGINNING.state._replace(bias=np.array([1], "<f4")))
        self.assertEqual(judge(TOLD, [other, BEGINNING], log(), [], sighting()).states[0].bias, [0])
        for bases in ([other], []):
            with self.assertRaises(Contradiction):
                judge(TOLD, bases, log(), [], sighting())


if __name__ == "__main__":
    unittest.main()
