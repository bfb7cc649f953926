"""What a worker is doing and waiting for, and whether its engine should be counted on."""

import time
from dataclasses import dataclass, field
from typing import Final

from golongrl.rollout.observe.losses import AdoptionLoss
from golongrl.rollout.observe.pulse import SilenceClock
from golongrl.telemetry.waits import PendingWait, Waits, dumps, longest

# Who has to act on a wait of the loop, by its label, and what is waited for where the reason's own words say it badly.
# `slots` and `drain` are the groups' own waits, which are registered with their progress; `stopped` is nobody's.
_ACTS: Final = {
    "setup": ("learner", "{on} to set up the run"),
    "queue": ("redis", ""),
    "engine": ("engine", ""),
    "weights": ("learner", "new weights of {on}"),
    "source": ("storage", ""),
    "quarantine": ("engine", ""),
    "adoption": ("engine", "{on} to take new weights"),
    "reward": ("reward", ""),
    "full": ("learner", "{on} to train the groups that are ready"),
    "behind": ("learner", "new weights of {on}"),
    "ahead": ("learner", ""),
    "bytes": ("learner", "a checkpoint of {on}, which frees the queue"),
    "no_rows": ("learner", "{on} to train the last groups"),
    "lineage": ("learner", "new weights of {on}"),
}


@dataclass
class State:
    """What /readyz, heartbeats and logs report."""

    phase: str = "starting"
    """starting, generating, waiting, adopting, quarantined, idle (the run is over), stopping."""
    waiting_for: str | None = "the engine"
    wait: str | None = "engine"
    """The label of what is waited for."""
    since: float = field(default_factory=time.monotonic)
    """When the wait with this label, or the work, began (monotonic clock)."""
    engine_up: bool = False
    quarantine: str | None = None
    """Why the engine's weights are not trusted."""
    engine_version: int | None = None
    announced_version: int | None = None
    groups: int = 0
    validation_rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    submitted: int = 0
    waits: Waits = field(default_factory=Waits)
    """The waits of the groups, and for Redis."""
    engine_pulse: SilenceClock = field(default_factory=SilenceClock)
    reward_pulse: SilenceClock = field(default_factory=SilenceClock)
    paused_since: float | None = None
    """Since when the engine has been seen paused."""
    paused_by: str = ""
    engine_waits: str = ""
    """What the engine waits for, as it says itself (`telemetry.waits.dumps`)."""
    reward_waits: str = ""
    kv_use: float | None = None
    """Share of the engine's KV cache that requests hold; None if it does not say."""
    kv_waiting: int = 0
    """Requests that wait for room in it."""
    adoption: AdoptionLoss = field(default_factory=AdoptionLoss)

    def current(self) -> list[PendingWait]:
        """What the worker waits for."""
        on, what = _ACTS.get(self.wait or "", ("", ""))
        loop = [PendingWait(on, what or self.waiting_for or "", time.monotonic() - self.since)] if on else []
        return longest([*loop, *self.waits.current()])

    def paused(self, by: str | None) -> None:
        """The engine was seen paused by this one, or (None) not paused."""
        if by is None:
            self.paused_since = None
        elif self.paused_since is None:
            self.paused_since, self.paused_by = time.monotonic(), by

    def heartbeat(self, engine_url: str) -> dict[str, str]:
        """The fields of the worker's heartbeat; the operator sizes the pool by some of them."""
        lost = self.adoption.share(time.monotonic())
        return {
            "phase": self.phase,
            "waiting_for": self.waiting_for or "",
            "wait": self.wait or "",
            "for_s": f"{time.monotonic() - self.since:.0f}",
            "engine": engine_url,
            "engine_version": "" if self.engine_version is None else str(self.engine_version),
            "groups": str(self.groups),
            "validation_rows": str(self.validation_rows),
            "submitted": str(self.submitted),
            "rejected": " ".join(f"{reason}={count}" for reason, count in sorted(self.rejected.items())),
            "quarantine": self.quarantine or "",
            "waits": dumps(self.current()),
            "engine_silent_s": f"{self.engine_pulse.silent_s:.0f}",
            "reward_silent_s": f"{self.reward_pulse.silent_s:.0f}",
            "engine_waits": self.engine_waits,
            "reward_waits": self.reward_waits,
            "engine_paused_s": "" if self.paused_since is None else f"{time.monotonic() - self.paused_since:.0f}",
            "kv_use": "" if self.kv_use is None else f"{self.kv_use:.3f}",
            "kv_waiting": "" if self.kv_use is None else str(self.kv_waiting),
            "adoption_share": "" if lost is None else f"{lost:.4f}",
            "engine_paused_by": "" if self.paused_since is None else self.paused_by,
        }


def not_ready(state: State, max_staleness: int) -> list[str]:
    """Why the engine behind this worker should not be counted on; nothing when it should."""
    reasons = []
    if not state.engine_up:
        reasons.append("engine: not answering")
    if state.quarantine is not None:
        reasons.append(f"quarantined: {state.quarantine}")
    if state.engine_version is None:
        reasons.append("weights: the engine holds no confirmed version")
    elif state.announced_version is not None and state.announced_version - state.engine_version > max_staleness:
        behind = state.announced_version - state.engine_version
        limit = f"more than max_staleness {max_staleness}"
        reasons.append(f"weights: version {state.engine_version} is {behind} behind, {limit}")
    if state.phase == "stopping":
        reasons.append("stopping")
    return reasons
