"""`golongrl reward`: the task table, scoring a file, errors in one line, and a server that stops cleanly."""

import asyncio
import codecs
import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from scoring_items import Served, ServerFactory, item
from typer.testing import CliRunner

from golongrl.reward.command import app
from golongrl.reward.report import BadFileError, histogram
from golongrl.tasks import TASKS

runner = CliRunner(env={"COLUMNS": "300"})


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_table_names_every_type_and_sub_task() -> None:
    shown = runner.invoke(app, ["tasks"])
    assert shown.exit_code == 0
    for task in TASKS:
        assert task.type in shown.stdout
        assert task.metric in shown.stdout
        assert all(subtask in shown.stdout for subtask in task.subtasks)


def test_a_file_of_items_and_of_dataset_rows(tmp_path: Path) -> None:
    label = {"doc_ids": ["b", "a"], "golden_label": "", "summary": "English"}
    row = {
        "data_source": "longbench_pro",
        "prompt": [{"role": "user", "content": "?"}],
        "ability": "x",
        "reward_model": {"ground_truth": label},
        "extra_info": {"reward_mode": "T5.1 Full-Sentence Citation Alignment"},
        "response": "<think>hm</think>[Answer]\na\nb",
    }
    unscorable = item("<think>hm</think>42", ground_truth={"golden_label": 5})
    file = write(tmp_path / "in.jsonl", item("<think>hm</think>42"), item("<think>hm</think>41"), unscorable, row)
    out = tmp_path / "out.jsonl"
    done = runner.invoke(app, ["score", str(file), "--mode", "strict", "--workers", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    lines = {tuple(cell.strip() for cell in line.split("│")[1:8]) for line in done.stdout.splitlines() if "│ T" in line}
    assert ("T1", "EM", "3", "2", "0.5000", "0.5000", "█········█") in lines
    assert ("T3", "F1", "1", "1", "1.0000", "0.0000", "·········█") in lines
    assert "golden_label must be a string" in done.stdout
    results = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [r["score"] for r in results] == [1.0, 0.0, None, 1.0]


BAD_FILES = [
    (b"", "no items"),
    (b"[]\n", ":1: expected an object"),
    (b'{"data_source": "EM"}\n', ":1: no field `response`"),
    (b'\n{"response": "r"}\n', ":2: data_source"),
    (b"{\n", ":1: not valid JSON"),
    (b"[" * 100_000, ":1: not valid JSON"),
    (b"\xff\n", "not UTF-8 text"),
    (b'{"data_source": "no_such", "response": "r", "ground_truth": {}}\n', ":1: unknown data_source 'no_such'"),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(content)
    failed = runner.invoke(app, ["score", str(file)])
    assert isinstance(failed.exception, BadFileError)
    assert "\n" not in str(failed.exception)
    assert str(file) in str(failed.exception)
    assert message in str(failed.exception)


@pytest.mark.parametrize("arguments", [["score"], ["nonsense"], ["serve", "--port", "0"], ["serve", "--deadline", "0"]])
def test_bad_usage(arguments: list[str]) -> None:
    failed = runner.invoke(app, arguments)
    assert failed.exit_code == 2
    assert "Error" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "no/such/file"], "no/such/file: No such file or directory"),
        (["serve", "--max-queued", "1"], "max_queued 1 is below max_batch 256"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "golongrl", "reward", *arguments]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (failed.returncode, failed.stderr) == (2, f"error: {message}\n")


def test_histogram() -> None:
    assert histogram([]) == "··········"
    assert histogram([0.0, 1.0, 1.0]) == "▄········█"


async def until_metrics_say(http: httpx.AsyncClient, served: Served, line: str) -> None:
    async with asyncio.timeout(60):
        while line not in (await http.get(f"{served.url}/metrics")).text.splitlines():
            await asyncio.sleep(0.02)


async def until_both_workers_compute(http: httpx.AsyncClient, served: Served) -> None:
    await until_metrics_say(http, served, "golongrl_reward_in_flight 2.0")


async def test_sigterm_finishes_what_was_accepted_then_exits_0(serve: ServerFactory, tmp_path: Path) -> None:
    """The signal goes to the whole group, as a shell or an init without manners sends it."""
    script = Path(__file__).parent / "serve_misbehaving.py"
    served = serve(str(script), "{port}", "2", "100")
    async with httpx.AsyncClient(timeout=60) as http:
        accepted = {"items": [item(f"UNTIL:{tmp_path / 'go'}")] * 6}
        slow = asyncio.create_task(http.post(f"{served.url}/v1/score", json=accepted))
        await until_both_workers_compute(http, served)
        behind = {"items": [item("HANG")], "deadline_s": 0.5}
        hung = asyncio.create_task(http.post(f"{served.url}/v1/score", json=behind))
        await until_metrics_say(http, served, "golongrl_reward_queue_depth 5.0")
        tree = psutil.Process(served.process.pid).children(recursive=True)
        for process in (psutil.Process(served.process.pid), *tree):
            process.send_signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        assert [r["status"] for r in (await slow).json()["results"]] == ["scored"] * 6
        assert [r["status"] for r in (await hung).json()["results"]] == ["unscored"]
    assert await asyncio.to_thread(served.process.wait, 60) == 0
    gone, alive = psutil.wait_procs(tree, timeout=60)
    assert not alive
    assert gone


async def test_workers_do_not_outlive_a_killed_service(serve: ServerFactory) -> None:
    script = Path(__file__).parent / "serve_misbehaving.py"
    served = serve(str(script), "{port}", "2", "100")
    async with httpx.AsyncClient(timeout=60) as http:
        items = [item("HANG_IN_C")] * 2
        hung = asyncio.create_task(http.post(f"{served.url}/v1/score", json={"items": items}))
        await until_both_workers_compute(http, served)
        tree = psutil.Process(served.process.pid).children(recursive=True)
        assert len(tree) >= 3  # the fork server and two workers
        served.process.kill()
        with pytest.raises(httpx.TransportError):
            await hung
    _, alive = psutil.wait_procs(tree, timeout=60)
    assert not alive


def test_neither_service_nor_client_loads_torch_or_the_other() -> None:
    program = """
import sys
import golongrl.reward.client
assert not {"fastapi", "uvicorn", "math_verify", "sympy"} & set(sys.modules), "the client needs httpx alone"
import golongrl.reward.app, golongrl.reward.preload
assert "sympy" in sys.modules  # the metrics really ran
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)


@pytest.mark.parametrize("name", ["responses.jsonl", "link.jsonl"])
def test_scores_are_not_written_over_what_is_scored(tmp_path: Path, name: str) -> None:
    file = tmp_path / "responses.jsonl"
    file.write_bytes(codecs.BOM_UTF8 + json.dumps(item("<think>hm</think>42")).encode() + b"\n")
    (tmp_path / "link.jsonl").symlink_to(file)
    before = file.read_bytes()
    failed = runner.invoke(app, ["score", str(file), "--workers", "1", "--out", str(tmp_path / name)])
    assert "this file is what is read" in str(failed.exception)
    assert file.read_bytes() == before
