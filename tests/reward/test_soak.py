"""200 clients at once, one item in twenty hangs or kills its worker: every good item is scored, every bad one is not.

A real server process over real sockets. Here every probe of its liveness is answered; how fast is measured by
benchmarks/reward_service.py.
"""

import asyncio
from pathlib import Path

import psutil
import pytest
from scoring_items import Served, ServerFactory
from soak_load import DEADLINE_S, resident_bytes, soak


def start(serve: ServerFactory) -> Served:
    script = Path(__file__).parent / "serve_misbehaving.py"
    return serve(str(script), "{port}", "12", str(DEADLINE_S))


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_200_clients_with_bad_items(serve: ServerFactory) -> None:
    served = start(serve)
    seen = await soak(served.url, rounds=1, size=6)
    assert seen.bad > 40  # about 5 % of 1,200
    assert seen.probes
    assert served.ready()


@pytest.mark.full
@pytest.mark.timeout(1200)
async def test_memory_stays_flat(serve: ServerFactory) -> None:
    served = start(serve)
    await soak(served.url, rounds=1)
    await asyncio.sleep(1)
    before, files = resident_bytes(served.process.pid), psutil.Process(served.process.pid).num_fds()
    for _ in range(3):
        await soak(served.url, rounds=2)
    await asyncio.sleep(1)
    assert resident_bytes(served.process.pid) < before * 1.2 + (16 << 20)
    assert psutil.Process(served.process.pid).num_fds() <= files + 8
