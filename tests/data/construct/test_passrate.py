"""The pass rate: the driver on a real queue, rounds of rollouts, the stage, and a pool of real engines."""

import asyncio
import glob
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.generate_models import PassrateModel
from golongrl.data.construct.passrate import rewards
from golongrl.data.construct.passrate.driver import DriverConfig, drive, rows_of
from golongrl.data.construct.passrate.pools import run_name as run_name_of
from golongrl.data.construct.passrate.rewards import GroupRewards
from golongrl.data.construct.passrate.rollouts import ENDED, PROMPTS, REWARDS, Rollouts, recipe_of
from golongrl.data.construct.passrate.stage import PassrateStage
from golongrl.data.construct.passrate.tally import Tally, decide, needs_large
from golongrl.data.construct.tables import Tables
from golongrl.data.models import resolve
from golongrl.data.pipeline import prepare
from golongrl.data.prepared import open_splits
from golongrl.queue import Lease, RejectReason, SampleQueue, Stopped
from golongrl.queue.errors import NotSetUpError
from golongrl.recipe import Recipe
from support.constructed import pipeline, run_alone, write_sources_and_slots, write_table
from support.groups import group_for

ALL = ("easy", "medium", "hard")
MODEL = PassrateModel(
    path="builtin:quickstart", dtype="float32", context_length=512, max_response_tokens=16, concurrent_groups=2
)
CONTEXT = "The harbour office opened in 1871 and kept a register."


def row(sample: str, question: str = "When did it open?") -> dict[str, object]:
    return {
        "data_source": "EM",
        "prompt": [{"role": "user", "content": f"{CONTEXT}\n{question} {sample}"}],
        "ability": "precise long-range information retrieval",
        "reward_model": {"ground_truth": {"golden_label": "1871", "doc_ids": [], "summary": "English"}},
        "extra_info": {"reward_mode": "EM", "question": question, "sample_id": sample},
    }


# -- what the rewards add up to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("small", "large", "keep", "band", "reason"),
    [
        ([1.0] * 8, None, ALL, "easy", None),
        ([1.0] * 6 + [0.0] * 2, None, ALL, "medium", None),
        ([1.0] * 3 + [0.0] * 5, None, ALL, None, "not solved by the small model"),
        ([0.0] * 8, [1.0] * 8, ALL, "medium", None),
        ([0.0] * 8, [1.0] * 3 + [0.0] * 5, ALL, "hard", None),
        ([0.0] * 8, [1.0] + [0.0] * 7, ALL, None, "solved too rarely"),
        ([1.0] * 8, None, ("medium", "hard"), None, "band easy"),
        ([1.0] * 5 + [None] * 3, None, ALL, None, "unscored"),
        ([0.0] * 8, [1.0] * 7 + [None], ALL, None, "unscored"),
        ([0.49] * 8, None, ALL, None, "not solved by the small model"),
        ([0.5] * 8, None, ALL, "easy", None),
    ],
)
def test_a_sample_gets_its_band_or_a_reason(small, large, keep, band, reason):
    def tally(values):
        made = Tally()
        made.add(values)
        return made

    decision = decide(tally(small), None if large is None else tally(large), 0.5, keep)
    assert (decision.band, decision.reason) == (band, reason)
    assert decision.by_large == (large is not None)


@given(st.lists(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8), max_size=6))
def test_a_tally_takes_scored_rewards_in_their_order_and_no_more_than_it_needs(groups):
    tally = Tally()
    for group in groups:
        tally.add(group)
    scored = [reward for group in groups for reward in group if reward is not None]
    assert tally.rewards == scored[:8]
    assert tally.missing == 8 - len(scored[:8])
    assert (tally.mean is None) == (not scored)


def test_only_samples_that_the_small_model_does_not_solve_go_to_the_large_one():
    tallies = {"a": Tally([1.0] * 8), "b": Tally([0.0] * 8), "c": Tally([0.0] * 7)}
    assert needs_large(tallies, dict.fromkeys(tallies, 0.5)) == ["b"]


