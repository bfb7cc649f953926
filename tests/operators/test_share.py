"""GPUs under a budget: examples, then the invariants for any claims."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl_operator.share import GpuClaim, begin, fair_share


@pytest.mark.parametrize(
    ("budget", "claims", "given"),
    [
        (32, [GpuClaim("a", 16, 64, 8)], {"a": 32}),
        (32, [GpuClaim("a", 16, 24, 8)], {"a": 24}),
        (8, [GpuClaim("a", 16, 64, 8)], {}),
        # The older one first, unless another trains already or has a higher priority.
        (16, [GpuClaim("a", 16, 16, 8), GpuClaim("b", 16, 16, 8)], {"a": 16}),
        (16, [GpuClaim("a", 16, 16, 8), GpuClaim("b", 16, 16, 8, training=True)], {"b": 16}),
        (16, [GpuClaim("a", 16, 16, 8, training=True), GpuClaim("b", 16, 16, 8, priority=1)], {"b": 16}),
        # A row of small ones does not keep a large one out; one of a lower priority may use what it waits for.
        (32, [GpuClaim("large", 32, 32), GpuClaim("a", 24, 24, training=True), GpuClaim("b", 8, 8)], {"a": 24}),
        (
            32,
            [GpuClaim("large", 32, 32), GpuClaim("a", 24, 24, training=True), GpuClaim("b", 8, 8, priority=-1)],
            {"a": 24, "b": 8},
        ),
        # What the large one cannot start with, the small one may use.
        (16, [GpuClaim("large", 32, 64, 8, priority=5), GpuClaim("small", 8, 8, 8)], {"small": 8}),
        # Two share; what one cannot use the other gets.
        (64, [GpuClaim("a", 16, 64, 8), GpuClaim("b", 16, 64, 8)], {"a": 32, "b": 32}),
        (64, [GpuClaim("a", 16, 24, 8), GpuClaim("b", 16, 64, 8)], {"a": 24, "b": 40}),
        # On CPU there are no GPUs to count.
        (4, [GpuClaim("a", 0, 0)], {"a": 0}),
    ],
)
def test_shares(budget: int, claims: list[GpuClaim], given: dict[str, int]) -> None:
    assert fair_share(budget, claims) == given


@st.composite
def any_claims(draw: st.DrawFn) -> list[GpuClaim]:
    found = []
    for number in range(draw(st.integers(0, 8))):
        least, step = draw(st.integers(0, 64)), draw(st.integers(1, 16))
        most = least + step * draw(st.integers(0, 6))
        found.append(GpuClaim(f"r{number}", least, most, step, draw(st.integers(-2, 2)), draw(st.booleans())))
    return found


@given(st.integers(0, 256), any_claims())
def test_the_invariants(budget: int, claims: list[GpuClaim]) -> None:
    shares = fair_share(budget, claims)
    by_name = {claim.name: claim for claim in claims}
    assert sum(shares.values()) <= budget
    for name, share in shares.items():
        assert by_name[name].least <= share <= by_name[name].most
    left = budget - sum(shares.values())
    for name, share in shares.items():
        claim = by_name[name]
        if share + claim.step <= claim.most:
            assert claim.step > left, "what is left is of no use to anyone"
    order = {claim.name: number for number, claim in enumerate(claims)}
    for claim in claims:
        reserved = [
            other
            for other in claims
            if other.name not in shares
            and other.priority == claim.priority
            and order[other.name] < order[claim.name]
            and other.least <= budget
        ]
        if claim.name not in shares and (claim.training or not reserved):
            above = sum(by_name[name].least for name in shares if by_name[name].priority >= claim.priority)
            assert claim.least > budget - above, "only runs of the same or a higher priority keep it out"


@given(st.integers(0, 256), any_claims())
def test_a_second_pass_decides_the_same(budget: int, claims: list[GpuClaim]) -> None:
    """Otherwise runs would suspend each other in turn."""
    first = fair_share(budget, claims)
    assert fair_share(budget, [replace(claim, training=claim.name in first) for claim in claims]) == first


@given(st.integers(0, 256), st.integers(0, 256), any_claims())
def test_a_smaller_budget_suspends_only_and_from_below(large: int, less: int, claims: list[GpuClaim]) -> None:
    before = fair_share(large, claims)
    trains = [replace(claim, training=True) for claim in claims if claim.name in before]
    after = fair_share(max(0, large - less), trains)
    assert after.keys() <= before.keys()
    kept = [claim for claim in trains if claim.name in after]
    for claim in trains:
        if claim.name not in after:
            above = sum(other.least for other in kept if other.priority >= claim.priority)
            assert claim.least > max(0, large - less) - above


@given(any_claims())
def test_without_gpus_only_those_train_that_need_none(claims: list[GpuClaim]) -> None:
    assert set(fair_share(0, claims)) == {claim.name for claim in claims if claim.least == 0}


@given(st.integers(0, 64), st.lists(st.tuples(st.integers(1, 64), st.integers(1, 5)), min_size=1, max_size=30))
def test_no_run_waits_without_end(budget: int, wanted: list[tuple[int, int]]) -> None:
    """Small runs come all the time, of the same priority. Each run that fits the budget begins in its turn: before it,
    only runs that were there when it came."""
    waits = {f"r{number}": (least, lasts) for number, (least, lasts) in enumerate(wanted) if least <= budget}
    order, trains, begun = list(waits), dict[str, int](), list[str]()
    for _ in range(sum(lasts for _, lasts in wanted) + 1):
        claims = [GpuClaim(name, waits[name][0], waits[name][0], 1, 0, name in trains) for name in order]
        shares = fair_share(budget, claims)
        assert trains.keys() <= shares.keys(), "equal priorities never suspend each other"
        begun += [name for name in order if name in shares and name not in trains]
        trains = {name: trains.get(name, waits[name][1]) - 1 for name in shares}
        order = [name for name in order if trains.get(name, 1) > 0]
        trains = {name: left for name, left in trains.items() if left > 0}
    assert begun == list(waits)


@given(st.integers(0, 256), st.integers(0, 256), any_claims())
def test_what_leaves_counts_until_it_is_gone(budget: int, leaving: int, claims: list[GpuClaim]) -> None:
    shares = fair_share(budget, claims)
    found = begin(budget, claims, shares, leaving)
    by_name = {claim.name: claim for claim in claims}
    assert all(name in shares and not by_name[name].training for name in found)
    used = sum(claim.least for claim in claims if claim.name in found or (claim.training and claim.name in shares))
    if found:
        assert used + leaving <= budget or sum(by_name[name].least for name in found) == 0
    if not leaving:
        assert found == {name for name in shares if not by_name[name].training}
