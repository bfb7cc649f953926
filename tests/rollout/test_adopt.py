"""Taking weights: the calls of each mode in order, and what is left behind when one fails."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from golongrl.errors import InputError
from golongrl.queue import WeightsRef
from golongrl.rollout.sglang.answers import ModelInfo
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.errors import AdoptionError
from golongrl.rollout.weights.adopt import Confirmed, adopt, check_server, sizes
from golongrl.rollout.weights.policy import Mode

HELD = Confirmed(WeightsRef(4, "/old", "first", ""), ModelInfo("/old", "4"), 512)


class Server:
    """An engine's control side: remembers calls, and fails where a test says so."""

    def __init__(self, fail: str = "", how: Callable[[httpx.Request], httpx.Response] | None = None) -> None:
        self.calls: list[str] = []
        self.info = {"model_path": "/old", "weight_version": "4"}
        self._fail, self._how = fail, how

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.strip("/")
        asked = json.loads(request.content) if request.content else {}
        name = f"{path}:{asked['mode']}" if path == "pause_generation" else path
        self.calls.append(f"{name}:flush={asked['flush_cache']}" if "flush_cache" in asked else name)
        if path == self._fail and self._how is not None:
            return self._how(request)
        if path == "update_weights_from_disk":
            self.info = {"model_path": asked["model_path"], "weight_version": asked["weight_version"]}
        return httpx.Response(200, json=self.info if path == "model_info" else {"success": True})


@pytest.fixture
def ref(tmp_path: Path) -> WeightsRef:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 512}))
    return WeightsRef(5, str(tmp_path), "first", "")


async def take(server: Server, ref: WeightsRef, mode: Mode):
    async with EngineClient("http://engine", transport=httpx.MockTransport(server)) as engine:
        confirmed: list[Confirmed] = []

        def confirm(held: Confirmed) -> None:
            server.calls.append("confirmed")
            confirmed.append(held)

        await adopt(engine, ref, mode, HELD, confirm, worker="w0")
        return confirmed[0]


@pytest.mark.parametrize(
    ("mode", "calls"),
    [
        (Mode.DRAIN, ["update_weights_from_disk:flush=True"]),
        (Mode.IN_PLACE, ["pause_generation:in_place", "update_weights_from_disk:flush=False"]),
        (Mode.RETRACT, ["pause_generation:retract", "update_weights_from_disk:flush=True"]),
        (Mode.ABORT, ["pause_generation:abort", "update_weights_from_disk:flush=True"]),
    ],
)
async def test_each_mode_reads_the_version_back_before_it_goes_on(
    mode: Mode, calls: list[str], ref: WeightsRef
) -> None:
    server = Server()
    held = await take(server, ref, mode)
    assert server.calls == [*calls, "model_info", "confirmed", "continue_generation"]
    assert (held.ref, held.info, held.vocab_size) == (ref, ModelInfo(ref.path, "5"), 512)


async def test_refused_weights_leave_the_old_ones_in_use(ref: WeightsRef) -> None:
    refusal = {"success": False, "message": "no such tensor"}
    server = Server("update_weights_from_disk", lambda _: httpx.Response(400, json=refusal))
    with pytest.raises(AdoptionError, match="no such tensor") as caught:
        await take(server, ref, Mode.IN_PLACE)
    assert caught.value.unchanged
    assert server.calls[-2:] == ["model_info", "continue_generation"]
    assert "abort_request" not in server.calls


@pytest.mark.parametrize(
    ("fail", "how"),
    [
        pytest.param(
            "model_info",
            lambda _: httpx.Response(200, json={"model_path": "/new", "weight_version": "4"}),
            id="reads back another version",
        ),
        pytest.param("update_weights_from_disk", lambda _: httpx.Response(500), id="the update breaks"),
        pytest.param(
            "update_weights_from_disk", lambda _: httpx.Response(200, json={"success": False}), id="not confirmed"
        ),
    ],
)
async def test_from_unknown_weights_nothing_goes_on(
    fail: str, how: Callable[[httpx.Request], httpx.Response], ref: WeightsRef
) -> None:
    server = Server(fail, how)
    with pytest.raises(AdoptionError) as caught:
        await take(server, ref, Mode.IN_PLACE)
    assert not caught.value.unchanged
    assert server.calls[-2:] == ["abort_request", "continue_generation"], "ended first, then unpaused"


async def test_weights_that_are_not_here_do_not_even_pause_the_engine(tmp_path: Path) -> None:
    server = Server()
    with pytest.raises(AdoptionError, match="is the weight store mounted here") as caught:
        await take(server, WeightsRef(5, str(tmp_path / "v5"), "first", ""), Mode.IN_PLACE)
    assert caught.value.unchanged
    assert server.calls == []


@pytest.mark.parametrize(
    ("config", "size"), [({"vocab_size": 7}, 7), ({"text_config": {"vocab_size": 9}}, 9), ({"model_type": "x"}, None)]
)
def test_the_vocabulary_comes_from_the_weights_own_config(config: dict, size: int | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if size is None:
        with pytest.raises(AdoptionError, match="no vocab_size"):
            sizes(str(tmp_path))
    else:
        assert sizes(str(tmp_path)) == (size, None)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"hicache_storage_backend": "file"}, "--hicache-storage-backend file"),
        ({"hicache_storage_backend": "mooncake", "enable_hierarchical_cache": True}, "mooncake"),
        ({"enable_lmcache": True}, "--enable-lmcache"),
        ({"enable_hierarchical_cache": True, "hicache_storage_backend": None, "enable_lmcache": False}, None),
        ({}, None),
    ],
)
async def test_an_engine_that_stores_kv_without_its_version_is_refused(settings: dict, reason: str | None) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=settings))
    async with EngineClient("http://engine", transport=transport) as engine:
        if reason is None:
            await check_server(engine)
            return
        with pytest.raises(InputError, match=f"engine http://engine: .*{reason}.*KV of older weights") as refused:
            await check_server(engine)
        assert refused.value.exit_code == 2
