"""Modes of all that is written: private where it says what people wrote, else as the umask says.

By the umask the users of one group share weights (pods of a release, people of one machine). A library with modes of
its own shuts them out, or lets everybody in.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from golongrl.data import prepare
from golongrl.data.models import QUICKSTART, resolve
from golongrl.data.pipeline import sources
from golongrl.data.row_files import write_rows
from golongrl.evaluation.store import claim
from golongrl.learner.checkpoints.store import Checkpoints, LearnerState
from golongrl.learner.observe.metrics_log import Records
from golongrl.learner.weights.export import DeltaWriter, take_shards
from golongrl.learner.weights.store import Support, WeightStore
from golongrl.llm import ReplyStore
from golongrl.local.claim import Claim
from golongrl.local.plan import RunFolder
from golongrl.local.redis_server import command, password_of
from golongrl.local.temporary import make as make_temporary
from golongrl.recipe import load
from golongrl.rollout.weights.local_copy import LocalCopy
from golongrl.routes import store as routes
from golongrl.routes.groups import GroupRoutes
from golongrl.telemetry.journal import Journal
from golongrl.telemetry.report import write as write_report
from support.checkpoints import make

NAME = "1-2.0123456789abcdef.routes"
SMALL = load("quickstart", ["data.prompts=18", "data.validation_prompts=3"])
STATE = LearnerState(step=2, lineage="a", checksum="c", ranks=1, seed=0, groups_per_step=3, rows=9, order="o")


def _data(root: Path) -> None:
    for suffix in ("jsonl", "parquet"):
        write_rows((row for _, row in sources(SMALL)["validation"].rows), root / "deep" / f"rows.{suffix}")
    prepare(SMALL, root / "prepared", resolve(QUICKSTART))


def _weights(root: Path) -> None:
    store, writer = WeightStore(root / "store"), DeltaWriter(torch.bfloat16)
    support = Support(resolve(QUICKSTART), "bfloat16")
    store.publish_initial(support, "l", 1 << 20)
    tensor, copy = torch.randn(3000).bfloat16(), LocalCopy(root / "copy")
    for version in (1, 2, 3):
        tensor = torch.where(torch.rand(3000) < 0.01, tensor * 1.01, tensor)
        staging = store.begin(version)
        taken = take_shards([("a", tensor)], dtype=torch.bfloat16, shard_bytes=4096)
        manifest = store.seal(staging, version, "l", writer.write(taken, staging, store.parent_of(version, 8)), support)
        copy.fetch(store.reference(manifest))
    store.copy_out(3, root / "hf")
    routes.open_folder(routes.folder_in(store.root))
    group = GroupRoutes(np.zeros((3, 2, 1), np.uint8), (np.zeros((2, 2, 1), np.uint8),), 4)
    routes.write_routes(routes.folder_in(store.root), NAME, group)


def _learner(root: Path) -> None:
    make(Checkpoints(root / "checkpoints"), STATE, np.zeros((1, 2), np.int32))
    with Records(root / "metrics", 0) as records:
        records.write(1, {"loss": 1.0})
        records.amend(1, {"more": 2.0})


def _evaluation(root: Path) -> None:
    from golongrl.evaluation.suite import load as load_suite

    with claim.claimed(root / "evaluation") as made:
        claim.keep(root / "evaluation", {}, {}, load_suite("aime24"))
        made.keep()
    ReplyStore(root / "replies" / "r.sqlite").close()


WRITERS: list[Callable[[Path], None]] = [_data, _weights, _learner, _evaluation]


@pytest.fixture(params=[0o002, 0o022, 0o027, 0o077], ids=oct)
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    try:
        yield request.param
    finally:
        os.umask(before)


def modes(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode) for path in root.rglob("*")}


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_shared_files_have_the_mode_of_the_umask(tmp_path: Path, mask: int, writer: Callable[[Path], None]) -> None:
    writer(tmp_path)
    found = modes(tmp_path)
    assert len(found) > 2
    expected = {name: (0o777 if (tmp_path / name).is_dir() else 0o666) & ~mask for name in found}
    assert found == expected


def test_what_a_run_keeps_of_people_is_its_owners_alone(
    tmp_path: Path, mask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = RunFolder(tmp_path / "runs" / "mine")
    with Claim.take(folder, resume=False) as taken:
        taken.write_recipe(SMALL)
        folder.redis.mkdir()
        command(1, folder.redis, password_of(folder.redis))
        temporary = make_temporary(folder)
        Journal(folder.path / "samples.jsonl").append([{"text": "hello"}])
        Journal(folder.path / "samples.jsonl", keep=lambda _: True).append([{"text": "again"}])
        write_report(folder.path, SMALL, "name: x")
        taken.begun()
    own = {"mine": 0o700, "mine/redis/password": 0o600, "mine/redis/server.conf": 0o600, "mine/samples.jsonl": 0o600}
    found = modes(tmp_path / "runs")
    assert {name: found[name] for name in own} == own
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
