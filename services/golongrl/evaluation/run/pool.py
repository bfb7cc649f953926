"""A running release's pool as the target: where it is, and how an evaluation gives way to the run's own rollouts.

The evaluation has a share of its own (`limits.pool_concurrency` requests in flight). While an engine has requests
waiting, whoever sent them, the share is halved again and again, down to one request; it grows back with the answers.
Where an engine schedules by priority, the requests ask for a lower one than that of requests which name none.

A release's engines have one Service for this (chart: `evaluation.target: pool`). It spreads connections over the
engines that are ready, so that engines may come and go.
"""

import asyncio
import os
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx

from golongrl import bounded_http
from golongrl.evaluation.errors import EvaluationError
from golongrl.header_keys import environment_key
from golongrl.llm import ChatClient

PREFIX: Final = "release:"
_CHART: Final = "golongrl"
# The Service's, whatever port the engines themselves have.
_PORT: Final = 30000
_NAME: Final = re.compile(r"release:(?:([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)/)?([a-z](?:[-a-z0-9]*[a-z0-9])?)")
# Every pod has it, by any way of installing Kubernetes.
_IN_CLUSTER: Final = "KUBERNETES_SERVICE_HOST"
# Requests wait for seconds where engines are full. Each look may meet another engine.
_LOOK_S: Final = 2.0
_DEADLINE_S: Final = 10.0
_WAITING: Final = re.compile(r"^sglang[:_]num_queue_reqs(?:\{[^}\n]*\})? ([0-9.eE+]+)", re.MULTILINE)


def url_of(place: str) -> str:
    """The URL of the pool that `release:NAME` or `release:NAMESPACE/NAME` names, for a process inside the cluster.

    NAME is the release's, or what its pods' names begin with.

    Raises:
        EvaluationError: it is no such name, there is no such Service, or this process is outside.
    """
    found = _NAME.fullmatch(place)
    if found is None:
        raise EvaluationError(f"--target {place}: expected release:NAME or release:NAMESPACE/NAME")
    namespace, name = found.groups()
    # As the chart names its objects, unless `fullnameOverride` says otherwise.
    names = [name] if _CHART in name else [f"{name}-{_CHART}", name]
    if _IN_CLUSTER not in os.environ:
        inside = f" -n {namespace}" if namespace else ""
        raise EvaluationError(
            f"--target {place}: this process is not inside the cluster; run it there (golongrl render evaljob SUITE "
            f"--release {name}{inside} --set evaluation.target=pool), or open a way: kubectl{inside} port-forward "
            f"deployment/{names[0]}-rollout {_PORT} (the engines' port), and give --target http://127.0.0.1:{_PORT}/v1"
        )
    hosts = [f"{one}-engines" + (f".{namespace}.svc" if namespace else "") for one in names]
    host = next(filter(_resolves, hosts), None)
    if host is None:
        raise EvaluationError(
            f"--target {place}: no Service {' or '.join(hosts)}; the chart makes it with evaluation.enabled=true and "
            "evaluation.target=pool, and `golongrl render evaljob` with the latter"
        )
    return f"http://{host}:{_PORT}/v1"


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, _PORT, type=socket.SOCK_STREAM))
    except OSError:
        return False


def waiting(metrics: str) -> float | None:
    """Requests that wait in an engine, by its Prometheus text; None where it does not tell."""
    found = _WAITING.findall(metrics)
    return sum(map(float, found)) if found else None


def priority(server: Mapping[str, Any]) -> int | None:
    """The priority below that of requests which name none, by what SGLang says about itself; None where there is none.

    Without a default, SGLang gives such requests the lowest there is, and ours are among them.
    """
    default = server.get("default_priority_value")
    if not server.get("enable_priority_scheduling") or type(default) is not int:
        return None
    return default + (1 if server.get("schedule_low_priority_values_first") else -1)


class GivingWay:
    """`async with` it: asks one endpoint for its queue as long as it is open, and keeps `client` back accordingly."""

    def __init__(
        self, client: ChatClient, key_variable: str, say: Callable[[str], None], *, look_s: float = _LOOK_S
    ) -> None:
        self._client = client
        self._say = say
        self._root = client.endpoint.url.removesuffix("/v1")
        self._look_s = look_s
        key = environment_key(key_variable)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "GivingWay":
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    async def fields(self) -> dict[str, Any]:
        """Fields of each request that lower its priority, where the engine has priorities."""
        try:
            async with self._http() as http:
                answer = await bounded_http.get(http, f"{self._root}/server_info", _DEADLINE_S)
        except httpx.HTTPError:
            return {}
        told = bounded_http.parsed(answer) if answer.is_success else None
        found = priority(told) if isinstance(told, dict) else None
        return {} if found is None else {"priority": found}

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=_DEADLINE_S, headers=self._headers, trust_env=False)

    async def _look(self) -> None:
        limit, told = self._client.gate.limit, True
        while True:
            found = None
            try:
                # A new connection each time: the Service may lead to another engine.
                async with self._http() as http:
                    answer = await bounded_http.get(http, f"{self._root}/metrics", _DEADLINE_S)
                found = waiting(answer.text) if answer.is_success else None
            except httpx.HTTPError:
                pass
            if found:
                limit.pushed_back(limit.cuts)
            if (found is not None) != told:
                told = found is not None
                self._say(
                    f"{self._root}/metrics says what waits again"
                    if told
                    else f"{self._root}/metrics does not say what waits in the engine; limits.pool_concurrency "
                    f"({self._client.endpoint.concurrency}) alone holds the evaluation back"
                )
            await asyncio.sleep(self._look_s)
