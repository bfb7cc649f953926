"""A storage that is full or read-only: one line that names the folder, and nothing half-written."""

import contextlib
import errno
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from golongrl.errors import NO_SPACE_EXIT
from golongrl.learner import startup
from golongrl.learner.checkpoints.snapshot import write
from golongrl.learner.checkpoints.store import Checkpoints, LearnerState
from golongrl.learner.fsync import NotWrittenError, StorageError, replace, writing
from golongrl.learner.observe.metrics_log import Records
from golongrl.learner.startup import LearnerConfig
from golongrl.learner.weights.export import take_shards, write_shards, write_taken
from golongrl.learner.weights.store import Support, WeightStore
from golongrl.queue import QueueUnavailableError
from golongrl.recipe import Recipe, load
from support.learner_run import learner_run, small_recipe

SIZE = 4 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    with (disk / "others").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(max(0, file.tell() - leave))


def tensors() -> dict[str, torch.Tensor]:
    return {f"layer.{i}": torch.rand(256, 1024) for i in range(6)}


def shards(disk: Path, model: Path) -> None:
    write_shards(tensors().items(), disk, dtype=torch.float32, shard_bytes=2 << 20)


def ranks_shards(disk: Path, model: Path) -> None:
    write_taken(take_shards(tensors().items(), dtype=torch.float32, shard_bytes=2 << 20), disk)


def initial(disk: Path, model: Path) -> None:
    fill(disk, leave=64 << 10)
    WeightStore(disk / "weights").publish_initial(Support(model, "float32"), "a", 1 << 20)


def seal(disk: Path, model: Path) -> None:
    store = WeightStore(disk / "weights")
    staging = store.begin(1)
    files = write_shards({"a": torch.ones(3)}.items(), staging, dtype=torch.float32)
    fill(disk, leave=8 << 10)
    store.seal(staging, 1, "a", files, Support(model, "float32"))


def result(disk: Path, model: Path) -> None:
    store = WeightStore(model.parent / "weights")
    store.publish_initial(Support(model, "float32"), "a", 1 << 20)
    fill(disk, leave=64 << 10)
    store.copy_out(0, disk / "hf")


def ranks_checkpoint(disk: Path, model: Path) -> None:
    write({"model.pt": tensors(), "optim.pt": tensors()}, {"huggingface/config.json": b"{}"}, disk)


def checkpoint(disk: Path, model: Path) -> None:
    checkpoints = Checkpoints(disk / "checkpoints")
    staging = checkpoints.begin(2)
    fill(disk, leave=16 << 10)
    state = LearnerState(2, "a", "", ranks=1, seed=0, groups_per_step=1, rows=4, order="o")
    checkpoints.seal(staging, state, np.zeros((100_000, 2), np.int32), {}, 2)


def new_file(disk: Path, model: Path) -> None:
    with writing("validation answers", disk / "step_2.jsonl"):
        replace(disk / "step_2.jsonl", "x" * 2 * SIZE)


