"""What `golongrl train` says before the services start: where it resumes, and which rows are left out."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from rich.console import Console

from golongrl.data import prepared
from golongrl.data.model_check import model_of
from golongrl.data.prepared import open_splits
from golongrl.errors import InputError
from golongrl.learner.checkpoints.resume import own_checkpoint
from golongrl.learner.checkpoints.store import TRACKER, Checkpoints, LearnerState
from golongrl.learner.recipe_warnings import recipe_warnings
from golongrl.local import run, temporary
from golongrl.local.plan import Options, Ports, RunFolder
from golongrl.local.run import (
    TrainRequest,
    _beginning,
    _finish,
    _info,
    _nothing_to_do,
    _prepare_data,
    _record_of,
    _resuming,
    execute,
)
from golongrl.reading import file_sha256
from golongrl.recipe import Recipe, dump, load
from golongrl.telemetry import report
from golongrl.telemetry.run_info import RunInfo
from support.checkpoints import make

RECIPE = load("quickstart")
STATE = LearnerState(step=2, lineage="a", checksum="c", ranks=1, seed=0, groups_per_step=3, rows=9, order="o")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "demo")
    checkpoints = Checkpoints(made.checkpoints)
    for step in (2, 4):
        make(checkpoints, replace(STATE, step=step, history="h"), np.zeros((1, 2), np.int32))
    made.metrics.write_text("".join(json.dumps({"training/global_step": step}) + "\n" for step in range(1, 6)))
    return made


def resuming(folder: RunFolder, recipe: Recipe = RECIPE) -> str:
    return _resuming(folder, recipe, own_checkpoint(Checkpoints(folder.checkpoints)))


def test_a_resume_says_the_step_that_it_continues_at(folder: RunFolder) -> None:
    assert resuming(folder) == (
        "resuming demo at step 5, from the checkpoint of step 4; step 5 is computed again, from the same groups unless "
        "Redis has lost them"
    )


@pytest.mark.parametrize("damage", ["file", "tracker", "no tracker"])
def test_it_is_the_step_of_the_checkpoint_that_is_whole(damage: str, folder: RunFolder) -> None:
    actor = folder.checkpoints / "global_step_4" / "actor"
    (actor / "optim_world_size_1_rank_0.pt").unlink()
    if damage == "tracker":
        (folder.checkpoints / TRACKER).write_text("four")
    if damage == "no tracker":
        (folder.checkpoints / TRACKER).unlink()
    line = resuming(folder)
    assert "optim_world_size_1_rank_0.pt is missing" in line
    assert "resuming demo at step 3, from the checkpoint of step 2; steps 3 to 5 are computed again" in line
    (folder.checkpoints / "global_step_2" / "learner.json").unlink()
    with pytest.raises(InputError, match=r"--resume: .* is missing; no checkpoint of the run is whole: name one with"):
        resuming(folder)
    named = load("quickstart", ["learner.resume=never"])
    assert "no checkpoint is whole" in resuming(folder, named)


@pytest.mark.parametrize("damage", ["folder", "bytes"])
def test_a_table_of_steps_that_cannot_be_read_is_one_line_and_damaged_bytes_cost_nothing(
    damage: str, folder: RunFolder
) -> None:
    if damage == "bytes":
        folder.metrics.write_bytes(folder.metrics.read_bytes() + b"\xff\xfe{\n")
        assert "step 5 is computed again" in resuming(folder)
        return
    folder.metrics.unlink()
    folder.metrics.mkdir()
    with pytest.raises(InputError, match=r"metrics.jsonl: cannot be read: Is a directory"):
        resuming(folder)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_that_has_all_its_steps_says_so(steps: int, folder: RunFolder) -> None:
    line = resuming(folder, load("quickstart", [f"learner.steps={steps}"]))
    assert line == f"resuming demo: 4 steps are done and learner.steps is {steps}, so no step is left"


def nothing_to_do(folder: RunFolder, *overrides: str, step: int = 4) -> str | None:
    return _nothing_to_do(folder, load(str(folder.recipe), overrides), (step, []))


def test_a_run_that_is_done_starts_only_for_something(folder: RunFolder) -> None:
    """It started every service, and found then that no step is left."""
    folder.recipe.write_text(dump(load("quickstart", ["learner.steps=4"])))
    assert nothing_to_do(folder) is None, "its result is lost"
    folder.result.mkdir()
    assert nothing_to_do(folder) == (
        "run demo is done: 4 steps, and learner.steps is 4; to go on, --set learner.steps=8"
    )
    assert nothing_to_do(folder, "learner.steps=3") is not None
    assert nothing_to_do(folder, "learner.steps=5") is None
    assert nothing_to_do(folder, "learner.test_freq=4") is None, "the last step may have to be validated"
    assert nothing_to_do(folder, step=3) == (
        "run demo is done: 3 steps, then every row was trained, rejected or set aside"
    )
    assert nothing_to_do(folder, "learner.steps=5", step=3) is None
    assert _nothing_to_do(folder, load(str(folder.recipe)), (4, ["a later one is damaged"])) is None


def test_a_done_run_is_resumed_without_a_change(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.recipe.write_text(dump(load("quickstart", ["learner.steps=4"])))
    folder.result.mkdir()
    _info(folder).write(folder.path)
    before = replace(RunInfo.read(folder.path) or _info(folder), state="done")
    before.write(folder.path)
    request = TrainRequest(
        recipe="quickstart", named=False, overrides=("learner.steps=3",), folder=folder, engines=1, engine="embedded",
        sglang_venv=folder.path / "none", redis_url=None, base_port=0, resume=True, plain=True,
    )  # fmt: skip
    names = sorted(path.name for path in folder.path.iterdir())
    execute(request)
    assert "run demo is done: 4 steps, and learner.steps is 3" in capsys.readouterr().out
    assert RunInfo.read(folder.path) == before
    assert sorted(path.name for path in folder.path.iterdir() if path.name != ".lock") == names
    assert load(str(folder.recipe)).learner.steps == 4


def test_a_new_run_begins_only_with_a_whole_checkpoint(folder: RunFolder, tmp_path: Path) -> None:
    whole, missing = folder.checkpoints / "global_step_4", tmp_path / "global_step_9"
    for beginning in ("auto", "never", str(whole)):
        found = _beginning(beginning, new=True)
    assert found is not None
    assert found.folder == whole
    # The run may have gone further, and the checkpoint that it began with may be gone.
    assert _beginning(str(missing), new=False) is None
    with pytest.raises(InputError, match="global_step_9: no such folder"):
        _beginning(str(missing), new=True)
    (whole / "learner.json").write_text("")
    with pytest.raises(InputError, match=r"global_step_4: learner.json cannot be read"):
        _beginning(str(whole), new=True)
    for new in (False, True):
        with pytest.raises(InputError, match="neither auto, never nor the path of a checkpoint folder"):
            _beginning(str(tmp_path / "nowhere"), new=new)


def test_a_run_without_a_checkpoint_starts_at_step_1(tmp_path: Path) -> None:
    assert resuming(RunFolder(tmp_path / "demo")).endswith("it has no checkpoint yet, and starts at step 1")


def test_rows_that_are_left_out_are_counted_and_the_list_is_named(tmp_path: Path) -> None:
    from golongrl.data.pipeline import sources
    from golongrl.data.row_files import write_rows

    small = ["data.prompts=9", "data.validation_prompts=0", "learner.test_freq=0"]
    data = tmp_path / "rows.jsonl"
    write_rows((row for _, row in sources(load("quickstart", small))["train"].rows), data)
    data.write_text(data.read_text("utf-8") + '{"data_source": "EM"}\n{"a": 1}\n', "utf-8")
    recipe = load("quickstart", [*small, "data.corpus=null", f"data.train={data}", "data.bad_rows=skip"])
    folder = RunFolder(tmp_path / "demo")
    folder.path.mkdir()
    options = Options(
        run="demo", folder=folder, ports=Ports.from_base(20000, 1), model=model_of(recipe, to_train=True),
        engine="embedded", sglang_venv=tmp_path, redis_url=None, password=None,
    )  # fmt: skip
    said = io.StringIO()
    _prepare_data(recipe, options, Console(file=said, width=200))
    listed = folder.data / "prepared.json"
    assert "warning: 9 rows x data.epochs 1 at queue.groups_per_step 18 are at most 1 steps" in said.getvalue()
    assert f"train: 2 bad rows left out (2 not of the format); {listed} lists them" in said.getvalue()
    assert len(json.loads(listed.read_text())["train"]["bad_rows"]) == 2


def test_only_this_runs_temporary_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's folder that was copied while it ran names the other's; one that was edited may name anything."""
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    mine, copied, moved = (RunFolder(tmp_path / name) for name in ("mine", "copied", "moved"))
    for folder in (mine, copied):
        folder.path.mkdir()
    own, foreign = temporary.make(mine), tmp_path / "golongrl-checkout"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    (link := tmp_path / "golongrl-link").symlink_to(own)
    for place in (own, foreign, tmp_path / "absent", None):
        temporary.remove(copied, place)
    for place in (foreign, link):
        temporary.remove(mine, place)
    assert (own / "run").is_file()
    assert (foreign / "thesis.tex").is_file()
    mine.path.rename(moved.path)
    temporary.remove(moved, own)
    assert not own.exists()
    again = temporary.make(moved)
    moved.path.rmdir()
    temporary.remove(moved, again)
    assert again.exists()
    temporary.remove(moved, again, own=True)
    assert not again.exists()


