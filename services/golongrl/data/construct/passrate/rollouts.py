"""Rollouts of samples by one model: rounds of a pool until every rollout has a reward, at most so many times.

Invariants: what a pool has written counts, whatever became of the process that ran it; a round that was not ended is
resumed where it is, so that what its queue holds is not computed again; a repeat samples with another seed.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from golongrl import files
from golongrl.data.construct.bands import ROLLOUTS
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.generate_models import PassrateModel
from golongrl.data.construct.keys import digest
from golongrl.data.construct.passrate import rewards
from golongrl.data.construct.passrate.driver import rows_of
from golongrl.data.construct.passrate.tally import Tally
from golongrl.data.errors import NoRowsError
from golongrl.data.models import resolve
from golongrl.data.pipeline import prepare
from golongrl.data.prepared import open_splits
from golongrl.json_files import read_json
from golongrl.recipe import Recipe

PROMPTS, SAMPLES, REWARDS, ENDED = "prompts.jsonl", "samples.json", "rewards", "ended"
# A round of 1,000,000 samples names each by 32 letters.
_MOST_BYTES = 64 << 20
_SAMPLES = TypeAdapter(list[str])

RunPool = Callable[[Recipe, Path, Path], None]
"""Runs a pool: recipe, folder of the round, folder of the model. Its driver writes `REWARDS` there."""
RowOf = Callable[[str], dict[str, Any]]
"""A sample as a row of the dataset, its `extra_info.sample_id` set."""


@dataclass(frozen=True)
class Rollouts:
    """One model's rollouts in `folder`, which is the model's own."""

    folder: Path
    model: PassrateModel
    batch: int
    seed: int
    repeats: int
    run_pool: RunPool
    row_of: RowOf

    def tallies(self, samples: Sequence[str]) -> dict[str, Tally]:
        """The rewards of these samples; those that the model cannot be asked (too long) have none.

        Raises:
            GolongrlError: the pool cannot be run.
        """
        for _ in range(1 + self.repeats):
            found, out = self.known(samples), self.left_out()
            if not (missing := [sample for sample, tally in found.items() if tally.missing and sample not in out]):
                break
            if not self._round(missing):
                break
        return self.known(samples)

    def known(self, samples: Sequence[str]) -> dict[str, Tally]:
        """What is on disk of them."""
        found = {sample: Tally() for sample in samples}
        for place in self._rounds():
            for group, sample in _rewards(place):
                if sample in found:
                    found[sample].add(group)
        return found

    def left_out(self) -> set[str]:
        """Samples that a round could not deal: the prompt is too long for the model, or repeats another one."""
        found: set[str] = set()
        for place in self._rounds():
            if (place / ENDED).exists():
                dealt = rows_of(open_splits(place / "data")[0]) if (place / "data" / "train").is_dir() else ()
                found |= set(_samples(place)) - set(dealt)
        return found

    def _rounds(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("round-*") if path.is_dir())

    def _round(self, missing: Sequence[str]) -> bool:
        """Roll out these samples in a new round, or end the one that is open; whether any was left to roll out."""
        rounds = self._rounds()
        place = rounds[-1] if rounds and not (rounds[-1] / ENDED).exists() else None
        if place is None or not set(missing) <= set(_samples(place)):
            number = len(rounds)
            place = self.folder / f"round-{number:03d}-{digest(sorted(missing))[:8]}"
            self._begin(place, missing)
        recipe = recipe_of(self.model, place / PROMPTS, self.batch, self.seed + int(place.name.split("-")[1]))
        model = resolve(self.model.path)
        try:
            prepare(recipe, place / "data", model)
        except NoRowsError as error:
            files.write_text(place / ENDED, f"{error}\n")
            return False
        self.run_pool(recipe, place, model)
        files.write_text(place / ENDED, "all prompts were rolled out\n")
        return True

    def _begin(self, place: Path, samples: Sequence[str]) -> None:
        place.mkdir(parents=True, exist_ok=True)
        with files.replacing(place / PROMPTS) as staging, staging.open("w", encoding="utf-8") as out:
            for sample in samples:
                out.write(json.dumps(self.row_of(sample), ensure_ascii=False) + "\n")
        # Last: with it the round is there.
        files.write_text(place / SAMPLES, json.dumps(list(samples)) + "\n")


def _samples(place: Path) -> list[str]:
    otherwise = "not a round's samples; delete the folder to roll its prompts out again"
    return read_json(place / SAMPLES, _MOST_BYTES, _SAMPLES, otherwise, PipelineError) or []


def _rewards(place: Path) -> Iterator[tuple[tuple[float | None, ...], str]]:
    """(rewards, sample) of a round."""
    written = list(rewards.read(place / REWARDS))
    if not written:
        return
    names = rows_of(open_splits(place / "data")[0])
    for _, groups in written:
        for group in groups:
            yield group.rewards, names[group.row]


def recipe_of(model: PassrateModel, prompts: Path, batch: int, seed: int) -> Recipe:
    """What the workers of the pool do: answer each prompt `ROLLOUTS` times and hand in every group.

    Raises:
        PipelineError: the lengths leave no room for a prompt.
    """
    most = model.context_length - model.max_response_tokens
    if most < 1:
        raise PipelineError(
            f"passrate: context_length {model.context_length} has to exceed max_response_tokens "
            f"{model.max_response_tokens}"
        )
    tree: Mapping[str, Any] = {
        "name": "pass-rate",
        "seed": seed,
        "model": {
            "path": model.path, "dtype": model.dtype, "attn_implementation": "sdpa",
            "context_length": model.context_length,
        },
        "data": {
            "train": str(prompts), "epochs": 1, "max_prompt_tokens": most, "overlong": "filter", "bad_rows": "skip",
            "enable_thinking": model.enable_thinking,
        },
        "rollout": {
            "n": ROLLOUTS, "max_response_tokens": model.max_response_tokens, "temperature": model.temperature,
            "top_p": model.top_p, "concurrent_groups": model.concurrent_groups,
            # Every group counts, equal rewards and single scores too.
            "group_filter": False, "min_scored": 1,
        },
        "reward": {"mode": "strict"},
        "queue": {"groups_per_step": batch, "order": "lease", "min_prompts_per_task": 1},
        "learner": {"max_tokens_per_rank": model.context_length},
    }  # fmt: skip
    return Recipe.model_validate_json(json.dumps(tree))
