"""Reading metrics.jsonl back."""

import json
import math
from pathlib import Path

import pytest

from golongrl.telemetry import history
from golongrl.telemetry.report.gather import gather


def line(step: int, **values: float) -> str:
    return json.dumps({history.STEP: step, **values})


def test_the_last_line_of_a_step_counts_and_a_cut_line_is_passed_over() -> None:
    first, again = line(1, a=1.0), line(1, a=2.0)
    assert history.parse([first, line(2, a=3.0), again, line(3, a=4.0)[:-3]]).series("a") == [2.0, 3.0]


@pytest.mark.parametrize(
    "damage",
    ["[" * 100_000, f'{{"{history.STEP}": "x"}}', f'{{"{history.STEP}": null}}', f'{{"{history.STEP}": NaN}}',
     f'{{"{history.STEP}": 1e999}}', f'{{"{history.STEP}": 2, "a": 1{"0" * 400}}}', "5", "null", "[1]", "1" * 5000],
    ids=range(10),
)  # fmt: skip
def test_a_damaged_line_is_passed_over(damage: str, tmp_path: Path) -> None:
    assert history.parse([line(1, a=1.0), damage, line(3, a=2.0)]).series("a") == [1.0, 2.0]
    (tmp_path / "metrics.jsonl").write_text("\n".join([line(1, a=1.0), damage, line(3, a=2.0)]))
    assert gather(tmp_path).history.series("a") == [1.0, 2.0]


def test_a_line_with_bytes_that_are_no_text_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([line(1, a=1.0).encode(), b"\xff\xfe{", line(3, a=2.0).encode()]))
    assert history.read(path).series("a") == [1.0, 2.0]
    assert gather(tmp_path).history.series("a") == [1.0, 2.0]


def test_a_missing_value_is_nan_and_a_text_is_no_series() -> None:
    read = history.parse([line(1, a=1.0), json.dumps({history.STEP: 2, "note": "text"})])
    assert math.isnan(read.series("a")[1])
    assert read.keys("note") == []


def test_task_types_come_from_their_metric_names() -> None:
    read = history.parse([json.dumps({history.STEP: 1, "reward_by_type/T3": 0.5, "task_metrics/EM/std_reward": 0.1})])
    assert read.tasks() == ["T3"]
    assert read.task("T3") == [0.5]


def test_change_compares_the_first_with_the_last_steps() -> None:
    read = history.parse([json.dumps({history.STEP: s, history.REWARD: s / 10}) for s in range(1, 11)])
    first, last = read.change()
    assert (round(first, 6), round(last, 6)) == (0.3, 0.8)


def test_a_run_without_a_step_has_an_empty_history(tmp_path: Path) -> None:
    assert history.read(tmp_path / "metrics.jsonl").records == ()
