"""A whole run on a real SGLang with rows that it refuses: each ends after its bounded tries, and the run completes.

SGLang keeps six tokens of its context back from a prompt, so it answers 400 to the longest prompts that a recipe with
short responses allows. The other rows have texts that are likely to upset a server.
"""

from pathlib import Path

import pytest

from golongrl.data import prepare
from golongrl.data.model_check import model_of
from golongrl.data.pipeline import sources
from golongrl.data.prepared import open_splits
from golongrl.data.row_files import write_rows
from golongrl.data.rows import Row
from golongrl.local.preflight import check_sglang
from golongrl.queue import SampleQueue
from golongrl.recipe import load
from golongrl.telemetry import history
from support.embedded_server import EmbeddedServer
from support.engine_process import SGLANG
from support.redis_server import free_port
from support.train_run import Run

CONTEXT, RESPONSE, GROUPS, TRIES = 256, 4, 3, 2
# What a prompt may not have of the context.
KEPT = 6
ODD = [
    " \u202eright to left\u202c \u200b\ufeff",
    " \U0001f469\u200d\U0001f469\u200d\U0001f467" * 3,
    " e" + "\u0301" * 40,
    " <|im_start|>assistant\n</think><|im_end|>",
    " <|endoftext|>",
    " \x07\x1b[31m\x7f",
]
SMALL = [
    f"model.context_length={CONTEXT}",
    f"queue.groups_per_step={GROUPS}",
    f"queue.max_tries={TRIES}",
    "rollout.n=2",
    f"rollout.max_response_tokens={RESPONSE}",
    f"data.max_prompt_tokens={CONTEXT - RESPONSE}",
    "data.corpus=null",
    "data.validation_prompts=0",
    "learner.test_freq=0",
    "learner.checkpoint_every=2",
]

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]


def _longer(row: Row, text: str) -> Row:
    *before, last = row.prompt
    return row.model_copy(update={"prompt": [*before, last.model_copy(update={"content": last.content + text})]})


def _refused(good: Row, folder: Path) -> list[Row]:
    """Rows whose prompts have the last lengths that fit, one of each."""
    tried = [_longer(good, " a" * words) for words in range(CONTEXT)]
    write_rows(tried, folder / "tried.jsonl")
    recipe = load("quickstart", [*SMALL, f"data.train={folder / 'tried.jsonl'}"])
    prepare(recipe, folder / "tried", model_of(recipe, to_train=True))
    data, _ = open_splits(folder / "tried")
    lengths = sorted(data.row(index).prompt_ids.size for index in range(len(data)))
    # Each word is one token, and prompts that do not fit are left out.
    assert lengths == list(range(lengths[0], CONTEXT - RESPONSE + 1))
    return [tried[length - lengths[0]] for length in lengths if length >= CONTEXT - KEPT]


async def test_rows_that_sglang_refuses_end_with_their_reason_and_the_run_completes(tmp_path: Path) -> None:
    check_sglang(SGLANG)
    good = [row for _, row in sources(load("quickstart", ["data.prompts=18", *SMALL[7:]]))["train"].rows]
    refused = _refused(good[0], tmp_path)
    odd = [_longer(row, text) for row, text in zip(good, ODD, strict=False)]
    write_rows([*refused, *odd, *good[len(odd) :]], tmp_path / "rows.jsonl")
    steps = len(good) // GROUPS
    sets = [*SMALL, f"learner.steps={steps}", f"data.train={tmp_path / 'rows.jsonl'}"]
    words = [word for item in sets for word in ("--set", item)]
    (tmp_path / "runs").mkdir()
    run = Run(tmp_path / "runs", *words, "--engine", "sglang", "--engines", "1", "--sglang-venv", str(SGLANG))
    try:
        assert run.wait() == 0, run.log.read_text()
    finally:
        run.end()
    assert history.read(run.folder / "metrics.jsonl").steps == list(range(1, steps + 1))
    async with (
        EmbeddedServer(free_port(), run.folder / "redis") as server,
        SampleQueue.from_url(server.url, "demo") as queue,
    ):
        stats = await queue.stats()
    assert stats.rejected_by == {"failed:engine_refused": len(refused)}
    assert (stats.trained, stats.rejected, stats.unread) == (steps * GROUPS, len(refused), 0)
    assert stats.redone_by == {"engine_refused": len(refused) * (TRIES - 1)}
    # None of it was the engine's fault.
    assert "quarantine" not in (run.folder / "logs" / "rollout-0.log").read_text()
