"""Weights by broadcast: the real sender process, real gloo, the embedded engine; and every way it can break off."""

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from golongrl.broadcast.app import AT_ONCE
from golongrl.broadcast.client import asked
from golongrl.broadcast.groups import GROUP_TIMEOUT
from golongrl.broadcast.process import SenderFailedError, SenderProcess
from golongrl.broadcast.protocol import Ask
from golongrl.queue import WeightsRef
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.errors import AdoptionError, EngineRefusedError
from golongrl.rollout.weights.policy import Mode
from rollout.harness import adopted, embedded_engine
from support.sender import gone, hold

pytestmark = pytest.mark.timeout(300)


async def from_disk(model: Path, version: int) -> dict[str, str]:
    """The checksums of a fresh engine that took `model` from disk."""
    async with embedded_engine(model) as url, EngineClient(url) as engine:
        await engine.update_from_disk(str(model), str(version), flush_cache=True)
        return await engine.checksums()


@pytest.mark.parametrize(
    "mode",
    [Mode.RETRACT, *(pytest.param(mode, marks=pytest.mark.full) for mode in (Mode.DRAIN, Mode.IN_PLACE, Mode.ABORT))],
)
async def test_the_engine_holds_exactly_what_was_sent(
    sender: SenderProcess, tiny_model: Path, tiny_model_next: Path, engine_url: str, mode: Mode
) -> None:
    async with EngineClient(engine_url) as engine:
        first = await adopted(engine, hold(sender, tiny_model_next, 1), mode)
        assert (await engine.model_info()).weight_version == "1"
        assert await engine.ready()
        assert await engine.checksums() == await from_disk(tiny_model_next, 1)
        # The next version finds no trace of the one before.
        second = await adopted(engine, hold(sender, tiny_model, 2), mode, first)
        assert second.ref.version == 2
        assert await engine.checksums() == await from_disk(tiny_model, 2)


async def test_no_transfer_leaves_the_engine_as_it_was(
    sender: SenderProcess, tiny_model: Path, engine_url: str
) -> None:
    ref = hold(sender, tiny_model, 3)
    async with EngineClient(engine_url) as engine:
        before = await engine.model_info()
        for wrong, reason in (
            (WeightsRef(4, ref.path, "first", "", ref.source), "held is version 3, lineage first"),
            (WeightsRef(3, ref.path, "other", "", ref.source), "409: asked for version 3, lineage other"),
            (WeightsRef(3, ref.path, "first", "", "http://127.0.0.1:1/secret"), "weight sender 127.0.0.1:1: Connect"),
            (WeightsRef(3, ref.path, "first", "", ref.source[:-3]), "404: Not Found"),
        ):
            with pytest.raises(AdoptionError, match=reason) as failure:
                await adopted(engine, wrong)
            assert failure.value.unchanged
        assert await engine.model_info() == before
        assert await engine.ready()


class Breaking(EngineClient):
    """An engine's client that does something at a given call."""

    at, do = "", staticmethod(lambda: None)

    async def _confirmed(self, path, body, deadline_s=None):  # type: ignore[no-untyped-def]
        if path == self.at:
            self.at = ""
            self.do()
        return await super()._confirmed(path, body, deadline_s)


async def test_weights_that_cannot_be_read_back_are_not_the_old_ones(
    sender: SenderProcess, tiny_model: Path, tiny_model_next: Path, engine_url: str
) -> None:
    """A replay came out differently: by name and number the engine holds what it held."""

    def refuse() -> None:
        raise EngineRefusedError("POST /weights_checker: 400", 400)

    async with Breaking(engine_url) as engine:
        ref = hold(sender, tiny_model, 3)
        held = await adopted(engine, ref)
        again = replace(hold(sender, tiny_model_next, 3, "second"), path=ref.path)
        engine.at, engine.do = "/weights_checker", refuse
        with pytest.raises(AdoptionError, match="weights_checker") as failure:
            await adopted(engine, again, held=held)
        assert not failure.value.unchanged
        assert await engine.ready()


