"""Whatever is killed, stopped or cut off, and however often: every row ends once, and no batch is too stale."""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from .storm import FAIL_OVERS, FREEZES, KILLS, NETWORK, POISON, REPLACEMENTS, Storm


@pytest.mark.timeout(900)
async def test_short_storm(tmp_path: Path) -> None:
    storm = Storm(seed=7, folder=tmp_path, blows_s=10, rows=200)
    await storm.rage()
    assert storm.blows.total() >= storm.least_blows


SCHEDULES: dict[str, dict[str, Any]] = {
    "freezes": {"kinds": FREEZES},
    "network": {"kinds": NETWORK},
    "fail-over": {"kinds": FAIL_OVERS, "replicated": True},
    "poison": {"kinds": POISON, "poison": 0.1, "hopeless": (3, 50, 51, 117), "max_tries": 5},
    "everything": {
        "kinds": {**KILLS, **FREEZES, **NETWORK, **FAIL_OVERS, **POISON, "server": 0},
        "replicated": True,
        "poison": 0.05,
    },
}


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("schedule", SCHEDULES)
async def test_schedule(tmp_path: Path, schedule: str, seed: int) -> None:
    """Each kind of fault by itself, then all of them; by lease order and by readiness."""
    order = ("lease", "ready")[seed % 2]
    storm = Storm(seed=seed, folder=tmp_path, blows_s=30, rows=200, least_blows=12, order=order, **SCHEDULES[schedule])
    await storm.rage()
    print(f"{schedule}, seed {seed}, order {order}: {dict(storm.blows)}", flush=True)


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_group_is_replaced_while_processes_are_killed(tmp_path: Path, seed: int) -> None:
    """A group of the batch in hand is set aside and another takes its place: no batch is short, repeated or changed,
    and no row is lost, whoever is killed meanwhile."""
    order = ("lease", "ready")[seed % 2]
    storm = Storm(seed=seed, folder=tmp_path, blows_s=30, rows=400, least_blows=20, order=order, kinds=REPLACEMENTS)
    await storm.rage()
    assert storm.set_aside >= 3
    print(f"replacements, seed {seed}, order {order}: {storm.set_aside} set aside, {dict(storm.blows)}", flush=True)


@pytest.mark.full
@pytest.mark.timeout(0)
async def test_soak(tmp_path: Path) -> None:
    """GOLONGRL_SOAK_S seconds (default ten minutes) of storms with seeds from GOLONGRL_SOAK_SEED on."""
    until = time.monotonic() + float(os.environ.get("GOLONGRL_SOAK_S", "600"))
    seed = int(os.environ.get("GOLONGRL_SOAK_SEED", str(random.randrange(1 << 30))))
    while time.monotonic() < until:
        folder = tmp_path / str(seed)
        folder.mkdir()
        storm = Storm(
            seed=seed,
            folder=folder,
            blows_s=120,
            rows=1000,
            max_staleness=(0, 1, 2, 4)[seed % 4],
            order=("lease", "ready")[seed // 4 % 2],
        )
        began = time.monotonic()
        await storm.rage()
        took = time.monotonic() - began
        print(
            f"seed {seed} max_staleness {storm.max_staleness} order {storm.order}: {dict(storm.blows)} {took:.0f} s",
            flush=True,
        )
        seed += 1
