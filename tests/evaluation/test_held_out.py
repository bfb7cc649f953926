"""A suite's problems among the rows that a run validates on: how they are prepared, scored and told."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golongrl.data import Prepared, prepare
from golongrl.data.chat import Chat
from golongrl.data.prepared import BENCHMARK
from golongrl.errors import GolongrlError
from golongrl.evaluation import held_out
from golongrl.evaluation.held_out import HeldOutSuite
from golongrl.evaluation.problems import EvalProblem
from golongrl.learner.observe.status import LearnerStatus
from golongrl.learner.validation import ValidationRounds, metrics_of
from golongrl.queue import SampleQueue, ValidationResult, WeightsRef
from golongrl.recipe import Recipe, RecipeError, load
from support.eval_data import right_reply, write_eval_data
from support.groups import queue_settings

SUITE = """
name: probe
benchmarks: [aime24, frames, longbench-v2, mrcr-128k]
sampling: {repeats: 2}
"""
ROOM = 4000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_eval_data(tmp_path_factory.mktemp("eval-data"))
    (folder / "probe.yaml").write_text(SUITE)
    return folder


def recipe(data: Path, *more: str, suite: str | None = None) -> Recipe:
    words = (
        f"data.validation_suite={suite or data / 'probe.yaml'}", f"data.validation_suite_data={data}",
        "data.prompts=9", "data.validation_prompts=9", "learner.test_freq=1", "model.context_length=8192",
        f"data.max_prompt_tokens={ROOM}", "rollout.max_response_tokens=64",
    )  # fmt: skip
    return load("quickstart", [*words, *more])


def prepared(made: Recipe, out: Path, model: Path) -> Prepared:
    prepare(made, out, model, more=HeldOutSuite.of(made))
    return Prepared.open(out / "validation")


def problem_of(row: Any) -> EvalProblem:
    kept = row.ground_truth["problem"]
    return EvalProblem(**{**kept, "golds": tuple(kept["golds"])})


def test_problems_follow_the_other_held_out_rows(tmp_path, data, tiny_model) -> None:
    rows = prepared(recipe(data), tmp_path, tiny_model)
    assert rows.task_types[:9] == [f"T{i}" for i in range(1, 10)]
    assert set(rows.task_types[9:]) == {BENCHMARK}
    problems = [rows.row(index) for index in range(9, len(rows))]
    names = [row.data_source for row in problems]
    assert list(dict.fromkeys(names)) == ["aime24", "frames", "longbench-v2", "mrcr-128k"]
    first, again = problems[:2]
    assert (first.ground_truth["epoch"], again.ground_truth["epoch"]) == (0, 1)
    assert np.array_equal(first.prompt_ids, again.prompt_ids)
    text = Chat.open(tiny_model).decode(first.prompt_ids)
    assert text.rstrip().endswith("assistant")
    report = json.loads((tmp_path / "prepared.json").read_text())["validation"]
    assert report["tasks"]["aime24"] == names.count("aime24")
    assert report["rows"] == len(rows)


def test_a_long_problem_follows_its_benchmarks_rule(tmp_path, data, tiny_model) -> None:
    lengths = prepared(recipe(data), tmp_path / "a", tiny_model).lengths
    room = int(sorted(lengths)[-1]) - 1
    short = recipe(data, f"data.max_prompt_tokens={room}")
    rows = prepared(short, tmp_path / "b", tiny_model)
    report = json.loads((tmp_path / "b" / "prepared.json").read_text())["validation"]
    assert max(rows.lengths) <= room
    assert report["truncated"] + report["overlong"] > 0
    with pytest.raises(GolongrlError, match="no problem of aime24 fits 10 prompt tokens"):
        prepared(recipe(data, "data.max_prompt_tokens=10", "data.overlong=truncate_left"), tmp_path / "c", tiny_model)


def test_the_same_again_is_kept_and_another_suite_is_not(tmp_path, data, tiny_model) -> None:
    def written(made: Recipe) -> int:
        prepared(made, tmp_path, tiny_model)
        return (tmp_path / "validation" / "rows.arrow").stat().st_mtime_ns

    before = written(recipe(data))
    assert written(recipe(data)) == before
    assert written(recipe(data, "data.validation_suite_samples=1")) > before
    other = load("quickstart", ["data.prompts=9", "data.validation_prompts=9"])
    prepare(other, tmp_path, tiny_model)
    assert len(Prepared.open(tmp_path / "validation")) == 9


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.validation_suite_data=null",), "give both or neither"),
        (("data.validation_suite=null",), "give both or neither"),
        (("learner.test_freq=0",), "set learner.test_freq"),
        (
            ("data.validation_suite=null", "data.validation_suite_data=null", "data.validation_suite_samples=1"),
            "without data.validation_suite",
        ),
    ],
)
def test_keys_that_do_not_fit_each_other(data, overrides, said) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(data, *overrides)


@pytest.mark.parametrize(
    ("suite", "said"),
    [("memory", "asked in conversations"), ("mmlu-proo", "did you mean mmlu-pro"), ("gpqa-diamond", "row 1")],
)
def test_a_suite_that_cannot_be_used_is_refused_before_a_run(tmp_path, data, suite, said) -> None:
    folder = write_eval_data(tmp_path / "data")
    (folder / "gpqa-diamond.csv").write_text("Question,Correct Answer\nWhy?,\n")
    made = recipe(folder, suite=suite)
    with pytest.raises(GolongrlError, match=said):
        checked(made)


def checked(made: Recipe) -> None:
    found = HeldOutSuite.of(made)
    assert found is not None
    found.check()


def test_data_that_is_missing_is_named(tmp_path, data) -> None:
    made = recipe(data, f"data.validation_suite_data={tmp_path}")
    with pytest.raises(GolongrlError, match="no file for aime24"):
        checked(made)


def answer_to(row: Any, **changes: Any) -> dict[str, Any]:
    return {
        "row": row.index, "task": row.task, "data_source": row.data_source, "reward_mode": row.reward_mode,
        "score": None, "reason": "the learner scores it", "tokens": 4, "finish_reason": "stop",
        "output": right_reply(problem_of(row)), **changes,
    }  # fmt: skip


async def test_a_score_is_over_all_rows_and_nothing_is_judged(tmp_path, data, tiny_model) -> None:
    rows = prepared(recipe(data), tmp_path, tiny_model)
    of = {name: [row for i in range(len(rows)) if (row := rows.row(i)).data_source == name] for name in
          ("aime24", "frames", "longbench-v2")}  # fmt: skip
    cut = {"output": "<think>The correct answer is (A). The correct answer is (B)", "finish_reason": "length"}
    gone = {"output": "", "finish_reason": "", "reason": "no worker"}
    answers = [answer_to(row) for row in of["aime24"]]
    answers[0].update(output="</think>It is \\boxed{123456}.")
    answers += [
        answer_to(row, **(cut if i == 0 else gone if i == 1 else {})) for i, row in enumerate(of["longbench-v2"])
    ]
    answers += [answer_to(row) for row in of["frames"]]
    answers[-1].update(output="</think>Therefore, the answer is (something else).")
    members = [*of["aime24"], *of["longbench-v2"], *of["frames"]]
    await held_out.score(list(zip(answers, members, strict=True)), thinking=True)
    # As they are read back from the file of a round.
    numbers = metrics_of(json.loads(json.dumps(answers)), len(answers))
    right = {name: len(found) for name, found in of.items()}
    assert numbers["val-suite/aime24/score"] == pytest.approx((right["aime24"] - 1) / right["aime24"])
    assert numbers["val-suite/longbench-v2/score"] == pytest.approx((right["longbench-v2"] - 2) / right["longbench-v2"])
    assert numbers["val-suite/frames/rules"] == pytest.approx((right["frames"] - 1) / right["frames"])
    assert numbers["val-suite/frames/to_judge"] == 1
    assert not [
        key for key in numbers if key.startswith(("val/", "val_by_type/", "val-core/", "val-suite/frames/score"))
    ]
    assert numbers["val-aux/unscored"] == 0, "of rows that the reward service scores"
    assert not [key for key in metrics_of(answers, len(answers) + 1) if key.startswith("val-suite/")]


async def test_a_round_scores_them_and_a_repeat_reads_it(tmp_path, data, tiny_model, redis_url, run_name) -> None:
    made = recipe(data, "data.validation_prompts=0", "data.validation_suite_samples=1")
    rows = prepared(made, tmp_path / "data", tiny_model)
    assert set(rows.task_types) == {BENCHMARK}
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        await queue.setup(queue_settings(groups_per_step=1), [np.arange(3, dtype=np.int32)], ["a"] * 3)
        fence = (await queue.attach(0)).token
        await queue.announce(fence, WeightsRef(0, "/w/v0", "one", "sum"))
        rounds = ValidationRounds(made, queue, rows, tmp_path, LearnerStatus())
        asked: list[int] = []

        async def answers() -> None:
            while len(asked) < len(rows):
                for item in await queue.validation.lease(0, "one", len(rows)):
                    said = right_reply(problem_of(rows.row(item.row)))
                    given = ValidationResult(item.row, None, "the learner scores it", said, 4, "stop", "w")
                    await queue.validation.submit(item, given)
                    asked.append(item.row)
                await asyncio.sleep(0.01)

        numbers, _ = await asyncio.gather(rounds.run(0, fence, "one", asyncio.Event()), answers())
        for name in ("aime24", "longbench-v2", "mrcr-128k"):
            assert numbers[f"val-suite/{name}/score"] == 1.0
        assert numbers["val-suite/frames/rules"] == 1.0
        assert await rounds.run(0, fence, "one", asyncio.Event()) == numbers
