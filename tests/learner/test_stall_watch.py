"""The learner's look at all processes of its run, on a real queue: a log line, a metric, and a timeline."""

import signal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from golongrl.learner.observe import watch
from golongrl.learner.observe.status import LearnerStatus
from golongrl.learner.observe.watch import StallWatch
from golongrl.queue import SampleQueue
from golongrl.telemetry import journal
from golongrl.telemetry.waits import PendingWait, dumps
from support.embedded_server import EmbeddedServer
from support.redis_server import free_port

WAITS = dumps([PendingWait("engine", "{on} to generate", 9.0, None, 2, "group")])
SILENT = {"phase": "generating", "engine": "http://e:1", "engine_version": "3", "waits": WAITS, "engine_silent_s": "9"}
WELL = {**SILENT, "engine_silent_s": "1"}


class Seen:
    """A watch on a clock of its own, and what it shows."""

    def __init__(self, queue: SampleQueue, out: Path) -> None:
        self.clock, self.metric = 100.0, dict[str, float]()
        self.status = LearnerStatus()
        self.status.set("waiting for step 4: 1 of 2", 3, on="rollout/pod-a", what="1 group of step 4")
        self.watch = StallWatch(queue, self.status, self.show, out, lambda: self.clock)

    def show(self, seconds: dict[str, float]) -> None:
        self.metric = seconds

    async def look(self, after_s: float) -> list[str]:
        self.clock += after_s
        return [str(stall) for stall in await self.watch.look()]


async def test_a_stall_that_lasts_is_told_once_and_its_end_too(redis_url: str, run_name: str, tmp_path: Path) -> None:
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        seen = Seen(queue, tmp_path)
        with capture_logs() as logs:
            await queue.beat("rollout", "pod-a", WELL, 60)
            assert await seen.look(1) == []
            await queue.beat("rollout", "pod-a", SILENT, 60)
            assert await seen.look(1) == []
            [chain] = await seen.look(4)
            assert chain == (
                "learner waits for 1 group of step 4, 0 s <- "
                "pod-a waits for engine http://e:1 to generate 2 groups, 9 s <- "
                "engine http://e:1 has not answered for 9 s"
            )
            assert seen.metric == {"engine": 4.0}
            await seen.look(2)
            assert seen.metric == {"engine": 6.0}
            await queue.beat("rollout", "pod-a", {**WELL, "engine_version": "4"}, 60)
            assert await seen.look(1) == []
            assert seen.metric == {}
        told = [(line["event"], line["on"]) for line in logs]
        assert told == [("stalled", "engine http://e:1"), ("no longer stalled", "engine http://e:1")]
        assert logs[0]["chain"] == chain
        lines = [(line["who"], line["is"], line["version"]) for line in journal.read(tmp_path / journal.TIMELINE)]
        assert lines == [
            ("pod-a", "generating", "3"),
            ("reward", "idle", ""),
            ("learner", "waiting", "3"),
            ("pod-a", "generating", "4"),
        ]


async def test_a_redis_that_answers_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedServer(free_port(), tmp_path) as server, SampleQueue.from_url(server.url, "test") as queue:
        seen = Seen(queue, tmp_path)
        await queue.beat("rollout", "pod-a", WELL, 60)
        assert await seen.look(1) == []
        wait = PendingWait("redis", f"{{on}} at {queue.server} (take)", 9.0)
        monkeypatch.setattr(seen.status.waits, "current", lambda: [wait])
        monkeypatch.setattr(watch, "_PATIENCE_S", 0.2)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        try:
            await seen.look(9)
            [chain] = await seen.look(4)
        finally:
            server.process.send_signal(signal.SIGCONT)
        place = f"Redis at {queue.server}"
        assert chain == f"learner waits for {place} (take), 9 s <- {place} has not answered for 13 s"
        assert list(seen.metric) == ["redis"]


@pytest.mark.parametrize(
    ("fields", "age_s", "state"),
    [
        ({"phase": "waiting", "wait": "full", "engine_version": "2"}, 1.0, ("waiting: full", "2")),
        ({"phase": "adopting", "wait": "adoption"}, 1.0, ("adopting", "")),
        ({"phase": "generating", "engine_version": "2"}, 9.0, ("silent", "2")),
    ],
)
def test_a_worker_is_described_in_a_word(fields: dict[str, str], age_s: float, state: tuple[str, str]) -> None:
    service: dict[str, Any] = {"service": "rollout", "id": "w", "age_s": age_s, "fields": fields}
    assert watch.states([service])["w"] == state
