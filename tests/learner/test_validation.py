"""Validation during training: what is counted, when, and that a killed learner goes on with the round it left."""

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golongrl.data import Prepared
from golongrl.errors import InputError
from golongrl.learner.observe.status import LearnerStatus
from golongrl.learner.validation import ValidationRounds, due, metrics_of
from golongrl.queue import SampleQueue, ValidationResult, WeightsRef
from golongrl.recipe import Recipe, RecipeError, load
from support.groups import queue_settings
from support.learner_run import FIRST_ROWS, HELD_OUT, LearnerRun, learner_run, small_recipe, write_data


def answer(score: float | None, task: str = "T1", source: str = "EM", **changes: Any) -> dict[str, Any]:
    return {"score": score, "task": task, "data_source": source, "tokens": 4, "finish_reason": "stop", **changes}


def recipe(**learner: object) -> Recipe:
    return load("quickstart", [f"learner.{key}={value}" for key, value in learner.items()])


def test_when_it_is_due() -> None:
    def steps(**settings: object) -> list[int]:
        made = recipe(**settings).learner
        return [step for step in range(12) if due(step, made)]

    assert steps(test_freq=0, val_before_train="false") == []
    assert steps(test_freq=4, val_before_train="false", steps=10) == [4, 8, 10]
    assert steps(test_freq=5, val_before_train="true", steps=10) == [0, 5, 10]
    assert steps(test_freq=0, val_before_train="true", steps=10) == [0]
    assert steps(test_freq=4, val_before_train="false", steps="null") == [4, 8]


@pytest.mark.parametrize(
    ("step", "test_freq", "steps", "is_due"),
    [(9, 4, "null", True), (8, 4, "null", True), (9, 4, 20, True), (9, 0, "null", False), (0, 4, "null", False)],
)
def test_the_last_step_is_due_wherever_the_data_ends(step: int, test_freq: int, steps: object, is_due: bool) -> None:
    assert due(step, recipe(test_freq=test_freq, steps=steps, val_before_train="false").learner, ended=True) is is_due


def test_means_are_over_what_was_scored() -> None:
    answers = [
        answer(1.0),
        answer(0.5),
        answer(0.0, "T2", "F1"),
        answer(None, "T2", "F1", finish_reason="length", tokens=8),
        answer(None, finish_reason="", tokens=0),
    ]
    assert metrics_of(answers, 5) == {
        "val-aux/rows": 5,
        "val-aux/missing": 0,
        "val-aux/unscored": 2,
        "val-aux/response_length/mean": 5,
        "val-aux/response_length/clip_ratio": 0.25,
        "val-core/EM/reward/mean@1": 0.75,
        "val-core/F1/reward/mean@1": 0.0,
        "val_by_type/T1": 0.75,
        "val_by_type/T2": 0.0,
        "val/mean": 0.5,
    }


def test_an_incomplete_round_has_counts_but_no_means() -> None:
    assert metrics_of([answer(1.0)], 3) == {
        "val-aux/rows": 3,
        "val-aux/missing": 2,
        "val-aux/unscored": 0,
        "val-aux/response_length/mean": 4,
        "val-aux/response_length/clip_ratio": 0,
    }
    assert "val/mean" not in metrics_of([answer(None)], 1)


def test_a_recipe_that_validates_on_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="without data to validate on"):
        load("quickstart", ["learner.test_freq=5", "data.validation_prompts=0"])


class Rounds:
    """A `Validation` on a queue of its own; the test answers."""

    def __init__(self, queue: SampleQueue, out: Path, fence: str, **learner: object) -> None:
        self.queue, self.out, self.fence = queue, out, fence
        self.status = LearnerStatus()
        self.stopping = asyncio.Event()
        data = Prepared.open(write_data(out / "held", 3))
        self.validation = ValidationRounds(recipe(test_freq=1, **learner), queue, data, out, self.status)

    async def run(self, step: int = 0, lineage: str = "one") -> dict[str, float]:
        return await self.validation.run(step, self.fence, lineage, self.stopping)

    async def answer(self, rows: int, lineage: str = "one", text: str = "yes") -> None:
        done = 0
        while done < rows:
            for item in await self.queue.validation.lease(0, lineage, rows - done):
                await self.queue.validation.submit(item, ValidationResult(item.row, 0.5, "", text, 1, "stop", "w"))
                done += 1
            await asyncio.sleep(0.01)


