"""The ranks as one object: started on Ray, driven from asyncio, watched for death.

The ranks run on the Ray that `ray_session` joined or started. A rank that dies or raises ends the call at once with its
traceback and node; the others, which wait for it in a collective, are abandoned.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Any, Self

import ray
import structlog
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError
from verl.single_controller.ray import RayClassWithInitArgs, RayResourcePool, RayWorkerGroup

from golongrl.errors import GolongrlError
from golongrl.learner.batch.samples import Shard
from golongrl.learner.fsync import Written
from golongrl.learner.ranks.rank import FILES, WATCH, LearnerRank, RankInfo
from golongrl.learner.ranks.ray_session import QUIET, joined
from golongrl.learner.umask import open_to_group
from golongrl.learner.weights.export import Staged
from golongrl.ports import unused
from golongrl.recipe import Recipe

log = structlog.get_logger()

# Spinning OpenMP threads starve every other process of a shared machine.
_RANK_ENVIRONMENT = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "HF_HUB_OFFLINE", "HF_HOME", "TOKENIZERS_PARALLELISM")


class RankFailedError(GolongrlError):
    """A rank died or raised; the message says which node and why, the log has its traceback."""


class Ranks:
    """All ranks of the learner. Calls are collective and must not overlap, except those that only wait: `watch`,
    `written`, `staged` and `hold`."""

    def __init__(self, group: RayWorkerGroup, recipe: Recipe) -> None:
        self._group = group
        self._recipe = recipe
        self.info: list[RankInfo] = []

    @classmethod
    async def start(cls, recipe: Recipe, model: Path, routes: Path | None = None) -> Self:
        """Start the ranks on the connected Ray, load the model, check what was promised.

        Args:
            routes: the folder of recorded routes, where they are replayed.

        Raises:
            RankFailedError: a rank did not come up, or is not what the recipe asked for.
        """
        ranks = cls(await asyncio.to_thread(_launch, recipe, model, routes), recipe)
        ranks.info = await ranks._all("start")
        _check(recipe, ranks.info[0])
        return ranks

    async def watch(self) -> None:
        """Block until a rank dies; other calls may run meanwhile.

        Raises:
            RankFailedError: a rank died.
        """
        await self._wait("watch")

    async def update(self, minis: list[list[Shard]]) -> dict[str, float]:
        """One step: `minis[mini][data-parallel rank]`; the metrics of rank 0, reduced over all."""
        ulysses = self._recipe.learner.ulysses
        # The ranks of one Ulysses group work on the same shard: it is stored once.
        stored = [ray.put([mini[part] for mini in minis]) for part in range(len(minis[0]))]
        results = await self._all("update", [stored[rank // ulysses] for rank in range(self._recipe.learner.ranks)])
        metrics: dict[str, float] = results[0]
        return metrics

    async def save(self, folder: Path) -> None:
        """All ranks copy their part of a checkpoint; they write it into `folder` in the background."""
        await self._all("save", str(folder))

    async def written(self) -> Written:
        """Wait until every rank's part is durable; all files, and the seconds of the slowest rank.

        Raises:
            GolongrlError: a rank could not write its part.
        """
        parts: list[Written] = await self._wait("written")
        files = {name: sums for part in parts for name, sums in part.files.items()}
        return Written(max(part.seconds for part in parts), files)

    async def load(self, folder: Path) -> None:
        """All ranks read their part of a checkpoint."""
        await self._all("load", str(folder))

    async def stage(self, folder: Path | None, parent: Path | None = None) -> None:
        """All ranks copy the weights; they write them into `folder` in the background, or, without one, the first rank
        to where its sender reads them. `parent` as the publisher says."""
        await self._all("stage", *(None if path is None else str(path) for path in (folder, parent)))

    async def staged(self) -> Staged:
        """Wait until the weights are written: where, and the files of all ranks by name.

        Raises:
            RankFailedError: a rank could not write its part.
        """
        parts: list[Staged] = await self._wait("staged")
        files = sorted((file for part in parts for file in part.files), key=lambda file: file.name)
        return Staged(parts[0].folder, files)

    async def hold(self, folder: str, version: int, lineage: str) -> str:
        """The first rank's sender sends what was staged there from now on; where engines ask for it."""
        sources: list[str | None] = await self._wait("hold", folder, version, lineage)
        (source,) = (source for source in sources if source is not None)
        return source

    async def _wait(self, method: str, *arguments: Any) -> Any:
        """A method that runs concurrently with the collective ones."""
        return await self._gather(method, [getattr(rank, method).remote(*arguments) for rank in self._group.workers])

    async def close(self) -> None:
        """Clean up; the last call."""
        await self._all("close")

    async def _all(self, method: str, *arguments: Any) -> Any:
        return await self._gather(method, getattr(self._group, method)(*arguments))

    async def _gather(self, method: str, references: list[Any]) -> Any:
        try:
            # gather raises with the first failure.
            return await asyncio.gather(*references)
        except RayTaskError as error:
            if isinstance(error.cause, GolongrlError):
                # It has a line of its own, and an exit code: a full disk, a checkpoint that does not fit.
                raise error.cause from None
            log.error("a rank raised", method=method, traceback=str(error))
            raise RankFailedError(f"learner rank failed in {method}: {_last_line(str(error))}") from error
        except ActorUnavailableError as error:
            log.error("Ray does not reach a rank", method=method, traceback=str(error))
            raise RankFailedError(
                f"Ray no longer reaches a learner rank ({method}): its raylet or GCS ended, or the rank's node is cut "
                "off"
            ) from error
        except RayActorError as error:
            log.error("a rank died", method=method, traceback=str(error))
            raise RankFailedError(f"learner rank died in {method}: {_death(str(error))}") from error


