"""What a worker is doing and waiting for, and whether its engine should be counted on. Pure."""

from dataclasses import dataclass, field


@dataclass
class State:
    """The worker's public face: /readyz, heartbeats and logs all read it here."""

    phase: str = "starting"
    """starting, generating, waiting, adopting, quarantined, idle (the run is over), stopping."""
    waiting_for: str | None = "the engine"
    engine_up: bool = False
    quarantine: str | None = None
    """Why the engine's weights are not trusted."""
    engine_version: int | None = None
    announced_version: int | None = None
    groups: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    submitted: int = 0


def not_ready(state: State, eta: int) -> list[str]:
    """Why the engine behind this worker should not be counted on; nothing when it should."""
    reasons = []
    if not state.engine_up:
        reasons.append("engine: not answering")
    if state.quarantine is not None:
        reasons.append(f"quarantined: {state.quarantine}")
    if state.engine_version is None:
        reasons.append("weights: the engine holds no confirmed version")
    elif state.announced_version is not None and state.announced_version - state.engine_version > eta:
        behind = state.announced_version - state.engine_version
        reasons.append(f"weights: version {state.engine_version} is {behind} behind, more than max_staleness {eta}")
    if state.phase == "stopping":
        reasons.append("stopping")
    return reasons
