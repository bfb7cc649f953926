"""Engines that an evaluation starts for weights, and ends: the embedded one, or SGLang.

Invariants: an engine never outlives this process, however that ends; before the first question the engine's rotary
frequencies are compared with those that the model and its YaRN profile ask for, because a wrong one writes garbage
without an error.
"""

import asyncio
import importlib.util
import json
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from golongrl import bounded_http, files, ports
from golongrl.data.model_config import CONFIG, checked_file, json_object
from golongrl.errors import GolongrlError, writing_to
from golongrl.evaluation import yarn
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.run.points import Point
from golongrl.evaluation.suite import TargetSection
from golongrl.local import plan as local_plan
from golongrl.local.process import Service, ServiceSpec, last_words
from golongrl.restart import describe_exit

# Loading 60 GB of weights from a slow volume, and compiling.
_START_S: Final = 1800.0
_STOP_S: Final = 15.0
_PROBE_S: Final = 5.0
# What it says about itself, at an endpoint that may be far away.
_TOLD_S: Final = 30.0
# Requests of whole contexts that SGLang holds at a time on a CPU.
_CPU_REQUESTS: Final = 8
# Merging the shards of a checkpoint reads all of it.
_MERGE_S: Final = 3600.0


class EngineStartError(GolongrlError):
    """An engine did not start; the message has its last words and its log."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How an engine is started for a model: in which context, with which rope."""

    folder: Path
    context: int
    profile: yarn.YarnProfile | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's folder and what its config says."""

    folder: Path
    config: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Weights":
        """Raises DataError where there is no config.json of a model."""
        return cls(folder, checked_file(folder / CONFIG, CONFIG))

    @property
    def native(self) -> int:
        return yarn.native_context(self.config, str(self.folder / "config.json"))

    def launch(self, context: int, *, scaled: bool) -> Launch:
        """The launch for benchmarks of this context; without scaling, at most the native one."""
        where = str(self.folder / "config.json")
        profile = yarn.profile(self.config, context, where) if scaled else None
        return Launch(self.folder, context if profile else min(context, self.native), profile)


async def merged(point: Point, into: Path, logs: Path) -> Path:
    """The Hugging Face folder of a point; a checkpoint's shards are merged once, by verl's own tool.

    Raises:
        EngineStartError: the merge failed.
    """
    assert point.folder is not None
    if not point.shards:
        return point.folder
    done = into / point.name
    if not (done / "config.json").is_file():
        staging = into / f".{point.name}.tmp"
        shutil.rmtree(staging, ignore_errors=True)
        arguments = ("--backend", "fsdp", "--local_dir", str(point.folder), "--target_dir", str(staging))
        argv = (sys.executable, "-m", "verl.model_merger", "merge", *arguments)
        spec = ServiceSpec(f"merge-{point.name}", argv, _never, _MERGE_S, _STOP_S)
        service = await Service.start(spec, logs)
        try:
            async with asyncio.timeout(_MERGE_S):
                code = await service.wait()
        except TimeoutError:
            code = 1
        finally:
            await service.stop()
        if code:
            raise EngineStartError(
                f"merging the checkpoint {point.folder} failed: {last_words(service.last_lines())}; see {service.log}"
            )
        with writing_to(str(done)):
            files.follow_umask(staging)
            staging.replace(done)
    return done


async def _never() -> bool:
    return False


def kind_of(settings: TargetSection) -> str:
    """`embedded` or `sglang`, for `auto` by what this machine has."""
    if settings.engine != "auto":
        return settings.engine
    has_gpu = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
    return "sglang" if has_gpu and _sglang_python(settings) else "embedded"


def _sglang_python(settings: TargetSection) -> str | None:
    for name in ("python", "python3"):
        beside = Path(settings.sglang_venv) / "bin" / name
        if beside.is_file():
            return str(beside)
    return sys.executable if importlib.util.find_spec("sglang") else None