def test_rewards_are_read_without_a_gap_and_a_damaged_file_is_named(tmp_path):
    groups = [GroupRewards(3, (1.0, None)), GroupRewards(0, (0.25,))]
    rewards.write(tmp_path, 1, groups)
    rewards.write(tmp_path, 3, groups)
    assert list(rewards.read(tmp_path)) == [(1, groups)]
    rewards.path_of(tmp_path, 2).write_text("[{", "utf-8")
    with pytest.raises(PipelineError, match=r"rewards-000002\.json.*delete it"):
        list(rewards.read(tmp_path))


def test_the_pools_recipe_hands_in_every_group():
    recipe = recipe_of(MODEL, Path("p.jsonl"), 4, 7)
    assert (recipe.rollout.n, recipe.rollout.group_filter, recipe.rollout.min_scored) == (8, False, 1)
    assert (recipe.reward.mode, recipe.seed, recipe.data.max_prompt_tokens) == ("strict", 7, 496)
    with pytest.raises(PipelineError, match="has to exceed max_response_tokens"):
        recipe_of(MODEL.model_copy(update={"context_length": 16}), Path("p.jsonl"), 4, 7)


# -- the driver, on a real queue ---------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Recipe, Path]:
    """A recipe of four prompts a batch, and ten prepared prompts."""
    prompts = tmp_path / PROMPTS
    prompts.write_text("".join(json.dumps(row(f"s{number}")) + "\n" for number in range(10)), "utf-8")
    recipe = recipe_of(MODEL, prompts, 4, 7)
    prepare(recipe, tmp_path / "data", resolve(MODEL.path))
    return recipe, tmp_path / "data"


async def works(queue: SampleQueue, rewards_of: Callable[[int], Sequence[float | None] | None], most: int) -> int:
    """Lease and hand in up to `most` groups, as a worker does; None rejects the row."""
    done = 0
    while done < most:
        try:
            if await queue.weights() is None:
                raise NotSetUpError("not yet")
            lease = await queue.lease("w", 0)
        except NotSetUpError:
            await asyncio.sleep(0.02)
            continue
        if isinstance(lease, Stopped):
            break
        if not isinstance(lease, Lease):
            await asyncio.sleep(0.02)
            continue
        given = rewards_of(lease.row)
        if given is None:
            await queue.reject(lease, RejectReason.FEW_SCORED)
        else:
            await queue.submit(lease, group_for(lease, rewards=given))
        done += 1
    return done


def config_of(url: str, run: str, data: Path, out: Path) -> DriverConfig:
    return DriverConfig(run, url, data, resolve(MODEL.path), out)


async def test_every_prompt_is_rolled_out_once_and_its_rewards_are_kept(redis_url, run_name, prepared, tmp_path):
    recipe, data = prepared
    out = tmp_path / "rewards"
    given = {number: (number / 10, None, 1.0) for number in range(10)}
    async with SampleQueue.from_url(redis_url, run_name) as queue, asyncio.TaskGroup() as group:
        group.create_task(drive(recipe, config_of(redis_url, run_name, data, out)))
        # Row 6 has no score at all: the worker rejects it, and nothing is written for it.
        group.create_task(works(queue, lambda number: None if number == 6 else given[number], 10))
    found = {one.row: one.rewards for _, groups in rewards.read(out) for one in groups}
    assert found == {number: given[number] for number in range(10) if number != 6}
    assert [len(groups) for _, groups in rewards.read(out)] == [4, 4, 1]
    names = rows_of(open_splits(data)[0])
    assert names == [f"s{number}" for number in range(10)]


@pytest.mark.parametrize("lost", [False, True], ids=["the queue is there", "the queue is lost"])
async def test_a_driver_that_was_killed_takes_up_where_it_was(redis_url, run_name, prepared, tmp_path, lost):
    recipe, data = prepared
    out, config = tmp_path / "rewards", config_of(redis_url, run_name, data, tmp_path / "rewards")
    dealt: list[int] = []

    def given(number: int) -> Sequence[float]:
        dealt.append(number)
        return (1.0,)

    async with SampleQueue.from_url(redis_url, run_name) as queue:
        first = asyncio.create_task(drive(recipe, config))
        await works(queue, given, 6)  # one batch of four, and two groups that wait
        while not rewards.path_of(out, 1).exists():
            await asyncio.sleep(0.02)
        first.cancel()
        await asyncio.wait({first})
        if lost:
            await queue.forget()
        async with asyncio.TaskGroup() as group:
            group.create_task(drive(recipe, config))
            group.create_task(works(queue, given, 6 if lost else 4))
    assert sorted(one.row for _, groups in rewards.read(out) for one in groups) == list(range(10))
    # What was in the queue is not computed again; what a lost queue held is, but not what was written.
    assert len(dealt) == (12 if lost else 10)


