"""Weights & Biases beside metrics.jsonl: what its client writes down, and what happens without a way there."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from golongrl.learner.observe.metrics_log import Records
from golongrl.learner.observe.tracking import Tracking
from golongrl.recipe import RecipeError, load
from support.processes import below

TRACKING = Tracking("long-context", "q1", {"seed": 7})


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client keeps one process's settings: the environment of the test before."""
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_CACHE_DIR", "")  # so that what is set inside is undone
    monkeypatch.delenv("WANDB_CACHE_DIR")
    yield
    wandb.teardown()


def written(path: Path) -> Iterator[bytes]:
    """The records of a client's file, which is LevelDB's log format after seven bytes of its own: blocks of 32 KiB, and
    in each pieces of a record behind checksum (4 bytes), length (2) and place (1: whole, or 2, 3 and 4: first to last).
    """
    content, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := -at % 32768) and left < 7:
            at += left
            continue
        length, place = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if place in (1, 4):
            yield record
            record = b""


def wandb_core() -> psutil.Process:
    """The client's own process."""
    (found,) = [one.process for one in below() if one.name == "wandb-core"]
    return found


def shown(out: Path) -> dict[int, dict[str, float]]:
    """Every number in the client's own files, by step."""
    from wandb.proto.wandb_internal_pb2 import Record

    steps: dict[int, dict[str, float]] = {}
    for path in sorted(out.glob("wandb/offline-run-*/*.wandb")):
        for record in map(Record.FromString, written(path)):
            if record.HasField("run"):
                assert (record.run.project, record.run.run_id) == (TRACKING.project, TRACKING.run)
            if record.HasField("history"):
                items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                step = int(items.pop("_step"))
                numbers = {name: value for name, value in items.items() if not name.startswith("_")}
                steps[step] = steps.get(step, {}) | numbers
    return steps


def test_every_number_of_every_step_is_there_after_a_resume_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    with Records(tmp_path, 0, TRACKING) as records:
        records.write(1, {"critic/score/mean": 0.5, "nan": float("nan")})
        records.amend(1, {"val": 0.25})
        begun = int(time.time())
    # The client names its folder by the second; no learner starts twice in one.
    while int(time.time()) == begun:
        time.sleep(0.05)
    with Records(tmp_path, 1, TRACKING) as records:
        records.write(2, {"critic/score/mean": 0.75})
    assert shown(tmp_path) == {1: {"critic/score/mean": 0.5, "val": 0.25}, 2: {"critic/score/mean": 0.75}}
    assert not (home / ".cache").exists()


@pytest.mark.parametrize("key", ["", "0" * 40])
def test_without_a_key_or_a_way_there_the_files_are_kept_and_it_is_said(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # nor a key of whoever runs the tests
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    # Much too short for anything: what is written offline has its own limit.
    monkeypatch.setattr("golongrl.learner.observe.tracking._ONLINE_S", 0.01)
    with capture_logs() as told, Records(tmp_path, 0, TRACKING) as records:
        records.write(1, {"a": 1.0})
    assert shown(tmp_path) == {1: {"a": 1.0}}
    (line,) = told
    assert (line["log_level"], line["folder"]) == ("warning", str(tmp_path / "wandb"))
    assert "`wandb sync` sends the folder later" in line["event"]
    assert line["reason"] if key else "No API key" in line["reason"]


def test_its_process_may_die_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a terminal reaches it together with the learner, whose last steps are still to be recorded."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    with capture_logs() as told:
        with Records(tmp_path, 0, TRACKING) as records:
            records.write(1, {"a": 1.0})
            process = wandb_core()
            process.kill()
            # Not reaped yet, it is gone all the same.
            psutil.wait_procs([process], timeout=30)
            for step in range(2, 5):
                records.write(step, {"a": float(step)})
        with Records(tmp_path, 4) as records:
            assert records.has(4, "a")
    (line,) = told
    assert (line["log_level"], line["folder"]) == ("warning", str(tmp_path / "wandb"))
    assert line["event"].startswith("Weights & Biases failed and is off until the next start")


def test_a_process_that_hangs_delays_the_run_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with capture_logs() as told, Records(tmp_path, 0, TRACKING) as records:
        records.write(1, {"a": 1.0})
        process = wandb_core()
        process.suspend()
        monkeypatch.setattr("golongrl.learner.observe.tracking._CALL_S", 0.5)
        monkeypatch.setattr("golongrl.learner.observe.tracking._OFFLINE_S", 0.5)
    psutil.wait_procs([process], timeout=60)
    assert not process.is_running()
    (line,) = told
    assert line["event"].startswith("Weights & Biases failed and is off until the next start")
    assert line["reason"] == "its process did not answer within 1 s"


def test_the_recipe_names_the_project() -> None:
    assert Tracking.of(load("quickstart"), "q1") is None
    tracking = Tracking.of(load("quickstart", ["learner.wandb_project=long-context"]), "q1")
    assert tracking is not None
    assert (tracking.project, tracking.run, tracking.config["name"]) == ("long-context", "q1", "quickstart")
    with pytest.raises(RecipeError, match=r"learner\.wandb_project"):
        load("quickstart", ["learner.wandb_project=team/long-context"])
