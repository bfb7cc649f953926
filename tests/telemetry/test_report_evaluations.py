"""A run's evaluations in its report: which are found, what is drawn, and what is no evaluation."""

import json
import math
from pathlib import Path

import pytest

from golongrl.errors import InputError
from golongrl.recipe import dump, load
from golongrl.telemetry import report
from golongrl.telemetry.report.evaluations import of_run

SCORES = {20: (0.5, 0.05), 10: (0.25, None)}


def write(folder: Path, target: str, name: str = "aime24", **more: object) -> Path:
    points = [
        {"name": f"step-{step}", "step": step, "benchmarks": {name: {"value": value, "stderr": error}}}
        for step, (value, error) in SCORES.items()
    ]
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"schema": 1, "target": target, "points": points, **more}))
    return folder


def test_those_of_the_run_are_found_here_and_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(tmp_path / "here" / "evals" / "a-mine", "mine")
    write(tmp_path / "evals" / "b-mine", "mine")
    write(tmp_path / "runs" / "evals" / "c-mine", "mine")
    write(tmp_path / "evals" / "a-other", "other")
    write(tmp_path / "evals" / "empty-mine", "mine", points=[])
    asked = write(tmp_path / "elsewhere" / "d", "renamed")
    assert {one.name for one in of_run(run)} == {"a-mine", "b-mine", "c-mine"}
    found = of_run(run, [asked, tmp_path / "evals" / "b-mine"])
    assert [one.name for one in found] == ["d", "b-mine", "a-mine", "c-mine"]
    (scores,) = found[0].scores.values()
    assert [(one.step, one.value) for one in scores] == [(10, 0.25), (20, 0.5)]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"points": 3}', "[" * 100_000])
def test_what_was_asked_for_and_is_none_is_named(tmp_path: Path, text: str | None) -> None:
    folder = tmp_path / "evals" / "x"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "results.json").write_text(text)
    assert of_run(tmp_path / "runs" / "mine") == []
    with pytest.raises(InputError, match=rf"^--evaluation {folder}: no evaluation's results\.json"):
        of_run(tmp_path / "runs" / "mine", [folder])


def test_a_number_that_no_machine_holds_is_no_score(tmp_path: Path) -> None:
    points = [{"step": 1, "benchmarks": {"a": {"value": 10**400}, "b": {"value": 0.5, "stderr": 10**400}}}]
    write(tmp_path / "evals" / "x", "mine", points=points)
    ((first,), (second,)) = of_run(tmp_path / "runs" / "mine")[0].scores.values()
    assert math.isnan(first.value)
    assert (second.value, math.isnan(second.stderr)) == (0.5, True)


def test_points_of_another_kind_are_passed_over(tmp_path: Path) -> None:
    points = [
        {"step": None, "benchmarks": {"a": {"value": 1.0}}},
        {"step": 3, "benchmarks": {"a": {"value": None, "why_no_value": "no judge"}, "b": [], "c": {"value": "x"}}},
        "nonsense",
    ]
    write(tmp_path / "evals" / "x", "mine", points=points)
    assert of_run(tmp_path / "runs" / "mine") == []


def test_the_report_shows_scores_by_step_and_escapes_names(tmp_path: Path) -> None:
    run, recipe = tmp_path / "runs" / "mine", load("quickstart")
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"training/global_step": 1, "critic/score/mean": 0.5}))
    write(tmp_path / "evals" / "a<script>alert(1)</script>"[:12], "mine", name="</script><img src=x>")
    page = report.write(run, recipe, dump(recipe)).read_text("utf-8")
    assert "<h2>Evaluation</h2>" in page
    assert '"x":[10,20],"y":[0.25,0.5]' in page
    assert "<img src=x" not in page
    without = report.write(tmp_path / "runs" / "mine", recipe, dump(recipe), ())
    assert without.read_text("utf-8").count("<h2>Evaluation</h2>") == 1
