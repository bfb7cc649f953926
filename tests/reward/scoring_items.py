"""Items and types that the tests of the scoring service share."""

import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

AppFactory = Callable[..., AbstractAsyncContextManager[tuple[FastAPI, httpx.AsyncClient]]]


@dataclass(frozen=True)
class Served:
    """A server process and where it listens."""

    process: subprocess.Popen[bytes]
    url: str

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


ServerFactory = Callable[..., Served]


def item(response: Any, name: str = "a", **changes: Any) -> dict[str, Any]:
    """An item of type T1 whose label is 42."""
    label = {"doc_ids": [], "golden_label": "42", "summary": "English"}
    return {"id": name, "data_source": "EM", "response": response, "ground_truth": label, "extra_info": {}} | changes