@pytest.fixture
async def rounds(redis_url: str, run_name: str, tmp_path: Path):
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        await queue.setup(queue_settings(groups_per_step=1), [np.arange(3, dtype=np.int32)], ["a"] * 3)
        fence = (await queue.attach(0)).token
        await queue.announce(fence, WeightsRef(0, "/w/v0", "one", "sum"))
        yield lambda **learner: Rounds(queue, tmp_path, fence, **learner)


async def test_a_round_is_written_down_and_a_repeat_reads_it(rounds) -> None:
    made = rounds()
    numbers, _ = await asyncio.gather(made.run(), made.answer(3))
    assert numbers["val/mean"] == 0.5
    lines = [json.loads(line) for line in (made.out / "validation" / "step_0.jsonl").read_text().splitlines()]
    assert [(line["row"], line["task"], line["output"], line["score"]) for line in lines] == [
        (0, "T1", "yes", 0.5), (1, "T2", "yes", 0.5), (2, "T3", "yes", 0.5),
    ]  # fmt: skip
    assert (await made.queue.validation.progress()).done == 0, "the round is closed"
    assert await made.run() == numbers


async def test_a_response_may_hold_every_separator_of_lines(rounds) -> None:
    made = rounds()
    text = "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1e\r\n"
    numbers, _ = await asyncio.gather(made.run(), made.answer(3, text=text))
    await made.queue.announce(made.fence, WeightsRef(1, "/w/v1", "one", "sum"))
    assert await made.run() == numbers, "only the file can answer for version 0"
    lines = (made.out / "validation" / "step_0.jsonl").read_text("utf-8").rstrip("\n").split("\n")
    assert [json.loads(line)["output"] for line in lines] == [text] * 3


@pytest.mark.parametrize(
    "damage",
    [
        b"{", b"\xff\n", b"5\n", b"null\n", b"{}\n", b"[" * 100_000, b'{"lineage": []}\n', b'{"lineage": "one"}\n',
        b'{"lineage": "one", "task": "T1", "score": "x", "finish_reason": "stop", "tokens": 1, "data_source": "a"}\n',
        b'{"lineage": "one", "task": "T1", "score": 1, "finish_reason": "stop", "tokens": "x", "data_source": "a"}\n',
        b'{"lineage": "one", "task": "benchmark", "score": 1, "finish_reason": "", "data_source": "nobody"}\n',
        None,
    ],
    ids=range(12),
)  # fmt: skip
async def test_damaged_answers_do_not_count_and_end_nothing(rounds, damage: bytes | None) -> None:
    made = rounds()
    numbers, _ = await asyncio.gather(made.run(), made.answer(3))
    file = made.out / "validation" / "step_0.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20] if damage is None else damage)
    again, _ = await asyncio.gather(made.run(), made.answer(3))
    assert again == numbers
    assert len(file.read_bytes().splitlines()) == 3
    file.write_bytes(whole[:-20] if damage is None else damage)
    await made.queue.announce(made.fence, WeightsRef(1, "/w/v1", "one", "sum"))
    assert await made.run() == {}


async def test_the_wait_is_bounded_and_says_what_for(rounds) -> None:
    made = rounds(validation_deadline_s=0.2)
    # Answered before the deadline begins to run: the same round, opened earlier.
    await made.queue.validation.open(made.fence, 0, "one", 3)
    await made.answer(2)
    numbers = await made.run()
    assert made.status.doing == "validating version 0: 2 rows done, 0 being answered, 1 not leased yet"
    assert numbers["val-aux/missing"] == 1
    assert "val/mean" not in numbers


async def test_a_signal_ends_the_wait_and_the_next_learner_goes_on(rounds) -> None:
    made = rounds()
    made.stopping.set()
    await asyncio.gather(made.run(), made.answer(2))
    assert await made.run() == {}
    assert not list((made.out / "validation").glob("step_*.jsonl"))
    made.stopping.clear()
    numbers, _ = await asyncio.gather(made.run(), made.answer(1))
    assert numbers["val/mean"] == 0.5


async def test_a_replayed_step_has_only_what_was_written(rounds) -> None:
    made = rounds()
    assert await made.run(1) == {}
    (made.out / "validation").mkdir()
    for step in (1, 2, 3):
        (made.out / "validation" / f"step_{step}.jsonl").write_text("")
    made.validation.forget_after(2)
    assert sorted(path.name for path in (made.out / "validation").iterdir()) == ["step_1.jsonl", "step_2.jsonl"]


