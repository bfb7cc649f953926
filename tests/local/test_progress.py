"""What a person sees, as text."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

from rich.console import Console

from golongrl.local.progress import (
    Display,
    RunSnapshot,
    Screen,
    Silence,
    render,
    spark,
    starting,
    step_line,
    wait_line,
    waits,
)
from golongrl.queue import LeaseStats, Presence
from golongrl.telemetry import history
from golongrl.telemetry.watchdog import Stall


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


def presence(service: str, id: str, **fields: str) -> Presence:
    return Presence(service, id, fields, 0.1, 10.0)


def test_a_worker_that_is_at_work_is_not_waited_for() -> None:
    busy = presence("learner", "host", doing="updating")
    full = presence("rollout", "rollout-0", waiting_for="full: enough groups wait for B = 18")
    slots = presence("rollout", "rollout-1", waiting_for="a response to end")
    down = presence("rollout", "rollout-2", waiting_for="the engine: no answer")
    assert waits(snapshot(1, processes=[busy, full, slots, down])) == [
        "learner: updating",
        "rollout-2: the engine: no answer",
    ]
    idle = presence("learner", "host", doing="waiting for step 2: 3 of 18")
    assert "rollout-0: full: enough groups wait for B = 18" in waits(snapshot(1, processes=[idle, full]))


def test_what_a_run_starts_names_the_learners_phase_without_its_counts() -> None:
    learner = presence("learner", "host", doing="starting the ranks (Ray, model)", for_s="20")
    states = {"engine-1": "starting", "learner": "starting", "reward": "up"}
    assert starting(snapshot(0, processes=[learner], states=states)) == [
        "engine-1",
        "learner (starting the ranks (Ray, model))",
    ]
    before = replace(learner, age_s=9.0)
    assert starting(snapshot(0, processes=[before], states={"learner": "starting"})) == ["learner"]
    waiting = presence("learner", "host", doing="waiting for step 1: 3 of 18 ready")
    assert starting(snapshot(0, processes=[waiting], states={"learner": "up"})) == ["learner (waiting for step 1)"]


def test_silence_is_broken_every_15_seconds() -> None:
    silence = Silence(since=100.0)
    spoken = [now for now in range(100, 170) if silence.due(float(now))]
    assert spoken == [115, 130, 145, 160]
    silence.progress(2000.0)
    assert [now for now in range(2000, 2050) if silence.due(float(now))] == [2015, 2030, 2045]


def shown(*snapshots: RunSnapshot, seen: int = -1, step_s: float = 1.0) -> list[str]:
    """The lines of a display that is shown these, `step_s` seconds apart."""
    out, now = io.StringIO(), [0.0]
    with Display(Console(file=out, width=200), live=False, seen=seen, now=lambda: now[0]) as display:
        for each in snapshots:
            display.show(each)
            now[0] += step_s
    return out.getvalue().splitlines()


def test_a_long_wait_is_named_and_steps_are_not() -> None:
    learner = presence("learner", "host", doing="waiting for step 2: 3 of 18", for_s="15")
    waiting = snapshot(1, processes=[learner], states={"learner": "up"})
    lines = shown(*[waiting] * 47)
    assert lines[0].startswith("step 1/40")
    assert lines[1:] == [f"waiting for {s} s: learner: waiting for step 2: 3 of 18 (15 s)" for s in (15, 30, 45)]


def test_a_resumed_run_does_not_print_its_old_steps_again() -> None:
    # The learner cuts the record back to its checkpoint and computes steps 3 and 4 again.
    lines = shown(snapshot(4), snapshot(2), snapshot(3), snapshot(4), snapshot(5), seen=4)
    assert [line.split(" ·")[0] for line in lines] == ["step 5/40"]


def test_a_group_that_waits_for_its_scores_names_the_reward_service() -> None:
    lease = LeaseStats("0-7", "rollout-1", 3, "scoring", 55, 40.0, 36.0, 80.0)
    stats = SimpleNamespace(blocking=lease, stopped=None)
    learner = presence("learner", "host", doing="waiting for step 4: 0 of 18")
    found = waits(snapshot(1, queue=stats, processes=[learner]))
    assert found[0] == "rollout-1: group 0-7 waits for the reward service (no progress for 36 s)"
    updating = presence("learner", "host", doing="updating")
    assert waits(snapshot(1, queue=stats, processes=[updating])) == ["learner: updating"]


def test_a_run_that_is_over_waits_for_its_learner_to_end() -> None:
    over = SimpleNamespace(blocking=None, stopped="complete")
    idle = presence("rollout", "rollout-0", waiting_for="the run is over: 9 steps")
    assert wait_line(snapshot(9, queue=over, processes=[idle]), 15.2) == "waiting for 15 s: learner: ending"


def test_a_learner_that_reports_nothing_is_named_before_those_who_wait_for_it() -> None:
    stats = SimpleNamespace(blocking=None, stopped=None)
    full = presence("rollout", "rollout-0", waiting_for="full: enough groups wait")
    states = {"learner": "up", "rollout-0": "up", "rollout-1": "does not answer", "reward": "up"}
    found = waits(snapshot(1, queue=stats, processes=[full], states=states))
    assert found == ["rollout-1: does not answer", "learner: no heartbeat", "rollout-0: full: enough groups wait"]
    assert "learner: no heartbeat" not in waits(snapshot(1, processes=[full], states=states))


def test_a_stall_is_told_at_once_then_every_15_seconds_and_its_end_too() -> None:
    chain = Stall("reward", "reward", ("rollout-0 waits for reward to score a group, 4 s", "reward was stopped"))
    well = snapshot(1, states={"learner": "up"})
    frozen = snapshot(1, states={"learner": "up"}, stalls=(chain,))
    lines = shown(well, *[frozen] * 40, well)
    told = "stalled: rollout-0 waits for reward to score a group, 4 s <- reward was stopped"
    assert lines[1:] == [told, told, told, "no longer stalled: reward"]
    assert waits(frozen)[0] == told.removeprefix("stalled: ")
    out = io.StringIO()
    Console(file=out, width=200).print(render(frozen))
    assert "reward was stopped" in out.getvalue()


def test_control_characters_of_a_run_do_not_reach_the_terminal() -> None:
    out = io.StringIO()
    Display(Screen(file=out, force_terminal=True, width=200), live=False).say("stalled: \x1b[2Jrollout-\x07 waits")
    assert "stalled: ?[2Jrollout-? waits" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
