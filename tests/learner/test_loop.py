"""The learner as a process against a real queue: it trains to the end, and a kill costs nothing but time."""

import glob
import shutil
import signal
from pathlib import Path

import psutil
import pytest
import torch

from golongrl.learner.checkpoints.store import TRACKER, Checkpoints, read
from golongrl.learner.weights.store import MANIFEST
from support.checkpoints import latest
from support.learner_run import FIRST_ROWS, LearnerRun, learner_run, small_recipe

STEPS = [1, 2, 3, 4]

# A learner starts in 15 s alone on two cores, in minutes beside other tests; some of these start four.
pytestmark = pytest.mark.timeout(1800)


def _steps(run: LearnerRun) -> list[int]:
    return [record["training/global_step"] for record in run.records]


@pytest.mark.full  # `make test` resumes a whole run (integration/test_train)
@pytest.mark.parametrize("mid_write", [False, True])
async def test_killed_and_resumed_gives_the_same_weights_to_the_bit(
    mid_write: bool, tiny_model: Path, tmp_path: Path
) -> None:
    """Straight: four steps. Killed: SIGKILL at version 3, with `mid_write` as checkpoint 2 is being written too; the
    steps after the last complete checkpoint are replayed from the queue. That it may resume nothing says how it
    begins."""
    recipe = small_recipe(tiny_model, "learner.keep_weights=5", "queue.max_staleness=0")
    async with learner_run(tmp_path / "straight", recipe) as straight:
        assert await straight.ended() == 0, straight.log[-4000:]
        stats = await straight.queue().stats()
    assert _steps(straight) == STEPS
    assert (stats.version, stats.committed, stats.trained) == (4, 4, 12)
    assert stats.stopped is not None
    assert stats.stopped.reason == "complete"
    _has_a_loadable_result(straight)
    _logged_what_is_promised(straight)

    fresh = recipe.model_copy(update={"learner": recipe.learner.model_copy(update={"resume": "never"})})
    async with learner_run(tmp_path / "killed", fresh) as killed:
        checkpoints = killed.root / "checkpoints"
        # However late the kills come: before version 3 is published and before there is another.
        killed.feeds_below = 3
        if mid_write:
            # While it is being written, or, where that was over between two looks, just after. (Path.glob raises where
            # the folder is renamed meanwhile.)
            writing = str(checkpoints / "global_step_2.*.tmp" / "actor" / "*.pt")
            await killed.until(lambda: glob.glob(writing) or (checkpoints / TRACKER).exists())
            killed.kill(signal.SIGKILL)
            await killed.ended()
            _has_all_or_nothing_of(checkpoints, (await killed.queue().stats()).committed)
            killed.start()
        # Published beside the step after it.
        await killed.until((killed.root / "weights" / "v3" / MANIFEST).exists)
        killed.kill(signal.SIGKILL)
        await killed.ended()
        _has_all_or_nothing_of(checkpoints, (await killed.queue().stats()).committed)
        before = killed.checksum(3)
        killed.feeds_below = None
        killed.start()
        assert await killed.ended() == 0, killed.log[-4000:]
        stats = await killed.queue().stats()
    assert _steps(killed) == STEPS
    assert killed.records[2]["batch/replayed"] == 1
    assert stats.trained == 12
    assert before == killed.checksum(3)
    assert [killed.checksum(v) for v in range(5)] == [straight.checksum(v) for v in range(5)]
    assert max(record["staleness/max"] for record in killed.records) == 0


def _has_all_or_nothing_of(checkpoints: Path, committed: int) -> None:
    """The checkpoint that the queue relies on is there; what the tracker names is complete."""
    found = latest(Checkpoints(checkpoints))
    assert (found.state.step if found else 0) >= committed
    if found:
        for kind in ("model", "optim", "extra_state"):
            torch.load(found.actor / f"{kind}_world_size_1_rank_0.pt", weights_only=False)


def _has_a_loadable_result(run: LearnerRun) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(run.root / "hf")
    tokenizer = AutoTokenizer.from_pretrained(run.root / "hf")
    initial = AutoModelForCausalLM.from_pretrained(run.recipe.model.path)
    assert tokenizer.eos_token == "<|im_end|>"
    changed = [not torch.equal(a, b) for a, b in zip(model.parameters(), initial.parameters(), strict=True)]
    assert all(changed)


