"""The sender: an HTTP app that holds one version of the weights and sends it to every engine whose worker asks.

Invariants:
- a transfer is of one version from beginning to end: a newer one is held as well until it is over;
- at most `AT_ONCE` transfers run; a further worker waits its turn, within a deadline;
- a worker's connection is open for as long as it wants its transfer: when it closes, the turn or the slot is free at
  once, and an engine that is receiving a bucket gets the whole bucket;
- a transfer that stalls or breaks ends alone, within `groups.GROUP_TIMEOUT` of the last sign of life.
"""

import asyncio
import hashlib
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog
import torch
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from safetensors import SafetensorError, safe_open
from starlette.exceptions import HTTPException as StarletteHTTPException

from golongrl.broadcast.groups import broadcast, form_group, leave_group, open_store
from golongrl.broadcast.plan import TensorInfo, cut, engine_names
from golongrl.broadcast.protocol import TURN_S, Ask, Bucket, Held, Hold, Transfer
from golongrl.request_bodies import BodyLimit
from golongrl.serving import body_problem, refusal

log = structlog.get_logger()

# More would only share the network card; fewer would let one engine's loading hold up the next.
AT_ONCE = 4
# sha256 leaves the interpreter's lock: this many tensors are hashed at a time.
_HASHERS = 4
# Longest body: a path and two names, each character of them escaped; and of all bodies together.
_BODY_BYTES, _BODIES_BYTES = 1 << 16, 1 << 24
# Threads of transfers. More than slots: one that was given up waits for its engine to close or for the deadline.
_THREADS = 64


@dataclass(frozen=True)
class HeldWeights:
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


def read_weights(folder: Path, version: int, lineage: str) -> HeldWeights:
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
        return HeldWeights(version, lineage, cut(infos), dict(zip(shown, digests, strict=True)), files)


def create_app(address: str, token: str) -> FastAPI:
    """The app. `address`: where engines reach this host; `token`: the secret first part of every path but /healthz."""
    app = FastAPI(
        title="GoLongRL weight sender", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.add_middleware(BodyLimit, most=_BODY_BYTES, most_at_once=_BODIES_BYTES)
    sender = Sender(address)
    routes = APIRouter(prefix=f"/{token}")

    @app.exception_handler(RequestValidationError)
    async def no_message(_request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": body_problem(error.errors())}, 422)

    @app.exception_handler(StarletteHTTPException)
    async def refused(_request: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"detail": refusal(error)}, error.status_code, error.headers)

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
    async def transfer(ask: Ask, request: Request) -> StreamingResponse:
        left = asyncio.create_task(_left(request))
        try:
            sending = await sender.begin(ask, left)
        except BaseException:
            left.cancel()
            raise
        return StreamingResponse(sending.lines(), media_type="application/jsonl")

    app.include_router(routes)
    return app


@dataclass(frozen=True)
class Sending:
    """A transfer that has begun; `over` ends with it."""

    transfer: Transfer
    over: "asyncio.Task[None]"

    async def lines(self) -> AsyncIterator[str]:
        """The transfer, as one line; then nothing, until it is over."""
        yield f"{self.transfer.model_dump_json()}\n"
        await asyncio.wait({self.over})


class Sender:
    """What is held, and the transfers of it."""

    def __init__(self, address: str) -> None:
        self.held: HeldWeights | None = None
        self.sending: set[str] = set()  # workers
        self.waiting = 0
        self._address = address
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._threads = ThreadPoolExecutor(_THREADS, "transfer")
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, ask: Ask, left: "asyncio.Future[None]") -> Sending:
        """Start a transfer, in its turn.

        Args:
            left: done when the asker is gone.

        Raises:
            HTTPException: 409 another version is held (or none), 503 no turn came.
        """
        self._weights(ask)
        await self._turn(left)
        try:
            weights = self._weights(ask)  # it may have changed while we waited
            store = open_store(1 + ask.ranks)
        except BaseException:
            self._slots.release()
            raise
        transfer = _transfer(weights, ask, self._address, store.port)
        task = asyncio.create_task(self._send(transfer, weights, store, ask.worker, left))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return Sending(transfer, task)

    async def _turn(self, left: "asyncio.Future[None]") -> None:
        """Take a slot."""
        turn = asyncio.create_task(self._slots.acquire())
        self.waiting += 1
        try:
            await _either(turn, left, timeout=TURN_S)
        finally:
            self.waiting -= 1
            turn.cancel()
        if turn.done() and not left.done():
            return
        if turn.done():
            self._slots.release()
        detail = f"no turn within {TURN_S:g} s; sending to {', '.join(sorted(self.sending))}"
        raise HTTPException(503, "the asker is gone" if left.done() else detail)

    def _weights(self, ask: Ask) -> HeldWeights:
        held = self.held
        if held is None or (held.version, held.lineage) != (ask.version, ask.lineage):
            ours = f"version {held.version}, lineage {held.lineage}" if held else "nothing yet"
            raise HTTPException(409, f"asked for version {ask.version}, lineage {ask.lineage}; held is {ours}")
        return held

    async def _send(
        self, transfer: Transfer, weights: HeldWeights, store: Any, worker: str, left: "asyncio.Future[None]"
    ) -> None:
        begun = time.monotonic()
        gone = threading.Event()
        sending = asyncio.get_running_loop().run_in_executor(self._threads, _send, transfer, weights, store, gone)
        self.sending.add(worker)
        try:
            await _either(sending, left)
        finally:
            gone.set()
            self.sending.discard(worker)
            self._slots.release()
        if trouble := await sending:
            log.warning("transfer broken off", worker=worker, version=weights.version, error=trouble)
            return
        seconds = time.monotonic() - begun
        log.info("weights sent", worker=worker, version=weights.version, bytes=weights.bytes, seconds=seconds)


async def _either(*some: "asyncio.Future[Any]", timeout: float | None = None) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(some, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def _left(request: Request) -> None:
    """Wait until the asker's connection closes (or the answer to it is complete)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _transfer(weights: HeldWeights, ask: Ask, address: str, port: int) -> Transfer:
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


def _send(transfer: Transfer, weights: HeldWeights, store: Any, gone: threading.Event) -> str | None:
    """Blocks until every tensor is with the engine.

    Returns:
        What went wrong, in one line: the engine did not come, or fell silent, or its worker is `gone`. Not raised: a
        traceback would keep the group's connections open, and the engine waiting at its end of them.
    """
    try:
        group = form_group(store, 0, transfer.world_size, transfer.group, transfer.backend)
        try:
            for bucket in transfer.buckets:
                if gone.is_set():  # only here: an engine that waits for the rest of a bucket gets it
                    return "the worker that asked is gone"
                for name in bucket.names:
                    tensor = weights.tensor(name)
                    broadcast(group, tensor.cuda() if transfer.backend == "nccl" else tensor)
        finally:
            leave_group(group)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


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
