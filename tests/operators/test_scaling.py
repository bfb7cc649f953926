"""The pool's size: invariants for any signals, then days in virtual time against what no controller can reach."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl_operator.scaling.controller import Memory, PoolLimits, resize, window_s
from golongrl_operator.scaling.signals import KV_FULL, Signals, read_signals
from support.pool_simulation import LOADS, Controlled, Hindsight, Load, World, simulate

LIMITS = PoolLimits(1, 100)
shares = st.none() | st.floats(0, 1)


@st.composite
def signals(draw: st.DrawFn, engines: int | None = None) -> Signals:
    count = draw(st.integers(0, 60)) if engines is None else engines
    ready = draw(st.integers(0, 70))
    return Signals(
        engines=count,
        ready=ready,
        wait_share=draw(shares),
        busy=draw(st.none() | st.floats(0, ready)),
        blocked=float(draw(st.integers(0, ready))),
        held=draw(st.integers(0, 300)),
        slots=draw(st.integers(1, 16)),
        step_s=draw(st.none() | st.floats(0, 1e5)),
        kv=draw(st.floats(0, ready)),
        kv_short=draw(st.integers(0, ready)),
        lost=draw(shares),
    )


times = st.none() | st.floats(0, 1e6)
memories = st.builds(Memory, st.none() | st.floats(0, 80), st.floats(0, 1), times, times, times, st.floats(0, 1))


@given(signals(), memories, st.integers(1, 30), st.integers(0, 30), st.floats(0, 1e6))
def test_whatever_is_said_the_size_is_within_the_limits(
    seen: Signals, memory: Memory, least: int, more: int, now: float
) -> None:
    size = resize(seen, PoolLimits(least, least + more), memory, now)
    assert least <= size.engines <= least + more


@given(signals(), memories, st.floats(0, 1e6))
def test_it_changes_in_bounded_steps_and_not_twice_at_once(seen: Signals, memory: Memory, now: float) -> None:
    limits = PoolLimits(0, 1000)
    size = resize(seen, limits, memory, now)
    assert abs(size.engines - seen.engines) <= max(1, seen.engines * 0.5)
    if size.engines != seen.engines:
        again = resize(replace(seen, engines=size.engines), limits, size.memory, now)
        assert again.engines == size.engines


@given(signals(), memories, st.floats(0, 1e6), st.sampled_from(["wait_share", "busy", "ready"]))
def test_what_is_not_known_changes_nothing(seen: Signals, memory: Memory, now: float, unknown: str) -> None:
    seen = replace(seen, **{unknown: 0 if unknown == "ready" else None})
    size = resize(seen, PoolLimits(0, 1000), memory, now)
    assert size.engines == seen.engines
    assert size.memory.need == memory.need


@given(signals(), memories, st.floats(0, 1e6))
def test_it_never_shrinks_below_the_groups_in_flight(seen: Signals, memory: Memory, now: float) -> None:
    size = resize(seen, PoolLimits(0, 1000), memory, now)
    if size.engines < seen.engines:
        assert size.engines * seen.slots >= seen.held
        assert size.engines * KV_FULL >= seen.kv * (1 - 1e-9)


@given(signals(), memories, st.floats(0, 1e6))
def test_it_does_not_grow_while_the_learner_waits_for_something_else(seen: Signals, memory: Memory, now: float) -> None:
    blocked = replace(seen, blocked=float(seen.ready))
    assert resize(blocked, PoolLimits(0, 1000), memory, now).engines <= seen.engines


def test_a_hungry_learner_gets_engines_until_the_limit() -> None:
    """With all engines busy and half its time lost, the learner needs twice as many."""
    memory, engines, now = Memory(), 4, 0.0
    for _ in range(40):
        now += 150
        share = max(0.0, 1 - engines / 8)
        size = resize(Signals(engines, engines, share, float(min(engines, 8))), PoolLimits(1, 7), memory, now)
        engines, memory = size.engines, size.memory
    assert engines == 7
    assert "at most 7" in size.reason


@pytest.mark.parametrize(
    ("extra", "grows"),
    [
        ({}, True),
        # Engines that still load will be there soon.
        ({"ready": 3}, False),
        ({"blocked": 4.0}, False),
        # Engines that only take weights would be more engines that only take weights.
        ({"lost": 0.9}, False),
        ({"lost": 0.2}, True),
    ],
)
def test_when_it_grows(extra: dict[str, Any], grows: bool) -> None:
    seen = replace(Signals(4, 4, 0.5, 4.0), **extra)
    memory = Memory(busy=4.0, wait=0.5, at=990.0, changed=500.0, lost=seen.lost or 0.0)
    assert (resize(seen, LIMITS, memory, 1000.0).engines > 4) is grows


def test_what_new_weights_cost_every_engine_is_not_shared_by_more() -> None:
    """Of 10 engines, each takes weights for a fifth of the time and generates for the rest; the learner waits for a
    fifth. Without the wait they would generate for three of the four remaining fifths."""
    size = resize(Signals(10, 10, 0.2, 10.0, lost=0.2), LIMITS, Memory(), 0.0)
    assert size.memory.need == pytest.approx(8 / 0.6)
    held = resize(Signals(10, 10, 0.2, 10.0, lost=None), LIMITS, size.memory, 15.0)
    assert held.memory.need == pytest.approx(8 / 0.6)


@pytest.mark.parametrize(("short", "engines"), [(0, 10), (5, 10), (6, 11)])
def test_full_caches_bring_an_engine_for_a_wait_that_is_otherwise_allowed(short: int, engines: int) -> None:
    memory = Memory(busy=10.0, wait=0.02, at=990.0, changed=500.0)
    assert resize(Signals(10, 10, 0.02, 10.0, kv_short=short), LIMITS, memory, 1000.0).engines == engines


@pytest.mark.parametrize(("kv", "engines"), [(1.0, 4), (5.0, 6), (7.3, 8)])
def test_caches_in_use_hold_engines(kv: float, engines: int) -> None:
    """Two engines would do, and half may go at a time; the groups' caches fill so many to nine tenths."""
    memory = Memory(busy=2.0, wait=0.0, at=990.0, low=0.0)
    assert resize(Signals(8, 8, 0.0, 2.0, step_s=20.0, kv=kv), LIMITS, memory, 1000.0).engines == max(engines, 4)


