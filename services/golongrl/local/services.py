"""The services of a run on one machine: what is started, how it is known to be ready, and how it is known to hang."""

from dataclasses import dataclass

import httpx
import redis.asyncio as aioredis

from golongrl import bounded_http
from golongrl.local import plan, redis_server
from golongrl.local.health import Liveness
from golongrl.local.plan import Options
from golongrl.local.process import ServiceSpec
from golongrl.local.supervisor import Stage
from golongrl.recipe import Recipe
from golongrl.telemetry.watchdog import UNANSWERED_S

MAIN = "learner"
# What takes the learner's place in a pool that only rolls out.
DRIVER = "driver"
# A readiness probe that takes longer counts as "not yet"; the next one comes soon.
PROBE_TIMEOUT_S = 2.0
# Of a liveness probe: an answer that takes longer is a missed one.
_ALIVE_S = 5.0
# Importing torch, verl and Ray at the same time on a small, busy machine takes a minute; SGLang compiles at its start.
# One that is at work may take longer (`StartDeadline`).
START_DEADLINE_S = 300.0
SGLANG_START_DEADLINE_S = 900.0
# Asynchronous training is as fast as its slowest part: on few cores the learner, while engines have time to spare.
ENGINE_NICE = 5
# The reward service and an engine have nothing to finish: what they held is asked for again.
SERVICE_GRACE_S = 15.0
# A worker finishes the groups it holds before it ends; a learner finishes its step.
WORKER_GRACE_S = 20.0
LEARNER_GRACE_S = 45.0
# The learner imports verl and starts Ray after its first answer, and may not answer for long on a busy machine.
LEARNER_LIVENESS = Liveness(failures=24)
LEARNER_SILENT_S = 12.0


def stages(
    recipe: Recipe,
    options: Options,
    redis_command: tuple[str, ...],
    http: httpx.AsyncClient,
    server: "aioredis.Redis",
    driver: tuple[str, ...] = (),
) -> list[Stage]:
    """The run's services in starting order.

    Args:
        redis_command: of the run's own Redis; not used with an outside one.
        server: a client of the run's Redis, without retries of its own.
        driver: the command line of a process that takes the groups in the learner's place, and ends when it has all.
    """
    count = len(options.ports.engines)
    common = plan.environment(options, plan.threads(recipe, count, plan.cores())) | plan.traces_environment(recipe)
    with_queue = {**common, **plan.queue_environment(options)}
    scoring = _Asked(http, f"{options.reward_url}/readyz", f"{options.reward_url}/healthz")
    reward = scoring.service("reward", plan.reward(options, recipe), common)
    engines = [_engine(i, recipe, options, common, http) for i in range(count)]
    workers = [
        _Asked.at_port(http, options.ports.workers[i]).service(
            f"rollout-{i}", plan.rollout(options, i), with_queue, grace=WORKER_GRACE_S
        )
        for i in range(count)
    ]
    if driver:
        main = _driver(driver, with_queue)
    else:
        main = _Asked.at_port(http, options.ports.learner).service(
            MAIN,
            plan.learner(options),
            with_queue,
            grace=LEARNER_GRACE_S,
            liveness=LEARNER_LIVENESS,
            silent_s=LEARNER_SILENT_S,
        )
    redis = _redis(redis_command, common, options, server)
    return [*redis, Stage((reward, *engines)), Stage((*workers, main))]


@dataclass(frozen=True)
class _Asked:
    """Where a service is asked whether it is ready, and whether it is alive."""

    http: httpx.AsyncClient
    ready: str
    alive: str

    @classmethod
    def at_port(cls, http: httpx.AsyncClient, port: int) -> "_Asked":
        """Of a service that is ready as soon as it is alive."""
        url = f"http://{plan.HOST}:{port}/healthz"
        return cls(http, url, url)

    def service(
        self,
        name: str,
        command: tuple[str, ...],
        env: dict[str, str],
        *,
        start: float = START_DEADLINE_S,
        grace: float = SERVICE_GRACE_S,
        nice: int = 0,
        liveness: Liveness = Liveness(),  # noqa: B008 (frozen)
        silent_s: float = UNANSWERED_S,
    ) -> ServiceSpec:
        path = "/" + self.alive.rpartition("/")[2]
        return ServiceSpec(
            name=name,
            argv=command,
            probe=self._is_ready,
            start_deadline_s=start,
            stop_grace_s=grace,
            env=env,
            nice=nice,
            lives=self._is_alive,
            asked=f"GET {path}",
            liveness=liveness,
            silent_s=silent_s,
        )

    async def _is_ready(self) -> bool:
        answer = await self._get(self.ready, PROBE_TIMEOUT_S)
        return answer is not None and answer.is_success

    async def _is_alive(self) -> bool:
        """Whatever answers, be it that it is not ready, does not hang."""
        return await self._get(self.alive, _ALIVE_S) is not None

    async def _get(self, url: str, timeout_s: float) -> httpx.Response | None:
        try:
            return await bounded_http.get(self.http, url, timeout_s)
        except httpx.HTTPError:
            return None


def _engine(
    index: int, recipe: Recipe, options: Options, common: dict[str, str], http: httpx.AsyncClient
) -> ServiceSpec:
    health = f"{options.engine_url(index)}/health"
    return _Asked(http, health, health).service(
        f"engine-{index}",
        plan.engine(options, recipe, index),
        {**common, **plan.engine_environment(options.engine, index)},
        start=START_DEADLINE_S if options.engine == "embedded" else SGLANG_START_DEADLINE_S,
        nice=ENGINE_NICE,
    )


def _redis(
    command: tuple[str, ...], env: dict[str, str], options: Options, server: "aioredis.Redis"
) -> tuple[Stage, ...]:
    """The run's own server, which the others wait for; none where an outside one is used."""
    if options.redis_url:
        return ()
    redis = ServiceSpec(
        "redis",
        command,
        lambda: redis_server.answers(server),
        START_DEADLINE_S,
        env=env,
        lives=lambda: redis_server.lives(server),
        asked="PING",
        explain=lambda lines: redis_server.damage(lines, options.folder.redis),
    )
    return (Stage((redis,), gate=True),)


def _driver(command: tuple[str, ...], env: dict[str, str]) -> ServiceSpec:
    """The driver waits by itself for all that it needs, so it counts as ready at once."""

    async def ready() -> bool:
        return True

    return ServiceSpec(DRIVER, command, ready, START_DEADLINE_S, env=env)
