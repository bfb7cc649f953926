"""A version on its way to the engines, with ranks whose storage is as slow as the test says, and a real queue."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from golongrl.errors import GolongrlError
from golongrl.learner.weights import store
from golongrl.learner.weights.export import Staged, take_shards, write_shards
from golongrl.learner.weights.publisher import PUBLISH_SECONDS, Publisher
from golongrl.learner.weights.store import Support, WeightStore
from golongrl.queue import Attachment, Behind, FencedError, SampleQueue
from golongrl.recipe import load
from golongrl.weights.manifest import Manifest, damaged
from support.groups import one_group_batch, queue_settings

STEPS = 3


class SlowRanks:
    """Weights that are all `value`, copied at `stage` and durable when `storage` is set."""

    def __init__(self, sending: Path | None = None) -> None:
        self._sending = sending  # where the sender reads
        self.value = 0.0
        self.storage = asyncio.Event()
        self.trouble: GolongrlError | None = None
        self.stages = 0
        self._staged: tuple[Path, float] | None = None

    async def stage(self, folder: Path | None, parent: Path | None = None) -> None:
        folder = folder or self._sending
        assert folder is not None
        take_shards({"weight": torch.full((4,), self.value)}.items(), dtype=torch.float32)
        self.stages += 1
        self._staged = folder, self.value

    async def staged(self) -> Staged:
        await self.storage.wait()
        if self.trouble is not None:
            raise self.trouble
        assert self._staged is not None
        folder, value = self._staged
        files = write_shards({"weight": torch.full((4,), value)}.items(), folder, dtype=torch.float32)
        return Staged(str(folder), files)

    async def hold(self, folder: str, version: int, lineage: str) -> str:
        assert (folder, version) == (str(self._sending), version)
        return f"http://sender/{lineage}"


@pytest.fixture
async def queue(redis_url: str, run_name: str) -> AsyncIterator[SampleQueue]:
    async with SampleQueue.from_url(redis_url, run_name) as client:
        await client.setup(queue_settings(groups_per_step=1), [np.arange(STEPS, dtype=np.int32)], ["a"] * STEPS)
        yield client


async def attach(queue: SampleQueue, tiny_model: Path, store: Path, way: str = "disk", *overrides: str) -> Publisher:
    attachment = await queue.attach(0)
    stored = WeightStore(store).manifest(attachment.version) is not None
    there = attachment.version == 0 or (way == "disk" and stored)
    publisher = _publisher(way, queue, attachment, WeightStore(store), tiny_model, *overrides)
    assert await publisher.restore(None) == there
    return publisher


def _publisher(
    way: str, queue: SampleQueue, attachment: Attachment, store: WeightStore, model: Path, *overrides: str
) -> Publisher:
    recipe = load("quickstart", [f"learner.weights={way}", *overrides])
    return Publisher.of(recipe, queue, attachment, store, model)


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("way", ["disk", "broadcast"])
async def test_a_new_queue_has_a_history_of_its_own(
    redis_url: str, run_name: str, tiny_model: Path, tmp_path: Path, way: str, version: int
) -> None:
    """Engines and the store may have versions 0 to 3 of the history that was lost, others than the ones to come."""
    store = WeightStore(tmp_path / "store")
    support = Support(tiny_model, "float32")
    store.publish_initial(support, "lost", 1 << 20)
    for lost in range(1, 4):
        staging = store.begin(lost)
        files = write_shards({"weight": torch.full((4,), float(lost))}.items(), staging, dtype=torch.float32)
        store.seal(staging, lost, "lost", files, support)
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        rows = np.arange(4, dtype=np.int32)
        behind = Behind(version, np.array([(0, row) for row in range(version)], np.int32).reshape(-1, 2))
        await queue.setup(queue_settings(groups_per_step=1), [rows], ["a"] * 4, behind)
        publisher = _publisher(way, queue, await queue.attach(version), store, tiny_model)
        assert await publisher.restore("lost" if version else None) is (version == 0)
        lineage = publisher.lineage
        assert lineage != "lost"
        initial = store.manifest(0)
        assert initial is not None
        assert initial.lineage == lineage
        assert store.manifest(3) is None
        sending = tmp_path / "sending"
        sending.mkdir()
        ranks = SlowRanks(sending)
        ranks.storage.set()
        async with publisher:
            if version:
                await publisher.begin(ranks, version)
                await publisher.settled()
            for step in (version + 1, version + 2):
                await train(queue, publisher, step)
                ranks.value += 0.5
                await publisher.begin(ranks, step)
                await publisher.settled()
                announced = await queue.weights()
                assert announced is not None
                assert (announced.version, announced.lineage) == (step, lineage)


async def train(queue: SampleQueue, publisher: Publisher, step: int) -> None:
    """What precedes the version of `step` at the queue."""
    await one_group_batch(queue, publisher._fence, step, again=step <= publisher.version)


async def test_it_is_announced_and_finished_when_it_is_durable_and_not_before(
    queue: SampleQueue, tiny_model: Path, tmp_path: Path
) -> None:
    ranks = SlowRanks()
    async with await attach(queue, tiny_model, tmp_path) as publisher:
        initial = await queue.weights()
        assert initial is not None
        assert initial.version == 0
        await train(queue, publisher, 1)
        await publisher.begin(ranks, 1)
        # The copy is taken: what is trained from here on is another version.
        ranks.value = 2.0
        second = asyncio.create_task(publisher.begin(ranks, 2))
        await asyncio.sleep(0)
        assert await queue.weights() == initial
        assert (await queue.stats()).version == 0
        assert ranks.stages == 1
        await train(queue, publisher, 2)
        ranks.storage.set()
        await second
        await publisher.settled()
        after = await queue.weights()
        assert after is not None
        assert (after.version, after.lineage) == (2, initial.lineage)
        assert (await queue.stats()).version == publisher.version == 2
        news = publisher.news()
        assert news["weights/bytes"] > 0
        assert news[PUBLISH_SECONDS] > 0
        await publisher.copy_out(ranks, tmp_path / "hf")
    assert (tmp_path / "hf" / "model.safetensors").read_bytes() == (tmp_path / "v2" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("same", [True, False])
async def test_a_replayed_version_keeps_its_lineage_where_it_is_the_same(
    same: bool, queue: SampleQueue, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published under its number is read once at most: weights may be a hundred gigabytes."""
    reads: list[Path] = []

    def reading(folder: Path, manifest: Manifest) -> str | None:
        reads.append(folder)
        return damaged(folder, manifest)

    monkeypatch.setattr(store, "damaged", reading)
    ranks = SlowRanks()
    ranks.storage.set()
    async with await attach(queue, tiny_model, tmp_path) as first:
        await train(queue, first, 1)
        await first.begin(ranks, 1)
        await first.settled()
    async with await attach(queue, tiny_model, tmp_path) as again:
        before = await queue.weights()
        assert again.version == 1
        await train(queue, again, 1)
        ranks.value = 0.0 if same else 1.0
        reads.clear()
        await again.begin(ranks, 1)
        await again.settled()
        assert reads == ([tmp_path / "v1"] if same else [])
        after = await queue.weights()
    assert before is not None
    assert after is not None
    assert (after == before) == same
    assert (after.lineage == before.lineage) == same
    assert (await queue.stats()).version == 1


