"""Settings of the scoring service: how many workers, how long an item may take, how much may come in.

Sizes are bytes, durations seconds. The defaults fit groups of 16 responses of 16K tokens each.
"""

import os
from dataclasses import dataclass

from pydantic import SecretStr

from golongrl.errors import InputError
from golongrl.recipe.fields import MAX_DEADLINE_S

MIB = 1 << 20


class ConfigError(InputError, ValueError):
    """A setting that the service could not work with; the message names it."""


def default_workers() -> int:
    """One worker per CPU this process may use: scoring is pure computation."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What `create_app` needs to know; checked when made, so that a bad value never reaches a running service."""

    workers: int = 0  # 0: one per CPU
    deadline_s: float = 10.0
    max_deadline_s: float = MAX_DEADLINE_S  # a request may not hold a worker for longer than this
    max_batch: int = 256
    max_item_bytes: int = 2 * MIB  # 16K tokens of Chinese are about 70 KB; tables and gold labels come on top
    # JSON is parsed on the event loop: 8 MiB take about 30 ms, which the health probe still bears.
    max_body_bytes: int = 8 * MIB
    max_queued: int = 4096  # items waiting; beyond it new batches get 429
    body_timeout_s: float = 30.0  # a client that trickles its body longer than this gets 408
    # A metric that eats memory dies alone instead of taking the pod with it. Virtual size: the libraries map ~0.7 GiB.
    worker_memory_bytes: int = 4096 * MIB
    # Libraries under the metrics keep caches; a fresh worker costs a fork, so replacing one now and then is free.
    recycle_after: int = 20_000
    start_timeout_s: float = 120.0  # a cold import of the metrics on a throttled CPU
    token: SecretStr | None = None

    def __post_init__(self) -> None:
        for name in ("deadline_s", "max_deadline_s", "body_timeout_s", "start_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("max_batch", "max_item_bytes", "max_body_bytes", "max_queued", "recycle_after"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.workers < 0 or self.worker_memory_bytes < 0:
            raise ConfigError("workers and worker_memory_bytes must not be negative (0: one per CPU, 0: no limit)")
        if self.deadline_s > self.max_deadline_s:
            raise ConfigError(f"deadline_s {self.deadline_s} exceeds max_deadline_s {self.max_deadline_s}")
        if self.max_queued < self.max_batch:
            raise ConfigError(f"max_queued {self.max_queued} is below max_batch {self.max_batch}")
        if self.token is not None and not self.token.get_secret_value():
            raise ConfigError("token is empty: leave it unset for an open service")

    @property
    def worker_count(self) -> int:
        return self.workers or default_workers()
