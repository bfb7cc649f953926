"""The report page."""

import json
import re
from pathlib import Path

from golongrl.recipe import dump, load
from golongrl.telemetry import report
from golongrl.telemetry.history import History


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
