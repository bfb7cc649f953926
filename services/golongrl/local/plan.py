"""Which processes a run on one machine needs: pure functions from the recipe and the options to command lines.

Each process is the entry point that a pod runs too; they are told where the others are by address alone. A password
never stands in a command line, which every user of the machine can read: it reaches a process by its environment.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from golongrl.ports import GIVEN_VARIABLE, given_away
from golongrl.recipe import Recipe
from golongrl.telemetry import journal
from golongrl.telemetry.tracing import ENDPOINT, endpoint_of, traces_url

HOST = "127.0.0.1"

LOCK = ".lock"

EngineKind = Literal["embedded", "sglang"]

# What SGLang's server needs to hear where there is no GPU.
SGLANG_ON_CPU = (
    "--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch",
    "--disable-cuda-graph", "--disable-overlap-schedule", "--skip-server-warmup",
)  # fmt: skip

# How every process of a run is recognised when its supervisor is gone: the run's folder.
FOLDER_VARIABLE = "GOLONGRL_RUN_FOLDER"
PASSWORD_VARIABLE = "GOLONGRL_REDIS_PASSWORD"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what; `path` is `runs/NAME`."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def engines(self) -> Path:
        return self.path / "engines"

    def weights_copy(self, index: int) -> Path:
        """What a worker keeps for its engine."""
        return self.engines / str(index)

    @property
    def redis(self) -> Path:
        return self.path / "redis"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def result(self) -> Path:
        return self.path / "hf"

    @property
    def lock(self) -> Path:
        return self.path / LOCK

    @property
    def folders(self) -> tuple[Path, ...]:
        """What is a folder, if it is there."""
        own = (self.data, self.weights, self.engines, self.redis, self.logs, self.checkpoints, self.result)
        return (*own, self.path / "tensorboard")

    @property
    def files(self) -> tuple[Path, ...]:
        """What is a file, if it is there."""
        return (self.recipe, self.metrics, self.path / journal.SAMPLES, self.path / journal.TIMELINE)


@dataclass(frozen=True)
class Ports:
    """A TCP port for every listening process of the run."""

    redis: int
    reward: int
    engines: tuple[int, ...]
    workers: tuple[int, ...]
    learner: int

    def named(self) -> dict[str, int]:
        """Service name -> port, for messages and checks."""
        engines = {f"engine-{i}": port for i, port in enumerate(self.engines)}
        workers = {f"rollout-{i}": port for i, port in enumerate(self.workers)}
        return {"redis": self.redis, "reward": self.reward, **engines, **workers, "learner": self.learner}

    @classmethod
    def from_base(cls, base: int, engines: int) -> "Ports":
        """Consecutive ports from `base`: Redis, reward service, engines, workers, learner."""
        return cls.of(range(base, base + cls.count(engines)), engines)

    @classmethod
    def of(cls, numbers: Sequence[int], engines: int) -> "Ports":
        """`count(engines)` numbers, in the order of `from_base`."""
        redis, reward, *others, learner = numbers
        return cls(redis, reward, tuple(others[:engines]), tuple(others[engines:]), learner)

    @staticmethod
    def count(engines: int) -> int:
        """How many ports a run with so many engines needs."""
        return 3 + 2 * engines


@dataclass(frozen=True)
class Options:
    """What `golongrl train` was asked for beyond the recipe.

    Attributes:
        redis_url: an outside Redis, without its password.
        password: of the Redis in use.
        temporary: the folder for temporary files of all processes.
    """

    run: str
    folder: RunFolder
    ports: Ports
    model: Path
    engine: EngineKind = "embedded"
    sglang_venv: Path = Path(".venv-sglang")
    redis_url: str | None = None
    password: str | None = None
    temporary: Path | None = None

    @property
    def queue_url(self) -> str:
        """The outside Redis, or the run's own; without a password."""
        return self.redis_url or f"redis://{HOST}:{self.ports.redis}/0"

    @property
    def reward_url(self) -> str:
        return f"http://{HOST}:{self.ports.reward}"

    def engine_url(self, index: int) -> str:
        return f"http://{HOST}:{self.ports.engines[index]}"