def sender_pid(sender: SenderProcess) -> int:
    return int(sender._process.pid)


async def test_a_sender_that_dies_in_the_middle_leaves_unknown_weights_and_comes_back(
    sender: SenderProcess, tiny_model_next: Path, engine_url: str
) -> None:
    ref = hold(sender, tiny_model_next, 1)
    pid = sender_pid(sender)
    async with Breaking(engine_url) as engine:
        engine.at, engine.do = "/update_weights_from_distributed", lambda: os.kill(pid, signal.SIGKILL)
        # Joined, paused, session open; now nobody sends.
        with pytest.raises(AdoptionError) as failure:
            await adopted(engine, ref)
        assert not failure.value.unchanged
        assert await engine.ready()
        # The same source again: the process was started anew, with the same weights, by itself.
        async with asyncio.timeout(240):
            while sender_pid(sender) == pid:
                await asyncio.sleep(0.05)
        await asyncio.to_thread(sender._lock.acquire)
        sender._lock.release()
        await adopted(engine, ref)
        assert await engine.checksums() == await from_disk(tiny_model_next, 1)


async def test_a_dead_engine_holds_up_nobody(sender: SenderProcess, tiny_model_next: Path, engine_url: str) -> None:
    """A worker that asked and never came has its slot; another engine is served beside it."""
    ref = hold(sender, tiny_model_next, 1)

    class Gone(EngineClient):
        async def init_group(self, **_):  # type: ignore[no-untyped-def]
            raise asyncio.CancelledError

    async with Gone(engine_url) as gone, EngineClient(engine_url) as engine:
        with pytest.raises(asyncio.CancelledError):
            await adopted(gone, ref, worker="gone")
        await adopted(engine, ref)
        assert await engine.checksums() == await from_disk(tiny_model_next, 1)


# A worker's process, many times over: it asks, says so, and never comes.
ASKERS = """
import asyncio, sys
from golongrl.broadcast.client import asked
from golongrl.broadcast.protocol import Ask
async def one(number):
    async with asked(sys.argv[1], Ask(worker=f"w{number}", version=1, lineage="first", ranks=1, device="cpu")):
        await asyncio.Event().wait()
async def all():
    await asyncio.gather(*map(one, range(int(sys.argv[2]))))
asyncio.run(all())
"""


async def until(sender: SenderProcess, sending: int, waiting: int) -> None:
    """Until the sender says it has so many transfers; well within the deadline that would end them anyhow."""
    url = httpx.URL(sender.source).copy_with(path="/healthz")
    async with httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(GROUP_TIMEOUT.total_seconds() / 2):
        while True:
            health = (await http.get(url)).json()
            if (len(health["sending"]), health["waiting"]) == (sending, waiting):
                return
            await asyncio.sleep(0.05)


async def test_a_killed_worker_frees_its_slot_and_its_turn(sender: SenderProcess, tiny_model: Path) -> None:
    ref = hold(sender, tiny_model, 1)
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", ASKERS, ref.source, str(AT_ONCE + 2))
    await until(sender, AT_ONCE, waiting=2)
    killed.kill()
    await killed.wait()
    await until(sender, 0, waiting=0)
    async with asked(ref.source, Ask(worker="next", version=1, lineage="first", ranks=1, device="cpu")):
        await until(sender, 1, waiting=0)


async def test_an_engine_whose_worker_is_gone_gets_nothing_and_does_not_wait_for_it(
    sender: SenderProcess, tiny_model: Path, engine_url: str
) -> None:
    ref = hold(sender, tiny_model, 1)
    async with EngineClient(engine_url) as engine:
        async with asked(ref.source, Ask(worker="gone", version=1, lineage="first", ranks=1, device="cpu")) as transfer:
            await until(sender, 1, waiting=0)
        await until(sender, 0, waiting=0)
        await engine.init_group(
            master_address=transfer.address,
            master_port=transfer.port,
            rank_offset=1,
            world_size=transfer.world_size,
            group_name=transfer.group,
            backend=transfer.backend,
        )
        await engine.begin_weight_update()
        async with asyncio.timeout(GROUP_TIMEOUT.total_seconds() / 2):
            with pytest.raises(EngineRefusedError, match=r"the broadcast in group .* failed"):
                await engine.update_from_distributed(transfer.buckets[0], transfer.group, "1", flush_cache=True)


