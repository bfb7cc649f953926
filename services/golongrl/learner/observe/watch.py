"""The learner's look at all processes of its run: who holds it up, as a log line and as a metric.

Invariants: a look has a deadline, so that a Redis that does not answer is named, and not waited for; each stall is one
line when it lasts, and one when it is over.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from golongrl.learner.observe.status import LearnerStatus
from golongrl.meanwhile import meanwhile
from golongrl.queue import QueueError, SampleQueue
from golongrl.telemetry import watchdog
from golongrl.telemetry.journal import TIMELINE, Journal
from golongrl.telemetry.waits import loads
from golongrl.telemetry.watchdog import SILENT_S, UNANSWERED_S, Process, Stall, Watch

log = structlog.get_logger()

# A wait is reported within 15 s of its beginning (docs/watching.md), processes being silent after 6.
_PERIOD_S = 3.0
_PATIENCE_S = 2.0


def states(services: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """What each worker does, in a word or `waiting: WHAT`, and its engine's version; what the reward service does."""
    found: dict[str, tuple[str, str]] = {}
    scoring = False
    for service in services:
        if service["service"] != "rollout":
            continue
        fields = service["fields"]
        wait, word = fields.get("wait", ""), fields.get("phase", "")
        if service["age_s"] > SILENT_S:
            word = "silent"
        elif word == "waiting":
            word = f"waiting: {wait}"
        found[service["id"]] = (word, fields.get("engine_version", ""))
        scoring |= any(wait.on == "reward" for wait in loads(fields.get("waits", "")))
    found["reward"] = ("scoring" if scoring else "idle", "")
    return found


class StallWatch:
    """Looks every few seconds.

    Args:
        out: the run's folder, for its timeline.
        show: receives after each look for how long each kind of process has held up the run.
        now: a monotonic clock.
    """

    def __init__(
        self,
        queue: SampleQueue,
        status: LearnerStatus,
        show: Callable[[dict[str, float]], None],
        out: Path,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._status = status
        self._show = show
        self._now = now
        self._lasting = Watch()
        self._heard = now()
        self._told: dict[str, Stall] = {}
        self._timeline: Journal | None = Journal(out / TIMELINE)
        self._seen: dict[str, tuple[str, str]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look while the block runs."""
        async with meanwhile(self._follow()):
            yield

    async def _follow(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(_PERIOD_S)

    async def look(self) -> list[Stall]:
        """One look; the stalls that last."""
        services = []
        with contextlib.suppress(QueueError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                services = [asdict(presence) for presence in await self._queue.services()]
                self._heard = self._now()
        # Of itself a process knows more than its last heartbeat says.
        me = Process("learner", "learner", tuple(self._status.current()))
        others = watchdog.read(service for service in services if service["service"] != "learner")
        processes = {**others, "learner": me}
        silent_s = self._now() - self._heard
        if silent_s >= UNANSWERED_S:
            # A wait for it has its place in its words.
            trouble = f"at {self._queue.server} has not answered for {silent_s:.0f} s"
            processes["redis"] = Process("redis", "Redis", (), trouble)
        self._remember(services)
        now = self._now()
        found = self._lasting.seen(watchdog.stalls(processes), now)
        seconds: dict[str, float] = {}
        for stall in found:
            seconds[stall.kind] = max(seconds.get(stall.kind, 0.0), self._lasting.for_s(stall, now))
        self._show(seconds)
        self._tell({stall.culprit: stall for stall in found})
        return found

    def _remember(self, services: Sequence[Mapping[str, Any]]) -> None:
        """Write what has changed into the timeline."""
        seen = states(services) if services else dict(self._seen)
        seen["learner"] = (self._status.doing.partition(" ")[0], str(self._status.step))
        at, gone = round(time.time(), 1), dict.fromkeys(self._seen.keys() - seen.keys(), ("gone", ""))
        changed = [
            {"at": at, "who": who, "is": word, "version": version}
            for who, (word, version) in (seen | gone).items()
            if self._seen.get(who) != (word, version)
        ]
        self._seen = seen
        if self._timeline is not None and changed:
            try:
                self._timeline.append(changed)
            except OSError as error:
                self._timeline = None
                log.warning("the timeline cannot be written; off until the next start", error=str(error))

    def _tell(self, found: dict[str, Stall]) -> None:
        for culprit, stall in found.items():
            if culprit not in self._told:
                log.warning("stalled", on=stall.name, chain=str(stall))
        for culprit, stall in self._told.items():
            if culprit not in found:
                log.info("no longer stalled", on=stall.name)
        self._told = found
