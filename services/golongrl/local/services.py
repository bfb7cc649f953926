"""The services of a run on one machine: what is started, how it is known to be ready, and how it is known to hang."""

from collections.abc import Awaitable, Callable

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
START_DEADLINE_S = 300.0
SGLANG_START_DEADLINE_S = 900.0
# Asynchronous training is as fast as its slowest part: on few cores the learner, while engines have time to spare.
ENGINE_NICE = 5
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

    def get(url: str, *, ready: bool) -> Callable[[], Awaitable[bool]]:
        async def probe() -> bool:
            try:
                answer = await bounded_http.get(http, url, PROBE_TIMEOUT_S if ready else _ALIVE_S)
            except httpx.HTTPError:
                return False
            # Whatever answers, be it that it is not ready, does not hang.
            return answer.is_success if ready else True

        return probe

    def service(
        name: str,
        command: tuple[str, ...],
        ready: str,
        alive: str,
        *,
        start: float = START_DEADLINE_S,
        grace: float = 15.0,
        env: dict[str, str] = common,
        nice: int = 0,
        liveness: Liveness = Liveness(),  # noqa: B008 (frozen)
        silent_s: float = UNANSWERED_S,
    ) -> ServiceSpec:
        path = "/" + alive.rpartition("/")[2]
        return ServiceSpec(
            name, command, get(ready, ready=True), start, grace, env, nice,
            get(alive, ready=False), f"GET {path}", liveness, silent_s=silent_s,
        )  # fmt: skip

    reward = service(
        "reward", plan.reward(options, recipe), f"{options.reward_url}/readyz", f"{options.reward_url}/healthz"
    )
    engines = tuple(
        service(
            f"engine-{i}",
            plan.engine(options, recipe, i),
            f"{options.engine_url(i)}/health",
            f"{options.engine_url(i)}/health",
            start=START_DEADLINE_S if options.engine == "embedded" else SGLANG_START_DEADLINE_S,
            nice=ENGINE_NICE,
            env={**common, **plan.engine_environment(options.engine, i)},
        )
        for i in range(count)
    )
    workers = tuple(
        service(
            f"rollout-{i}",
            plan.rollout(options, i),
            f"http://{plan.HOST}:{options.ports.workers[i]}/healthz",
            f"http://{plan.HOST}:{options.ports.workers[i]}/healthz",
            grace=WORKER_GRACE_S,
            env=with_queue,
        )
        for i in range(count)
    )
    first = [*_redis(redis_command, common, options, server), Stage((reward, *engines))]
    if driver:
        return [*first, Stage((*workers, _driver(driver, with_queue)))]
    address = f"http://{plan.HOST}:{options.ports.learner}/healthz"
    learner = service(
        MAIN,
        plan.learner(options),
        address,
        address,
        grace=LEARNER_GRACE_S,
        env=with_queue,
        liveness=LEARNER_LIVENESS,
        silent_s=LEARNER_SILENT_S,
    )
    return [*first, Stage((*workers, learner))]


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
