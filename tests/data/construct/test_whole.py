"""What takes minutes: a process killed in every stage, Ray, the command line on real documents, and training on it."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from golongrl.data.construct.load import load
from golongrl.data.construct.run import construct
from golongrl.data.construct.workers import Here, Processes, RayCluster
from golongrl.telemetry import history
from support.construction import DEBIAN, hotpot, tree, write_documents

pytestmark = [pytest.mark.full, pytest.mark.timeout(1200)]

DIE = Path(__file__).parents[2] / "support" / "construct_and_die.py"
STAGES = ("sources", "select", "generate", "convert", "format", "decontaminate", "diagnose")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The file of a small pipeline."""
    root = tmp_path_factory.mktemp("pipeline")
    file = root / "pipeline.yaml"
    small = tree(write_documents(root / "documents"), each=1, convert={"inputs": [hotpot(root / "hotpot.jsonl", 6)]})
    file.write_text(yaml.safe_dump(small), "utf-8")
    return file


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_process_killed_in_every_stage_ends_with_the_same_bytes(written, tmp_path):
    construct(load(str(written)), tmp_path / "whole", Here(), print)
    for stage in STAGES:
        died = subprocess.run([sys.executable, DIE, written, tmp_path / "parts", stage], capture_output=True, text=True)
        assert died.returncode == -9, died.stderr
    construct(load(str(written)), tmp_path / "parts", Here(), print)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_processes_and_ray_make_the_same_bytes(written, tmp_path):
    chosen = load(str(written))
    construct(chosen, tmp_path / "processes", Processes(2), print)
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        construct(chosen, tmp_path / "ray", RayCluster(), print)
    finally:
        ray.shutdown()
    assert content(tmp_path / "ray") == content(tmp_path / "processes")


def test_documents_become_a_file_that_trains(tmp_path):
    documents = write_documents(tmp_path / "documents", debian=DEBIAN.is_dir())
    pipeline = tmp_path / "pipeline.yaml"
    small = tree(documents, each=4, tokenizer="builtin:quickstart", format={"instructions": "terse"})
    small["select"]["bins"] = [{"name": "short", "min_tokens": 900, "max_tokens": 2000}]
    pipeline.write_text(yaml.safe_dump(small), "utf-8")

    def golongrl(*words: object) -> str:
        command = [sys.executable, "-m", "golongrl", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    out = tmp_path / "data"
    golongrl("data", "construct", pipeline, "--out", out)
    rows = pq.read_table(out / "train.parquet").to_pylist()
    assert {row["extra_info"]["task"] for row in rows} == {f"T{number}" for number in range(1, 10)}
    assert {row["extra_info"]["lang"] for row in rows} == {"English", "Chinese"}
    golongrl("data", "check", out / "train.parquet", "--mode", "strict")
    settings = {
        "data.corpus": "null", "data.train": out / "train.parquet", "data.max_prompt_tokens": 2304,
        "data.validation_prompts": 0, "model.context_length": 2560, "learner.steps": 2, "queue.groups_per_step": 6,
        "rollout.n": 2, "rollout.max_response_tokens": 16, "learner.max_tokens_per_rank": 8192,
    }  # fmt: skip
    words = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    golongrl("train", "quickstart", "--name", "built", "--out", tmp_path / "runs", *words)
    assert history.read(tmp_path / "runs" / "built" / "metrics.jsonl").steps == [1, 2]
