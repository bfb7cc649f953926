"""What every test may use, and how the tests are dealt to the workers of `pytest -n`."""

import logging
import os
import signal
import sys

import pytest
import structlog
from hypothesis import settings

# Without deadlines, which a busy machine misses, and with the same examples every time: whether the tests pass is then
# a fact about the code. `make test-full` draws new ones, and the usual number of them.
settings.register_profile("search", settings.get_profile("ci"), derandomize=False)
settings.register_profile("short", settings.get_profile("ci"), max_examples=40)
settings.load_profile("short")

# Else each of the processes that run at once has as many threads of PyTorch as there are cores, and they wait for one
# another: a third of the time of what computes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Under `nohup` a hang-up is ignored, here and in all that the tests start: its tests would wait without end.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# And in a script's background (`&`) Ctrl-C is.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["support.fixtures", "support.redis_server", "support.sender"]

# Folders with tests of minutes, the longest first: a worker that met them last would work alone at the end.
LONG_FIRST = (
    "integration",
    "local",
    "learner",
    "contract",
    "chaos",
    "rollout",
    "reward",
    "queue",
    "operators",
    "charts",
)

# Parallel workers look for free ports in ranges of their own: a port that one has found is not yet bound when the other
# looks, since the processes that bind it take seconds to start.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    size = 10_000 // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    first = 20_000 + int(worker.removeprefix("gw")) * size
    os.environ["GOLONGRL_PORTS"] = f"{first}-{first + size - 1}"


@pytest.fixture(autouse=True)
def _logging_as_imported() -> None:
    """A command that ran in this process has set its level of logging for all tests after it."""
    structlog.reset_defaults()
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def _torch_draws_the_same() -> None:
    """Whatever the tests before it on the same worker have drawn. Who never imports torch need not wait for it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)

    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=turn)