def threads(recipe: Recipe, engines: int, cores: int) -> int:
    """Compute threads for one engine or rank, so that they never outnumber the cores (at least one each)."""
    return max(1, cores // (engines + recipe.learner.ranks))


def environment(options: Options, thread_count: int) -> dict[str, str]:
    """Environment of every service."""
    return {
        FOLDER_VARIABLE: str(options.folder.path),
        GIVEN_VARIABLE: ",".join([*given_away(), *map(str, options.ports.named().values())]),
        # For the lines and spans of those that are not told it otherwise.
        "GOLONGRL_RUN": options.run,
        # Ray's sessions, locks and sockets: one folder, which the supervisor removes at the end.
        **({"TMPDIR": str(options.temporary)} if options.temporary else {}),
        # Spinning OpenMP threads would starve the other processes of the machine.
        "OMP_NUM_THREADS": str(thread_count),
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # A file such as `random.py` in the folder where the run is started must not take the place of Python's own.
        "PYTHONSAFEPATH": "1",
        "RAY_DEDUP_LOGS": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def traces_environment(recipe: Recipe) -> dict[str, str]:
    """Where every service sends spans, if anywhere."""
    endpoint = endpoint_of(recipe.telemetry.otlp_endpoint)
    return {ENDPOINT: endpoint} if endpoint else {}


def queue_environment(options: Options) -> dict[str, str]:
    """What a process that talks to Redis needs beyond `environment`."""
    return {PASSWORD_VARIABLE: options.password} if options.password else {}


def golongrl(*arguments: str | Path | float) -> tuple[str, ...]:
    """A `golongrl ...` command line run by this interpreter."""
    return (sys.executable, "-m", "golongrl", *map(str, arguments))


def reward(options: Options, recipe: Recipe) -> tuple[str, ...]:
    """The reward service."""
    return golongrl(
        "reward", "serve", "--host", HOST, "--port", options.ports.reward, "--workers", 1,
        "--deadline", recipe.reward.deadline_s,
    )  # fmt: skip


def engine(options: Options, recipe: Recipe, index: int) -> tuple[str, ...]:
    """The embedded engine, or the real SGLang server on CPU."""
    port = options.ports.engines[index]
    if options.engine == "embedded":
        return golongrl(
            "engine", "--model-path", options.model, "--host", HOST, "--port", port,
            "--context-length", recipe.model.context_length, "--seed", recipe.seed + index,
        )  # fmt: skip
    concurrent = recipe.rollout.concurrent_groups * recipe.rollout.n
    return (
        str(options.sglang_venv / "bin" / "python"), "-m", "sglang.launch_server",
        "--model-path", str(options.model), "--host", HOST, "--port", str(port),
        *SGLANG_ON_CPU, "--enable-metrics",
        "--dtype", recipe.model.dtype, "--context-length", str(recipe.model.context_length),
        "--max-running-requests", str(concurrent), "--max-total-tokens", str(concurrent * recipe.model.context_length),
        "--random-seed", str(recipe.seed + index), *sglang_tracing(recipe, options.sglang_venv),
    )  # fmt: skip


def sglang_tracing(recipe: Recipe, venv: Path) -> tuple[str, ...]:
    """SGLang's own spans, where spans are sent and its environment has what it sends them with."""
    endpoint = endpoint_of(recipe.telemetry.otlp_endpoint)
    exporters = "lib/python*/site-packages/opentelemetry/exporter/otlp/proto"
    if not endpoint or not all(any(venv.glob(f"{exporters}/{kind}/__init__.py")) for kind in ("grpc", "http")):
        return ()
    return ("--enable-trace", "--otlp-traces-endpoint", traces_url(endpoint))


def engine_environment(kind: EngineKind, index: int) -> Mapping[str, str]:
    """What the engine needs beyond `environment`."""
    if kind == "embedded":
        return {}
    return {
        "SGLANG_USE_CPU_ENGINE": "1",
        # One core for each server, or all of them would sit on the first.
        "SGLANG_CPU_OMP_THREADS_BIND": str(index % cores()),
        # Else /health generates, and hangs while the engine is paused.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        "HF_HUB_OFFLINE": "1",
        # As the other processes send theirs; SGLang's default is gRPC.
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    }


def rollout(options: Options, index: int) -> tuple[str, ...]:
    """The worker beside engine `index`."""
    folder = options.folder
    return golongrl(
        "rollout", "--recipe", folder.recipe, "--run", options.run, "--redis-url", options.queue_url,
        "--engine-url", options.engine_url(index), "--reward-url", options.reward_url, "--data", folder.data,
        "--worker", f"rollout-{index}", "--host", HOST, "--port", options.ports.workers[index],
        "--weights-copy", folder.weights_copy(index),
    )  # fmt: skip


def learner(options: Options) -> tuple[str, ...]:
    """The learner; Ray and the ranks are its own."""
    folder = options.folder
    return golongrl(
        "learner", "--recipe", folder.recipe, "--run", options.run, "--redis-url", options.queue_url,
        "--data", folder.data, "--weights", folder.weights, "--out", folder.path,
        "--host", HOST, "--port", options.ports.learner,
    )  # fmt: skip


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