@pytest.mark.full
async def test_over_ipv6(sender_ipv6: SenderProcess, tiny_model_next: Path, engine_url: str) -> None:
    ref = hold(sender_ipv6, tiny_model_next, 1)
    assert ref.source.startswith("http://[::1]:")
    async with EngineClient(engine_url) as engine:
        held = await adopted(engine, ref)
    assert held.reading is not None
    assert held.reading.checksums == await from_disk(tiny_model_next, 1)


async def test_the_sender_leaves_with_its_parent_and_takes_its_files(tiny_model: Path) -> None:
    process = SenderProcess("127.0.0.1", gone)
    try:
        folder = Path(hold(process, tiny_model, 1).path and process._root)
        child = psutil.Process(sender_pid(process))
        assert process._process.stdin is not None
        process._closed = True  # what is watched for is not this end
        process._process.stdin.close()
        child.wait(120)
        assert not folder.exists()
    finally:
        process.close()


async def test_a_folder_without_weights_is_an_error_of_the_rank(sender: SenderProcess) -> None:
    folder = sender.folder()
    with pytest.raises(SenderFailedError, match=rf"cannot hold version 7: weights {folder}: .*no \*.safetensors"):
        sender.hold(folder, 7, "first")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(SenderFailedError, match=rf"cannot hold version 7: weights {folder}: .*header") as failure:
        sender.hold(folder, 7, "first")
    assert sender._token not in str(failure.value), "the secret is in no log"


@pytest.mark.full
async def test_a_sender_that_dies_when_it_is_told_to_hold_is_started_again(
    sender: SenderProcess, tiny_model: Path, tiny_model_next: Path, engine_url: str
) -> None:
    hold(sender, tiny_model, 1)
    pid = sender_pid(sender)
    os.kill(pid, signal.SIGKILL)
    ref = hold(sender, tiny_model_next, 2)
    assert sender_pid(sender) != pid
    async with EngineClient(engine_url) as engine:
        await adopted(engine, ref)
        assert await engine.checksums() == await from_disk(tiny_model_next, 2)


@pytest.mark.full
async def test_a_sender_that_keeps_dying_is_given_up(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("golongrl.broadcast.process._RESTARTS", 1)
    given_up: list[SenderFailedError] = []
    process = SenderProcess("127.0.0.1", given_up.append)
    try:
        hold(process, tiny_model, 1)
        async with asyncio.timeout(240):
            while not given_up:
                with suppress(ProcessLookupError):
                    os.kill(sender_pid(process), signal.SIGKILL)
                await asyncio.sleep(0.05)
        assert "the weight sender died 2 times (exit code -9)" in str(given_up[0])
        assert len(given_up) == 1
    finally:
        process.close()


def test_folders_that_nobody_holds_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their owner's process id may be in use again: in a container they begin anew, its volumes do not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "golongrl-weights-killed"
    (left / "version").mkdir(parents=True)
    one = SenderProcess("127.0.0.1", gone)
    try:
        assert not left.exists()
        other = SenderProcess("127.0.0.1", gone)
        assert len(list(tmp_path.glob("golongrl-weights-*"))) == 2
        other.close()
    finally:
        one.close()
    assert not list(tmp_path.glob("golongrl-weights-*"))


async def test_older_snapshots_are_deleted(sender: SenderProcess, tiny_model: Path, tiny_model_next: Path) -> None:
    hold(sender, tiny_model, 1)
    hold(sender, tiny_model_next, 2)
    assert len(list(sender._root.iterdir())) == 1