def _logged_what_is_promised(run: LearnerRun) -> None:
    record = run.records[-1]
    for name in (
        "actor/pg_loss", "actor/pg_clipfrac", "actor/ppo_kl", "actor/entropy_loss", "actor/grad_norm", "actor/lr",
        "critic/score/mean", "critic/rewards/max", "critic/advantages/min", "rollout_corr/rollout_is_mean",
        "perf/throughput", "timing_s/step", "timing_s/take", "timing_s/update_actor", "timing_s/update_weights",
        "staleness/mean", "queue/ready", "difficulty/mean_pass_rate", "task_metrics/EM/mean_reward",
        "task_metrics/NDCG/std_reward", "task_metrics/F1_Score/rate_adv",
    ):  # fmt: skip
        assert name in record, name
    phases = sum(v for k, v in record.items() if k.startswith("timing_s/") and k != "timing_s/step")
    assert phases <= record["timing_s/step"] * 1.01
    assert [r["training/global_step"] for r in run.records if "timing_s/save_checkpoint" in r] == [2, 4]
    assert any("perf/checkpoint_write_s" in r for r in run.records[1:])
    assert list((run.root / "tensorboard").glob("events*"))
    assert (run.root / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "4"
    assert sorted(p.name for p in (run.root / "checkpoints").glob("global_step_*")) == [
        "global_step_2",
        "global_step_4",
    ]


@pytest.mark.full
async def test_a_queue_that_lost_everything_begins_again_at_the_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    """Redis' volume is gone: what was committed is not trained again, what was not is, and every row once."""
    recipe = small_recipe(tiny_model, "data.epochs=2", "learner.steps=null")
    async with learner_run(tmp_path / "run", recipe) as run:
        run.feeds_below = 3
        await run.until(lambda: (run.root / "checkpoints" / TRACKER).exists() and len(run.records) == 3)
        async with run.queue() as queue:
            before = await queue.weights()
            run.kill(signal.SIGKILL)
            await run.ended()
            await queue._connection.client.flushall()
        run.feeds_below = None
        run.start()
        assert await run.ended() == 0, run.log[-4000:]
        async with run.queue() as queue:
            stats, after = await queue.stats(), await queue.weights()
    assert _steps(run) == [1, 2, 3, 4, 5, 6]
    assert (stats.version, stats.committed, stats.trained) == (6, 6, 4 * recipe.queue.groups_per_step)
    checkpoints = Checkpoints(run.root / "checkpoints")
    latest = checkpoints.latest()
    assert latest is not None
    last = read(checkpoints.folder(latest))
    assert sorted(map(tuple, last.rows.tolist())) == [(epoch, row) for epoch in range(2) for row in range(9)]
    assert before is not None
    assert after is not None
    assert after.lineage != before.lineage, "an engine may hold version 3 of the lost history"
    assert max(record["staleness/max"] for record in run.records) <= recipe.queue.max_staleness


@pytest.mark.full
async def test_a_damaged_checkpoint_costs_its_steps_and_not_the_run(tiny_model: Path, tmp_path: Path) -> None:
    """Checkpoint 4 is committed, then damaged: steps 3 and 4 are trained again, with other settings, on every row."""
    recipe = small_recipe(tiny_model, "data.epochs=2", "learner.steps=null")
    async with learner_run(tmp_path / "run", recipe) as run:
        run.feeds_below = 4
        checkpoints = Checkpoints(run.root / "checkpoints")
        await run.until(lambda: (run.root / "checkpoints" / TRACKER).exists() and checkpoints.latest() == 4)
        run.kill(signal.SIGKILL)
        await run.ended()
        optimizer = checkpoints.folder(4) / "actor" / "optim_world_size_1_rank_0.pt"
        optimizer.write_bytes(optimizer.read_bytes()[:-100])
        run.feeds_below = None
        run.recipe = recipe.model_copy(update={"learner": recipe.learner.model_copy(update={"lr": 0.001})})
        run.start()
        assert await run.ended() == 0, run.log[-4000:]
        async with run.queue() as queue:
            stats = await queue.stats()
    assert "optim_world_size_1_rank_0.pt has" in run.log
    assert f"resuming {checkpoints.folder(2)} (step 2), the steps after it are trained again" in run.log
    assert "learner.lr 0.003 -> 0.001" in run.log
    assert _steps(run) == [1, 2, 3, 4, 5, 6]
    assert [record["actor/lr"] for record in run.records] == [0.003] * 2 + [0.001] * 4
    last = latest(checkpoints)
    assert last is not None
    assert sorted(map(tuple, last.rows.tolist())) == [(epoch, row) for epoch in range(2) for row in range(9)]
    assert (stats.version, stats.committed) == (6, 6)


@pytest.mark.full
@pytest.mark.parametrize("weights", ["disk", "broadcast"])
async def test_killed_after_the_last_step_it_ends_all_the_same(weights: str, tiny_model: Path, tmp_path: Path) -> None:
    """Between the last checkpoint and the export nothing is left to train."""
    recipe = small_recipe(tiny_model, "learner.steps=1", "learner.checkpoint_every=1", f"learner.weights={weights}")
    async with learner_run(tmp_path / "run", recipe) as run:
        run.validates.set()
        await run.until(lambda: (run.root / "checkpoints" / TRACKER).exists())
        run.kill(signal.SIGKILL)
        await run.ended()
        shutil.rmtree(run.root / "hf", ignore_errors=True)
        run.start()
        assert await run.ended() == 0, run.log[-4000:]
        stats = await run.queue().stats()
    assert _steps(run) == [1]
    assert stats.stopped is not None
    assert stats.stopped.reason == "complete"
    _has_a_loadable_result(run)


@pytest.mark.full
async def test_a_dead_rank_fails_the_job_with_one_line(tiny_model: Path, tmp_path: Path) -> None:
    """And a later start goes on; SIGTERM then ends it in order, with a checkpoint of the step in hand."""
    recipe = small_recipe(tiny_model, "learner.steps=1000", "learner.checkpoint_every=1000", "data.epochs=400")
    async with learner_run(tmp_path / "run", recipe) as run:
        await run.until(lambda: len(run.records) >= 2)
        run.kill_ranks()
        assert await run.ended() == 1
        assert "error: learner rank died in" in run.log
        run.start()
        await run.until(lambda: len(run.records) >= 4)
        run.kill(signal.SIGTERM)
        assert await run.ended() == 143, run.log[-4000:]
        stats = await run.queue().stats()
        assert _steps(run) == list(range(1, stats.version + 1))
        assert stats.committed == stats.version
        tracker = run.root / "checkpoints" / "latest_checkpointed_iteration.txt"
        assert tracker.read_text() == str(stats.version)
    assert run.log.rstrip().splitlines()[-1] == (
        f"error: stopped by a signal after step {stats.version}; the next start resumes the run"
    )


@pytest.mark.full
async def test_a_signal_before_the_first_step_is_no_end_of_the_run(tiny_model: Path, tmp_path: Path) -> None:
    async with learner_run(tmp_path / "run", small_recipe(tiny_model)) as run:
        await run.until((run.root / "weights" / "v0" / MANIFEST).exists)
        run.kill(signal.SIGTERM)
        assert await run.ended() == 143, run.log[-4000:]
        assert run.log.rstrip().splitlines()[-1] == (
            "error: stopped by a signal before training began; the next start resumes the run"
        )
        assert (await run.queue().stats()).stopped is None


@pytest.mark.full
async def test_a_checkpoint_that_cannot_be_written_fails_the_run(tiny_model: Path, tmp_path: Path) -> None:
    """A full disk, as far as a rank can tell: its files may not grow to the size of the optimizer's state."""
    recipe = small_recipe(tiny_model, "learner.steps=1000", "learner.checkpoint_every=3", "data.epochs=400")
    async with learner_run(tmp_path / "run", recipe) as run:
        await run.until(lambda: len(run.records) >= 1)
        weights = (run.root / "weights" / "v0" / "model.safetensors").stat().st_size
        for rank in run.ranks():
            rank.rlimit(psutil.RLIMIT_FSIZE, (weights + weights // 2, weights + weights // 2))
        assert await run.ended() == 1
        last = run.log.rstrip().splitlines()[-1]
        assert last.startswith("error: checkpoint file ")
        assert last.endswith("optim_world_size_1_rank_0.pt could not be written: [Errno 27] File too large")
        assert Checkpoints(run.root / "checkpoints").latest() is None
        assert (await run.queue().stats()).committed == 0
        run.start()
        await run.until(lambda: (run.root / "checkpoints" / TRACKER).exists())


@pytest.mark.full
async def test_a_full_queue_gets_the_checkpoint_it_needs(tiny_model: Path, tmp_path: Path) -> None:
    """Three steps fill the budget, no checkpoint is due: without an early one nothing would ever be leased again."""
    recipe = small_recipe(tiny_model, "learner.steps=12", "learner.checkpoint_every=1000", "queue.max_bytes=9000")
    async with learner_run(tmp_path / "run", recipe) as run:
        assert await run.ended() == 0, run.log[-4000:]
        stats = await run.queue().stats()
    assert _steps(run) == list(range(1, 13))
    assert stats.committed == 12
    assert "the queue's budget is full" in run.log


@pytest.mark.full
async def test_a_rank_that_dies_while_nothing_is_asked_of_it_is_noticed(tiny_model: Path, tmp_path: Path) -> None:
    """The learner waits for a validation that nobody answers."""
    recipe = small_recipe(tiny_model, "learner.test_freq=1", "learner.validation_deadline_s=600")
    async with learner_run(tmp_path / "run", recipe) as run:
        await run.until(lambda: len([version for version, _ in run.validated if version == 1]) == FIRST_ROWS)
        run.kill_ranks()
        assert await run.ended() == 1
        assert "error: learner rank died in watch" in run.log


@pytest.mark.full
async def test_two_ranks_resume_to_the_bit(tiny_model: Path, tmp_path: Path) -> None:
    recipe = small_recipe(tiny_model, "learner.ranks=2", "learner.keep_weights=5", "queue.max_staleness=0")
    async with learner_run(tmp_path / "straight", recipe) as straight:
        assert await straight.ended() == 0, straight.log[-4000:]
    async with learner_run(tmp_path / "killed", recipe) as killed:
        await killed.until(lambda: len(killed.records) == 3)
        killed.kill(signal.SIGKILL)
        await killed.ended()
        killed.start()
        assert await killed.ended() == 0, killed.log[-4000:]
    assert [killed.checksum(v) for v in range(5)] == [straight.checksum(v) for v in range(5)]
