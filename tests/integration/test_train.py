"""`golongrl train` as a user runs it: an interrupt, a resume, a killed engine, and what a run leaves."""

import json
import signal
from collections.abc import Iterator

import psutil
import pytest

from golongrl.queue import SampleQueue
from golongrl.telemetry import history
from support.embedded_server import EmbeddedServer
from support.redis_server import free_port
from support.train_run import WORKERS, Run

GROUPS, ETA = 9, 1
# Steps after the resume.
MORE = 2
SMALL = [
    f"queue.groups_per_step={GROUPS}",
    f"queue.max_staleness={ETA}",
    "rollout.n=4",
    "rollout.max_response_tokens=24",
    # One epoch has more rows than the run needs, however many groups the filter rejects.
    "data.prompts=270",
    # Not the end before the interrupt, however late that comes; the resume says where the end is.
    "learner.steps=28",
    "learner.checkpoint_every=2",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of which an engine was killed when both had served, interrupted once this was told, and resumed."""
    out = tmp_path_factory.mktemp("runs")
    sets = [argument for item in SMALL for argument in ("--set", item)]
    first = Run(out, *sets)
    second = None
    try:
        # Of two that start at the same time one may come much later on a busy machine.
        first.until(lambda: first.served() == set(WORKERS))
        first.child("golongrl engine").kill()
        first.until(lambda: "starting it again in 1 s" in first.log.read_text())
        processes = first.children()
        first.signal(signal.SIGINT)
        assert first.wait() == 130, first.log.read_text()
        _, left = psutil.wait_procs(processes, timeout=120)
        assert left == []
        # The step in hand was finished before the end.
        done = len(first.steps())
        second = Run(out, "--resume", "--set", f"learner.steps={done + MORE}")
        second.total = done + MORE
        assert second.wait() == 0, second.log.read_text()
        yield second
    finally:
        for run in (first, second):
            if run is not None:
                run.end()


pytestmark = pytest.mark.timeout(1800)


def test_every_step_is_there_once_and_never_staler_than_promised(finished: Run) -> None:
    records = history.read(finished.folder / "metrics.jsonl")
    assert records.steps == list(range(1, finished.total + 1))
    assert max(records.series("staleness/max")) <= ETA
    assert records.series("batch/groups") == [GROUPS] * finished.total


async def test_no_group_was_lost_or_trained_twice(finished: Run) -> None:
    async with (
        EmbeddedServer(free_port(), finished.folder / "redis") as server,
        SampleQueue.from_url(server.url, "demo") as queue,
    ):
        stats = await queue.stats()
    assert stats.trained == finished.total * GROUPS
    assert sum(stats.trained_staleness.values()) == finished.total * GROUPS
    assert max(stats.trained_staleness) <= ETA


def test_both_engines_served_groups_and_the_killed_one_was_started_again(finished: Run) -> None:
    said = finished.log.read_text()
    assert "died (signal SIGKILL)" in said
    assert "starting it again in 1 s" in said
    assert finished.served() == set(WORKERS)


def test_every_step_is_printed_once_and_the_resume_says_where_it_continues(finished: Run) -> None:
    lines = finished.log.read_text().splitlines()
    printed = [int(line.split()[1].partition("/")[0]) for line in lines if line.startswith("step ")]
    assert printed == list(range(1, finished.total + 1))
    (resumed,) = [line for line in lines if line.startswith("resuming demo at step ")]
    step = finished.total - MORE
    assert resumed == f"resuming demo at step {step + 1}, from the checkpoint of step {step}"
    assert any("continue with: golongrl train quickstart --resume --name demo --out" in line for line in lines)
    assert lines[-1].startswith(f"done: {finished.total} steps, mean reward ")


def test_its_folder_is_private_says_how_it_ended_and_holds_no_open_secret(finished: Run) -> None:
    assert finished.folder.stat().st_mode & 0o777 == 0o700
    info = json.loads((finished.folder / "run.json").read_text())
    assert (info["state"], info["temporary"]) == ("done", None)
    password = (finished.folder / "redis" / "password").read_text().strip()
    holders = {
        path.name: path.stat().st_mode & 0o777
        for path in finished.folder.rglob("*")
        if path.is_file() and password.encode() in path.read_bytes()
    }
    assert holders == {"password": 0o600, "server.conf": 0o600}
    assert password not in finished.log.read_text()


def test_it_leaves_what_the_readme_says(finished: Run) -> None:
    folder = finished.folder
    for name in ("recipe.yaml", "metrics.jsonl", "report.html", "checkpoints/latest_checkpointed_iteration.txt"):
        assert (folder / name).stat().st_size > 0
    assert (folder / "checkpoints" / f"global_step_{finished.total}" / "actor").is_dir()
    assert list((folder / "tensorboard").rglob("events.out.tfevents.*"))
    logs = {path.stem for path in (folder / "logs").glob("*.log")}
    assert logs == {"redis", "reward", "engine-0", "engine-1", "rollout-0", "rollout-1", "learner"}
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert {"actor/pg_loss", "critic/score/mean", "timing_s/step", "perf/throughput"} <= set(first)


def test_the_last_weights_load_in_transformers(finished: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(finished.folder / "hf")
    tokenizer = AutoTokenizer.from_pretrained(finished.folder / "hf")
    ids = tokenizer("The lambda expression", return_tensors="pt").input_ids
    assert model(ids).logits.shape[-1] >= tokenizer.vocab_size
