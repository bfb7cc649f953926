"""What a run's folder says about it, and the line that `golongrl status --name` makes of it."""

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from golongrl.errors import InputError
from golongrl.kubernetes.look import local_run
from golongrl.kubernetes.look.local_run import alive, headline, wanted_steps
from golongrl.recipe import dump, load
from golongrl.telemetry.history import REWARD, STEP, History
from golongrl.telemetry.run_info import RunInfo, resume_command

ME = psutil.Process()
INFO = RunInfo("demo", "1", "host", "2026-01-01T00:00:00+00:00", ME.pid, ME.create_time(), "running", "redis://h:1/0")
RECORDS = History(tuple({STEP: float(step), REWARD: step / 10} for step in range(11)))


def test_a_record_is_read_as_it_was_written_and_a_newer_ones_fields_are_passed_over(tmp_path: Path) -> None:
    assert RunInfo.read(tmp_path) is None
    INFO.write(tmp_path)
    assert RunInfo.read(tmp_path) == INFO
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 1}))
    assert RunInfo.read(tmp_path) == INFO


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "5", '"x"', "\udcff", "[" * 100_000])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=r"run\.json: not a run's record"):
        RunInfo.read(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "watch.json", "metrics.jsonl", "redis/password"])
def test_a_pipe_in_the_place_of_a_file_holds_up_no_status(tmp_path: Path, name: str) -> None:
    INFO.write(tmp_path)
    pipe = tmp_path / name
    pipe.parent.mkdir(exist_ok=True)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=f"{name}.* not a"):
        local_run.read(tmp_path)


@pytest.mark.parametrize(
    ("runs", "said"),
    [((), "runs has no run"), ("ba", "runs has a, b"), ("abcdefg", "runs has a, b, c, d, e and 2 more")],
)
def test_a_name_without_a_run_is_answered_with_the_runs_that_are_there(
    tmp_path: Path, runs: tuple[str, ...] | str, said: str
) -> None:
    for run in runs:
        (tmp_path / "runs" / run).mkdir(parents=True)
        INFO.write(tmp_path / "runs" / run)
    with pytest.raises(InputError, match=rf"no run in .*/quickstart \(it has no run.json\); .*/{said};"):
        local_run.read(tmp_path / "runs" / "quickstart")


def test_a_command_to_continue_is_one_for_a_shell() -> None:
    assert resume_command("demo", Path("runs")) == "golongrl train --resume --name demo"
    command = resume_command("demo", Path("my runs/$1's"), "a b.yaml")
    assert shlex.split(command)[2:] == ["a b.yaml", "--resume", "--name", "demo", "--out", "my runs/$1's"]


def test_a_process_that_has_the_id_by_now_is_another_one() -> None:
    assert alive(INFO)
    assert not alive(replace(INFO, pid_started=INFO.pid_started - 100))
    assert not alive(replace(INFO, pid=2**22 + os.getpid()))


@pytest.mark.parametrize(
    ("changes", "lives", "line"),
    [
        ({"state": "done"}, False, "done: 10 steps, mean reward 0.200 -> 0.800"),
        ({}, True, "demo: running since 2026-01-01T00:00:00+00:00 (pid PID), step 10, redis://h:1/0"),
        (
            {},
            False,
            "demo: stopped after step 10: its supervisor (pid PID) was killed; "
            "golongrl train --resume --name demo continues it",
        ),
        (
            {"state": "failed", "detail": "no space left on runs/demo"},
            False,
            "demo: failed after step 10: no space left on runs/demo; golongrl train --resume --name demo continues it",
        ),
    ],
)
def test_the_headline_says_what_the_run_does_or_how_to_continue_it(
    changes: dict[str, str], lives: bool, line: str
) -> None:
    assert headline(replace(INFO, **changes), RECORDS, lives=lives) == line.replace("PID", str(ME.pid))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ("quickstart", " (all rows were used; learner.steps is 40)"),
        ("qwen3-4b-grpo", ""),
        ("", ""),
    ],
)
def test_a_run_that_ended_before_its_last_step_says_why(recipe: str, why: str, tmp_path: Path) -> None:
    if recipe:
        (tmp_path / "recipe.yaml").write_text(dump(load(recipe)))
    line = headline(replace(INFO, state="done"), RECORDS, lives=False, wanted=wanted_steps(tmp_path))
    assert line == f"done: 10 steps{why}, mean reward 0.200 -> 0.800"
