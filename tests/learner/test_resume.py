"""Where a start of the learner goes on: the rule by table, the life of a run by hypothesis, both with a real queue."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.learner.checkpoints import resume
from golongrl.learner.checkpoints.store import TRACKER, CheckpointError, Checkpoints, LearnerState, step_of
from golongrl.queue import Lease, SampleQueue
from support.groups import finish_steps, queue_settings

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


def test_a_tracker_that_says_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / TRACKER).write_text("")
    with pytest.raises(CheckpointError, match=f"{TRACKER}: .*; write the step of the latest checkpoint into it"):
        Checkpoints(tmp_path).latest()


def _checkpoint(checkpoints: Checkpoints, step: int) -> Path:
    state = LearnerState(step, lineage="a", checksum="", ranks=1, seed=0, groups_per_step=1, rows=4, order="o")
    staging = checkpoints.begin(step)
    (staging / "actor" / "model_world_size_1_rank_0.pt").write_bytes(b"weights")
    return checkpoints.seal(staging, state, np.array([(0, row) for row in range(step)], np.int32), keep=1).folder


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
        assert found.state.step == 2
        assert (await queue.attach(found.state.step)).committed == 2
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
        fence = (await queue.attach(found.state.step)).token
        assert str((await resume.find(named, checkpoints, queue) or found).folder) == named
        _checkpoint(checkpoints, 3)
        await queue.commit(fence, 3)
        # The first one may be gone by now.
        for setting in (named, str(tmp_path / "pruned" / "global_step_1")):
            found = await resume.find(setting, checkpoints, queue)
            assert found is not None
            assert found.folder == checkpoints.root / "global_step_3"
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
        assert found.state.step == 2


async def test_a_new_run_begins_at_another_ones_checkpoint(redis_url: str, run_name: str, tmp_path: Path) -> None:
    named = str(_checkpoint(Checkpoints(tmp_path / "other"), 2))
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        for _ in range(2):  # started again before it has committed anything
            found = await resume.find(named, Checkpoints(tmp_path / "run"), queue)
            assert found is not None
            rows = np.arange(4, dtype=np.int32)
            await queue.setup(queue_settings(groups_per_step=1), [rows], ["a"] * 4, found.behind)
            assert (await queue.attach(found.state.step)).version == 2
        lease = await queue.lease("w", 2)
        assert isinstance(lease, Lease)
        assert lease.uid == "0-2"
