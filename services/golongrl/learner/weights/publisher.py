"""How a version of the policy reaches the engines: the ranks write it out, then the queue announces it.

The way is a transport. `DiskTransport` puts versions into the weight store, where every engine that joins or restarts
finds them, whether the learner runs or not. `BroadcastTransport` leaves them with the first rank's sender
(`golongrl.broadcast`); only version 0 is in the store. Then a version is as durable as the last checkpoint and the
queue's batches after it, from which a restarted learner computes it again. Until it has, engines that hold the version
keep serving it and those that lost it wait.

Invariants:
- weights that are not finite are never published: the run ends, and its checkpoints stay;
- a version is announced only when engines can take it: its folder is complete and durable, or the sender holds it;
- `finish` raises the queue's version after that;
- a lineage names one history of weights: it changes exactly when a version differs from what was published under its
  number before, and when the queue is new.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from golongrl.learner.background_task import Background, in_thread
from golongrl.learner.fsync import discarded_on_error
from golongrl.learner.stopping import TrainingFailedError
from golongrl.learner.weights.export import SHARD_BYTES, Staged, WeightsNotFiniteError
from golongrl.learner.weights.store import Support, WeightStore
from golongrl.queue import Attachment, SampleQueue, WeightsRef
from golongrl.recipe import Recipe
from golongrl.weights.manifest import Manifest

log = structlog.get_logger()

# From the copy of the weights until engines can take them. Overlaps training, so it is no phase of a step
# (timing_s/update_weights is the time that training waited).
PUBLISH_SECONDS = "perf/publish_s"


class WeightRanks(Protocol):
    """What the publisher asks of the ranks."""

    async def stage(self, folder: Path | None, parent: Path | None = None) -> None:
        """Copy the weights, then write them into `folder`, or to where the sender reads them, in the background.

        With a `parent`, the folder of the version before, what changed since is written where that is less.
        """

    async def staged(self) -> Staged:
        """Wait until the weights are written. Raises what stopped it."""

    async def hold(self, folder: str, version: int, lineage: str) -> str:
        """Have the sender send what was staged in `folder` from now on; the URL that engines ask."""


class Transport(Protocol):
    """A way from the ranks to the engines."""

    def available(self, version: int) -> Manifest | None:
        """The version as engines can take it without the ranks' help; None if they cannot. Reads its weights."""

    def recorded(self, version: int) -> str | None:
        """The checksum that the version was published with, where it is still there. Reads no weights."""

    def lost(self, version: int) -> bool:
        """Whether somebody has deleted or changed what a published version is taken from. Reads its weights."""

    async def place(self, version: int) -> Path | None:
        """Where the ranks write a version; None is where the sender reads."""

    async def parent(self, version: int) -> Path | None:
        """The folder of the version that this one is stored as deltas of; None stores it whole."""

    async def offer(self, ranks: WeightRanks, version: int, lineage: str, staged: Staged) -> WeightsRef:
        """Make staged weights available; what to announce."""

    async def tidy(self, version: int) -> None:
        """Delete what is not needed now that `version` is announced."""


class DiskTransport:
    """Every version is a folder of the weight store: whole, or what changed since the version before."""

    def __init__(self, store: WeightStore, support: Support, keep: int, base_every: int) -> None:
        self._store = store
        self._support = support
        self._keep = keep
        self._base_every = base_every

    def available(self, version: int) -> Manifest | None:
        return self._store.intact(version)

    def recorded(self, version: int) -> str | None:
        manifest = self._store.manifest(version)
        return None if manifest is None else manifest.checksum

    def lost(self, version: int) -> bool:
        return self._store.intact(version) is None

    async def place(self, version: int) -> Path | None:
        return await asyncio.to_thread(self._store.begin, version)

    async def parent(self, version: int) -> Path | None:
        return await asyncio.to_thread(self._store.parent_of, version, self._base_every)

    async def offer(self, ranks: WeightRanks, version: int, lineage: str, staged: Staged) -> WeightsRef:  # noqa: ARG002
        manifest = await in_thread(self._store.seal, Path(staged.folder), version, lineage, staged.files, self._support)
        return self._store.reference(manifest)

    async def tidy(self, version: int) -> None:
        await asyncio.to_thread(self._store.prune, version, self._keep)