async def test_a_driver_that_dies_between_the_file_and_finish_writes_the_same_file_again(
    redis_url, run_name, prepared, tmp_path, monkeypatch
):
    recipe, data = prepared
    config = config_of(redis_url, run_name, data, tmp_path / "rewards")
    finish = SampleQueue.finish

    async def dies(queue: SampleQueue, fence: str, step: int) -> None:
        if step == 2 and not died:
            died.append(rewards.path_of(config.out, 2).read_bytes())
            raise PipelineError("killed here")
        await finish(queue, fence, step)

    died: list[bytes] = []
    monkeypatch.setattr(SampleQueue, "finish", dies)
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        worker = asyncio.create_task(works(queue, lambda number: (number / 10,), 10))
        with pytest.raises(PipelineError, match="killed here"):
            await drive(recipe, config)
        await drive(recipe, config)
        await worker
    assert rewards.path_of(config.out, 2).read_bytes() == died[0]
    assert sorted(one.row for _, groups in rewards.read(config.out) for one in groups) == list(range(10))


# -- rounds ------------------------------------------------------------------------------------------------------------


class FakePool:
    """Writes rewards as a pool's driver would; `script(sample, round)` gives them, None gives no group."""

    def __init__(self, script: Callable[[str, int], Sequence[float | None] | None]) -> None:
        self.script = script
        self.rounds: list[list[str]] = []
        self.seeds: list[int] = []
        self.dies_after: int | None = None

    def __call__(self, recipe: Recipe, place: Path, model: Path) -> None:
        names = rows_of(open_splits(place / "data")[0])
        known = {one.row for _, groups in rewards.read(place / REWARDS) for one in groups}
        step = len(list(rewards.read(place / REWARDS)))
        self.rounds.append(list(names))
        self.seeds.append(recipe.seed)
        number = int(place.name.split("-")[1])
        for index, name in enumerate(names):
            if index in known:
                continue
            if self.dies_after is not None and step == self.dies_after:
                raise PipelineError("the pool died")
            given = self.script(name, number)
            if given is not None:
                step += 1
                rewards.write(place / REWARDS, step, [GroupRewards(index, tuple(given))])


def rollouts(tmp_path: Path, pool: FakePool, repeats: int = 2) -> Rollouts:
    return Rollouts(tmp_path / "rollouts", MODEL, 4, 100, repeats, pool, row)


def test_unscored_rollouts_are_repeated_with_another_seed_and_never_failures(tmp_path):
    def script(sample: str, number: int) -> Sequence[float | None] | None:
        if sample == "whole":
            return [1.0] * 8
        if sample == "never":
            return None
        return [1.0] * 5 + [None] * 3 if number == 0 else [0.0] * 8

    pool = FakePool(script)
    tallies = rollouts(tmp_path, pool).tallies(["whole", "part", "never"])
    assert pool.rounds == [["whole", "part", "never"], ["part", "never"], ["never"]]
    assert pool.seeds == [100, 101, 102]
    assert tallies["whole"].rewards == [1.0] * 8
    assert tallies["part"].rewards == [1.0] * 5 + [0.0] * 3
    assert tallies["never"].missing == 8
    # All of it is known now: nothing is rolled out again for what is complete.
    assert rollouts(tmp_path, pool).tallies(["whole", "part"]) == {key: tallies[key] for key in ("whole", "part")}
    assert len(pool.rounds) == 3


