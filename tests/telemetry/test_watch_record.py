"""What a supervisor sees, for `golongrl status` while Redis does not answer."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from golongrl.kubernetes.look.local_run import away, stalls
from golongrl.telemetry.run_info import RunInfo
from golongrl.telemetry.watch_record import FILE, STALE_S, WatchRecord

INFO = RunInfo("demo", "1", "host", "2026-01-01T00:00:00+00:00", 7, 1.0, "running")
CHAIN = "learner waits for 3 groups, 9 s <- rollout-0 was stopped by a signal (pid 9)"


def record(age_s: float = 0.0, *chains: str) -> WatchRecord:
    return WatchRecord(time.time() - age_s, {"learner": "up"}, chains)


def test_a_look_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert WatchRecord.read(tmp_path) is None
    written = record(0.0, CHAIN)
    written.write(tmp_path)
    assert WatchRecord.read(tmp_path) == written


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"at": "x", "states": {}, "stalls": []}', '{"at": 1}', "\udcff",
                                  '{"at": 1' + "0" * 400 + ', "states": {}, "stalls": []}'])  # fmt: skip
def test_a_file_that_is_no_look_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, errors="surrogateescape")
    assert WatchRecord.read(tmp_path) is None


def test_the_supervisor_that_does_not_look_is_named_and_one_that_has_ended_says_nothing() -> None:
    assert stalls(INFO, record(0.0, CHAIN), lives=True) == [CHAIN]
    [told] = stalls(INFO, record(STALE_S + 60, CHAIN), lives=True)
    assert told.startswith("the supervisor (pid 7) has not looked at the run for 70 s")
    assert stalls(INFO, None, lives=True) == []
    assert stalls(INFO, record(0.0, CHAIN), lives=False) == []
    assert stalls(replace(INFO, state="done"), record(0.0, CHAIN), lives=True) == []


def test_a_service_that_starts_again_or_does_not_report_is_away() -> None:
    learner = {"service": "learner", "id": "host", "age_s": 26.0, "fields": {}}
    assert away(replace(record(), states={"learner": "restarting (death 1)", "reward": "up"}), [learner]) == [
        "learner: restarting (death 1)"
    ]
    assert away(record(), [learner]) == ["learner has sent no heartbeat for 26 s"]
    assert away(record(), [{**learner, "age_s": 1.0}]) == []
    assert away(record(0.0, CHAIN), [learner]) == []
    assert away(None, [learner]) == []