def test_a_lost_engine_does_not_hold_up_growth_without_end() -> None:
    seen = Signals(4, 3, 0.5, 3.0)
    memory = Memory(busy=3.0, wait=0.5, at=9990.0, changed=500.0)
    assert resize(seen, LIMITS, memory, 10_000.0).engines > 4


def test_it_shrinks_only_after_a_while() -> None:
    memory, now, found = Memory(busy=2.0, wait=0.0, at=0.0), 0.0, []
    for _ in range(30):
        now += 15
        size = resize(Signals(8, 8, 0.0, 2.0, step_s=20.0), LIMITS, memory, now)
        memory = size.memory
        found.append(size.engines)
        if size.engines != 8:
            break
    assert found[-1] == 4
    assert len(found) * 15 >= window_s(Signals(8, 8, step_s=20.0))


def picture(*services: dict[str, Any], leased: int = 0) -> dict[str, Any]:
    return {"queue": {"leased": leased}, "services": list(services)}


def beat(kind: str, name: str, age_s: float = 0.0, **fields: str) -> dict[str, Any]:
    return {"service": kind, "id": name, "age_s": age_s, "fields": fields}


LEARNER = beat("learner", "head", up_s="160.0", waited_s="40.0", step_s="30")
WORKS = beat("rollout", "a", phase="generating", groups="3", wait="")


@pytest.mark.parametrize(
    ("services", "last", "wait", "busy", "blocked", "ready"),
    [
        ((LEARNER, WORKS), "head 60.0 20.0", 0.2, 1.0, 0.0, 1),
        # The first look, another learner, a clock that went back, and no learner say nothing of its time.
        ((LEARNER, WORKS), "", None, 1.0, 0.0, 1),
        ((LEARNER, WORKS), "other 60.0 20.0", None, 1.0, 0.0, 1),
        ((LEARNER, WORKS), "head 200.0 20.0", None, 1.0, 0.0, 1),
        ((WORKS,), "head 60.0 20.0", None, 1.0, 0.0, 1),
        ((beat("learner", "head", doing="x"), WORKS), "head 60.0 20.0", None, 1.0, 0.0, 1),
        # Its first step waits in any case, but not for more than half an hour.
        (
            (beat("learner", "head", up_s="160", waited_s="40", step_s=""), WORKS),
            "head 60.0 20.0",
            None,
            1.0,
            0.0,
            1,
        ),
        ((beat("learner", "head", up_s="1860", waited_s="920", step_s=""), WORKS), "head 60.0 20.0", 0.5, 1.0, 0.0, 1),
        # Refused because enough is generated: idle. Waiting for rewards: neither idle nor short of engines.
        ((LEARNER, beat("rollout", "b", phase="waiting", groups="0", wait="full")), "head 60.0 20.0", 0.2, 0.0, 0.0, 1),
        ((LEARNER, beat("rollout", "b", phase="waiting", wait="reward")), "head 60.0 20.0", 0.2, 0.0, 1.0, 1),
        ((LEARNER, beat("rollout", "b", phase="adopting", wait="drain")), "head 60.0 20.0", 0.2, 1.0, 0.0, 1),
        # A worker that is silent is not there, and a silent learner neither.
        ((LEARNER, beat("rollout", "b", age_s=60.0, groups="3")), "head 60.0 20.0", 0.2, None, 0.0, 0),
        ((LEARNER | {"age_s": 60.0}, WORKS), "head 60.0 20.0", None, 1.0, 0.0, 1),
        ((LEARNER,), "head 60.0 20.0", 0.2, None, 0.0, 0),
    ],
)
def test_what_the_queue_says(
    services: tuple[dict[str, Any], ...], last: str, wait: float | None, busy: float | None, blocked: float, ready: int
) -> None:
    seen, _ = read_signals(picture(*services, leased=5), 4, 8, last)
    assert (seen.wait_share, seen.busy, seen.blocked, seen.ready) == (wait, busy, blocked, ready)
    assert (seen.engines, seen.slots, seen.held) == (4, 8, 5)