class BroadcastTransport:
    """The first rank's sender sends a version while training continues; the store has what engines start from."""

    def __init__(self, store: WeightStore) -> None:
        self._store = store

    def available(self, version: int) -> Manifest | None:
        return self._store.intact(version) if version == 0 else None

    def recorded(self, version: int) -> str | None:  # noqa: ARG002
        return None

    def lost(self, version: int) -> bool:
        # Of later versions it has configuration and tokenizer only, which are version 0's.
        return version == 0 and self._store.intact(0) is None

    async def place(self, version: int) -> Path | None:  # noqa: ARG002
        return None

    async def parent(self, version: int) -> Path | None:  # noqa: ARG002
        return None

    async def offer(self, ranks: WeightRanks, version: int, lineage: str, staged: Staged) -> WeightsRef:
        source = await ranks.hold(staged.folder, version, lineage)
        # Engines read configuration and tokenizer there.
        support = str(self._store.folder(0).resolve())
        return WeightsRef(version, support, lineage, self._store.checksum_of(staged.files), source)

    async def tidy(self, version: int) -> None:
        """Nothing: the sender keeps one version."""


# Version, lineage, from when to when (seconds since 1970), bytes.
Published = Callable[[int, str, float, float, int], None]


def _nobody(version: int, lineage: str, began: float, ended: float, size: int) -> None:
    """Who is told where nobody asked."""


