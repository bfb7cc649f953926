"""The API: order, isolation, limits, errors that name item and field, probes, metrics, OpenAPI."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from scoring_items import AppFactory, item

from golongrl.reward.app import create_app
from golongrl.reward.config import RewardConfig
from golongrl.tasks import UnknownTaskError, score, task_of


async def post(http: httpx.AsyncClient, *items: dict[str, Any], **more: Any) -> httpx.Response:
    return await http.post("/v1/score", json={"mode": "compat", "items": list(items), **more})


async def test_scores_by_the_real_metrics(running: AppFactory) -> None:
    right, wrong = item("<think>hm</think> 42", "right"), item("<think>hm</think> 41", "wrong")
    async with running(score=None) as (_, http):
        results = (await post(http, right, wrong)).json()["results"]
        assert results[0] == {
            "id": "right", "status": "scored", "score": 1.0, "metric": "EM", "task": "T1", "reason": None
        }  # fmt: skip
        assert (results[1]["id"], results[1]["status"], results[1]["score"]) == ("wrong", "scored", 0.0)


async def test_the_service_scores_as_the_function_does(running: AppFactory) -> None:
    """Every seventh reference case through JSON, pipes and processes."""
    lines = (Path(__file__).parents[1] / "tasks" / "golden" / "rewards.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [case for case in map(json.loads, lines[::7]) if case["expected_error"] is None]
    fields = ("id", "data_source", "ground_truth", "extra_info")
    items = [{name: case[name] for name in fields} | {"response": case["solution_str"]} for case in cases]
    items = [one for one in items if known(one) and isinstance(one["extra_info"], dict)]
    assert len(items) > 80
    async with running(score=None) as (_, http):
        answer = await http.post("/v1/score", content=json.dumps({"mode": "strict", "items": items}))
        assert answer.status_code == 200, answer.text
        for sent, got in zip(items, answer.json()["results"], strict=True):
            own = score(sent["data_source"], sent["response"], sent["ground_truth"], sent["extra_info"], "strict")
            assert (got["id"], got["score"], got["status"]) == (sent["id"], own.score, own.status)


def known(one: dict[str, Any]) -> bool:
    """Whether the item has a task at all."""
    try:
        return bool(task_of(one["data_source"], one["extra_info"].get("reward_mode")))
    except UnknownTaskError:
        return False


async def test_bad_items_are_unscored_and_the_others_are_scored_in_order(running: AppFactory) -> None:
    responses = ["a", "EXIT", "ab", "SEGFAULT", "abc", "RAISE", "abcd"]
    async with running() as (_, http):
        answer = await post(http, *(item(text, str(n)) for n, text in enumerate(responses)))
        assert answer.status_code == 200
        results = answer.json()["results"]
        assert [r["id"] for r in results] == [str(n) for n in range(7)]
        assert [r["score"] for r in results] == [0.001, None, 0.002, None, 0.003, None, 0.004]
        assert [r["status"] for r in results] == ["scored", "unscored"] * 3 + ["scored"]
        assert all(r["reason"] and r["task"] == "T1" and r["metric"] == "EM" for r in results[1::2])


async def test_the_request_sets_the_deadline(running: AppFactory) -> None:
    async with running() as (_, http):
        (result,) = (await post(http, item("HANG"), deadline_s=0.3)).json()["results"]
        assert result["status"] == "unscored"
        assert "0.3 s" in result["reason"]


async def test_health_is_answered_while_every_worker_hangs(running: AppFactory) -> None:
    async with running(deadline_s=5.0) as (app, http):
        batch = asyncio.create_task(post(http, item("HANG"), item("HANG_IN_C")))
        async with asyncio.timeout(60):
            while app.state.pool.in_flight < 2:
                await asyncio.sleep(0.01)
            assert (await http.get("/healthz")).json()["status"] == "ok"
            assert not batch.done()
            assert [r["status"] for r in (await batch).json()["results"]] == ["unscored"] * 2


REFUSALS: list[tuple[dict[str, Any], int, int | None, str]] = [
    ({"items": []}, 422, None, "items"),
    ({"items": [item("r")], "mode": "loose"}, 422, None, "mode"),
    ({"items": [item("r")], "deadline_s": 0}, 422, None, "deadline_s"),
    ({"items": [item("r")], "deadline_s": 1e6}, 422, None, "deadline_s"),
    ({"items": [item("r")], "colour": 1}, 422, None, "colour"),
    ({"items": [item("r"), item(5)]}, 422, 1, "response"),
    ({"items": [item("r"), {"id": "b"}]}, 422, 1, "data_source"),
    ({"items": [item("r"), item("r", id=7)]}, 422, 1, "id"),
    ({"items": [item("r", extra_info=[])]}, 422, 0, "extra_info"),
    ({"items": [item("r"), item("r", data_source="no_such")]}, 422, 1, "data_source"),
    (
        {"items": [item("r", data_source="longbench_pro", extra_info={"reward_mode": "T99 None"})]},
        422,
        0,
        "extra_info.reward_mode",
    ),
    ({"items": [item("r"), item("r" * 5000)]}, 413, 1, "response"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(running: AppFactory) -> AsyncIterator[httpx.AsyncClient]:
    async with running(workers=1, max_batch=4, max_item_bytes=4096, max_body_bytes=16384) as (_, http):
        yield http


@pytest.mark.parametrize(("body", "status", "index", "field"), REFUSALS)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_refusal_names_item_and_field(
    small: httpx.AsyncClient, body: dict[str, Any], status: int, index: int | None, field: str
) -> None:
    answer = await small.post("/v1/score", json=body)
    assert answer.status_code == status
    fault = answer.json()["errors"][0]
    assert (fault["item"], fault["field"]) == (index, field)
    assert field in answer.json()["detail"]
    if index is not None:
        assert f"items[{index}]" in answer.json()["detail"]


@pytest.mark.asyncio(loop_scope="module")
async def test_size_limits(small: httpx.AsyncClient) -> None:
    batch = await small.post("/v1/score", json={"items": [item("r")] * 5})
    assert batch.status_code == 413
    assert "5 items, the limit is 4" in batch.json()["detail"]
    body = await small.post("/v1/score", content=b" " * 20000)
    assert body.status_code == 413
    assert "16384" in body.json()["detail"]

    async def chunks() -> AsyncIterator[bytes]:  # no Content-Length
        for _ in range(20):
            yield b" " * 1000

    assert (await small.post("/v1/score", content=chunks())).status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"NaN",
        b"\xff\xfe\xff",
        b"[" * 10_000,
        b'{"items":' + b"[" * 8000,
        b"9" * 5000,
        b'{"items":[1]}',
        b"null",
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_body_that_is_not_a_request_is_422(small: httpx.AsyncClient, body: bytes) -> None:
    answer = await small.post("/v1/score", content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]


@pytest.mark.asyncio(loop_scope="module")
async def test_any_text_can_be_scored(small: httpx.AsyncClient) -> None:
    odd = ["", "\x00", "\ud800 lone", "é" * 700, "🙂"]
    body = json.dumps({"items": [item(text) for text in odd[:4]]})  # ASCII escapes carry the surrogate
    answer = await small.post("/v1/score", content=body)
    assert [r["status"] for r in answer.json()["results"]] == ["scored"] * 4


async def test_a_full_queue_is_429_with_retry_after(running: AppFactory, tmp_path: Path) -> None:
    async with running(workers=1, max_batch=2, max_queued=2) as (app, http):
        first = asyncio.create_task(post(http, item(f"UNTIL:{tmp_path / 'go'}")))
        async with asyncio.timeout(60):
            while not app.state.pool.in_flight:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(post(http, item("a"), item("b")))
            while app.state.pool.queued < 2:
                await asyncio.sleep(0.01)
        refused = await post(http, item("c"))
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        (tmp_path / "go").touch()
        assert {(await first).status_code, (await waiting).status_code} == {200}


async def test_the_items_of_a_client_that_is_gone_are_dropped(running: AppFactory, tmp_path: Path) -> None:
    """Spoken in ASGI: the in-process transport of httpx never says that a client disconnects."""
    async with running(workers=1) as (app, http):
        body = json.dumps({"items": [item(f"UNTIL:{tmp_path / 'go'}")] + [item("KILLED")] * 5}).encode()
        events = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]

        async def receive() -> dict[str, Any]:
            if len(events) == 1:
                while not app.state.pool.in_flight:
                    await asyncio.sleep(0.01)
            return events.pop(0)

        async def send(_message: Any) -> None:
            pass

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/v1/score",
            "raw_path": b"/v1/score", "root_path": "", "scheme": "http", "query_string": b"", "headers": [],
        }  # fmt: skip
        await app(scope, receive, send)
        (tmp_path / "go").touch()
        assert (await post(http, item("ab"))).json()["results"][0]["score"] == 0.002
        assert app.state.pool.stats.ended["died"] == 0


async def test_a_token_guards_scoring_alone(running: AppFactory) -> None:
    async with running(workers=1, token=SecretStr("sésame")) as (_, http):
        assert (await post(http, item("a"))).status_code == 401
        for wrong in ("Bearer nope", "Basic c8OpcMOocw==", "Bearer", "Bearer s"):
            answer = await http.post("/v1/score", content=b"not even JSON", headers={"Authorization": wrong})
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert "GOLONGRL_REWARD_TOKEN" in answer.json()["detail"]
        right = {"Authorization": "Bearer sésame".encode("latin-1")}
        assert (await http.post("/v1/score", json={"items": [item("a")]}, headers=right)).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await http.get(path)).status_code == 200


async def test_readyz_waits_for_warm_workers() -> None:
    app = create_app(RewardConfig(workers=1), preload=())
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://reward")
    async with app.router.lifespan_context(app), http:
        early = await http.get("/readyz")
        assert (early.status_code, early.json()["status"]) == (503, "starting")
        refused = await post(http, item("a"))
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        await app.state.pool.wait_warm()
        assert (await http.get("/readyz")).status_code == 200


async def test_metrics_count_scores_by_task_and_status(running: AppFactory) -> None:
    async with running() as (_, http):
        await post(http, item("a"), item("ab"), item("EXIT"))
        await post(http, item("HANG"), deadline_s=0.3)
        await post(http, {**item("a"), "data_source": "no_such"})
        families = text_string_to_metric_families((await http.get("/metrics")).text)
        samples = {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}
        assert samples["golongrl_reward_scores_total", "T1", "scored"] == 2
        assert samples["golongrl_reward_scores_total", "T1", "unscored"] == 2
        assert samples["golongrl_reward_lost_total", "T1", "deadline"] == 1
        assert samples["golongrl_reward_workers_ended_total", "died"] == 1
        assert samples["golongrl_reward_item_seconds_count", "T1"] == 4
        assert samples["golongrl_reward_refused_total", "422"] == 1
        assert samples["golongrl_reward_queue_depth",] == 0


async def test_the_request_id_comes_back(running: AppFactory) -> None:
    async with running(workers=1) as (_, http):
        answer = await http.post("/v1/score", json={"items": [item("a")]}, headers={"X-Request-Id": "r1"})
        assert answer.headers["X-Request-Id"] == "r1"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"deadline_s": 0}, "deadline_s"), ({"deadline_s": 500}, "max_deadline_s"), ({"workers": -1}, "workers"),
        ({"max_queued": 10}, "max_queued"), ({"max_batch": 0}, "max_batch"), ({"token": SecretStr("")}, "token"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        RewardConfig(**settings)


async def test_a_client_that_disconnects_in_mid_body_is_one_line(
    running: AppFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = iter([{"type": "http.request", "body": b'{"items"', "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(parts)

    async def send(message: Any) -> None:
        sent.append(message)

    async with running() as (app, _):
        capsys.readouterr()
        path = {"path": "/v1/score", "raw_path": b"/v1/score", "root_path": "", "query_string": b""}
        scope = {"type": "http", "method": "POST", "http_version": "1.1", "scheme": "http", "headers": [], **path}
        await app(scope, receive, send)
        lines = capsys.readouterr().out.splitlines()
    assert sent[0]["status"] == 499
    (line,) = lines
    assert "a client disconnected before its request was complete" in line
