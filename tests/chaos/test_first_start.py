"""Signals while services start for the first time, by seeded schedules: all are started again."""

import random
import re
import signal
import sys
from pathlib import Path

import pytest

from golongrl.local.process import ServiceSpec, descendants
from golongrl.local.supervisor import Stage, Supervisor
from golongrl.restart import MAX_DEATHS_A_MINUTE

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
# In the order of a real run: the first must be ready before the others start.
NAMES = ("store", "engine", "worker", "main")

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


def service(folder: Path, name: str, kills: list[signal.Signals]) -> ServiceSpec:
    """A process whose first starts are ended by these signals; the one after them becomes ready."""
    starts, ready = folder / f"{name}.starts", folder / f"{name}.ready"
    others = [str(folder / f"{other}.ready") for other in NAMES] if name == "main" else []
    code = f"""
import os, pathlib, time
kills = {[int(number) for number in kills]}
with open({str(starts)!r}, "a") as file:
    file.write("x")
start = os.path.getsize({str(starts)!r})
if start <= len(kills):
    os.kill(os.getpid(), kills[start - 1])
pathlib.Path({str(ready)!r}).touch()
while not (others := {others}) or not all(map(os.path.exists, others)):
    time.sleep(0.05)
"""

    async def probe() -> bool:
        return ready.exists()

    return ServiceSpec(name, (sys.executable, "-c", code), probe, start_deadline_s=300.0)


@pytest.mark.parametrize("seed", range(6))
async def test_a_run_survives_signals_during_its_first_start(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    kills = {name: chance.choices(SIGNALS, k=chance.randrange(MAX_DEATHS_A_MINUTE)) for name in NAMES}
    kills[chance.choice(NAMES)] = chance.choices(SIGNALS, k=MAX_DEATHS_A_MINUTE - 1)
    specs = {name: service(tmp_path, name, kills[name]) for name in NAMES}
    stages = [Stage((specs["store"],), gate=True), Stage(tuple(specs[name] for name in NAMES[1:]))]
    said: list[str] = []
    before = descendants()
    await Supervisor(stages, "main", tmp_path, said.append).run()
    died = [re.match(r"(\w+) died \(signal (\w+)\)", line) for line in said]
    found = [(match[1], match[2]) for match in died if match is not None]
    for name in NAMES:
        assert [number for who, number in found if who == name] == [number.name for number in kills[name]], said
        assert (tmp_path / f"{name}.starts").read_text() == "x" * (len(kills[name]) + 1)
    assert descendants() - before == set()
