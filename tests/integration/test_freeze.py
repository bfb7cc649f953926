"""A frozen process of a real run is named soon, by the plain terminal and by `golongrl status`."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from golongrl.telemetry import history, journal

# What is promised.
NAMED_S = 15.0
# Starting verl, Ray and torch on a machine that is busy with other tests.
PATIENCE_S = 480.0
SMALL = ["queue.groups_per_step=9", "rollout.n=4", "rollout.max_response_tokens=24", "learner.steps=100000"]
# Processes of the learner's Ray.
BELOW = ("raylet", "ray::LearnerRank")
GOLONGRL = [sys.executable, "-m", "golongrl"]


class Run:
    """A `golongrl train --plain` that does not end by itself."""

    def __init__(self, out: Path) -> None:
        self.folder, self.log = out / "demo", out / "train.log"
        settings = [word for setting in SMALL for word in ("--set", setting)]
        command = [*GOLONGRL, "train", "quickstart", "--out", str(out), "--name", "demo", "--plain", *settings]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"exit {self.process.poll()}\n{self.log.read_text()}")
            time.sleep(0.1)

    def steps(self) -> int:
        return len(history.read(self.folder / "metrics.jsonl").steps)

    def said(self, since: int) -> list[str]:
        return self.log.read_text()[since:].splitlines()

    def process_of(self, word: str) -> psutil.Process:
        """The first process of the run whose command line has the word."""
        for process in psutil.Process(self.process.pid).children(recursive=word in BELOW):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(Path(part).name.partition(" ")[0].partition(".")[0] == word for part in process.cmdline()):
                    return process
        raise LookupError(word)

    def status(self) -> str:
        words = ["status", "--out", str(self.folder.parent), "--name", "demo"]
        return subprocess.run([*GOLONGRL, *words], capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    run = Run(tmp_path_factory.mktemp("freeze"))
    try:
        run.until(lambda: run.steps() >= 2)
        yield run
    finally:
        run.process.send_signal(signal.SIGTERM)
        run.process.wait(120)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("reward", "reward"),
        ("engine", "engine-"),
        ("rollout", "rollout-"),
        ("learner", "learner"),
        ("valkey-server", "redis"),
        *((word, "learner") for word in BELOW),
    ],
)
def test_a_frozen_process_is_named_in_time_and_its_return_is_told(run: Run, word: str, name: str) -> None:
    steps, frozen = run.steps(), run.process_of(word)
    since, begun = len(run.log.read_text()), time.monotonic()
    frozen.suspend()
    try:
        culprit = f"{name}"

        def named() -> list[str]:
            own = f"was stopped by a signal (pid {frozen.pid})"
            end = f"stopped by a signal ({frozen.name()}, pid {frozen.pid})" if word in BELOW else own
            return [line for line in run.said(since) if line.startswith("stalled: ") and line.endswith(end)]

        run.until(lambda: bool(named()))
        seconds = time.monotonic() - begun
        print(f"{named()[0]} [{seconds:.1f} s]")
        assert culprit in named()[0].split(" <- ")[-1]
        assert seconds <= NAMED_S
        asked = run.status()
        print(asked)
        stuck = [line for line in asked.splitlines() if line.startswith("stuck: ") and f"pid {frozen.pid})" in line]
        assert stuck
        assert culprit in stuck[0]
    finally:
        frozen.resume()
    run.until(lambda: any(line.startswith(f"no longer stalled: {culprit}") for line in run.said(since)))
    run.until(lambda: run.steps() > steps)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_no_log_line_of_a_run_has_text_of_a_prompt_or_an_answer(run: Run) -> None:
    run.until(lambda: bool(list(journal.read(run.folder / journal.SAMPLES))))
    groups = [record for record in journal.read(run.folder / journal.SAMPLES) if record["kind"] == "group"]
    texts = [group["prompt"] for group in groups] + [each["text"] for group in groups for each in group["responses"]]
    lines = {line.strip() for text in texts for line in text.splitlines() if len(line.strip()) > 20}
    assert lines
    logs = "".join(path.read_text(errors="replace") for path in (run.folder / "logs").glob("*.log"))
    assert "batch" in logs or "step" in logs
    assert [line for line in lines if line in logs] == []
