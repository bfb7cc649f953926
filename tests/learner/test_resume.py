"""Where a start of the learner goes on: the rule by table, the life of a run by hypothesis, both with a real queue."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from golongrl.learner.checkpoints import resume
from golongrl.learner.checkpoints.store import TRACKER, CheckpointError, Checkpoints, LearnerState, read, step_of
from golongrl.queue import Lease, SampleQueue, SubmitOutcome
from golongrl.queue.errors import NotSetUpError, OutOfOrderError
from golongrl.recipe import load
from support.checkpoints import KINDS, make
from support.groups import finish_steps, group_for, queue_settings

PATH = "/kept/global_step_20"


@pytest.mark.parametrize(
    ("setting", "committed", "named", "latest", "takes_latest"),
    [
        # A run's first start.
        ("auto", 0, 0, None, False),
        ("never", 0, 0, None, False),
        (PATH, 0, 20, None, False),
        # Before its first own commit: what the folder has may be an older run's, and only `auto` looks at it.
        ("auto", 0, 0, 7, True),
        ("never", 0, 0, 7, False),
        (PATH, 0, 20, 30, False),
        (PATH, 20, 20, None, False),
        (PATH, 20, 20, 10, False),
        # It died after the checkpoint became the latest, before the commit.
        ("auto", 20, 0, 30, True),
        (PATH, 20, 20, 30, False),
        # It has committed since it began.
        ("auto", 30, 0, 30, True),
        ("never", 30, 0, 30, True),
        ("never", 30, 0, 35, True),
        (PATH, 30, 20, 30, True),
        # A checkpoint further on than the run: whether it can be, the queue says when the learner attaches.
        (PATH, 10, 20, 10, False),
        ("never", 1, 0, 99, True),
    ],
)  # fmt: skip
def test_what_a_start_goes_on_from(
    setting: str, committed: int, named: int, latest: int | None, takes_latest: bool
) -> None:
    assert resume.takes_latest(setting, committed=committed, named=named, latest=latest) is takes_latest


@pytest.mark.parametrize("setting", ["auto", "never", PATH])
@pytest.mark.parametrize(
    ("latest", "has"), [(None, "no checkpoint"), (20, "checkpoint 20 as its latest"), (29, "checkpoint 29")]
)
def test_a_folder_without_the_committed_checkpoint_is_refused(setting: str, latest: int | None, has: str) -> None:
    with pytest.raises(CheckpointError, match=f"committed step 30, .* --out has {has}") as caught:
        resume.takes_latest(setting, committed=30, named=20 if setting == PATH else 0, latest=latest)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@given(
    begins=st.sampled_from([("auto", 0), ("never", 0), (PATH, 20)]),
    left_over=st.none() | st.integers(1, 60),
    life=st.lists(st.sampled_from(["step", "seal", "commit", "die"]), max_size=60),
)
def test_however_a_run_dies_it_starts_again_from_what_is_its_own(
    begins: tuple[str, int], left_over: int | None, life: list[str]
) -> None:
    """A run over a folder with an older run's checkpoint. It only ever commits what it made the latest before."""
    setting, named = begins
    # A new queue begins where the run does.
    version = committed = done = (left_over or 0) if setting == "auto" else named
    latest, sealed = left_over, (left_over if setting == "auto" else None)

    for event in [*life, "die"]:
        if event == "step":
            done += 1
            version = max(version, done)
        elif event == "seal" and done > committed:
            latest = sealed = done
        elif event == "commit" and sealed is not None:
            committed = sealed
        elif event == "die":
            own = resume.takes_latest(setting, committed=committed, named=named, latest=latest)
            assert not own or latest == sealed, "an older run's checkpoint"
            done = (latest or 0) if own else named
            assert committed <= done <= version, "the queue would refuse it"
            committed, sealed = done, (sealed if own else None)


def test_the_step_of_a_checkpoint_that_is_gone_is_in_its_name(tmp_path: Path) -> None:
    made = _checkpoint(Checkpoints(tmp_path), 7)
    assert step_of(made) == 7
    assert step_of(made.rename(tmp_path / "kept")) == 7
    assert step_of(made) == 7
    for name in ("elsewhere", "global_step_7.tmp", "global_step_"):
        with pytest.raises(CheckpointError, match=name):
            step_of(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"many", b"\xff\xfe", None])
