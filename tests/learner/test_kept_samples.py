"""What a run keeps of its batches as text: few groups, short, the same after a resume, and never a reason to end."""

import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.learner.observe import samples
from golongrl.learner.observe.samples import ADVANTAGE_EDGES, KeptSamples, choose, describe, shortened, spread
from golongrl.queue import Batch, Group
from golongrl.recipe import Recipe, load
from golongrl.telemetry import journal
from support.groups import response

RECIPE = load("quickstart", ["telemetry.samples=4"])


def group(row: int, rewards: Sequence[float | None], task: str = "T1", prompt: int = 8) -> Group:
    answers = tuple(response(4, 3, reward) for reward in rewards)
    ids = np.arange(prompt, dtype=np.int32)
    return Group(f"0-{row}", row, 0, task, "F1", "F1", "qa", ids, answers, "rollout-0", 3)


def decode(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


@given(
    st.lists(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=5), max_size=12),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_the_worst_and_the_best_come_first_and_a_replay_keeps_the_same(
    rewards: list[list[float | None]], count: int, step: int
) -> None:
    groups = [group(row, each) for row, each in enumerate(rewards)]
    chosen = choose(groups, count, 7, step)
    assert chosen == choose(groups[::-1], count, 7, step)
    assert len(chosen) == min(count, len(groups))
    assert len({each.uid for _, each in chosen}) == len(chosen)
    means = {each.uid: rate for each in groups if (rate := samples.mean_reward(each)) is not None}
    for why, each in chosen:
        if why == "worst":
            assert means[each.uid] == min(means.values())
        if why == "best":
            assert means[each.uid] == max(means.values())


@given(st.integers(0, 9000), st.integers(10, 3000))
def test_a_text_is_shortened_in_its_middle_and_a_long_prompt_is_not_decoded_whole(tokens: int, most: int) -> None:
    asked: list[int] = []

    def counted(ids: Sequence[int]) -> str:
        asked.append(len(ids))
        return decode(ids)

    ids = list(range(tokens))
    text = shortened(ids, counted, most)
    assert len(text) <= most + len("\n[... shortened ...]\n")
    assert sum(asked) <= 4000
    assert text.startswith(decode(ids)[: most // 2])
    if "shortened" not in text:
        assert text == decode(ids)


def test_a_group_shows_its_rewards_versions_and_unscored_answers() -> None:
    kept = describe(4, "worst", group(1, [1.0, None, 0.5, 0.25, 0.0, 0.75]), decode)
    assert [each["reward"] for each in kept["responses"]] == [None, 0.25, 0.5, 1.0]
    assert (kept["of"], kept["responses"][0]["reason"]) == (6, "deadline")
    assert kept["responses"][1]["versions"] == [[3, 0, 4]]
    assert kept["prompt"] == "0 1 2 3 4 5 6 7"


def test_the_spread_counts_every_group_and_every_advantage() -> None:
    batch = Batch(5, (group(0, [0.0, 1.0]), group(1, [1.0, 1.0], "T2"), group(2, [None])), replayed=False)
    found = spread(batch, [-9.0, 0.1, 9.0])
    assert sum(found["pass_rates"]) == 2
    assert found["pass_rates"][-1] == 1
    assert len(found["advantages"]) == len(ADVANTAGE_EDGES) - 1
    assert (found["advantages"][0], found["advantages"][-1]) == (1, 1)
    assert found["tasks"] == {"T1": [0.1, 0.5, 0.9], "T2": [1.0, 1.0, 1.0]}
    assert spread(Batch(6, (), replayed=False), [])["pass_rates"] == [0] * 10


def keep(out: Path, resume_at: int, steps: Sequence[int], recipe: Recipe = RECIPE) -> None:
    log = KeptSamples(recipe, out, resume_at, decode)
    for step in steps:
        log.write(log.make(Batch(step, (group(step, [0.0, 1.0]),), replayed=False), [0.5, -0.5]))


def test_a_resumed_run_repeats_no_step(tmp_path: Path) -> None:
    keep(tmp_path, 0, [1, 2, 3])
    keep(tmp_path, 1, [2, 3, 4])
    lines = [(line["step"], line["kind"]) for line in journal.read(tmp_path / samples.FILE)]
    assert lines == [(step, kind) for step in (1, 2, 3, 4) for kind in ("batch", "group")]
    assert stat.S_IMODE((tmp_path / samples.FILE).stat().st_mode) == 0o600


def test_without_samples_no_text_is_kept(tmp_path: Path) -> None:
    assert KeptSamples.of(load("quickstart", ["telemetry.samples=0"]), tmp_path, 0, tmp_path) is None
    assert KeptSamples.of(RECIPE, tmp_path, 0, tmp_path) is None  # the folder has no tokenizer
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / samples.FILE).mkdir()
    keep(tmp_path, 0, [1, 2])
    assert capsys.readouterr().out.count("samples cannot be written") == 1
