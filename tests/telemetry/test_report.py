"""The report page."""

import base64
import gzip
import json
import os
import re
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from golongrl.errors import NoSpaceError
from golongrl.recipe import dump, load
from golongrl.telemetry import report
from golongrl.telemetry.history import History
from golongrl.telemetry.report.figures import time_figure, validation_figures
from golongrl.telemetry.run_info import RunInfo


def records(steps: int) -> list[dict[str, float]]:
    return [
        {
            "training/global_step": step,
            "critic/score/mean": step / steps,
            "reward_by_type/T1": 0.5,
            "reward_by_type/T3": 0.25,
            "staleness/mean": 0.4,
            "staleness/max": 1.0,
            "timing_s/take": 1.0,
            "timing_s/update": 2.0,
            "timing_s/step": 3.0,
            "perf/throughput": 900.0,
            "groups_from/rollout-0": 9.0,
            "groups_from/rollout-1": 9.0,
        }
        for step in range(1, steps + 1)
    ]


def test_the_page_is_self_contained_and_names_every_task(tmp_path: Path) -> None:
    recipe = load("quickstart")
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(record) for record in records(10)))
    page = report.write(tmp_path, recipe, dump(recipe)).read_text("utf-8")
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="?https?://', page)
    for text in ("T1 · EM", "T3 · F1", "0.30 → 0.80", "1 ≤ 1", "90 + 90", "groups_per_step: 18"):
        assert text in page


def test_the_axis_of_groups_counts_whole_ones_also_where_none_is_generated() -> None:
    for leased, top in ((0.0, 4), (30.0, 30)):
        figure = report.throughput_figure(History([record | {"queue/leased": leased} for record in records(3)]))
        assert figure.layout.yaxis2.range == (0, 1.05 * top)


def test_held_out_rewards_stand_beside_the_trained_ones_and_step_0_is_no_step(tmp_path: Path) -> None:
    recipe = load("quickstart")
    lines = [{"training/global_step": 0, "val/mean": 0.125}, *records(10)]
    lines[5]["val/mean"] = 0.375
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(record) for record in lines))
    page = report.write(tmp_path, recipe, dump(recipe)).read_text("utf-8")
    assert '"held-out prompts","x":[0,5],"y":[0.125,0.375]' in page
    assert "<b>10</b><span>optimizer steps" in page
    assert "0.30 → 0.80" in page


def test_a_run_without_steps_says_so(tmp_path: Path) -> None:
    recipe = load("quickstart")
    assert "No step has finished yet" in report.write(tmp_path, recipe, dump(recipe)).read_text("utf-8")


def test_a_name_cannot_inject_markup(tmp_path: Path) -> None:
    recipe = load("quickstart", ["model.path='<script>x</script>'"])
    folder = tmp_path / "run"
    folder.mkdir()
    page = report.write(folder, recipe, dump(recipe)).read_text("utf-8")
    assert "<script>x</script>" not in page


def test_smoothing_is_a_trailing_mean_that_skips_gaps() -> None:
    assert report.smooth([1.0, float("nan"), 3.0], window=2) == [1.0, 1.0, 3.0]


def page_of(tmp_path: Path, lines: list[dict[str, float]], **info: str) -> str:
    recipe = load("quickstart")
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    if info:
        RunInfo("demo", "1", started="2026-01-02T03:04:05+00:00", pid=1, pid_started=0, state="done", **info).write(
            tmp_path
        )
    return report.write(tmp_path, recipe, dump(recipe)).read_text("utf-8")


def test_the_page_brings_the_whole_library_compressed(tmp_path: Path) -> None:
    page = page_of(tmp_path, records(2))
    found = re.search(r'id="plotly">([^<]+)<', page)
    assert found is not None
    assert gzip.decompress(base64.b64decode(found[1])).decode() == get_plotlyjs()
    assert len(page) < len(get_plotlyjs()) / 2


def test_every_figure_of_the_page_is_json_that_a_browser_reads(tmp_path: Path) -> None:
    more = {"response_length/mean": 9.0, "response_length/max": 24.0, "response_length/limit": 24.0,
            "response_length/clip_ratio": 0.1, "rewards/unscored_ratio": 0.02, "rollout_corr/kl": 1e-6,
            "rollout_corr/log_ppl_abs_diff": 1e-7, "actor/grad_norm": 1.0}  # fmt: skip
    page = page_of(tmp_path, [record | more for record in records(3)], machine="gpu-box")
    figures = re.findall(r'<script type="application/json" class="figure">(.*?)</script>', page, re.S)
    drawn = [json.loads(figure) for figure in figures]
    names = [trace.get("name") for figure in drawn for trace in figure["data"]]
    assert {"unscored", "cut off at the limit", "longest", "KL, engine to learner", "gradient norm"} <= set(names)
    assert len(drawn) == 1 + 2 + 2 + 1 + 2 + 1 + 1 + 1
    assert "run on gpu-box, started 2026-01-02 03:04:05 UTC" in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page


@pytest.mark.parametrize("name", ["<script>x</script>", '"><img src=x onerror=y>', "</script><b>"])
def test_no_string_of_a_run_is_markup(tmp_path: Path, name: str) -> None:
    lines = [{**record, f"groups_from/{name}": 1.0, f"timing_s/{name}": 1.0, f"reward_by_type/{name}": 0.5}
             for record in records(2)]  # fmt: skip
    page = page_of(tmp_path, lines, machine=name)
    assert name not in page


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = page_of(tmp_path, records(2))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(NoSpaceError, match=re.escape(f"no space left on {tmp_path}")):
        report.write(tmp_path, load("quickstart"), "")
    assert (tmp_path / "report.html").read_text("utf-8") == before
    assert not list(tmp_path.glob(".*.tmp*"))


def test_a_report_removes_what_one_that_was_killed_left(tmp_path: Path) -> None:
    left, now = tmp_path / ".0123456789ab.tmp", tmp_path / ".ba9876543210.tmp"
    for file in (left, now):
        file.write_text("prompts and answers")
    os.utime(left, (0, 0))
    page_of(tmp_path, records(1))
    assert not left.exists()
    assert now.exists()  # another process may be writing it


def test_held_out_task_types_and_benchmarks_have_names_of_their_own() -> None:
    record = {"val/mean": 0.5, "val_by_type/T1": 0.4, "val_by_type/T3": 0.6}
    suite = {"val-suite/aime24/score": 0.1, "val-suite/frames/rules": 0.2, "val-suite/frames/to_judge": 3.0}
    (figure,) = validation_figures(History([{"training/global_step": 1.0} | record | suite]))
    assert [trace.name for trace in figure.data] == ["all", "T1", "T3", "aime24", "frames (rules)"]


def test_phases_have_names_that_a_reader_knows() -> None:
    phases = {"timing_s/take": 1.0, "timing_s/update_actor": 2.0, "timing_s/new_one": 1.0, "timing_s/step": 4.0}
    figure = time_figure(History([{"training/global_step": 1.0} | phases]))
    assert {trace.name for trace in figure.data} == {"waits for its batch", "updates", "new_one"}