def test_what_writes_the_report_is_loaded_when_a_run_starts() -> None:
    """Another version had taken its place by the end of a run that was done: a traceback, and exit code 1."""
    assert run.write is report.write


def test_a_table_of_steps_that_cannot_be_read_does_not_hide_why_the_run_ended(tmp_path: Path) -> None:
    folder, said = RunFolder(tmp_path), io.StringIO()
    folder.metrics.mkdir()
    request = cast(TrainRequest, SimpleNamespace(folder=folder))
    _finish(request, load("quickstart"), _info(folder), Console(file=said, width=500))
    assert said.getvalue().startswith(f"no report.html in {tmp_path}: {folder.metrics}: ")


def test_data_whose_preparation_was_killed_are_prepared_again(tmp_path: Path) -> None:
    recipe = load("quickstart", ["data.prompts=18", "data.validation_prompts=3"])
    folder = RunFolder(tmp_path / "demo")
    (folder.data / "train").mkdir(parents=True)
    (folder.data / "prepared.json").write_text("{}")
    options = Options(
        run="demo", folder=folder, ports=Ports.from_base(20000, 1), model=model_of(recipe, to_train=True),
        engine="embedded", sglang_venv=tmp_path, redis_url=None, password=None,
    )  # fmt: skip
    _prepare_data(recipe, options, Console(file=io.StringIO()))
    train, held = open_splits(folder.data)
    assert (len(train), held is not None) == (18, True)
    before = (folder.data / "train" / "rows.arrow").stat()
    # Whole, it stays, whatever became of its sources.
    _prepare_data(load("quickstart", ["data.prompts=36"]), options, Console(file=io.StringIO()))
    assert (folder.data / "train" / "rows.arrow").stat() == before
    # Damaged, they are refused before anything starts.
    rows, report = folder.data / "train" / "rows.arrow", folder.data / "prepared.json"
    for path, words in ((rows, "prepared data .*rows.arrow"), (report, "prepared.json is missing")):
        path.unlink()
        with pytest.raises(InputError, match=rf"{words}.*[;:] remove .*data and use --resume again"):
            _prepare_data(recipe, options, Console(file=io.StringIO()))


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"null", b"{}", b"[" * 100_000])
def test_a_damaged_record_of_the_last_start_does_not_hinder_a_resume(damage: bytes, folder: RunFolder) -> None:
    (folder.path / "run.json").write_bytes(damage)
    said = io.StringIO()
    assert _record_of(folder, Console(file=said, width=500)) is None
    assert "run.json: not a run's record (" in said.getvalue()
    assert "__init__" not in said.getvalue()


