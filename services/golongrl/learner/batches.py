"""The batches of the steps to come: taken from the queue and prepared while the ranks are busy with the step before.

A group that cannot be trained leaves its batch for good before the step is trained: the queue keeps it for a person and
puts another one in its place. A replay of the step trains the same groups.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

import structlog

from golongrl.learner.batch.check import untrainable
from golongrl.learner.batch.prepare import PreparedBatch, prepare
from golongrl.learner.batch.samples import BatchError
from golongrl.learner.observe.samples import KeptSamples
from golongrl.learner.recorded_routes import RoutesCheck
from golongrl.queue import Batch, SampleQueue, Stopped, Wait
from golongrl.queue.errors import OutOfOrderError
from golongrl.recipe import Recipe
from golongrl.telemetry.history import GENERATING, mean

log = structlog.get_logger()

# A batch becomes ready when its last group is submitted: asking this often costs one small script each time.
_POLL_S = 0.2


class Batches:
    """At most one batch ahead. Leaving the context stops the preparation.

    Args:
        waits: called for every wait, with the step that waits.
        pairs_per_token, negatives_masked: see `prepare`; the latter of the last batch that was trained.
        samples: makes what is kept of a batch as text.
        routes: checks recorded routes, where they are replayed.
    """

    def __init__(
        self,
        recipe: Recipe,
        queue: SampleQueue,
        fence: str,
        waits: Callable[[int, Wait], None],
        pairs_per_token: float | None,
        negatives_masked: bool = False,
        samples: KeptSamples | None = None,
        routes: RoutesCheck | None = None,
    ) -> None:
        self._recipe = recipe
        self._queue = queue
        self._fence = fence
        self._waits = waits
        self._pairs_per_token = pairs_per_token
        self._negatives_masked = negatives_masked
        self._samples = samples
        self._routes = routes
        self._upcoming: asyncio.Task[PreparedBatch | Stopped] | None = None

    async def __aenter__(self) -> "Batches":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._upcoming is not None:
            self._upcoming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._upcoming

    def prefetch(self, step: int) -> None:
        """Begin to take and prepare the batch of `step`, unless it is beyond the run's last."""
        last = self._recipe.learner.steps
        self._upcoming = (
            None if last is not None and step > last else asyncio.create_task(self._prepare(step), name=f"batch {step}")
        )

    @property
    def upcoming(self) -> "asyncio.Task[PreparedBatch | Stopped] | None":
        """The batch begun last; None at the end of the run."""
        return self._upcoming

    async def _prepare(self, step: int) -> PreparedBatch | Stopped:
        leased: list[int] = []
        batch = await self._take_trainable(step, leased)
        if isinstance(batch, Stopped):
            return batch
        taken = time.time()
        log.info("batch taken", step=step, groups=len(batch.groups), replayed=batch.replayed)
        for group in batch.groups:
            log.info("group taken", uid=group.uid, step=step)
        prepared = await asyncio.to_thread(
            prepare,
            batch,
            self._recipe,
            pairs_per_token=self._pairs_per_token,
            masked_before=self._negatives_masked,
            routing=None if self._routes is None else self._routes.routing,
        )
        self._negatives_masked = prepared.negatives_masked
        if self._samples is not None:
            prepared.samples = await asyncio.to_thread(self._samples.make, batch, prepared.advantages)
        prepared.lengths = [(len(each.prompt_ids), [len(one.ids) for one in each.responses]) for each in batch.groups]
        prepared.taken, prepared.moments = taken, {each.uid: each.moments for each in batch.groups if each.moments}
        if leased:
            prepared.metrics[GENERATING] = mean(leased)
        return prepared

    def _faults(self, batch: Batch) -> dict[str, str]:
        faults = untrainable(batch, self._recipe)
        if self._routes is None:
            return faults
        return faults | self._routes.faults([group for group in batch.groups if group.uid not in faults])

    async def _take_trainable(self, step: int, leased: list[int]) -> Batch | Stopped:
        """The batch of `step`, after every group of it that cannot be trained was replaced."""
        while True:
            batch = await self._take(step, leased)
            if isinstance(batch, Stopped):
                return batch
            faults = await asyncio.to_thread(self._faults, batch)
            if not faults:
                return batch
            await self._set_aside(batch, faults)

    async def _set_aside(self, batch: Batch, faults: Mapping[str, str]) -> None:
        """Take the groups that cannot be trained out of their batch.

        Raises:
            BatchError: the step was trained before with such a group, under other settings.
        """
        workers = {group.uid: group.worker for group in batch.groups}
        for uid, reason in faults.items():
            try:
                await self._queue.set_aside(self._fence, batch.step, uid, reason)
            except OutOfOrderError as error:
                raise BatchError(
                    f"group {uid} of worker {workers[uid]} was trained in step {batch.step} and cannot be replayed: "
                    f"{reason}"
                ) from error
            log.warning("a group is set aside", uid=uid, worker=workers[uid], step=batch.step, reason=reason)

    async def _take(self, step: int, leased: list[int]) -> Batch | Stopped:
        """The batch of `step`; `leased` receives how many groups were being generated, at every look before it."""
        while True:
            answer = await self._queue.take(self._fence, step)
            if isinstance(answer, Batch | Stopped):
                return answer
            leased.append(answer.leased)
            self._waits(step, answer)
            await asyncio.sleep(_POLL_S)
