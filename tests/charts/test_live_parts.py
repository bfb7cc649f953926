"""Parts of the chart that can run without a cluster, run: Redis with its configuration, and what `helm test` runs."""

import os
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

from golongrl.local.redis_command import find_server
from support.helm import CHART, Helm, Manifest
from support.redis_server import free_port

PASSWORD = "a pass'word$with\"signs"


@contextmanager
def running(command: list[str], env: dict[str, str], url_ready: str | None = None, port: int = 0) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 240
        while True:
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            assert time.monotonic() < deadline, f"{command[0]} did not come up"
            if url_ready:
                try:
                    if httpx.get(url_ready, timeout=10).status_code == 200:
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
        process.wait(120)


@pytest.fixture
def redis_port(helm4: Helm, tmp_path: Path) -> Iterator[int]:
    """Redis as the StatefulSet starts it: its own script and configuration, another folder and port."""
    objects = helm4.template()
    spec: Manifest = objects.one("StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    port = free_port()
    config = objects.one("ConfigMap", "-redis")["data"]["valkey.conf"]
    (tmp_path / "valkey.conf").write_text(config.replace("port 6379", f"port {port}").replace("/data", str(tmp_path)))
    script = (
        spec["args"][0].replace("/etc/valkey", str(tmp_path)).replace("exec valkey-server", f"exec {find_server()}")
    )
    # As of a Secret that was made from a file.
    env = {"GOLONGRL_REDIS_PASSWORD": f"{PASSWORD}\n"}
    with running([*spec["command"], script], env, port=port):
        yield port


def test_redis_starts_with_auth_aof_and_without_eviction(redis_port: int) -> None:
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=redis_port).ping()
    client = redis.Redis(port=redis_port, password=PASSWORD)
    settings = client.config_get("*")
    assert (settings["appendonly"], settings["maxmemory-policy"], settings["save"]) == ("yes", "noeviction", "")
    client.set("a", "b")
    assert client.execute_command("WAITAOF", 1, 0, 60_000)[0] == 1


@pytest.fixture
def reward_url() -> Iterator[str]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "golongrl",
        "reward",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, {"GOLONGRL_REWARD_TOKEN": "secret"}, url_ready=f"{url}/readyz"):
        yield url


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_redis_probes_log_in_with_a_password_that_was_made_from_a_file(helm4: Helm, tmp_path: Path, end: str) -> None:
    client = tmp_path / "valkey-cli"
    client.write_text('#!/bin/sh\n[ "$REDISCLI_AUTH" = "$PASSWORD" ] && echo PONG\n')
    client.chmod(0o755)
    (container,) = helm4.template().one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PASSWORD": PASSWORD, "REDISCLI_AUTH": f"{PASSWORD}{end}"}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        subprocess.run(container[probe]["exec"]["command"], env=env, check=True, timeout=60)


def smoke(
    redis_port: int, reward_url: str, token: str = "secret", password: str = PASSWORD
) -> "subprocess.CompletedProcess[str]":
    env = {
        **os.environ,
        "GOLONGRL_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "GOLONGRL_REDIS_PASSWORD": password,
        "GOLONGRL_REWARD_URL": reward_url,
        "GOLONGRL_REWARD_TOKEN": token,
    }
    script = str(CHART / "files" / "smoke.py")
    return subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=240, check=False)


def test_helm_test_passes_on_a_healthy_release_and_names_what_is_wrong(redis_port: int, reward_url: str) -> None:
    good = smoke(redis_port, reward_url, token="secret\n", password=f"{PASSWORD}\n")
    assert good.returncode == 0, good.stderr
    assert good.stdout.count("ok: ") == 2
    wrong_token = smoke(redis_port, reward_url, token="other")
    assert wrong_token.returncode == 1
    assert "error: reward: " in wrong_token.stderr
    wrong_password = smoke(redis_port, reward_url, password="other")
    assert wrong_password.returncode == 1
    assert "error: redis: " in wrong_password.stderr
