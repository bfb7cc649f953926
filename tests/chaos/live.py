"""A real `golongrl train` run, and a seeded hand that kills and freezes its processes, one hit after the other.

What is seeded is who is hit, how, and in which phase of the learner; a phase that is over before it was seen is not
waited for. A run ends by right after three deaths of one service within a minute, so a service dies at most twice in
one life of the supervisor: hits are spaced by what was observed, and no number of seconds makes them legal.
"""

import contextlib
import json
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import psutil

from golongrl.local.survivors import of_run
from golongrl.telemetry import run_info
from support.train_run import Run

# Words of the command line of each process that may be hit, and the service that dies with it.
VICTIMS: Final[Mapping[str, tuple[str, str]]] = {
    "redis": ("valkey-server", "redis"),
    "reward": ("golongrl reward", "reward"),
    "engine": ("golongrl engine", "engine"),
    "worker": ("golongrl rollout", "rollout"),
    "learner": ("golongrl learner", "learner"),
    "rank": ("ray::LearnerRank", "learner"),
    "raylet": ("/raylet/raylet ", "learner"),
    "gcs": ("/gcs/gcs_server ", "learner"),
}
OF_THE_LEARNER: Final = tuple(name for name, (_, service) in VICTIMS.items() if service == "learner")
OTHERS: Final = tuple(name for name in VICTIMS if name not in OF_THE_LEARNER)
# What the learner says that it does in a step; every second one has them all.
PHASES: Final = ("updating", "publishing version", "waiting for step", "saving checkpoint")
START: Final = ("checking", "publishing the initial", "starting the ranks")
END: Final = "exporting"
# Of a hit: two until its phase is given up, and one that has to be made afterwards.
STEPS_OF_A_HIT: Final = 3
# Shorter than the deadlines after which what hangs is killed.
FREEZES_S: Final = (1.0, 5.0, 10.0)


@dataclass(frozen=True)
class Hit:
    """Who is hit in which phase: killed, or frozen for some seconds; `other` is frozen at the same moment."""

    victim: str
    phase: str
    frozen_s: float | None = None
    other: str | None = None

    def __str__(self) -> str:
        how = "killed" if self.frozen_s is None else f"frozen for {self.frozen_s:g} s"
        return f"{self.victim}{f' with {self.other} frozen' if self.other else ''} {how} ({self.phase})"


def schedule(chance: random.Random) -> tuple[list[Hit], list[Hit]]:
    """The hits of two lives of the supervisor: each victim is killed once, and in each life two are frozen at once.

    Two of the learner's processes die in each life: one while it starts, and in the second life one as it exports.
    """
    own, others = chance.sample(OF_THE_LEARNER, k=4), chance.sample(OTHERS, k=4)
    lives: list[list[Hit]] = []
    for number in range(2):
        # The rank and Ray are there only in the last part of a start.
        first = "starting the ranks" if own[2 * number] != "learner" else chance.choice(START)
        hits = [Hit(own[2 * number], first)]
        frozen, other = chance.sample(tuple(VICTIMS), k=2)
        later = [Hit(frozen, chance.choice(PHASES), chance.choice(FREEZES_S), other)]
        later += [Hit(victim, chance.choice(PHASES)) for victim in others[2 * number : 2 * number + 2]]
        last = Hit(own[2 * number + 1], chance.choice(PHASES) if number == 0 else END)
        if number == 0:
            later.append(last)
        chance.shuffle(later)
        lives.append([*hits, *later, *([last] if number else [])])
    return lives[0], lives[1]


@dataclass
class LiveRun:
    """The run in `out`, started by `start` and again by `resume`."""

    out: Path
    arguments: Sequence[str]
    told: list[str] = field(default_factory=list)
    """What was done to it."""
    temporary: set[Path] = field(default_factory=set)
    """Folders for temporary files that it had."""
    run: Run = field(init=False)

    def start(self, *more: str) -> None:
        self.run = Run(self.out, *more, *self.arguments)

    def kill_and_resume(self) -> None:
        """SIGKILL to the supervisor, and the command that it would have named."""
        self._note_temporary()
        self.told.append(f"step {self.step}: supervisor killed ({self._doing()})")
        self.run.signal(signal.SIGKILL)
        self.run.wait()
        self.run = Run(self.out, "--resume")

    @property
    def step(self) -> int:
        return max(self.run.steps(), default=0)

    def hit(self, hit: Hit) -> None:
        """Once the phase is seen, or another step is over; returns when the run has made one more step since.

        A hit of the end waits for no step, and for no phase that the run's end overtakes.
        """
        limit = self.step + 1 if hit.phase != END else 1 << 30
        self._until(lambda: (self._doing().startswith(hit.phase) or self.step > limit) and self._there(hit), hit)
        self._note_temporary()
        self.told.append(f"step {self.step}: {hit}, in fact: {self._doing()}")
        targets = [self._find(name) for name in (hit.victim, hit.other) if name]
        found = [target for target in targets if target is not None]
        for process in found if hit.frozen_s is not None else found[1:]:
            _signal(process, signal.SIGSTOP)
        if hit.frozen_s is None:
            for process in found[:1]:
                _signal(process, signal.SIGKILL)
        else:
            time.sleep(hit.frozen_s)
        for process in found:
            _signal(process, signal.SIGCONT)
        before = self.step
        if hit.phase != END:
            self.run.until(lambda: self.step > before)

    def _until(self, what: Callable[[], bool], hit: Hit) -> None:
        self.run.until(lambda: what() or (hit.phase == END and self.run.ended))

    def left(self) -> list[str]:
        """Processes and folders of temporary files that outlived the run."""
        processes = [str(process) for process in of_run(self.run.folder)]
        return [*processes, *(str(folder) for folder in self.temporary if folder.exists())]

    def _there(self, hit: Hit) -> bool:
        return self._find(hit.victim) is not None

    def _find(self, victim: str) -> psutil.Process | None:
        """The process of a victim; None while there is none."""
        with contextlib.suppress(AssertionError, psutil.Error):
            return self.run.child(VICTIMS[victim][0])
        return None

    def _doing(self) -> str:
        """What the learner says that it does; nothing while it does not answer."""
        info = run_info.RunInfo.read(self.run.folder)
        with contextlib.suppress(httpx.HTTPError, KeyError, json.JSONDecodeError):
            port = info.ports["learner"] if info else 0
            return str(httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2.0).json()["doing"])
        return ""

    def _note_temporary(self) -> None:
        info = run_info.RunInfo.read(self.run.folder)
        if info is not None and info.temporary:
            self.temporary.add(Path(info.temporary))


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    # It may have ended meanwhile, as a rank does whose learner was killed.
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
