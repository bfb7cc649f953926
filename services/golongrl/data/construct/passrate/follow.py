"""A worker of a construction: runs `golongrl rollout` for each round that the board names, one after the other.

Invariants: at most one rollout worker runs at a time, and it is ended, with its groups given back, before the next is
started; it ends with this process, in every ordinary end; without a sign of the driver for long this process ends, so
that no GPU is held for nothing.
"""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.passrate import board
from golongrl.data.construct.passrate.board import Board

log = structlog.get_logger(__name__)

_LOOK_S: Final = 2.0
# Beyond the grace in which a worker finishes its groups: giving back the others.
_END_S: Final = 30.0
# So many ends of a worker in a minute are not an accident.
_DEATHS: Final = 3
_WITHIN_S: Final = 60.0


@dataclass(frozen=True)
class Follower:
    """What does not change from round to round."""

    board: Path
    arguments: tuple[str, ...]
    """Of `golongrl rollout`, beyond those of the round."""
    idle_s: float
    grace_s: float
    command: tuple[str, ...] = (sys.executable, "-m", "golongrl", "rollout")
    look_s: float = _LOOK_S
    stop: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Serve rounds until the board says that there are no more, or nothing changes for `idle_s`, or `stop` is set.

        Raises:
            PipelineError: the rollout worker dies again and again.
        """
        child: subprocess.Popen[bytes] | None = None
        served, deaths = "", list[float]()
        seen: Board | None = None
        changed = time.monotonic()
        try:
            while not self.stop.is_set():
                said = board.read(self.board)
                now = time.monotonic()
                if said is not None and said != seen:
                    seen, changed = said, now
                if said is not None and said.ended:
                    log.info("the model has answered all prompts")
                    return
                if now - changed > self.idle_s:
                    log.warning("no sign of the construction; ending", board=str(self.board), idle_s=self.idle_s)
                    return
                if said is not None and said.run != served:
                    _end(child, self.grace_s)
                    child, served = None, ""
                    deaths.clear()
                if child is not None and child.poll() is not None:
                    deaths = [died for died in deaths if now - died < _WITHIN_S] + [now]
                    if len(deaths) >= _DEATHS:
                        raise PipelineError(
                            f"the rollout worker ended {len(deaths)} times in a minute, last with {child.returncode}; "
                            "its lines above say why"
                        )
                    log.warning("the rollout worker has ended; starting it again", code=child.returncode)
                    child = None
                if child is None and said is not None and said.run:
                    child, served = self._start(said), said.run
                self.stop.wait(self.look_s)
        finally:
            _end(child, self.grace_s)

    def _start(self, said: Board) -> "subprocess.Popen[bytes]":
        place = Path(said.place)
        log.info("a round begins", place=said.place, run=said.run)
        round_of = (
            "--recipe", str(place / board.RECIPE), "--run", said.run, "--data", str(place / board.DATA),
            "--grace", str(self.grace_s),
        )  # fmt: skip
        return subprocess.Popen([*self.command, *round_of, *self.arguments])

    def on_signals(self) -> None:
        """Stop at SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop.set())


def _end(child: "subprocess.Popen[bytes] | None", grace_s: float) -> None:
    if child is None or child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(grace_s + _END_S)
    except subprocess.TimeoutExpired:
        log.warning("the rollout worker did not end in time; killing it")
        child.kill()
        child.wait()
