"""The adoption rule, as a table and as properties."""

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.rollout.weights.policy import (
    AnnouncedWeights,
    InFlight,
    Mode,
    Policy,
    Situation,
    Speed,
    decide,
    re_prefill_s,
    remaining_decode_s,
)

LONG = InFlight("long", oldest_version=3, prompt_tokens=160_000, generated_tokens=30_000, remaining_tokens=8_000)
SHORT = InFlight("short", oldest_version=3, prompt_tokens=90, generated_tokens=200, remaining_tokens=20)
FAST = Speed(decode_per_response=50.0, prefill=20_000.0)

NOW = Situation(
    engine=AnnouncedWeights(3, "a"),
    announced=AnnouncedWeights(4, "a"),
    max_staleness=1,
    policy="auto",
    in_flight=(),
    speed=FAST,
    deadline_s=1.0,
)


@pytest.mark.parametrize(
    ("now", "mode", "lease", "doomed"),
    [
        pytest.param(replace(NOW, announced=None), Mode.WAIT, False, (), id="nothing announced"),
        pytest.param(replace(NOW, announced=AnnouncedWeights(3, "a")), Mode.WAIT, True, (), id="already there"),
        pytest.param(
            replace(NOW, announced=AnnouncedWeights(2, "a")), Mode.WAIT, False, (), id="never to a lower version"
        ),
        pytest.param(
            replace(NOW, announced=AnnouncedWeights(2, "b")), Mode.WAIT, False, (), id="not even of another lineage"
        ),
        pytest.param(NOW, Mode.DRAIN, False, (), id="nothing in flight: at once"),
        pytest.param(replace(NOW, policy="in_place"), Mode.DRAIN, False, (), id="nothing in flight: any policy"),
        pytest.param(
            replace(NOW, engine=None, in_flight=(LONG, SHORT)),
            Mode.ABORT,
            False,
            ("long", "short"),
            id="unknown",
        ),
        pytest.param(replace(NOW, in_flight=(SHORT,)), Mode.DRAIN, False, (), id="auto: nearly done"),
        pytest.param(replace(NOW, in_flight=(SHORT,), deadline_s=0.1), Mode.RETRACT, False, (), id="auto: cheap"),
        pytest.param(replace(NOW, in_flight=(SHORT, LONG)), Mode.IN_PLACE, False, (), id="auto: costly"),
        pytest.param(replace(NOW, in_flight=(SHORT,), speed=Speed()), Mode.IN_PLACE, False, (), id="auto: unknown"),
        pytest.param(replace(NOW, in_flight=(LONG,), deadline_s=10.0), Mode.RETRACT, False, (), id="auto: time enough"),
        pytest.param(replace(NOW, in_flight=(LONG,), deadline_s=200.0), Mode.DRAIN, False, (), id="auto: all the time"),
        pytest.param(replace(NOW, in_flight=(LONG,), policy="drain"), Mode.DRAIN, False, (), id="policy drain"),
        pytest.param(replace(NOW, in_flight=(SHORT,), policy="retract"), Mode.RETRACT, False, (), id="policy retract"),
        pytest.param(replace(NOW, in_flight=(SHORT,), policy="in_place"), Mode.IN_PLACE, False, (), id="in_place"),
        pytest.param(replace(NOW, in_flight=(SHORT,), policy="abort"), Mode.ABORT, False, (), id="policy abort"),
        pytest.param(
            replace(NOW, announced=AnnouncedWeights(5, "a"), in_flight=(LONG, replace(SHORT, oldest_version=4))),
            Mode.DRAIN,
            False,
            ("long",),
            id="too stale to be trained: given up, the rest decides",
        ),
        pytest.param(
            replace(NOW, max_staleness=0, announced=AnnouncedWeights(3, "b"), in_flight=(LONG, SHORT)),
            Mode.DRAIN,
            False,
            ("long", "short"),
            id="synchronous: another lineage's tokens are redone",
        ),
        pytest.param(
            replace(NOW, announced=AnnouncedWeights(3, "b"), in_flight=(LONG,), policy="in_place"),
            Mode.IN_PLACE,
            False,
            (),
            id="asynchronous: the same version of another lineage is taken, tokens kept",
        ),
    ],
)
def test_table(now: Situation, mode: Mode, lease: bool, doomed: tuple[str, ...]) -> None:
    decision = decide(now)
    assert (decision.mode, decision.lease, decision.doomed) == (mode, lease, doomed)
    assert decision.reason


