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
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.passrate import board
from golongrl.data.construct.passrate.board import Board
from golongrl.restart import GiveUp, RestartPolicy, describe_exit

log = structlog.get_logger(__name__)

# Between two looks at the board, a small file on a shared volume.
_LOOK_S: Final = 2.0
# Beyond the grace in which a worker finishes its groups: giving back the others.
_END_S: Final = 30.0
_LONG_LIFE_S: Final = 60.0
# How often it is said that there is nothing to do yet.
_TOLD_S: Final = 60.0


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
        current: _Round | None = None
        seen: Board | None = None
        changed = time.monotonic()
        told = changed - _TOLD_S
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
                if said is not None and (current is None or said.run != current.run):
                    if current is not None:
                        current.end(self.grace_s)
                    current = _Round(said.run, partial(self._start, said)) if said.run else None
                if current is not None:
                    current.keep(now)
                elif now - told >= _TOLD_S:
                    told = now
                    log.info("waiting for a round of the construction", board=str(self.board), idle_s=self.idle_s)
                self.stop.wait(self.look_s)
        finally:
            if current is not None:
                current.end(self.grace_s)

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


class _Round:
    """The rollout worker of one round: started, started again where it dies, and ended."""

    def __init__(self, run: str, start: "Callable[[], subprocess.Popen[bytes]]") -> None:
        self.run = run
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._due = self._started = 0.0
        self._long_lives = 0
        # It has no probe; what cannot start at all dies often within a minute.
        self._policy = RestartPolicy(was_ready=True)

    def keep(self, now: float) -> None:
        """Start the worker where it does not run and its pause is over.

        Raises:
            PipelineError: there is no sense in starting it again.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            # A worker that lived for long has answered prompts: such deaths do not add up.
            self._long_lives += now - self._started > _LONG_LIFE_S
            decision = self._policy.died(now, code, self._long_lives)
            if isinstance(decision, GiveUp):
                how = f"{describe_exit(code)} and {decision.reason}"
                raise PipelineError(f"the rollout worker ended with {how}; its lines above say why")
            log.warning("the rollout worker has ended; starting it again", code=code, pause_s=decision.delay_s)
            self._due = now + decision.delay_s
        if self._process is None and now >= self._due:
            self._process, self._started = self._start(), now

    def end(self, grace_s: float) -> None:
        """End the worker, which gives its groups back; after its grace it is killed."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(grace_s + _END_S)
        except subprocess.TimeoutExpired:
            log.warning("the rollout worker did not end in time; killing it")
            self._process.kill()
            self._process.wait()