@pytest.mark.parametrize(
    ("fields", "kv", "short", "lost"),
    [
        ({"kv_use": "0.5", "kv_waiting": "3", "adoption_share": "0.25"}, 0.5, 0, 0.25),
        ({"kv_use": "0.95", "kv_waiting": "3", "adoption_share": "0.0"}, 0.95, 1, 0.0),
        ({"kv_use": "0.95", "kv_waiting": "0"}, 0.95, 0, None),
        # An engine that does not say is full, if it has groups.
        ({"kv_use": "", "kv_waiting": "", "adoption_share": "", "groups": "2"}, 1.0, 0, None),
        ({"groups": "0"}, 0.0, 0, None),
        ({"kv_use": "nonsense", "groups": "1", "adoption_share": "nonsense"}, 1.0, 0, None),
    ],
)
def test_what_workers_say_of_their_engines(fields: dict[str, str], kv: float, short: int, lost: float | None) -> None:
    seen, _ = read_signals(picture(LEARNER, beat("rollout", "a", **fields)), 4, 8, "")
    assert (seen.kv, seen.kv_short, seen.lost) == (kv, short, lost)


def test_losses_are_the_mean_of_those_who_know_them() -> None:
    workers = [
        beat("rollout", name, adoption_share=share) for name, share in zip("abc", ("0.1", "", "0.3"), strict=True)
    ]
    assert read_signals(picture(*workers), 4, 8, "")[0].lost == pytest.approx(0.2)


def test_a_silent_queue_says_nothing_and_keeps_the_counters() -> None:
    seen, counters = read_signals(None, 4, 8, "head 60.0 20.0")
    assert (seen.wait_share, seen.busy, counters) == (None, None, "head 60.0 20.0")


@pytest.mark.parametrize("name", LOADS)
def test_days_cost_at_most_five_percent_more_than_hindsight_and_train_at_least_95(name: str) -> None:
    """Hindsight knows the load, and has its engines at once."""
    world = World(LOADS[name], days=2.0)
    limits = PoolLimits(1, world.most)
    best = simulate(world, Hindsight(world, limits), start=9, instant=True)
    found = simulate(world, Controlled(limits), start=9)
    assert found.steps >= 0.95 * best.steps
    assert found.gpu_hours <= 1.05 * best.gpu_hours
    assert found.engine_hours <= 1.05 * best.engine_hours


def test_a_queue_that_often_gives_no_answer_costs_no_engines() -> None:
    world = World(LOADS["steady"], days=1.0, silent_share=0.3)
    limits = PoolLimits(1, world.most)
    best = simulate(world, Hindsight(world, limits), start=9, instant=True)
    found = simulate(world, Controlled(limits), start=9)
    assert found.steps >= 0.95 * best.steps
    assert found.engine_hours <= 1.1 * best.engine_hours


def test_a_steady_load_is_one_size() -> None:
    world = World(LOADS["steady"], days=2.0, deaths_a_day=0.0)
    found = simulate(world, Controlled(PoolLimits(1, world.most)), start=9)
    sizes = {moment.asked for moment in found.moments if moment.at > 6 * 3600}
    assert len(sizes) == 1


def test_a_load_that_doubles_is_followed_within_an_hour() -> None:
    world = World(lambda now: Load(20.0 if now < 6 * 3600 else 40.0, 300.0), days=0.5, deaths_a_day=0.0)
    found = simulate(world, Controlled(PoolLimits(1, world.most)), start=9)
    (after,) = [moment for moment in found.moments if moment.at == 7 * 3600]
    assert after.ready >= 0.9 * after.need


def test_engines_that_mostly_take_weights_do_not_multiply() -> None:
    world = World(lambda _: Load(20.0, 300.0, adopt_s=280.0), days=0.5, deaths_a_day=0.0)
    found = simulate(world, Controlled(PoolLimits(1, world.most)), start=4)
    assert max(moment.asked for moment in found.moments) < world.most
    assert "taking weights" in resize(Signals(4, 4, 0.3, 4.0, lost=0.6), LIMITS, Memory(), 0.0).reason
