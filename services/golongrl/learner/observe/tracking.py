"""Where a step's numbers are shown beside metrics.jsonl: TensorBoard, and Weights & Biases where the recipe says so.

Invariants:
- what is shown is a copy: nothing is read back, and nobody outside can lose, hold up or end a run. Where Weights &
  Biases cannot be reached or the key is missing, its files are kept in the run's folder and one line says so; so does
  one where its process dies, and nothing more is shown there before the next start;
- a resumed run goes on in the same place; steps shown before are not shown twice.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from golongrl.recipe import Recipe

log = structlog.get_logger()

# The learner does nothing else meanwhile; an answer takes a second.
_INIT_S = 30.0
# For what has not been sent at the end; the rest stays in the folder.
_FINISH_S = 15.0
_LOST = "Weights & Biases is lost until the next start; metrics.jsonl and TensorBoard go on"


@dataclass(frozen=True)
class Tracking:
    """What Weights & Biases calls the run."""

    project: str
    run: str
    config: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: Recipe, run: str) -> "Tracking | None":
        """As the recipe says; None is not at all."""
        project = recipe.learner.wandb_project
        return None if project is None else cls(project, run, recipe.model_dump(mode="json"))


class TensorBoard:
    """Event files under OUT/tensorboard."""

    def __init__(self, out: Path, resume_at: int) -> None:
        # Imported here: it takes a second, and only a learner needs it.
        from torch.utils.tensorboard import SummaryWriter

        # purge_step: TensorBoard hides what an earlier process wrote at or after it.
        self._events: Any = SummaryWriter(str(out / "tensorboard"), purge_step=resume_at + 1 if resume_at else 0)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a step's numbers."""
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self) -> None:
        """End the file."""
        self._events.close()


class WeightsAndBiases:
    """A run of a Weights & Biases project; its own process sends what `show` only hands over."""

    def __init__(self, out: Path, tracking: Tracking) -> None:
        self._folder = str(out / "wandb")
        self._run: Any = None
        for mode, trouble in (
            (None, "Weights & Biases cannot be had; `wandb sync` sends the folder later"),
            ("offline", "Weights & Biases is not kept in the folder either"),
        ):
            if self._run is None:
                with self._unless_lost(trouble):
                    self._run = self._begin(out, tracking, mode)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a step's numbers; a step before the last one it has is dropped there."""
        if self._run is not None:
            with self._unless_lost(_LOST):
                self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Send what is left, for a bounded time."""
        if self._run is not None:
            with self._unless_lost(_LOST):
                self._run.finish()

    @contextmanager
    def _unless_lost(self, event: str) -> Iterator[None]:
        """Around each call of the client: where it fails, a line says so, and there is no run to show anything in."""
        import wandb
        from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

        failures = (wandb.Error, HandleAbandonedError, MailboxClosedError, OSError)
        try:
            yield
        except failures as error:
            self._run = None
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning(event, folder=self._folder, reason=reason)
            # Its process, if it lives, counts the run as begun.
            with suppress(*failures):
                wandb.teardown()

    @staticmethod
    def _begin(out: Path, tracking: Tracking, mode: Any) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=_INIT_S,
            finish_timeout=_FINISH_S,
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