def test_a_round_that_died_is_resumed_in_its_folder(tmp_path):
    pool = FakePool(lambda sample, number: [1.0] * 8)
    pool.dies_after = 2
    with pytest.raises(PipelineError, match="the pool died"):
        rollouts(tmp_path, pool).tallies(["a", "b", "c", "d"])
    pool.dies_after = None
    tallies = rollouts(tmp_path, pool).tallies(["a", "b", "c", "d"])
    assert not any(tally.missing for tally in tallies.values())
    (place,) = (tmp_path / "rollouts").glob("round-*")
    assert (place / ENDED).exists()
    assert pool.seeds == [100, 100]


def test_a_prompt_that_is_too_long_has_no_rewards_and_hides_no_other(tmp_path):
    def long_row(sample: str) -> dict[str, object]:
        return row(sample, "why " * 2000) if sample.startswith("long") else row(sample)

    pool = FakePool(lambda sample, number: [1.0] * 8)
    made = Rollouts(tmp_path / "rollouts", MODEL, 4, 100, 1, pool, long_row)
    tallies = made.tallies(["long", "short"])
    assert (tallies["long"].missing, tallies["short"].missing) == (8, 0)
    assert pool.rounds == [["short"]]
    assert made.left_out() == {"long"}
    assert made.tallies(["long", "short"]) == tallies
    only = Rollouts(tmp_path / "only", MODEL, 4, 100, 1, pool, long_row)
    assert only.tallies(["long"])["long"].missing == 8
    assert only.left_out() == {"long"}
    assert len(pool.rounds) == 1


def test_a_sample_that_could_not_be_dealt_says_so():
    assert decide(Tally(), None, 0.5, ALL, dealt=False).reason == "not rolled out"
    assert decide(Tally([0.0] * 8), Tally(), 0.5, ALL, dealt=False).reason == "not rolled out"
    assert decide(Tally([1.0] * 8), None, 0.5, ALL, dealt=False).band == "easy"


# -- the stage ---------------------------------------------------------------------------------------------------------


def sample(number: int, **changes: object) -> dict[str, object]:
    return {
        "slot_id": "select-0", "task": "T1", "length_bin": "short", "lang": "English", "doc_ids": ["d"],
        "source": "harbour", "data_source": "EM", "reward_mode": "EM", "question": f"When did it open, case {number}?",
        "answer": "1871", "golds": [], "evidence": [CONTEXT], "context": CONTEXT, "generator": "next-sentence",
        "prompt_sha": None, **changes,
    }  # fmt: skip


def stage_of(tmp_path: Path, run: object = None, **passrate: object) -> tuple[PassrateStage, Tables]:
    settings = {
        "small": MODEL.model_dump(mode="json"), "batch": 2, **passrate,
    }  # fmt: skip
    made = pipeline(tmp_path, passrate=settings)
    tables = Tables(tmp_path / "out", made)
    assert made.passrate is not None
    return PassrateStage(made, tables, made.passrate, run), tables  # type: ignore[arg-type]


def test_bands_are_columns_and_the_large_model_gets_what_the_small_one_leaves(tmp_path):
    write_table(tmp_path / "out", "generate", [sample(number) for number in range(4)])
    passes = {"generate-0": 8, "generate-1": 5, "generate-2": 0, "generate-3": 1}
    asked: list[tuple[int, list[str]]] = []

    def run(recipe: Recipe, place: Path, model: Path) -> None:
        names = rows_of(open_splits(place / "data")[0])
        large = recipe.rollout.max_response_tokens == 32
        asked.append((recipe.rollout.max_response_tokens, list(names)))
        for index, name in enumerate(names):
            right = (4 if name == "generate-2" else 0) if large else passes[name]
            rewards.write(place / REWARDS, index + 1, [GroupRewards(index, (1.0,) * right + (0.0,) * (8 - right))])

    large = {**MODEL.model_dump(mode="json"), "max_response_tokens": 32}
    stage, tables = stage_of(tmp_path, run, large=large)
    assert stage.forecast(4, None).lines[0].startswith("4 x 8 rollouts of builtin:quickstart, and up to as many")
    manifest, rows = run_alone(stage, tables)
    assert asked == [(16, list(passes)), (32, ["generate-2", "generate-3"])]
    assert [one["band"] for one in rows] == ["easy", "medium", "hard", None]
    assert [one["passed"] for one in rows] == [8, 5, 4, 0]
    assert [one["mean_reward"] for one in rows] == [1.0, 0.625, 0.5, 0.0]
    assert dict(manifest.refused) == {"solved too rarely": 1}
    assert manifest.kept + sum(manifest.refused.values()) == manifest.rows_in == 4
    # Lost tables are made again from the rollouts on disk.
    for path in tables.table("passrate").shards():
        path.unlink()
    assert run_alone(stage, tables)[1] == rows
    assert len(asked) == 2