class Publisher(Background):
    """Publishes new weights for one attachment to the run.

    Training continues as soon as the ranks have copied their weights; at most one version is being published.
    """

    def __init__(
        self,
        queue: SampleQueue,
        attachment: Attachment,
        store: WeightStore,
        support: Support,
        transport: Transport,
        published: Published = _nobody,
    ) -> None:
        super().__init__()
        self._published = published
        self._queue = queue
        self._fence = attachment.token
        self._store = store
        self._support = support
        self._transport = transport
        self.version = attachment.version  # of the queue
        self.lineage = ""
        self.checksum = ""  # of the weights last announced

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        queue: SampleQueue,
        attachment: Attachment,
        store: WeightStore,
        model: Path,
        published: Published = _nobody,
    ) -> "Publisher":
        """With the transport that the recipe names; `model` is the folder that the run begins with, `published` is told
        of every version that engines can take."""
        support = Support(model, recipe.model.dtype)
        transport: Transport = (
            BroadcastTransport(store)
            if recipe.learner.weights == "broadcast"
            else DiskTransport(store, support, recipe.learner.keep_weights, recipe.learner.weight_base_every)
        )
        return cls(queue, attachment, store, support, transport, published)

    async def restore(self, lineage: str | None) -> bool:
        """Announce the queue's version before the ranks are up, so that engines need not wait for them.

        Args:
            lineage: the checkpoint's, used if neither store nor queue knows that of the version.

        Returns:
            Whether engines can take that version; if not, it must be published once the ranks have its weights.
        """
        lineage = await self._history(lineage)
        manifest = await asyncio.to_thread(self._transport.available, self.version)
        self.lineage = manifest.lineage if manifest else await self._known_lineage(lineage)
        # Engines start from version 0, and read configuration and tokenizer there.
        initial = self._store.manifest(0)
        if self.version == 0 or (initial is None and manifest is None):
            initial = await asyncio.to_thread(self._store.publish_initial, self._support, self.lineage, SHARD_BYTES)
        if self.version == 0:
            manifest = initial
        if manifest is not None:
            await self._announce(self._store.reference(manifest))
        return manifest is not None

    async def begin(self, ranks: WeightRanks, version: int) -> None:
        """Have the ranks copy their weights; then write and announce them as `version`, and finish the step.

        A version may have been published before (a replay): equal weights keep its lineage, others start a new one.

        Raises:
            GolongrlError: this or the version before could not be published.
        """
        await self.settled()
        begun = time.perf_counter()
        place = await self._transport.place(version)
        with _discarded(place):
            await _stage(ranks, version, place, await self._transport.parent(version))
        self.start(self._complete(ranks, version, place, begun))

    async def repair(self, ranks: WeightRanks) -> None:
        """Publish the version again, of which the ranks hold the weights, if the store has lost it; no engine can take
        it otherwise, and without engines there is no next one.

        Raises:
            GolongrlError: it cannot be published.
        """
        if self.tasks or not await asyncio.to_thread(self._transport.lost, self.version):
            return
        log.warning("the published weights are damaged or gone: they are written again", version=self.version)
        if self.version == 0:
            initial = await in_thread(self._store.publish_initial, self._support, self.lineage, SHARD_BYTES)
            await self._announce(self._store.reference(initial))
            return
        begun = time.perf_counter()
        place = await self._transport.place(self.version)
        with _discarded(place):
            await _stage(ranks, self.version, place)
        self.start(self._complete(ranks, self.version, place, begun))

    async def copy_out(self, ranks: WeightRanks, folder: Path) -> None:
        """The final export: the ranks' weights, published as the queue's version, as a plain Hugging Face folder."""
        await self.settled()
        manifest = await asyncio.to_thread(self._store.intact, self.version)
        if manifest is None or manifest.checksum != self.checksum or manifest.deltas:
            place = await asyncio.to_thread(self._store.begin, self.version)
            with discarded_on_error(place):
                await _stage(ranks, self.version, place)
                staged = await ranks.staged()
                await self._queue.ensure_attached(self._fence)
                await in_thread(self._store.seal, place, self.version, self.lineage, staged.files, self._support)
        await asyncio.to_thread(self._store.copy_out, self.version, folder)

    async def _complete(self, ranks: WeightRanks, version: int, place: Path | None, begun: float) -> dict[str, float]:
        with _discarded(place):
            staged = await self._offered(ranks, version)
        if version > self.version:
            await self._queue.finish(self._fence, version)
            self.version = version
        await self._transport.tidy(version)
        seconds, now = time.perf_counter() - begun, time.time()
        size = sum(file.stored_bytes for file in staged.files)
        log.info("weights published", version=version, lineage=self.lineage, bytes=size, seconds=round(seconds, 3))
        self._published(version, self.lineage, now - seconds, now, size)
        return {PUBLISH_SECONDS: seconds, "weights/bytes": float(size)}

    async def _offered(self, ranks: WeightRanks, version: int) -> Staged:
        """Wait for the ranks' files, and make and announce a version of them."""
        staged = await ranks.staged()
        recorded = await asyncio.to_thread(self._transport.recorded, version)
        # A version that the store lost may still be in the engines.
        before = recorded or await self._announced(version)
        if before not in (None, self._store.checksum_of(staged.files)):
            log.warning("the replayed weights differ from those published; starting a new lineage", version=version)
            self.lineage = _new_lineage()
        # A successor may have published the version already; its weights must stay.
        await self._queue.ensure_attached(self._fence)
        await self._announce(await self._transport.offer(ranks, version, self.lineage, staged))
        return staged

    async def _announced(self, version: int) -> str | None:
        """The checksum that `version` is announced with, if it is."""
        known = await self._queue.weights()
        return known.checksum if known and known.version == version else None

    async def _history(self, lineage: str | None) -> str | None:
        """Tidy the store up; the lineage to continue, if one is known. A queue without announced weights starts
        another: the store and engines may hold later versions of a run that nothing here knows."""
        await asyncio.to_thread(self._store.sweep)
        if await self._queue.weights() is not None:
            return lineage
        lineage = _new_lineage()
        await asyncio.to_thread(self._store.start_over, lineage)
        return lineage

    async def _known_lineage(self, lineage: str | None) -> str:
        # Version 0 is made from the model's folder, whatever was announced.
        known = await self._queue.weights() if self.version else None
        # What was announced last is at most one version ahead, and so of the same history as the queue's version.
        return known.lineage if known else (lineage or _new_lineage())

    async def _announce(self, reference: WeightsRef) -> None:
        self.lineage, self.checksum = reference.lineage, reference.checksum
        await self._queue.announce(self._fence, reference)


def _discarded(place: Path | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if place is None else discarded_on_error(place)


async def _stage(ranks: WeightRanks, version: int, place: Path | None, parent: Path | None = None) -> None:
    try:
        await ranks.stage(place, parent)
    except WeightsNotFiniteError as error:
        raise TrainingFailedError(
            f"after step {version} {error}, so this version is not published; lower learner.lr, or resume an older "
            "checkpoint with learner.resume"
        ) from error


def _new_lineage() -> str:
    return secrets.token_hex(4)
