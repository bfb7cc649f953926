"""Workers elsewhere: what the board says, a worker that follows it, and the Job that the stage starts."""

import json
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import structlog
from typer.testing import CliRunner

from golongrl import restart
from golongrl.data.command import app
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.passrate import board, jobs
from golongrl.data.construct.passrate.board import Board
from golongrl.data.construct.passrate.follow import Follower
from golongrl.data.construct.passrate.jobs import PoolJob

OPEN = Board("/store/model", 4096, "bfloat16", "/store/out/round-000", "pass-rate-1")
# Writes down its arguments, and waits for SIGTERM.
WAITS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], "a").write("end\\n"), sys.exit(0)))
open(sys.argv[1], "a").write(" ".join(sys.argv[2:]) + "\\n")
signal.pause()
"""


def follower(tmp_path: Path, program: str = WAITS, idle_s: float = 60.0) -> Follower:
    command = (sys.executable, "-c", program, str(tmp_path / "said"))
    return Follower(tmp_path / "small.json", ("--port", "0"), idle_s, 5.0, command, look_s=0.02)


def said(tmp_path: Path) -> list[str]:
    path = tmp_path / "said"
    return path.read_text().splitlines() if path.is_file() else []


def until(true: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError("it never happened")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "5", '{"model": 5}', '{"other": "x"}', '{"run": null}', "\xff", '{"ended": "no"}']
)
def test_what_is_no_board_says_nothing(tmp_path, text):
    path = tmp_path / "small.json"
    path.write_bytes(text.encode("latin-1"))
    assert board.read(path) is None
    assert board.read(tmp_path / "none.json") is None
    assert board.read(tmp_path) is None


def test_a_board_is_read_as_it_was_written(tmp_path):
    place = tmp_path / "rollouts" / "large-1a2b3c4d" / "round-001-5e6f7a8b"
    assert board.path_of(place) == tmp_path / "rollouts" / "large.json"
    board.write(board.path_of(place), OPEN)
    assert board.read(board.path_of(place)) == OPEN


def test_a_worker_runs_for_each_round_and_ends_with_the_model(tmp_path):
    path, follows = tmp_path / "small.json", follower(tmp_path)
    thread = threading.Thread(target=follows.follow)
    thread.start()
    try:
        board.write(path, OPEN)
        until(lambda: len(said(tmp_path)) == 1)
        # A sign of life is no new round, and a file that cannot be read now is no end of one.
        board.write(path, replace(OPEN, beat=1))
        path.write_text("{")
        board.write(path, replace(OPEN, run="", place=""))
        until(lambda: said(tmp_path)[1:] == ["end"])
        board.write(path, replace(OPEN, run="pass-rate-2", place="/store/out/round-001"))
        until(lambda: len(said(tmp_path)) == 3)
        board.write(path, Board(ended=True))
        thread.join(30)
        assert not thread.is_alive()
    finally:
        follows.stop.set()
        thread.join(30)
    first, _, second, last = said(tmp_path)
    assert last == "end"
    place = "/store/out/round-000"
    assert first == f"--recipe {place}/recipe.yaml --run pass-rate-1 --data {place}/data --grace 5.0 --port 0"
    assert "--run pass-rate-2" in second


def test_a_worker_without_a_round_says_what_it_waits_for(tmp_path):
    with structlog.testing.capture_logs() as lines:
        follower(tmp_path, idle_s=0.1).follow()
    assert lines[0]["event"] == "waiting for a round of the construction"
    assert lines[0]["board"] == str(tmp_path / "small.json")


def test_without_a_sign_of_the_stage_the_worker_ends(tmp_path):
    board.write(tmp_path / "small.json", OPEN)
    follower(tmp_path, idle_s=0.5).follow()
    follower(tmp_path / "nothing", idle_s=0.1).follow()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(7, "exit code 7 and died 3 times within a minute"), (2, "exit code 2 and .* its input is wrong")],
)
def test_a_worker_that_cannot_live_fails_the_pod(tmp_path, monkeypatch, code, reason):
    monkeypatch.setattr(restart, "FIRST_DELAY_S", 0.01)
    board.write(tmp_path / "small.json", OPEN)
    with pytest.raises(PipelineError, match=f"the rollout worker ended with {reason}"):
        follower(tmp_path, f"import sys; sys.exit({code})").follow()


def test_a_stopped_worker_is_no_success(tmp_path, monkeypatch):
    """A Job takes exit 0 for the end of the work and makes no pod in its place."""
    monkeypatch.setattr(Follower, "on_signals", lambda self: self.stop.set())
    urls = ["--redis-url", "redis://r", "--engine-url", "http://e", "--reward-url", "http://r"]
    for name in ("GOLONGRL_REDIS_URL", "GOLONGRL_ENGINE_URL", "GOLONGRL_REWARD_URL"):
        monkeypatch.setenv(name, "")
    done = CliRunner().invoke(app, ["worker", "--board", str(tmp_path / "small.json"), *urls])
    assert done.exit_code == 128 + signal.SIGTERM


# -- the Job -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A PoolJob whose API server answers what the test says, and the calls it got."""
    (tmp_path / "token").write_text("t\n")
    (tmp_path / "namespace").write_text("rl")
    calls: list[tuple[str, object]] = []
    answers: list[object] = []

    def handle(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/apis/batch/v1/namespaces/rl/jobs/engines"
        assert request.headers["Authorization"] == "Bearer t"
        calls.append((request.method, json.loads(request.content) if request.content else None))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        code, body = answer  # type: ignore[misc]
        return httpx.Response(code, json=body) if body is not None else httpx.Response(code, text="<html>")

    client = httpx.AsyncClient

    def made(**options):
        return client(transport=httpx.MockTransport(handle), timeout=options["timeout"])

    monkeypatch.setattr(httpx, "AsyncClient", made)
    return PoolJob("engines", tmp_path, "http://api", pause_s=0.0), answers, calls


SUSPENDED = (200, {"spec": {"suspend": True}})
RUNS = (200, {"spec": {"suspend": False}, "status": {"conditions": None}})
START = ("PATCH", {"spec": {"suspend": False}})


async def test_a_suspended_job_is_started_once_and_a_running_one_is_left(job):
    pods, answers, calls = job
    answers += [SUSPENDED, RUNS, RUNS, RUNS]
    await pods.start()
    await pods.start()
    await pods.check()
    assert [call for call in calls if call[0] == "PATCH"] == [START]


async def test_an_api_server_that_is_away_is_waited_for(job):
    pods, answers, calls = job
    answers += [httpx.ConnectError("refused"), (503, {}), (429, {}), (502, None), SUSPENDED, (500, {}), SUSPENDED, RUNS]
    await pods.start()
    assert calls[-1] == START
    answers += [(503, None)]
    await pods.check()
    answers += [httpx.ReadTimeout("slow")] * 30
    with pytest.raises(PipelineError, match="Job engines: API server http://api: ReadTimeout"):
        await pods.start()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {"message": 'jobs.batch "engines" not found'}), "404 jobs.batch"),
        ((403, {"message": "jobs is forbidden"}), "403 jobs is forbidden"),
        ((401, {}), "401"),
        ((200, []), "200"),
        ((200, {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}}),
         r"has ended \(Failed BackoffLimitExceeded\).*delete the Job"),
        ((200, {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}), r"has ended \(Complete\)"),
    ],
)  # fmt: skip
async def test_what_cannot_be_started_is_one_line(job, answer, message):
    pods, answers, _ = job
    answers += [answer, answer]
    for call in (pods.start, pods.check):
        with pytest.raises(PipelineError, match=message):
            await call()


async def test_it_is_for_pods_alone(tmp_path, monkeypatch):
    with pytest.raises(PipelineError, match=r"--pool-job engines: .*token.*for pods with a service account"):
        await PoolJob("engines", tmp_path, "http://api").start()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(PipelineError, match="KUBERNETES_SERVICE_HOST"):
        PoolJob("engines")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    assert jobs._server() == "https://[fd00::1]:6443"


@pytest.mark.parametrize(
    "word", ["small", "medium=x", "small=", "small=A", "small=a b", "=x", "small=../x", "large=x\n"]
)
def test_a_wrong_pool_job_is_refused(word, tmp_path):
    done = CliRunner().invoke(app, ["construct", "laptop", "--out", str(tmp_path / "o"), "--pool-job", word])
    assert isinstance(done.exception, PipelineError)
    assert "expected small=NAME or large=NAME" in str(done.exception)
