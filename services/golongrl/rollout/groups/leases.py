"""The leased groups a worker holds: begun, renewed, given up, brought to an end."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from golongrl.queue import Lease
from golongrl.rollout.backoff import Pause
from golongrl.rollout.groups.group_work import Bench, produce
from golongrl.rollout.groups.progress import LiveGroup
from golongrl.rollout.weights.adopt import Confirmed

log = structlog.get_logger(__name__)


class Training:
    """The groups in progress. `ended` is told whenever one of them is over, `stalled` when one lost its lease while
    the engine was at work on it."""

    def __init__(self, bench: Bench, ended: Callable[[], None], stalled: Callable[[LiveGroup], None]) -> None:
        self._bench = bench
        self._ended = ended
        self._stalled = stalled
        self._live: dict[str, tuple[LiveGroup, asyncio.Task[None]]] = {}
        self._past = 0

    def __len__(self) -> int:
        return len(self._live)

    @property
    def groups(self) -> list[LiveGroup]:
        """All of them."""
        return [live for live, _ in self._live.values()]

    @property
    def sampling(self) -> list[LiveGroup]:
        """Those the engine is at work on, as far as their leases are ours."""
        return [live for live in self.groups if live.phase == "generating" and not live.lost]

    @property
    def progress(self) -> int:
        """A number that grows exactly when work was done on any group there ever was."""
        return self._past + sum(live.progress for live in self.groups)

    @property
    def held_up(self) -> Pause | None:
        """What finished groups wait for before they can be handed in."""
        return next((live.held_up for live in self.groups if live.held_up is not None), None)

    def begin(self, tasks: asyncio.TaskGroup, lease: Lease, held: Confirmed) -> None:
        """Work on a leased row, with an engine that holds `held`."""
        rollout = self._bench.recipe.rollout
        live = LiveGroup.begin(
            uid=lease.uid,
            token=lease.token,
            version=lease.engine_version,
            prompt_tokens=0,
            n=rollout.n,
            max_response_tokens=rollout.max_response_tokens,
        )
        task = tasks.create_task(produce(self._bench, lease, live, held), name=f"group {lease.uid}")
        self._live[lease.token] = (live, task)
        task.add_done_callback(self._forget(lease.token))
        self._gauge()

    def _forget(self, token: str) -> Callable[[asyncio.Task[None]], None]:
        def forget(_: asyncio.Task[None]) -> None:
            live, _ = self._live.pop(token)
            self._past += live.progress
            self._gauge()
            self._ended()

        return forget

    def _gauge(self) -> None:
        self._bench.state.groups = len(self)
        self._bench.metrics.groups.set(len(self))

    def drop(self, uids: Sequence[str], reason: str) -> None:
        """Give up these groups; a group that is already being scored keeps what it has sampled."""
        for live, task in self._live.values():
            if live.uid in uids and live.phase == "generating" and not (live.ending or live.given_up):
                live.given_up, live.give_back = True, reason
                # Soon, not now: a task cancelled before its first step would never give its row back.
                asyncio.get_running_loop().call_soon(_cancel, live, task)

    async def renew(self) -> None:
        """Prolong all leases; work on lost ones ends.

        Raises:
            QueueError: the queue cannot be asked now.
        """
        groups = self.groups
        if not groups:
            return
        kept = await self._bench.queue.renew(
            self._bench.worker,
            {live.token: live.progress for live in groups},
            {live.token: live.phase for live in groups},
        )
        for token, held in kept.items():
            if not held:
                self._lose(token)

    def _lose(self, token: str) -> None:
        live, task = self._live.get(token, (None, None))
        if live is None or task is None or live.ending:
            return
        log.warning("lease lost", uid=live.uid, phase=live.phase, progress=live.progress)
        if live.phase == "generating":
            self._stalled(live)
        live.lost = True
        task.cancel()

    async def finish(self, grace_s: float) -> None:
        """Let them end within the grace period, then release the rest."""
        pairs = list(self._live.values())
        if not pairs:
            return
        log.info("stopping", groups=len(pairs), grace_s=grace_s)
        _, late = await asyncio.wait([task for _, task in pairs], timeout=grace_s)
        for live, task in pairs:
            if task in late and not live.ending:
                task.cancel()
        if late:
            await asyncio.wait(late)


def _cancel(live: LiveGroup, task: asyncio.Task[None]) -> None:
    # Until this came round the group may have begun to end by itself; cut short, its row would not come back.
    if not live.ending:
        task.cancel()