def test_train_says_the_warnings_of_recipe_check_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ("algorithm.entropy_low=0.1", "data.prompts=36", "learner.steps=5000")
    request = TrainRequest(
        recipe="quickstart", named=True, overrides=overrides, folder=RunFolder(tmp_path / "demo"), engines=1,
        engine="sglang", sglang_venv=tmp_path / "none", redis_url=None, base_port=0, resume=False, plain=True,
    )  # fmt: skip
    with pytest.raises(InputError):
        execute(request)
    said = capsys.readouterr().out.splitlines()
    expected = [f"warning: {line}" for line in recipe_warnings(load("quickstart", overrides))]
    assert len(expected) == 2
    assert said == expected
    assert not (tmp_path / "demo").exists()


def test_a_new_run_does_not_begin_with_another_models_checkpoint(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner said it, half a minute later, and the run's folder stayed."""
    hashed: list[Path] = []
    monkeypatch.setattr(prepared, "file_sha256", lambda path: [hashed.append(path), file_sha256(path)][1])
    other = replace(STATE, model={"hidden_size": "1024"})
    place = make(Checkpoints(tmp_path / "other"), other, np.zeros((1, 2), np.int32))
    overrides = ("data.prompts=36", "data.validation_prompts=0", "learner.steps=2", f"learner.resume={place}")
    request = TrainRequest(
        recipe="quickstart", named=True, overrides=overrides, folder=RunFolder(tmp_path / "new"), engines=1,
        engine="embedded", sglang_venv=tmp_path / "none", redis_url=None, base_port=0, resume=False, plain=True,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"does not belong to model.path builtin:quickstart: hidden_size was 1024"):
        execute(request)
    assert not (tmp_path / "new").exists()
    assert len(hashed) == 1, "gigabytes of rows are read once"
