"""How a version of the policy becomes known: written out by the ranks, then announced to the engines.

`disk`: into the weight store, where every engine that joins or restarts finds it, whether the learner lives or not.
`broadcast`: into the hands of the first rank's sender (`golongrl.broadcast`); nothing but version 0 reaches the store,
so the weights of a version are as durable as the last checkpoint and the queue's batches after it, from which a
restarted learner makes them again. Until it has, engines that hold the version go on, and those that lost it wait.

Invariants:
- a version is announced only when it can be taken: its folder is complete and durable, or the sender holds it;
- lineage names one history of weights: it changes exactly when a version comes out other than it was published before.
"""

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from golongrl.learner.safetensors_out import SHARD_BYTES
from golongrl.learner.weights import Manifest, WeightStore
from golongrl.queue import SampleQueue, WeightsRef
from golongrl.recipe import Recipe

if TYPE_CHECKING:
    from golongrl.learner.cluster import Ranks

log = structlog.get_logger()


class Publisher:
    """The way of new weights to the engines, for one attachment to the run. This one is by disk."""

    def __init__(self, recipe: Recipe, queue: SampleQueue, fence: str, store: WeightStore, model: Path) -> None:
        self._recipe = recipe
        self._queue = queue
        self._fence = fence
        self._store = store
        self._model = model
        self.lineage = ""
        self.checksum = ""  # of the weights last announced

    async def start(self, version: int, lineage: str | None) -> bool:
        """Make the queue's version known before the ranks are up, so that engines need not wait for them.

        Args:
            lineage: the checkpoint's, for a version that is nowhere to be had.

        Returns:
            Whether engines can take that version; where not, it must be published once the ranks have its weights.
        """
        manifest = self._store.manifest(version)
        self.lineage = manifest.lineage if manifest else (lineage or _new_lineage())
        if version == 0:
            manifest = await self._publish_initial()
        if manifest is not None:
            await self._announce(self._store.reference(manifest))
        return manifest is not None

    async def publish(self, ranks: "Ranks", version: int, *, compare: bool) -> int:
        """Write and announce the ranks' weights as `version`.

        With `compare` (a replay) the version may have been published before: equal weights keep its lineage, others
        start a new one.

        Returns:
            Bytes written.
        """
        manifest = await self._write(ranks, version, compare=compare)
        await self._announce(self._store.reference(manifest))
        self._store.prune(version, self._recipe.learner.keep_weights)
        return manifest.weight_bytes

    async def copy_out(self, ranks: "Ranks", version: int, folder: Path) -> None:
        """The final export: the ranks' weights, published as `version`, as a plain Hugging Face folder."""
        if self._store.manifest(version) is None:
            await self._write(ranks, version, compare=False)
        await asyncio.to_thread(self._store.copy_out, version, folder)

    async def _publish_initial(self) -> Manifest:
        return await asyncio.to_thread(
            self._store.publish_initial, self._model, self.lineage, self._recipe.model, SHARD_BYTES
        )

    async def _write(self, ranks: "Ranks", version: int, *, compare: bool) -> Manifest:
        staging = await asyncio.to_thread(self._store.begin, version)
        files = await ranks.export(staging)
        published = self._store.manifest(version)
        if published is not None:
            self._compare(version, published.checksum, self._store.checksum_of(files), replay=compare)
        return await asyncio.to_thread(
            self._store.seal, version, self.lineage, files, self._model, self._recipe.model.dtype
        )

    def _compare(self, version: int, before: str, now: str, *, replay: bool) -> None:
        if before == now:
            return
        if replay:
            log.warning("replay is not bit-identical: new lineage", version=version)
        self.lineage = _new_lineage()

    async def _announce(self, reference: WeightsRef) -> None:
        self.lineage, self.checksum = reference.lineage, reference.checksum
        await self._queue.announce(self._fence, reference)


class Broadcaster(Publisher):
    """The way over the wire."""

    async def start(self, version: int, lineage: str | None) -> bool:
        """As the base; a version above 0 was in a sender that is gone."""
        if version == 0:
            return await super().start(version, lineage)
        known = await self._queue.weights()
        self.lineage = known.lineage if known and known.version == version else (lineage or _new_lineage())
        if self._store.manifest(0) is None:  # configuration and tokenizer, which engines read from there
            await self._publish_initial()
        return False

    async def publish(self, ranks: "Ranks", version: int, *, compare: bool) -> int:
        """As the base; returns when the sender holds the weights, and sends them while training goes on."""
        snapshot = await ranks.snapshot(version)
        checksum = self._store.checksum_of(snapshot.files)
        known = await self._queue.weights()
        if known is not None and known.version == version:
            self._compare(version, known.checksum, checksum, replay=compare)
        source = await ranks.hold(snapshot.folder, version, self.lineage)
        support = str(self._store.folder(0).resolve())
        await self._announce(WeightsRef(version, support, self.lineage, checksum, source))
        return sum(file.bytes for file in snapshot.files)


def _new_lineage() -> str:
    return secrets.token_hex(4)
