"""A rank that ends a call, and a Ray that ends it: the line names the one that ended. Verl's import takes seconds."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError
from verl.single_controller.ray import RayWorkerGroup

from golongrl.learner.ranks.group import RankFailedError, Ranks
from golongrl.recipe import load


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ActorDiedError(), r"^learner rank died in watch: "),
        (
            ActorUnavailableError("RpcError: RPC error: Socket closed rpc_code: 14.", bytes(16)),
            r"^Ray no longer reaches a learner rank \(watch\): its raylet or GCS ended, or the rank's node is cut off$",
        ),
    ],
)
async def test_a_rank_is_not_blamed_where_ray_ended(error: RayActorError, words: str) -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended.set_exception(error)
    rank = SimpleNamespace(watch=SimpleNamespace(remote=lambda: ended))
    with pytest.raises(RankFailedError, match=words):
        await Ranks(cast(RayWorkerGroup, SimpleNamespace(workers=[rank])), load("quickstart")).watch()
