"""Where a step's numbers are shown in addition to metrics.jsonl: TensorBoard, and Weights & Biases if the recipe asks.

Invariants:
- what is shown is a copy: nothing is read back, and no tracker can lose, delay or end a run. If Weights & Biases cannot
  be reached or the key is missing, its files stay in the run's folder and one line reports it; if its process dies or
  hangs, a line reports that, and nothing more is shown there before the next start. The same holds for TensorBoard's
  files;
- a resumed run continues in the same place; steps shown before are not shown twice.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import structlog

from golongrl.errors import brief
from golongrl.recipe import Recipe

log = structlog.get_logger()

# The learner waits for it; an answer takes a second.
_ONLINE_S = 30.0
# For what has not been sent at the end; the rest stays in the folder.
_SEND_S = 15.0
# Offline nothing is waited for but the client's own process, which a busy machine may start and run slowly.
_OFFLINE_S = 120.0
# For one call of the client, which has no deadline where it only hands over to its process.
_CALL_S = 60.0
_PROCESS = "wandb-core"


@dataclass(frozen=True)
class Tracking:
    """What Weights & Biases calls the run."""

    project: str
    run: str
    config: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: Recipe, run: str) -> "Tracking | None":
        """As the recipe says; None if it names no project."""
        project = recipe.learner.wandb_project
        return None if project is None else cls(project, run, recipe.model_dump(mode="json"))


class TensorBoard:
    """Event files under OUT/tensorboard."""

    def __init__(self, out: Path, resume_at: int) -> None:
        # Imported here: it takes a second, and only a learner needs it.
        from torch.utils.tensorboard import SummaryWriter

        self._folder = str(out / "tensorboard")
        self._events: Any = None
        with self._unless_lost():
            # purge_step: TensorBoard hides what an earlier process wrote at or after it.
            self._events = SummaryWriter(self._folder, purge_step=resume_at + 1 if resume_at else 0)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a step's numbers."""
        if self._events is not None:
            with self._unless_lost():
                for name, value in metrics.items():
                    self._events.add_scalar(name, value, step)
                self._events.flush()

    def close(self) -> None:
        """End the file."""
        if self._events is not None:
            with self._unless_lost():
                self._events.close()

    @contextmanager
    def _unless_lost(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: of a file that an earlier OSError closed
            self._events = None
            log.warning("TensorBoard's files cannot be written; off until the next start", reason=str(error))


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    """Around a call of the Weights & Biases client: kills the client's process if the call takes longer, which ends it.

    Raises:
        TimeoutError: it took longer.
    """
    late = threading.Event()

    def kill() -> None:
        late.set()
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                if child.name() == _PROCESS:
                    child.kill()

    timer = threading.Timer(limit_s, kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if late.is_set():
            raise TimeoutError(f"its process did not answer within {limit_s:g} s")


def _end_client() -> None:
    import wandb

    # The client leaves the program with its process's exit code if that is not 0.
    with suppress(SystemExit):
        wandb.teardown()


def _unreachable(folder: str, reason: str) -> None:
    log.warning(
        "cannot reach Weights & Biases, logging offline; `wandb sync` sends the folder later",
        folder=folder,
        reason=reason,
    )


def _not_offline(folder: str, reason: str) -> None:
    log.warning("logging Weights & Biases offline failed too", folder=folder, reason=reason)


def _lost(folder: str, reason: str) -> None:
    log.warning(
        "Weights & Biases failed and is off until the next start; metrics.jsonl and TensorBoard continue",
        folder=folder,
        reason=reason,
    )


class WeightsAndBiases:
    """A run of a Weights & Biases project; its own process sends what `show` only hands over."""

    def __init__(self, out: Path, tracking: Tracking) -> None:
        self._folder = str(out / "wandb")
        self._run: Any = None
        for mode, tell in ((None, _unreachable), ("offline", _not_offline)):
            if self._run is None:
                with self._unless_lost(tell):
                    self._run = self._begin(out, tracking, mode)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a step's numbers; Weights & Biases drops a step before its last one."""
        if self._run is not None:
            with self._unless_lost(_lost), within(_CALL_S):
                self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Send what is left, for a bounded time. Only when its process has ended are its files whole."""
        if self._run is not None:
            with self._unless_lost(_lost):
                with within(_OFFLINE_S + _CALL_S):
                    self._run.finish()
                with within(_CALL_S):
                    _end_client()

    @contextmanager
    def _unless_lost(self, tell: Callable[[str, str], None]) -> Iterator[None]:
        """Around each call of the client: if it fails, a line reports it, and nothing more is shown."""
        import wandb
        from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

        failures = (wandb.Error, HandleAbandonedError, MailboxClosedError, OSError)
        try:
            yield
        except failures as error:
            self._run = None
            reason = brief(error)
            tell(self._folder, reason)
            # Its process, if it lives, still holds the run.
            with suppress(*failures), within(_CALL_S):
                _end_client()

    @staticmethod
    def _begin(out: Path, tracking: Tracking, mode: Any) -> Any:
        import wandb

        offline = (mode or os.environ.get("WANDB_MODE")) in ("offline", "dryrun")
        # Its process would leave a log of each run in the user's own cache.
        os.environ.setdefault("WANDB_CACHE_DIR", str(out / "wandb" / "cache"))
        # The start of the client's process has a limit of its own, which only `setup` can set.
        wandb.setup(wandb.Settings(x_service_wait=_OFFLINE_S))
        settings = wandb.Settings(
            init_timeout=_OFFLINE_S if offline else _ONLINE_S,
            finish_timeout=_OFFLINE_S if offline else _SEND_S,
            console="off",
            silent=True,
            disable_git=True,
            save_code=False,
        )
        return wandb.init(
            project=tracking.project,
            id=tracking.run,
            name=tracking.run,
            config=dict(tracking.config),
            dir=out,
            mode=mode,  # None: as WANDB_MODE says
            resume="allow",
            settings=settings,
        )
