"""When silence counts as hanging."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.local.health import Liveness, Pulse, StartDeadline
from golongrl.local.process import Service, ServiceSpec


def test_the_defaults_are_a_minute_of_silence_as_in_the_chart() -> None:
    assert Liveness().longest_s == 60


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_a_service_hangs_after_so_many_failures_in_a_row_and_not_before(answers: list[bool], failures: int) -> None:
    pulse = Pulse(Liveness(failures=failures))
    for index, answered in enumerate(answers):
        last = answers[max(0, index + 1 - failures) : index + 1]
        assert pulse.observe(answered) is (len(last) == failures and not any(last))


@pytest.mark.parametrize(
    ("worked_s", "given_up_s"),
    [
        ((0.0,), 300),
        ((9.0,), 300),
        ((10.0, 12.0), 600),  # it worked, and hangs now
        ((10.0, 20.0, 30.0, 40.0), 1200),  # a machine that is far too busy
        ((300.0, 600.0, 900.0, 1200.0), 1200),  # work without an end
    ],
)
def test_a_start_may_take_longer_while_it_works(worked_s: tuple[float, ...], given_up_s: float) -> None:
    deadline = StartDeadline(300.0)
    *earlier, last = worked_s
    assert not any(deadline.passed(work) for work in earlier)
    assert deadline.passed(last)
    assert deadline.s == given_up_s


async def _never() -> bool:
    return False


async def test_a_service_that_waits_for_a_core_is_at_work(tmp_path: Path) -> None:
    """On a busy machine the engine, which yields to others, got less CPU time than a start needs: it was given up."""
    core = min(os.sched_getaffinity(0))
    busy = f"import os; os.sched_setaffinity(0, {{{core}}}); os.fork(); os.fork()\nwhile True: pass"
    service = await Service.start(
        ServiceSpec("busy", [sys.executable, "-S", "-c", busy], _never, start_deadline_s=300.0), tmp_path
    )
    try:
        began = time.monotonic()
        async with asyncio.timeout(10):
            # Four processes on one core, which cannot work for longer than the time that passes.
            while service.worked_s() < 1.5 * (time.monotonic() - began) + 0.2:
                await asyncio.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(service.pid, signal.SIGKILL)
        await service.wait()
