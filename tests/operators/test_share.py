"""GPUs under a budget: examples, then the invariants for any claims."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl_operator.share import GpuClaim, fair_share


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
    for claim in claims:
        if claim.name not in shares:
            above = sum(by_name[name].least for name in shares if by_name[name].priority >= claim.priority)
            assert claim.least > budget - above, "only runs of the same or a higher priority keep it out"