def command(launch: Launch, settings: TargetSection, port: int, home: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command line of the engine, and what its environment needs.

    Raises:
        EvaluationError: SGLang is asked for and not installed.
    """
    more = settings.engine_arguments
    if kind_of(settings) == "embedded":
        folder = launch.folder if launch.profile is None else _scaled_folder(launch, home)
        words = local_plan.golongrl(
            "engine", "--model-path", folder, "--host", local_plan.HOST, "--port", port,
            "--context-length", launch.context, *more,
        )  # fmt: skip
        return words, {"OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}
    python = _sglang_python(settings)
    if python is None:
        raise EvaluationError(
            f"target.engine: SGLang is not installed, neither in {settings.sglang_venv} nor beside this program; "
            "see `make sglang`, or set target.engine=embedded"
        )
    lengths = launch.profile.sglang_flags() if launch.profile else ["--context-length", str(launch.context)]
    gpu = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()
    device = ["--tp-size", str(settings.gpus)] if gpu else _on_cpu(launch.context)
    words = (
        python, "-m", "sglang.launch_server", "--model-path", str(launch.folder), "--host", local_plan.HOST,
        "--port", str(port), "--enable-metrics", *lengths, *device, *more,
    )  # fmt: skip
    return words, dict(local_plan.engine_environment("sglang", 0)) if not gpu else {}


def _on_cpu(context: int) -> list[str]:
    """SGLang's flags without a GPU. Its cache is bounded: by itself it takes most of the machine's memory."""
    tokens = str(_CPU_REQUESTS * context)
    return [*local_plan.SGLANG_ON_CPU, "--max-running-requests", str(_CPU_REQUESTS), "--max-total-tokens", tokens]


def _scaled_folder(launch: Launch, home: Path) -> Path:
    """The model's folder with the profile in its config.json; the weights are links."""
    assert launch.profile is not None
    folder = home / f"yarn-{launch.context}"
    with writing_to(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        for file in launch.folder.iterdir():
            link = folder / file.name
            if file.is_file() and file.name != "config.json" and not link.exists():
                link.symlink_to(file.resolve())
        config = {**json_object(launch.folder / "config.json"), **launch.profile.override}
        # Older names of what the override says; a reader may prefer them.
        config.pop("rope_scaling", None)
        files.write_text(folder / "config.json", json.dumps(config, indent=2))
    return folder


@asynccontextmanager
async def started(launch: Launch, settings: TargetSection, home: Path, name: str) -> AsyncIterator[str]:
    """The URL of an engine that serves the weights inside the context.

    Raises:
        EngineStartError: it did not come up.
        EvaluationError: its rotary frequencies are not those of the model and profile.
    """
    (port,) = ports.unused(1)
    argv, environment = command(launch, settings, port, home)
    url = f"http://{local_plan.HOST}:{port}"
    async with httpx.AsyncClient(timeout=_PROBE_S, trust_env=False) as http:

        async def ready() -> bool:
            try:
                return (await bounded_http.get(http, f"{url}/health", _PROBE_S)).is_success
            except httpx.HTTPError:
                return False

        spec = ServiceSpec(name, argv, ready, _START_S, _STOP_S, environment)
        service = await Service.start(spec, home)
        try:
            if not await service.until_ready():
                late = f"no answer in {service.deadline.s:g} s"
                how = late if service.alive else describe_exit(await service.wait())
                words = last_words(service.last_lines())
                raise EngineStartError(
                    f"the engine for {launch.folder} did not start ({how}): {words}; see {service.log}"
                )
            await check_rope(f"{url}/v1", http, launch)
            yield f"{url}/v1"
        finally:
            # Also where this task was cancelled: a second Ctrl-C must not leave the engine behind.
            await asyncio.shield(service.stop())


async def check_rope(url: str, http: httpx.AsyncClient, launch: Launch) -> bool:
    """Compare a server's rotary frequencies with those of a launch; False where the server does not tell them.

    Raises:
        EvaluationError: they differ.
    """
    config = json_object(launch.folder / "config.json")
    expected = yarn.rotary_of({**config, **(launch.profile.override if launch.profile else {})}, str(launch.folder))
    root = url.removesuffix("/v1")
    told = await _answer(http, f"{root}/server_info") | await _answer(http, f"{root}/rotary_embedding")
    found = _rotary_of_server(told, config)
    if found is None:
        return False
    yarn.check(expected, found, f"the engine at {url}")
    return True


async def _answer(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """What a server says there; nothing if it says nothing that can be read."""
    try:
        answer = await bounded_http.get(http, url, _TOLD_S)
    except httpx.HTTPError:
        return {}
    found = bounded_http.parsed(answer) if answer.is_success else {}
    return found if isinstance(found, dict) else {}


def _rotary_of_server(info: Mapping[str, Any], config: Mapping[str, Any]) -> yarn.Rotary | None:
    """The embedded engine tells its model's own frequencies; SGLang what it sets over the model's config."""
    match info.get("rotary"):
        case {"inv_freq": [*frequencies], "attention_factor": float(factor)}:
            return yarn.Rotary(tuple(frequencies), factor)
    override = info.get("json_model_override_args")
    if not isinstance(override, str):
        return None
    try:
        return yarn.rotary_of({**config, **json.loads(override or "{}")}, "json_model_override_args")
    except ValueError:
        return None


def contexts(wanted: Sequence[int], native: int) -> dict[int, bool]:
    """The contexts to start engines with, for benchmarks that want these, each with whether it needs scaling.

    One engine without scaling serves all that fit the native context; each longer one has its own.
    """
    inside = [context for context in wanted if context <= native]
    return {**({max(inside): False} if inside else {}), **{c: True for c in sorted(set(wanted)) if c > native}}
