"""The sender: an HTTP app that holds one version of the weights and sends it to every engine whose worker asks.

Invariants:
- a transfer is of one version from beginning to end: a newer one is held beside it until it is over;
- at most `AT_ONCE` transfers run; who asks beyond that waits in turn, within a deadline;
- a transfer that stalls or breaks ends alone, within `groups.GROUP_TIMEOUT` of the last sign of life.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog
import torch
from fastapi import APIRouter, FastAPI, HTTPException
from safetensors import SafetensorError, safe_open

from golongrl.broadcast.groups import broadcast, form_group, leave_group, open_store
from golongrl.broadcast.plan import TensorInfo, cut, engine_names
from golongrl.broadcast.protocol import TURN_S, Ask, Bucket, Held, Hold, Transfer

log = structlog.get_logger()

# More would only share the network card; fewer would let one engine's loading hold up the next.
AT_ONCE = 4
# sha256 leaves the interpreter's lock: this many tensors are hashed at a time.
_HASHERS = 4


@dataclass(frozen=True)
class Weights:
    """One version, read from a folder that may be deleted meanwhile: its pages stay until the last transfer ends."""

    version: int
    lineage: str
    buckets: list[list[TensorInfo]]
    digests: dict[str, str]
    files: dict[str, Any]  # tensor name -> the open safetensors file it is in

    @property
    def bytes(self) -> int:
        return sum(tensor.bytes for bucket in self.buckets for tensor in bucket)

    def tensor(self, name: str) -> torch.Tensor:
        found: torch.Tensor = self.files[name].get_tensor(name)
        return found


def read_weights(folder: Path, version: int, lineage: str) -> Weights:
    """Open a folder of safetensors shards and hash what is in it.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no *.safetensors")
    files: dict[str, Any] = {}
    for path in paths:
        file: Any = safe_open(path, framework="pt")  # it carries no types
        files.update(dict.fromkeys(file.keys(), file))
    infos = [_info(name, file.get_tensor(name)) for name, file in files.items()]
    shown = engine_names(list(files))
    with ThreadPoolExecutor(_HASHERS) as pool:
        digests = pool.map(lambda parts: _digest(files, parts), shown.values())
        return Weights(version, lineage, cut(infos), dict(zip(shown, digests, strict=True)), files)


def create_app(address: str, token: str, *, at_once: int = AT_ONCE, turn_s: float = TURN_S) -> FastAPI:
    """The app. `address`: where engines reach this host; `token`: the secret first part of every path but /healthz."""
    app = FastAPI(title="GoLongRL weight sender", docs_url=None, redoc_url=None, openapi_url=None)
    sender = Sender(address, at_once, turn_s)
    routes = APIRouter(prefix=f"/{token}")

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        held = sender.held
        return {
            "status": "ok",
            "version": held and held.version,
            "sending": sorted(sender.sending),
            "waiting": sender.waiting,
        }

    @routes.put("/weights")
    async def hold(body: Hold) -> Held:
        try:
            sender.held = await asyncio.to_thread(read_weights, Path(body.folder), body.version, body.lineage)
        except (OSError, SafetensorError) as error:
            raise HTTPException(404, f"weights {body.folder}: {error}") from error
        log.info("weights held", version=body.version, lineage=body.lineage, bytes=sender.held.bytes)
        return Held(bytes=sender.held.bytes)

    @routes.post("/transfers")
    async def transfer(ask: Ask) -> Transfer:
        return await sender.begin(ask)

    app.include_router(routes)
    return app


class Sender:
    """What is held, and the transfers of it."""

    def __init__(self, address: str, at_once: int, turn_s: float) -> None:
        self.held: Weights | None = None
        self.sending: set[str] = set()  # workers
        self.waiting = 0
        self._address = address
        self._turn_s = turn_s
        self._slots = asyncio.Semaphore(at_once)
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, ask: Ask) -> Transfer:
        """Start a transfer, in its turn; the answer says how to receive it.

        Raises:
            HTTPException: 409 another version is held (or none), 503 no turn came.
        """
        self._weights(ask)
        self.waiting += 1
        try:
            async with asyncio.timeout(self._turn_s):
                await self._slots.acquire()
        except TimeoutError:
            detail = f"no turn within {self._turn_s:g} s; sending to {', '.join(sorted(self.sending))}"
            raise HTTPException(503, detail) from None
        finally:
            self.waiting -= 1
        try:
            weights = self._weights(ask)  # it may have changed while we waited
            store = open_store(1 + ask.ranks)
        except BaseException:
            self._slots.release()
            raise
        transfer = _transfer(weights, ask, self._address, store.port)
        task = asyncio.create_task(self._send(transfer, weights, store, ask.worker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return transfer

    def _weights(self, ask: Ask) -> Weights:
        held = self.held
        if held is None or (held.version, held.lineage) != (ask.version, ask.lineage):
            ours = f"version {held.version}, lineage {held.lineage}" if held else "nothing yet"
            raise HTTPException(409, f"asked for version {ask.version}, lineage {ask.lineage}; held is {ours}")
        return held

    async def _send(self, transfer: Transfer, weights: Weights, store: Any, worker: str) -> None:
        begun = time.monotonic()
        self.sending.add(worker)
        try:
            await asyncio.to_thread(_send, transfer, weights, store)
        except RuntimeError as error:
            log.warning("transfer broken off", worker=worker, version=weights.version, error=str(error).splitlines()[0])
        else:
            seconds = time.monotonic() - begun
            log.info("weights sent", worker=worker, version=weights.version, bytes=weights.bytes, seconds=seconds)
        finally:
            self.sending.discard(worker)
            self._slots.release()


def _transfer(weights: Weights, ask: Ask, address: str, port: int) -> Transfer:
    backend: Literal["gloo", "nccl"] = "nccl" if ask.device == "cuda" and torch.cuda.is_available() else "gloo"
    return Transfer(
        group=f"golongrl-v{weights.version}-{secrets.token_hex(4)}",
        address=address,
        port=port,
        world_size=1 + ask.ranks,
        backend=backend,
        buckets=[_bucket(bucket) for bucket in weights.buckets],
        digests=weights.digests,
    )


def _bucket(tensors: Sequence[TensorInfo]) -> Bucket:
    return Bucket(
        names=[tensor.name for tensor in tensors],
        dtypes=[tensor.dtype for tensor in tensors],
        shapes=[list(tensor.shape) for tensor in tensors],
    )


def _send(transfer: Transfer, weights: Weights, store: Any) -> None:
    """Blocks until every tensor is with the engine.

    Raises:
        RuntimeError: the engine did not come, or fell silent.
    """
    group = form_group(store, 0, transfer.world_size, transfer.group, transfer.backend)
    try:
        for bucket in transfer.buckets:
            for name in bucket.names:
                tensor = weights.tensor(name)
                broadcast(group, tensor.cuda() if transfer.backend == "nccl" else tensor)
    finally:
        leave_group(group)


def _info(name: str, tensor: torch.Tensor) -> TensorInfo:
    return TensorInfo(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tensor.nbytes)


def _digest(files: dict[str, Any], parts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for chunk in _bytes(files, parts):
        digest.update(chunk)
    return digest.hexdigest()[:16]


def _bytes(files: dict[str, Any], parts: Sequence[str]) -> Iterator[Any]:
    for name in parts:
        yield files[name].get_tensor(name).contiguous().view(torch.uint8).numpy()
