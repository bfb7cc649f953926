"""What a worker is doing and waiting for, and whether its engine should be counted on."""

import time
from dataclasses import dataclass, field


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

    def heartbeat(self, engine_url: str) -> dict[str, str]:
        """The fields of the worker's heartbeat."""
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