def test_a_threshold_is_the_tasks(tmp_path):
    write_table(tmp_path / "out", "generate", [sample(0)])

    def run(recipe: Recipe, place: Path, model: Path) -> None:
        rewards.write(place / REWARDS, 1, [GroupRewards(0, (0.4,) * 8)])

    stage, tables = stage_of(tmp_path, run)
    assert run_alone(stage, tables)[1][0]["reason"] == "not solved by the small model"
    stage, tables = stage_of(tmp_path, run, thresholds={"T1": 0.3})
    assert run_alone(stage, tables)[1][0]["band"] == "easy"


def test_workers_elsewhere_serve_the_stage_through_a_shared_redis(redis_url, tmp_path, capsys):
    write_table(tmp_path / "out", "generate", [sample(number) for number in range(3)])
    stage, tables = stage_of(tmp_path, pool={"redis_url": redis_url})

    async def worker() -> None:
        places: list[Path] = []
        while not places:
            # Path.glob raises where a folder is renamed meanwhile.
            found = glob.glob(str(tmp_path / "out" / "passrate/rollouts/*/round-*/recipe.yaml"))
            places = [Path(path).parent for path in found]
            await asyncio.sleep(0.05)
        async with SampleQueue.from_url(redis_url, run_name_of(places[0])) as queue:
            await works(queue, lambda number: (1.0,) * 8, 3)

    thread = threading.Thread(target=asyncio.run, args=(worker(),))
    thread.start()
    try:
        _, rows = run_alone(stage, tables)
    finally:
        thread.join()
    assert [one["band"] for one in rows] == ["easy"] * 3
    assert "waiting for workers: golongrl data worker --board" in capsys.readouterr().out


# -- with real engines -------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_pool_of_real_engines_is_killed_and_completes_on_a_rerun(tmp_path):
    write_sources_and_slots(tmp_path / "out", ["T1"])
    write_table(tmp_path / "out", "generate", [sample(number) for number in range(12)])
    stage_of(tmp_path, pool={"engines": 2})  # writes the pipeline's file
    program = (
        "import sys; from pathlib import Path\n"
        "from support.constructed import run_alone\n"
        "from golongrl.data.construct.load import load\n"
        "from golongrl.data.construct.tables import Tables\n"
        "from golongrl.data.construct.passrate.stage import PassrateStage\n"
        "made = load(sys.argv[1]); tables = Tables(Path(sys.argv[2]), made)\n"
        "run_alone(PassrateStage(made, tables, made.passrate), tables)\n"
    )
    tests = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    arguments = [sys.executable, "-c", program, str(tmp_path / "pipeline-under-test.yaml"), str(tmp_path / "out")]
    child = os.posix_spawn(sys.executable, arguments, environment)
    folder = tmp_path / "out" / "passrate" / "rollouts"
    while not (written := glob.glob(str(folder / "small-*/round-*/rewards/rewards-*.json"))):
        ended, _ = os.waitpid(child, os.WNOHANG)
        assert not ended, "it ended before it wrote rewards"
        time.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    before = {path: path.read_bytes() for path in map(Path, written)}
    stage, tables = stage_of(tmp_path, pool={"engines": 2})
    manifest, rows = run_alone(stage, tables)
    assert {path: path.read_bytes() for path in before} == before
    assert [one["rollouts"] for one in rows] == [8] * 12
    assert manifest.kept + sum(manifest.refused.values()) == 12
    assert len(list(folder.glob("small-*/round-*"))) == 1
    found = [one for place in folder.glob("small-*/round-*/rewards") for _, some in rewards.read(place) for one in some]
    assert sorted(one.row for one in found) == list(range(12))