@pytest.mark.parametrize("same", [True, False])
async def test_a_version_lost_from_the_store_keeps_its_lineage_where_it_is_the_same(
    same: bool, queue: SampleQueue, tiny_model: Path, tmp_path: Path
) -> None:
    """The engines hold it still: other weights under its lineage would never be taken."""
    ranks = SlowRanks()
    ranks.storage.set()
    async with await attach(queue, tiny_model, tmp_path / "lost") as first:
        await train(queue, first, 1)
        await first.begin(ranks, 1)
        await first.settled()
    before = await queue.weights()
    async with await attach(queue, tiny_model, tmp_path / "new") as again:
        await train(queue, again, 1)
        ranks.value = 0.0 if same else 1.0
        await again.begin(ranks, 1)
        await again.settled()
    after = await queue.weights()
    assert before is not None
    assert after is not None
    assert (after.checksum == before.checksum) == same
    assert (after.lineage == before.lineage) == same


def _cut(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])


def _change(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("spoil", [_cut, _change, shutil.rmtree])
async def test_a_version_that_somebody_damages_is_published_again(
    queue: SampleQueue, tiny_model: Path, tmp_path: Path, spoil: Callable[[Path], None], version: int
) -> None:
    """Engines cannot take it, and would wait for ever: there is no next version without groups of this one."""
    ranks, store = SlowRanks(), WeightStore(tmp_path)
    ranks.storage.set()
    async with await attach(queue, tiny_model, tmp_path) as publisher:
        if version:
            await train(queue, publisher, 1)
            await publisher.begin(ranks, 1)
            await publisher.settled()
        before, stages = await queue.weights(), ranks.stages
        await publisher.repair(ranks)
        assert ranks.stages == stages
        spoil(store.folder(version))
        await publisher.repair(ranks)
        await publisher.settled()
        assert store.intact(version) is not None
        assert await queue.weights() == before


async def test_what_went_wrong_is_raised_and_nothing_is_announced(
    queue: SampleQueue, tiny_model: Path, tmp_path: Path
) -> None:
    ranks = SlowRanks()
    ranks.trouble = GolongrlError("no space left")
    async with await attach(queue, tiny_model, tmp_path) as publisher:
        await train(queue, publisher, 1)
        await publisher.begin(ranks, 1)
        assert publisher.news() == {}
        ranks.storage.set()
        await asyncio.wait(publisher.tasks)
        with pytest.raises(GolongrlError, match="no space left"):
            publisher.look()
        weights = await queue.weights()
        assert weights is not None
        assert weights.version == 0
        assert (await queue.stats()).version == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_weights_that_are_not_finite_end_the_run_and_reach_no_engine(
    queue: SampleQueue, tiny_model: Path, tmp_path: Path, value: float
) -> None:
    ranks = SlowRanks()
    ranks.value = value
    async with await attach(queue, tiny_model, tmp_path) as publisher:
        await train(queue, publisher, 1)
        with pytest.raises(
            GolongrlError, match=r"^after step 1 the weights are not finite in .* lower learner\.lr"
        ) as told:
            await publisher.begin(ranks, 1)
        assert told.value.exit_code == 1
        weights = await queue.weights()
        assert weights is not None
        assert (weights.version, (await queue.stats()).version) == (0, 0)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("v")] == ["v0"]


