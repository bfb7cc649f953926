"""What a person sees, as text."""

import io
import json

from rich.console import Console

from golongrl.local.progress import Display, RunSnapshot, render, spark, step_line, waits
from golongrl.queue import Presence
from golongrl.telemetry import history


def record(step: int) -> dict[str, float]:
    return {
        "training/global_step": step,
        "critic/score/mean": 0.25,
        "reward_by_type/T3": 0.5,
        "staleness/mean": 0.5,
        "staleness/max": 1,
        "perf/throughput": 1234.0,
        "timing_s/step": 6.0,
    }


def snapshot(steps: int, **changes: object) -> RunSnapshot:
    lines = [json.dumps(record(step)) for step in range(1, steps + 1)]
    return RunSnapshot("demo", 40, history.parse(lines), **changes)  # type: ignore[arg-type]


def test_a_step_is_one_line_with_what_matters() -> None:
    assert step_line({"training/global_step": 0, "val/mean": 0.25}, 40) == "step 0/40 · held-out reward 0.250"
    assert "step 3/40 · held-out reward 0.500 · reward" in step_line({**record(3), "val/mean": 0.5}, 40)
    line = step_line(record(3), 40)
    assert line == "step 3/40 · reward 0.250 · staleness 0.50 (max 1) · 1234 tokens/s · 6.0 s"


def test_a_sparkline_shows_the_newest_values() -> None:
    assert spark([0.0, 0.5, 1.0, 2.0, float("nan")]) == "▁▅██"
    assert spark([0.0] * 50 + [1.0], width=2) == "▁█"


def test_what_is_waited_for_names_services_that_are_down_first() -> None:
    learner = Presence("learner", "host", {"doing": "waiting for step 3: 12 of 18 groups", "for_s": "4"}, 0.1, 10.0)
    found = waits(snapshot(0, processes=[learner], states={"engine-0": "restarting (death 1)", "reward": "up"}))
    assert found == ["engine-0: restarting (death 1)", "learner: waiting for step 3: 12 of 18 groups (4 s)"]


def test_the_live_view_holds_progress_and_tasks() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(render(snapshot(3)))
    assert "step 3 of 40" in out.getvalue()
    assert "staleness 0.50 (max 1) · 1234 tokens/s" in out.getvalue()
    assert "T3 F1" in out.getvalue()


def test_a_long_wait_is_wrapped_beside_its_label() -> None:
    worker = Presence("rollout", "rollout-0", {"waiting_for": "full: enough groups wait for [B] = 18"}, 0.1, 10.0)
    console = Console(width=50, record=True, file=io.StringIO())
    console.print(render(snapshot(0, processes=[worker])))
    lines = [line.strip("│ ").rstrip() for line in console.export_text().splitlines()]
    assert "waiting  rollout-0: full: enough groups wait" in lines
    assert "for [B] = 18" in lines


def test_without_a_terminal_every_step_is_said_once() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=200), live=False) as display:
        display.show(snapshot(1))
        display.show(snapshot(3))
        display.show(snapshot(3))
    assert [line.split(" ·")[0] for line in out.getvalue().splitlines()] == ["step 1/40", "step 2/40", "step 3/40"]
