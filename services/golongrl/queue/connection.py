"""One server connection pool with bounded, spoken patience."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an operation may wait for a server that is down, loading, full or read-only."""

    total_s: float = 120.0
    longest_pause_s: float = 2.0
