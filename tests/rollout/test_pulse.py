"""Whether a service still answers, whatever calls wait for it."""

import asyncio
from collections.abc import Callable

import pytest

from golongrl.rollout.observe import pulse as module
from golongrl.rollout.observe.pulse import SilenceClock


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PERIOD_S", 0.001)
    monkeypatch.setattr(module, "_PATIENCE_S", 0.02)


async def follow(
    answers: list[bool | None], wanted: Callable[[], bool] = lambda: True, *, starts: bool = False
) -> list[float]:
    """The silence after each question, on a clock that goes on by 1 with each; None is no answer at all."""
    clock, seen, left = [100.0], list[float](), list(answers)
    pulse = SilenceClock(lambda: clock[0])

    async def ask() -> bool:
        seen.append(pulse.silent_s)
        if not left:
            await asyncio.Event().wait()
        clock[0] += 1
        answer = left.pop(0)
        if answer is None:
            await asyncio.Event().wait()
        return bool(answer)

    task = asyncio.create_task(pulse.follow(ask, wanted, starts=starts))
    while len(seen) <= len(answers):
        await asyncio.sleep(0.001)
    task.cancel()
    return seen


async def test_silence_grows_until_the_next_answer() -> None:
    assert await follow([True, False, None, False, True]) == [0, 0, 1, 2, 3, 0]


async def test_what_starts_is_not_silent_before_its_first_answer() -> None:
    assert await follow([False, False, True, False], starts=True) == [0, 0, 0, 0, 1]
    assert await follow([False, False]) == [0, 1, 2]


async def test_nobody_is_asked_while_nothing_is_expected() -> None:
    pulse = SilenceClock()

    async def ask() -> bool:
        raise AssertionError

    task = asyncio.create_task(pulse.follow(ask, lambda: False))
    await asyncio.sleep(0.02)
    assert not task.done()
    task.cancel()
    assert pulse.silent_s == 0
