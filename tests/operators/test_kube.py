"""Calls to an API server that accepts and does not answer, or answers byte by byte: they end at their deadline."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from golongrl.kubernetes.cluster import connect
from golongrl.kubernetes.cluster_errors import ClusterSilentError
from golongrl_operator.kube import Kube
from support.operator_server import exported


@asynccontextmanager
async def server(answer: bytes, every_s: float) -> AsyncIterator[int]:
    """Sends the bytes of `answer` one by one, and never more."""
    asked: list[asyncio.StreamWriter] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        for byte in answer:
            if writer.is_closing():
                return
            writer.write(bytes([byte]))
            await asyncio.sleep(every_s)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        for writer in asked:
            writer.close()
        listening.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b" " * 9999])
async def test_a_server_that_does_not_end_its_answer(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is never silent for long enough to meet a deadline between bytes."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    async with server(answer, 0.01) as port:
        config = {
            "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "rl"}}],
            "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "x", "user": {}}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        async with connect(call_s=0.3) as calls:
            kube = Kube(calls)
            with pytest.raises(ClusterSilentError, match=r"namespace rl: list of trainingruns: no answer in 0\.3 s: "):
                async with asyncio.timeout(240):
                    await kube.look("demo", "Deployment")
            assert exported(kube.metrics.registry)["golongrl_operator_api_errors_total none"] == 1
