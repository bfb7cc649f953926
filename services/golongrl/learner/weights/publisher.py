"""How a version of the policy becomes known: written out by the ranks, then announced to the engines.

`disk`: into the weight store, where every engine that joins or restarts finds it, whether the learner lives or not.
`broadcast`: into the hands of the first rank's sender (`golongrl.broadcast`); nothing but version 0 reaches the store,
so the weights of a version are as durable as the last checkpoint and the queue's batches after it, from which a
restarted learner makes them again. Until it has, engines that hold the version go on, and those that lost it wait.

Invariants:
- a version is announced only when it can be taken: its folder is complete and durable, or the sender holds it;
- `finish` raises the queue's version after that;
- lineage names one history of weights: it changes exactly when a version comes out other than it was published before,
  and when the queue is new.
"""

import asyncio
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from golongrl.learner.background_task import Background
from golongrl.learner.weights.export import SHARD_BYTES
from golongrl.learner.weights.store import Manifest, WeightStore
from golongrl.queue import Attachment, SampleQueue, WeightsRef
from golongrl.recipe import Recipe

if TYPE_CHECKING:
    from golongrl.learner.ranks.group import Ranks
    from golongrl.learner.ranks.rank import Staged

log = structlog.get_logger()

# From the copy of the weights until engines can take them. Overlaps training, so it is no phase of a step
# (timing_s/update_weights is what training was held up).
PUBLISH_SECONDS = "perf/publish_s"


