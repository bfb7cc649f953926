"""The learner as a process against a real queue: it trains to the end, and a kill costs nothing but time."""

import asyncio
import signal
from pathlib import Path

import pytest
from support.learner_run import learner_run, small_recipe


async def test_trains_to_the_end(tiny_model: Path, tmp_path: Path) -> None:
    async with learner_run(tmp_path / "run", small_recipe(tiny_model)) as run:
        code = await run.ended()
        assert code == 0, run.log[-4000:]
        assert [record["training/global_step"] for record in run.records] == [1, 2, 3, 4]
