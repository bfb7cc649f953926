"""`golongrl trace`: the life of a group or a step, from the lines of several processes."""

import json
from pathlib import Path

import pytest

from golongrl.errors import GolongrlError, InputError
from golongrl.monitoring.command import trace
from golongrl.telemetry import life


def line(second: float, service: str, event: str, **fields: object) -> str:
    stamp = f"2026-01-01T00:00:{second:09.6f}Z"
    return json.dumps({"timestamp": stamp, "level": "info", "service": service, "run": "r", "event": event, **fields})


WORKER = [
    line(1, "rollout", "group leased", worker="rollout-0", uid="0-1", version=4, prompt_tokens=9),
    line(1.5, "rollout", "group leased", worker="rollout-0", uid="0-10", version=4, prompt_tokens=9),
    "Loading weights: 100%",
    line(3, "rollout", "group submitted", worker="rollout-0", uid="0-1", tokens=40, generate_s=1.9),
    line(3.5, "rollout", "group rejected", worker="rollout-0", uid="0-10", reason="all_equal"),
    line(9, "rollout", "weights taken", worker="rollout-0", version=6, mode="in_place"),
    line(12, "rollout", "weights taken", worker="rollout-0", version=7, mode="in_place"),
]
LEARNER = [
    line(4, "learner", "batch taken", step=6, groups=2, replayed=False),
    line(4.1, "learner", "group taken", uid="0-1", step=6),
    line(4.1, "learner", "group taken", uid="0-2", step=6),
    line(5, "learner", "batch taken", step=7, groups=1, replayed=False),
    line(5.1, "learner", "group taken", uid="0-3", step=7),
    line(7, "learner", "step", step=6, reward=0.5, seconds=2.0),
    line(8, "learner", "weights published", version=6, bytes=10),
    line(11, "learner", "step", step=7, reward=0.6, seconds=2.0),
    '{"cut',
]


def told(found: list[life.LifeEvent]) -> list[tuple[str, str]]:
    return [(event.who, event.what) for event in found]


def test_a_group_from_its_lease_to_the_engines_that_hold_what_came_of_it() -> None:
    events = life.read([*LEARNER, *WORKER])
    assert told(life.of_group(events, "0-1")) == [
        ("rollout-0", "group leased"),
        ("rollout-0", "group submitted"),
        ("learner", "batch taken"),
        ("learner", "group taken"),
        ("learner", "step"),
        ("learner", "weights published"),
        ("rollout-0", "weights taken"),
    ]
    assert told(life.of_group(events, "0-10")) == [("rollout-0", "group leased"), ("rollout-0", "group rejected")]
    assert life.of_group(events, "0-99") == []


def test_a_step_with_its_groups() -> None:
    found = life.of_step(life.read([*WORKER, *LEARNER]), 6)
    assert [event.what for event in found].count("group leased") == 1
    assert told(found)[-1] == ("rollout-0", "weights taken")
    lines = list(life.tell(found))
    assert lines[0] == "    +0.00 s  rollout-0    group leased 0-1: version 4, prompt_tokens 9"
    assert "    +3.00 s  learner      batch taken: step 6, groups 2, replayed False" in lines


def test_the_command_reads_a_runs_logs_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = tmp_path / "mine" / "logs"
    logs.mkdir(parents=True)
    (logs / "rollout-0.log").write_text("\n".join(WORKER))
    (logs / "learner.log").write_text("\n".join(LEARNER))
    trace("0-1", name="mine", out=tmp_path)
    by_name = capsys.readouterr().out
    assert by_name.count("\n") == 7
    trace("0-1", logs=[logs / "learner.log", logs / "rollout-0.log"])
    assert capsys.readouterr().out == by_name
    trace("6", name="mine", out=tmp_path)
    assert "weights taken" in capsys.readouterr().out


def test_what_cannot_be_told_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("\n".join(WORKER))
    for words, message in (
        (("nonsense", "mine"), "give a uid such as 0-17"),
        (("0-1", None), "give either --name or --logs"),
        (("0-1", "mine"), "no logs of a run in"),
    ):
        with pytest.raises(InputError, match=message):
            trace(words[0], name=words[1], out=tmp_path)
    with pytest.raises(GolongrlError, match="the logs do not name it"):
        trace("5-5", logs=[tmp_path / "x.log"])
    with pytest.raises(InputError, match="No such file"):
        trace("0-1", logs=[tmp_path / "gone.log"])