WRITERS = [shards, ranks_shards, initial, seal, result, ranks_checkpoint, checkpoint, new_file]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_nothing_is_left(
    writer: Callable[[Path, Path], None], disk: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.symlink_to(tiny_model)
    with pytest.raises(StorageError, match=rf"^no space left on {disk}") as caught:
        writer(disk, model)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == NO_SPACE_EXIT
    # Whole shards and files stay until their folder, which is no version and no checkpoint yet, is removed.
    whole = {"model.pt", "config.json"}
    left = [path for path in disk.rglob("*") if path.is_file() and path.name not in {"others", *whole}]
    assert [path for path in left if not path.name.startswith(("shard-00000", "model-00001"))] == []
    assert list(disk.rglob("*.tmp")) == []


def test_a_record_that_does_not_fit_is_removed(disk: Path) -> None:
    with Records(disk, 0) as records:
        records.write(1, {"a": 1.0})
        before = (disk / "metrics.jsonl").read_bytes()
        fill(disk)
        with pytest.raises(StorageError, match=rf"^no space left on {disk}: metrics metrics\.jsonl"), capture_logs():
            records.write(2, {f"metric/{i}": 1.0 for i in range(1000)})
        assert (disk / "metrics.jsonl").read_bytes() == before
    (disk / "others").unlink()
    with Records(disk, 1) as records:
        records.write(2, {"a": 2.0})
    assert len((disk / "metrics.jsonl").read_text().splitlines()) == 2


def test_what_only_shows_the_metrics_ends_nothing(disk: Path) -> None:
    """TensorBoard's files may grow past the disk's end; metrics.jsonl has its room."""
    with Records(disk, 0) as records:
        fill(disk, leave=4 << 10)
        with capture_logs() as logs:
            for step in range(1, 20):
                os.truncate(disk / "metrics.jsonl", 0)
                records.write(step, {f"m{i}": 1.0 for i in range(60)})
        assert [entry for entry in logs if "TensorBoard's files cannot be written" in entry["event"]]


def test_a_read_only_storage_is_named(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(StorageError, match=rf"^read-only file system under {disk}/weights: weights v1\."):
        WeightStore(disk / "weights").begin(1)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on"),
        (errno.EDQUOT, r"no space left \(disk quota exceeded\) on"),
        (errno.EROFS, "read-only file system under"),
        (errno.EIO, "input/output error under"),
        (errno.EFBIG, r"a file is larger than may be written \(ulimit -f, or the file system's limit\) under"),
    ],
)
def test_what_only_a_person_can_mend_is_told_apart(number: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"^{words} {tmp_path}: weights v3 could not be written$"):  # noqa: SIM117
        with writing("weights", tmp_path / "v3"):
            raise OSError(number, os.strerror(number))
    with pytest.raises(NotWrittenError, match="v3 could not be written") as caught:  # noqa: SIM117
        with writing("weights", tmp_path / "v3"):
            raise OSError(errno.EACCES, "Permission denied")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("full", [True, False])
async def test_a_redis_that_cannot_write_is_named_with_the_full_folder(
    full: bool, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ended(recipe: Recipe, config: LearnerConfig) -> None:
        raise QueueUnavailableError("Redis at a:1 kept failing for 120 s; commit waited for")

    monkeypatch.setattr(startup, "_train", ended)
    config = LearnerConfig("a", "redis://a:1", disk, disk, disk)
    if full:
        fill(disk)
    with pytest.raises(StorageError if full else QueueUnavailableError) as caught:
        await startup.train(load("quickstart"), config)
    place = f"no space left on {disk}: " if full else ""
    assert str(caught.value) == f"{place}Redis at a:1 kept failing for 120 s; commit waited for"


class Refusing(io.BytesIO):
    """A file that takes no byte."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, _: object) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOSPC, StorageError, r"no space left on {}: checkpoint file x\.pt could not be written"),
        (
            errno.EACCES,
            NotWrittenError,
            r"checkpoint file {}/x\.pt could not be written: \[Errno 13\] Permission denied",
        ),
    ],
)
def test_the_systems_reason_is_found_behind_torchs(number: int, kind: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=f"^{message.format(tmp_path)}$"):  # noqa: SIM117
        with writing("checkpoint file", tmp_path / "x.pt"):
            torch.save({"a": torch.zeros(1000)}, Refusing(number))


def a_checkpoint_every_step(model: Path) -> Recipe:
    return small_recipe(
        model,
        "learner.steps=1000",
        "learner.checkpoint_every=1",
        "learner.keep_checkpoints=1000",
        "data.epochs=400",
    )


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_a_run_that_fills_its_disk_ends_with_that_line(tiny_model: Path, disk: Path, tmp_path: Path) -> None:
    """The log is on the same disk."""
    async with learner_run(disk / "run", a_checkpoint_every_step(tiny_model), redis=tmp_path / "redis") as run:
        assert await run.ended() == NO_SPACE_EXIT, run.log[-4000:]
        last = run.log.rstrip().splitlines()[-1]
    assert last.startswith(f"error: no space left on {disk}/run"), run.log[-4000:]
    assert list((disk / "run" / "checkpoints").glob("*.tmp")) == []
    assert list((disk / "run" / "weights").glob("*.tmp")) == []


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_a_redis_on_the_same_disk_may_be_the_first_that_cannot_write(tiny_model: Path, disk: Path) -> None:
    """Then the learner waits for it as long as for any Redis. Its line has no room; the exit code is the same."""
    async with learner_run(disk / "run", a_checkpoint_every_step(tiny_model)) as run:
        await run.until(lambda: (run.root / "checkpoints" / "latest_checkpointed_iteration.txt").exists())
        fill(disk)
        assert await run.ended() == NO_SPACE_EXIT, run.log[-4000:]
