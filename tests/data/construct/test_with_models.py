"""A whole pipeline with every stage that asks a model: scripted endpoints, and rewards as a pool would write them."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from golongrl.data.construct.load import load
from golongrl.data.construct.metrics import CATALOGUE, DataMetrics
from golongrl.data.construct.passrate import rewards, stage
from golongrl.data.construct.passrate.driver import rows_of
from golongrl.data.construct.passrate.rewards import GroupRewards
from golongrl.data.construct.passrate.rollouts import REWARDS
from golongrl.data.construct.run import construct
from golongrl.data.construct.workers import Here
from golongrl.data.prepared import open_splits
from golongrl.data.row_files import read_rows
from golongrl.recipe import Recipe
from support.documents import documents
from support.llm_endpoint import Said, served

SENTENCE = "A school for navigators was founded, with one teacher and a borrowed sextant."
WRITTEN = {
    "question": "What had the school for navigators to borrow?",
    "answer": "a borrowed sextant",
    "evidence": [SENTENCE],
}


def script(body: dict, _: int) -> Said:
    """The writer, and the second model that reads well and guesses badly."""
    prompt = body["messages"][0]["content"]
    if body["model"] == "writer":
        return Said(json.dumps(WRITTEN))
    return Said("no idea" if "not available" in prompt or "borrow?" not in prompt else "a borrowed sextant")


@pytest.fixture
def pool(monkeypatch):
    """Half of the prompts are easy, the others not solved."""

    def run(recipe: Recipe, place: Path, model: Path) -> None:
        count = len(rows_of(open_splits(place / "data")[0]))
        groups = [GroupRewards(row, (float(row % 2),) * 8) for row in range(count)]
        rewards.write(place / REWARDS, 1, groups)

    monkeypatch.setattr(stage, "pool_of", lambda settings, jobs: run)


def test_every_stage_hands_on_what_the_next_one_needs(tmp_path, pool):
    folder = tmp_path / "documents"
    folder.mkdir()
    for seed in range(5):
        (document,) = documents("English", seed)
        (folder / f"harbour-{seed}.md").write_text(document.text, "utf-8")
    file = tmp_path / "pipeline.yaml"
    with served(script) as server:
        endpoint = {"url": server.url, "concurrency": 4, "max_tokens": 200}
        tree = {
            "name": "whole",
            "sources": {
                "inputs": [{"path": str(folder), "licence": "own"}], "min_tokens": 50, "near_duplicate": None,
                "max_repeated_lines": 1.0,
            },
            "select": {"tasks": {"T1": 6, "T4": 6}, "bins": [{"name": "short", "min_tokens": 50, "max_tokens": 3000}]},
            "generate": {"by_model": {"T1": 0.5}, "models": {"default": {**endpoint, "model": "writer"}}},
            "verify": {"model": {**endpoint, "model": "second"}, "tries": 2, "padded_tries": 0},
            "passrate": {
                "small": {
                    "path": "builtin:quickstart", "dtype": "float32", "context_length": 4096,
                    "max_response_tokens": 16,
                }
            },
        }  # fmt: skip
        file.write_text(json.dumps(tree), "utf-8")
        said: list[str] = []
        construct(load(str(file)), tmp_path / "out", Here(), said.append, dry_run=True)
        assert not server.asked
        assert any("calls" in line for line in said)
        metrics = DataMetrics()
        construct(load(str(file)), tmp_path / "out", Here(), said.append, metrics=metrics)
        asked = len(server.asked)
        value = metrics.registry.get_sample_value
        assert {family.name for family in metrics.registry.collect()} == set(CATALOGUE.metrics)
        made = sum(value("golongrl_data_calls", {"stage": one, "outcome": "made"}) for one in ("generate", "verify"))
        assert made == asked
        assert value("golongrl_data_call_tokens", {"stage": "verify"}) > 0
        assert value("golongrl_data_requests_in_flight") == 0
        again = DataMetrics()
        construct(load(str(file)), tmp_path / "out", Here(), said.append, metrics=again)
        assert len(server.asked) == asked
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/manifest.json")]
    assert {one["stage"] for one in manifests} >= {"generate", "verify", "passrate", "format"}
    for one in manifests:
        assert one["rows"] == one["kept"] + sum(one["refused"].values())
        labels = {"stage": one["stage"]}
        for look in (value, again.registry.get_sample_value):
            assert look("golongrl_data_inputs", labels) == look("golongrl_data_inputs_done", labels) == one["rows_in"]
            assert look("golongrl_data_rows_kept", labels) == one["kept"]
            for reason, count in one["refused"].items():
                assert look("golongrl_data_rows_refused", {**labels, "reason": reason}) == count
    by_stage = {one["stage"]: one for one in manifests}
    # The small tokenizer finds some prompts too long for its model.
    refused = by_stage["passrate"]["refused"]
    assert set(refused) <= {"not solved by the small model", "not rolled out"}
    assert refused["not solved by the small model"] >= by_stage["passrate"]["kept"] >= 1
    made = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert made
    assert {row["extra_info"]["band"] for row in made} == {"easy"}
    assert {row["extra_info"]["mean_reward"] for row in made} == {1.0}
    assert len(list(read_rows(tmp_path / "out" / "train.parquet"))) == len(made)
