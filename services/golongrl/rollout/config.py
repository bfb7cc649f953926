"""A worker's settings beyond the recipe: addresses, its id, its deadlines."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WorkerConfig:
    """Settings of one rollout worker; durations in seconds."""

    run: str
    worker: str
    redis_url: str
    engine_url: str
    reward_url: str
    data: Path
    weights_copy: Path
    """Folder for the local copy of the weights, on storage that the engine reads under the same path."""
    host: str = "127.0.0.1"
    port: int = 0
    grace_s: float = 20.0
    """How long groups may still finish after SIGTERM; Kubernetes kills after 30 s by default."""
    engine_check_s: float = 2.0
    """How often an engine is asked which weights it holds, because a restarted one has others."""
    adoption_share: float = 0.05
    """Share of the time between two versions that taking one may cost before auto accepts a stale KV cache."""