class Publisher(Background):
    """The way of new weights to the engines, for one attachment to the run. This one is by disk.

    Training goes on as soon as the ranks have copied their weights; at most one version is on its way.
    """

    def __init__(
        self, recipe: Recipe, queue: SampleQueue, attachment: Attachment, store: WeightStore, model: Path
    ) -> None:
        super().__init__()
        self._recipe = recipe
        self._queue = queue
        self._fence = attachment.token
        self._store = store
        self._model = model
        self.version = attachment.version  # of the queue
        self.lineage = ""
        self.checksum = ""  # of the weights last announced

    async def restore(self, lineage: str | None) -> bool:
        """Make the queue's version known before the ranks are up, so that engines need not wait for them.

        Args:
            lineage: the checkpoint's, for a version that is nowhere to be had.

        Returns:
            Whether engines can take that version; where not, it must be published once the ranks have its weights.
        """
        lineage = await self._history(lineage)
        manifest = self._store.manifest(self.version)
        self.lineage = manifest.lineage if manifest else await self._known_lineage(lineage)
        if self.version == 0:
            manifest = await self._publish_initial()
        if manifest is not None:
            await self._announce(self._store.reference(manifest))
        return manifest is not None

    async def begin(self, ranks: "Ranks", version: int) -> None:
        """Have the ranks copy their weights; then write and announce them as `version`, and finish the step.

        A version may have been published before (a replay): equal weights keep its lineage, others start a new one.

        Raises:
            GolongrlError: this or the version before could not be published.
        """
        await self.settled()
        begun = time.perf_counter()
        await ranks.stage(await self._place(version))
        self.start(self._complete(ranks, version, begun))

    async def copy_out(self, ranks: "Ranks", folder: Path) -> None:
        """The final export: the ranks' weights, published as the queue's version, as a plain Hugging Face folder."""
        await self.settled()
        manifest = self._store.manifest(self.version)
        if manifest is None or manifest.checksum != self.checksum:
            await ranks.stage(await asyncio.to_thread(self._store.begin, self.version))
            await self._seal(self.version, await ranks.staged())
        await asyncio.to_thread(self._store.copy_out, self.version, folder)

    async def _complete(self, ranks: "Ranks", version: int, begun: float) -> dict[str, float]:
        staged = await ranks.staged()
        await self._announce(await self._publish(ranks, version, staged))
        if version > self.version:
            await self._queue.finish(self._fence, version)
            self.version = version
        await self._tidy(version)
        seconds = time.perf_counter() - begun
        return {PUBLISH_SECONDS: seconds, "weights/bytes": float(sum(file.bytes for file in staged.files))}

    async def _place(self, version: int) -> Path | None:
        """Where the ranks write; None is where the sender reads."""
        return await asyncio.to_thread(self._store.begin, version)

    async def _publish(self, ranks: "Ranks", version: int, staged: "Staged") -> WeightsRef:  # noqa: ARG002 - a hook
        """Make staged weights available; what to announce."""
        published = self._store.manifest(version)
        # Lost from the store, it may be in the engines all the same.
        self._compare(version, published.checksum if published else await self._announced(version), staged)
        return self._store.reference(await self._seal(version, staged))

    async def _tidy(self, version: int) -> None:
        """Delete what nobody needs any more, now that `version` is announced."""
        await asyncio.to_thread(self._store.prune, version, self._recipe.learner.keep_weights)

    async def _seal(self, version: int, staged: "Staged") -> Manifest:
        await self._queue.ensure_attached(self._fence)  # or a successor's published weights would be overwritten
        return await asyncio.to_thread(
            self._store.seal,
            Path(staged.folder),
            version,
            self.lineage,
            staged.files,
            self._model,
            self._recipe.model.dtype,
        )

    def _compare(self, version: int, before: str | None, staged: "Staged") -> None:
        """Start a new lineage where a version was published before with other weights."""
        if before in (None, self._store.checksum_of(staged.files)):
            return
        log.warning("a version comes out other than before (a replay that is not bit-identical)", version=version)
        self.lineage = _new_lineage()

    async def _announced(self, version: int) -> str | None:
        """The checksum that `version` is announced with, if it is."""
        known = await self._queue.weights()
        return known.checksum if known and known.version == version else None

    async def _history(self, lineage: str | None) -> str | None:
        """Tidy the store up; the lineage to go on with, if one is known. Where the queue has no weights announced it is
        another: the store and engines may have versions to come already, of a run that nothing here knows."""
        await asyncio.to_thread(self._store.sweep)
        if await self._queue.weights() is not None:
            return lineage
        lineage = _new_lineage()
        await asyncio.to_thread(self._store.begin_anew, lineage)
        return lineage

    async def _known_lineage(self, lineage: str | None) -> str:
        # Version 0 is made from the model's folder, whatever was announced.
        known = await self._queue.weights() if self.version else None
        # Announced last, at most one version ahead: still the history that the queue's version is of.
        return known.lineage if known else (lineage or _new_lineage())

    async def _publish_initial(self) -> Manifest:
        return await asyncio.to_thread(
            self._store.publish_initial, self._model, self.lineage, self._recipe.model, SHARD_BYTES
        )

    async def _announce(self, reference: WeightsRef) -> None:
        self.lineage, self.checksum = reference.lineage, reference.checksum
        await self._queue.announce(self._fence, reference)


class Broadcaster(Publisher):
    """The way over the wire; the sender sends while training goes on."""

    async def restore(self, lineage: str | None) -> bool:
        """As the base; a version above 0 was in a sender that is gone."""
        if self.version == 0:
            return await super().restore(lineage)
        self.lineage = await self._known_lineage(await self._history(lineage))
        if self._store.manifest(0) is None:  # configuration and tokenizer, which engines read from there
            await self._publish_initial()
        return False

    async def _place(self, version: int) -> Path | None:  # noqa: ARG002 - a hook
        return None

    async def _tidy(self, version: int) -> None:
        """Nothing: the store has what engines start from, and the sender keeps one version."""

    async def _publish(self, ranks: "Ranks", version: int, staged: "Staged") -> WeightsRef:
        self._compare(version, await self._announced(version), staged)
        source = await ranks.hold(staged.folder, version, self.lineage)
        support = str(self._store.folder(0).resolve())
        return WeightsRef(version, support, self.lineage, self._store.checksum_of(staged.files), source)


def _new_lineage() -> str:
    return secrets.token_hex(4)