async def test_what_was_written_counts_whatever_a_replay_makes_of_the_lineage(rounds) -> None:
    """Unless the weights in force are other ones: these are validated themselves."""
    made = rounds()
    numbers, _ = await asyncio.gather(made.run(), made.answer(3))
    await made.queue.announce(made.fence, WeightsRef(0, "/w/v0", "two", "other"))
    again, _ = await asyncio.gather(made.run(lineage="two"), made.answer(3, "two"))
    assert again == numbers
    await made.queue.announce(made.fence, WeightsRef(1, "/w/v1", "three", "sum"))
    assert await made.run(lineage="three") == numbers, "version 1 is in force; nobody could answer for version 0"


async def test_a_round_whose_answers_are_written_is_closed(rounds) -> None:
    """The learner that wrote them may have died before it could: the results would fill the queue."""
    made = rounds()
    numbers, _ = await asyncio.gather(made.run(), made.answer(3))
    await made.queue.validation.open(made.fence, 0, "one", 3)
    await made.answer(3)
    assert (await made.queue.stats()).bytes > 0
    assert await made.run() == numbers
    assert (await made.queue.stats()).bytes == 0


def test_data_without_a_validation_split_is_refused(tmp_path: Path) -> None:
    queue = SampleQueue.from_url("redis://127.0.0.1:1/0", "r")
    with pytest.raises(InputError, match="the prepared data has no validation/"):
        ValidationRounds(recipe(test_freq=1), queue, None, tmp_path, LearnerStatus())


def _validated(run: LearnerRun) -> dict[int, float]:
    return {r["training/global_step"]: r["val/mean"] for r in run.records if "val/mean" in r}


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_a_learner_killed_in_mid_validation_goes_on_with_it(tiny_model: Path, tmp_path: Path) -> None:
    made = small_recipe(
        tiny_model, "learner.val_before_train=true", "learner.test_freq=2", "learner.checkpoint_every=4"
    )
    async with learner_run(tmp_path, made) as run:
        await run.until(lambda: sum(version == 2 for version, _ in run.validated) == FIRST_ROWS)
        run.kill(signal.SIGKILL)
        await run.ended()
        run.validates.set()
        run.start()
        assert await run.ended() == 0, run.log[-4000:]
    assert [record["training/global_step"] for record in run.records] == [0, 1, 2, 3, 4]
    # Nobody was asked twice, before or after the kill.
    assert Counter(run.validated) == Counter((version, row) for version in (0, 2, 4) for row in range(HELD_OUT))
    expected = {version: np.mean([(row + version) / 20 for row in range(1, HELD_OUT)]) for version in (0, 2, 4)}
    assert _validated(run) == pytest.approx(expected)
    assert all(record["val-aux/unscored"] == 1 for record in run.records if "val/mean" in record)
    files = sorted(path.name for path in (run.root / "validation").iterdir())
    assert files == ["step_0.jsonl", "step_2.jsonl", "step_4.jsonl"]


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_a_validation_that_a_signal_cut_short_is_made_up_for(tiny_model: Path, tmp_path: Path) -> None:
    """Also that of the last step, which is known only when the data has ended: nine prompts, three a step."""
    made = small_recipe(
        tiny_model, "learner.steps=null", "data.epochs=1", "learner.test_freq=2", "learner.checkpoint_every=2"
    )
    async with learner_run(tmp_path, made) as run:

        def answered(version: int) -> int:
            return sum(of == version for of, _ in run.validated)

        for step in (2, 3):
            run.validates.clear()
            await run.until(lambda step=step: answered(step) >= FIRST_ROWS)
            run.kill(signal.SIGTERM)
            assert await run.ended() == 143, run.log[-4000:]
            assert step not in _validated(run)
            assert (await run.queue().stats()).committed == step
            run.start()
            run.validates.set()
            await run.until(lambda step=step: answered(step) == HELD_OUT)
        assert await run.ended() == 0, run.log[-4000:]
    assert [record["training/global_step"] for record in run.records] == [1, 2, 3]
    assert Counter(run.validated) == Counter((version, row) for version in (2, 3) for row in range(HELD_OUT))
    assert list(_validated(run)) == [2, 3]
    assert all("actor/grad_norm" in record for record in run.records), "training's numbers are kept"
