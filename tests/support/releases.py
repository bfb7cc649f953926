"""Objects of a release `demo` in namespace `rl`, as the API server in memory keeps them, and one look at them."""

import asyncio
from typing import Any

from golongrl.kubernetes.cluster import connect
from golongrl.kubernetes.look.gather import ReleaseLook, ask, look

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def pod(name: str, component: str = "rollout", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app.kubernetes.io/component": component}}, "status": status}


def stored(item: dict[str, Any], kind: str = "Pod", version: str = "v1") -> dict[str, Any]:
    """An object of the release `demo` as the API server keeps it."""
    metadata = item["metadata"]
    labels = {
        "app.kubernetes.io/instance": "demo",
        "app.kubernetes.io/part-of": "golongrl",
        **metadata.get("labels", {}),
    }
    return {"apiVersion": version, "kind": kind, **item, "metadata": {**metadata, "namespace": "rl", "labels": labels}}


def look_at(release: str = "demo", context: str | None = None) -> tuple[ReleaseLook, dict[str, Any] | None]:
    async def see() -> tuple[ReleaseLook, dict[str, Any] | None]:
        async with connect(context=context) as calls:
            seen = await look(calls, release)
            return seen, await ask(calls, seen)

    return asyncio.run(see())
