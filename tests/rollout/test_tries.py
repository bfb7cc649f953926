"""An engine that confirms nothing is given up; weights that are not there are waited for."""

from itertools import pairwise

from golongrl.rollout.tries import Pause, Tries

WAITING = Pause("waiting", "source", "the sender")


def test_an_engine_that_confirms_nothing_is_tried_a_few_times() -> None:
    tries, now, pauses = Tries(limit=4), 100.0, []
    while (pause := tries.pause(now, 7)) is None or "next try" in pause.reason:
        if pause is None:
            tries.fail(now)
            pauses.append(now)
        now += 0.5
    assert [later - earlier for earlier, later in pairwise(pauses)] == [1, 2, 4]
    assert pause == Pause("quarantined", "quarantine", "newer weights than version 7, or a new engine")
    assert tries.pause(now + 1e9, 7) == pause
    tries.reset()
    assert tries.pause(now, 7) is None


def test_missing_weights_are_asked_for_without_end_and_ever_less_often() -> None:
    tries, now = Tries(limit=1), 0.0
    for asked in range(1, 2000):
        assert tries.pause(now, 7) is None
        tries.miss(now, WAITING)
        wait = min(30.0, 2.0 ** min(asked - 1, 9))
        assert tries.pause(now + wait - 0.1, 7) == WAITING
        now += wait


def test_they_count_apart() -> None:
    tries = Tries(limit=2)
    tries.fail(0.0)
    tries.miss(10.0, WAITING)
    tries.miss(20.0, WAITING)
    assert tries.pause(30.0, 1) is None
    tries.fail(30.0)
    assert tries.failed == 2
    assert tries.pause(1e6, 1) is not None
