"""What runs inside a worker process: read an item, score it, answer, again.

The worker is expendable: it may be killed at any moment, so it owns nothing but its end of a private socket. A score
function that raises ends the worker; the pool then reports that item and starts another worker.

Frames on the socket: 4 bytes of length (big-endian), then that many bytes. An item is a pickled tuple of the score
function's arguments, an answer its pickled return value; both sides are our own processes on one machine. An empty
frame from the worker says that it is warm.
"""

import ctypes
import importlib
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

HEADER = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Where the limit is none: closing more of them takes seconds.
_MOST_FDS = 1 << 20


def frame(body: bytes) -> bytes:
    """`body` with its length in front."""
    return HEADER.pack(len(body)) + body


def main(channel: socket.socket, score: Callable[..., Any], preload: Sequence[str], memory_bytes: int) -> None:
    """Answer items until the other end closes. `preload` names modules whose import makes the metrics warm."""
    _become_expendable(memory_bytes)
    _close_all_but(channel.fileno())
    for module in preload:
        importlib.import_module(module)
    sent = _send(channel, b"")
    with channel, channel.makefile("rb") as stream:
        while sent and (body := _received(stream)) is not None:
            arguments = pickle.loads(body)
            sent = _send(channel, pickle.dumps(score(*arguments)))


def _send(channel: socket.socket, body: bytes) -> bool:
    """False: the service was killed, and nobody is left to tell."""
    try:
        channel.sendall(frame(body))
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _received(stream: BinaryIO) -> bytes | None:
    """The next frame; None: the service closed, or was killed in the middle of one."""
    try:
        header = stream.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        size = HEADER.unpack(header)[0]
        body = stream.read(size)
    except ConnectionResetError:
        return None
    return body if len(body) == size else None


def _close_all_but(channel: int) -> None:
    """A worker inherits the pipe that keeps the fork server alive, and would so outlive a service that was killed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(3, channel)
    os.closerange(channel + 1, min(most, _MOST_FDS) if most != resource.RLIM_INFINITY else _MOST_FDS)


def _become_expendable(memory_bytes: int) -> None:
    # The service decides when workers end: a signal to the whole process group must not cost accepted items.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        _, allowed = resource.getrlimit(resource.RLIMIT_AS)
        # The user's own limit (`ulimit -v`) may be lower, and cannot be raised.
        most = memory_bytes if allowed == resource.RLIM_INFINITY else min(memory_bytes, allowed)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if sys.platform == "linux":
        # A worker that hangs would not notice that the service is gone: the fork server then ends, and this is how the
        # kernel passes it on.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Where memory runs out all the same, the kernel should take a worker and not the service.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