def test_costs_count_a_prompt_once_and_the_slowest_response() -> None:
    assert remaining_decode_s((LONG, SHORT), FAST) == 160.0
    assert re_prefill_s((LONG, SHORT), FAST) == (190_000 + 290) / 20_000
    assert remaining_decode_s((LONG,), Speed()) is None
    assert re_prefill_s((LONG,), Speed()) is None


lengths = st.integers(0, 200_000)
versions = st.integers(0, 9)
groups = st.builds(
    InFlight,
    uid=st.uuids().map(str),
    oldest_version=versions,
    prompt_tokens=lengths,
    generated_tokens=lengths,
    remaining_tokens=lengths,
)
weights = st.none() | st.builds(AnnouncedWeights, versions, st.sampled_from("ab"))
rates = st.none() | st.floats(0.1, 1e6)
situations = st.builds(
    Situation,
    engine=weights,
    announced=weights,
    max_staleness=st.integers(0, 4),
    policy=st.sampled_from(get_args(Policy)),
    in_flight=st.lists(groups, max_size=4, unique_by=lambda group: group.uid),
    speed=st.builds(Speed, rates, rates),
    deadline_s=st.floats(0, 1e4),
)


@given(situations)
def test_leasing_goes_on_only_from_the_announced_weights(now: Situation) -> None:
    assert decide(now).lease == (now.announced is not None and now.engine == now.announced)


@given(situations)
def test_an_engine_never_goes_to_a_lower_version(now: Situation) -> None:
    if now.engine is not None and now.announced is not None and now.announced.version < now.engine.version:
        assert decide(now).mode is Mode.WAIT


@given(situations)
def test_with_nothing_kept_in_flight_an_update_never_waits_nor_pauses_generation(now: Situation) -> None:
    decision = decide(now)
    kept = {group.uid for group in now.in_flight} - set(decision.doomed)
    if now.engine is not None and decision.mode is not Mode.WAIT and not kept:
        assert decision.mode is Mode.DRAIN


@given(situations)
def test_no_group_is_kept_that_could_not_be_trained(now: Situation) -> None:
    decision = decide(now)
    if decision.mode is Mode.WAIT:
        return
    assert now.announced is not None
    for group in now.in_flight:
        if group.uid not in decision.doomed:
            assert now.announced.version - group.oldest_version <= now.max_staleness


@given(situations)
def test_auto_pays_no_more_than_the_deadline(now: Situation) -> None:
    decision = decide(now)
    kept = [group for group in now.in_flight if group.uid not in decision.doomed]
    if now.policy != "auto" or not kept or decision.mode is Mode.WAIT:
        return
    cost = {
        Mode.DRAIN: remaining_decode_s(kept, now.speed),
        Mode.RETRACT: re_prefill_s(kept, now.speed),
        Mode.IN_PLACE: 0.0,
    }[decision.mode]
    assert cost is not None
    assert cost <= now.deadline_s


@given(situations, st.floats(0, 1e4))
def test_auto_with_more_time_is_never_less_clean(now: Situation, more: float) -> None:
    order = [Mode.DRAIN, Mode.RETRACT, Mode.IN_PLACE, Mode.ABORT, Mode.WAIT]
    less = decide(now).mode
    longer = decide(replace(now, deadline_s=now.deadline_s + more)).mode
    assert order.index(longer) <= order.index(less)
