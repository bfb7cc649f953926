"""The rows of one kind that a worker holds: started, renewed, dropped, finished."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic

import structlog

from golongrl.errors import InputError
from golongrl.rollout.backoff import Pause
from golongrl.rollout.groups.kinds import RowKind, T
from golongrl.rollout.groups.progress import LiveGroup
from golongrl.rollout.groups.verdict import RowRelease
from golongrl.rollout.groups.work import give_back, work
from golongrl.rollout.sglang.errors import EngineError, EngineSilentError
from golongrl.rollout.weights.adopt import Confirmed

log = structlog.get_logger(__name__)


@dataclass
class _Held(Generic[T]):
    """One leased row and the task that works on it."""

    item: T
    live: LiveGroup
    task: asyncio.Task[EngineError | None]


class Leases(Generic[T]):
    """The rows in progress. `changed` is called whenever one of them is over, or something is in `troubles`."""

    def __init__(self, kind: RowKind[T], changed: Callable[[], None]) -> None:
        self.troubles: list[EngineError] = []
        """What the engine did wrong since the loop last looked."""
        self.pace = kind.pace
        self._kind = kind
        self._changed = changed
        self._rows: dict[str, _Held[T]] = {}
        self._past = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def groups(self) -> list[LiveGroup]:
        """All of them."""
        return [held.live for held in self._rows.values()]

    @property
    def sampling(self) -> list[LiveGroup]:
        """Those the engine works on, as far as their leases are ours."""
        return [live for live in self.groups if live.phase == "generating" and not live.lost]

    @property
    def progress(self) -> int:
        """A number that grows exactly when work was done on any row there ever was."""
        return self._past + sum(live.progress for live in self.groups)

    def held_up(self, now: float, patience_s: float) -> Pause | None:
        """What finished rows wait for before they can be handed in; None where nothing takes longer than usual."""
        for live in self.groups:
            if live.held_up is not None:
                return live.held_up
        waiting = [now - live.scoring_since for live in self.groups if live.scoring_since is not None]
        if waiting and max(waiting) > patience_s:
            rows = f"{len(waiting)} {self._kind.name}{'s' if len(waiting) > 1 else ''}"
            url = self._kind.bench.reward.url
            return Pause("waiting", "reward", f"the reward service {url} to score {rows}, for {max(waiting):.0f} s now")
        return None

    async def begin(self, tasks: asyncio.TaskGroup, item: T, held: Confirmed) -> None:
        """Work on a leased row, with an engine that holds `held`.

        Raises:
            InputError: this worker's data has no such row.
        """
        kind = self._kind
        try:
            row = kind.row(item)
        except IndexError as error:
            with_nothing = LiveGroup.begin(
                uid=kind.uid(item), token="", version=0, prompt_tokens=0, n=0, max_response_tokens=0
            )
            await give_back(kind, item, with_nothing, RowRelease("refused"))
            raise InputError(f"{kind.name}: {error}: this worker's --data is not the learner's") from error
        live = kind.live(item, row, held)
        task = tasks.create_task(work(kind, item, row, live, held), name=f"{kind.name} {live.uid}")
        self._rows[live.token] = _Held(item, live, task)
        task.add_done_callback(self._ended(live))

    def _ended(self, live: LiveGroup) -> Callable[[asyncio.Task[EngineError | None]], None]:
        def ended(task: asyncio.Task[EngineError | None]) -> None:
            self._rows.pop(live.token, None)
            self._past += live.progress
            if not task.cancelled() and task.exception() is None and (trouble := task.result()) is not None:
                self.troubles.append(trouble)
            self._changed()

        return ended

    def drop(self, reason: str, uids: Iterable[str] | None = None) -> bool:
        """Give back what is still being sampled (of these, else all); whether there was any.

        A row that is already being scored keeps what it has sampled.
        """
        wanted = None if uids is None else set(uids)
        sampling = [
            held
            for held in self._rows.values()
            if held.live.phase == "generating" and (wanted is None or held.live.uid in wanted)
        ]
        for held in sampling:
            _end(held, reason)
        return bool(sampling)

    async def renew(self) -> None:
        """Prolong all leases; work on lost ones ends.

        Raises:
            QueueError: the queue cannot be asked now.
        """
        rows = list(self._rows.values())
        if not rows:
            return
        kept = await self._kind.renew([(held.item, held.live) for held in rows])
        for held, still_ours in zip(rows, kept, strict=True):
            if not still_ours and held.live.token in self._rows:
                self._lose(held)

    def _lose(self, held: _Held[T]) -> None:
        live = held.live
        if live.ending:
            return
        log.warning("lease lost", kind=self._kind.name, uid=live.uid, phase=live.phase, progress=live.progress)
        if self._kind.stalls and live.phase == "generating" and not live.given_up:
            self.troubles.append(
                EngineSilentError(f"{self._kind.name} {live.uid} lost its lease at {live.progress} tokens")
            )
            self._changed()
        live.lost = True
        held.task.cancel()

    async def finish(self, grace_s: float) -> None:
        """Let them end within the grace period, then give the rest back."""
        rows = list(self._rows.values())
        if not rows:
            return
        log.info("stopping", kind=self._kind.name, rows=len(rows), grace_s=grace_s)
        _, late = await asyncio.wait([held.task for held in rows], timeout=grace_s)
        for held in rows:
            if held.task in late and not held.live.ending:
                held.task.cancel()
        if late:
            await asyncio.wait(late)


def _end(held: _Held[T], reason: str) -> None:
    # Once: a second cancellation would interrupt the giving back.
    if held.live.ending or held.live.given_up:
        return
    held.live.given_up, held.live.give_back = True, reason
    # Soon, not now: a task cancelled before its first step would never give its row back.
    asyncio.get_running_loop().call_soon(_cancel, held)


def _cancel(held: _Held[T]) -> None:
    # Meanwhile the row may have started to end by itself; cancelled in the middle, it would not be given back.
    if not held.live.ending:
        held.task.cancel()
