"""What a worker's rows are made with: clients, data and bookkeeping, one set for the life of a worker."""

from dataclasses import dataclass, field

from golongrl.data.prepared import Prepared
from golongrl.queue import SampleQueue
from golongrl.recipe import Recipe
from golongrl.reward.client import RewardClient
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.rollout.observe.state import State
from golongrl.rollout.sglang.client import EngineClient
from golongrl.telemetry.tracing import Tracing


@dataclass
class Bench:
    """Shared by everything that works on a row."""

    recipe: Recipe
    worker: str
    queue: SampleQueue
    engine: EngineClient
    reward: RewardClient
    data: Prepared
    metrics: RolloutMetrics
    state: State
    validation: Prepared | None = None
    """The validation set, where the data has one."""
    tracing: Tracing = field(default_factory=lambda: Tracing("rollout"))
