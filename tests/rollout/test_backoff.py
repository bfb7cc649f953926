"""Whatever keeps weights out of an engine is tried again for as long as they are announced, at a bounded rate."""

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from golongrl.rollout.backoff import LONGEST_GROUP_S, LONGEST_S, Pause, Setbacks, Tries
from golongrl.rollout.weights.policy import AnnouncedWeights, Mode, Situation, Speed, decide

WAITING = Pause("waiting", "source", "the sender")
FAILED = Pause("quarantined", "quarantine", "400: no weights there")


def test_weights_are_tried_for_without_end_and_ever_less_often() -> None:
    tries, now = Tries(), 0.0
    for count in range(2000):
        assert tries.pause(now) is None
        tries.fail(now, FAILED)
        wait = min(LONGEST_S, 2.0 ** min(count, 9))
        assert tries.pause(now + wait - 0.1) == FAILED
        now += wait


def test_other_weights_and_another_engine_are_tried_at_once() -> None:
    tries = Tries()
    for _ in range(9):
        tries.fail(0.0, FAILED)
    assert tries.pause(1.0) == FAILED
    tries.reset()
    assert tries.pause(1.0) is None
    tries.fail(1.0, FAILED)
    assert tries.pause(2.0) is None, "the first pause is short again"


def test_it_says_what_was_said_last() -> None:
    tries = Tries()
    tries.fail(0.0, FAILED)
    tries.fail(1.0, WAITING)
    assert tries.pause(2.0) == WAITING
    over = Pause("idle", "stopped", "the run is over")
    tries.explain(over)
    assert tries.pause(2.0) == over
    assert tries.pause(3.0) is None, "the pause is as long, whatever is said"


@dataclass
class Engine:
    """What a worker believes of an engine, in ticks of a second: `decide` and `Tries`, and nothing else."""

    max_staleness: int
    announced: AnnouncedWeights | None
    held: AnnouncedWeights | None
    tries: Tries = field(default_factory=Tries)
    tried_at: list[int] = field(default_factory=list)

    def tick(self, now: int, outcome: str) -> None:
        """One look; `outcome` is what becomes of a try to take the weights now."""
        decision = decide(Situation(self.held, self.announced, self.max_staleness, "auto", (), Speed(), 0.0))
        if decision.mode is Mode.WAIT or self.tries.pause(now) is not None:
            return
        self.tried_at.append(now)
        if outcome == "taken":
            self.held = self.announced
            self.tries.reset()
            return
        if outcome == "unconfirmed":
            self.held = None
        self.tries.fail(now, WAITING if outcome == "missing" else FAILED)

    def hear(self, version: int) -> None:
        """Newer weights."""
        if self.announced is None or version > self.announced.version:
            self.announced = AnnouncedWeights(version, "a")
            self.tries.reset()


failures = st.sampled_from(["missing", "refused", "unconfirmed"])
events = st.tuples(failures, st.none() | st.integers(0, 9), st.sampled_from(["", "restart"]))
weights = st.none() | st.builds(AnnouncedWeights, st.integers(0, 9), st.sampled_from("ab"))


@given(st.integers(0, 2), weights, weights, st.lists(events, max_size=300))
def test_from_any_state_an_engine_is_adopted_soon_after_the_weights_can_be_had(
    max_staleness: int,
    announced: AnnouncedWeights | None,
    held: AnnouncedWeights | None,
    outage: list[tuple[str, int | None, str]],
) -> None:
    if held is not None and (announced is None or held.version > announced.version):
        held = None  # what was announced never falls below what was taken
    engine, now = Engine(max_staleness, announced, held), 0
    for outcome, version, event in outage:
        if version is not None:
            engine.hear(version)
        if event == "restart":
            engine.held = None
            engine.tries.reset()
        engine.tick(now, outcome)
        now += 1
    for _ in range(int(LONGEST_S) + 1):
        engine.tick(now, "taken")
        now += 1
    assert engine.held == engine.announced


@given(st.lists(failures, min_size=100, max_size=400))
def test_the_rate_of_tries_is_bounded_both_ways(outcomes: list[str]) -> None:
    engine = Engine(0, AnnouncedWeights(1, "a"), AnnouncedWeights(0, "a"))
    for now, outcome in enumerate(outcomes):
        engine.tick(now, outcome)
    gaps = [later - earlier for earlier, later in pairwise(engine.tried_at)]
    assert gaps == sorted(gaps)
    assert max(gaps) <= LONGEST_S
    assert len(outcomes) - engine.tried_at[-1] <= LONGEST_S
    assert len(engine.tried_at) <= 6 + len(outcomes) / LONGEST_S


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans()), min_size=1, max_size=60))
def test_a_failing_engine_is_asked_for_groups_for_ever(failed: list[tuple[float, bool]]) -> None:
    setbacks, now, ended = Setbacks(), 0.0, 0
    for later, success in failed:
        now += later
        ended += success
        setbacks.fail(now, ended, "500: out of memory")
        waits = setbacks.pause(now)
        assert waits is not None
        assert "500: out of memory" in waits.reason
        assert setbacks.pause(now + LONGEST_GROUP_S) is None
        if success:
            assert setbacks.pause(now + 0.25) is None, "an engine that did make a group is asked again soon"