async def test_a_replaced_learner_leaves_the_store_alone(queue: SampleQueue, tiny_model: Path, tmp_path: Path) -> None:
    """Its successor may have published the version under another lineage meanwhile."""
    ranks = SlowRanks()
    async with await attach(queue, tiny_model, tmp_path) as replaced:
        await train(queue, replaced, 1)
        await replaced.begin(ranks, 1)
        await queue.attach(0)
        ranks.storage.set()
        with pytest.raises(FencedError):
            await replaced.settled()
    assert WeightStore(tmp_path).manifest(1) is None


async def test_what_a_killed_learner_left_unfinished_goes(queue: SampleQueue, tiny_model: Path, tmp_path: Path) -> None:
    """Two learners never write into one folder: the ranks of the first may live a little longer than it."""
    async with await attach(queue, tiny_model, tmp_path):
        WeightStore(tmp_path).begin(1)
    assert len(list(tmp_path.glob("v1.*"))) == 1
    async with await attach(queue, tiny_model, tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["v0"]


async def test_the_version_before_stays_until_the_next_is_announced(
    queue: SampleQueue, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks, seen = SlowRanks(), []
    ranks.storage.set()
    async with await attach(queue, tiny_model, tmp_path, "disk", "learner.keep_weights=1") as publisher:
        announce = publisher._announce

        async def looking(reference):  # type: ignore[no-untyped-def]
            seen.append(sorted(path.name for path in tmp_path.iterdir()))
            await announce(reference)

        monkeypatch.setattr(publisher, "_announce", looking)
        await train(queue, publisher, 1)
        await publisher.begin(ranks, 1)
        await publisher.settled()
    assert seen == [["v0", "v1"]]
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


async def test_a_broadcast_version_that_was_announced_but_not_finished_keeps_its_lineage(
    queue: SampleQueue, tiny_model: Path, tmp_path: Path
) -> None:
    """Killed between the two, with no checkpoint yet: made again, it is the same history."""
    ranks = SlowRanks(tmp_path / "sending")
    ranks.storage.set()
    (tmp_path / "sending").mkdir()
    async with await attach(queue, tiny_model, tmp_path / "store", "broadcast") as first:
        for version in (1, 2):
            await train(queue, first, version)
            ranks.value = float(version)
            if version == 2:
                first.version = 2  # as though it were finished
            await first.begin(ranks, version)
            await first.settled()
    announced = await queue.weights()
    assert announced is not None
    assert (announced.version, (await queue.stats()).version) == (2, 1)
    async with await attach(queue, tiny_model, tmp_path / "store", "broadcast") as again:
        await train(queue, again, 1)
        await train(queue, again, 2)
        for version in (1, 2):
            ranks.value = float(version)
            await again.begin(ranks, version)
            await again.settled()
        assert await queue.weights() == announced
        assert (await queue.stats()).version == 2


async def test_the_result_is_not_an_older_history(queue: SampleQueue, tiny_model: Path, tmp_path: Path) -> None:
    """Killed at the export; the replay differs, as it may on a GPU."""
    ranks = SlowRanks(tmp_path / "sending")
    ranks.storage.set()
    (tmp_path / "sending").mkdir()
    for value in (1.0, 2.0):
        ranks.value = value
        async with await attach(queue, tiny_model, tmp_path / "store", "broadcast") as publisher:
            await train(queue, publisher, 1)
            await publisher.begin(ranks, 1)
            await publisher.copy_out(ranks, tmp_path / "hf")
            assert load_file(tmp_path / "hf" / "model.safetensors")["weight"].tolist() == [value] * 4
