"""How a version of the policy becomes known: written to the weight store by all ranks, then announced to the engines.

Invariants:
- a version is announced only when its folder is complete and durable;
- lineage names one history of weights: it changes exactly when a version comes out other than it was published before.
"""

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from golongrl.learner.safetensors_out import SHARD_BYTES
from golongrl.learner.weights import Manifest, WeightStore
from golongrl.queue import SampleQueue
from golongrl.recipe import Recipe

if TYPE_CHECKING:
    from golongrl.learner.cluster import Ranks

log = structlog.get_logger()


class Publisher:
    """The weight store and the queue's announcement as one, for one attachment to the run."""

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
            lineage: the checkpoint's, for a version that the store lost.

        Returns:
            Whether the store has that version; where not, it must be published once the ranks have its weights.
        """
        manifest = self._store.manifest(version)
        self.lineage = manifest.lineage if manifest else (lineage or _new_lineage())
        if version == 0:
            manifest = await asyncio.to_thread(
                self._store.publish_initial, self._model, self.lineage, self._recipe.model, SHARD_BYTES
            )
        if manifest is not None:
            await self._announce(manifest)
        return manifest is not None

    async def publish(self, ranks: "Ranks", version: int, *, compare: bool) -> None:
        """Write and announce the ranks' weights as `version`.

        With `compare` (a replay) the version may be in the store already: equal weights keep its lineage, others start
        a new one.
        """
        staging = await asyncio.to_thread(self._store.begin, version)
        files = await ranks.export(staging)
        published = self._store.manifest(version)
        if published is not None and published.checksum != self._store.checksum_of(files):
            if compare:
                log.warning("replay is not bit-identical: new lineage", version=version)
            self.lineage = _new_lineage()
        manifest = await asyncio.to_thread(
            self._store.seal, version, self.lineage, files, self._model, self._recipe.model.dtype
        )
        await self._announce(manifest)
        self._store.prune(version, self._recipe.learner.keep_weights)

    async def copy_out(self, version: int, folder: Path) -> None:
        """The final export: a published version as a plain Hugging Face folder."""
        await asyncio.to_thread(self._store.copy_out, version, folder)

    async def _announce(self, manifest: Manifest) -> None:
        self.lineage, self.checksum = manifest.lineage, manifest.checksum
        await self._queue.announce(self._fence, self._store.reference(manifest))


def _new_lineage() -> str:
    return secrets.token_hex(4)
