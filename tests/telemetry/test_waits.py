"""What a process waits for: registered, published, and read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.telemetry.waits import MOST, PendingWait, Waits, dumps, loads


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_wait_is_there_while_it_lasts_and_equal_ones_are_one() -> None:
    clock = Clock()
    waits = Waits(clock)
    with waits.on("engine", "{on} to generate", 60.0, "group"):
        clock.time += 5
        with waits.on("engine", "{on} to generate", 60.0, "group"), waits.on("reward", "{on} to score", unit="group"):
            clock.time += 2
            found = waits.current()
        assert found == [
            PendingWait("engine", "{on} to generate", 7.0, 60.0, 2, "group"),
            PendingWait("reward", "{on} to score", 2.0, None, 1, "group"),
        ]
        assert found[0].words("engine-0") == "engine-0 to generate 2 groups, 7 s"
        assert found[1].words("the reward service") == "the reward service to score a group, 2 s"
    assert waits.current() == []


def test_what_has_moved_waits_from_then_on_and_what_is_short_is_no_news() -> None:
    clock = Clock()
    waits = Waits(clock)
    with waits.on("engine", "{on}") as entry:
        clock.time += 50
        entry.moved()
        assert waits.current() == []
        clock.time += 3
        assert [wait.for_s for wait in waits.current()] == [3.0]


def test_a_wait_that_fails_is_over() -> None:
    clock = Clock()
    waits = Waits(clock)
    try:
        with waits.on("redis", "{on}"):
            clock.time += 9
            raise RuntimeError
    except RuntimeError:
        pass
    assert waits.current() == []


words = st.text(max_size=300)
a_wait = st.builds(
    PendingWait,
    on=words,
    what=words,
    for_s=st.floats(0, 1e6).map(lambda s: round(s, 1)),
    deadline_s=st.none() | st.floats(0, 1e6),
    count=st.integers(1, 999),
    unit=words,
)


@given(st.lists(a_wait, max_size=20))
def test_what_is_published_is_bounded_and_reads_back(waits: list[PendingWait]) -> None:
    found = loads(dumps(waits))
    assert len(found) == min(MOST, len(waits))
    assert [wait.for_s for wait in found] == sorted((wait.for_s for wait in waits), reverse=True)[:MOST]
    assert all(len(wait.what) <= 200 for wait in found)


def test_another_programs_half_characters_reach_the_queue() -> None:
    text = dumps(loads(r'[["\ud800", "\udfff", 2.0, null, 1, "\ud800"]]'))
    assert loads(text.encode().decode())[0].what == "\udfff"


@pytest.mark.parametrize("seconds", ["Infinity", "-Infinity", "NaN", "1" + "0" * 400])
@pytest.mark.parametrize("place", [2, 3, 4])
def test_a_number_that_no_clock_shows_reads_as_no_wait_or_as_one(place: int, seconds: str) -> None:
    row = ['"redis"', '"x"', "1.0", "2.0", "1", '"s"']
    row[place] = seconds
    assert len(loads(f"[[{','.join(row)}]]")) <= 1


@given(st.text() | st.recursive(st.none() | st.integers(), st.lists).map(str))
def test_text_of_nobody_reads_as_no_wait(text: str) -> None:
    assert isinstance(loads(text), list)