@pytest.mark.parametrize("committed", [0, 4, 6])
def test_a_damaged_or_lost_tracker_costs_nothing(content: bytes | None, committed: int, tmp_path: Path) -> None:
    """The queue knows the committed step; without one, the newest folder is meant."""
    checkpoints = Checkpoints(tmp_path)
    for step in (4, 6):
        _checkpoint(checkpoints, step, keep=2)
    if content is None:
        (tmp_path / TRACKER).unlink()
    else:
        (tmp_path / TRACKER).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{TRACKER} is damaged: .*; write the step of the latest checkpoint"):
            checkpoints.latest()
    found = resume.choose("auto", checkpoints, committed)
    assert found is not None
    assert found.checkpoint.state.step == (committed or 6)


DAMAGES = {
    "no state": lambda folder: (folder / "learner.json").unlink(),
    "empty state": lambda folder: (folder / "learner.json").write_bytes(b""),
    "state is no json": lambda folder: (folder / "learner.json").write_bytes(b"{"),
    "state is a list": lambda folder: (folder / "learner.json").write_bytes(b"[1]"),
    "state of nowhere": lambda folder: (folder / "learner.json").write_bytes(b'{"schema": 99}'),
    "state lacks fields": lambda folder: (folder / "learner.json").write_bytes(b'{"schema": 2, "step": 6}'),
    "state changed": lambda folder: _flip(folder / "learner.json", -3),
    "no rows": lambda folder: (folder / "trained_rows.npy").unlink(),
    "empty rows": lambda folder: (folder / "trained_rows.npy").write_bytes(b""),
    "rows changed": lambda folder: _flip(folder / "trained_rows.npy", -1),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "manifest is no json": lambda folder: (folder / "manifest.json").write_bytes(b"{}"),
    "manifest is zero": lambda folder: (folder / "manifest.json").write_bytes(b"\0" * 100),
    "no model": lambda folder: (folder / "actor" / "model_world_size_1_rank_0.pt").unlink(),
    "empty optimizer": lambda folder: (folder / "actor" / "optim_world_size_1_rank_0.pt").write_bytes(b""),
    "cut scheduler": lambda folder: _cut(folder / "actor" / "extra_state_world_size_1_rank_0.pt"),
    "flipped model": lambda folder: _flip(folder / "actor" / "model_world_size_1_rank_0.pt", 7),
    "zeroed optimizer": lambda folder: _zero(folder / "actor" / "optim_world_size_1_rank_0.pt"),
    "gone": lambda folder: shutil.rmtree(folder),
}


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _zero(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_newest_whole_one(damage: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 4, 6):
        _checkpoint(checkpoints, step, keep=3)
    DAMAGES[damage](tmp_path / "global_step_6")
    with capture_logs() as logs:
        found = resume.choose("auto", checkpoints, 6)
    assert found is not None
    assert (found.checkpoint.state.step, found.own, found.rewinds) == (4, True, True)
    (line,) = [entry["detail"] for entry in logs]
    assert "global_step_6" in line
    assert f"resuming {tmp_path}/global_step_4 (step 4)" in line
    DAMAGES[damage](tmp_path / "global_step_4")
    found = resume.choose("auto", checkpoints, 6)
    assert found is not None
    assert found.checkpoint.state.step == 2


def test_an_older_runs_checkpoint_is_not_taken_for_this_runs(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    _checkpoint(checkpoints, 4, history="older run")
    _checkpoint(checkpoints, 6, keep=2)
    _cut(tmp_path / "global_step_6" / "actor" / "model_world_size_1_rank_0.pt")
    with pytest.raises(CheckpointError, match=r"global_step_6.*name one with learner\.resume"):
        resume.choose("auto", checkpoints, 6)


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_none_is_whole_the_advice_works(damage: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run")
    kept = _checkpoint(Checkpoints(tmp_path / "kept"), 2)
    folder = _checkpoint(checkpoints, 6)
    DAMAGES[damage](folder)
    with pytest.raises(CheckpointError, match=r"global_step_6.*name one with learner\.resume") as caught:
        resume.choose("auto", checkpoints, 6)
    assert "\n" not in str(caught.value)
    found = resume.choose(str(kept), checkpoints, 6)
    assert found is not None
    assert (found.checkpoint.folder, found.own, found.rewinds) == (kept, False, True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_that_is_named_is_refused(damage: str, tmp_path: Path) -> None:
    kept = _checkpoint(Checkpoints(tmp_path / "kept"), 2)
    DAMAGES[damage](kept)
    with pytest.raises(CheckpointError, match="global_step_2"):
        resume.choose(str(kept), Checkpoints(tmp_path / "run"), 0)


def test_a_checkpoint_of_the_first_schema_is_still_read(tmp_path: Path) -> None:
    """It has no manifest: what can be seen is a file that is missing, or an archive without its end."""
    folder = _checkpoint(Checkpoints(tmp_path), 2)
    (folder / "manifest.json").unlink()
    state = json.loads((folder / "learner.json").read_text())
    old = {name: state[name] for name in state if name not in ("model", "recipe", "history")}
    (folder / "learner.json").write_text(json.dumps({**old, "schema": 1}))
    for kind in KINDS:
        torch.save({"a": torch.ones(3)}, folder / "actor" / f"{kind}_world_size_1_rank_0.pt")
    assert read(folder).state.step == 2
    _cut(folder / "actor" / "optim_world_size_1_rank_0.pt")
    with pytest.raises(CheckpointError, match=r"optim_world_size_1_rank_0\.pt is truncated"):
        read(folder)


def _checkpoint(checkpoints: Checkpoints, step: int, keep: int = 1, history: str = "h") -> Path:
    state = LearnerState(
        step, lineage="a", checksum="", ranks=1, seed=0, groups_per_step=1, rows=4, order="o", history=history
    )
    return make(checkpoints, state, np.array([(0, row) for row in range(step)], np.int32), keep)


def test_checkpoints_that_cannot_be_seen_are_not_taken_for_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert resume.own_checkpoint(checkpoints) == (None, [])
    checkpoints.root.touch()
    with pytest.raises(CheckpointError, match=rf"checkpoints {checkpoints.root}: cannot be read: Not a directory"):
        resume.own_checkpoint(checkpoints)


async def test_a_run_that_must_never_resume_survives_its_own_death(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    """Before it has committed anything it begins anew, over an older run's folder too; after that it goes on."""
    checkpoints = Checkpoints(tmp_path)
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        assert await resume.find("never", checkpoints, queue) is None
        _checkpoint(checkpoints, 1)
        await queue.setup(queue_settings(groups_per_step=1), [np.arange(4, dtype=np.int32)], ["a"] * 4)
        fence = (await queue.attach(0)).token
        await finish_steps(queue, fence, 2)
        assert await resume.find("never", checkpoints, queue) is None
        _checkpoint(checkpoints, 2)
        assert await resume.find("never", checkpoints, queue) is None, "not committed: nothing of it is lost yet"
        await queue.commit(fence, 2)
        found = await resume.find("never", checkpoints, queue)
        assert found is not None
        assert found.checkpoint.state.step == 2
        assert (await queue.attach(found.checkpoint.state.step)).committed == 2
        with pytest.raises(CheckpointError, match="the run has committed step 2"):
            await resume.find("never", Checkpoints(tmp_path / "other"), queue)


async def test_a_named_checkpoint_is_left_behind(redis_url: str, run_name: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "run")
    named = str(_checkpoint(Checkpoints(tmp_path / "kept"), 1))
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        await queue.setup(queue_settings(groups_per_step=1), [np.arange(4, dtype=np.int32)], ["a"] * 4)
        await finish_steps(queue, (await queue.attach(0)).token, 3)
        found = await resume.find(named, checkpoints, queue)
        assert found is not None
        fence = (await queue.attach(found.checkpoint.state.step)).token
        assert str((await resume.find(named, checkpoints, queue) or found).checkpoint.folder) == named
        _checkpoint(checkpoints, 3)
        await queue.commit(fence, 3)
        # The first one may be gone by now.
        for setting in (named, str(tmp_path / "pruned" / "global_step_1")):
            found = await resume.find(setting, checkpoints, queue)
            assert found is not None
            assert found.checkpoint.folder == checkpoints.root / "global_step_3"
        with pytest.raises(CheckpointError, match="global_step_3"):
            await resume.find(str(tmp_path / "missing" / "global_step_3"), checkpoints, queue)


async def test_a_named_checkpoint_may_be_pruned_by_the_one_after_it(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    """By a learner that died between making a checkpoint the latest, with `keep_checkpoints: 1`, and its commit."""
    checkpoints = Checkpoints(tmp_path)
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        await queue.setup(queue_settings(groups_per_step=1), [np.arange(4, dtype=np.int32)], ["a"] * 4)
        await finish_steps(queue, (await queue.attach(0)).token, 2)
        named = _checkpoint(checkpoints, 1)
        await queue.attach(1)
        _checkpoint(checkpoints, 2)
        assert not named.exists()
        found = await resume.find(str(named), checkpoints, queue)
        assert found is not None
        assert found.checkpoint.state.step == 2


async def test_a_new_run_begins_at_another_ones_checkpoint(redis_url: str, run_name: str, tmp_path: Path) -> None:
    named = str(_checkpoint(Checkpoints(tmp_path / "other"), 2))
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        for _ in range(2):  # started again before it has committed anything
            found = await resume.find(named, Checkpoints(tmp_path / "run"), queue)
            assert found is not None
            rows = np.arange(4, dtype=np.int32)
            await queue.setup(queue_settings(groups_per_step=1), [rows], ["a"] * 4, found.checkpoint.behind)
            assert (await queue.attach(found.checkpoint.state.step)).version == 2
        lease = await queue.lease("w", 2)
        assert isinstance(lease, Lease)
        assert lease.uid == "0-2"


async def test_behind_the_commit_the_run_begins_again(redis_url: str, run_name: str, tmp_path: Path) -> None:
    """Checkpoint 3 is damaged and its step committed: rows after 2 are dealt again, no old lease counts."""
    checkpoints, rows = Checkpoints(tmp_path), np.arange(6, dtype=np.int32)
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        await queue.setup(queue_settings(groups_per_step=1), [rows], ["a"] * 6)
        fence = (await queue.attach(0)).token
        await finish_steps(queue, fence, 3)
        for step in (2, 3):
            _checkpoint(checkpoints, step, keep=2)
        await queue.commit(fence, 3)
        held = await queue.lease("w", 3)
        assert isinstance(held, Lease)
        _cut(tmp_path / "global_step_3" / "actor" / "model_world_size_1_rank_0.pt")
        found = await resume.find("auto", checkpoints, queue)
        assert found is not None
        assert found.rewinds
        with pytest.raises(OutOfOrderError, match="committed step 3"):
            await queue.attach(2)
        await queue.forget()
        with pytest.raises(NotSetUpError):
            await queue.submit(held, group_for(held))
        await queue.setup(queue_settings(groups_per_step=1), [rows], ["a"] * 6, found.checkpoint.behind)
        attachment = await queue.attach(2)
        assert (attachment.version, attachment.committed) == (2, 2)
        assert await queue.submit(held, group_for(held)) is SubmitOutcome.STALE
        again = await queue.lease("w", 2)
        assert isinstance(again, Lease)
        assert again.uid == "0-2"
        # A death right after this: the damaged one is passed over again, and the queue is where it is.
        found = await resume.find("auto", checkpoints, queue)
        assert found is not None
        assert (found.checkpoint.state.step, found.rewinds) == (2, False)


async def test_another_run_on_the_same_server_is_left_alone(redis_url: str, run_name: str) -> None:
    rows = np.arange(2, dtype=np.int32)
    async with (
        SampleQueue.from_url(redis_url, run_name) as queue,
        SampleQueue.from_url(redis_url, f"{run_name}-2") as other,
    ):
        for each in (queue, other):
            await each.setup(queue_settings(groups_per_step=1), [rows], ["a"] * 2)
        await queue.forget()
        assert [key async for key in queue._connection.client.scan_iter(match=queue._connection.prefix + "*")] == []
        assert (await other.stats()).rows == 2


def test_what_changed_is_named() -> None:
    before = load("quickstart")
    now = load("quickstart", ["learner.lr=0.5", "learner.betas=[0.5, 0.9]", "learner.resume=never", "learner.steps=3"])
    lr, betas = before.learner.lr, list(before.learner.betas)
    assert resume.changes(before.model_dump(mode="json"), now) == [
        f"learner.betas {betas} -> [0.5, 0.9]",
        f"learner.lr {lr} -> 0.5",
    ]
    assert resume.changes(before.model_dump(mode="json"), before) == []
    assert resume.changes({}, now) == [], "a checkpoint of the first schema records none"