def pack(ranks: int, gpus_by_node: list[int]) -> list[int]:
    """How many ranks go on each node: as few nodes as possible, the same number on each (verl's worker groups want it).

    Raises:
        RankFailedError: the cluster cannot hold them.
    """
    for size in range(min(ranks, max(gpus_by_node, default=0)), 0, -1):
        if ranks % size == 0 and sum(gpus // size for gpus in gpus_by_node) >= ranks // size:
            return [size] * (ranks // size)
    raise RankFailedError(
        f"learner.ranks {ranks}: the Ray cluster has {sum(gpus_by_node)} GPUs on {len(gpus_by_node)} nodes"
    )


def _launch(recipe: Recipe, model: Path, routes: Path | None) -> RayWorkerGroup:
    ranks = recipe.learner.ranks
    on_gpu, local = ray.cluster_resources().get("GPU", 0) > 0, not joined()
    if on_gpu:
        nodes = (
            [ranks] if local else pack(ranks, [int(n["Resources"].get("GPU", 0)) for n in ray.nodes() if n["Alive"]])
        )
    else:
        nodes = [ranks]
    pool = RayResourcePool(process_on_nodes=nodes, use_gpu=on_gpu, max_colocate_count=1)
    # A checkpoint and a version may be written at the same time, each with one call that waits.
    actor = ray.remote(concurrency_groups={FILES: 2, WATCH: 1})(LearnerRank)
    environment = {name: os.environ[name] for name in _RANK_ENVIRONMENT if name in os.environ}
    if not local:
        environment |= open_to_group()
    # On one machine the driver knows a free port; asking a worker for one would start another interpreter.
    rendezvous = {"master_addr": "127.0.0.1", "master_port": str(unused(1)[0])} if local else {}
    return RayWorkerGroup(
        pool,
        RayClassWithInitArgs(actor, recipe, str(model), None if routes is None else str(routes)),
        device_name="cuda" if on_gpu else "cpu",
        use_gpu=on_gpu,
        worker_env={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": QUIET, **environment},
        **rendezvous,
    )


def _check(recipe: Recipe, info: RankInfo) -> None:
    """What the recipe promises against what the ranks are."""
    learner = recipe.learner
    if info.world_size != learner.ranks:
        raise RankFailedError(f"learner.ranks {learner.ranks}: the process group has {info.world_size}")
    if info.data_parallel * learner.ulysses != learner.ranks:
        raise RankFailedError(
            f"learner.ulysses {learner.ulysses}: the engine has {info.data_parallel} data-parallel groups of "
            f"{learner.ranks} ranks, so sequences are not split"
        )


def _death(text: str) -> str:
    """Where and how, out of Ray's paragraph of possible causes."""
    found = [re.search(pattern, text) for pattern in (r"\bip: \S+", r"\bpid: \d+", r"Worker exit detail: [^.]*")]
    return ", ".join(match.group() for match in found if match) or " ".join(text.split())


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"
