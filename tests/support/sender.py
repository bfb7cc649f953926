"""The weight sender as the learner's first rank has it."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from golongrl.broadcast.process import SenderFailedError, SenderProcess
from golongrl.queue import WeightsRef


@pytest.fixture
def sender() -> Iterator[SenderProcess]:
    """Holds nothing yet."""
    process = SenderProcess("127.0.0.1", gone)
    yield process
    process.close()


@pytest.fixture
def sender_ipv6() -> Iterator[SenderProcess]:
    """The same at an IPv6 address."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this host has no IPv6 loopback: {error}")
    process = SenderProcess("::1", gone)
    yield process
    process.close()


def gone(failure: SenderFailedError) -> None:
    """No test of a sender that is given up."""
    raise AssertionError(failure)


def hold(sender: SenderProcess, model: Path, version: int, lineage: str = "first") -> WeightsRef:
    """Hand the weights of a model folder to the sender, as a rank does."""
    folder = sender.folder()
    for path in model.glob("*.safetensors"):
        shutil.copyfile(path, folder / path.name)
    sender.hold(folder, version, lineage)
    return WeightsRef(version, str(model), lineage, "", sender.source)
